//! How everybody is told of access tokens that are dead before their time.
//!
//! A session that ends is written down with a number, in the transaction that ends it. One task of each process of this
//! service reads what is new, twice a second and whenever a session ended here, and keeps what matters still; every
//! watcher gets all of that, and then each as it is read. A watcher is also told that there was nothing, but only as
//! often as the database was really read: silence means that nobody here knows.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{Stream, stream};
use holdfast_kernel::Timestamp;
use holdfast_platform::{database, service::Context};
use jiff::SignedDuration;
use sqlx::PgConnection;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    domain::{Ended, Revocation},
    error::AuthError,
    store,
    token::Minter,
};

/// How often the database is read when nothing ended here; other processes end sessions too.
const READ_INTERVAL_MILLIS: u64 = 500;
/// How often a watcher hears of nothing.
const HEARTBEAT_SECS: u64 = 5;
/// Revocations read, and told, at a time.
const BATCH_MAX_ENTRIES: usize = 1_000;
/// How often what matters no more is removed.
const PRUNE_INTERVAL_SECS: u64 = 60;
/// How far clocks of processes may lie apart.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(60);

/// What is known in this process. Clones are the same.
#[derive(Clone)]
pub(crate) struct Revocations(Arc<State>);

struct State {
    /// In the order of their numbers.
    live: Mutex<VecDeque<(i64, Revocation)>>,
    /// How often the database was read.
    reads: watch::Sender<u64>,
    ended: Notify,
}

impl Revocations {
    pub(crate) fn new() -> Self {
        Self(Arc::new(State {
            live: Mutex::default(),
            reads: watch::Sender::new(0),
            ended: Notify::new(),
        }))
    }

    /// Has the database read now: a session ended here, and that is committed.
    pub(crate) fn ring(&self) {
        self.0.ended.notify_one();
    }

    /// Reads until shutdown.
    pub(crate) async fn keep_reading(self, context: Context) {
        let mut ticks = interval(Duration::from_millis(READ_INTERVAL_MILLIS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut last, mut pruned_at) = (0, None::<Instant>);
        let mut is_failing = false;
        loop {
            tokio::select! {
                () = context.shutdown.cancelled() => return,
                () = self.0.ended.notified() => {}
                _ = ticks.tick() => {}
            }
            let is_prune_due =
                pruned_at.is_none_or(|at| at.elapsed().as_secs() >= PRUNE_INTERVAL_SECS);
            let read = self.read(&context, &mut last, is_prune_due).await;
            if read.is_ok() && is_prune_due {
                pruned_at = Some(Instant::now());
            }
            // Told when it begins: it may go on at every look.
            if let Err(error) = &read
                && !is_failing
            {
                tracing::warn!(%error, "cannot read which sessions ended");
            }
            is_failing = read.is_err();
        }
    }

    async fn read(&self, context: &Context, last: &mut i64, prunes: bool) -> Result<(), AuthError> {
        let now = context.clock.now();
        let mut db = database::acquire(&context.database).await?;
        if prunes {
            store::prune_revocations(&mut db, now).await?;
        }
        loop {
            let limit = BATCH_MAX_ENTRIES as i64;
            let news = store::list_revocations(&mut db, *last, now, limit).await?;
            let is_all = news.len() < BATCH_MAX_ENTRIES;
            *last = news.last().map_or(*last, |(number, _)| *number);
            let mut live = self.live();
            live.retain(|(_, revocation)| revocation.dead_at > now);
            live.extend(news);
            if is_all {
                break;
            }
        }
        self.0.reads.send_modify(|reads| *reads += 1);
        Ok(())
    }

    /// What is told to one watcher; ends with the process.
    pub(crate) fn watch(&self) -> impl Stream<Item = Vec<Revocation>> + Send + use<> {
        let mut reads = self.0.reads.subscribe();
        if *reads.borrow() > 0 {
            reads.mark_changed();
        }
        let watcher = Watcher {
            revocations: self.clone(),
            reads,
            told: 0,
            spoke_at: None,
        };
        stream::unfold(watcher, |mut watcher| async move {
            let news = watcher.next().await?;
            Some((news, watcher))
        })
    }

    fn live(&self) -> MutexGuard<'_, VecDeque<(i64, Revocation)>> {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes down that access tokens of these sessions, which have just ended, may live.
pub(crate) async fn revoke(
    db: &mut PgConnection,
    minter: &Minter,
    ended: &[Ended],
    now: Timestamp,
) -> Result<(), AuthError> {
    let revoked: Vec<Revocation> = ended
        .iter()
        .map(|ended| Revocation {
            session: ended.session,
            dead_at: minter.access_expiry(ended.expires_at, now) + CLOCK_SKEW,
        })
        .collect();
    store::insert_revocations(db, &revoked).await
}

struct Watcher {
    revocations: Revocations,
    reads: watch::Receiver<u64>,
    /// The number it was told last.
    told: i64,
    spoke_at: Option<Instant>,
}

impl Watcher {
    async fn next(&mut self) -> Option<Vec<Revocation>> {
        loop {
            self.reads.changed().await.ok()?;
            let (news, is_all) = self.news();
            if !is_all {
                self.reads.mark_changed();
            }
            let is_due = self
                .spoke_at
                .is_none_or(|at| at.elapsed().as_secs() >= HEARTBEAT_SECS);
            if is_due || !news.is_empty() {
                self.spoke_at = Some(Instant::now());
                return Some(news);
            }
        }
    }

    /// What it was not told yet, as much as goes into one answer, and whether that is all.
    fn news(&mut self) -> (Vec<Revocation>, bool) {
        let live = self.revocations.live();
        let first = live.partition_point(|(number, _)| *number <= self.told);
        let news: Vec<(i64, Revocation)> = live
            .range(first..)
            .take(BATCH_MAX_ENTRIES)
            .copied()
            .collect();
        let is_all = first + news.len() == live.len();
        drop(live);
        if let Some((number, _)) = news.last() {
            self.told = *number;
        }
        let news = news.into_iter().map(|(_, revocation)| revocation);
        (news.collect(), is_all)
    }
}
