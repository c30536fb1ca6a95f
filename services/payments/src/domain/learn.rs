//! Taking in what the provider says: at any time, twice, late, and after we had given up.

use holdfast_kernel::Timestamp;

use super::{
    ACTION_NEEDED, AUTHORIZED, CAPTURED, Change, ENDED, FailedStep, Failure, Illegal, News,
    Payment, REFUSED, State, Taken, Truth, later,
};

/// How long the provider may take before we ask again, at first; twice that the next time, and so on.
pub(crate) const FIRST_CHECK_SECS: i64 = 1;
/// The longest pause between two questions.
pub(crate) const CHECK_MAX_SECS: i64 = 30;

impl Payment {
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
            // The points it used went back, and may be spent: a part of a purchase is not sold.
            State::Failed(_) | State::Expired if self.points.all > 0 => {
                self.go(AUTHORIZED, State::Voiding { queued: 0 }, now)
            }
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
            State::Capturing { queued } => {
                let resting = State::resting(all.promise(queued)?, self.points);
                Ok(self.go(CAPTURED, resting, now)?.telling(News::Captured))
            }
            State::Failed(_) | State::Expired if self.points.all > 0 => {
                self.refund_rest(CAPTURED, all, now)
            }
            State::Processing
            | State::RequiresAction(_)
            | State::Authorized
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

    fn contradiction(&self, said: &'static str) -> Illegal {
        let from = self.status();
        Illegal::Contradiction { from, said }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_come_after_one_two_four_seconds_and_then_no_rarer_than_the_bound() {
        let pauses: Vec<i64> = (0..8)
            .map(|checks| Payment::look_again_at(checks, Timestamp::UNIX_EPOCH).as_second())
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
    }
}
