//! The documents by which others verify our access tokens.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use holdfast_proto::auth::v1::GetKeysRequest;
use http::{HeaderMap, HeaderValue, header, uri::Authority};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Answer;
use crate::{Gateway, error::GatewayError, problems::Problem, reply::Reply};

pub(super) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(configuration))
        .routes(routes!(keys))
}

/// How long others may keep the keys. A new key is published for twice as long before it signs anything.
const KEYS_PUBLIC: HeaderValue = HeaderValue::from_static("public, max-age=300");
const JWK_SET: HeaderValue = HeaderValue::from_static("application/jwk-set+json");

/// OpenID Connect Discovery 1.0, as far as this issuer goes: it signs access tokens.
#[derive(Serialize, ToSchema)]
struct Configuration {
    issuer: String,
    jwks_uri: String,
    token_endpoint: String,
    response_types_supported: [&'static str; 1],
    subject_types_supported: [&'static str; 1],
    id_token_signing_alg_values_supported: [&'static str; 1],
}

/// Names the issuer and where its keys are.
#[utoipa::path(get, path = "/.well-known/openid-configuration", tag = "identity", responses((status = 200, body = Configuration)))]
async fn configuration(
    State(gateway): State<Gateway>,
    headers: HeaderMap,
) -> Result<Reply, Problem> {
    let base = public_url(&gateway, &headers)?;
    Ok(Reply::ok(&Configuration {
        issuer: gateway.context.verifier.issuer().to_owned(),
        jwks_uri: format!("{base}/.well-known/jwks.json"),
        token_endpoint: format!("{base}/v1/users/login"),
        response_types_supported: ["token"],
        subject_types_supported: ["public"],
        id_token_signing_alg_values_supported: ["EdDSA"],
    }))
}

/// The public keys that access tokens are verified with (RFC 7517).
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "identity",
    responses((status = 200, content_type = "application/jwk-set+json", body = serde_json::Value)))]
async fn keys(State(gateway): State<Gateway>) -> Answer {
    let keys = gateway
        .peers
        .auth
        .clone()
        .get_keys(GetKeysRequest {})
        .await?;
    let headers = [
        (header::CONTENT_TYPE, JWK_SET),
        (header::CACHE_CONTROL, KEYS_PUBLIC),
    ];
    let response: Response = (headers, keys.into_inner().jwks).into_response();
    Ok(response)
}

/// Where clients find this door: as the settings say, else as this client addressed it.
fn public_url(gateway: &Gateway, headers: &HeaderMap) -> Result<String, GatewayError> {
    if !gateway.public_url.is_empty() {
        return Ok(gateway.public_url.to_string());
    }
    let host = headers
        .get(header::HOST)
        .and_then(|value| value.to_str().ok()?.parse::<Authority>().ok())
        .ok_or_else(|| GatewayError::Field {
            field: "host".to_owned(),
            text: "wanted the name of this server".to_owned(),
        })?;
    Ok(format!("http://{host}"))
}
