//! Every statement: on accounts here, on sessions, guesses and signing keys in files of their own.

mod guess;
mod session;
mod signing_key;

use holdfast_kernel::{Id, Timestamp, id};
use holdfast_platform::envelope::{
    WrappedKey,
    subject_keys::{delete_key, insert_keys},
};
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use uuid::Uuid;

pub(crate) use {guess::*, session::*, signing_key::*};

use crate::{
    domain::{Account, Applicant, Email},
    error::AuthError,
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
    Ok(insert_keys(db, keys).await?)
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
    delete_key(db, account.user.uuid()).await?;
    Ok(())
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
    let key = vault.envelope.key_of(db, subject).await?;
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
                let wrapped = WrappedKey::in_columns(version, wrapped);
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
