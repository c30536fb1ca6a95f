//! When a call has to be over, and how that is told to the callee and to the calls it makes in turn.

use std::{future::Future, time::Duration};

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;
use tonic::Status;

/// How long a call may take when its caller does not say.
pub const DEADLINE_DEFAULT_SECS: u64 = 2;

/// How much earlier than asked a callee gives up.
///
/// The TCP server has a timer of its own, which answers `Cancelled`; ours has to fire first, and timers are exact to
/// one millisecond.
const CALLEE_LEAD: Duration = Duration::from_millis(2);

/// The longest wait the header can name in milliseconds: eight digits.
const HEADER_MAX_DIGITS_VALUE: u128 = 99_999_999;

const GRPC_TIMEOUT: &str = "grpc-timeout";

tokio::task_local! {
    /// The deadline of the call being served on this task.
    static SERVING: Option<Instant>;
}

/// Marks a request whose answer is a stream without a natural end, so that no default deadline cuts it.
#[derive(Clone, Copy)]
struct OpenEnded;

/// Wraps a request for a stream that lasts until either side ends it, such as a watch.
///
/// It gets no deadline, neither the default one nor what remains of the call being served.
pub fn open_ended<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.extensions_mut().insert(OpenEnded);
    request
}

/// Lets a request that is passed on as it came last as long as its caller lets it: without a deadline it gets none.
pub fn keep_open<B>(request: &mut http::Request<B>) {
    request.extensions_mut().insert(OpenEnded);
}

/// Decides when an outgoing call has to be over: what its caller set, else the default, but never later than the call
/// being served. `None` is an open-ended call.
pub(super) fn of_outgoing<B>(request: &http::Request<B>, now: Instant) -> Option<Instant> {
    let asked = parse(request.headers());
    if asked.is_none() && request.extensions().get::<OpenEnded>().is_some() {
        return None;
    }
    // One so far away that the clock cannot name it is none.
    let own = now.checked_add(asked.unwrap_or(Duration::from_secs(DEADLINE_DEFAULT_SECS)));
    let inherited = SERVING.try_with(|deadline| *deadline).ok().flatten();
    [own, inherited].into_iter().flatten().min()
}

/// Reads from an incoming call when it has to be over.
pub(super) fn of_incoming(headers: &HeaderMap, now: Instant) -> Option<Instant> {
    now.checked_add(parse(headers)?.saturating_sub(CALLEE_LEAD))
}

/// Says whether an incoming call has a deadline.
pub(super) fn is_set(headers: &HeaderMap) -> bool {
    parse(headers).is_some()
}

/// Tells the callee how much time is left.
pub(super) fn announce(deadline: Option<Instant>, now: Instant, headers: &mut HeaderMap) {
    match deadline {
        None => headers.remove(GRPC_TIMEOUT),
        Some(deadline) => headers.insert(
            GRPC_TIMEOUT,
            format(deadline.saturating_duration_since(now)),
        ),
    };
}

/// Awaits `work` until `deadline`, then drops it.
pub(super) async fn within<F: Future>(
    deadline: Option<Instant>,
    work: F,
) -> Result<F::Output, Status> {
    match deadline {
        None => Ok(work.await),
        Some(deadline) => tokio::time::timeout_at(deadline, work)
            .await
            .map_err(|_| passed()),
    }
}

/// Ends when `deadline` passes.
pub(super) async fn elapsed(deadline: Instant) -> Status {
    tokio::time::sleep_until(deadline).await;
    passed()
}

/// Runs `work` as the serving of a call with this deadline; the calls it makes end no later.
pub(super) fn serving<F: Future>(
    deadline: Option<Instant>,
    work: F,
) -> impl Future<Output = F::Output> {
    SERVING.scope(deadline, work)
}

/// The same for a step that is not a future.
pub(super) fn serving_step<R>(deadline: Option<Instant>, step: impl FnOnce() -> R) -> R {
    SERVING.sync_scope(deadline, step)
}

/// What a caller is told when the deadline passed, whichever side noticed first.
pub(super) fn passed() -> Status {
    Status::deadline_exceeded("the deadline of the call has passed")
}

/// Reads `grpc-timeout`: up to eight digits and a unit. One that cannot be read is no deadline, as in tonic.
fn parse(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Writes `grpc-timeout` in the finest unit that its eight digits allow.
fn format(wait: Duration) -> HeaderValue {
    let text = if wait.as_micros() <= HEADER_MAX_DIGITS_VALUE {
        format!("{}u", wait.as_micros())
    } else if wait.as_millis() <= HEADER_MAX_DIGITS_VALUE {
        format!("{}m", wait.as_millis())
    } else {
        let secs = u128::from(wait.as_secs());
        format!("{}S", secs.min(HEADER_MAX_DIGITS_VALUE))
    };
    HeaderValue::from_str(&text).expect("digits and a letter are a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_TIMEOUT, HeaderValue::from_str(text).expect("a value"));
        headers
    }

    #[test]
    fn every_unit_of_the_header_is_read() {
        for (text, millis) in [
            ("2H", 7_200_000),
            ("3M", 180_000),
            ("4S", 4_000),
            ("5m", 5),
            ("6000u", 6),
            ("7000000n", 7),
        ] {
            assert_eq!(
                parse(&headers(text)),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        }
    }

    #[test]
    fn a_header_that_cannot_be_read_is_no_deadline() {
        for text in ["", "S", "5", "-5S", "+5S", "5s", "123456789m", "5.5S"] {
            assert_eq!(parse(&headers(text)), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_back_to_the_precision_of_its_size() {
        for wait in [
            Duration::ZERO,
            Duration::from_micros(1),
            Duration::from_secs(99),
            Duration::from_secs(99_999),
            Duration::from_secs(99_999_999),
        ] {
            let mut written = HeaderMap::new();
            written.insert(GRPC_TIMEOUT, format(wait));
            assert_eq!(parse(&written), Some(wait));
        }
    }

    #[tokio::test]
    async fn an_inner_call_never_outlasts_the_call_being_served() {
        let now = Instant::now();
        let outer = now + Duration::from_millis(300);
        let inner = serving(Some(outer), async {
            of_outgoing(&http::Request::new(()), now)
        })
        .await;
        assert_eq!(inner, Some(outer));
    }

    #[tokio::test]
    async fn an_inner_call_may_ask_for_less_than_what_remains() {
        let now = Instant::now();
        let mut request = http::Request::new(());
        *request.headers_mut() = headers("100m");
        let inner = serving(Some(now + Duration::from_secs(5)), async {
            of_outgoing(&request, now)
        })
        .await;
        assert_eq!(inner, Some(now + Duration::from_millis(100)));
    }

    #[test]
    fn a_call_without_a_deadline_gets_the_default_one() {
        let now = Instant::now();
        assert_eq!(
            of_outgoing(&http::Request::new(()), now),
            Some(now + Duration::from_secs(DEADLINE_DEFAULT_SECS))
        );
    }

    #[tokio::test]
    async fn an_open_ended_call_has_no_deadline_even_inside_a_call_that_has() {
        let now = Instant::now();
        let mut request = http::Request::new(());
        request.extensions_mut().insert(OpenEnded);
        let outer = Some(now + Duration::from_secs(1));
        let inner = serving(outer, async { of_outgoing(&request, now) }).await;
        assert_eq!(inner, None);
    }
}
