//! Refunding, for staff: admitted here, carried out by the order's saga.

use std::time::Duration;

use holdfast_kernel::{Id, Money, id};
use holdfast_platform::{database, identity::Caller};
use holdfast_proto::orders::v1 as pb;
use tokio::time::{self, Instant};

use crate::{
    api::{Api, WAIT_POLL_MILLIS, parse_basket, parse_fingerprint, parse_reason, parse_request_id},
    domain::{Order, RefundState, Share},
    error::OrdersError,
    refund::{self, RefundWish},
    store,
};

impl Api {
    /// Gives back, and answers with the order as far as that has come.
    pub(super) async fn refund(
        &self,
        caller: &Caller,
        request: pb::RefundOrderRequest,
    ) -> Result<Order, OrdersError> {
        let until = self.answer_by();
        let wish = RefundWish {
            request: parse_request_id(&request.request_id)?,
            fingerprint: parse_fingerprint(&request.fingerprint)?,
            order: (request.order_id.parse()).map_err(|_| OrdersError::UnknownOrder)?,
            reason: parse_reason(request.reason.clone())?,
            share: parse_share(request)?,
            by: caller.user()?,
        };
        let (id, order) = (wish.request.makes(), wish.order);
        refund::admit(&self.desk, wish).await?;
        while self.is_open(id).await? && Instant::now() < until {
            time::sleep(Duration::from_millis(WAIT_POLL_MILLIS)).await;
        }
        self.read(order).await
    }

    async fn is_open(&self, refund: Id<id::Refund>) -> Result<bool, OrdersError> {
        let mut db = database::acquire(&self.desk.context.database).await?;
        let refund = store::find_refund(&mut db, refund).await?;
        Ok(refund.is_some_and(|refund| refund.state == RefundState::Open))
    }
}

fn parse_share(request: pb::RefundOrderRequest) -> Result<Share, OrdersError> {
    match (request.items.is_empty(), request.amount) {
        (true, None) => Ok(Share::Rest),
        (false, None) => Ok(Share::Items(parse_basket(request.items)?)),
        (true, Some(amount)) => {
            let refused = |text: String| OrdersError::field("amount", text);
            let currency =
                (amount.currency.parse()).map_err(|error| refused(format!("{error}")))?;
            if amount.amount < 1 {
                return Err(refused(format!("{}, wanted 1 or more", amount.amount)));
            }
            Ok(Share::Amount(Money::new(amount.amount, currency)))
        }
        (false, Some(_)) => Err(OrdersError::field(
            "amount",
            "given beside items, wanted one of them",
        )),
    }
}
