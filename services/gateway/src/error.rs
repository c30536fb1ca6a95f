//! How this service refuses of itself; what its peers refuse passes through it unchanged.

use std::time::Duration;

use holdfast_platform::fault::{Fault, FaultCode};
use serde_json::Value;

/// Everything that can go wrong here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GatewayError {
    #[error("there is nothing at {path}")]
    NoRoute { path: String },
    #[error("{method} is not done here; allowed: {allow}")]
    Method { method: String, allow: String },
    #[error("no bearer token, or one that is not valid any more; log in")]
    Unauthenticated,
    #[error("this account may not do that")]
    Forbidden,
    #[error("the body is larger than {max_bytes} bytes")]
    BodyTooLarge { max_bytes: usize },
    #[error("the body did not arrive within {secs} s")]
    BodyTooSlow { secs: u64 },
    #[error("the body broke off")]
    BodyBroken,
    #[error("content-type: got {got:?}, wanted application/json")]
    MediaType { got: String },
    #[error("content-encoding: got {got:?}, wanted none")]
    ContentEncoding { got: String },
    #[error("the body is not JSON: {text}")]
    MalformedJson { text: String },
    #[error("{field}: {text}")]
    Field { field: String, text: String },
    #[error("{field}: {what} are not offered yet, leave it out")]
    NotAvailable {
        field: &'static str,
        what: &'static str,
    },
    #[error("this request needs the header idempotency-key, 1 to 255 visible ASCII characters")]
    KeyRequired,
    #[error("idempotency-key: wanted one value of 1 to 255 visible ASCII characters")]
    KeyInvalid,
    #[error("this idempotency key was used for another request")]
    KeyReused,
    #[error("a request with this idempotency key is still being worked on")]
    InProgress,
    #[error("too many requests are being worked on")]
    TooManyRunning,
    #[error("this request needs the header if-match with the etag of what it changes")]
    IfMatchRequired,
    #[error("if-match: got {got:?}, wanted the etag as it was given, such as \"7\"")]
    IfMatchInvalid { got: String },
    #[error("too many requests, wait {} s", .wait.as_secs())]
    RateLimited { wait: Duration },
    #[error("{peer} answered without {what}")]
    EmptyAnswer {
        peer: &'static str,
        what: &'static str,
    },
    #[error("a reply could not be {what}")]
    Reply { what: &'static str },
    #[error("a request's work ended without an answer: {0}")]
    WorkLost(#[from] tokio::task::JoinError),
}

/// How long to wait before asking again after a request that is still running.
const IN_PROGRESS_WAIT: Duration = Duration::from_secs(1);

impl From<GatewayError> for Fault {
    fn from(error: GatewayError) -> Self {
        use FaultCode::{
            Conflict, Exhausted, Forbidden, Invalid, NotFound, Unauthenticated, Unavailable,
        };
        let text = error.to_string();
        match error {
            GatewayError::NoRoute { .. } => Fault::new(NotFound, "NOT_FOUND", text),
            GatewayError::Method { .. } => Fault::new(Invalid, "METHOD_NOT_ALLOWED", text),
            GatewayError::Unauthenticated => Fault::new(Unauthenticated, "UNAUTHENTICATED", text),
            GatewayError::Forbidden => Fault::new(Forbidden, "FORBIDDEN", text),
            GatewayError::BodyTooLarge { .. } => Fault::new(Invalid, "BODY_TOO_LARGE", text),
            GatewayError::BodyTooSlow { .. } => Fault::new(Invalid, "BODY_TOO_SLOW", text),
            GatewayError::BodyBroken | GatewayError::MalformedJson { .. } => {
                Fault::new(Invalid, "MALFORMED_BODY", text)
            }
            GatewayError::MediaType { .. } | GatewayError::ContentEncoding { .. } => {
                Fault::new(Invalid, "UNSUPPORTED_MEDIA_TYPE", text)
            }
            GatewayError::Field { field, text } => Fault::invalid(field, text),
            GatewayError::NotAvailable { field, .. } => {
                Fault::new(Invalid, "NOT_AVAILABLE", text).item([("field", Value::from(field))])
            }
            GatewayError::KeyRequired => Fault::new(Invalid, "IDEMPOTENCY_KEY_REQUIRED", text),
            GatewayError::KeyInvalid => Fault::new(Invalid, "IDEMPOTENCY_KEY_INVALID", text),
            GatewayError::KeyReused => Fault::new(Invalid, "IDEMPOTENCY_KEY_REUSED", text),
            GatewayError::InProgress => {
                Fault::new(Conflict, "IDEMPOTENCY_IN_PROGRESS", text).retry_after(IN_PROGRESS_WAIT)
            }
            GatewayError::TooManyRunning => Fault::new(Unavailable, "UNAVAILABLE", text),
            GatewayError::IfMatchRequired => Fault::new(Invalid, "PRECONDITION_REQUIRED", text),
            GatewayError::IfMatchInvalid { .. } => Fault::invalid("if-match", text),
            GatewayError::RateLimited { wait } => {
                Fault::new(Exhausted, "TOO_MANY_REQUESTS", text).retry_after(wait)
            }
            GatewayError::EmptyAnswer { .. }
            | GatewayError::Reply { .. }
            | GatewayError::WorkLost(_) => Fault::internal(error),
        }
    }
}
