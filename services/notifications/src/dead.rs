//! Mail that was given up, as an operator sees it and lets it go out after all.

use holdfast_kernel::{Id, Timestamp, id, time};
use sqlx::PgConnection;

use crate::store;

/// A mail that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadMail {
    /// What it tells of.
    pub notification: Id<id::Notification>,
    /// Whom it is for.
    pub user: Id<id::User>,
    /// The type of the message that it comes of.
    pub kind: String,
    /// When it was promised.
    pub told_at: Timestamp,
    /// How often it was tried.
    pub tries: i32,
    /// What the last try met; never an address.
    pub note: String,
}

/// Dead mails that are listed, or revived, at once.
pub const DEAD_MAX_MAILS: i64 = 1_000;

/// Mail that was given up, the oldest [`DEAD_MAX_MAILS`].
pub async fn list(db: &mut PgConnection) -> Result<Vec<DeadMail>, sqlx::Error> {
    store::list_dead(db, DEAD_MAX_MAILS).await
}

/// Lets mail that was given up be tried again from the start: the oldest [`DEAD_MAX_MAILS`], or only one.
///
/// Says how many. It goes out with the Message-ID that it had: who got it after all sees it once.
pub async fn revive(
    db: &mut PgConnection,
    only: Option<Id<id::Notification>>,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    store::revive_dead(db, only, DEAD_MAX_MAILS, time::to_micros(now)).await
}
