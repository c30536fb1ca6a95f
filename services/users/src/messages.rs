//! What this service tells others. Ids only: who needs a name or an address asks for it.

use holdfast_kernel::Timestamp;
use holdfast_platform::{
    message::Topic,
    outbox::{self, Announcement},
};
use serde::Serialize;
use sqlx::PgConnection;

use crate::{domain::Profile, error::UsersError};

const TOPIC: Topic = Topic::ordinary("holdfast.users");

#[derive(Serialize)]
struct UserUpdated<'a> {
    user_id: &'a str,
}

/// Announces that a profile is new or has changed.
pub(crate) async fn announce_updated(
    db: &mut PgConnection,
    profile: &Profile,
    now: Timestamp,
) -> Result<(), UsersError> {
    let user_id = profile.user.to_string();
    let data = UserUpdated { user_id: &user_id };
    let message = Announcement::new(TOPIC, "user.updated", &user_id, profile.version, now, &data);
    Ok(outbox::announce(db, message).await?)
}
