//! Every statement on our tables.

use holdfast_kernel::{Currency, Id, Money, Timestamp, id};
use holdfast_platform::outbox;
use jiff_sqlx::ToSqlx;
use sqlx::{FromRow as _, PgConnection, Row as _};
use uuid::Uuid;

use crate::{
    domain::{
        Change, FailedStep, Failure, Method, MethodKind, NextAction, Payment, Purchase, Refund,
        RefundTruth, SavedMethod, State, Status, Taken,
    },
    error::PaymentsError,
    points::{Balance, Entry, Lying, News, TakenBack, Used},
};

/// What a payment is read from.
macro_rules! payment_columns {
    () => {
        "payment_id, purchase_id, user_id, method_type, method_token, amount, points, points_back, units_per_point, \
         currency, expires_at, status, action_type, action_url, slip_number, slip_store, slip_expires_at, failed_step, \
         failure, captured, refunded, refunding, created_at, version, told, checks, next_check_at"
    };
}

/// What a kept method is read from.
macro_rules! methods {
    () => {
        "SELECT payment_method_id, user_id, method_type, method_token, fingerprint, created_at FROM payment_method"
    };
}

/// What is known of a saga.
pub(crate) struct SeenSaga {
    /// The highest epoch, this command's among them.
    pub(crate) epoch: i64,
    /// Its payment must not begin any more.
    pub(crate) undone: bool,
}

/// What a saga and its payment are at the same moment.
pub(crate) struct KnownSaga {
    /// The highest epoch seen.
    pub(crate) epoch: i64,
    pub(crate) payment: Option<Payment>,
}

/// What became of the beginning of a payment.
pub(crate) struct Begun {
    pub(crate) saga: SeenSaga,
    /// It was written now.
    pub(crate) is_new: bool,
}

/// Where a list of entries goes on: behind the one made then, of that payment, its version, and that kind.
pub(crate) type PointPlace = (Timestamp, Uuid, i64, String);

/// A refund as it stands.
pub(crate) struct RefundRow {
    pub(crate) payment: Id<id::Payment>,
    pub(crate) amount: i64,
    pub(crate) points: i64,
    pub(crate) is_open: bool,
}

/// Takes note of a command's epoch, and keeps other commands of the saga out until the transaction ends.
pub(crate) async fn see_saga(
    db: &mut PgConnection,
    purchase: &Purchase,
    epoch: i64,
) -> Result<SeenSaga, PaymentsError> {
    let (epoch, undone) = sqlx::query_as(
        "INSERT INTO saga AS seen (purchase_id, epoch) VALUES ($1, $2)
         ON CONFLICT (purchase_id) DO UPDATE SET epoch = greatest(seen.epoch, excluded.epoch)
         RETURNING epoch, undone_at IS NOT NULL",
    )
    .bind(purchase.as_str())
    .bind(epoch)
    .fetch_one(db)
    .await?;
    Ok(SeenSaga { epoch, undone })
}

/// What is known of a saga, with its payment as it stands; `None` when none of its commands was seen.
pub(crate) async fn find_saga(
    db: &mut PgConnection,
    purchase: &Purchase,
) -> Result<Option<KnownSaga>, PaymentsError> {
    let row = sqlx::query(concat!(
        "SELECT saga.epoch, ",
        payment_columns!(),
        " FROM saga LEFT JOIN payment USING (purchase_id) WHERE purchase_id = $1"
    ))
    .bind(purchase.as_str())
    .fetch_optional(db)
    .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let has_payment = row.try_get::<Option<Uuid>, _>("payment_id")?.is_some();
    let payment = has_payment
        .then(|| PaymentRow::from_row(&row)?.read())
        .transpose()?;
    Ok(Some(KnownSaga {
        epoch: row.try_get("epoch")?,
        payment,
    }))
}

/// Leaves a tombstone: the payment of this saga must not begin any more.
pub(crate) async fn bury_payment(
    db: &mut PgConnection,
    purchase: &Purchase,
    now: Timestamp,
) -> Result<(), PaymentsError> {
    sqlx::query("UPDATE saga SET undone_at = coalesce(undone_at, $2) WHERE purchase_id = $1")
        .bind(purchase.as_str())
        .bind(now.to_sqlx())
        .execute(db)
        .await?;
    Ok(())
}

/// Takes note of a command's epoch and writes its new payment, in one statement: the note alone when a higher epoch was
/// seen, when the payment must not begin any more and when the purchase has one.
pub(crate) async fn begin_payment(
    db: &mut PgConnection,
    epoch: i64,
    payment: &Payment,
) -> Result<Begun, PaymentsError> {
    let (epoch, undone, is_new) = sqlx::query_as(
        "WITH known AS (
            INSERT INTO saga AS seen (purchase_id, epoch) VALUES ($1, $2)
            ON CONFLICT (purchase_id) DO UPDATE SET epoch = greatest(seen.epoch, excluded.epoch)
            RETURNING epoch, undone_at IS NOT NULL AS undone
         ), begun AS (
            INSERT INTO payment (payment_id, purchase_id, user_id, method_type, method_token, amount, points,
                                 units_per_point, currency, expires_at, status, created_at, version, told, checks,
                                 next_check_at)
            SELECT $3, $1, $4, $5, $6, $7, $16, $17, $8, $9, $10, $11, $12, $13, $14, $15
            FROM known WHERE epoch = $2 AND NOT undone
            ON CONFLICT (payment_id) DO NOTHING
            RETURNING payment_id
         )
         SELECT epoch, undone, EXISTS (SELECT FROM begun) FROM known",
    )
    .bind(payment.purchase.as_str())
    .bind(epoch)
    .bind(payment.id.uuid())
    .bind(payment.user.uuid())
    .bind(payment.method.kind.as_str())
    .bind(&payment.method.token)
    .bind(payment.amount.amount)
    .bind(payment.amount.currency.code())
    .bind(payment.expires_at.to_sqlx())
    .bind(payment.status().as_str())
    .bind(payment.created_at.to_sqlx())
    .bind(payment.version)
    .bind(payment.told)
    .bind(payment.checks)
    .bind(payment.next_check_at.map(ToSqlx::to_sqlx))
    .bind(payment.points.all)
    .bind(payment.units_per_point)
    .fetch_one(db)
    .await?;
    Ok(Begun {
        saga: SeenSaga { epoch, undone },
        is_new,
    })
}

/// A payment as it stands.
pub(crate) async fn find_payment(
    db: &mut PgConnection,
    payment: Id<id::Payment>,
) -> Result<Option<Payment>, PaymentsError> {
    let row: Option<PaymentRow> = sqlx::query_as(concat!(
        "SELECT ",
        payment_columns!(),
        " FROM payment WHERE payment_id = $1"
    ))
    .bind(payment.uuid())
    .fetch_optional(db)
    .await?;
    row.map(PaymentRow::read).transpose()
}

/// A payment that nobody else changes until the transaction ends.
pub(crate) async fn lock_payment(
    db: &mut PgConnection,
    payment: Id<id::Payment>,
) -> Result<Option<Payment>, PaymentsError> {
    let row: Option<PaymentRow> = sqlx::query_as(concat!(
        "SELECT ",
        payment_columns!(),
        " FROM payment WHERE payment_id = $1 FOR UPDATE"
    ))
    .bind(payment.uuid())
    .fetch_optional(db)
    .await?;
    row.map(PaymentRow::read).transpose()
}

/// Writes what may change of a payment together with its news and the points it earned, unless it is no longer at the
/// version of which this is a change: then nothing is written.
pub(crate) async fn save_payment(
    db: &mut PgConnection,
    change: &Change,
    news: outbox::Columns,
    now: Timestamp,
) -> Result<bool, PaymentsError> {
    let payment = &change.payment;
    let state = StateColumns::of(payment);
    let saved = sqlx::query_scalar(
        "WITH saved AS (
            UPDATE payment SET status = $3, action_type = $4, action_url = $5, slip_number = $6, slip_store = $7,
                   slip_expires_at = $8, failed_step = $9, failure = $10, captured = $11, refunded = $12,
                   refunding = $13, version = $14, told = $15, checks = $16, next_check_at = $17,
                   points_back = $26
            WHERE payment_id = $1 AND version = $2
            RETURNING payment_id, purchase_id
         ), told AS (
            INSERT INTO outbox (message_id, topic, key, envelope)
            SELECT message_id, topic, key, envelope
            FROM saved, unnest($18::uuid[], $19::text[], $20::text[], $21::text[])
                        WITH ORDINALITY AS news (message_id, topic, key, envelope, place)
            ORDER BY place
         ), account AS (
            INSERT INTO point_account AS known (user_id, currency, balance, version)
            SELECT $22, $23, $24::bigint, 1 FROM saved WHERE $24 > 0
            ON CONFLICT (user_id, currency)
            DO UPDATE SET balance = known.balance + excluded.balance, version = known.version + 1
            RETURNING balance, version
         ), news_of_points AS (
            INSERT INTO point_news (user_id, currency, version, balance, delta, reason, payment_id, purchase_id, changed_at)
            SELECT $22, $23, version, balance, $24, 'earned', payment_id, purchase_id, $25 FROM saved, account
         ), entries AS (
            INSERT INTO point_entry (payment_id, payment_version, kind, account, user_id, currency, amount, created_at)
            SELECT payment_id, $14, 'earned', account, $22, $23, sign * $24, $25
            FROM saved, (VALUES ('person', 1), ('issued', -1)) AS side (account, sign) WHERE $24 > 0
         )
         SELECT EXISTS (SELECT FROM saved)",
    )
    .bind(payment.id.uuid())
    .bind(change.from)
    .bind(payment.status().as_str())
    .bind(state.action_type)
    .bind(state.action_url)
    .bind(state.slip_number)
    .bind(state.slip_store)
    .bind(state.slip_expires_at.map(ToSqlx::to_sqlx))
    .bind(state.failed_step)
    .bind(state.failure)
    .bind(state.taken.captured)
    .bind(state.taken.refunded)
    .bind(state.taken.refunding)
    .bind(payment.version)
    .bind(payment.told)
    .bind(payment.checks)
    .bind(payment.next_check_at.map(ToSqlx::to_sqlx))
    .bind(news.message_ids)
    .bind(news.topics)
    .bind(news.keys)
    .bind(news.envelopes)
    .bind(payment.user.uuid())
    .bind(payment.amount.currency.code())
    .bind(change.earned)
    .bind(now.to_sqlx())
    .bind(payment.points.back)
    .fetch_one(db)
    .await?;
    Ok(saved)
}

/// Takes back points that a payment had earned: those that its customer still has, and of the others it is written down
/// that they are lost.
pub(crate) async fn take_points_back(
    db: &mut PgConnection,
    payment: &Payment,
    points: i64,
    now: Timestamp,
) -> Result<(), PaymentsError> {
    let currency = payment.amount.currency;
    let balance: Option<i64> = sqlx::query_scalar(
        "SELECT balance FROM point_account WHERE user_id = $1 AND currency = $2 FOR UPDATE",
    )
    .bind(payment.user.uuid())
    .bind(currency.code())
    .fetch_optional(&mut *db)
    .await?;
    let taken = TakenBack::of(points, balance.unwrap_or_default());
    sqlx::query(
        "WITH account AS (
            UPDATE point_account SET balance = balance - $5, version = version + 1
            WHERE user_id = $3 AND currency = $4 AND $5 > 0
            RETURNING balance, version
         ), news AS (
            INSERT INTO point_news (user_id, currency, version, balance, delta, reason, payment_id, purchase_id, changed_at)
            SELECT $3, $4, version, balance, -$5, 'taken_back', $1, $8, $7 FROM account
         )
         INSERT INTO point_entry (payment_id, payment_version, kind, account, user_id, currency, amount, created_at)
         SELECT $1, $2, 'taken_back', account, $3, $4, amount, $7
         FROM (VALUES ('person', -$5::bigint), ('written_off', -$6::bigint), ('issued', $5 + $6)) AS side (account, amount)
         WHERE amount <> 0",
    )
    .bind(payment.id.uuid())
    .bind(payment.version)
    .bind(payment.user.uuid())
    .bind(currency.code())
    .bind(taken.from_person)
    .bind(taken.written_off)
    .bind(now.to_sqlx())
    .bind(payment.purchase.as_str())
    .execute(db)
    .await?;
    Ok(())
}

/// Sets aside the points that a new payment uses; `false`, and nothing moves, when there are not so many.
pub(crate) async fn hold_points(
    db: &mut PgConnection,
    payment: &Payment,
) -> Result<bool, PaymentsError> {
    let done = sqlx::query(
        "WITH account AS (
            UPDATE point_account SET balance = balance - $5, version = version + 1
            WHERE user_id = $3 AND currency = $4 AND balance >= $5
            RETURNING balance, version
         ), news AS (
            INSERT INTO point_news (user_id, currency, version, balance, delta, reason, payment_id, purchase_id, changed_at)
            SELECT $3, $4, version, balance, -$5, 'used', $1, $7, $6 FROM account
         )
         INSERT INTO point_entry (payment_id, payment_version, kind, account, user_id, currency, amount, created_at)
         SELECT $1, $2, 'used', side.account, $3, $4, sign * $5::bigint, $6
         FROM account, (VALUES ('person', -1), ('held', 1)) AS side (account, sign)",
    )
    .bind(payment.id.uuid())
    .bind(payment.version)
    .bind(payment.user.uuid())
    .bind(payment.amount.currency.code())
    .bind(payment.points.all)
    .bind(payment.created_at.to_sqlx())
    .bind(payment.purchase.as_str())
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 2)
}

/// Moves points that a payment uses on to what they were set aside for, or back to their owner.
pub(crate) async fn move_points(
    db: &mut PgConnection,
    payment: &Payment,
    moved: Lying,
    now: Timestamp,
) -> Result<(), PaymentsError> {
    sqlx::query(
        "WITH account AS (
            UPDATE point_account SET balance = balance + $5, version = version + 1
            WHERE user_id = $3 AND currency = $4 AND $5 > 0
            RETURNING balance, version
         ), news AS (
            INSERT INTO point_news (user_id, currency, version, balance, delta, reason, payment_id, purchase_id, changed_at)
            SELECT $3, $4, version, balance, $5, 'given_back', $1, $9, $8 FROM account
         )
         INSERT INTO point_entry (payment_id, payment_version, kind, account, user_id, currency, amount, created_at)
         SELECT $1, $2, CASE WHEN $5 > 0 THEN 'given_back' ELSE 'used' END, account, $3, $4, amount, $8
         FROM (VALUES ('person', $5::bigint), ('held', $6::bigint), ('spent', $7::bigint)) AS side (account, amount)
         WHERE amount <> 0",
    )
    .bind(payment.id.uuid())
    .bind(payment.version)
    .bind(payment.user.uuid())
    .bind(payment.amount.currency.code())
    .bind(moved.to_owner())
    .bind(moved.held)
    .bind(moved.spent)
    .bind(now.to_sqlx())
    .bind(payment.purchase.as_str())
    .execute(db)
    .await?;
    Ok(())
}

/// What a user has in this currency.
pub(crate) async fn find_balance(
    db: &mut PgConnection,
    user: Id<id::User>,
    currency: Currency,
) -> Result<i64, PaymentsError> {
    let balance: Option<i64> = sqlx::query_scalar(
        "SELECT balance FROM point_account WHERE user_id = $1 AND currency = $2",
    )
    .bind(user.uuid())
    .bind(currency.code())
    .fetch_optional(db)
    .await?;
    Ok(balance.unwrap_or_default())
}

/// What a user has, by currency.
pub(crate) async fn list_balances(
    db: &mut PgConnection,
    user: Id<id::User>,
) -> Result<Vec<Balance>, PaymentsError> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT currency, balance FROM point_account WHERE user_id = $1 ORDER BY currency",
    )
    .bind(user.uuid())
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|(currency, points)| {
            let currency = currency.parse().map_err(|_| {
                PaymentsError::Unreadable(format!("point_account.currency of {user}"))
            })?;
            Ok(Balance { currency, points })
        })
        .collect()
}

/// What a user's accounts gained and lost behind `after`, newest first.
pub(crate) async fn list_point_entries(
    db: &mut PgConnection,
    user: Id<id::User>,
    after: Option<PointPlace>,
    limit: i64,
) -> Result<Vec<Entry>, PaymentsError> {
    let first = || (Timestamp::MAX, Uuid::max(), i64::MAX, String::new());
    let (at, payment, version, kind) = after.unwrap_or_else(first);
    let rows: Vec<EntryRow> = sqlx::query_as(
        "SELECT payment_id, payment_version, kind, purchase_id, point_entry.currency, point_entry.amount, point_entry.created_at
         FROM point_entry JOIN payment USING (payment_id)
         WHERE point_entry.user_id = $1 AND account = 'person'
           AND (point_entry.created_at, payment_id, payment_version, kind) < ($2, $3, $4, $6)
         ORDER BY point_entry.created_at DESC, payment_id DESC, payment_version DESC, kind DESC LIMIT $5",
    )
    .bind(user.uuid())
    .bind(at.to_sqlx())
    .bind(payment)
    .bind(version)
    .bind(limit)
    .bind(kind)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(EntryRow::read).collect()
}

/// Takes up to `limit` changes of accounts that nobody was told of yet, oldest first.
pub(crate) async fn take_point_news(
    db: &mut PgConnection,
    limit: i64,
) -> Result<Vec<News>, sqlx::Error> {
    let rows: Vec<NewsRow> = sqlx::query_as(
        "WITH taken AS (
            DELETE FROM point_news
            WHERE point_news_id = ANY (ARRAY(SELECT point_news_id FROM point_news ORDER BY point_news_id LIMIT $1))
            RETURNING point_news_id, user_id, currency, version, balance, delta, reason, payment_id, purchase_id, changed_at
         )
         SELECT user_id, currency, version, balance, delta, reason, payment_id, purchase_id, changed_at
         FROM taken ORDER BY point_news_id",
    )
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(NewsRow::read).collect()
}

/// Whether any payment is due for a look.
pub(crate) async fn is_any_due(
    db: &mut PgConnection,
    now: Timestamp,
) -> Result<bool, PaymentsError> {
    Ok(
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM payment WHERE next_check_at <= $1)")
            .bind(now.to_sqlx())
            .fetch_one(db)
            .await?,
    )
}

/// Takes up to `limit` payments that are due for a look, oldest first, and puts off the next look of each, so that
/// workers beside each other take different ones and one that dies loses none.
pub(crate) async fn claim_due_payments(
    db: &mut PgConnection,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<Payment>, PaymentsError> {
    let rows: Vec<PaymentRow> = sqlx::query_as(concat!(
        "SELECT ",
        payment_columns!(),
        " FROM payment WHERE next_check_at <= $1
         ORDER BY next_check_at LIMIT $2 FOR UPDATE SKIP LOCKED"
    ))
    .bind(now.to_sqlx())
    .bind(limit)
    .fetch_all(&mut *db)
    .await?;
    let mut due = Vec::with_capacity(rows.len());
    for row in rows {
        let mut payment = row.read()?;
        payment.next_check_at = Some(Payment::look_again_at(payment.checks, now));
        payment.checks = payment.checks.saturating_add(1);
        due.push(payment);
    }
    let ids: Vec<Uuid> = due.iter().map(|payment| payment.id.uuid()).collect();
    let times: Vec<_> = due
        .iter()
        .map(|payment| payment.next_check_at.map(ToSqlx::to_sqlx))
        .collect();
    sqlx::query(
        "UPDATE payment SET checks = checks + 1, next_check_at = later.at
         FROM unnest($1::uuid[], $2::timestamptz[]) AS later (id, at)
         WHERE payment_id = later.id",
    )
    .bind(ids)
    .bind(times)
    .execute(db)
    .await?;
    Ok(due)
}

/// Which of these payments we have no row of.
pub(crate) async fn unknown_among(
    db: &mut PgConnection,
    payments: &[Id<id::Payment>],
) -> Result<Vec<Id<id::Payment>>, PaymentsError> {
    let asked: Vec<Uuid> = payments.iter().map(|payment| payment.uuid()).collect();
    let unknown: Vec<Uuid> = sqlx::query_scalar(
        "SELECT asked.id FROM unnest($1::uuid[]) AS asked (id)
         WHERE NOT EXISTS (SELECT FROM payment WHERE payment_id = asked.id)",
    )
    .bind(asked)
    .fetch_all(db)
    .await?;
    Ok(unknown.into_iter().map(Id::new).collect())
}

/// Writes down a refund that begins.
pub(crate) async fn insert_refund(
    db: &mut PgConnection,
    payment: Id<id::Payment>,
    refund: &Refund,
    now: Timestamp,
) -> Result<(), PaymentsError> {
    sqlx::query(
        // Points are back with the promise; where there is no money nothing is left to do.
        "INSERT INTO refund (refund_id, payment_id, amount, points, reason, status, created_at, settled_at)
         VALUES ($1, $2, $3::bigint, $6, $4, CASE WHEN $3::bigint > 0 THEN 'open' ELSE 'done' END, $5::timestamptz,
                 CASE WHEN $3::bigint > 0 THEN NULL ELSE $5::timestamptz END)",
    )
    .bind(refund.id.uuid())
    .bind(payment.uuid())
    .bind(refund.amount)
    .bind(&refund.reason)
    .bind(now.to_sqlx())
    .bind(refund.points)
    .execute(db)
    .await?;
    Ok(())
}

/// A refund of that id.
pub(crate) async fn find_refund(
    db: &mut PgConnection,
    refund: Id<id::Refund>,
) -> Result<Option<RefundRow>, PaymentsError> {
    let row: Option<(Uuid, i64, i64, String)> = sqlx::query_as(
        "SELECT payment_id, amount, points, status FROM refund WHERE refund_id = $1",
    )
    .bind(refund.uuid())
    .fetch_optional(db)
    .await?;
    Ok(row.map(|(payment, amount, points, status)| RefundRow {
        payment: Id::new(payment),
        amount,
        points,
        is_open: status == OPEN,
    }))
}

/// The refunds of a payment that are not over, oldest first.
pub(crate) async fn open_refunds(
    db: &mut PgConnection,
    payment: Id<id::Payment>,
) -> Result<Vec<Refund>, PaymentsError> {
    let rows: Vec<(Uuid, i64, i64, String)> = sqlx::query_as(
        "SELECT refund_id, amount, points, reason FROM refund
         WHERE payment_id = $1 AND status = 'open' ORDER BY created_at, refund_id",
    )
    .bind(payment.uuid())
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(refund, amount, points, reason)| Refund {
            id: Id::new(refund),
            amount,
            points,
            reason,
        })
        .collect())
}

/// Writes down how a refund ended.
pub(crate) async fn close_refund(
    db: &mut PgConnection,
    refund: Id<id::Refund>,
    truth: &RefundTruth,
    now: Timestamp,
) -> Result<(), PaymentsError> {
    let (status, failure) = match truth {
        RefundTruth::Pending => return Ok(()),
        RefundTruth::Done => ("done", None),
        RefundTruth::Refused { reason } => ("refused", Some(reason)),
    };
    sqlx::query(
        "UPDATE refund SET status = $2, failure = $3, settled_at = $4 WHERE refund_id = $1 AND status = 'open'",
    )
    .bind(refund.uuid())
    .bind(status)
    .bind(failure)
    .bind(now.to_sqlx())
    .execute(db)
    .await?;
    Ok(())
}

/// Ends the refunds that waited for a capture that never came.
pub(crate) async fn drop_open_refunds(
    db: &mut PgConnection,
    payment: Id<id::Payment>,
    now: Timestamp,
) -> Result<(), PaymentsError> {
    sqlx::query(
        "UPDATE refund SET status = 'refused', failure = 'nothing_captured', settled_at = $2
         WHERE payment_id = $1 AND status = 'open'",
    )
    .bind(payment.uuid())
    .bind(now.to_sqlx())
    .execute(db)
    .await?;
    Ok(())
}

/// Keeps a method; an id that has one keeps it.
pub(crate) async fn insert_method(
    db: &mut PgConnection,
    saved: &SavedMethod,
    fingerprint: &[u8],
) -> Result<bool, PaymentsError> {
    let done = sqlx::query(
        "INSERT INTO payment_method (payment_method_id, user_id, method_type, method_token, fingerprint, created_at)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (payment_method_id) DO NOTHING",
    )
    .bind(saved.id.uuid())
    .bind(saved.user.uuid())
    .bind(saved.method.kind.as_str())
    .bind(&saved.method.token)
    .bind(fingerprint)
    .bind(saved.created_at.to_sqlx())
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A kept method, and the fingerprint of the request that kept it.
pub(crate) async fn find_method(
    db: &mut PgConnection,
    method: Id<id::PaymentMethod>,
) -> Result<Option<(SavedMethod, Vec<u8>)>, PaymentsError> {
    let row: Option<MethodRow> =
        sqlx::query_as(concat!(methods!(), " WHERE payment_method_id = $1"))
            .bind(method.uuid())
            .fetch_optional(db)
            .await?;
    row.map(MethodRow::read).transpose()
}

/// A user's methods behind `after`, newest first.
pub(crate) async fn list_methods(
    db: &mut PgConnection,
    user: Id<id::User>,
    after: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> Result<Vec<SavedMethod>, PaymentsError> {
    let (at, id) = after.unzip();
    let rows: Vec<MethodRow> = sqlx::query_as(
        concat!(methods!(), " WHERE user_id = $1 AND ($2::timestamptz IS NULL OR (created_at, payment_method_id) < ($2, $3))
         ORDER BY created_at DESC, payment_method_id DESC LIMIT $4"),
    )
    .bind(user.uuid())
    .bind(at.map(ToSqlx::to_sqlx))
    .bind(id)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| row.read().map(|(saved, _)| saved))
        .collect()
}

/// Until when a provider's list was compared with ours.
pub(crate) async fn find_swept_until(
    db: &mut PgConnection,
    provider: &str,
) -> Result<Option<Timestamp>, PaymentsError> {
    let at: Option<jiff_sqlx::Timestamp> =
        sqlx::query_scalar("SELECT swept_until FROM sweep WHERE provider = $1")
            .bind(provider)
            .fetch_optional(db)
            .await?;
    Ok(at.map(Timestamp::from))
}

/// Writes down until when a provider's list was compared with ours; never goes back.
pub(crate) async fn save_swept_until(
    db: &mut PgConnection,
    provider: &str,
    until: Timestamp,
) -> Result<(), PaymentsError> {
    sqlx::query(
        "INSERT INTO sweep AS done (provider, swept_until) VALUES ($1, $2)
         ON CONFLICT (provider) DO UPDATE SET swept_until = greatest(done.swept_until, excluded.swept_until)",
    )
    .bind(provider)
    .bind(until.to_sqlx())
    .execute(db)
    .await?;
    Ok(())
}

const OPEN: &str = "open";
const REDIRECT: &str = "redirect";
const SLIP: &str = "konbini_slip";

/// What of a state stands in columns of its own.
#[derive(Default)]
struct StateColumns<'a> {
    action_type: Option<&'static str>,
    action_url: Option<&'a str>,
    slip_number: Option<&'a str>,
    slip_store: Option<&'a str>,
    slip_expires_at: Option<Timestamp>,
    failed_step: Option<&'static str>,
    failure: Option<&'a str>,
    taken: Taken,
}

impl<'a> StateColumns<'a> {
    fn of(payment: &'a Payment) -> Self {
        let taken = payment.taken();
        let bare = Self {
            taken,
            ..Self::default()
        };
        match &payment.state {
            State::RequiresAction(NextAction::Redirect { url }) => Self {
                action_type: Some(REDIRECT),
                action_url: Some(url),
                ..bare
            },
            State::RequiresAction(NextAction::Slip {
                confirmation_number,
                store,
                expires_at,
            }) => Self {
                action_type: Some(SLIP),
                slip_number: Some(confirmation_number),
                slip_store: Some(store),
                slip_expires_at: Some(*expires_at),
                ..bare
            },
            State::Failed(failure) => Self {
                failed_step: Some(failure.step.as_str()),
                failure: Some(&failure.reason),
                ..bare
            },
            State::Processing
            | State::Authorized
            | State::Capturing { .. }
            | State::Voiding { .. }
            | State::Captured(_)
            | State::RefundPending(_)
            | State::PartiallyRefunded(_)
            | State::Refunded(_)
            | State::Voided
            | State::Expired => bare,
        }
    }
}

#[derive(sqlx::FromRow)]
struct PaymentRow {
    payment_id: Uuid,
    purchase_id: String,
    user_id: Uuid,
    method_type: String,
    method_token: String,
    amount: i64,
    points: i64,
    points_back: i64,
    units_per_point: i64,
    currency: String,
    expires_at: jiff_sqlx::Timestamp,
    status: String,
    action_type: Option<String>,
    action_url: Option<String>,
    slip_number: Option<String>,
    slip_store: Option<String>,
    slip_expires_at: Option<jiff_sqlx::Timestamp>,
    failed_step: Option<String>,
    failure: Option<String>,
    captured: i64,
    refunded: i64,
    refunding: i64,
    created_at: jiff_sqlx::Timestamp,
    version: i64,
    told: i64,
    checks: i32,
    next_check_at: Option<jiff_sqlx::Timestamp>,
}

impl PaymentRow {
    fn read(self) -> Result<Payment, PaymentsError> {
        let id: Id<id::Payment> = Id::new(self.payment_id);
        let unreadable =
            |column: &str| PaymentsError::Unreadable(format!("payment.{column} of {id}"));
        let taken = Taken {
            captured: self.captured,
            refunded: self.refunded,
            refunding: self.refunding,
        };
        let queued = self.refunding;
        let status = Status::parse(&self.status).ok_or_else(|| unreadable("status"))?;
        let state = match status {
            Status::Processing => State::Processing,
            Status::RequiresAction => {
                let action = match self.action_type.as_deref() {
                    Some(REDIRECT) => NextAction::Redirect {
                        url: self.action_url.ok_or_else(|| unreadable("action_url"))?,
                    },
                    Some(SLIP) => NextAction::Slip {
                        confirmation_number: self
                            .slip_number
                            .ok_or_else(|| unreadable("slip_number"))?,
                        store: self.slip_store.ok_or_else(|| unreadable("slip_store"))?,
                        expires_at: self
                            .slip_expires_at
                            .map(Timestamp::from)
                            .ok_or_else(|| unreadable("slip_expires_at"))?,
                    },
                    _ => return Err(unreadable("action_type")),
                };
                State::RequiresAction(action)
            }
            Status::Authorized => State::Authorized,
            Status::Capturing => State::Capturing { queued },
            Status::Voiding => State::Voiding { queued },
            Status::Captured => State::Captured(taken),
            Status::RefundPending => State::RefundPending(taken),
            Status::PartiallyRefunded => State::PartiallyRefunded(taken),
            Status::Refunded => State::Refunded(taken),
            Status::Failed => State::Failed(Failure {
                step: self
                    .failed_step
                    .as_deref()
                    .and_then(FailedStep::parse)
                    .ok_or_else(|| unreadable("failed_step"))?,
                reason: self.failure.ok_or_else(|| unreadable("failure"))?,
            }),
            Status::Voided => State::Voided,
            Status::Expired => State::Expired,
        };
        let currency = self.currency.parse().map_err(|_| unreadable("currency"))?;
        Ok(Payment {
            id,
            purchase: Purchase::parse(&self.purchase_id)
                .ok_or_else(|| unreadable("purchase_id"))?,
            user: Id::new(self.user_id),
            method: Method {
                kind: MethodKind::parse(&self.method_type)
                    .ok_or_else(|| unreadable("method_type"))?,
                token: self.method_token,
            },
            amount: Money::new(self.amount, currency),
            points: Used {
                all: self.points,
                back: self.points_back,
            },
            units_per_point: self.units_per_point,
            expires_at: self.expires_at.into(),
            state,
            created_at: self.created_at.into(),
            version: self.version,
            told: self.told,
            checks: self.checks,
            next_check_at: self.next_check_at.map(Timestamp::from),
        })
    }
}

#[derive(sqlx::FromRow)]
struct EntryRow {
    payment_id: Uuid,
    payment_version: i64,
    kind: String,
    purchase_id: String,
    currency: String,
    amount: i64,
    created_at: jiff_sqlx::Timestamp,
}

impl EntryRow {
    fn read(self) -> Result<Entry, PaymentsError> {
        let payment: Id<id::Payment> = Id::new(self.payment_id);
        let currency = (self.currency.parse())
            .map_err(|_| PaymentsError::Unreadable(format!("point_entry.currency of {payment}")))?;
        Ok(Entry {
            payment,
            payment_version: self.payment_version,
            kind: self.kind,
            purchase: self.purchase_id,
            currency,
            points: self.amount,
            created_at: self.created_at.into(),
        })
    }
}

#[derive(sqlx::FromRow)]
struct NewsRow {
    user_id: Uuid,
    currency: String,
    version: i64,
    balance: i64,
    delta: i64,
    reason: String,
    payment_id: Uuid,
    purchase_id: String,
    changed_at: jiff_sqlx::Timestamp,
}

impl NewsRow {
    fn read(self) -> Result<News, sqlx::Error> {
        let user: Id<id::User> = Id::new(self.user_id);
        let currency = (self.currency.parse())
            .map_err(|_| sqlx::Error::Decode(format!("point_news.currency of {user}").into()))?;
        Ok(News {
            user,
            currency,
            version: self.version,
            balance: self.balance,
            delta: self.delta,
            reason: self.reason,
            payment: Id::new(self.payment_id),
            purchase: self.purchase_id,
            changed_at: self.changed_at.into(),
        })
    }
}

#[derive(sqlx::FromRow)]
struct MethodRow {
    payment_method_id: Uuid,
    user_id: Uuid,
    method_type: String,
    method_token: String,
    fingerprint: Vec<u8>,
    created_at: jiff_sqlx::Timestamp,
}

impl MethodRow {
    fn read(self) -> Result<(SavedMethod, Vec<u8>), PaymentsError> {
        let id: Id<id::PaymentMethod> = Id::new(self.payment_method_id);
        let kind = MethodKind::parse(&self.method_type).ok_or_else(|| {
            PaymentsError::Unreadable(format!("payment_method.method_type of {id}"))
        })?;
        let saved = SavedMethod {
            id,
            user: Id::new(self.user_id),
            method: Method {
                kind,
                token: self.method_token,
            },
            created_at: self.created_at.into(),
        };
        Ok((saved, self.fingerprint))
    }
}
