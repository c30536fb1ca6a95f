//! What this service tells others. Ids only: who needs a name or an address asks for it.

use holdfast_kernel::{Id, Timestamp, id};
use holdfast_platform::{
    audit_log::Line,
    identity::Role,
    message::Topic,
    outbox::{self, Announcement},
};
use serde::Serialize;
use sqlx::PgConnection;

use crate::{domain::Account, error::AuthError};

/// News of accounts. Profiles have a topic of their own, `holdfast.users`: versions count per topic and key.
const ACCOUNTS: Topic = Topic::ordinary("holdfast.accounts");

/// An account is registered once, so this is always its first news.
const REGISTERED_VERSION: i64 = 1;

#[derive(Serialize)]
struct UserRegistered {
    user_id: String,
}

#[derive(Serialize)]
struct UserDeactivated {
    user_id: String,
    /// Not for a while but for good: who keeps something of this person forgets it.
    erased: bool,
}

/// A line for the audit log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Audit {
    /// Who did it; nobody we know of a login that failed.
    pub(crate) actor: Option<Id<id::User>>,
    /// To whose account; none where there is no such account.
    pub(crate) subject: Option<Id<id::User>>,
    pub(crate) action: Action,
}

/// What is written down.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub(crate) enum Action {
    LoggedIn,
    LoginRefused,
    PasswordChanged,
    RoleChanged { from: Role, to: Role },
    Activated,
    Deactivated,
    Erased,
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

/// Announces that nobody logs in to this account any more, for a while or because its person was `erased`.
pub(crate) async fn announce_deactivated(
    db: &mut PgConnection,
    account: &Account,
    erased: bool,
    now: Timestamp,
) -> Result<(), AuthError> {
    let user_id = account.user.to_string();
    let data = UserDeactivated {
        user_id: user_id.clone(),
        erased,
    };
    let message = Announcement::new(
        ACCOUNTS,
        "user.deactivated",
        user_id,
        account.news,
        now,
        &data,
    );
    Ok(outbox::announce(db, message).await?)
}

/// Writes a line for the audit log.
pub(crate) async fn record(
    db: &mut PgConnection,
    audit: Audit,
    now: Timestamp,
) -> Result<(), AuthError> {
    let Audit {
        actor,
        subject,
        action,
    } = audit;
    let line = Line {
        service: "auth",
        actor,
        subject,
        action,
    };
    Ok(outbox::announce(db, line.recorded(now)).await?)
}
