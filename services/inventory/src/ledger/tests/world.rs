//! A ledger on a database of its own, with a clock that tests turn.

use std::time::Duration;

use holdfast_kernel::{Clock, PoolKey, RequestId, Timestamp};
use holdfast_testkit::{FakeClock, TestDatabase};
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::super::{Ledger, LedgerOptions, Reading, writer::Rules};
use crate::domain::{
    Adjust, Basket, CapacityChange, CapacityChanges, Commit, Extend, Hold, HoldId, HoldState, Line,
    Name, Pool, Refusal, Release, Reserve, Return, SetPolicy, Stand,
};

/// Where every test's clock starts.
pub(crate) const START: &str = "2026-12-01T09:00:00Z";
/// How long holds last where the test does not say.
pub(crate) const TTL: Duration = Duration::from_mins(10);

pub(crate) struct World {
    pub(crate) database: TestDatabase,
    pub(crate) clock: FakeClock,
    /// The writer that the short forms below speak to.
    pub(crate) writer: Running,
}

/// A writer at work.
pub(crate) struct Running {
    pub(crate) ledger: Ledger,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

/// What tests change about a ledger.
pub(crate) struct Terms {
    pub(crate) lease: Duration,
    pub(crate) account_max_holds: u32,
    pub(crate) rules: Rules,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            lease: Duration::from_mins(1),
            account_max_holds: 50,
            rules: Rules::default(),
        }
    }
}

impl Running {
    /// Finishes what is in flight, then ends.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("the writer ends by itself");
    }

    /// Dies in the middle of whatever it does.
    pub(crate) fn strike_down(&self) {
        self.task.abort();
    }

    /// Dies and is waited for.
    pub(crate) async fn kill(self) {
        self.task.abort();
        self.task.await.ok();
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::on(Terms::default()).await
    }

    pub(crate) async fn on(terms: Terms) -> Self {
        let database = TestDatabase::create("inventory", &crate::MIGRATOR).await;
        let clock = FakeClock::new(START.parse().expect("a moment"));
        let writer = start(&database, &clock, terms);
        Self {
            database,
            clock,
            writer,
        }
    }

    /// A world whose writers the test starts itself.
    pub(crate) async fn without_writer() -> Self {
        let world = Self::new().await;
        world.writer.shutdown.cancel();
        world
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.writer.ledger
    }

    pub(crate) fn sql(&self) -> PgPool {
        self.database.app()
    }

    /// Another writer on the same database.
    pub(crate) fn another(&self, terms: Terms) -> Running {
        start(&self.database, &self.clock, terms)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn pass(&self, seconds: i64) {
        self.clock.advance(jiff::SignedDuration::from_secs(seconds));
    }

    /// Makes a pool with so many units.
    pub(crate) async fn stock(&self, pool: &str, units: i64) {
        self.adjust(pool, units, 0).await.expect("a new pool");
    }

    pub(crate) async fn adjust(
        &self,
        pool: &str,
        delta: i64,
        expected: i64,
    ) -> Result<Pool, Refusal> {
        let pools = self.ledger().adjust(adjust(pool, delta, expected)).await?;
        Ok(pools.into_iter().next().expect("one change, one pool"))
    }

    pub(crate) async fn reserve(&self, lines: &[(&str, i64)]) -> Result<Hold, Refusal> {
        self.ledger().reserve(reserve(lines)).await
    }

    pub(crate) async fn commit(&self, hold: HoldId) -> Result<Hold, Refusal> {
        self.ledger().commit(commit(hold)).await
    }

    pub(crate) async fn release(&self, hold: HoldId) -> Result<HoldState, Refusal> {
        self.ledger().release(release(hold)).await
    }

    pub(crate) async fn give_back(
        &self,
        hold: HoldId,
        lines: &[(&str, i64)],
    ) -> Result<(), Refusal> {
        self.ledger().give_back(give_back(hold, lines)).await
    }

    pub(crate) async fn pool(&self, key: &str) -> Pool {
        let pools = self.ledger().look(vec![pool_key(key)]).await;
        let standing = pools.expect("the ledger answers").pop();
        standing.expect("the pool exists").pool
    }

    /// (held, sold, available)
    pub(crate) async fn balance(&self, key: &str) -> (i64, i64, i64) {
        let pool = self.pool(key).await;
        (pool.held, pool.sold, pool.available())
    }

    /// Kinds of the pool's movements, oldest first.
    pub(crate) async fn kinds(&self, key: &str) -> Vec<i16> {
        sqlx::query_scalar(
            "SELECT kind FROM movement WHERE pool = (SELECT id FROM pool WHERE key = $1) ORDER BY version",
        )
        .bind(key)
        .fetch_all(&self.sql())
        .await
        .expect("movements can be read")
    }
}

fn start(database: &TestDatabase, clock: &FakeClock, terms: Terms) -> Running {
    let clock = clock.clone();
    let reading: Reading = std::sync::Arc::new(move |_| clock.now());
    let options = LedgerOptions {
        database_url: database.app_url(),
        reached_at: None,
        lease: terms.lease,
        account_max_holds: terms.account_max_holds,
        live_max_holds: 1_000_000,
        reading,
        changed: std::sync::Arc::new(|_| {}),
    };
    let shutdown = CancellationToken::new();
    let (ledger, work) = Ledger::with_rules(options, terms.rules, shutdown.clone());
    Running {
        ledger,
        shutdown,
        task: tokio::spawn(work),
    }
}

pub(crate) fn pool_key(key: &str) -> PoolKey {
    key.parse().expect("a pool key")
}

pub(crate) fn lines(lines: &[(&str, i64)]) -> Vec<Line> {
    let lines = lines.iter().map(|(pool, units)| Line {
        pool: pool_key(pool),
        units: *units,
    });
    lines.collect()
}

pub(crate) fn basket(of: &[(&str, i64)]) -> Basket {
    Basket::new(lines(of)).expect("a basket")
}

pub(crate) fn reserve(lines: &[(&str, i64)]) -> Reserve {
    Reserve {
        request: RequestId::generate(),
        account: None,
        actor: Name::from("usr_test"),
        wish: basket(lines).into(),
        ttl: TTL,
        reference: Name::default(),
        epoch: None,
    }
}

/// Wants these lines, waits for an hour, and has what it gets for [`TTL`].
pub(crate) fn stand(lines: &[(&str, i64)]) -> Stand {
    Stand {
        request: RequestId::generate(),
        account: None,
        actor: Name::from("usr_patient"),
        wish: basket(lines).into(),
        ttl: TTL,
        patience: Duration::from_hours(1),
        reference: Name::from("wait_1"),
    }
}

pub(crate) fn extend(hold: HoldId, ttl: Duration) -> Extend {
    Extend {
        hold,
        ttl,
        epoch: None,
    }
}

pub(crate) fn commit(hold: HoldId) -> Commit {
    Commit {
        hold,
        actor: Name::from("usr_test"),
        epoch: None,
    }
}

pub(crate) fn release(hold: HoldId) -> Release {
    Release {
        hold,
        actor: Name::from("usr_test"),
        epoch: None,
    }
}

pub(crate) fn give_back(hold: HoldId, lines: &[(&str, i64)]) -> Return {
    Return {
        request: RequestId::generate(),
        hold,
        actor: Name::from("usr_test"),
        basket: basket(lines),
    }
}

pub(crate) fn adjust(pool: &str, delta: i64, expected: i64) -> Adjust {
    let change = CapacityChange {
        pool: pool_key(pool),
        delta,
        expected,
    };
    Adjust {
        request: RequestId::generate(),
        actor: Name::from("usr_staff"),
        reason: Name::from("counted"),
        changes: CapacityChanges::new(vec![change]).expect("one change"),
    }
}

pub(crate) fn policy(pool: &str, overbook: i64, low_at: Option<i64>, expected: i64) -> SetPolicy {
    SetPolicy {
        request: RequestId::generate(),
        actor: Name::from("usr_staff"),
        pool: pool_key(pool),
        overbook,
        low_at,
        expected,
    }
}
