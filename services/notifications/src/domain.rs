//! What people are told of, and by which rules mail goes out.

use std::{num::NonZeroI64, time::Duration};

use holdfast_kernel::{Id, Money, Timestamp, id};
use serde::{Deserialize, Serialize};

/// News that a person is told. Each has its text in every language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Registered,
    AwaitingPayment,
    Confirmed,
    PaymentFailed,
    Expired,
    Cancelled,
    Shipped,
    Delivered,
    PartiallyRefunded,
    Refunded,
}

/// What a text may show: ids and amounts, nothing personal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Facts {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) order: Option<Id<id::Order>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) total: Option<Money>,
    /// In all until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refunded: Option<Money>,
    /// Paid with beside the total; none is none to speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) points_used: Option<NonZeroI64>,
    /// Earned by paying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) points_earned: Option<NonZeroI64>,
}

/// A piece of news for one person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct News {
    /// That of the message.
    pub(crate) id: Id<id::Notification>,
    pub(crate) user: Id<id::User>,
    pub(crate) kind: Kind,
    pub(crate) facts: Facts,
    pub(crate) happened_at: Timestamp,
}

/// A piece of news as it lies in a person's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notification {
    pub(crate) news: News,
    /// In which order people were told.
    pub(crate) seq: i64,
    pub(crate) read_at: Option<Timestamp>,
}

/// By which rules a mail is promised at all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// To one person in [`MAIL_WINDOW`].
    pub(crate) mails_max: i64,
    /// News that is older when it is first heard of is not mailed.
    pub(crate) age_max: Duration,
}

/// What became of a try to hand a mail over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The mail server, or the folder, has it.
    Sent,
    /// The person has no account any more, or an address that is none.
    NoAddress,
    /// A mail server said before that the address does not exist.
    Suppressed,
    /// The mail server says that the address does not exist.
    Bounced(String),
    /// The mail server will never take this mail.
    Refused(String),
    /// It may go later.
    Failed(String),
    /// It was not even tried, through no fault of the mail.
    PutOff(&'static str),
}

/// How a mail stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Waiting,
    Sent,
    NoAddress,
    Suppressed,
    Refused,
    Dead,
}

/// How a mail stands after a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) state: State,
    pub(crate) tries: i32,
    /// When it is tried again; none once it is over.
    pub(crate) due_at: Option<Timestamp>,
    /// For people; never an address.
    pub(crate) note: String,
}

/// Over which mails to one person are counted.
pub(crate) const MAIL_WINDOW: Duration = Duration::from_hours(24);
/// How often a mail is tried before it is given up.
pub(crate) const TRIES_MAX: i32 = 5;
/// Longest wait after the first failed try; it quadruples: 1, 4, 16, 64 minutes. Servers that put strangers off want a
/// quarter of an hour, and the last try is to be within two.
const RETRY_FIRST_SECS: u64 = 60;
/// Longest wait where the mail was not even tried.
const PUT_OFF_SECS: u64 = 10;

impl Kind {
    pub(crate) const ALL: [Self; 10] = [
        Self::Registered,
        Self::AwaitingPayment,
        Self::Confirmed,
        Self::PaymentFailed,
        Self::Expired,
        Self::Cancelled,
        Self::Shipped,
        Self::Delivered,
        Self::PartiallyRefunded,
        Self::Refunded,
    ];

    /// The type of the message that brings it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "user.registered",
            Self::AwaitingPayment => "order.awaiting_payment",
            Self::Confirmed => "order.confirmed",
            Self::PaymentFailed => "order.payment_failed",
            Self::Expired => "order.expired",
            Self::Cancelled => "order.cancelled",
            Self::Shipped => "order.shipped",
            Self::Delivered => "order.delivered",
            Self::PartiallyRefunded => "order.partially_refunded",
            Self::Refunded => "order.refunded",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl Outcome {
    /// How the mail stands after its `tries` + 1st try ended so at `now`; `random`, from 0 to 1, spreads what failed
    /// together.
    pub(crate) fn settle(self, tries: i32, now: Timestamp, random: f64) -> Settled {
        let over = |state, note: String| Settled {
            state,
            tries: tries + 1,
            due_at: None,
            note,
        };
        match self {
            Self::Sent => over(State::Sent, String::new()),
            Self::NoAddress => over(State::NoAddress, String::new()),
            Self::Suppressed => over(State::Suppressed, String::new()),
            Self::Bounced(note) | Self::Refused(note) => over(State::Refused, note),
            Self::Failed(note) if tries + 1 >= TRIES_MAX => over(State::Dead, note),
            Self::Failed(note) => Settled {
                state: State::Waiting,
                tries: tries + 1,
                due_at: Some(now + retry_after(tries, random)),
                note,
            },
            Self::PutOff(note) => Settled {
                state: State::Waiting,
                tries,
                due_at: Some(now + spread(PUT_OFF_SECS, random)),
                note: note.to_owned(),
            },
        }
    }
}

impl State {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Sent => "sent",
            Self::NoAddress => "no_address",
            Self::Suppressed => "suppressed",
            Self::Refused => "refused",
            Self::Dead => "dead",
        }
    }
}

/// The name as a mail may greet by it; none where it could pass for a link.
///
/// Whoever registers chooses a name and an address, which may be a stranger's: we do not carry advertisements there.
pub(crate) fn greeting(name: &str) -> Option<&str> {
    let name = name.trim();
    let is_link = name.contains(['/', '@', ':', '\\'])
        || name.split_whitespace().any(|word| {
            // A domain has letters behind its dot; neither initials nor "Dr." do.
            word.split('.').skip(1).any(|part| part.chars().count() > 1)
        });
    (!name.is_empty() && !is_link).then_some(name)
}

fn retry_after(tries: i32, random: f64) -> Duration {
    let quadruplings = tries.clamp(0, TRIES_MAX).cast_unsigned();
    spread(RETRY_FIRST_SECS * 4_u64.pow(quadruplings), random)
}

/// Between half of it and all.
fn spread(secs: u64, random: f64) -> Duration {
    Duration::from_secs(secs).mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_that_fails_is_tried_five_times_at_growing_distance_and_then_given_up() {
        let now = Timestamp::UNIX_EPOCH;
        let failed = || Outcome::Failed("451".to_owned());
        let waits = [(0, 60), (1, 240), (2, 960), (3, 3_840)];
        for (tries, secs) in waits {
            for (random, wanted) in [(1.0, secs), (0.0, secs / 2)] {
                let settled = failed().settle(tries, now, random);
                assert_eq!(settled.state, State::Waiting);
                assert_eq!(settled.tries, tries + 1);
                assert_eq!(settled.due_at, Some(now + Duration::from_secs(wanted)));
            }
        }
        let given_up = failed().settle(4, now, 1.0);
        assert_eq!(
            (given_up.state, given_up.tries, given_up.due_at),
            (State::Dead, 5, None)
        );
    }

    #[test]
    fn what_was_not_tried_costs_no_try() {
        let put_off = Outcome::PutOff("users is away").settle(4, Timestamp::UNIX_EPOCH, 1.0);
        assert_eq!((put_off.state, put_off.tries), (State::Waiting, 4));
        assert!(put_off.due_at.is_some());
    }

    #[test]
    fn people_are_greeted_by_their_name_unless_it_could_pass_for_a_link() {
        for name in ["Ada", "花子", "J.R.R. Tolkien", "Dr. No", "St. John-Smythe"] {
            assert_eq!(greeting(name), Some(name));
        }
        for name in [
            "",
            "  ",
            "buy at evil.example",
            "http://evil",
            "www.evil.example now",
            "ada@evil",
        ] {
            assert_eq!(greeting(name), None, "{name:?}");
        }
    }
}
