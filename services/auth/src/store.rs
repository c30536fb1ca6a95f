//! Every statement on accounts, sessions and signing keys.

use holdfast_kernel::{Id, Timestamp, id};
use holdfast_platform::envelope::WrappedKey;
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    domain::{
        Account, Applicant, Email, Ended, Guesses, Revocation, Session, SessionState, UserAgent,
    },
    error::AuthError,
    keys::{KeyState, PublicKey, SealedKey},
    vault::{AtRest, Vault},
};

/// Records an account on its way, or takes over the one that another registration of this address left on its way.
///
/// Gives the id of that account, which a takeover keeps so that a profile written already stays its profile; `None`
/// when the address belongs to a complete account.
pub(crate) async fn record_applicant(
    db: &mut PgConnection,
    vault: &Vault,
    applicant: &Applicant,
) -> Result<Option<Id<id::User>>, AuthError> {
    let index = vault.index(&applicant.email);
    if vault.is_plain {
        // A process of the version before may have written this address without what stands for it.
        sqlx::query("UPDATE account SET email_index = $2 WHERE email = $1 AND email_index IS NULL")
            .bind(applicant.email.as_str())
            .bind(index)
            .execute(&mut *db)
            .await?;
    }
    let (key, wrapped) = vault.envelope.make_key(applicant.user.uuid());
    let email = vault.lay(&key, &applicant.email);
    let user: Option<Uuid> = sqlx::query_scalar(
        "INSERT INTO account
            (id, email, sealed_email, email_index, password_hash, role, created_at, attempt)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT ON CONSTRAINT account_email_index_is_unique DO UPDATE
         SET password_hash = excluded.password_hash, role = excluded.role, created_at = excluded.created_at,
             attempt = excluded.attempt
         WHERE account.registered_at IS NULL
         RETURNING id",
    )
    .bind(applicant.user.uuid())
    .bind(email.plain)
    .bind(email.sealed)
    .bind(index)
    .bind(&applicant.password_hash)
    .bind(applicant.role.as_str())
    .bind(applicant.created_at.to_sqlx())
    .bind(applicant.attempt)
    .fetch_optional(&mut *db)
    .await?;
    if user == Some(applicant.user.uuid()) {
        insert_keys(db, vec![(applicant.user.uuid(), wrapped)]).await?;
    }
    Ok(user.map(Id::new))
}

/// Records many accounts on their way, all of the same role, without passwords and with addresses nobody else has.
pub(crate) async fn record_machines(
    db: &mut PgConnection,
    vault: &Vault,
    machines: &[Applicant],
) -> Result<(), AuthError> {
    let mut users = Vec::with_capacity(machines.len());
    let mut plain = Vec::with_capacity(machines.len());
    let mut sealed = Vec::with_capacity(machines.len());
    let mut indexes = Vec::with_capacity(machines.len());
    let mut roles = Vec::with_capacity(machines.len());
    let mut times = Vec::with_capacity(machines.len());
    let mut attempts = Vec::with_capacity(machines.len());
    let mut keys = Vec::with_capacity(machines.len());
    for machine in machines {
        let (key, wrapped) = vault.envelope.make_key(machine.user.uuid());
        let email = vault.lay(&key, &machine.email);
        users.push(machine.user.uuid());
        plain.push(email.plain);
        sealed.push(email.sealed);
        indexes.push(vault.index(&machine.email));
        roles.push(machine.role.as_str());
        times.push(machine.created_at.to_sqlx());
        attempts.push(machine.attempt);
        keys.push((machine.user.uuid(), wrapped));
    }
    sqlx::query(
        "INSERT INTO account (id, email, sealed_email, email_index, role, created_at, attempt)
         SELECT id, email, sealed_email, email_index, role, created_at, attempt
         FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::bytea[], $5::text[], $6::timestamptz[], $7::uuid[])
            AS machine (id, email, sealed_email, email_index, role, created_at, attempt)",
    )
    .bind(users)
    .bind(plain)
    .bind(sealed)
    .bind(indexes)
    .bind(roles)
    .bind(times)
    .bind(attempts)
    .execute(&mut *db)
    .await?;
    insert_keys(db, keys).await
}

/// Completes accounts whose profiles are written, each as long as this attempt is still the one on its way; gives
/// those that were completed.
pub(crate) async fn complete_registrations(
    db: &mut PgConnection,
    registrations: &[(Id<id::User>, Uuid)],
    now: Timestamp,
) -> Result<Vec<Id<id::User>>, AuthError> {
    let (users, attempts): (Vec<Uuid>, Vec<Uuid>) = registrations
        .iter()
        .map(|(user, attempt)| (user.uuid(), *attempt))
        .unzip();
    let completed: Vec<Uuid> = sqlx::query_scalar(
        "UPDATE account SET registered_at = $3
         FROM unnest($1::uuid[], $2::uuid[]) AS written (id, attempt)
         WHERE account.id = written.id AND account.attempt = written.attempt AND registered_at IS NULL
         RETURNING account.id",
    )
    .bind(users)
    .bind(attempts)
    .bind(now.to_sqlx())
    .fetch_all(db)
    .await?;
    Ok(completed.into_iter().map(Id::new).collect())
}

/// The complete account of this address.
pub(crate) async fn find_account_by_email(
    db: &mut PgConnection,
    vault: &Vault,
    email: &Email,
) -> Result<Option<Account>, AuthError> {
    let row: Option<AccountRow> = sqlx::query_as(
        "SELECT id, email, sealed_email, role, is_active, password_hash, created_at, news,
            subject_key.version AS key_version, wrapped
         FROM account LEFT JOIN subject_key ON subject = id WHERE (email_index = $1 OR email = $2) AND registered_at IS NOT NULL AND erased_at IS NULL",
    )
    .bind(vault.index(email))
    .bind(email.as_str())
    .fetch_optional(db)
    .await?;
    row.map(|row| row.read(vault)).transpose()
}

/// The complete account of this id.
pub(crate) async fn find_account(
    db: &mut PgConnection,
    vault: &Vault,
    user: Id<id::User>,
) -> Result<Option<Account>, AuthError> {
    let row: Option<AccountRow> = sqlx::query_as(
        "SELECT id, email, sealed_email, role, is_active, password_hash, created_at, news,
            subject_key.version AS key_version, wrapped
         FROM account LEFT JOIN subject_key ON subject = id WHERE id = $1 AND registered_at IS NOT NULL AND erased_at IS NULL",
    )
    .bind(user.uuid())
    .fetch_optional(db)
    .await?;
    row.map(|row| row.read(vault)).transpose()
}

/// The complete account of this id, which nobody else changes until the transaction ends.
pub(crate) async fn lock_account(
    db: &mut PgConnection,
    vault: &Vault,
    user: Id<id::User>,
) -> Result<Option<Account>, AuthError> {
    let row: Option<AccountRow> = sqlx::query_as(
        "SELECT id, email, sealed_email, role, is_active, password_hash, created_at, news,
            subject_key.version AS key_version, wrapped
         FROM account LEFT JOIN subject_key ON subject = id WHERE id = $1 AND registered_at IS NOT NULL AND erased_at IS NULL
         FOR NO KEY UPDATE OF account",
    )
    .bind(user.uuid())
    .fetch_optional(db)
    .await?;
    row.map(|row| row.read(vault)).transpose()
}

/// Complete accounts, the newest first, those older than `before`, at most `limit`.
pub(crate) async fn list_accounts(
    db: &mut PgConnection,
    vault: &Vault,
    before: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> Result<Vec<Account>, AuthError> {
    let (created_at, id) = before.unzip();
    let rows: Vec<AccountRow> = sqlx::query_as(
        "SELECT id, email, sealed_email, role, is_active, password_hash, created_at, news,
            subject_key.version AS key_version, wrapped
         FROM account LEFT JOIN subject_key ON subject = id WHERE registered_at IS NOT NULL AND erased_at IS NULL
            AND ($1::timestamptz IS NULL OR (created_at, id) < ($1, $2))
         ORDER BY created_at DESC, id DESC LIMIT $3",
    )
    .bind(created_at.map(ToSqlx::to_sqlx))
    .bind(id)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(|row| row.read(vault)).collect()
}

/// Writes what staff may change of a locked account.
pub(crate) async fn save_standing(
    db: &mut PgConnection,
    account: &Account,
) -> Result<(), AuthError> {
    sqlx::query("UPDATE account SET role = $2, is_active = $3, news = $4 WHERE id = $1")
        .bind(account.user.uuid())
        .bind(account.role.as_str())
        .bind(account.is_active)
        .bind(account.news)
        .execute(db)
        .await?;
    Ok(())
}

/// Forgets whose account this locked one is, its ended sessions, and the key under which copies of it lie elsewhere.
pub(crate) async fn erase_account(
    db: &mut PgConnection,
    account: &Account,
    now: Timestamp,
) -> Result<(), AuthError> {
    sqlx::query(
        "UPDATE account SET email = NULL, sealed_email = NULL, email_index = NULL, password_hash = NULL,
            is_active = false, news = $2, erased_at = $3
         WHERE id = $1",
    )
    .bind(account.user.uuid())
    .bind(account.news)
    .bind(now.to_sqlx())
    .execute(&mut *db)
    .await?;
    sqlx::query("DELETE FROM session WHERE account_id = $1")
        .bind(account.user.uuid())
        .execute(&mut *db)
        .await?;
    sqlx::query("DELETE FROM familiar_place WHERE account_id = $1")
        .bind(account.user.uuid())
        .execute(&mut *db)
        .await?;
    sqlx::query("DELETE FROM subject_key WHERE subject = $1")
        .bind(account.user.uuid())
        .execute(db)
        .await?;
    Ok(())
}

/// Ends every open session of this account, but the one that is `kept`.
pub(crate) async fn end_sessions(
    db: &mut PgConnection,
    user: Id<id::User>,
    kept: Option<Id<id::Session>>,
    now: Timestamp,
) -> Result<Vec<Ended>, AuthError> {
    let ended: Vec<(Uuid, jiff_sqlx::Timestamp)> = sqlx::query_as(
        "UPDATE session SET state = 'logged_out'
         WHERE account_id = $1 AND state = 'open' AND expires_at > $2 AND id IS DISTINCT FROM $3
         RETURNING id, expires_at",
    )
    .bind(user.uuid())
    .bind(now.to_sqlx())
    .bind(kept.map(Id::uuid))
    .fetch_all(db)
    .await?;
    Ok(ended.into_iter().map(read_ended).collect())
}

/// Puts another hash in place of the one that was checked.
pub(crate) async fn replace_password_hash(
    db: &mut PgConnection,
    user: Id<id::User>,
    checked: Option<&str>,
    better: &str,
) -> Result<(), AuthError> {
    sqlx::query("UPDATE account SET password_hash = $3 WHERE id = $1 AND password_hash = $2")
        .bind(user.uuid())
        .bind(checked)
        .bind(better)
        .execute(db)
        .await?;
    Ok(())
}

/// Sets role and password of an account, whatever they were; it may log in.
pub(crate) async fn reset_account(
    db: &mut PgConnection,
    user: Id<id::User>,
    role: &str,
    password_hash: &str,
) -> Result<(), AuthError> {
    sqlx::query("UPDATE account SET role = $2, password_hash = $3, is_active = true WHERE id = $1")
        .bind(user.uuid())
        .bind(role)
        .bind(password_hash)
        .execute(db)
        .await?;
    Ok(())
}

/// Writes sessions that have just been opened.
pub(crate) async fn insert_sessions(
    db: &mut PgConnection,
    sessions: &[Session],
) -> Result<(), AuthError> {
    let mut ids = Vec::with_capacity(sessions.len());
    let mut users = Vec::with_capacity(sessions.len());
    let mut opened = Vec::with_capacity(sessions.len());
    let mut expires = Vec::with_capacity(sessions.len());
    let mut agents = Vec::with_capacity(sessions.len());
    for session in sessions {
        ids.push(session.id.uuid());
        users.push(session.user.uuid());
        opened.push(session.opened_at.to_sqlx());
        expires.push(session.expires_at.to_sqlx());
        agents.push(session.user_agent.as_str());
    }
    sqlx::query(
        "INSERT INTO session (id, account_id, state, turn, turned_at, opened_at, expires_at, user_agent)
         SELECT id, account_id, 'open', 1, opened_at, opened_at, expires_at, user_agent
         FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::timestamptz[], $5::text[])
            AS opened (id, account_id, opened_at, expires_at, user_agent)",
    )
    .bind(ids)
    .bind(users)
    .bind(opened)
    .bind(expires)
    .bind(agents)
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets the sessions of this account whose lifetime is over: a login tidies up after those before it.
pub(crate) async fn delete_expired_sessions(
    db: &mut PgConnection,
    user: Id<id::User>,
    now: Timestamp,
) -> Result<(), AuthError> {
    sqlx::query("DELETE FROM session WHERE account_id = $1 AND expires_at <= $2")
        .bind(user.uuid())
        .bind(now.to_sqlx())
        .execute(db)
        .await?;
    Ok(())
}

/// The session of this id, which nobody else changes until the transaction ends.
pub(crate) async fn lock_session(
    db: &mut PgConnection,
    session: Id<id::Session>,
) -> Result<Option<Session>, AuthError> {
    let row: Option<SessionRow> = sqlx::query_as(
        "SELECT id, account_id, state, turn, turned_at, opened_at, expires_at, user_agent
         FROM session WHERE id = $1 FOR UPDATE",
    )
    .bind(session.uuid())
    .fetch_optional(db)
    .await?;
    row.map(SessionRow::read).transpose()
}

/// The session of this id.
pub(crate) async fn find_session(
    db: &mut PgConnection,
    session: Id<id::Session>,
) -> Result<Option<Session>, AuthError> {
    let row: Option<SessionRow> = sqlx::query_as(
        "SELECT id, account_id, state, turn, turned_at, opened_at, expires_at, user_agent
         FROM session WHERE id = $1",
    )
    .bind(session.uuid())
    .fetch_optional(db)
    .await?;
    row.map(SessionRow::read).transpose()
}

/// The open sessions of this account, the latest used first, at most `limit`.
pub(crate) async fn list_open_sessions(
    db: &mut PgConnection,
    user: Id<id::User>,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<Session>, AuthError> {
    let rows: Vec<SessionRow> = sqlx::query_as(
        "SELECT id, account_id, state, turn, turned_at, opened_at, expires_at, user_agent
         FROM session WHERE account_id = $1 AND state = 'open' AND expires_at > $2
         ORDER BY turned_at DESC, id LIMIT $3",
    )
    .bind(user.uuid())
    .bind(now.to_sqlx())
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(SessionRow::read).collect()
}

/// Writes what may change of a locked session.
pub(crate) async fn save_session(
    db: &mut PgConnection,
    session: &Session,
) -> Result<(), AuthError> {
    match session.state {
        SessionState::Open { turn, turned_at } => {
            sqlx::query("UPDATE session SET turn = $2, turned_at = $3 WHERE id = $1")
                .bind(session.id.uuid())
                .bind(turn)
                .bind(turned_at.to_sqlx())
                .execute(db)
                .await?;
        }
        SessionState::LoggedOut | SessionState::Revoked => {
            sqlx::query("UPDATE session SET state = $2 WHERE id = $1")
                .bind(session.id.uuid())
                .bind(state_word(session.state))
                .execute(db)
                .await?;
        }
    }
    Ok(())
}

/// Ends a session of this account, if it is open.
pub(crate) async fn log_out(
    db: &mut PgConnection,
    session: Id<id::Session>,
    user: Id<id::User>,
) -> Result<Option<Ended>, AuthError> {
    let ended: Option<(Uuid, jiff_sqlx::Timestamp)> = sqlx::query_as(
        "UPDATE session SET state = 'logged_out' WHERE id = $1 AND account_id = $2 AND state = 'open'
         RETURNING id, expires_at",
    )
    .bind(session.uuid())
    .bind(user.uuid())
    .fetch_optional(db)
    .await?;
    Ok(ended.map(read_ended))
}

/// Writes down that access tokens of these sessions are dead, to be told in the order of commits.
pub(crate) async fn insert_revocations(
    db: &mut PgConnection,
    revoked: &[Revocation],
) -> Result<(), AuthError> {
    if revoked.is_empty() {
        return Ok(());
    }
    let last: i64 =
        sqlx::query_scalar("UPDATE revocation_counter SET last = last + $1 RETURNING last")
            .bind(revoked.len() as i64)
            .fetch_one(&mut *db)
            .await?;
    let (sessions, dead): (Vec<Uuid>, Vec<_>) = revoked
        .iter()
        .map(|revocation| (revocation.session.uuid(), revocation.dead_at.to_sqlx()))
        .unzip();
    sqlx::query(
        "INSERT INTO revocation (number, session_id, dead_at)
         SELECT $1 + place, session_id, dead_at
         FROM unnest($2::uuid[], $3::timestamptz[]) WITH ORDINALITY AS revoked (session_id, dead_at, place)",
    )
    .bind(last - revoked.len() as i64)
    .bind(sessions)
    .bind(dead)
    .execute(db)
    .await?;
    Ok(())
}

/// Revocations numbered above `after` that matter still, in the order of their numbers, at most `limit`.
pub(crate) async fn list_revocations(
    db: &mut PgConnection,
    after: i64,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<(i64, Revocation)>, AuthError> {
    let rows: Vec<(i64, Uuid, jiff_sqlx::Timestamp)> = sqlx::query_as(
        "SELECT number, session_id, dead_at FROM revocation
         WHERE number > $1 AND dead_at > $2 ORDER BY number LIMIT $3",
    )
    .bind(after)
    .bind(now.to_sqlx())
    .bind(limit)
    .fetch_all(db)
    .await?;
    let read = |(number, session, dead_at): (i64, Uuid, jiff_sqlx::Timestamp)| {
        let (session, dead_at) = (Id::new(session), dead_at.into());
        (number, Revocation { session, dead_at })
    };
    Ok(rows.into_iter().map(read).collect())
}

/// Forgets revocations of sessions whose access tokens are all dead by themselves.
pub(crate) async fn prune_revocations(
    db: &mut PgConnection,
    now: Timestamp,
) -> Result<u64, AuthError> {
    let done = sqlx::query("DELETE FROM revocation WHERE dead_at <= $1")
        .bind(now.to_sqlx())
        .execute(db)
        .await?;
    Ok(done.rows_affected())
}

/// How often somebody guessed wrong under this key.
pub(crate) async fn find_guesses(
    db: &mut PgConnection,
    key: &[u8; 32],
) -> Result<Option<Guesses>, AuthError> {
    let row: Option<(i32, jiff_sqlx::Timestamp)> =
        sqlx::query_as("SELECT failures, failed_at FROM guessing WHERE key = $1")
            .bind(key)
            .fetch_optional(db)
            .await?;
    Ok(row.map(|(failures, failed_at)| Guesses {
        failures,
        failed_at: failed_at.into(),
    }))
}

/// Takes the one try that had to be waited for, if nobody has taken it since `seen`.
pub(crate) async fn take_guess(
    db: &mut PgConnection,
    key: &[u8; 32],
    seen: &Guesses,
    now: Timestamp,
) -> Result<bool, AuthError> {
    let next = seen.after(now);
    let done = sqlx::query(
        "UPDATE guessing SET failures = $2, failed_at = $3 WHERE key = $1 AND failures = $4",
    )
    .bind(key)
    .bind(next.failures)
    .bind(next.failed_at.to_sqlx())
    .bind(seen.failures)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Counts a wrong password; those before `forgotten` count no more.
pub(crate) async fn count_guess(
    db: &mut PgConnection,
    key: &[u8; 32],
    now: Timestamp,
    forgotten: Timestamp,
) -> Result<(), AuthError> {
    sqlx::query(
        "INSERT INTO guessing (key, failures, failed_at) VALUES ($1, 1, $2)
         ON CONFLICT (key) DO UPDATE SET failed_at = excluded.failed_at,
            failures = CASE WHEN guessing.failed_at <= $3 THEN 1 ELSE guessing.failures + 1 END",
    )
    .bind(key)
    .bind(now.to_sqlx())
    .bind(forgotten.to_sqlx())
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets the wrong passwords under this key.
pub(crate) async fn forgive_guesses(
    db: &mut PgConnection,
    key: &[u8; 32],
) -> Result<(), AuthError> {
    sqlx::query("DELETE FROM guessing WHERE key = $1")
        .bind(key)
        .execute(db)
        .await?;
    Ok(())
}

/// Forgets wrong passwords that were the last of their kind before `forgotten`, some of them: whoever guesses wrong tidies
/// up, and waits for nobody who does the same.
pub(crate) async fn forget_guesses(
    db: &mut PgConnection,
    forgotten: Timestamp,
    limit: i64,
) -> Result<(), AuthError> {
    let done = sqlx::query(
        "DELETE FROM guessing WHERE key IN (
            SELECT key FROM guessing WHERE failed_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
    );
    done.bind(forgotten.to_sqlx())
        .bind(limit)
        .execute(db)
        .await?;
    Ok(())
}

/// Whether this account was logged in to from this place since `since`.
pub(crate) async fn is_familiar(
    db: &mut PgConnection,
    user: Id<id::User>,
    place: &[u8; 32],
    since: Timestamp,
) -> Result<bool, AuthError> {
    let found = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM familiar_place WHERE account_id = $1 AND place = $2 AND seen_at > $3)",
    );
    let found = found.bind(user.uuid()).bind(place).bind(since.to_sqlx());
    Ok(found.fetch_one(db).await?)
}

/// Notes that this account was logged in to from this place, and forgets places not seen since `forgotten`.
pub(crate) async fn note_familiar(
    db: &mut PgConnection,
    user: Id<id::User>,
    place: &[u8; 32],
    now: Timestamp,
    forgotten: Timestamp,
) -> Result<(), AuthError> {
    sqlx::query("DELETE FROM familiar_place WHERE account_id = $1 AND seen_at <= $2")
        .bind(user.uuid())
        .bind(forgotten.to_sqlx())
        .execute(&mut *db)
        .await?;
    sqlx::query(
        "INSERT INTO familiar_place (account_id, place, seen_at) VALUES ($1, $2, $3)
         ON CONFLICT (account_id, place) DO UPDATE SET seen_at = excluded.seen_at",
    )
    .bind(user.uuid())
    .bind(place)
    .bind(now.to_sqlx())
    .execute(db)
    .await?;
    Ok(())
}

/// Writes a signing key, unless there is one in that state already.
pub(crate) async fn insert_key_if_missing(
    db: &mut PgConnection,
    key: &SealedKey,
    state: KeyState,
    now: Timestamp,
) -> Result<(), AuthError> {
    sqlx::query(
        "INSERT INTO signing_key (id, public_key, sealed_private_key, state, created_at, activated_at)
         VALUES ($1, $2, $3, $4, $5::timestamptz, CASE WHEN $4 = 'active' THEN $5::timestamptz END)
         ON CONFLICT (state) WHERE state <> 'retired' DO NOTHING",
    )
    .bind(&key.public.id)
    .bind(&key.public.bytes)
    .bind(&key.sealed_private)
    .bind(state.as_str())
    .bind(now.to_sqlx())
    .execute(db)
    .await?;
    Ok(())
}

/// The key that signs.
pub(crate) async fn find_active_key(db: &mut PgConnection) -> Result<Option<SealedKey>, AuthError> {
    let row: Option<(String, Vec<u8>, Vec<u8>)> = sqlx::query_as(
        "SELECT id, public_key, sealed_private_key FROM signing_key WHERE state = 'active'",
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|(id, bytes, sealed_private)| SealedKey {
        public: PublicKey { id, bytes },
        sealed_private,
    }))
}

/// Since when the active key signs; it stays so until the transaction ends.
pub(crate) async fn lock_active_key(db: &mut PgConnection) -> Result<Option<Timestamp>, AuthError> {
    let since: Option<jiff_sqlx::Timestamp> = sqlx::query_scalar(
        "SELECT coalesce(activated_at, created_at) FROM signing_key WHERE state = 'active' FOR UPDATE",
    )
    .fetch_optional(db)
    .await?;
    Ok(since.map(Timestamp::from))
}

/// Since when the next key is published.
pub(crate) async fn find_next_key(db: &mut PgConnection) -> Result<Option<Timestamp>, AuthError> {
    let since: Option<jiff_sqlx::Timestamp> =
        sqlx::query_scalar("SELECT created_at FROM signing_key WHERE state = 'next'")
            .fetch_optional(db)
            .await?;
    Ok(since.map(Timestamp::from))
}

/// The active key signs no more; its private half is gone.
pub(crate) async fn retire_active_key(
    db: &mut PgConnection,
    now: Timestamp,
) -> Result<(), AuthError> {
    sqlx::query(
        "UPDATE signing_key SET state = 'retired', retired_at = $1, sealed_private_key = NULL WHERE state = 'active'",
    )
    .bind(now.to_sqlx())
    .execute(db)
    .await?;
    Ok(())
}

/// The next key signs from now on.
pub(crate) async fn activate_next_key(
    db: &mut PgConnection,
    now: Timestamp,
) -> Result<(), AuthError> {
    sqlx::query("UPDATE signing_key SET state = 'active', activated_at = $1 WHERE state = 'next'")
        .bind(now.to_sqlx())
        .execute(db)
        .await?;
    Ok(())
}

/// Takes back keys that were retired before `before`: nothing lives that they signed.
pub(crate) async fn delete_retired_keys(
    db: &mut PgConnection,
    before: Timestamp,
) -> Result<(), AuthError> {
    sqlx::query("DELETE FROM signing_key WHERE state = 'retired' AND retired_at < $1")
        .bind(before.to_sqlx())
        .execute(db)
        .await?;
    Ok(())
}

/// The public halves of all keys whose tokens may be alive or soon will be, oldest first.
pub(crate) async fn list_public_keys(db: &mut PgConnection) -> Result<Vec<PublicKey>, AuthError> {
    let rows: Vec<(String, Vec<u8>)> =
        sqlx::query_as("SELECT id, public_key FROM signing_key ORDER BY created_at, id")
            .fetch_all(db)
            .await?;
    Ok(rows
        .into_iter()
        .map(|(id, bytes)| PublicKey { id, bytes })
        .collect())
}

/// Accounts whose e-mail lies in the clear, complete or not, which nobody else changes until the transaction ends, at most
/// `limit`.
pub(crate) async fn lock_plain_accounts(
    db: &mut PgConnection,
    limit: i64,
) -> Result<Vec<(Id<id::User>, Email)>, AuthError> {
    let rows: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT id, email FROM account WHERE email IS NOT NULL ORDER BY id LIMIT $1 FOR UPDATE",
    )
    .bind(limit)
    .fetch_all(db)
    .await?;
    let read = |(user, email): (Uuid, String)| {
        let email = Email::parse(&email).map_err(|refused| {
            AuthError::Unreadable(format!("account.email of {user}: {refused}"))
        })?;
        Ok((Id::new(user), email))
    };
    rows.into_iter().map(read).collect()
}

/// Seals the e-mail of a locked account, and writes what stands for it.
pub(crate) async fn seal_email(
    db: &mut PgConnection,
    vault: &Vault,
    user: Id<id::User>,
    email: &Email,
) -> Result<(), AuthError> {
    let subject = user.uuid();
    let found: Option<(i32, Vec<u8>)> =
        sqlx::query_as("SELECT version, wrapped FROM subject_key WHERE subject = $1")
            .bind(subject)
            .fetch_optional(&mut *db)
            .await?;
    let key = if let Some((version, wrapped)) = found {
        let wrapped = wrapped_key(version, wrapped);
        vault.envelope.open_key(subject, &wrapped)?
    } else {
        let (key, wrapped) = vault.envelope.make_key(subject);
        insert_keys(db, vec![(subject, wrapped)]).await?;
        key
    };
    let at_rest = vault.lay(&key, email);
    sqlx::query("UPDATE account SET email = $2, sealed_email = $3, email_index = $4 WHERE id = $1")
        .bind(subject)
        .bind(at_rest.plain)
        .bind(at_rest.sealed)
        .bind(vault.index(email))
        .execute(db)
        .await?;
    Ok(())
}

/// Keys that lie under a wrapping key older than `version`, which nobody else changes until the transaction ends, at
/// most `limit`.
pub(crate) async fn lock_old_keys(
    db: &mut PgConnection,
    version: u32,
    limit: i64,
) -> Result<Vec<(Uuid, WrappedKey)>, AuthError> {
    let rows: Vec<(Uuid, i32, Vec<u8>)> = sqlx::query_as(
        "SELECT subject, version, wrapped FROM subject_key WHERE version < $1
         ORDER BY version, subject LIMIT $2 FOR UPDATE",
    )
    .bind(version as i32)
    .bind(limit)
    .fetch_all(db)
    .await?;
    let read = |(subject, version, wrapped)| (subject, wrapped_key(version, wrapped));
    Ok(rows.into_iter().map(read).collect())
}

/// Puts a locked key under another wrapping key.
pub(crate) async fn save_key(
    db: &mut PgConnection,
    subject: Uuid,
    key: &WrappedKey,
) -> Result<(), AuthError> {
    sqlx::query("UPDATE subject_key SET version = $2, wrapped = $3 WHERE subject = $1")
        .bind(subject)
        .bind(key.version as i32)
        .bind(&key.bytes)
        .execute(db)
        .await?;
    Ok(())
}

async fn insert_keys(
    db: &mut PgConnection,
    keys: Vec<(Uuid, WrappedKey)>,
) -> Result<(), AuthError> {
    let mut subjects = Vec::with_capacity(keys.len());
    let mut versions = Vec::with_capacity(keys.len());
    let mut wrapped = Vec::with_capacity(keys.len());
    for (subject, key) in keys {
        subjects.push(subject);
        versions.push(key.version as i32);
        wrapped.push(key.bytes);
    }
    sqlx::query(
        "INSERT INTO subject_key (subject, version, wrapped)
         SELECT subject, version, wrapped
         FROM unnest($1::uuid[], $2::integer[], $3::bytea[]) AS made (subject, version, wrapped)",
    )
    .bind(subjects)
    .bind(versions)
    .bind(wrapped)
    .execute(db)
    .await?;
    Ok(())
}

fn wrapped_key(version: i32, bytes: Vec<u8>) -> WrappedKey {
    WrappedKey {
        // The column's check holds it above 0.
        version: version as u32,
        bytes,
    }
}

#[derive(sqlx::FromRow)]
struct AccountRow {
    id: Uuid,
    email: Option<String>,
    sealed_email: Option<Vec<u8>>,
    role: String,
    is_active: bool,
    password_hash: Option<String>,
    created_at: jiff_sqlx::Timestamp,
    news: i64,
    key_version: Option<i32>,
    wrapped: Option<Vec<u8>>,
}

impl AccountRow {
    fn read(self, vault: &Vault) -> Result<Account, AuthError> {
        let user = Id::new(self.id);
        let role = self.role.parse().map_err(|refused| {
            AuthError::Unreadable(format!("account.role of {user}: {refused}"))
        })?;
        let key = match self.key_version.zip(self.wrapped) {
            Some((version, wrapped)) => {
                let wrapped = wrapped_key(version, wrapped);
                Some(vault.envelope.open_key(self.id, &wrapped)?)
            }
            None => None,
        };
        let email = AtRest {
            plain: self.email,
            sealed: self.sealed_email,
        };
        let email = email.read(key.as_ref())?.unwrap_or_default();
        let email = Email::parse(&email).map_err(|refused| {
            AuthError::Unreadable(format!("account.email of {user}: {refused}"))
        })?;
        Ok(Account {
            user,
            email,
            role,
            is_active: self.is_active,
            password_hash: self.password_hash,
            created_at: self.created_at.into(),
            news: self.news,
        })
    }
}

#[derive(sqlx::FromRow)]
struct SessionRow {
    id: Uuid,
    account_id: Uuid,
    state: String,
    turn: i64,
    turned_at: jiff_sqlx::Timestamp,
    opened_at: jiff_sqlx::Timestamp,
    expires_at: jiff_sqlx::Timestamp,
    user_agent: String,
}

impl SessionRow {
    fn read(self) -> Result<Session, AuthError> {
        let id = Id::new(self.id);
        let open = SessionState::Open {
            turn: self.turn,
            turned_at: self.turned_at.into(),
        };
        let state = [open, SessionState::LoggedOut, SessionState::Revoked]
            .into_iter()
            .find(|state| state_word(*state) == self.state)
            .ok_or_else(|| {
                AuthError::Unreadable(format!("session.state of {id}: {:?}", self.state))
            })?;
        Ok(Session {
            id,
            user: Id::new(self.account_id),
            state,
            opened_at: self.opened_at.into(),
            expires_at: self.expires_at.into(),
            user_agent: UserAgent::cut(&self.user_agent),
        })
    }
}

fn read_ended((session, expires_at): (Uuid, jiff_sqlx::Timestamp)) -> Ended {
    Ended {
        session: Id::new(session),
        expires_at: expires_at.into(),
    }
}

fn state_word(state: SessionState) -> &'static str {
    match state {
        SessionState::Open { .. } => "open",
        SessionState::LoggedOut => "logged_out",
        SessionState::Revoked => "revoked",
    }
}
