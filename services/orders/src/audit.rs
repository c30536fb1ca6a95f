//! What this service knows, for checks across services: is every confirmed order paid, every payment an order's?

use std::collections::HashMap;

use holdfast_kernel::{Currency, Id, Money, Timestamp, id};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    domain::{Status, voucher::Code},
    saga::hold_of,
    store,
};

/// How one order stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderFact {
    /// The order.
    pub order: Id<id::Order>,
    /// Its status.
    pub status: Status,
    /// What was to be paid.
    pub total: Money,
    /// What was to be paid in points beside it.
    pub points: i64,
    /// What was given back.
    pub refunded: Money,
    /// Points that were given back.
    pub points_refunded: i64,
    /// Its payment, once one was begun and saved.
    pub payment: Option<Id<id::Payment>>,
    /// The holds whose units it may have: its own, and the one taken for late money.
    pub holds: Vec<Id<id::Hold>>,
    /// The pool of the voucher it used.
    pub voucher: Option<String>,
    /// It was confirmed at some time: from then on the use of its voucher is spent.
    pub was_confirmed: bool,
    /// SKU, units bought, units given back.
    pub items: Vec<(String, i64, i64)>,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Its saga is under way or has refunds open: to be judged when that is over.
    pub is_open: bool,
    /// Steps of its history that no order may make, or that do not lead to where it stands; empty when all is well.
    pub illegal_history: Vec<String>,
}

/// Up to `limit` orders with ids behind `after`, by id: call again behind the last one until none comes.
pub async fn audit(
    db: &mut PgConnection,
    after: Option<Id<id::Order>>,
    limit: u16,
) -> Result<Vec<OrderFact>, sqlx::Error> {
    let after = after.map_or(Uuid::nil(), Id::uuid);
    let rows = store::audit_orders(db, after, i64::from(limit)).await?;
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let mut items: HashMap<Uuid, Vec<(String, i64, i64)>> = HashMap::new();
    for row in store::audit_items(db, &ids).await? {
        let bought = (row.sku, row.quantity, row.refunded_quantity);
        items.entry(row.order_id).or_default().push(bought);
    }
    let mut histories: HashMap<Uuid, Vec<(String, String)>> = HashMap::new();
    for row in store::audit_history(db, &ids).await? {
        let step = (row.old_value, row.new_value);
        histories.entry(row.order_id).or_default().push(step);
    }
    rows.into_iter()
        .map(|row| {
            let order: Id<id::Order> = Id::new(row.id);
            let broken = |column: &str| {
                sqlx::Error::Decode(format!("orders.{column} of {order} cannot be read").into())
            };
            let currency: Currency = row.currency.parse().map_err(|_| broken("currency"))?;
            let status = Status::parse(&row.status).ok_or_else(|| broken("status"))?;
            let history = histories.remove(&row.id).unwrap_or_default();
            Ok(OrderFact {
                order,
                status,
                total: Money::new(row.total, currency),
                points: row.points_used,
                refunded: Money::new(row.refunded, currency),
                points_refunded: row.points_refunded,
                payment: row.payment_id.map(Id::new),
                holds: (0..=row.hold_attempt)
                    .map(|attempt| Id::new(hold_of(order, attempt)))
                    .collect(),
                voucher: match row.voucher {
                    None => None,
                    Some(text) => {
                        let code: Code = text.parse().map_err(|_| broken("voucher"))?;
                        Some(code.pool().to_string())
                    }
                },
                was_confirmed: (history.iter()).any(|(_, to)| to == Status::Confirmed.as_str()),
                items: items.remove(&row.id).unwrap_or_default(),
                updated_at: row.updated_at.into(),
                is_open: row.is_open,
                illegal_history: judge(&history, status),
            })
        })
        .collect()
}

/// Every step must be one of the machine's, begin where the last one ended, and the last one end where the order stands.
fn judge(history: &[(String, String)], stands: Status) -> Vec<String> {
    let mut findings = Vec::new();
    let mut at = String::new();
    for (from, to) in history {
        let legal = match (Status::parse(from), Status::parse(to)) {
            (Some(from), Some(to)) => from.may_become(to),
            (None, Some(to)) => from.is_empty() && to == Status::Pending,
            (_, None) => false,
        };
        if !legal || *from != at {
            findings.push(format!("from {from:?} to {to:?} after {at:?}"));
        }
        at.clone_from(to);
    }
    if at != stands.as_str() {
        findings.push(format!(
            "history ends at {at:?}, the order stands at {stands}"
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(steps: &[(&str, &str)]) -> Vec<(String, String)> {
        (steps.iter())
            .map(|(from, to)| ((*from).to_owned(), (*to).to_owned()))
            .collect()
    }

    #[test]
    fn a_history_is_judged_by_the_machine_and_must_end_where_the_order_stands() {
        let good = history(&[("", "pending"), ("pending", "paid"), ("paid", "confirmed")]);
        assert!(judge(&good, Status::Confirmed).is_empty());
        assert_eq!(judge(&good, Status::Refunded).len(), 1);
        let skips = history(&[("", "pending"), ("pending", "confirmed")]);
        assert_eq!(judge(&skips, Status::Confirmed).len(), 1);
        let torn = history(&[("", "pending"), ("paid", "confirmed")]);
        assert_eq!(judge(&torn, Status::Confirmed).len(), 1);
        assert_eq!(judge(&[], Status::Pending).len(), 1);
    }
}
