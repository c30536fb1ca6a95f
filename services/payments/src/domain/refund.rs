//! Giving money back: promised first, settled when the provider has said what came of it.

use holdfast_kernel::{RequestId, Timestamp};

use super::{
    Change, GIVEN_BACK, Illegal, NOT_GIVEN_BACK, News, Payment, REFUND, Refund, RefundTruth, State,
    Taken,
};

impl Payment {
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

    /// Gives back whatever is not promised back yet.
    pub(super) fn refund_rest(
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
}

impl Taken {
    /// What nobody has been promised back yet.
    pub(crate) fn left(self) -> i64 {
        self.captured - self.refunded - self.refunding
    }

    pub(super) fn promise(self, amount: i64) -> Result<Self, Illegal> {
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
