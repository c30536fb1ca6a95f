//! What audits read: all there is, in slices.

use sqlx::PgConnection;
use uuid::Uuid;

/// An order as audits see it.
#[derive(sqlx::FromRow)]
pub(crate) struct AuditedOrder {
    pub(crate) id: Uuid,
    pub(crate) status: String,
    pub(crate) currency: String,
    pub(crate) total: i64,
    pub(crate) points_used: i64,
    pub(crate) refunded: i64,
    pub(crate) points_refunded: i64,
    pub(crate) payment_id: Option<Uuid>,
    pub(crate) updated_at: jiff_sqlx::Timestamp,
    pub(crate) hold_attempt: i32,
    pub(crate) is_open: bool,
    pub(crate) voucher: Option<String>,
}

/// A line as audits see it.
#[derive(sqlx::FromRow)]
pub(crate) struct AuditedItem {
    pub(crate) order_id: Uuid,
    pub(crate) sku: String,
    pub(crate) quantity: i64,
    pub(crate) refunded_quantity: i64,
}

/// A step of an order's history.
#[derive(sqlx::FromRow)]
pub(crate) struct AuditedStep {
    pub(crate) order_id: Uuid,
    pub(crate) old_value: String,
    pub(crate) new_value: String,
}

/// Orders behind an id, by id.
pub(crate) async fn audit_orders(
    db: &mut PgConnection,
    after: Uuid,
    limit: i64,
) -> Result<Vec<AuditedOrder>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, status, currency, total, points_used, refunded, points_refunded, payment_id, updated_at,
                coalesce(hold_attempt, 0) AS hold_attempt,
                coalesce(phase <> 'done' OR open_refunds > 0, false) AS is_open, voucher
         FROM orders LEFT JOIN saga ON order_id = id
         WHERE id > $1 ORDER BY id LIMIT $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// The lines of these orders.
pub(crate) async fn audit_items(
    db: &mut PgConnection,
    orders: &[Uuid],
) -> Result<Vec<AuditedItem>, sqlx::Error> {
    sqlx::query_as(
        "SELECT order_id, sku, quantity, refunded_quantity
         FROM order_item WHERE order_id = ANY ($1) ORDER BY order_id, line",
    )
    .bind(orders)
    .fetch_all(db)
    .await
}

/// The changes of status of these orders, oldest first.
pub(crate) async fn audit_history(
    db: &mut PgConnection,
    orders: &[Uuid],
) -> Result<Vec<AuditedStep>, sqlx::Error> {
    sqlx::query_as(
        "SELECT order_id, old_value, new_value FROM order_event WHERE order_id = ANY ($1) ORDER BY order_id, id",
    )
    .bind(orders)
    .fetch_all(db)
    .await
}
