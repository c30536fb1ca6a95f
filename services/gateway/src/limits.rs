//! How often somebody may ask: an account, or a subscriber's network where nobody is logged in.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use holdfast_kernel::{Id, Timestamp, id};
use holdfast_platform::identity::{Caller, Role};
use http::{HeaderName, HeaderValue};
use serde::Deserialize;

use crate::{Gateway, error::GatewayError, problems::Problem, server::ClientAddress};

/// The section `[gateway.rate_limit]`; see `settings.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "settings.toml explains each key")]
pub struct RateLimit {
    pub enabled: bool,
    pub requests_per_minute: u32,
    pub logins_per_minute: u32,
}

const WINDOW_SECS: i64 = 60;
const NANOS_PER_SEC: i128 = 1_000_000_000;
const WINDOW_NANOS: i128 = WINDOW_SECS as i128 * NANOS_PER_SEC;
/// Askers remembered at most; beyond it those forgotten begin anew.
const ASKERS_MAX_ENTRIES: usize = 100_000;

const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The routes where passwords can be tried.
const LOGIN: &str = "/v1/users/login";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Asker {
    Account(Id<id::User>),
    Network(IpAddr),
}

/// One policy: so many a minute, spent in one go or evenly.
///
/// For each asker one moment is kept: when the last allowance taken will have grown back (the generic cell rate
/// algorithm), so an asker costs the same however often it asks.
pub(crate) struct Limiter {
    name: &'static str,
    per_minute: u32,
    grown_back: Mutex<HashMap<Asker, i128>>,
}

impl Limiter {
    pub(crate) fn new(name: &'static str, per_minute: u32) -> Self {
        Self {
            name,
            per_minute: per_minute.max(1),
            grown_back: Mutex::default(),
        }
    }

    /// Takes one from the asker's allowance; tells how many are left, or how long to wait for the next.
    fn take(&self, asker: Asker, now: Timestamp) -> Result<i128, Duration> {
        let now = now.as_nanosecond();
        let each = WINDOW_NANOS / i128::from(self.per_minute);
        let mut askers = self
            .grown_back
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if askers.len() >= ASKERS_MAX_ENTRIES && !askers.contains_key(&asker) {
            askers.retain(|_, grown_back| *grown_back > now);
            if askers.len() >= ASKERS_MAX_ENTRIES {
                askers.clear();
            }
        }
        let grown_back = askers.entry(asker).or_insert(now);
        let next = (*grown_back).max(now) + each;
        let over = next - now - WINDOW_NANOS;
        if over > 0 {
            return Err(Duration::from_nanos(over as u64));
        }
        *grown_back = next;
        Ok((WINDOW_NANOS - (next - now)) / each)
    }

    fn headers(&self, left: i128) -> [(HeaderName, HeaderValue); 2] {
        let value = |text: String| HeaderValue::try_from(text).expect("names and digits are ASCII");
        let (name, quota) = (self.name, self.per_minute);
        [
            (
                POLICY,
                value(format!("\"{name}\";q={quota};w={WINDOW_SECS}")),
            ),
            (LIMIT, value(format!("\"{name}\";r={left};t={WINDOW_SECS}"))),
        ]
    }
}

/// Lets a request pass while its asker has allowance left. Staff are not bound: their tools import whole shops.
pub(crate) async fn bound(
    State(gateway): State<Gateway>,
    request: Request,
    next: Next,
) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("", MatchedPath::as_str);
    let caller = request.extensions().get::<Caller>();
    let is_staff = caller.is_some_and(|caller| caller.has(Role::Staff));
    let Some(limits) = gateway
        .limits
        .as_ref()
        .as_ref()
        .filter(|_| is_bound(route) && !is_staff)
    else {
        return next.run(request).await;
    };
    let limiter = if route == LOGIN {
        &limits.logins
    } else {
        &limits.requests
    };
    match limiter.take(asker(&request, caller), gateway.context.clock.now()) {
        Ok(left) => {
            let mut response = next.run(request).await;
            response.headers_mut().extend(limiter.headers(left));
            response
        }
        Err(wait) => {
            metrics::counter!("gateway_rate_limited_total", "policy" => limiter.name).increment(1);
            let mut response = Problem::from(GatewayError::RateLimited { wait }).into_response();
            response.headers_mut().extend(limiter.headers(0));
            response
        }
    }
}

/// What the policies of a gateway are.
pub(crate) struct Limits {
    requests: Limiter,
    logins: Limiter,
}

impl Limits {
    /// The policies that the settings ask for.
    pub(crate) fn new(settings: &RateLimit) -> Option<Self> {
        settings.enabled.then(|| Self {
            requests: Limiter::new("requests", settings.requests_per_minute),
            logins: Limiter::new("logins", settings.logins_per_minute),
        })
    }
}

fn is_bound(route: &str) -> bool {
    route.starts_with("/v1/") && !route.ends_with("/healthz")
}

fn asker(request: &Request, caller: Option<&Caller>) -> Asker {
    if let Some(claims) = caller.and_then(Caller::claims) {
        return Asker::Account(claims.sub);
    }
    let address = request.extensions().get::<ClientAddress>();
    Asker::Network(
        address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| {
            address.network()
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_795_000_000_000 + millis).expect("a moment")
    }

    fn somebody(last: u8) -> Asker {
        Asker::Network(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)))
    }

    #[test]
    fn an_allowance_can_be_spent_at_once_and_grows_back_evenly() {
        let limiter = Limiter::new("requests", 60);
        for left in (0..60).rev() {
            assert_eq!(limiter.take(somebody(1), at(0)), Ok(left));
        }
        assert_eq!(
            limiter.take(somebody(1), at(0)),
            Err(Duration::from_secs(1))
        );
        assert_eq!(
            limiter.take(somebody(1), at(400)),
            Err(Duration::from_millis(600))
        );
        assert_eq!(limiter.take(somebody(1), at(1_000)), Ok(0));
        assert!(limiter.take(somebody(1), at(1_000)).is_err());
        assert_eq!(limiter.take(somebody(1), at(61_000)), Ok(59));
        assert_eq!(
            limiter.take(somebody(2), at(0)),
            Ok(59),
            "others have their own"
        );
    }
}
