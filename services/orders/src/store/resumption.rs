//! Statements on wishes that a stuck order be tried again.

use holdfast_kernel::{Id, id};
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{domain::Resumption, error::OrdersError};

/// The order and the fingerprint of the resumption that this request made, if it made one.
pub(crate) async fn find_resumption(
    db: &mut PgConnection,
    request: Uuid,
) -> Result<Option<(Id<id::Order>, Vec<u8>)>, OrdersError> {
    let row: Option<(Uuid, Vec<u8>)> =
        sqlx::query_as("SELECT order_id, fingerprint FROM resumption WHERE id = $1")
            .bind(request)
            .fetch_optional(db)
            .await?;
    Ok(row.map(|(order, fingerprint)| (Id::new(order), fingerprint)))
}

/// Writes a resumption, with its line in the order's history, and has a worker try again from the start of its patience.
pub(crate) async fn insert_resumption(
    db: &mut PgConnection,
    resumption: &Resumption,
) -> Result<(), OrdersError> {
    let order = resumption.order.uuid();
    let now = resumption.at.to_sqlx();
    sqlx::query(
        "INSERT INTO resumption (id, order_id, fingerprint, requested_by, created_at) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(resumption.request)
    .bind(order)
    .bind(&resumption.fingerprint)
    .bind(resumption.by.uuid())
    .bind(now)
    .execute(&mut *db)
    .await?;
    // Not a change of the order: it needs attention until its saga has moved it.
    sqlx::query(
        "INSERT INTO order_event (order_id, type, description, old_value, new_value, user_id, created_at)
         VALUES ($1, 'order.resumed', $2, 'needs_attention', 'needs_attention', $3, $4)",
    )
    .bind(order)
    .bind(&resumption.reason)
    .bind(resumption.by.uuid())
    .bind(now)
    .execute(&mut *db)
    .await?;
    sqlx::query(
        "UPDATE saga SET failures = 0, wakes = wakes + 1, due_at = least(due_at, $2) WHERE order_id = $1",
    )
    .bind(order)
    .bind(now)
    .execute(db)
    .await?;
    Ok(())
}
