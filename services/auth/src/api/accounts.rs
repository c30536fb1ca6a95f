//! Accounts as those see them who run the shop: which there are, what they may do, whether they may log in.

use holdfast_kernel::{
    Id, Timestamp, id,
    page::{self, PageToken},
    time,
};
use holdfast_platform::{database, identity::Role, wire};
use holdfast_proto::{auth::v1 as pb, page::v1 as page_pb};
use sqlx::PgConnection;
use tonic::{Response, Status};
use uuid::Uuid;

use crate::{
    Parts,
    domain::{Account, Email},
    error::AuthError,
    messages::{self, Action, Audit},
    revocation, store,
};

/// Longest part of a refused text that an error repeats, in characters.
const SHOWN_CHARS: usize = 64;

pub(super) fn parse_user(text: &str) -> Result<Id<id::User>, AuthError> {
    text.parse().map_err(|_| AuthError::UserIdRefused {
        got: text.chars().take(SHOWN_CHARS).collect(),
    })
}

pub(super) async fn get(parts: &Parts, user: Id<id::User>) -> Result<Account, AuthError> {
    let mut db = database::acquire(&parts.context.database).await?;
    let account = store::find_account(&mut db, &parts.vault, user).await?;
    account.ok_or(AuthError::UnknownUser)
}

pub(super) async fn list(
    parts: &Parts,
    request: pb::ListAccountsRequest,
) -> Result<Response<pb::ListAccountsResponse>, Status> {
    let asked = request.page.unwrap_or_default();
    let size = page::page_size(asked.size).map_err(AuthError::from)?;
    let place: Option<(i64, Uuid)> = page::read_token(&asked.token).map_err(AuthError::from)?;
    let before = place
        .map(|(micros, id)| Ok((Timestamp::from_microsecond(micros)?, id)))
        .transpose()
        .map_err(|_: jiff::Error| AuthError::from(page::InvalidPage::Token))?;

    let mut db = database::acquire(&parts.context.database).await?;
    let mut accounts = if request.email.is_empty() {
        store::list_accounts(&mut db, &parts.vault, before, size + 1).await?
    } else {
        let email = Email::parse(&request.email)?;
        let found = store::find_account_by_email(&mut db, &parts.vault, &email).await?;
        found.into_iter().collect()
    };
    drop(db);
    let more = accounts.len() as i64 > size;
    accounts.truncate(size as usize);
    let last = accounts.last().filter(|_| more);
    let next_token = last
        .map(|last| PageToken::after(&(last.created_at.as_microsecond(), last.user.uuid())))
        .unwrap_or_default()
        .into_text();
    Ok(Response::new(pb::ListAccountsResponse {
        accounts: accounts.into_iter().map(Into::into).collect(),
        page: Some(page_pb::PageInfo { next_token }),
    }))
}

/// Says what an account may do; its tokens say otherwise, so its sessions end.
pub(super) async fn set_role(
    parts: &Parts,
    user: Id<id::User>,
    role: Role,
    admin: Id<id::User>,
) -> Result<Account, AuthError> {
    let now = time::to_micros(parts.context.clock.now());
    let mut tx = database::begin(&parts.context.database).await?;
    let before = store::lock_account(&mut tx, &parts.vault, user)
        .await?
        .ok_or(AuthError::UnknownUser)?;
    let Some(account) = before.with_role(role, admin)? else {
        return Ok(before);
    };
    store::save_standing(&mut tx, &account).await?;
    end_all_sessions(parts, &mut tx, user, now).await?;
    let action = Action::RoleChanged {
        from: before.role,
        to: role,
    };
    messages::record(&mut tx, by(admin, user, action), now).await?;
    database::commit(tx).await?;
    tell(parts);
    Ok(account)
}

/// Lets an account log in, or no longer.
pub(super) async fn set_active(
    parts: &Parts,
    user: Id<id::User>,
    is_active: bool,
    admin: Id<id::User>,
) -> Result<Account, AuthError> {
    let now = time::to_micros(parts.context.clock.now());
    let mut tx = database::begin(&parts.context.database).await?;
    let before = store::lock_account(&mut tx, &parts.vault, user)
        .await?
        .ok_or(AuthError::UnknownUser)?;
    let Some(account) = before.with_active(is_active, admin)? else {
        return Ok(before);
    };
    store::save_standing(&mut tx, &account).await?;
    let action = if is_active {
        Action::Activated
    } else {
        end_all_sessions(parts, &mut tx, user, now).await?;
        messages::announce_deactivated(&mut tx, &account, false, now).await?;
        Action::Deactivated
    };
    messages::record(&mut tx, by(admin, user, action), now).await?;
    database::commit(tx).await?;
    tell(parts);
    Ok(account)
}

/// Forgets a person. What orders and payments wrote down under the id stays; users forgets by the news of it.
pub(super) async fn erase(
    parts: &Parts,
    user: Id<id::User>,
    admin: Id<id::User>,
) -> Result<(), AuthError> {
    let now = time::to_micros(parts.context.clock.now());
    let mut tx = database::begin(&parts.context.database).await?;
    let account = store::lock_account(&mut tx, &parts.vault, user)
        .await?
        .ok_or(AuthError::UnknownUser)?
        .erased(admin)?;
    end_all_sessions(parts, &mut tx, user, now).await?;
    store::erase_account(&mut tx, &account, now).await?;
    messages::announce_deactivated(&mut tx, &account, true, now).await?;
    messages::record(&mut tx, by(admin, user, Action::Erased), now).await?;
    database::commit(tx).await?;
    tell(parts);
    Ok(())
}

async fn end_all_sessions(
    parts: &Parts,
    db: &mut PgConnection,
    user: Id<id::User>,
    now: Timestamp,
) -> Result<(), AuthError> {
    let ended = store::end_sessions(db, user, None, now).await?;
    revocation::revoke(db, &parts.minter, &ended, now).await
}

fn by(admin: Id<id::User>, user: Id<id::User>, action: Action) -> Audit {
    Audit {
        actor: Some(admin),
        subject: Some(user),
        action,
    }
}

fn tell(parts: &Parts) {
    parts.revocations.ring();
    parts.context.wake.wake();
}

impl From<Account> for pb::Account {
    fn from(account: Account) -> Self {
        Self {
            id: account.user.to_string(),
            email: account.email.as_str().to_owned(),
            name: String::new(),
            role: account.role.as_str().to_owned(),
            created_at: Some(wire::timestamp(account.created_at)),
            is_active: account.is_active,
            locale: String::new(),
        }
    }
}
