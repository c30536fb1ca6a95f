//! Messages set aside, because they can never take effect as things are, or because one before them is missing.
//!
//! A key with a parked message is blocked: what arrives for it is parked too, in order, while other keys go on. A gap ends
//! by itself when the missing message arrives. After a fault somebody repairs what was wrong and has the key replayed.

use std::{error::Error, fmt};

use holdfast_kernel::Timestamp;
use sqlx::{Acquire, PgConnection, PgPool};

use crate::{
    bus::{Place, Record},
    consumer::{self, Consumer, Handling, KeyState, Verdict, judge},
    message::{Message, Topic},
};

/// Most messages that lie parked for one consumer; then its partitions halt instead.
pub const PARKED_MAX_MESSAGES: i64 = 100_000;
/// Most messages one replay lets take effect.
pub const REPLAY_MAX_MESSAGES: u64 = 10_000;
/// Most messages one list shows.
pub const LIST_MAX_MESSAGES: u16 = 100;
/// Longest reason kept, in characters.
const REASON_MAX_CHARS: usize = 1_000;

/// Why a message is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It cannot be read, or its handler refused it for good.
    Fault,
    /// An earlier version of its key has not arrived.
    Gap,
    /// An earlier message of its key is parked.
    Behind,
}

/// A parked message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// Rises in the order of parking.
    pub id: i64,
    /// Whose it is.
    pub consumer: String,
    /// The topic's name.
    pub topic: String,
    /// What it tells of.
    pub key: String,
    /// The partition it came from.
    pub partition: i32,
    /// Its place there.
    pub log_offset: i64,
    /// The aggregate's version; unknown when the envelope cannot be read.
    pub version: Option<i64>,
    /// The message as it came.
    pub envelope: String,
    /// Why it is parked.
    pub cause: Cause,
    /// The same in words.
    pub reason: String,
    /// Since when.
    pub parked_at: Timestamp,
}

/// How far a replay came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Messages that took effect, or whose type nobody here listens to.
    pub handled: u64,
    /// Messages that had taken effect before.
    pub dropped: u64,
    /// What stands in the way of the rest; the key is free when nothing does.
    pub stopped: Option<Stopped>,
}

/// The message a replay stopped at. It is still parked, with all behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// Its id in the list.
    pub id: i64,
    /// Why it went no further.
    pub reason: String,
}

/// What a key was made to do without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Skipped {
    /// The first parked message.
    Message(Box<Parked>),
    /// Versions that never arrived, both ends included.
    Gap {
        /// The first missing version.
        from: i64,
        /// The last missing version.
        to: i64,
    },
}

/// Why nothing, or no more, was replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The consumer does not listen to the topic.
    #[error("consumer {consumer} does not listen to {topic:?}")]
    UnknownTopic {
        /// The consumer.
        consumer: &'static str,
        /// What was asked for.
        topic: String,
    },
    /// The handler failed for now; what was replayed before it stays so.
    #[error("message {id} cannot take effect now: {cause}")]
    Transient {
        /// Its id in the list.
        id: i64,
        /// What the handler met.
        cause: Box<dyn Error + Send + Sync>,
    },
    /// The service's database failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
}

/// The consumer has as many parked messages as it may.
#[derive(Debug, thiserror::Error)]
#[error("consumer {consumer} has {PARKED_MAX_MESSAGES} parked messages, and no room for more")]
pub struct Full {
    consumer: String,
}

/// Lists parked messages, oldest first, those behind the id `after`; at most [`LIST_MAX_MESSAGES`].
pub async fn list(
    conn: &mut PgConnection,
    consumer: Option<&str>,
    key: Option<&str>,
    after: i64,
    limit: u16,
) -> Result<Vec<Parked>, sqlx::Error> {
    let rows: Vec<store::Row> =
        store::list(conn, consumer, key, after, limit.min(LIST_MAX_MESSAGES)).await?;
    rows.into_iter().map(Parked::try_from).collect()
}

/// Lets the parked messages of a key take effect in order, and frees the key when all did.
///
/// Each takes effect in a transaction of its own, under the same rules as on arrival. Stops at the first that still
/// cannot, and after [`REPLAY_MAX_MESSAGES`]. Replaying twice, or a key that has nothing parked, does nothing.
pub async fn replay(
    pool: &PgPool,
    consumer: &Consumer,
    topic: &str,
    key: &str,
) -> Result<Replayed, ReplayError> {
    let topic = listened(consumer, topic)?;
    let mut replayed = Replayed {
        handled: 0,
        dropped: 0,
        stopped: None,
    };
    let mut conn = pool.acquire().await?;
    while replayed.handled + replayed.dropped < REPLAY_MAX_MESSAGES {
        match replay_first(&mut conn, consumer, topic, key).await? {
            Step::Empty => break,
            Step::Handled => replayed.handled += 1,
            Step::Dropped => replayed.dropped += 1,
            Step::Read => {}
            Step::Stopped(stopped) => {
                replayed.stopped = Some(stopped);
                break;
            }
        }
    }
    Ok(replayed)
}

/// Gives up what stands in the way of a key's first parked message: the missing versions before it, or the message itself.
///
/// For what can never be repaired. Replay the key afterwards. Answers `None` when nothing of the key is parked.
pub async fn skip(
    pool: &PgPool,
    consumer: &Consumer,
    topic: &str,
    key: &str,
) -> Result<Option<Skipped>, ReplayError> {
    let topic = listened(consumer, topic)?;
    let mut tx = pool.begin().await?;
    let Some((first, state, knows_every_key)) = lock_first(&mut tx, consumer, topic, key).await?
    else {
        return Ok(None);
    };
    let name = consumer.name();
    let verdict = first.version.map(|version| {
        (
            version,
            judge(topic.kind(), version, state, knows_every_key),
        )
    });
    let skipped = match verdict {
        Some((version, Verdict::Gap { expected })) => {
            let last = version - 1;
            store::remember(&mut tx, name, &first, last).await?;
            Skipped::Gap {
                from: expected,
                to: last,
            }
        }
        Some((version, verdict)) => {
            if verdict != Verdict::Drop {
                store::remember(&mut tx, name, &first, version).await?;
            }
            unpark(&mut tx, first.id).await?;
            Skipped::Message(Box::new(first))
        }
        None => {
            unpark(&mut tx, first.id).await?;
            Skipped::Message(Box::new(first))
        }
    };
    tx.commit().await?;
    tracing::warn!(
        consumer = name,
        topic = topic.name(),
        key,
        ?skipped,
        "skipped"
    );
    Ok(Some(skipped))
}

/// A record that is to be parked.
pub(crate) struct Park<'a> {
    pub(crate) consumer: &'a str,
    pub(crate) place: &'a Place,
    pub(crate) record: &'a Record,
}

/// Why a message could not even be parked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParkError {
    #[error(transparent)]
    Full(#[from] Full),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Parks a record behind the `parked` ones of its consumer. A record that is parked already stays as it is.
pub(crate) async fn park(
    conn: &mut PgConnection,
    park: &Park<'_>,
    parked: i64,
    version: Option<i64>,
    cause: Cause,
    reason: &str,
) -> Result<(), ParkError> {
    if parked >= PARKED_MAX_MESSAGES {
        return Err(Full {
            consumer: park.consumer.to_owned(),
        }
        .into());
    }
    store::park(conn, park, version, cause, &shortened(reason)).await?;
    Ok(())
}

pub(crate) use store::{count, unpark};

/// The parked message of the key that comes first.
pub(crate) async fn first(
    conn: &mut PgConnection,
    consumer: &str,
    topic: &str,
    key: &str,
) -> Result<Option<Parked>, sqlx::Error> {
    let row = store::first(conn, consumer, topic, key).await?;
    row.map(Parked::try_from).transpose()
}

/// Leaves a message parked, as one that can never take effect.
pub(crate) async fn condemn(
    conn: &mut PgConnection,
    id: i64,
    reason: &str,
) -> Result<(), sqlx::Error> {
    store::condemn(conn, id, &shortened(reason)).await
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Cause {
    fn name(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::Gap => "gap",
            Self::Behind => "behind",
        }
    }

    fn named(name: &str) -> Result<Self, sqlx::Error> {
        [Self::Fault, Self::Gap, Self::Behind]
            .into_iter()
            .find(|cause| cause.name() == name)
            .ok_or_else(|| sqlx::Error::Decode(format!("parked_message.cause is {name:?}").into()))
    }
}

/// What became of the first parked message of a key.
enum Step {
    Empty,
    Handled,
    Dropped,
    /// Its envelope can be read by now; its place among the others may be another.
    Read,
    Stopped(Stopped),
}

async fn replay_first(
    conn: &mut PgConnection,
    consumer: &Consumer,
    topic: Topic,
    key: &str,
) -> Result<Step, ReplayError> {
    let name = consumer.name();
    let mut tx = conn.begin().await?;
    let Some((first, state, knows_every_key)) = lock_first(&mut tx, consumer, topic, key).await?
    else {
        return Ok(Step::Empty);
    };
    let message = match Message::from_envelope(&first.envelope) {
        Ok(message) => message,
        Err(error) => {
            return Ok(Step::Stopped(Stopped {
                id: first.id,
                reason: error.to_string(),
            }));
        }
    };
    if first.version != Some(message.version) {
        store::set_version(&mut tx, first.id, message.version).await?;
        tx.commit().await?;
        return Ok(Step::Read);
    }
    match judge(topic.kind(), message.version, state, knows_every_key) {
        Verdict::Drop => {
            unpark(&mut tx, first.id).await?;
            tx.commit().await?;
            Ok(Step::Dropped)
        }
        Verdict::Gap { expected } => {
            // From here on the missing message may come and fill the gap by itself.
            store::await_gap(&mut tx, name, topic.name(), key).await?;
            tx.commit().await?;
            Ok(Step::Stopped(Stopped {
                id: first.id,
                reason: format!("version is {}, wanted {expected}", message.version),
            }))
        }
        Verdict::Handle | Verdict::Behind => match consumer.handle(&mut tx, &message).await {
            Ok(()) => {
                unpark(&mut tx, first.id).await?;
                store::remember(&mut tx, name, &first, message.version).await?;
                tx.commit().await?;
                Ok(Step::Handled)
            }
            Err(Handling::Permanent(reason)) => {
                tx.rollback().await?;
                condemn(conn, first.id, &reason).await?;
                Ok(Step::Stopped(Stopped {
                    id: first.id,
                    reason,
                }))
            }
            Err(Handling::Transient(cause)) => Err(ReplayError::Transient {
                id: first.id,
                cause,
            }),
        },
    }
}

/// Locks the key's partition against the consumer, and finds the key's first parked message and how far the key is.
async fn lock_first(
    conn: &mut PgConnection,
    consumer: &Consumer,
    topic: Topic,
    key: &str,
) -> Result<Option<(Parked, KeyState, bool)>, sqlx::Error> {
    let (name, topic) = (consumer.name(), topic.name());
    // Only to learn the partition: all of a key are in one.
    let Some(seen) = first(conn, name, topic, key).await? else {
        return Ok(None);
    };
    let knows_every_key = consumer::store::lock_position(conn, name, topic, seen.partition).await?;
    let Some(first) = first(conn, name, topic, key).await? else {
        return Ok(None);
    };
    let states = consumer::store::states(conn, name, topic, &[key]).await?;
    let state = KeyState {
        version: states.get(key).and_then(|state| state.version),
        blocked: None,
    };
    Ok(Some((first, state, knows_every_key.unwrap_or(false))))
}

fn listened(consumer: &Consumer, topic: &str) -> Result<Topic, ReplayError> {
    consumer
        .interests()
        .iter()
        .map(|interest| interest.topic)
        .find(|listened| listened.name() == topic)
        .ok_or_else(|| ReplayError::UnknownTopic {
            consumer: consumer.name(),
            topic: topic.to_owned(),
        })
}

fn shortened(reason: &str) -> String {
    reason.chars().take(REASON_MAX_CHARS).collect()
}

impl TryFrom<store::Row> for Parked {
    type Error = sqlx::Error;

    fn try_from(row: store::Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.id,
            consumer: row.consumer,
            topic: row.topic,
            key: row.key,
            partition: row.partition,
            log_offset: row.log_offset,
            version: row.version,
            envelope: row.envelope,
            cause: Cause::named(&row.cause)?,
            reason: row.reason,
            parked_at: row.parked_at.to_jiff(),
        })
    }
}

mod store {
    use sqlx::PgConnection;

    use super::{Cause, Park, Parked};
    use crate::consumer;

    #[derive(sqlx::FromRow)]
    pub(super) struct Row {
        pub(super) id: i64,
        pub(super) consumer: String,
        pub(super) topic: String,
        pub(super) key: String,
        pub(super) partition: i32,
        pub(super) log_offset: i64,
        pub(super) version: Option<i64>,
        pub(super) envelope: String,
        pub(super) cause: String,
        pub(super) reason: String,
        pub(super) parked_at: jiff_sqlx::Timestamp,
    }

    pub(super) async fn list(
        conn: &mut PgConnection,
        consumer: Option<&str>,
        key: Option<&str>,
        after: i64,
        limit: u16,
    ) -> Result<Vec<Row>, sqlx::Error> {
        sqlx::query_as(
            "SELECT id, consumer, topic, key, partition, log_offset, version, envelope, cause, reason, parked_at
             FROM parked_message
             WHERE ($1::text IS NULL OR consumer = $1) AND ($2::text IS NULL OR key = $2) AND id > $3
             ORDER BY id LIMIT $4",
        )
        .bind(consumer)
        .bind(key)
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(conn)
        .await
    }

    pub(crate) async fn count(conn: &mut PgConnection, consumer: &str) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar("SELECT count(*) FROM parked_message WHERE consumer = $1")
            .bind(consumer)
            .fetch_one(conn)
            .await
    }

    pub(super) async fn park(
        conn: &mut PgConnection,
        park: &Park<'_>,
        version: Option<i64>,
        cause: Cause,
        reason: &str,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO parked_message (consumer, topic, key, partition, log_offset, version, envelope, cause, reason)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (consumer, topic, partition, log_offset) DO NOTHING",
        )
        .bind(park.consumer)
        .bind(park.place.topic.name())
        .bind(&park.record.key)
        .bind(park.place.partition)
        .bind(park.record.log_offset)
        .bind(version)
        .bind(&park.record.envelope)
        .bind(cause.name())
        .bind(reason)
        .execute(conn)
        .await?;
        Ok(())
    }

    pub(super) async fn first(
        conn: &mut PgConnection,
        consumer: &str,
        topic: &str,
        key: &str,
    ) -> Result<Option<Row>, sqlx::Error> {
        sqlx::query_as(
            "SELECT id, consumer, topic, key, partition, log_offset, version, envelope, cause, reason, parked_at
             FROM parked_message
             WHERE consumer = $1 AND topic = $2 AND key = $3
             ORDER BY version NULLS FIRST, log_offset LIMIT 1",
        )
        .bind(consumer)
        .bind(topic)
        .bind(key)
        .fetch_optional(conn)
        .await
    }

    pub(crate) async fn unpark(conn: &mut PgConnection, id: i64) -> Result<(), sqlx::Error> {
        sqlx::query("DELETE FROM parked_message WHERE id = $1")
            .bind(id)
            .execute(conn)
            .await?;
        Ok(())
    }

    pub(super) async fn condemn(
        conn: &mut PgConnection,
        id: i64,
        reason: &str,
    ) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE parked_message SET cause = 'fault', reason = $2 WHERE id = $1")
            .bind(id)
            .bind(reason)
            .execute(conn)
            .await?;
        Ok(())
    }

    pub(super) async fn set_version(
        conn: &mut PgConnection,
        id: i64,
        version: i64,
    ) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE parked_message SET version = $2 WHERE id = $1")
            .bind(id)
            .bind(version)
            .execute(conn)
            .await?;
        Ok(())
    }

    /// Has all that is parked of the key wait for a missing version, not for a replay.
    pub(super) async fn await_gap(
        conn: &mut PgConnection,
        consumer: &str,
        topic: &str,
        key: &str,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(
            "UPDATE parked_message SET cause = 'gap', reason = 'an earlier version has not arrived'
             WHERE consumer = $1 AND topic = $2 AND key = $3",
        )
        .bind(consumer)
        .bind(topic)
        .bind(key)
        .execute(conn)
        .await?;
        Ok(())
    }

    /// Remembers that the key of a parked message has come to `version`.
    pub(super) async fn remember(
        conn: &mut PgConnection,
        consumer: &str,
        parked: &Parked,
        version: i64,
    ) -> Result<(), sqlx::Error> {
        consumer::store::save_version(
            conn,
            consumer,
            &parked.topic,
            parked.partition,
            &parked.key,
            version,
            parked.log_offset,
        )
        .await
    }
}
