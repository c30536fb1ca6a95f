//! Accounts, sessions and one's own profile.

mod accounts;
mod addresses;
mod export;
mod sessions;

use axum::{Extension, extract::State, response::IntoResponse};
use holdfast_platform::identity::{Caller, Claims};
use holdfast_proto::{auth::v1 as auth_pb, users::v1 as users_pb};
use http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Answer, languages, promised,
    shape::{moment, told},
};
use crate::{
    Gateway, decode::Json, error::GatewayError, precondition::ExpectedIfAny, problems::Problem,
    reply::Reply, server::ClientAddress,
};

pub(super) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(register))
        .routes(routes!(login))
        .routes(routes!(refresh))
        .routes(routes!(logout))
        .routes(routes!(my_profile, change_my_profile))
        .routes(routes!(change_my_password))
        .merge(sessions::routes())
        .merge(accounts::routes())
        .merge(addresses::routes())
        .merge(export::routes())
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Registration {
    #[schema(example = "ada@example.com", format = Email, max_length = 254)]
    email: String,
    #[schema(min_length = 8, max_length = 256)]
    password: String,
    #[schema(example = "Ada Lovelace", min_length = 1, max_length = 100)]
    name: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Credentials {
    #[schema(example = "ada@example.com", format = Email, max_length = 254)]
    email: String,
    #[schema(max_length = 256)]
    password: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RefreshToken {
    refresh_token: String,
}

/// What is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ProfileChange {
    #[schema(example = "Ada King", min_length = 1, max_length = 100)]
    name: Option<String>,
    /// The language of mail and notifications: `en` or `ja`.
    #[schema(example = "ja", pattern = "^(en|ja)$")]
    locale: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PasswordChange {
    #[schema(max_length = 256)]
    current: String,
    #[schema(min_length = 8, max_length = 256)]
    new: String,
}

/// Who somebody is.
#[derive(Serialize, ToSchema)]
struct User {
    #[schema(example = "usr_01jd3q8m5ze2vtx0c9k4h7n6wb")]
    id: String,
    email: String,
    name: String,
    /// `user`, `staff` or `admin`.
    role: String,
    /// The language of mail and notifications, `en` or `ja`; null: none was named.
    #[schema(example = "en")]
    locale: Option<String>,
    created_at: String,
}

/// A session's tokens.
#[derive(Serialize, ToSchema)]
struct Tokens {
    access_token: String,
    token_type: &'static str,
    /// Seconds.
    expires_in: i64,
    refresh_token: String,
    /// Seconds.
    refresh_expires_in: i64,
}

/// Makes an account. No token comes with it: log in. The language of `Accept-Language` becomes the profile's.
#[utoipa::path(post, path = "/v1/users/register", tag = "identity", request_body = Registration,
    params(("accept-language" = Option<String>, Header)), responses((status = 201, body = User)))]
async fn register(
    State(gateway): State<Gateway>,
    headers: HeaderMap,
    Json(asked): Json<Registration>,
) -> Answer {
    let request = auth_pb::RegisterRequest {
        email: asked.email,
        password: asked.password,
        name: asked.name,
        languages: languages(&headers),
    };
    let answer = gateway
        .peers
        .auth
        .clone()
        .register(request)
        .await?
        .into_inner();
    let account = promised(answer.account, "auth", "the account")?;
    let user = User {
        created_at: moment(account.created_at.as_ref(), "auth")?,
        id: account.id,
        email: account.email,
        name: account.name,
        role: account.role,
        locale: told(account.locale),
    };
    Ok(Reply::created(&user, "/v1/users/me").into_response())
}

/// Opens a session.
#[utoipa::path(post, path = "/v1/users/login", tag = "identity", request_body = Credentials, responses((status = 200, body = Tokens)))]
async fn login(
    State(gateway): State<Gateway>,
    address: Option<Extension<ClientAddress>>,
    headers: HeaderMap,
    Json(asked): Json<Credentials>,
) -> Result<Reply, Problem> {
    let agent = headers.get(header::USER_AGENT);
    // A proxy's address is that of all its clients, and none of theirs.
    let address = address
        .map(|Extension(ClientAddress(address))| address.to_canonical())
        .filter(|address| !gateway.trusted_hops.contains(*address));
    let request = auth_pb::LoginRequest {
        email: asked.email,
        password: asked.password,
        user_agent: agent.map_or_else(String::new, |agent| {
            String::from_utf8_lossy(agent.as_bytes()).into_owned()
        }),
        client_address: address.map_or_else(String::new, |address| address.to_string()),
    };
    let answer = gateway
        .peers
        .auth
        .clone()
        .login(request)
        .await?
        .into_inner();
    tokens(answer.tokens)
}

/// Gives new tokens for a refresh token, which is spent.
#[utoipa::path(post, path = "/v1/users/refresh", tag = "identity", request_body = RefreshToken, responses((status = 200, body = Tokens)))]
async fn refresh(
    State(gateway): State<Gateway>,
    Json(asked): Json<RefreshToken>,
) -> Result<Reply, Problem> {
    let request = auth_pb::RefreshRequest {
        refresh_token: asked.refresh_token,
    };
    let answer = gateway
        .peers
        .auth
        .clone()
        .refresh(request)
        .await?
        .into_inner();
    tokens(answer.tokens)
}

/// Ends the session of the token that was sent.
#[utoipa::path(post, path = "/v1/users/logout", tag = "identity", responses((status = 204)))]
async fn logout(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
) -> Result<Reply, Problem> {
    let request = caller.request(auth_pb::LogoutRequest {});
    gateway.peers.auth.clone().logout(request).await?;
    Ok(Reply::nothing())
}

/// Shows one's own profile; its ETag is what `If-Match` compares when it is changed.
#[utoipa::path(get, path = "/v1/users/me", tag = "identity", responses((status = 200, body = User)))]
async fn my_profile(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
) -> Result<Reply, Problem> {
    let claims = logged_in(&caller)?;
    let request = caller.request(users_pb::GetProfileRequest {
        user_id: claims.sub.to_string(),
    });
    let answer = gateway
        .peers
        .users
        .clone()
        .get_profile(request)
        .await?
        .into_inner();
    profile(answer.profile, claims)
}

/// Changes one's own profile; with `If-Match` only if it is still as it was read.
#[utoipa::path(patch, path = "/v1/users/me", tag = "identity", request_body = ProfileChange,
    params(("if-match" = Option<String>, Header, description = "the ETag it was read with")), responses((status = 200, body = User)))]
async fn change_my_profile(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    ExpectedIfAny(expected): ExpectedIfAny,
    Json(asked): Json<ProfileChange>,
) -> Result<Reply, Problem> {
    let claims = logged_in(&caller)?;
    let request = caller.request(users_pb::UpdateProfileRequest {
        user_id: claims.sub.to_string(),
        name: asked.name,
        expected_version: expected,
        locale: asked.locale,
    });
    let answer = gateway
        .peers
        .users
        .clone()
        .update_profile(request)
        .await?
        .into_inner();
    profile(answer.profile, claims)
}

/// Gives one another password and ends all other sessions.
#[utoipa::path(put, path = "/v1/users/me/password", tag = "identity", request_body = PasswordChange, responses((status = 204)))]
async fn change_my_password(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Json(asked): Json<PasswordChange>,
) -> Result<Reply, Problem> {
    let request = caller.request(auth_pb::ChangePasswordRequest {
        current: asked.current,
        new: asked.new,
    });
    let changing = gateway.peers.auth.clone().change_password(request).await;
    changing.map_err(|refused| Problem::from(refused).calling("password", "new"))?;
    Ok(Reply::nothing())
}

fn logged_in(caller: &Caller) -> Result<&Claims, GatewayError> {
    caller.claims().ok_or(GatewayError::Unauthenticated)
}

fn profile(profile: Option<users_pb::Profile>, claims: &Claims) -> Result<Reply, Problem> {
    let profile = promised(profile, "users", "the profile")?;
    let user = User {
        created_at: moment(profile.created_at.as_ref(), "users")?,
        id: profile.user_id,
        email: profile.email,
        name: profile.name,
        role: claims.role.as_str().to_owned(),
        locale: told(profile.locale),
    };
    Ok(Reply::ok(&user).tagged(profile.version))
}

fn tokens(tokens: Option<auth_pb::Tokens>) -> Result<Reply, Problem> {
    let tokens = promised(tokens, "auth", "tokens")?;
    Ok(Reply::ok(&Tokens {
        access_token: tokens.access_token,
        token_type: "Bearer",
        expires_in: tokens.expires_in,
        refresh_token: tokens.refresh_token,
        refresh_expires_in: tokens.refresh_expires_in,
    }))
}
