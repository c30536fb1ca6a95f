//! The pages of this door: a landing page until the app is there, the API's description for programs and for people, what
//! problems mean.

use axum::{
    Router,
    extract::Path,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use http::{HeaderValue, header};
use utoipa::openapi::OpenApi;

use crate::{
    Gateway,
    error::GatewayError,
    problems::{Problem, REASONS, TYPE_BASE},
};

const INDEX: &str = include_str!("../../static/index.html");
const DOCS: &str = include_str!("../../static/docs.html");
const ASSETS: [(&str, &str, &str); 4] = [
    (
        "shop.css",
        "text/css; charset=utf-8",
        include_str!("../../static/shop.css"),
    ),
    (
        "shop.js",
        "text/javascript; charset=utf-8",
        include_str!("../../static/shop.js"),
    ),
    (
        "docs.css",
        "text/css; charset=utf-8",
        include_str!("../../static/docs.css"),
    ),
    (
        "docs.js",
        "text/javascript; charset=utf-8",
        include_str!("../../static/docs.js"),
    ),
];
const REVALIDATED: HeaderValue = HeaderValue::from_static("no-cache");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(super) fn routes(openapi: &OpenApi) -> Router<Gateway> {
    let openapi = openapi.to_json().expect("a generated document is JSON");
    let openapi = Bytes::from(openapi);
    Router::new()
        .route("/", get(async || page(INDEX)))
        .route("/docs", get(async || page(DOCS)))
        .route("/assets/{file}", get(asset))
        .route(&format!("{TYPE_BASE}{{code}}"), get(problem))
        .route("/openapi.json", get(async move || described(openapi)))
}

fn page(text: &'static str) -> Response {
    ([(header::CACHE_CONTROL, REVALIDATED)], Html(text)).into_response()
}

async fn asset(Path(wanted): Path<String>) -> Result<Response, Problem> {
    let (_, kind, text) = ASSETS
        .iter()
        .find(|(name, ..)| *name == wanted)
        .ok_or_else(|| GatewayError::NoRoute {
            path: format!("/assets/{wanted}"),
        })?;
    let kind = HeaderValue::from_static(kind);
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, REVALIDATED),
    ];
    Ok((headers, *text).into_response())
}

fn described(openapi: Bytes) -> Response {
    let headers = [
        (header::CONTENT_TYPE, JSON),
        (header::CACHE_CONTROL, REVALIDATED),
    ];
    (headers, openapi).into_response()
}

/// Explains a problem's type.
async fn problem(Path(code): Path<String>) -> Result<String, Problem> {
    let reason = REASONS
        .iter()
        .find(|reason| reason.code == code)
        .ok_or_else(|| GatewayError::NoRoute {
            path: format!("{TYPE_BASE}{code}"),
        })?;
    Ok(format!(
        "{} ({})\n\n{}\n",
        reason.code, reason.status, reason.title
    ))
}
