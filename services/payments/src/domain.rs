//! A payment, what it may do, and what it makes of what the provider says.
//!
//! Two things move a payment: a command of the purchase's saga, and the provider's [`Truth`]. The truth may come at any
//! time, twice, late, and after we had given up; each case has its line in [`MOVES`], and a move that has none is refused.
//!
//! What a payment is stands here; what moves it has a file named for its verb.

mod capture;
mod learn;
mod method;
mod refund;
mod void;

use std::fmt;

use holdfast_kernel::{Id, Money, RequestId, Timestamp, id, money::MoneyError};
use jiff::SignedDuration;

use crate::points::{self, Lying, Used};

pub use self::method::{Method, MethodKind};
pub(crate) use self::{
    learn::FIRST_CHECK_SECS,
    method::{SavedMethod, holds_card_number},
};

/// One payment for one purchase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Payment {
    pub(crate) id: Id<id::Payment>,
    pub(crate) purchase: Purchase,
    pub(crate) user: Id<id::User>,
    pub(crate) method: Method,
    pub(crate) amount: Money,
    /// What is paid in points beside the money, or instead of it.
    pub(crate) points: Used,
    /// Minor units of kept money that earn one point.
    pub(crate) units_per_point: i64,
    /// When the purchase's hold ends: until then the customer may act.
    pub(crate) expires_at: Timestamp,
    pub(crate) state: State,
    pub(crate) created_at: Timestamp,
    /// Rises by one with every change.
    pub(crate) version: i64,
    /// How many messages were told of it; the last one's version.
    pub(crate) told: i64,
    /// How often in a row the provider was asked in vain.
    pub(crate) checks: i32,
    /// When to look after it next, if it needs looking after.
    pub(crate) next_check_at: Option<Timestamp>,
}

/// What a purchase asks to be paid, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bill {
    pub(crate) purchase: Purchase,
    pub(crate) user: Id<id::User>,
    pub(crate) method: Method,
    pub(crate) amount: Money,
    pub(crate) points: i64,
    pub(crate) expires_at: Timestamp,
}

/// Where a payment stands, with what is true only there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// The provider was asked to authorize; its answer is not known.
    Processing,
    /// The customer has to do something first.
    RequiresAction(NextAction),
    /// The money is reserved for us.
    Authorized,
    /// The provider was asked to capture; its answer is not known. Refunds of `queued` wait for it.
    Capturing { queued: i64 },
    /// We promised to undo what the provider may have done; refunds of `queued` wait for it.
    Voiding { queued: i64 },
    /// The money is ours.
    Captured(Taken),
    /// Some of it is on its way back.
    RefundPending(Taken),
    /// Some of it went back.
    PartiallyRefunded(Taken),
    /// All of it went back.
    Refunded(Taken),
    /// The provider refused.
    Failed(Failure),
    /// It was undone before money was captured.
    Voided,
    /// The customer did not act in time.
    Expired,
}

/// Money taken and given back, in minor units: `refunded + refunding <= captured`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Taken {
    pub(crate) captured: i64,
    pub(crate) refunded: i64,
    pub(crate) refunding: i64,
}

/// What the provider refused, and in which words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) step: FailedStep,
    pub(crate) reason: String,
}

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailedStep {
    Authorize,
    Capture,
}

/// A [`State`] without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "State explains each")]
pub enum Status {
    Processing,
    RequiresAction,
    Authorized,
    Capturing,
    Voiding,
    Captured,
    RefundPending,
    PartiallyRefunded,
    Refunded,
    Failed,
    Voided,
    Expired,
}

/// Every move there is: from, what happened, to. The machine makes no other, and the README's diagram is drawn from it.
pub const MOVES: &[(Status, &str, Status)] = {
    use Status::{
        Authorized, Captured, Capturing, Expired, Failed, PartiallyRefunded, Processing,
        RefundPending, Refunded, RequiresAction, Voided, Voiding,
    };
    &[
        (Processing, ACTION_NEEDED, RequiresAction),
        (Processing, AUTHORIZED, Authorized),
        (Processing, CAPTURED, Captured),
        (Processing, REFUSED, Failed),
        (Processing, ENDED, Expired),
        (Processing, VOID, Voiding),
        (RequiresAction, AUTHORIZED, Authorized),
        (RequiresAction, CAPTURED, Captured),
        (RequiresAction, REFUSED, Failed),
        (RequiresAction, ENDED, Expired),
        (RequiresAction, VOID, Voiding),
        (Authorized, CAPTURED, Captured),
        (Authorized, UNKNOWN, Capturing),
        (Authorized, REFUSED, Failed),
        (Authorized, ENDED, Voided),
        (Authorized, VOID, Voiding),
        (Capturing, CAPTURED, Captured),
        (Capturing, CAPTURED, PartiallyRefunded),
        (Capturing, CAPTURED, RefundPending),
        (Capturing, REFUSED, Failed),
        (Capturing, REFUND, Capturing),
        (Capturing, VOID, Voiding),
        (Voiding, ENDED, Voided),
        (Voiding, CAPTURED, RefundPending),
        (Captured, REFUND, RefundPending),
        (Captured, REFUND, PartiallyRefunded),
        (Captured, REFUND, Refunded),
        (PartiallyRefunded, REFUND, RefundPending),
        (PartiallyRefunded, REFUND, PartiallyRefunded),
        (PartiallyRefunded, REFUND, Refunded),
        (RefundPending, REFUND, RefundPending),
        (RefundPending, GIVEN_BACK, RefundPending),
        (RefundPending, GIVEN_BACK, PartiallyRefunded),
        (RefundPending, GIVEN_BACK, Refunded),
        (RefundPending, NOT_GIVEN_BACK, RefundPending),
        (RefundPending, NOT_GIVEN_BACK, PartiallyRefunded),
        (RefundPending, NOT_GIVEN_BACK, Captured),
        // The truth that came late.
        (Failed, AUTHORIZED, Authorized),
        (Failed, CAPTURED, Captured),
        (Expired, AUTHORIZED, Authorized),
        (Expired, CAPTURED, Captured),
        (Failed, AUTHORIZED, Voiding),
        (Failed, CAPTURED, RefundPending),
        (Expired, AUTHORIZED, Voiding),
        (Expired, CAPTURED, RefundPending),
        (Voided, AUTHORIZED, Voiding),
        (Voided, CAPTURED, RefundPending),
    ]
};

const ACTION_NEEDED: &str = "customer must act";
const AUTHORIZED: &str = "authorized";
const CAPTURED: &str = "captured";
const UNKNOWN: &str = "outcome unknown";
const REFUSED: &str = "refused";
const ENDED: &str = "ended unpaid";
const VOID: &str = "void";
const REFUND: &str = "refund";
const GIVEN_BACK: &str = "given back";
const NOT_GIVEN_BACK: &str = "not given back";

/// What a provider says of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Truth {
    /// It is under way; nobody knows yet.
    Pending,
    /// The customer has to act.
    RequiresAction(NextAction),
    /// The money is reserved.
    Authorized,
    /// The money was taken, all of it.
    Captured,
    /// The provider refused.
    Failed {
        /// Stable, such as `card_declined`.
        reason: String,
    },
    /// It ended without money having been taken.
    Voided,
}

/// What a provider says of one refund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefundTruth {
    /// It is under way.
    Pending,
    /// The customer has the money, or surely gets it.
    Done,
    /// It will never happen.
    Refused {
        /// Stable, such as `exceeds_captured`.
        reason: String,
    },
}

/// What the customer has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextAction {
    /// Prove themselves at their bank.
    Redirect {
        /// Where to.
        url: String,
    },
    /// Pay the slip at the till.
    Slip {
        /// What to tell at the till.
        confirmation_number: String,
        /// Which shop.
        store: String,
        /// When the slip ends.
        expires_at: Timestamp,
    },
}

/// The purchase that is paid for: `ord_…` or `bkg_…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Purchase(String);

/// Money to be given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refund {
    pub(crate) id: Id<id::Refund>,
    pub(crate) amount: i64,
    /// Points that go back with it.
    pub(crate) points: i64,
    pub(crate) reason: String,
}

/// What others are told happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    RequiresAction,
    Authorized,
    Captured,
    Failed,
    Voided,
    Expired,
    PartiallyRefunded,
    Refunded,
    RefundFailed,
}

/// A payment after a move, and what has to be written beside it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) payment: Payment,
    /// The version that it is a change of; the payment's own when nothing moved.
    pub(crate) from: i64,
    pub(crate) news: Vec<News>,
    /// Points earned by it; lost, when negative.
    pub(crate) earned: i64,
    /// Where the points go that the purchase uses.
    pub(crate) moved: Lying,
    /// A refund that the move began by itself.
    pub(crate) refund: Option<Refund>,
    /// Nothing was captured: refunds that waited for it end.
    pub(crate) drops_refunds: bool,
}

/// Why a payment does not move.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Illegal {
    #[error("a payment that is {from} cannot do this: {what}")]
    Move { from: Status, what: &'static str },
    #[error("a payment that is {from} is said by the provider to be {said}")]
    Contradiction { from: Status, said: &'static str },
    #[error(
        "refund of {asked} exceeds what is left: {captured} captured, {refunded} refunded or about to be"
    )]
    RefundExceedsCaptured {
        asked: i64,
        captured: i64,
        refunded: i64,
    },
    #[error("refund of {asked} points, {left} of those used are left")]
    RefundExceedsPoints { asked: i64, left: i64 },
    #[error("refund of {0}, wanted 1 or more")]
    RefundAmount(i64),
    #[error(transparent)]
    Money(#[from] MoneyError),
}

/// The payment of a purchase. The same purchase has the same payment, so paying again meets the first paying.
pub(crate) fn payment_of(purchase: &Purchase) -> Id<id::Payment> {
    RequestId::derive(&["payment", purchase.as_str()]).makes()
}

impl Payment {
    /// A payment the provider is about to be asked for.
    pub(crate) fn new(bill: Bill, units_per_point: i64, now: Timestamp) -> Self {
        Self {
            id: payment_of(&bill.purchase),
            purchase: bill.purchase,
            user: bill.user,
            method: bill.method,
            amount: bill.amount,
            points: Used {
                all: bill.points,
                back: 0,
            },
            units_per_point,
            expires_at: bill.expires_at,
            state: State::Processing,
            created_at: now,
            version: 1,
            told: 0,
            checks: 0,
            next_check_at: Some(later(now, FIRST_CHECK_SECS)),
        }
    }

    /// Whether this is what would be made for the same wish.
    pub(crate) fn is_for(&self, wanted: &Self) -> bool {
        self.user == wanted.user
            && self.method == wanted.method
            && self.amount == wanted.amount
            && self.points.all == wanted.points.all
    }

    pub(crate) fn status(&self) -> Status {
        self.state.status()
    }

    /// Points that it has earned so far.
    pub(crate) fn earned(&self) -> i64 {
        points::earned(self.taken(), self.units_per_point)
    }

    /// What was taken and given back so far.
    pub(crate) fn taken(&self) -> Taken {
        match self.state {
            State::Captured(taken)
            | State::RefundPending(taken)
            | State::PartiallyRefunded(taken)
            | State::Refunded(taken) => taken,
            State::Capturing { queued } | State::Voiding { queued } => Taken {
                refunding: queued,
                ..Taken::default()
            },
            State::Processing
            | State::RequiresAction(_)
            | State::Authorized
            | State::Failed(_)
            | State::Voided
            | State::Expired => Taken::default(),
        }
    }

    /// Where the points are that the purchase uses.
    pub(crate) fn lying(&self) -> Lying {
        let out = self.points.out();
        match self.state {
            State::Captured(_)
            | State::RefundPending(_)
            | State::PartiallyRefunded(_)
            | State::Refunded(_) => Lying {
                held: 0,
                spent: out,
            },
            State::Processing
            | State::RequiresAction(_)
            | State::Authorized
            | State::Capturing { .. }
            | State::Voiding { .. }
            | State::Failed(_)
            | State::Voided
            | State::Expired => Lying {
                held: out,
                spent: 0,
            },
        }
    }

    fn stay(self) -> Change {
        Change {
            from: self.version,
            payment: self,
            news: Vec::new(),
            earned: 0,
            moved: Lying::default(),
            refund: None,
            drops_refunds: false,
        }
    }

    /// From one state to another. Where it ends unpaid the points that were to be used are given back.
    fn go(self, what: &'static str, state: State, now: Timestamp) -> Result<Change, Illegal> {
        let points = match &state {
            State::Failed(_) | State::Voided | State::Expired => self.points.given_back(),
            _ => self.points,
        };
        self.go_giving_back(what, state, points, now)
    }

    /// The one way from one state to another, with the points that are back then.
    fn go_giving_back(
        self,
        what: &'static str,
        state: State,
        points: Used,
        now: Timestamp,
    ) -> Result<Change, Illegal> {
        let (from, version) = (self.status(), self.version);
        let (earned, lay) = (self.earned(), self.lying());
        if !MOVES.contains(&(from, what, state.status())) {
            return Err(Illegal::Move { from, what });
        }
        let next_check_at = match &state {
            State::Processing
            | State::Capturing { .. }
            | State::Voiding { .. }
            | State::RefundPending(_) => Some(later(now, FIRST_CHECK_SECS)),
            State::RequiresAction(_) => Some(self.expires_at),
            State::Authorized
            | State::Captured(_)
            | State::PartiallyRefunded(_)
            | State::Refunded(_)
            | State::Failed(_)
            | State::Voided
            | State::Expired => None,
        };
        let payment = Self {
            state,
            points,
            version: version + 1,
            checks: 0,
            next_check_at,
            ..self
        };
        Ok(Change {
            from: version,
            earned: payment.earned() - earned,
            moved: payment.lying().since(lay),
            ..payment.stay()
        })
    }
}

impl Change {
    /// Whether there is anything to write.
    pub(crate) fn is_move(&self) -> bool {
        self.payment.version != self.from
    }

    /// Whether more is written with it than one statement does: refunds begin or end, points are used or go back.
    pub(crate) fn needs_transaction(&self) -> bool {
        self.drops_refunds
            || self.refund.is_some()
            || self.earned < 0
            || self.moved != Lying::default()
    }

    fn telling(mut self, news: News) -> Self {
        self.news.push(news);
        self.payment.told += 1;
        self
    }
}

impl State {
    fn status(&self) -> Status {
        match self {
            Self::Processing => Status::Processing,
            Self::RequiresAction(_) => Status::RequiresAction,
            Self::Authorized => Status::Authorized,
            Self::Capturing { .. } => Status::Capturing,
            Self::Voiding { .. } => Status::Voiding,
            Self::Captured(_) => Status::Captured,
            Self::RefundPending(_) => Status::RefundPending,
            Self::PartiallyRefunded(_) => Status::PartiallyRefunded,
            Self::Refunded(_) => Status::Refunded,
            Self::Failed(_) => Status::Failed,
            Self::Voided => Status::Voided,
            Self::Expired => Status::Expired,
        }
    }
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 12] = [
        Self::Processing,
        Self::RequiresAction,
        Self::Authorized,
        Self::Capturing,
        Self::Voiding,
        Self::Captured,
        Self::RefundPending,
        Self::PartiallyRefunded,
        Self::Refunded,
        Self::Failed,
        Self::Voided,
        Self::Expired,
    ];

    /// The word that the database and the diagram use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Processing => "processing",
            Self::RequiresAction => "requires_action",
            Self::Authorized => "authorized",
            Self::Capturing => "capturing",
            Self::Voiding => "voiding",
            Self::Captured => "captured",
            Self::RefundPending => "refund_pending",
            Self::PartiallyRefunded => "partially_refunded",
            Self::Refunded => "refunded",
            Self::Failed => "failed",
            Self::Voided => "voided",
            Self::Expired => "expired",
        }
    }

    /// The word that others use: that an outcome is unknown is all they need.
    pub const fn public(self) -> &'static str {
        match self {
            Self::Capturing | Self::Voiding => "processing",
            _ => self.as_str(),
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FailedStep {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Authorize => "authorize",
            Self::Capture => "capture",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Authorize, Self::Capture]
            .into_iter()
            .find(|step| step.as_str() == text)
    }
}

impl Purchase {
    /// Reads `ord_…` or `bkg_…`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let encoded = text
            .strip_prefix("ord_")
            .or_else(|| text.strip_prefix("bkg_"))?;
        // Both kinds have the same 26 characters behind their prefix.
        format!("ord_{encoded}").parse::<Id<id::Order>>().ok()?;
        Some(Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

fn later(now: Timestamp, secs: i64) -> Timestamp {
    now.checked_add(SignedDuration::from_secs(secs))
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
