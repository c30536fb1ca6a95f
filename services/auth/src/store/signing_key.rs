//! Statements on the keys that sign tokens.

use holdfast_kernel::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;

use crate::{
    error::AuthError,
    keys::{KeyState, PublicKey, SealedKey},
};

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
