//! The routes: a file a resource, a handler a route, each decoding, calling and encoding.

mod categories;
mod description;
mod events;
mod examples;
mod health;
mod inventory;
mod issuer;
mod notifications;
mod orders;
mod payments;
mod products;
mod reviews;
mod shape;
mod site;
mod users;
mod vouchers;
mod webhooks;

use axum::{Router, extract::Request, middleware, response::Response};
use http::{HeaderMap, header};
use utoipa_axum::router::OpenApiRouter;

use crate::{
    Gateway, Peers, access,
    error::GatewayError,
    hygiene, limits,
    problems::{Problem, ProblemShape},
};

/// Every route behind its table, and what holds for all of them.
pub(crate) fn router(gateway: Gateway) -> Router {
    let (routes, documented) = routes().split_for_parts();
    let (openapi, _) = description::document(documented);
    routes
        .merge(site::routes(&openapi))
        .route_layer(middleware::from_fn_with_state(
            gateway.clone(),
            limits::bound,
        ))
        .route_layer(middleware::from_fn_with_state(
            gateway.clone(),
            access::admit,
        ))
        .route_layer(middleware::from_fn(hygiene::measure))
        .fallback(nowhere)
        .layer(middleware::from_fn_with_state(
            gateway.clone(),
            hygiene::keep,
        ))
        .with_state(gateway)
}

fn routes() -> OpenApiRouter<Gateway> {
    #[derive(utoipa::OpenApi)]
    #[openapi(components(schemas(ProblemShape)))]
    struct Shared;
    let shared = <Shared as utoipa::OpenApi>::openapi();
    OpenApiRouter::with_openapi(shared)
        .merge(health::routes())
        .merge(issuer::routes())
        .merge(users::routes())
        .merge(products::routes())
        .merge(reviews::routes())
        .merge(categories::routes())
        .merge(events::routes())
        .merge(inventory::routes())
        .merge(orders::routes())
        .merge(vouchers::routes())
        .merge(notifications::routes())
        .merge(payments::routes())
        .merge(webhooks::routes())
}

async fn nowhere(request: Request) -> Problem {
    let path = request
        .uri()
        .path()
        .chars()
        .take(PATH_SHOWN_CHARS)
        .collect();
    GatewayError::NoRoute { path }.into()
}

/// Of a path, in a refusal.
pub(crate) const PATH_SHOWN_CHARS: usize = 200;

/// Longest list of languages that is passed on, in characters; browsers send a few dozen.
const LANGUAGES_MAX_CHARS: usize = 256;

/// What every handler answers.
type Answer = Result<Response, Problem>;

/// A part of a peer's answer that its contract promises.
fn promised<T>(part: Option<T>, peer: &'static str, what: &'static str) -> Result<T, Problem> {
    Ok(part.ok_or(GatewayError::EmptyAnswer { peer, what })?)
}

/// The languages that the client reads, as it named them; empty where it named none.
fn languages(headers: &HeaderMap) -> String {
    headers
        .get(header::ACCEPT_LANGUAGE)
        .and_then(|value| value.to_str().ok())
        .map(|text| text.chars().take(LANGUAGES_MAX_CHARS).collect())
        .unwrap_or_default()
}
