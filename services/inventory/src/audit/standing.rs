//! Proves that nobody left the line with anything but what he stood there for.
//!
//! Who stands in line has no hold; who has left it has one of the same id, which claims the lines he wanted in any case
//! and one alternative of each group, or nothing at all.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::Audit;
use crate::{
    domain::HoldId,
    store::{self, AuditedStand},
};

/// Requests read at once.
const SLICE_STANDS: i64 = 2_000;

/// Holds every request that stands or stood in line against its hold.
pub(super) async fn read(db: &mut PgConnection, audit: &mut Audit) -> Result<(), sqlx::Error> {
    let mut after = Uuid::nil();
    loop {
        let stands = store::audit_stands(db, after, SLICE_STANDS).await?;
        let Some(last) = stands.last() else {
            return Ok(());
        };
        after = last.id;
        for stand in &stands {
            if let Some(text) = differs(stand) {
                audit.find(&HoldId::new(stand.id).to_string(), text);
            }
        }
    }
}

/// What is wrong with how a request stands or left.
fn differs(stand: &AuditedStand) -> Option<&'static str> {
    let (Some(pools), Some(units), Some(taken)) =
        (&stand.held_pools, &stand.held_units, &stand.taken)
    else {
        return (!stand.standing).then_some("has left the line without a trace");
    };
    if stand.standing {
        return Some("stands in line and has a hold");
    }
    let held: BTreeMap<i32, i64> = pools.iter().copied().zip(units.iter().copied()).collect();
    (!held.is_empty() && held != wanted(stand, taken))
        .then_some("was granted what it did not stand in line for")
}

/// Units of each pool that this choice comes to.
fn wanted(stand: &AuditedStand, taken: &[u8]) -> BTreeMap<i32, i64> {
    let mut wanted = BTreeMap::new();
    let lines = stand.pools.iter().zip(&stand.units);
    let places = stand.groups.iter().zip(&stand.alternatives);
    for ((pool, units), (&group, &alternative)) in lines.zip(places) {
        let chosen = usize::try_from(group - 1)
            .ok()
            .map(|group| taken.get(group).copied().map(i16::from));
        // Lines of no group are wanted in any case.
        if chosen.is_none_or(|chosen| chosen == Some(alternative)) {
            *wanted.entry(*pool).or_default() += *units;
        }
    }
    wanted
}
