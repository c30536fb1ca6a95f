//! Values on the wire: how the contracts' time stamps and durations are read and written.

use std::time::Duration;

use holdfast_kernel::Timestamp;

/// A moment as the contracts write it.
pub fn timestamp(moment: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: moment.as_second(),
        nanos: moment.subsec_nanosecond(),
    }
}

/// The moment that was written, unless none was or it lies outside the calendar.
pub fn moment(timestamp: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    let timestamp = timestamp?;
    Timestamp::new(timestamp.seconds, timestamp.nanos).ok()
}

/// A length of time as the contracts write it.
pub fn duration(length: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
        nanos: length.subsec_nanos() as i32,
    }
}

/// The length that was written, unless none was or it is negative.
pub fn length(duration: Option<&prost_types::Duration>) -> Option<Duration> {
    (*duration?).try_into().ok()
}
