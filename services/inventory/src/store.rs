//! Every statement outside the writer: what is read of the books, and what follows from them.

use holdfast_kernel::{PoolKey, Timestamp};
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
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
             SELECT version, held_after, sold_after, capacity_after FROM movement
             WHERE movement.pool = pool.id AND movement.version <= asked.version AND movement.at <= $1
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
}

/// Takes the oldest batches' changes away. They come back if the transaction does not commit.
pub(crate) async fn take_changes(
    db: &mut PgConnection,
    limit: i64,
) -> Result<Vec<Changed>, sqlx::Error> {
    sqlx::query_as(
        "DELETE FROM change WHERE id = ANY (ARRAY(SELECT id FROM change ORDER BY id LIMIT $1))
         RETURNING at, pools, low, expired",
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
    sqlx::query_as("SELECT id, reference, expires_at FROM hold WHERE id = ANY($1) AND state = 4")
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
    pub(crate) pools: Vec<i32>,
    pub(crate) units: Vec<i64>,
    pub(crate) returned: Vec<i64>,
}

/// A pool whose counters are not the sum of what holds own there.
#[derive(sqlx::FromRow)]
pub(crate) struct Drift {
    pub(crate) key: String,
    pub(crate) room: i64,
    pub(crate) held: i64,
    pub(crate) sold: i64,
    pub(crate) held_by_holds: i64,
    pub(crate) sold_to_holds: i64,
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

/// The checkpoints of pools with ids from `after` to `last`, oldest first.
pub(crate) async fn audit_checkpoints(
    db: &mut PgConnection,
    after: i32,
    limit: i64,
) -> Result<Vec<Checkpoint>, sqlx::Error> {
    sqlx::query_as(
        "SELECT checkpoint.pool, pool.key, checkpoint.version, checkpoint.head, checkpoint.at, checkpoint.seal
         FROM checkpoint JOIN pool ON pool.id = checkpoint.pool
         WHERE checkpoint.pool = ANY (ARRAY(SELECT id FROM pool WHERE id > $1 ORDER BY id LIMIT $2))
         ORDER BY checkpoint.pool, checkpoint.version",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// The next movements of a pool, in order, up to version `last`.
pub(crate) async fn audit_movements(
    db: &mut PgConnection,
    pool: i32,
    after: i64,
    last: i64,
    limit: i64,
) -> Result<Vec<AuditedMovement>, sqlx::Error> {
    sqlx::query_as(
        "SELECT version, kind, units, held_after, sold_after, capacity_after, at, effective_at, hold, actor, reason, hash
         FROM movement WHERE pool = $1 AND version > $2 AND version <= $3
         ORDER BY version LIMIT $4",
    )
    .bind(pool)
    .bind(after)
    .bind(last)
    .bind(limit)
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
        "SELECT id, state, pools, units, returned FROM hold WHERE id > $1 ORDER BY id LIMIT $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Movements that go further than their pool says, and movements of no pool.
pub(crate) async fn audit_strays(db: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT DISTINCT coalesce(pool.key, 'pool ' || movement.pool)
         FROM movement LEFT JOIN pool ON pool.id = movement.pool
         WHERE pool.id IS NULL OR movement.version > pool.version
         ORDER BY 1 LIMIT 100",
    )
    .fetch_all(db)
    .await
}

/// Pools whose counters are not the sum of what holds own there, in one look at all of them.
pub(crate) async fn audit_owners(db: &mut PgConnection) -> Result<Vec<Drift>, sqlx::Error> {
    sqlx::query_as(
        "SELECT pool.key, pool.capacity + pool.overbook - pool.blocked AS room, pool.held, pool.sold,
                coalesce(owned.held, 0)::int8 AS held_by_holds, coalesce(owned.sold, 0)::int8 AS sold_to_holds
         FROM pool LEFT JOIN (
             SELECT line.pool, sum(line.units) FILTER (WHERE hold.state = 1) AS held,
                    sum(line.units - coalesce(line.returned, 0)) FILTER (WHERE hold.state = 2) AS sold
             FROM hold CROSS JOIN LATERAL unnest(hold.pools, hold.units, hold.returned) AS line (pool, units, returned)
             WHERE hold.state IN (1, 2)
             GROUP BY line.pool
         ) AS owned ON owned.pool = pool.id
         WHERE pool.held <> coalesce(owned.held, 0) OR pool.sold <> coalesce(owned.sold, 0)
         ORDER BY pool.id",
    )
    .fetch_all(db)
    .await
}
