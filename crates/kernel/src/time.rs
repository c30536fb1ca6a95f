//! Time is an argument: whoever needs "now" is handed a [`Clock`].

use std::sync::Arc;

pub use jiff::Timestamp;

/// Tells what time it is.
///
/// Two clocks exist: the machine's, and one that tests turn by hand.
pub trait Clock: Send + Sync + 'static {
    /// The present moment, UTC.
    fn now(&self) -> Timestamp;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

/// The moment as PostgreSQL keeps it: whole microseconds, rounded down, so that what is written equals what is read.
pub fn to_micros(moment: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(moment.as_microsecond()).expect("it was a moment before")
}
