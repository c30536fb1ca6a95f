//! What the ledger speaks of: pools, holds, movements, and what may be asked of it. Pure values.
//!
//! ```text
//!                 Extend
//!                 ┌──┐
//!   Reserve ──▶ LIVE ─┴──── Commit ───▶ COMMITTED ──▶ (Return gives units back, the state stays)
//!                │ │                        ▲
//!        Release │ │ expires_at reached     │ Commit, if the units can be taken again
//!                │ └─────────▶ EXPIRED ─────┘
//!                ▼               │
//!            RELEASED ◀──────────┘ Release: it can never be committed after that
//!                ▲
//!                └── Release of a hold never seen: a tombstone, which a late Reserve meets
//!
//!   Stand ──▶ (in line) ──units come free──▶ LIVE
//!                  ├── Release ──▶ RELEASED
//!                  └── its own time is over ──▶ EXPIRED, without lines: nothing can be taken up again
//! ```

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use holdfast_kernel::{Id, PoolKey, RequestId, Timestamp, id};
use sha2::{Digest, Sha256};

/// The id of a hold: the request id of the Reserve that made it, and the UUID of the purchase it belongs to.
pub type HoldId = Id<id::Hold>;

/// An opaque name for who did something or whose holds are counted; never personal data.
pub type Name = Arc<str>;

/// Lines of a basket, and changes of an adjustment, at most.
pub const LINES_MAX_ENTRIES: usize = 1_000;
/// Groups of alternatives that one wish may have.
pub const GROUPS_MAX_ENTRIES: usize = 16;
/// Alternatives of one group.
pub const ALTERNATIVES_MAX_ENTRIES: usize = 16;
/// Lines that a wish may name in all its alternatives; what it takes of them is bounded by [`LINES_MAX_ENTRIES`].
pub const NAMED_MAX_LINES: usize = 4_000;
/// Lines that a wish may name which stands in line: it is kept in memory, and looked at whenever units come free.
pub const STANDING_MAX_LINES: usize = 256;
/// Groups of alternatives that a wish standing in line may have.
pub const STANDING_MAX_GROUPS: usize = 1;
/// Longest time a request may stand in line.
pub const PATIENCE_MAX_SECS: u64 = 366 * 24 * 60 * 60;
/// Pools that one wish may bring with it.
pub const MADE_MAX_POOLS: usize = 64;
/// Kinds of pools that come to be with the first wish that names them: how much of an event one account may take, and
/// that a ticket of admission admits once. Of all others somebody has to say first that there is something.
pub const MADE_KINDS: [&str; 2] = ["limit", "admit"];
/// Units one line may ask for.
pub const LINE_MAX_UNITS: i64 = 1_000_000_000;
/// Capacity or overbooking of one pool. With [`LINE_MAX_UNITS`] it keeps every sum far below the end of `i64`.
pub const CAPACITY_MAX_UNITS: i64 = 1_000_000_000_000;
/// Longest life a hold can be given at once.
pub const TTL_MAX_SECS: u64 = 31 * 24 * 60 * 60;
/// Shortest life a hold can be given.
pub const TTL_MIN_SECS: u64 = 1;
/// Longest name, reference or reason.
pub const TEXT_MAX_CHARS: usize = 256;

/// Units of one pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Line {
    /// Which pool.
    pub pool: PoolKey,
    /// How many.
    pub units: i64,
}

/// What is wanted together: every pool once, with its units summed.
///
/// Summing comes first, so that three lines of one unit can never pass where one line of three would not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Basket(Vec<Line>);

/// What is wanted, and where there is a choice: some lines in any case, and of each group of alternatives the first that
/// fits.
///
/// Groups are served in order, each from what the lines and the groups before it leave. A choice is not taken back for
/// the sake of a later group: who wants that states the combinations as one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    lines: Basket,
    any_of: Vec<Vec<Basket>>,
    makes: BTreeMap<PoolKey, i64>,
}

/// One of the alternatives of a wish, both counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alternative {
    /// Which group.
    pub group: usize,
    /// Which of its alternatives.
    pub place: usize,
}

/// Lines that are no basket, or no wish.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBasket {
    /// None, or too many.
    #[error("lines: {0}, wanted 1 to {LINES_MAX_ENTRIES}")]
    Lines(usize),
    /// A line, or a pool's sum, out of bounds.
    #[error("units of {pool}: {units}, wanted 1 to {LINE_MAX_UNITS}")]
    Units {
        /// Whose.
        pool: PoolKey,
        /// What was asked or summed.
        units: i64,
    },
    /// Too many groups of alternatives.
    #[error("any_of: {0} groups, wanted {GROUPS_MAX_ENTRIES} or fewer")]
    Groups(usize),
    /// A group with none, or with too many.
    #[error("any_of: {0} alternatives, wanted 1 to {ALTERNATIVES_MAX_ENTRIES}")]
    Alternatives(usize),
    /// Too many lines in all alternatives together.
    #[error("any_of: {0} lines in all, wanted {NAMED_MAX_LINES} or fewer")]
    Named(usize),
    /// More choices than one to stand in line with.
    #[error("any_of: {0} groups, wanted {STANDING_MAX_GROUPS} or none to stand in line with")]
    StandingGroups(usize),
    /// Too many lines to stand in line with.
    #[error("lines: {0} in all, wanted {STANDING_MAX_LINES} or fewer to stand in line with")]
    Standing(usize),
    /// Too many pools to be made.
    #[error("makes: {0} pools, wanted {MADE_MAX_POOLS} or fewer")]
    Makes(usize),
    /// A pool that cannot be made by a wish.
    #[error(
        "makes: {pool} with capacity {capacity}, wanted a limit or an admission that a line names, with 1 to {LINE_MAX_UNITS}"
    )]
    Made {
        /// Which.
        pool: PoolKey,
        /// With how much.
        capacity: i64,
    },
}

impl Basket {
    /// Sums the lines of each pool.
    pub fn new(mut lines: Vec<Line>) -> Result<Self, InvalidBasket> {
        if lines.is_empty() || lines.len() > LINES_MAX_ENTRIES {
            return Err(InvalidBasket::Lines(lines.len()));
        }
        lines.sort_unstable();
        let mut summed: Vec<Line> = Vec::with_capacity(lines.len());
        for line in lines {
            check_units(&line)?;
            match summed.last_mut() {
                Some(last) if last.pool == line.pool => {
                    last.units += line.units;
                    check_units(last)?;
                }
                _ => summed.push(line),
            }
        }
        Ok(Self(summed))
    }

    /// One line a pool, by key.
    pub fn lines(&self) -> &[Line] {
        &self.0
    }
}

impl Wish {
    /// Sums the lines of each pool, in each alternative by itself. `makes` says with how much the pools come to be that
    /// do not exist yet.
    pub fn new(
        lines: Vec<Line>,
        any_of: Vec<Vec<Vec<Line>>>,
        makes: Vec<(PoolKey, i64)>,
    ) -> Result<Self, InvalidBasket> {
        if any_of.len() > GROUPS_MAX_ENTRIES {
            return Err(InvalidBasket::Groups(any_of.len()));
        }
        let lines = if lines.is_empty() && !any_of.is_empty() {
            Basket::default()
        } else {
            Basket::new(lines)?
        };
        let mut groups = Vec::with_capacity(any_of.len());
        for alternatives in any_of {
            if alternatives.is_empty() || alternatives.len() > ALTERNATIVES_MAX_ENTRIES {
                return Err(InvalidBasket::Alternatives(alternatives.len()));
            }
            let alternatives = alternatives.into_iter().map(Basket::new);
            groups.push(alternatives.collect::<Result<Vec<_>, _>>()?);
        }
        let longest = |group: &Vec<Basket>| group.iter().map(|one| one.0.len()).max().unwrap_or(0);
        let most = lines.0.len() + groups.iter().map(longest).sum::<usize>();
        if most > LINES_MAX_ENTRIES {
            return Err(InvalidBasket::Lines(most));
        }
        let wish = Self {
            lines,
            any_of: groups,
            makes: BTreeMap::new(),
        };
        let named = wish.named().count();
        if named > NAMED_MAX_LINES {
            return Err(InvalidBasket::Named(named));
        }
        wish.making(makes)
    }

    fn making(mut self, makes: Vec<(PoolKey, i64)>) -> Result<Self, InvalidBasket> {
        if makes.is_empty() {
            return Ok(self);
        }
        if makes.len() > MADE_MAX_POOLS {
            return Err(InvalidBasket::Makes(makes.len()));
        }
        let named: BTreeSet<&PoolKey> = self.named().map(|line| &line.pool).collect();
        for (pool, capacity) in &makes {
            let may_be_made = MADE_KINDS.contains(&pool.kind())
                && (1..=LINE_MAX_UNITS).contains(capacity)
                && named.contains(pool);
            if !may_be_made {
                let (pool, capacity) = (pool.clone(), *capacity);
                return Err(InvalidBasket::Made { pool, capacity });
            }
        }
        self.makes = makes.into_iter().collect();
        Ok(self)
    }

    /// Itself, if it can stand in line: it is small, and has one choice at most.
    ///
    /// With two choices less may be free and yet fit: the first choice turns to another alternative and leaves the second
    /// what it needs. Those in line are looked at when something comes free, and must not be overtaken in between.
    pub fn standing(self) -> Result<Self, InvalidBasket> {
        if self.any_of.len() > STANDING_MAX_GROUPS {
            return Err(InvalidBasket::StandingGroups(self.any_of.len()));
        }
        match self.named().count() {
            0..=STANDING_MAX_LINES => Ok(self),
            lines => Err(InvalidBasket::Standing(lines)),
        }
    }

    /// What is wanted in any case: one line a pool, by key.
    pub fn lines(&self) -> &[Line] {
        self.lines.lines()
    }

    /// The groups of alternatives.
    pub fn any_of(&self) -> &[Vec<Basket>] {
        &self.any_of
    }

    /// Every line of every alternative.
    pub fn named(&self) -> impl Iterator<Item = &Line> {
        let chosen = self.any_of.iter().flatten().flat_map(Basket::lines);
        self.lines().iter().chain(chosen)
    }

    /// With how much this pool comes to be where it does not exist.
    pub fn makes(&self, pool: &PoolKey) -> Option<i64> {
        self.makes.get(pool).copied()
    }

    /// What is wanted when these alternatives are taken, the first of each group being 0: one line a pool, by key.
    /// `None` when there are no such alternatives.
    pub fn taking(&self, taken: &[u8]) -> Option<Cow<'_, [Line]>> {
        if taken.len() != self.any_of.len() {
            return None;
        }
        if taken.is_empty() {
            return Some(Cow::Borrowed(self.lines()));
        }
        let mut summed: BTreeMap<&PoolKey, i64> = BTreeMap::new();
        let mut baskets = vec![&self.lines];
        for (alternatives, place) in self.any_of.iter().zip(taken) {
            baskets.push(alternatives.get(usize::from(*place))?);
        }
        for line in baskets.into_iter().flat_map(Basket::lines) {
            *summed.entry(&line.pool).or_default() += line.units;
        }
        let lines = summed.into_iter().map(|(pool, units)| Line {
            pool: pool.clone(),
            units,
        });
        Some(lines.collect())
    }
}

impl From<Basket> for Wish {
    fn from(lines: Basket) -> Self {
        Self {
            lines,
            any_of: Vec::new(),
            makes: BTreeMap::new(),
        }
    }
}

fn check_units(line: &Line) -> Result<(), InvalidBasket> {
    if (1..=LINE_MAX_UNITS).contains(&line.units) {
        Ok(())
    } else {
        Err(InvalidBasket::Units {
            pool: line.pool.clone(),
            units: line.units,
        })
    }
}

/// What became of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HoldState {
    /// Its units are held until `expires_at`.
    Live,
    /// Its units are sold.
    Committed,
    /// Given up by the holder; final.
    Released,
    /// Its time was over; a late commit may take the units again.
    Expired,
}

impl HoldState {
    /// As the database writes it.
    pub const fn code(self) -> i16 {
        match self {
            Self::Live => 1,
            Self::Committed => 2,
            Self::Released => 3,
            Self::Expired => 4,
        }
    }

    /// Reads what [`code`](Self::code) wrote.
    pub const fn from_code(code: i16) -> Option<Self> {
        match code {
            1 => Some(Self::Live),
            2 => Some(Self::Committed),
            3 => Some(Self::Released),
            4 => Some(Self::Expired),
            _ => None,
        }
    }
}

/// A hold as callers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Its id.
    pub id: HoldId,
    /// What became of it.
    pub state: HoldState,
    /// When its time is or was over, by the ledger's clock.
    pub expires_at: Timestamp,
    /// What it claims, by key.
    pub lines: Vec<Line>,
    /// What it is for; empty until bound.
    pub reference: Name,
    /// Of each group of alternatives the place of the one that was taken, from 0.
    pub taken: Box<[u8]>,
}

/// A pool as callers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its key.
    pub key: PoolKey,
    /// Units there are.
    pub capacity: i64,
    /// Units of live holds, those past their expiry not counted.
    pub held: i64,
    /// Units sold.
    pub sold: i64,
    /// Units taken out of sale.
    pub blocked: i64,
    /// Units that may be sold beyond the capacity.
    pub overbook: i64,
    /// Where `stock.low` is announced.
    pub low_at: Option<i64>,
    /// Rises by one with each movement.
    pub version: i64,
    /// Rises when capacity or policy change.
    pub capacity_version: i64,
}

impl Pool {
    /// Units that can be reserved now.
    pub const fn available(&self) -> i64 {
        self.capacity + self.overbook - self.held - self.sold - self.blocked
    }
}

/// What a movement did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MovementKind {
    /// From free to held.
    Reserve,
    /// From held to sold.
    Commit,
    /// From held to free, by the holder.
    Release,
    /// From held to free, because time was over.
    Expire,
    /// From free to sold: a commit after the expiry.
    Retake,
    /// From sold to free.
    Return,
    /// The capacity changed by that many units.
    Adjust,
    /// The overbooking changed by that many units.
    Policy,
}

impl MovementKind {
    /// As the database and the chain write it.
    pub const fn code(self) -> i16 {
        match self {
            Self::Reserve => 1,
            Self::Commit => 2,
            Self::Release => 3,
            Self::Expire => 4,
            Self::Retake => 5,
            Self::Return => 6,
            Self::Adjust => 7,
            Self::Policy => 8,
        }
    }

    /// Reads what [`code`](Self::code) wrote.
    pub const fn from_code(code: i16) -> Option<Self> {
        match code {
            1 => Some(Self::Reserve),
            2 => Some(Self::Commit),
            3 => Some(Self::Release),
            4 => Some(Self::Expire),
            5 => Some(Self::Retake),
            6 => Some(Self::Return),
            7 => Some(Self::Adjust),
            8 => Some(Self::Policy),
            _ => None,
        }
    }
}

/// What moves when a movement is posted. The only arithmetic on balances there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balance {
    /// Units there are.
    pub capacity: i64,
    /// Units of live holds.
    pub held: i64,
    /// Units sold.
    pub sold: i64,
    /// Units that may be sold beyond the capacity.
    pub overbook: i64,
}

impl Balance {
    /// The balance after a movement.
    #[must_use]
    pub const fn after(mut self, kind: MovementKind, units: i64) -> Self {
        match kind {
            MovementKind::Reserve => self.held += units,
            MovementKind::Commit => {
                self.held -= units;
                self.sold += units;
            }
            MovementKind::Release | MovementKind::Expire => self.held -= units,
            MovementKind::Retake => self.sold += units,
            MovementKind::Return => self.sold -= units,
            MovementKind::Adjust => self.capacity += units,
            MovementKind::Policy => self.overbook += units,
        }
        self
    }
}

/// The worker of a saga that commands, by how often the saga changed hands; `None` for who is no saga.
pub type Epoch = Option<i64>;

/// Takes all lines or none.
#[derive(Debug, Clone)]
pub struct Reserve {
    /// Becomes the hold's id.
    pub request: RequestId,
    /// Whose live holds are counted; nobody's when empty.
    pub account: Option<Name>,
    /// Who does it.
    pub actor: Name,
    /// What is wanted.
    pub wish: Wish,
    /// How long it is held, from [`TTL_MIN_SECS`] to [`TTL_MAX_SECS`].
    pub ttl: Duration,
    /// What it is for, such as an order's id; empty where that is not known yet and [`Bind`] will tell.
    pub reference: Name,
    /// Who commands.
    pub epoch: Epoch,
}

/// Waits in line for what a [`Reserve`] would be refused, and has it held as soon as it fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stand {
    /// Becomes the hold's id.
    pub request: RequestId,
    /// Whose live holds are counted, this among them from the beginning; nobody's when empty.
    pub account: Option<Name>,
    /// Who does it.
    pub actor: Name,
    /// What is wanted.
    pub wish: Wish,
    /// How long it is held once it is granted, from [`TTL_MIN_SECS`] to [`TTL_MAX_SECS`].
    pub ttl: Duration,
    /// How long it waits, from [`TTL_MIN_SECS`] to [`PATIENCE_MAX_SECS`].
    pub patience: Duration,
    /// What it is for.
    pub reference: Name,
}

/// What came of standing in line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stood {
    /// It waits until then.
    Waiting(Timestamp),
    /// It has been granted.
    Granted(Hold),
}

/// Moves a live hold's expiry to `ttl` from now, never earlier.
#[derive(Debug, Clone)]
pub struct Extend {
    /// Which hold.
    pub hold: HoldId,
    /// From now.
    pub ttl: Duration,
    /// Who commands.
    pub epoch: Epoch,
}

/// Notes what a hold is for.
#[derive(Debug, Clone)]
pub struct Bind {
    /// Which hold.
    pub hold: HoldId,
    /// Such as an order's id.
    pub reference: Name,
}

/// Turns held units into sold ones.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Which hold.
    pub hold: HoldId,
    /// Who does it.
    pub actor: Name,
    /// Who commands.
    pub epoch: Epoch,
}

/// Gives held units back, and refuses a Reserve that comes later.
#[derive(Debug, Clone)]
pub struct Release {
    /// Which hold.
    pub hold: HoldId,
    /// Who does it.
    pub actor: Name,
    /// Who commands.
    pub epoch: Epoch,
}

/// Turns sold units of a committed hold free again.
#[derive(Debug, Clone)]
pub struct Return {
    /// Of the return itself.
    pub request: RequestId,
    /// What sold them.
    pub hold: HoldId,
    /// Who does it.
    pub actor: Name,
    /// What comes back.
    pub basket: Basket,
}

/// A change of one pool's capacity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapacityChange {
    /// Which pool.
    pub pool: PoolKey,
    /// Added to the capacity.
    pub delta: i64,
    /// The capacity version that must stand; 0: the pool must not exist, and is made.
    pub expected: i64,
}

/// Changes of capacities, each pool once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapacityChanges(Vec<CapacityChange>);

/// Changes that cannot be made together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidChanges {
    /// None, or too many.
    #[error("changes: {0}, wanted 1 to {LINES_MAX_ENTRIES}")]
    Changes(usize),
    /// One pool is named more than once.
    #[error("changes: {0} is named twice")]
    Twice(PoolKey),
}

impl CapacityChanges {
    /// Checks that no pool is named twice.
    pub fn new(changes: Vec<CapacityChange>) -> Result<Self, InvalidChanges> {
        if changes.is_empty() || changes.len() > LINES_MAX_ENTRIES {
            return Err(InvalidChanges::Changes(changes.len()));
        }
        let mut seen = HashSet::with_capacity(changes.len());
        let twice = changes.iter().find(|change| !seen.insert(&change.pool));
        if let Some(change) = twice {
            return Err(InvalidChanges::Twice(change.pool.clone()));
        }
        Ok(Self(changes))
    }

    /// In the order they were given.
    pub fn all(&self) -> &[CapacityChange] {
        &self.0
    }
}

/// Changes capacities, all or none.
#[derive(Debug, Clone)]
pub struct Adjust {
    /// Of the adjustment itself.
    pub request: RequestId,
    /// Who does it.
    pub actor: Name,
    /// Why.
    pub reason: Name,
    /// What changes.
    pub changes: CapacityChanges,
}

/// Sets overbooking and the low-stock mark of a pool.
#[derive(Debug, Clone)]
pub struct SetPolicy {
    /// Of the policy itself.
    pub request: RequestId,
    /// Who does it.
    pub actor: Name,
    /// Which pool.
    pub pool: PoolKey,
    /// Units that may be sold beyond the capacity.
    pub overbook: i64,
    /// Where `stock.low` is announced.
    pub low_at: Option<i64>,
    /// The capacity version that must stand.
    pub expected: i64,
}

/// Tells two wishes under one request id apart.
pub type Fingerprint = [u8; 32];

impl Return {
    /// Of everything but the request id.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new_with_prefix(b"return");
        hash.update(self.hold.uuid());
        for line in self.basket.lines() {
            hash.update(line.units.to_be_bytes());
            feed(&mut hash, line.pool.as_str());
        }
        hash.finalize().into()
    }
}

impl Adjust {
    /// Of everything but the request id and who asks.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new_with_prefix(b"adjust");
        for change in self.changes.all() {
            hash.update(change.delta.to_be_bytes());
            hash.update(change.expected.to_be_bytes());
            feed(&mut hash, change.pool.as_str());
        }
        hash.finalize().into()
    }
}

impl SetPolicy {
    /// Of everything but the request id and who asks.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new_with_prefix(b"policy");
        hash.update(self.overbook.to_be_bytes());
        hash.update([u8::from(self.low_at.is_some())]);
        hash.update(self.low_at.unwrap_or(0).to_be_bytes());
        hash.update(self.expected.to_be_bytes());
        feed(&mut hash, self.pool.as_str());
        hash.finalize().into()
    }
}

fn feed(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_be_bytes());
    hash.update(text);
}

/// A pool that has less than what was asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Short {
    /// Which pool.
    pub pool: PoolKey,
    /// Units asked for, those of alternatives together with what was taken of the pool before.
    pub requested: i64,
    /// Units there are for the asking.
    pub available: i64,
    /// The alternative that asked, if one did.
    pub of: Option<Alternative>,
}

/// Why the ledger did not do what was asked. Nothing of it was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Some pools have too little. When the lines wanted in any case fit: those of every alternative of the first group
    /// of which none does.
    #[error("{} of the pools asked for have too few units", .0.len())]
    InsufficientUnits(Vec<Short>),
    /// Pools that do not exist.
    #[error("pool {} does not exist", .0.first().map_or("", PoolKey::as_str))]
    UnknownPools(Vec<PoolKey>),
    /// No such hold.
    #[error("hold {0} does not exist")]
    UnknownHold(HoldId),
    /// The hold was released or its time was over.
    #[error("hold {hold} is {state:?}")]
    HoldEnded {
        /// Which hold.
        hold: HoldId,
        /// How it ended.
        state: HoldState,
    },
    /// The request id was used before, for other lines.
    #[error("hold {0} was made with other lines")]
    HoldMismatch(HoldId),
    /// The request id was used before, for something else.
    #[error("request {0} was used before for something else")]
    RequestMismatch(RequestId),
    /// Its units are sold; they come back by a return.
    #[error("hold {0} is committed")]
    HoldCommitted(HoldId),
    /// Nothing of it was sold.
    #[error("hold {0} is not committed")]
    HoldNotCommitted(HoldId),
    /// The account's live holds are at their limit.
    #[error("the account has {limit} live holds, which is the limit")]
    TooManyHolds {
        /// The limit.
        limit: u32,
    },
    /// A later worker has taken the saga over.
    #[error("epoch {got} is over, the saga is in epoch {seen}")]
    StaleEpoch {
        /// The epoch that commanded.
        got: i64,
        /// The highest that did before.
        seen: i64,
    },
    /// More would come back than the hold sold.
    #[error("{requested} units of {pool} cannot come back, {sold} are sold")]
    ReturnExceedsSold {
        /// Which pool.
        pool: PoolKey,
        /// Units asked to come back.
        requested: i64,
        /// Units the hold sold and has not given back.
        sold: i64,
    },
    /// Somebody changed the capacity or the policy in between.
    #[error("capacity version of {pool} is {actual}, not {expected}")]
    CapacityChanged {
        /// Which pool.
        pool: PoolKey,
        /// The version the caller saw.
        expected: i64,
        /// The version that stands.
        actual: i64,
    },
    /// What is held and sold would not fit any more.
    #[error("{pool} cannot be lowered: {held} are held, {sold} sold, {blocked} blocked")]
    BelowCommitted {
        /// Which pool.
        pool: PoolKey,
        /// Its capacity as it stands.
        capacity: i64,
        /// Its overbooking as it stands.
        overbook: i64,
        /// Units of live holds.
        held: i64,
        /// Units sold.
        sold: i64,
        /// Units taken out of sale.
        blocked: i64,
    },
    /// A capacity or overbooking beyond what the ledger counts.
    #[error("{pool} would have {units} units, wanted 0 to {CAPACITY_MAX_UNITS}")]
    CapacityOutOfBounds {
        /// Which pool.
        pool: PoolKey,
        /// What it would have.
        units: i64,
    },
    /// The pool was to be made and is there.
    #[error("pool {0} exists")]
    PoolExists(PoolKey),
    /// The ledger holds as much as it can in memory.
    #[error("the ledger holds as many live holds as it can")]
    Full,
    /// The outcome is unknown, or this process may not write: ask again with the same id.
    #[error("the ledger cannot answer now: {0}")]
    Unavailable(&'static str),
    /// A defect: the database refuses what the ledger decided.
    #[error("the database refuses what the ledger decided")]
    Defect,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(pool: &str, units: i64) -> Line {
        Line {
            pool: pool.parse().expect("a key"),
            units,
        }
    }

    #[test]
    fn lines_of_one_pool_are_summed_before_anything_is_decided() {
        let basket = Basket::new(vec![line("sku:B", 1), line("sku:A", 2), line("sku:B", 3)]);
        let basket = basket.expect("a basket");
        assert_eq!(basket.lines(), [line("sku:A", 2), line("sku:B", 4)]);
    }

    #[test]
    fn baskets_out_of_bounds_are_refused() {
        assert_eq!(Basket::new(vec![]), Err(InvalidBasket::Lines(0)));
        let many = vec![line("sku:A", 1); LINES_MAX_ENTRIES + 1];
        assert_eq!(Basket::new(many), Err(InvalidBasket::Lines(1_001)));
        for units in [0, -1, LINE_MAX_UNITS + 1] {
            assert!(Basket::new(vec![line("sku:A", units)]).is_err(), "{units}");
        }
        let sum = vec![line("sku:A", LINE_MAX_UNITS), line("sku:A", 1)];
        assert!(Basket::new(sum).is_err());
    }

    fn wish(lines: Vec<Line>, any_of: Vec<Vec<Vec<Line>>>) -> Result<Wish, InvalidBasket> {
        Wish::new(lines, any_of, Vec::new())
    }

    #[test]
    fn what_a_choice_comes_to_is_summed_with_what_is_wanted_in_any_case() {
        let groups = vec![
            vec![vec![line("sku:A", 1)], vec![line("sku:C", 2)]],
            vec![vec![line("sku:A", 4)]],
        ];
        let wish = wish(vec![line("sku:B", 1), line("sku:A", 1)], groups).expect("a wish");
        let lines = wish.taking(&[0, 0]).expect("there are such");
        assert_eq!(*lines, [line("sku:A", 6), line("sku:B", 1)]);
        let lines = wish.taking(&[1, 0]).expect("there are such");
        assert_eq!(
            *lines,
            [line("sku:A", 5), line("sku:B", 1), line("sku:C", 2)]
        );
        assert_eq!(wish.taking(&[2, 0]), None);
        assert_eq!(wish.taking(&[0]), None);
        assert_eq!(wish.taking(&[0, 0, 0]), None);
    }

    #[test]
    fn wishes_out_of_bounds_are_refused() {
        let one = || vec![line("sku:A", 1)];
        assert_eq!(wish(vec![], vec![]), Err(InvalidBasket::Lines(0)));
        assert!(wish(vec![], vec![vec![one()]]).is_ok());
        assert_eq!(
            wish(one(), vec![vec![]]),
            Err(InvalidBasket::Alternatives(0))
        );
        assert_eq!(
            wish(one(), vec![vec![one(); 17]]),
            Err(InvalidBasket::Alternatives(17))
        );
        assert_eq!(
            wish(one(), vec![vec![one()]; 17]),
            Err(InvalidBasket::Groups(17))
        );
        let many = |count: usize| (0..count).map(|n| line(&format!("sku:{n}"), 1)).collect();
        assert_eq!(
            wish(many(500), vec![vec![many(501)]]),
            Err(InvalidBasket::Lines(1_001))
        );
        assert_eq!(
            wish(many(500), vec![vec![many(500); 8]]),
            Err(InvalidBasket::Named(4_500))
        );
    }

    #[test]
    fn only_limits_and_admissions_that_are_named_come_to_be_by_a_wish() {
        let making = |named: &str, made: &str, capacity: i64| {
            let made = made.parse().expect("a key");
            Wish::new(vec![line(named, 1)], vec![], vec![(made, capacity)])
        };
        assert!(making("limit:e:a", "limit:e:a", 4).is_ok());
        assert!(making("admit:j", "admit:j", 1).is_ok());
        assert!(making("sku:A", "sku:A", 4).is_err());
        assert!(making("limit:e:a", "limit:e:b", 4).is_err());
        assert!(making("limit:e:a", "limit:e:a", 0).is_err());
    }

    #[test]
    fn every_code_reads_back() {
        for code in i16::MIN..i16::MAX {
            assert!(HoldState::from_code(code).is_none_or(|state| state.code() == code));
            assert!(MovementKind::from_code(code).is_none_or(|kind| kind.code() == code));
        }
        assert_eq!(MovementKind::from_code(8), Some(MovementKind::Policy));
        assert_eq!(HoldState::from_code(4), Some(HoldState::Expired));
    }
}
