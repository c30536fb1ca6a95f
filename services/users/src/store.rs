//! Every statement on profiles and addresses.

use holdfast_kernel::{Id, Language, Timestamp, id};
use holdfast_platform::envelope::{
    SubjectKey, WrappedKey,
    subject_keys::{delete_key, insert_keys},
};
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    domain::{Address, PersonName, PostalAddress, Profile},
    error::UsersError,
    vault::{AtRest, Vault},
};

const EMAIL: &str = "profile.email";
const NAME: &str = "profile.name";
const ADDRESS: &str = "address.sealed";

/// Writes a new profile; an account that has one keeps it.
pub(crate) async fn insert_profile(
    db: &mut PgConnection,
    vault: &Vault,
    profile: &Profile,
) -> Result<bool, UsersError> {
    let (key, wrapped) = vault.envelope.make_key(profile.user.uuid());
    let email = vault.lay(&key, EMAIL, &profile.email);
    let name = vault.lay(&key, NAME, profile.name.as_str());
    let done = sqlx::query(
        "INSERT INTO profile (user_id, email, name, sealed_email, sealed_name, created_at, version, locale)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (user_id) DO NOTHING",
    )
    .bind(profile.user.uuid())
    .bind(email.plain)
    .bind(name.plain)
    .bind(email.sealed)
    .bind(name.sealed)
    .bind(profile.created_at.to_sqlx())
    .bind(profile.version)
    .bind(profile.locale.map(Language::tag))
    .execute(&mut *db)
    .await?;
    let is_new = done.rows_affected() == 1;
    if is_new {
        insert_keys(db, vec![(profile.user.uuid(), wrapped)]).await?;
    }
    Ok(is_new)
}

/// The profile of this account.
pub(crate) async fn find_profile(
    db: &mut PgConnection,
    vault: &Vault,
    user: Id<id::User>,
) -> Result<Option<Profile>, UsersError> {
    let found = find_profiles(db, vault, &[user]).await?;
    Ok(found.into_iter().next())
}

/// The profiles of these accounts, as far as they have one.
pub(crate) async fn find_profiles(
    db: &mut PgConnection,
    vault: &Vault,
    users: &[Id<id::User>],
) -> Result<Vec<Profile>, UsersError> {
    let users: Vec<Uuid> = users.iter().map(|user| user.uuid()).collect();
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT user_id, email, name, sealed_email, sealed_name, locale, created_at, profile.version,
            subject_key.version AS key_version, wrapped
         FROM profile LEFT JOIN subject_key ON subject = user_id
         WHERE user_id = ANY($1)",
    )
    .bind(users)
    .fetch_all(db)
    .await?;
    read_all(rows, vault)
}

/// The profile of this account, which nobody else changes until the transaction ends.
pub(crate) async fn lock_profile(
    db: &mut PgConnection,
    vault: &Vault,
    user: Id<id::User>,
) -> Result<Option<Profile>, UsersError> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT user_id, email, name, sealed_email, sealed_name, locale, created_at, profile.version,
            subject_key.version AS key_version, wrapped
         FROM profile LEFT JOIN subject_key ON subject = user_id
         WHERE user_id = $1 FOR UPDATE OF profile",
    )
    .bind(user.uuid())
    .fetch_optional(db)
    .await?;
    let found = read_all(row.into_iter().collect(), vault)?;
    Ok(found.into_iter().next())
}

/// Profiles that lie in the clear, which nobody else changes until the transaction ends, at most `limit`.
pub(crate) async fn lock_plain_profiles(
    db: &mut PgConnection,
    vault: &Vault,
    limit: i64,
) -> Result<Vec<Profile>, UsersError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT user_id, email, name, sealed_email, sealed_name, locale, created_at, profile.version,
            subject_key.version AS key_version, wrapped
         FROM profile LEFT JOIN subject_key ON subject = user_id
         WHERE name IS NOT NULL ORDER BY user_id LIMIT $1 FOR UPDATE OF profile",
    )
    .bind(limit)
    .fetch_all(db)
    .await?;
    read_all(rows, vault)
}

/// Writes what may change of a locked profile.
pub(crate) async fn save_profile(
    db: &mut PgConnection,
    vault: &Vault,
    profile: &Profile,
) -> Result<(), UsersError> {
    let key = vault.envelope.key_of(db, profile.user.uuid()).await?;
    let email = vault.lay(&key, EMAIL, &profile.email);
    let name = vault.lay(&key, NAME, profile.name.as_str());
    sqlx::query(
        "UPDATE profile SET email = $2, name = $3, sealed_email = $4, sealed_name = $5, version = $6,
            locale = $7
         WHERE user_id = $1",
    )
    .bind(profile.user.uuid())
    .bind(email.plain)
    .bind(name.plain)
    .bind(email.sealed)
    .bind(name.sealed)
    .bind(profile.version)
    .bind(profile.locale.map(Language::tag))
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets a person: the profile's content, the addresses, and the key under which copies of them lie elsewhere.
///
/// Gives the version of the news of that; `None` when there was nobody to forget.
pub(crate) async fn erase_person(
    db: &mut PgConnection,
    user: Id<id::User>,
    now: Timestamp,
) -> Result<Option<i64>, UsersError> {
    let version: Option<i64> = sqlx::query_scalar(
        "UPDATE profile SET email = NULL, name = NULL, sealed_email = NULL, sealed_name = NULL, locale = NULL,
            erased_at = $2, version = version + 1
         WHERE user_id = $1 AND erased_at IS NULL
         RETURNING version",
    )
    .bind(user.uuid())
    .bind(now.to_sqlx())
    .fetch_optional(&mut *db)
    .await?;
    if version.is_some() {
        sqlx::query("DELETE FROM address WHERE user_id = $1")
            .bind(user.uuid())
            .execute(&mut *db)
            .await?;
        delete_key(db, user.uuid()).await?;
    }
    Ok(version)
}

/// The addresses of this person, oldest first.
pub(crate) async fn list_addresses(
    db: &mut PgConnection,
    vault: &Vault,
    user: Id<id::User>,
) -> Result<Vec<Address>, UsersError> {
    let rows: Vec<AddressRow> = sqlx::query_as(
        "SELECT id, user_id, sealed, created_at, address.version, subject_key.version AS key_version, wrapped
         FROM address JOIN subject_key ON subject = user_id
         WHERE user_id = $1 ORDER BY created_at, id",
    )
    .bind(user.uuid())
    .fetch_all(db)
    .await?;
    rows.into_iter().map(|row| row.read(vault)).collect()
}

/// How many addresses this person has.
pub(crate) async fn count_addresses(
    db: &mut PgConnection,
    user: Id<id::User>,
) -> Result<i64, UsersError> {
    let count = sqlx::query_scalar("SELECT count(*) FROM address WHERE user_id = $1");
    Ok(count.bind(user.uuid()).fetch_one(db).await?)
}

/// The address of this id.
pub(crate) async fn find_address(
    db: &mut PgConnection,
    vault: &Vault,
    address: Id<id::Address>,
) -> Result<Option<Address>, UsersError> {
    let row: Option<AddressRow> = sqlx::query_as(
        "SELECT id, user_id, sealed, created_at, address.version, subject_key.version AS key_version, wrapped
         FROM address JOIN subject_key ON subject = user_id
         WHERE id = $1",
    )
    .bind(address.uuid())
    .fetch_optional(db)
    .await?;
    row.map(|row| row.read(vault)).transpose()
}

/// The address of this id, which nobody else changes until the transaction ends.
pub(crate) async fn lock_address(
    db: &mut PgConnection,
    vault: &Vault,
    address: Id<id::Address>,
) -> Result<Option<Address>, UsersError> {
    let row: Option<AddressRow> = sqlx::query_as(
        "SELECT id, user_id, sealed, created_at, address.version, subject_key.version AS key_version, wrapped
         FROM address JOIN subject_key ON subject = user_id
         WHERE id = $1 FOR UPDATE OF address",
    )
    .bind(address.uuid())
    .fetch_optional(db)
    .await?;
    row.map(|row| row.read(vault)).transpose()
}

/// Writes a new address of a person whose profile is locked.
pub(crate) async fn insert_address(
    db: &mut PgConnection,
    vault: &Vault,
    address: &Address,
) -> Result<(), UsersError> {
    let key = vault.envelope.key_of(db, address.user.uuid()).await?;
    sqlx::query(
        "INSERT INTO address (id, user_id, sealed, created_at, version) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(address.id.uuid())
    .bind(address.user.uuid())
    .bind(seal(&key, &address.postal))
    .bind(address.created_at.to_sqlx())
    .bind(address.version)
    .execute(db)
    .await?;
    Ok(())
}

/// Writes what may change of a locked address.
pub(crate) async fn save_address(
    db: &mut PgConnection,
    vault: &Vault,
    address: &Address,
) -> Result<(), UsersError> {
    let key = vault.envelope.key_of(db, address.user.uuid()).await?;
    sqlx::query("UPDATE address SET sealed = $2, version = $3 WHERE id = $1")
        .bind(address.id.uuid())
        .bind(seal(&key, &address.postal))
        .bind(address.version)
        .execute(db)
        .await?;
    Ok(())
}

/// Removes a locked address.
pub(crate) async fn delete_address(
    db: &mut PgConnection,
    address: Id<id::Address>,
) -> Result<(), UsersError> {
    sqlx::query("DELETE FROM address WHERE id = $1")
        .bind(address.uuid())
        .execute(db)
        .await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct Row {
    user_id: Uuid,
    email: Option<String>,
    name: Option<String>,
    sealed_email: Option<Vec<u8>>,
    sealed_name: Option<Vec<u8>>,
    locale: Option<String>,
    created_at: jiff_sqlx::Timestamp,
    version: i64,
    key_version: Option<i32>,
    wrapped: Option<Vec<u8>>,
}

/// The profiles of these rows; those whose person was erased are none.
fn read_all(rows: Vec<Row>, vault: &Vault) -> Result<Vec<Profile>, UsersError> {
    let read = rows.into_iter().map(|row| row.read(vault));
    read.filter_map(Result::transpose).collect()
}

impl Row {
    fn read(self, vault: &Vault) -> Result<Option<Profile>, UsersError> {
        let user = Id::new(self.user_id);
        let key = match self.key_version.zip(self.wrapped) {
            Some((version, wrapped)) => {
                let wrapped = WrappedKey::in_columns(version, wrapped);
                Some(vault.envelope.open_key(self.user_id, &wrapped)?)
            }
            None => None,
        };
        let email = AtRest {
            plain: self.email,
            sealed: self.sealed_email,
        };
        let name = AtRest {
            plain: self.name,
            sealed: self.sealed_name,
        };
        let (email, name) = (
            email.read(key.as_ref(), EMAIL)?,
            name.read(key.as_ref(), NAME)?,
        );
        let Some((email, name)) = email.zip(name) else {
            return Ok(None);
        };
        let name = PersonName::parse(&name).map_err(|refused| {
            UsersError::Unreadable(format!("profile.name of {user}: {refused}"))
        })?;
        let locale = self.locale.map(|tag| {
            Language::parse(&tag).ok_or_else(|| {
                UsersError::Unreadable(format!("profile.locale of {user}: got {tag:?}"))
            })
        });
        Ok(Some(Profile {
            user,
            email,
            name,
            locale: locale.transpose()?,
            created_at: Timestamp::from(self.created_at),
            version: self.version,
        }))
    }
}

fn seal(key: &SubjectKey, postal: &PostalAddress) -> Vec<u8> {
    let text = serde_json::to_string(postal).expect("texts and finite numbers are JSON");
    key.seal(ADDRESS, &text)
}

#[derive(sqlx::FromRow)]
struct AddressRow {
    id: Uuid,
    user_id: Uuid,
    sealed: Vec<u8>,
    created_at: jiff_sqlx::Timestamp,
    version: i64,
    key_version: i32,
    wrapped: Vec<u8>,
}

impl AddressRow {
    fn read(self, vault: &Vault) -> Result<Address, UsersError> {
        let wrapped = WrappedKey::in_columns(self.key_version, self.wrapped);
        let key = vault.envelope.open_key(self.user_id, &wrapped)?;
        let text = key.open(ADDRESS, &self.sealed)?;
        let postal = serde_json::from_str(&text).map_err(|_| {
            UsersError::Unreadable(format!("address.sealed of {}: not an address", self.id))
        })?;
        Ok(Address {
            id: Id::new(self.id),
            user: Id::new(self.user_id),
            postal,
            created_at: self.created_at.into(),
            version: self.version,
        })
    }
}
