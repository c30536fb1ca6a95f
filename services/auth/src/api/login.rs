//! Opening a session.

use holdfast_kernel::{Id, time};
use holdfast_platform::database;
use holdfast_proto::auth::v1 as pb;

use crate::{
    Parts,
    domain::{Account, Email, Session, UserAgent},
    error::AuthError,
    messages::{self, Action, Audit},
    password::Verdict,
    store,
};

/// Opens a session for whoever knows the password.
///
/// Fails with `INVALID_CREDENTIALS` after the same work for an unknown address, a wrong password and an account that may
/// not log in; either way it is written down for the audit log.
pub(super) async fn login(
    parts: &Parts,
    request: pb::LoginRequest,
) -> Result<pb::Tokens, AuthError> {
    let pb::LoginRequest {
        email,
        password,
        user_agent,
    } = request;
    let place = parts.passwords.enter()?;
    let account = match Email::parse(&email) {
        Ok(email) => {
            let mut db = database::acquire(&parts.context.database).await?;
            store::find_account_by_email(&mut db, &parts.vault, &email).await?
        }
        Err(_) => None,
    };
    let stored = account
        .as_ref()
        .and_then(|account| account.password_hash.clone());
    let verdict = parts.passwords.check(place, password, stored).await?;
    match (account, verdict) {
        (Some(account), Verdict::Right { better_hash }) => {
            open(parts, account, better_hash, UserAgent::cut(&user_agent)).await
        }
        (account, _) => Err(refuse(parts, account.as_ref()).await?),
    }
}

async fn open(
    parts: &Parts,
    checked: Account,
    better_hash: Option<String>,
    user_agent: UserAgent,
) -> Result<pb::Tokens, AuthError> {
    let now = time::to_micros(parts.context.clock.now());
    let mut tx = database::begin(&parts.context.database).await?;
    // Locked, so that of a login and a change of the account one comes first: sessions opened before the change are
    // ended by it, and none is opened after it by a password that counts no more.
    let account = store::lock_account(&mut tx, &parts.vault, checked.user).await?;
    let account = account
        .filter(|account| account.is_active && account.password_hash == checked.password_hash);
    let Some(account) = account else {
        drop(tx);
        return Err(refuse(parts, Some(&checked)).await?);
    };
    let lifetime = parts.minter.session_lifetime();
    let session = Session::open(Id::generate(), account.user, now, lifetime, user_agent);
    let tokens = parts.minter.tokens(&session, 1, account.role, now)?;
    if let Some(better) = better_hash {
        let replaced = account.password_hash.as_deref();
        store::replace_password_hash(&mut tx, account.user, replaced, &better).await?;
    }
    store::delete_expired_sessions(&mut tx, account.user, now).await?;
    store::insert_sessions(&mut tx, &[session]).await?;
    let audit = Audit {
        actor: Some(account.user),
        subject: Some(account.user),
        action: Action::LoggedIn,
    };
    messages::record(&mut tx, audit, now).await?;
    database::commit(tx).await?;
    Ok(tokens)
}

/// Writes down that a login failed; gives what its caller is told.
async fn refuse(parts: &Parts, account: Option<&Account>) -> Result<AuthError, AuthError> {
    let now = time::to_micros(parts.context.clock.now());
    let audit = Audit {
        actor: None,
        subject: account.map(|account| account.user),
        action: Action::LoginRefused,
    };
    let mut db = database::acquire(&parts.context.database).await?;
    messages::record(&mut db, audit, now).await?;
    Ok(AuthError::InvalidCredentials)
}
