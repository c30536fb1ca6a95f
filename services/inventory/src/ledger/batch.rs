//! A batch as the statement takes it: of every pool and hold touched the one final state, of movements each one.
//!
//! One row a pool and one a hold, whatever happened to it within the batch: a second update of a row in one statement
//! would be lost without a word. The statement counts rows, so such a batch would fail, not pass.

use holdfast_kernel::Timestamp;
use tokio_postgres::{Client, Error, types::ToSql};
use uuid::Uuid;

use super::{
    book::{Book, HoldEntry, PoolEntry, PoolId, StandEntry},
    chain::{Head, Movement},
    change::Draft,
    form::{Form, Forms, WHOLE_PARAMETERS},
};
use crate::domain::HoldId;

/// Which writer sends the batch, and which of his batches it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) epoch: i64,
    pub(super) seq: i64,
}

/// Everything the statement writes, in columns.
#[derive(Debug, Default)]
pub(super) struct Batch {
    made_pools: PoolColumns,
    moved_pools: PoolColumns,
    pool_versions_before: Vec<i64>,
    pool_heads_before: Vec<Head>,
    made_holds: HoldColumns,
    moved_holds: HoldColumns,
    hold_versions_before: Vec<i32>,
    hold_expiries_before: Vec<Timestamp>,
    /// Of made holds: whose they are, what they took where there was a choice, and their lines end to end.
    accounts: Vec<String>,
    taken: Vec<Box<[u8]>>,
    first_lines: Vec<i32>,
    last_lines: Vec<i32>,
    line_pools: Vec<i32>,
    line_units: Vec<i64>,
    /// Of all holds: units given back, end to end.
    returned: Vec<i64>,
    movements: Vec<Movement>,
    request_ids: Vec<Uuid>,
    fingerprints: Vec<[u8; 32]>,
    changed: Vec<i32>,
    low: Vec<i32>,
    expired: Vec<Uuid>,
    made_stands: StandColumns,
    left_stands: Vec<Uuid>,
    granted: Vec<Uuid>,
    lapsed: Vec<Uuid>,
}

#[derive(Debug, Default)]
struct PoolColumns {
    id: Vec<i32>,
    /// Of made pools only.
    key: Vec<String>,
    capacity: Vec<i64>,
    held: Vec<i64>,
    sold: Vec<i64>,
    overbook: Vec<i64>,
    low_at: Vec<Option<i64>>,
    low: Vec<bool>,
    version: Vec<i64>,
    capacity_version: Vec<i64>,
    head: Vec<Head>,
}

#[derive(Debug, Default)]
struct HoldColumns {
    id: Vec<Uuid>,
    state: Vec<i16>,
    version: Vec<i32>,
    expires_at: Vec<Timestamp>,
    epoch: Vec<i64>,
    reference: Vec<String>,
    first_returned: Vec<i32>,
    last_returned: Vec<i32>,
}

#[derive(Debug, Default)]
struct StandColumns {
    id: Vec<Uuid>,
    place: Vec<i64>,
    standing: Vec<bool>,
    expires_at: Vec<Timestamp>,
    ttl_micros: Vec<i64>,
    account: Vec<String>,
    actor: Vec<String>,
    reference: Vec<String>,
    first_line: Vec<i32>,
    last_line: Vec<i32>,
    /// Lines end to end.
    group: Vec<i16>,
    alternative: Vec<i16>,
    pool: Vec<i32>,
    units: Vec<i64>,
}

impl Batch {
    /// Takes down what the draft touched, as the book has it now.
    pub(super) fn fold(draft: &mut Draft, low: &[PoolId], book: &Book) -> Self {
        let mut batch = Self {
            movements: std::mem::take(&mut draft.movements),
            changed: draft.pools.keys().map(|pool| pool.0).collect(),
            low: low.iter().map(|pool| pool.0).collect(),
            expired: draft.expired.iter().map(|hold| hold.uuid()).collect(),
            ..Self::default()
        };
        for (&id, before) in &draft.pools {
            let Some(entry) = book.pool(id) else {
                continue;
            };
            if let Some(before) = before {
                batch.pool_versions_before.push(before.version);
                batch.pool_heads_before.push(before.head);
                batch.moved_pools.push(id, entry);
            } else {
                batch.made_pools.key.push(entry.key.to_string());
                batch.made_pools.push(id, entry);
            }
        }
        for (&id, before) in &draft.holds {
            let Some(entry) = book.hold(id) else {
                continue;
            };
            if let Some(before) = before {
                batch.hold_versions_before.push(before.version);
                batch.hold_expiries_before.push(before.expires_at);
                batch.moved_holds.push(id, entry, &mut batch.returned);
            } else {
                batch
                    .accounts
                    .push(entry.account.as_deref().unwrap_or("").to_owned());
                batch.taken.push(entry.taken.clone());
                batch.first_lines.push(batch.line_pools.len() as i32 + 1);
                batch
                    .line_pools
                    .extend(entry.lines.iter().map(|line| line.pool.0));
                batch
                    .line_units
                    .extend(entry.lines.iter().map(|line| line.units));
                batch.last_lines.push(batch.line_pools.len() as i32);
                batch.made_holds.push(id, entry, &mut batch.returned);
            }
        }
        for (&id, made) in &draft.stands {
            match made {
                Some(entry) => batch.made_stands.push(id, entry, book.stand(id).is_some()),
                None => batch.left_stands.push(id.uuid()),
            }
        }
        batch.granted = draft.granted.iter().map(|hold| hold.uuid()).collect();
        batch.lapsed = draft.lapsed.iter().map(|hold| hold.uuid()).collect();
        for (request, fingerprint) in &draft.requests {
            batch.request_ids.push(request.uuid());
            batch.fingerprints.push(*fingerprint);
        }
        batch
    }

    /// Sends the statement and answers with the database's time.
    ///
    /// Everything is encoded and sent on the first poll: batches reach the database in the order of their first polls.
    #[expect(clippy::too_many_lines, reason = "a line a parameter")]
    pub(super) async fn write(
        self,
        client: &Client,
        forms: &Forms,
        turn: Turn,
        at: Timestamp,
    ) -> Result<Timestamp, Error> {
        let (made, moved) = (&self.made_pools, &self.moved_pools);
        let (opened, altered) = (&self.made_holds, &self.moved_holds);
        let of = &self.movements;
        let pool: Vec<i32> = of.iter().map(|m| m.pool.0).collect();
        let version: Vec<i64> = of.iter().map(|m| m.version).collect();
        let kind: Vec<i16> = of.iter().map(|m| m.kind.code()).collect();
        let units: Vec<i64> = of.iter().map(|m| m.units).collect();
        let held_after: Vec<i64> = of.iter().map(|m| m.held_after).collect();
        let sold_after: Vec<i64> = of.iter().map(|m| m.sold_after).collect();
        let capacity_after: Vec<i64> = of.iter().map(|m| m.capacity_after).collect();
        let effective_at: Vec<Option<Timestamp>> = of.iter().map(|m| m.effective_at).collect();
        let hold: Vec<Option<Uuid>> = of.iter().map(|m| m.hold.map(HoldId::uuid)).collect();
        let actor: Vec<&str> = of.iter().map(|m| &*m.actor).collect();
        let reason: Vec<&str> = of.iter().map(|m| &*m.reason).collect();
        let hash: Vec<&[u8]> = of.iter().map(|m| &m.hash[..]).collect();
        let made_heads = bytes(&made.head);
        let moved_heads = bytes(&moved.head);
        let heads_before = bytes(&self.pool_heads_before);
        let fingerprints = bytes(&self.fingerprints);
        let taken: Vec<&[u8]> = self.taken.iter().map(|taken| &**taken).collect();
        let stands = &self.made_stands;
        let parameters: [&(dyn ToSql + Sync); WHOLE_PARAMETERS] = [
            // 1: the fence
            &turn.epoch,
            &turn.seq,
            &at,
            // 4: made pools
            &made.id,
            &made.key,
            &made.capacity,
            &made.held,
            &made.sold,
            &made.overbook,
            &made.low_at,
            &made.low,
            &made.version,
            &made.capacity_version,
            &made_heads,
            // 15: moved pools
            &moved.id,
            &self.pool_versions_before,
            &heads_before,
            &moved.capacity,
            &moved.held,
            &moved.sold,
            &moved.overbook,
            &moved.low_at,
            &moved.low,
            &moved.version,
            &moved.capacity_version,
            &moved_heads,
            // 27: made holds
            &opened.id,
            &opened.state,
            &opened.version,
            &opened.expires_at,
            &opened.epoch,
            &self.accounts,
            &opened.reference,
            &self.first_lines,
            &self.last_lines,
            &self.line_pools,
            &self.line_units,
            &self.returned,
            &opened.first_returned,
            &opened.last_returned,
            // 41: moved holds
            &altered.id,
            &self.hold_versions_before,
            &self.hold_expiries_before,
            &altered.state,
            &altered.version,
            &altered.expires_at,
            &altered.epoch,
            &altered.reference,
            &altered.first_returned,
            &altered.last_returned,
            // 51: movements
            &pool,
            &version,
            &kind,
            &units,
            &held_after,
            &sold_after,
            &capacity_after,
            &effective_at,
            &hold,
            &actor,
            &reason,
            &hash,
            // 63: requests
            &self.request_ids,
            &fingerprints,
            // 65: for the announcer
            &self.changed,
            &self.low,
            &self.expired,
            // 68: what made holds took
            &taken,
            // 69: requests that joined the line
            &stands.id,
            &stands.place,
            &stands.standing,
            &stands.expires_at,
            &stands.ttl_micros,
            &stands.account,
            &stands.actor,
            &stands.reference,
            &stands.first_line,
            &stands.last_line,
            &stands.group,
            &stands.alternative,
            &stands.pool,
            &stands.units,
            // 83: those that left it
            &self.left_stands,
            &self.granted,
            &self.lapsed,
        ];
        let form = self.form();
        let row = client
            .query_one(forms.get(form), &parameters[..form.parameters()])
            .await?;
        row.try_get(1)
    }

    /// The least form that writes all of it.
    fn form(&self) -> Form {
        let makes_pools = !self.made_pools.id.is_empty();
        let moves_line = !self.made_stands.id.is_empty() || !self.left_stands.is_empty();
        if makes_pools || moves_line || !self.request_ids.is_empty() {
            return Form::Whole;
        }
        match (
            self.made_holds.id.is_empty(),
            self.moved_holds.id.is_empty(),
        ) {
            (false, true) => Form::Reserving,
            (true, false) => Form::Moving,
            (false, false) | (true, true) => Form::Everyday,
        }
    }
}

impl PoolColumns {
    fn push(&mut self, id: PoolId, entry: &PoolEntry) {
        self.id.push(id.0);
        self.capacity.push(entry.balance.capacity);
        self.held.push(entry.balance.held);
        self.sold.push(entry.balance.sold);
        self.overbook.push(entry.balance.overbook);
        self.low_at.push(entry.low_at);
        self.low.push(entry.low);
        self.version.push(entry.version);
        self.capacity_version.push(entry.capacity_version);
        self.head.push(entry.head);
    }
}

impl HoldColumns {
    fn push(&mut self, id: HoldId, entry: &HoldEntry, returned: &mut Vec<i64>) {
        self.id.push(id.uuid());
        self.state.push(entry.state.code());
        self.version.push(entry.version);
        self.expires_at.push(entry.expires_at);
        self.epoch.push(entry.epoch);
        self.reference.push(entry.reference.to_string());
        // SQL counts from 1; a slice whose last is before its first is empty, which says that nothing came back.
        self.first_returned.push(returned.len() as i32 + 1);
        if entry.lines.iter().any(|line| line.returned != 0) {
            returned.extend(entry.lines.iter().map(|line| line.returned));
        }
        self.last_returned.push(returned.len() as i32);
    }
}

impl StandColumns {
    fn push(&mut self, id: HoldId, entry: &StandEntry, standing: bool) {
        self.id.push(id.uuid());
        self.place.push(entry.place);
        self.standing.push(standing);
        self.expires_at.push(entry.expires_at);
        self.ttl_micros.push(entry.ttl.as_micros() as i64);
        self.account
            .push(entry.account.as_deref().unwrap_or("").to_owned());
        self.actor.push(entry.actor.to_string());
        self.reference.push(entry.reference.to_string());
        self.first_line.push(self.pool.len() as i32 + 1);
        self.push_lines(0, 0, &entry.sought.lines);
        for (group, alternatives) in (1..).zip(&entry.sought.any_of) {
            for (place, lines) in (0..).zip(alternatives) {
                self.push_lines(group, place, lines);
            }
        }
        self.last_line.push(self.pool.len() as i32);
    }

    fn push_lines(&mut self, group: i16, alternative: i16, lines: &[(PoolId, i64)]) {
        for &(pool, units) in lines {
            self.group.push(group);
            self.alternative.push(alternative);
            self.pool.push(pool.0);
            self.units.push(units);
        }
    }
}

fn bytes(hashes: &[[u8; 32]]) -> Vec<&[u8]> {
    hashes.iter().map(|hash| &hash[..]).collect()
}
