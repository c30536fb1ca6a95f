//! The ledger's time: the database's, carried on between looks at it, and never backwards.
//!
//! No clock of this machine decides when a hold is over. The database tells its time with every batch; in between, the
//! time that has passed since is added. Whoever writes next starts no earlier than the last batch of whoever wrote before.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast_kernel::{Timestamp, time};

/// What the ledger makes of the database's time: itself, but in development and tests, where holds expire at will.
pub type Reading = Arc<dyn Fn(Timestamp) -> Timestamp + Send + Sync>;

pub(super) struct LedgerClock {
    reading: Reading,
    database: Timestamp,
    seen_at: Instant,
    last: Timestamp,
}

impl LedgerClock {
    /// A clock that shows `last` at least.
    pub(super) fn new(reading: Reading, database: Timestamp, last: Timestamp) -> Self {
        Self {
            reading,
            database,
            seen_at: Instant::now(),
            last,
        }
    }

    /// Takes over the time that the database has just told.
    ///
    /// It was told a moment ago, so the clock is late by that moment: no hold expires early for it.
    pub(super) fn seen(&mut self, database: Timestamp) {
        self.database = database;
        self.seen_at = Instant::now();
    }

    /// How long ago the database was heard of.
    pub(super) fn silence(&self) -> Duration {
        self.seen_at.elapsed()
    }

    /// The present moment in whole microseconds; never before one it showed already.
    pub(super) fn now(&mut self) -> Timestamp {
        let database = self.database.saturating_add(self.silence());
        let reading = (self.reading)(database.unwrap_or(Timestamp::MAX));
        self.last = self.last.max(time::to_micros(reading));
        self.last
    }
}
