//! A subscription, what it asks for, and what becomes of a delivery after a try.

use std::time::Duration;

use holdfast_kernel::{Id, Timestamp, id};

/// The type that is only told to who asks for it by its full name: stock moves with every sale.
pub(crate) const BY_NAME_ONLY: &str = "stock.updated";

const EVERYTHING: &str = "*";
const ALL_OF_A_SORT: &str = ".*";

/// Who outside is told of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) id: Id<id::Webhook>,
    pub(crate) url: String,
    /// As they were asked for.
    pub(crate) types: Vec<String>,
    pub(crate) description: String,
    pub(crate) status: Status,
    /// Since when nothing has come through.
    pub(crate) failing_since: Option<Timestamp>,
    pub(crate) created_at: Timestamp,
}

/// Whether anything is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Active,
    Disabled(Reason),
    /// Only its request's key is still known.
    Deleted,
}

/// Why a subscription is disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The receiver said that it is gone for good (410).
    Gone,
    /// Nothing has come through for too long.
    Failing,
}

/// What a try came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The receiver answered.
    Answered {
        status: u16,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// It did not.
    Failed(Failure),
}

/// Why there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Not within the time of a try.
    Timeout,
    /// The name has no address, or nobody could tell.
    Dns,
    /// The address is none that anything is sent to.
    AddressRefused,
    /// Nobody listens there.
    Connect,
    /// The other side could not prove its name, or does not speak TLS.
    Tls,
    /// The connection broke, or what came was no HTTP.
    Broken,
    /// No secret could be opened to sign with, so nothing was sent.
    Unsigned,
}

/// What becomes of a delivery after a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Delivered,
    /// Tried again after that long.
    Again(Duration),
    /// Not tried again by itself.
    Dead,
    /// Nor is anything else sent there.
    Gone,
}

/// When failed tries are repeated, and when we give up.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    /// The wait after the first failure, after the second …
    pub(crate) waits: Vec<Duration>,
    /// How long nothing may come through before the subscription is disabled.
    pub(crate) patience: Duration,
}

/// Longest wait that a receiver may ask for, in hours.
pub(crate) const RETRY_AFTER_MAX_HOURS: u64 = 24;
const GONE: u16 = 410;

impl Schedule {
    /// What becomes of a delivery that had failed `failures` times when this try was begun; `random` is from 0 to 1.
    ///
    /// Each wait is drawn from half to one and a half of the schedule's, so that what failed together does not come
    /// back together, and a receiver that was away for a day still gets what it missed. A receiver may ask for a longer
    /// one.
    pub(crate) fn next(&self, outcome: Outcome, failures: usize, random: f64) -> Next {
        let asked = match outcome {
            Outcome::Answered { status, .. } if (200..300).contains(&status) => {
                return Next::Delivered;
            }
            Outcome::Answered { status: GONE, .. } => return Next::Gone,
            Outcome::Answered { retry_after, .. } => retry_after.unwrap_or_default(),
            Outcome::Failed(_) => Duration::ZERO,
        };
        match self.waits.get(failures) {
            None => Next::Dead,
            Some(wait) => {
                let drawn = wait.mul_f64(0.5 + random.clamp(0.0, 1.0));
                let most = Duration::from_hours(RETRY_AFTER_MAX_HOURS);
                Next::Again(drawn.max(asked.min(most)))
            }
        }
    }

    /// Whether a subscription is given up that has been failing since then.
    pub(crate) fn gives_up(&self, failing_since: Timestamp, now: Timestamp) -> bool {
        let failing = now.duration_since(failing_since);
        failing.unsigned_abs() >= self.patience && !failing.is_negative()
    }
}

/// The types among `known` that these wishes ask for, or the wishes that ask for none, by their places.
pub(crate) fn granted<'a>(
    wishes: &[String],
    known: &[&'a str],
) -> Result<Vec<&'a str>, Vec<(usize, String)>> {
    let grants = |wish: &str, kind: &str| asked_by(kind).iter().any(|asked| asked == wish);
    let unknown: Vec<(usize, String)> = (wishes.iter().cloned().enumerate())
        .filter(|(_, wish)| !known.iter().any(|kind| grants(wish, kind)))
        .collect();
    if !unknown.is_empty() {
        return Err(unknown);
    }
    Ok(known
        .iter()
        .copied()
        .filter(|kind| wishes.iter().any(|wish| grants(wish, kind)))
        .collect())
}

/// Everything a subscription may have asked for to be told of a message of this type.
pub(crate) fn asked_by(kind: &str) -> Vec<String> {
    let name = kind.to_owned();
    if kind == BY_NAME_ONLY {
        return vec![name];
    }
    let sort = kind.split('.').next().unwrap_or_default();
    vec![
        name,
        format!("{sort}{ALL_OF_A_SORT}"),
        EVERYTHING.to_owned(),
    ]
}

impl Status {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled(_) => "disabled",
            Self::Deleted => "deleted",
        }
    }

    /// The status that these columns hold.
    pub(crate) fn read(status: &str, reason: Option<&str>) -> Option<Self> {
        match (status, reason) {
            ("active", None) => Some(Self::Active),
            ("disabled", Some(reason)) => Reason::parse(reason).map(Self::Disabled),
            ("deleted", None) => Some(Self::Deleted),
            _ => None,
        }
    }

    pub(crate) const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Disabled(reason) => Some(reason.as_str()),
            Self::Active | Self::Deleted => None,
        }
    }
}

impl Reason {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Failing => "failing",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Gone, Self::Failing]
            .into_iter()
            .find(|reason| reason.as_str() == text)
    }
}

impl Failure {
    /// The word that the API uses.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Dns => "dns",
            Self::AddressRefused => "address_refused",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Broken => "broken",
            Self::Unsigned => "unsigned",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] = ["order.created", "order.paid", "stock.low", "stock.updated"];

    fn schedule() -> Schedule {
        Schedule {
            waits: [5, 300].map(Duration::from_secs).into(),
            patience: Duration::from_hours(120),
        }
    }

    fn answered(status: u16, retry_after_secs: Option<u64>) -> Outcome {
        Outcome::Answered {
            status,
            retry_after: retry_after_secs.map(Duration::from_secs),
        }
    }

    #[test]
    fn wishes_grant_what_they_name_and_stock_only_by_its_full_name() {
        for (wishes, wanted) in [
            (vec!["order.paid"], vec!["order.paid"]),
            (vec!["order.*"], vec!["order.created", "order.paid"]),
            (vec!["stock.*"], vec!["stock.low"]),
            (vec!["*"], vec!["order.created", "order.paid", "stock.low"]),
            (
                vec!["stock.updated", "order.paid", "order.paid"],
                vec!["order.paid", "stock.updated"],
            ),
            (vec![], vec![]),
        ] {
            let wishes: Vec<String> = wishes.into_iter().map(ToOwned::to_owned).collect();
            assert_eq!(granted(&wishes, &KNOWN), Ok(wanted), "{wishes:?}");
        }
    }

    #[test]
    fn wishes_that_grant_nothing_are_all_named() {
        let wishes: Vec<String> = [
            "order.paid",
            "order.no-such",
            "orders.*",
            "ORDER.PAID",
            "order*",
            "",
            "**",
        ]
        .map(ToOwned::to_owned)
        .into();
        assert_eq!(
            granted(&wishes, &KNOWN),
            Err(wishes.iter().cloned().enumerate().skip(1).collect())
        );
    }

    #[test]
    fn a_try_ends_a_delivery_or_waits_as_the_schedule_or_the_receiver_says() {
        let again = |millis| Next::Again(Duration::from_millis(millis));
        let day = RETRY_AFTER_MAX_HOURS * 3_600_000;
        for (outcome, failures, random, wanted) in [
            (answered(200, None), 0, 0.5, Next::Delivered),
            (answered(204, None), 9, 0.5, Next::Delivered),
            (answered(410, None), 0, 0.5, Next::Gone),
            (answered(500, None), 0, 0.0, again(2_500)),
            (answered(500, None), 0, 0.5, again(5_000)),
            (answered(500, None), 0, 1.0, again(7_500)),
            (answered(302, None), 1, 0.5, again(300_000)),
            (answered(404, None), 2, 0.5, Next::Dead),
            (answered(429, Some(60)), 0, 0.5, again(60_000)),
            (answered(503, Some(60)), 1, 0.5, again(300_000)),
            (answered(429, Some(u64::MAX)), 0, 0.5, again(day)),
            (answered(429, Some(60)), 2, 0.5, Next::Dead),
            (Outcome::Failed(Failure::Dns), 0, 0.5, again(5_000)),
            (Outcome::Failed(Failure::AddressRefused), 2, 0.5, Next::Dead),
        ] {
            let next = schedule().next(outcome, failures, random);
            assert_eq!(next, wanted, "{outcome:?} after {failures} with {random}");
        }
    }

    #[test]
    fn a_subscription_is_given_up_after_its_time_and_not_before() {
        let since = Timestamp::UNIX_EPOCH;
        let after = |secs: i64| Timestamp::from_second(secs).expect("a moment");
        assert!(!schedule().gives_up(since, after(5 * 86_400 - 1)));
        assert!(schedule().gives_up(since, after(5 * 86_400)));
        assert!(!schedule().gives_up(since, after(-10 * 86_400)));
    }
}
