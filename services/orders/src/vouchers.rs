//! Vouchers for those who run the shop: what a code takes off lies here, how often it can be used in the ledger.
//!
//! The two share no transaction. A voucher is written first, so that a crash leaves one without uses and never uses that
//! nobody can find; the same request again goes on where the first one stopped, for both steps meet themselves. A voucher
//! without uses takes nothing off: an order takes its use where it takes its units.
//!
//! How often it can be used is the pool's capacity and written nowhere else. A change compares both versions that the
//! caller looked at, each where it lies.

use std::{collections::HashMap, time::Duration};

use holdfast_kernel::{Id, RequestId, Timestamp, id, time::to_micros};
use holdfast_platform::{database, fault::Fault};
use holdfast_proto::inventory::v1 as ledger;
use sqlx::{Postgres, Transaction};
use tonic::Request;

use crate::{
    checkout::Desk,
    domain::voucher::{Code, Edition, Uses, Voucher},
    error::OrdersError,
    messages::{self, Action},
    store::{self, Maker},
};

/// A wish for a new voucher.
pub(crate) struct NewVoucher {
    pub(crate) maker: Maker,
    pub(crate) voucher: Voucher,
    pub(crate) uses: i64,
}

/// A wish that a voucher be otherwise; `None` stays as it is.
pub(crate) struct VoucherChange {
    pub(crate) code: Code,
    /// What the caller looked at.
    pub(crate) expected: Edition,
    pub(crate) valid_until: Option<Timestamp>,
    pub(crate) uses: Option<i64>,
    /// Who wishes it.
    pub(crate) by: Id<id::User>,
    pub(crate) at: Timestamp,
}

/// A voucher as it stands.
pub(crate) type Standing = (Voucher, Uses);

const LEDGER_CALL_SECS: u64 = 2;

/// Makes a voucher and its uses, or meets those that the same request made before.
pub(crate) async fn create(desk: &Desk, wish: NewVoucher) -> Result<Standing, OrdersError> {
    let voucher = write(desk, &wish).await?;
    let request = ledger::AdjustRequest {
        request_id: wish.maker.request.to_string(),
        actor: voucher.created_by.to_string(),
        reason: "a new voucher".to_owned(),
        changes: vec![ledger::CapacityChange {
            pool: voucher.code.pool().to_string(),
            delta: wish.uses,
            expected_capacity_version: 0,
        }],
    };
    match adjust(desk, request).await {
        Ok(uses) => Ok((voucher, uses)),
        Err(refusal) => {
            if !refusal.is_transient() {
                take_back(desk, &voucher, wish.maker.request).await?;
            }
            Err(refusal.into())
        }
    }
}

/// The voucher of that code.
pub(crate) async fn find(desk: &Desk, code: &Code) -> Result<Standing, OrdersError> {
    let mut db = database::acquire(&desk.context.database).await?;
    let voucher = store::find_voucher(&mut db, code).await?;
    drop(db);
    let voucher = voucher.ok_or(OrdersError::UnknownVoucher)?;
    Ok(with_uses(desk, vec![voucher]).await?.remove(0))
}

/// Up to `limit` vouchers with codes behind `after`, by code.
pub(crate) async fn list(
    desk: &Desk,
    after: &str,
    limit: i64,
) -> Result<Vec<Standing>, OrdersError> {
    let mut db = database::acquire(&desk.context.database).await?;
    let vouchers = store::list_vouchers(&mut db, after, limit).await?;
    drop(db);
    with_uses(desk, vouchers).await
}

/// Changes a voucher that is still as it was looked at.
///
/// The uses go first, for the ledger may refuse them; its book names who changed them. Where somebody else changes the rest
/// in that very moment, this is refused after the uses have changed; who looks again sees them.
pub(crate) async fn change(desk: &Desk, wish: VoucherChange) -> Result<Standing, OrdersError> {
    let (voucher, mut uses) = find(desk, &wish.code).await?;
    let stands = voucher.edition(uses);
    if stands != wish.expected {
        return Err(OrdersError::VoucherChanged { stands });
    }
    let stood = (voucher.version, uses.version);
    let voucher = match wish.valid_until {
        Some(until) => voucher.valid_until(until)?,
        None => voucher,
    };
    if let Some(total) = wish.uses.filter(|total| *total != uses.total) {
        let (stood, wanted) = (stands.number().to_string(), total.to_string());
        let request = RequestId::derive(&["voucher", wish.code.as_str(), &stood, &wanted]);
        let request = ledger::AdjustRequest {
            request_id: request.to_string(),
            actor: wish.by.to_string(),
            reason: "a voucher's uses".to_owned(),
            changes: vec![ledger::CapacityChange {
                pool: wish.code.pool().to_string(),
                delta: total - uses.total,
                expected_capacity_version: uses.version,
            }],
        };
        uses = adjust(desk, request).await?;
    }
    if (voucher.version, uses.version) == stood {
        return Ok((voucher, uses));
    }
    let mut tx = database::begin(&desk.context.database).await?;
    if voucher.version != stood.0 && !store::save_voucher(&mut tx, &voucher, stood.0).await? {
        drop(tx);
        let (voucher, uses) = find(desk, &wish.code).await?;
        let stands = voucher.edition(uses);
        return Err(OrdersError::VoucherChanged { stands });
    }
    let action = Action::VoucherChanged {
        code: voucher.code.to_string(),
    };
    messages::record(&mut tx, wish.by, None, action, wish.at).await?;
    commit(desk, tx).await?;
    Ok((voucher, uses))
}

async fn write(desk: &Desk, wish: &NewVoucher) -> Result<Voucher, OrdersError> {
    let mut tx = database::begin(&desk.context.database).await?;
    let voucher = &wish.voucher;
    if store::insert_voucher(&mut tx, voucher, &wish.maker).await? {
        let action = Action::VoucherCreated {
            code: voucher.code.to_string(),
        };
        messages::record(
            &mut tx,
            voucher.created_by,
            None,
            action,
            voucher.created_at,
        )
        .await?;
        commit(desk, tx).await?;
        return Ok(voucher.clone());
    }
    match store::find_made_voucher(&mut tx, wish.maker.request).await? {
        Some((first, fingerprint)) if fingerprint == wish.maker.fingerprint => Ok(first),
        Some(_) => Err(OrdersError::KeyReused),
        None => Err(OrdersError::VoucherExists(wish.voucher.code.clone())),
    }
}

/// Takes out a voucher that this request made, and whose uses the ledger refused.
async fn take_back(desk: &Desk, voucher: &Voucher, maker: RequestId) -> Result<(), OrdersError> {
    let now = to_micros(desk.context.clock.now());
    let mut tx = database::begin(&desk.context.database).await?;
    if store::delete_refused_voucher(&mut tx, maker).await? {
        let action = Action::VoucherTakenBack {
            code: voucher.code.to_string(),
        };
        messages::record(&mut tx, voucher.created_by, None, action, now).await?;
    }
    commit(desk, tx).await
}

async fn commit(desk: &Desk, tx: Transaction<'_, Postgres>) -> Result<(), OrdersError> {
    database::commit(tx).await?;
    desk.context.wake.wake();
    Ok(())
}

/// Each with its uses; one whose pool there is not, or not yet, has none.
async fn with_uses(desk: &Desk, vouchers: Vec<Voucher>) -> Result<Vec<Standing>, OrdersError> {
    if vouchers.is_empty() {
        return Ok(Vec::new());
    }
    let request = ledger::GetPoolsRequest {
        keys: (vouchers.iter())
            .map(|voucher| voucher.code.pool().to_string())
            .collect(),
        at: None,
    };
    let mut inventory = desk.peers.inventory.clone();
    let answer = inventory.get_pools(asking(desk, request)).await?;
    let mut pools: HashMap<String, Uses> = (answer.into_inner().pools.into_iter())
        .map(|pool| (pool.key.clone(), uses_of(&pool)))
        .collect();
    Ok((vouchers.into_iter())
        .map(|voucher| {
            let uses = pools.remove(voucher.code.pool().as_str());
            (voucher, uses.unwrap_or_default())
        })
        .collect())
}

/// Changes the capacity of one pool, once by the same request.
async fn adjust(desk: &Desk, request: ledger::AdjustRequest) -> Result<Uses, Fault> {
    let mut inventory = desk.peers.inventory.clone();
    let answer = (inventory.adjust(asking(desk, request)).await)
        .map_err(|status| Fault::from_status(&status))?;
    let pool = answer.into_inner().pools.pop();
    let pool = pool.ok_or_else(|| Fault::internal("the ledger adjusted no pool"))?;
    Ok(uses_of(&pool))
}

fn uses_of(pool: &ledger::Pool) -> Uses {
    Uses {
        total: pool.capacity,
        used: pool.sold,
        held: pool.held,
        version: pool.capacity_version,
    }
}

fn asking<T>(desk: &Desk, message: T) -> Request<T> {
    let mut request = desk.context.identity.request(message);
    request.set_timeout(Duration::from_secs(LEDGER_CALL_SECS));
    request
}
