//! The bus that needs nothing but PostgreSQL: one append-only table, and a counter row per partition.
//!
//! Offsets are handed out under the lock of the counter row, which is kept until the commit. So they have no holes, and
//! no offset shows up behind one that a reader has passed.

use std::time::Duration;

use jiff::SignedDuration;
use sqlx::{Acquire, PgConnection, PgPool};
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

use crate::{
    bus::{Bus, BusError, Outgoing, Partition, Place, READ_MAX_RECORDS, Record, Subscription},
    message::Topic,
    wakeup::{CHANNEL, Wakeups},
};

/// How often a reader looks without having been woken, in case a wake-up was lost.
pub const LOOK_MILLIS: u64 = 1_000;
/// How long messages are kept unless set otherwise, in hours.
pub const KEEP_HOURS: i64 = 7 * 24;
/// How often old messages are dropped, in seconds.
const RETENTION_INTERVAL_SECS: u64 = 600;
/// Most messages dropped while appends to their partition wait.
const DROP_MAX_ROWS: i32 = 1_000;
/// The whole order of a topic is kept: one process reads an embedded log, and gains nothing from more partitions.
const ONLY_PARTITION: i32 = 0;

/// A message log in the schema `bus` of a PostgreSQL database.
#[derive(Debug, Clone)]
pub struct EmbeddedLog {
    pool: PgPool,
    wakeups: Wakeups,
}

impl EmbeddedLog {
    /// The log that `pool` reaches under the role `bus_app`; its readers wait at `wakeups`.
    pub fn new(pool: PgPool, wakeups: Wakeups) -> Self {
        Self { pool, wakeups }
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
                if now < i64::from(DROP_MAX_ROWS) {
                    break;
                }
            }
        }
        Ok(dropped)
    }
}

#[tonic::async_trait]
impl Bus for EmbeddedLog {
    async fn append(&self, service: &str, outgoing: &[Outgoing]) -> Result<(), BusError> {
        let mut topics: Vec<&str> = outgoing
            .iter()
            .map(|message| message.topic.as_str())
            .collect();
        // Always in the same order, so that two who append to several topics do not wait for each other.
        topics.sort_unstable();
        topics.dedup();
        let mut conn = self.pool.acquire().await?;
        let mut tx = conn.begin().await?;
        for topic in &topics {
            lock_counter(&mut tx, topic).await?;
            append(&mut tx, service, topic, outgoing)
                .await
                .map_err(|error| reused(service, error))?;
        }
        tx.commit().await?;
        for topic in topics {
            self.wakeups.wake(topic);
        }
        Ok(())
    }

    async fn subscribe(
        &self,
        _consumer: &str,
        topics: &[Topic],
    ) -> Result<Box<dyn Subscription>, BusError> {
        let partitions = topics
            .iter()
            .map(|&topic| LogPartition {
                place: Place {
                    topic,
                    partition: ONLY_PARTITION,
                },
                pool: self.pool.clone(),
                appended: self.wakeups.of(topic.name()),
                end: None,
            })
            .collect();
        Ok(Box::new(LogSubscription { partitions }))
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
    pool: PgPool,
    appended: watch::Receiver<()>,
    /// Where the log ended when it was last looked at, until it is time to look again.
    end: Option<i64>,
}

impl LogPartition {
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
        loop {
            if self.end != Some(from) {
                // Whatever is appended after this wakes us below.
                self.appended.borrow_and_update();
                let mut conn = self.pool.acquire().await?;
                let (extent, records) = read(&mut conn, &self.place, from).await?;
                self.check(from, extent)?;
                self.end = Some(extent.next_offset);
                if !records.is_empty() {
                    return Ok(records);
                }
            }
            let look = Duration::from_millis(LOOK_MILLIS);
            // Either way it is time to look.
            time::timeout(look, self.appended.changed()).await.ok();
            self.end = None;
        }
    }

    async fn oldest(&mut self) -> Result<i64, BusError> {
        let extent = extent(&mut *self.pool.acquire().await?, &self.place).await?;
        Ok(extent.log_start)
    }

    async fn end(&mut self) -> Result<i64, BusError> {
        let extent = extent(&mut *self.pool.acquire().await?, &self.place).await?;
        Ok(extent.next_offset)
    }
}

/// Where a partition begins, and the offset its next message will get.
#[derive(Debug, Clone, Copy, Default, sqlx::FromRow)]
struct Extent {
    log_start: i64,
    next_offset: i64,
}

fn reused(service: &str, error: sqlx::Error) -> BusError {
    let constraint = error
        .as_database_error()
        .and_then(|error| error.constraint());
    match constraint {
        Some("message_appended_once") => BusError::Reused {
            service: service.to_owned(),
        },
        _ => error.into(),
    }
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

/// Appends what goes to the topic, as far as it is not there yet, and has other processes told once this commits. The
/// counter must be locked.
async fn append(
    conn: &mut PgConnection,
    service: &str,
    topic: &str,
    outgoing: &[Outgoing],
) -> Result<(), sqlx::Error> {
    let outgoing: Vec<&Outgoing> = outgoing
        .iter()
        .filter(|message| message.topic == topic)
        .collect();
    sqlx::query(
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
         RETURNING pg_notify($8, name)",
    )
    .bind(topic)
    .bind(ONLY_PARTITION)
    .bind(service)
    .bind(outgoing.iter().map(|message| message.outbox_id).collect::<Vec<_>>())
    .bind(outgoing.iter().map(|message| message.message_id).collect::<Vec<_>>())
    .bind(outgoing.iter().map(|message| message.key.as_str()).collect::<Vec<_>>())
    .bind(outgoing.iter().map(|message| message.envelope.as_str()).collect::<Vec<_>>())
    .bind(CHANNEL)
    .execute(conn)
    .await?;
    Ok(())
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
    let records = rows.into_iter().filter_map(|row| {
        Some(Record {
            log_offset: row.log_offset?,
            key: row.key?,
            envelope: row.envelope?,
        })
    });
    Ok((extent, records.collect()))
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
