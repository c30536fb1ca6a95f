//! What the active writer knows by heart: balances and holds, and who is due to expire. Pure.
//!
//! Between batches the book equals the database as it will be once everything in flight has committed. When something in
//! flight fails, what it touched is forgotten here and read again; nothing is ever "undone" in memory.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use holdfast_kernel::{PoolKey, RequestId, Timestamp};

use super::chain::{BIRTH, Head};
use crate::domain::{Balance, Fingerprint, Hold, HoldId, HoldState, Line, Name, Pool};

/// Holds that ended, kept to answer whoever asks again without a look into the database.
pub(super) const ENDED_MAX_HOLDS: usize = 100_000;
/// Pools kept in memory; beyond it all those without live holds are forgotten, and read again when wanted.
pub(super) const KNOWN_MAX_POOLS: usize = 200_000;

/// A pool's short name inside the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PoolId(pub(crate) i32);

/// Everything known of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PoolEntry {
    pub(super) key: PoolKey,
    pub(super) balance: Balance,
    pub(super) blocked: i64,
    pub(super) low_at: Option<i64>,
    pub(super) low: bool,
    pub(super) version: i64,
    pub(super) capacity_version: i64,
    pub(super) head: Head,
}

impl PoolEntry {
    /// A pool without units and without history.
    pub(super) fn new(key: PoolKey) -> Self {
        Self {
            key,
            balance: Balance::default(),
            blocked: 0,
            low_at: None,
            low: false,
            version: 0,
            capacity_version: 0,
            head: BIRTH,
        }
    }

    /// Units neither held, sold nor blocked.
    pub(super) const fn room(&self) -> i64 {
        self.balance.capacity + self.balance.overbook
            - self.balance.held
            - self.balance.sold
            - self.blocked
    }
}

/// Units of one pool that a hold claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeldLine {
    pub(super) pool: PoolId,
    pub(super) units: i64,
    /// Of those, given back after they were sold.
    pub(super) returned: i64,
}

/// A wish by the ids of its pools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sought {
    /// In any case, by pool key.
    pub(super) lines: Vec<(PoolId, i64)>,
    /// Of each group the first that fits.
    pub(super) any_of: Vec<Vec<Vec<(PoolId, i64)>>>,
}

/// Everything known of a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HoldEntry {
    pub(super) state: HoldState,
    pub(super) version: i32,
    pub(super) expires_at: Timestamp,
    pub(super) born_at: Timestamp,
    pub(super) epoch: i64,
    pub(super) account: Option<Name>,
    pub(super) reference: Name,
    /// By pool key, each pool once; empty for a tombstone.
    pub(super) lines: Vec<HeldLine>,
    /// Of each group of alternatives the one that was taken.
    pub(super) taken: Box<[u8]>,
}

impl HoldEntry {
    /// A hold that begins to live.
    pub(super) fn live(
        born_at: Timestamp,
        expires_at: Timestamp,
        epoch: i64,
        account: Option<Name>,
        lines: &[(PoolId, i64)],
    ) -> Self {
        let lines = lines.iter().map(|&(pool, units)| HeldLine {
            pool,
            units,
            returned: 0,
        });
        Self {
            state: HoldState::Live,
            version: 1,
            expires_at,
            born_at,
            epoch,
            account,
            reference: Name::default(),
            lines: lines.collect(),
            taken: Box::default(),
        }
    }

    /// A hold that never lived: its id is spent.
    pub(super) fn tombstone(born_at: Timestamp, epoch: i64) -> Self {
        Self {
            state: HoldState::Released,
            ..Self::live(born_at, born_at, epoch, None, &[])
        }
    }

    /// What is left of a request that stood in line until its time was over.
    pub(super) fn lapsed(born_at: Timestamp, stand: &StandEntry) -> Self {
        Self {
            state: HoldState::Expired,
            reference: stand.reference.clone(),
            ..Self::live(born_at, stand.expires_at, 0, None, &[])
        }
    }

    /// Whether it stood in line in vain: there is nothing to take up again.
    pub(super) fn has_lapsed(&self) -> bool {
        self.state == HoldState::Expired && self.lines.is_empty()
    }
}

/// A request that stands in line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StandEntry {
    /// Whoever has a lower one is served before.
    pub(super) place: i64,
    pub(super) expires_at: Timestamp,
    pub(super) account: Option<Name>,
    pub(super) actor: Name,
    pub(super) reference: Name,
    /// Of the hold that it becomes.
    pub(super) ttl: Duration,
    pub(super) sought: Sought,
}

impl StandEntry {
    /// Every pool it may take something of, each once.
    pub(super) fn pools(&self) -> BTreeSet<PoolId> {
        let chosen = self.sought.any_of.iter().flatten().flatten();
        let lines = self.sought.lines.iter().chain(chosen);
        lines.map(|(pool, _)| *pool).collect()
    }
}

/// Units of a live hold past its expiry: free in truth, still held on paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overdue {
    /// When they became free.
    pub expired_at: Timestamp,
    /// How many.
    pub units: i64,
}

/// A pool as callers see it, and what is still to be written of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// With the overdue units already counted as free.
    pub pool: Pool,
    /// Those units.
    pub overdue: Vec<Overdue>,
}

/// The memory of one term of writing.
#[derive(Debug)]
pub(super) struct Book {
    now: Timestamp,
    next_pool: i32,
    next_place: i64,
    pools: HashMap<PoolId, Kept<PoolEntry>>,
    ids: HashMap<PoolKey, PoolId>,
    holds: HashMap<HoldId, Kept<HoldEntry>>,
    requests: HashMap<RequestId, Kept<Fingerprint>>,
    /// Every live hold, the next to expire first.
    due: BTreeSet<(Timestamp, HoldId)>,
    /// All that stand in line.
    stands: HashMap<HoldId, StandEntry>,
    /// The same, the next whose time is over first.
    lapsing: BTreeSet<(Timestamp, HoldId)>,
    /// By each pool they name those who stand in line and whose time is not over, by their places.
    waiting: HashMap<PoolId, BTreeMap<i64, HoldId>>,
    /// Pools with a line of which more may be free than when that was looked at last.
    freed: BTreeSet<PoolId>,
    /// Live holds and standing requests that name the pool; such a pool is never forgotten.
    claims: HashMap<PoolId, u32>,
    /// Live holds past their expiry, by each pool they name.
    overdue: HashMap<PoolId, BTreeSet<(Timestamp, HoldId)>>,
    /// Live holds and standing requests before their expiry, by account.
    accounts: HashMap<Name, u32>,
    /// Holds and requests that nobody waits for, oldest first; may name some twice.
    idle: VecDeque<Idle>,
}

/// Something known, and the last batch that wrote it: what is in flight must not be forgotten.
#[derive(Debug)]
struct Kept<T> {
    value: T,
    batch: u64,
}

#[derive(Debug, Clone, Copy)]
enum Idle {
    Hold(HoldId),
    Request(RequestId),
}

impl Book {
    /// An empty book, opened at `now`; `next_pool` is above every pool's id, `next_place` behind everybody in line.
    pub(super) fn new(now: Timestamp, next_pool: i32, next_place: i64) -> Self {
        Self {
            now,
            next_pool,
            next_place,
            pools: HashMap::new(),
            ids: HashMap::new(),
            holds: HashMap::new(),
            requests: HashMap::new(),
            due: BTreeSet::new(),
            stands: HashMap::new(),
            lapsing: BTreeSet::new(),
            waiting: HashMap::new(),
            freed: BTreeSet::new(),
            claims: HashMap::new(),
            overdue: HashMap::new(),
            accounts: HashMap::new(),
            idle: VecDeque::new(),
        }
    }

    /// The moment for which it speaks.
    pub(super) const fn now(&self) -> Timestamp {
        self.now
    }

    /// Turns to a later moment: holds whose time is over by then are overdue, which frees their units in every answer.
    pub(super) fn advance(&mut self, now: Timestamp) {
        if now <= self.now {
            return;
        }
        let since = self.now;
        self.now = now;
        let newly: Vec<HoldId> = self
            .due
            .iter()
            .take_while(|(expires_at, _)| *expires_at <= now)
            .filter(|(expires_at, _)| *expires_at > since)
            .map(|(_, hold)| *hold)
            .collect();
        for hold in newly {
            let entry = &self.holds[&hold].value;
            if let Some(account) = &entry.account {
                count_down(&mut self.accounts, account);
            }
            for line in &entry.lines {
                self.overdue
                    .entry(line.pool)
                    .or_default()
                    .insert((entry.expires_at, hold));
                if self.waiting.contains_key(&line.pool) {
                    self.freed.insert(line.pool);
                }
            }
        }
        let lapsed: Vec<HoldId> = self
            .lapsing
            .iter()
            .take_while(|(expires_at, _)| *expires_at <= now)
            .filter(|(expires_at, _)| *expires_at > since)
            .map(|(_, stand)| *stand)
            .collect();
        for stand in lapsed {
            let entry = &self.stands[&stand];
            if let Some(account) = &entry.account {
                count_down(&mut self.accounts, account);
            }
            let (place, pools) = (entry.place, entry.pools());
            self.leave_waiting(place, &pools);
        }
    }

    pub(super) fn pool_id(&self, key: &PoolKey) -> Option<PoolId> {
        self.ids.get(key).copied()
    }

    pub(super) fn pool(&self, id: PoolId) -> Option<&PoolEntry> {
        self.pools.get(&id).map(|kept| &kept.value)
    }

    pub(super) fn hold(&self, id: HoldId) -> Option<&HoldEntry> {
        self.holds.get(&id).map(|kept| &kept.value)
    }

    pub(super) fn stand(&self, id: HoldId) -> Option<&StandEntry> {
        self.stands.get(&id)
    }

    pub(super) fn request(&self, id: RequestId) -> Option<&Fingerprint> {
        self.requests.get(&id).map(|kept| &kept.value)
    }

    /// The id that the next pool gets.
    pub(super) const fn next_pool(&self) -> PoolId {
        PoolId(self.next_pool)
    }

    /// The place behind everybody in line.
    pub(super) const fn next_place(&self) -> i64 {
        self.next_place
    }

    /// Whether a standing request's time is over.
    pub(super) fn has_lapsed(&self, entry: &StandEntry) -> bool {
        entry.expires_at <= self.now
    }

    /// Standing requests whose time is over, oldest first.
    pub(super) fn all_lapsed(&self) -> impl Iterator<Item = HoldId> {
        self.lapsing
            .iter()
            .take_while(|(expires_at, _)| *expires_at <= self.now)
            .map(|(_, stand)| *stand)
    }

    /// Who stands in line for this pool behind `place`.
    pub(super) fn next_waiting(&self, pool: PoolId, place: i64) -> Option<(i64, HoldId)> {
        let list = self.waiting.get(&pool)?;
        let (place, stand) = list.range(place.saturating_add(1)..).next()?;
        Some((*place, *stand))
    }

    /// Whether somebody in line has to be looked at.
    pub(super) fn has_freed(&self) -> bool {
        !self.freed.is_empty()
    }

    /// The pools whose lines have to be looked at, which whoever takes them does.
    pub(super) fn take_freed(&mut self) -> BTreeSet<PoolId> {
        std::mem::take(&mut self.freed)
    }

    /// Says that more may be free of this pool than before.
    pub(super) fn note_freed(&mut self, pool: PoolId) {
        if self.waiting.contains_key(&pool) {
            self.freed.insert(pool);
        }
    }

    /// Whether a live hold's time is over: "expired" means `now >= expires_at`.
    pub(super) fn is_overdue(&self, entry: &HoldEntry) -> bool {
        entry.state == HoldState::Live && entry.expires_at <= self.now
    }

    /// Live holds and standing requests of the account whose time is not over.
    pub(super) fn live_of(&self, account: &Name) -> u32 {
        self.accounts.get(account).copied().unwrap_or(0)
    }

    /// Holds on paper: those live and those overdue.
    pub(super) fn live(&self) -> usize {
        self.due.len()
    }

    /// Requests that stand in line, on paper.
    pub(super) fn standing_requests(&self) -> usize {
        self.stands.len()
    }

    /// The holds whose time is over, oldest first.
    pub(super) fn all_overdue(&self) -> impl Iterator<Item = HoldId> {
        self.due
            .iter()
            .take_while(|(expires_at, _)| *expires_at <= self.now)
            .map(|(_, hold)| *hold)
    }

    /// The holds on this pool whose time is over, oldest first.
    pub(super) fn overdue_on(&self, pool: PoolId) -> impl Iterator<Item = HoldId> {
        self.overdue
            .get(&pool)
            .into_iter()
            .flatten()
            .map(|(_, hold)| *hold)
    }

    /// When the next live hold's or standing request's time is over.
    pub(super) fn next_expiry(&self) -> Option<Timestamp> {
        let next = self.due.first().into_iter().chain(self.lapsing.first());
        next.map(|(expires_at, _)| *expires_at).min()
    }

    /// A pool for callers, overdue units counted as free.
    pub(super) fn standing(&self, id: PoolId) -> Option<Standing> {
        let entry = self.pool(id)?;
        let overdue: Vec<Overdue> = self
            .overdue_on(id)
            .filter_map(|hold| {
                let hold = self.hold(hold)?;
                let units = units_on(hold, id);
                Some(Overdue {
                    expired_at: hold.expires_at,
                    units,
                })
            })
            .collect();
        let free: i64 = overdue.iter().map(|overdue| overdue.units).sum();
        Some(Standing {
            pool: Pool {
                key: entry.key.clone(),
                capacity: entry.balance.capacity,
                held: entry.balance.held - free,
                sold: entry.balance.sold,
                blocked: entry.blocked,
                overbook: entry.balance.overbook,
                low_at: entry.low_at,
                version: entry.version,
                capacity_version: entry.capacity_version,
            },
            overdue,
        })
    }

    /// A hold for callers; one that is overdue shows as expired.
    pub(super) fn shown(&self, id: HoldId) -> Option<Hold> {
        let entry = self.hold(id)?;
        let lines = entry.lines.iter().filter_map(|line| {
            Some(Line {
                pool: self.pool(line.pool)?.key.clone(),
                units: line.units,
            })
        });
        Some(Hold {
            id,
            state: if self.is_overdue(entry) {
                HoldState::Expired
            } else {
                entry.state
            },
            expires_at: entry.expires_at,
            lines: lines.collect(),
            reference: entry.reference.clone(),
            taken: entry.taken.clone(),
        })
    }

    /// Learns a pool, or what became of it.
    pub(super) fn learn_pool(&mut self, id: PoolId, value: PoolEntry, batch: u64) {
        self.ids.insert(value.key.clone(), id);
        self.next_pool = self.next_pool.max(id.0 + 1);
        self.pools.insert(id, Kept { value, batch });
        self.note_freed(id);
    }

    /// Learns a hold, or what became of it. Its pools must be known before.
    pub(super) fn learn_hold(&mut self, id: HoldId, value: HoldEntry, batch: u64) {
        self.forget_hold(id);
        if value.state == HoldState::Live {
            self.due.insert((value.expires_at, id));
            let overdue = value.expires_at <= self.now;
            if let Some(account) = value.account.as_ref().filter(|_| !overdue) {
                *self.accounts.entry(account.clone()).or_default() += 1;
            }
            for line in &value.lines {
                *self.claims.entry(line.pool).or_default() += 1;
                if overdue {
                    let on_pool = self.overdue.entry(line.pool).or_default();
                    on_pool.insert((value.expires_at, id));
                    if self.waiting.contains_key(&line.pool) {
                        self.freed.insert(line.pool);
                    }
                }
            }
        } else {
            self.idle.push_back(Idle::Hold(id));
        }
        self.holds.insert(id, Kept { value, batch });
    }

    /// Learns of a request that stands in line. Its pools must be known before.
    pub(super) fn learn_stand(&mut self, id: HoldId, value: StandEntry) {
        self.forget_stand(id);
        self.next_place = self.next_place.max(value.place + 1);
        self.lapsing.insert((value.expires_at, id));
        let lapsed = self.has_lapsed(&value);
        if let Some(account) = value.account.as_ref().filter(|_| !lapsed) {
            *self.accounts.entry(account.clone()).or_default() += 1;
        }
        for pool in value.pools() {
            *self.claims.entry(pool).or_default() += 1;
            if !lapsed {
                self.waiting
                    .entry(pool)
                    .or_default()
                    .insert(value.place, id);
                self.freed.insert(pool);
            }
        }
        self.stands.insert(id, value);
    }

    /// Takes a request out of the line.
    pub(super) fn forget_stand(&mut self, id: HoldId) -> Option<StandEntry> {
        let entry = self.stands.remove(&id)?;
        self.lapsing.remove(&(entry.expires_at, id));
        let lapsed = self.has_lapsed(&entry);
        if let Some(account) = entry.account.as_ref().filter(|_| !lapsed) {
            count_down(&mut self.accounts, account);
        }
        let pools = entry.pools();
        for pool in &pools {
            count_down(&mut self.claims, pool);
        }
        if !lapsed {
            self.leave_waiting(entry.place, &pools);
        }
        Some(entry)
    }

    fn leave_waiting(&mut self, place: i64, pools: &BTreeSet<PoolId>) {
        for pool in pools {
            if let Some(list) = self.waiting.get_mut(pool) {
                list.remove(&place);
                if list.is_empty() {
                    self.waiting.remove(pool);
                    self.freed.remove(pool);
                }
            }
        }
    }

    /// Learns that a request was done.
    pub(super) fn learn_request(&mut self, id: RequestId, value: Fingerprint, batch: u64) {
        self.idle.push_back(Idle::Request(id));
        self.requests.insert(id, Kept { value, batch });
    }

    /// Changes a hold where it lies. Not for what the indexes are made of: state, expiry, account and pools.
    pub(super) fn hold_mut(&mut self, id: HoldId, batch: u64) -> Option<&mut HoldEntry> {
        let kept = self.holds.get_mut(&id)?;
        kept.batch = batch;
        Some(&mut kept.value)
    }

    /// Changes a pool where it lies.
    pub(super) fn pool_mut(&mut self, id: PoolId, batch: u64) -> Option<&mut PoolEntry> {
        let kept = self.pools.get_mut(&id)?;
        kept.batch = batch;
        Some(&mut kept.value)
    }

    /// Takes a hold out, so that it can be changed and learnt again, or read again.
    pub(super) fn forget_hold(&mut self, id: HoldId) -> Option<HoldEntry> {
        let entry = self.holds.remove(&id)?.value;
        if entry.state == HoldState::Live {
            self.due.remove(&(entry.expires_at, id));
            let overdue = entry.expires_at <= self.now;
            if let Some(account) = entry.account.as_ref().filter(|_| !overdue) {
                count_down(&mut self.accounts, account);
            }
            for line in &entry.lines {
                count_down(&mut self.claims, &line.pool);
                if overdue && let Some(on_pool) = self.overdue.get_mut(&line.pool) {
                    on_pool.remove(&(entry.expires_at, id));
                    if on_pool.is_empty() {
                        self.overdue.remove(&line.pool);
                    }
                }
            }
        }
        Some(entry)
    }

    /// Takes a pool out, so that it can be read again.
    pub(super) fn forget_pool(&mut self, id: PoolId) -> Option<PoolEntry> {
        let entry = self.pools.remove(&id)?.value;
        self.ids.remove(&entry.key);
        Some(entry)
    }

    /// Takes a request out, so that it can be read again.
    pub(super) fn forget_request(&mut self, id: RequestId) {
        self.requests.remove(&id);
    }

    /// Lets go of what nobody needs, but nothing that a batch after `committed` wrote.
    pub(super) fn shrink(&mut self, committed: u64) {
        while self.idle.len() > ENDED_MAX_HOLDS {
            let forgettable = match self.idle[0] {
                Idle::Hold(id) => self
                    .holds
                    .get(&id)
                    .is_none_or(|kept| kept.batch <= committed),
                Idle::Request(id) => self
                    .requests
                    .get(&id)
                    .is_none_or(|kept| kept.batch <= committed),
            };
            if !forgettable {
                break;
            }
            match self.idle.pop_front() {
                // It may be live after all: taken out and learnt again by a reload.
                Some(Idle::Hold(id)) if self.is_ended(id) => drop(self.forget_hold(id)),
                Some(Idle::Request(id)) => self.forget_request(id),
                Some(Idle::Hold(_)) | None => {}
            }
        }
        // Looking at all of them is worth it only when many can go.
        if self.pools.len() > KNOWN_MAX_POOLS.max(2 * self.claims.len()) {
            let claims = &self.claims;
            self.pools
                .retain(|id, kept| kept.batch > committed || claims.contains_key(id));
            let pools = &self.pools;
            self.ids.retain(|_, id| pools.contains_key(id));
        }
    }

    fn is_ended(&self, id: HoldId) -> bool {
        self.hold(id)
            .is_some_and(|hold| hold.state != HoldState::Live)
    }

    /// Every live hold, for tests that plant bugs.
    #[cfg(test)]
    pub(super) fn live_holds(&self) -> impl Iterator<Item = (HoldId, &HoldEntry)> {
        let live = self.due.iter().map(|(_, hold)| *hold);
        live.filter_map(|id| Some((id, self.hold(id)?)))
    }
}

/// Units of this pool that the hold claims.
pub(super) fn units_on(hold: &HoldEntry, pool: PoolId) -> i64 {
    hold.lines
        .iter()
        .filter(|line| line.pool == pool)
        .map(|line| line.units)
        .sum()
}

fn count_down<K: std::hash::Hash + Eq + Clone>(counts: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
