//! Way C: the whole reserve as one conditional statement, one round trip a request.
//!
//! The same tables are written as by the ledger, with the chain of hashes; the rows are taken in the order of their ids,
//! which the nested loop over the sorted array gives, so nobody deadlocks.

use std::time::Duration;

use holdfast_kernel::RequestId;
use tokio_postgres::{Client, Statement, error::SqlState};

use crate::{load::Want, sessions::PLAN};

const RESERVE: &str = "
    WITH moved AS (
        UPDATE pool
        SET held = held + b.units, version = version + 1,
            chain_head = sha256(chain_head || int8send(version + 1) || int8send(held + b.units) || int8send(sold)
                                || int8send(capacity) || uuid_send($3::uuid) || convert_to(key, 'UTF8'))
        FROM unnest($1::int4[], $2::int8[]) AS b (id, units)
        WHERE pool.id = b.id AND capacity + overbook - held - sold - blocked >= b.units
        RETURNING pool.id, pool.version, b.units, held, sold, capacity, chain_head
    ), movements AS (
        INSERT INTO movement (at, pool, version, kind, units, held_after, sold_after, capacity_after, hold, actor, reason,
                              hash)
        SELECT now(), id, version, 1, units, held, sold, capacity, $3::uuid, 'usr_bench', '', chain_head FROM moved
    ), made AS (
        INSERT INTO hold (id, state, version, expires_at, born_at, epoch, account, reference, pools, units, returned)
        VALUES ($3::uuid, 1, 1, now() + make_interval(secs => $4::float8), now(), 0, '', '', $1::int4[], $2::int8[], '{}')
    ), changes AS (
        INSERT INTO change (at, pools, low, expired) VALUES (now(), $1::int4[], '{}', '{}')
    )
    SELECT 1 / ((SELECT count(*) FROM moved) = cardinality($1::int4[]))::int4";

/// A connection with what is sent over it.
pub(crate) struct Session {
    client: Client,
    reserve: Statement,
}

impl Session {
    pub(crate) async fn open(client: Client) -> anyhow::Result<Self> {
        client.batch_execute(PLAN).await?;
        let reserve = client.prepare(RESERVE).await?;
        Ok(Self { client, reserve })
    }

    /// Whether there was enough.
    pub(crate) async fn reserve(
        &self,
        request: RequestId,
        want: &Want,
        ttl: Duration,
    ) -> anyhow::Result<bool> {
        let ttl = ttl.as_secs_f64();
        let done = self
            .client
            .query_one(
                &self.reserve,
                &[&want.pools, &want.units, &request.uuid(), &ttl],
            )
            .await;
        match done {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some(&SqlState::DIVISION_BY_ZERO) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
