//! Shipping and delivering, for staff: what left the house, and what arrived.

use holdfast_kernel::{Id, Timestamp, id, time::to_micros};
use holdfast_platform::{database, identity::Caller};
use holdfast_proto::orders::v1 as pb;

use crate::{
    api::{Api, Wish, parse_line},
    domain::{Change, Handover, Order, Parcel},
    error::OrdersError,
    messages::{self, Action},
    store,
};

const CARRIER_MAX_CHARS: usize = 64;
const TRACKING_MAX_CHARS: usize = 128;

/// Word that an order is on its way or has arrived, well-formed.
pub(super) struct HandOver {
    wish: Wish,
    step: Step,
}

enum Step {
    Ship(Parcel),
    Deliver,
}

impl HandOver {
    pub(super) fn parse_ship(request: pb::ShipOrderRequest) -> Result<Self, OrdersError> {
        Ok(Self {
            wish: Wish::parse(&request.request_id, &request.fingerprint, &request.order_id)?,
            step: Step::Ship(Parcel {
                carrier: parse_line("carrier", request.carrier, CARRIER_MAX_CHARS)?,
                tracking: parse_line("tracking", request.tracking, TRACKING_MAX_CHARS)?,
            }),
        })
    }

    pub(super) fn parse_deliver(request: &pb::DeliverOrderRequest) -> Result<Self, OrdersError> {
        Ok(Self {
            wish: Wish::parse(&request.request_id, &request.fingerprint, &request.order_id)?,
            step: Step::Deliver,
        })
    }
}

impl Step {
    const fn action(&self, order_id: Id<id::Order>) -> Action {
        match self {
            Self::Ship(_) => Action::OrderShipped { order_id },
            Self::Deliver => Action::OrderDelivered { order_id },
        }
    }

    fn take(
        self,
        order: &mut Order,
        by: Id<id::User>,
        now: Timestamp,
    ) -> Result<Option<Change>, OrdersError> {
        match self {
            Self::Ship(parcel) => order.ship(parcel, by, now),
            Self::Deliver => order.deliver(by, now),
        }
    }
}

impl Api {
    /// Notes the step, and answers with the order as it stands then.
    pub(super) async fn hand_over(
        &self,
        caller: &Caller,
        word: HandOver,
    ) -> Result<Order, OrdersError> {
        let now = to_micros(self.desk.context.clock.now());
        let by = caller.user()?;
        let mut tx = database::begin(&self.desk.context.database).await?;
        let HandOver { wish, step } = word;
        let order = store::lock_order(&mut tx, wish.order).await?;
        let mut order = order.ok_or(OrdersError::UnknownOrder)?;
        let request = wish.request.uuid();
        if let Some((first, fingerprint)) = store::find_handover(&mut tx, request).await? {
            wish.is_the_same(first, &fingerprint)?;
            return Ok(order);
        }
        let before = order.version;
        let action = step.action(order.id);
        if let Some(change) = step.take(&mut order, by, now)? {
            // The row is locked, so it is at the version it was read at.
            store::save_order(&mut tx, &order, before, &[change]).await?;
            store::save_delivery(&mut tx, &order).await?;
            messages::record(&mut tx, by, Some(order.user), action, now).await?;
        }
        let handover = Handover {
            request,
            order: order.id,
            fingerprint: wish.fingerprint,
            by,
            at: now,
        };
        store::insert_handover(&mut tx, &handover).await?;
        self.desk.commit(tx, order.id).await?;
        Ok(order)
    }
}
