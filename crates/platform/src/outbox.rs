//! The transactional outbox: news is written in the transaction that makes it true, and goes out once that has committed.
//!
//! The [`relay`](crate::relay) carries it to the bus. Two rules keep the order of a key:
//! lock the aggregate's row before announcing (an `UPDATE` or `INSERT` of it does), and announce in the same transaction.

use std::sync::Arc;

use holdfast_kernel::Timestamp;
use serde::Serialize;
use sqlx::PgConnection;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::{
    message::{ENVELOPE_MAX_BYTES, Message, Topic},
    telemetry::trace::Trace,
};

/// News about to be written down.
#[derive(Debug)]
pub struct Announcement {
    topic: Topic,
    message: Result<Message, serde_json::Error>,
}

/// News in the form of the outbox's columns, for a statement that writes it beside what it tells of.
///
/// Such a statement takes the news only along with a row it has written or locked itself, so that no news goes out of what
/// did not happen and the order of a key is kept:
///
/// ```sql
/// WITH changed AS (UPDATE … RETURNING id)
/// INSERT INTO outbox (message_id, topic, key, envelope)
/// SELECT message_id, topic, news.key, envelope
/// FROM changed, unnest($1::uuid[], $2::text[], $3::text[], $4::text[])
///               WITH ORDINALITY AS news (message_id, topic, key, envelope, place)
/// ORDER BY place
/// ```
#[derive(Debug, Default)]
pub struct Columns {
    /// Each message's own id.
    pub message_ids: Vec<Uuid>,
    /// The topics' names.
    pub topics: Vec<&'static str>,
    /// What they tell of.
    pub keys: Vec<String>,
    /// The messages themselves.
    pub envelopes: Vec<String>,
}

/// Tells the relay of this process that there may be news, so that it need not wait for its next look.
///
/// Due after every commit with news. Without it the news goes out [`POLL_MAX_MILLIS`](crate::relay::POLL_MAX_MILLIS) later
/// at most.
#[derive(Debug, Clone, Default)]
pub struct Wake(Arc<Notify>);

/// An announcement that cannot travel.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("{kind} of {key} has {bytes} bytes, wanted {ENVELOPE_MAX_BYTES} or less")]
    TooLong {
        kind: String,
        key: String,
        bytes: usize,
    },
    #[error("{kind} of {key} has version {version}, wanted 1 or more")]
    Version {
        kind: String,
        key: String,
        version: i64,
    },
}

impl Announcement {
    /// News that `key`, now at `version`, saw `kind` happen `at` that moment.
    ///
    /// In an ordinary topic the versions a key announces are 1, 2, 3 … without a gap; in a state topic they only rise.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers hand over an id or a text as it is"
    )]
    pub fn new(
        topic: Topic,
        kind: &str,
        key: impl ToString,
        version: i64,
        at: Timestamp,
        data: &impl Serialize,
    ) -> Self {
        let key = key.to_string();
        let message = serde_json::to_value(data).map(|data| Message {
            id: Message::id_of(topic.name(), &key, version),
            topic: topic.name().to_owned(),
            key,
            version,
            kind: kind.to_owned(),
            at,
            traceparent: None,
            data,
        });
        Self { topic, message }
    }
}

impl Wake {
    /// Has the relay look now. Costs no round trip.
    pub fn wake(&self) {
        self.0.notify_one();
    }

    pub(crate) async fn woken(&self) {
        self.0.notified().await;
    }
}

/// Writes news into the outbox as part of the caller's transaction.
///
/// Fails with [`sqlx::Error::Encode`] when the data cannot be written as JSON, the version is below 1 or the envelope
/// is longer than [`ENVELOPE_MAX_BYTES`]: better the caller's transaction than every later message of the service.
pub async fn announce(
    conn: &mut PgConnection,
    announcement: Announcement,
) -> Result<(), sqlx::Error> {
    announce_all(conn, vec![announcement]).await
}

/// Writes several pieces of news in this order, in one statement, as part of the trace in which that is done.
pub async fn announce_all(
    conn: &mut PgConnection,
    announcements: Vec<Announcement>,
) -> Result<(), sqlx::Error> {
    if announcements.is_empty() {
        return Ok(());
    }
    let news = columns(announcements)?;
    sqlx::query(
        "INSERT INTO outbox (message_id, topic, key, envelope)
         SELECT message_id, topic, key, envelope
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[])
              WITH ORDINALITY AS news (message_id, topic, key, envelope, place)
         ORDER BY place",
    )
    .bind(news.message_ids)
    .bind(news.topics)
    .bind(news.keys)
    .bind(news.envelopes)
    .execute(conn)
    .await?;
    Ok(())
}

/// The same news as columns, in this order, as part of the trace in which that is asked. Fails as [`announce`] does.
pub fn columns(announcements: Vec<Announcement>) -> Result<Columns, sqlx::Error> {
    let mut columns = Columns::default();
    let traceparent = Trace::current().map(|trace| trace.to_string());
    for Announcement { topic, message } in announcements {
        let mut message = message.map_err(|error| sqlx::Error::Encode(error.into()))?;
        message.traceparent.clone_from(&traceparent);
        let envelope = fit(&message).map_err(|error| sqlx::Error::Encode(error.into()))?;
        columns.envelopes.push(envelope);
        columns.message_ids.push(message.id);
        columns.topics.push(topic.name());
        columns.keys.push(message.key);
    }
    Ok(columns)
}

/// What waits in the outbox, oldest first: for tests that look at what was announced, and for people.
pub async fn pending(conn: &mut PgConnection, limit: u16) -> Result<Vec<Message>, sqlx::Error> {
    let envelopes: Vec<String> =
        sqlx::query_scalar("SELECT envelope FROM outbox ORDER BY id LIMIT $1")
            .bind(i64::from(limit))
            .fetch_all(conn)
            .await?;
    envelopes
        .iter()
        .map(|envelope| {
            Message::from_envelope(envelope).map_err(|error| sqlx::Error::Decode(error.into()))
        })
        .collect()
}

fn fit(message: &Message) -> Result<String, Unfit> {
    let (kind, key) = (message.kind.clone(), message.key.clone());
    let version = message.version;
    if version < 1 {
        return Err(Unfit::Version { kind, key, version });
    }
    let envelope = message.to_envelope();
    let bytes = envelope.len();
    if bytes > ENVELOPE_MAX_BYTES {
        return Err(Unfit::TooLong { kind, key, bytes });
    }
    Ok(envelope)
}
