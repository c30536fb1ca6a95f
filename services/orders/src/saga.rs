//! How far a purchase is carried out: what its worker has to know, and what the next one finds.

use std::fmt;

use holdfast_kernel::{Id, RequestId, Timestamp, id};
use holdfast_proto::payments::v1 as payments;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::Status;

/// How far a purchase is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Saga {
    pub(crate) order: Id<id::Order>,
    /// Rises with every take-over. Commands of a lower one are refused everywhere.
    pub(crate) epoch: i64,
    pub(crate) phase: Phase,
    /// The status the order gets when all is undone. While going forward: the status it had been given up in.
    pub(crate) ending: Option<Status>,
    pub(crate) ending_reason: String,
    pub(crate) method: Option<Method>,
    /// Which hold it stands on: 0 is the order's own, later ones were taken after that one had ended.
    pub(crate) hold_attempt: i32,
    pub(crate) hold_extended: bool,
    pub(crate) hold_ended: bool,
    pub(crate) cancel: Option<Cancel>,
    pub(crate) open_refunds: i32,
    /// Counts news, so that what arrives while a worker is busy is not slept over.
    pub(crate) wakes: i64,
    pub(crate) leased_until: Timestamp,
    pub(crate) failures: i32,
    pub(crate) failed_step: String,
}

/// Which way the saga goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Forward,
    Undoing,
    Done,
}

/// A wish to cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cancel {
    pub(crate) request: Uuid,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) by: Option<Id<id::User>>,
    pub(crate) reason: String,
}

/// How the customer wants to pay: a method they saved, or one for this purchase.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Method {
    Saved(String),
    Inline { kind: String, token: String },
}

/// Tokens of methods stand in no log.
impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Saved(id) => f.debug_tuple("Saved").field(id).finish(),
            Self::Inline { kind, .. } => f
                .debug_struct("Inline")
                .field("kind", kind)
                .finish_non_exhaustive(),
        }
    }
}

impl Saga {
    /// Nothing to do any more until something new happens.
    pub(crate) fn finish(&mut self) {
        self.phase = Phase::Done;
        self.ending = None;
        self.ending_reason.clear();
        // The token of a method is nobody's business once it has been used.
        self.method = None;
        self.failures = 0;
    }
}

impl Phase {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Undoing => "undoing",
            Self::Done => "done",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Forward, Self::Undoing, Self::Done]
            .into_iter()
            .find(|phase| phase.as_str() == text)
    }
}

impl Cancel {
    /// The wish that these columns hold, if they hold one.
    pub(crate) fn read(
        request: Option<Uuid>,
        fingerprint: Option<Vec<u8>>,
        by: Option<Uuid>,
        reason: String,
    ) -> Option<Self> {
        Some(Self {
            request: request?,
            fingerprint: fingerprint.unwrap_or_default(),
            by: by.map(Id::new),
            reason,
        })
    }
}

impl Method {
    pub(crate) fn encode(&self) -> payments::Method {
        let method = match self {
            Self::Saved(id) => payments::method::Method::Id(id.clone()),
            Self::Inline { kind, token } => {
                payments::method::Method::Inline(payments::InlineMethod {
                    r#type: kind.clone(),
                    token: token.clone(),
                })
            }
        };
        payments::Method {
            method: Some(method),
        }
    }
}

/// The hold of that attempt: the order's own shares its UUID, later ones are derived from it.
pub(crate) fn hold_of(order: Id<id::Order>, attempt: i32) -> Uuid {
    match attempt {
        0 => order.uuid(),
        attempt => RequestId::derive(&["hold", &order.to_string(), &attempt.to_string()]).uuid(),
    }
}
