//! Every statement on orders, their items and history, sagas and refunds.
//!
//! Who needs several of the rows locks the saga first, then the order.

mod voucher;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use holdfast_kernel::{Currency, Id, Money, Sku, Timestamp, id};
use jiff_sqlx::ToSqlx;
use sqlx::{PgConnection, Postgres, postgres::PgArguments, query::Query, types::Json};
use uuid::Uuid;

use crate::{
    domain::{
        Change, Delivery, Handover, Item, Order, Parcel, Payment, Refund, RefundState, Resumption,
        Returned, Source, Status, voucher::Code,
    },
    error::OrdersError,
    messages,
    saga::{Cancel, Method, Phase, Saga},
};

pub(crate) use voucher::{
    Maker, delete_refused_voucher, find_made_voucher, find_voucher, insert_voucher, list_vouchers,
    save_voucher,
};

/// Which orders a list is of.
pub(crate) struct Wanted {
    /// `None`: everybody's.
    pub(crate) user: Option<Id<id::User>>,
    pub(crate) status: Option<Status>,
    /// Those with a line of it.
    pub(crate) sku: Option<Sku>,
    /// Those made at that moment or later.
    pub(crate) from: Timestamp,
    /// Those made before that moment.
    pub(crate) to: Timestamp,
}

/// Where a list goes on: behind the order made then (microseconds since 1970), of that id.
pub(crate) type ListPlace = (i64, Uuid);

/// One line of an order's history, as it is kept.
#[derive(sqlx::FromRow)]
pub(crate) struct Event {
    pub(crate) r#type: String,
    pub(crate) description: String,
    pub(crate) old_value: String,
    pub(crate) new_value: String,
    pub(crate) user_id: Option<Uuid>,
    pub(crate) created_at: jiff_sqlx::Timestamp,
}

/// What may have changed about a saga while its worker was busy.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Glance {
    pub(crate) epoch: i64,
    pub(crate) hold_ended: bool,
    pub(crate) cancel_request: Option<Uuid>,
    pub(crate) cancel_fingerprint: Option<Vec<u8>>,
    pub(crate) cancelled_by: Option<Uuid>,
    pub(crate) cancel_reason: String,
    pub(crate) open_refunds: i32,
}

/// When a saga is looked at next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// The worker that has it goes on.
    Kept,
    /// Nobody has it; it is looked at then, or when woken.
    At(Timestamp),
    /// Nobody has it until it is woken, which it may have been already.
    Woken,
    /// The purchase is complete; only open refunds make it due.
    Never,
}

/// How far a saga has come, and what that makes of its order.
pub(crate) struct Progress<'a> {
    pub(crate) saga: &'a Saga,
    pub(crate) due: Due,
    /// A wish to cancel that was not read yet keeps it from being written.
    pub(crate) heeds_cancel: bool,
    pub(crate) order: &'a Order,
    pub(crate) version_before: i64,
    pub(crate) changes: &'a [Change],
}

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
    let row: Option<OrderRow> = sqlx::query_as(
        "SELECT id, user_id, source, status, currency, total, points_used, refunded, points_refunded, hold_expires_at,
                payment_id, payment_status, next_action, carrier, tracking, shipped_at, delivered_at, fingerprint,
                created_at, updated_at, version, voucher
         FROM orders WHERE id = $1",
    )
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
    let row: Option<OrderRow> = sqlx::query_as(
        "SELECT id, user_id, source, status, currency, total, points_used, refunded, points_refunded, hold_expires_at,
                payment_id, payment_status, next_action, carrier, tracking, shipped_at, delivered_at, fingerprint,
                created_at, updated_at, version, voucher
         FROM orders WHERE id = $1 FOR UPDATE",
    )
    .bind(order.uuid())
    .fetch_optional(&mut *db)
    .await?;
    one(db, row).await
}

/// Orders newest first, those wanted, behind `after`.
pub(crate) async fn list_orders(
    db: &mut PgConnection,
    wanted: &Wanted,
    after: Option<ListPlace>,
    limit: i64,
) -> Result<Vec<Order>, OrdersError> {
    // Both bound the list from above, so the lower of the two is the bound.
    let end = (wanted.to, Uuid::nil());
    let (before, before_id) = match after {
        Some((micros, id)) => {
            let made_at = Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX);
            end.min((made_at, id))
        }
        None => end,
    };
    let status = wanted.status.map(Status::as_str);
    let sku = wanted.sku.as_ref().map(Sku::as_str);
    let query = match (wanted.user, sku, status) {
        (Some(user), ..) => sqlx::query_as(ORDERS_OF_USER)
            .bind(user.uuid())
            .bind(status)
            .bind(sku),
        (None, Some(sku), _) => sqlx::query_as(ORDERS_OF_SKU).bind(sku).bind(status),
        (None, None, Some(status)) => sqlx::query_as(ORDERS_OF_STATUS).bind(status),
        (None, None, None) => sqlx::query_as(ORDERS_OF_ALL),
    };
    let rows: Vec<OrderRow> = query
        .bind(wanted.from.to_sqlx())
        .bind(before.to_sqlx())
        .bind(before_id)
        .bind(limit)
        .fetch_all(&mut *db)
        .await?;
    with_items(db, rows).await
}

// One statement a shape, so that each walks the one index that has its order.

const ORDERS_OF_USER: &str =
    "SELECT id, user_id, source, status, currency, total, points_used, refunded, points_refunded, hold_expires_at,
            payment_id, payment_status, next_action, carrier, tracking, shipped_at, delivered_at, fingerprint,
            created_at, updated_at, version, voucher
     FROM orders
     WHERE user_id = $1 AND created_at >= $4 AND (created_at, id) < ($5, $6) AND ($2::text IS NULL OR status = $2)
       AND ($3::text IS NULL OR EXISTS (SELECT FROM order_item WHERE order_id = id AND sku = $3))
     ORDER BY created_at DESC, id DESC LIMIT $7";

const ORDERS_OF_SKU: &str =
    "SELECT id, user_id, source, status, currency, total, points_used, refunded, points_refunded, hold_expires_at,
            payment_id, payment_status, next_action, carrier, tracking, shipped_at, delivered_at, fingerprint,
            created_at, updated_at, version, voucher
     FROM order_item JOIN orders ON id = order_id
     WHERE sku = $1 AND ordered_at >= $3 AND (ordered_at, order_id) < ($4, $5) AND ($2::text IS NULL OR status = $2)
     ORDER BY ordered_at DESC, order_id DESC LIMIT $6";

const ORDERS_OF_STATUS: &str =
    "SELECT id, user_id, source, status, currency, total, points_used, refunded, points_refunded, hold_expires_at,
            payment_id, payment_status, next_action, carrier, tracking, shipped_at, delivered_at, fingerprint,
            created_at, updated_at, version, voucher
     FROM orders WHERE status = $1 AND created_at >= $2 AND (created_at, id) < ($3, $4)
     ORDER BY created_at DESC, id DESC LIMIT $5";

const ORDERS_OF_ALL: &str =
    "SELECT id, user_id, source, status, currency, total, points_used, refunded, points_refunded, hold_expires_at,
            payment_id, payment_status, next_action, carrier, tracking, shipped_at, delivered_at, fingerprint,
            created_at, updated_at, version, voucher
     FROM orders WHERE created_at >= $1 AND (created_at, id) < ($2, $3)
     ORDER BY created_at DESC, id DESC LIMIT $4";

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

/// The order's history, oldest first.
pub(crate) async fn list_events(
    db: &mut PgConnection,
    order: Id<id::Order>,
    limit: i64,
) -> Result<Vec<Event>, OrdersError> {
    Ok(sqlx::query_as(
        "SELECT type, description, old_value, new_value, user_id, created_at
         FROM order_event WHERE order_id = $1 ORDER BY id LIMIT $2",
    )
    .bind(order.uuid())
    .bind(limit)
    .fetch_all(db)
    .await?)
}

/// Writes how far the saga is, if its epoch still is the highest; `false` when it is not, or when `heeds_cancel` and
/// somebody asked to cancel.
///
/// News that came since the worker took it makes the saga due at once.
pub(crate) async fn save_saga(
    db: &mut PgConnection,
    saga: &Saga,
    due: Due,
    heeds_cancel: bool,
    now: Timestamp,
) -> Result<bool, OrdersError> {
    let query = sqlx::query(
        "UPDATE saga SET phase = $3, ending = $4, ending_reason = $5, method = $6, hold_attempt = $7,
                         hold_extended = $8, failures = $9, failed_step = $10, leased_until = $13,
                         due_at = CASE WHEN wakes = $11 OR $15 AND open_refunds = 0 THEN $12::timestamptz ELSE $14 END
         WHERE order_id = $1 AND epoch = $2 AND (cancel_request IS NULL OR NOT $16)",
    );
    let done = bind_saga(query, saga, due, heeds_cancel, now)
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Writes how far the saga is as [`save_saga`] does, and what that made of its order as [`save_order`] does; `false`, and
/// nothing is written, when one of the two cannot be.
pub(crate) async fn save_progress(
    db: &mut PgConnection,
    progress: &Progress<'_>,
    now: Timestamp,
) -> Result<bool, OrdersError> {
    let Progress { saga, order, .. } = *progress;
    let query = sqlx::query(
        // Both rows are locked, and seen as they are then, before either is written.
        "WITH mine AS (
            SELECT order_id FROM saga JOIN orders ON id = order_id
            WHERE order_id = $1 AND epoch = $2 AND (cancel_request IS NULL OR NOT $16) AND version = $17
            FOR UPDATE OF saga, orders
         ), carried_on AS (
            UPDATE saga SET phase = $3, ending = $4, ending_reason = $5, method = $6, hold_attempt = $7,
                            hold_extended = $8, failures = $9, failed_step = $10, leased_until = $13,
                            due_at = CASE WHEN wakes = $11 OR $15 AND open_refunds = 0 THEN $12::timestamptz ELSE $14 END
            WHERE order_id = $1 AND EXISTS (SELECT FROM mine)
         ), saved AS (
            UPDATE orders SET status = $18, refunded = $19, hold_expires_at = $20, payment_id = $21, payment_status = $22,
                              next_action = $23, updated_at = $24, version = $25
            WHERE id = $1 AND EXISTS (SELECT FROM mine)
         ), history AS (
            INSERT INTO order_event (order_id, type, description, old_value, new_value, user_id, created_at)
            SELECT mine.order_id, type, description, old_value, new_value, user_id, created_at
            FROM mine, unnest($26::text[], $27::text[], $28::text[], $29::text[], $30::uuid[], $31::timestamptz[])
                       WITH ORDINALITY AS change (type, description, old_value, new_value, user_id, created_at, place)
            ORDER BY place
         ), news AS (
            INSERT INTO outbox (message_id, topic, key, envelope)
            SELECT message_id, topic, key, envelope
            FROM mine, unnest($32::uuid[], $33::text[], $34::text[], $35::text[])
                       WITH ORDINALITY AS told (message_id, topic, key, envelope, place)
            ORDER BY place
         )
         SELECT order_id FROM mine",
    );
    let query = bind_saga(query, saga, progress.due, progress.heeds_cancel, now)
        .bind(progress.version_before);
    let saved = bind_changes(bind_state(query, order), order, progress.changes)?;
    Ok(saved.fetch_optional(db).await?.is_some())
}

/// What may have changed about the saga since its worker last looked.
pub(crate) async fn glance(
    db: &mut PgConnection,
    order: Id<id::Order>,
) -> Result<Option<Glance>, OrdersError> {
    Ok(sqlx::query_as(
        "SELECT epoch, hold_ended, cancel_request, cancel_fingerprint, cancelled_by, cancel_reason, open_refunds
         FROM saga WHERE order_id = $1",
    )
    .bind(order.uuid())
    .fetch_optional(db)
    .await?)
}

/// Keeps the saga for its worker until then; `false` when another one has it.
pub(crate) async fn renew_lease(
    db: &mut PgConnection,
    order: Id<id::Order>,
    epoch: i64,
    until: Timestamp,
) -> Result<bool, OrdersError> {
    let done = sqlx::query("UPDATE saga SET leased_until = $3 WHERE order_id = $1 AND epoch = $2")
        .bind(order.uuid())
        .bind(epoch)
        .bind(until.to_sqlx())
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether [`claim_due`] would find any.
pub(crate) async fn is_any_due(db: &mut PgConnection, now: Timestamp) -> Result<bool, OrdersError> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM saga WHERE due_at <= $1 AND leased_until <= $1)",
    )
    .bind(now.to_sqlx())
    .fetch_one(db)
    .await?)
}

/// Takes over up to `limit` sagas that are due and nobody's, those due longest first.
pub(crate) async fn claim_due(
    db: &mut PgConnection,
    limit: i64,
    lease: Duration,
    now: Timestamp,
) -> Result<Vec<Saga>, OrdersError> {
    let rows: Vec<SagaRow> = sqlx::query_as(
        "UPDATE saga SET epoch = epoch + 1, leased_until = $2
         WHERE order_id IN (
             SELECT order_id FROM saga WHERE due_at <= $1 AND leased_until <= $1
             ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED)
         RETURNING order_id, epoch, phase, ending, ending_reason, method, hold_attempt, hold_extended, hold_ended,
                   cancel_request, cancel_fingerprint, cancelled_by, cancel_reason, open_refunds, wakes, leased_until, failures,
                   failed_step",
    )
    .bind(now.to_sqlx())
    .bind((now + lease).to_sqlx())
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(SagaRow::read).collect()
}

/// The saga of this order, which nobody else changes until the transaction ends.
pub(crate) async fn lock_saga(
    db: &mut PgConnection,
    order: Id<id::Order>,
) -> Result<Option<Saga>, OrdersError> {
    let row: Option<SagaRow> = sqlx::query_as(
        "SELECT order_id, epoch, phase, ending, ending_reason, method, hold_attempt, hold_extended, hold_ended,
                cancel_request, cancel_fingerprint, cancelled_by, cancel_reason, open_refunds, wakes, leased_until, failures,
                failed_step
         FROM saga WHERE order_id = $1 FOR UPDATE",
    )
    .bind(order.uuid())
    .fetch_optional(db)
    .await?;
    row.map(SagaRow::read).transpose()
}

/// Has a worker look soon at the sagas of which there is news of money, where there may be something to do: it is not over,
/// refunds are open, the order is stuck, or it was given up and the news may revive it, as each `true` says. Says whether
/// there is any such.
pub(crate) async fn wake_sagas(
    db: &mut PgConnection,
    news: &BTreeMap<Id<id::Order>, bool>,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let woken = sqlx::query(WAKE_SAGAS)
        .bind(news.keys().map(|order| order.uuid()).collect::<Vec<_>>())
        .bind(news.values().copied().collect::<Vec<_>>())
        .bind(now.to_sqlx())
        .execute(db)
        .await?;
    Ok(woken.rows_affected() > 0)
}

/// Sagas are found by a look-up each, for most news has nothing to wake. The order is locked too, or one just given up
/// would be seen as it was before.
///
/// All that are woken are there, so nothing is ever inserted: a conflict is found by the key under any plan, while an update
/// that joins reads every saga, for as long as a connection keeps the plan it made when there were none.
const WAKE_SAGAS: &str = "WITH woken AS (
        SELECT found.order_id
        FROM unnest($1::uuid[], $2::boolean[]) AS news (order_id, may_revive), LATERAL (
            SELECT saga.order_id FROM saga JOIN orders ON orders.id = saga.order_id
            WHERE saga.order_id = news.order_id
              AND (phase <> 'done' OR open_refunds > 0 OR status = 'needs_attention'
                   OR may_revive AND status IN ('expired', 'payment_failed', 'cancelled'))
            FOR NO KEY UPDATE OF saga, orders
        ) AS found
     )
     INSERT INTO saga (order_id, epoch, phase, leased_until)
     SELECT order_id, 0, 'done', $3 FROM woken
     ON CONFLICT (order_id) DO UPDATE SET wakes = saga.wakes + 1, due_at = least(saga.due_at, $3)";

/// Notes that the ledger ended the order's hold, and has a worker look if that matters still, which it says.
pub(crate) async fn note_hold_ended(
    db: &mut PgConnection,
    order: Id<id::Order>,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let noted = sqlx::query(
        "UPDATE saga SET hold_ended = true, wakes = wakes + 1, due_at = least(due_at, $2)
         WHERE order_id = $1 AND phase <> 'done'",
    )
    .bind(order.uuid())
    .bind(now.to_sqlx())
    .execute(db)
    .await?;
    Ok(noted.rows_affected() > 0)
}

/// Asks the saga to cancel at its next step. The first asking stands.
pub(crate) async fn request_cancel(
    db: &mut PgConnection,
    order: Id<id::Order>,
    cancel: &Cancel,
    now: Timestamp,
) -> Result<(), OrdersError> {
    sqlx::query(
        "UPDATE saga SET cancel_request = $2, cancel_fingerprint = $3, cancelled_by = $4, cancel_reason = $6, wakes = wakes + 1,
                         due_at = CASE WHEN phase = 'done' THEN due_at ELSE least(due_at, $5) END
         WHERE order_id = $1 AND cancel_request IS NULL",
    )
    .bind(order.uuid())
    .bind(cancel.request)
    .bind(&cancel.fingerprint)
    .bind(cancel.by.map(Id::uuid))
    .bind(now.to_sqlx())
    .bind(&cancel.reason)
    .execute(db)
    .await?;
    Ok(())
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
    let row: Option<RefundRow> = sqlx::query_as(
        "SELECT refund.id, order_id, refund.fingerprint, amount, points, currency, units, reason, requested_by, state,
                refund.created_at
         FROM refund JOIN orders ON orders.id = order_id WHERE refund.id = $1",
    )
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
    let rows: Vec<RefundRow> = sqlx::query_as(
        "SELECT refund.id, order_id, refund.fingerprint, amount, points, currency, units, reason, requested_by, state,
                refund.created_at
         FROM refund JOIN orders ON orders.id = order_id
         WHERE order_id = $1 AND state = 'open' ORDER BY refund.created_at, refund.id",
    )
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

/// How many orders are stuck, and how long the saga that is due longest has been waiting, in seconds.
pub(crate) async fn measure(
    db: &mut PgConnection,
    now: Timestamp,
) -> Result<(i64, f64), OrdersError> {
    Ok(sqlx::query_as(
        "SELECT (SELECT count(*) FROM orders WHERE status = 'needs_attention'),
                coalesce(extract(epoch FROM $1 - min(due_at)), 0)::float8
         FROM saga WHERE due_at <= $1",
    )
    .bind(now.to_sqlx())
    .fetch_one(db)
    .await?)
}

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

/// A statement whose next parameters are bound.
type Bound<'q> = Query<'q, Postgres, PgArguments>;

/// Binds sixteen: the saga's order and epoch, how far it is, when it is looked at next, and what the writing depends on.
fn bind_saga<'q>(
    query: Bound<'q>,
    saga: &'q Saga,
    due: Due,
    heeds_cancel: bool,
    now: Timestamp,
) -> Bound<'q> {
    let (due_at, leased_until) = match due {
        Due::Kept => (Some(now), saga.leased_until),
        Due::At(moment) => (Some(moment), now),
        Due::Woken | Due::Never => (None, now),
    };
    query
        .bind(saga.order.uuid())
        .bind(saga.epoch)
        .bind(saga.phase.as_str())
        .bind(saga.ending.map(Status::as_str))
        .bind(&saga.ending_reason)
        .bind(saga.method.as_ref().map(Json))
        .bind(saga.hold_attempt)
        .bind(saga.hold_extended)
        .bind(saga.failures)
        .bind(&saga.failed_step)
        .bind(saga.wakes)
        .bind(due_at.map(ToSqlx::to_sqlx))
        .bind(leased_until.to_sqlx())
        .bind(now.to_sqlx())
        .bind(due == Due::Never)
        .bind(heeds_cancel)
}

/// Binds eight: all that may change of an order.
fn bind_state<'q>(query: Bound<'q>, order: &'q Order) -> Bound<'q> {
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

/// Binds ten: the columns of the changes in the order's history, and those of the news of them.
fn bind_changes<'q>(
    query: Bound<'q>,
    order: &Order,
    changes: &'q [Change],
) -> Result<Bound<'q>, OrdersError> {
    let news = messages::news_of(order, changes)?;
    let column = |of: fn(&Change) -> &str| changes.iter().map(of).collect::<Vec<_>>();
    let actors = changes.iter().map(|change| change.actor.map(Id::uuid));
    let moments = changes.iter().map(|change| change.at.to_sqlx());
    Ok(query
        .bind(column(|change| messages::kind_of(change.news)))
        .bind(column(|change| &change.description))
        .bind(column(|change| &change.old))
        .bind(column(|change| &change.new))
        .bind(actors.collect::<Vec<_>>())
        .bind(moments.collect::<Vec<_>>())
        .bind(news.message_ids)
        .bind(news.topics)
        .bind(news.keys)
        .bind(news.envelopes))
}

async fn one(db: &mut PgConnection, row: Option<OrderRow>) -> Result<Option<Order>, OrdersError> {
    let Some(row) = row else { return Ok(None) };
    Ok(with_items(db, vec![row]).await?.pop())
}

async fn with_items(db: &mut PgConnection, rows: Vec<OrderRow>) -> Result<Vec<Order>, OrdersError> {
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
struct OrderRow {
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

#[derive(sqlx::FromRow)]
struct SagaRow {
    order_id: Uuid,
    epoch: i64,
    phase: String,
    ending: Option<String>,
    ending_reason: String,
    method: Option<Json<Method>>,
    hold_attempt: i32,
    hold_extended: bool,
    hold_ended: bool,
    cancel_request: Option<Uuid>,
    cancel_fingerprint: Option<Vec<u8>>,
    cancelled_by: Option<Uuid>,
    cancel_reason: String,
    open_refunds: i32,
    wakes: i64,
    leased_until: jiff_sqlx::Timestamp,
    failures: i32,
    failed_step: String,
}

impl SagaRow {
    fn read(self) -> Result<Saga, OrdersError> {
        let order: Id<id::Order> = Id::new(self.order_id);
        let column = |name: &str, got: &str| unreadable("saga", name, order, got);
        let ending = match self.ending {
            None => None,
            Some(text) => Some(Status::parse(&text).ok_or_else(|| column("ending", &text))?),
        };
        Ok(Saga {
            order,
            epoch: self.epoch,
            phase: Phase::parse(&self.phase).ok_or_else(|| column("phase", &self.phase))?,
            ending,
            ending_reason: self.ending_reason,
            method: self.method.map(|Json(method)| method),
            hold_attempt: self.hold_attempt,
            hold_extended: self.hold_extended,
            hold_ended: self.hold_ended,
            cancel: Cancel::read(
                self.cancel_request,
                self.cancel_fingerprint,
                self.cancelled_by,
                self.cancel_reason,
            ),
            open_refunds: self.open_refunds,
            wakes: self.wakes,
            leased_until: self.leased_until.into(),
            failures: self.failures,
            failed_step: self.failed_step,
        })
    }
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

fn unreadable<K: id::Kind>(table: &str, column: &str, row: Id<K>, got: &str) -> OrdersError {
    OrdersError::Unreadable(format!("{table}.{column} of {row} is {got:?}"))
}

#[cfg(test)]
mod tests {
    use holdfast_testkit::TestDatabase;
    use sqlx::AssertSqlSafe;

    use super::*;

    const ORDERS_COUNT: i64 = 20_000;

    #[tokio::test]
    async fn a_list_walks_the_index_that_has_its_order_and_sorts_nothing() {
        let db = TestDatabase::create("orders", &crate::MIGRATOR).await;
        let owner = db.owner();
        for fill in [
            "INSERT INTO orders (id, user_id, source, status, currency, subtotal, total, hold_expires_at, fingerprint,
                                 created_at, updated_at, version)
             SELECT md5(n::text)::uuid, md5((n % 100)::text)::uuid, 'checkout',
                    CASE WHEN n % 1000 = 0 THEN 'needs_attention' ELSE 'confirmed' END,
                    'JPY', 1, 1, now(), '', to_timestamp(n), now(), 1
             FROM generate_series(1, $1) AS n",
            "INSERT INTO order_item (order_id, line, sku, name, quantity, unit_price, ordered_at)
             SELECT md5(n::text)::uuid, 1, 'SKU-' || n % 500, '', 1, 1, to_timestamp(n) FROM generate_series(1, $1) AS n",
        ] {
            let filled = sqlx::query(fill).bind(ORDERS_COUNT).execute(&owner).await;
            filled.expect("filled");
        }
        let analyzed = sqlx::query("ANALYZE orders, order_item")
            .execute(&owner)
            .await;
        analyzed.expect("analyzed");
        let mut app = db.app().acquire().await.expect("a connection");
        // As plans are once a statement was asked often.
        let generic = sqlx::query("SET plan_cache_mode = force_generic_plan")
            .execute(&mut *app)
            .await;
        generic.expect("everybody may");
        let bounds = "'1970-01-01', '2100-01-01', '00000000-0000-0000-0000-000000000000', 21";
        let user = "md5('7')::uuid";
        for (name, statement, bound, index) in [
            (
                "of_user",
                ORDERS_OF_USER,
                format!("{user}, NULL, NULL"),
                "orders_of_user",
            ),
            (
                "of_sku",
                ORDERS_OF_SKU,
                "'SKU-7', NULL".to_owned(),
                "items_of_sku",
            ),
            (
                "of_status",
                ORDERS_OF_STATUS,
                "'needs_attention'".to_owned(),
                "orders_by_status",
            ),
            ("of_all", ORDERS_OF_ALL, String::new(), "orders_by_time"),
        ] {
            let prepared = sqlx::query(AssertSqlSafe(format!("PREPARE {name} AS {statement}")))
                .persistent(false)
                .execute(&mut *app)
                .await;
            prepared.expect("it fits the schema");
            let bound = if bound.is_empty() {
                bound
            } else {
                format!("{bound}, ")
            };
            let explain = format!("EXPLAIN (COSTS off) EXECUTE {name} ({bound}{bounds})");
            let plan: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explain))
                .persistent(false)
                .fetch_all(&mut *app)
                .await
                .expect("a plan");
            let plan = plan.join("\n");
            assert!(plan.contains(&format!("using {index}")), "{name}:\n{plan}");
            assert!(
                !plan.contains("Sort") && !plan.contains("Seq Scan"),
                "{name}:\n{plan}"
            );
        }
    }

    #[tokio::test]
    async fn sagas_with_news_are_looked_up_even_by_a_plan_made_while_there_were_none() {
        let db = TestDatabase::create("orders", &crate::MIGRATOR).await;
        let mut app = db.app().acquire().await.expect("a connection");
        for statement in [
            "SET plan_cache_mode = force_generic_plan".to_owned(),
            format!("PREPARE wake_sagas AS {WAKE_SAGAS}"),
        ] {
            let done = sqlx::query(AssertSqlSafe(statement))
                .persistent(false)
                .execute(&mut *app)
                .await;
            done.expect("it fits the schema");
        }
        let plan: Vec<String> = sqlx::query_scalar(
            "EXPLAIN (COSTS off) EXECUTE wake_sagas (ARRAY[md5('7')::uuid], '{true}', now())",
        )
        .persistent(false)
        .fetch_all(&mut *app)
        .await
        .expect("a plan");
        let plan = plan.join("\n");
        assert!(!plan.contains("Seq Scan"), "{plan}");
    }
}
