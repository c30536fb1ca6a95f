//! Which request from outside set off the work at hand, as W3C Trace Context names it.
//!
//! The gateway begins a trace for each request, the one client type carries it in the metadata of calls, doors go on
//! with it, and what they announce bears it, so that whoever listens goes on with it too. Nothing is recorded but log
//! lines, which bear its id.

use std::{
    fmt,
    future::Future,
    num::{NonZeroU64, NonZeroU128},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use tracing::{Instrument, Span};

/// The header, metadata entry and message attribute that names a trace and a step of it.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A step of a trace: the trace, and who in it asks or works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    id: NonZeroU128,
    step: NonZeroU64,
    sampled: bool,
}

tokio::task_local! {
    /// The step being taken on this task.
    static CURRENT: Trace;
}

/// What the one version there is writes: `00`, 32, 16 and 2 hexadecimal digits, between dashes.
const LENGTH: usize = 55;
/// The flags' one bit with a meaning: somebody records this trace.
const SAMPLED: u8 = 1;

impl Trace {
    /// Begins a trace.
    pub fn begin() -> Self {
        Self {
            id: rand::random(),
            step: rand::random(),
            sampled: true,
        }
    }

    /// The next step of the trace that `headers` name; a trace of its own where they name none, two, or a malformed one.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let mut named = headers.get_all(TRACEPARENT).iter();
        let (first, more) = (named.next(), named.next());
        let text = first.filter(|_| more.is_none()).map(HeaderValue::to_str);
        Self::following(text.and_then(Result::ok))
    }

    /// The next step of the trace that a message bears; a trace of its own where it bears none, or a malformed one.
    pub fn following(traceparent: Option<&str>) -> Self {
        let Some(before) = traceparent.and_then(Self::parse) else {
            return Self::begin();
        };
        Self {
            step: rand::random(),
            ..before
        }
    }

    /// The step being taken on this task, if it is part of a trace.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|trace| *trace).ok()
    }

    /// Does `work` as this step: what it calls and announces is part of the trace. Log lines get the id from the span.
    pub fn scope<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, work)
    }

    /// The same for a step that is not a future.
    pub fn scope_sync<R>(self, step: impl FnOnce() -> R) -> R {
        CURRENT.sync_scope(self, step)
    }

    /// The trace's id alone, for log lines.
    pub fn id(self) -> impl fmt::Display {
        fmt::from_fn(move |f| write!(f, "{:032x}", self.id))
    }

    /// The step as a header's value.
    pub fn to_header(self) -> HeaderValue {
        HeaderValue::try_from(self.to_string()).expect("digits and dashes are ASCII")
    }

    /// Reads a step. Of later versions it takes what version 00 had, as the standard says.
    fn parse(text: &str) -> Option<Self> {
        let (known, more) = text.split_at_checked(LENGTH)?;
        let parts: Vec<&str> = known.split('-').collect();
        let [version, id, step, flags] = parts[..] else {
            return None;
        };
        let lengths = [version, id, step, flags].map(str::len);
        let is_lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let well_formed = lengths == [2, 32, 16, 2]
            && known.bytes().all(|byte| byte == b'-' || is_lower_hex(byte));
        let ends_well = match version {
            "ff" => false,
            "00" => more.is_empty(),
            _ => more.is_empty() || more.starts_with('-'),
        };
        if !well_formed || !ends_well {
            return None;
        }
        let flags = u8::from_str_radix(flags, 16).ok()?;
        Some(Self {
            id: u128::from_str_radix(id, 16).ok()?.try_into().ok()?,
            step: u64::from_str_radix(step, 16).ok()?.try_into().ok()?,
            sampled: flags & SAMPLED != 0,
        })
    }
}

/// `00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01`.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = if self.sampled { SAMPLED } else { 0 };
        write!(f, "00-{:032x}-{:016x}-{flags:02x}", self.id, self.step)
    }
}

/// Keeps spawned work a part of what spawned it: the same step, the same span of the log. Work that nothing set off
/// begins a trace.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let (trace, span) = if let Some(trace) = Trace::current() {
        (trace, Span::current())
    } else {
        let trace = Trace::begin();
        (trace, tracing::info_span!("work", trace_id = %trace.id()))
    };
    trace.scope(work.instrument(span))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_step_reads_back_as_it_was_written() {
        for text in [
            WRITTEN,
            "00-00000000000000000000000000000001-0000000000000001-00",
        ] {
            let step = Trace::parse(text).expect(text);
            assert_eq!(step.to_string(), text);
        }
        let begun = Trace::begin();
        assert_eq!(Trace::parse(&begun.to_string()), Some(begun));
    }

    #[test]
    fn what_the_standard_calls_malformed_begins_another_trace() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        for text in [
            String::new(),
            WRITTEN[..54].to_owned(),
            format!("{WRITTEN}-more"),
            format!("ff-{id}-b7ad6b7169203331-01"),
            format!("00-{}-b7ad6b7169203331-01", id.to_uppercase()),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            format!("00-{id}-0000000000000000-01"),
            format!("00-{id}-b7ad6b7169203331-0x"),
            format!("00-+{}-b7ad6b7169203331-01", &id[1..]),
            format!("00_{id}_b7ad6b7169203331_01"),
            format!("00-{id}b7-ad6b7169203331-01"),
            format!("01-{id}-b7ad6b7169203331-01.more"),
            format!("00-{id}-b7ad6b716920333é-1"),
        ] {
            assert_eq!(Trace::parse(&text), None, "{text:?}");
            assert_ne!(Trace::following(Some(&text)).id().to_string(), id);
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known_and_answered_in_ours() {
        let later = WRITTEN.replacen("00-", "01-", 1) + "-what-comes-then";
        let step = Trace::parse(&later).expect("a later version");
        assert_eq!(step.to_string(), WRITTEN);
    }

    #[test]
    fn the_next_step_is_another_of_the_same_trace() {
        let next = Trace::following(Some(WRITTEN));
        assert_eq!(next.id().to_string(), &WRITTEN[3..35]);
        assert_ne!(next.to_string(), WRITTEN);
        let not_recorded = Trace::following(Some(&WRITTEN.replace("-01", "-00")));
        assert!(not_recorded.to_string().ends_with("-00"));
    }

    #[test]
    fn two_headers_name_no_trace() {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_static(WRITTEN);
        headers.append(TRACEPARENT, value.clone());
        assert_eq!(
            Trace::from_headers(&headers).id().to_string(),
            &WRITTEN[3..35]
        );
        headers.append(TRACEPARENT, value);
        assert_ne!(
            Trace::from_headers(&headers).id().to_string(),
            &WRITTEN[3..35]
        );
    }

    #[tokio::test]
    async fn spawned_work_stays_in_the_trace_and_work_of_its_own_begins_one() {
        assert_eq!(Trace::current(), None);
        let step = Trace::begin();
        let inside = step
            .scope(async { tokio::spawn(carried(async { Trace::current() })).await })
            .await;
        assert_eq!(inside.expect("it ends"), Some(step));
        let outside = tokio::spawn(carried(async { Trace::current() })).await;
        assert!(outside.expect("it ends").is_some_and(|other| other != step));
    }
}
