//! The sandbox's book: every statement on its own schema.

use holdfast_kernel::{Id, Money, Timestamp, id};
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Notice;
use crate::{
    domain::{Method, MethodKind},
    provider::{Ask, Unknown},
};

/// What a charge is read from.
macro_rules! charge_columns {
    () => {
        "payment_id, method_type, method_token, amount, currency, expires_at, status, failure, captured, refunded, \
         created_at, known_at"
    };
}

/// A charge as it is written.
pub(super) struct Row {
    pub(super) ask: Ask,
    pub(super) standing: Standing,
    pub(super) failure: Option<String>,
    pub(super) captured: i64,
    pub(super) refunded: i64,
    pub(super) created_at: Timestamp,
    pub(super) known_at: Timestamp,
}

/// How a charge truly stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    RequiresAction,
    Authorized,
    Captured,
    Failed,
    Voided,
}

/// A movement of money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Authorize,
    Capture,
    Refund,
    Void,
}

/// A move from one standing to another.
pub(super) struct Move<'a> {
    /// Where it may begin.
    pub(super) from: &'a [Standing],
    pub(super) to: Standing,
    pub(super) failure: Option<&'a str>,
    /// The movement of all the money that goes with it.
    pub(super) entry: Option<Entry>,
    /// When it is told of.
    pub(super) known_at: Timestamp,
}

/// What the book says of one payment, in minor units: for the auditor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BookFact {
    /// The payment.
    pub payment: Id<id::Payment>,
    /// Its currency.
    pub currency: String,
    /// How often money was taken; never more than once.
    pub captures: i64,
    /// Money taken.
    pub captured: i64,
    /// Money given back.
    pub refunded: i64,
}

/// Payments of which the auditor reads the facts at a time, so that no snapshot lives long.
const AUDIT_SLICE_ROWS: i64 = 1_000;

/// The whole book by its entries, in order of payments.
pub async fn audit(db: &mut PgConnection) -> Result<Vec<BookFact>, sqlx::Error> {
    let mut facts: Vec<BookFact> = Vec::new();
    loop {
        let after = facts.last().map_or(Uuid::nil(), |fact| fact.payment.uuid());
        let slice: Vec<(Uuid, String, i64, i64, i64)> = sqlx::query_as(
            "SELECT payment_id, currency,
                    (SELECT count(*) FROM entry WHERE entry.payment_id = charge.payment_id AND kind = 'capture'),
                    (SELECT coalesce(sum(amount), 0)::bigint FROM entry
                     WHERE entry.payment_id = charge.payment_id AND kind = 'capture'),
                    (SELECT coalesce(sum(amount), 0)::bigint FROM entry
                     WHERE entry.payment_id = charge.payment_id AND kind = 'refund')
             FROM charge WHERE payment_id > $1 ORDER BY payment_id LIMIT $2",
        )
        .bind(after)
        .bind(AUDIT_SLICE_ROWS)
        .fetch_all(&mut *db)
        .await?;
        if slice.is_empty() {
            return Ok(facts);
        }
        facts.extend(
            slice.into_iter().map(
                |(payment, currency, captures, captured, refunded)| BookFact {
                    payment: Id::new(payment),
                    currency,
                    captures,
                    captured,
                    refunded,
                },
            ),
        );
    }
}

impl Row {
    pub(super) fn new(ask: Ask, standing: Standing, now: Timestamp) -> Self {
        Self {
            ask,
            standing,
            failure: None,
            captured: 0,
            refunded: 0,
            created_at: now,
            known_at: now,
        }
    }

    pub(super) fn take_all(&mut self) {
        self.standing = Standing::Captured;
        self.captured = self.ask.amount.amount;
    }
}

/// Writes a new charge, with its entry when the money is reserved and a notice when that is told of later; a payment that
/// has one keeps it.
pub(super) async fn write_charge(db: &mut PgConnection, row: &Row) -> Result<bool, Unknown> {
    let is_new = sqlx::query_scalar(
        "WITH made AS (
            INSERT INTO charge (payment_id, method_type, method_token, amount, currency, expires_at, status, failure,
                                created_at, known_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
            ON CONFLICT (payment_id) DO NOTHING
            RETURNING payment_id, amount, status, created_at, known_at
         ), entered AS (
            INSERT INTO entry (payment_id, kind, amount, at)
            SELECT payment_id, 'authorize', amount, created_at FROM made WHERE status = 'authorized'
         ), noticed AS (
            INSERT INTO notice (payment_id, due_at)
            SELECT payment_id, known_at FROM made WHERE known_at > created_at
         )
         SELECT EXISTS (SELECT FROM made)",
    )
    .bind(row.ask.payment.uuid())
    .bind(row.ask.method.kind.as_str())
    .bind(&row.ask.method.token)
    .bind(row.ask.amount.amount)
    .bind(row.ask.amount.currency.code())
    .bind(row.ask.expires_at.to_sqlx())
    .bind(row.standing.as_str())
    .bind(&row.failure)
    .bind(row.created_at.to_sqlx())
    .bind(row.known_at.to_sqlx())
    .fetch_one(db)
    .await?;
    Ok(is_new)
}

/// Moves a charge on, with the entry that goes with it and a notice when it is told of later.
///
/// `None` when the charge does not stand where the move begins, or nobody may know that yet: it stays as it is.
pub(super) async fn move_charge(
    db: &mut PgConnection,
    payment: Id<id::Payment>,
    step: &Move<'_>,
    now: Timestamp,
) -> Result<Option<Row>, Unknown> {
    let from: Vec<&str> = step.from.iter().map(|standing| standing.as_str()).collect();
    let row: Option<ChargeRow> = sqlx::query_as(concat!(
        "WITH moved AS (
            UPDATE charge SET status = $3, failure = $4, known_at = $5,
                              captured = CASE WHEN $3 = 'captured' THEN amount ELSE captured END
            WHERE payment_id = $1 AND status = ANY($2) AND known_at <= $7
            RETURNING ",
        charge_columns!(),
        "), entered AS (
            INSERT INTO entry (payment_id, kind, amount, at)
            SELECT payment_id, $6::text, amount, $7 FROM moved WHERE $6::text IS NOT NULL
         ), noticed AS (
            INSERT INTO notice (payment_id, due_at)
            SELECT payment_id, known_at FROM moved WHERE known_at > $7
         )
         SELECT ",
        charge_columns!(),
        " FROM moved"
    ))
    .bind(payment.uuid())
    .bind(from)
    .bind(step.to.as_str())
    .bind(step.failure)
    .bind(step.known_at.to_sqlx())
    .bind(step.entry.map(Entry::as_str))
    .bind(now.to_sqlx())
    .fetch_optional(db)
    .await?;
    row.map(ChargeRow::read).transpose()
}

/// A charge as it stands.
pub(super) async fn find_charge(
    db: &mut PgConnection,
    payment: Id<id::Payment>,
) -> Result<Option<Row>, Unknown> {
    let row: Option<ChargeRow> = sqlx::query_as(concat!(
        "SELECT ",
        charge_columns!(),
        " FROM charge WHERE payment_id = $1"
    ))
    .bind(payment.uuid())
    .fetch_optional(db)
    .await?;
    row.map(ChargeRow::read).transpose()
}

/// A charge that nobody else changes until the transaction ends.
pub(super) async fn lock_charge(
    db: &mut PgConnection,
    payment: Id<id::Payment>,
) -> Result<Option<Row>, Unknown> {
    let row: Option<ChargeRow> = sqlx::query_as(concat!(
        "SELECT ",
        charge_columns!(),
        " FROM charge WHERE payment_id = $1 FOR UPDATE"
    ))
    .bind(payment.uuid())
    .fetch_optional(db)
    .await?;
    row.map(ChargeRow::read).transpose()
}

/// Charges made in `[from, until)` behind `after`.
pub(super) async fn charges_between(
    db: &mut PgConnection,
    from: Timestamp,
    until: Timestamp,
    after: Option<(Timestamp, Id<id::Payment>)>,
    limit: i64,
) -> Result<Vec<Row>, Unknown> {
    let (at, id) = after.map_or((from, Uuid::nil()), |(at, id)| (at, id.uuid()));
    let rows: Vec<ChargeRow> = sqlx::query_as(concat!(
        "SELECT ",
        charge_columns!(),
        " FROM charge WHERE (created_at, payment_id) > ($1, $2) AND created_at < $3
         ORDER BY created_at, payment_id LIMIT $4"
    ))
    .bind(at.to_sqlx())
    .bind(id)
    .bind(until.to_sqlx())
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(ChargeRow::read).collect()
}

/// Writes what may change of a locked charge.
pub(super) async fn save_charge(db: &mut PgConnection, row: &Row) -> Result<(), Unknown> {
    sqlx::query(
        "UPDATE charge SET status = $2, failure = $3, captured = $4, refunded = $5, known_at = $6
         WHERE payment_id = $1",
    )
    .bind(row.ask.payment.uuid())
    .bind(row.standing.as_str())
    .bind(&row.failure)
    .bind(row.captured)
    .bind(row.refunded)
    .bind(row.known_at.to_sqlx())
    .execute(db)
    .await?;
    Ok(())
}

/// When a refund is told of, if it was made.
pub(super) async fn find_refund(
    db: &mut PgConnection,
    refund: Id<id::Refund>,
) -> Result<Option<Timestamp>, Unknown> {
    let known_at: Option<jiff_sqlx::Timestamp> =
        sqlx::query_scalar("SELECT known_at FROM charge_refund WHERE refund_id = $1")
            .bind(refund.uuid())
            .fetch_optional(db)
            .await?;
    Ok(known_at.map(Timestamp::from))
}

/// Writes down a refund.
pub(super) async fn insert_refund(
    db: &mut PgConnection,
    row: &Row,
    refund: Id<id::Refund>,
    amount: Money,
    now: Timestamp,
    known_at: Timestamp,
) -> Result<(), Unknown> {
    sqlx::query(
        "INSERT INTO charge_refund (refund_id, payment_id, amount, created_at, known_at)
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(refund.uuid())
    .bind(row.ask.payment.uuid())
    .bind(amount.amount)
    .bind(now.to_sqlx())
    .bind(known_at.to_sqlx())
    .execute(db)
    .await?;
    Ok(())
}

/// Adds a movement of money.
pub(super) async fn write_entry(
    db: &mut PgConnection,
    row: &Row,
    entry: Entry,
    amount: Money,
    now: Timestamp,
) -> Result<(), Unknown> {
    sqlx::query("INSERT INTO entry (payment_id, kind, amount, at) VALUES ($1, $2, $3, $4)")
        .bind(row.ask.payment.uuid())
        .bind(entry.as_str())
        .bind(amount.amount)
        .bind(now.to_sqlx())
        .execute(db)
        .await?;
    Ok(())
}

/// Has somebody look at the payment when it is due.
pub(super) async fn write_notice(
    db: &mut PgConnection,
    payment: Id<id::Payment>,
    due_at: Timestamp,
) -> Result<(), Unknown> {
    sqlx::query("INSERT INTO notice (payment_id, due_at) VALUES ($1, $2)")
        .bind(payment.uuid())
        .bind(due_at.to_sqlx())
        .execute(db)
        .await?;
    Ok(())
}

/// The oldest notices that are due.
pub(super) async fn due_notices(
    db: &mut PgConnection,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<Notice>, Unknown> {
    let rows: Vec<(i64, Uuid)> = sqlx::query_as(
        "SELECT notice_id, payment_id FROM notice WHERE due_at <= $1 ORDER BY due_at, notice_id LIMIT $2",
    )
    .bind(now.to_sqlx())
    .bind(limit)
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(id, payment)| Notice {
            id,
            payment: Id::new(payment),
        })
        .collect())
}

/// Has a notice come again later.
pub(super) async fn put_off_notice(
    db: &mut PgConnection,
    notice: i64,
    due_at: Timestamp,
) -> Result<(), Unknown> {
    sqlx::query("UPDATE notice SET due_at = $2 WHERE notice_id = $1")
        .bind(notice)
        .bind(due_at.to_sqlx())
        .execute(db)
        .await?;
    Ok(())
}

/// Forgets a notice.
pub(super) async fn drop_notice(db: &mut PgConnection, notice: i64) -> Result<(), Unknown> {
    sqlx::query("DELETE FROM notice WHERE notice_id = $1")
        .bind(notice)
        .execute(db)
        .await?;
    Ok(())
}

impl Standing {
    const ALL: [Self; 5] = [
        Self::RequiresAction,
        Self::Authorized,
        Self::Captured,
        Self::Failed,
        Self::Voided,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::RequiresAction => "requires_action",
            Self::Authorized => "authorized",
            Self::Captured => "captured",
            Self::Failed => "failed",
            Self::Voided => "voided",
        }
    }
}

impl Entry {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Authorize => "authorize",
            Self::Capture => "capture",
            Self::Refund => "refund",
            Self::Void => "void",
        }
    }
}

#[derive(sqlx::FromRow)]
struct ChargeRow {
    payment_id: Uuid,
    method_type: String,
    method_token: String,
    amount: i64,
    currency: String,
    expires_at: jiff_sqlx::Timestamp,
    status: String,
    failure: Option<String>,
    captured: i64,
    refunded: i64,
    created_at: jiff_sqlx::Timestamp,
    known_at: jiff_sqlx::Timestamp,
}

impl ChargeRow {
    fn read(self) -> Result<Row, Unknown> {
        let id: Id<id::Payment> = Id::new(self.payment_id);
        let unreadable =
            |column: &str| Unknown::because(format!("charge.{column} of {id} cannot be read"));
        let kind = MethodKind::parse(&self.method_type).ok_or_else(|| unreadable("method_type"))?;
        let currency = self.currency.parse().map_err(|_| unreadable("currency"))?;
        let standing = Standing::ALL
            .into_iter()
            .find(|standing| standing.as_str() == self.status)
            .ok_or_else(|| unreadable("status"))?;
        Ok(Row {
            ask: Ask {
                payment: id,
                method: Method {
                    kind,
                    token: self.method_token,
                },
                amount: Money::new(self.amount, currency),
                expires_at: self.expires_at.into(),
            },
            standing,
            failure: self.failure,
            captured: self.captured,
            refunded: self.refunded,
            created_at: self.created_at.into(),
            known_at: self.known_at.into(),
        })
    }
}
