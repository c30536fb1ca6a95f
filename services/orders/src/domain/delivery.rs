//! How an order gets to its customer: it ships once and arrives once, whatever money goes back meanwhile.

use holdfast_kernel::{Id, Timestamp, id};
use uuid::Uuid;

use super::{Change, Order, Status};
use crate::error::OrdersError;

/// How far an order is on its way to its customer, whatever money goes back meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// It has not left the house.
    Waiting,
    Shipped {
        parcel: Parcel,
        at: Timestamp,
    },
    Delivered {
        parcel: Parcel,
        shipped_at: Timestamp,
        at: Timestamp,
    },
}

/// Who carries an order, and how they call it; both may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parcel {
    pub(crate) carrier: String,
    pub(crate) tracking: String,
}

/// Somebody's word that an order was shipped or delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Handover {
    pub(crate) request: Uuid,
    pub(crate) order: Id<id::Order>,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) by: Id<id::User>,
    pub(crate) at: Timestamp,
}

impl Order {
    /// Notes that the order left the house. `None` when it was noted before, of the same parcel.
    pub(crate) fn ship(
        &mut self,
        parcel: Parcel,
        by: Id<id::User>,
        now: Timestamp,
    ) -> Result<Option<Change>, OrdersError> {
        if let Delivery::Shipped { parcel: first, .. } = &self.delivery
            && *first == parcel
        {
            return Ok(None);
        }
        let change = self.enter(Status::Shipped, parcel.told(), Some(by), now)?;
        self.delivery = Delivery::Shipped { parcel, at: now };
        Ok(Some(change))
    }

    /// Notes that the order arrived. `None` when it was noted before.
    pub(crate) fn deliver(
        &mut self,
        by: Id<id::User>,
        now: Timestamp,
    ) -> Result<Option<Change>, OrdersError> {
        if let Delivery::Delivered { .. } = self.delivery {
            return Ok(None);
        }
        let change = self.enter(Status::Delivered, "delivered", Some(by), now)?;
        if let Delivery::Shipped { parcel, at } = &self.delivery {
            self.delivery = Delivery::Delivered {
                parcel: parcel.clone(),
                shipped_at: *at,
                at: now,
            };
        }
        Ok(Some(change))
    }
}

impl Delivery {
    /// Whether an order whose delivery is so far may enter that status: what has left the house cannot be shipped or
    /// cancelled, and only that can arrive.
    pub(super) const fn admits(&self, to: Status) -> bool {
        match to {
            Status::Shipped | Status::Cancelled => matches!(self, Self::Waiting),
            Status::Delivered => matches!(self, Self::Shipped { .. }),
            _ => true,
        }
    }

    /// The status that tells more of an order that has this one: that some money went back says nothing of its delivery.
    pub(super) const fn told_beside(&self, status: Status) -> Status {
        match (status, self) {
            (Status::PartiallyRefunded, Self::Shipped { .. }) => Status::Shipped,
            (Status::PartiallyRefunded, Self::Delivered { .. }) => Status::Delivered,
            _ => status,
        }
    }
}

impl Parcel {
    fn told(&self) -> String {
        let Self { carrier, tracking } = self;
        match (carrier.is_empty(), tracking.is_empty()) {
            (true, true) => "shipped".to_owned(),
            (false, true) => format!("shipped by {carrier}"),
            (true, false) => format!("shipped as {tracking}"),
            (false, false) => format!("shipped by {carrier} as {tracking}"),
        }
    }
}
