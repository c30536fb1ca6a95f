//! What those outside may be told of, and how it gets into the feed.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use holdfast_kernel::{Clock, time};
use holdfast_platform::{
    consumer::{Consumer, Handler, Handling, Interest},
    message::{Message, Topic},
};
use sqlx::PgConnection;

use crate::{
    domain::{self, BY_NAME_ONLY},
    store,
    worker::Bell,
};

/// Every public message. What is not meant for those outside has no line here.
const PUBLIC: &[Interest] = &[
    Interest {
        topic: Topic::ordinary("holdfast.accounts"),
        kinds: &["user.registered", "user.deactivated"],
    },
    Interest {
        topic: Topic::ordinary("holdfast.users"),
        kinds: &["user.updated", "user.erased"],
    },
    Interest {
        topic: Topic::ordinary("holdfast.products"),
        kinds: &["product.updated", "product.deleted"],
    },
    Interest {
        topic: Topic::ordinary("holdfast.reviews"),
        kinds: &["review.published", "review.removed"],
    },
    Interest {
        topic: Topic::ordinary("holdfast.events"),
        kinds: &["event.published", "event.changed", "event.cancelled"],
    },
    Interest {
        topic: Topic::state("holdfast.stock"),
        kinds: &["stock.updated"],
    },
    Interest {
        topic: Topic::state("holdfast.stock_low"),
        kinds: &["stock.low"],
    },
    Interest {
        topic: Topic::ordinary("holdfast.holds"),
        kinds: &["hold.granted", "hold.expired"],
    },
    Interest {
        topic: Topic::ordinary("holdfast.orders"),
        kinds: &[
            "order.created",
            "order.awaiting_payment",
            "order.paid",
            "order.confirmed",
            "order.payment_failed",
            "order.expired",
            "order.cancelled",
            "order.shipped",
            "order.delivered",
            "order.partially_refunded",
            "order.refunded",
            "order.needs_attention",
        ],
    },
    Interest {
        topic: Topic::ordinary("holdfast.payments"),
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
    },
    Interest {
        topic: Topic::ordinary("holdfast.points"),
        kinds: &["points.changed"],
    },
];

/// How long messages are gathered while more keep coming: little beside the way to who subscribed.
const PACE: Duration = Duration::from_millis(250);

/// Every type that can be asked for.
pub(crate) fn known_types() -> Vec<&'static str> {
    PUBLIC
        .iter()
        .flat_map(|interest| interest.kinds)
        .copied()
        .collect()
}

/// What brings public messages into the feed, and on their way to who subscribed.
///
/// `keep` is how long a message stays; one that is older when it comes in would be dropped at once, and may have been
/// here before.
pub(crate) fn consumer(clock: Arc<dyn Clock>, keep: Duration, bell: Bell) -> Consumer {
    Consumer::new("webhooks.feed", PUBLIC, Feed { clock, keep, bell })
        .at_once()
        .paced(PACE)
}

struct Feed {
    clock: Arc<dyn Clock>,
    keep: Duration,
    bell: Bell,
}

#[tonic::async_trait]
impl Handler for Feed {
    async fn handle(&self, db: &mut PgConnection, message: &Message) -> Result<(), Handling> {
        self.handle_all(db, std::slice::from_ref(message)).await
    }

    async fn handle_all(
        &self,
        db: &mut PgConnection,
        messages: &[Message],
    ) -> Result<(), Handling> {
        let now = time::to_micros(self.clock.now());
        let oldest = now.checked_sub(self.keep).map_err(Handling::permanent)?;
        let young: Vec<&Message> = (messages.iter())
            .filter(|message| message.at >= oldest)
            .collect();
        if young.is_empty() {
            return Ok(());
        }
        // What subscriptions may have asked for to be told of these types.
        let kinds: BTreeSet<&str> = young.iter().map(|message| message.kind.as_str()).collect();
        let wishes: Vec<(&str, String)> = kinds
            .iter()
            .flat_map(|kind| domain::asked_by(kind).into_iter().map(|wish| (*kind, wish)))
            .collect();
        if store::take_in(db, &young, &wishes, BY_NAME_ONLY, now).await? > 0 {
            self.bell.ring();
        }
        Ok(())
    }
}
