//! The audit log: who did what to whom, told as news of its own in the transaction that makes it true.
//!
//! Ids and figures only, never what is somebody's own: the log is kept for years, and nobody is forgotten in it.

use holdfast_kernel::{Id, Timestamp, id};
use serde::Serialize;

use crate::{message::Topic, outbox::Announcement};

/// Each line is a key of its own.
const AUDIT: Topic = Topic::ordinary("holdfast.audit");
const LINE_VERSION: i64 = 1;

/// A line for the audit log.
#[derive(Debug, Clone, Serialize)]
pub struct Line<A> {
    /// The service that writes it.
    pub service: &'static str,
    /// Who did it; nobody we know of a login that failed.
    pub actor: Option<Id<id::User>>,
    /// Whose account, order or review it was done to; nobody where it is nobody's, such as a product.
    pub subject: Option<Id<id::User>>,
    /// What was done: an enum tagged `action`, with the ids of what it was done to beside it.
    #[serde(flatten)]
    pub action: A,
}

impl<A: Serialize> Line<A> {
    /// The news `audit.recorded` of this line, to be announced beside what it tells of.
    pub fn recorded(&self, now: Timestamp) -> Announcement {
        let line = Id::<id::AuditEntry>::generate();
        Announcement::new(AUDIT, "audit.recorded", line, LINE_VERSION, now, self)
    }
}
