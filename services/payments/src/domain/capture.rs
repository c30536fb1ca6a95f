//! Taking the money that was authorized.

use holdfast_kernel::Timestamp;

use super::{Change, FailedStep, Failure, Illegal, Payment, State, UNKNOWN};

impl Payment {
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
}
