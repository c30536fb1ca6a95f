//! One try at a batch of records: they take effect in one transaction with the position, or nothing is written.

use std::collections::HashMap;

use sqlx::{PgConnection, PgPool};

use super::{
    Consumer, Handling,
    follower::Halt,
    keys::Keys,
    store,
    verdict::{KeyState, Verdict, judge},
};
use crate::{
    bus::{Place, Record},
    message::Message,
    parking::{self, Cause},
};

/// Records of a partition, in their order.
pub(super) struct Batch<'a> {
    pub(super) consumer: &'a Consumer,
    pub(super) place: &'a Place,
    pub(super) records: &'a [Record],
    /// Why records of these offsets can never take effect, as earlier tries found out.
    pub(super) faults: &'a HashMap<i64, String>,
    /// Whether the handler is given at once what it can be; not after that failed.
    pub(super) at_once: bool,
}

/// How one try at a batch ended.
pub(super) enum Tried {
    /// All records took effect, were dropped or parked.
    Moved,
    /// Another reader of this consumer has moved the position.
    Overtaken,
    /// The record or parked message with this offset can never take effect; nothing was written.
    Faulty { log_offset: i64, reason: String },
    /// The record at this index cannot take effect now; nothing was written.
    Halted { index: usize, halt: Halt },
    /// Some record cannot take effect, which one is to be found out one by one; nothing was written.
    Unclear,
}

/// Why a record was not taken.
pub(super) enum Refusal {
    Faulty { log_offset: i64, reason: String },
    Halt(Halt),
    Unclear,
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

impl Batch<'_> {
    /// Moves the position from `from` to `next` and lets every record take effect, be dropped or parked; or writes nothing.
    pub(super) async fn take(&self, pool: &PgPool, from: i64, next: i64) -> Result<Tried, Halt> {
        let (consumer, place) = (self.consumer.name(), self.place);
        let mut tx = pool.begin().await?;
        // First of all: of two readers the second waits here, and then sees that there is nothing left to do.
        let moved = store::move_position(&mut tx, consumer, place, from, next).await?;
        let Some(knows_every_key) = moved else {
            return Ok(Tried::Overtaken);
        };
        let mut keys = Keys::load(&mut tx, consumer, place, self.records, knows_every_key).await?;
        let mut gathered = Vec::new();
        for (index, record) in self.records.iter().enumerate() {
            let taken = self.take_one(&mut tx, &mut keys, &mut gathered, record);
            match taken.await {
                Ok(()) => {}
                Err(Refusal::Faulty { log_offset, reason }) => {
                    return Ok(Tried::Faulty { log_offset, reason });
                }
                Err(Refusal::Halt(halt)) => return Ok(Tried::Halted { index, halt }),
                Err(Refusal::Unclear) => return Ok(Tried::Unclear),
            }
        }
        if self.handle_gathered(&mut tx, &mut gathered).await.is_err() {
            return Ok(Tried::Unclear);
        }
        keys.save(&mut tx, consumer, place).await?;
        tx.commit().await?;
        Ok(Tried::Moved)
    }

    /// Lets one record take effect, gathers it for that, drops it or parks it.
    async fn take_one(
        &self,
        conn: &mut PgConnection,
        keys: &mut Keys,
        gathered: &mut Vec<Message>,
        record: &Record,
    ) -> Result<(), Refusal> {
        let park = parking::Park {
            consumer: self.consumer.name(),
            place: self.place,
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
                if let Some(reason) = self.faults.get(&record.log_offset) {
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
                keys.advance(&record.key, message.version, record.log_offset);
                if self.at_once && state.blocked.is_none() {
                    gathered.push(message);
                    return Ok(());
                }
                // Earlier ones of the key may be among them.
                self.handle_gathered(conn, gathered).await?;
                self.handle(conn, &message, record.log_offset).await?;
                if state.blocked == Some(Cause::Gap) {
                    self.fill(conn, keys, record).await?;
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
    ) -> Result<(), Refusal> {
        let (consumer, place, key) = (self.consumer.name(), self.place, filler.key.as_str());
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
                    if let Some(reason) = self.faults.get(&parked.log_offset) {
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

    /// Lets what was gathered take effect at once, as far as its types are listened to.
    async fn handle_gathered(
        &self,
        conn: &mut PgConnection,
        gathered: &mut Vec<Message>,
    ) -> Result<(), Refusal> {
        let mut messages = std::mem::take(gathered);
        messages.retain(|message| self.consumer.listens_to(message));
        if messages.is_empty() {
            return Ok(());
        }
        let handled = self.consumer.handle_all(conn, &messages).await;
        handled.map_err(|cause| {
            tracing::debug!(consumer = self.consumer.name(), %cause, "handling messages one by one");
            Refusal::Unclear
        })
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
}
