//! Giving money back: promised first, settled when the provider has said what came of it.

use holdfast_kernel::{RequestId, Timestamp};

use super::{
    Change, GIVEN_BACK, Illegal, NOT_GIVEN_BACK, News, Payment, REFUND, Refund, RefundTruth, State,
    Taken, Used,
};

impl Payment {
    /// Begins to give money back; while the capture is unknown the refund waits for it.
    pub(crate) fn refund(self, refund: Refund, now: Timestamp) -> Result<Change, Illegal> {
        if refund.amount < 0 || refund.points < 0 || (refund.amount, refund.points) == (0, 0) {
            return Err(Illegal::RefundAmount(refund.amount));
        }
        let points = (self.points.giving_back(refund.points)).ok_or_else(|| {
            Illegal::RefundExceedsPoints {
                asked: refund.points,
                left: self.points.out(),
            }
        })?;
        let mut change = match self.state {
            State::Capturing { queued } => {
                let promised = Taken {
                    captured: self.amount.amount,
                    refunded: 0,
                    refunding: queued,
                };
                let queued = promised.promise(refund.amount)?.refunding;
                self.go_giving_back(REFUND, State::Capturing { queued }, points, now)
            }
            State::Captured(taken)
            | State::PartiallyRefunded(taken)
            | State::RefundPending(taken)
            | State::Refunded(taken) => {
                let taken = taken.promise(refund.amount)?;
                self.go_giving_back(REFUND, State::resting(taken, points), points, now)
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
        Ok(change.telling_what_is_back())
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
        let state = State::resting(taken, self.points);
        let news = match (truth, &state) {
            (RefundTruth::Refused { .. }, _) => News::RefundFailed,
            (_, State::Refunded(_)) => News::Refunded,
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
        let points = self.points.given_back();
        if rest == 0 && what == REFUND && points == self.points {
            return Ok(self.stay());
        }
        let refund = Refund {
            // The version tells this attempt from one that the provider refused.
            id: RequestId::derive(&["void", &self.id.to_string(), &self.version.to_string()])
                .makes(),
            amount: rest,
            points: self.points.out(),
            reason: "payment undone".to_owned(),
        };
        let taken = Taken {
            refunding: taken.refunding + rest,
            ..taken
        };
        let mut change = self.go_giving_back(what, State::resting(taken, points), points, now)?;
        change.refund = (rest > 0).then_some(refund);
        Ok(change.telling_what_is_back())
    }
}

impl State {
    /// How a captured payment stands of which so much is on its way back, or back.
    pub(super) fn resting(taken: Taken, points: Used) -> Self {
        if taken.refunding > 0 {
            Self::RefundPending(taken)
        } else if taken.refunded == taken.captured && points.out() == 0 {
            Self::Refunded(taken)
        } else if taken.refunded > 0 || points.back > 0 {
            Self::PartiallyRefunded(taken)
        } else {
            Self::Captured(taken)
        }
    }
}

impl Change {
    /// Points are back at once; where no money is on its way, that is all there is to tell.
    fn telling_what_is_back(self) -> Self {
        match self.payment.state {
            State::Refunded(_) => self.telling(News::Refunded),
            State::PartiallyRefunded(_) => self.telling(News::PartiallyRefunded),
            _ => self,
        }
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
