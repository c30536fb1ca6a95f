//! Resuming, for staff: an order that needs attention is set going again, once what held it up was seen to.

use holdfast_kernel::{Id, RequestId, id, time::to_micros};
use holdfast_platform::{database, identity::Caller};
use holdfast_proto::orders::v1 as pb;

use crate::{
    api::{Api, parse_fingerprint, parse_reason, parse_request_id},
    domain::{Order, Resumption, Status},
    error::OrdersError,
    store,
};

/// A wish to resume, well-formed.
pub(super) struct ResumeOrder {
    request: RequestId,
    fingerprint: Vec<u8>,
    order: Id<id::Order>,
    reason: String,
}

impl ResumeOrder {
    pub(super) fn parse(request: pb::ResumeOrderRequest) -> Result<Self, OrdersError> {
        Ok(Self {
            request: parse_request_id(&request.request_id)?,
            fingerprint: parse_fingerprint(&request.fingerprint)?,
            order: (request.order_id.parse()).map_err(|_| OrdersError::UnknownOrder)?,
            reason: parse_reason(request.reason)?,
        })
    }
}

impl Api {
    /// Resumes, and answers with the order as far as that has come.
    pub(super) async fn resume(
        &self,
        caller: &Caller,
        wish: ResumeOrder,
    ) -> Result<Order, OrdersError> {
        let until = self.answer_by();
        let id = wish.order;
        self.ask_to_resume(caller, wish).await?;
        self.desk.bell.ring();
        let goes_on = |order: &Order| order.status != Status::NeedsAttention;
        self.wait(id, until, goes_on).await
    }

    async fn ask_to_resume(&self, caller: &Caller, wish: ResumeOrder) -> Result<(), OrdersError> {
        let now = to_micros(self.desk.context.clock.now());
        let mut tx = database::begin(&self.desk.context.database).await?;
        let saga = store::lock_saga(&mut tx, wish.order).await?;
        saga.ok_or(OrdersError::UnknownOrder)?;
        let order = store::lock_order(&mut tx, wish.order).await?;
        let order = order.ok_or(OrdersError::UnknownOrder)?;
        let resumption = Resumption {
            request: wish.request.uuid(),
            order: order.id,
            fingerprint: wish.fingerprint,
            by: caller.user()?,
            reason: wish.reason,
            at: now,
        };
        if let Some((order, fingerprint)) =
            store::find_resumption(&mut tx, resumption.request).await?
        {
            let same = order == resumption.order && fingerprint == resumption.fingerprint;
            return if same {
                Ok(())
            } else {
                Err(OrdersError::KeyReused)
            };
        }
        if order.status != Status::NeedsAttention {
            return Err(OrdersError::NotStuck { from: order.status });
        }
        store::insert_resumption(&mut tx, &resumption).await?;
        database::commit(tx).await?;
        Ok(())
    }
}
