//! One try: a signed POST to an address that was judged, and what came of it.
//!
//! No redirect is followed, no proxy asked, no connection used twice, nothing tried again by itself; of the answer at
//! most [`ANSWER_MAX_BYTES`] are read, and thrown away.

use std::{error::Error, io, time::Duration};

use holdfast_kernel::Timestamp;
use http::{HeaderMap, StatusCode, header};
use jiff::fmt::rfc2822;
use reqwest::{Client, redirect};

use crate::{
    domain::{Failure, Outcome},
    guard::{Guard, Guarded, Inside, Lookup, PUBLIC_PORTS},
    url,
};

/// How much of an answer is read before the connection is closed on it.
const ANSWER_MAX_BYTES: usize = 64 * 1024;
/// A port that stands for all that are not public.
const OTHER_PORT: u16 = 0;
const USER_AGENT: &str = concat!("Holdfast-Webhooks/", env!("CARGO_PKG_VERSION"));
/// CloudEvents in structured mode.
const CONTENT_TYPE: &str = "application/cloudevents+json; charset=utf-8";

/// Sends. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sender {
    guard: Guard,
    /// For the ports at which public addresses are reached.
    public: Client,
    /// For all others.
    other: Client,
}

/// What is sent.
pub(crate) struct Letter<'a> {
    pub(crate) id: &'a str,
    /// `webhook-timestamp`.
    pub(crate) at: Timestamp,
    /// `webhook-signature`.
    pub(crate) signature: String,
    pub(crate) traceparent: Option<String>,
    pub(crate) body: String,
}

impl Sender {
    /// Sends where `guard` admits it, for at most `try_max` each.
    pub(crate) fn new(
        guard: Guard,
        lookup: &Lookup,
        try_max: Duration,
    ) -> Result<Self, reqwest::Error> {
        // Whoever was first chose the same.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let client = |port| {
            Client::builder()
                .dns_resolver(Guarded {
                    guard: guard.clone(),
                    lookup: lookup.clone(),
                    port,
                })
                .redirect(redirect::Policy::none())
                .no_proxy()
                .retry(reqwest::retry::never())
                .pool_max_idle_per_host(0)
                .referer(false)
                .user_agent(USER_AGENT)
                .timeout(try_max)
                .build()
        };
        let [public, ..] = PUBLIC_PORTS;
        Ok(Self {
            public: client(public)?,
            other: client(OTHER_PORT)?,
            guard,
        })
    }

    /// Tries once.
    pub(crate) async fn send(&self, url: &str, letter: Letter<'_>) -> Outcome {
        // It was read when it was written down, but the rules may have become stricter since.
        let Ok(endpoint) = url::parse(url) else {
            return Outcome::Failed(Failure::AddressRefused);
        };
        // Addresses that are written out are never looked up, so they are judged here.
        if self.guard.check(&endpoint).is_err() {
            return Outcome::Failed(Failure::AddressRefused);
        }
        let client = if PUBLIC_PORTS.contains(&endpoint.port()) {
            &self.public
        } else {
            &self.other
        };
        let Letter {
            id,
            at,
            signature,
            traceparent,
            body,
        } = letter;
        let mut request = client
            .post(endpoint.as_str())
            .header(header::CONTENT_TYPE, CONTENT_TYPE)
            .header("webhook-id", id)
            .header("webhook-timestamp", at.as_second())
            .header("webhook-signature", signature)
            .body(body);
        if let Some(traceparent) = traceparent {
            request = request.header("traceparent", traceparent);
        }
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Outcome::Failed(failure(&error)),
        };
        let status = response.status();
        let retry_after = retry_after(status, response.headers(), at);
        let mut read = 0;
        // What is wrong with the rest of an answer changes nothing about its status.
        while let Ok(Some(part)) = response.chunk().await {
            read += part.len();
            if read >= ANSWER_MAX_BYTES {
                break;
            }
        }
        Outcome::Answered {
            status: status.as_u16(),
            retry_after,
        }
    }
}

/// How long the receiver asks to be left alone, where it may.
fn retry_after(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    if !matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    ) {
        return None;
    }
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let until = rfc2822::parse(text).ok()?.timestamp();
    Duration::try_from(until.duration_since(now)).ok()
}

fn failure(error: &reqwest::Error) -> Failure {
    if caused_by::<Inside>(error) {
        Failure::AddressRefused
    } else if error.is_timeout() {
        Failure::Timeout
    } else if error.is_dns() {
        Failure::Dns
    } else if caused_by::<rustls::Error>(error) {
        Failure::Tls
    } else if error.is_connect() {
        Failure::Connect
    } else {
        Failure::Broken
    }
}

/// Whether an error of this type lies at the bottom of it.
fn caused_by<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    let mut at = Some(error);
    while let Some(error) = at {
        // An I/O error hides what it was made of: its source is that one's source.
        let inside = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        if error.is::<E>() || inside.is_some_and(|inside| caused_by::<E>(inside)) {
            return true;
        }
        at = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_may_ask_for_time_in_seconds_or_by_a_date_when_it_is_busy() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().expect("a moment");
        for (status, text, wanted) in [
            (429, "120", Some(120)),
            (503, " 0 ", Some(0)),
            (503, "Sat, 21 Nov 2026 10:01:30 GMT", Some(90)),
            (503, "Sat, 21 Nov 2026 09:00:00 GMT", None),
            (429, "99999999999999999999999", Some(u64::MAX)),
            (429, "-5", None),
            (429, "soon", None),
            (429, "", None),
            (500, "120", None),
            (200, "120", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().expect("a header"));
            let status = StatusCode::from_u16(status).expect("a status");
            let wanted = wanted.map(Duration::from_secs);
            assert_eq!(
                retry_after(status, &headers, now),
                wanted,
                "{status} {text:?}"
            );
        }
    }
}
