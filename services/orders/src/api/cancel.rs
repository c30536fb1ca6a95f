//! Cancelling: of a purchase under way by a flag its saga reads, of one that is complete by giving everything back.

use holdfast_kernel::time::to_micros;
use holdfast_platform::{database, failpoint, identity::Caller};
use holdfast_proto::orders::v1 as pb;

use crate::{
    api::{Api, Wish, parse_reason},
    domain::{Order, Refund, RefundState, Share, Status},
    error::OrdersError,
    messages::{self, Action},
    points,
    saga::Cancel,
    store,
};

/// A wish to cancel, well-formed.
pub(super) struct CancelOrder {
    wish: Wish,
    reason: String,
}

impl CancelOrder {
    pub(super) fn parse(request: pb::CancelOrderRequest) -> Result<Self, OrdersError> {
        Ok(Self {
            wish: Wish::parse(&request.request_id, &request.fingerprint, &request.order_id)?,
            reason: parse_reason(request.reason)?,
        })
    }
}

impl Api {
    /// Cancels, and answers with the order as far as that has come.
    pub(super) async fn cancel(
        &self,
        caller: &Caller,
        cancel: CancelOrder,
    ) -> Result<Order, OrdersError> {
        let until = self.answer_by();
        let id = cancel.wish.order;
        self.ask_to_cancel(caller, cancel).await?;
        self.desk.bell.ring();
        let order = self.wait(id, until, is_over).await?;
        match order.status {
            // The payment failed or the hold ran out before the saga read the wish.
            Status::PaymentFailed | Status::Expired => Err(OrdersError::InvalidTransition {
                from: order.status,
                to: Status::Cancelled,
            }),
            _ => Ok(order),
        }
    }

    async fn ask_to_cancel(&self, caller: &Caller, ask: CancelOrder) -> Result<(), OrdersError> {
        let CancelOrder { wish, reason } = ask;
        let now = to_micros(self.desk.context.clock.now());
        let mut tx = database::begin(&self.desk.context.database).await?;
        let saga = store::lock_saga(&mut tx, wish.order).await?;
        let saga = saga.ok_or(OrdersError::UnknownOrder)?;
        let mut order = store::lock_order(&mut tx, wish.order)
            .await?
            .filter(|order| caller.may_see(order.user))
            .ok_or(OrdersError::UnknownOrder)?;
        if let Some(first) = &saga.cancel {
            if first.request == wish.request.uuid() {
                wish.is_the_same(order.id, &first.fingerprint)?;
            }
            // Cancelling twice is cancelling once.
            return Ok(());
        }
        let by = caller.user()?;
        let cancel = Cancel {
            request: wish.request.uuid(),
            fingerprint: wish.fingerprint,
            by: Some(by),
            reason,
        };
        match order.status {
            Status::Pending | Status::AwaitingPayment | Status::Paid => {}
            Status::Confirmed | Status::PartiallyRefunded => {
                let promised = store::list_open_refunds(&mut tx, order.id).await?;
                let why = if cancel.reason.is_empty() {
                    "cancelled"
                } else {
                    &cancel.reason
                };
                let before = order.version;
                let change = order.enter(Status::Cancelled, why, cancel.by, now)?;
                store::save_order(&mut tx, &order, before, &[change]).await?;
                // Nothing may be left to give back but what is under way already.
                if let Ok(worth) = order.refund_share(&Share::Rest, &promised) {
                    let refund = Refund {
                        id: wish.request.makes(),
                        order: order.id,
                        fingerprint: cancel.fingerprint.clone(),
                        amount: worth.amount,
                        points: worth.points,
                        units: worth.units,
                        reason: why.to_owned(),
                        requested_by: cancel.by,
                        state: RefundState::Open,
                        created_at: now,
                    };
                    store::insert_refund(&mut tx, &refund, now).await?;
                }
            }
            from => {
                return Err(OrdersError::InvalidTransition {
                    from,
                    to: Status::Cancelled,
                });
            }
        }
        store::request_cancel(&mut tx, order.id, &cancel, now).await?;
        if by != order.user {
            let action = Action::OrderCancelled { order_id: order.id };
            messages::record(&mut tx, by, Some(order.user), action, now).await?;
        }
        failpoint::hit(points::ASK_CANCEL.0).await?;
        self.desk.commit(tx, order.id).await?;
        failpoint::hit(points::ASK_CANCEL.1).await?;
        Ok(())
    }
}

/// Whether cancelling has come to its end: no money is on its way back any more.
fn is_over(order: &Order) -> bool {
    match order.status {
        Status::Cancelled => (order.payment.as_ref()).is_none_or(|payment| {
            !matches!(
                payment.status.as_str(),
                "captured" | "refund_pending" | "partially_refunded"
            )
        }),
        Status::Refunded | Status::PaymentFailed | Status::Expired | Status::NeedsAttention => true,
        Status::Pending
        | Status::AwaitingPayment
        | Status::Paid
        | Status::Confirmed
        | Status::Shipped
        | Status::Delivered
        | Status::PartiallyRefunded => false,
    }
}
