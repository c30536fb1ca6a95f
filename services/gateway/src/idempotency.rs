//! A request asked twice has its effect once, and its answer twice.
//!
//! What makes an effect happen once is not here: it is the request id, derived from the client's key and scope, which
//! the owning service keeps with what it made. This module adds what clients see of it: the same bytes again, a refusal
//! for another body under the same key, and one for a request that is still running. Losing every row of it repeats
//! nothing.

use std::{
    collections::{HashMap, hash_map::Entry},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    extract::{FromRequest, MatchedPath, Request},
    response::{IntoResponse, Response},
};
use holdfast_kernel::{RequestId, Timestamp};
use holdfast_platform::{
    database, fault::Fault, identity::Caller, service::Context, telemetry::trace::carried,
};
use http::{HeaderMap, HeaderName};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    decode,
    error::GatewayError,
    lookup::Lookups,
    problems::Problem,
    reply::Reply,
    seal::ReplyKey,
    store::{self, Stored},
};

/// The header that names a wish.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// Longest key.
pub(crate) const KEY_MAX_CHARS: usize = 255;
/// Requests with a key that one process works on at once.
const RUNNING_MAX_ENTRIES: usize = 20_000;
const PRUNE_MAX_ROWS: i64 = 1_000;
const PRUNE_PAUSE: Duration = Duration::from_mins(1);

/// SHA-256 over what was asked: tells the same request from another one under the same key.
pub(crate) type Fingerprint = [u8; 32];

/// A body that came with an idempotency key.
pub(crate) struct Keyed<T> {
    pub(crate) body: T,
    pub(crate) once: Once,
}

/// One wish: whoever asks it again asks the same.
pub(crate) struct Once {
    /// Derived from issuer, account, method, route and key; becomes the id of what is made.
    pub(crate) request_id: RequestId,
    pub(crate) fingerprint: Fingerprint,
    key: String,
}

impl Once {
    /// The fingerprint as it travels.
    pub(crate) fn fingerprint(&self) -> bytes::Bytes {
        bytes::Bytes::copy_from_slice(&self.fingerprint)
    }
}

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Keyed<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let key = read_key(&parts.headers)?;
        let claims = parts
            .extensions
            .get::<Caller>()
            .and_then(Caller::claims)
            .ok_or(GatewayError::Unauthenticated)?;
        let route = parts
            .extensions
            .get::<MatchedPath>()
            .map_or_else(|| parts.uri.path(), MatchedPath::as_str);
        let account = claims.sub.to_string();
        let request_id =
            RequestId::derive(&[&claims.iss, &account, parts.method.as_str(), route, &key]);
        let bytes = decode::read_body(&parts.headers, body).await?;
        let body = decode::json(&bytes)?;
        let fingerprint = fingerprint(parts.uri.path(), &decode::json(&bytes)?);
        let once = Once {
            request_id,
            fingerprint,
            key,
        };
        Ok(Self { body, once })
    }
}

fn read_key(headers: &HeaderMap) -> Result<String, GatewayError> {
    let mut values = headers.get_all(HEADER).iter();
    let value = values.next().ok_or(GatewayError::KeyRequired)?;
    let fits = (1..=KEY_MAX_CHARS).contains(&value.len())
        && value.as_bytes().iter().all(u8::is_ascii_graphic)
        && values.next().is_none();
    match value.to_str() {
        Ok(key) if fits => Ok(key.to_owned()),
        _ => Err(GatewayError::KeyInvalid),
    }
}

/// The path is part of it: the same empty body cancels another order at another path.
fn fingerprint(path: &str, body: &Value) -> Fingerprint {
    let mut canonical = Vec::new();
    write_canonical(body, &mut canonical);
    let mut hash = Sha256::new();
    hash.update((path.len() as u64).to_be_bytes());
    hash.update(path);
    hash.update(canonical);
    hash.finalize().into()
}

/// Writes JSON without white space and with members sorted by name, so that equal values are equal bytes.
fn write_canonical(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Array(entries) => {
            out.push(b'[');
            for (at, entry) in entries.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_canonical(entry, out);
            }
            out.push(b']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            out.push(b'{');
            for (at, (name, member)) in members.into_iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(Value::from(name.as_str()).to_string().as_bytes());
                out.push(b':');
                write_canonical(member, out);
            }
            out.push(b'}');
        }
        plain => out.extend_from_slice(plain.to_string().as_bytes()),
    }
}

/// The replies given under idempotency keys. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Replies(Arc<State>);

struct State {
    context: Context,
    kept_for: Duration,
    lookups: Lookups,
    running: Mutex<HashMap<RequestId, Fingerprint>>,
}

impl Replies {
    /// Replies kept for so long in the context's database.
    pub(crate) fn new(context: Context, kept_for: Duration) -> Self {
        Self(Arc::new(State {
            context,
            kept_for,
            lookups: Lookups::default(),
            running: Mutex::default(),
        }))
    }

    /// Answers `once`: with the bytes it was answered with before, else with what `effect` gives.
    ///
    /// What has come about for good (an answer, or a declined payment) is stored before it is sent. Other refusals are
    /// not: asked again, they are decided anew. The work goes on when the client is gone, so that its next try finds the
    /// answer.
    pub(crate) async fn once(
        &self,
        once: Once,
        effect: impl Future<Output = Result<Reply, Problem>> + Send + 'static,
    ) -> Result<Response, Problem> {
        let running = self.start(&once)?;
        let replies = self.clone();
        let work = async move {
            let _until_done = running;
            replies.answer(&once, effect).await
        };
        tokio::spawn(carried(work))
            .await
            .map_err(GatewayError::from)?
            .map(IntoResponse::into_response)
    }

    async fn answer(
        &self,
        once: &Once,
        effect: impl Future<Output = Result<Reply, Problem>>,
    ) -> Result<Reply, Problem> {
        // Nothing has been done yet: when the store cannot be read, the client may as well ask again.
        if let Some(reply) = self.find(once).await? {
            metrics::counter!("gateway_replies_total", "result" => "replayed").increment(1);
            return Ok(reply);
        }
        let reply = match effect.await {
            Ok(reply) => reply,
            Err(problem) if problem.is_durable() => Reply::from(&problem),
            Err(refused) => return Err(refused),
        };
        match self.keep(once, &reply).await {
            Ok(None) => Ok(reply),
            Ok(Some(earlier)) => Ok(earlier),
            // The effect is there and the client should know; the request id keeps a next try from repeating it.
            Err(lost) => {
                metrics::counter!("gateway_replies_total", "result" => "lost").increment(1);
                tracing::warn!(reason = %lost, "a reply could not be stored");
                Ok(reply)
            }
        }
    }

    async fn find(&self, once: &Once) -> Result<Option<Reply>, Fault> {
        let state = &self.0;
        match state.lookups.find(&state.context, once.request_id).await? {
            Some(stored) => Ok(open(once, stored)?),
            None => Ok(None),
        }
    }

    /// Stores a reply; gives back the one another process stored first, if one did.
    async fn keep(&self, once: &Once, reply: &Reply) -> Result<Option<Reply>, Fault> {
        let context = &self.0.context;
        let key = ReplyKey::derive(&once.key, once.request_id.uuid());
        let sealed = key.seal(rand::random(), &reply.to_bytes())?;
        let now = context.clock.now();
        let kept_until = now.checked_add(self.0.kept_for).unwrap_or(Timestamp::MAX);
        let mut db = database::acquire(&context.database).await?;
        let (id, fingerprint) = (once.request_id, &once.fingerprint);
        if store::keep_reply(&mut db, id, fingerprint, &sealed, now, kept_until).await? {
            metrics::counter!("gateway_replies_total", "result" => "stored").increment(1);
            return Ok(None);
        }
        drop(db);
        self.find(once).await
    }

    /// Marks the request as running until the mark is dropped, however its work ends.
    fn start(&self, once: &Once) -> Result<Running, GatewayError> {
        let mut running = self.0.running();
        if running.len() >= RUNNING_MAX_ENTRIES {
            return Err(GatewayError::TooManyRunning);
        }
        match running.entry(once.request_id) {
            Entry::Occupied(other) if *other.get() != once.fingerprint => {
                Err(GatewayError::KeyReused)
            }
            Entry::Occupied(_) => Err(GatewayError::InProgress),
            Entry::Vacant(place) => {
                place.insert(once.fingerprint);
                Ok(Running {
                    state: self.0.clone(),
                    request: once.request_id,
                })
            }
        }
    }

    /// Drops stored replies when their time is over, until shutdown.
    pub(crate) async fn prune(self) {
        let context = &self.0.context;
        loop {
            match self.prune_once().await {
                Ok(pruned) if pruned >= PRUNE_MAX_ROWS as u64 => continue,
                Ok(_) => {}
                Err(fault) => tracing::warn!(reason = %fault, "replies could not be pruned"),
            }
            tokio::select! {
                () = tokio::time::sleep(PRUNE_PAUSE) => {}
                () = context.shutdown.cancelled() => return,
            }
        }
    }

    async fn prune_once(&self) -> Result<u64, Fault> {
        let context = &self.0.context;
        let mut db = database::acquire(&context.database).await?;
        Ok(store::prune_replies(&mut db, context.clock.now(), PRUNE_MAX_ROWS).await?)
    }
}

fn open(once: &Once, stored: Stored) -> Result<Option<Reply>, GatewayError> {
    if stored.fingerprint != once.fingerprint {
        return Err(GatewayError::KeyReused);
    }
    let Some(sealed) = stored.sealed else {
        return Ok(None);
    };
    let key = ReplyKey::derive(&once.key, once.request_id.uuid());
    Reply::from_bytes(key.open(&sealed)?).map(Some)
}

impl State {
    fn running(&self) -> MutexGuard<'_, HashMap<RequestId, Fingerprint>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Running {
    state: Arc<State>,
    request: RequestId,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.state.running().remove(&self.request);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str, body: &str) -> Fingerprint {
        fingerprint(path, &serde_json::from_str(body).expect("JSON"))
    }

    #[test]
    fn a_fingerprint_sees_what_was_asked_and_not_how_it_was_written() {
        let asked = of("/v1/orders", r#"{"a":1,"b":[{"x":"é","y":null}]}"#);
        assert_eq!(
            asked,
            of(
                "/v1/orders",
                " {\"b\": [ {\"y\":null, \"x\":\"\\u00e9\"} ],\n\"a\":1}"
            )
        );
        for (path, body) in [
            ("/v1/orders", r#"{"a":2,"b":[{"x":"é","y":null}]}"#),
            ("/v1/orders", r#"{"a":1,"b":[{"x":"é"}]}"#),
            ("/v1/orders", r#"{"a":1,"b":{"x":"é","y":null}}"#),
            ("/v1/others", r#"{"a":1,"b":[{"x":"é","y":null}]}"#),
        ] {
            assert_ne!(asked, of(path, body), "{path} {body}");
        }
    }

    #[test]
    fn a_key_is_one_value_of_visible_ascii() {
        let headers = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                let value = http::HeaderValue::from_bytes(value).expect("a header value");
                headers.append(HEADER, value);
            }
            headers
        };
        let longest = [b'k'; KEY_MAX_CHARS];
        for good in [b"k".as_slice(), b"~!", &longest] {
            assert!(read_key(&headers(&[good])).is_ok());
        }
        assert!(matches!(
            read_key(&headers(&[])),
            Err(GatewayError::KeyRequired)
        ));
        let longer = [b'k'; KEY_MAX_CHARS + 1];
        for bad in [
            [b"".as_slice()].as_slice(),
            &[b"a b"],
            &["é".as_bytes()],
            &[&longer],
            &[b"a", b"a"],
        ] {
            assert!(
                matches!(read_key(&headers(bad)), Err(GatewayError::KeyInvalid)),
                "{bad:?}"
            );
        }
    }
}
