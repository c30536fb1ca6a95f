//! A pool's book while it is read: where its chain is, what it has come to, and what it says each hold owns. Pure.

use std::collections::BTreeMap;

use holdfast_kernel::{PoolKey, Timestamp};
use uuid::Uuid;

use crate::{
    domain::{Balance, HoldId, MovementKind, Name},
    ledger::{
        PoolId,
        chain::{self, BIRTH, Head, Movement},
    },
    store::AuditedMovement,
};

/// A book as far as it was read and found sound.
pub(super) struct Book {
    key: PoolKey,
    /// Of the newest movement read.
    pub(super) version: i64,
    pub(super) head: Head,
    pub(super) balance: Balance,
    /// What holds own, as far as it was asked for; a hold stays in it when it owns nothing any more.
    pub(super) claims: BTreeMap<Uuid, Claim>,
    /// What has become since of the units of those of them that were born before the book begins.
    pub(super) old: Owned,
    /// Holds born before `open_at`.
    pub(super) births: i64,
    /// The newest movement before `open_at`.
    pub(super) before_open: i64,
}

/// Where a book begins: at the pool's birth, or where dropped movements have left it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beginning {
    pub(super) version: i64,
    pub(super) head: Head,
    pub(super) balance: Balance,
}

/// Units of a pool in somebody's possession.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Owned {
    pub(super) held: i64,
    pub(super) sold: i64,
}

/// What the book says of one hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    /// What it was born with; `None` when that was before the book begins.
    pub(super) units: Option<i64>,
    pub(super) owned: Owned,
}

/// Which of many holds are looked at: those whose id leaves `number` when divided by `of`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) number: u128,
    pub(super) of: u128,
}

impl Beginning {
    /// A pool that has just been made.
    pub(super) fn birth() -> Self {
        Self {
            version: 0,
            head: BIRTH,
            balance: Balance::default(),
        }
    }
}

impl Owned {
    fn after(mut self, kind: MovementKind, units: i64) -> Self {
        let moved = Balance::default().after(kind, units);
        self.held += moved.held;
        self.sold += moved.sold;
        self
    }
}

impl Share {
    fn includes(self, hold: Uuid) -> bool {
        hold.as_u128() % self.of == self.number
    }
}

impl Book {
    pub(super) fn begin(key: PoolKey, beginning: Beginning) -> Self {
        let Beginning {
            version,
            head,
            balance,
        } = beginning;
        Self {
            key,
            version,
            head,
            balance,
            claims: BTreeMap::new(),
            old: Owned::default(),
            births: 0,
            before_open: version,
        }
    }

    /// Turns to the next movement; or says why it cannot be the next.
    pub(super) fn turn(
        &mut self,
        row: AuditedMovement,
        open_at: Timestamp,
        share: Share,
    ) -> Result<(), String> {
        let version = self.version + 1;
        if row.version != version {
            return Err(format!("movement {version} is missing"));
        }
        let hash = row.hash.clone();
        let Some(movement) = read(row) else {
            return Err(format!("movement {version} is of no known kind"));
        };
        let head = chain::link(&self.head, &self.key, &movement);
        let balance = self.balance.after(movement.kind, movement.units);
        let written = (
            movement.held_after,
            movement.sold_after,
            movement.capacity_after,
        );
        if hash != head || written != (balance.held, balance.sold, balance.capacity) {
            return Err(format!("movement {version} was changed"));
        }
        self.version = version;
        self.head = head;
        self.balance = balance;
        if movement.at < open_at {
            self.before_open = version;
            self.births += i64::from(movement.kind == MovementKind::Reserve);
        }
        if let Some(hold) = movement.hold.map(HoldId::uuid)
            && share.includes(hold)
        {
            self.claim(hold, movement.kind, movement.units);
        }
        Ok(())
    }

    fn claim(&mut self, hold: Uuid, kind: MovementKind, units: i64) {
        let born = (kind == MovementKind::Reserve).then_some(units);
        let claim = self.claims.entry(hold).or_insert(Claim {
            units: born,
            owned: Owned::default(),
        });
        claim.owned = claim.owned.after(kind, units);
        if claim.units.is_none() {
            self.old = self.old.after(kind, units);
        }
    }
}

fn read(row: AuditedMovement) -> Option<Movement> {
    Some(Movement {
        pool: PoolId(row.pool),
        version: row.version,
        kind: MovementKind::from_code(row.kind)?,
        units: row.units,
        held_after: row.held_after,
        sold_after: row.sold_after,
        capacity_after: row.capacity_after,
        at: row.at.into(),
        effective_at: row.effective_at.map(Timestamp::from),
        hold: row.hold.map(HoldId::new),
        actor: Name::from(row.actor),
        reason: Name::from(row.reason),
        hash: BIRTH,
    })
}
