//! Giving back: the money by payments, the units by the ledger, then the order says so.
//!
//! A refund is written first and carried out by the order's saga, one after the other, so that an order has one owner
//! whatever happens to it. Money and units know the refund by its id: each of the three steps may be asked again.
//!
//! What is given back never exceeds what was captured: the order's row is locked while a refund is admitted, and all that
//! is promised counts as gone; payments checks once more. While the capture is unknown a refund waits for it.

use std::sync::Arc;

use holdfast_kernel::{Id, RequestId, id, time};
use holdfast_platform::{database, failpoint};
use holdfast_proto::{
    inventory::v1 as ledger,
    money::v1 as money_pb,
    payments::v1::{self as payments, PaymentStatus},
    saga::v1::Command,
};

use crate::{
    checkout::{Desk, Run, Stop, around, stop},
    domain::{Order, Refund, RefundState, Share, Status},
    error::OrdersError,
    messages::{self, Action},
    points,
    store::{self, Due},
};

/// A wish to give money back.
pub(crate) struct RefundWish {
    pub(crate) request: RequestId,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) order: Id<id::Order>,
    pub(crate) share: Share,
    pub(crate) reason: String,
    pub(crate) by: Id<id::User>,
}

const REFUND_COMMAND_SECS: u64 = 5;
const RETURN_COMMAND_SECS: u64 = 2;

/// Writes the refund and leaves it to the order's saga. The same wish again is the same refund.
pub(crate) async fn admit(desk: &Arc<Desk>, wish: RefundWish) -> Result<(), OrdersError> {
    let now = time::to_micros(desk.context.clock.now());
    let id: Id<id::Refund> = wish.request.makes();
    let mut tx = database::begin(&desk.context.database).await?;
    store::lock_saga(&mut tx, wish.order)
        .await?
        .ok_or(OrdersError::UnknownOrder)?;
    let order = store::lock_order(&mut tx, wish.order)
        .await?
        .ok_or(OrdersError::UnknownOrder)?;
    if let Some(first) = store::find_refund(&mut tx, id).await? {
        let same = first.fingerprint == wish.fingerprint && first.order == wish.order;
        return if same {
            Ok(())
        } else {
            Err(OrdersError::KeyReused)
        };
    }
    if !order.status.is_paid() && !is_being_captured(&order) {
        return Err(OrdersError::InvalidTransition {
            from: order.status,
            to: Status::Refunded,
        });
    }
    let promised = store::list_open_refunds(&mut tx, order.id).await?;
    let worth = order.refund_share(&wish.share, &promised)?;
    let refund = Refund {
        id,
        order: order.id,
        fingerprint: wish.fingerprint,
        amount: worth.amount,
        points: worth.points,
        units: worth.units,
        reason: wish.reason,
        requested_by: Some(wish.by),
        state: RefundState::Open,
        created_at: now,
    };
    store::insert_refund(&mut tx, &refund, now).await?;
    let action = Action::OrderRefunded {
        order_id: order.id,
        refund_id: id,
        amount: refund.amount,
        points: refund.points,
    };
    messages::record(&mut tx, wish.by, Some(order.user), action, now).await?;
    failpoint::hit(points::ASK_REFUND.0).await?;
    desk.commit(tx, order.id).await?;
    failpoint::hit(points::ASK_REFUND.1).await?;
    desk.bell.ring();
    Ok(())
}

/// Whether the provider was asked for the money and may have taken it.
fn is_being_captured(order: &Order) -> bool {
    matches!(order.status, Status::Pending | Status::AwaitingPayment)
        && (order.payment.as_ref()).is_some_and(|payment| {
            matches!(
                payment.status.as_str(),
                "processing" | "authorized" | "captured"
            )
        })
}

impl Run {
    /// Carries out the order's open refunds, oldest first.
    pub(crate) async fn carry_out_refunds(&mut self) -> Result<(), Stop> {
        let mut db = database::acquire(&self.desk.context.database).await?;
        let refunds = store::list_open_refunds(&mut db, self.order.id).await?;
        drop(db);
        for refund in refunds {
            self.look().await?;
            if !self.return_money(&refund).await? {
                // On its way; news of the payment wakes us.
                return self.rest(Due::At(self.look_again_at())).await;
            }
            self.return_refunded_units(&refund).await?;
            self.close(&refund).await?;
        }
        self.rest(Due::Never).await
    }

    /// Whether the money is back with the customer, and the points.
    async fn return_money(&mut self, refund: &Refund) -> Result<bool, Stop> {
        if refund.amount.amount == 0 && refund.points == 0 {
            return Ok(true);
        }
        let request = payments::RefundRequest {
            command: Some(self.refund_command(refund)),
            payment_id: self.payment_id(),
            refund_id: refund.id.uuid().to_string(),
            amount: Some(money_pb::Money {
                amount: refund.amount.amount,
                currency: refund.amount.currency.to_string(),
            }),
            reason: refund.reason.clone(),
            points: refund.points,
        };
        let mut till = self.desk.peers.payments.clone();
        let call = till.refund(self.own(request, REFUND_COMMAND_SECS));
        let answer = around(points::REFUND, call).await?.map_err(stop)?;
        let payment = self.given(answer.payment)?;
        let status = payment.status();
        let given_back = payment.refunded.as_ref().map_or(0, |money| money.amount);
        self.note_payment(payment);
        if matches!(
            status,
            PaymentStatus::RefundPending | PaymentStatus::Processing
        ) {
            return Ok(false);
        }
        // Refunds of an order are carried out one after the other, so the sum tells whether this one was.
        if given_back
            < self
                .order
                .refunded
                .plus(refund.amount)
                .map_err(OrdersError::from)?
                .amount
        {
            return Err(Stop::Failed(OrdersError::Nonsense(format!(
                "the provider does not give back refund {}",
                refund.id
            ))));
        }
        Ok(true)
    }

    async fn return_refunded_units(&mut self, refund: &Refund) -> Result<(), Stop> {
        if refund.units.is_empty() {
            return Ok(());
        }
        let lines = (refund.units.iter())
            .map(|returned| ledger::Line {
                pool: self.order.items[returned.item].sku.pool().to_string(),
                quantity: returned.quantity,
            })
            .collect();
        let request = ledger::ReturnRequest {
            request_id: refund.id.uuid().to_string(),
            hold_id: self.hold().to_string(),
            actor: refund.requested_by.unwrap_or(self.order.user).to_string(),
            lines,
        };
        let mut inventory = self.desk.peers.inventory.clone();
        let call = inventory.r#return(self.own(request, RETURN_COMMAND_SECS));
        around(points::RETURN_REFUNDED, call).await?.map_err(stop)?;
        Ok(())
    }

    async fn close(&mut self, refund: &Refund) -> Result<(), Stop> {
        let now = self.now();
        let mut tx = self.begin().await?;
        if !store::save_saga(&mut tx, &self.saga, Due::Kept, false, now).await? {
            return Err(Stop::Lost);
        }
        // The order may have been cancelled since this turn began.
        let order = store::lock_order(&mut tx, self.order.id).await?;
        let mut order = order.ok_or(OrdersError::UnknownOrder)?;
        self.order = order.clone();
        if store::close_refund(&mut tx, refund, RefundState::Done).await? {
            let change = order.give_back(refund, now)?;
            self.apply_payment(&mut order);
            self.save_order(&mut tx, &order, &[change]).await?;
            store::save_returned(&mut tx, &order, &refund.units).await?;
        }
        self.commit(tx, points::CLOSE_REFUND).await?;
        self.order = order;
        self.saga.open_refunds -= 1;
        failpoint::hit(points::CLOSE_REFUND.1).await?;
        Ok(())
    }

    fn refund_command(&self, refund: &Refund) -> Command {
        Command {
            saga_id: self.order.id.to_string(),
            step: format!("refund.{}", refund.id),
            epoch: self.saga.epoch,
        }
    }
}
