//! What the auditor reads of us: every payment with what was taken, given back and earned, and what everybody has in points.

use holdfast_kernel::{Id, Timestamp, id};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{domain::Taken, points};

/// What our book says of one payment, in minor units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentFact {
    /// The payment.
    pub payment: Id<id::Payment>,
    /// The purchase it pays for: `ord_…` or `bkg_…`.
    pub purchase: String,
    /// As in the README's diagram.
    pub status: String,
    /// What was to be paid.
    pub amount: i64,
    /// The currency of all amounts.
    pub currency: String,
    /// Money taken.
    pub captured: i64,
    /// Money given back.
    pub refunded: i64,
    /// Money promised back.
    pub refunding: i64,
    /// Refunds that are done, by their own rows; equals `refunded`.
    pub refunds_done: i64,
    /// Refunds that are open, by their own rows; equals `refunding`.
    pub refunds_open: i64,
    /// Points that it has earned by the book of points: one for each whole `units_per_point` of the money that is kept.
    pub points_issued: i64,
    /// The sum of its entries in that book: 0, for what one account loses another gains.
    pub points_sum: i64,
    /// Minor units of kept money that earn one point of it.
    pub units_per_point: i64,
    /// Points that its purchase used.
    pub points: i64,
    /// Those of them that went back.
    pub points_back: i64,
    /// Those that are set aside or spent by the book; equals `points - points_back`.
    pub points_out: i64,
    /// When the payment began.
    pub created_at: Timestamp,
}

impl PaymentFact {
    /// Points that it should have earned.
    pub fn points_due(&self) -> i64 {
        let taken = Taken {
            captured: self.captured,
            refunded: self.refunded,
            refunding: self.refunding,
        };
        points::earned(taken, self.units_per_point)
    }
}

/// What somebody has, in points of one currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointFact {
    /// Whose they are.
    pub user: Id<id::User>,
    /// What they are worth.
    pub currency: String,
    /// What the account says.
    pub balance: i64,
    /// What its entries come to; equals `balance`.
    pub entries: i64,
}

/// Rows read at a time, so that no snapshot lives long.
const SLICE_ROWS: i64 = 1_000;

/// All payments, in order of their ids.
///
/// For I3 and I5: per purchase at most one payment, `captured - refunded` of it is what an order may rest on, and the
/// provider's book ([`crate::sandbox::audit`]) says the same unless the payment is still open.
pub async fn audit(db: &mut PgConnection) -> Result<Vec<PaymentFact>, sqlx::Error> {
    let mut facts: Vec<PaymentFact> = Vec::new();
    loop {
        let after = facts.last().map_or(Uuid::nil(), |fact| fact.payment.uuid());
        let slice: Vec<Row> = sqlx::query_as(
            "SELECT payment_id, purchase_id, status, amount, currency, captured, refunded, refunding,
                    (SELECT coalesce(sum(refund.amount), 0)::bigint FROM refund
                     WHERE refund.payment_id = payment.payment_id AND refund.status = 'done') AS refunds_done,
                    (SELECT coalesce(sum(refund.amount), 0)::bigint FROM refund
                     WHERE refund.payment_id = payment.payment_id AND refund.status = 'open') AS refunds_open,
                    (SELECT coalesce(-sum(point_entry.amount), 0)::bigint FROM point_entry
                     WHERE point_entry.payment_id = payment.payment_id AND account = 'issued') AS points_issued,
                    (SELECT coalesce(sum(point_entry.amount), 0)::bigint FROM point_entry
                     WHERE point_entry.payment_id = payment.payment_id) AS points_sum,
                    units_per_point, points, points_back,
                    (SELECT coalesce(sum(point_entry.amount), 0)::bigint FROM point_entry
                     WHERE point_entry.payment_id = payment.payment_id AND account IN ('held', 'spent')) AS points_out,
                    created_at
             FROM payment WHERE payment_id > $1 ORDER BY payment_id LIMIT $2",
        )
        .bind(after)
        .bind(SLICE_ROWS)
        .fetch_all(&mut *db)
        .await?;
        if slice.is_empty() {
            return Ok(facts);
        }
        facts.extend(slice.into_iter().map(Row::read));
    }
}

/// All accounts of points, by user and currency.
pub async fn audit_points(db: &mut PgConnection) -> Result<Vec<PointFact>, sqlx::Error> {
    let mut facts: Vec<PointFact> = Vec::new();
    loop {
        let (user, currency) = facts.last().map_or((Uuid::nil(), ""), |fact| {
            (fact.user.uuid(), fact.currency.as_str())
        });
        let slice: Vec<(Uuid, String, i64, i64)> = sqlx::query_as(
            "SELECT user_id, currency, balance,
                    (SELECT coalesce(sum(amount), 0)::bigint FROM point_entry
                     WHERE point_entry.user_id = known.user_id AND point_entry.currency = known.currency
                       AND account = 'person')
             FROM point_account AS known WHERE (user_id, currency) > ($1, $2) ORDER BY user_id, currency LIMIT $3",
        )
        .bind(user)
        .bind(currency)
        .bind(SLICE_ROWS)
        .fetch_all(&mut *db)
        .await?;
        if slice.is_empty() {
            return Ok(facts);
        }
        facts.extend(
            slice
                .into_iter()
                .map(|(user, currency, balance, entries)| PointFact {
                    user: Id::new(user),
                    currency,
                    balance,
                    entries,
                }),
        );
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    payment_id: Uuid,
    purchase_id: String,
    status: String,
    amount: i64,
    currency: String,
    captured: i64,
    refunded: i64,
    refunding: i64,
    refunds_done: i64,
    refunds_open: i64,
    points_issued: i64,
    points_sum: i64,
    units_per_point: i64,
    points: i64,
    points_back: i64,
    points_out: i64,
    created_at: jiff_sqlx::Timestamp,
}

impl Row {
    fn read(self) -> PaymentFact {
        PaymentFact {
            payment: Id::new(self.payment_id),
            purchase: self.purchase_id,
            status: self.status,
            amount: self.amount,
            currency: self.currency,
            captured: self.captured,
            refunded: self.refunded,
            refunding: self.refunding,
            refunds_done: self.refunds_done,
            refunds_open: self.refunds_open,
            points_issued: self.points_issued,
            points_sum: self.points_sum,
            units_per_point: self.units_per_point,
            points: self.points,
            points_back: self.points_back,
            points_out: self.points_out,
            created_at: self.created_at.into(),
        }
    }
}
