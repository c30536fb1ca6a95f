//! Statements on deliveries, and on who said that they went on.

use holdfast_kernel::{Id, id};
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    domain::{Delivery, Handover, Order},
    error::OrdersError,
};

/// Writes how far the order's delivery is.
pub(crate) async fn save_delivery(db: &mut PgConnection, order: &Order) -> Result<(), OrdersError> {
    let (parcel, shipped_at, delivered_at) = match &order.delivery {
        Delivery::Waiting => (None, None, None),
        Delivery::Shipped { parcel, at } => (Some(parcel), Some(*at), None),
        Delivery::Delivered {
            parcel,
            shipped_at,
            at,
        } => (Some(parcel), Some(*shipped_at), Some(*at)),
    };
    sqlx::query(
        "UPDATE orders SET carrier = $2, tracking = $3, shipped_at = $4, delivered_at = $5 WHERE id = $1",
    )
    .bind(order.id.uuid())
    .bind(parcel.map_or("", |parcel| parcel.carrier.as_str()))
    .bind(parcel.map_or("", |parcel| parcel.tracking.as_str()))
    .bind(shipped_at.map(ToSqlx::to_sqlx))
    .bind(delivered_at.map(ToSqlx::to_sqlx))
    .execute(db)
    .await?;
    Ok(())
}

/// The order and the fingerprint of the handover that this request made, if it made one.
pub(crate) async fn find_handover(
    db: &mut PgConnection,
    request: Uuid,
) -> Result<Option<(Id<id::Order>, Vec<u8>)>, OrdersError> {
    let row: Option<(Uuid, Vec<u8>)> =
        sqlx::query_as("SELECT order_id, fingerprint FROM handover WHERE id = $1")
            .bind(request)
            .fetch_optional(db)
            .await?;
    Ok(row.map(|(order, fingerprint)| (Id::new(order), fingerprint)))
}

/// Writes who said that an order was shipped or delivered.
pub(crate) async fn insert_handover(
    db: &mut PgConnection,
    handover: &Handover,
) -> Result<(), OrdersError> {
    sqlx::query(
        "INSERT INTO handover (id, order_id, fingerprint, requested_by, created_at) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(handover.request)
    .bind(handover.order.uuid())
    .bind(&handover.fingerprint)
    .bind(handover.by.uuid())
    .bind(handover.at.to_sqlx())
    .execute(db)
    .await?;
    Ok(())
}
