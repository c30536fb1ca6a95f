//! Opening a session.

use holdfast_kernel::{Id, Timestamp, time};
use holdfast_platform::database;
use holdfast_proto::auth::v1 as pb;

use crate::{
    Parts,
    domain::{Account, Email, Session, UserAgent},
    error::AuthError,
    guessing::{self, Try},
    messages::{self, Action, Audit},
    password::Verdict,
    store,
};

/// Opens a session for whoever knows the password.
///
/// Fails with `INVALID_CREDENTIALS` after the same work for an unknown address, a wrong password and an account that may
/// not log in; either way it is written down for the audit log. Fails with `TOO_MANY_REQUESTS` while somebody guesses.
pub(super) async fn login(
    parts: &Parts,
    request: pb::LoginRequest,
) -> Result<pb::Tokens, AuthError> {
    let place = parts.passwords.enter()?;
    let (tried, account) = look(parts, &request).await?;
    let stored = account
        .as_ref()
        .and_then(|account| account.password_hash.clone());
    let verdict = parts
        .passwords
        .check(place, request.password, stored)
        .await?;
    let now = time::to_micros(parts.context.clock.now());
    match (account, verdict) {
        (Some(account), Verdict::Right { better_hash }) => {
            let agent = UserAgent::cut(&request.user_agent);
            open(parts, tried, account, better_hash, agent, now).await
        }
        (account, _) => Err(refuse(parts, tried, account.as_ref(), now).await?),
    }
}

/// The account of the address, if there is one, and the leave to try its password.
async fn look(
    parts: &Parts,
    request: &pb::LoginRequest,
) -> Result<(Try, Option<Account>), AuthError> {
    let now = parts.context.clock.now();
    let mut db = database::acquire(&parts.context.database).await?;
    let (email, account) = match Email::parse(&request.email) {
        Ok(email) => {
            let account = store::find_account_by_email(&mut db, &parts.vault, &email).await?;
            (email.as_str().to_owned(), account)
        }
        Err(_) => (request.email.clone(), None),
    };
    let user = account.as_ref().map(|account| account.user);
    let place = &request.client_address;
    let tried = guessing::allow(&mut db, &parts.vault, &email, user, place, now).await?;
    Ok((tried, account))
}

async fn open(
    parts: &Parts,
    tried: Try,
    checked: Account,
    better_hash: Option<String>,
    user_agent: UserAgent,
    now: Timestamp,
) -> Result<pb::Tokens, AuthError> {
    let mut tx = database::begin(&parts.context.database).await?;
    // Locked, so that of a login and a change of the account one comes first: sessions opened before the change are
    // ended by it, and none is opened after it by a password that counts no more.
    let account = store::lock_account(&mut tx, &parts.vault, checked.user).await?;
    let account = account
        .filter(|account| account.is_active && account.password_hash == checked.password_hash);
    let Some(account) = account else {
        drop(tx);
        return Err(refuse(parts, tried, Some(&checked), now).await?);
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
    tried.succeeded(&mut tx, account.user, now).await?;
    let audit = Audit {
        actor: Some(account.user),
        subject: Some(account.user),
        action: Action::LoggedIn,
    };
    messages::record(&mut tx, audit, now).await?;
    database::commit(tx).await?;
    parts.context.wake.wake();
    Ok(tokens)
}

/// Counts and writes down that a login failed; gives what its caller is told.
async fn refuse(
    parts: &Parts,
    tried: Try,
    account: Option<&Account>,
    now: Timestamp,
) -> Result<AuthError, AuthError> {
    let audit = Audit {
        actor: None,
        subject: account.map(|account| account.user),
        action: Action::LoginRefused,
    };
    let mut tx = database::begin(&parts.context.database).await?;
    tried.failed(&mut tx, now).await?;
    messages::record(&mut tx, audit, now).await?;
    database::commit(tx).await?;
    parts.context.wake.wake();
    Ok(AuthError::InvalidCredentials)
}
