//! A clock that stands still until a test turns it.

use std::sync::{Arc, Mutex, PoisonError};

use holdfast_kernel::{Clock, Timestamp};
use jiff::TimestampArithmetic;

/// Shows the moment a test set; its clones show the same.
#[derive(Debug, Clone)]
pub struct FakeClock(Arc<Mutex<Timestamp>>);

impl FakeClock {
    /// A clock that stands at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(now)))
    }

    /// Turns the clock on by a `SignedDuration`, a `Span` or a `std::time::Duration`; a negative one turns it back.
    pub fn advance(&self, by: impl Into<TimestampArithmetic>) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *now = now.checked_add(by).expect("tests stay within history");
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, ToSpan};

    use super::*;

    #[test]
    fn a_clock_moves_only_when_turned_and_its_clones_move_with_it() {
        let clock = FakeClock::new(Timestamp::UNIX_EPOCH);
        let seen_elsewhere = clock.clone();
        assert_eq!(clock.now(), Timestamp::UNIX_EPOCH);
        clock.advance(SignedDuration::from_secs(90));
        clock.advance(1.hour());
        clock.advance(SignedDuration::from_secs(-30));
        assert_eq!(seen_elsewhere.now().as_second(), 60 + 3600);
    }
}
