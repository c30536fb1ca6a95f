//! Listens to topics and lets each message take effect once, in order per key.
//!
//! The position in a partition moves by compare-and-set in the transaction of the effects, so effects and position are
//! there together or not at all, whoever else reads the same partition. Beside it lies the last version of each key:
//!
//! | version of an arriving message | ordinary topic | state topic |
//! |---|---|---|
//! | at or below the last | dropped | dropped |
//! | the next one | takes effect | takes effect |
//! | further ahead | parked until the gap fills | takes effect |
//!
//! A handler that fails for good parks the message and all later ones of its key ([`parking`](crate::parking)); the other
//! keys go on. A handler that fails for now halts the partition, and is asked again. Types that nobody here listens to
//! advance the version of their key like all others.
//!
//! Here is who listens; a [`follower`] goes along one partition and takes what it reads a [`batch`] at a time, each record
//! by its [`verdict`].

mod backoff;
mod batch;
mod follower;
mod keys;
pub(crate) mod store;
mod verdict;

use std::{convert::Infallible, error::Error, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use sqlx::{PgConnection, PgPool};
use tokio::{
    task::JoinSet,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use self::{backoff::Backoff, follower::Follower};
use crate::{
    bus::{Bus, BusError},
    message::{Message, Topic},
    outbox::Wake,
    parking,
    telemetry::trace::Trace,
};

pub use self::backoff::{BACKOFF_MAX_MILLIS, BACKOFF_MIN_MILLIS};
pub(crate) use self::verdict::{KeyState, Verdict, judge};

/// Longest time one message, or several at once, may take to take effect, in seconds.
const HANDLE_MAX_SECS: u64 = 10;
/// How often parked messages are counted, in seconds.
const MEASURE_SECS: u64 = 15;

/// Makes messages take effect in a service.
#[tonic::async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Writes the effect of one message on `conn`, in the transaction that also remembers that it was handled.
    ///
    /// The transaction may carry other messages and may be rolled back and tried again, so an effect is what is written
    /// on `conn` and nothing else: no call to another service.
    async fn handle(&self, conn: &mut PgConnection, message: &Message) -> Result<(), Handling>;

    /// Writes the effects of messages that were read together, in their order; for a handler that can do so with fewer
    /// statements than one after the other, which its consumer says by [`Consumer::at_once`].
    ///
    /// It is part of no trace, for the messages may come from several. Where it fails nothing it wrote stays and the same
    /// messages are handled one by one, so it need not find out which of them is at fault.
    async fn handle_all(
        &self,
        conn: &mut PgConnection,
        messages: &[Message],
    ) -> Result<(), Handling> {
        for message in messages {
            self.handle(conn, message).await?;
        }
        Ok(())
    }
}

/// Why a message did not take effect.
#[derive(Debug, thiserror::Error)]
pub enum Handling {
    /// It never will, as things are: the message is parked with this reason.
    #[error("{0}")]
    Permanent(String),
    /// It may in a moment: the partition waits.
    #[error(transparent)]
    Transient(Box<dyn Error + Send + Sync>),
}

/// The types of a topic that a consumer listens to.
#[derive(Debug, Clone, Copy)]
pub struct Interest {
    /// The topic, declared as its announcer declares it.
    pub topic: Topic,
    /// Message types: `order.created`.
    pub kinds: &'static [&'static str],
}

/// A named listener of a service.
#[derive(Clone)]
pub struct Consumer {
    name: &'static str,
    interests: &'static [Interest],
    handler: Arc<dyn Handler>,
    at_once: bool,
    pace: Duration,
    wake: Option<Wake>,
}

impl Consumer {
    /// A listener by a name that no other consumer has, of this service or another: `orders.payments`.
    ///
    /// Under that name its position is kept; another name starts from the oldest message.
    pub fn new(name: &'static str, interests: &'static [Interest], handler: impl Handler) -> Self {
        Self {
            name,
            interests,
            handler: Arc::new(handler),
            at_once: false,
            pace: Duration::ZERO,
            wake: None,
        }
    }

    /// The same, whose handler is given what was read together at once.
    #[must_use]
    pub fn at_once(mut self) -> Self {
        self.at_once = true;
        self
    }

    /// The same, which is in no hurry while news keeps coming: what comes within `pace` of the last batch goes into the
    /// next one, and costs no transaction of its own. News after a silence takes effect at once.
    #[must_use]
    pub fn paced(mut self, pace: Duration) -> Self {
        self.pace = pace;
        self
    }

    /// The same, whose effects may be news: what they announce is carried on without waiting for the relay's next look.
    #[must_use]
    pub fn waking(mut self, wake: Wake) -> Self {
        self.wake = Some(wake);
        self
    }

    /// The name under which its position and its parked messages are kept.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it listens to.
    pub fn interests(&self) -> &'static [Interest] {
        self.interests
    }

    /// Lets messages take effect in the schema behind `pool` until shutdown.
    ///
    /// A partition whose position the log no longer has stops with an error in the log and
    /// `holdfast_consumer_stopped` at 1; the others go on.
    pub async fn run(self, pool: PgPool, bus: Arc<dyn Bus>, shutdown: CancellationToken) {
        let stopping = shutdown.clone();
        stopping
            .run_until_cancelled(async {
                tokio::join!(self.measure(&pool), self.follow_all(&pool, &bus, &shutdown));
            })
            .await;
    }

    async fn follow_all(&self, pool: &PgPool, bus: &Arc<dyn Bus>, shutdown: &CancellationToken) {
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            let Err(error) = self.follow_given(pool, bus, shutdown).await;
            tracing::warn!(consumer = self.name, %error, "subscription ended");
            if began.elapsed() > Duration::from_millis(BACKOFF_MAX_MILLIS) {
                backoff = Backoff::default();
            }
            time::sleep(backoff.next()).await;
        }
    }

    /// Subscribes, and follows every partition that is given, until the subscription or a follower breaks.
    async fn follow_given(
        &self,
        pool: &PgPool,
        bus: &Arc<dyn Bus>,
        shutdown: &CancellationToken,
    ) -> Result<Infallible, BusError> {
        let mut topics: Vec<Topic> = Vec::new();
        for interest in self.interests {
            if !topics.contains(&interest.topic) {
                topics.push(interest.topic);
            }
        }
        let mut subscription = bus.subscribe(self.name, &topics).await?;
        // Ends its followers when it is dropped.
        let mut following = JoinSet::new();
        loop {
            tokio::select! {
                partition = subscription.next() => {
                    let follower = Follower::new(self.clone(), pool.clone(), partition?);
                    following.spawn(follower.run(shutdown.clone()));
                }
                Some(ended) = following.join_next() => {
                    ended.map_err(|panicked| BusError::Unavailable(panicked.into()))?;
                }
            }
        }
    }

    async fn measure(&self, pool: &PgPool) {
        let mut times = time::interval(Duration::from_secs(MEASURE_SECS));
        loop {
            times.tick().await;
            let counted = async {
                let mut conn = pool.acquire().await?;
                parking::count(&mut conn, self.name).await
            };
            match counted.await {
                Ok(parked) => metrics::gauge!("holdfast_dlq_messages", "consumer" => self.name)
                    .set(parked as f64),
                Err(error) => {
                    tracing::warn!(consumer = self.name, %error, "cannot count parked messages");
                }
            }
        }
    }

    fn listens_to(&self, message: &Message) -> bool {
        self.interests.iter().any(|interest| {
            interest.topic.name() == message.topic
                && interest.kinds.contains(&message.kind.as_str())
        })
    }

    /// Lets one message take effect, if its type is listened to.
    pub async fn handle(&self, conn: &mut PgConnection, message: &Message) -> Result<(), Handling> {
        if !self.listens_to(message) {
            return Ok(());
        }
        let trace = Trace::following(message.traceparent.as_deref());
        let span = tracing::info_span!(
            "message",
            consumer = self.name,
            kind = message.kind,
            key = message.key,
            version = message.version,
            trace_id = %trace.id(),
        );
        let handled = trace
            .scope(self.handler.handle(conn, message))
            .instrument(span);
        within_bounds(handled).await
    }

    /// Lets messages take effect at once, all of which are of types that are listened to.
    async fn handle_all(
        &self,
        conn: &mut PgConnection,
        messages: &[Message],
    ) -> Result<(), Handling> {
        let span = tracing::info_span!("messages", consumer = self.name, count = messages.len());
        within_bounds(self.handler.handle_all(conn, messages).instrument(span)).await
    }
}

/// A handler neither takes the consumer with it when it panics nor keeps it for ever.
async fn within_bounds(
    handled: impl Future<Output = Result<(), Handling>>,
) -> Result<(), Handling> {
    let limit = Duration::from_secs(HANDLE_MAX_SECS);
    match time::timeout(limit, AssertUnwindSafe(handled).catch_unwind()).await {
        Ok(Ok(handled)) => handled,
        // What the handler wrote is rolled back, and nothing else of it outlives the call.
        Ok(Err(_)) => Err(Handling::permanent("handler panicked")),
        Err(late) => Err(Handling::transient(late)),
    }
}

impl Handling {
    /// A fault that will not pass.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers hand over an error or a text as it is"
    )]
    pub fn permanent(reason: impl ToString) -> Self {
        Self::Permanent(reason.to_string())
    }

    /// A fault that may pass.
    pub fn transient(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Transient(cause.into())
    }
}

/// Values the database refuses will be refused again; all else (connection, lock, time-out, schema not there yet) passes.
impl From<sqlx::Error> for Handling {
    fn from(error: sqlx::Error) -> Self {
        let code = error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code);
        match code.as_deref() {
            Some(code) if code.starts_with("22") || code.starts_with("23") => {
                Self::Permanent(error.to_string())
            }
            _ => Self::Transient(Box::new(error)),
        }
    }
}

/// Data that cannot be read now cannot be read later.
impl From<serde_json::Error> for Handling {
    fn from(error: serde_json::Error) -> Self {
        Self::Permanent(format!("data: {error}"))
    }
}
