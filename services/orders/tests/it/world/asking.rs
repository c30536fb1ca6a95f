//! What customers and staff ask of the shop.

use std::time::Duration;

use holdfast_kernel::RequestId;
use holdfast_proto::{
    money::v1::Money,
    orders::v1::{self as pb, OrderStatus},
};
use holdfast_testkit::Asker;
use tokio::task::JoinHandle;
use tonic::Status;

use super::{World, new_key, order_of};

/// What the gateway gives a purchase.
const PURCHASE_DEADLINE_SECS: u64 = 5;

impl World {
    /// Buys with a new key.
    pub(crate) async fn buy(
        &self,
        items: &[(&str, i64)],
        token: &str,
    ) -> Result<pb::Order, Status> {
        self.buy_again(&new_key(), items, token).await
    }

    pub(crate) async fn buy_again(
        &self,
        key: &str,
        items: &[(&str, i64)],
        token: &str,
    ) -> Result<pb::Order, Status> {
        self.start_buying(key, items, token)
            .await
            .expect("it lives on")
    }

    /// Buys in the process; the call dies with it.
    pub(crate) fn start_buying(
        &self,
        key: &str,
        items: &[(&str, i64)],
        token: &str,
    ) -> JoinHandle<Result<pb::Order, Status>> {
        let mut request = self.customer.ask(wish(key, items, token));
        request.set_timeout(Duration::from_secs(PURCHASE_DEADLINE_SECS));
        let mut client = self.process.client();
        self.process.spawn(async move {
            let answer = client.place_order(request).await?;
            Ok(answer.into_inner().order.expect("set"))
        })
    }

    /// Buys, and uses points.
    pub(crate) async fn buy_using(
        &self,
        points: i64,
        items: &[(&str, i64)],
        token: &str,
    ) -> Result<pb::Order, Status> {
        self.buy_using_again(&new_key(), points, items, token).await
    }

    pub(crate) async fn buy_using_again(
        &self,
        key: &str,
        points: i64,
        items: &[(&str, i64)],
        token: &str,
    ) -> Result<pb::Order, Status> {
        let mut request = self.customer.ask(pb::PlaceOrderRequest {
            points,
            ..wish(key, items, token)
        });
        request.set_timeout(Duration::from_secs(PURCHASE_DEADLINE_SECS));
        let mut client = self.process.client();
        let answer = self
            .process
            .spawn(async move { client.place_order(request).await });
        let answer = answer.await.expect("it lives")?;
        Ok(answer.into_inner().order.expect("set"))
    }

    /// Buys under that key, and uses a voucher.
    pub(crate) async fn buy_with(
        &self,
        key: &str,
        voucher: &str,
        items: &[(&str, i64)],
        token: &str,
    ) -> Result<pb::Order, Status> {
        let buying = self.start_buying_with(key, voucher, items, token);
        buying.await.expect("it lives")
    }

    /// The same in the process; the call dies with it.
    pub(crate) fn start_buying_with(
        &self,
        key: &str,
        voucher: &str,
        items: &[(&str, i64)],
        token: &str,
    ) -> JoinHandle<Result<pb::Order, Status>> {
        let mut request = self.customer.ask(pb::PlaceOrderRequest {
            voucher: Some(voucher.to_owned()),
            ..wish(key, items, token)
        });
        request.set_timeout(Duration::from_secs(PURCHASE_DEADLINE_SECS));
        let mut client = self.process.client();
        self.process.spawn(async move {
            let answer = client.place_order(request).await?;
            Ok(answer.into_inner().order.expect("set"))
        })
    }

    /// Buys, and waits until the order is in that status, however soon the call answers.
    pub(crate) async fn bought(
        &self,
        items: &[(&str, i64)],
        token: &str,
        status: OrderStatus,
    ) -> String {
        let key = new_key();
        self.buy_again(&key, items, token)
            .await
            .expect("on its way");
        self.becomes(&order_of(&key), status).await.id
    }

    /// An order of two shirts that expired, while nobody knew what came of its payment.
    pub(crate) async fn expired_with_unknown_outcome(&self) -> String {
        let order = self
            .bought(&[("TSHIRT", 2)], "timeout", OrderStatus::AwaitingPayment)
            .await;
        self.hold_expires(&order).await;
        self.becomes(&order, OrderStatus::Expired).await;
        self.rests().await;
        order
    }

    pub(crate) async fn order(&self, order: &str) -> pb::Order {
        let request = self.staff.ask(pb::GetOrderRequest {
            order_id: order.to_owned(),
        });
        let mut client = self.process.client();
        let answer = self
            .process
            .spawn(async move { client.get_order(request).await });
        let answer = answer.await.expect("it lives").expect("an order");
        answer.into_inner().order.expect("set")
    }

    pub(crate) async fn find(&self, order: &str) -> Option<pb::Order> {
        let request = self.staff.ask(pb::GetOrderRequest {
            order_id: order.to_owned(),
        });
        let mut client = self.process.client();
        let answer = self
            .process
            .spawn(async move { client.get_order(request).await });
        let answer = answer.await.expect("it lives").ok()?;
        answer.into_inner().order
    }

    pub(crate) async fn cancel(&self, order: &str) -> Result<pb::Order, Status> {
        self.cancel_again(&new_key(), order, "changed my mind")
            .await
    }

    pub(crate) async fn cancel_again(
        &self,
        key: &str,
        order: &str,
        reason: &str,
    ) -> Result<pb::Order, Status> {
        self.cancel_as(&self.customer, key, order, reason).await
    }

    pub(crate) async fn cancel_as(
        &self,
        who: &Asker,
        key: &str,
        order: &str,
        reason: &str,
    ) -> Result<pb::Order, Status> {
        let mut request = who.ask(pb::CancelOrderRequest {
            request_id: key.to_owned(),
            fingerprint: fingerprint(reason).into(),
            order_id: order.to_owned(),
            reason: reason.to_owned(),
        });
        request.set_timeout(Duration::from_secs(PURCHASE_DEADLINE_SECS));
        let mut client = self.process.client();
        let answer = self
            .process
            .spawn(async move { client.cancel_order(request).await });
        let answer = answer.await.expect("it lives")?;
        Ok(answer.into_inner().order.expect("set"))
    }

    pub(crate) async fn refund(
        &self,
        order: &str,
        items: &[(&str, i64)],
        amount: Option<i64>,
    ) -> Result<pb::Order, Status> {
        self.refund_again(&new_key(), order, items, amount).await
    }

    pub(crate) async fn refund_again(
        &self,
        key: &str,
        order: &str,
        items: &[(&str, i64)],
        amount: Option<i64>,
    ) -> Result<pb::Order, Status> {
        let answer = self.start_refund(key, order, items, amount).await;
        answer.expect("it lives")
    }

    pub(crate) fn start_refund(
        &self,
        key: &str,
        order: &str,
        items: &[(&str, i64)],
        amount: Option<i64>,
    ) -> JoinHandle<Result<pb::Order, Status>> {
        let mut request = self.staff.ask(pb::RefundOrderRequest {
            request_id: key.to_owned(),
            fingerprint: fingerprint(&format!("{items:?} {amount:?}")).into(),
            order_id: order.to_owned(),
            items: lines(items),
            amount: amount.map(yen),
            reason: "did not fit".to_owned(),
        });
        request.set_timeout(Duration::from_secs(PURCHASE_DEADLINE_SECS));
        let mut client = self.process.client();
        self.process.spawn(async move {
            let answer = client.refund_order(request).await?;
            Ok(answer.into_inner().order.expect("set"))
        })
    }

    pub(crate) async fn resume(
        &self,
        key: &str,
        order: &str,
        reason: &str,
    ) -> Result<pb::Order, Status> {
        let mut request = self.staff.ask(pb::ResumeOrderRequest {
            request_id: key.to_owned(),
            fingerprint: fingerprint(reason).into(),
            order_id: order.to_owned(),
            reason: reason.to_owned(),
        });
        request.set_timeout(Duration::from_secs(PURCHASE_DEADLINE_SECS));
        let mut client = self.process.client();
        let answer = self
            .process
            .spawn(async move { client.resume_order(request).await });
        let answer = answer.await.expect("it lives")?;
        Ok(answer.into_inner().order.expect("set"))
    }

    /// Staff say that the order left the house, with that number of the carrier's.
    pub(crate) async fn ship(
        &self,
        key: &str,
        order: &str,
        tracking: &str,
    ) -> Result<pb::Order, Status> {
        let request = self.staff.ask(pb::ShipOrderRequest {
            request_id: key.to_owned(),
            fingerprint: fingerprint(tracking).into(),
            order_id: order.to_owned(),
            carrier: "Yamato".to_owned(),
            tracking: tracking.to_owned(),
        });
        let mut client = self.process.client();
        let answer = self
            .process
            .spawn(async move { client.ship_order(request).await });
        let answer = answer.await.expect("it lives")?;
        Ok(answer.into_inner().order.expect("set"))
    }

    /// Staff say that the order arrived.
    pub(crate) async fn deliver(&self, key: &str, order: &str) -> Result<pb::Order, Status> {
        let request = self.staff.ask(pb::DeliverOrderRequest {
            request_id: key.to_owned(),
            fingerprint: fingerprint("arrived").into(),
            order_id: order.to_owned(),
        });
        let mut client = self.process.client();
        let answer = self
            .process
            .spawn(async move { client.deliver_order(request).await });
        let answer = answer.await.expect("it lives")?;
        Ok(answer.into_inner().order.expect("set"))
    }
}

pub(crate) fn wish(key: &str, items: &[(&str, i64)], token: &str) -> pb::PlaceOrderRequest {
    pb::PlaceOrderRequest {
        request_id: key.to_owned(),
        fingerprint: fingerprint(&format!("{items:?} {token}")).into(),
        items: lines(items),
        payment_method: Some(pb::PaymentMethodChoice {
            choice: Some(pb::payment_method_choice::Choice::Inline(
                pb::InlineMethod {
                    r#type: "card".to_owned(),
                    token: token.to_owned(),
                },
            )),
        }),
        points: 0,
        voucher: None,
    }
}

fn lines(items: &[(&str, i64)]) -> Vec<pb::ItemRequest> {
    (items.iter())
        .map(|(sku, quantity)| pb::ItemRequest {
            sku: (*sku).to_owned(),
            quantity: *quantity,
        })
        .collect()
}

fn yen(amount: i64) -> Money {
    Money {
        amount,
        currency: "JPY".to_owned(),
    }
}

/// Stands for the SHA-256 of the body: the same for the same, another for another.
fn fingerprint(body: &str) -> Vec<u8> {
    RequestId::derive(&[body]).uuid().as_bytes().to_vec()
}
