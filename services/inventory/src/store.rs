//! Every statement outside the writer: what is read of the books, and what follows from them.

use holdfast_kernel::{PoolKey, Timestamp};
use jiff_sqlx::ToSqlx;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::{domain::MovementKind, error::InventoryError};

/// One entry of a pool's book, for readers.
pub(crate) struct Entry {
    pub(crate) version: i64,
    pub(crate) kind: MovementKind,
    pub(crate) units: i64,
    pub(crate) held_after: i64,
    pub(crate) sold_after: i64,
    pub(crate) capacity_after: i64,
    pub(crate) at: Timestamp,
    pub(crate) effective_at: Timestamp,
    pub(crate) hold: Option<Uuid>,
    pub(crate) actor: String,
    pub(crate) reason: String,
}

/// A pool's book up to a moment, and what was written after it of what had happened by then.
#[derive(sqlx::FromRow)]
pub(crate) struct Past {
    pub(crate) key: String,
    pub(crate) version: i64,
    pub(crate) held_after: i64,
    pub(crate) sold_after: i64,
    pub(crate) capacity_after: i64,
    /// Units whose hold was over by then, written down later.
    pub(crate) expired_since: i64,
    /// By how much the overbooking has changed since.
    pub(crate) overbook_since: i64,
    /// How often capacity or policy have changed since.
    pub(crate) terms_since: i64,
}

/// Keys with this prefix behind `after`, in order.
pub(crate) async fn list_keys(
    db: &mut PgConnection,
    prefix: &str,
    after: &str,
    limit: i64,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT key FROM pool
         WHERE key >= $1 AND key < $1 || U&'\\+10FFFF' AND key > $2
         ORDER BY key LIMIT $3",
    )
    .bind(prefix)
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// The pools with this prefix behind the key `after`, in order.
pub(crate) async fn pools_under(
    db: &mut PgConnection,
    prefix: &str,
    after: &str,
    limit: i64,
) -> Result<Vec<PoolState>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, key, capacity, held, sold, blocked, overbook, low_at, version, capacity_version
         FROM pool
         WHERE key >= $1 AND key < $1 || U&'\\+10FFFF' AND key > $2
         ORDER BY key LIMIT $3",
    )
    .bind(prefix)
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// What is sold of each pool of a kind, by key.
pub(crate) async fn sold_of_kind(
    db: &mut PgConnection,
    kind: &str,
) -> Result<Vec<(String, i64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT key, sold FROM pool WHERE key >= $1 || ':' AND key < $1 || ';' ORDER BY key",
    )
    .bind(kind)
    .fetch_all(db)
    .await
}

/// The pool's id, if there is such a pool.
pub(crate) async fn find_pool(
    db: &mut PgConnection,
    key: &PoolKey,
) -> Result<Option<i32>, sqlx::Error> {
    sqlx::query_scalar("SELECT id FROM pool WHERE key = $1")
        .bind(key.as_str())
        .fetch_optional(db)
        .await
}

/// The pool's movements before `before`, newest first.
pub(crate) async fn list_movements(
    db: &mut PgConnection,
    pool: i32,
    before: i64,
    limit: i64,
) -> Result<Vec<Entry>, InventoryError> {
    let rows: Vec<EntryRow> = sqlx::query_as(
        "SELECT version, kind, units, held_after, sold_after, capacity_after, at, effective_at, hold, actor, reason
         FROM movement WHERE pool = $1 AND version < $2
         ORDER BY version DESC LIMIT $3",
    )
    .bind(pool)
    .bind(before)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(EntryRow::read).collect()
}

/// How pools stood at a moment, as told by their books up to the version given for each; those not yet made are left out.
pub(crate) async fn pools_at(
    db: &mut PgConnection,
    at: Timestamp,
    keys: &[&str],
    versions: &[i64],
) -> Result<Vec<Past>, sqlx::Error> {
    sqlx::query_as(
        "SELECT pool.key, book.version, book.held_after, book.sold_after, book.capacity_after,
                since.expired AS expired_since, since.overbook AS overbook_since, since.terms AS terms_since
         FROM unnest($2::text[], $3::int8[]) AS asked (key, version)
         JOIN pool ON pool.key = asked.key
         CROSS JOIN LATERAL (
             (SELECT version, held_after, sold_after, capacity_after FROM movement
              WHERE movement.pool = pool.id AND movement.version <= asked.version AND movement.at <= $1
              ORDER BY version DESC LIMIT 1)
             UNION ALL
             (SELECT version, held, sold, capacity FROM closing
              WHERE closing.pool = pool.id AND closing.until <= $1
              ORDER BY until DESC LIMIT 1)
             ORDER BY version DESC LIMIT 1
         ) AS book
         CROSS JOIN LATERAL (
             SELECT coalesce(sum(units) FILTER (WHERE kind = 4 AND effective_at <= $1), 0)::int8 AS expired,
                    coalesce(sum(units) FILTER (WHERE kind = 8), 0)::int8 AS overbook,
                    count(*) FILTER (WHERE kind IN (7, 8)) AS terms
             FROM movement
             WHERE movement.pool = pool.id AND movement.version > book.version
               AND movement.version <= asked.version
         ) AS since",
    )
    .bind(at.to_sqlx())
    .bind(keys)
    .bind(versions)
    .fetch_all(db)
    .await
}

#[derive(sqlx::FromRow)]
struct EntryRow {
    version: i64,
    kind: i16,
    units: i64,
    held_after: i64,
    sold_after: i64,
    capacity_after: i64,
    at: jiff_sqlx::Timestamp,
    effective_at: Option<jiff_sqlx::Timestamp>,
    hold: Option<Uuid>,
    actor: String,
    reason: String,
}

impl EntryRow {
    fn read(self) -> Result<Entry, InventoryError> {
        let kind = MovementKind::from_code(self.kind).ok_or_else(|| {
            InventoryError::Unreadable(format!("movement.kind of version {}", self.version))
        })?;
        let at = Timestamp::from(self.at);
        Ok(Entry {
            version: self.version,
            kind,
            units: self.units,
            held_after: self.held_after,
            sold_after: self.sold_after,
            capacity_after: self.capacity_after,
            at,
            effective_at: self.effective_at.map_or(at, Timestamp::from),
            hold: self.hold,
            actor: self.actor,
            reason: self.reason,
        })
    }
}

/// What one batch changed.
#[derive(sqlx::FromRow)]
pub(crate) struct Changed {
    pub(crate) at: jiff_sqlx::Timestamp,
    pub(crate) pools: Vec<i32>,
    pub(crate) low: Vec<i32>,
    pub(crate) expired: Vec<Uuid>,
    pub(crate) granted: Vec<Uuid>,
}

/// A pool as it is told to others.
#[derive(sqlx::FromRow)]
pub(crate) struct PoolState {
    pub(crate) id: i32,
    pub(crate) key: String,
    pub(crate) capacity: i64,
    pub(crate) held: i64,
    pub(crate) sold: i64,
    pub(crate) blocked: i64,
    pub(crate) overbook: i64,
    pub(crate) low_at: Option<i64>,
    pub(crate) version: i64,
    pub(crate) capacity_version: i64,
}

impl PoolState {
    pub(crate) fn available(&self) -> i64 {
        self.capacity + self.overbook - self.held - self.sold - self.blocked
    }
}

/// A hold whose time is over.
#[derive(sqlx::FromRow)]
pub(crate) struct ExpiredHold {
    pub(crate) id: Uuid,
    pub(crate) reference: String,
    pub(crate) expires_at: jiff_sqlx::Timestamp,
    /// Whether it had been granted to a request in line, which was told.
    pub(crate) was_granted: bool,
}

/// A hold that a request in line was granted.
#[derive(sqlx::FromRow)]
pub(crate) struct GrantedHold {
    pub(crate) id: Uuid,
    pub(crate) reference: String,
    pub(crate) account: String,
    pub(crate) expires_at: jiff_sqlx::Timestamp,
    pub(crate) taken: Vec<u8>,
    /// Keys of its pools, and units of each.
    pub(crate) pools: Vec<String>,
    pub(crate) units: Vec<i64>,
}

/// Takes the oldest batches' changes away. They come back if the transaction does not commit.
pub(crate) async fn take_changes(
    db: &mut PgConnection,
    limit: i64,
) -> Result<Vec<Changed>, sqlx::Error> {
    sqlx::query_as(
        "DELETE FROM change WHERE id = ANY (ARRAY(SELECT id FROM change ORDER BY id LIMIT $1))
         RETURNING at, pools, low, expired, granted",
    )
    .bind(limit)
    .fetch_all(db)
    .await
}

/// These pools as they are.
pub(crate) async fn pool_states(
    db: &mut PgConnection,
    pools: &[i32],
) -> Result<Vec<PoolState>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, key, capacity, held, sold, blocked, overbook, low_at, version, capacity_version
         FROM pool WHERE id = ANY($1) ORDER BY id",
    )
    .bind(pools)
    .fetch_all(db)
    .await
}

/// Those of these holds that are expired and nothing else.
pub(crate) async fn expired_holds(
    db: &mut PgConnection,
    holds: &[Uuid],
) -> Result<Vec<ExpiredHold>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, reference, expires_at,
                cardinality(pools) > 0 AND EXISTS (SELECT FROM stand WHERE stand.id = hold.id) AS was_granted
         FROM hold WHERE id = ANY($1) AND state = 4",
    )
    .bind(holds)
    .fetch_all(db)
    .await
}

/// These holds, whatever has become of them since they were granted.
pub(crate) async fn granted_holds(
    db: &mut PgConnection,
    holds: &[Uuid],
) -> Result<Vec<GrantedHold>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, reference, account, expires_at, taken, units,
                ARRAY(SELECT pool.key FROM unnest(hold.pools) WITH ORDINALITY AS line (pool, place)
                      JOIN pool ON pool.id = line.pool ORDER BY line.place) AS pools
         FROM hold WHERE id = ANY($1)",
    )
    .bind(holds)
    .fetch_all(db)
    .await
}

/// A pool's head as it was sealed.
#[derive(sqlx::FromRow)]
pub(crate) struct Checkpoint {
    pub(crate) pool: i32,
    pub(crate) key: String,
    pub(crate) version: i64,
    pub(crate) head: Vec<u8>,
    pub(crate) at: jiff_sqlx::Timestamp,
    pub(crate) seal: Vec<u8>,
}

/// The heads of pools that have moved since their last checkpoint, without seals.
pub(crate) async fn unsealed_heads(
    db: &mut PgConnection,
    after: i32,
    limit: i64,
) -> Result<Vec<Checkpoint>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id AS pool, key, version, chain_head AS head, clock_timestamp() AS at, ''::bytea AS seal
         FROM pool
         WHERE id > $1
           AND version > coalesce((SELECT max(version) FROM checkpoint WHERE checkpoint.pool = pool.id), 0)
         ORDER BY id LIMIT $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Writes sealed heads; who was faster has written the same.
pub(crate) async fn insert_checkpoints(
    db: &mut PgConnection,
    checkpoints: &[Checkpoint],
) -> Result<(), sqlx::Error> {
    let pools: Vec<i32> = checkpoints
        .iter()
        .map(|checkpoint| checkpoint.pool)
        .collect();
    let versions: Vec<i64> = checkpoints
        .iter()
        .map(|checkpoint| checkpoint.version)
        .collect();
    let heads: Vec<&[u8]> = checkpoints
        .iter()
        .map(|checkpoint| &checkpoint.head[..])
        .collect();
    let ats: Vec<jiff_sqlx::Timestamp> =
        checkpoints.iter().map(|checkpoint| checkpoint.at).collect();
    let seals: Vec<&[u8]> = checkpoints
        .iter()
        .map(|checkpoint| &checkpoint.seal[..])
        .collect();
    sqlx::query(
        "INSERT INTO checkpoint (pool, version, head, at, seal)
         SELECT pool, version, head, at, seal
         FROM unnest($1::int4[], $2::int8[], $3::bytea[], $4::timestamptz[], $5::bytea[])
              AS sealed (pool, version, head, at, seal)
         ON CONFLICT (pool, version) DO NOTHING",
    )
    .bind(pools)
    .bind(versions)
    .bind(heads)
    .bind(ats)
    .bind(seals)
    .execute(db)
    .await?;
    Ok(())
}

/// Moves up the moment before which no live hold was born.
///
/// A hold that is live later is live now, or is born no earlier than the batch that is being written now; an hour is far
/// longer than any batch takes.
pub(crate) async fn raise_birth_floor(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE birth_floor
         SET live_since = greatest(live_since, least(
             (SELECT at FROM fence WHERE fence.id = 1) - interval '1 hour',
             (SELECT min(born_at) FROM hold WHERE state = 1 AND born_at >= birth_floor.live_since)))
         WHERE id = 1",
    )
    .execute(db)
    .await?;
    Ok(())
}

/// From where to where books are proved.
#[derive(sqlx::FromRow)]
pub(crate) struct Ground {
    /// The ledger's time of the newest batch. Others may still be written at this very moment, none before it.
    pub(crate) open_at: jiff_sqlx::Timestamp,
    /// Since when movements are kept; `None`: since ever.
    pub(crate) kept_since: Option<jiff_sqlx::Timestamp>,
}

/// A pool as all its movements before a month left it.
#[derive(sqlx::FromRow)]
pub(crate) struct Closing {
    pub(crate) pool: i32,
    pub(crate) until: jiff_sqlx::Timestamp,
    pub(crate) version: i64,
    pub(crate) head: Vec<u8>,
    pub(crate) capacity: i64,
    pub(crate) held: i64,
    pub(crate) sold: i64,
    pub(crate) overbook: i64,
    pub(crate) at: jiff_sqlx::Timestamp,
    pub(crate) seal: Vec<u8>,
}

/// A pool as the auditor reads it.
#[derive(sqlx::FromRow)]
pub(crate) struct AuditedPool {
    pub(crate) id: i32,
    pub(crate) key: String,
    pub(crate) capacity: i64,
    pub(crate) held: i64,
    pub(crate) sold: i64,
    pub(crate) blocked: i64,
    pub(crate) overbook: i64,
    pub(crate) version: i64,
    pub(crate) chain_head: Vec<u8>,
}

/// A movement as the auditor reads it.
#[derive(sqlx::FromRow)]
pub(crate) struct AuditedMovement {
    pub(crate) pool: i32,
    pub(crate) version: i64,
    pub(crate) kind: i16,
    pub(crate) units: i64,
    pub(crate) held_after: i64,
    pub(crate) sold_after: i64,
    pub(crate) capacity_after: i64,
    pub(crate) at: jiff_sqlx::Timestamp,
    pub(crate) effective_at: Option<jiff_sqlx::Timestamp>,
    pub(crate) hold: Option<Uuid>,
    pub(crate) actor: String,
    pub(crate) reason: String,
    pub(crate) hash: Vec<u8>,
}

/// A hold as the auditor reads it.
#[derive(sqlx::FromRow)]
pub(crate) struct AuditedHold {
    pub(crate) id: Uuid,
    pub(crate) state: i16,
    pub(crate) born_at: jiff_sqlx::Timestamp,
    pub(crate) pools: Vec<i32>,
    pub(crate) units: Vec<i64>,
    pub(crate) returned: Vec<i64>,
}

/// Versions of some pools' books: behind `after[i]` and up to `last[i]` of pool `pools[i]`.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    pub(crate) pools: Vec<i32>,
    pub(crate) after: Vec<i64>,
    pub(crate) last: Vec<i64>,
}

impl Pages {
    pub(crate) fn push(&mut self, pool: i32, after: i64, last: i64) {
        self.pools.push(pool);
        self.after.push(after);
        self.last.push(last);
    }
}

// What follows reads by key and in bounded slices, so that none of its snapshots lives long. LATERAL with LIMIT says to
// the planner what is known here: few of many rows, each found by an index.

/// From where to where books are to be proved.
pub(crate) async fn audit_ground(db: &mut PgConnection) -> Result<Ground, sqlx::Error> {
    sqlx::query_as(
        "SELECT fence.at AS open_at, movement_floor.kept_since
         FROM fence, movement_floor WHERE fence.id = 1 AND movement_floor.id = 1",
    )
    .fetch_one(db)
    .await
}

/// Since when movements are kept, when some were dropped.
pub(crate) async fn kept_since(db: &mut PgConnection) -> Result<Option<Timestamp>, sqlx::Error> {
    let since: Option<jiff_sqlx::Timestamp> =
        sqlx::query_scalar("SELECT kept_since FROM movement_floor WHERE id = 1")
            .fetch_one(db)
            .await?;
    Ok(since.map(Timestamp::from))
}

/// The next pools by id.
pub(crate) async fn audit_pools(
    db: &mut PgConnection,
    after: i32,
    limit: i64,
) -> Result<Vec<AuditedPool>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, key, capacity, held, sold, blocked, overbook, version, chain_head
         FROM pool WHERE id > $1 ORDER BY id LIMIT $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// What these pools' books begin with: the newest closing of each that is no later than `kept_since`.
pub(crate) async fn audit_closings(
    db: &mut PgConnection,
    pools: &[i32],
    kept_since: Timestamp,
) -> Result<Vec<Closing>, sqlx::Error> {
    sqlx::query_as(
        "SELECT newest.pool, newest.until, newest.version, newest.head, newest.capacity, newest.held, newest.sold,
                newest.overbook, newest.at, newest.seal
         FROM unnest($1::int4[]) AS asked (pool)
         CROSS JOIN LATERAL (
             SELECT pool, until, version, head, capacity, held, sold, overbook, at, seal FROM closing
             WHERE closing.pool = asked.pool AND closing.until <= $2
             ORDER BY until DESC LIMIT 1
         ) AS newest",
    )
    .bind(pools)
    .bind(kept_since.to_sqlx())
    .fetch_all(db)
    .await
}

/// Of these pools, those of which a later version was sealed than they stand at, and which.
pub(crate) async fn audit_cut_off(
    db: &mut PgConnection,
    pools: &[i32],
) -> Result<Vec<(String, i64, i64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT pool.key, pool.version, sealed.version
         FROM pool CROSS JOIN LATERAL (
             SELECT version FROM checkpoint
             WHERE checkpoint.pool = pool.id AND checkpoint.version > pool.version
             ORDER BY version DESC LIMIT 1
         ) AS sealed
         WHERE pool.id = ANY($1) ORDER BY pool.id",
    )
    .bind(pools)
    .fetch_all(db)
    .await
}

/// Of these pools, those whose book goes further than they do.
pub(crate) async fn audit_overruns(
    db: &mut PgConnection,
    pools: &[i32],
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT pool.key
         FROM pool CROSS JOIN LATERAL (
             SELECT 1 FROM movement
             WHERE movement.pool = pool.id AND movement.version > pool.version
             ORDER BY version LIMIT 1
         ) AS stray
         WHERE pool.id = ANY($1) ORDER BY pool.id",
    )
    .bind(pools)
    .fetch_all(db)
    .await
}

/// Ids between `above[i]` and `below[i]`, one of each range, that movements name and no pool has.
pub(crate) async fn audit_orphans(
    db: &mut PgConnection,
    above: &[i32],
    below: &[i32],
) -> Result<Vec<i32>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT orphan.pool
         FROM unnest($1::int4[], $2::int4[]) AS gap (above, below)
         CROSS JOIN LATERAL (
             SELECT pool FROM movement
             WHERE movement.pool > gap.above AND movement.pool < gap.below
               AND NOT EXISTS (SELECT FROM pool WHERE pool.id = movement.pool)
             ORDER BY pool LIMIT 1
         ) AS orphan",
    )
    .bind(above)
    .bind(below)
    .fetch_all(db)
    .await
}

/// The sealed heads on these pages, by pool and version.
pub(crate) async fn audit_checkpoints(
    db: &mut PgConnection,
    pages: &Pages,
) -> Result<Vec<Checkpoint>, sqlx::Error> {
    sqlx::query_as(
        "SELECT sealed.pool, pool.key, sealed.version, sealed.head, sealed.at, sealed.seal
         FROM unnest($1::int4[], $2::int8[], $3::int8[]) AS page (pool, after, last)
         JOIN pool ON pool.id = page.pool
         CROSS JOIN LATERAL (
             SELECT pool, version, head, at, seal FROM checkpoint
             WHERE checkpoint.pool = page.pool AND checkpoint.version > page.after AND checkpoint.version <= page.last
             ORDER BY version LIMIT page.last - page.after
         ) AS sealed
         ORDER BY sealed.pool, sealed.version",
    )
    .bind(&pages.pools)
    .bind(&pages.after)
    .bind(&pages.last)
    .fetch_all(db)
    .await
}

/// The movements on these pages, by pool and version.
pub(crate) async fn audit_movements(
    db: &mut PgConnection,
    pages: &Pages,
) -> Result<Vec<AuditedMovement>, sqlx::Error> {
    sqlx::query_as(
        "SELECT entry.pool, entry.version, entry.kind, entry.units, entry.held_after, entry.sold_after,
                entry.capacity_after, entry.at, entry.effective_at, entry.hold, entry.actor, entry.reason, entry.hash
         FROM unnest($1::int4[], $2::int8[], $3::int8[]) AS page (pool, after, last)
         CROSS JOIN LATERAL (
             SELECT pool, version, kind, units, held_after, sold_after, capacity_after, at, effective_at, hold, actor,
                    reason, hash
             FROM movement
             WHERE movement.pool = page.pool AND movement.version > page.after AND movement.version <= page.last
             ORDER BY version LIMIT page.last - page.after
         ) AS entry
         ORDER BY entry.pool, entry.version",
    )
    .bind(&pages.pools)
    .bind(&pages.after)
    .bind(&pages.last)
    .fetch_all(db)
    .await
}

/// The next holds by id.
pub(crate) async fn audit_holds(
    db: &mut PgConnection,
    after: Uuid,
    limit: i64,
) -> Result<Vec<AuditedHold>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, state, born_at, pools, units, returned FROM hold WHERE id > $1 ORDER BY id LIMIT $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// These holds and the versions of these pools at one moment.
pub(crate) async fn audit_claims(
    db: &mut PgConnection,
    holds: &[Uuid],
    pools: &[i32],
) -> Result<(Vec<AuditedHold>, Vec<(i32, i64)>), sqlx::Error> {
    let mut moment = db
        .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await?;
    let holds = sqlx::query_as(
        "SELECT id, state, born_at, pools, units, returned FROM hold WHERE id = ANY($1)",
    )
    .bind(holds)
    .fetch_all(&mut *moment)
    .await?;
    let versions = pool_versions(&mut moment, pools).await?;
    moment.commit().await?;
    Ok((holds, versions))
}

/// The versions that these pools stand at.
pub(crate) async fn pool_versions(
    db: &mut PgConnection,
    pools: &[i32],
) -> Result<Vec<(i32, i64)>, sqlx::Error> {
    sqlx::query_as("SELECT id, version FROM pool WHERE id = ANY($1)")
        .bind(pools)
        .fetch_all(db)
        .await
}

/// Those of these holds that this page of a pool's book knows as born.
pub(crate) async fn audit_births(
    db: &mut PgConnection,
    pool: i32,
    after: i64,
    last: i64,
    holds: &[Uuid],
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT hold FROM movement
         WHERE pool = $1 AND version > $2 AND version <= $3 AND kind = 1 AND hold = ANY($4)",
    )
    .bind(pool)
    .bind(after)
    .bind(last)
    .bind(holds)
    .fetch_all(db)
    .await
}

/// Holds born later than the newest batch was written, which cannot be.
pub(crate) async fn audit_unborn(
    db: &mut PgConnection,
    limit: i64,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT id FROM hold WHERE born_at > (SELECT at FROM fence WHERE fence.id = 1) LIMIT $1",
    )
    .bind(limit)
    .fetch_all(db)
    .await
}

/// A request that stands or stood in line, and the hold of its id, as the auditor reads them.
#[derive(sqlx::FromRow)]
pub(crate) struct AuditedStand {
    pub(crate) id: Uuid,
    pub(crate) standing: bool,
    pub(crate) groups: Vec<i16>,
    pub(crate) alternatives: Vec<i16>,
    pub(crate) pools: Vec<i32>,
    pub(crate) units: Vec<i64>,
    /// `None`: there is no such hold.
    pub(crate) held_pools: Option<Vec<i32>>,
    pub(crate) held_units: Option<Vec<i64>>,
    pub(crate) taken: Option<Vec<u8>>,
}

/// The next requests that stand or stood in line by id, each at one moment with its hold.
pub(crate) async fn audit_stands(
    db: &mut PgConnection,
    after: Uuid,
    limit: i64,
) -> Result<Vec<AuditedStand>, sqlx::Error> {
    sqlx::query_as(
        "SELECT stand.id, stand.standing, stand.groups, stand.alternatives, stand.pools, stand.units,
                hold.pools AS held_pools, hold.units AS held_units, hold.taken
         FROM stand LEFT JOIN LATERAL (
             SELECT pools, units, taken FROM hold WHERE hold.id = stand.id LIMIT 1
         ) AS hold ON true
         WHERE stand.id > $1 ORDER BY stand.id LIMIT $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Whether a hold born before `kept_since` has moved units of this pool behind version `after`.
pub(crate) async fn audit_old_holds_moved(
    db: &mut PgConnection,
    pool: i32,
    after: i64,
    kept_since: Timestamp,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (
             SELECT FROM movement JOIN hold ON hold.id = movement.hold
             WHERE movement.pool = $1 AND movement.version > $2 AND hold.born_at < $3
         )",
    )
    .bind(pool)
    .bind(after)
    .bind(kept_since.to_sqlx())
    .fetch_one(db)
    .await
}

/// The moment before which no live hold was born.
pub(crate) async fn live_since(db: &mut PgConnection) -> Result<Timestamp, sqlx::Error> {
    let since: jiff_sqlx::Timestamp =
        sqlx::query_scalar("SELECT live_since FROM birth_floor WHERE id = 1")
            .fetch_one(db)
            .await?;
    Ok(since.into())
}

/// Whether there is a month of movements that ends no later than `cut`.
pub(crate) async fn has_months_before(
    db: &mut PgConnection,
    cut: Timestamp,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM movement_month WHERE until <= $1)")
        .bind(cut.to_sqlx())
        .fetch_one(db)
        .await
}

/// Of the next pools by id, those with movements before `cut` and without a closing there: the version to close at.
/// With it the last id looked at; `None` behind the last pool.
pub(crate) async fn unclosed_pools(
    db: &mut PgConnection,
    after: i32,
    limit: i64,
    cut: Timestamp,
) -> Result<Option<(i32, Vec<(i32, i64)>)>, sqlx::Error> {
    let rows: Vec<(i32, Option<i64>)> = sqlx::query_as(
        "SELECT pool.id, newest.version
         FROM (SELECT id FROM pool WHERE id > $1 ORDER BY id LIMIT $2) AS pool
         LEFT JOIN LATERAL (
             SELECT version FROM movement
             WHERE movement.pool = pool.id AND movement.at < $3
               AND NOT EXISTS (SELECT FROM closing WHERE closing.pool = pool.id AND closing.until = $3)
             ORDER BY version DESC LIMIT 1
         ) AS newest ON true
         ORDER BY pool.id",
    )
    .bind(after)
    .bind(limit)
    .bind(cut.to_sqlx())
    .fetch_all(db)
    .await?;
    Ok(rows.last().map(|last| {
        let unclosed = rows
            .iter()
            .filter_map(|(pool, version)| Some((*pool, (*version)?)));
        (last.0, unclosed.collect())
    }))
}

/// This pool as the auditor reads it.
pub(crate) async fn audit_pool(
    db: &mut PgConnection,
    pool: i32,
) -> Result<AuditedPool, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, key, capacity, held, sold, blocked, overbook, version, chain_head FROM pool WHERE id = $1",
    )
    .bind(pool)
    .fetch_one(db)
    .await
}

/// Writes a pool's closing; who was faster has written the same.
pub(crate) async fn insert_closing(
    db: &mut PgConnection,
    closing: &Closing,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO closing (pool, until, version, head, capacity, held, sold, overbook, at, seal)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (pool, until) DO NOTHING",
    )
    .bind(closing.pool)
    .bind(closing.until)
    .bind(closing.version)
    .bind(&closing.head)
    .bind(closing.capacity)
    .bind(closing.held)
    .bind(closing.sold)
    .bind(closing.overbook)
    .bind(closing.at)
    .bind(&closing.seal)
    .execute(db)
    .await?;
    Ok(())
}

/// Drops the months of movements before `cut`; their names.
pub(crate) async fn drop_movement_months(
    db: &mut PgConnection,
    cut: Timestamp,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT unnest(drop_movement_months($1))")
        .bind(cut.to_sqlx())
        .fetch_all(db)
        .await
}

/// The database's time.
pub(crate) async fn database_now(db: &mut PgConnection) -> Result<Timestamp, sqlx::Error> {
    let now: jiff_sqlx::Timestamp = sqlx::query_scalar("SELECT clock_timestamp()")
        .fetch_one(db)
        .await?;
    Ok(now.into())
}
