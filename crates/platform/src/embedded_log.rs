//! The bus that needs nothing but PostgreSQL: one append-only table, and a counter row per partition.
//!
//! Offsets are handed out under the lock of the counter row, which is kept until the commit. So they have no holes, and
//! no offset shows up behind one that a reader has passed.
//!
//! All who read in a process read together. Of each topic a [`window`] holds the newest messages: what this process appends
//! comes in at once, and what others append one reader fetches for all who wait at the end, of every topic, by one
//! statement. Who is elsewhere (at a start, or after a halt) reads by himself until he has come to the window. So nobody
//! waits for a slow one, and nobody reads what another has just read. Positions are not kept here: to a consumer a message
//! is the same wherever it was read.

mod window;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::SignedDuration;
use sqlx::{Acquire, PgConnection, PgPool};
use tokio::{
    sync::watch,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use self::window::{Seen, Window};
use crate::{
    bus::{Bus, BusError, Outgoing, Partition, Place, READ_MAX_RECORDS, Record, Subscription},
    message::Topic,
    wakeup::{CHANNEL, Told, Wakeups},
};

/// How often the readers of a process look without having been woken, in case a wake-up was lost.
pub const LOOK_MILLIS: u64 = 1_000;
/// How long messages are kept unless set otherwise, in hours.
pub const KEEP_HOURS: i64 = 7 * 24;
/// How often old messages are dropped, in seconds.
const RETENTION_INTERVAL_SECS: u64 = 600;
/// Most messages dropped while appends to their partition wait.
const DROP_MAX_ROWS: i32 = 1_000;
/// The whole order of a topic is kept: one process reads an embedded log, and gains nothing from more partitions.
const ONLY_PARTITION: i32 = 0;

/// A message log in the schema `bus` of a PostgreSQL database. Clones read together.
#[derive(Debug, Clone)]
pub struct EmbeddedLog {
    pool: PgPool,
    wakeups: Wakeups,
    reading: Arc<Reading>,
}

/// What the readers of this process share.
#[derive(Debug, Default)]
struct Reading {
    /// Of every topic that somebody reads.
    windows: Mutex<HashMap<&'static str, Window>>,
    /// When somebody last looked for all, before the look began. Whoever looks holds it, so that only one does.
    looked: tokio::sync::Mutex<Option<Instant>>,
}

impl EmbeddedLog {
    /// The log that `pool` reaches under the role `bus_app`; its readers wait at `wakeups`.
    pub fn new(pool: PgPool, wakeups: Wakeups) -> Self {
        Self {
            pool,
            wakeups,
            reading: Arc::default(),
        }
    }

    /// Drops messages older than `keep` (an hour or more), now and from time to time, until shutdown.
    pub async fn retain(self, keep: SignedDuration, shutdown: CancellationToken) {
        let mut times = time::interval(Duration::from_secs(RETENTION_INTERVAL_SECS));
        while shutdown.run_until_cancelled(times.tick()).await.is_some() {
            match self.drop_behind(keep).await {
                Ok(0) => {}
                Ok(dropped) => tracing::info!(dropped, "dropped old messages"),
                Err(error) => tracing::warn!(%error, "cannot drop old messages"),
            }
        }
    }

    /// Drops messages older than `keep` (an hour or more) and says how many.
    pub async fn drop_behind(&self, keep: SignedDuration) -> Result<u64, BusError> {
        let mut conn = self.pool.acquire().await?;
        let mut dropped = 0;
        for (topic, partition) in partitions(&mut conn).await? {
            loop {
                let now = drop_behind(&mut conn, &topic, partition, keep).await?;
                dropped += now as u64;
                // What the log has dropped nobody is given from memory.
                if now > 0
                    && let Some(window) = self.windows().get_mut(topic.as_str())
                {
                    window.forget();
                }
                if now < i64::from(DROP_MAX_ROWS) {
                    break;
                }
            }
        }
        Ok(dropped)
    }

    fn windows(&self) -> MutexGuard<'_, HashMap<&'static str, Window>> {
        // A window is changed by one call that does not panic.
        let windows = self.reading.windows.lock();
        windows.unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows what was appended to those who read the topic here. All of it is new, and lies just before `end`.
    fn show(&self, topic: &str, end: i64, appended: &[&Outgoing]) {
        let from = end - appended.len() as i64;
        // What lies before it and is not known, another process has appended; then one reads all of it for all.
        if let Some(window) = self.windows().get_mut(topic)
            && window.end().is_some_and(|known| from <= known)
        {
            let records = (from..).zip(appended).map(|(log_offset, message)| Record {
                log_offset,
                key: message.key.clone(),
                envelope: message.envelope.clone(),
            });
            window.take_in(from, end, records);
        }
        self.wakeups.grown(topic, end);
    }

    fn seen(&self, topic: Topic, from: i64) -> Seen {
        let windows = self.windows();
        let window = windows.get(topic.name());
        window.map_or(Seen::Elsewhere, |window| window.seen(from))
    }

    /// Reads on in the log for all who wait where it ended, here at `end` of `topic`; unless somebody has since `told`, or
    /// nothing was told and it is not time to look.
    async fn look(&self, topic: Topic, end: i64, told: Told) -> Result<(), BusError> {
        let mut looked = self.reading.looked.lock().await;
        let known: HashMap<&str, i64> = (self.windows().iter())
            .filter_map(|(&topic, window)| Some((topic, window.end()?)))
            .collect();
        let rested = |at: Instant| at.elapsed() >= Duration::from_millis(LOOK_MILLIS);
        let hinted = |at: Instant| told.hinted.is_some_and(|hinted| hinted >= at);
        let due = told.end > end || looked.is_none_or(|at| hinted(at) || rested(at));
        if known.get(topic.name()) != Some(&end) || !due {
            return Ok(());
        }
        let began = Instant::now();
        let mut news = read_on(&mut *self.pool.acquire().await?, &known).await?;
        count_read("for all");
        *looked = Some(began);
        for (topic, from) in known {
            // A topic that nobody has announced to is empty.
            let (extent, records) = news.remove(topic).unwrap_or_default();
            self.take_in(topic, from, extent, records);
        }
        Ok(())
    }

    fn take_in(&self, topic: &str, from: i64, extent: Extent, records: Vec<Record>) {
        let mut windows = self.windows();
        let Some(window) = windows.get_mut(topic) else {
            return;
        };
        if !extent.reaches(from) {
            // Not the log that was read before, or its reader was away too long: each finds out by himself.
            window.forget();
            drop(windows);
            self.wakeups.shrunk(topic, extent.next_offset);
        } else if let Some(last) = records.last() {
            window.take_in(from, last.log_offset + 1, records);
            drop(windows);
            self.wakeups.grown(topic, extent.next_offset);
        }
    }
}

#[tonic::async_trait]
impl Bus for EmbeddedLog {
    async fn append(&self, service: &str, outgoing: &[Outgoing]) -> Result<(), BusError> {
        let mut topics: Vec<&str> = outgoing
            .iter()
            .map(|message| message.topic.as_str())
            .collect();
        topics.sort_unstable();
        topics.dedup();
        let mut conn = self.pool.acquire().await?;
        // Each topic by itself: whoever appends to several holds one counter at a time, so no two wait for each other.
        for topic in topics {
            let outgoing: Vec<&Outgoing> = outgoing
                .iter()
                .filter(|message| message.topic == topic)
                .collect();
            match append_new(&mut conn, service, topic, &outgoing).await {
                Ok(Some(end)) => self.show(topic, end, &outgoing),
                Err(error) if !was_appended(&error) => return Err(error.into()),
                // The topic has no counter yet, or some of it is there.
                Ok(None) | Err(_) => {
                    self.append_missing(&mut conn, service, topic, &outgoing)
                        .await?;
                }
            }
        }
        Ok(())
    }

    async fn subscribe(
        &self,
        _consumer: &str,
        topics: &[Topic],
    ) -> Result<Box<dyn Subscription>, BusError> {
        let mut windows = self.windows();
        for topic in topics {
            windows.entry(topic.name()).or_default();
        }
        drop(windows);
        let partitions = topics
            .iter()
            .map(|&topic| LogPartition {
                place: Place {
                    topic,
                    partition: ONLY_PARTITION,
                },
                log: self.clone(),
                told: self.wakeups.of(topic.name()),
            })
            .collect();
        Ok(Box::new(LogSubscription { partitions }))
    }
}

impl EmbeddedLog {
    /// Appends what is not there yet: after an answer that got lost, or to a topic that has no counter yet.
    async fn append_missing(
        &self,
        conn: &mut PgConnection,
        service: &str,
        topic: &str,
        outgoing: &[&Outgoing],
    ) -> Result<(), BusError> {
        let mut tx = conn.begin().await?;
        lock_counter(&mut tx, topic).await?;
        let end = append(&mut tx, service, topic, outgoing).await;
        let end = end.map_err(|error| reused(service, error))?;
        tx.commit().await?;
        // Which of them are new is not known here.
        self.wakeups.grown(topic, end);
        Ok(())
    }
}

/// Gives every reader all partitions: of two readers of a consumer one finds the work done by the other.
struct LogSubscription {
    partitions: Vec<LogPartition>,
}

#[tonic::async_trait]
impl Subscription for LogSubscription {
    async fn next(&mut self) -> Result<Box<dyn Partition>, BusError> {
        match self.partitions.pop() {
            Some(partition) => Ok(Box::new(partition)),
            None => std::future::pending().await,
        }
    }
}

struct LogPartition {
    place: Place,
    log: EmbeddedLog,
    told: watch::Receiver<Told>,
}

impl LogPartition {
    /// Reads past the window, and gives it what was read where that is the end of the log.
    async fn read_alone(&self, from: i64) -> Result<Vec<Record>, BusError> {
        let mut conn = self.log.pool.acquire().await?;
        let (extent, records) = read(&mut conn, &self.place, from).await?;
        count_read("alone");
        self.check(from, extent)?;
        let next = records.last().map_or(from, |last| last.log_offset + 1);
        if next == extent.next_offset
            && let Some(window) = self.log.windows().get_mut(self.place.topic.name())
        {
            window.take_in(from, next, records.iter().cloned());
        }
        Ok(records)
    }

    fn check(&self, from: i64, extent: Extent) -> Result<(), BusError> {
        let (topic, partition) = (self.place.topic.name().to_owned(), self.place.partition);
        if from < extent.log_start {
            return Err(BusError::Forgotten {
                topic,
                partition,
                wanted: from,
                oldest: extent.log_start,
            });
        }
        if from > extent.next_offset {
            return Err(BusError::Ahead {
                topic,
                partition,
                wanted: from,
                end: extent.next_offset,
            });
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Partition for LogPartition {
    fn place(&self) -> &Place {
        &self.place
    }

    async fn read(&mut self, from: i64) -> Result<Vec<Record>, BusError> {
        let topic = self.place.topic;
        loop {
            // Whatever is told after this wakes us below.
            let told = *self.told.borrow_and_update();
            let mut seen = self.log.seen(topic, from);
            if seen == Seen::End {
                self.log.look(topic, from, told).await?;
                seen = self.log.seen(topic, from);
            }
            let records = match seen {
                Seen::Records(records) => records,
                Seen::End => Vec::new(),
                Seen::Elsewhere => self.read_alone(from).await?,
            };
            if !records.is_empty() {
                return Ok(records);
            }
            let look = Duration::from_millis(LOOK_MILLIS);
            // Either way it is time to look.
            time::timeout(look, self.told.changed()).await.ok();
        }
    }

    async fn oldest(&mut self) -> Result<i64, BusError> {
        let extent = extent(&mut *self.log.pool.acquire().await?, &self.place).await?;
        Ok(extent.log_start)
    }

    async fn end(&mut self) -> Result<i64, BusError> {
        let extent = extent(&mut *self.log.pool.acquire().await?, &self.place).await?;
        Ok(extent.next_offset)
    }
}

/// Where a partition begins, and the offset its next message will get.
#[derive(Debug, Clone, Copy, Default, sqlx::FromRow)]
struct Extent {
    log_start: i64,
    next_offset: i64,
}

impl Extent {
    fn reaches(self, from: i64) -> bool {
        (self.log_start..=self.next_offset).contains(&from)
    }
}

fn count_read(by: &'static str) {
    metrics::counter!("holdfast_log_reads_total", "by" => by).increment(1);
}

fn was_appended(error: &sqlx::Error) -> bool {
    let constraint = error
        .as_database_error()
        .and_then(|error| error.constraint());
    constraint == Some("message_appended_once")
}

fn reused(service: &str, error: sqlx::Error) -> BusError {
    if was_appended(&error) {
        return BusError::Reused {
            service: service.to_owned(),
        };
    }
    error.into()
}

/// Appends all of it, has other processes told, and says where the topic ends then; none, and nothing is appended, where
/// the topic has no counter yet. Fails by the constraint `message_appended_once` when some of it is there.
///
/// One statement, which is its own transaction: the counter is locked by it until it has committed.
async fn append_new(
    conn: &mut PgConnection,
    service: &str,
    topic: &str,
    outgoing: &[&Outgoing],
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "WITH counter AS (
            UPDATE topic SET next_offset = next_offset + cardinality($4::int8[])
            WHERE name = $1 AND partition = $2
            RETURNING name, partition, next_offset
         ), appended AS (
            INSERT INTO message (topic, partition, log_offset, service, outbox_id, message_id, key, envelope)
            SELECT counter.name, counter.partition, counter.next_offset - cardinality($4::int8[]) - 1 + place,
                   $3, news.outbox_id, news.message_id, news.key, news.envelope
            FROM counter CROSS JOIN unnest($4::int8[], $5::uuid[], $6::text[], $7::text[])
                 WITH ORDINALITY AS news (outbox_id, message_id, key, envelope, place)
         ), told AS (
            SELECT pg_notify($8, name || ' ' || next_offset) FROM counter
         )
         SELECT next_offset FROM counter CROSS JOIN told",
    )
    .bind(topic)
    .bind(ONLY_PARTITION)
    .bind(service)
    .bind(outgoing.iter().map(|message| message.outbox_id).collect::<Vec<_>>())
    .bind(outgoing.iter().map(|message| message.message_id).collect::<Vec<_>>())
    .bind(outgoing.iter().map(|message| message.key.as_str()).collect::<Vec<_>>())
    .bind(outgoing.iter().map(|message| message.envelope.as_str()).collect::<Vec<_>>())
    .bind(CHANNEL)
    .fetch_optional(conn)
    .await
}

/// Makes the caller the only one to append to the topic until its transaction ends.
async fn lock_counter(conn: &mut PgConnection, topic: &str) -> Result<(), sqlx::Error> {
    if lock_known_counter(conn, topic).await? {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO topic (name, partition) VALUES ($1, $2) ON CONFLICT (name, partition) DO NOTHING",
    )
    .bind(topic)
    .bind(ONLY_PARTITION)
    .execute(&mut *conn)
    .await?;
    let locked = lock_known_counter(conn, topic).await?;
    locked.then_some(()).ok_or(sqlx::Error::RowNotFound)
}

/// Says whether there is a counter to lock.
async fn lock_known_counter(conn: &mut PgConnection, topic: &str) -> Result<bool, sqlx::Error> {
    let locked =
        sqlx::query("SELECT next_offset FROM topic WHERE name = $1 AND partition = $2 FOR UPDATE")
            .bind(topic)
            .bind(ONLY_PARTITION)
            .fetch_optional(conn)
            .await?;
    Ok(locked.is_some())
}

/// Appends what is not there yet, has other processes told once this commits, and says where the topic ends then. The
/// counter must be locked.
async fn append(
    conn: &mut PgConnection,
    service: &str,
    topic: &str,
    outgoing: &[&Outgoing],
) -> Result<i64, sqlx::Error> {
    let (end, _told): (i64, ()) = sqlx::query_as(
        "WITH appended AS (
            INSERT INTO message (topic, partition, log_offset, service, outbox_id, message_id, key, envelope)
            SELECT counter.name, counter.partition, counter.next_offset - 1 + row_number() OVER (ORDER BY place),
                   $3, news.outbox_id, news.message_id, news.key, news.envelope
            FROM unnest($4::int8[], $5::uuid[], $6::text[], $7::text[])
                 WITH ORDINALITY AS news (outbox_id, message_id, key, envelope, place)
            CROSS JOIN (SELECT name, partition, next_offset FROM topic WHERE name = $1 AND partition = $2) AS counter
            -- A look-up each: planned while the log is young, an anti-join would read all that the service ever said.
            WHERE (SELECT message_id FROM message
                   WHERE message.service = $3 AND message.outbox_id = news.outbox_id) IS DISTINCT FROM news.message_id
            RETURNING log_offset
         )
         UPDATE topic SET next_offset = next_offset + (SELECT count(*) FROM appended)
         WHERE name = $1 AND partition = $2
         RETURNING next_offset, pg_notify($8, name || ' ' || next_offset)",
    )
    .bind(topic)
    .bind(ONLY_PARTITION)
    .bind(service)
    .bind(outgoing.iter().map(|message| message.outbox_id).collect::<Vec<_>>())
    .bind(outgoing.iter().map(|message| message.message_id).collect::<Vec<_>>())
    .bind(outgoing.iter().map(|message| message.key.as_str()).collect::<Vec<_>>())
    .bind(outgoing.iter().map(|message| message.envelope.as_str()).collect::<Vec<_>>())
    .bind(CHANNEL)
    .fetch_one(conn)
    .await?;
    Ok(end)
}

async fn extent(conn: &mut PgConnection, place: &Place) -> Result<Extent, sqlx::Error> {
    let extent = sqlx::query_as(
        "SELECT log_start, next_offset FROM topic WHERE name = $1 AND partition = $2",
    )
    .bind(place.topic.name())
    .bind(place.partition)
    .fetch_optional(conn)
    .await?;
    // A topic that nobody has announced to is empty.
    Ok(extent.unwrap_or_default())
}

/// The partition's extent, and its first messages from that offset on, as they were at one moment.
async fn read(
    conn: &mut PgConnection,
    place: &Place,
    from: i64,
) -> Result<(Extent, Vec<Record>), sqlx::Error> {
    let rows: Vec<ReadRow> = sqlx::query_as(
        "SELECT log_start, next_offset, log_offset, key, envelope
         FROM topic LEFT JOIN LATERAL (
            SELECT log_offset, key, envelope FROM message
            WHERE topic = $1 AND partition = $2 AND log_offset >= $3
            ORDER BY log_offset LIMIT $4
         ) AS first ON true
         WHERE name = $1 AND partition = $2 ORDER BY log_offset",
    )
    .bind(place.topic.name())
    .bind(place.partition)
    .bind(from)
    .bind(READ_MAX_RECORDS as i64)
    .fetch_all(conn)
    .await?;
    // A topic that nobody has announced to is empty.
    let extent = rows.first().map_or_else(Extent::default, |row| row.extent);
    let records = rows.into_iter().filter_map(ReadRow::record);
    Ok((extent, records.collect()))
}

/// By topic its extent and its first messages behind what is `known`, as they were at one moment.
async fn read_on(
    conn: &mut PgConnection,
    known: &HashMap<&str, i64>,
) -> Result<HashMap<String, (Extent, Vec<Record>)>, sqlx::Error> {
    let (topics, ends): (Vec<&str>, Vec<i64>) = known.iter().unzip();
    let rows: Vec<ReadOnRow> = sqlx::query_as(
        "SELECT name, log_start, next_offset, log_offset, key, envelope
         FROM unnest($1::text[], $2::int8[]) AS known (topic, log_end)
         JOIN topic ON name = known.topic AND partition = $3
         LEFT JOIN LATERAL (
            SELECT log_offset, key, envelope FROM message
            WHERE message.topic = known.topic AND message.partition = $3 AND log_offset >= known.log_end
            ORDER BY log_offset LIMIT $4
         ) AS news ON true
         ORDER BY name, log_offset",
    )
    .bind(topics)
    .bind(ends)
    .bind(ONLY_PARTITION)
    .bind(READ_MAX_RECORDS as i64)
    .fetch_all(conn)
    .await?;
    let mut news: HashMap<String, (Extent, Vec<Record>)> = HashMap::new();
    for ReadOnRow { name, row } in rows {
        let (extent, records) = news.entry(name).or_default();
        *extent = row.extent;
        records.extend(row.record());
    }
    Ok(news)
}

#[derive(sqlx::FromRow)]
struct ReadOnRow {
    name: String,
    #[sqlx(flatten)]
    row: ReadRow,
}

/// An offset, a key and an envelope, unless there is no message.
#[derive(sqlx::FromRow)]
struct ReadRow {
    #[sqlx(flatten)]
    extent: Extent,
    log_offset: Option<i64>,
    key: Option<String>,
    envelope: Option<String>,
}

impl ReadRow {
    fn record(self) -> Option<Record> {
        Some(Record {
            log_offset: self.log_offset?,
            key: self.key?,
            envelope: self.envelope?,
        })
    }
}

async fn partitions(conn: &mut PgConnection) -> Result<Vec<(String, i32)>, sqlx::Error> {
    sqlx::query_as("SELECT name, partition FROM topic ORDER BY name, partition")
        .fetch_all(conn)
        .await
}

async fn drop_behind(
    conn: &mut PgConnection,
    topic: &str,
    partition: i32,
    keep: SignedDuration,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT drop_behind($1, $2, make_interval(secs => $3), $4)")
        .bind(topic)
        .bind(partition)
        .bind(keep.as_secs_f64())
        .bind(DROP_MAX_ROWS)
        .fetch_one(conn)
        .await
}
