//! Goes along one partition for one consumer, from where it was left.

use std::{collections::HashMap, error::Error};

use sqlx::PgPool;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Consumer,
    backoff::Backoff,
    batch::{Batch, Tried},
    store,
};
use crate::{
    bus::{BusError, Partition, Place, READ_MAX_RECORDS, Record},
    parking,
};

/// How often keys are forgotten whose messages the log has dropped, in seconds.
const PRUNE_INTERVAL_SECS: u64 = 3_600;
/// Most keys forgotten in one transaction.
const PRUNE_MAX_KEYS: i64 = 1_000;

/// Follows one partition for one consumer.
pub(super) struct Follower {
    consumer: Consumer,
    pool: PgPool,
    partition: Box<dyn Partition>,
    place: Place,
    /// Not before then is the next batch read.
    rests_until: Instant,
}

/// Why a follower cannot go on now.
#[derive(Debug, thiserror::Error)]
pub(super) enum Halt {
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

impl Follower {
    pub(super) fn new(consumer: Consumer, pool: PgPool, partition: Box<dyn Partition>) -> Self {
        Self {
            consumer,
            pool,
            place: partition.place().clone(),
            partition,
            rests_until: Instant::now(),
        }
    }

    pub(super) async fn run(mut self, shutdown: CancellationToken) {
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
        time::sleep_until(self.rests_until).await;
        let records = self.partition.read(from).await?;
        if records.len() < READ_MAX_RECORDS {
            self.rests_until = Instant::now() + self.consumer.pace;
        }
        *position = None;
        *position = self.apply(from, &records).await?;
        if let Some(wake) = &self.consumer.wake {
            wake.wake();
        }
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
    /// that fails for now ends the batch before it. What fails at once is tried again one by one, to learn which it is.
    async fn apply(&self, from: i64, records: &[Record]) -> Result<Option<i64>, Halt> {
        let mut faults = HashMap::new();
        let mut batch = records;
        let mut later = None;
        let mut at_once = self.consumer.at_once;
        loop {
            let Some(last) = batch.last() else {
                return match later {
                    Some(halt) => Err(halt),
                    None => Ok(Some(from)),
                };
            };
            let next = last.log_offset + 1;
            let attempt = Batch {
                consumer: &self.consumer,
                place: &self.place,
                records: batch,
                faults: &faults,
                at_once,
            };
            match attempt.take(&self.pool, from, next).await? {
                Tried::Moved => return later.map_or(Ok(Some(next)), Err),
                Tried::Overtaken => return Ok(None),
                Tried::Faulty { log_offset, reason } => {
                    faults.insert(log_offset, reason);
                }
                Tried::Halted { index, halt } => {
                    batch = &batch[..index];
                    later = Some(halt);
                }
                Tried::Unclear => at_once = false,
            }
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
