//! An order, its lines, and what may become of it; a file for each of its subjects.

mod basket;
mod delivery;
mod refund;
mod sharing;
mod status;
#[cfg(test)]
mod tests;
pub(crate) mod voucher;

use holdfast_kernel::{Currency, Id, Money, PoolKey, Sku, Timestamp, id};
use uuid::Uuid;

use self::voucher::Code;
use crate::error::OrdersError;

pub use status::{MOVES, Status};
pub(crate) use {
    basket::Basket,
    delivery::{Delivery, Handover, Parcel},
    refund::{Refund, RefundState, Returned, Share, refunded},
};

/// The commercial record of a purchase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) id: Id<id::Order>,
    pub(crate) user: Id<id::User>,
    pub(crate) source: Source,
    pub(crate) status: Status,
    pub(crate) items: Vec<Item>,
    /// What is paid in money.
    pub(crate) total: Money,
    /// What is paid in points beside it.
    pub(crate) points: i64,
    /// How many there were, where its payment was refused because they were too few.
    pub(crate) points_found: Option<i64>,
    /// Whose use it took; what that took off stands in the items.
    pub(crate) voucher: Option<Code>,
    /// Given back so far.
    pub(crate) refunded: Money,
    pub(crate) points_refunded: i64,
    pub(crate) hold_expires_at: Timestamp,
    /// `None` until a payment was begun.
    pub(crate) payment: Option<Payment>,
    pub(crate) delivery: Delivery,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    /// Rises by one with every change; each version is announced.
    pub(crate) version: i64,
}

/// What made an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Checkout,
    /// It mirrors a booking, which owns the purchase.
    Booking,
}

/// One SKU of an order, at the price it had when it was bought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) sku: Sku,
    pub(crate) name: String,
    pub(crate) quantity: i64,
    pub(crate) unit_price: Money,
    /// Taken off the price of all its units.
    pub(crate) discount: Money,
    pub(crate) refunded_quantity: i64,
}

/// What payments last said of the order's payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Payment {
    pub(crate) id: Id<id::Payment>,
    pub(crate) status: String,
    /// What the customer has to do, as JSON; empty when nothing.
    pub(crate) next_action: String,
}

/// A change of an order, as its history and the bus tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// What is told of it: that the order entered this status, or that money went back while it kept its own.
    pub(crate) news: Status,
    pub(crate) description: String,
    pub(crate) old: String,
    pub(crate) new: String,
    /// Who acted; `None` when the platform itself did.
    pub(crate) actor: Option<Id<id::User>>,
    /// The version of the order that it made.
    pub(crate) version: i64,
    pub(crate) at: Timestamp,
    /// How the order stood then, for those who only hear of it.
    pub(crate) status: Status,
    pub(crate) refunded: Money,
    /// What its payment earned in points, told with the confirmation.
    pub(crate) points_earned: Option<i64>,
}

/// Somebody's wish that a stuck order be tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resumption {
    pub(crate) request: Uuid,
    pub(crate) order: Id<id::Order>,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) by: Id<id::User>,
    pub(crate) reason: String,
    pub(crate) at: Timestamp,
}

impl Order {
    /// An order about to be carried out, without a voucher. Fails when the prices mix currencies or do not add up, and when more points are to
    /// be used than it costs.
    pub(crate) fn new(
        id: Id<id::Order>,
        user: Id<id::User>,
        items: Vec<Item>,
        points: i64,
        hold_expires_at: Timestamp,
        fingerprint: Vec<u8>,
        now: Timestamp,
    ) -> Result<Self, OrdersError> {
        let subtotal = total_of(&items)?;
        if !(0..=subtotal.amount).contains(&points) {
            return Err(OrdersError::field(
                "points",
                format!(
                    "{points}, wanted 0 to {}, what the order costs",
                    subtotal.amount
                ),
            ));
        }
        let total = subtotal.minus(Money::new(points, subtotal.currency))?;
        Ok(Self {
            id,
            user,
            source: Source::Checkout,
            status: Status::Pending,
            items,
            total,
            points,
            points_found: None,
            voucher: None,
            refunded: Money::zero(total.currency),
            points_refunded: 0,
            hold_expires_at,
            payment: None,
            delivery: Delivery::Waiting,
            fingerprint,
            created_at: now,
            updated_at: now,
            version: 1,
        })
    }

    /// The news that the order was made.
    pub(crate) fn created(&self) -> Change {
        Change {
            news: Status::Pending,
            description: "order placed".to_owned(),
            old: String::new(),
            new: self.status.as_str().to_owned(),
            actor: Some(self.user),
            version: self.version,
            at: self.created_at,
            status: self.status,
            refunded: self.refunded,
            points_earned: None,
        }
    }

    /// Moves the order, if [`MOVES`] has that move and delivery has not gone too far for it, or not far enough.
    pub(crate) fn enter(
        &mut self,
        to: Status,
        description: impl Into<String>,
        actor: Option<Id<id::User>>,
        now: Timestamp,
    ) -> Result<Change, OrdersError> {
        let from = self.status;
        if !from.may_become(to) || !self.delivery.admits(to) {
            let from = self.delivery.told_beside(from);
            return Err(OrdersError::InvalidTransition { from, to });
        }
        self.status = to;
        self.version += 1;
        self.updated_at = now;
        Ok(Change {
            news: to,
            description: description.into(),
            old: from.as_str().to_owned(),
            new: to.as_str().to_owned(),
            actor,
            version: self.version,
            at: now,
            status: to,
            refunded: self.refunded,
            points_earned: None,
        })
    }

    /// What the order costs, in money and points.
    pub(crate) fn value(&self) -> Result<Money, OrdersError> {
        Ok(self.total.plus(self.in_points(self.points))?)
    }

    /// What its voucher took off, all lines together.
    pub(crate) fn discount(&self) -> Result<Money, OrdersError> {
        let mut sum = Money::zero(self.total.currency);
        for item in &self.items {
            sum = sum.plus(item.discount)?;
        }
        Ok(sum)
    }

    /// What it takes of the ledger, all or nothing: its units, and one use of its voucher.
    pub(crate) fn claims(&self) -> Vec<(PoolKey, i64)> {
        self.claiming(|item| item.quantity)
    }

    /// What of that goes back when the purchase comes to nothing.
    pub(crate) fn claims_left(&self) -> Vec<(PoolKey, i64)> {
        self.claiming(|item| item.quantity - item.refunded_quantity)
    }

    /// What points are worth: a minor unit each.
    fn in_points(&self, points: i64) -> Money {
        Money::new(points, self.total.currency)
    }

    fn claiming(&self, units: impl Fn(&Item) -> i64) -> Vec<(PoolKey, i64)> {
        let units = self.items.iter().map(|item| (item.sku.pool(), units(item)));
        let use_of = self.voucher.iter().map(|code| (code.pool(), 1));
        units
            .chain(use_of)
            .filter(|(_, units)| *units > 0)
            .collect()
    }
}

impl Item {
    /// The price of all its units, with its discount taken off.
    pub(crate) fn total(&self) -> Result<Money, OrdersError> {
        Ok(self.unit_price.times(self.quantity)?.minus(self.discount)?)
    }
}

impl Source {
    /// The word that the API and the database use.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Checkout => "checkout",
            Self::Booking => "booking",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Checkout, Self::Booking]
            .into_iter()
            .find(|source| source.as_str() == text)
    }
}

fn total_of(items: &[Item]) -> Result<Money, OrdersError> {
    let currency: Currency = (items.first())
        .map(|item| item.unit_price.currency)
        .ok_or_else(|| OrdersError::field("items", "0 entries, wanted 1 or more"))?;
    let mut total = Money::zero(currency);
    for item in items {
        total = total.plus(item.total()?)?;
    }
    Ok(total)
}
