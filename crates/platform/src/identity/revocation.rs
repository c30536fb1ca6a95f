//! Sessions whose access tokens are dead before their time, as far as this process was told.
//!
//! An access token proves itself for an hour; that its owner logged out meanwhile it cannot know. So every process
//! follows one stream of sessions that ended. While the stream speaks, what it did not name is alive. Once it has been
//! silent for too long it may have missed something, and the issuer is asked session by session instead; when he is
//! away too, nobody can say that a token holds, and it is not taken.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream::BoxStream};
use holdfast_kernel::{Clock, Id, Timestamp, id};
use tokio_util::sync::CancellationToken;

use crate::fault::Fault;

/// How long the stream may be silent before the issuer is asked instead.
pub const REVOCATIONS_SILENT_MAX_SECS: u64 = 30;
/// How long the issuer's answer about one session is believed.
pub const SESSION_BELIEVED_SECS: u64 = 10;
/// How long to wait before a stream that broke is asked for again.
const WATCH_AGAIN_MILLIS: u64 = 500;
/// Answers about sessions remembered at most.
const BELIEVED_MAX_ENTRIES: usize = 10_000;

/// A session that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revoked {
    /// The session, as `sid` names it in tokens.
    pub session: Id<id::Session>,
    /// From then on its tokens are dead by themselves.
    pub dead_at: Timestamp,
}

/// First all that matters still, then what is new; an empty piece says that nothing is.
pub type RevocationStream = BoxStream<'static, Result<Vec<Revoked>, Fault>>;

type Asking<T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send>>;

/// Where revocations come from.
#[derive(Clone)]
pub struct RevocationSource {
    /// Begins a stream.
    pub watch: Arc<dyn Fn() -> Asking<RevocationStream> + Send + Sync>,
    /// Says whether a session is open.
    pub is_open: Arc<dyn Fn(Id<id::Session>) -> Asking<bool> + Send + Sync>,
}

/// What was told and asked so far.
pub(super) struct Revocations {
    source: RevocationSource,
    clock: Arc<dyn Clock>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    revoked: HashMap<Id<id::Session>, Timestamp>,
    /// When the stream spoke last.
    heard_at: Option<Timestamp>,
    /// What the issuer said, and when, while the stream was silent.
    believed: HashMap<Id<id::Session>, (bool, Timestamp)>,
}

impl Revocations {
    pub(super) fn new(source: RevocationSource, clock: Arc<dyn Clock>) -> Self {
        Self {
            source,
            clock,
            told: Mutex::default(),
        }
    }

    /// Whether tokens of this session hold. Fails when nobody can say.
    pub(super) async fn holds(&self, session: Id<id::Session>) -> Result<bool, Fault> {
        let now = self.clock.now();
        if let Some(known) = self.told().knows(session, now) {
            return Ok(known);
        }
        let open = (self.source.is_open)(session)
            .await
            .map_err(Fault::unavailable)?;
        let mut told = self.told();
        if told.believed.len() >= BELIEVED_MAX_ENTRIES {
            told.believed.clear();
        }
        told.believed.insert(session, (open, now));
        Ok(open)
    }

    /// Follows the stream, and each one after it, until shutdown.
    pub(super) async fn follow(&self, shutdown: CancellationToken) {
        let following = async {
            let mut is_lost = false;
            loop {
                let Err(fault) = self.follow_once(&mut is_lost).await;
                if !is_lost {
                    tracing::warn!(%fault, "not told of revoked tokens any more");
                }
                is_lost = true;
                tokio::time::sleep(Duration::from_millis(WATCH_AGAIN_MILLIS)).await;
            }
        };
        shutdown.run_until_cancelled(following).await;
    }

    async fn follow_once(&self, is_lost: &mut bool) -> Result<std::convert::Infallible, Fault> {
        let mut stream = (self.source.watch)().await?;
        while let Some(news) = stream.next().await {
            let news = news?;
            let now = self.clock.now();
            self.told().hear(&news, now);
            if std::mem::take(is_lost) {
                tracing::info!("told of revoked tokens again");
            }
        }
        Err(Fault::unavailable("the stream ended"))
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    fn knows(&self, session: Id<id::Session>, now: Timestamp) -> Option<bool> {
        if self.revoked.contains_key(&session) {
            return Some(false);
        }
        let is_within =
            |at: Timestamp, secs: u64| now.duration_since(at).unsigned_abs().as_secs() < secs;
        if self
            .heard_at
            .is_some_and(|at| is_within(at, REVOCATIONS_SILENT_MAX_SECS))
        {
            return Some(true);
        }
        let (open, asked_at) = self.believed.get(&session)?;
        is_within(*asked_at, SESSION_BELIEVED_SECS).then_some(*open)
    }

    fn hear(&mut self, news: &[Revoked], now: Timestamp) {
        self.revoked.retain(|_, dead_at| *dead_at > now);
        self.revoked.extend(
            news.iter()
                .map(|revoked| (revoked.session, revoked.dead_at)),
        );
        self.heard_at = Some(now);
        self.believed.clear();
    }
}
