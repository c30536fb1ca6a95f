//! The one form in which a service refuses or fails: who must act, a stable reason, a text for people, figures.
//!
//! A fault crosses process borders as a gRPC status with `google.rpc.ErrorInfo`. The gateway turns the reason into an
//! HTTP status and code by one table; the gRPC code alone never decides.

use std::{borrow::Cow, collections::HashMap, error::Error, fmt, sync::Arc, time::Duration};

use serde_json::{Map, Value};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Who must act so that the call can succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultCode {
    /// The caller: this request can never succeed as it is.
    Invalid,
    /// The caller: what is named does not exist, or not for them.
    NotFound,
    /// The caller: the state of things forbids it now.
    Conflict,
    /// The caller: it must say who it is.
    Unauthenticated,
    /// Nobody: this caller may not.
    Forbidden,
    /// The caller: slow down or hold less.
    Exhausted,
    /// Time: asking again later may succeed.
    Unavailable,
    /// Us: a defect. The text for people says nothing of it.
    Internal,
}

/// Items of `errors` that one fault carries at most; a status travels in headers, which are bounded.
pub const FAULT_MAX_ITEMS: usize = 50;

/// Longest text of a fault. It travels in a header, and a header that is too long is lost with all that it says.
const TEXT_MAX_CHARS: usize = 400;

const DOMAIN: &str = "holdfast";
const ITEMS: &str = "errors";

/// A refusal or failure.
#[derive(Debug, Clone)]
pub struct Fault {
    code: FaultCode,
    reason: Cow<'static, str>,
    text: String,
    figures: HashMap<String, String>,
    items: Vec<Value>,
    retry_after: Option<Duration>,
    /// Shared: many may wait for what failed once.
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

impl Fault {
    /// A fault with a stable `REASON` and a text for people: lower case, no full stop, what was got, what is wanted.
    pub fn new(code: FaultCode, reason: &'static str, text: impl Into<String>) -> Self {
        Self {
            code,
            reason: Cow::Borrowed(reason),
            text: bounded(text.into()),
            figures: HashMap::new(),
            items: Vec::new(),
            retry_after: None,
            cause: None,
        }
    }

    /// A field of the request that cannot be taken.
    pub fn invalid(field: impl Into<String>, text: impl fmt::Display) -> Self {
        let field = field.into();
        let text = bounded(text.to_string());
        Self::new(
            FaultCode::Invalid,
            "INVALID_ARGUMENT",
            format!("{field}: {text}"),
        )
        .item([
            ("field", Value::from(field)),
            ("message", Value::from(text)),
        ])
    }

    /// A defect of ours; the cause is logged where the fault is answered and told to nobody.
    pub fn internal(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let mut fault = Self::new(FaultCode::Internal, "INTERNAL", "the service failed");
        fault.cause = Some(Arc::from(cause.into()));
        fault
    }

    /// Something this service needs is away; the cause is logged, the caller may ask again.
    pub fn unavailable(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let mut fault = Self::new(
            FaultCode::Unavailable,
            "UNAVAILABLE",
            "the service cannot answer now, ask again",
        );
        fault.cause = Some(Arc::from(cause.into()));
        fault
    }

    /// Adds a figure that programs may read, such as `order_id`.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.figures.insert(name.to_owned(), value.to_string());
        self
    }

    /// Adds one entry of `errors`, such as a short SKU with what was asked and what is left; beyond
    /// [`FAULT_MAX_ITEMS`] entries are dropped.
    #[must_use]
    pub fn item<'a>(mut self, members: impl IntoIterator<Item = (&'a str, Value)>) -> Self {
        if self.items.len() < FAULT_MAX_ITEMS {
            let object: Map<String, Value> = members
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect();
            self.items.push(Value::Object(object));
        }
        self
    }

    /// Says how long to wait before asking again.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Who must act.
    pub fn code(&self) -> FaultCode {
        self.code
    }

    /// The stable name of the refusal.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The text for people.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A figure by name.
    pub fn figure(&self, name: &str) -> Option<&str> {
        self.figures.get(name).map(String::as_str)
    }

    /// All figures, in the order of their names.
    pub fn figures(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut figures: Vec<_> = self
            .figures
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        figures.sort_unstable();
        figures.into_iter()
    }

    /// The entries of `errors`.
    pub fn items(&self) -> &[Value] {
        &self.items
    }

    /// How long to wait before asking again, where the service said so.
    pub fn wait(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether asking again, unchanged, may succeed.
    pub fn is_transient(&self) -> bool {
        self.code == FaultCode::Unavailable
    }

    /// Reads the fault back from a peer's status. A status without details keeps its meaning as far as its code tells.
    pub fn from_status(status: &Status) -> Self {
        let code = match status.code() {
            Code::InvalidArgument | Code::OutOfRange => FaultCode::Invalid,
            Code::NotFound => FaultCode::NotFound,
            Code::FailedPrecondition | Code::AlreadyExists | Code::Aborted => FaultCode::Conflict,
            Code::Unauthenticated => FaultCode::Unauthenticated,
            Code::PermissionDenied => FaultCode::Forbidden,
            Code::ResourceExhausted => FaultCode::Exhausted,
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => FaultCode::Unavailable,
            Code::Ok | Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => {
                FaultCode::Internal
            }
        };
        let details = status.get_error_details();
        let info = details.error_info();
        let mut figures = info.map_or_else(HashMap::new, |info| info.metadata.clone());
        let items = figures
            .remove(ITEMS)
            .and_then(|json| serde_json::from_str(&json).ok())
            .unwrap_or_default();
        Self {
            code,
            reason: Cow::Owned(
                info.map_or_else(|| default_reason(code).to_owned(), |i| i.reason.clone()),
            ),
            text: status.message().to_owned(),
            figures,
            items,
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
            cause: None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.text)
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        if let Some(cause) = &fault.cause {
            tracing::error!(reason = %fault.reason, cause = %Chain(cause.as_ref()), "request failed");
        }
        let mut figures = fault.figures;
        if !fault.items.is_empty() {
            figures.insert(ITEMS.to_owned(), Value::Array(fault.items).to_string());
        }
        let mut details = ErrorDetails::with_error_info(fault.reason, DOMAIN, figures);
        if fault.retry_after.is_some() {
            details.set_retry_info(fault.retry_after);
        }
        Status::with_error_details(grpc_code(fault.code), fault.text, details)
    }
}

/// A text as it may travel: of a long one the middle is left out, for what was got stands before what is wanted.
fn bounded(text: String) -> String {
    let chars = text.chars().count();
    if chars <= TEXT_MAX_CHARS {
        return text;
    }
    let end = TEXT_MAX_CHARS / 2;
    let head: String = text.chars().take(end).collect();
    let tail: String = text.chars().skip(chars - end).collect();
    format!("{head}…{tail}")
}

const fn grpc_code(code: FaultCode) -> Code {
    match code {
        FaultCode::Invalid => Code::InvalidArgument,
        FaultCode::NotFound => Code::NotFound,
        FaultCode::Conflict => Code::FailedPrecondition,
        FaultCode::Unauthenticated => Code::Unauthenticated,
        FaultCode::Forbidden => Code::PermissionDenied,
        FaultCode::Exhausted => Code::ResourceExhausted,
        FaultCode::Unavailable => Code::Unavailable,
        FaultCode::Internal => Code::Internal,
    }
}

const fn default_reason(code: FaultCode) -> &'static str {
    match code {
        FaultCode::Invalid => "INVALID_ARGUMENT",
        FaultCode::NotFound => "NOT_FOUND",
        FaultCode::Conflict => "CONFLICT",
        FaultCode::Unauthenticated => "UNAUTHENTICATED",
        FaultCode::Forbidden => "FORBIDDEN",
        FaultCode::Exhausted => "TOO_MANY_REQUESTS",
        FaultCode::Unavailable => "UNAVAILABLE",
        FaultCode::Internal => "INTERNAL",
    }
}

impl From<sqlx::Error> for Fault {
    /// What passes (a lost connection, a full pool, a lost race) is `UNAVAILABLE`; everything else is a defect.
    fn from(error: sqlx::Error) -> Self {
        let passes = match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            sqlx::Error::Database(answer) => answer.code().is_some_and(|code| {
                TRANSIENT_SQLSTATES
                    .iter()
                    .any(|transient| code.starts_with(transient))
            }),
            _ => false,
        };
        if passes {
            Self::unavailable(error)
        } else {
            Self::internal(error)
        }
    }
}

/// SQLSTATE classes and codes that another try may not meet: connection, serialization, deadlock, lock and statement
/// time-outs, resources, operator intervention (a restart), read-only after a failover.
const TRANSIENT_SQLSTATES: [&str; 7] = ["08", "40", "53", "55P03", "57", "58", "25006"];

/// An error with everything that caused it, on one line.
struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            write!(f, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_keeps_its_ends_and_arrives() {
        let got = "x".repeat(100_000);
        let sent = Fault::invalid("kind", format!("got {got}, wanted good"));
        let received = Fault::from_status(&Status::from(sent));
        assert_eq!(received.items()[0]["field"], "kind");
        let text = received.items()[0]["message"].as_str().expect("a text");
        assert!(text.starts_with("got xxx") && text.ends_with("xxx, wanted good"));
        assert!(text.chars().count() <= TEXT_MAX_CHARS + 1);
    }

    #[test]
    fn a_fault_crosses_a_process_border_whole() {
        let sent = Fault::new(
            FaultCode::Conflict,
            "OUT_OF_STOCK",
            "sku A: 3 asked, 1 left",
        )
        .with("order_id", "ord_1")
        .item([("sku", Value::from("A")), ("available", Value::from(1))])
        .retry_after(Duration::from_secs(2));
        let got = Fault::from_status(&Status::from(sent));
        assert_eq!(got.code(), FaultCode::Conflict);
        assert_eq!(got.reason(), "OUT_OF_STOCK");
        assert_eq!(got.text(), "sku A: 3 asked, 1 left");
        assert_eq!(got.figure("order_id"), Some("ord_1"));
        assert_eq!(got.items()[0]["available"], 1);
        assert_eq!(got.wait(), Some(Duration::from_secs(2)));
    }

    #[test]
    fn the_cause_of_a_defect_is_told_to_nobody() {
        let status = Status::from(Fault::internal("password column has 3 bytes"));
        assert_eq!(status.code(), Code::Internal);
        assert!(!format!("{status:?}").contains("password"));
    }

    #[test]
    fn a_fault_keeps_a_bounded_number_of_entries() {
        let mut fault = Fault::new(FaultCode::Conflict, "OUT_OF_STOCK", "much is short");
        for entry in 0..2 * FAULT_MAX_ITEMS {
            fault = fault.item([("line", Value::from(entry))]);
        }
        assert_eq!(fault.items().len(), FAULT_MAX_ITEMS);
    }
}
