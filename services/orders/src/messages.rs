//! What this service tells others, and what it listens to.

use std::{collections::BTreeMap, sync::Arc};

use holdfast_kernel::{Clock, Id, Money, Timestamp, id, time};
use holdfast_platform::{
    audit_log::Line,
    consumer::{Consumer, Handler, Handling, Interest},
    message::{Message, Topic},
    outbox::{self, Announcement, Columns},
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use crate::{
    domain::{Change, Order, Payment, Status},
    error::OrdersError,
    store,
    worker::Bell,
};

const ORDERS: Topic = Topic::ordinary("holdfast.orders");
/// What makes wrong what is kept in memory.
pub(crate) const HEARD: &[Topic] = &[ORDERS];
const PAYMENTS: Topic = Topic::ordinary("holdfast.payments");
const HOLDS: Topic = Topic::ordinary("holdfast.holds");

/// News of a purchase's money.
const PAYMENT_NEWS: Interest = Interest {
    topic: PAYMENTS,
    kinds: &[
        "payment.requires_action",
        "payment.authorized",
        "payment.captured",
        "payment.failed",
        "payment.voided",
        "payment.expired",
        "payment.partially_refunded",
        "payment.refunded",
        "payment.refund_failed",
    ],
};
/// Those that matter even when the order was given up: there is money.
const REVIVING: &[&str] = &["payment.authorized", "payment.captured", "payment.refunded"];
/// News of a purchase's units.
const HOLD_NEWS: Interest = Interest {
    topic: HOLDS,
    kinds: &["hold.expired"],
};

#[derive(Serialize)]
struct OrderChanged<'a> {
    order_id: &'a str,
    user_id: String,
    source: &'static str,
    status: &'static str,
    /// What is paid in money.
    total: Money,
    /// What is paid in points beside it.
    points_used: i64,
    /// What its payment earned in points: of an order that was just confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    points_earned: Option<i64>,
    refunded: Money,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_id: Option<String>,
    /// What its customer must do, such as `konbini_slip`; how is for them alone to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_action: Option<&'a str>,
    /// What was delivered: from then on it is its customer's to review.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    skus: Vec<&'a str>,
}

/// What staff do to orders and vouchers, as the audit log has it.
#[derive(Debug, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub(crate) enum Action {
    OrderShipped {
        order_id: Id<id::Order>,
    },
    OrderDelivered {
        order_id: Id<id::Order>,
    },
    OrderCancelled {
        order_id: Id<id::Order>,
    },
    OrderRefunded {
        order_id: Id<id::Order>,
        refund_id: Id<id::Refund>,
        /// In money, and in points beside it.
        amount: Money,
        points: i64,
    },
    OrderResumed {
        order_id: Id<id::Order>,
    },
    VoucherCreated {
        code: String,
    },
    /// The ledger refused its uses.
    VoucherTakenBack {
        code: String,
    },
    VoucherChanged {
        code: String,
    },
}

#[derive(Deserialize)]
struct PaymentChanged {
    purchase_id: String,
}

/// The news of changes of an order, in the order they were made.
pub(crate) fn news_of(order: &Order, changes: &[Change]) -> Result<Columns, OrdersError> {
    let order_id = order.id.to_string();
    let next_action = (order.payment.as_ref()).and_then(next_action_of);
    let announcements = changes
        .iter()
        .map(|change| {
            let data = OrderChanged {
                order_id: &order_id,
                user_id: order.user.to_string(),
                source: order.source.as_str(),
                status: change.status.as_str(),
                total: order.total,
                points_used: order.points,
                points_earned: change.points_earned,
                refunded: change.refunded,
                payment_id: (order.payment.as_ref()).map(|payment| payment.id.to_string()),
                next_action: next_action.as_deref(),
                skus: match change.news {
                    Status::Delivered => order.items.iter().map(|item| item.sku.as_str()).collect(),
                    _ => Vec::new(),
                },
            };
            Announcement::new(
                ORDERS,
                kind_of(change.news),
                &order_id,
                change.version,
                change.at,
                &data,
            )
        })
        .collect();
    Ok(outbox::columns(announcements)?)
}

/// Writes a line for the audit log: what `by` did to an order of `owner`, or to what is nobody's.
pub(crate) async fn record(
    db: &mut PgConnection,
    by: Id<id::User>,
    owner: Option<Id<id::User>>,
    action: Action,
    now: Timestamp,
) -> Result<(), OrdersError> {
    let line = Line {
        service: "orders",
        actor: Some(by),
        subject: owner,
        action,
    };
    Ok(outbox::announce(db, line.recorded(now)).await?)
}

/// The sort of a payment's next action, which lies there as the JSON that clients are shown.
fn next_action_of(payment: &Payment) -> Option<String> {
    #[derive(Deserialize)]
    struct NextAction {
        r#type: String,
    }
    let action: NextAction = serde_json::from_str(&payment.next_action).ok()?;
    Some(action.r#type)
}

/// How an order's entering a status is told, on the bus and in its history.
pub(crate) const fn kind_of(news: Status) -> &'static str {
    match news {
        Status::Pending => "order.created",
        Status::AwaitingPayment => "order.awaiting_payment",
        Status::Paid => "order.paid",
        Status::Confirmed => "order.confirmed",
        Status::Shipped => "order.shipped",
        Status::Delivered => "order.delivered",
        Status::Cancelled => "order.cancelled",
        Status::PaymentFailed => "order.payment_failed",
        Status::Expired => "order.expired",
        Status::PartiallyRefunded => "order.partially_refunded",
        Status::Refunded => "order.refunded",
        Status::NeedsAttention => "order.needs_attention",
    }
}

/// What wakes sagas: news of their money and of their units. Commands move money; news only makes the saga look.
pub(crate) fn consumers(clock: Arc<dyn Clock>, bell: Bell) -> Vec<Consumer> {
    const MONEY: &[Interest] = &[PAYMENT_NEWS];
    const UNITS: &[Interest] = &[HOLD_NEWS];
    let waker = Waker { clock, bell };
    vec![
        Consumer::new("orders.payments", MONEY, waker.clone()).at_once(),
        Consumer::new("orders.holds", UNITS, waker).at_once(),
    ]
}

#[derive(Clone)]
pub(crate) struct Waker {
    clock: Arc<dyn Clock>,
    bell: Bell,
}

#[tonic::async_trait]
impl Handler for Waker {
    async fn handle(&self, db: &mut PgConnection, message: &Message) -> Result<(), Handling> {
        self.handle_all(db, std::slice::from_ref(message)).await
    }

    async fn handle_all(
        &self,
        db: &mut PgConnection,
        messages: &[Message],
    ) -> Result<(), Handling> {
        let now = time::to_micros(self.clock.now());
        let mut wakes = false;
        // By order, and whether the news could revive it. Sorted, so that two who wake the same ones do not deadlock.
        let mut of_money: BTreeMap<Id<id::Order>, bool> = BTreeMap::new();
        for message in messages {
            if message.topic == HOLDS.name() {
                let hold: Id<id::Hold> = message.key.parse().map_err(Handling::permanent)?;
                // An order and its hold share their UUID; bookings' holds wake nobody here.
                wakes |= store::note_hold_ended(db, Id::new(hold.uuid()), now).await?;
                continue;
            }
            let purchase = message.decode::<PaymentChanged>()?.purchase_id;
            // "bkg_…" is the saga of bookings.
            if let Ok(order) = purchase.parse() {
                *of_money.entry(order).or_default() |= REVIVING.contains(&message.kind.as_str());
            }
        }
        if !of_money.is_empty() {
            wakes |= store::wake_sagas(db, &of_money, now).await?;
        }
        if wakes {
            self.bell.ring();
        }
        Ok(())
    }
}
