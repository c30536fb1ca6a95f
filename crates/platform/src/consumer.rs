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

use std::{
    collections::HashMap, convert::Infallible, error::Error, panic::AssertUnwindSafe, sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use sqlx::{PgConnection, PgPool};
use tokio::{
    task::JoinSet,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    bus::{Bus, BusError, Partition, Place, Record},
    message::{Message, Topic, TopicKind},
    parking::{self, Cause},
    telemetry::trace::Trace,
};

/// Shortest wait before a halted partition is tried again, in milliseconds; it doubles.
pub const BACKOFF_MIN_MILLIS: u64 = 50;
/// Longest wait before a halted partition is tried again, in milliseconds.
pub const BACKOFF_MAX_MILLIS: u64 = 10_000;
/// Longest time one message may take to take effect, in seconds.
const HANDLE_MAX_SECS: u64 = 10;
/// How often keys are forgotten whose messages the log has dropped, in seconds.
const PRUNE_INTERVAL_SECS: u64 = 3_600;
/// Most keys forgotten in one transaction.
const PRUNE_MAX_KEYS: i64 = 1_000;
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
        }
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
        let handled = AssertUnwindSafe(handled);
        let limit = Duration::from_secs(HANDLE_MAX_SECS);
        match time::timeout(limit, handled.catch_unwind()).await {
            Ok(Ok(handled)) => handled,
            // What the handler wrote is rolled back, and nothing else of it outlives the call.
            Ok(Err(_)) => Err(Handling::permanent("handler panicked")),
            Err(late) => Err(Handling::transient(late)),
        }
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

/// What is known of a key before a message of it is judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct KeyState {
    /// The last version that took effect.
    pub(crate) version: Option<i64>,
    /// Why messages of it lie parked, the graver cause first.
    pub(crate) blocked: Option<Cause>,
}

/// What to do with an arriving message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Handle,
    Drop,
    Gap { expected: i64 },
    Behind,
}

/// Judges a message by its version. `knows_every_key` says whether a key without a state was surely never seen.
pub(crate) fn judge(
    kind: TopicKind,
    version: i64,
    state: KeyState,
    knows_every_key: bool,
) -> Verdict {
    match state.version {
        Some(last) if version <= last => return Verdict::Drop,
        _ => {}
    }
    let expected = match state.version {
        Some(last) => last + 1,
        None if knows_every_key => 1,
        None => version,
    };
    match (kind, state.blocked) {
        (_, Some(Cause::Fault | Cause::Behind)) => Verdict::Behind,
        (TopicKind::Ordinary, _) if version != expected => Verdict::Gap { expected },
        _ => Verdict::Handle,
    }
}

/// How long to wait after the next failure.
#[derive(Debug)]
struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(Duration::from_millis(BACKOFF_MIN_MILLIS))
    }
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (wait * 2).min(Duration::from_millis(BACKOFF_MAX_MILLIS));
        wait
    }
}

/// Follows one partition for one consumer.
struct Follower {
    consumer: Consumer,
    pool: PgPool,
    partition: Box<dyn Partition>,
    place: Place,
}

/// Why a follower cannot go on now.
#[derive(Debug, thiserror::Error)]
enum Halt {
    #[error("cannot read: {0}")]
    Bus(#[from] BusError),
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    #[error("{kind} of {key} at offset {log_offset}: {cause}")]
    Handler {
        kind: String,
        key: String,
        log_offset: i64,
        cause: Box<dyn Error + Send + Sync>,
    },
    #[error("{0}")]
    Full(#[from] parking::Full),
}

/// How one try at a batch ended.
enum Tried {
    /// All records took effect, were dropped or parked.
    Moved,
    /// Another reader of this consumer has moved the position.
    Overtaken,
    /// The record or parked message with this offset can never take effect; nothing was written.
    Faulty { log_offset: i64, reason: String },
    /// The record at this index cannot take effect now; nothing was written.
    Halted { index: usize, halt: Halt },
}

impl Follower {
    fn new(consumer: Consumer, pool: PgPool, partition: Box<dyn Partition>) -> Self {
        Self {
            consumer,
            pool,
            place: partition.place().clone(),
            partition,
        }
    }

    async fn run(mut self, shutdown: CancellationToken) {
        let labels = [
            ("consumer", self.consumer.name.to_owned()),
            ("topic", self.place.topic.name().to_owned()),
            ("partition", self.place.partition.to_string()),
        ];
        let halted = metrics::gauge!("holdfast_consumer_halted", &labels);
        let stopped = metrics::gauge!("holdfast_consumer_stopped", &labels);
        halted.set(0.0);
        stopped.set(0.0);
        let mut backoff = Backoff::default();
        let mut position = None;
        let mut pruned: Option<Instant> = None;
        while !shutdown.is_cancelled() {
            match self.step(&mut position, &mut pruned).await {
                Ok(()) => {
                    backoff = Backoff::default();
                    halted.set(0.0);
                }
                Err(Halt::Bus(BusError::Revoked)) => return,
                Err(Halt::Bus(error @ (BusError::Forgotten { .. } | BusError::Ahead { .. }))) => {
                    tracing::error!(consumer = self.consumer.name, %error, "consumer stopped: rebuild it");
                    stopped.set(1.0);
                    return;
                }
                Err(halt) => {
                    let wait = backoff.next();
                    tracing::warn!(
                        consumer = self.consumer.name,
                        topic = self.place.topic.name(),
                        %halt,
                        wait_millis = wait.as_millis(),
                        "partition halted",
                    );
                    halted.set(1.0);
                    position = None;
                    time::sleep(wait).await;
                }
            }
        }
    }

    /// Waits for records and lets them take effect.
    async fn step(
        &mut self,
        position: &mut Option<i64>,
        pruned: &mut Option<Instant>,
    ) -> Result<(), Halt> {
        let from = match *position {
            Some(known) => known,
            None => self.position().await?,
        };
        if pruned.is_none_or(|at| at.elapsed().as_secs() >= PRUNE_INTERVAL_SECS) {
            self.prune().await?;
            *pruned = Some(Instant::now());
        }
        let records = self.partition.read(from).await?;
        *position = None;
        *position = self.apply(from, &records).await?;
        Ok(())
    }

    /// Where this consumer goes on: for a new one the oldest message.
    async fn position(&mut self) -> Result<i64, Halt> {
        let mut conn = self.pool.acquire().await?;
        if let Some(known) = store::position(&mut conn, self.consumer.name, &self.place).await? {
            return Ok(known);
        }
        drop(conn);
        let oldest = self.partition.oldest().await?;
        let mut conn = self.pool.acquire().await?;
        // When nothing was dropped yet, the first version of every key is still to come.
        store::begin(
            &mut conn,
            self.consumer.name,
            &self.place,
            oldest,
            oldest == 0,
        )
        .await?;
        let begun = store::position(&mut conn, self.consumer.name, &self.place).await?;
        Ok(begun.unwrap_or(oldest))
    }

    /// Lets records take effect, and says where to go on, if it still knows.
    ///
    /// All go in one transaction. A record that fails for good is remembered and the batch tried again without it; one
    /// that fails for now ends the batch before it.
    async fn apply(&self, from: i64, records: &[Record]) -> Result<Option<i64>, Halt> {
        let mut faults = HashMap::new();
        let mut batch = records;
        let mut later = None;
        loop {
            let Some(last) = batch.last() else {
                return match later {
                    Some(halt) => Err(halt),
                    None => Ok(Some(from)),
                };
            };
            let next = last.log_offset + 1;
            match self.try_batch(from, next, batch, &faults).await? {
                Tried::Moved => return later.map_or(Ok(Some(next)), Err),
                Tried::Overtaken => return Ok(None),
                Tried::Faulty { log_offset, reason } => {
                    faults.insert(log_offset, reason);
                }
                Tried::Halted { index, halt } => {
                    batch = &batch[..index];
                    later = Some(halt);
                }
            }
        }
    }

    async fn try_batch(
        &self,
        from: i64,
        next: i64,
        records: &[Record],
        faults: &HashMap<i64, String>,
    ) -> Result<Tried, Halt> {
        let (consumer, place) = (self.consumer.name, &self.place);
        let mut tx = self.pool.begin().await?;
        // First of all: of two readers the second waits here, and then sees that there is nothing left to do.
        let moved = store::move_position(&mut tx, consumer, place, from, next).await?;
        let Some(knows_every_key) = moved else {
            return Ok(Tried::Overtaken);
        };
        let mut keys = Keys::load(&mut tx, consumer, place, records, knows_every_key).await?;
        for (index, record) in records.iter().enumerate() {
            match self.take(&mut tx, &mut keys, record, faults).await {
                Ok(()) => {}
                Err(Refusal::Faulty { log_offset, reason }) => {
                    return Ok(Tried::Faulty { log_offset, reason });
                }
                Err(Refusal::Halt(halt)) => return Ok(Tried::Halted { index, halt }),
            }
        }
        keys.save(&mut tx, consumer, place).await?;
        tx.commit().await?;
        Ok(Tried::Moved)
    }

    /// Lets one record take effect, drops it or parks it.
    async fn take(
        &self,
        conn: &mut PgConnection,
        keys: &mut Keys,
        record: &Record,
        faults: &HashMap<i64, String>,
    ) -> Result<(), Refusal> {
        let park = parking::Park {
            consumer: self.consumer.name,
            place: &self.place,
            record,
        };
        let state = keys.state(&record.key);
        let message = match Message::from_envelope(&record.envelope) {
            Ok(message) => message,
            Err(error) => {
                let reason = error.to_string();
                keys.park(conn, &park, None, Cause::Fault, &reason).await?;
                return Ok(());
            }
        };
        let version = Some(message.version);
        let verdict = judge(
            self.place.topic.kind(),
            message.version,
            state,
            keys.knows_every_key,
        );
        match verdict {
            Verdict::Drop => {}
            Verdict::Behind => {
                let reason = "an earlier message of this key is parked";
                keys.park(conn, &park, version, Cause::Behind, reason)
                    .await?;
            }
            Verdict::Gap { expected } => {
                let reason = format!("version is {}, wanted {expected}", message.version);
                keys.park(conn, &park, version, Cause::Gap, &reason).await?;
            }
            Verdict::Handle => {
                if let Some(reason) = faults.get(&record.log_offset) {
                    tracing::error!(
                        consumer = park.consumer,
                        kind = message.kind,
                        key = message.key,
                        reason,
                        "message parked"
                    );
                    keys.park(conn, &park, version, Cause::Fault, reason)
                        .await?;
                    return Ok(());
                }
                self.handle(conn, &message, record.log_offset).await?;
                keys.advance(&record.key, message.version, record.log_offset);
                if state.blocked == Some(Cause::Gap) {
                    self.fill(conn, keys, record, faults).await?;
                }
            }
        }
        Ok(())
    }

    /// Lets the parked messages take effect that the filled gap kept waiting.
    async fn fill(
        &self,
        conn: &mut PgConnection,
        keys: &mut Keys,
        filler: &Record,
        faults: &HashMap<i64, String>,
    ) -> Result<(), Refusal> {
        let (consumer, place, key) = (self.consumer.name, &self.place, filler.key.as_str());
        while let Some(parked) = parking::first(conn, consumer, place.topic.name(), key).await? {
            let state = keys.state(key);
            // Unreadable ones are a fault and never only wait.
            let version = parked.version.unwrap_or(i64::MAX);
            let known = KeyState {
                blocked: None,
                ..state
            };
            match judge(place.topic.kind(), version, known, true) {
                Verdict::Drop => parking::unpark(conn, parked.id).await?,
                Verdict::Handle => {
                    if let Some(reason) = faults.get(&parked.log_offset) {
                        parking::condemn(conn, parked.id, reason).await?;
                        keys.block(key, Cause::Fault);
                        return Ok(());
                    }
                    let message = Message::from_envelope(&parked.envelope).map_err(|error| {
                        Refusal::Faulty {
                            log_offset: parked.log_offset,
                            reason: error.to_string(),
                        }
                    })?;
                    self.handle(conn, &message, parked.log_offset).await?;
                    parking::unpark(conn, parked.id).await?;
                    keys.advance(key, version, filler.log_offset);
                }
                Verdict::Gap { .. } | Verdict::Behind => return Ok(()),
            }
        }
        keys.unblock(key);
        Ok(())
    }

    async fn handle(
        &self,
        conn: &mut PgConnection,
        message: &Message,
        log_offset: i64,
    ) -> Result<(), Refusal> {
        match self.consumer.handle(conn, message).await {
            Ok(()) => Ok(()),
            Err(Handling::Permanent(reason)) => Err(Refusal::Faulty { log_offset, reason }),
            Err(Handling::Transient(cause)) => Err(Refusal::Halt(Halt::Handler {
                kind: message.kind.clone(),
                key: message.key.clone(),
                log_offset,
                cause,
            })),
        }
    }

    /// Forgets keys whose last message the log has dropped: nothing can bring it back.
    async fn prune(&mut self) -> Result<(), Halt> {
        let oldest = self.partition.oldest().await?;
        loop {
            let mut tx = self.pool.begin().await?;
            let pruned = store::prune_keys(
                &mut tx,
                self.consumer.name,
                &self.place,
                oldest,
                PRUNE_MAX_KEYS,
            )
            .await?;
            tx.commit().await?;
            if pruned < PRUNE_MAX_KEYS as u64 {
                return Ok(());
            }
        }
    }
}

/// Why a record was not taken.
enum Refusal {
    Faulty { log_offset: i64, reason: String },
    Halt(Halt),
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        Self::Halt(error.into())
    }
}

impl From<parking::ParkError> for Refusal {
    fn from(error: parking::ParkError) -> Self {
        Self::Halt(match error {
            parking::ParkError::Database(error) => error.into(),
            parking::ParkError::Full(full) => full.into(),
        })
    }
}

/// The states of the keys of one batch.
struct Keys {
    states: HashMap<String, KeyState>,
    /// By key the version and the offset that brought it.
    advanced: HashMap<String, (i64, i64)>,
    knows_every_key: bool,
    /// How many messages of the consumer are parked, once somebody asked.
    parked: Option<i64>,
}

impl Keys {
    async fn load(
        conn: &mut PgConnection,
        consumer: &str,
        place: &Place,
        records: &[Record],
        knows_every_key: bool,
    ) -> Result<Self, sqlx::Error> {
        let mut names: Vec<&str> = records.iter().map(|record| record.key.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let topic = place.topic.name();
        let mut states: HashMap<String, KeyState> = HashMap::new();
        for (key, version) in store::versions(conn, consumer, topic, &names).await? {
            states.entry(key).or_default().version = Some(version);
        }
        for (key, cause) in parking::causes(conn, consumer, topic, &names).await? {
            states.entry(key).or_default().blocked = Some(cause);
        }
        Ok(Self {
            states,
            advanced: HashMap::new(),
            knows_every_key,
            parked: None,
        })
    }

    fn state(&self, key: &str) -> KeyState {
        self.states.get(key).copied().unwrap_or_default()
    }

    /// Parks a record, which blocks its key.
    async fn park(
        &mut self,
        conn: &mut PgConnection,
        park: &parking::Park<'_>,
        version: Option<i64>,
        cause: Cause,
        reason: &str,
    ) -> Result<(), Refusal> {
        let parked = match self.parked {
            Some(counted) => counted,
            None => parking::count(conn, park.consumer).await?,
        };
        parking::park(conn, park, parked, version, cause, reason).await?;
        self.parked = Some(parked + 1);
        self.block(&park.record.key, cause);
        Ok(())
    }

    fn block(&mut self, key: &str, cause: Cause) {
        self.states.entry(key.to_owned()).or_default().blocked = Some(cause);
    }

    fn unblock(&mut self, key: &str) {
        self.states.entry(key.to_owned()).or_default().blocked = None;
    }

    fn advance(&mut self, key: &str, version: i64, log_offset: i64) {
        self.states.entry(key.to_owned()).or_default().version = Some(version);
        self.advanced.insert(key.to_owned(), (version, log_offset));
    }

    async fn save(
        self,
        conn: &mut PgConnection,
        consumer: &str,
        place: &Place,
    ) -> Result<(), sqlx::Error> {
        if self.advanced.is_empty() {
            return Ok(());
        }
        store::save_versions(conn, consumer, place, &self.advanced).await
    }
}

pub(crate) mod store {
    use std::collections::HashMap;

    use sqlx::PgConnection;

    use crate::bus::Place;

    pub(super) async fn position(
        conn: &mut PgConnection,
        consumer: &str,
        place: &Place,
    ) -> Result<Option<i64>, sqlx::Error> {
        sqlx::query_scalar(
            "SELECT next_offset FROM consumer_position WHERE consumer = $1 AND topic = $2 AND partition = $3",
        )
        .bind(consumer)
        .bind(place.topic.name())
        .bind(place.partition)
        .fetch_optional(conn)
        .await
    }

    pub(super) async fn begin(
        conn: &mut PgConnection,
        consumer: &str,
        place: &Place,
        next_offset: i64,
        knows_every_key: bool,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO consumer_position (consumer, topic, partition, next_offset, knows_every_key)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (consumer, topic, partition) DO NOTHING",
        )
        .bind(consumer)
        .bind(place.topic.name())
        .bind(place.partition)
        .bind(next_offset)
        .bind(knows_every_key)
        .execute(conn)
        .await?;
        Ok(())
    }

    /// Moves the position if it is still where the caller read; then says whether every key ever seen is known.
    pub(super) async fn move_position(
        conn: &mut PgConnection,
        consumer: &str,
        place: &Place,
        from: i64,
        next: i64,
    ) -> Result<Option<bool>, sqlx::Error> {
        sqlx::query_scalar(
            "UPDATE consumer_position SET next_offset = $5
             WHERE consumer = $1 AND topic = $2 AND partition = $3 AND next_offset = $4
             RETURNING knows_every_key",
        )
        .bind(consumer)
        .bind(place.topic.name())
        .bind(place.partition)
        .bind(from)
        .bind(next)
        .fetch_optional(conn)
        .await
    }

    /// Keeps the consumer's readers of the partition out until the caller's transaction ends.
    pub(crate) async fn lock_position(
        conn: &mut PgConnection,
        consumer: &str,
        topic: &str,
        partition: i32,
    ) -> Result<Option<bool>, sqlx::Error> {
        sqlx::query_scalar(
            "SELECT knows_every_key FROM consumer_position
             WHERE consumer = $1 AND topic = $2 AND partition = $3 FOR UPDATE",
        )
        .bind(consumer)
        .bind(topic)
        .bind(partition)
        .fetch_optional(conn)
        .await
    }

    pub(crate) async fn versions(
        conn: &mut PgConnection,
        consumer: &str,
        topic: &str,
        keys: &[&str],
    ) -> Result<Vec<(String, i64)>, sqlx::Error> {
        sqlx::query_as(
            // A subquery a key: planned while the table is young, `key = ANY` would read every key there is.
            "SELECT key, version FROM (
                SELECT wanted.key, (SELECT known.version FROM consumer_key AS known
                                    WHERE known.consumer = $1 AND known.topic = $2 AND known.key = wanted.key) AS version
                FROM unnest($3::text[]) AS wanted (key)
             ) AS looked_up
             WHERE version IS NOT NULL",
        )
        .bind(consumer)
        .bind(topic)
        .bind(keys)
        .fetch_all(conn)
        .await
    }

    /// Remembers for each key its last version and the offset that brought it.
    pub(super) async fn save_versions(
        conn: &mut PgConnection,
        consumer: &str,
        place: &Place,
        advanced: &HashMap<String, (i64, i64)>,
    ) -> Result<(), sqlx::Error> {
        let (keys, (versions, offsets)): (Vec<&str>, (Vec<i64>, Vec<i64>)) = advanced
            .iter()
            .map(|(key, &saved)| (key.as_str(), saved))
            .unzip();
        sqlx::query(
            "INSERT INTO consumer_key (consumer, topic, partition, key, version, last_offset)
             SELECT $1, $2, $3, key, version, last_offset
             FROM unnest($4::text[], $5::int8[], $6::int8[]) AS saved (key, version, last_offset)
             ON CONFLICT (consumer, topic, key) DO UPDATE
             SET version = excluded.version, partition = excluded.partition, last_offset = excluded.last_offset",
        )
        .bind(consumer)
        .bind(place.topic.name())
        .bind(place.partition)
        .bind(keys)
        .bind(versions)
        .bind(offsets)
        .execute(conn)
        .await?;
        Ok(())
    }

    /// Remembers the version of one key, whose last offset stays what it was, or becomes `log_offset` for a new one.
    pub(crate) async fn save_version(
        conn: &mut PgConnection,
        consumer: &str,
        topic: &str,
        partition: i32,
        key: &str,
        version: i64,
        log_offset: i64,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO consumer_key (consumer, topic, partition, key, version, last_offset)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (consumer, topic, key) DO UPDATE
             SET version = excluded.version, last_offset = greatest(consumer_key.last_offset, excluded.last_offset)",
        )
        .bind(consumer)
        .bind(topic)
        .bind(partition)
        .bind(key)
        .bind(version)
        .bind(log_offset)
        .execute(conn)
        .await?;
        Ok(())
    }

    /// Forgets keys last heard of before `oldest`, and says how many.
    pub(super) async fn prune_keys(
        conn: &mut PgConnection,
        consumer: &str,
        place: &Place,
        oldest: i64,
        max_keys: i64,
    ) -> Result<u64, sqlx::Error> {
        lock_position(conn, consumer, place.topic.name(), place.partition).await?;
        let pruned = sqlx::query(
            "DELETE FROM consumer_key WHERE ctid = ANY (ARRAY(
                SELECT ctid FROM consumer_key AS old
                WHERE consumer = $1 AND topic = $2 AND partition = $3 AND last_offset < $4
                AND NOT EXISTS (
                    SELECT FROM parked_message AS parked
                    WHERE parked.consumer = $1 AND parked.topic = $2 AND parked.key = old.key
                )
                LIMIT $5
             ))",
        )
        .bind(consumer)
        .bind(place.topic.name())
        .bind(place.partition)
        .bind(oldest)
        .bind(max_keys)
        .execute(&mut *conn)
        .await?
        .rows_affected();
        if pruned > 0 {
            sqlx::query(
                "UPDATE consumer_position SET knows_every_key = false
                 WHERE consumer = $1 AND topic = $2 AND partition = $3",
            )
            .bind(consumer)
            .bind(place.topic.name())
            .bind(place.partition)
            .execute(conn)
            .await?;
        }
        Ok(pruned)
    }
}
