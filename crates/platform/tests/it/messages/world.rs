//! One service that announces changes of things and listens to its own news, on a database of its own.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use holdfast_kernel::Timestamp;
use holdfast_platform::{
    bus::{Bus, BusError, Outgoing, Partition, Place, Record, Subscription},
    consumer::{Consumer, Handler, Handling, Interest},
    database,
    embedded_log::EmbeddedLog,
    message::{Message, Topic},
    outbox::{self, Announcement, Wake},
    parking::{self, Cause, Parked, Replayed, Skipped},
    relay::Relay,
    wakeup::Wakeups,
};
use holdfast_testkit::TestDatabase;
use sqlx::{PgConnection, PgPool, migrate::Migrator, postgres::PgPoolOptions};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
    time,
};
use tokio_util::sync::CancellationToken;

pub(crate) const THINGS: Topic = Topic::ordinary("holdfast.things");
pub(crate) const LEVELS: Topic = Topic::state("holdfast.levels");
pub(crate) const INTERESTS: &[Interest] = &[
    Interest {
        topic: THINGS,
        kinds: &["thing.changed"],
    },
    Interest {
        topic: LEVELS,
        kinds: &["level.changed"],
    },
];
pub(crate) const SERVICE: &str = "things";
pub(crate) const CONSUMER: &str = "things.recorder";

static MIGRATOR: Migrator = sqlx::migrate!("tests/it/messages/migrations");
const POOL_MAX_CONNECTIONS: u32 = 8;
const WAIT_MAX_SECS: u64 = 30;
const LOOK_MILLIS: u64 = 2;

pub(crate) struct World {
    pub(crate) database: TestDatabase,
    pub(crate) pool: PgPool,
    pub(crate) bus_pool: PgPool,
    pub(crate) log: EmbeddedLog,
    next_outbox_id: AtomicI64,
}

impl World {
    pub(crate) async fn new() -> Self {
        let database = TestDatabase::create(SERVICE, &MIGRATOR).await;
        let bus_pool = patient(&database.bus_url()).await;
        Self {
            pool: patient(&database.app_url()).await,
            log: EmbeddedLog::new(bus_pool.clone(), Wakeups::default()),
            bus_pool,
            database,
            next_outbox_id: AtomicI64::new(1_000_000),
        }
    }

    pub(crate) fn bus(&self) -> Arc<dyn Bus> {
        Arc::new(self.log.clone())
    }

    pub(crate) fn relay(&self) -> Relay {
        self.relay_to(self.bus())
    }

    pub(crate) fn relay_to(&self, bus: Arc<dyn Bus>) -> Relay {
        Relay::new(SERVICE, self.pool.clone(), bus, Wake::default())
    }

    /// Changes a thing and commits.
    pub(crate) async fn change(&self, key: &str) {
        let mut tx = self.pool.begin().await.expect("begin");
        change(&mut tx, key).await;
        tx.commit().await.expect("commit");
    }

    /// Carries all that is announced to the bus.
    pub(crate) async fn carry(&self) {
        self.relay().drain().await.expect("carried");
    }

    /// Puts a message on the bus past any outbox, as a broker gone wrong might.
    pub(crate) async fn put(&self, message: &Message) {
        self.put_raw(&message.topic, &message.key, &message.to_envelope())
            .await;
    }

    pub(crate) async fn put_raw(&self, topic: &str, key: &str, envelope: &str) {
        let outbox_id = self.next_outbox_id.fetch_add(1, Ordering::Relaxed);
        let outgoing = Outgoing {
            outbox_id,
            message_id: uuid::Uuid::from_u128(outbox_id as u128),
            topic: topic.to_owned(),
            key: key.to_owned(),
            envelope: envelope.to_owned(),
        };
        self.log
            .append(SERVICE, &[outgoing])
            .await
            .expect("appended");
    }

    /// All that lies on the bus of a topic, in order, as key and version.
    pub(crate) async fn on_bus(&self, topic: Topic) -> Vec<(String, i64)> {
        let envelopes: Vec<String> = sqlx::query_scalar(
            "SELECT envelope FROM message WHERE topic = $1 ORDER BY partition, log_offset",
        )
        .bind(topic.name())
        .fetch_all(&self.bus_pool)
        .await
        .expect("bus");
        envelopes
            .iter()
            .map(|envelope| {
                let message = Message::from_envelope(envelope).expect("a message");
                (message.key, message.version)
            })
            .collect()
    }

    /// Effects of things in the order they happened.
    pub(crate) async fn effects(&self) -> Vec<(String, i64)> {
        self.effects_in(THINGS).await
    }

    pub(crate) async fn effects_in(&self, topic: Topic) -> Vec<(String, i64)> {
        sqlx::query_as("SELECT key, version FROM effect WHERE topic = $1 ORDER BY id")
            .bind(topic.name())
            .fetch_all(&self.pool)
            .await
            .expect("effects")
    }

    pub(crate) async fn effects_of(&self, key: &str) -> Vec<i64> {
        let effects = self.effects().await;
        effects
            .into_iter()
            .filter(|(of, _)| of == key)
            .map(|(_, version)| version)
            .collect()
    }

    pub(crate) async fn parked(&self) -> Vec<Parked> {
        let mut conn = self.pool.acquire().await.expect("a connection");
        parking::list(&mut conn, Some(CONSUMER), None, 0, 100)
            .await
            .expect("parked")
    }

    pub(crate) async fn pending(&self) -> usize {
        let mut conn = self.pool.acquire().await.expect("a connection");
        outbox::pending(&mut conn, 1_000)
            .await
            .expect("pending")
            .len()
    }

    pub(crate) async fn causes(&self) -> Vec<(Option<i64>, Cause)> {
        let parked = self.parked().await;
        parked
            .into_iter()
            .map(|parked| (parked.version, parked.cause))
            .collect()
    }

    /// Replays a thing.
    pub(crate) async fn replay(&self, recorder: &Recorder, key: &str) -> Replayed {
        parking::replay(&self.pool, &recorder.consumer(), THINGS.name(), key)
            .await
            .expect("replayed")
    }

    pub(crate) async fn skip(&self, recorder: &Recorder, key: &str) -> Option<Skipped> {
        parking::skip(&self.pool, &recorder.consumer(), THINGS.name(), key)
            .await
            .expect("skipped")
    }

    /// Whether somebody under the role of the service waits for a lock in this database.
    pub(crate) async fn is_anybody_waiting(&self) -> bool {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_stat_activity
             WHERE datname = current_database() AND usename = current_user AND wait_event_type = 'Lock')",
        )
        .fetch_one(&self.pool)
        .await
        .expect("activity")
    }

    pub(crate) async fn position(&self) -> i64 {
        sqlx::query_scalar("SELECT next_offset FROM consumer_position WHERE topic = $1")
            .bind(THINGS.name())
            .fetch_one(&self.pool)
            .await
            .expect("a position")
    }

    /// Makes everything on the bus older by these hours.
    pub(crate) async fn age(&self, hours: i32) {
        let owner = database::connect(&self.database.bus_owner_url(), 1)
            .await
            .expect("owner");
        sqlx::query("UPDATE message SET appended_at = appended_at - make_interval(hours => $1)")
            .bind(hours)
            .execute(&owner)
            .await
            .expect("aged");
    }

    pub(crate) async fn known_keys(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM consumer_key")
            .fetch_one(&self.pool)
            .await
            .expect("keys")
    }

    /// Leaves the consumer as one that never ran.
    pub(crate) async fn forget_consumer(&self) {
        for table in ["DELETE FROM consumer_position", "DELETE FROM consumer_key"] {
            sqlx::query(table)
                .execute(&self.pool)
                .await
                .expect("forgotten");
        }
    }

    /// Waits until the consumer has read all that is on the bus.
    pub(crate) async fn settled(&self) {
        until("the consumer has read everything", async || {
            let ends: HashMap<String, i64> = sqlx::query_as("SELECT name, next_offset FROM topic")
                .fetch_all(&self.bus_pool)
                .await
                .expect("bus")
                .into_iter()
                .collect();
            let positions: HashMap<String, i64> = sqlx::query_as(
                "SELECT topic, next_offset FROM consumer_position WHERE consumer = $1",
            )
            .bind(CONSUMER)
            .fetch_all(&self.pool)
            .await
            .expect("positions")
            .into_iter()
            .collect();
            ends.iter()
                .all(|(topic, end)| positions.get(topic) == Some(end))
        })
        .await;
    }

    pub(crate) fn listen(&self, recorder: &Recorder) -> Running {
        self.listen_to(self.bus(), recorder)
    }

    pub(crate) fn listen_to(&self, bus: Arc<dyn Bus>, recorder: &Recorder) -> Running {
        let consumer = recorder.consumer();
        let pool = self.pool.clone();
        Running::of(|shutdown| tokio::spawn(consumer.run(pool, bus, shutdown)))
    }

    /// Lets everything on the bus take effect and stops listening.
    pub(crate) async fn catch_up(&self, recorder: &Recorder) {
        let running = self.listen(recorder);
        self.settled().await;
        running.stop().await;
    }
}

/// A pool that waits for a connection as long as a busy machine needs.
async fn patient(url: &str) -> PgPool {
    PgPoolOptions::new()
        .max_connections(POOL_MAX_CONNECTIONS)
        .acquire_timeout(Duration::from_secs(WAIT_MAX_SECS))
        .connect(url)
        .await
        .expect("the database is there")
}

/// Changes a thing and announces it, as part of the caller's transaction.
pub(crate) async fn change(conn: &mut PgConnection, key: &str) {
    change_as(conn, key, "thing.changed").await;
}

pub(crate) async fn change_as(conn: &mut PgConnection, key: &str, kind: &str) {
    let version: i64 = sqlx::query_scalar(
        "INSERT INTO thing AS old (key, version) VALUES ($1, 1)
         ON CONFLICT (key) DO UPDATE SET version = old.version + 1 RETURNING version",
    )
    .bind(key)
    .fetch_one(&mut *conn)
    .await
    .expect("changed");
    let news = Announcement::new(THINGS, kind, key, version, moment(), &());
    outbox::announce(conn, news).await.expect("announced");
}

pub(crate) fn told(topic: Topic, kind: &str, key: &str, version: i64) -> Message {
    Message {
        id: Message::id_of(topic.name(), key, version),
        topic: topic.name().to_owned(),
        key: key.to_owned(),
        version,
        kind: kind.to_owned(),
        at: moment(),
        traceparent: None,
        data: serde_json::Value::Null,
    }
}

pub(crate) fn thing(key: &str, version: i64) -> Message {
    told(THINGS, "thing.changed", key, version)
}

pub(crate) fn level(key: &str, version: i64) -> Message {
    told(LEVELS, "level.changed", key, version)
}

pub(crate) fn moment() -> Timestamp {
    "2026-12-01T00:00:00Z".parse().expect("a moment")
}

/// Waits for a condition, within a bound.
pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let waited = time::timeout(Duration::from_secs(WAIT_MAX_SECS), async {
        while !holds().await {
            time::sleep(Duration::from_millis(LOOK_MILLIS)).await;
        }
    });
    waited
        .await
        .unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

pub(crate) struct Running {
    shutdown: CancellationToken,
    work: JoinHandle<()>,
}

impl Running {
    pub(crate) fn of(work: impl FnOnce(CancellationToken) -> JoinHandle<()>) -> Self {
        let shutdown = CancellationToken::new();
        let work = work(shutdown.clone());
        Self { shutdown, work }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.work.await.expect("ended without a panic");
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Trouble {
    Permanent,
    Transient,
    Panic,
    /// Takes effect once somebody lets it go on.
    Waits,
}

/// Writes down each message as an effect, and fails where it is told to.
#[derive(Clone, Default)]
pub(crate) struct Recorder {
    troubles: Arc<Mutex<HashMap<(String, i64), Trouble>>>,
    pub(crate) failures: Arc<AtomicUsize>,
    /// How many messages it was given at once, each time; none when it takes them one by one.
    pub(crate) at_once: Option<Arc<Mutex<Vec<usize>>>>,
    /// Told when a message that waits has come.
    pub(crate) came: Arc<Notify>,
    pub(crate) go_on: Arc<Notify>,
}

impl Recorder {
    pub(crate) fn consumer(&self) -> Consumer {
        let consumer = Consumer::new(CONSUMER, INTERESTS, self.clone());
        match self.at_once {
            Some(_) => consumer.at_once(),
            None => consumer,
        }
    }

    /// One that is given at once what was read together.
    pub(crate) fn taking_all() -> Self {
        Self {
            at_once: Some(Arc::default()),
            ..Self::default()
        }
    }

    /// How many messages it was given at once, each time.
    pub(crate) fn given(&self) -> Vec<usize> {
        let given = self.at_once.as_ref().expect("it takes all");
        given.lock().expect("not poisoned").clone()
    }

    pub(crate) fn fail_on(&self, key: &str, version: i64, trouble: Trouble) {
        self.troubles
            .lock()
            .expect("not poisoned")
            .insert((key.to_owned(), version), trouble);
    }

    pub(crate) fn repair(&self) {
        self.troubles.lock().expect("not poisoned").clear();
    }

    fn trouble(&self, message: &Message) -> Option<Trouble> {
        let at = (message.key.clone(), message.version);
        self.troubles
            .lock()
            .expect("not poisoned")
            .get(&at)
            .copied()
    }
}

#[tonic::async_trait]
impl Handler for Recorder {
    async fn handle(&self, conn: &mut PgConnection, message: &Message) -> Result<(), Handling> {
        // First the effect, then the fault: what a failing handler wrote must not stay.
        sqlx::query("INSERT INTO effect (topic, key, version) VALUES ($1, $2, $3)")
            .bind(&message.topic)
            .bind(&message.key)
            .bind(message.version)
            .execute(conn)
            .await?;
        let trouble = self.trouble(message);
        if trouble.is_some() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        match trouble {
            None => Ok(()),
            Some(Trouble::Permanent) => Err(Handling::permanent("no such thing")),
            Some(Trouble::Transient) => Err(Handling::transient("busy")),
            Some(Trouble::Panic) => panic!("a bug in the handler"),
            Some(Trouble::Waits) => {
                self.came.notify_one();
                self.go_on.notified().await;
                Ok(())
            }
        }
    }

    async fn handle_all(
        &self,
        conn: &mut PgConnection,
        messages: &[Message],
    ) -> Result<(), Handling> {
        let given = self.at_once.as_ref().expect("it takes all");
        given.lock().expect("not poisoned").push(messages.len());
        for message in messages {
            self.handle(conn, message).await?;
        }
        Ok(())
    }
}

/// A bus that takes messages and whose answer never arrives.
pub(crate) struct LosesAnswers(pub(crate) EmbeddedLog);

#[tonic::async_trait]
impl Bus for LosesAnswers {
    async fn append(&self, service: &str, outgoing: &[Outgoing]) -> Result<(), BusError> {
        self.0.append(service, outgoing).await?;
        Err(BusError::Unavailable("the connection broke".into()))
    }

    async fn subscribe(
        &self,
        consumer: &str,
        topics: &[Topic],
    ) -> Result<Box<dyn Subscription>, BusError> {
        self.0.subscribe(consumer, topics).await
    }
}

/// A bus that says when an append has come, and takes it only when it is let go on.
pub(crate) struct Gated {
    pub(crate) log: EmbeddedLog,
    pub(crate) came: Arc<Notify>,
    pub(crate) go_on: Arc<Notify>,
}

#[tonic::async_trait]
impl Bus for Gated {
    async fn append(&self, service: &str, outgoing: &[Outgoing]) -> Result<(), BusError> {
        self.came.notify_one();
        self.go_on.notified().await;
        self.log.append(service, outgoing).await
    }

    async fn subscribe(
        &self,
        consumer: &str,
        topics: &[Topic],
    ) -> Result<Box<dyn Subscription>, BusError> {
        self.log.subscribe(consumer, topics).await
    }
}

/// A bus whose reader is slow: it tells from where it reads, and hands over what it read when it is let go on.
#[derive(Clone)]
pub(crate) struct SlowReader {
    pub(crate) log: EmbeddedLog,
    pub(crate) reads: mpsc::UnboundedSender<i64>,
    pub(crate) go_on: Arc<Notify>,
}

#[tonic::async_trait]
impl Bus for SlowReader {
    async fn append(&self, service: &str, outgoing: &[Outgoing]) -> Result<(), BusError> {
        self.log.append(service, outgoing).await
    }

    async fn subscribe(
        &self,
        consumer: &str,
        _topics: &[Topic],
    ) -> Result<Box<dyn Subscription>, BusError> {
        let inner = self.log.subscribe(consumer, &[THINGS]).await?;
        let bus = self.clone();
        Ok(Box::new(SlowSubscription { inner, bus }))
    }
}

struct SlowSubscription {
    inner: Box<dyn Subscription>,
    bus: SlowReader,
}

#[tonic::async_trait]
impl Subscription for SlowSubscription {
    async fn next(&mut self) -> Result<Box<dyn Partition>, BusError> {
        let inner = self.inner.next().await?;
        let bus = self.bus.clone();
        Ok(Box::new(SlowPartition { inner, bus }))
    }
}

struct SlowPartition {
    inner: Box<dyn Partition>,
    bus: SlowReader,
}

#[tonic::async_trait]
impl Partition for SlowPartition {
    fn place(&self) -> &Place {
        self.inner.place()
    }

    async fn read(&mut self, from: i64) -> Result<Vec<Record>, BusError> {
        let records = self.inner.read(from).await;
        self.bus.reads.send(from).ok();
        self.bus.go_on.notified().await;
        records
    }

    async fn oldest(&mut self) -> Result<i64, BusError> {
        self.inner.oldest().await
    }

    async fn end(&mut self) -> Result<i64, BusError> {
        self.inner.end().await
    }
}
