//! The ledger's judgement: what a request changes, or why it is refused. Looks at the book and touches nothing.
//!
//! Every refusal is found before the first change is made, so a refused request has left no trace.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use holdfast_kernel::{PoolKey, RequestId, Timestamp};

use super::book::{Book, HoldEntry, PoolId, Sought, StandEntry, units_on};
use crate::domain::{
    Adjust, Alternative, Bind, CAPACITY_MAX_UNITS, Commit, Epoch, Extend, Fingerprint, HoldId,
    HoldState, Line, Name, Refusal, Release, Reserve, Return, SetPolicy, Short, Stand, Wish,
};

/// Why a pool has units that came to be with who first named it.
const FIRST_NAMED: &str = "first named";

/// What may be asked of the ledger.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Reserve(Reserve),
    Stand(Stand),
    Extend(Extend),
    Bind(Bind),
    Commit(Commit),
    Release(Release),
    Return(Return),
    Adjust(Adjust),
    SetPolicy(SetPolicy),
    /// How these pools stand.
    Look(Vec<PoolKey>),
}

/// One step of what a request does. In the order given they lead from one sound book to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// A new live hold takes its units.
    Open {
        hold: HoldId,
        entry: HoldEntry,
        actor: Name,
    },
    /// A request joins the line.
    Join { stand: HoldId, entry: StandEntry },
    /// A request leaves the line as a new live hold, which takes its units.
    Grant { stand: HoldId, entry: HoldEntry },
    /// A request leaves the line because its maker does not want it any more.
    Withdraw { stand: HoldId, epoch: i64 },
    /// A request leaves the line because its time is over.
    Lapse { stand: HoldId },
    /// A hold that never was is released: its id is spent.
    Bury { hold: HoldId, entry: HoldEntry },
    /// A live hold lasts longer.
    Extend { hold: HoldId, until: Timestamp },
    /// What the hold is for.
    Bind { hold: HoldId, reference: Name },
    /// A later epoch commands the hold from now on.
    Command { hold: HoldId, epoch: i64 },
    /// Held units are sold.
    Commit { hold: HoldId, actor: Name },
    /// Held units are free: the holder gave them up.
    Release { hold: HoldId, actor: Name },
    /// Held units are free: their time was over.
    Expire { hold: HoldId },
    /// Free units are sold to a hold that had expired.
    Retake { hold: HoldId, actor: Name },
    /// An expired hold can never be committed again.
    GiveUp { hold: HoldId },
    /// Sold units are free.
    Return {
        hold: HoldId,
        lines: Vec<(PoolId, i64)>,
        actor: Name,
    },
    /// There is a new pool, still empty.
    Make { pool: PoolId, key: PoolKey },
    /// The capacity is another one.
    Adjust {
        pool: PoolId,
        delta: i64,
        actor: Name,
        reason: Name,
    },
    /// The policy is another one.
    Policy {
        pool: PoolId,
        overbook_delta: i64,
        low_at: Option<i64>,
        actor: Name,
    },
    /// The request was done.
    Remember {
        request: RequestId,
        fingerprint: Fingerprint,
    },
}

/// What to say once the changes are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// How the hold then is.
    Hold(HoldId),
    /// What has come of standing in line.
    Stood(HoldId),
    /// That the hold is in this state.
    State(HoldState),
    /// How these pools then stand.
    Pools(Vec<PoolKey>),
    /// That it is done.
    Done,
}

/// What a request comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    /// Empty when everything asked for was so already.
    pub(super) changes: Vec<Change>,
    pub(super) reply: Reply,
}

/// Bounds that an operator sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Live holds and standing requests of one account.
    pub(super) account_max_holds: u32,
    /// Live holds and standing requests of all together: what fits into memory.
    pub(super) live_max_holds: usize,
}

/// What this request changes in this book, or why nothing.
pub(super) fn decide(request: &Request, book: &Book, limits: &Limits) -> Result<Decision, Refusal> {
    match request {
        Request::Reserve(reserve) => decide_reserve(reserve, book, limits),
        Request::Stand(stand) => decide_stand(stand, book, limits),
        Request::Extend(extend) => decide_extend(extend, book),
        Request::Bind(bind) => decide_bind(bind, book),
        Request::Commit(commit) => decide_commit(commit, book),
        Request::Release(release) => decide_release(release, book),
        Request::Return(back) => decide_return(back, book),
        Request::Adjust(adjust) => decide_adjust(adjust, book),
        Request::SetPolicy(policy) => decide_policy(policy, book),
        Request::Look(keys) => Ok(Decision {
            changes: Vec::new(),
            reply: Reply::Pools(keys.clone()),
        }),
    }
}

/// What a request that stands in line comes to now; nothing while it does not fit.
pub(super) fn decide_grant(stand: HoldId, book: &Book) -> Option<Vec<Change>> {
    let request = book.stand(stand)?;
    let chosen = choose(&request.sought, &[], book).ok()?;
    let mut changes = chosen.expiring;
    let expires_at = after(book.now(), request.ttl);
    let account = request.account.clone();
    let entry = HoldEntry {
        reference: request.reference.clone(),
        taken: chosen.taken,
        ..HoldEntry::live(book.now(), expires_at, 0, account, &chosen.lines)
    };
    changes.push(Change::Grant { stand, entry });
    Some(changes)
}

fn decide_reserve(ask: &Reserve, book: &Book, limits: &Limits) -> Result<Decision, Refusal> {
    let hold = ask.request.makes();
    if let Some(entry) = book.hold(hold) {
        let changes = heed(hold, entry, ask.epoch)?;
        must_be_the_same(hold, entry, &ask.wish, book)?;
        let reply = Reply::Hold(hold);
        return Ok(Decision { changes, reply });
    }
    match book.stand(hold) {
        Some(stand) if book.has_lapsed(stand) => return Err(lapsed(hold)),
        Some(_) => return Err(Refusal::HoldMismatch(hold)),
        None => {}
    }
    let (sought, new) = find_pools(&ask.wish, book)?;
    must_have_room_for_one(ask.account.as_ref(), book, limits)?;
    let chosen = choose(&sought, &new, book).map_err(Refusal::InsufficientUnits)?;
    let mut changes = chosen.expiring;
    for pool in new {
        if chosen.lines.iter().any(|(id, _)| *id == pool.id) {
            make_pool(pool, &ask.actor, &mut changes);
        }
    }
    let expires_at = after(book.now(), ask.ttl);
    let epoch = ask.epoch.unwrap_or(0);
    let account = ask.account.clone();
    changes.push(Change::Open {
        hold,
        entry: HoldEntry {
            reference: ask.reference.clone(),
            taken: chosen.taken,
            ..HoldEntry::live(book.now(), expires_at, epoch, account, &chosen.lines)
        },
        actor: ask.actor.clone(),
    });
    let reply = Reply::Hold(hold);
    Ok(Decision { changes, reply })
}

/// Joins the line. Whoever fits at once is not kept waiting: the line is looked at next.
fn decide_stand(ask: &Stand, book: &Book, limits: &Limits) -> Result<Decision, Refusal> {
    let stand = ask.request.makes();
    let reply = Reply::Stood(stand);
    if let Some(entry) = book.hold(stand) {
        must_be_the_same(stand, entry, &ask.wish, book)?;
        let changes = Vec::new();
        return Ok(Decision { changes, reply });
    }
    if book
        .stand(stand)
        .is_some_and(|entry| book.has_lapsed(entry))
    {
        return Err(lapsed(stand));
    }
    let (sought, new) = find_pools(&ask.wish, book)?;
    if let Some(entry) = book.stand(stand) {
        if entry.sought != sought {
            return Err(Refusal::HoldMismatch(stand));
        }
        let changes = Vec::new();
        return Ok(Decision { changes, reply });
    }
    must_have_room_for_one(ask.account.as_ref(), book, limits)?;
    let mut changes = Vec::new();
    // What may be granted must be there, whichever alternative it will be.
    for pool in new {
        make_pool(pool, &ask.actor, &mut changes);
    }
    let entry = StandEntry {
        place: book.next_place(),
        expires_at: after(book.now(), ask.patience),
        account: ask.account.clone(),
        actor: ask.actor.clone(),
        reference: ask.reference.clone(),
        ttl: ask.ttl,
        sought,
    };
    changes.push(Change::Join { stand, entry });
    Ok(Decision { changes, reply })
}

/// Refuses where the hold has ended, and where it is not what this wish would have made.
fn must_be_the_same(
    hold: HoldId,
    entry: &HoldEntry,
    wish: &Wish,
    book: &Book,
) -> Result<(), Refusal> {
    match shown_state(entry, book) {
        HoldState::Live | HoldState::Committed => {}
        state @ (HoldState::Released | HoldState::Expired) => {
            return Err(Refusal::HoldEnded { hold, state });
        }
    }
    // Of alternatives that were not taken nothing is kept.
    let wanted = wish.taking(&entry.taken).unwrap_or_default();
    let same = entry.lines.len() == wanted.len()
        && wanted.iter().zip(&entry.lines).all(|(wanted, held)| {
            wanted.units == held.units && book.pool_id(&wanted.pool) == Some(held.pool)
        });
    if same {
        Ok(())
    } else {
        Err(Refusal::HoldMismatch(hold))
    }
}

fn must_have_room_for_one(
    account: Option<&Name>,
    book: &Book,
    limits: &Limits,
) -> Result<(), Refusal> {
    if account.is_some_and(|account| book.live_of(account) >= limits.account_max_holds) {
        let limit = limits.account_max_holds;
        return Err(Refusal::TooManyHolds { limit });
    }
    if book.live() + book.standing_requests() >= limits.live_max_holds {
        return Err(Refusal::Full);
    }
    Ok(())
}

fn decide_extend(ask: &Extend, book: &Book) -> Result<Decision, Refusal> {
    let hold = ask.hold;
    let entry = find_hold(hold, book)?;
    let mut changes = heed(hold, entry, ask.epoch)?;
    match shown_state(entry, book) {
        HoldState::Live => {}
        state => return Err(Refusal::HoldEnded { hold, state }),
    }
    let until = after(book.now(), ask.ttl);
    if until > entry.expires_at {
        changes.push(Change::Extend { hold, until });
    }
    let reply = Reply::Hold(hold);
    Ok(Decision { changes, reply })
}

fn decide_bind(ask: &Bind, book: &Book) -> Result<Decision, Refusal> {
    let hold = ask.hold;
    let entry = find_hold(hold, book)?;
    let mut changes = Vec::new();
    if entry.reference != ask.reference {
        let reference = ask.reference.clone();
        changes.push(Change::Bind { hold, reference });
    }
    let reply = Reply::Done;
    Ok(Decision { changes, reply })
}

fn decide_commit(ask: &Commit, book: &Book) -> Result<Decision, Refusal> {
    let hold = ask.hold;
    let entry = find_hold(hold, book)?;
    let mut changes = heed(hold, entry, ask.epoch)?;
    let actor = ask.actor.clone();
    match shown_state(entry, book) {
        HoldState::Committed => {}
        HoldState::Released => {
            let state = HoldState::Released;
            return Err(Refusal::HoldEnded { hold, state });
        }
        HoldState::Live => changes.push(Change::Commit { hold, actor }),
        // Too late for what was held: the same units are taken again like anybody else's, or not at all.
        HoldState::Expired => {
            let own: &[HoldId] = if entry.state == HoldState::Live {
                &[hold]
            } else {
                &[]
            };
            let lines: Vec<(PoolId, i64)> = entry
                .lines
                .iter()
                .map(|line| (line.pool, line.units))
                .collect();
            let room = make_room(&lines, own, book).map_err(Refusal::InsufficientUnits)?;
            changes.extend(room);
            changes.push(Change::Retake { hold, actor });
        }
    }
    let reply = Reply::Hold(hold);
    Ok(Decision { changes, reply })
}

fn decide_release(ask: &Release, book: &Book) -> Result<Decision, Refusal> {
    let hold = ask.hold;
    let reply = Reply::State(HoldState::Released);
    if book.stand(hold).is_some() {
        return Ok(decide_withdrawal(ask, book));
    }
    let Some(entry) = book.hold(hold) else {
        let entry = HoldEntry::tombstone(book.now(), ask.epoch.unwrap_or(0));
        let changes = vec![Change::Bury { hold, entry }];
        return Ok(Decision { changes, reply });
    };
    let mut changes = heed(hold, entry, ask.epoch)?;
    match shown_state(entry, book) {
        HoldState::Released => {}
        HoldState::Committed => return Err(Refusal::HoldCommitted(hold)),
        HoldState::Live => {
            let actor = ask.actor.clone();
            changes.push(Change::Release { hold, actor });
        }
        HoldState::Expired => {
            if entry.state == HoldState::Live {
                changes.push(Change::Expire { hold });
            }
            changes.push(Change::GiveUp { hold });
        }
    }
    Ok(Decision { changes, reply })
}

/// Nobody commands a request that stands in line, so no epoch can be stale.
fn decide_withdrawal(ask: &Release, book: &Book) -> Decision {
    let (stand, epoch) = (ask.hold, ask.epoch.unwrap_or(0));
    let has_lapsed = book
        .stand(stand)
        .is_some_and(|entry| book.has_lapsed(entry));
    let changes = if has_lapsed {
        let command = (epoch > 0).then_some(Change::Command { hold: stand, epoch });
        let lapsing = [Change::Lapse { stand }, Change::GiveUp { hold: stand }];
        lapsing.into_iter().chain(command).collect()
    } else {
        vec![Change::Withdraw { stand, epoch }]
    };
    let reply = Reply::State(HoldState::Released);
    Decision { changes, reply }
}

fn decide_return(ask: &Return, book: &Book) -> Result<Decision, Refusal> {
    let fingerprint = ask.fingerprint();
    if done_before(ask.request, &fingerprint, book)? {
        return Ok(Decision {
            changes: Vec::new(),
            reply: Reply::Done,
        });
    }
    let hold = ask.hold;
    let entry = find_hold(hold, book)?;
    if entry.state != HoldState::Committed {
        return Err(Refusal::HoldNotCommitted(hold));
    }
    let mut lines = Vec::with_capacity(ask.basket.lines().len());
    for wanted in ask.basket.lines() {
        let pool = book.pool_id(&wanted.pool);
        let line = entry.lines.iter().find(|line| Some(line.pool) == pool);
        let sold = line.map_or(0, |line| line.units - line.returned);
        match line {
            Some(line) if wanted.units <= sold => lines.push((line.pool, wanted.units)),
            _ => {
                return Err(Refusal::ReturnExceedsSold {
                    pool: wanted.pool.clone(),
                    requested: wanted.units,
                    sold,
                });
            }
        }
    }
    let actor = ask.actor.clone();
    let changes = vec![
        Change::Return { hold, lines, actor },
        Change::Remember {
            request: ask.request,
            fingerprint,
        },
    ];
    let reply = Reply::Done;
    Ok(Decision { changes, reply })
}

fn decide_adjust(ask: &Adjust, book: &Book) -> Result<Decision, Refusal> {
    let fingerprint = ask.fingerprint();
    let keys = ask.changes.all().iter().map(|change| change.pool.clone());
    let reply = Reply::Pools(keys.collect());
    if done_before(ask.request, &fingerprint, book)? {
        let changes = Vec::new();
        return Ok(Decision { changes, reply });
    }
    let unknown: Vec<PoolKey> = ask
        .changes
        .all()
        .iter()
        .filter(|change| change.expected != 0 && book.pool_id(&change.pool).is_none())
        .map(|change| change.pool.clone())
        .collect();
    if !unknown.is_empty() {
        return Err(Refusal::UnknownPools(unknown));
    }
    let mut made = Vec::new();
    let mut adjusted = Vec::with_capacity(ask.changes.all().len());
    let mut lowered = Vec::new();
    let mut next_pool = book.next_pool().0;
    for change in ask.changes.all() {
        let standing = book
            .pool_id(&change.pool)
            .and_then(|id| Some((id, book.pool(id)?)));
        let (pool, capacity) = match standing {
            Some(_) if change.expected == 0 => {
                return Err(Refusal::PoolExists(change.pool.clone()));
            }
            Some((_, entry)) if entry.capacity_version != change.expected => {
                return Err(Refusal::CapacityChanged {
                    pool: change.pool.clone(),
                    expected: change.expected,
                    actual: entry.capacity_version,
                });
            }
            Some((id, entry)) => (id, entry.balance.capacity),
            None => {
                let pool = PoolId(next_pool);
                next_pool += 1;
                let key = change.pool.clone();
                made.push(Change::Make { pool, key });
                (pool, 0)
            }
        };
        let units = capacity.saturating_add(change.delta);
        if units < 0 && standing.is_some() {
            return Err(below_committed(pool, book));
        }
        if !(0..=CAPACITY_MAX_UNITS).contains(&units) {
            let pool = change.pool.clone();
            return Err(Refusal::CapacityOutOfBounds { pool, units });
        }
        if change.delta < 0 {
            lowered.push((pool, -change.delta));
        }
        adjusted.push(Change::Adjust {
            pool,
            delta: change.delta,
            actor: ask.actor.clone(),
            reason: ask.reason.clone(),
        });
    }
    let mut changes = room_to_lower(&lowered, book)?;
    changes.append(&mut made);
    changes.append(&mut adjusted);
    changes.push(Change::Remember {
        request: ask.request,
        fingerprint,
    });
    Ok(Decision { changes, reply })
}

fn decide_policy(ask: &SetPolicy, book: &Book) -> Result<Decision, Refusal> {
    let fingerprint = ask.fingerprint();
    let reply = Reply::Pools(vec![ask.pool.clone()]);
    if done_before(ask.request, &fingerprint, book)? {
        let changes = Vec::new();
        return Ok(Decision { changes, reply });
    }
    let standing = book
        .pool_id(&ask.pool)
        .and_then(|id| Some((id, book.pool(id)?)));
    let (pool, entry) = standing.ok_or_else(|| Refusal::UnknownPools(vec![ask.pool.clone()]))?;
    if entry.capacity_version != ask.expected {
        return Err(Refusal::CapacityChanged {
            pool: ask.pool.clone(),
            expected: ask.expected,
            actual: entry.capacity_version,
        });
    }
    if !(0..=CAPACITY_MAX_UNITS).contains(&ask.overbook) {
        return Err(Refusal::CapacityOutOfBounds {
            pool: ask.pool.clone(),
            units: ask.overbook,
        });
    }
    let overbook_delta = ask.overbook - entry.balance.overbook;
    let lowered = [(pool, -overbook_delta)];
    let mut changes = if overbook_delta < 0 {
        room_to_lower(&lowered, book)?
    } else {
        Vec::new()
    };
    changes.push(Change::Policy {
        pool,
        overbook_delta,
        low_at: ask.low_at,
        actor: ask.actor.clone(),
    });
    changes.push(Change::Remember {
        request: ask.request,
        fingerprint,
    });
    Ok(Decision { changes, reply })
}

/// A hold that units were taken with. One that only stood in line, and in vain, has ended, written down or not.
fn find_hold(hold: HoldId, book: &Book) -> Result<&HoldEntry, Refusal> {
    match (book.hold(hold), book.stand(hold)) {
        (Some(entry), _) if entry.has_lapsed() => Err(lapsed(hold)),
        (Some(entry), _) => Ok(entry),
        (None, Some(stand)) if book.has_lapsed(stand) => Err(lapsed(hold)),
        (None, _) => Err(Refusal::UnknownHold(hold)),
    }
}

fn lapsed(hold: HoldId) -> Refusal {
    let state = HoldState::Expired;
    Refusal::HoldEnded { hold, state }
}

/// The state that counts: a live hold past its expiry has expired, written down or not.
fn shown_state(entry: &HoldEntry, book: &Book) -> HoldState {
    if book.is_overdue(entry) {
        HoldState::Expired
    } else {
        entry.state
    }
}

/// Refuses a worker that was replaced; one that took over is remembered, which is a change even where nothing else is.
///
/// A hold is made, moved and undone by one saga, whose UUID it bears, so its own row is where the saga's highest epoch
/// is kept. What a saga tried in vain left no row: there an old worker can only repeat the attempt, and what it then
/// takes nobody pays for, and it expires.
fn heed(hold: HoldId, entry: &HoldEntry, epoch: Epoch) -> Result<Vec<Change>, Refusal> {
    let seen = entry.epoch;
    match epoch {
        Some(got) if got < seen => Err(Refusal::StaleEpoch { got, seen }),
        Some(epoch) if epoch > seen => Ok(vec![Change::Command { hold, epoch }]),
        _ => Ok(Vec::new()),
    }
}

fn done_before(
    request: RequestId,
    fingerprint: &Fingerprint,
    book: &Book,
) -> Result<bool, Refusal> {
    match book.request(request) {
        None => Ok(false),
        Some(before) if before == fingerprint => Ok(true),
        Some(_) => Err(Refusal::RequestMismatch(request)),
    }
}

/// A pool that a wish brings with it.
struct NewPool {
    id: PoolId,
    key: PoolKey,
    capacity: i64,
}

/// The pools of a wish, those that its lines bring with them among them.
fn find_pools(wish: &Wish, book: &Book) -> Result<(Sought, Vec<NewPool>), Refusal> {
    let mut new: Vec<NewPool> = Vec::new();
    let mut unknown: Vec<PoolKey> = Vec::new();
    let mut find = |lines: &[Line]| {
        let mut found = Vec::with_capacity(lines.len());
        for Line { pool: key, units } in lines {
            let made = || new.iter().find(|pool| pool.key == *key);
            if let Some(id) = book.pool_id(key).or_else(|| made().map(|pool| pool.id)) {
                found.push((id, *units));
            } else if let Some(capacity) = wish.makes(key) {
                // Those of alternatives that are not taken leave a gap in the numbers and nothing else.
                let id = PoolId(book.next_pool().0 + new.len() as i32);
                let key = key.clone();
                new.push(NewPool { id, key, capacity });
                found.push((id, *units));
            } else if !unknown.contains(key) {
                unknown.push(key.clone());
            }
        }
        found
    };
    let sought = Sought {
        lines: find(wish.lines()),
        any_of: (wish.any_of().iter())
            .map(|group| group.iter().map(|basket| find(basket.lines())).collect())
            .collect(),
    };
    if unknown.is_empty() {
        Ok((sought, new))
    } else {
        Err(Refusal::UnknownPools(unknown))
    }
}

/// The pool and its units come to be, each its own entry in the book.
fn make_pool(new: NewPool, actor: &Name, changes: &mut Vec<Change>) {
    let NewPool { id, key, capacity } = new;
    changes.push(Change::Make { pool: id, key });
    changes.push(Change::Adjust {
        pool: id,
        delta: capacity,
        actor: actor.clone(),
        reason: Name::from(FIRST_NAMED),
    });
}

/// What is taken of what is sought.
struct Chosen<'a> {
    /// By pool key, each pool once.
    lines: Cow<'a, [(PoolId, i64)]>,
    taken: Box<[u8]>,
    /// The expiries that must be written so that they fit.
    expiring: Vec<Change>,
}

/// Takes the lines that are sought in any case and of each group, in order, the first alternative that fits beside what
/// was taken before; or says what is short.
fn choose<'a>(sought: &'a Sought, new: &[NewPool], book: &Book) -> Result<Chosen<'a>, Vec<Short>> {
    let mut room = Room::new(book, new);
    room.make(&sought.lines)?;
    if sought.any_of.is_empty() {
        return Ok(Chosen {
            lines: Cow::Borrowed(&sought.lines),
            taken: Box::default(),
            expiring: room.into_changes(),
        });
    }
    let mut claimed: BTreeMap<PoolId, i64> = sought.lines.iter().copied().collect();
    let mut taken = Vec::with_capacity(sought.any_of.len());
    for (group, alternatives) in sought.any_of.iter().enumerate() {
        let mut short = Vec::new();
        let fitting = alternatives.iter().enumerate().position(|(place, lines)| {
            let beside = |pool: PoolId| claimed.get(&pool).copied().unwrap_or(0);
            let lines: Vec<(PoolId, i64)> = (lines.iter())
                .map(|&(pool, units)| (pool, units + beside(pool)))
                .collect();
            let of = Some(Alternative { group, place });
            let outcome = room.make(&lines);
            let lacking = outcome.as_ref().err().into_iter().flatten();
            short.extend(lacking.map(|short| Short {
                of,
                ..short.clone()
            }));
            outcome.is_ok()
        });
        let Some(place) = fitting else {
            return Err(short);
        };
        for &(pool, units) in &alternatives[place] {
            *claimed.entry(pool).or_default() += units;
        }
        taken.push(place as u8);
    }
    let mut lines: Vec<(PoolId, i64)> = claimed.into_iter().collect();
    lines.sort_by(|one, other| room.key(one.0).cmp(&room.key(other.0)));
    Ok(Chosen {
        lines: Cow::Owned(lines),
        taken: taken.into(),
        expiring: room.into_changes(),
    })
}

/// The holds whose expiry must be written so that these units fit, those in `first` in any case; or what is short.
fn make_room(
    lines: &[(PoolId, i64)],
    first: &[HoldId],
    book: &Book,
) -> Result<Vec<Change>, Vec<Short>> {
    let mut room = Room::new(book, &[]);
    for hold in first {
        room.expire(*hold);
    }
    room.make(lines)?;
    Ok(room.into_changes())
}

/// What is free, and what more would be if some overdue holds were written off.
///
/// Units of overdue holds are free, but only a written expiry may free them. Whole holds expire, the oldest first and no
/// more than needed; when even all of them are not enough, none does.
struct Room<'a> {
    book: &'a Book,
    new: &'a [NewPool],
    expiring: Vec<HoldId>,
    freed: HashMap<PoolId, i64>,
}

impl<'a> Room<'a> {
    fn new(book: &'a Book, new: &'a [NewPool]) -> Self {
        Self {
            book,
            new,
            expiring: Vec::new(),
            freed: HashMap::new(),
        }
    }

    /// Has so many holds expire that these units fit, each pool's by themselves; or says what is short, and none does.
    fn make(&mut self, lines: &[(PoolId, i64)]) -> Result<(), Vec<Short>> {
        let mut lacking = false;
        let mut short = Vec::new();
        for &(pool, units) in lines {
            if self.on(pool) >= units {
                continue;
            }
            lacking = true;
            let most = self.at_most_on(pool);
            if most < units {
                short.extend(self.key(pool).map(|key| Short {
                    pool: key.clone(),
                    requested: units,
                    available: most,
                    of: None,
                }));
            }
        }
        if !short.is_empty() {
            return Err(short);
        }
        if !lacking {
            return Ok(());
        }
        for &(pool, units) in lines {
            for hold in self.book.overdue_on(pool) {
                if self.on(pool) >= units {
                    break;
                }
                self.expire(hold);
            }
        }
        Ok(())
    }

    fn into_changes(self) -> Vec<Change> {
        let expiring = self.expiring.into_iter();
        expiring.map(|hold| Change::Expire { hold }).collect()
    }

    fn key(&self, pool: PoolId) -> Option<&'a PoolKey> {
        let known = self.book.pool(pool).map(|entry| &entry.key);
        known.or_else(|| Some(&self.made(pool)?.key))
    }

    fn made(&self, pool: PoolId) -> Option<&'a NewPool> {
        self.new.iter().find(|new| new.id == pool)
    }

    fn free_on(&self, pool: PoolId) -> i64 {
        match self.book.pool(pool) {
            Some(entry) => entry.room(),
            None => self.made(pool).map_or(0, |new| new.capacity),
        }
    }

    fn on(&self, pool: PoolId) -> i64 {
        self.free_on(pool) + self.freed.get(&pool).copied().unwrap_or(0)
    }

    fn at_most_on(&self, pool: PoolId) -> i64 {
        let overdue = self.book.overdue_on(pool);
        let units: i64 = overdue
            .filter_map(|hold| Some(units_on(self.book.hold(hold)?, pool)))
            .sum();
        self.free_on(pool) + units
    }

    fn expire(&mut self, hold: HoldId) {
        if self.expiring.contains(&hold) {
            return;
        }
        self.expiring.push(hold);
        for line in self.book.hold(hold).map_or(&[][..], |entry| &entry.lines) {
            *self.freed.entry(line.pool).or_default() += line.units;
        }
    }
}

/// As [`make_room`], for units that will not be there any more.
fn room_to_lower(lowered: &[(PoolId, i64)], book: &Book) -> Result<Vec<Change>, Refusal> {
    make_room(lowered, &[], book).map_err(|short| {
        let first = short.first().and_then(|short| book.pool_id(&short.pool));
        first.map_or(Refusal::Defect, |pool| below_committed(pool, book))
    })
}

fn below_committed(pool: PoolId, book: &Book) -> Refusal {
    book.standing(pool).map_or(Refusal::Defect, |standing| {
        let pool = standing.pool;
        Refusal::BelowCommitted {
            capacity: pool.capacity,
            overbook: pool.overbook,
            held: pool.held,
            sold: pool.sold,
            blocked: pool.blocked,
            pool: pool.key,
        }
    })
}

/// That much later, in whole microseconds as the database keeps them.
fn after(now: Timestamp, ttl: std::time::Duration) -> Timestamp {
    let later = now.saturating_add(ttl).unwrap_or(Timestamp::MAX);
    holdfast_kernel::time::to_micros(later)
}
