//! Makes decided changes in the book, and notes for the statement what they touched and moved. Pure.

use std::collections::BTreeMap;

use holdfast_kernel::{RequestId, Timestamp};

use super::{
    book::{Book, HoldEntry, PoolEntry, PoolId, StandEntry},
    chain::{self, BIRTH, Head, Movement},
    decide::Change,
};
use crate::domain::{Fingerprint, HoldId, HoldState, MovementKind, Name};

/// Who lets holds expire.
const LEDGER: &str = "ledger";

/// A pool as it was before the batch: the database must still have it so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PoolBefore {
    pub(super) version: i64,
    pub(super) head: Head,
}

/// A hold as it was before the batch: the database must still have it so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HoldBefore {
    pub(super) version: i32,
    pub(super) expires_at: Timestamp,
}

/// What one batch touched and moved. Sorted by id, so that two writers would lock rows in one order.
#[derive(Debug)]
pub(super) struct Draft {
    /// The number of the batch.
    pub(super) batch: u64,
    /// `None` for pools that the batch made.
    pub(super) pools: BTreeMap<PoolId, Option<PoolBefore>>,
    /// `None` for holds that the batch made.
    pub(super) holds: BTreeMap<HoldId, Option<HoldBefore>>,
    /// In the order they happened.
    pub(super) movements: Vec<Movement>,
    pub(super) requests: Vec<(RequestId, Fingerprint)>,
    pub(super) expired: Vec<HoldId>,
    /// Requests that joined or left the line: as they joined, `None` of those that stood there before.
    pub(super) stands: BTreeMap<HoldId, Option<StandEntry>>,
    pub(super) granted: Vec<HoldId>,
    pub(super) lapsed: Vec<HoldId>,
}

impl Draft {
    pub(super) fn new(batch: u64) -> Self {
        Self {
            batch,
            pools: BTreeMap::new(),
            holds: BTreeMap::new(),
            movements: Vec::new(),
            requests: Vec::new(),
            expired: Vec::new(),
            stands: BTreeMap::new(),
            granted: Vec::new(),
            lapsed: Vec::new(),
        }
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.pools.is_empty()
            && self.holds.is_empty()
            && self.requests.is_empty()
            && self.stands.is_empty()
    }

    /// Makes one change in the book. Changes come from a decision on this book, so what they name is there.
    pub(super) fn make(&mut self, change: Change, book: &mut Book) {
        match change {
            Change::Open { hold, entry, actor } => self.open(book, hold, entry, &actor),
            Change::Join { stand, entry } => {
                self.stands.insert(stand, Some(entry.clone()));
                book.learn_stand(stand, entry);
            }
            Change::Grant { stand, entry } => {
                if let Some(request) = self.leave(book, stand) {
                    self.open(book, stand, entry, &request.actor);
                    self.granted.push(stand);
                }
            }
            Change::Withdraw { stand, epoch } => {
                self.leave(book, stand);
                self.birth(book, stand, HoldEntry::tombstone(book.now(), epoch));
            }
            Change::Lapse { stand } => {
                if let Some(request) = self.leave(book, stand) {
                    self.birth(book, stand, HoldEntry::lapsed(book.now(), &request));
                    self.lapsed.push(stand);
                }
            }
            Change::Bury { hold, entry } => self.birth(book, hold, entry),
            Change::Extend { hold, until } => {
                self.alter(book, hold, |entry| entry.expires_at = until);
            }
            Change::Bind { hold, reference } => {
                self.touch_hold(book, hold);
                if let Some(entry) = book.hold_mut(hold, self.batch) {
                    entry.reference = reference;
                }
            }
            Change::Command { hold, epoch } => {
                self.touch_hold(book, hold);
                if let Some(entry) = book.hold_mut(hold, self.batch) {
                    entry.epoch = epoch;
                }
            }
            Change::Commit { hold, actor } => {
                self.post_lines(book, hold, MovementKind::Commit, &By::hold(hold, &actor));
                self.alter(book, hold, |entry| entry.state = HoldState::Committed);
            }
            Change::Release { hold, actor } => {
                self.post_lines(book, hold, MovementKind::Release, &By::hold(hold, &actor));
                self.alter(book, hold, |entry| entry.state = HoldState::Released);
            }
            Change::Expire { hold } => {
                let mut by = By::hold(hold, &Name::from(LEDGER));
                by.effective_at = book.hold(hold).map(|entry| entry.expires_at);
                self.post_lines(book, hold, MovementKind::Expire, &by);
                self.alter(book, hold, |entry| entry.state = HoldState::Expired);
                self.expired.push(hold);
            }
            Change::Retake { hold, actor } => {
                self.post_lines(book, hold, MovementKind::Retake, &By::hold(hold, &actor));
                self.alter(book, hold, |entry| entry.state = HoldState::Committed);
            }
            Change::GiveUp { hold } => {
                self.alter(book, hold, |entry| entry.state = HoldState::Released);
            }
            Change::Return { hold, lines, actor } => self.give_back(book, hold, &lines, &actor),
            Change::Make { pool, key } => {
                self.pools.insert(pool, None);
                book.learn_pool(pool, PoolEntry::new(key), self.batch);
            }
            Change::Adjust {
                pool,
                delta,
                actor,
                reason,
            } => {
                let by = By::staff(&actor, &reason);
                self.post(book, pool, MovementKind::Adjust, delta, &by);
                if let Some(entry) = book.pool_mut(pool, self.batch) {
                    entry.capacity_version += 1;
                }
            }
            Change::Policy {
                pool,
                overbook_delta,
                low_at,
                actor,
            } => {
                let by = By::staff(&actor, &Name::default());
                self.post(book, pool, MovementKind::Policy, overbook_delta, &by);
                if let Some(entry) = book.pool_mut(pool, self.batch) {
                    entry.capacity_version += 1;
                    entry.low_at = low_at;
                    // A new mark is a new question.
                    entry.low = false;
                }
            }
            Change::Remember {
                request,
                fingerprint,
            } => {
                self.requests.push((request, fingerprint));
                book.learn_request(request, fingerprint, self.batch);
            }
        }
    }

    /// Sees which pools sank to their low mark, and which rose so far that they may be announced again.
    pub(super) fn mark_low(&self, book: &mut Book) -> Vec<PoolId> {
        let mut sunk = Vec::new();
        for &id in self.pools.keys() {
            let Some(entry) = book.pool_mut(id, self.batch) else {
                continue;
            };
            let Some(mark) = entry.low_at else {
                continue;
            };
            let room = entry.room();
            if !entry.low && room <= mark {
                entry.low = true;
                sunk.push(id);
            } else if entry.low && room > mark + rearm_margin(mark) {
                entry.low = false;
            }
        }
        sunk
    }

    /// Moves units and writes the movement: the only place where a balance changes.
    fn post(&mut self, book: &mut Book, pool: PoolId, kind: MovementKind, units: i64, by: &By) {
        let at = book.now();
        let Some(entry) = book.pool_mut(pool, self.batch) else {
            return;
        };
        self.pools.entry(pool).or_insert(Some(PoolBefore {
            version: entry.version,
            head: entry.head,
        }));
        let room_before = entry.room();
        entry.balance = entry.balance.after(kind, units);
        let is_freed = entry.room() > room_before;
        entry.version += 1;
        let mut movement = Movement {
            pool,
            version: entry.version,
            kind,
            units,
            held_after: entry.balance.held,
            sold_after: entry.balance.sold,
            capacity_after: entry.balance.capacity,
            at,
            effective_at: by.effective_at,
            hold: by.hold,
            actor: by.actor.clone(),
            reason: by.reason.clone(),
            hash: BIRTH,
        };
        movement.hash = chain::link(&entry.head, &entry.key, &movement);
        entry.head = movement.hash;
        self.movements.push(movement);
        if is_freed {
            book.note_freed(pool);
        }
    }

    fn open(&mut self, book: &mut Book, hold: HoldId, entry: HoldEntry, actor: &Name) {
        let by = By::hold(hold, actor);
        for line in &entry.lines {
            self.post(book, line.pool, MovementKind::Reserve, line.units, &by);
        }
        self.birth(book, hold, entry);
    }

    /// Takes a request out of the line.
    fn leave(&mut self, book: &mut Book, stand: HoldId) -> Option<StandEntry> {
        self.stands.entry(stand).or_insert(None);
        book.forget_stand(stand)
    }

    fn post_lines(&mut self, book: &mut Book, hold: HoldId, kind: MovementKind, by: &By) {
        let lines = book.hold(hold).map(|entry| entry.lines.clone());
        for line in lines.into_iter().flatten() {
            self.post(book, line.pool, kind, line.units, by);
        }
    }

    fn give_back(&mut self, book: &mut Book, hold: HoldId, lines: &[(PoolId, i64)], actor: &Name) {
        let by = By::hold(hold, actor);
        self.touch_hold(book, hold);
        for &(pool, units) in lines {
            self.post(book, pool, MovementKind::Return, units, &by);
            if let Some(entry) = book.hold_mut(hold, self.batch) {
                for line in entry.lines.iter_mut().filter(|line| line.pool == pool) {
                    line.returned += units;
                }
            }
        }
    }

    fn birth(&mut self, book: &mut Book, hold: HoldId, entry: HoldEntry) {
        self.holds.insert(hold, None);
        book.learn_hold(hold, entry, self.batch);
    }

    /// Changes what the book's indexes are made of.
    fn alter(&mut self, book: &mut Book, hold: HoldId, change: impl FnOnce(&mut HoldEntry)) {
        self.touch_hold(book, hold);
        if let Some(mut entry) = book.forget_hold(hold) {
            change(&mut entry);
            book.learn_hold(hold, entry, self.batch);
        }
    }

    /// Remembers how the hold was, and raises its version, once a batch.
    fn touch_hold(&mut self, book: &mut Book, hold: HoldId) {
        if self.holds.contains_key(&hold) {
            return;
        }
        if let Some(entry) = book.hold_mut(hold, self.batch) {
            let before = HoldBefore {
                version: entry.version,
                expires_at: entry.expires_at,
            };
            entry.version += 1;
            self.holds.insert(hold, Some(before));
        }
    }
}

/// Who moved units, for what and why.
struct By {
    hold: Option<HoldId>,
    actor: Name,
    reason: Name,
    effective_at: Option<Timestamp>,
}

impl By {
    fn hold(hold: HoldId, actor: &Name) -> Self {
        Self {
            hold: Some(hold),
            actor: actor.clone(),
            reason: Name::default(),
            effective_at: None,
        }
    }

    fn staff(actor: &Name, reason: &Name) -> Self {
        Self {
            hold: None,
            actor: actor.clone(),
            reason: reason.clone(),
            effective_at: None,
        }
    }
}

/// How far above its mark a pool must rise before it can sink to it again: a unit going to and fro is no news.
const fn rearm_margin(mark: i64) -> i64 {
    mark / 10
}
