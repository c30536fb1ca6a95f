//! A payment, what it may do, and what it makes of what the provider says.
//!
//! Two things move a payment: a command of the purchase's saga, and the provider's [`Truth`]. The truth may come at any
//! time, twice, late, and after we had given up; each case has its line in [`MOVES`], and a move that has none is refused.

use std::fmt;

use holdfast_kernel::{Id, Money, RequestId, Timestamp, id, money::MoneyError};
use jiff::SignedDuration;

/// One payment for one purchase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Payment {
    pub(crate) id: Id<id::Payment>,
    pub(crate) purchase: Purchase,
    pub(crate) user: Id<id::User>,
    pub(crate) method: Method,
    pub(crate) amount: Money,
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
        (Capturing, CAPTURED, RefundPending),
        (Capturing, REFUSED, Failed),
        (Capturing, REFUND, Capturing),
        (Capturing, VOID, Voiding),
        (Voiding, ENDED, Voided),
        (Voiding, CAPTURED, RefundPending),
        (Captured, REFUND, RefundPending),
        (PartiallyRefunded, REFUND, RefundPending),
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

/// The kinds of payment there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodKind {
    /// By a provider's token, never by number.
    Card,
    /// In cash at a convenience store.
    Konbini,
}

/// A way to pay: for a card the provider's token, for a konbini the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method {
    /// Which kind.
    pub kind: MethodKind,
    /// What the provider knows it by.
    pub token: String,
}

/// A method that somebody keeps for later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SavedMethod {
    pub(crate) id: Id<id::PaymentMethod>,
    pub(crate) user: Id<id::User>,
    pub(crate) method: Method,
    pub(crate) created_at: Timestamp,
}

/// The purchase that is paid for: `ord_…` or `bkg_…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Purchase(String);

/// Money to be given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refund {
    pub(crate) id: Id<id::Refund>,
    pub(crate) amount: i64,
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
    pub(crate) news: Vec<News>,
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
    #[error("refund of {0}, wanted 1 or more")]
    RefundAmount(i64),
    #[error(transparent)]
    Money(#[from] MoneyError),
}

/// How long the provider may take before we ask again, at first; twice that the next time, and so on.
pub(crate) const FIRST_CHECK_SECS: i64 = 1;
/// The longest pause between two questions.
pub(crate) const CHECK_MAX_SECS: i64 = 30;

/// The payment of a purchase. The same purchase has the same payment, so paying again meets the first paying.
pub(crate) fn payment_of(purchase: &Purchase) -> Id<id::Payment> {
    RequestId::derive(&["payment", purchase.as_str()]).makes()
}

impl Payment {
    /// A payment the provider is about to be asked for.
    pub(crate) fn new(
        purchase: Purchase,
        user: Id<id::User>,
        method: Method,
        amount: Money,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Self {
        Self {
            id: payment_of(&purchase),
            purchase,
            user,
            method,
            amount,
            expires_at,
            state: State::Processing,
            created_at: now,
            version: 1,
            told: 0,
            checks: 0,
            next_check_at: Some(later(now, FIRST_CHECK_SECS)),
        }
    }

    /// Whether this is what would be made for the same wish.
    pub(crate) fn is_for(&self, user: Id<id::User>, method: &Method, amount: Money) -> bool {
        self.user == user && self.method == *method && self.amount == amount
    }

    pub(crate) fn status(&self) -> Status {
        self.state.status()
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

    /// Whether a capture has to be asked for; `false` when one was asked for before, whatever came of it.
    pub(crate) fn wants_capture(&self) -> Result<bool, Illegal> {
        match &self.state {
            State::Authorized => Ok(true),
            State::Capturing { .. }
            | State::Captured(_)
            | State::RefundPending(_)
            | State::PartiallyRefunded(_)
            | State::Refunded(_)
            | State::Failed(Failure {
                step: FailedStep::Capture,
                ..
            }) => Ok(false),
            State::Processing
            | State::RequiresAction(_)
            | State::Voiding { .. }
            | State::Failed(_)
            | State::Voided
            | State::Expired => Err(Illegal::Move {
                from: self.status(),
                what: "capture",
            }),
        }
    }

    /// The provider was asked to capture and did not say what came of it.
    pub(crate) fn capture_unknown(self, now: Timestamp) -> Result<Change, Illegal> {
        match self.state {
            State::Authorized => self.go(UNKNOWN, State::Capturing { queued: 0 }, now),
            _ => Ok(self.stay()),
        }
    }

    /// Undoes the payment: what was captured is refunded, what is over stays as it is.
    pub(crate) fn void(self, now: Timestamp) -> Result<Change, Illegal> {
        match self.state {
            State::Processing | State::RequiresAction(_) | State::Authorized => {
                self.go(VOID, State::Voiding { queued: 0 }, now)
            }
            State::Capturing { queued } => self.go(VOID, State::Voiding { queued }, now),
            State::Captured(taken)
            | State::PartiallyRefunded(taken)
            | State::RefundPending(taken) => self.refund_rest(REFUND, taken, now),
            State::Voiding { .. }
            | State::Refunded(_)
            | State::Failed(_)
            | State::Voided
            | State::Expired => Ok(self.stay()),
        }
    }

    /// Begins to give money back; while the capture is unknown the refund waits for it.
    pub(crate) fn refund(self, refund: Refund, now: Timestamp) -> Result<Change, Illegal> {
        if refund.amount < 1 {
            return Err(Illegal::RefundAmount(refund.amount));
        }
        let mut change = match self.state {
            State::Capturing { queued } => {
                let promised = Taken {
                    captured: self.amount.amount,
                    refunded: 0,
                    refunding: queued,
                };
                let queued = promised.promise(refund.amount)?.refunding;
                self.go(REFUND, State::Capturing { queued }, now)
            }
            State::Captured(taken)
            | State::PartiallyRefunded(taken)
            | State::RefundPending(taken)
            | State::Refunded(taken) => {
                let taken = taken.promise(refund.amount)?;
                self.go(REFUND, State::RefundPending(taken), now)
            }
            State::Processing
            | State::RequiresAction(_)
            | State::Authorized
            | State::Voiding { .. }
            | State::Failed(_)
            | State::Voided
            | State::Expired => Err(Illegal::Move {
                from: self.status(),
                what: REFUND,
            }),
        }?;
        change.refund = Some(refund);
        Ok(change)
    }

    /// A refund that was begun is over, one way or the other.
    pub(crate) fn settle_refund(
        self,
        amount: i64,
        truth: &RefundTruth,
        now: Timestamp,
    ) -> Result<Change, Illegal> {
        let State::RefundPending(mut taken) = self.state else {
            return Err(Illegal::Move {
                from: self.status(),
                what: GIVEN_BACK,
            });
        };
        let what = match truth {
            RefundTruth::Pending => return Ok(self.stay()),
            RefundTruth::Done => {
                taken.refunded += amount;
                GIVEN_BACK
            }
            RefundTruth::Refused { .. } => NOT_GIVEN_BACK,
        };
        taken.refunding -= amount;
        let state = if taken.refunding > 0 {
            State::RefundPending(taken)
        } else if taken.refunded == taken.captured {
            State::Refunded(taken)
        } else if taken.refunded > 0 {
            State::PartiallyRefunded(taken)
        } else {
            State::Captured(taken)
        };
        let news = match truth {
            RefundTruth::Refused { .. } => News::RefundFailed,
            _ if taken.refunded == taken.captured => News::Refunded,
            _ => News::PartiallyRefunded,
        };
        Ok(self.go(what, state, now)?.telling(news))
    }

    /// Takes in what the provider says. What we know already, and what is older than what we know, changes nothing.
    pub(crate) fn learn(self, truth: Truth, now: Timestamp) -> Result<Change, Illegal> {
        match truth {
            // Of an authorized payment only a capture can be under way.
            Truth::Pending => self.capture_unknown(now),
            Truth::RequiresAction(action) => match self.state {
                State::Processing => Ok(self
                    .go(ACTION_NEEDED, State::RequiresAction(action), now)?
                    .telling(News::RequiresAction)),
                _ => Ok(self.stay()),
            },
            Truth::Authorized => self.learn_authorized(now),
            Truth::Captured => self.learn_captured(now),
            Truth::Failed { reason } => self.learn_failed(reason, now),
            Truth::Voided => self.learn_voided(now),
        }
    }

    /// When to look again after the provider was asked in vain.
    pub(crate) fn look_again_at(checks: i32, now: Timestamp) -> Timestamp {
        let pause = FIRST_CHECK_SECS << checks.clamp(0, 16);
        later(now, pause.min(CHECK_MAX_SECS))
    }

    fn learn_authorized(self, now: Timestamp) -> Result<Change, Illegal> {
        match self.state {
            State::Processing | State::RequiresAction(_) | State::Failed(_) | State::Expired => {
                Ok(self
                    .go(AUTHORIZED, State::Authorized, now)?
                    .telling(News::Authorized))
            }
            State::Voided => self.go(AUTHORIZED, State::Voiding { queued: 0 }, now),
            State::Authorized
            | State::Capturing { .. }
            | State::Voiding { .. }
            | State::Captured(_)
            | State::RefundPending(_)
            | State::PartiallyRefunded(_)
            | State::Refunded(_) => Ok(self.stay()),
        }
    }

    fn learn_captured(self, now: Timestamp) -> Result<Change, Illegal> {
        let all = Taken {
            captured: self.amount.amount,
            ..Taken::default()
        };
        match self.state {
            State::Capturing { queued } if queued > 0 => {
                let taken = all.promise(queued)?;
                Ok(self
                    .go(CAPTURED, State::RefundPending(taken), now)?
                    .telling(News::Captured))
            }
            State::Processing
            | State::RequiresAction(_)
            | State::Authorized
            | State::Capturing { .. }
            | State::Failed(_)
            | State::Expired => Ok(self
                .go(CAPTURED, State::Captured(all), now)?
                .telling(News::Captured)),
            // It was undone already, so all of it goes back; what was queued has its refund.
            State::Voiding { queued } => self.refund_rest(CAPTURED, all.promise(queued)?, now),
            State::Voided => self.refund_rest(CAPTURED, all, now),
            State::Captured(_)
            | State::RefundPending(_)
            | State::PartiallyRefunded(_)
            | State::Refunded(_) => Ok(self.stay()),
        }
    }

    fn learn_failed(self, reason: String, now: Timestamp) -> Result<Change, Illegal> {
        match self.state {
            State::Processing | State::RequiresAction(_) => {
                self.fail(FailedStep::Authorize, reason, now)
            }
            State::Authorized | State::Capturing { .. } => {
                self.fail(FailedStep::Capture, reason, now)
            }
            State::Voiding { .. } => self.end_voided(now),
            State::Failed(_) | State::Voided | State::Expired => Ok(self.stay()),
            State::Captured(_)
            | State::RefundPending(_)
            | State::PartiallyRefunded(_)
            | State::Refunded(_) => Err(self.contradiction("refused")),
        }
    }

    fn learn_voided(self, now: Timestamp) -> Result<Change, Illegal> {
        match self.state {
            State::Processing | State::RequiresAction(_) => {
                Ok(self.go(ENDED, State::Expired, now)?.telling(News::Expired))
            }
            State::Capturing { .. } => {
                self.fail(FailedStep::Capture, "authorization_ended".to_owned(), now)
            }
            State::Authorized | State::Voiding { .. } => self.end_voided(now),
            State::Failed(_) | State::Voided | State::Expired => Ok(self.stay()),
            State::Captured(_)
            | State::RefundPending(_)
            | State::PartiallyRefunded(_)
            | State::Refunded(_) => Err(self.contradiction("voided")),
        }
    }

    fn fail(self, step: FailedStep, reason: String, now: Timestamp) -> Result<Change, Illegal> {
        let state = State::Failed(Failure { step, reason });
        let mut change = self.go(REFUSED, state, now)?.telling(News::Failed);
        change.drops_refunds = true;
        Ok(change)
    }

    fn end_voided(self, now: Timestamp) -> Result<Change, Illegal> {
        let mut change = self.go(ENDED, State::Voided, now)?.telling(News::Voided);
        change.drops_refunds = true;
        Ok(change)
    }

    fn contradiction(&self, said: &'static str) -> Illegal {
        let from = self.status();
        Illegal::Contradiction { from, said }
    }

    fn refund_rest(
        self,
        what: &'static str,
        taken: Taken,
        now: Timestamp,
    ) -> Result<Change, Illegal> {
        let rest = taken.left();
        if rest == 0 && what == REFUND {
            return Ok(self.stay());
        }
        let refund = Refund {
            // The version tells this attempt from one that the provider refused.
            id: RequestId::derive(&["void", &self.id.to_string(), &self.version.to_string()])
                .makes(),
            amount: rest,
            reason: "payment undone".to_owned(),
        };
        let taken = Taken {
            refunding: taken.refunding + rest,
            ..taken
        };
        let mut change = self.go(what, State::RefundPending(taken), now)?;
        change.refund = (rest > 0).then_some(refund);
        Ok(change)
    }

    fn stay(self) -> Change {
        Change {
            payment: self,
            news: Vec::new(),
            refund: None,
            drops_refunds: false,
        }
    }

    /// The one way from one state to another.
    fn go(self, what: &'static str, state: State, now: Timestamp) -> Result<Change, Illegal> {
        let from = self.status();
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
            version: self.version + 1,
            checks: 0,
            next_check_at,
            ..self
        };
        Ok(payment.stay())
    }
}

impl Change {
    fn telling(mut self, news: News) -> Self {
        self.news.push(news);
        self.payment.told += 1;
        self
    }
}

impl Taken {
    /// What nobody has been promised back yet.
    pub(crate) fn left(self) -> i64 {
        self.captured - self.refunded - self.refunding
    }

    fn promise(self, amount: i64) -> Result<Self, Illegal> {
        if amount > self.left() {
            return Err(Illegal::RefundExceedsCaptured {
                asked: amount,
                captured: self.captured,
                refunded: self.refunded + self.refunding,
            });
        }
        Ok(Self {
            refunding: self.refunding + amount,
            ..self
        })
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

impl MethodKind {
    /// The word that the API and the database use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Card => "card",
            Self::Konbini => "konbini",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Card, Self::Konbini]
            .into_iter()
            .find(|kind| kind.as_str() == text)
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

/// Whether a text holds what may be a card number: 13 to 19 digits, perhaps grouped, with a right check digit.
///
/// We never take one, in any field: who has no card numbers cannot lose them.
pub(crate) fn holds_card_number(text: &str) -> bool {
    let mut digits: Vec<u8> = Vec::new();
    let mut grouped = text.bytes().chain([b'.']);
    grouped.any(|byte| match byte {
        b'0'..=b'9' => {
            digits.push(byte - b'0');
            false
        }
        b' ' | b'-' => false,
        _ => {
            let found = runs_hold_card_number(&digits);
            digits.clear();
            found
        }
    })
}

const CARD_NUMBER_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

fn runs_hold_card_number(digits: &[u8]) -> bool {
    CARD_NUMBER_DIGITS.contains(&digits.len()) && luhn(digits)
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &digit)| match u32::from(digit) {
            digit if place % 2 == 0 => digit,
            digit if digit > 4 => 2 * digit - 9,
            digit => 2 * digit,
        })
        .sum();
    sum.is_multiple_of(10)
}

fn later(now: Timestamp, secs: i64) -> Timestamp {
    now.checked_add(SignedDuration::from_secs(secs))
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const AMOUNT: i64 = 1250;
    const PART: i64 = 500;

    fn now() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn payment(state: State) -> Payment {
        let purchase = format!("ord_{}", "0".repeat(26));
        let method = Method {
            kind: MethodKind::Card,
            token: "sandbox_ok".to_owned(),
        };
        Payment {
            state,
            ..Payment::new(
                Purchase::parse(&purchase).expect("a purchase"),
                Id::generate(),
                method,
                Money::new(AMOUNT, "JPY".parse().expect("a currency")),
                now(),
                now(),
            )
        }
    }

    fn taken(refunded: i64, refunding: i64) -> Taken {
        Taken {
            captured: AMOUNT,
            refunded,
            refunding,
        }
    }

    fn action() -> NextAction {
        NextAction::Redirect {
            url: "https://bank.example".to_owned(),
        }
    }

    fn failure(step: FailedStep) -> State {
        State::Failed(Failure {
            step,
            reason: "card_declined".to_owned(),
        })
    }

    /// Every state, with every sort of data it may carry.
    fn states() -> Vec<State> {
        vec![
            State::Processing,
            State::RequiresAction(action()),
            State::Authorized,
            State::Capturing { queued: 0 },
            State::Capturing { queued: PART },
            State::Voiding { queued: 0 },
            State::Voiding { queued: PART },
            State::Captured(taken(0, 0)),
            State::RefundPending(taken(0, PART)),
            State::RefundPending(taken(0, AMOUNT)),
            State::RefundPending(taken(PART, PART)),
            State::RefundPending(taken(PART, AMOUNT - PART)),
            State::RefundPending(taken(AMOUNT - PART, PART)),
            State::PartiallyRefunded(taken(PART, 0)),
            State::Refunded(taken(AMOUNT, 0)),
            failure(FailedStep::Authorize),
            failure(FailedStep::Capture),
            State::Voided,
            State::Expired,
        ]
    }

    fn truths() -> Vec<Truth> {
        vec![
            Truth::Pending,
            Truth::RequiresAction(action()),
            Truth::Authorized,
            Truth::Captured,
            Truth::Failed {
                reason: "card_declined".to_owned(),
            },
            Truth::Voided,
        ]
    }

    fn refund(amount: i64) -> Refund {
        Refund {
            id: Id::generate(),
            amount,
            reason: String::new(),
        }
    }

    type Input = Box<dyn Fn(Payment) -> Result<Change, Illegal>>;

    fn inputs() -> Vec<(String, Input)> {
        let mut inputs: Vec<(String, Input)> = vec![
            ("void".to_owned(), Box::new(|p: Payment| p.void(now()))),
            (
                "capture unknown".to_owned(),
                Box::new(|p: Payment| p.capture_unknown(now())),
            ),
        ];
        for amount in [PART, AMOUNT] {
            inputs.push((
                format!("refund {amount}"),
                Box::new(move |p: Payment| p.refund(refund(amount), now())),
            ));
            for truth in [
                RefundTruth::Done,
                RefundTruth::Refused {
                    reason: "no".to_owned(),
                },
            ] {
                inputs.push((
                    format!("refund of {amount} {truth:?}"),
                    Box::new(move |p: Payment| match p.state {
                        // Only what was promised back can be over.
                        State::RefundPending(taken) if taken.refunding < amount => Ok(p.stay()),
                        _ => p.settle_refund(amount, &truth, now()),
                    }),
                ));
            }
        }
        for truth in truths() {
            inputs.push((
                format!("{truth:?}"),
                Box::new(move |p: Payment| p.learn(truth.clone(), now())),
            ));
        }
        inputs
    }

    #[test]
    fn the_machine_makes_all_the_moves_of_the_table_and_no_other() {
        let table: HashSet<(Status, Status)> =
            MOVES.iter().map(|(from, _, to)| (*from, *to)).collect();
        let mut made = HashSet::new();
        for state in states() {
            for (name, input) in inputs() {
                let before = payment(state.clone());
                let Ok(change) = input(before.clone()) else {
                    continue;
                };
                if change.payment == before {
                    continue;
                }
                let step = (before.status(), change.payment.status());
                assert!(table.contains(&step), "{name}: {step:?}");
                assert_eq!(change.payment.version, before.version + 1, "{name}");
                made.insert(step);
            }
        }
        let dead: Vec<_> = table.difference(&made).collect();
        assert!(dead.is_empty(), "moves that nothing makes: {dead:?}");
    }

    #[test]
    fn what_the_provider_says_is_always_taken_in_unless_it_contradicts_money_taken() {
        for state in states() {
            for truth in truths() {
                let learned = payment(state.clone()).learn(truth.clone(), now());
                let contradicts = payment(state.clone()).taken().captured > 0
                    && matches!(truth, Truth::Failed { .. } | Truth::Voided);
                match learned {
                    Ok(change) => {
                        assert!(!contradicts, "{state:?} {truth:?}");
                        let again = change.payment.clone().learn(truth.clone(), now());
                        let again = again.expect("what was true is true");
                        assert!(again.news.is_empty(), "{state:?} {truth:?} told twice");
                    }
                    Err(illegal) => {
                        assert!(contradicts, "{state:?} {truth:?}: {illegal}");
                        assert!(matches!(illegal, Illegal::Contradiction { .. }));
                    }
                }
            }
        }
    }

    #[test]
    fn every_illegal_command_is_refused_by_name() {
        for state in states() {
            let status = payment(state.clone()).status();
            let capture = payment(state.clone()).wants_capture();
            let may_capture = match &state {
                State::Failed(failure) => failure.step == FailedStep::Capture,
                _ => !matches!(
                    status,
                    Status::Processing
                        | Status::RequiresAction
                        | Status::Voiding
                        | Status::Voided
                        | Status::Expired
                ),
            };
            assert_eq!(capture.is_ok(), may_capture, "capture of {state:?}");

            let refunded = payment(state.clone()).refund(refund(1), now());
            let may_refund = payment(state.clone()).taken().left() > 0
                || matches!(state, State::Capturing { .. });
            assert_eq!(refunded.is_ok(), may_refund, "refund of {state:?}");

            let settled = payment(state.clone()).settle_refund(1, &RefundTruth::Done, now());
            assert_eq!(
                settled.is_ok(),
                status == Status::RefundPending,
                "{state:?}"
            );

            // Undoing is never refused, and undoing twice is undoing once.
            let undone = payment(state.clone()).void(now()).expect("always");
            let again = undone.payment.clone().void(now()).expect("always");
            assert_eq!(again.payment, undone.payment, "{state:?}");
            assert_eq!(again.refund, None, "{state:?}");
        }
        assert!(matches!(
            payment(State::Captured(taken(0, 0))).refund(refund(0), now()),
            Err(Illegal::RefundAmount(0))
        ));
    }

    #[test]
    fn what_is_promised_back_never_exceeds_what_was_captured() {
        for state in states() {
            let before = payment(state.clone());
            let left = before.taken().left();
            if before.taken().captured > 0 {
                let refused = before.refund(refund(left + 1), now());
                assert!(
                    matches!(refused, Err(Illegal::RefundExceedsCaptured { .. })),
                    "{state:?}"
                );
            }
        }
        let queued = payment(State::Capturing { queued: PART });
        assert!(queued.refund(refund(AMOUNT - PART + 1), now()).is_err());
    }

    #[test]
    fn card_numbers_are_found_however_they_are_grouped() {
        for text in [
            "4242424242424242",
            "4242 4242 4242 4242",
            "card 4242-4242-4242-4242.",
            "378282246310005",
        ] {
            assert!(holds_card_number(text), "{text}");
        }
        for text in [
            "",
            "sandbox_ok",
            "4242424242424241",
            "424242424242",
            "00000000000000000000",
            "pay_01jd0000000000000000000000",
        ] {
            assert!(!holds_card_number(text), "{text}");
        }
    }

    #[test]
    fn questions_come_after_one_two_four_seconds_and_then_no_rarer_than_the_bound() {
        let pauses: Vec<i64> = (0..8)
            .map(|checks| Payment::look_again_at(checks, now()).as_second())
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn the_readme_shows_the_machine_as_it_is() {
        let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
        holdfast_testkit::assert_states_drawn(readme, &Status::Processing, MOVES);
    }
}
