//! Who may use which route. The services check again: this table is the public promise, theirs is the lock.

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use holdfast_platform::identity::{Caller, Role};
use http::Method;
use percent_encoding::percent_decode_str;

use crate::{Gateway, api::PATH_SHOWN_CHARS, error::GatewayError, problems::Problem};

/// Who may use a route at all. Whose things they may touch is the service's to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Everybody; a token is not even looked at, so that an expired one does not keep anybody from a new one.
    Open,
    /// Everybody; who sends a token must send a valid one, and may see more.
    Anyone,
    /// Whoever is logged in.
    User,
    /// Roles `staff` and `admin`.
    Staff,
    /// Role `admin`.
    Admin,
}

/// Every route: method, path, and who may use it. One that is missing here does not exist.
#[rustfmt::skip]
pub const ACCESS: &[(&str, &str, Audience)] = &[
    ("GET", "/", Audience::Open),
    ("GET", "/docs", Audience::Open),
    ("GET", "/assets/{file}", Audience::Open),
    ("GET", "/problems/{code}", Audience::Open),
    ("GET", "/openapi.json", Audience::Open),
    ("GET", "/healthz", Audience::Open),
    ("GET", "/readyz", Audience::Open),
    ("GET", "/v1/{service}/healthz", Audience::Open),
    ("GET", "/v1/events/healthz", Audience::Open),
    ("GET", "/v1/inventory/healthz", Audience::Open),
    ("GET", "/v1/orders/healthz", Audience::Open),
    ("GET", "/v1/payments/healthz", Audience::Open),
    ("GET", "/v1/webhooks/healthz", Audience::Open),
    ("GET", "/v1/reviews/healthz", Audience::Open),
    ("GET", "/.well-known/openid-configuration", Audience::Open),
    ("GET", "/.well-known/jwks.json", Audience::Open),
    ("POST", "/v1/users/register", Audience::Open),
    ("POST", "/v1/users/login", Audience::Open),
    ("POST", "/v1/users/refresh", Audience::Open),
    ("POST", "/v1/users/logout", Audience::User),
    ("GET", "/v1/users/me", Audience::User),
    ("PATCH", "/v1/users/me", Audience::User),
    ("PUT", "/v1/users/me/password", Audience::User),
    ("GET", "/v1/users/me/sessions", Audience::User),
    ("DELETE", "/v1/users/me/sessions/{id}", Audience::User),
    ("GET", "/v1/users/me/export", Audience::User),
    ("GET", "/v1/users/me/addresses", Audience::User),
    ("POST", "/v1/users/me/addresses", Audience::User),
    ("PATCH", "/v1/users/me/addresses/{id}", Audience::User),
    ("DELETE", "/v1/users/me/addresses/{id}", Audience::User),
    ("GET", "/v1/users", Audience::Admin),
    ("GET", "/v1/users/{id}", Audience::User),
    ("PATCH", "/v1/users/{id}", Audience::User),
    ("DELETE", "/v1/users/{id}", Audience::Admin),
    ("PUT", "/v1/users/{id}/role", Audience::Admin),
    ("PUT", "/v1/users/{id}/active", Audience::Admin),
    ("GET", "/v1/products", Audience::Anyone),
    ("POST", "/v1/products", Audience::Admin),
    ("GET", "/v1/products/{id}", Audience::Anyone),
    ("PATCH", "/v1/products/{id}", Audience::Admin),
    ("DELETE", "/v1/products/{id}", Audience::Admin),
    ("POST", "/v1/product-batches", Audience::Admin),
    ("POST", "/v1/product-publications", Audience::Admin),
    ("POST", "/v1/products/{id}/variants", Audience::Admin),
    ("PATCH", "/v1/products/{id}/variants/{sku}", Audience::Admin),
    ("DELETE", "/v1/products/{id}/variants/{sku}", Audience::Admin),
    ("GET", "/v1/categories", Audience::Anyone),
    ("POST", "/v1/categories", Audience::Admin),
    ("GET", "/v1/categories/{slug}", Audience::Anyone),
    ("PATCH", "/v1/categories/{slug}", Audience::Admin),
    ("DELETE", "/v1/categories/{slug}", Audience::Admin),
    ("GET", "/v1/products/{id}/reviews", Audience::Anyone),
    ("POST", "/v1/products/{id}/reviews", Audience::User),
    ("GET", "/v1/reviews/{id}", Audience::Anyone),
    ("PATCH", "/v1/reviews/{id}", Audience::User),
    ("DELETE", "/v1/reviews/{id}", Audience::User),
    ("POST", "/v1/reviews/{id}/moderate", Audience::Staff),
    ("GET", "/v1/events", Audience::Anyone),
    ("POST", "/v1/events", Audience::Staff),
    ("GET", "/v1/events/{id}", Audience::Anyone),
    ("PATCH", "/v1/events/{id}", Audience::Staff),
    ("GET", "/v1/events/{id}/layout", Audience::Anyone),
    ("PUT", "/v1/events/{id}/layout", Audience::Staff),
    ("POST", "/v1/events/{id}/publish", Audience::Staff),
    ("POST", "/v1/events/{id}/cancel", Audience::Staff),
    ("GET", "/v1/inventory", Audience::Staff),
    ("POST", "/v1/inventory", Audience::Staff),
    ("GET", "/v1/inventory/{key}", Audience::Anyone),
    ("POST", "/v1/inventory/{key}/adjustments", Audience::Staff),
    ("PUT", "/v1/inventory/{key}/policy", Audience::Staff),
    ("GET", "/v1/inventory/{key}/movements", Audience::Staff),
    ("GET", "/v1/orders", Audience::User),
    ("POST", "/v1/orders", Audience::User),
    ("GET", "/v1/orders/{id}", Audience::User),
    ("GET", "/v1/orders/{id}/events", Audience::User),
    ("POST", "/v1/orders/{id}/cancel", Audience::User),
    ("POST", "/v1/orders/{id}/refunds", Audience::Staff),
    ("POST", "/v1/orders/{id}/resume", Audience::Staff),
    ("POST", "/v1/orders/{id}/ship", Audience::Staff),
    ("POST", "/v1/orders/{id}/deliver", Audience::Staff),
    ("GET", "/v1/vouchers", Audience::Staff),
    ("POST", "/v1/vouchers", Audience::Staff),
    ("GET", "/v1/vouchers/{code}", Audience::Staff),
    ("PATCH", "/v1/vouchers/{code}", Audience::Staff),
    ("GET", "/v1/notifications", Audience::User),
    ("POST", "/v1/notifications/{id}/read", Audience::User),
    ("GET", "/v1/payment-methods", Audience::User),
    ("POST", "/v1/payment-methods", Audience::User),
    ("GET", "/v1/payments/{id}", Audience::User),
    ("GET", "/v1/points", Audience::User),
    ("POST", "/v1/payments/{id}/sandbox/complete", Audience::User),
    ("POST", "/v1/payments/{id}/sandbox/pay", Audience::User),
    ("GET", "/v1/webhooks", Audience::Admin),
    ("POST", "/v1/webhooks", Audience::Admin),
    ("GET", "/v1/webhooks/{id}", Audience::Admin),
    ("DELETE", "/v1/webhooks/{id}", Audience::Admin),
    ("POST", "/v1/webhooks/{id}/enable", Audience::Admin),
    ("POST", "/v1/webhooks/{id}/rotate", Audience::Admin),
    ("POST", "/v1/webhooks/{id}/replay", Audience::Admin),
    ("GET", "/v1/webhooks/{id}/deliveries", Audience::Admin),
    ("GET", "/v1/messages", Audience::Admin),
];

impl Audience {
    /// As the API's description calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Anyone => "anyone",
            Self::User => "user",
            Self::Staff => "staff",
            Self::Admin => "admin",
        }
    }

    fn admits(self, caller: &Caller) -> Result<(), GatewayError> {
        let wanted = match self {
            Self::Open | Self::Anyone => return Ok(()),
            Self::User => Role::User,
            Self::Staff => Role::Staff,
            Self::Admin => Role::Admin,
        };
        if caller.claims().is_none() {
            Err(GatewayError::Unauthenticated)
        } else if caller.has(wanted) {
            Ok(())
        } else {
            Err(GatewayError::Forbidden)
        }
    }
}

/// Lets a request pass to its handler, with its [`Caller`], if the table says so: before its body is read.
pub(crate) async fn admit(
    State(gateway): State<Gateway>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("", MatchedPath::as_str);
    let audience = audience(request.method(), route)?;
    names_something(request.uri().path())?;
    let caller = match audience {
        Audience::Open => Caller::default(),
        _ => gateway.context.verifier.caller(request.headers()).await?,
    };
    audience.admits(&caller)?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// Nothing has a name that is no text, or one that nobody can see.
fn names_something(path: &str) -> Result<(), GatewayError> {
    let text = percent_decode_str(path).decode_utf8();
    match text {
        Ok(text) if !text.contains(char::is_control) => Ok(()),
        _ => Err(GatewayError::NoRoute {
            path: path.chars().take(PATH_SHOWN_CHARS).collect(),
        }),
    }
}

fn audience(method: &Method, route: &str) -> Result<Audience, GatewayError> {
    // A HEAD is a GET whose body stays behind.
    let asked = if method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    let here = || ACCESS.iter().filter(|(_, path, _)| *path == route);
    if let Some((.., audience)) = here().find(|(known, ..)| *known == asked.as_str()) {
        return Ok(*audience);
    }
    let mut allow: Vec<&str> = here().map(|(known, ..)| *known).collect();
    if allow.contains(&"GET") {
        allow.push("HEAD");
    }
    Err(GatewayError::Method {
        method: method.to_string(),
        allow: allow.join(", "),
    })
}
