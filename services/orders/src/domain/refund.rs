//! What is given back of an order: as it was paid, and never more than that.

use holdfast_kernel::{Id, Money, Timestamp, id};
use serde::{Deserialize, Serialize};

use super::{Basket, Change, Order, Status, sharing::handed_out};
use crate::error::OrdersError;

/// Money to be given back, and units with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refund {
    pub(crate) id: Id<id::Refund>,
    pub(crate) order: Id<id::Order>,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) amount: Money,
    /// Points that go back beside it.
    pub(crate) points: i64,
    pub(crate) units: Vec<Returned>,
    pub(crate) reason: String,
    pub(crate) requested_by: Option<Id<id::User>>,
    pub(crate) state: RefundState,
    pub(crate) created_at: Timestamp,
}

/// How far a refund is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefundState {
    Open,
    Done,
    /// Nothing was captured in the end.
    Dropped,
}

/// Units of one line that return to stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Returned {
    /// Index into the order's items, from 0.
    pub(crate) item: usize,
    pub(crate) quantity: i64,
}

/// What a refund comes to, of an order that was paid in money and points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Worth {
    pub(crate) amount: Money,
    pub(crate) points: i64,
    pub(crate) units: Vec<Returned>,
}

/// How much of an order is to be given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Share {
    /// All money and units that are left.
    Rest,
    /// These units, at the price they were bought for.
    Items(Basket),
    /// That value, and no units.
    Amount(Money),
}

impl Order {
    /// What a refund of that share comes to, with `promised` (other refunds under way) taken off first.
    ///
    /// Units are worth their part of their line by running total, so that the last one ends at the whole line; only what is
    /// left of the order's total can be given back, whichever way it was given back before.
    pub(crate) fn refund_share(
        &self,
        share: &Share,
        promised: &[Refund],
    ) -> Result<Worth, OrdersError> {
        let value = self.value()?;
        let back = self.refunded.plus(self.in_points(self.points_refunded))?;
        let mut left = value.minus(back)?;
        let mut units: Vec<i64> = (self.items.iter())
            .map(|item| item.quantity - item.refunded_quantity)
            .collect();
        for refund in promised {
            left = left
                .minus(refund.amount)?
                .minus(self.in_points(refund.points))?;
            for returned in &refund.units {
                units[returned.item] -= returned.quantity;
            }
        }
        let (worth, returned) = match share {
            Share::Rest => (left, returned(&units)),
            Share::Amount(amount) => (*amount, Vec::new()),
            Share::Items(basket) => {
                let mut amount = Money::zero(self.total.currency);
                let mut returned = Vec::with_capacity(basket.lines().len());
                for (sku, quantity) in basket.lines() {
                    let item = (self.items.iter())
                        .position(|item| item.sku == *sku)
                        .ok_or_else(|| OrdersError::UnknownItem(sku.clone()))?;
                    if *quantity > units[item] {
                        return Err(OrdersError::ReturnExceedsBought {
                            sku: sku.clone(),
                            requested: *quantity,
                            left: units[item],
                        });
                    }
                    let bought = &self.items[item];
                    let (line, of) = (bought.total()?, bought.quantity);
                    let gone = of - units[item];
                    let worth = handed_out(line, gone + quantity, of);
                    amount = amount.plus(worth.minus(handed_out(line, gone, of))?)?;
                    returned.push(Returned {
                        item,
                        quantity: *quantity,
                    });
                }
                (amount, returned)
            }
        };
        // Also refuses another currency.
        let rest = left.minus(worth)?;
        if rest.amount < 0 || (worth.amount == 0 && returned.is_empty()) {
            return Err(OrdersError::RefundExceedsCaptured {
                requested: worth,
                left,
            });
        }
        // Split as the order was paid, by running total over its value.
        let points = if self.points == 0 {
            0
        } else {
            let used = self.in_points(self.points);
            let gone = |left: Money| -> Result<i64, OrdersError> {
                let gone = value.minus(left)?.amount;
                Ok(handed_out(used, gone, value.amount).amount)
            };
            gone(rest)? - gone(left)?
        };
        Ok(Worth {
            amount: worth.minus(self.in_points(points))?,
            points,
            units: returned,
        })
    }

    /// Notes what a refund has given back, and moves the order accordingly. A cancelled order stays so until all is back.
    pub(crate) fn give_back(
        &mut self,
        refund: &Refund,
        now: Timestamp,
    ) -> Result<Change, OrdersError> {
        self.refunded = self.refunded.plus(refund.amount)?;
        self.points_refunded += refund.points;
        for returned in &refund.units {
            self.items[returned.item].refunded_quantity += returned.quantity;
        }
        // Where there is nothing to pay back, an order is back when its units are.
        let is_free = self.total.amount == 0 && self.points == 0;
        let has_units = (self.items.iter()).any(|item| item.refunded_quantity < item.quantity);
        let all_back = self.refunded == self.total
            && self.points_refunded == self.points
            && !(is_free && has_units);
        let to = if all_back {
            Status::Refunded
        } else {
            Status::PartiallyRefunded
        };
        let to = match (self.status, to) {
            (Status::Cancelled, Status::PartiallyRefunded) => Status::Cancelled,
            _ => to,
        };
        let description = refunded(refund.amount, refund.points, &refund.reason);
        let mut change = self.enter(to, description, refund.requested_by, now)?;
        if to == Status::Cancelled {
            change.news = Status::PartiallyRefunded;
        }
        Ok(change)
    }
}

impl RefundState {
    /// The word that the database uses.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Done => "done",
            Self::Dropped => "dropped",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Open, Self::Done, Self::Dropped]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// What went back and why, for the order's history.
pub(crate) fn refunded(amount: Money, points: i64, reason: &str) -> String {
    match points {
        0 => format!("{amount} refunded: {reason}"),
        points => format!("{amount} and {points} points refunded: {reason}"),
    }
}

fn returned(units: &[i64]) -> Vec<Returned> {
    (units.iter().enumerate())
        .filter(|(_, quantity)| **quantity > 0)
        .map(|(item, &quantity)| Returned { item, quantity })
        .collect()
}
