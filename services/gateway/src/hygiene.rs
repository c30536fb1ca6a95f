//! What holds for every request and answer, whatever they are about.

use std::{
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Instant,
};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use holdfast_platform::telemetry::trace::{TRACEPARENT, Trace};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use ipnet::IpNet;
use tracing::Instrument;
use uuid::Uuid;

use crate::{Gateway, problems::Problem, server::ClientAddress};

/// Names this request in logs and in what the client reports to us.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Each hop adds at the end whom it was asked by.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

const REQUEST_ID_MAX_CHARS: usize = 128;

/// A body this small has come with its head, or is read to its end besides.
const UNREAD_MAX_BYTES: u64 = 8 * 1024;

/// Headers by which services talk among themselves. From a client they are lies.
const INTERNAL_PREFIX: &str = "x-holdfast-";

/// Who may say which trace a request belongs to, what it is called and whose it is: proxies of our own, by the networks
/// they stand in.
/// From others it would let anybody write under another's name.
#[derive(Debug, Clone, Default)]
pub(crate) struct TrustedHops(Arc<[IpNet]>);

#[rustfmt::skip]
const SECURITY_HEADERS: [(HeaderName, &str); 6] = [
    (header::STRICT_TRANSPORT_SECURITY, "max-age=63072000; includeSubDomains"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Strips what clients must not say, puts the request in a trace, answers panics and bare failures as problems, adds the
/// headers of every answer.
pub(crate) async fn keep(
    State(gateway): State<Gateway>,
    mut request: Request,
    next: Next,
) -> Response {
    let trusted = gateway.trusted_hops.trusts(&request);
    let trace = if trusted {
        Trace::from_headers(request.headers())
    } else {
        Trace::begin()
    };
    let named = request_id(request.headers()).filter(|_| trusted);
    let client = gateway.trusted_hops.client(request.headers());
    if let Some(client) = client.filter(|_| trusted) {
        request.extensions_mut().insert(ClientAddress(client));
    }
    strip_internal(request.headers_mut());
    let may_leave_body = may_leave_body(&request);
    let id = named.unwrap_or_else(|| Uuid::now_v7().to_string());
    let span = tracing::info_span!(
        "request",
        id,
        method = %request.method(),
        path = request.uri().path(),
        trace_id = %trace.id(),
    );
    let answered = AssertUnwindSafe(trace.scope(next.run(request))).catch_unwind();
    let mut response = match answered.instrument(span).await {
        Ok(response) => as_problem(response),
        Err(_panic) => Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR).into_response(),
    };
    if may_leave_body && !response.status().is_success() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::try_from(id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(TRACEPARENT, trace.to_header());
    for (name, value) in SECURITY_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // What is not said to be public is somebody's own.
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

impl TrustedHops {
    pub(crate) fn new(networks: &[IpNet]) -> Self {
        Self(networks.into())
    }

    /// Whether a hop of ours is at this address, so that it is not its client's.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        // An IPv4 peer of an IPv6 socket is still that peer.
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whom trusted hops pass on: the last address they name that is none of theirs.
    fn client(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let lines = headers.get_all(FORWARDED_FOR).into_iter().rev();
        lines
            .flat_map(|line| line.to_str().unwrap_or_default().rsplit(','))
            // What stands before something unreadable was not written by a hop of ours.
            .map_while(forwarded_for)
            .find(|address| !self.contains(*address))
    }

    /// Whether a request comes from a trusted hop.
    fn trusts(&self, request: &Request) -> bool {
        let hop = request.extensions().get::<ClientAddress>();
        hop.is_some_and(|ClientAddress(address)| self.contains(*address))
    }
}

/// Counts and times a request under its route's template, never its path.
pub(crate) async fn measure(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(String::new, |path| path.as_str().to_owned());
    let method = request.method().to_string();
    let response = next.run(request).await;
    metrics::histogram!(
        "http_server_request_duration_seconds",
        "method" => method,
        "route" => route,
        "status" => response.status().as_u16().to_string(),
    )
    .record(begun.elapsed());
    response
}

/// The id that the headers give a request, if it is one that can stand in a log.
fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let fits = (1..=REQUEST_ID_MAX_CHARS).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    fits.then(|| id.to_owned())
}

/// An address, which some proxies give with its port.
fn forwarded_for(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let address = text.parse::<SocketAddr>().map(|address| address.ip());
    address.or_else(|_| text.parse()).ok()
}

/// Whether a refusal may leave so much of the body unread that the connection has to end: who is told so does not send the
/// next request into its closing.
fn may_leave_body(request: &Request) -> bool {
    if request.version() > Version::HTTP_11 {
        return false;
    }
    let headers = request.headers();
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    headers.contains_key(header::TRANSFER_ENCODING)
        || announced.is_some_and(|bytes| bytes > UNREAD_MAX_BYTES)
}

fn strip_internal(headers: &mut HeaderMap) {
    let internal: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(INTERNAL_PREFIX) || *name == TRACEPARENT)
        .cloned()
        .collect();
    for name in internal {
        headers.remove(name);
    }
}

/// The framework's own refusals, which have a status and a text at most, become problems too.
fn as_problem(response: Response) -> Response {
    let failed = response.status().is_client_error() || response.status().is_server_error();
    let told = response.headers().get(header::CONTENT_TYPE) == Some(&Problem::CONTENT_TYPE);
    if failed && !told {
        return Problem::of_status(response.status()).into_response();
    }
    response
}
