//! Statements on sagas: how far each is, who has it, and what wakes it.

use std::{collections::BTreeMap, time::Duration};

use holdfast_kernel::{Id, Timestamp, id};
use jiff_sqlx::ToSqlx;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::{Bound, history::bind_changes, order::bind_state, unreadable};
use crate::{
    domain::{Change, Order, Status},
    error::OrdersError,
    saga::{Cancel, Method, Phase, Saga},
};

/// What a saga is read from.
macro_rules! saga_columns {
    () => {
        "order_id, epoch, phase, ending, ending_reason, method, hold_attempt, hold_extended, hold_ended, \
         cancel_request, cancel_fingerprint, cancelled_by, cancel_reason, open_refunds, wakes, leased_until, failures, \
         failed_step"
    };
}

/// What [`bind_saga`] binds, as it is written.
macro_rules! saga_state {
    () => {
        "phase = $3, ending = $4, ending_reason = $5, method = $6, hold_attempt = $7, hold_extended = $8, \
         failures = $9, failed_step = $10, leased_until = $13, \
         due_at = CASE WHEN wakes = $11 OR $15 AND open_refunds = 0 THEN $12::timestamptz ELSE $14 END"
    };
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
    let query = sqlx::query(concat!(
        "UPDATE saga SET ",
        saga_state!(),
        " WHERE order_id = $1 AND epoch = $2 AND (cancel_request IS NULL OR NOT $16)"
    ));
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
    // Both rows are locked, and seen as they are then, before either is written.
    let query = sqlx::query(
        concat!(
"WITH mine AS (
            SELECT order_id FROM saga JOIN orders ON id = order_id
            WHERE order_id = $1 AND epoch = $2 AND (cancel_request IS NULL OR NOT $16) AND version = $17
            FOR UPDATE OF saga, orders
         ), carried_on AS (
            UPDATE saga SET ",
saga_state!(),
" WHERE order_id = $1 AND EXISTS (SELECT FROM mine)
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
         SELECT order_id FROM mine"
),
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
    let rows: Vec<SagaRow> = sqlx::query_as(concat!(
        "UPDATE saga SET epoch = epoch + 1, leased_until = $2
         WHERE order_id IN (
             SELECT order_id FROM saga WHERE due_at <= $1 AND leased_until <= $1
             ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED)
         RETURNING ",
        saga_columns!()
    ))
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
    let row: Option<SagaRow> = sqlx::query_as(concat!(
        "SELECT ",
        saga_columns!(),
        " FROM saga WHERE order_id = $1 FOR UPDATE"
    ))
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

#[cfg(test)]
mod tests {
    use holdfast_testkit::TestDatabase;
    use sqlx::AssertSqlSafe;

    use super::*;

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
