//! Undoing a payment, whatever has become of it.

use holdfast_kernel::Timestamp;

use super::{Change, ENDED, Illegal, News, Payment, REFUND, State, VOID};

impl Payment {
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

    pub(super) fn end_voided(self, now: Timestamp) -> Result<Change, Illegal> {
        let mut change = self.go(ENDED, State::Voided, now)?.telling(News::Voided);
        change.drops_refunds = true;
        Ok(change)
    }
}
