//! The active writer: drains what waits, decides it in memory, sends it as one batch, and answers when that has committed.
//!
//! ```text
//! stand by ──lease taken──▶ serve ──connection lost, fenced off──▶ stand by
//!
//! serve:  waiting requests ──decide──▶ batch N+1 ─┐
//!                                      batch N  ──┴▶ one connection ──▶ committed: answer in order
//!                                                                  └──▶ refused: both fail; reload; decide again
//! ```
//!
//! What makes it right:
//!
//! 1. All memory belongs to a *term*. A term begins with a lease, that is an epoch nobody had before, and ends with the
//!    connection. Within an epoch nobody else can commit a batch, so the book is what this term read and wrote.
//! 2. Batches reach the database in the order they were decided, and none commits unless the one before did.
//! 3. An answer goes out after the batch that made it true has committed; an answer that wrote nothing, after the batch
//!    it was decided behind has. With nothing in flight it goes out at once while the database was heard from just now.
//! 4. A batch that fails has changed nothing. What it touched is read again, and its requests are decided again, the
//!    oldest first. Of a lost connection nobody knows the outcome: the next term reads what is true, and request ids
//!    turn what was done already into "done".

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::poll_fn,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    future::{BoxFuture, FutureExt, MaybeDone, maybe_done},
    poll,
};
use holdfast_kernel::{PoolKey, RequestId, Timestamp};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Changed, WhoWrites,
    batch::{Batch, Turn},
    book::{Book, PoolId, Standing},
    change::Draft,
    clock::{LedgerClock, Reading},
    decide::{self, Change, Decision, Limits, Reply, Request},
    feed::Feed,
    session::{Failure, Session},
};
use crate::domain::{Hold, HoldId, HoldState, Pool, Refusal, Stood};

/// Requests of one batch.
const BATCH_MAX_REQUESTS: usize = 512;
/// Lines of one batch, though a single request may have more. Whoever stocks a stadium does so in batches that others
/// find room beside and between.
const BATCH_MAX_LINES: usize = 4_096;
/// Batches on their way at once: one is being written while the next is decided.
const IN_FLIGHT_MAX_BATCHES: usize = 2;
/// Overdue holds written off by one batch that nobody asked to.
const SWEEP_MAX_HOLDS: usize = 256;
/// Standing requests granted by one batch; what could be granted beyond that is, before anybody else is served.
const GRANTS_MAX_HOLDS: usize = 256;
/// Standing requests in line for a pool that are looked at in vain before its units go to whoever asks next.
const LOOKS_MAX_STANDS: usize = 64;
/// Failures in a row after which batches come without grants: it may be a grant that the database refuses.
const GRANTING_MAX_FAILURES: u32 = 12;
/// How often a writer without requests looks whether something is due.
const TICK_MILLIS: u64 = 50;
/// How long a batch that has committed vouches for answers from memory, counted from when it was sent.
///
/// Nobody takes over from a writer sooner after his last batch, so until then what he remembers is what is.
pub(super) const VOUCHED_MAX_MILLIS: u64 = 100;
/// How often who stands by asks for the lease.
const STAND_BY_POLL_MILLIS: u64 = 250;
/// How long a request is kept over failures before its caller is told to ask again.
const REQUEST_MAX_SECS: u64 = 5;
/// How often a request that was the only one of its batch may be refused by the database.
const ALONE_MAX_TRIES: u32 = 8;
/// Partitions are made when less than this is left of the last.
const PARTITIONS_AHEAD_SECS: i64 = 24 * 60 * 60;

/// A request on its way to the writer.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) request: Request,
    pub(super) reply: oneshot::Sender<Result<Answer, Refusal>>,
    since: Instant,
    /// Times it failed as the only one of its batch.
    tries: u32,
    /// Whether its hold is looked up before it is decided, though it is a Reserve.
    looks_up: bool,
}

/// What the ledger answers, in the kind that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Hold(Hold),
    Stood(Stood),
    State(HoldState),
    Pools(Vec<Standing>),
    Done,
}

/// What is read again when a batch failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reload {
    /// The pools that failed batches touched.
    Pools,
    /// Who else moved units there since we believed to know: those holds are stale too.
    Movements,
    /// The holds that failed batches touched, that movements named, and that waiting requests name.
    Holds,
}

/// Where ledgers like this one were seen to go wrong, each place a value: tests put the wrong one in and watch.
#[derive(Clone)]
pub(super) struct Rules {
    /// What is sent with every batch.
    pub(super) statement: Cow<'static, str>,
    /// Holds come last: read before its pool, a hold that another writer ended in between would stay live in our book
    /// under a pool that looks current.
    pub(super) reload: [Reload; 3],
    pub(super) decide: fn(&Request, &Book, &Limits) -> Result<Decision, Refusal>,
    /// Whether an answer that wrote nothing may go out with so many batches in flight, so long after the last one that
    /// committed was sent. It rests on what is in flight; and a writer that was cut off must not speak from memory.
    pub(super) answers_at_once: fn(usize, Duration) -> bool,
    pub(super) sweep_max_holds: usize,
    /// Whether who stands in line is served before this batch's requests.
    pub(super) waiting_come_first: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            statement: Cow::Borrowed(include_str!("statement.sql")),
            reload: [Reload::Pools, Reload::Movements, Reload::Holds],
            decide: decide::decide,
            answers_at_once: |in_flight, since| {
                in_flight == 0 && since <= Duration::from_millis(VOUCHED_MAX_MILLIS)
            },
            sweep_max_holds: SWEEP_MAX_HOLDS,
            waiting_come_first: true,
        }
    }
}

/// What a writer needs to know.
#[derive(Clone)]
pub(super) struct Options {
    pub(super) url: String,
    pub(super) reached_at: Option<Arc<str>>,
    pub(super) lease: Duration,
    pub(super) limits: Limits,
    pub(super) reading: Reading,
    pub(super) changed: Changed,
    pub(super) feed: Feed,
    pub(super) rules: Rules,
}

/// Writes while it holds the lease, waits for it while it does not.
pub(super) struct Writer {
    /// The holder of the lease, this process.
    holder: Uuid,
    options: Options,
    inbox: mpsc::Receiver<Job>,
    who_writes: watch::Sender<WhoWrites>,
    /// Taken from the inbox and not answered, the oldest first.
    waiting: VecDeque<Job>,
    /// Batches that failed since the last that committed.
    failures: u32,
}

/// The time from taking the lease to losing it, and all that was learnt in it.
struct Term {
    session: Arc<Session>,
    epoch: i64,
    /// Of the batch sent last.
    seq: i64,
    book: Book,
    clock: LedgerClock,
    /// When the last batch was sent of those that committed.
    vouched_at: Instant,
    partitions_until: Timestamp,
    in_flight: VecDeque<InFlight>,
    /// Set when a batch failed, until what was touched is read again.
    broken: Option<Broken>,
}

/// A batch that was sent.
struct InFlight {
    /// Without its movements, which went along.
    draft: Draft,
    jobs: Vec<Judged>,
    /// How it leaves the pools it moves, once it has committed.
    pools: Vec<Pool>,
    written: MaybeDone<BoxFuture<'static, Result<Timestamp, tokio_postgres::Error>>>,
    sent_at: Instant,
}

/// A request that was decided, and is answered when the batch has committed.
struct Judged {
    job: Job,
    outcome: Result<Answer, Refusal>,
    wrote: bool,
}

/// What comes of a look at a request.
enum Verdict {
    Sure(Judged),
    /// A Reserve that is refused, but may have been done long ago.
    ///
    /// A Reserve whose id is taken is told so by the key of the row, but one that is refused never comes to the row: it
    /// would hear "sold out" of what it bought itself. So before that is said, its id is looked up, and it is decided again.
    Doubtful(Job),
}

/// What failed batches touched.
#[derive(Default)]
struct Broken {
    /// With the version the database had for sure; `None` of pools that did not exist.
    pools: BTreeMap<PoolId, Option<i64>>,
    holds: BTreeSet<HoldId>,
    stands: BTreeSet<HoldId>,
    requests: BTreeSet<RequestId>,
    jobs: Vec<Job>,
}

/// Why a term ended.
#[derive(Debug)]
enum Ended {
    /// Asked to.
    Shutdown,
    /// Another process is the writer.
    Fenced,
    /// The database cannot be reached, or does not do what it should.
    Lost(Failure),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Lost(failure)
    }
}

impl Job {
    pub(super) fn new(request: Request, reply: oneshot::Sender<Result<Answer, Refusal>>) -> Self {
        Self {
            request,
            reply,
            since: Instant::now(),
            tries: 0,
            looks_up: false,
        }
    }

    fn answer(self, outcome: Result<Answer, Refusal>) {
        // Who does not wait any more asks again, if at all, with the same request id.
        self.reply.send(outcome).ok();
    }
}

impl Writer {
    pub(super) fn new(
        options: Options,
        inbox: mpsc::Receiver<Job>,
        who_writes: watch::Sender<WhoWrites>,
    ) -> Self {
        Self {
            holder: Uuid::now_v7(),
            options,
            inbox,
            who_writes,
            waiting: VecDeque::new(),
            failures: 0,
        }
    }

    /// Runs until shutdown, or until nobody is left to ask.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let mut session = None;
        while let Some(mut term) = self.stand_by(session.take(), &shutdown).await {
            let epoch = term.epoch;
            tracing::info!(epoch, holds = term.book.live(), "writing the ledger");
            let telling = self.options.feed.begin(epoch);
            self.tell(WhoWrites::Us);
            let ended = self.serve(&mut term, &shutdown).await;
            self.tell(WhoWrites::Undecided);
            drop(telling);
            self.take_back(&mut term);
            match ended {
                Ended::Shutdown => {
                    term.session.give_up_lease(epoch).await.ok();
                    break;
                }
                Ended::Fenced => {
                    tracing::warn!(epoch, "another process writes the ledger");
                    // Nothing is in flight, so nobody else has a share in it.
                    session = Arc::into_inner(term.session);
                }
                Ended::Lost(failure) => {
                    tracing::warn!(epoch, %failure, "lost the ledger's database");
                }
            }
        }
        for job in self.waiting.drain(..) {
            job.answer(Err(Refusal::Unavailable("it is shutting down")));
        }
    }

    /// Waits until this process may write; `None` when it is to end before.
    async fn stand_by(
        &mut self,
        mut session: Option<Session>,
        shutdown: &CancellationToken,
    ) -> Option<Term> {
        loop {
            match self.begin(&mut session).await {
                Ok(Some(term)) => return Some(term),
                Ok(None) => self.refuse_waiting("another process writes it"),
                Err(failure) => {
                    tracing::warn!(%failure, "cannot reach the ledger's database");
                    session = None;
                    self.refuse_overdue();
                }
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                job = self.inbox.recv(), if self.waiting.len() < BATCH_MAX_REQUESTS => {
                    self.waiting.push_back(job?);
                    while self.waiting.len() < BATCH_MAX_REQUESTS
                        && let Ok(job) = self.inbox.try_recv()
                    {
                        self.waiting.push_back(job);
                    }
                    // A lost connection is tried again at once, one that cannot be made after a pause.
                    if session.is_none() {
                        sleep(Duration::from_millis(TICK_MILLIS)).await;
                    }
                }
                () = sleep(Duration::from_millis(STAND_BY_POLL_MILLIS)) => {}
            }
        }
    }

    /// Begins a term if the lease is to be had: connects, takes it, and learns what is live.
    async fn begin(&self, session: &mut Option<Session>) -> Result<Option<Term>, Failure> {
        let options = &self.options;
        let ready = match session.take() {
            Some(ready) => ready,
            None => Session::open(&options.url, &options.rules.statement).await?,
        };
        let vouched_at = Instant::now();
        let vouched = Duration::from_millis(VOUCHED_MAX_MILLIS).min(options.lease);
        let lease = ready
            .take_lease(
                self.holder,
                options.lease,
                vouched,
                options.reached_at.as_deref(),
            )
            .await?;
        let Some(lease) = lease else {
            self.tell(WhoWrites::Another(ready.writer_url().await?));
            *session = Some(ready);
            return Ok(None);
        };
        let mut clock = LedgerClock::new(options.reading.clone(), lease.database, lease.last);
        let now = clock.now();
        let partitions_until = ready.make_partitions(now).await?;
        let mut book = Book::new(now, ready.next_pool().await?, ready.next_place().await?);
        let holds = ready.live_holds().await?;
        let stands = ready.all_stands().await?;
        let held = holds.iter().flat_map(|(_, hold)| &hold.lines);
        let mut pools: BTreeSet<PoolId> = held.map(|line| line.pool).collect();
        for (_, stand) in &stands {
            pools.extend(stand.pools());
        }
        let pools: Vec<PoolId> = pools.into_iter().collect();
        for (id, pool) in ready.pools(&pools, &[]).await? {
            book.learn_pool(id, pool, 0);
        }
        for (id, hold) in holds {
            book.learn_hold(id, hold, 0);
        }
        for (id, stand) in stands {
            book.learn_stand(id, stand);
        }
        Ok(Some(Term {
            session: Arc::new(ready),
            epoch: lease.epoch,
            seq: 0,
            book,
            clock,
            vouched_at,
            partitions_until,
            in_flight: VecDeque::new(),
            broken: None,
        }))
    }

    /// Lets callers know where to go, if that has changed.
    fn tell(&self, who: WhoWrites) {
        self.who_writes.send_if_modified(|known| {
            let changed = *known != who;
            *known = who;
            changed
        });
    }

    async fn serve(&mut self, term: &mut Term, shutdown: &CancellationToken) -> Ended {
        let mut tick = interval(Duration::from_millis(TICK_MILLIS));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut arrived: Vec<Job> = Vec::with_capacity(BATCH_MAX_REQUESTS);
        let mut closing = false;
        loop {
            if term.broken.is_some() && term.in_flight.is_empty() {
                match self.recover(term).await {
                    Ok(true) => {}
                    Ok(false) => return Ended::Fenced,
                    Err(failure) => return failure.into(),
                }
            }
            let open = term.broken.is_none() && term.in_flight.len() < IN_FLIGHT_MAX_BATCHES;
            // After a failure batches are halved, so that one bad request ends up alone.
            let limit = (BATCH_MAX_REQUESTS >> self.failures.min(usize::BITS - 1)).max(1);
            if open && !self.waiting.is_empty() {
                let count = limit.min(self.waiting.len());
                let jobs = self.waiting.drain(..count).collect();
                if let Err(failure) = self.write(term, jobs).await {
                    return failure.into();
                }
                continue;
            }
            if closing && term.in_flight.is_empty() {
                return Ended::Shutdown;
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled(), if !closing => closing = true,
                written = landed(&mut term.in_flight), if !term.in_flight.is_empty() => {
                    if let Err(failure) = self.settle(term, written) {
                        return failure.into();
                    }
                }
                count = self.inbox.recv_many(&mut arrived, limit), if open && !closing => {
                    closing |= count == 0;
                    if let Err(failure) = self.write(term, std::mem::take(&mut arrived)).await {
                        return failure.into();
                    }
                }
                _ = tick.tick(), if open => {
                    if term.is_due(self.options.lease)
                        && let Err(failure) = self.write(term, Vec::new()).await
                    {
                        return failure.into();
                    }
                }
            }
        }
    }

    /// Keeps back those behind the first that would make the batch too large.
    fn keep_back(&mut self, mut jobs: Vec<Job>) -> Vec<Job> {
        let mut lines = 0;
        let fitting = jobs.iter().take_while(|job| {
            lines += lines_of(&job.request);
            lines <= BATCH_MAX_LINES
        });
        let fitting = fitting.count().max(1).min(jobs.len());
        for job in jobs.drain(fitting..).rev() {
            self.waiting.push_front(job);
        }
        jobs
    }

    /// Decides these requests and sends what they change.
    async fn write(&mut self, term: &mut Term, jobs: Vec<Job>) -> Result<(), Failure> {
        let jobs = self.keep_back(jobs);
        if let Err(failure) = term.prepare(&jobs).await {
            self.wait_again(jobs);
            return Err(failure);
        }
        let options = &self.options;
        let mut draft = Draft::new(term.seq as u64 + 1);
        if self.failures == 0 {
            term.sweep(options.rules.sweep_max_holds, &mut draft);
        }
        let grants = self.failures < GRANTING_MAX_FAILURES;
        if grants && options.rules.waiting_come_first {
            term.serve_waiting(&mut draft);
        }
        let mut judged = Vec::with_capacity(jobs.len());
        let mut later = Vec::new();
        let mut jobs = jobs.into_iter();
        while let Some(job) = jobs.next() {
            // The line goes on in the next batch; nobody is served over it.
            if grants && options.rules.waiting_come_first && term.book.has_freed() {
                later.push(job);
                later.extend(jobs);
                break;
            }
            let verdict = term.judge(job, options, &mut draft);
            if grants {
                term.serve_waiting(&mut draft);
            }
            match verdict {
                Verdict::Sure(mut sure) => {
                    term.see_whether_granted(&mut sure);
                    judged.push(sure);
                }
                Verdict::Doubtful(job) => later.push(job),
            }
        }
        for job in later.into_iter().rev() {
            self.waiting.push_front(job);
        }
        if judged.is_empty() && draft.is_empty() && !self.waiting.is_empty() {
            return Ok(());
        }
        if draft.is_empty() && !term.is_due(options.lease) {
            let in_flight = term.in_flight.len();
            if (options.rules.answers_at_once)(in_flight, term.vouched_at.elapsed()) {
                answer(judged);
                return Ok(());
            }
            if let Some(last) = term.in_flight.back_mut() {
                last.jobs.extend(judged);
                return Ok(());
            }
        }
        term.send(draft, judged).await;
        Ok(())
    }

    /// Takes in what became of the oldest batch in flight.
    fn settle(
        &mut self,
        term: &mut Term,
        written: Result<Timestamp, tokio_postgres::Error>,
    ) -> Result<(), Failure> {
        let Some(batch) = term.in_flight.pop_front() else {
            return Ok(());
        };
        metrics::histogram!("holdfast_batch_commit_seconds").record(batch.sent_at.elapsed());
        // Also when it failed: it may be its answer that was lost.
        for pool in batch.draft.pools.keys() {
            if let Some(pool) = term.book.pool(*pool) {
                (self.options.changed)(&pool.key);
            }
        }
        match written {
            Ok(database) => {
                self.failures = 0;
                term.clock.seen(database);
                term.vouched_at = batch.sent_at;
                term.book.shrink(batch.draft.batch);
                let offset = batch.draft.batch as i64;
                self.options.feed.tell(offset, batch.pools);
                match &mut term.broken {
                    None => answer(batch.jobs),
                    // It was decided behind a batch that failed. What it wrote was guarded, what it only saw was not.
                    Some(broken) => {
                        let (wrote, saw): (Vec<_>, Vec<_>) =
                            batch.jobs.into_iter().partition(|judged| judged.wrote);
                        answer(wrote);
                        broken.jobs.extend(saw.into_iter().map(|judged| judged.job));
                    }
                }
                Ok(())
            }
            Err(error) => {
                let failure = Failure::from(error);
                let lost = matches!(failure, Failure::Lost(_));
                tracing::debug!(%failure, batch = batch.draft.batch, "a batch failed");
                metrics::counter!("holdfast_batch_failures_total").increment(1);
                self.failures += 1;
                term.broken.get_or_insert_default().add(batch);
                if lost { Err(failure) } else { Ok(()) }
            }
        }
    }

    /// Reads again what failed batches touched. False when another process has become the writer.
    async fn recover(&mut self, term: &mut Term) -> Result<bool, Failure> {
        let Some(mut broken) = term.broken.take() else {
            return Ok(true);
        };
        let mut jobs = std::mem::take(&mut broken.jobs);
        let seq = match term.session.committed_seq(term.epoch).await {
            Ok(Some(seq)) => seq,
            outcome => {
                self.wait_again(jobs);
                return outcome.map(|_| false);
            }
        };
        // Nobody came between, so it was refused for itself.
        if let [alone] = &mut jobs[..] {
            alone.tries += 1;
        }
        self.wait_again(jobs);
        term.seq = seq;
        // The holds that waiting requests name: a Reserve whose id is taken was refused for that alone.
        broken
            .holds
            .extend(self.waiting.iter().filter_map(|job| hold_of(&job.request)));
        for step in self.options.rules.reload {
            match step {
                Reload::Pools => term.reload_pools(&broken).await?,
                Reload::Movements => term.find_moved_holds(&mut broken).await?,
                Reload::Holds => term.reload_holds(&broken).await?,
            }
        }
        for request in broken.requests {
            term.book.forget_request(request);
        }
        Ok(true)
    }

    /// Puts requests back before those that came later. Who waits too long is told so.
    fn wait_again(&mut self, jobs: Vec<Job>) {
        for job in jobs.into_iter().rev() {
            self.waiting.push_front(job);
        }
        self.refuse_overdue();
        let (defect, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|job| job.tries >= ALONE_MAX_TRIES);
        self.waiting = waiting;
        for job in Vec::from(defect) {
            tracing::error!(request = ?job.request, "the database refuses what the ledger decided");
            metrics::counter!("holdfast_invariant_violations_total").increment(1);
            job.answer(Err(Refusal::Defect));
        }
    }

    /// Takes back what a term leaves unanswered.
    fn take_back(&mut self, term: &mut Term) {
        let mut broken = term.broken.take().unwrap_or_default();
        for batch in term.in_flight.drain(..) {
            broken.add(batch);
        }
        self.failures = 0;
        for job in &mut broken.jobs {
            job.tries = 0;
        }
        self.wait_again(broken.jobs);
    }

    fn refuse_overdue(&mut self) {
        while let Some(job) = self.waiting.front()
            && job.since.elapsed() > Duration::from_secs(REQUEST_MAX_SECS)
            && let Some(job) = self.waiting.pop_front()
        {
            job.answer(Err(Refusal::Unavailable("its database does not answer")));
        }
    }

    fn refuse_waiting(&mut self, why: &'static str) {
        for job in self.waiting.drain(..) {
            job.answer(Err(Refusal::Unavailable(why)));
        }
    }
}

impl Term {
    /// Whether there is something to write that nobody asked for.
    fn is_due(&mut self, lease: Duration) -> bool {
        let now = self.clock.now();
        let expiring =
            self.book.has_freed() || self.book.next_expiry().is_some_and(|expiry| expiry <= now);
        // A sign of life thrice a lease, but not with every look.
        let silence_max = (lease / 3).max(Duration::from_millis(TICK_MILLIS));
        expiring || (self.in_flight.is_empty() && self.clock.silence() >= silence_max)
    }

    /// Learns what these requests name, and turns to the present moment.
    async fn prepare(&mut self, jobs: &[Job]) -> Result<(), Failure> {
        let mut missing = Missing::default();
        for job in jobs {
            missing.note(job, &self.book);
        }
        if !missing.is_nothing() {
            self.learn(missing).await?;
        }
        let now = self.clock.now();
        if now.duration_until(self.partitions_until).as_secs() < PARTITIONS_AHEAD_SECS {
            let making = self.session.make_partitions(now);
            self.partitions_until = beside(&mut self.in_flight, making).await?;
        }
        self.book.advance(now);
        Ok(())
    }

    /// Reads on the same connection, behind the batches in flight: what these wrote is in memory and is not read.
    async fn learn(&mut self, mut missing: Missing) -> Result<(), Failure> {
        let (session, book) = (&self.session, &self.book);
        let reading = async {
            let holds = session.holds(&missing.holds).await?;
            let lines = holds.iter().flat_map(|(_, hold)| &hold.lines);
            let pools = lines.map(|line| line.pool);
            missing
                .pools
                .extend(pools.filter(|pool| book.pool(*pool).is_none()));
            missing.pools.sort_unstable();
            missing.pools.dedup();
            missing.keys.sort_unstable();
            missing.keys.dedup();
            let pools = session.pools(&missing.pools, &missing.keys).await?;
            let requests = session.requests(&missing.requests).await?;
            Ok::<_, Failure>((pools, holds, requests))
        };
        let (pools, holds, requests) = beside(&mut self.in_flight, reading).await?;
        for (id, pool) in pools {
            self.book.learn_pool(id, pool, 0);
        }
        for (id, hold) in holds {
            self.book.learn_hold(id, hold, 0);
        }
        for (id, fingerprint) in requests {
            self.book.learn_request(id, fingerprint, 0);
        }
        Ok(())
    }

    /// Writes off holds whose time is over, though nobody wants their units yet.
    fn sweep(&mut self, max: usize, draft: &mut Draft) {
        let overdue: Vec<HoldId> = self.book.all_overdue().take(max).collect();
        for hold in overdue {
            draft.make(Change::Expire { hold }, &mut self.book);
        }
        let lapsed: Vec<HoldId> = self.book.all_lapsed().take(max).collect();
        for stand in lapsed {
            draft.make(Change::Lapse { stand }, &mut self.book);
        }
    }

    /// Grants what fits by now to those in line for pools of which something came free, the oldest first.
    ///
    /// Of each line so many are looked at in vain and no more: what they cannot use goes to whoever asks next.
    fn serve_waiting(&mut self, draft: &mut Draft) {
        while self.book.has_freed() {
            let freed = self.book.take_freed();
            // Whoever is next in any of the lines; who stands in several of them comes up once for each.
            let mut next: BTreeSet<(i64, PoolId, HoldId)> = BTreeSet::new();
            let first = |pool: PoolId, behind: i64, book: &Book| {
                let (place, stand) = book.next_waiting(pool, behind)?;
                Some((place, pool, stand))
            };
            next.extend(freed.iter().filter_map(|pool| first(*pool, 0, &self.book)));
            let mut in_vain: BTreeMap<PoolId, usize> = BTreeMap::new();
            let mut looked_at = None;
            while let Some((place, pool, stand)) = next.pop_first() {
                if draft.granted.len() >= GRANTS_MAX_HOLDS {
                    self.book.note_freed(pool);
                    for (_, pool, _) in next {
                        self.book.note_freed(pool);
                    }
                    return;
                }
                if looked_at != Some(place) {
                    looked_at = Some(place);
                    for change in decide::decide_grant(stand, &self.book).unwrap_or_default() {
                        draft.make(change, &mut self.book);
                    }
                }
                let looks = in_vain.entry(pool).or_default();
                *looks += usize::from(self.book.stand(stand).is_some());
                if *looks < LOOKS_MAX_STANDS {
                    next.extend(first(pool, place, &self.book));
                }
            }
        }
    }

    /// Decides a request and makes its changes.
    fn judge(&mut self, mut job: Job, options: &Options, draft: &mut Draft) -> Verdict {
        let decided = (options.rules.decide)(&job.request, &self.book, &options.limits);
        let (outcome, wrote) = match decided {
            Ok(decision) => {
                let wrote = !decision.changes.is_empty();
                for change in decision.changes {
                    draft.make(change, &mut self.book);
                }
                (self.answer(decision.reply), wrote)
            }
            Err(_) if !job.looks_up && self.is_unheard_of(&job.request) => {
                job.looks_up = true;
                return Verdict::Doubtful(job);
            }
            Err(refusal) => (Err(refusal), false),
        };
        Verdict::Sure(Judged {
            job,
            outcome,
            wrote,
        })
    }

    /// Who joined the line may have been served with it.
    fn see_whether_granted(&self, judged: &mut Judged) {
        if let Request::Stand(stand) = &judged.job.request
            && judged.outcome.is_ok()
        {
            judged.outcome = self.answer(Reply::Stood(stand.request.makes()));
        }
    }

    fn is_unheard_of(&self, request: &Request) -> bool {
        match request {
            Request::Reserve(reserve) => self.book.hold(reserve.request.makes()).is_none(),
            _ => false,
        }
    }

    fn answer(&self, reply: Reply) -> Result<Answer, Refusal> {
        Ok(match reply {
            Reply::Hold(id) => Answer::Hold(self.book.shown(id).ok_or(Refusal::Defect)?),
            Reply::Stood(id) => Answer::Stood(match self.book.stand(id) {
                Some(stand) => Stood::Waiting(stand.expires_at),
                None => Stood::Granted(self.book.shown(id).ok_or(Refusal::Defect)?),
            }),
            Reply::State(state) => Answer::State(state),
            Reply::Pools(keys) => Answer::Pools(
                keys.iter()
                    .filter_map(|key| self.book.standing(self.book.pool_id(key)?))
                    .collect(),
            ),
            Reply::Done => Answer::Done,
        })
    }

    /// Sends a batch. It is on the wire when this returns, in the order of decision.
    async fn send(&mut self, mut draft: Draft, jobs: Vec<Judged>) {
        metrics::histogram!("holdfast_batch_size").record(jobs.len() as f64);
        let low = draft.mark_low(&mut self.book);
        let batch = Batch::fold(&mut draft, &low, &self.book);
        let moved = draft.pools.keys();
        let standings = moved.filter_map(|pool| self.book.standing(*pool));
        let pools = standings.map(|standing| standing.pool).collect();
        self.seq += 1;
        let turn = Turn {
            epoch: self.epoch,
            seq: self.seq,
        };
        let (session, at) = (self.session.clone(), self.book.now());
        let write = async move { batch.write(&session.client, &session.forms, turn, at).await };
        let mut written = maybe_done(write.boxed());
        // The first poll sends it; the outcome is taken in later, whatever it is.
        let _ = poll!(&mut written);
        self.in_flight.push_back(InFlight {
            draft,
            jobs,
            pools,
            written,
            sent_at: Instant::now(),
        });
    }

    async fn reload_pools(&mut self, broken: &Broken) -> Result<(), Failure> {
        let ids: Vec<PoolId> = broken.pools.keys().copied().collect();
        let keys: Vec<PoolKey> = ids
            .iter()
            .filter_map(|id| self.book.forget_pool(*id))
            .map(|pool| pool.key)
            .collect();
        for (id, pool) in self.session.pools(&ids, &keys).await? {
            self.book.learn_pool(id, pool, 0);
        }
        Ok(())
    }

    async fn find_moved_holds(&mut self, broken: &mut Broken) -> Result<(), Failure> {
        for (&pool, base) in &broken.pools {
            let base = base.unwrap_or(0);
            if self
                .book
                .pool(pool)
                .is_some_and(|entry| entry.version > base)
            {
                broken
                    .holds
                    .extend(self.session.holds_moved_since(pool, base).await?);
            }
        }
        Ok(())
    }

    async fn reload_holds(&mut self, broken: &Broken) -> Result<(), Failure> {
        let holds: Vec<HoldId> = broken.holds.iter().copied().collect();
        for hold in &holds {
            self.book.forget_hold(*hold);
        }
        let stands: Vec<HoldId> = broken.stands.iter().copied().collect();
        for stand in &stands {
            self.book.forget_stand(*stand);
        }
        let stands = self.session.stands(&stands).await?;
        let named = stands.iter().flat_map(|(_, stand)| stand.pools());
        let unknown = named.filter(|pool| self.book.pool(*pool).is_none());
        let missing = Missing {
            holds,
            pools: unknown.collect(),
            ..Missing::default()
        };
        self.learn(missing).await?;
        for (id, stand) in stands {
            self.book.learn_stand(id, stand);
        }
        Ok(())
    }
}

impl Broken {
    /// Takes up what a failed batch touched. Batches are added in the order they were sent.
    fn add(&mut self, batch: InFlight) {
        for (id, before) in batch.draft.pools {
            self.pools
                .entry(id)
                .or_insert_with(|| before.map(|before| before.version));
        }
        self.holds.extend(batch.draft.holds.into_keys());
        self.stands.extend(batch.draft.stands.into_keys());
        let requests = batch.draft.requests.into_iter();
        self.requests.extend(requests.map(|(request, _)| request));
        self.jobs.extend(batch.jobs.into_iter().map(|judged| Job {
            // It may have failed because it was done before, or have been done now.
            looks_up: true,
            ..judged.job
        }));
    }
}

/// What requests name and the book does not know.
#[derive(Default)]
struct Missing {
    keys: Vec<PoolKey>,
    pools: Vec<PoolId>,
    holds: Vec<HoldId>,
    requests: Vec<RequestId>,
}

impl Missing {
    fn is_nothing(&self) -> bool {
        self.keys.is_empty()
            && self.pools.is_empty()
            && self.holds.is_empty()
            && self.requests.is_empty()
    }

    fn note(&mut self, job: &Job, book: &Book) {
        let request = &job.request;
        match request {
            Request::Reserve(reserve) => {
                // Whether its id is taken is not looked up at first: the key of the row refuses, and that is rare.
                if job.looks_up || book.hold(reserve.request.makes()).is_some() {
                    self.note_hold(request, book);
                }
                self.note_keys(reserve.wish.named().map(|line| &line.pool), book);
            }
            Request::Stand(stand) => {
                self.note_hold(request, book);
                self.note_keys(stand.wish.named().map(|line| &line.pool), book);
            }
            Request::Extend(_) | Request::Bind(_) | Request::Commit(_) | Request::Release(_) => {
                self.note_hold(request, book);
            }
            Request::Return(back) => {
                self.note_hold(request, book);
                self.note_request(back.request, book);
            }
            Request::Adjust(adjust) => {
                self.note_keys(adjust.changes.all().iter().map(|change| &change.pool), book);
                self.note_request(adjust.request, book);
            }
            Request::SetPolicy(policy) => {
                self.note_keys([&policy.pool], book);
                self.note_request(policy.request, book);
            }
            Request::Look(keys) => self.note_keys(keys, book),
        }
    }

    fn note_keys<'a>(&mut self, keys: impl IntoIterator<Item = &'a PoolKey>, book: &Book) {
        let unknown = keys.into_iter().filter(|key| book.pool_id(key).is_none());
        self.keys.extend(unknown.cloned());
    }

    fn note_hold(&mut self, request: &Request, book: &Book) {
        let Some(hold) = hold_of(request) else {
            return;
        };
        match book.hold(hold) {
            // Who stands in line has no hold yet.
            None if book.stand(hold).is_some() => {}
            None => self.holds.push(hold),
            Some(entry) => {
                let pools = entry.lines.iter().map(|line| line.pool);
                self.pools
                    .extend(pools.filter(|pool| book.pool(*pool).is_none()));
            }
        }
    }

    fn note_request(&mut self, request: RequestId, book: &Book) {
        if book.request(request).is_none() {
            self.requests.push(request);
        }
    }
}

/// The hold that a request makes or names.
fn hold_of(request: &Request) -> Option<HoldId> {
    match request {
        Request::Reserve(reserve) => Some(reserve.request.makes()),
        Request::Stand(stand) => Some(stand.request.makes()),
        Request::Extend(extend) => Some(extend.hold),
        Request::Bind(bind) => Some(bind.hold),
        Request::Commit(commit) => Some(commit.hold),
        Request::Release(release) => Some(release.hold),
        Request::Return(back) => Some(back.hold),
        Request::Adjust(_) | Request::SetPolicy(_) | Request::Look(_) => None,
    }
}

/// How much a request makes of a batch.
fn lines_of(request: &Request) -> usize {
    match request {
        Request::Reserve(reserve) => reserve.wish.named().count(),
        Request::Stand(stand) => stand.wish.named().count(),
        Request::Return(back) => back.basket.lines().len(),
        Request::Adjust(adjust) => adjust.changes.all().len(),
        Request::Extend(_)
        | Request::Bind(_)
        | Request::Commit(_)
        | Request::Release(_)
        | Request::SetPolicy(_)
        | Request::Look(_) => 1,
    }
}

/// Waits for `reading` while the answers to what is in flight are taken in as they come.
///
/// All answers come over one connection, and the driver hands on none before those ahead of it have been taken: to wait
/// for a read alone would be to wait for ever when the answer to a batch comes in pieces.
async fn beside<T>(in_flight: &mut VecDeque<InFlight>, reading: impl Future<Output = T>) -> T {
    let mut reading = pin!(reading);
    poll_fn(|context| {
        for batch in in_flight.iter_mut() {
            // It keeps its outcome until it is its turn.
            let _ = batch.written.poll_unpin(context);
        }
        reading.as_mut().poll(context)
    })
    .await
}

/// What became of the oldest batch in flight.
async fn landed(in_flight: &mut VecDeque<InFlight>) -> Result<Timestamp, tokio_postgres::Error> {
    match in_flight.front_mut() {
        Some(batch) => {
            (&mut batch.written).await;
            match std::pin::Pin::new(&mut batch.written).take_output() {
                Some(written) => written,
                None => futures::future::pending().await,
            }
        }
        None => futures::future::pending().await,
    }
}

fn answer(judged: Vec<Judged>) {
    for judged in judged {
        judged.job.answer(judged.outcome);
    }
}
