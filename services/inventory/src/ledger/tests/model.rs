//! What the ledger means, in the fewest words, and a test that the real one means the same.
//!
//! The model knows neither batches nor books nor sweepers. A pool is its capacity, its policy and what was sold; a hold
//! is its lines, its end and what became of it. What is held is not counted but summed, and nothing ever "expires": a
//! hold past its end simply is not counted. Who stands in line is looked at after everything that happens, all of them,
//! the first first.
//!
//! A run sends bursts of random requests to real writers on a real database, while connections break, writers are killed
//! and a second one takes over. Answers get lost. Afterwards some order of a burst's requests, the unanswered ones done or
//! not, must explain every answer that came and every row that is in the database. A failing run prints one line that repeats it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use futures::{future::join_all, poll};
use holdfast_kernel::{PoolKey, RequestId, Timestamp};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use sqlx::{Connection as _, PgConnection, PgPool, Postgres, pool::PoolConnection};
use tokio::runtime::Handle;
use uuid::Uuid;

use super::{
    super::{Ledger, decide::Request, writer::Answer, writer::Rules},
    world::{Running, Terms, World, basket, pool_key},
};
use crate::domain::{
    Adjust, Alternative, Bind, CapacityChange, CapacityChanges, Commit, Epoch, Extend, Fingerprint,
    GROUPS_MAX_ENTRIES, Hold, HoldId, HoldState, Line, Name, Refusal, Release, Reserve, Return,
    STANDING_MAX_GROUPS, SetPolicy, Short, Stand, Stood, Wish,
};

const SEEDS: u64 = 200;
const OPERATIONS: usize = 500;
/// Databases worked on at once; each takes its share of the seeds, one after the other.
const LANES: u64 = 8;
const ACCOUNT_MAX_HOLDS: u32 = 5;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Model {
    now: Timestamp,
    pools: BTreeMap<PoolKey, ModelPool>,
    /// Shared between the states of a search until one of them changes it.
    holds: BTreeMap<HoldId, Arc<ModelHold>>,
    /// Who stands in line, the first first; those whose time is over just are not looked at.
    waiting: Vec<(HoldId, Arc<Stand>, Timestamp)>,
    requests: BTreeMap<RequestId, Fingerprint>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ModelPool {
    capacity: i64,
    overbook: i64,
    low_at: Option<i64>,
    sold: i64,
    capacity_version: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ModelHold {
    state: HoldState,
    expires_at: Timestamp,
    account: Option<Name>,
    reference: Name,
    epoch: i64,
    /// Units, and of those given back.
    lines: BTreeMap<PoolKey, (i64, i64)>,
    /// Of each group the alternative that was taken.
    taken: Box<[u8]>,
}

impl Model {
    fn new(now: Timestamp) -> Self {
        Self {
            now,
            pools: BTreeMap::new(),
            holds: BTreeMap::new(),
            waiting: Vec::new(),
            requests: BTreeMap::new(),
        }
    }

    fn state(&self, hold: &ModelHold) -> HoldState {
        match hold.state {
            HoldState::Live if self.now >= hold.expires_at => HoldState::Expired,
            state => state,
        }
    }

    fn held(&self, key: &PoolKey) -> i64 {
        let live = self
            .holds
            .values()
            .filter(|hold| self.state(hold) == HoldState::Live);
        live.filter_map(|hold| hold.lines.get(key))
            .map(|line| line.0)
            .sum()
    }

    fn available(&self, key: &PoolKey) -> i64 {
        self.pools.get(key).map_or(0, |pool| {
            pool.capacity + pool.overbook - pool.sold - self.held(key)
        })
    }

    /// The answer, and the model after it; `None` when nothing changed, as with every refusal.
    fn ask(&self, request: &Request) -> (Result<Said, Refusal>, Option<Self>) {
        if let Request::Look(keys) = request {
            return (Ok(self.say_pools(keys)), None);
        }
        let mut after = self.clone();
        let said = match after.act(request) {
            Ok(said) => said,
            Err(refusal) => return (Err(refusal), None),
        };
        after.serve_waiting();
        let said = match request {
            Request::Stand(stand) => after.say_stood(stand.request.makes()),
            _ => said,
        };
        (Ok(said), Some(after))
    }

    /// Whoever fits now is granted what he stands for.
    fn serve_waiting(&mut self) {
        for (id, stand, expires_at) in self.waiting.clone() {
            if self.now >= expires_at {
                continue;
            }
            if let Ok(taken) = self.choose(&stand.wish) {
                self.waiting.retain(|(waiting, ..)| *waiting != id);
                self.open(id, &stand.wish, taken, stand.account.as_ref(), stand.ttl);
                self.hold_mut(id).expect("just opened").reference = stand.reference.clone();
            }
        }
    }

    fn stands(&self, id: HoldId) -> Option<&(HoldId, Arc<Stand>, Timestamp)> {
        self.waiting.iter().find(|(waiting, ..)| *waiting == id)
    }

    fn has_lapsed(&self, id: HoldId) -> bool {
        self.stands(id).is_some_and(|(_, _, end)| self.now >= *end)
    }

    /// Whose time in line is over is known to have been there, and nothing more.
    fn must_not_have_lapsed(&self, hold: HoldId) -> Result<(), Refusal> {
        let state = HoldState::Expired;
        if self.has_lapsed(hold) {
            return Err(Refusal::HoldEnded { hold, state });
        }
        Ok(())
    }

    fn hold_mut(&mut self, hold: HoldId) -> Option<&mut ModelHold> {
        self.holds.get_mut(&hold).map(Arc::make_mut)
    }

    fn act(&mut self, request: &Request) -> Result<Said, Refusal> {
        match request {
            Request::Reserve(ask) => self.reserve(ask),
            Request::Stand(ask) => self.stand(ask),
            Request::Extend(ask) => {
                let until = self.now + jiff::SignedDuration::try_from(ask.ttl).expect("short");
                let hold = self.commanded(ask.hold, ask.epoch)?;
                match self.state(&self.holds[&hold]) {
                    HoldState::Live => {}
                    state => return Err(Refusal::HoldEnded { hold, state }),
                }
                let entry = self.hold_mut(hold).expect("looked up");
                entry.expires_at = entry.expires_at.max(until);
                Ok(self.say(hold))
            }
            Request::Bind(ask) => {
                self.must_not_have_lapsed(ask.hold)?;
                let entry = self.hold_mut(ask.hold);
                entry.ok_or(Refusal::UnknownHold(ask.hold))?.reference = ask.reference.clone();
                Ok(Said::Done)
            }
            Request::Commit(ask) => self.commit(ask),
            Request::Release(ask) => self.release(ask),
            Request::Return(ask) => self.give_back(ask),
            Request::Adjust(ask) => self.adjust(ask),
            Request::SetPolicy(ask) => self.set_policy(ask),
            Request::Look(keys) => Ok(self.say_pools(keys.iter())),
        }
    }

    fn reserve(&mut self, ask: &Reserve) -> Result<Said, Refusal> {
        let hold = ask.request.makes();
        if self.holds.contains_key(&hold) {
            self.commanded(hold, ask.epoch)?;
            self.must_be_the_same(hold, &ask.wish)?;
            return Ok(self.say(hold));
        }
        self.must_not_have_lapsed(hold)?;
        if self.stands(hold).is_some() {
            return Err(Refusal::HoldMismatch(hold));
        }
        self.must_know(&ask.wish)?;
        self.must_be_few(ask.account.as_ref())?;
        let taken = self.choose(&ask.wish)?;
        self.open(hold, &ask.wish, taken, ask.account.as_ref(), ask.ttl);
        let entry = self.hold_mut(hold).expect("just opened");
        entry.reference = ask.reference.clone();
        entry.epoch = ask.epoch.unwrap_or(0);
        Ok(self.say(hold))
    }

    fn stand(&mut self, ask: &Stand) -> Result<Said, Refusal> {
        let hold = ask.request.makes();
        if self.holds.contains_key(&hold) {
            self.must_be_the_same(hold, &ask.wish)?;
            return Ok(self.say_stood(hold));
        }
        self.must_not_have_lapsed(hold)?;
        self.must_know(&ask.wish)?;
        if let Some((_, before, _)) = self.stands(hold) {
            let same = before.wish.lines() == ask.wish.lines()
                && before.wish.any_of() == ask.wish.any_of();
            if same {
                return Ok(self.say_stood(hold));
            }
            return Err(Refusal::HoldMismatch(hold));
        }
        self.must_be_few(ask.account.as_ref())?;
        for line in ask.wish.named() {
            self.come_to_be(&line.pool, &ask.wish);
        }
        let end = self.now + jiff::SignedDuration::try_from(ask.patience).expect("short");
        self.waiting.push((hold, Arc::new(ask.clone()), end));
        Ok(self.say_stood(hold))
    }

    fn must_be_the_same(&self, hold: HoldId, wish: &Wish) -> Result<(), Refusal> {
        let entry = &self.holds[&hold];
        match self.state(entry) {
            HoldState::Live | HoldState::Committed => {}
            state => return Err(Refusal::HoldEnded { hold, state }),
        }
        let before = entry.lines.iter().map(|(key, line)| (key.clone(), line.0));
        if Some(before.collect()) == units_taken(wish, &entry.taken) {
            Ok(())
        } else {
            Err(Refusal::HoldMismatch(hold))
        }
    }

    fn must_be_few(&self, account: Option<&Name>) -> Result<(), Refusal> {
        let live = (self.holds.values())
            .filter(|hold| hold.account.as_ref() == account && self.state(hold) == HoldState::Live);
        let standing = (self.waiting.iter())
            .filter(|(_, stand, end)| stand.account.as_ref() == account && self.now < *end);
        if account.is_some() && live.count() + standing.count() >= ACCOUNT_MAX_HOLDS as usize {
            let limit = ACCOUNT_MAX_HOLDS;
            return Err(Refusal::TooManyHolds { limit });
        }
        Ok(())
    }

    fn open(
        &mut self,
        hold: HoldId,
        wish: &Wish,
        taken: Box<[u8]>,
        account: Option<&Name>,
        ttl: Duration,
    ) {
        let lines = units_taken(wish, &taken).expect("they were chosen");
        for key in lines.keys() {
            self.come_to_be(key, wish);
        }
        let lines = lines.into_iter();
        let entry = ModelHold {
            state: HoldState::Live,
            expires_at: self.now + jiff::SignedDuration::try_from(ttl).expect("short"),
            account: account.cloned(),
            reference: Name::from(""),
            epoch: 0,
            lines: lines.map(|(key, units)| (key, (units, 0))).collect(),
            taken,
        };
        self.holds.insert(hold, Arc::new(entry));
    }

    fn must_know(&self, wish: &Wish) -> Result<(), Refusal> {
        let mut unknown = Vec::new();
        for Line { pool, .. } in wish.named() {
            let known = self.pools.contains_key(pool) || wish.makes(pool).is_some();
            if !known && !unknown.contains(pool) {
                unknown.push(pool.clone());
            }
        }
        if unknown.is_empty() {
            Ok(())
        } else {
            Err(Refusal::UnknownPools(unknown))
        }
    }

    /// Of each group the first alternative that fits beside what was taken before.
    fn choose(&self, wish: &Wish) -> Result<Box<[u8]>, Refusal> {
        let available = |key: &PoolKey| {
            if self.pools.contains_key(key) {
                self.available(key)
            } else {
                wish.makes(key).expect("known or made")
            }
        };
        let mut claimed: BTreeMap<&PoolKey, i64> = BTreeMap::new();
        let lacking = |lines: &[Line], of, claimed: &BTreeMap<&PoolKey, i64>| {
            let asked = lines.iter().map(|line| Short {
                pool: line.pool.clone(),
                requested: line.units + claimed.get(&line.pool).unwrap_or(&0),
                available: available(&line.pool),
                of,
            });
            let short = asked.filter(|line| line.available < line.requested);
            short.collect::<Vec<_>>()
        };
        let short = lacking(wish.lines(), None, &claimed);
        if !short.is_empty() {
            return Err(Refusal::InsufficientUnits(short));
        }
        claimed.extend(wish.lines().iter().map(|line| (&line.pool, line.units)));
        let mut taken = Vec::new();
        for (group, alternatives) in wish.any_of().iter().enumerate() {
            let mut short = Vec::new();
            for (place, basket) in alternatives.iter().enumerate() {
                let of = Some(Alternative { group, place });
                let lacking = lacking(basket.lines(), of, &claimed);
                if lacking.is_empty() {
                    for line in basket.lines() {
                        *claimed.entry(&line.pool).or_default() += line.units;
                    }
                    taken.push(place as u8);
                    break;
                }
                short.extend(lacking);
            }
            if taken.len() == group {
                return Err(Refusal::InsufficientUnits(short));
            }
        }
        Ok(taken.into())
    }

    fn come_to_be(&mut self, key: &PoolKey, wish: &Wish) {
        if let (None, Some(capacity)) = (self.pools.get(key), wish.makes(key)) {
            let pool = ModelPool {
                capacity,
                overbook: 0,
                low_at: None,
                sold: 0,
                capacity_version: 1,
            };
            self.pools.insert(key.clone(), pool);
        }
    }

    fn commit(&mut self, ask: &Commit) -> Result<Said, Refusal> {
        let hold = self.commanded(ask.hold, ask.epoch)?;
        let state = self.state(&self.holds[&hold]);
        match state {
            HoldState::Committed => return Ok(self.say(hold)),
            HoldState::Released => return Err(Refusal::HoldEnded { hold, state }),
            HoldState::Live | HoldState::Expired => {}
        }
        let lines: BTreeMap<PoolKey, i64> = self.holds[&hold]
            .lines
            .iter()
            .map(|(key, line)| (key.clone(), line.0))
            .collect();
        if state == HoldState::Expired {
            self.must_fit(&lines)?;
        }
        for (key, units) in lines {
            self.pools.get_mut(&key).expect("it was held there").sold += units;
        }
        self.hold_mut(hold).expect("looked up").state = HoldState::Committed;
        Ok(self.say(hold))
    }

    fn release(&mut self, ask: &Release) -> Result<Said, Refusal> {
        if let Some((_, stand, end)) = self.stands(ask.hold).cloned() {
            let lapsed = self.now >= end;
            self.waiting.retain(|(waiting, ..)| *waiting != ask.hold);
            let tombstone = ModelHold {
                state: HoldState::Released,
                expires_at: if lapsed { end } else { self.now },
                account: None,
                reference: if lapsed {
                    stand.reference.clone()
                } else {
                    Name::from("")
                },
                epoch: ask.epoch.unwrap_or(0),
                lines: BTreeMap::new(),
                taken: Box::default(),
            };
            self.holds.insert(ask.hold, Arc::new(tombstone));
            return Ok(Said::State(HoldState::Released));
        }
        if !self.holds.contains_key(&ask.hold) {
            let tombstone = ModelHold {
                state: HoldState::Released,
                expires_at: self.now,
                account: None,
                reference: Name::from(""),
                epoch: ask.epoch.unwrap_or(0),
                lines: BTreeMap::new(),
                taken: Box::default(),
            };
            self.holds.insert(ask.hold, Arc::new(tombstone));
            return Ok(Said::State(HoldState::Released));
        }
        let hold = self.commanded(ask.hold, ask.epoch)?;
        let entry = self.hold_mut(hold).expect("looked up");
        if entry.state == HoldState::Committed {
            return Err(Refusal::HoldCommitted(hold));
        }
        entry.state = HoldState::Released;
        Ok(Said::State(HoldState::Released))
    }

    fn give_back(&mut self, ask: &Return) -> Result<Said, Refusal> {
        if self.done(ask.request, ask.fingerprint())? {
            return Ok(Said::Done);
        }
        self.must_not_have_lapsed(ask.hold)?;
        let entry = self.holds.get_mut(&ask.hold).map(Arc::make_mut);
        let entry = entry.ok_or(Refusal::UnknownHold(ask.hold))?;
        if entry.state != HoldState::Committed {
            return Err(Refusal::HoldNotCommitted(ask.hold));
        }
        for Line { pool, units } in ask.basket.lines() {
            let sold = entry.lines.get(pool).map_or(0, |line| line.0 - line.1);
            if *units > sold {
                return Err(Refusal::ReturnExceedsSold {
                    pool: pool.clone(),
                    requested: *units,
                    sold,
                });
            }
            entry.lines.get_mut(pool).expect("something was sold").1 += units;
            self.pools.get_mut(pool).expect("sold there").sold -= units;
        }
        Ok(Said::Done)
    }

    fn adjust(&mut self, ask: &Adjust) -> Result<Said, Refusal> {
        let keys = ask.changes.all().iter().map(|change| &change.pool);
        if self.done(ask.request, ask.fingerprint())? {
            return Ok(self.say_pools(keys));
        }
        let missing = |change: &&CapacityChange| {
            change.expected != 0 && !self.pools.contains_key(&change.pool)
        };
        let unknown = ask.changes.all().iter().filter(missing);
        let unknown: Vec<PoolKey> = unknown.map(|change| change.pool.clone()).collect();
        if !unknown.is_empty() {
            return Err(Refusal::UnknownPools(unknown));
        }
        for change in ask.changes.all() {
            match self.pools.get(&change.pool) {
                Some(_) if change.expected == 0 => {
                    return Err(Refusal::PoolExists(change.pool.clone()));
                }
                Some(pool) if pool.capacity_version != change.expected => {
                    return Err(Refusal::CapacityChanged {
                        pool: change.pool.clone(),
                        expected: change.expected,
                        actual: pool.capacity_version,
                    });
                }
                Some(pool) if pool.capacity + change.delta < 0 => {
                    return Err(self.below_committed(&change.pool));
                }
                None if change.delta < 0 => {
                    return Err(Refusal::CapacityOutOfBounds {
                        pool: change.pool.clone(),
                        units: change.delta,
                    });
                }
                _ => {}
            }
        }
        for change in ask.changes.all() {
            if change.delta < 0 && self.available(&change.pool) < -change.delta {
                return Err(self.below_committed(&change.pool));
            }
        }
        for change in ask.changes.all() {
            let pool = self.pools.entry(change.pool.clone()).or_insert(ModelPool {
                capacity: 0,
                overbook: 0,
                low_at: None,
                sold: 0,
                capacity_version: 0,
            });
            pool.capacity += change.delta;
            pool.capacity_version += 1;
        }
        Ok(self.say_pools(ask.changes.all().iter().map(|change| &change.pool)))
    }

    fn set_policy(&mut self, ask: &SetPolicy) -> Result<Said, Refusal> {
        if self.done(ask.request, ask.fingerprint())? {
            return Ok(self.say_pools([&ask.pool]));
        }
        let pool = self.pools.get(&ask.pool);
        let pool = pool.ok_or_else(|| Refusal::UnknownPools(vec![ask.pool.clone()]))?;
        if pool.capacity_version != ask.expected {
            return Err(Refusal::CapacityChanged {
                pool: ask.pool.clone(),
                expected: ask.expected,
                actual: pool.capacity_version,
            });
        }
        if self.available(&ask.pool) < pool.overbook - ask.overbook {
            return Err(self.below_committed(&ask.pool));
        }
        let pool = self.pools.get_mut(&ask.pool).expect("looked up");
        pool.overbook = ask.overbook;
        pool.low_at = ask.low_at;
        pool.capacity_version += 1;
        Ok(self.say_pools([&ask.pool]))
    }

    /// The hold, if this epoch may command it, which it then does.
    fn commanded(&mut self, hold: HoldId, epoch: Epoch) -> Result<HoldId, Refusal> {
        self.must_not_have_lapsed(hold)?;
        let entry = self.hold_mut(hold);
        let entry = entry.ok_or(Refusal::UnknownHold(hold))?;
        if let Some(got) = epoch {
            if got < entry.epoch {
                let seen = entry.epoch;
                return Err(Refusal::StaleEpoch { got, seen });
            }
            entry.epoch = got;
        }
        Ok(hold)
    }

    fn done(&mut self, request: RequestId, fingerprint: Fingerprint) -> Result<bool, Refusal> {
        match self.requests.insert(request, fingerprint) {
            None => Ok(false),
            Some(before) if before == fingerprint => Ok(true),
            Some(_) => Err(Refusal::RequestMismatch(request)),
        }
    }

    fn must_fit(&self, lines: &BTreeMap<PoolKey, i64>) -> Result<(), Refusal> {
        let short: Vec<Short> = lines
            .iter()
            .map(|(key, units)| Short {
                pool: key.clone(),
                requested: *units,
                available: self.available(key),
                of: None,
            })
            .filter(|line| line.available < line.requested)
            .collect();
        if short.is_empty() {
            Ok(())
        } else {
            Err(Refusal::InsufficientUnits(short))
        }
    }

    fn below_committed(&self, key: &PoolKey) -> Refusal {
        let pool = &self.pools[key];
        Refusal::BelowCommitted {
            pool: key.clone(),
            capacity: pool.capacity,
            overbook: pool.overbook,
            held: self.held(key),
            sold: pool.sold,
            blocked: 0,
        }
    }

    fn say(&self, hold: HoldId) -> Said {
        let entry = &self.holds[&hold];
        Said::Hold(Hold {
            id: hold,
            state: self.state(entry),
            expires_at: entry.expires_at,
            lines: entry
                .lines
                .iter()
                .map(|(pool, line)| Line {
                    pool: pool.clone(),
                    units: line.0,
                })
                .collect(),
            reference: entry.reference.clone(),
            taken: entry.taken.clone(),
        })
    }

    fn say_stood(&self, id: HoldId) -> Said {
        match self.stands(id) {
            Some((_, _, end)) => Said::Waiting(*end),
            None => self.say(id),
        }
    }

    fn say_pools<'a>(&self, keys: impl IntoIterator<Item = &'a PoolKey>) -> Said {
        let known = keys.into_iter().filter(|key| self.pools.contains_key(*key));
        Said::Pools(known.map(|key| (key.clone(), self.numbers(key))).collect())
    }

    /// capacity, held, sold, overbook, capacity version
    fn numbers(&self, key: &PoolKey) -> [i64; 5] {
        let pool = &self.pools[key];
        [
            pool.capacity,
            self.held(key),
            pool.sold,
            pool.overbook,
            pool.capacity_version,
        ]
    }
}

/// Units of each pool that these alternatives come to.
fn units_taken(wish: &Wish, taken: &[u8]) -> Option<BTreeMap<PoolKey, i64>> {
    let lines = wish.taking(taken)?;
    Some(
        lines
            .iter()
            .map(|line| (line.pool.clone(), line.units))
            .collect(),
    )
}

/// An answer in the model's words.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Hold(Hold),
    Waiting(Timestamp),
    State(HoldState),
    Pools(Vec<(PoolKey, [i64; 5])>),
    Done,
}

impl From<Answer> for Said {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Hold(hold) | Answer::Stood(Stood::Granted(hold)) => Self::Hold(hold),
            Answer::Stood(Stood::Waiting(until)) => Self::Waiting(until),
            Answer::State(state) => Self::State(state),
            Answer::Pools(standings) => Self::Pools(
                standings
                    .into_iter()
                    .map(|standing| {
                        let pool = standing.pool;
                        let numbers = [
                            pool.capacity,
                            pool.held,
                            pool.sold,
                            pool.overbook,
                            pool.capacity_version,
                        ];
                        (pool.key, numbers)
                    })
                    .collect(),
            ),
            Answer::Done => Self::Done,
        }
    }
}

/// What is in the database of one run, as far as it was read.
#[derive(Debug, Default)]
struct Rows {
    pools: BTreeMap<PoolKey, [i64; 5]>,
    holds: BTreeMap<HoldId, HoldRow>,
    /// By their places: whether they stand.
    waiting: BTreeMap<i64, (HoldId, bool)>,
    requests: BTreeSet<RequestId>,
    /// Every transaction before this one was over when it was read.
    read_to: i64,
}

#[derive(Debug)]
struct HoldRow {
    state: HoldState,
    expires_at: Timestamp,
    epoch: i64,
    reference: String,
    lines: Vec<(PoolKey, i64, i64)>,
    taken: Vec<u8>,
}

/// id, state, end, epoch, reference, pools, units, units given back, alternatives taken
type StoredHold = (
    Uuid,
    i16,
    jiff_sqlx::Timestamp,
    i64,
    String,
    Vec<i32>,
    Vec<i64>,
    Vec<i64>,
    Vec<u8>,
);

impl Rows {
    /// Reads the pools under this prefix, and of holds and requests with these ids what was written since the last time:
    /// of some hundred rows that is a handful, and reading all of them took most of the time of a run.
    async fn read_on(&mut self, sql: &mut PgConnection, prefix: &str, ids: &BTreeSet<Uuid>) {
        let ids: Vec<Uuid> = ids.iter().copied().collect();
        let since = self.read_to;
        let mut sql = sql
            .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await
            .expect("one moment for all");
        self.read_to =
            sqlx::query_scalar("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::int8")
                .fetch_one(&mut *sql)
                .await
                .expect("every database counts transactions");
        let pools: Vec<(i32, String, i64, i64, i64, i64, i64)> = sqlx::query_as(
            "SELECT id, key, capacity, held, sold, overbook, capacity_version FROM pool
             WHERE key >= 'sku:' || $1 AND key < 'sku:' || $1 || '~'
                OR key >= 'limit:' || $1 AND key < 'limit:' || $1 || '~'",
        )
        .bind(prefix)
        .fetch_all(&mut *sql)
        .await
        .expect("pools can be read");
        let holds: Vec<StoredHold> = sqlx::query_as(
            "SELECT id, state, expires_at, epoch, reference, pools, units, returned, taken FROM hold
             WHERE id = ANY($1) AND xmin::text::int8 >= $2",
        )
        .bind(&ids)
        .bind(since)
        .fetch_all(&mut *sql)
        .await
        .expect("holds can be read");
        let requests: Vec<Uuid> = sqlx::query_scalar(
            "SELECT id FROM request WHERE id = ANY($1) AND xmin::text::int8 >= $2",
        )
        .bind(&ids)
        .bind(since)
        .fetch_all(&mut *sql)
        .await
        .expect("requests can be read");
        let line: Vec<(i64, Uuid, bool)> =
            sqlx::query_as("SELECT place, id, standing FROM stand WHERE id = ANY($1)")
                .bind(&ids)
                .fetch_all(&mut *sql)
                .await
                .expect("the line can be read");
        let line = line.into_iter();
        self.waiting = line
            .map(|(place, id, standing)| (place, (HoldId::new(id), standing)))
            .collect();
        let keys: BTreeMap<i32, PoolKey> = pools
            .iter()
            .map(|pool| (pool.0, pool_key(&pool.1)))
            .collect();
        for (id, state, expires_at, epoch, reference, on, units, returned, taken) in holds {
            let lines = on.iter().zip(&units).enumerate();
            let lines = lines.map(|(place, (pool, units))| {
                let returned = returned.get(place).copied().unwrap_or(0);
                (keys[pool].clone(), *units, returned)
            });
            let row = HoldRow {
                state: HoldState::from_code(state).expect("a state"),
                expires_at: expires_at.into(),
                epoch,
                reference,
                lines: lines.collect(),
                taken,
            };
            self.holds.insert(HoldId::new(id), row);
        }
        self.requests
            .extend(requests.into_iter().map(RequestId::new));
        self.pools = pools
            .into_iter()
            .map(|(id, _, capacity, held, sold, overbook, version)| {
                let numbers = [capacity, held, sold, overbook, version];
                (keys[&id].clone(), numbers)
            })
            .collect();
    }

    /// Whether the rows are what the model says they must be.
    fn agree_with(&self, model: &Model) -> bool {
        // Who stood in line until his time was over has left it, once that is written down, with a hold of nothing.
        let left = |id: &HoldId| model.has_lapsed(*id);
        let rows = self.holds.iter().filter(|(id, _)| !left(id));
        let holds_agree = rows.clone().count() == model.holds.len()
            && rows
                .zip(&model.holds)
                .all(|((id, row), (modelled, hold))| id == modelled && row.is(hold, model))
            && (self.holds.iter())
                .filter(|(id, _)| left(id))
                .all(|(_, row)| row.state == HoldState::Expired && row.lines.is_empty());
        let standing = self.waiting.values().filter(|(_, standing)| *standing);
        let standing = standing.map(|(id, _)| *id).filter(|id| !left(id));
        let waiting = model.waiting.iter().map(|(id, ..)| *id);
        holds_agree
            && standing.eq(waiting.filter(|id| !left(id)))
            && (self.waiting.values())
                .all(|(id, standing)| self.holds.contains_key(id) != *standing)
            && self.requests.iter().eq(model.requests.keys())
            && self.pools.keys().eq(model.pools.keys())
            && self.pools.iter().all(|(key, row)| {
                let mut numbers = model.numbers(key);
                // Held on paper, until a batch writes the expiry down.
                numbers[1] += self.overdue(key, model.now);
                *row == numbers
            })
    }

    fn overdue(&self, key: &PoolKey, now: Timestamp) -> i64 {
        let overdue = self
            .holds
            .values()
            .filter(|row| row.state == HoldState::Live && now >= row.expires_at);
        let lines = overdue.flat_map(|row| &row.lines);
        lines
            .filter(|(pool, ..)| pool == key)
            .map(|(_, units, _)| units)
            .sum()
    }
}

impl HoldRow {
    fn is(&self, hold: &ModelHold, model: &Model) -> bool {
        let state = match self.state {
            HoldState::Live if model.now >= self.expires_at => HoldState::Expired,
            state => state,
        };
        state == model.state(hold)
            && self.expires_at == hold.expires_at
            && self.epoch == hold.epoch
            && *self.reference == *hold.reference
            && *self.taken == *hold.taken
            && self.lines.len() == hold.lines.len()
            && self
                .lines
                .iter()
                .zip(&hold.lines)
                .all(|((pool, units, returned), (key, line))| {
                    pool == key && (*units, *returned) == *line
                })
    }
}

/// What happens while requests are on their way.
enum Disaster {
    None,
    BrokenConnections,
    KilledWriter,
}

/// A request and its answer, where one came.
struct Event {
    request: Request,
    answer: Option<Result<Said, Refusal>>,
}

/// The state the model ends in when these events happen in some order that explains every answer and leads to these rows.
///
/// The events of a burst are concurrent, so any order will do; but the last one of each writer was asked behind the rest.
/// What was done and not heard of is answered when it is decided again, as things then are: its effect may lie earlier.
fn explain(model: &Model, writers: &[Vec<Event>], rows: &Rows, faults: Faults) -> Option<Model> {
    if let Some(simple) = explain_as_sent(model, writers)
        && rows.agree_with(&simple)
    {
        return Some(simple);
    }
    // Bit n of a mask: event n has happened. What it may have led to is reached from every mask with one bit less.
    let events: Vec<&Event> = writers.iter().flatten().collect();
    let mut before_last = Vec::with_capacity(events.len());
    for share in writers {
        let first = before_last.len();
        before_last.extend(std::iter::repeat_n(0_u32, share.len() - 1));
        before_last.push((first..first + share.len() - 1).fold(0, |mask, n| mask | 1 << n));
    }
    let all = (1_u32 << events.len()) - 1;
    let mut reached: Vec<Vec<Model>> = vec![Vec::new(); 1 << events.len()];
    reached[0].push(model.clone());
    for mask in 0..all {
        let mut here = std::mem::take(&mut reached[mask as usize]);
        let mut place = 0;
        while place < here.len() {
            let before = here[place].clone();
            place += 1;
            for (n, event) in events.iter().enumerate() {
                let done = mask & (1 << n) != 0;
                if done || mask & before_last[n] != before_last[n] {
                    continue;
                }
                let next = &mut reached[(mask | 1 << n) as usize];
                let (said, after) = before.ask(&event.request);
                let possible = event.answer.as_ref().is_none_or(|answer| *answer == said);
                let unchanged = after.is_none() || event.answer.is_none();
                if unchanged && possible && !next.contains(&before) {
                    next.push(before.clone());
                }
                let Some(after) = after else {
                    continue;
                };
                if possible && !next.contains(&after) {
                    next.push(after.clone());
                }
                // Done, but the writer never heard of it, decided it again later, and answered what he then found.
                if faults != Faults::None && !here.contains(&after) {
                    here.push(after);
                }
            }
        }
    }
    reached[all as usize]
        .iter()
        .find(|model| rows.agree_with(model))
        .cloned()
}

/// Tries the most likely order first.
fn explain_as_sent(model: &Model, writers: &[Vec<Event>]) -> Option<Model> {
    let mut model = model.clone();
    for event in writers.iter().flatten() {
        let (said, after) = model.ask(&event.request);
        if event.answer.as_ref().is_some_and(|answer| *answer != said) {
            return None;
        }
        model = after.unwrap_or(model);
    }
    Some(model)
}

/// One run: a random history, and whether it can be explained.
pub(super) struct Run<'a> {
    world: &'a World,
    seed: u64,
    dice: StdRng,
    model: Model,
    prefix: String,
    /// Ids that holds have or may get.
    holds: Vec<HoldId>,
    /// Asked before, to be asked again.
    asked: Vec<Request>,
    ids: BTreeSet<Uuid>,
    rules: Rules,
    faults: Faults,
    writers: Vec<Running>,
    sql: PoolConnection<Postgres>,
    rows: Rows,
}

/// What goes wrong in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Faults {
    /// Nothing.
    None,
    /// Answers are lost, connections break, the writer is killed or replaced.
    OneWriter,
    /// The same, and two writers take the lease from each other all the time. Such a writer can never know that what he
    /// remembers still holds, so he has every answer confirmed.
    TwoWriters,
}

impl<'a> Run<'a> {
    pub(super) async fn new(world: &'a World, seed: u64, mut rules: Rules, faults: Faults) -> Self {
        if faults == Faults::TwoWriters {
            rules.answers_at_once = |_, _| false;
        }
        Self {
            world,
            seed,
            dice: StdRng::seed_from_u64(seed),
            model: Model::new(world.now()),
            prefix: format!("S{seed}-"),
            holds: Vec::new(),
            asked: Vec::new(),
            ids: BTreeSet::new(),
            rules,
            faults,
            writers: Vec::new(),
            sql: world.sql().acquire().await.expect("a connection"),
            rows: Rows::default(),
        }
    }

    /// Runs so many operations; the error says what cannot be explained, and how to see it again.
    pub(super) async fn go(mut self, operations: usize) -> Result<(), String> {
        self.start_writer();
        let mut done = 0;
        let mut outcome = Ok(());
        while done < operations && outcome.is_ok() {
            if self.dice.random_ratio(1, 3) {
                let seconds = *[1, 10, 59, 60, 300].choose(&mut self.dice).expect("some");
                self.world.pass(seconds);
                self.model.now = self.world.now();
                self.model.serve_waiting();
            }
            if self.faults != Faults::None {
                self.change_writers().await;
            }
            let burst: usize = self.dice.random_range(1..=5);
            outcome = self.burst(burst).await;
            done += burst;
        }
        if outcome.is_ok() {
            outcome = self.read_all().await;
        }
        for writer in self.writers.drain(..) {
            writer.stop().await;
        }
        outcome.map_err(|error| {
            format!(
                "{error}\nrepeat: HOLDFAST_MODEL_SEED={} cargo test -p holdfast-inventory --lib model",
                self.seed
            )
        })
    }

    fn start_writer(&mut self) {
        self.writers.push(self.world.another(Terms {
            // Whoever wants to write takes over at once.
            lease: Duration::ZERO,
            account_max_holds: ACCOUNT_MAX_HOLDS,
            rules: self.rules.clone(),
        }));
    }

    async fn change_writers(&mut self) {
        match self.dice.random_range(0..40) {
            0 => {
                let writer = self.writers.swap_remove(0);
                writer.stop().await;
            }
            1 => {
                let writer = self.writers.swap_remove(0);
                writer.kill().await;
            }
            2..=4 if self.faults == Faults::TwoWriters && self.writers.len() < 2 => {
                self.start_writer();
            }
            5 if self.writers.len() == 2 => {
                let writer = self.writers.swap_remove(1);
                writer.stop().await;
            }
            _ => {}
        }
        if self.writers.is_empty() {
            self.start_writer();
        }
    }

    /// Asks so many things at once, loses some answers, and looks for an explanation.
    async fn burst(&mut self, count: usize) -> Result<(), String> {
        let mut shares: Vec<Vec<Request>> = self.writers.iter().map(|_| Vec::new()).collect();
        for _ in 0..count {
            let share = self.dice.random_range(0..shares.len());
            let request = self.draw();
            shares[share].push(request);
        }
        let disaster = match self.dice.random_range(0..50) {
            0 | 1 if self.faults != Faults::None => Disaster::BrokenConnections,
            2 if self.faults != Faults::None => Disaster::KilledWriter,
            _ => Disaster::None,
        };
        let lost = match self.faults {
            Faults::None => u32::MAX,
            Faults::OneWriter | Faults::TwoWriters => 8,
        };
        let losses: Vec<Vec<bool>> = shares
            .iter()
            .map(|share| {
                share
                    .iter()
                    .map(|_| self.dice.random_ratio(1, lost))
                    .collect()
            })
            .collect();
        let asking = self
            .writers
            .iter()
            .zip(&shares)
            .zip(&losses)
            .map(|((writer, share), losses)| ask_in_order(&writer.ledger, share, losses));
        let strike = async {
            match disaster {
                Disaster::None => {}
                Disaster::BrokenConnections => break_connections(&self.world.sql()).await,
                Disaster::KilledWriter => self.writers[0].strike_down(),
            }
        };
        let (answers, ()) = futures::join!(join_all(asking), strike);
        let mut histories: Vec<Vec<Event>> = shares
            .into_iter()
            .zip(answers)
            .map(|(share, answers)| {
                let events = share.into_iter().zip(answers);
                events
                    .map(|(request, answer)| Event { request, answer })
                    .collect()
            })
            .collect();
        if matches!(disaster, Disaster::KilledWriter) {
            self.start_writer();
            self.writers.swap_remove(0).kill().await;
        }
        // Each writer answers this behind everything it was asked before, and a new one behind what a dead one did.
        // Asked twice, for a request in doubt is decided again behind the batch it came in.
        let keys: Vec<PoolKey> = self.keys();
        for (writer, history) in self.writers.iter().zip(&mut histories) {
            let request = Request::Look(keys.clone());
            settled(&writer.ledger, &request).await?.ok();
            let answer = settled(&writer.ledger, &request).await?;
            history.push(Event {
                request,
                answer: Some(answer),
            });
        }
        self.rows
            .read_on(&mut self.sql, &self.prefix, &self.ids)
            .await;
        let explained = explain(&self.model, &histories, &self.rows, self.faults);
        self.model = explained.ok_or_else(|| {
            format!(
                "no order explains these answers and rows: {}\nin the database: {:?}\nbefore: {:?}",
                told(&self.model, &histories),
                self.rows,
                self.model
            )
        })?;
        Ok(())
    }

    /// Reads everything once more: what was taken away without a trace is in no row that was written.
    async fn read_all(&mut self) -> Result<(), String> {
        self.rows = Rows::default();
        self.rows
            .read_on(&mut self.sql, &self.prefix, &self.ids)
            .await;
        if self.rows.agree_with(&self.model) {
            return Ok(());
        }
        let (rows, model) = (&self.rows, &self.model);
        Err(format!(
            "in the end the database has {rows:?}, and should have {model:?}"
        ))
    }

    fn keys(&self) -> Vec<PoolKey> {
        let limits = (0..3).map(|place| self.limit(place));
        (0..5).map(|place| self.key(place)).chain(limits).collect()
    }

    fn key(&self, place: usize) -> PoolKey {
        pool_key(&format!("sku:{}{place}", self.prefix))
    }

    fn limit(&self, place: usize) -> PoolKey {
        pool_key(&format!("limit:{}{place}", self.prefix))
    }

    fn draw_line(&mut self) -> Line {
        let place = self.dice.random_range(0..5);
        Line {
            pool: self.key(place),
            units: self.dice.random_range(1..=3),
        }
    }

    /// Lines, sometimes with a choice, sometimes under a limit that comes to be with them.
    fn draw_wish(&mut self, groups_max: usize) -> Wish {
        let groups = match self.dice.random_range(0..8) {
            0..6 => 0,
            6 => 1,
            _ => 2,
        };
        let least = usize::from(groups == 0);
        let count = self.dice.random_range(least..=3);
        let mut lines: Vec<Line> = (0..count).map(|_| self.draw_line()).collect();
        let any_of = (0..groups).map(|_| {
            let alternatives = self.dice.random_range(1..=3);
            let alternatives = (0..alternatives).map(|_| {
                let count = self.dice.random_range(1..=2);
                (0..count).map(|_| self.draw_line()).collect()
            });
            alternatives.collect()
        });
        let mut any_of: Vec<_> = any_of.collect();
        any_of.truncate(groups_max);
        let mut makes = Vec::new();
        if self.dice.random_ratio(1, 4) {
            let place = self.dice.random_range(0..3);
            let pool = self.limit(place);
            makes.push((pool.clone(), self.dice.random_range(1..=4)));
            let units = self.dice.random_range(1..=2);
            lines.push(Line { pool, units });
        }
        Wish::new(lines, any_of, makes).expect("a wish")
    }

    /// A request that may mean something: known ids and keys for the most part, sometimes the same as before.
    fn draw(&mut self) -> Request {
        if self.dice.random_ratio(1, 8)
            && let Some(again) = self.asked.choose(&mut self.dice)
        {
            return again.clone();
        }
        let request = self.draw_new();
        match &request {
            Request::Return(back) => drop(self.ids.insert(back.request.uuid())),
            Request::Adjust(adjust) => drop(self.ids.insert(adjust.request.uuid())),
            Request::SetPolicy(policy) => drop(self.ids.insert(policy.request.uuid())),
            _ => {}
        }
        self.asked.push(request.clone());
        if self.asked.len() > 20 {
            self.asked.remove(0);
        }
        request
    }

    fn draw_reference(&mut self) -> Name {
        match self.dice.random_range(0..4) {
            0 => Name::default(),
            number => Name::from(format!("ord_{number}")),
        }
    }

    fn draw_new(&mut self) -> Request {
        let actor = Name::from("usr_model");
        let ttl = Duration::from_secs(*[1, 60, 300, 600].choose(&mut self.dice).expect("some"));
        let epoch = self
            .dice
            .random_ratio(1, 4)
            .then(|| self.dice.random_range(1..=3));
        match self.dice.random_range(0..100) {
            0..40 => {
                // New ones for the most part; a request id that is known asks again, maybe for something else.
                let known = self.dice.random_ratio(1, 10);
                let hold = self.draw_hold(if known { u32::MAX } else { 1 });
                Request::Reserve(Reserve {
                    request: RequestId::new(hold.uuid()),
                    account: self
                        .dice
                        .random_ratio(1, 2)
                        .then(|| Name::from(self.prefix.as_str())),
                    actor,
                    wish: self.draw_wish(GROUPS_MAX_ENTRIES),
                    ttl,
                    reference: self.draw_reference(),
                    epoch,
                })
            }
            40..50 => {
                let hold = self.draw_hold(20);
                Request::Extend(Extend { hold, ttl, epoch })
            }
            50..54 => {
                let hold = self.draw_hold(20);
                let reference = self.draw_reference();
                Request::Bind(Bind { hold, reference })
            }
            54..70 => {
                let hold = self.draw_hold(20);
                Request::Commit(Commit { hold, actor, epoch })
            }
            70..80 => {
                let hold = self.draw_hold(10);
                Request::Release(Release { hold, actor, epoch })
            }
            80..86 => Request::Stand(self.draw_stand(actor, ttl)),
            86..91 => {
                let hold = self.draw_hold(20);
                let place = self.dice.random_range(0..5);
                let key = self.key(place);
                let units = self.dice.random_range(1..=2);
                Request::Return(Return {
                    request: self.draw_request(),
                    hold,
                    actor,
                    basket: basket(&[(key.as_str(), units)]),
                })
            }
            91..97 => {
                let places: BTreeSet<usize> = (0..self.dice.random_range(1..=2))
                    .map(|_| self.dice.random_range(0..5))
                    .collect();
                let changes = places.into_iter().map(|place| {
                    let pool = self.key(place);
                    let expected = self.draw_version(&pool);
                    let delta = self.dice.random_range(-4..=8);
                    CapacityChange {
                        pool,
                        delta,
                        expected,
                    }
                });
                let changes = CapacityChanges::new(changes.collect()).expect("distinct");
                Request::Adjust(Adjust {
                    request: self.draw_request(),
                    actor,
                    reason: Name::from("counted"),
                    changes,
                })
            }
            _ => {
                let place = self.dice.random_range(0..5);
                let pool = self.key(place);
                Request::SetPolicy(SetPolicy {
                    request: self.draw_request(),
                    actor,
                    overbook: self.dice.random_range(0..=2),
                    low_at: self.dice.random_ratio(1, 2).then_some(2),
                    expected: self.draw_version(&pool),
                    pool,
                })
            }
        }
    }

    fn draw_stand(&mut self, actor: Name, ttl: Duration) -> Stand {
        let known = self.dice.random_ratio(1, 10);
        let hold = self.draw_hold(if known { u32::MAX } else { 1 });
        let account = Name::from(self.prefix.as_str());
        let patience = *[60, 300, 3_600].choose(&mut self.dice).expect("some");
        Stand {
            request: RequestId::new(hold.uuid()),
            account: self.dice.random_ratio(1, 2).then_some(account),
            actor,
            wish: self.draw_wish(STANDING_MAX_GROUPS),
            ttl,
            patience: Duration::from_secs(patience),
            reference: self.draw_reference(),
        }
    }

    /// A recent hold, but one time in so many an id that none has yet.
    fn draw_hold(&mut self, new: u32) -> HoldId {
        let made =
            self.holds.iter().rev().filter(|id| {
                self.model.holds.contains_key(id) || self.model.stands(**id).is_some()
            });
        let recent: Vec<HoldId> = made.take(12).copied().collect();
        match recent.choose(&mut self.dice) {
            Some(hold) if !self.dice.random_ratio(1, new) => *hold,
            _ => {
                let id = Uuid::from_u128(self.dice.random());
                self.ids.insert(id);
                self.holds.push(HoldId::new(id));
                HoldId::new(id)
            }
        }
    }

    fn draw_request(&mut self) -> RequestId {
        RequestId::new(Uuid::from_u128(self.dice.random()))
    }

    /// The version that stands, mostly.
    fn draw_version(&mut self, pool: &PoolKey) -> i64 {
        let stands = self
            .model
            .pools
            .get(pool)
            .map_or(0, |pool| pool.capacity_version);
        if self.dice.random_ratio(1, 6) {
            stands + 1
        } else {
            stands
        }
    }
}

/// Asks everything without waiting, in this order; `None` where the answer was lost on the way or says nothing.
async fn ask_in_order(
    ledger: &Ledger,
    requests: &[Request],
    losses: &[bool],
) -> Vec<Option<Result<Said, Refusal>>> {
    let asking = requests.iter().zip(losses).map(async |(request, lost)| {
        let mut asking = pin!(ledger.ask(request.clone()));
        // The first poll puts it into the inbox.
        let answer = match poll!(&mut asking) {
            Poll::Ready(answer) => answer,
            Poll::Pending if *lost => return None,
            Poll::Pending => asking.await,
        };
        match answer {
            Err(Refusal::Unavailable(_)) => None,
            answer => Some(answer.map(Said::from)),
        }
    });
    join_all(asking).await
}

/// The answer of a writer that is asked until it knows.
async fn settled(ledger: &Ledger, request: &Request) -> Result<Result<Said, Refusal>, String> {
    for _ in 0..1_000 {
        match ledger.ask(request.clone()).await {
            Err(Refusal::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
            answer => return Ok(answer.map(Said::from)),
        }
    }
    Err("the writer never settles".to_owned())
}

async fn break_connections(sql: &PgPool) {
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'holdfast ledger'",
    )
    .execute(sql)
    .await
    .expect("a role may end its own sessions");
}

/// What was asked and answered, and what the model says to it in the order it was sent.
fn told(model: &Model, histories: &[Vec<Event>]) -> String {
    let mut model = model.clone();
    let mut text = String::new();
    for (writer, history) in histories.iter().enumerate() {
        for Event { request, answer } in history {
            let (said, after) = model.ask(request);
            model = after.unwrap_or(model);
            let _ = write!(
                text,
                "\n  writer {writer}: {request:?}\n    answer: {answer:?}\n    model:  {said:?}"
            );
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(
    clippy::disallowed_methods,
    reason = "repeats one run; no setting of the product"
)]
async fn the_ledger_means_what_the_model_means() {
    let seeds: Vec<u64> = match std::env::var("HOLDFAST_MODEL_SEED") {
        Ok(seed) => vec![seed.parse().expect("a seed is a number")],
        Err(_) => (0..SEEDS).collect(),
    };
    let lanes = (0..LANES).map(|lane| {
        let seeds: Vec<u64> = seeds
            .iter()
            .copied()
            .filter(|seed| seed % LANES == lane)
            .collect();
        let runtime = Handle::current();
        // A thread of its own each, for the searching; the writers are tasks like any others.
        tokio::task::spawn_blocking(move || {
            runtime.block_on(async {
                let world = World::without_writer().await;
                for seed in seeds {
                    let faults = match seed % 5 {
                        4 => Faults::TwoWriters,
                        _ => Faults::OneWriter,
                    };
                    let run = Run::new(&world, seed, Rules::default(), faults).await;
                    run.go(OPERATIONS)
                        .await
                        .unwrap_or_else(|error| panic!("{error}"));
                }
            });
        })
    });
    for lane in join_all(lanes).await {
        if let Err(failed) = lane {
            std::panic::resume_unwind(failed.into_panic());
        }
    }
}
