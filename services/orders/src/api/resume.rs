//! Resuming, for staff: an order that needs attention is set going again, once what held it up was seen to.

use holdfast_kernel::time::to_micros;
use holdfast_platform::{database, identity::Caller};
use holdfast_proto::orders::v1 as pb;

use crate::{
    api::{Api, Wish, parse_reason},
    domain::{Order, Resumption, Status},
    error::OrdersError,
    messages::{self, Action},
    store,
};

/// A wish to resume, well-formed.
pub(super) struct ResumeOrder {
    wish: Wish,
    reason: String,
}

impl ResumeOrder {
    pub(super) fn parse(request: pb::ResumeOrderRequest) -> Result<Self, OrdersError> {
        Ok(Self {
            wish: Wish::parse(&request.request_id, &request.fingerprint, &request.order_id)?,
            reason: parse_reason(request.reason)?,
        })
    }
}

impl Api {
    /// Resumes, and answers with the order as far as that has come.
    pub(super) async fn resume(
        &self,
        caller: &Caller,
        resume: ResumeOrder,
    ) -> Result<Order, OrdersError> {
        let until = self.answer_by();
        let id = resume.wish.order;
        self.ask_to_resume(caller, resume).await?;
        self.desk.bell.ring();
        let goes_on = |order: &Order| order.status != Status::NeedsAttention;
        self.wait(id, until, goes_on).await
    }

    async fn ask_to_resume(&self, caller: &Caller, ask: ResumeOrder) -> Result<(), OrdersError> {
        let ResumeOrder { wish, reason } = ask;
        let now = to_micros(self.desk.context.clock.now());
        let mut tx = database::begin(&self.desk.context.database).await?;
        let saga = store::lock_saga(&mut tx, wish.order).await?;
        saga.ok_or(OrdersError::UnknownOrder)?;
        let order = store::lock_order(&mut tx, wish.order).await?;
        let order = order.ok_or(OrdersError::UnknownOrder)?;
        let request = wish.request.uuid();
        if let Some((first, fingerprint)) = store::find_resumption(&mut tx, request).await? {
            return wish.is_the_same(first, &fingerprint);
        }
        if order.status != Status::NeedsAttention {
            return Err(OrdersError::NotStuck { from: order.status });
        }
        let resumption = Resumption {
            request,
            order: order.id,
            fingerprint: wish.fingerprint,
            by: caller.user()?,
            reason,
            at: now,
        };
        store::insert_resumption(&mut tx, &resumption).await?;
        let action = Action::OrderResumed { order_id: order.id };
        messages::record(&mut tx, resumption.by, Some(order.user), action, now).await?;
        self.desk.commit(tx, order.id).await
    }
}
