//! What the auditor reads of us: every payment with what was taken and given back.

use holdfast_kernel::{Id, Timestamp, id};
use sqlx::PgConnection;
use uuid::Uuid;

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
    /// When the payment began.
    pub created_at: Timestamp,
}

/// Payments read at a time, so that no snapshot lives long.
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
            created_at: self.created_at.into(),
        }
    }
}
