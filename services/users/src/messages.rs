//! What this service tells others, and what it listens to. Ids only: who needs a name or an address asks for it.

use std::sync::Arc;

use holdfast_kernel::{Clock, Id, Timestamp, id, time};
use holdfast_platform::{
    consumer::{Consumer, Handler, Handling, Interest},
    message::{Message, Topic},
    outbox::{self, Announcement, Wake},
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use crate::{domain::Profile, error::UsersError, store};

const TOPIC: Topic = Topic::ordinary("holdfast.users");
/// What makes wrong what is kept in memory.
pub(crate) const HEARD: &[Topic] = &[TOPIC];

/// News of accounts; those who are erased are forgotten here too.
const ACCOUNTS: &[Interest] = &[Interest {
    topic: Topic::ordinary("holdfast.accounts"),
    kinds: &["user.deactivated"],
}];

#[derive(Deserialize)]
struct UserDeactivated {
    /// Not for a while but for good.
    #[serde(default)]
    erased: bool,
}

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

/// What forgets a person whose account was erased.
pub(crate) fn consumers(clock: Arc<dyn Clock>, wake: Wake) -> Vec<Consumer> {
    vec![Consumer::new("users.accounts", ACCOUNTS, Eraser { clock }).waking(wake)]
}

struct Eraser {
    clock: Arc<dyn Clock>,
}

#[tonic::async_trait]
impl Handler for Eraser {
    async fn handle(&self, db: &mut PgConnection, message: &Message) -> Result<(), Handling> {
        if !message.decode::<UserDeactivated>()?.erased {
            return Ok(());
        }
        let user: Id<id::User> = message.key.parse().map_err(Handling::permanent)?;
        let now = time::to_micros(self.clock.now());
        let Some(version) = store::erase_person(db, user, now).await? else {
            return Ok(());
        };
        let user_id = user.to_string();
        let data = UserUpdated { user_id: &user_id };
        let news = Announcement::new(TOPIC, "user.erased", &user_id, version, now, &data);
        Ok(outbox::announce(db, news).await?)
    }
}

impl From<UsersError> for Handling {
    /// What passes is waited for; a row that cannot be read is looked at by somebody.
    fn from(error: UsersError) -> Self {
        match error {
            UsersError::Database(error) => error.into(),
            other => Self::permanent(other),
        }
    }
}
