//! Proves that no hold owns units its pool's book does not know of.
//!
//! That every hold the book names owns what the book says is proved with the book. So it is enough to count: as many
//! holds claim units of a pool as its book has seen born. A birth is written once and never changes, and all births
//! before the newest batch are written, so both counts stay as they are while the ledger goes on selling. The few of the
//! newest moment itself are looked up one by one.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_kernel::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Audit, book::Owned};
use crate::{
    domain::{HoldId, HoldState},
    store::{self, AuditedHold},
};

/// Holds read at once.
const SLICE_HOLDS: i64 = 5_000;
/// Movements looked through at once for the births of holds.
const SLICE_BIRTHS: i64 = 50_000;
/// Pools whose false owners are told by name.
const NAMED_MAX_POOLS: usize = 100;
/// Holds from a future told by name.
const UNBORN_MAX_HOLDS: i64 = 100;

/// What the books of some pools say of their owners.
#[derive(Default)]
pub(super) struct Known {
    /// Pools above this id.
    pub(super) after: i32,
    /// Pools up to this id.
    pub(super) last: i32,
    /// `None` of books that are not sound: what they say counts for nothing.
    pub(super) pools: BTreeMap<i32, Option<Births>>,
}

/// What one book says.
pub(super) struct Births {
    pub(super) key: String,
    /// Units there are.
    pub(super) room: i64,
    /// The movement that the book begins behind.
    pub(super) begins: i64,
    /// The newest movement before the newest batch.
    pub(super) before_open: i64,
    /// Up to where the book was read.
    pub(super) version: i64,
    /// Holds born between the two; less, once counted, those there are.
    pub(super) count: i64,
    /// Units of holds born before the book begins; less, once counted, what those say themselves.
    pub(super) old: Owned,
}

impl Known {
    fn names(&self, pool: i32) -> bool {
        pool > self.after && pool <= self.last
    }

    fn of(&mut self, pool: i32) -> Option<&mut Births> {
        self.pools.get_mut(&pool).and_then(Option::as_mut)
    }
}

/// Counts the holds that claim units of these pools.
///
/// `open_at` is the moment of the newest batch before any of the books was read.
pub(super) async fn count(
    db: &mut PgConnection,
    mut known: Known,
    open_at: Timestamp,
    kept_since: Timestamp,
    audit: &mut Audit,
) -> Result<(), sqlx::Error> {
    let mut unmade: BTreeSet<i32> = BTreeSet::new();
    let mut after = Uuid::nil();
    loop {
        let holds = store::audit_holds(db, after, SLICE_HOLDS).await?;
        let Some(last) = holds.last() else {
            break;
        };
        after = last.id;
        let mut newest: BTreeMap<i32, BTreeSet<Uuid>> = BTreeMap::new();
        for hold in &holds {
            let born_at = Timestamp::from(hold.born_at);
            // Of whatever pools: so it is looked at with the first of them.
            if known.after == 0 {
                audit.holds += 1;
                if let Some(text) = misshape(hold) {
                    audit.find(&HoldId::new(hold.id).to_string(), text);
                }
            }
            for (&pool, owned) in hold.pools.iter().zip(owned(hold)) {
                if !known.names(pool) {
                    continue;
                }
                if born_at < open_at && !known.pools.contains_key(&pool) {
                    unmade.insert(pool);
                }
                let Some(births) = known.of(pool) else {
                    continue;
                };
                if born_at < kept_since {
                    births.old.held -= owned.held;
                    births.old.sold -= owned.sold;
                } else if born_at < open_at {
                    births.count -= 1;
                } else if born_at == open_at {
                    newest.entry(pool).or_default().insert(hold.id);
                }
            }
        }
        for (pool, holds) in newest {
            if let Some(births) = known.of(pool) {
                let from = births.before_open;
                name_false_owners(db, pool, births, from, holds, audit).await?;
            }
        }
    }
    for pool in unmade {
        audit.find(&format!("pool {pool}"), "has owners, but does not exist");
    }
    judge_old_owners(db, &known, kept_since, audit).await?;
    let suspects = known
        .pools
        .into_iter()
        .filter_map(|(pool, births)| Some((pool, births.filter(|births| births.count < 0)?)))
        .collect();
    find_false_owners(db, suspects, open_at, kept_since, audit).await
}

/// What is wrong with the sum of what holds own that were born before their pool's book begins.
///
/// One of them may be given back between the look at the book and that at the hold; where that happened, the next audit
/// judges.
async fn judge_old_owners(
    db: &mut PgConnection,
    known: &Known,
    kept_since: Timestamp,
    audit: &mut Audit,
) -> Result<(), sqlx::Error> {
    for (&pool, births) in &known.pools {
        let Some(births) = births.as_ref().filter(|of| of.old != Owned::default()) else {
            continue;
        };
        if !store::audit_old_holds_moved(db, pool, births.version, kept_since).await? {
            let Owned { held, sold } = births.old;
            let text = format!(
                "its book has {held} held and {sold} sold units more than holds own that were born before {kept_since}"
            );
            audit.find(&births.key, text);
        }
    }
    Ok(())
}

/// Tells by name which holds their pools' books do not know. More hold rows claim units of these pools than were born.
async fn find_false_owners(
    db: &mut PgConnection,
    mut suspects: BTreeMap<i32, Births>,
    open_at: Timestamp,
    kept_since: Timestamp,
    audit: &mut Audit,
) -> Result<(), sqlx::Error> {
    for births in suspects.values().skip(NAMED_MAX_POOLS) {
        let text = format!(
            "{} holds own units its book knows nothing of",
            -births.count
        );
        audit.find(&births.key, text);
    }
    if let Some(&first_unnamed) = suspects.keys().nth(NAMED_MAX_POOLS) {
        suspects.split_off(&first_unnamed);
    }
    let mut after = Uuid::nil();
    while !suspects.is_empty() {
        let holds = store::audit_holds(db, after, SLICE_HOLDS).await?;
        let Some(last) = holds.last() else {
            break;
        };
        after = last.id;
        let mut claiming: BTreeMap<i32, BTreeSet<Uuid>> = BTreeMap::new();
        for hold in &holds {
            let born_at = Timestamp::from(hold.born_at);
            if born_at >= kept_since && born_at < open_at {
                for pool in &hold.pools {
                    claiming.entry(*pool).or_default().insert(hold.id);
                }
            }
        }
        for (pool, births) in &suspects {
            if let Some(holds) = claiming.remove(pool) {
                let from = births.begins;
                name_false_owners(db, *pool, births, from, holds, audit).await?;
            }
        }
    }
    Ok(())
}

/// Names those of these holds that were not born behind version `from` of the pool's book.
async fn name_false_owners(
    db: &mut PgConnection,
    pool: i32,
    births: &Births,
    from: i64,
    mut holds: BTreeSet<Uuid>,
    audit: &mut Audit,
) -> Result<(), sqlx::Error> {
    // What is in a hold's row by now is in the book by now.
    let versions = store::pool_versions(db, &[pool]).await?;
    let end = versions.first().map_or(from, |(_, version)| *version);
    let mut after = from;
    while after < end && !holds.is_empty() {
        let ids: Vec<Uuid> = holds.iter().copied().collect();
        let last = after.saturating_add(SLICE_BIRTHS).min(end);
        for born in store::audit_births(db, pool, after, last, &ids).await? {
            holds.remove(&born);
        }
        after = last;
    }
    for hold in holds {
        let hold = HoldId::new(hold);
        let text = format!(
            "its book knows nothing of {hold}, which claims some of its {} units",
            births.room
        );
        audit.find(&births.key, text);
    }
    Ok(())
}

/// Finds holds that claim to be born later than anything was written.
pub(super) async fn find_unborn(
    db: &mut PgConnection,
    audit: &mut Audit,
) -> Result<(), sqlx::Error> {
    for hold in store::audit_unborn(db, UNBORN_MAX_HOLDS).await? {
        let about = HoldId::new(hold).to_string();
        audit.find(&about, "was born later than the newest batch was written");
    }
    Ok(())
}

/// What a hold owns, line by line.
pub(super) fn owned(hold: &AuditedHold) -> impl Iterator<Item = Owned> {
    let state = HoldState::from_code(hold.state);
    hold.units.iter().enumerate().map(move |(place, &units)| {
        let returned = hold.returned.get(place).copied().unwrap_or(0);
        match state {
            Some(HoldState::Live) => Owned {
                held: units,
                sold: 0,
            },
            Some(HoldState::Committed) => Owned {
                held: 0,
                sold: units - returned,
            },
            _ => Owned::default(),
        }
    })
}

/// What is wrong with a hold by itself.
fn misshape(hold: &AuditedHold) -> Option<String> {
    let Some(state) = HoldState::from_code(hold.state) else {
        return Some(format!("is in state {}, which there is not", hold.state));
    };
    // A request that stood in line until its time was over has expired and never claimed anything.
    if hold.pools.is_empty() && !matches!(state, HoldState::Released | HoldState::Expired) {
        return Some(format!("is {state:?} without lines"));
    }
    if hold.pools.len() != hold.units.len()
        || !(hold.returned.is_empty() || hold.returned.len() == hold.units.len())
    {
        return Some("its lines are cut short".to_owned());
    }
    let over = hold
        .returned
        .iter()
        .zip(&hold.units)
        .any(|(back, units)| back > units || *back < 0);
    if over || hold.units.iter().any(|units| *units < 1) {
        return Some(format!(
            "claims {:?} and gave back {:?}",
            hold.units, hold.returned
        ));
    }
    let distinct: BTreeSet<i32> = hold.pools.iter().copied().collect();
    if distinct.len() < hold.pools.len() {
        return Some("names a pool twice".to_owned());
    }
    None
}
