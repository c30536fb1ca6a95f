//! Way A, what shops do: lock the rows, look, write, in one transaction of four round trips a request.
//!
//! Rows are locked in the order of their ids, so nobody deadlocks, and all writing is one statement: shops are rarely so
//! careful. The same tables are written as by the ledger, every column, with the chain of hashes.

use std::time::Duration;

use anyhow::Context as _;
use holdfast_kernel::RequestId;
use sha2::{Digest, Sha256};
use tokio_postgres::{Client, Row, Statement};
use uuid::Uuid;

use crate::{load::Want, sessions::PLAN};

const LOCK_POOLS: &str = "
    SELECT id, key, capacity, held, sold, blocked, overbook, version, chain_head
    FROM pool WHERE id = ANY($1) ORDER BY id FOR UPDATE";

const LOCK_HOLD: &str = "SELECT pools, units FROM hold WHERE id = $1 AND state = 1 FOR UPDATE";

const MOVE: &str = "
    WITH moved AS (
        UPDATE pool SET held = b.held, sold = b.sold, version = b.version, chain_head = b.head
        FROM unnest($1::int4[], $2::int8[], $3::int8[], $4::int8[], $5::bytea[]) AS b (id, held, sold, version, head)
        WHERE pool.id = b.id
    ), movements AS (
        INSERT INTO movement (at, pool, version, kind, units, held_after, sold_after, capacity_after, hold, actor, reason,
                              hash)
        SELECT now(), b.id, b.version, $6::int2, b.units, b.held, b.sold, b.capacity, $7::uuid, 'usr_bench', '', b.head
        FROM unnest($1::int4[], $2::int8[], $3::int8[], $4::int8[], $5::bytea[], $8::int8[], $9::int8[])
            AS b (id, held, sold, version, head, units, capacity)
    ), changes AS (
        INSERT INTO change (at, pools, low, expired) VALUES (now(), $1::int4[], '{}', '{}')
    )";

const MAKE_HOLD: &str = "
    INSERT INTO hold (id, state, version, expires_at, born_at, epoch, account, reference, pools, units, returned)
    VALUES ($7::uuid, 1, 1, now() + make_interval(secs => $10::float8), now(), 0, '', '', $1::int4[], $8::int8[], '{}')";

const END_HOLD: &str =
    "UPDATE hold SET state = $10::int2, version = version + 1 WHERE id = $7::uuid";

/// A connection with what is sent over it.
pub(crate) struct Session {
    client: Client,
    lock_pools: Statement,
    lock_hold: Statement,
    make: Statement,
    end: Statement,
}

/// How a hold ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Commit,
    Release,
}

/// As the ledger's tables write it.
const RESERVED: i16 = 1;

impl End {
    fn movement(self) -> i16 {
        match self {
            Self::Commit => 2,
            Self::Release => 3,
        }
    }

    fn state(self) -> i16 {
        match self {
            Self::Commit => 2,
            Self::Release => 3,
        }
    }
}

impl Session {
    pub(crate) async fn open(client: Client) -> anyhow::Result<Self> {
        client.batch_execute(PLAN).await?;
        Ok(Self {
            lock_pools: client.prepare(LOCK_POOLS).await?,
            lock_hold: client.prepare(LOCK_HOLD).await?,
            make: client.prepare(&format!("{MOVE} {MAKE_HOLD}")).await?,
            end: client.prepare(&format!("{MOVE} {END_HOLD}")).await?,
            client,
        })
    }

    /// Whether there was enough.
    pub(crate) async fn reserve(
        &self,
        request: RequestId,
        want: &Want,
        ttl: Duration,
    ) -> anyhow::Result<bool> {
        self.client.batch_execute("BEGIN").await?;
        let rows = self.client.query(&self.lock_pools, &[&want.pools]).await?;
        let hold = request.uuid();
        let mut after = After::default();
        let mut enough = rows.len() == want.pools.len();
        for (row, units) in rows.iter().zip(&want.units) {
            let free = row.get::<_, i64>("capacity") + row.get::<_, i64>("overbook")
                - row.get::<_, i64>("held")
                - row.get::<_, i64>("sold")
                - row.get::<_, i64>("blocked");
            enough &= free >= *units;
            after.push(row, RESERVED, hold, (*units, 0));
        }
        if !enough {
            self.client.batch_execute("ROLLBACK").await?;
            return Ok(false);
        }
        let ttl = ttl.as_secs_f64();
        self.client
            .execute(
                &self.make,
                &[
                    &want.pools,
                    &after.held,
                    &after.sold,
                    &after.version,
                    &after.heads,
                    &RESERVED,
                    &hold,
                    &want.units,
                    &after.capacity,
                    &ttl,
                ],
            )
            .await?;
        self.client.batch_execute("COMMIT").await?;
        Ok(true)
    }

    /// Ends a live hold.
    pub(crate) async fn end(&self, request: RequestId, end: End) -> anyhow::Result<()> {
        self.client.batch_execute("BEGIN").await?;
        let hold = request.uuid();
        let row = self.client.query_opt(&self.lock_hold, &[&hold]).await?;
        let row = row.context("a hold ended by somebody else")?;
        let (pools, units): (Vec<i32>, Vec<i64>) = (row.get(0), row.get(1));
        let rows = self.client.query(&self.lock_pools, &[&pools]).await?;
        let mut after = After::default();
        for (row, units) in rows.iter().zip(&units) {
            let sold = if end == End::Commit { *units } else { 0 };
            after.push(row, end.movement(), hold, (-units, sold));
        }
        self.client
            .execute(
                &self.end,
                &[
                    &pools,
                    &after.held,
                    &after.sold,
                    &after.version,
                    &after.heads,
                    &end.movement(),
                    &hold,
                    &units,
                    &after.capacity,
                    &end.state(),
                ],
            )
            .await?;
        self.client.batch_execute("COMMIT").await?;
        Ok(())
    }
}

/// Pools as they will be, in columns.
#[derive(Default)]
struct After {
    held: Vec<i64>,
    sold: Vec<i64>,
    version: Vec<i64>,
    capacity: Vec<i64>,
    heads: Vec<Vec<u8>>,
}

impl After {
    fn push(&mut self, row: &Row, kind: i16, of: Uuid, moved: (i64, i64)) {
        let held = row.get::<_, i64>("held") + moved.0;
        let sold = row.get::<_, i64>("sold") + moved.1;
        let version = row.get::<_, i64>("version") + 1;
        let capacity: i64 = row.get("capacity");
        let mut hash = Sha256::new();
        hash.update(row.get::<_, &[u8]>("chain_head"));
        hash.update(kind.to_be_bytes());
        for number in [version, held, sold, capacity] {
            hash.update(number.to_be_bytes());
        }
        hash.update(of);
        hash.update(row.get::<_, &str>("key"));
        self.held.push(held);
        self.sold.push(sold);
        self.version.push(version);
        self.capacity.push(capacity);
        self.heads.push(hash.finalize().to_vec());
    }
}
