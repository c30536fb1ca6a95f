//! The ledger: who may have the last unit.
//!
//! Read in this order: `decide` (the judgement), `book` (what it is based on), `change` (how the book moves on and what
//! is noted of it), `chain` (how the books are sealed), `statement.sql` with `batch` and `form` (how it is written down, all
//! or nothing), `writer` (who does all this, and what when it fails), `session`, `connect` and `clock` (the database as he
//! sees it).

mod batch;
mod book;
pub(crate) mod chain;
mod change;
mod clock;
mod connect;
mod decide;
pub(crate) mod feed;
mod form;
mod session;
mod writer;

use std::{sync::Arc, time::Duration};

use holdfast_kernel::PoolKey;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use book::PoolId;
pub use book::{Overdue, Standing};
pub use clock::Reading;

use crate::domain::{
    Adjust, Bind, Commit, Extend, Hold, HoldState, Pool, Refusal, Release, Reserve, Return,
    SetPolicy, Stand, Stood,
};
use decide::{Limits, Request};
use feed::{Feed, Watching};
use writer::{Answer, Job, Options, Rules, Writer};

/// Requests that wait for the writer; who comes later waits before he may wait.
pub const INBOX_MAX_REQUESTS: usize = 4_096;

/// How a ledger is run.
#[derive(Clone)]
pub struct LedgerOptions {
    /// Its database, as the run-time role.
    pub database_url: String,
    /// The gRPC URL at which other processes reach this one while it writes, if they can.
    pub reached_at: Option<Arc<str>>,
    /// How long after its last sign of life another process takes over from a writer.
    pub lease: Duration,
    /// Live holds and standing requests of one account.
    pub account_max_holds: u32,
    /// Live holds and standing requests of all together: what fits into memory.
    pub live_max_holds: usize,
    /// What the ledger makes of the database's time: nothing, but in development and tests.
    pub reading: Reading,
    /// Told of every pool that was written or may have been, before anybody is answered.
    pub changed: Changed,
}

/// Whom the writer tells of pools it wrote. On its way to every answer, so it must not take long.
pub type Changed = Arc<dyn Fn(&PoolKey) + Send + Sync>;

/// Which process writes, as far as this one knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WhoWrites {
    /// This one.
    Us,
    /// Another, and where it is reached, if it is.
    Another(Option<Arc<str>>),
    /// It is being found out.
    Undecided,
}

/// The door to the writer of this process; its clones lead to the same one.
///
/// Every request has a hold or request id, and asking again with the same one is asking once. A caller that stops
/// waiting does not stop the request. [`Refusal::Unavailable`] says that the outcome is unknown: ask again.
#[derive(Debug, Clone)]
pub struct Ledger {
    inbox: mpsc::Sender<Job>,
    who_writes: watch::Receiver<WhoWrites>,
    feed: Feed,
}

impl Ledger {
    /// The door, and the work behind it, which runs until `shutdown` or until every door is gone.
    pub fn new(
        options: LedgerOptions,
        shutdown: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        Self::with_rules(options, Rules::default(), shutdown)
    }

    fn with_rules(
        options: LedgerOptions,
        rules: Rules,
        shutdown: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, inbox) = mpsc::channel(INBOX_MAX_REQUESTS);
        let (known, who_writes) = watch::channel(WhoWrites::Undecided);
        let options = Options {
            url: options.database_url,
            reached_at: options.reached_at,
            lease: options.lease,
            limits: Limits {
                account_max_holds: options.account_max_holds,
                live_max_holds: options.live_max_holds,
            },
            reading: options.reading,
            changed: options.changed,
            feed: Feed::default(),
            rules,
        };
        let feed = options.feed.clone();
        let work = Writer::new(options, inbox, known).run(shutdown);
        let ledger = Self {
            inbox: sender,
            who_writes,
            feed,
        };
        (ledger, work)
    }

    /// Whether this process is the one that writes.
    pub(crate) fn is_written_here(&self) -> bool {
        *self.who_writes.borrow() == WhoWrites::Us
    }

    /// Which process writes, once that is decided. After the work has ended it is this one, whose refusals say so.
    pub(crate) async fn who_writes(&self) -> WhoWrites {
        let mut known = self.who_writes.clone();
        let decided = known.wait_for(|who| *who != WhoWrites::Undecided).await;
        decided.map_or(WhoWrites::Us, |who| who.clone())
    }

    /// Ends when it is not `who` any more that writes.
    pub(crate) async fn no_longer(&self, who: &WhoWrites) {
        let mut known = self.who_writes.clone();
        if known.wait_for(|now| now != who).await.is_err() {
            // The work has ended, and nobody here will ever know.
            futures::future::pending::<()>().await;
        }
    }

    /// Takes all lines or none. A hold made before by the same request is answered as it stands.
    pub async fn reserve(&self, reserve: Reserve) -> Result<Hold, Refusal> {
        hold(self.ask(Request::Reserve(reserve)).await?)
    }

    /// Waits in line for what a reserve would be refused. What fits at once is granted at once.
    pub async fn stand(&self, stand: Stand) -> Result<Stood, Refusal> {
        match self.ask(Request::Stand(stand)).await? {
            Answer::Stood(stood) => Ok(stood),
            _ => Err(Refusal::Defect),
        }
    }

    /// Moves a live hold's expiry, never to an earlier moment.
    pub async fn extend(&self, extend: Extend) -> Result<Hold, Refusal> {
        hold(self.ask(Request::Extend(extend)).await?)
    }

    /// Notes what a hold is for.
    pub async fn bind(&self, bind: Bind) -> Result<(), Refusal> {
        self.ask(Request::Bind(bind)).await.map(drop)
    }

    /// Sells what is held. After the expiry it takes the units again, or refuses.
    pub async fn commit(&self, commit: Commit) -> Result<Hold, Refusal> {
        hold(self.ask(Request::Commit(commit)).await?)
    }

    /// Gives up a hold, or a place in line. A hold that never was is released too, so that a Reserve that comes later is refused.
    pub async fn release(&self, release: Release) -> Result<HoldState, Refusal> {
        match self.ask(Request::Release(release)).await? {
            Answer::State(state) => Ok(state),
            _ => Err(Refusal::Defect),
        }
    }

    /// Makes sold units free again.
    pub async fn give_back(&self, back: Return) -> Result<(), Refusal> {
        self.ask(Request::Return(back)).await.map(drop)
    }

    /// Changes capacities, all or none, and answers with the pools in the order of the changes.
    pub async fn adjust(&self, adjust: Adjust) -> Result<Vec<Pool>, Refusal> {
        Ok(pools(self.ask(Request::Adjust(adjust)).await?)?
            .into_iter()
            .map(|standing| standing.pool)
            .collect())
    }

    /// Sets overbooking and the low-stock mark.
    pub async fn set_policy(&self, policy: SetPolicy) -> Result<Pool, Refusal> {
        pools(self.ask(Request::SetPolicy(policy)).await?)?
            .pop()
            .map(|standing| standing.pool)
            .ok_or(Refusal::Defect)
    }

    /// How these pools stand now; those that do not exist are left out.
    pub async fn look(&self, keys: Vec<PoolKey>) -> Result<Vec<Standing>, Refusal> {
        pools(self.ask(Request::Look(keys)).await?)
    }

    /// A place to watch pools from, behind what was seen of an epoch up to an offset; `None` while this process does not
    /// write.
    pub(crate) fn watch(&self, seen: Option<(i64, i64)>) -> Option<Watching> {
        self.feed.watch(seen)
    }

    async fn ask(&self, request: Request) -> Result<Answer, Refusal> {
        let gone = || Refusal::Unavailable("it is shutting down");
        let (reply, answer) = oneshot::channel();
        let job = Job::new(request, reply);
        self.inbox.send(job).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn hold(answer: Answer) -> Result<Hold, Refusal> {
    match answer {
        Answer::Hold(hold) => Ok(hold),
        _ => Err(Refusal::Defect),
    }
}

fn pools(answer: Answer) -> Result<Vec<Standing>, Refusal> {
    match answer {
        Answer::Pools(pools) => Ok(pools),
        _ => Err(Refusal::Defect),
    }
}

#[cfg(test)]
mod tests;
