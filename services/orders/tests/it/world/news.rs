//! What the shop hears, and what it says.

use std::sync::Arc;

use holdfast_kernel::{Id, RequestId, id};
use holdfast_platform::{
    bus::{Bus, Outgoing},
    database,
    embedded_log::EmbeddedLog,
    message::Message,
    outbox,
    wakeup::Wakeups,
};
use holdfast_proto::payments::v1::PaymentStatus;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{HOLD_SECS, World};

impl World {
    /// The provider tells what came of the order's payment, and payments announce it.
    pub(crate) async fn provider_says(&self, order: &str, status: PaymentStatus) {
        self.till.provider_says(order, status);
        let kind = match self.till.status(order) {
            PaymentStatus::Authorized => "payment.authorized",
            PaymentStatus::Captured => "payment.captured",
            PaymentStatus::Failed => "payment.failed",
            PaymentStatus::Expired => "payment.expired",
            PaymentStatus::Voided => "payment.voided",
            PaymentStatus::Refunded => "payment.refunded",
            other => panic!("nobody announces {other:?}"),
        };
        self.hears("holdfast.payments", kind, "pay_", order).await;
    }

    /// The ledger announces that the order's hold is over, which it is by the clock.
    pub(crate) async fn hold_expires(&self, order: &str) {
        self.pass(HOLD_SECS + 61);
        let id: Id<id::Order> = order.parse().expect("an order");
        let hold = Id::<id::Hold>::new(id.uuid()).to_string();
        self.hears("holdfast.holds", "hold.expired", &hold, order)
            .await;
    }

    pub(crate) async fn hears(&self, topic: &str, kind: &str, key: &str, order: &str) {
        let message = Message {
            id: RequestId::generate().uuid(),
            topic: topic.to_owned(),
            key: key.to_owned(),
            version: 1,
            kind: kind.to_owned(),
            at: holdfast_kernel::Clock::now(&self.clock),
            traceparent: None,
            data: serde_json::json!({ "purchase_id": order }),
        };
        for consumer in &self.process.consumers {
            let mut tx = self.db.app().begin().await.expect("a transaction");
            consumer.handle(&mut tx, &message).await.expect("an effect");
            tx.commit().await.expect("committed");
        }
    }

    /// News of orders' money lies on the bus, each of a payment of its own, and the service reads it all together.
    pub(crate) async fn reads(&self, news: &[(&str, &str)]) {
        let bus_pool = database::connect(&self.db.bus_url(), 2)
            .await
            .expect("a bus");
        let log = EmbeddedLog::new(bus_pool, Wakeups::default());
        let outgoing: Vec<Outgoing> = (news.iter().zip(1..))
            .map(|((kind, order), outbox_id)| {
                let message = Message {
                    id: RequestId::generate().uuid(),
                    topic: "holdfast.payments".to_owned(),
                    key: format!("pay_{outbox_id}"),
                    version: 1,
                    kind: (*kind).to_owned(),
                    at: holdfast_kernel::Clock::now(&self.clock),
                    traceparent: None,
                    data: serde_json::json!({ "purchase_id": order }),
                };
                Outgoing {
                    outbox_id,
                    message_id: message.id,
                    topic: message.topic.clone(),
                    key: message.key.clone(),
                    envelope: message.to_envelope(),
                }
            })
            .collect();
        log.append("payments", &outgoing).await.expect("appended");
        let shutdown = CancellationToken::new();
        let reading: Vec<_> = (self.process.consumers.iter())
            .map(|consumer| {
                let bus: Arc<dyn Bus> = Arc::new(log.clone());
                tokio::spawn(consumer.clone().run(self.db.app(), bus, shutdown.clone()))
            })
            .collect();
        self.until("all is read", async || {
            let position: i64 = sqlx::query_scalar(
                "SELECT next_offset FROM consumer_position WHERE consumer = 'orders.payments'",
            )
            .fetch_one(&self.db.app())
            .await
            .ok()?;
            (position == outgoing.len() as i64).then_some(())
        })
        .await;
        shutdown.cancel();
        for reader in reading {
            reader.await.expect("it ends in order");
        }
    }

    /// What was announced of orders, oldest first: kind and version.
    pub(crate) async fn announced(&self) -> Vec<String> {
        let pending = self.pending().await;
        (pending.iter())
            .filter(|message| message.topic == "holdfast.orders")
            .map(|message| {
                format!(
                    "{} v{}",
                    message.kind.trim_start_matches("order."),
                    message.version
                )
            })
            .collect()
    }

    /// Lets the process hear all that was announced so far.
    pub(crate) async fn tell(&self) {
        for message in &self.pending().await {
            self.process.listener.heard(message);
        }
    }

    /// What the last message of that kind says.
    pub(crate) async fn told(&self, kind: &str) -> Value {
        let mut pending = self.pending().await.into_iter();
        let last = pending.rfind(|message| message.kind == kind);
        last.unwrap_or_else(|| panic!("no {kind}")).data
    }

    /// What was written down for the audit log, oldest first.
    pub(crate) async fn audited(&self) -> Vec<Value> {
        let pending = self.pending().await;
        (pending.into_iter())
            .filter(|message| message.kind == "audit.recorded")
            .map(|message| message.data)
            .collect()
    }

    async fn pending(&self) -> Vec<Message> {
        let mut db = self.db.app().acquire().await.expect("a connection");
        let pending = outbox::pending(&mut db, 1_000).await;
        pending.expect("the outbox")
    }
}
