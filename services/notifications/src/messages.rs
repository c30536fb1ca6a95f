//! What this service listens to. It announces nothing.

use std::{num::NonZeroI64, sync::Arc, time::Duration};

use holdfast_kernel::{Clock, Id, Money, id, time};
use holdfast_platform::{
    consumer::{Consumer, Handler, Handling, Interest},
    message::{Message, Topic},
};
use serde::Deserialize;
use sqlx::PgConnection;

use crate::{
    domain::{Bounds, Facts, Kind, News},
    store,
    worker::Bell,
};

const ACCOUNTS: Topic = Topic::ordinary("holdfast.accounts");
const ORDERS: Topic = Topic::ordinary("holdfast.orders");

/// Everything that people are told of; what else happens to an order is nobody's news.
const INTERESTS: &[Interest] = &[
    Interest {
        topic: ACCOUNTS,
        kinds: &["user.registered"],
    },
    Interest {
        topic: ORDERS,
        kinds: &[
            "order.awaiting_payment",
            "order.confirmed",
            "order.payment_failed",
            "order.expired",
            "order.cancelled",
            "order.shipped",
            "order.delivered",
            "order.partially_refunded",
            "order.refunded",
        ],
    },
];
/// How long news is gathered while more keeps coming: little beside the way of a mail.
const PACE: Duration = Duration::from_millis(250);
/// Who awaits anything else than a slip's payment is at the screen that asks for it.
const SLIP: &str = "konbini_slip";

#[derive(Deserialize)]
struct UserRegistered {
    user_id: Id<id::User>,
}

#[derive(Deserialize)]
struct OrderChanged {
    order_id: Id<id::Order>,
    user_id: Id<id::User>,
    total: Money,
    /// Missing in what was announced before orders could be paid in points.
    #[serde(default)]
    points_used: i64,
    /// Of a confirmation.
    #[serde(default)]
    points_earned: i64,
    refunded: Money,
    next_action: Option<String>,
}

/// Writes what people are told, and promises the mail.
pub(crate) fn consumer(clock: Arc<dyn Clock>, bounds: Bounds, bell: Bell) -> Consumer {
    let teller = Teller {
        clock,
        bounds,
        bell,
    };
    Consumer::new("notifications.news", INTERESTS, teller)
        .at_once()
        .paced(PACE)
}

struct Teller {
    clock: Arc<dyn Clock>,
    bounds: Bounds,
    bell: Bell,
}

#[tonic::async_trait]
impl Handler for Teller {
    async fn handle(&self, db: &mut PgConnection, message: &Message) -> Result<(), Handling> {
        self.handle_all(db, std::slice::from_ref(message)).await
    }

    async fn handle_all(
        &self,
        db: &mut PgConnection,
        messages: &[Message],
    ) -> Result<(), Handling> {
        let mut told = Vec::with_capacity(messages.len());
        for message in messages {
            told.extend(news_in(message)?);
        }
        if told.is_empty() {
            return Ok(());
        }
        let now = time::to_micros(self.clock.now());
        if store::tell(db, &told, self.bounds, now).await? > 0 {
            self.bell.ring();
        }
        Ok(())
    }
}

/// What a message has to tell a person, if anything.
fn news_in(message: &Message) -> Result<Option<News>, Handling> {
    let kind = Kind::parse(&message.kind)
        .ok_or_else(|| Handling::permanent(format!("no text for {}", message.kind)))?;
    let (user, facts) = if kind == Kind::Registered {
        let registered: UserRegistered = message.decode()?;
        (registered.user_id, Facts::default())
    } else {
        let order: OrderChanged = message.decode()?;
        if kind == Kind::AwaitingPayment && order.next_action.as_deref() != Some(SLIP) {
            return Ok(None);
        }
        let facts = Facts {
            order: Some(order.order_id),
            total: Some(order.total),
            refunded: Some(order.refunded),
            points_used: NonZeroI64::new(order.points_used),
            points_earned: NonZeroI64::new(order.points_earned),
        };
        (order.user_id, facts)
    };
    Ok(Some(News {
        id: Id::new(message.id),
        user,
        kind,
        facts,
        happened_at: time::to_micros(message.at),
    }))
}
