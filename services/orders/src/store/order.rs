//! Statements on orders and their items.

use std::collections::HashMap;

use holdfast_kernel::{Currency, Id, Money, Sku, Timestamp, id};
use jiff_sqlx::ToSqlx;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::{Bound, history::bind_changes, unreadable};
use crate::{
    domain::{
        Change, Delivery, Item, Order, Parcel, Payment, Returned, Source, Status, voucher::Code,
    },
    error::OrdersError,
    saga::{Phase, Saga},
};

/// What an order is read from, but for its items.
macro_rules! order_columns {
    () => {
        "id, user_id, source, status, currency, total, points_used, refunded, points_refunded, hold_expires_at, \
         payment_id, payment_status, next_action, carrier, tracking, shipped_at, delivered_at, fingerprint, \
         created_at, updated_at, version, voucher, points_found"
    };
}
pub(super) use order_columns;

/// Writes a new order with its items, its saga, its history so far and the news of that; `false`, and nothing is written,
/// when there is one of that id.
///
/// The saga belongs to the worker that writes it unless the order is over already.
pub(crate) async fn record_order(
    db: &mut PgConnection,
    order: &Order,
    saga: &Saga,
    changes: &[Change],
    now: Timestamp,
) -> Result<bool, OrdersError> {
    let column = |of: fn(&Item) -> &str| order.items.iter().map(of).collect::<Vec<_>>();
    let amounts = |of: fn(&Item) -> i64| order.items.iter().map(of).collect::<Vec<_>>();
    let due_at = (saga.phase != Phase::Done).then(|| now.to_sqlx());
    let query = sqlx::query(
        "WITH made AS (
            INSERT INTO orders (id, user_id, source, status, currency, subtotal, points_used, total, hold_expires_at,
                                fingerprint, created_at, updated_at, version, voucher)
            VALUES ($1, $2, $3, $4, $5, $6::bigint + $31, $31, $6, $7, $8, $9, $10, $11, $32)
            ON CONFLICT (id) DO NOTHING
            RETURNING id
         ), bought AS (
            INSERT INTO order_item (order_id, line, sku, name, quantity, unit_price, discount, ordered_at)
            SELECT made.id, line, sku, name, quantity, unit_price, discount, $9
            FROM made, unnest($12::text[], $13::text[], $14::bigint[], $15::bigint[], $33::bigint[])
                       WITH ORDINALITY AS given (sku, name, quantity, unit_price, discount, line)
         ), begun AS (
            INSERT INTO saga (order_id, epoch, phase, method, due_at, leased_until)
            SELECT made.id, $16, $17, $18, $19::timestamptz, $20::timestamptz FROM made
         ), history AS (
            INSERT INTO order_event (order_id, type, description, old_value, new_value, user_id, created_at)
            SELECT made.id, type, description, old_value, new_value, user_id, created_at
            FROM made, unnest($21::text[], $22::text[], $23::text[], $24::text[], $25::uuid[], $26::timestamptz[])
                       WITH ORDINALITY AS change (type, description, old_value, new_value, user_id, created_at, place)
            ORDER BY place
         ), news AS (
            INSERT INTO outbox (message_id, topic, key, envelope)
            SELECT message_id, topic, key, envelope
            FROM made, unnest($27::uuid[], $28::text[], $29::text[], $30::text[])
                       WITH ORDINALITY AS told (message_id, topic, key, envelope, place)
            ORDER BY place
         )
         SELECT id FROM made",
    )
    .bind(order.id.uuid())
    .bind(order.user.uuid())
    .bind(order.source.as_str())
    .bind(order.status.as_str())
    .bind(order.total.currency.code())
    .bind(order.total.amount)
    .bind(order.hold_expires_at.to_sqlx())
    .bind(&order.fingerprint)
    .bind(order.created_at.to_sqlx())
    .bind(order.updated_at.to_sqlx())
    .bind(order.version)
    .bind(column(|item| item.sku.as_str()))
    .bind(column(|item| &item.name))
    .bind(amounts(|item| item.quantity))
    .bind(amounts(|item| item.unit_price.amount))
    .bind(saga.epoch)
    .bind(saga.phase.as_str())
    .bind(saga.method.as_ref().map(Json))
    .bind(due_at)
    .bind(saga.leased_until.to_sqlx());
    let made = bind_changes(query, order, changes)?
        .bind(order.points)
        .bind(order.voucher.as_ref().map(Code::as_str))
        .bind(amounts(|item| item.discount.amount))
        .fetch_optional(db)
        .await?;
    Ok(made.is_some())
}

/// The order of that id.
pub(crate) async fn find_order(
    db: &mut PgConnection,
    order: Id<id::Order>,
) -> Result<Option<Order>, OrdersError> {
    let row: Option<OrderRow> = sqlx::query_as(concat!(
        "SELECT ",
        order_columns!(),
        " FROM orders WHERE id = $1"
    ))
    .bind(order.uuid())
    .fetch_optional(&mut *db)
    .await?;
    one(db, row).await
}

/// The order of that id, which nobody else changes until the transaction ends.
pub(crate) async fn lock_order(
    db: &mut PgConnection,
    order: Id<id::Order>,
) -> Result<Option<Order>, OrdersError> {
    let row: Option<OrderRow> = sqlx::query_as(concat!(
        "SELECT ",
        order_columns!(),
        " FROM orders WHERE id = $1 FOR UPDATE"
    ))
    .bind(order.uuid())
    .fetch_optional(&mut *db)
    .await?;
    one(db, row).await
}

/// Writes what may change of an order with the changes that made it so, in its history and as news, if it still is at
/// the version before; `false`, and nothing is written, when it is not.
pub(crate) async fn save_order(
    db: &mut PgConnection,
    order: &Order,
    version_before: i64,
    changes: &[Change],
) -> Result<bool, OrdersError> {
    let query = sqlx::query(
        "WITH saved AS (
            UPDATE orders SET status = $3, refunded = $4, hold_expires_at = $5, payment_id = $6, payment_status = $7,
                              next_action = $8, updated_at = $9, version = $10, points_refunded = $21
            WHERE id = $1 AND version = $2
            RETURNING id
         ), history AS (
            INSERT INTO order_event (order_id, type, description, old_value, new_value, user_id, created_at)
            SELECT saved.id, type, description, old_value, new_value, user_id, created_at
            FROM saved, unnest($11::text[], $12::text[], $13::text[], $14::text[], $15::uuid[], $16::timestamptz[])
                        WITH ORDINALITY AS change (type, description, old_value, new_value, user_id, created_at, place)
            ORDER BY place
         ), news AS (
            INSERT INTO outbox (message_id, topic, key, envelope)
            SELECT message_id, topic, key, envelope
            FROM saved, unnest($17::uuid[], $18::text[], $19::text[], $20::text[])
                        WITH ORDINALITY AS told (message_id, topic, key, envelope, place)
            ORDER BY place
         )
         SELECT id FROM saved",
    )
    .bind(order.id.uuid())
    .bind(version_before);
    let saved = bind_changes(bind_state(query, order), order, changes)?;
    let saved = saved.bind(order.points_refunded);
    Ok(saved.fetch_optional(db).await?.is_some())
}

/// Writes how many units of these lines have come back.
pub(crate) async fn save_returned(
    db: &mut PgConnection,
    order: &Order,
    returned: &[Returned],
) -> Result<(), OrdersError> {
    let lines: Vec<i32> = returned.iter().map(|one| one.item as i32 + 1).collect();
    let units: Vec<i64> = (returned.iter())
        .map(|one| order.items[one.item].refunded_quantity)
        .collect();
    sqlx::query(
        "UPDATE order_item SET refunded_quantity = given.units
         FROM unnest($2::integer[], $3::bigint[]) AS given (line, units)
         WHERE order_id = $1 AND order_item.line = given.line",
    )
    .bind(order.id.uuid())
    .bind(lines)
    .bind(units)
    .execute(db)
    .await?;
    Ok(())
}

/// Writes how many points there were, of an order whose payment was refused because they were too few.
pub(crate) async fn note_points_found(
    db: &mut PgConnection,
    order: &Order,
) -> Result<(), OrdersError> {
    sqlx::query("UPDATE orders SET points_found = $2 WHERE id = $1")
        .bind(order.id.uuid())
        .bind(order.points_found)
        .execute(db)
        .await?;
    Ok(())
}

/// Binds eight: all that may change of an order.
pub(super) fn bind_state<'q>(query: Bound<'q>, order: &'q Order) -> Bound<'q> {
    let payment = order.payment.as_ref();
    query
        .bind(order.status.as_str())
        .bind(order.refunded.amount)
        .bind(order.hold_expires_at.to_sqlx())
        .bind(payment.map(|payment| payment.id.uuid()))
        .bind(payment.map_or("", |payment| payment.status.as_str()))
        .bind(payment.map_or("", |payment| payment.next_action.as_str()))
        .bind(order.updated_at.to_sqlx())
        .bind(order.version)
}

async fn one(db: &mut PgConnection, row: Option<OrderRow>) -> Result<Option<Order>, OrdersError> {
    let Some(row) = row else { return Ok(None) };
    Ok(with_items(db, vec![row]).await?.pop())
}

pub(super) async fn with_items(
    db: &mut PgConnection,
    rows: Vec<OrderRow>,
) -> Result<Vec<Order>, OrdersError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let items: Vec<ItemRow> = sqlx::query_as(
        "SELECT order_id, sku, name, quantity, unit_price, discount, refunded_quantity
         FROM order_item WHERE order_id = ANY ($1) ORDER BY order_id, line",
    )
    .bind(ids)
    .fetch_all(db)
    .await?;
    let mut by_order: HashMap<Uuid, Vec<ItemRow>> = HashMap::new();
    for item in items {
        by_order.entry(item.order_id).or_default().push(item);
    }
    rows.into_iter()
        .map(|row| {
            let items = by_order.remove(&row.id).unwrap_or_default();
            row.read(items)
        })
        .collect()
}

#[derive(sqlx::FromRow)]
pub(super) struct OrderRow {
    id: Uuid,
    user_id: Uuid,
    source: String,
    status: String,
    currency: String,
    total: i64,
    points_used: i64,
    refunded: i64,
    points_refunded: i64,
    hold_expires_at: jiff_sqlx::Timestamp,
    payment_id: Option<Uuid>,
    payment_status: String,
    next_action: String,
    carrier: String,
    tracking: String,
    shipped_at: Option<jiff_sqlx::Timestamp>,
    delivered_at: Option<jiff_sqlx::Timestamp>,
    fingerprint: Vec<u8>,
    created_at: jiff_sqlx::Timestamp,
    updated_at: jiff_sqlx::Timestamp,
    version: i64,
    voucher: Option<String>,
    points_found: Option<i64>,
}

impl OrderRow {
    fn read(self, items: Vec<ItemRow>) -> Result<Order, OrdersError> {
        let id: Id<id::Order> = Id::new(self.id);
        let column = |name: &str, got: &str| unreadable("orders", name, id, got);
        let currency: Currency =
            (self.currency.parse()).map_err(|_| column("currency", &self.currency))?;
        let voucher: Option<Code> = match &self.voucher {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| column("voucher", text))?),
        };
        let items = items
            .into_iter()
            .map(|item| item.read(id, currency))
            .collect::<Result<_, _>>()?;
        let parcel = Parcel {
            carrier: self.carrier,
            tracking: self.tracking,
        };
        let delivery = match (self.shipped_at, self.delivered_at) {
            (None, _) => Delivery::Waiting,
            (Some(at), None) => Delivery::Shipped {
                parcel,
                at: at.into(),
            },
            (Some(shipped_at), Some(at)) => Delivery::Delivered {
                parcel,
                shipped_at: shipped_at.into(),
                at: at.into(),
            },
        };
        Ok(Order {
            id,
            user: Id::new(self.user_id),
            source: Source::parse(&self.source).ok_or_else(|| column("source", &self.source))?,
            status: Status::parse(&self.status).ok_or_else(|| column("status", &self.status))?,
            items,
            total: Money::new(self.total, currency),
            points: self.points_used,
            points_found: self.points_found,
            voucher,
            refunded: Money::new(self.refunded, currency),
            points_refunded: self.points_refunded,
            hold_expires_at: self.hold_expires_at.into(),
            payment: self.payment_id.map(|payment| Payment {
                id: Id::new(payment),
                status: self.payment_status,
                next_action: self.next_action,
            }),
            delivery,
            fingerprint: self.fingerprint,
            created_at: self.created_at.into(),
            updated_at: self.updated_at.into(),
            version: self.version,
        })
    }
}

#[derive(sqlx::FromRow)]
struct ItemRow {
    order_id: Uuid,
    sku: String,
    name: String,
    quantity: i64,
    unit_price: i64,
    discount: i64,
    refunded_quantity: i64,
}

impl ItemRow {
    fn read(self, order: Id<id::Order>, currency: Currency) -> Result<Item, OrdersError> {
        let sku: Sku =
            (self.sku.parse()).map_err(|_| unreadable("order_item", "sku", order, &self.sku))?;
        Ok(Item {
            sku,
            name: self.name,
            quantity: self.quantity,
            unit_price: Money::new(self.unit_price, currency),
            discount: Money::new(self.discount, currency),
            refunded_quantity: self.refunded_quantity,
        })
    }
}
