//! Proves from the books alone that every unit has one owner and that nobody changed what was written.
//!
//! Of each pool: its movements from the first to the one its row stands at, each with the hash that belongs to it, and
//! the balances they fold into; then the sealed heads, which a shorter book cannot contain. Of each hold: that it claims
//! something. Of both together: that what pools say is held and sold is what holds own.
//!
//! The ledger may go on meanwhile. A pool's row is read first, and its book up to there does not change any more; it is
//! read in slices, so that no snapshot lives long. Only the comparison of pools and holds needs them at one moment, and
//! takes one statement.

use std::collections::BTreeMap;

use holdfast_kernel::{PoolKey, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    domain::{Balance, HoldId, HoldState, MovementKind, Name},
    ledger::PoolId,
    ledger::chain::{self, BIRTH, Head, Movement},
    seal::seal,
    store::{self, AuditedHold, AuditedMovement, AuditedPool, Checkpoint, Drift},
};

/// Pools read at once.
const SLICE_POOLS: i64 = 500;
/// Movements of a pool read at once.
const SLICE_MOVEMENTS: i64 = 5_000;
/// Holds read at once.
const SLICE_HOLDS: i64 = 5_000;

/// What was looked at, and what was found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Audit {
    /// Pools read.
    pub pools: u64,
    /// Movements read.
    pub movements: u64,
    /// Holds read.
    pub holds: u64,
    /// Nothing, when the books are clean.
    pub findings: Vec<Finding>,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The pool or hold.
    pub about: String,
    /// What is, and what should be.
    pub text: String,
}

impl Audit {
    fn find(&mut self, about: &str, text: impl Into<String>) {
        self.findings.push(Finding {
            about: about.to_owned(),
            text: text.into(),
        });
    }
}

/// Audits the ledger. `seal_key` is the installation's key for [`SEAL_PURPOSE`](crate::SEAL_PURPOSE); `progress` is told
/// after each slice how far it has come.
pub async fn audit(
    db: &mut PgConnection,
    seal_key: &[u8; 32],
    mut progress: impl FnMut(&Audit),
) -> Result<Audit, sqlx::Error> {
    let mut audit = Audit::default();
    let mut after = 0;
    loop {
        // Heads are sealed before the rows are read, so a sound book reaches at least that far.
        let checkpoints = store::audit_checkpoints(db, after, SLICE_POOLS).await?;
        let pools = store::audit_pools(db, after, SLICE_POOLS).await?;
        let Some(last) = pools.last() else {
            break;
        };
        after = last.id;
        for pool in &pools {
            let sealed = checkpoints
                .iter()
                .filter(|checkpoint| checkpoint.pool == pool.id);
            audit_pool(db, pool, sealed, seal_key, &mut audit).await?;
            progress(&audit);
        }
    }
    for about in store::audit_strays(db).await? {
        audit.find(&about, "the book goes further than its pool");
    }
    let mut after = Uuid::nil();
    loop {
        let holds = store::audit_holds(db, after, SLICE_HOLDS).await?;
        let Some(last) = holds.last() else {
            break;
        };
        after = last.id;
        for hold in &holds {
            audit.holds += 1;
            if let Some(text) = misshape(hold) {
                audit.find(&HoldId::new(hold.id).to_string(), text);
            }
        }
        progress(&audit);
    }
    for drift in store::audit_owners(db).await? {
        let text = told(&drift);
        audit.find(&drift.key, text);
    }
    Ok(audit)
}

/// Holds a pool's row and its seals against its book.
async fn audit_pool(
    db: &mut PgConnection,
    pool: &AuditedPool,
    sealed: impl Iterator<Item = &Checkpoint>,
    seal_key: &[u8; 32],
    audit: &mut Audit,
) -> Result<(), sqlx::Error> {
    audit.pools += 1;
    let key = &pool.key;
    let mut heads: BTreeMap<i64, &[u8]> = BTreeMap::new();
    for checkpoint in sealed {
        let Checkpoint { version, head, .. } = checkpoint;
        if checkpoint.seal != seal(seal_key, key, *version, head, checkpoint.at.into()) {
            audit.find(key, format!("the seal of version {version} is broken"));
        }
        heads.insert(*version, head);
    }
    if let Some((last, _)) = heads.last_key_value()
        && *last > pool.version
    {
        let text = format!("ends at movement {}, but {last} was sealed", pool.version);
        audit.find(key, text);
    }
    let book = read_book(db, pool, &heads, audit).await?;
    if book.version < pool.version {
        let text = format!(
            "stands at version {}, its book proves {}",
            pool.version, book.version
        );
        audit.find(key, text);
        return Ok(());
    }
    if pool.chain_head != book.head {
        audit.find(key, "its head is not the hash of its newest movement");
    }
    let row = Balance {
        capacity: pool.capacity,
        held: pool.held,
        sold: pool.sold,
        overbook: pool.overbook,
    };
    if row != book.balance {
        let text = format!("its counters are {row:?}, its book says {:?}", book.balance);
        audit.find(key, text);
    }
    let counters = [
        pool.capacity,
        pool.held,
        pool.sold,
        pool.blocked,
        pool.overbook,
    ];
    let taken = pool.held + pool.sold + pool.blocked;
    let room = pool.capacity + pool.overbook;
    if counters.iter().any(|counter| *counter < 0) || taken > room {
        audit.find(key, format!("{taken} units are taken of {room}"));
    }
    Ok(())
}

/// A book as far as it is sound.
struct Book {
    version: i64,
    head: Head,
    balance: Balance,
}

/// Reads a pool's book from the first movement to the one its row stands at, or to the first that is not sound.
async fn read_book(
    db: &mut PgConnection,
    pool: &AuditedPool,
    sealed: &BTreeMap<i64, &[u8]>,
    audit: &mut Audit,
) -> Result<Book, sqlx::Error> {
    let mut book = Book {
        version: 0,
        head: BIRTH,
        balance: Balance::default(),
    };
    let Ok(key) = pool.key.parse::<PoolKey>() else {
        audit.find(&pool.key, "is no pool's key");
        return Ok(book);
    };
    loop {
        let last = pool.version;
        let slice =
            store::audit_movements(db, pool.id, book.version, last, SLICE_MOVEMENTS).await?;
        if slice.is_empty() {
            return Ok(book);
        }
        for row in slice {
            let version = book.version + 1;
            if row.version != version {
                audit.find(&pool.key, format!("movement {version} is missing"));
                return Ok(book);
            }
            audit.movements += 1;
            let hash = row.hash.clone();
            let Some(movement) = read(pool.id, row) else {
                audit.find(&pool.key, format!("movement {version} is of no known kind"));
                return Ok(book);
            };
            let head = chain::link(&book.head, &key, &movement);
            let balance = book.balance.after(movement.kind, movement.units);
            let written = (
                movement.held_after,
                movement.sold_after,
                movement.capacity_after,
            );
            if hash != head || written != (balance.held, balance.sold, balance.capacity) {
                audit.find(&pool.key, format!("movement {version} was changed"));
                return Ok(book);
            }
            book = Book {
                version,
                head,
                balance,
            };
            if sealed.get(&version).is_some_and(|sealed| **sealed != head) {
                let text = format!("the book up to {version} is not the one that was sealed");
                audit.find(&pool.key, text);
            }
        }
    }
}

fn read(pool: i32, row: AuditedMovement) -> Option<Movement> {
    Some(Movement {
        pool: PoolId(pool),
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

/// What is wrong with a hold by itself.
fn misshape(hold: &AuditedHold) -> Option<String> {
    let Some(state) = HoldState::from_code(hold.state) else {
        return Some(format!("is in state {}, which there is not", hold.state));
    };
    if hold.pools.is_empty() && state != HoldState::Released {
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
    None
}

fn told(drift: &Drift) -> String {
    let owned = drift.held_by_holds + drift.sold_to_holds;
    if owned > drift.room {
        return format!("{owned} units have an owner, there are {}", drift.room);
    }
    format!(
        "{} held and {} sold, holds own {} and {}",
        drift.held, drift.sold, drift.held_by_holds, drift.sold_to_holds
    )
}
