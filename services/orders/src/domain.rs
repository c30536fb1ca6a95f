//! An order, its lines, and every move its status may make.

pub(crate) mod voucher;

use std::{cmp::Reverse, collections::BTreeMap, fmt};

use holdfast_kernel::{Currency, Id, Money, PoolKey, Sku, Timestamp, id};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::voucher::Code;
use crate::error::OrdersError;

/// Where an order stands, as customers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "MOVES says what each is for")]
pub enum Status {
    Pending,
    AwaitingPayment,
    Paid,
    Confirmed,
    Shipped,
    Delivered,
    Cancelled,
    PaymentFailed,
    Expired,
    PartiallyRefunded,
    Refunded,
    NeedsAttention,
}

/// Every move there is: from, what happened, to. The machine makes no other, and the README's diagram is drawn from it.
///
/// Below the first blank line stand the moves of the truth that came late: money arrived for an order that was given up.
pub const MOVES: &[(Status, &str, Status)] = {
    use Status::{
        AwaitingPayment, Cancelled, Confirmed, Delivered, Expired, NeedsAttention, Paid,
        PartiallyRefunded, PaymentFailed, Pending, Refunded, Shipped,
    };
    &[
        (
            Pending,
            "customer or provider is waited for",
            AwaitingPayment,
        ),
        (Pending, "captured", Paid),
        (Pending, "payment refused", PaymentFailed),
        (Pending, "hold over", Expired),
        (Pending, "cancel", Cancelled),
        (AwaitingPayment, "captured", Paid),
        (AwaitingPayment, "payment refused", PaymentFailed),
        (AwaitingPayment, "hold over", Expired),
        (AwaitingPayment, "cancel", Cancelled),
        (Paid, "all done", Confirmed),
        (Paid, "units gone, money back", Refunded),
        (Confirmed, "ship", Shipped),
        (Shipped, "deliver", Delivered),
        (Confirmed, "cancel", Cancelled),
        (PartiallyRefunded, "cancel", Cancelled),
        (Cancelled, "some money back", Cancelled),
        (Cancelled, "all money back", Refunded),
        (Confirmed, "some money back", PartiallyRefunded),
        (Shipped, "some money back", PartiallyRefunded),
        (Delivered, "some money back", PartiallyRefunded),
        (PartiallyRefunded, "some money back", PartiallyRefunded),
        (PartiallyRefunded, "ship", Shipped),
        (PartiallyRefunded, "deliver", Delivered),
        (Confirmed, "all money back", Refunded),
        (Shipped, "all money back", Refunded),
        (Delivered, "all money back", Refunded),
        (PartiallyRefunded, "all money back", Refunded),
        (Expired, "paid late, units free", Confirmed),
        (Expired, "paid late, units gone, money back", Refunded),
        (PaymentFailed, "paid late, units free", Confirmed),
        (PaymentFailed, "paid late, units gone, money back", Refunded),
        (Pending, STUCK, NeedsAttention),
        (AwaitingPayment, STUCK, NeedsAttention),
        (Confirmed, STUCK, NeedsAttention),
        (Shipped, STUCK, NeedsAttention),
        (Delivered, STUCK, NeedsAttention),
        (PartiallyRefunded, STUCK, NeedsAttention),
        (Cancelled, STUCK, NeedsAttention),
        (Expired, STUCK, NeedsAttention),
        (PaymentFailed, STUCK, NeedsAttention),
        (NeedsAttention, "set going by people", NeedsAttention),
        (NeedsAttention, RESUMED, AwaitingPayment),
        (NeedsAttention, RESUMED, Paid),
        (NeedsAttention, RESUMED, Confirmed),
        (NeedsAttention, RESUMED, PaymentFailed),
        (NeedsAttention, RESUMED, Expired),
        (NeedsAttention, RESUMED, Cancelled),
        (NeedsAttention, RESUMED, PartiallyRefunded),
        (NeedsAttention, RESUMED, Refunded),
    ]
};

const STUCK: &str = "a step failed too often";
const RESUMED: &str = "resumed";

/// Lines of one order.
pub(crate) const LINES_MAX_ENTRIES: usize = 1_000;
/// Units of one SKU in one order.
pub(crate) const QUANTITY_MAX_UNITS: i64 = 1_000_000;

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
}

/// What is to be bought: each SKU once, in the order first named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Basket(Vec<(Sku, i64)>);

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

/// Somebody's word that an order was shipped or delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Handover {
    pub(crate) request: Uuid,
    pub(crate) order: Id<id::Order>,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) by: Id<id::User>,
    pub(crate) at: Timestamp,
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
        })
    }

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

    /// What the order costs, in money and points.
    pub(crate) fn value(&self) -> Result<Money, OrdersError> {
        Ok(self.total.plus(self.in_points(self.points))?)
    }

    /// What points are worth: a minor unit each.
    fn in_points(&self, points: i64) -> Money {
        Money::new(points, self.total.currency)
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

    /// What it takes of the ledger, all or nothing: its units, and one use of its voucher.
    pub(crate) fn claims(&self) -> Vec<(PoolKey, i64)> {
        self.claiming(|item| item.quantity)
    }

    /// What of that goes back when the purchase comes to nothing.
    pub(crate) fn claims_left(&self) -> Vec<(PoolKey, i64)> {
        self.claiming(|item| item.quantity - item.refunded_quantity)
    }

    fn claiming(&self, units: impl Fn(&Item) -> i64) -> Vec<(PoolKey, i64)> {
        let units = self.items.iter().map(|item| (item.sku.pool(), units(item)));
        let use_of = self.voucher.iter().map(|code| (code.pool(), 1));
        units
            .chain(use_of)
            .filter(|(_, units)| *units > 0)
            .collect()
    }

    /// What its voucher took off, all lines together.
    pub(crate) fn discount(&self) -> Result<Money, OrdersError> {
        let mut sum = Money::zero(self.total.currency);
        for item in &self.items {
            sum = sum.plus(item.discount)?;
        }
        Ok(sum)
    }
}

impl Delivery {
    /// Whether an order whose delivery is so far may enter that status: what has left the house cannot be shipped or
    /// cancelled, and only that can arrive.
    const fn admits(&self, to: Status) -> bool {
        match to {
            Status::Shipped | Status::Cancelled => matches!(self, Self::Waiting),
            Status::Delivered => matches!(self, Self::Shipped { .. }),
            _ => true,
        }
    }

    /// The status that tells more of an order that has this one: that some money went back says nothing of its delivery.
    const fn told_beside(&self, status: Status) -> Status {
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

impl Item {
    /// The price of all its units, with its discount taken off.
    pub(crate) fn total(&self) -> Result<Money, OrdersError> {
        Ok(self.unit_price.times(self.quantity)?.minus(self.discount)?)
    }
}

impl Basket {
    /// Sums the lines of each SKU. Fails on no line, too many, or quantities out of bounds.
    pub(crate) fn new(lines: Vec<(Sku, i64)>) -> Result<Self, OrdersError> {
        let count = lines.len();
        if count == 0 || count > LINES_MAX_ENTRIES {
            return Err(OrdersError::field(
                "items",
                format!("{count} entries, wanted 1 to {LINES_MAX_ENTRIES}"),
            ));
        }
        let mut places: BTreeMap<Sku, usize> = BTreeMap::new();
        let mut summed: Vec<(Sku, i64)> = Vec::with_capacity(count);
        for (at, (sku, quantity)) in lines.into_iter().enumerate() {
            let out_of_bounds = |got: i64| {
                OrdersError::field(
                    format!("items[{at}].quantity"),
                    format!("{got}, wanted 1 to {QUANTITY_MAX_UNITS} of one sku"),
                )
            };
            if !(1..=QUANTITY_MAX_UNITS).contains(&quantity) {
                return Err(out_of_bounds(quantity));
            }
            if let Some(&place) = places.get(&sku) {
                summed[place].1 += quantity;
                if summed[place].1 > QUANTITY_MAX_UNITS {
                    return Err(out_of_bounds(summed[place].1));
                }
            } else {
                places.insert(sku.clone(), summed.len());
                summed.push((sku, quantity));
            }
        }
        Ok(Self(summed))
    }

    /// Each SKU once, with its units.
    pub(crate) fn lines(&self) -> &[(Sku, i64)] {
        &self.0
    }
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 12] = [
        Self::Pending,
        Self::AwaitingPayment,
        Self::Paid,
        Self::Confirmed,
        Self::Shipped,
        Self::Delivered,
        Self::Cancelled,
        Self::PaymentFailed,
        Self::Expired,
        Self::PartiallyRefunded,
        Self::Refunded,
        Self::NeedsAttention,
    ];

    /// The word that the API and the database use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::AwaitingPayment => "awaiting_payment",
            Self::Paid => "paid",
            Self::Confirmed => "confirmed",
            Self::Shipped => "shipped",
            Self::Delivered => "delivered",
            Self::Cancelled => "cancelled",
            Self::PaymentFailed => "payment_failed",
            Self::Expired => "expired",
            Self::PartiallyRefunded => "partially_refunded",
            Self::Refunded => "refunded",
            Self::NeedsAttention => "needs_attention",
        }
    }

    /// Reads what [`as_str`](Self::as_str) wrote.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether [`MOVES`] leads from here to there.
    pub fn may_become(self, to: Self) -> bool {
        MOVES
            .iter()
            .any(|(from, _, then)| *from == self && *then == to)
    }

    /// Whether the customer's money may be ours in this status.
    pub(crate) const fn is_paid(self) -> bool {
        matches!(
            self,
            Self::Paid
                | Self::Confirmed
                | Self::Shipped
                | Self::Delivered
                | Self::PartiallyRefunded
        )
    }

    /// Whether the purchase was given up. Only the truth that comes late moves it from here.
    pub(crate) const fn is_given_up(self) -> bool {
        matches!(self, Self::Cancelled | Self::PaymentFailed | Self::Expired)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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

/// Shares out `amount` over lines, of whose sum it is no more, by largest remainder: each line gets its part rounded down,
/// and what is left goes one unit each to those with the largest remainders, among equals to the earlier line.
fn shared_out(amount: i64, lines: &[i64]) -> Vec<i64> {
    let sum: i128 = lines.iter().copied().map(i128::from).sum();
    if sum == 0 {
        return vec![0; lines.len()];
    }
    let parts = lines
        .iter()
        .map(|&line| i128::from(amount) * i128::from(line));
    let (mut shares, remainders): (Vec<i64>, Vec<i128>) = parts
        .map(|part| {
            let share = i64::try_from(part / sum).expect("a share of a line is no more than it");
            (share, part % sum)
        })
        .unzip();
    let left = amount - shares.iter().sum::<i64>();
    let mut places: Vec<usize> = (0..lines.len()).collect();
    places.sort_by_key(|&place| Reverse(remainders[place]));
    // Less than one unit is left of each line that has a remainder.
    for &place in places.iter().zip(0..left).map(|(place, _)| place) {
        shares[place] += 1;
    }
    shares
}

/// What of `whole` has been handed out after `parts` of `of` parts, rounded down. A step hands out the difference, so the
/// last one ends at the whole, in whichever steps it was reached.
fn handed_out(whole: Money, parts: i64, of: i64) -> Money {
    let amount = i128::from(whole.amount) * i128::from(parts) / i128::from(of);
    let amount = i64::try_from(amount).expect("parts of a whole are no more than it");
    Money::new(amount, whole.currency)
}

fn returned(units: &[i64]) -> Vec<Returned> {
    (units.iter().enumerate())
        .filter(|(_, quantity)| **quantity > 0)
        .map(|(item, &quantity)| Returned { item, quantity })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yen(amount: i64) -> Money {
        Money::new(amount, "JPY".parse().expect("a currency"))
    }

    fn order() -> Order {
        order_using(0)
    }

    fn order_using(points: i64) -> Order {
        let item = |sku: &str, quantity, price| Item {
            sku: sku.parse().expect("a sku"),
            name: sku.to_owned(),
            quantity,
            unit_price: yen(price),
            discount: yen(0),
            refunded_quantity: 0,
        };
        let items = vec![item("TSHIRT", 3, 500), item("MUG", 1, 250)];
        let now = Timestamp::UNIX_EPOCH;
        let order = Order::new(
            Id::generate(),
            Id::generate(),
            items,
            points,
            now,
            vec![1],
            now,
        );
        let mut order = order.expect("adds up");
        for to in [Status::Paid, Status::Confirmed] {
            order.enter(to, "", None, now).expect("a legal move");
        }
        order
    }

    fn refund(order: &Order, share: &Share, promised: &[Refund]) -> Result<Refund, OrdersError> {
        let Worth {
            amount,
            points,
            units,
        } = order.refund_share(share, promised)?;
        Ok(Refund {
            id: Id::generate(),
            order: order.id,
            fingerprint: Vec::new(),
            amount,
            points,
            units,
            reason: String::new(),
            requested_by: None,
            state: RefundState::Open,
            created_at: Timestamp::UNIX_EPOCH,
        })
    }

    fn items(lines: &[(&str, i64)]) -> Share {
        let lines = lines
            .iter()
            .map(|(sku, units)| (sku.parse().expect("a sku"), *units));
        Share::Items(Basket::new(lines.collect()).expect("a basket"))
    }

    #[test]
    fn the_readme_shows_the_machine_as_it_is() {
        let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
        holdfast_testkit::assert_states_drawn(readme, &Status::Pending, MOVES);
    }

    #[test]
    fn an_order_that_was_given_up_is_left_only_by_the_late_truth_or_by_getting_stuck() {
        for from in Status::ALL
            .into_iter()
            .filter(|status| status.is_given_up())
        {
            let leads: Vec<Status> = Status::ALL
                .into_iter()
                .filter(|to| *to != from && from.may_become(*to))
                .collect();
            let want: &[Status] = match from {
                Status::Cancelled => &[Status::Refunded, Status::NeedsAttention],
                _ => &[Status::Confirmed, Status::Refunded, Status::NeedsAttention],
            };
            assert_eq!(leads, want, "{from}");
        }
        assert!(
            !Status::ALL
                .into_iter()
                .any(|to| Status::Refunded.may_become(to))
        );
    }

    #[test]
    fn every_word_for_a_status_reads_back() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(status));
        }
        assert_eq!(Status::parse("lost"), None);
    }

    #[test]
    fn a_refund_is_worth_its_items_at_the_price_they_were_bought_for() {
        let order = order();
        let part = refund(&order, &items(&[("TSHIRT", 2), ("MUG", 1)]), &[]).expect("a refund");
        assert_eq!(part.amount, yen(1_250));
        let rest = refund(&order, &Share::Rest, &[part]).expect("a refund");
        assert_eq!((rest.amount, rest.units.len()), (yen(500), 1));
    }

    #[test]
    fn an_order_uses_no_more_points_than_it_costs() {
        for (points, fits) in [(0, true), (1_750, true), (1_751, false), (-1, false)] {
            let items = order().items;
            let now = Timestamp::UNIX_EPOCH;
            let made = Order::new(
                Id::generate(),
                Id::generate(),
                items,
                points,
                now,
                vec![1],
                now,
            );
            assert_eq!(made.is_ok(), fits, "{points}");
        }
    }

    /// "Given back" of `docs/PRICING.md`, of an order of 1,750 that was paid in part by points.
    #[test]
    fn a_refund_is_split_as_the_order_was_paid_and_all_of_both_is_back_in_the_end() {
        for points in [0, 1, 300, 999, 1_749, 1_750] {
            for step in [1_750, 875, 100, 7] {
                let mut order = order_using(points);
                let (mut money_back, mut points_back, mut left) = (0, 0, 1_750);
                while left > 0 {
                    let value = step.min(left);
                    let part = refund(&order, &Share::Amount(yen(value)), &[]).expect("a refund");
                    assert_eq!(part.amount.amount + part.points, value);
                    order
                        .give_back(&part, Timestamp::UNIX_EPOCH)
                        .expect("given back");
                    money_back += part.amount.amount;
                    points_back += part.points;
                    left -= value;
                    assert_eq!(points_back, points * (1_750 - left) / 1_750, "rounded down");
                }
                assert_eq!((money_back, points_back), (1_750 - points, points));
                assert_eq!(order.status, Status::Refunded);
            }
        }
    }

    /// The table of `docs/PRICING.md` under "Shares", over lines.
    #[test]
    fn an_amount_is_shared_out_over_lines_by_largest_remainder() {
        for (amount, lines, want) in [
            (100, &[100, 100, 100][..], &[34, 33, 33][..]),
            (100, &[999, 1], &[100, 0]),
            (100, &[50, 30, 20, 0], &[50, 30, 20, 0]),
            (0, &[5, 5], &[0, 0]),
            (0, &[0, 0], &[0, 0]),
            (10, &[5, 0, 5], &[5, 0, 5]),
            (i64::MAX, &[i64::MAX - 1, 1], &[i64::MAX - 1, 1]),
        ] {
            assert_eq!(shared_out(amount, lines), want, "{amount} over {lines:?}");
        }
    }

    #[test]
    fn no_line_is_given_more_than_it_is_and_nothing_is_left_over() {
        for lines in [vec![1, 1, 1], vec![7, 3, 2, 9], vec![0, 1, 1_000], vec![13]] {
            for amount in 0..=lines.iter().sum::<i64>() {
                let shares = shared_out(amount, &lines);
                assert_eq!(shares.iter().sum::<i64>(), amount, "{lines:?}");
                let fits = shares.iter().zip(&lines).all(|(share, line)| share <= line);
                assert!(fits, "{amount} over {lines:?} gives {shares:?}");
            }
        }
    }

    #[test]
    fn what_was_taken_off_is_not_given_back_and_the_use_goes_with_the_units() {
        let mut items = order().items;
        items[0].discount = yen(100);
        let now = Timestamp::UNIX_EPOCH;
        let order = Order::new(Id::generate(), Id::generate(), items, 0, now, vec![1], now);
        let mut order = order.expect("adds up");
        order.voucher = Some("SUMMER10".parse().expect("a code"));
        assert_eq!(
            (order.total, order.discount().expect("a sum")),
            (yen(1_650), yen(100))
        );
        let claims = ["sku:TSHIRT 3", "sku:MUG 1", "voucher:SUMMER10 1"];
        let told = |claims: Vec<(PoolKey, i64)>| -> Vec<String> {
            claims
                .into_iter()
                .map(|(pool, units)| format!("{pool} {units}"))
                .collect()
        };
        assert_eq!(told(order.claims()), claims);
        assert_eq!(told(order.claims_left()), claims);
        for to in [Status::Paid, Status::Confirmed] {
            order.enter(to, "", None, now).expect("a legal move");
        }
        // 1,400 of the line over three units.
        for want in [466, 467, 467] {
            let part = refund(&order, &items_of("TSHIRT"), &[]).expect("a refund");
            assert_eq!(part.amount, yen(want));
            order.give_back(&part, now).expect("given back");
        }
    }

    #[test]
    fn an_order_that_cost_nothing_is_back_when_its_units_are() {
        let mut items = order().items;
        for item in &mut items {
            item.discount = item.total().expect("a sum");
        }
        let now = Timestamp::UNIX_EPOCH;
        let order = Order::new(Id::generate(), Id::generate(), items, 0, now, vec![1], now);
        let mut order = order.expect("adds up");
        for to in [Status::Paid, Status::Confirmed] {
            order.enter(to, "", None, now).expect("a legal move");
        }
        let part = refund(&order, &items_of("MUG"), &[]).expect("a refund");
        order.give_back(&part, now).expect("given back");
        assert_eq!(order.status, Status::PartiallyRefunded);
        let rest = refund(&order, &Share::Rest, &[]).expect("a refund");
        order.give_back(&rest, now).expect("given back");
        assert_eq!(order.status, Status::Refunded);
    }

    fn items_of(sku: &str) -> Share {
        items(&[(sku, 1)])
    }

    /// The table of `docs/PRICING.md` under "Shares", over time.
    #[test]
    fn a_whole_is_handed_out_by_running_total_whatever_the_steps() {
        for (whole, steps, want) in [
            (100, &[1, 1, 1][..], &[33, 33, 34][..]),
            (100, &[2, 1], &[66, 34]),
            (1_050, &[1, 1], &[525, 525]),
            (
                i64::MAX,
                &[1, 1_000_000 - 1],
                &[9_223_372_036_854, i64::MAX - 9_223_372_036_854],
            ),
        ] {
            let of = steps.iter().sum();
            let mut parts = 0;
            let handed: Vec<i64> = (steps.iter())
                .map(|step| {
                    let before = handed_out(yen(whole), parts, of).amount;
                    parts += step;
                    handed_out(yen(whole), parts, of).amount - before
                })
                .collect();
            assert_eq!(handed, want, "{whole} in {steps:?}");
        }
    }

    #[test]
    fn what_is_promised_counts_as_gone_before_it_is_given_back() {
        let order = order();
        let promised = [refund(&order, &Share::Amount(yen(1_700)), &[]).expect("a refund")];
        for (share, fits) in [
            (Share::Amount(yen(50)), true),
            (Share::Amount(yen(51)), false),
            (items(&[("MUG", 1)]), false),
            (
                Share::Amount(Money::new(1, "USD".parse().expect("a currency"))),
                false,
            ),
        ] {
            assert_eq!(refund(&order, &share, &promised).is_ok(), fits, "{share:?}");
        }
        let all = [refund(&order, &Share::Rest, &[]).expect("a refund")];
        assert!(
            refund(&order, &Share::Rest, &all).is_err(),
            "nothing is left"
        );
    }

    #[test]
    fn a_cancelled_order_stays_cancelled_until_all_of_it_is_back() {
        let mut order = order();
        let part = refund(&order, &items(&[("MUG", 1)]), &[]).expect("a refund");
        let rest = refund(&order, &Share::Rest, std::slice::from_ref(&part)).expect("a refund");
        let now = Timestamp::UNIX_EPOCH;
        order
            .enter(Status::Cancelled, "", None, now)
            .expect("a legal move");
        let change = order.give_back(&part, now).expect("given back");
        assert_eq!(
            (change.news, order.status),
            (Status::PartiallyRefunded, Status::Cancelled)
        );
        let change = order.give_back(&rest, now).expect("given back");
        assert_eq!(
            (change.news, order.status),
            (Status::Refunded, Status::Refunded)
        );
        assert!(order.claims_left().is_empty());
        assert_eq!(order.version, 6, "one for each change");
    }

    fn parcel(tracking: &str) -> Parcel {
        Parcel {
            carrier: "Yamato".to_owned(),
            tracking: tracking.to_owned(),
        }
    }

    #[test]
    fn an_order_ships_once_arrives_once_and_keeps_both_while_money_goes_back() {
        let (mut order, by, now) = (order(), Id::generate(), Timestamp::UNIX_EPOCH);
        let refused = order.clone().deliver(by, now);
        assert!(refused.is_err(), "it has not left");
        let change = order.ship(parcel("1"), by, now).expect("a legal move");
        let change = change.expect("a change");
        assert_eq!(
            (change.description.as_str(), change.actor),
            ("shipped by Yamato as 1", Some(by))
        );
        assert_eq!(order.ship(parcel("1"), by, now).expect("again"), None);

        let part = refund(&order, &items(&[("MUG", 1)]), &[]).expect("a refund");
        order.give_back(&part, now).expect("given back");
        assert_eq!(order.status, Status::PartiallyRefunded);
        for refused in [
            order.clone().ship(parcel("2"), by, now).map(drop),
            (order.clone().enter(Status::Cancelled, "", None, now)).map(drop),
        ] {
            let error = refused.expect_err("it has left").to_string();
            assert!(error.starts_with("an order that is shipped"), "{error}");
        }
        assert!(order.deliver(by, now).expect("a legal move").is_some());
        assert_eq!(order.deliver(by, now).expect("again"), None);
        let refused = order.ship(parcel("1"), by, now).expect_err("it arrived");
        assert!(refused.to_string().contains("delivered"), "{refused}");
    }

    #[test]
    fn prices_that_do_not_fit_an_amount_are_refused() {
        let mut dear = order().items;
        dear[0].unit_price = yen(i64::MAX / 2);
        let now = Timestamp::UNIX_EPOCH;
        let refused = Order::new(Id::generate(), Id::generate(), dear, 0, now, vec![1], now);
        assert!(matches!(refused, Err(OrdersError::TooExpensive)));
    }
}
