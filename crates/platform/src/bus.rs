//! What carries messages between services: an ordered, durable log per topic, cut into partitions by key.
//!
//! The embedded log is one, Kafka the other. A bus promises little, so that both can keep it: what is appended comes out
//! in the order it went in, within a key, at least once. That each effect happens once is the
//! [`consumer`](crate::consumer)'s work, which keeps its position beside its effects and says where to read on.

use uuid::Uuid;

use crate::message::Topic;

/// A place messages are appended to and read from.
#[tonic::async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Appends in the given order, and returns once all are durable.
    ///
    /// `service` and the outbox id name each message: appending it again, after an answer that got lost, leaves one
    /// (embedded log) or repeats it behind itself (Kafka). All of a key go to one partition.
    async fn append(&self, service: &str, outgoing: &[Outgoing]) -> Result<(), BusError>;

    /// Takes part in reading the topics for `consumer`; readers of the same consumer share or repeat the partitions.
    async fn subscribe(
        &self,
        consumer: &str,
        topics: &[Topic],
    ) -> Result<Box<dyn Subscription>, BusError>;
}

/// One reader's part in a consumer.
#[tonic::async_trait]
pub trait Subscription: Send {
    /// Waits until this reader is given another partition; for ever when it has all it will get.
    ///
    /// Dropping the future loses nothing.
    async fn next(&mut self) -> Result<Box<dyn Partition>, BusError>;
}

/// A partition given to this reader, until a read fails with [`BusError::Revoked`].
#[tonic::async_trait]
pub trait Partition: Send + Sync {
    /// Which one it is.
    fn place(&self) -> &Place;

    /// Waits until there is a message at or behind `from`, and answers with the first ones from there.
    ///
    /// At most [`READ_MAX_RECORDS`]. `from` may lie anywhere: where the last read ended costs nothing, elsewhere the
    /// reader seeks. Fails with [`BusError::Forgotten`] and [`BusError::Ahead`] when the log has no such place.
    /// Dropping the future loses nothing.
    async fn read(&mut self, from: i64) -> Result<Vec<Record>, BusError>;

    /// The offset of the oldest message still there, or that the next one will get.
    async fn oldest(&mut self) -> Result<i64, BusError>;

    /// The offset that the next message will get.
    async fn end(&mut self) -> Result<i64, BusError>;
}

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The topic.
    pub topic: Topic,
    /// From 0; their count never changes.
    pub partition: i32,
}

/// A message on its way from an outbox.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Outgoing {
    /// Its id in the outbox of its service.
    pub outbox_id: i64,
    /// Its own id, the same however often it is announced.
    pub message_id: Uuid,
    /// The topic's name.
    pub topic: String,
    /// What it tells of; decides the partition.
    pub key: String,
    /// The message itself, as [`Message::to_envelope`](crate::message::Message::to_envelope) writes it.
    pub envelope: String,
}

/// A message as it lies on the bus. Whether the envelope can be read is not known yet.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Record {
    /// Its place in the partition. The next record's is larger, not always by one.
    pub log_offset: i64,
    /// What it tells of.
    pub key: String,
    /// The message itself.
    pub envelope: String,
}

/// Most records one read answers with.
pub const READ_MAX_RECORDS: usize = 200;

/// What a bus could not do.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// It cannot be reached or did not answer; the same may work in a moment.
    #[error("message bus is not available: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The messages wanted were dropped: the reader was away for longer than the log reaches back.
    #[error(
        "{topic}/{partition} begins at offset {oldest}, wanted to read on at {wanted}: messages in between are lost to this reader"
    )]
    Forgotten {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where the reader wanted to go on.
        wanted: i64,
        /// The first offset there is.
        oldest: i64,
    },
    /// The log ends before the position of the reader: it is not the log that was read before.
    #[error(
        "{topic}/{partition} ends at offset {end}, wanted to read on at {wanted}: this is another log, or an older copy"
    )]
    Ahead {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where the reader wanted to go on.
        wanted: i64,
        /// The offset that the next message will get.
        end: i64,
    },
    /// Another message was appended under the same outbox id: the service's schema is an older copy than the log knows.
    #[error(
        "outbox ids of {service} were used before for other messages: its schema is older than the message log"
    )]
    Reused {
        /// The service.
        service: String,
    },
    /// The partition belongs to another reader now.
    #[error("partition was given to another reader")]
    Revoked,
}

impl From<sqlx::Error> for BusError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(Box::new(error))
    }
}
