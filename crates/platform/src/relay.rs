//! Carries a service's news from its outbox to the bus.
//!
//! Rows are found because they are there, never by a cursor: a transaction that took a low id and commits late is found
//! late, and passed over by nobody. Of one key the ids rise in the order of the commits (see [`outbox`](crate::outbox)),
//! so sending what is there in the order of ids keeps the order of every key.
//!
//! The rows are deleted in a transaction that commits after the bus has them. Dying in between repeats the append under
//! the same outbox ids, which the bus leaves out or the consumers drop. Of several relays of a service one works: it
//! holds a lock for the length of that transaction.

use std::{sync::Arc, time::Duration};

use sqlx::{PgConnection, PgPool};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    bus::{Bus, BusError, Outgoing},
    outbox::{self, Announcement, Wake},
};

/// From one look to the next, in milliseconds: at least, however often somebody wakes the relay, for what comes meanwhile
/// costs no round trips of its own. A look that finds nothing doubles the rest after it, up to [`POLL_MAX_MILLIS`].
pub const POLL_MILLIS: u64 = 50;
/// Longest rest between looks, in milliseconds: how long news waits that nobody woke the relay for, because its writer
/// died or is another process.
pub const POLL_MAX_MILLIS: u64 = 1_000;
/// How much longer than an idle look itself the rest after it is, at least. While a snapshot is held open somewhere, a look
/// passes over every row deleted since (about 1 µs each); then looks become rarer instead of eating a core.
const IDLE_REST_FACTOR: u32 = 10;
/// Most messages one transaction carries.
pub const BATCH_MAX_MESSAGES: usize = 500;
/// Longest wait for the bus to take a batch, in seconds: shorter than a database lets a transaction rest.
const APPEND_MAX_SECS: u64 = 8;
/// Longest wait after failures, in milliseconds; it doubles from [`POLL_MILLIS`].
const BACKOFF_MAX_MILLIS: u64 = 5_000;
/// How often the outbox is measured, in seconds.
const MEASURE_SECS: u64 = 5;
/// Rows counted at most when the outbox is measured.
const MEASURE_MAX_ROWS: i64 = 100_000;

/// A service's own step before its news goes out: turns what it wrote in a form of its own into announcements.
///
/// For writers whose every statement counts: they write one row a batch, and this folds many rows into the last state of
/// each key. The relay calls it at most once in [`POLL_MILLIS`] and announces the result in the same transaction.
#[tonic::async_trait]
pub trait Fold: Send + Sync + 'static {
    /// Deletes a bounded number of the service's own rows, oldest first, and says what they amount to.
    async fn fold(&self, conn: &mut PgConnection) -> Result<Vec<Announcement>, sqlx::Error>;
}

/// The carrier of one service.
pub struct Relay {
    service: &'static str,
    pool: PgPool,
    bus: Arc<dyn Bus>,
    fold: Option<Arc<dyn Fold>>,
    wake: Wake,
}

/// A pass that carried nothing. Whatever it meant to carry is still in the outbox.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The outbox could not be read or emptied.
    #[error("outbox: {0}")]
    Outbox(#[from] sqlx::Error),
    /// The bus did not take the messages.
    #[error(transparent)]
    Bus(#[from] BusError),
}

impl Relay {
    /// The relay of `service`, whose schema `pool` reaches; `wake` is what the service's writers pull.
    pub fn new(service: &'static str, pool: PgPool, bus: Arc<dyn Bus>, wake: Wake) -> Self {
        Self {
            service,
            pool,
            bus,
            fold: None,
            wake,
        }
    }

    /// The same with a step before each pass.
    #[must_use]
    pub fn folding(mut self, fold: Arc<dyn Fold>) -> Self {
        self.fold = Some(fold);
        self
    }

    /// Carries until shutdown, and once more then, so that little is left for the next start.
    pub async fn run(self, shutdown: CancellationToken) {
        let poll = Duration::from_millis(POLL_MILLIS);
        let longest = Duration::from_millis(POLL_MAX_MILLIS);
        let mut backoff = poll;
        let mut rest = poll;
        let mut backlog = false;
        let mut woken = false;
        let mut measured: Option<Instant> = None;
        while !shutdown.is_cancelled() {
            let began = Instant::now();
            if measured.is_none_or(|at| at.elapsed().as_secs() >= MEASURE_SECS) {
                measured = Some(began);
                self.measure().await;
            }
            let looked = Instant::now();
            let carried = match self.turn(backlog, woken).await {
                Ok(carried) => carried,
                Err(error) => {
                    tracing::warn!(service = self.service, %error, "cannot carry messages to the bus");
                    backoff = (backoff * 2).min(Duration::from_millis(BACKOFF_MAX_MILLIS));
                    backlog = false;
                    // Nobody's hurry helps now.
                    shutdown.run_until_cancelled(time::sleep(backoff)).await;
                    continue;
                }
            };
            backoff = poll;
            backlog = carried == BATCH_MAX_MESSAGES;
            if backlog {
                continue;
            }
            rest = match carried {
                0 => (looked.elapsed() * IDLE_REST_FACTOR)
                    .max(rest * 2)
                    .clamp(poll, longest),
                _ => poll,
            };
            woken = tokio::select! {
                () = shutdown.cancelled() => false,
                () = time::sleep_until(began + rest) => false,
                () = self.woken_after(began + poll) => true,
            };
            if woken {
                rest = poll;
            }
        }
        if let Err(error) = self.turn(false, false).await {
            tracing::warn!(service = self.service, %error, "left messages for the next start");
        }
    }

    /// Carries what is there now, and what comes in meanwhile.
    pub async fn drain(&self) -> Result<(), RelayError> {
        let mut backlog = false;
        while self.turn(backlog, false).await? == BATCH_MAX_MESSAGES {
            backlog = true;
        }
        Ok(())
    }

    /// Carries one batch and says of how many messages; none also when another relay of the service is at it.
    pub async fn pass(&self) -> Result<usize, RelayError> {
        self.carry(false).await
    }

    /// Carries one batch, of which something is `expected` or not.
    async fn carry(&self, expected: bool) -> Result<usize, RelayError> {
        let mut conn = self.pool.acquire().await?;
        // Most looks that nobody asked for find nothing: one round trip for those.
        if !expected && !store::is_anything_pending(&mut conn).await? {
            return Ok(0);
        }
        let mut tx = sqlx::Connection::begin(&mut *conn).await?;
        let mut outgoing = store::take_pending(&mut tx, BATCH_MAX_MESSAGES).await?;
        outgoing.sort_unstable_by_key(|message| message.outbox_id);
        if !outgoing.is_empty()
            && let Err(error) = self.append(&outgoing).await
        {
            // Now, not when the pool gets to it: until then the lock keeps every other pass out.
            tx.rollback().await?;
            return Err(error.into());
        }
        tx.commit().await?;
        Ok(outgoing.len())
    }

    /// Folds, unless older news is still to be carried, and carries one batch.
    async fn turn(&self, backlog: bool, woken: bool) -> Result<usize, RelayError> {
        let mut expected = backlog || woken;
        if let Some(fold) = self.fold.as_ref().filter(|_| !backlog) {
            expected |= self.announce_folded(fold.as_ref()).await?;
        }
        self.carry(expected).await
    }

    async fn append(&self, outgoing: &[Outgoing]) -> Result<(), BusError> {
        let answer = self.bus.append(self.service, outgoing);
        time::timeout(Duration::from_secs(APPEND_MAX_SECS), answer)
            .await
            .unwrap_or_else(|late| Err(BusError::Unavailable(late.into())))
    }

    async fn woken_after(&self, earliest: Instant) {
        self.wake.woken().await;
        time::sleep_until(earliest).await;
    }

    /// Says whether there was anything to announce.
    async fn announce_folded(&self, fold: &dyn Fold) -> Result<bool, sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        let announcements = fold.fold(&mut tx).await?;
        let any = !announcements.is_empty();
        outbox::announce_all(&mut tx, announcements).await?;
        tx.commit().await?;
        Ok(any)
    }

    async fn measure(&self) {
        let measured = async {
            let mut conn = self.pool.acquire().await?;
            store::measure(&mut conn, MEASURE_MAX_ROWS).await
        };
        match measured.await {
            Ok((rows, oldest_secs)) => {
                metrics::gauge!("holdfast_outbox_rows", "service" => self.service).set(rows as f64);
                metrics::gauge!("holdfast_outbox_oldest_seconds", "service" => self.service)
                    .set(oldest_secs);
            }
            Err(error) => {
                tracing::warn!(service = self.service, %error, "cannot measure the outbox");
            }
        }
    }
}

mod store {
    use super::{Outgoing, PgConnection};

    /// Looks along the index, which forgets deleted rows at first sight; the table itself keeps them until it is vacuumed.
    pub(super) async fn is_anything_pending(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let first: Option<i64> = sqlx::query_scalar("SELECT id FROM outbox ORDER BY id LIMIT 1")
            .fetch_optional(conn)
            .await?;
        Ok(first.is_some())
    }

    /// Takes the oldest rows out, in no order; none while another transaction empties the outbox of the schema.
    ///
    /// Its commit need not wait for the disk: a deletion that is lost is made again, and what is appended again is left
    /// out. What another transaction took meanwhile is passed over, though it was there when this statement began.
    pub(super) async fn take_pending(
        conn: &mut PgConnection,
        limit: usize,
    ) -> Result<Vec<Outgoing>, sqlx::Error> {
        sqlx::query_as(
            "WITH outbox_is AS MATERIALIZED (
                SELECT pg_try_advisory_xact_lock(hashtextextended('outbox of ' || current_schema(), 0))
                       AND set_config('synchronous_commit', 'off', true) = 'off' AS ours
             )
             DELETE FROM outbox
             WHERE (SELECT ours FROM outbox_is) AND id = ANY (ARRAY(SELECT id FROM outbox ORDER BY id LIMIT $1))
             RETURNING id AS outbox_id, message_id, topic, key, envelope",
        )
        .bind(limit as i64)
        .fetch_all(conn)
        .await
    }

    /// How many rows wait, counted up to `max_rows`, and for how many seconds the oldest has.
    pub(super) async fn measure(
        conn: &mut PgConnection,
        max_rows: i64,
    ) -> Result<(i64, f64), sqlx::Error> {
        sqlx::query_as(
            "SELECT (SELECT count(*) FROM (SELECT FROM outbox LIMIT $1) AS counted),
                    coalesce((SELECT extract(epoch FROM clock_timestamp() - inserted_at)::float8
                              FROM outbox ORDER BY id LIMIT 1), 0)",
        )
        .bind(max_rows)
        .fetch_one(conn)
        .await
    }
}
