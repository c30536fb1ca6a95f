//! Statements on refunds.

use holdfast_kernel::{Currency, Id, Money, Timestamp, id};
use jiff_sqlx::ToSqlx;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::unreadable;
use crate::{
    domain::{Refund, RefundState, Returned},
    error::OrdersError,
};

/// What a refund is read from: its currency is its order's.
macro_rules! refunds {
    () => {
        "SELECT refund.id, order_id, refund.fingerprint, amount, points, currency, units, reason, requested_by, state, \
                refund.created_at \
         FROM refund JOIN orders ON orders.id = order_id"
    };
}

/// Writes a refund and hands it to the order's saga.
pub(crate) async fn insert_refund(
    db: &mut PgConnection,
    refund: &Refund,
    now: Timestamp,
) -> Result<(), OrdersError> {
    sqlx::query(
        "INSERT INTO refund (id, order_id, fingerprint, amount, points, units, reason, requested_by, state, created_at)
         VALUES ($1, $2, $3, $4, $10, $5, $6, $7, $8, $9)",
    )
    .bind(refund.id.uuid())
    .bind(refund.order.uuid())
    .bind(&refund.fingerprint)
    .bind(refund.amount.amount)
    .bind(Json(&refund.units))
    .bind(&refund.reason)
    .bind(refund.requested_by.map(Id::uuid))
    .bind(refund.state.as_str())
    .bind(refund.created_at.to_sqlx())
    .bind(refund.points)
    .execute(&mut *db)
    .await?;
    sqlx::query(
        "UPDATE saga SET open_refunds = open_refunds + 1, wakes = wakes + 1, due_at = least(due_at, $2)
         WHERE order_id = $1",
    )
    .bind(refund.order.uuid())
    .bind(now.to_sqlx())
    .execute(db)
    .await?;
    Ok(())
}

/// The refund of that id.
pub(crate) async fn find_refund(
    db: &mut PgConnection,
    refund: Id<id::Refund>,
) -> Result<Option<Refund>, OrdersError> {
    let row: Option<RefundRow> = sqlx::query_as(concat!(refunds!(), " WHERE refund.id = $1"))
        .bind(refund.uuid())
        .fetch_optional(db)
        .await?;
    row.map(RefundRow::read).transpose()
}

/// The order's refunds that are not over, oldest first.
pub(crate) async fn list_open_refunds(
    db: &mut PgConnection,
    order: Id<id::Order>,
) -> Result<Vec<Refund>, OrdersError> {
    let rows: Vec<RefundRow> = sqlx::query_as(concat!(
        refunds!(),
        " WHERE order_id = $1 AND state = 'open' ORDER BY refund.created_at, refund.id"
    ))
    .bind(order.uuid())
    .fetch_all(db)
    .await?;
    rows.into_iter().map(RefundRow::read).collect()
}

/// Closes an open refund; `false` when it was closed before.
pub(crate) async fn close_refund(
    db: &mut PgConnection,
    refund: &Refund,
    state: RefundState,
) -> Result<bool, OrdersError> {
    let done = sqlx::query("UPDATE refund SET state = $2 WHERE id = $1 AND state = 'open'")
        .bind(refund.id.uuid())
        .bind(state.as_str())
        .execute(&mut *db)
        .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query("UPDATE saga SET open_refunds = open_refunds - 1 WHERE order_id = $1")
        .bind(refund.order.uuid())
        .execute(db)
        .await?;
    Ok(true)
}

#[derive(sqlx::FromRow)]
struct RefundRow {
    id: Uuid,
    order_id: Uuid,
    fingerprint: Vec<u8>,
    amount: i64,
    points: i64,
    currency: String,
    units: Json<Vec<Returned>>,
    reason: String,
    requested_by: Option<Uuid>,
    state: String,
    created_at: jiff_sqlx::Timestamp,
}

impl RefundRow {
    fn read(self) -> Result<Refund, OrdersError> {
        let id: Id<id::Refund> = Id::new(self.id);
        let column = |name: &str, got: &str| unreadable("refund", name, id, got);
        let currency: Currency =
            (self.currency.parse()).map_err(|_| column("currency", &self.currency))?;
        Ok(Refund {
            id,
            order: Id::new(self.order_id),
            fingerprint: self.fingerprint,
            amount: Money::new(self.amount, currency),
            points: self.points,
            units: self.units.0,
            reason: self.reason,
            requested_by: self.requested_by.map(Id::new),
            state: RefundState::parse(&self.state).ok_or_else(|| column("state", &self.state))?,
            created_at: self.created_at.into(),
        })
    }
}
