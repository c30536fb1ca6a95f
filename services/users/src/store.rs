//! Every statement on the profile table.

use holdfast_kernel::{Id, Timestamp, id};
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    domain::{PersonName, Profile},
    error::UsersError,
};

/// Writes a new profile; an account that has one keeps it.
pub(crate) async fn insert_profile(
    db: &mut PgConnection,
    profile: &Profile,
) -> Result<bool, UsersError> {
    let done = sqlx::query(
        "INSERT INTO profile (user_id, email, name, created_at, version)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (user_id) DO NOTHING",
    )
    .bind(profile.user.uuid())
    .bind(&profile.email)
    .bind(profile.name.as_str())
    .bind(profile.created_at.to_sqlx())
    .bind(profile.version)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The profile of this account.
pub(crate) async fn find_profile(
    db: &mut PgConnection,
    user: Id<id::User>,
) -> Result<Option<Profile>, UsersError> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT user_id, email, name, created_at, version FROM profile WHERE user_id = $1",
    )
    .bind(user.uuid())
    .fetch_optional(db)
    .await?;
    row.map(Row::read).transpose()
}

/// The profiles of these accounts, as far as they have one.
pub(crate) async fn find_profiles(
    db: &mut PgConnection,
    users: &[Id<id::User>],
) -> Result<Vec<Profile>, UsersError> {
    let users: Vec<Uuid> = users.iter().map(|user| user.uuid()).collect();
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT user_id, email, name, created_at, version FROM profile WHERE user_id = ANY($1)",
    )
    .bind(users)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Row::read).collect()
}

/// The profile of this account, which nobody else changes until the transaction ends.
pub(crate) async fn lock_profile(
    db: &mut PgConnection,
    user: Id<id::User>,
) -> Result<Option<Profile>, UsersError> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT user_id, email, name, created_at, version FROM profile WHERE user_id = $1 FOR UPDATE",
    )
    .bind(user.uuid())
    .fetch_optional(db)
    .await?;
    row.map(Row::read).transpose()
}

/// Writes what may change of a locked profile.
pub(crate) async fn save_profile(
    db: &mut PgConnection,
    profile: &Profile,
) -> Result<(), UsersError> {
    sqlx::query("UPDATE profile SET name = $2, version = $3 WHERE user_id = $1")
        .bind(profile.user.uuid())
        .bind(profile.name.as_str())
        .bind(profile.version)
        .execute(db)
        .await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct Row {
    user_id: Uuid,
    email: String,
    name: String,
    created_at: jiff_sqlx::Timestamp,
    version: i64,
}

impl Row {
    fn read(self) -> Result<Profile, UsersError> {
        let user = Id::new(self.user_id);
        let name = PersonName::parse(&self.name).map_err(|refused| {
            UsersError::Unreadable(format!("profile.name of {user}: {refused}"))
        })?;
        Ok(Profile {
            user,
            email: self.email,
            name,
            created_at: Timestamp::from(self.created_at),
            version: self.version,
        })
    }
}
