//! Proves from the books alone that every unit has one owner and that nobody changed what was written.
//!
//! Of each pool: its movements from the first that is kept to the one its row stands at, each with the hash that belongs
//! to it, and the balances they fold into; then the sealed heads, which a shorter book cannot contain. Of each hold the
//! book names: that it owns what the book says, no more and no less. Then that no other hold owns anything (`owners`), and
//! that whoever left the line got what he stood there for, or nothing (`standing`).
//!
//! The ledger goes on selling meanwhile, and no snapshot may live long there. So everything is read in slices, and what
//! is compared is read at one moment: holds together with their pools' versions, after which the book is read on to just
//! those versions. What was written behind them is the next audit's.

mod book;
mod owners;
mod standing;

use std::collections::{BTreeMap, BTreeSet};

use holdfast_kernel::{PoolKey, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    domain::{Balance, HoldId},
    ledger::chain::Head,
    seal::{seal, seal_closing},
    store::{self, AuditedHold, AuditedPool, Checkpoint, Closing, Pages},
};
use book::{Beginning, Book, Claim, Owned, Share};
use owners::{Births, Known};

/// Pools read at once.
const SLICE_POOLS: i64 = 500;
/// Movements read at once.
const SLICE_MOVEMENTS: i64 = 5_000;
/// Holds compared at once.
const SLICE_CLAIMS: usize = 5_000;
/// Claims of a pool kept in memory at once; a longer book is read once for each such share of its holds.
const SHARE_MAX_CLAIMS: i64 = 500_000;
/// Pools whose owners are counted in one reading of all holds.
const COUNTED_MAX_POOLS: usize = 250_000;
/// Times an audit begins again because months were dropped under it.
const BEGIN_MAX_TIMES: u32 = 3;

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
    /// Notes a finding, once.
    fn find(&mut self, about: &str, text: impl Into<String>) {
        let finding = Finding {
            about: about.to_owned(),
            text: text.into(),
        };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }
}

/// Audits the ledger. `seal_key` is the installation's key for [`SEAL_PURPOSE`](crate::SEAL_PURPOSE); `progress` is told
/// after each slice how far it has come.
///
/// What holds own that were born after it began is left to the next one.
pub async fn audit(
    db: &mut PgConnection,
    seal_key: &[u8; 32],
    mut progress: impl FnMut(&Audit),
) -> Result<Audit, sqlx::Error> {
    for _ in 1..BEGIN_MAX_TIMES {
        let before = store::kept_since(db).await?;
        let audit = read_through(db, seal_key, &mut progress).await?;
        if store::kept_since(db).await? == before {
            return Ok(audit);
        }
    }
    read_through(db, seal_key, &mut progress).await
}

/// What is sold of each pool of that kind (what stands before the colon of its key), by key: for checks across services.
pub async fn sold_of_kind(
    db: &mut PgConnection,
    kind: &str,
) -> Result<Vec<(String, i64)>, sqlx::Error> {
    store::sold_of_kind(db, kind).await
}

/// A pool's book up to a version, and what it has come to there.
pub(crate) struct Proved {
    pub(crate) key: String,
    pub(crate) head: Head,
    pub(crate) balance: Balance,
}

/// Proves one pool's book, all of it, and answers with what it had come to at `version`; `None` when anything is wrong.
pub(crate) async fn prove_book(
    db: &mut PgConnection,
    seal_key: &[u8; 32],
    pool: i32,
    version: i64,
) -> Result<Option<Proved>, sqlx::Error> {
    let ground = store::audit_ground(db).await?;
    let pool = store::audit_pool(db, pool).await?;
    let mut auditor = Auditor::new(
        seal_key,
        ground.open_at.into(),
        ground.kept_since.map(Timestamp::from),
    );
    // Nobody's claims are asked for.
    auditor.share = Share { number: 1, of: 1 };
    let mut readings = auditor.open(db, std::slice::from_ref(&pool)).await?;
    let Some(reading) = readings.first() else {
        return Ok(None);
    };
    let end = reading.pool.version;
    if reading.book.version > version || end < version {
        return Ok(None);
    }
    for (key, _, sealed) in store::audit_cut_off(db, &[pool.id]).await? {
        let text = format!("ends at movement {end}, but {sealed} was sealed");
        auditor.audit.find(&key, text);
    }
    auditor.read_to(db, &mut readings, &|_| version).await?;
    let proved = readings.first().map(|reading| Proved {
        key: reading.pool.key.clone(),
        head: reading.book.head,
        balance: reading.book.balance,
    });
    auditor.read_to(db, &mut readings, &|_| end).await?;
    for reading in &readings {
        auditor.compare_row(reading);
    }
    Ok(proved.filter(|_| auditor.audit.findings.is_empty()))
}

async fn read_through(
    db: &mut PgConnection,
    seal_key: &[u8; 32],
    progress: &mut impl FnMut(&Audit),
) -> Result<Audit, sqlx::Error> {
    let ground = store::audit_ground(db).await?;
    let (open_at, kept_since) = (
        ground.open_at.into(),
        ground.kept_since.map(Timestamp::from),
    );
    let mut auditor = Auditor::new(seal_key, open_at, kept_since);
    let mut known = Known::default();
    loop {
        let pools = store::audit_pools(db, known.last, SLICE_POOLS).await?;
        auditor.find_strays(db, known.last, &pools).await?;
        let is_last = pools.is_empty();
        known.last = pools.last().map_or(i32::MAX, |pool| pool.id);
        for shelf in shelves(pools) {
            auditor.audit_shelf(db, &shelf, &mut known).await?;
            progress(&auditor.audit);
        }
        if is_last || known.pools.len() >= COUNTED_MAX_POOLS {
            let next = Known {
                after: known.last,
                last: known.last,
                ..Known::default()
            };
            let counted = std::mem::replace(&mut known, next);
            let kept_since = kept_since.unwrap_or(Timestamp::MIN);
            owners::count(db, counted, open_at, kept_since, &mut auditor.audit).await?;
            progress(&auditor.audit);
        }
        if is_last {
            break;
        }
    }
    owners::find_unborn(db, &mut auditor.audit).await?;
    standing::read(db, &mut auditor.audit).await?;
    progress(&auditor.audit);
    Ok(auditor.audit)
}

/// Pools whose books are short enough to be read together; a long one stands alone.
fn shelves(pools: Vec<AuditedPool>) -> Vec<Vec<AuditedPool>> {
    let mut shelves: Vec<Vec<AuditedPool>> = Vec::new();
    let mut room = 0;
    for pool in pools {
        match shelves.last_mut() {
            Some(shelf) if pool.version <= room => {
                room -= pool.version;
                shelf.push(pool);
            }
            _ => {
                room = SLICE_MOVEMENTS - pool.version;
                shelves.push(vec![pool]);
            }
        }
    }
    shelves
}

struct Auditor<'a> {
    seal_key: &'a [u8; 32],
    /// The moment of the newest batch when it began.
    open_at: Timestamp,
    kept_since: Option<Timestamp>,
    share: Share,
    audit: Audit,
}

/// A pool, and its book as far as it was read.
struct Reading<'a> {
    pool: &'a AuditedPool,
    begins: Beginning,
    book: Book,
    /// Something is wrong with it, and was told.
    unsound: bool,
}

impl<'a> Auditor<'a> {
    fn new(seal_key: &'a [u8; 32], open_at: Timestamp, kept_since: Option<Timestamp>) -> Self {
        Self {
            seal_key,
            open_at,
            kept_since,
            share: Share { number: 0, of: 1 },
            audit: Audit::default(),
        }
    }

    /// Finds what was cut off from these pools, what goes further than they do, and movements of pools that do not exist
    /// between `after` and the last of them.
    async fn find_strays(
        &mut self,
        db: &mut PgConnection,
        after: i32,
        pools: &[AuditedPool],
    ) -> Result<(), sqlx::Error> {
        let ids: Vec<i32> = pools.iter().map(|pool| pool.id).collect();
        for (key, version, sealed) in store::audit_cut_off(db, &ids).await? {
            let text = format!("ends at movement {version}, but {sealed} was sealed");
            self.audit.find(&key, text);
        }
        for key in store::audit_overruns(db, &ids).await? {
            self.audit.find(&key, "the book goes further than its pool");
        }
        let (mut above, mut below) = (Vec::new(), Vec::new());
        let mut last = after;
        // Behind the last pool there may be anything.
        let ends = ids
            .iter()
            .copied()
            .chain(ids.is_empty().then_some(i32::MAX));
        for id in ends {
            if id > last.saturating_add(1) {
                above.push(last);
                below.push(id);
            }
            last = id;
        }
        for orphan in store::audit_orphans(db, &above, &below).await? {
            let about = format!("pool {orphan}");
            self.audit
                .find(&about, "the book goes further than its pool");
        }
        Ok(())
    }

    /// Holds the rows, the seals and the owners of these pools against their books.
    async fn audit_shelf(
        &mut self,
        db: &mut PgConnection,
        pools: &[AuditedPool],
        known: &mut Known,
    ) -> Result<(), sqlx::Error> {
        self.audit.pools += pools.len() as u64;
        known.pools.extend(pools.iter().map(|pool| (pool.id, None)));
        let longest = pools.iter().map(|pool| pool.version).max().unwrap_or(0);
        let shares = u128::try_from(longest / SHARE_MAX_CLAIMS + 1).unwrap_or(1);
        for number in 0..shares {
            self.share = Share { number, of: shares };
            let read = self.audit.movements;
            let mut readings = self.open(db, pools).await?;
            self.read_to(db, &mut readings, &|reading| reading.pool.version)
                .await?;
            for reading in &mut readings {
                reading.unsound |= !self.compare_row(reading);
            }
            if number > 0 {
                // The same movements once more.
                self.audit.movements = read;
            }
            self.compare_claims(db, &mut readings).await?;
            for reading in readings {
                note(reading, number, known);
            }
        }
        Ok(())
    }

    /// Opens these pools' books where they begin.
    async fn open<'p>(
        &mut self,
        db: &mut PgConnection,
        pools: &'p [AuditedPool],
    ) -> Result<Vec<Reading<'p>>, sqlx::Error> {
        let ids: Vec<i32> = pools.iter().map(|pool| pool.id).collect();
        let mut closings: BTreeMap<i32, Closing> = BTreeMap::new();
        if let Some(since) = self.kept_since {
            let found = store::audit_closings(db, &ids, since).await?;
            closings.extend(found.into_iter().map(|closing| (closing.pool, closing)));
        }
        let mut readings = Vec::with_capacity(pools.len());
        for pool in pools {
            let Ok(key) = pool.key.parse::<PoolKey>() else {
                self.audit.find(&pool.key, "is no pool's key");
                continue;
            };
            let (beginning, is_sound) = match closings.get(&pool.id) {
                None => (Beginning::birth(), true),
                Some(closing) => self.begin_behind(pool, closing),
            };
            readings.push(Reading {
                pool,
                begins: beginning,
                book: Book::begin(key, beginning),
                unsound: !is_sound,
            });
        }
        Ok(readings)
    }

    /// What a closing says the book begins with, and whether its seal proves that.
    fn begin_behind(&mut self, pool: &AuditedPool, closing: &Closing) -> (Beginning, bool) {
        let head = Head::try_from(&closing.head[..]);
        let is_sealed = closing.seal == seal_closing(self.seal_key, &pool.key, closing);
        if !is_sealed || head.is_err() {
            let until = Timestamp::from(closing.until);
            let text = format!("the seal of its closing until {until} is broken");
            self.audit.find(&pool.key, text);
        }
        let beginning = Beginning {
            version: closing.version,
            head: head.unwrap_or_default(),
            balance: Balance {
                capacity: closing.capacity,
                held: closing.held,
                sold: closing.sold,
                overbook: closing.overbook,
            },
        };
        (beginning, is_sealed)
    }

    /// Reads sound books on to where `end` says.
    async fn read_to(
        &mut self,
        db: &mut PgConnection,
        readings: &mut [Reading<'_>],
        end: &(dyn Fn(&Reading<'_>) -> i64 + Sync),
    ) -> Result<(), sqlx::Error> {
        loop {
            let mut pages = Pages::default();
            let mut room = SLICE_MOVEMENTS;
            for reading in readings.iter().filter(|reading| !reading.unsound) {
                let after = reading.book.version;
                let last = end(reading).min(after + room);
                if last > after {
                    room -= last - after;
                    pages.push(reading.pool.id, after, last);
                }
            }
            if pages.pools.is_empty() {
                return Ok(());
            }
            self.read_pages(db, readings, &pages).await?;
        }
    }

    /// Reads these pages. A book that does not have all of them is unsound.
    async fn read_pages(
        &mut self,
        db: &mut PgConnection,
        readings: &mut [Reading<'_>],
        pages: &Pages,
    ) -> Result<(), sqlx::Error> {
        let mut sealed = store::audit_checkpoints(db, pages)
            .await?
            .into_iter()
            .peekable();
        let mut rows = store::audit_movements(db, pages)
            .await?
            .into_iter()
            .peekable();
        let (open_at, share) = (self.open_at, self.share);
        // Pages, rows, heads and books are all by pool.
        for (&pool, &last) in pages.pools.iter().zip(&pages.last) {
            let Ok(place) = readings.binary_search_by_key(&pool, |reading| reading.pool.id) else {
                continue;
            };
            let reading = &mut readings[place];
            let key = &reading.pool.key;
            let mut heads: BTreeMap<i64, Vec<u8>> = BTreeMap::new();
            while let Some(checkpoint) = sealed.next_if(|sealed| sealed.pool == pool) {
                self.check_seal(&checkpoint);
                heads.insert(checkpoint.version, checkpoint.head);
            }
            while let Some(row) = rows.next_if(|row| row.pool == pool) {
                if reading.unsound {
                    continue;
                }
                if let Err(text) = reading.book.turn(row, open_at, share) {
                    self.audit.find(key, text);
                    reading.unsound = true;
                    continue;
                }
                self.audit.movements += 1;
                let Book { version, head, .. } = reading.book;
                if heads.get(&version).is_some_and(|sealed| *sealed != head) {
                    let text = format!("the book up to {version} is not the one that was sealed");
                    self.audit.find(key, text);
                }
            }
            if !reading.unsound && reading.book.version < last {
                reading.unsound = true;
                let text = format!(
                    "stands at version {}, its book proves {}",
                    reading.pool.version, reading.book.version
                );
                self.audit.find(key, text);
            }
        }
        Ok(())
    }

    fn check_seal(&mut self, checkpoint: &Checkpoint) {
        let Checkpoint {
            key, version, head, ..
        } = checkpoint;
        if checkpoint.seal != seal(self.seal_key, key, *version, head, checkpoint.at.into()) {
            let text = format!("the seal of version {version} is broken");
            self.audit.find(key, text);
        }
    }

    /// Holds a pool's row against its book, which was read to the row's version; whether they agree.
    fn compare_row(&mut self, reading: &Reading<'_>) -> bool {
        let Reading { pool, book, .. } = reading;
        let mut texts = Vec::new();
        let row = Balance {
            capacity: pool.capacity,
            held: pool.held,
            sold: pool.sold,
            overbook: pool.overbook,
        };
        if !reading.unsound {
            if pool.chain_head != book.head {
                texts.push("its head is not the hash of its newest movement".to_owned());
            }
            if row != book.balance {
                texts.push(format!(
                    "its counters are {row:?}, its book says {:?}",
                    book.balance
                ));
            }
        }
        let taken = pool.held + pool.sold + pool.blocked;
        let room = pool.capacity + pool.overbook;
        let counters = [
            pool.capacity,
            pool.held,
            pool.sold,
            pool.blocked,
            pool.overbook,
        ];
        if counters.iter().any(|counter| *counter < 0) || taken > room {
            texts.push(format!("{taken} units are taken of {room}"));
        }
        let agree = texts.is_empty();
        for text in texts {
            self.audit.find(&pool.key, text);
        }
        agree
    }

    /// Holds what these books say of holds against the holds.
    async fn compare_claims(
        &mut self,
        db: &mut PgConnection,
        readings: &mut [Reading<'_>],
    ) -> Result<(), sqlx::Error> {
        let named: BTreeSet<Uuid> = readings
            .iter()
            .filter(|reading| !reading.unsound)
            .flat_map(|reading| reading.book.claims.keys().copied())
            .collect();
        let named: Vec<Uuid> = named.into_iter().collect();
        let pools: Vec<i32> = readings.iter().map(|reading| reading.pool.id).collect();
        for ids in named.chunks(SLICE_CLAIMS) {
            let (holds, versions) = store::audit_claims(db, ids, &pools).await?;
            let versions: BTreeMap<i32, i64> = versions.into_iter().collect();
            let holds: BTreeMap<Uuid, AuditedHold> =
                holds.into_iter().map(|hold| (hold.id, hold)).collect();
            // The books as they were at the moment for which the holds speak.
            self.read_to(db, readings, &|reading| {
                versions.get(&reading.pool.id).copied().unwrap_or(0)
            })
            .await?;
            let (first, last) = (ids[0], ids[ids.len() - 1]);
            for reading in readings.iter().filter(|reading| !reading.unsound) {
                for (id, claim) in reading.book.claims.range(first..=last) {
                    // Those that a book named only now are not asked for.
                    if ids.binary_search(id).is_err() {
                        continue;
                    }
                    if let Some(text) = differs(*id, claim, holds.get(id), reading.pool.id) {
                        self.audit.find(&reading.pool.key, text);
                    }
                }
            }
        }
        Ok(())
    }
}

/// What is different between a hold and what the book of one of its pools says of it.
fn differs(id: Uuid, claim: &Claim, hold: Option<&AuditedHold>, pool: i32) -> Option<String> {
    let name = HoldId::new(id);
    let Some(hold) = hold else {
        return Some(format!("its book names {name}, which does not exist"));
    };
    // One that is older than the book is proved in the sum of them all.
    let units = claim.units?;
    let place = hold.pools.iter().position(|named| *named == pool);
    let owned = place.and_then(|place| owners::owned(hold).nth(place));
    let wanted = place.and_then(|place| hold.units.get(place).copied());
    let (Some(owned), Some(wanted)) = (owned, wanted) else {
        return Some(format!("its book names {name}, which claims nothing of it"));
    };
    if wanted != units {
        return Some(format!(
            "{name} claims {wanted} units, its book says {units}"
        ));
    }
    (owned != claim.owned).then(|| {
        let Owned { held, sold } = owned;
        format!(
            "{name} owns {held} held and {sold} sold units, its book says {} and {}",
            claim.owned.held, claim.owned.sold
        )
    })
}

/// Notes for the counting what a book says, the first time or for one more share of its holds.
fn note(reading: Reading<'_>, share: u128, known: &mut Known) {
    let Reading {
        pool,
        begins,
        book,
        unsound,
    } = reading;
    let entry = known.pools.entry(pool.id).or_default();
    if unsound {
        *entry = None;
    } else if share == 0 {
        *entry = Some(Births {
            key: pool.key.clone(),
            room: pool.capacity + pool.overbook - pool.blocked,
            begins: begins.version,
            before_open: book.before_open,
            version: book.version,
            count: book.births,
            old: Owned {
                held: begins.balance.held + book.old.held,
                sold: begins.balance.sold + book.old.sold,
            },
        });
    } else if let Some(births) = entry {
        births.version = births.version.min(book.version);
        births.old.held += book.old.held;
        births.old.sold += book.old.sold;
    }
}
