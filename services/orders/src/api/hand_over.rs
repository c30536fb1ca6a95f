//! Shipping and delivering, for staff: what left the house, and what arrived.

use holdfast_kernel::{Id, RequestId, Timestamp, id, time::to_micros};
use holdfast_platform::{database, identity::Caller};
use holdfast_proto::orders::v1 as pb;

use crate::{
    api::{Api, parse_fingerprint, parse_request_id},
    domain::{Change, Handover, Order, Parcel},
    error::OrdersError,
    store,
};

const CARRIER_MAX_CHARS: usize = 64;
const TRACKING_MAX_CHARS: usize = 128;

/// Word that an order is on its way or has arrived, well-formed.
pub(super) struct HandOver {
    request: RequestId,
    fingerprint: Vec<u8>,
    order: Id<id::Order>,
    step: Step,
}

enum Step {
    Ship(Parcel),
    Deliver,
}

impl HandOver {
    pub(super) fn parse_ship(request: pb::ShipOrderRequest) -> Result<Self, OrdersError> {
        Ok(Self {
            request: parse_request_id(&request.request_id)?,
            fingerprint: parse_fingerprint(&request.fingerprint)?,
            order: (request.order_id.parse()).map_err(|_| OrdersError::UnknownOrder)?,
            step: Step::Ship(Parcel {
                carrier: parse_line("carrier", request.carrier, CARRIER_MAX_CHARS)?,
                tracking: parse_line("tracking", request.tracking, TRACKING_MAX_CHARS)?,
            }),
        })
    }

    pub(super) fn parse_deliver(request: &pb::DeliverOrderRequest) -> Result<Self, OrdersError> {
        Ok(Self {
            request: parse_request_id(&request.request_id)?,
            fingerprint: parse_fingerprint(&request.fingerprint)?,
            order: (request.order_id.parse()).map_err(|_| OrdersError::UnknownOrder)?,
            step: Step::Deliver,
        })
    }
}

impl Step {
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
        let order = store::lock_order(&mut tx, word.order).await?;
        let mut order = order.ok_or(OrdersError::UnknownOrder)?;
        let handover = Handover {
            request: word.request.uuid(),
            order: order.id,
            fingerprint: word.fingerprint,
            by,
            at: now,
        };
        if let Some((first, fingerprint)) = store::find_handover(&mut tx, handover.request).await? {
            let same = first == handover.order && fingerprint == handover.fingerprint;
            return if same {
                Ok(order)
            } else {
                Err(OrdersError::KeyReused)
            };
        }
        let before = order.version;
        if let Some(change) = word.step.take(&mut order, by, now)? {
            // The row is locked, so it is at the version it was read at.
            store::save_order(&mut tx, &order, before, &[change]).await?;
            store::save_delivery(&mut tx, &order).await?;
        }
        store::insert_handover(&mut tx, &handover).await?;
        self.desk.commit(tx, order.id).await?;
        Ok(order)
    }
}

fn parse_line(name: &str, text: String, max_chars: usize) -> Result<String, OrdersError> {
    let chars = text.chars().count();
    if chars <= max_chars && !text.chars().any(char::is_control) {
        return Ok(text);
    }
    Err(OrdersError::field(
        name,
        format!("{chars} characters, wanted up to {max_chars} without control characters"),
    ))
}
