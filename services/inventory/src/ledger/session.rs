//! The writer's one connection, and everything it reads there.
//!
//! One connection, because only on one do batches have an order. Statements run outside transactions: each is its own.

use std::{sync::Arc, time::Duration};

use holdfast_kernel::{PoolKey, RequestId, Timestamp};
use tokio_postgres::{Client, Error, Row, Statement, error::SqlState};
use uuid::Uuid;

use super::{
    book::{HeldLine, HoldEntry, PoolEntry, PoolId, Sought, StandEntry},
    chain::Head,
    connect::connect,
    form::Forms,
};
use crate::domain::{Balance, Fingerprint, HoldId, HoldState, Name};

/// Longest run of one statement.
const STATEMENT_TIMEOUT_SECS: u64 = 10;

/// One plan for ever, made of index look-ups: arrays of any length must not talk the planner into anything else.
const SETTINGS: &str = "
    SET plan_cache_mode = force_generic_plan;
    SET enable_hashjoin = off;
    SET enable_mergejoin = off;
    SET enable_seqscan = off;
    SET jit = off;
    SET max_parallel_workers_per_gather = 0";

/// What `read_pool` reads.
const POOLS: &str = "
    SELECT id, key, capacity, held, sold, blocked, overbook, low_at, low, version, capacity_version, chain_head
    FROM pool";
/// What `read_hold` reads.
const HOLDS: &str = "
    SELECT id, state, version, expires_at, born_at, epoch, account, reference, pools, units, returned, taken
    FROM hold";

/// What `read_stand` reads.
const STANDS: &str = "
    SELECT id, place, expires_at, ttl_micros, account, actor, reference, groups, alternatives, pools, units
    FROM stand";

pub(super) struct Session {
    pub(super) client: Client,
    /// The one that writes, in its forms.
    pub(super) forms: Forms,
    reads: Reads,
}

/// What is read while callers wait, prepared once: a text would be prepared with each call, which is a round trip more.
struct Reads {
    pools_by_id: Statement,
    pools_by_key: Statement,
    holds: Statement,
    requests: Statement,
    moved_holds: Statement,
    committed_seq: Statement,
}

/// Why the database did not do what it was sent.
#[derive(Debug)]
pub(super) enum Failure {
    /// It refused this statement: something was not as the writer believed. Nothing of the statement was done.
    Refused(Error),
    /// The connection, the server or the disk failed: what was sent may have been done or not.
    Lost(Error),
    /// It answered with something that cannot be.
    Unreadable(String),
    /// Nothing was sent: the way to it, as its URL describes it, leads nowhere.
    Unreachable(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        const REFUSALS: [SqlState; 6] = [
            // The guards.
            SqlState::DIVISION_BY_ZERO,
            SqlState::UNIQUE_VIOLATION,
            SqlState::CHECK_VIOLATION,
            // Another writer at the same rows.
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::NOT_NULL_VIOLATION,
        ];
        match error.code() {
            Some(code) if REFUSALS.contains(code) => Self::Refused(error),
            _ => Self::Lost(error),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(error) | Self::Lost(error) => match error.as_db_error() {
                Some(answer) => write!(f, "{}: {}", answer.code().code(), answer.message()),
                None => error.fmt(f),
            },
            Self::Unreadable(text) | Self::Unreachable(text) => f.write_str(text),
        }
    }
}

/// The right to write, as the database granted it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    pub(super) epoch: i64,
    /// The ledger's time of the last batch before.
    pub(super) last: Timestamp,
    /// The database's time.
    pub(super) database: Timestamp,
}

impl Session {
    /// Connects and prepares what is asked again and again.
    pub(super) async fn open(url: &str, statement: &str) -> Result<Self, Failure> {
        let client = connect(url).await?;
        client
            .batch_execute(&format!(
                "{SETTINGS}; SET statement_timeout = '{STATEMENT_TIMEOUT_SECS}s'"
            ))
            .await?;
        let (forms, reads) =
            tokio::try_join!(Forms::prepare(&client, statement), Reads::prepare(&client))?;
        Ok(Self {
            client,
            forms,
            reads,
        })
    }

    /// Becomes the writer, if nobody else is: when the lease is `lease` old or ours, or its holder's connection is gone
    /// and the holder cannot speak from memory any more, `vouched` after its last sign of life. Others learn that we are
    /// reached at `url`.
    pub(super) async fn take_lease(
        &self,
        holder: Uuid,
        lease: Duration,
        vouched: Duration,
        url: Option<&str>,
    ) -> Result<Option<Lease>, Failure> {
        let (lease_secs, vouched_secs) = (lease.as_secs_f64(), vouched.as_secs_f64());
        let row = self
            .client
            .query_opt(
                "UPDATE fence SET epoch = epoch + 1, seq = 0, holder = $1, backend_pid = pg_backend_pid(),
                        backend_born = (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()),
                        renewed_at = clock_timestamp(), url = $4
                 WHERE id = 1
                   AND (holder = $1 OR renewed_at <= clock_timestamp() - make_interval(secs => $2::float8)
                        OR (renewed_at <= clock_timestamp() - make_interval(secs => $3::float8)
                            AND NOT EXISTS (SELECT FROM pg_stat_activity
                                            WHERE pid = backend_pid AND backend_start = backend_born)))
                 RETURNING epoch, at, clock_timestamp()",
                &[&holder, &lease_secs, &vouched_secs, &url],
            )
            .await?;
        let lease = row.map(|row| {
            Ok::<_, Error>(Lease {
                epoch: row.try_get(0)?,
                last: row.try_get(1)?,
                database: row.try_get(2)?,
            })
        });
        Ok(lease.transpose()?)
    }

    /// Where the process is reached that holds the lease, if it is.
    pub(super) async fn writer_url(&self) -> Result<Option<Arc<str>>, Failure> {
        let row = self
            .client
            .query_one("SELECT url FROM fence WHERE id = 1", &[])
            .await?;
        let url: Option<&str> = row.try_get(0)?;
        Ok(url.map(Arc::from))
    }

    /// Lets another process become the writer at once.
    pub(super) async fn give_up_lease(&self, epoch: i64) -> Result<(), Failure> {
        self.client
            .execute(
                "UPDATE fence SET renewed_at = '-infinity' WHERE id = 1 AND epoch = $1",
                &[&epoch],
            )
            .await?;
        Ok(())
    }

    /// The number of the last batch that committed, if this epoch still is the one that may write.
    pub(super) async fn committed_seq(&self, epoch: i64) -> Result<Option<i64>, Failure> {
        let row = self
            .client
            .query_opt(&self.reads.committed_seq, &[&epoch])
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// Has the movement partitions made that a batch at `now` and in the two months after it needs.
    pub(super) async fn make_partitions(&self, now: Timestamp) -> Result<Timestamp, Failure> {
        let row = self
            .client
            .query_one("SELECT make_movement_partitions($1)", &[&now])
            .await?;
        Ok(row.try_get(0)?)
    }

    /// An id above every pool's.
    pub(super) async fn next_pool(&self) -> Result<i32, Failure> {
        let row = self
            .client
            .query_one("SELECT coalesce(max(id), 0) + 1 FROM pool", &[])
            .await?;
        Ok(row.try_get(0)?)
    }

    /// The pools with these ids or keys, as far as there are any.
    pub(super) async fn pools(
        &self,
        ids: &[PoolId],
        keys: &[PoolKey],
    ) -> Result<Vec<(PoolId, PoolEntry)>, Failure> {
        let mut rows = Vec::new();
        if !ids.is_empty() {
            let ids: Vec<i32> = ids.iter().map(|id| id.0).collect();
            rows = self.client.query(&self.reads.pools_by_id, &[&ids]).await?;
        }
        if !keys.is_empty() {
            let keys: Vec<&str> = keys.iter().map(PoolKey::as_str).collect();
            let found = self
                .client
                .query(&self.reads.pools_by_key, &[&keys])
                .await?;
            rows.extend(found);
        }
        rows.iter().map(read_pool).collect()
    }

    /// The holds with these ids, as far as there are any.
    pub(super) async fn holds(&self, ids: &[HoldId]) -> Result<Vec<(HoldId, HoldEntry)>, Failure> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
        let rows = self.client.query(&self.reads.holds, &[&ids]).await?;
        rows.iter().map(read_hold).collect()
    }

    /// Every live hold.
    pub(super) async fn live_holds(&self) -> Result<Vec<(HoldId, HoldEntry)>, Failure> {
        let live = format!(
            "{HOLDS} WHERE state = 1 AND born_at >= (SELECT live_since FROM birth_floor WHERE id = 1)"
        );
        let rows = self.client.query(&live, &[]).await?;
        rows.iter().map(read_hold).collect()
    }

    /// A place behind everybody who stands or ever stood in line.
    pub(super) async fn next_place(&self) -> Result<i64, Failure> {
        let row = self
            .client
            .query_one("SELECT coalesce(max(place), 0) + 1 FROM stand", &[])
            .await?;
        Ok(row.try_get(0)?)
    }

    /// Every request that stands in line.
    pub(super) async fn all_stands(&self) -> Result<Vec<(HoldId, StandEntry)>, Failure> {
        let all = format!("{STANDS} WHERE standing ORDER BY place");
        let rows = self.client.query(&all, &[]).await?;
        rows.iter().map(read_stand).collect()
    }

    /// Those of these requests that stand in line.
    pub(super) async fn stands(
        &self,
        ids: &[HoldId],
    ) -> Result<Vec<(HoldId, StandEntry)>, Failure> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
        // Only after a failure, so it is not kept prepared.
        let some = format!("{STANDS} WHERE id = ANY($1) AND standing");
        let rows = self.client.query(&some, &[&ids]).await?;
        rows.iter().map(read_stand).collect()
    }

    /// What these requests did, as far as they were done.
    pub(super) async fn requests(
        &self,
        ids: &[RequestId],
    ) -> Result<Vec<(RequestId, Fingerprint)>, Failure> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
        let rows = self.client.query(&self.reads.requests, &[&ids]).await?;
        rows.iter()
            .map(|row| {
                let id: Uuid = row.try_get(0)?;
                Ok((RequestId::new(id), hash(row, 1, "request.fingerprint")?))
            })
            .collect()
    }

    /// The holds that movements of a pool behind this version name.
    pub(super) async fn holds_moved_since(
        &self,
        pool: PoolId,
        version: i64,
    ) -> Result<Vec<HoldId>, Failure> {
        let rows = self
            .client
            .query(&self.reads.moved_holds, &[&pool.0, &version])
            .await?;
        rows.iter()
            .map(|row| Ok(HoldId::new(row.try_get(0)?)))
            .collect()
    }
}

impl Reads {
    async fn prepare(client: &Client) -> Result<Self, Error> {
        let pools_by_id = format!("{POOLS} WHERE id = ANY($1)");
        let pools_by_key = format!("{POOLS} WHERE key = ANY($1)");
        let holds = format!("{HOLDS} WHERE id = ANY($1)");
        let requests = "SELECT id, fingerprint FROM request WHERE id = ANY($1)";
        let moved_holds = "
            SELECT DISTINCT hold FROM movement WHERE pool = $1 AND version > $2 AND hold IS NOT NULL";
        let committed_seq = "SELECT seq FROM fence WHERE id = 1 AND epoch = $1";
        let (pools_by_id, pools_by_key, holds, requests, moved_holds, committed_seq) = tokio::try_join!(
            client.prepare(&pools_by_id),
            client.prepare(&pools_by_key),
            client.prepare(&holds),
            client.prepare(requests),
            client.prepare(moved_holds),
            client.prepare(committed_seq),
        )?;
        Ok(Self {
            pools_by_id,
            pools_by_key,
            holds,
            requests,
            moved_holds,
            committed_seq,
        })
    }
}

fn read_pool(row: &Row) -> Result<(PoolId, PoolEntry), Failure> {
    let id: i32 = row.try_get(0)?;
    let key: &str = row.try_get(1)?;
    let entry = PoolEntry {
        key: key
            .parse()
            .map_err(|error| Failure::Unreadable(format!("pool.key of pool {id}: {error}")))?,
        balance: Balance {
            capacity: row.try_get(2)?,
            held: row.try_get(3)?,
            sold: row.try_get(4)?,
            overbook: row.try_get(6)?,
        },
        blocked: row.try_get(5)?,
        low_at: row.try_get(7)?,
        low: row.try_get(8)?,
        version: row.try_get(9)?,
        capacity_version: row.try_get(10)?,
        head: hash(row, 11, "pool.chain_head")?,
    };
    Ok((PoolId(id), entry))
}

fn read_hold(row: &Row) -> Result<(HoldId, HoldEntry), Failure> {
    let id = HoldId::new(row.try_get(0)?);
    let state: i16 = row.try_get(1)?;
    let account: &str = row.try_get(6)?;
    let reference: &str = row.try_get(7)?;
    let pools: Vec<i32> = row.try_get(8)?;
    let units: Vec<i64> = row.try_get(9)?;
    let returned: Vec<i64> = row.try_get(10)?;
    let taken: &[u8] = row.try_get(11)?;
    if pools.len() != units.len() || !(returned.is_empty() || returned.len() == units.len()) {
        return Err(Failure::Unreadable(format!(
            "lines of hold {id}: {} pools, {} units, {} returned",
            pools.len(),
            units.len(),
            returned.len()
        )));
    }
    let lines = pools.iter().zip(&units).enumerate();
    let entry = HoldEntry {
        state: HoldState::from_code(state)
            .ok_or_else(|| Failure::Unreadable(format!("state of hold {id}: {state}")))?,
        version: row.try_get(2)?,
        expires_at: row.try_get(3)?,
        born_at: row.try_get(4)?,
        epoch: row.try_get(5)?,
        account: (!account.is_empty()).then(|| Name::from(account)),
        reference: Name::from(reference),
        lines: lines
            .map(|(place, (pool, units))| HeldLine {
                pool: PoolId(*pool),
                units: *units,
                returned: returned.get(place).copied().unwrap_or(0),
            })
            .collect(),
        taken: taken.into(),
    };
    Ok((id, entry))
}

fn read_stand(row: &Row) -> Result<(HoldId, StandEntry), Failure> {
    let id = HoldId::new(row.try_get(0)?);
    let ttl_micros: i64 = row.try_get(3)?;
    let account: &str = row.try_get(4)?;
    let groups: Vec<i16> = row.try_get(7)?;
    let alternatives: Vec<i16> = row.try_get(8)?;
    let pools: Vec<i32> = row.try_get(9)?;
    let units: Vec<i64> = row.try_get(10)?;
    let sought = read_sought(&groups, &alternatives, &pools, &units)
        .ok_or_else(|| Failure::Unreadable(format!("lines of stand {id}")))?;
    let entry = StandEntry {
        place: row.try_get(1)?,
        expires_at: row.try_get(2)?,
        account: (!account.is_empty()).then(|| Name::from(account)),
        actor: Name::from(row.try_get::<_, &str>(5)?),
        reference: Name::from(row.try_get::<_, &str>(6)?),
        ttl: Duration::from_micros(ttl_micros.unsigned_abs()),
        sought,
    };
    Ok((id, entry))
}

/// Groups and alternatives come in order, each with all its lines together.
fn read_sought(
    groups: &[i16],
    alternatives: &[i16],
    pools: &[i32],
    units: &[i64],
) -> Option<Sought> {
    if [alternatives.len(), pools.len(), units.len()] != [groups.len(); 3] {
        return None;
    }
    let mut sought = Sought {
        lines: Vec::new(),
        any_of: Vec::new(),
    };
    for (place, &group) in groups.iter().enumerate() {
        let line = (PoolId(pools[place]), units[place]);
        let Some(group) = usize::try_from(group).ok()?.checked_sub(1) else {
            sought.lines.push(line);
            continue;
        };
        if group == sought.any_of.len() {
            sought.any_of.push(Vec::new());
        }
        let alternative = usize::try_from(alternatives[place]).ok()?;
        let group = sought.any_of.get_mut(group)?;
        if alternative == group.len() {
            group.push(Vec::new());
        }
        group.get_mut(alternative)?.push(line);
    }
    Some(sought)
}

fn hash(row: &Row, column: usize, name: &str) -> Result<Head, Failure> {
    let bytes: &[u8] = row.try_get(column)?;
    Head::try_from(bytes)
        .map_err(|_| Failure::Unreadable(format!("{name}: {} bytes, wanted 32", bytes.len())))
}
