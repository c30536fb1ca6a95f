//! What this service tells others. Ids only: who needs a name or an address asks for it.

use holdfast_kernel::{Id, Timestamp, id};
use holdfast_platform::{
    message::Topic,
    outbox::{self, Announcement},
};
use serde::Serialize;
use sqlx::PgConnection;

use crate::error::AuthError;

/// News of accounts. Profiles have a topic of their own, `holdfast.users`: versions count per topic and key.
const ACCOUNTS: Topic = Topic::ordinary("holdfast.accounts");

/// An account is registered once, so this is always its first news.
const REGISTERED_VERSION: i64 = 1;

#[derive(Serialize)]
struct UserRegistered {
    user_id: String,
}

/// Announces accounts that have just become complete.
pub(crate) async fn announce_registered(
    db: &mut PgConnection,
    users: &[Id<id::User>],
    now: Timestamp,
) -> Result<(), AuthError> {
    let announcements = users
        .iter()
        .map(|user| {
            let user_id = user.to_string();
            let data = UserRegistered {
                user_id: user_id.clone(),
            };
            Announcement::new(
                ACCOUNTS,
                "user.registered",
                user_id,
                REGISTERED_VERSION,
                now,
                &data,
            )
        })
        .collect();
    Ok(outbox::announce_all(db, announcements).await?)
}
