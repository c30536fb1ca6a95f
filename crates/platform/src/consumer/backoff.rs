//! How long what failed rests before it is tried again.

use std::time::Duration;

/// Shortest wait before a halted partition is tried again, in milliseconds; it doubles.
pub const BACKOFF_MIN_MILLIS: u64 = 50;
/// Longest wait before a halted partition is tried again, in milliseconds.
pub const BACKOFF_MAX_MILLIS: u64 = 10_000;

/// How long to wait after the next failure.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(Duration::from_millis(BACKOFF_MIN_MILLIS))
    }
}

impl Backoff {
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (wait * 2).min(Duration::from_millis(BACKOFF_MAX_MILLIS));
        wait
    }
}
