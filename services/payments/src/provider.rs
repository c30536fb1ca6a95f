//! What we ask of whoever moves the money: the sandbox today, Stripe next.

use std::{fmt, sync::Arc};

use holdfast_kernel::{Id, Money, Timestamp, id};

pub use crate::domain::{Method, MethodKind, NextAction, RefundTruth, Truth};

/// Moves money, and keeps its own book of it.
///
/// Every question is about one payment, whose id is the idempotency key (with the refund's id for a refund): asking
/// twice is asking once, and the answer is how things stand now. A provider gives up by itself when an answer takes
/// too long. It is never called inside a transaction.
#[tonic::async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Its name in our tables.
    fn name(&self) -> &'static str;

    /// Whether this method could be charged, and what it can do.
    async fn validate(&self, method: &Method) -> Result<MethodCheck, Unknown>;

    /// Reserves the money, or says what the customer has to do first.
    async fn authorize(&self, ask: &Ask) -> Result<Charge, Unknown>;

    /// Takes the reserved money.
    async fn capture(&self, ask: &Ask) -> Result<Charge, Unknown>;

    /// Ends a payment whose money was not taken. One never seen is ended too: an authorization that arrives later is
    /// refused. One under way, or whose money was taken, stays as it is.
    async fn void(&self, ask: &Ask) -> Result<Charge, Unknown>;

    /// Gives some of the money back.
    async fn refund(
        &self,
        ask: &Ask,
        refund: Id<id::Refund>,
        amount: Money,
    ) -> Result<RefundTruth, Unknown>;

    /// How a payment stands; `None` when the provider never saw it.
    async fn look(&self, payment: Id<id::Payment>) -> Result<Option<Charge>, Unknown>;

    /// The charges made in `[from, until)` behind `after` in order of time and id, at most `limit`.
    async fn made_between(
        &self,
        from: Timestamp,
        until: Timestamp,
        after: Option<(Timestamp, Id<id::Payment>)>,
        limit: i64,
    ) -> Result<Vec<Charge>, Unknown>;
}

/// All that a provider needs to know of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Names the payment, and is the idempotency key.
    pub payment: Id<id::Payment>,
    /// How it is paid.
    pub method: Method,
    /// How much.
    pub amount: Money,
    /// Until when the customer may act.
    pub expires_at: Timestamp,
}

/// A payment as the provider has it in its book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// What was asked for.
    pub ask: Ask,
    /// How it stands.
    pub truth: Truth,
    /// How much was given back.
    pub refunded: Money,
    /// When the provider first saw it.
    pub created_at: Timestamp,
}

/// What a method is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodCheck {
    /// It cannot be charged.
    Invalid,
    /// Money is reserved first and taken later.
    CanAuthorize,
    /// Money is taken at once; a refund undoes it.
    CapturesAtOnce,
}

/// The provider did not answer: it may have done what it was asked, or not.
#[derive(Debug)]
pub struct Unknown(String);

/// Asks a provider about money only: a payment of none is at once what it is asked to be.
pub(crate) struct MoneyOnly(pub(crate) Arc<dyn Provider>);

/// What there is to say of a payment of no money.
fn of_no_money(ask: &Ask, truth: Truth) -> Option<Charge> {
    (ask.amount.amount == 0).then(|| Charge {
        ask: ask.clone(),
        truth,
        refunded: ask.amount,
        created_at: Timestamp::UNIX_EPOCH,
    })
}

#[tonic::async_trait]
impl Provider for MoneyOnly {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    async fn validate(&self, method: &Method) -> Result<MethodCheck, Unknown> {
        self.0.validate(method).await
    }

    async fn authorize(&self, ask: &Ask) -> Result<Charge, Unknown> {
        match of_no_money(ask, Truth::Authorized) {
            Some(charge) => Ok(charge),
            None => self.0.authorize(ask).await,
        }
    }

    async fn capture(&self, ask: &Ask) -> Result<Charge, Unknown> {
        match of_no_money(ask, Truth::Captured) {
            Some(charge) => Ok(charge),
            None => self.0.capture(ask).await,
        }
    }

    async fn void(&self, ask: &Ask) -> Result<Charge, Unknown> {
        match of_no_money(ask, Truth::Voided) {
            Some(charge) => Ok(charge),
            None => self.0.void(ask).await,
        }
    }

    async fn refund(
        &self,
        ask: &Ask,
        refund: Id<id::Refund>,
        amount: Money,
    ) -> Result<RefundTruth, Unknown> {
        self.0.refund(ask, refund, amount).await
    }

    async fn look(&self, payment: Id<id::Payment>) -> Result<Option<Charge>, Unknown> {
        self.0.look(payment).await
    }

    async fn made_between(
        &self,
        from: Timestamp,
        until: Timestamp,
        after: Option<(Timestamp, Id<id::Payment>)>,
        limit: i64,
    ) -> Result<Vec<Charge>, Unknown> {
        self.0.made_between(from, until, after, limit).await
    }
}

impl Unknown {
    /// No answer, for this reason; the reason is for the log.
    pub fn because(reason: impl fmt::Display) -> Self {
        Self(reason.to_string())
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the payment provider did not answer: {}", self.0)
    }
}

impl std::error::Error for Unknown {}
