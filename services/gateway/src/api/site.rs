//! The pages of this door: a landing page until the app is there, the API's description for programs and for people, what
//! problems mean. Whoever has a page already is told so instead of being sent it again.

use std::sync::Arc;

use axum::{
    Router,
    extract::Path,
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};
use utoipa::openapi::OpenApi;

use crate::{
    Gateway,
    error::GatewayError,
    problems::{Problem, REASONS, TYPE_BASE},
};

const REVALIDATED: HeaderValue = HeaderValue::from_static("no-cache");
const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

const PAGES: [(&str, &str); 2] = [
    ("/", include_str!("../../static/index.html")),
    ("/docs", include_str!("../../static/docs.html")),
];
#[rustfmt::skip]
const ASSETS: [(&str, &str, &str); 4] = [
    ("shop.css", CSS, include_str!("../../static/shop.css")),
    ("shop.js", SCRIPT, include_str!("../../static/shop.js")),
    ("docs.css", CSS, include_str!("../../static/docs.css")),
    ("docs.js", SCRIPT, include_str!("../../static/docs.js")),
];

/// What stays the same as long as the process lives.
#[derive(Clone)]
struct File {
    kind: HeaderValue,
    /// Names the content.
    tag: HeaderValue,
    content: Bytes,
}

pub(super) fn routes(openapi: &OpenApi) -> Router<Gateway> {
    let openapi = openapi.to_json().expect("a generated document is JSON");
    let openapi = File::new("application/json", openapi.into());
    let assets = ASSETS.map(|(name, kind, text)| (name, File::new(kind, text.into())));
    let mut routes = Router::new()
        .route("/openapi.json", only(openapi))
        .route("/assets/{file}", one_of(assets.into()))
        .route(&format!("{TYPE_BASE}{{code}}"), get(problem));
    for (path, text) in PAGES {
        routes = routes.route(path, only(File::new(HTML, text.into())));
    }
    routes
}

fn only(file: File) -> MethodRouter<Gateway> {
    get(async move |headers: HeaderMap| file.sent_to(&headers))
}

fn one_of(files: Arc<[(&'static str, File)]>) -> MethodRouter<Gateway> {
    get(
        async move |Path(wanted): Path<String>, headers: HeaderMap| {
            let found = files.iter().find(|(name, _)| *name == wanted);
            let path = format!("/assets/{wanted}");
            let (_, file) = found.ok_or(GatewayError::NoRoute { path })?;
            Ok::<_, Problem>(file.sent_to(&headers))
        },
    )
}

impl File {
    fn new(kind: &'static str, content: Bytes) -> Self {
        let hash: [u8; 32] = Sha256::digest(&content).into();
        let (tag, _) = hash.split_first_chunk().expect("a hash has 32 bytes");
        let tag = u128::from_be_bytes(*tag);
        Self {
            kind: HeaderValue::from_static(kind),
            tag: HeaderValue::try_from(format!("\"{tag:032x}\"")).expect("hex digits are ASCII"),
            content,
        }
    }

    /// The file, or that it is the one the client has.
    fn sent_to(&self, headers: &HeaderMap) -> Response {
        let kept = [
            (header::CACHE_CONTROL, REVALIDATED),
            (header::ETAG, self.tag.clone()),
        ];
        if self.is_known(headers) {
            return (StatusCode::NOT_MODIFIED, kept).into_response();
        }
        let kind = [(header::CONTENT_TYPE, self.kind.clone())];
        (kept, kind, self.content.clone()).into_response()
    }

    /// Whether `If-None-Match` names it. Proxies that compress make a tag weak; it is the same content.
    fn is_known(&self, headers: &HeaderMap) -> bool {
        headers
            .get_all(header::IF_NONE_MATCH)
            .into_iter()
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == self.tag.as_bytes())
    }
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
