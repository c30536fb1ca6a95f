//! Another password for an account.

use holdfast_kernel::time;
use holdfast_platform::{database, identity::Claims};
use holdfast_proto::auth::v1 as pb;

use crate::{
    Parts,
    error::AuthError,
    guessing,
    messages::{self, Action, Audit},
    password::Verdict,
    revocation, store,
};

/// Changes the password of the account of this session, and ends its other ones.
///
/// Fails with `WRONG_PASSWORD` unless the current one is shown: a session left open on a desk is not the account. Wrong
/// ones are counted as those of logins are.
pub(super) async fn change(
    parts: &Parts,
    claims: &Claims,
    request: pb::ChangePasswordRequest,
) -> Result<(), AuthError> {
    let place = parts.passwords.enter()?;
    let now = time::to_micros(parts.context.clock.now());
    let mut db = database::acquire(&parts.context.database).await?;
    let account = store::find_account(&mut db, &parts.vault, claims.sub)
        .await?
        .ok_or(AuthError::UnknownUser)?;
    let email = account.email.as_str();
    let tried = guessing::allow(&mut db, &parts.vault, email, None, "", now).await?;
    drop(db);
    let stored = account.password_hash.clone();
    let verdict = parts
        .passwords
        .check(place, request.current, stored)
        .await?;
    if verdict == Verdict::Wrong {
        let mut db = database::acquire(&parts.context.database).await?;
        tried.failed(&mut db, now).await?;
        return Err(AuthError::WrongPassword);
    }
    let place = parts.passwords.enter()?;
    let about = vec![email.to_owned()];
    let hash = parts.passwords.hash(place, request.new, about).await?;

    let now = time::to_micros(parts.context.clock.now());
    let mut tx = database::begin(&parts.context.database).await?;
    // Of two changes at once one finds that the password it was shown is not the current one any more.
    let current = store::lock_account(&mut tx, &parts.vault, account.user).await?;
    let current = current.ok_or(AuthError::UnknownUser)?.password_hash;
    if current != account.password_hash {
        return Err(AuthError::WrongPassword);
    }
    store::replace_password_hash(&mut tx, account.user, current.as_deref(), &hash).await?;
    let ended = store::end_sessions(&mut tx, account.user, Some(claims.sid), now).await?;
    revocation::revoke(&mut tx, &parts.minter, &ended, now).await?;
    tried.succeeded(&mut tx, account.user, now).await?;
    let audit = Audit {
        actor: Some(account.user),
        subject: Some(account.user),
        action: Action::PasswordChanged,
    };
    messages::record(&mut tx, audit, now).await?;
    database::commit(tx).await?;
    parts.revocations.ring();
    parts.context.wake.wake();
    Ok(())
}
