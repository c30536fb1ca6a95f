//! What a client is told when something is refused or fails: RFC 9457 problems, from one table.

use axum::response::{IntoResponse, Response};
use holdfast_platform::fault::Fault;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::error::GatewayError;

/// What a service's reason becomes at this door.
#[derive(Debug)]
pub struct Reason {
    /// As services say it: `OUT_OF_STOCK`.
    pub reason: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// As clients read it: `out_of_stock`. Several reasons may share one.
    pub code: &'static str,
    /// What it means, for people; the same for every occurrence.
    pub title: &'static str,
}

const fn reason(
    reason: &'static str,
    status: u16,
    code: &'static str,
    title: &'static str,
) -> Reason {
    Reason {
        reason,
        status,
        code,
        title,
    }
}

/// Every reason there is. One that is missing here is answered as a defect of ours, and logged.
#[rustfmt::skip]
pub const REASONS: &[Reason] = &[
    // any service
    reason("INVALID_ARGUMENT", 422, "invalid_argument", "The request cannot be taken as it is."),
    reason("NOT_FOUND", 404, "not_found", "There is nothing here."),
    reason("CONFLICT", 409, "conflict", "The state of things forbids this now."),
    reason("UNAUTHENTICATED", 401, "unauthenticated", "A valid bearer token is needed."),
    reason("FORBIDDEN", 403, "forbidden", "This account may not do this."),
    reason("TOO_MANY_REQUESTS", 429, "too_many_requests", "Too many requests in a short time."),
    reason("UNAVAILABLE", 503, "unavailable", "The service cannot answer now; ask again."),
    reason("BUSY", 429, "busy", "Too many ask this at once; ask again."),
    reason("INTERNAL", 500, "internal", "The service failed."),
    reason("IDEMPOTENCY_KEY_REUSED", 422, "idempotency_key_reused", "The idempotency key was used for another request."),
    reason("IDEMPOTENCY_IN_PROGRESS", 409, "idempotency_in_progress", "The first request with this idempotency key is still running."),
    reason("INVALID_TRANSITION", 409, "invalid_transition", "Its status does not allow this."),
    reason("NOT_AVAILABLE", 422, "not_available", "This is not offered."),
    reason("CURRENCY_MIXED", 422, "currency_mixed", "One purchase or product has one currency."),
    // the gateway itself
    reason("METHOD_NOT_ALLOWED", 405, "method_not_allowed", "This method is not done here."),
    reason("MALFORMED_BODY", 400, "malformed_body", "The body cannot be read."),
    reason("BODY_TOO_LARGE", 413, "body_too_large", "The body is too large."),
    reason("BODY_TOO_SLOW", 408, "body_too_slow", "The body did not arrive in time."),
    reason("UNSUPPORTED_MEDIA_TYPE", 415, "unsupported_media_type", "Bodies are JSON."),
    reason("IDEMPOTENCY_KEY_REQUIRED", 400, "idempotency_key_required", "This request needs an idempotency key."),
    reason("IDEMPOTENCY_KEY_INVALID", 400, "idempotency_key_invalid", "The idempotency key cannot be taken."),
    reason("PRECONDITION_REQUIRED", 428, "precondition_required", "This request needs an If-Match header."),
    // auth
    reason("EMAIL_TAKEN", 409, "email_taken", "This e-mail has an account already."),
    reason("WEAK_PASSWORD", 422, "weak_password", "The password is too easily guessed."),
    reason("INVALID_CREDENTIALS", 401, "invalid_credentials", "E-mail or password are wrong."),
    reason("REFRESH_INVALID", 401, "refresh_invalid", "The refresh token is not valid; log in."),
    reason("REFRESH_REUSED", 401, "refresh_reused", "The refresh token was used before; its session is ended."),
    reason("WRONG_PASSWORD", 422, "wrong_password", "The current password is wrong."),
    reason("OWN_ACCOUNT", 409, "own_account", "Nobody does this to the own account."),
    reason("OWNERS_ACCOUNT", 409, "owners_account", "Nobody changes the account under which the machine's owner acts."),
    reason("UNKNOWN_SESSION", 404, "unknown_session", "There is no such session."),
    // users
    reason("UNKNOWN_USER", 404, "unknown_user", "There is no such user."),
    reason("PRODUCT_CHANGED", 412, "precondition_failed", "It has changed since it was read."),
    reason("UNKNOWN_ADDRESS", 404, "unknown_address", "There is no such address."),
    reason("TOO_MANY_ADDRESSES", 409, "too_many_addresses", "No more addresses are kept."),
    reason("ADDRESS_CHANGED", 412, "precondition_failed", "It has changed since it was read."),
    reason("PROFILE_CHANGED", 412, "precondition_failed", "It has changed since it was read."),
    // catalog
    reason("UNKNOWN_PRODUCT", 404, "unknown_product", "There is no such product."),
    reason("UNKNOWN_CATEGORY", 404, "unknown_category", "There is no such category."),
    reason("CATEGORY_EXISTS", 409, "category_exists", "There is a category of this slug already."),
    reason("CATEGORY_CHANGED", 412, "precondition_failed", "It has changed since it was read."),
    reason("CATEGORY_CYCLE", 409, "category_cycle", "A category cannot hang below itself."),
    reason("CATEGORY_TREE_FULL", 409, "category_tree_full", "The tree of categories has no room there."),
    reason("CATEGORY_IN_USE", 409, "category_in_use", "Products or categories hang on this category."),
    reason("UNKNOWN_VARIANT", 404, "unknown_variant", "The product has no such variant."),
    reason("LAST_VARIANT", 409, "last_variant", "A product keeps its last variant."),
    reason("SKU_TAKEN", 409, "sku_taken", "Another product has this SKU."),
    // reviews
    reason("UNKNOWN_REVIEW", 404, "unknown_review", "There is no such review."),
    reason("NOT_A_BUYER", 403, "not_a_buyer", "Only what was delivered can be reviewed."),
    reason("ALREADY_REVIEWED", 409, "already_reviewed", "A product is reviewed once."),
    reason("REVIEW_CHANGED", 412, "precondition_failed", "It has changed since it was read."),
    reason("REVIEW_REMOVED", 409, "review_removed", "Staff removed this review."),
    // events
    reason("UNKNOWN_EVENT", 404, "unknown_event", "There is no such event."),
    reason("EVENT_CHANGED", 412, "precondition_failed", "It has changed since it was read."),
    reason("LAYOUT_CHANGED", 412, "precondition_failed", "It has changed since it was read."),
    reason("EVENT_PUBLISHED", 409, "event_published", "What a published event sells stays as it is."),
    reason("EVENT_CANCELLED", 409, "event_cancelled", "The event was cancelled."),
    reason("EVENT_INCOMPLETE", 409, "event_incomplete", "The event lacks something to be published."),
    // inventory
    reason("UNKNOWN_POOL", 404, "unknown_pool", "Nothing of that key is kept in stock."),
    reason("MOVEMENTS_NOT_KEPT", 410, "movements_not_kept", "The past that was asked for is not kept any more."),
    reason("POOL_EXISTS", 409, "pool_exists", "The key is kept in stock already."),
    reason("CAPACITY_CHANGED", 412, "precondition_failed", "It has changed since it was read."),
    reason("BELOW_COMMITTED", 409, "below_committed", "Less than what is held and sold."),
    reason("REQUEST_MISMATCH", 422, "idempotency_key_reused", "The idempotency key was used for another request."),
    reason("LEDGER_FULL", 503, "ledger_full", "The ledger has too much to do; ask again."),
    reason("INSUFFICIENT_UNITS", 409, "insufficient_units", "Not enough units are available."),
    reason("TOO_MANY_HOLDS", 429, "too_many_holds", "This account holds too much at once."),
    reason("TOO_MANY_LINES", 422, "too_many_lines", "Too many lines in one basket."),
    reason("UNKNOWN_HOLD", 404, "unknown_hold", "There is no such hold."),
    reason("HOLD_ENDED", 409, "hold_ended", "The hold has ended."),
    reason("HOLD_MISMATCH", 409, "hold_mismatch", "The hold was made for something else."),
    reason("HOLD_COMMITTED", 409, "hold_committed", "The hold's units are sold."),
    reason("HOLD_NOT_COMMITTED", 409, "hold_not_committed", "The hold's units are not sold."),
    reason("RETURN_EXCEEDS_SOLD", 409, "return_exceeds_sold", "More than was sold and not given back."),
    // notifications
    reason("UNKNOWN_NOTIFICATION", 404, "unknown_notification", "There is no such notification."),
    // orders
    reason("UNKNOWN_ORDER", 404, "unknown_order", "There is no such order."),
    reason("OUT_OF_STOCK", 409, "out_of_stock", "Not enough is in stock."),
    reason("UNKNOWN_SKU", 422, "unknown_sku", "There is no such SKU for sale."),
    reason("UNKNOWN_ITEM", 422, "unknown_item", "The order has no such item."),
    reason("PAYMENT_DECLINED", 402, "payment_declined", "The payment was declined."),
    reason("INSUFFICIENT_POINTS", 409, "insufficient_points", "There are not so many points."),
    reason("REFUND_EXCEEDS_CAPTURED", 409, "refund_exceeds_captured", "More than was paid and not given back."),
    reason("VOUCHER_UNKNOWN", 422, "voucher_unknown", "The order names a code that is no voucher."),
    reason("VOUCHER_NOT_VALID", 422, "voucher_not_valid", "The voucher is not valid for this order now."),
    reason("VOUCHER_USED_UP", 409, "voucher_used_up", "The voucher has no use left."),
    reason("UNKNOWN_VOUCHER", 404, "unknown_voucher", "There is no such voucher."),
    reason("VOUCHER_EXISTS", 409, "voucher_exists", "There is a voucher of this code already."),
    reason("VOUCHER_CHANGED", 412, "precondition_failed", "It has changed since it was read."),
    // payments
    reason("UNKNOWN_PAYMENT", 404, "unknown_payment", "There is no such payment."),
    reason("PAYMENT_METHOD_INVALID", 422, "payment_method_invalid", "The payment method cannot be charged."),
    // webhooks
    reason("UNKNOWN_WEBHOOK", 404, "unknown_webhook", "There is no such webhook."),
    reason("UNKNOWN_MESSAGE", 404, "unknown_message", "There is no such message."),
    reason("UNKNOWN_MESSAGE_TYPE", 422, "unknown_message_type", "No message has this type."),
    reason("TOO_MANY_WEBHOOKS", 409, "too_many_webhooks", "There are as many webhooks as there may be."),
    reason("WEBHOOK_DISABLED", 409, "webhook_disabled", "Nothing is sent to a disabled webhook."),
    reason("TOO_MANY_MESSAGES", 422, "too_many_messages", "More messages than are sent again at once."),
    reason("MESSAGES_NOT_KEPT", 410, "messages_not_kept", "The messages after this place are not kept any more."),
    // between services: a client that meets one has met a defect
    reason("STALE_EPOCH", 500, "internal", "The service failed."),
    reason("STEP_UNDONE", 500, "internal", "The service failed."),
];

/// Names of a fault's figures that are numbers to clients; all others are texts.
#[rustfmt::skip]
const NUMBERS: &[&str] = &[
    "asked", "available", "blocked", "capacity", "capacity_version", "captured", "expected", "held", "left", "limit",
    "lines", "overbook", "refunded", "requested", "sold", "version",
];

/// Members that a figure must not take the place of.
const RESERVED: &[&str] = &[
    "type",
    "title",
    "status",
    "detail",
    "instance",
    "code",
    "errors",
    "retry_after",
];

/// Where each code is explained: the `type` of a problem is this and its code.
pub(crate) const TYPE_BASE: &str = "/problems/";

const RETRY_AFTER_DEFAULT_SECS: u64 = 1;

/// A refusal or failure as a client reads it.
#[derive(Debug)]
pub(crate) struct Problem {
    reason: &'static Reason,
    detail: String,
    errors: Vec<Value>,
    figures: Map<String, Value>,
    retry_after_secs: Option<u64>,
    allow: Option<String>,
}

/// How a problem is documented.
#[derive(ToSchema)]
#[schema(as = Problem)]
#[expect(dead_code, reason = "its shape is read by the documentation alone")]
pub(crate) struct ProblemShape {
    /// Stable; leads to an explanation.
    #[schema(example = "/problems/out_of_stock")]
    r#type: String,
    /// Stable; what programs decide by.
    #[schema(example = "out_of_stock")]
    code: String,
    title: String,
    #[schema(example = 409)]
    status: u16,
    /// What was got, what is wanted.
    detail: String,
    /// Fields or things concerned, each with its own figures.
    errors: Option<Vec<Map<String, Value>>>,
    /// Seconds.
    retry_after: Option<u64>,
}

impl Problem {
    /// What its body is.
    pub(crate) const CONTENT_TYPE: HeaderValue =
        HeaderValue::from_static("application/problem+json");

    /// The problem that a status means which nobody explained.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        let reason = REASONS
            .iter()
            .find(|reason| reason.status == status.as_u16())
            .unwrap_or(if status.is_server_error() {
                internal()
            } else {
                named("MALFORMED_BODY").unwrap_or_else(internal)
            });
        Self::new(reason, reason.title.to_owned())
    }

    /// The HTTP status.
    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.reason.status).expect("the table holds HTTP statuses")
    }

    /// Whether what is told here has come about for good, so that the same must be told again.
    pub(crate) fn is_durable(&self) -> bool {
        self.status() == StatusCode::PAYMENT_REQUIRED
    }

    /// The same refusal, with a field called as clients of this door call it.
    pub(crate) fn calling(mut self, field: &str, here: &str) -> Self {
        for error in self.errors.iter_mut().filter(|it| it["field"] == field) {
            error["field"] = here.into();
        }
        if let Some(rest) = self.detail.strip_prefix(&format!("{field}:")) {
            self.detail = format!("{here}:{rest}");
        }
        self
    }

    /// The body, in a fixed order of members.
    pub(crate) fn body(&self) -> Vec<u8> {
        let mut members = Map::new();
        let mut put = |name: &str, value: Value| members.insert(name.to_owned(), value);
        put("type", format!("{TYPE_BASE}{}", self.reason.code).into());
        put("code", self.reason.code.into());
        put("title", self.reason.title.into());
        put("status", self.reason.status.into());
        put("detail", self.detail.as_str().into());
        if !self.errors.is_empty() {
            put("errors", self.errors.clone().into());
        }
        if let Some(secs) = self.retry_after_secs {
            put("retry_after", secs.into());
        }
        members.extend(self.figures.clone());
        Value::Object(members).to_string().into_bytes()
    }

    fn new(reason: &'static Reason, detail: String) -> Self {
        let waits = matches!(reason.status, 429 | 503);
        Self {
            reason,
            detail,
            errors: Vec::new(),
            figures: Map::new(),
            retry_after_secs: waits.then_some(RETRY_AFTER_DEFAULT_SECS),
            allow: None,
        }
    }
}

fn named(reason: &str) -> Option<&'static Reason> {
    REASONS.iter().find(|known| known.reason == reason)
}

fn internal() -> &'static Reason {
    named("INTERNAL").expect("the table knows INTERNAL")
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let reason = named(fault.reason()).unwrap_or_else(|| {
            tracing::error!(
                reason = fault.reason(),
                "a reason that no problem stands for"
            );
            internal()
        });
        if reason.status >= 500 {
            // What went wrong inside is ours to read. A peer has logged its own causes.
            let cause = std::error::Error::source(&fault).map(ToString::to_string);
            tracing::warn!(
                reason = fault.reason(),
                text = fault.text(),
                cause,
                "request failed"
            );
            let mut problem = Self::new(reason, reason.title.to_owned());
            problem.retry_after_secs = wait_secs(&fault).or(problem.retry_after_secs);
            return problem;
        }
        let mut problem = Self::new(reason, fault.text().to_owned());
        problem.errors = fault.items().to_vec();
        problem.retry_after_secs = wait_secs(&fault).or(problem.retry_after_secs);
        for (name, value) in fault.figures() {
            if !RESERVED.contains(&name) {
                problem.figures.insert(name.to_owned(), figure(name, value));
            }
        }
        problem
    }
}

/// Whole seconds, rounded up: who comes back too early is told to wait again.
fn wait_secs(fault: &Fault) -> Option<u64> {
    fault
        .wait()
        .map(|wait| wait.as_millis().div_ceil(1000) as u64)
}

fn figure(name: &str, value: &str) -> Value {
    let number = || value.parse::<i64>().ok();
    NUMBERS
        .contains(&name)
        .then(number)
        .flatten()
        .map_or_else(|| value.into(), Value::from)
}

impl From<GatewayError> for Problem {
    fn from(error: GatewayError) -> Self {
        let allow = match &error {
            GatewayError::Method { allow, .. } => Some(allow.clone()),
            _ => None,
        };
        Self {
            allow,
            ..Self::from(Fault::from(error))
        }
    }
}

impl From<tonic::Status> for Problem {
    fn from(status: tonic::Status) -> Self {
        Self::from(Fault::from_status(&status))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status(), self.body()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, Self::CONTENT_TYPE);
        if let Some(secs) = self.retry_after_secs {
            headers.insert(header::RETRY_AFTER, secs.into());
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(Ok(allow)) = self.allow.map(HeaderValue::try_from) {
            headers.insert(header::ALLOW, allow);
        }
        response
    }
}
