//! The table `subject_key` of a service that holds what is personal: one row a person, whose deletion forgets them.
//!
//! Such a service has `subject uuid PRIMARY KEY`, `version integer` and `wrapped bytea` in it.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Envelope, SubjectKey, WrappedKey};
use crate::{database, fault::Fault};

/// Keys wrapped anew in one transaction.
const BATCH_MAX_ROWS: i64 = 500;
/// How often keys are looked for that lie under an old wrapping key.
const WRAP_INTERVAL_SECS: u64 = 60 * 60;

impl WrappedKey {
    /// The key in these columns.
    pub fn in_columns(version: i32, wrapped: Vec<u8>) -> Self {
        Self {
            // The column's check holds it above 0.
            version: version as u32,
            bytes: wrapped,
        }
    }
}

impl Envelope {
    /// The key of a person, made when there is none.
    pub async fn key_of(&self, db: &mut PgConnection, subject: Uuid) -> Result<SubjectKey, Fault> {
        let found: Option<(i32, Vec<u8>)> =
            sqlx::query_as("SELECT version, wrapped FROM subject_key WHERE subject = $1")
                .bind(subject)
                .fetch_optional(&mut *db)
                .await?;
        if let Some((version, wrapped)) = found {
            let wrapped = WrappedKey::in_columns(version, wrapped);
            return self.open_key(subject, &wrapped).map_err(Fault::internal);
        }
        let (key, wrapped) = self.make_key(subject);
        insert_keys(db, vec![(subject, wrapped)]).await?;
        Ok(key)
    }

    /// Wraps keys that lie under an old wrapping key under the new one, until shutdown.
    pub async fn keep_wrapping(self, pool: PgPool, shutdown: CancellationToken) {
        let mut looks = tokio::time::interval(Duration::from_secs(WRAP_INTERVAL_SECS));
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = looks.tick() => {}
            }
            match self.wrap_anew(&pool).await {
                Ok(0) => {}
                Ok(keys) => tracing::info!(keys, "wrapped keys of persons anew"),
                Err(error) => tracing::warn!(%error, "cannot wrap keys of persons anew"),
            }
        }
    }

    async fn wrap_anew(&self, pool: &PgPool) -> Result<usize, Fault> {
        let mut wrapped = 0;
        loop {
            let mut tx = database::begin(pool).await?;
            let keys = lock_old_keys(&mut tx, self.version(), BATCH_MAX_ROWS).await?;
            for (subject, old) in &keys {
                let new = self.rewrap(*subject, old).map_err(Fault::internal)?;
                save_key(&mut tx, *subject, &new).await?;
            }
            database::commit(tx).await?;
            wrapped += keys.len();
            if keys.is_empty() {
                return Ok(wrapped);
            }
        }
    }
}

/// Keeps the keys of persons who have none yet.
pub async fn insert_keys(
    db: &mut PgConnection,
    keys: Vec<(Uuid, WrappedKey)>,
) -> Result<(), Fault> {
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

/// Throws a person's key away: what was sealed under it is noise, wherever copies of it lie.
pub async fn delete_key(db: &mut PgConnection, subject: Uuid) -> Result<(), Fault> {
    sqlx::query("DELETE FROM subject_key WHERE subject = $1")
        .bind(subject)
        .execute(db)
        .await?;
    Ok(())
}

/// Keys that lie under a wrapping key older than `version`, which nobody else changes until the transaction ends, at
/// most `limit`.
async fn lock_old_keys(
    db: &mut PgConnection,
    version: u32,
    limit: i64,
) -> Result<Vec<(Uuid, WrappedKey)>, Fault> {
    let rows: Vec<(Uuid, i32, Vec<u8>)> = sqlx::query_as(
        "SELECT subject, version, wrapped FROM subject_key WHERE version < $1
         ORDER BY version, subject LIMIT $2 FOR UPDATE",
    )
    .bind(version as i32)
    .bind(limit)
    .fetch_all(db)
    .await?;
    let read = |(subject, version, wrapped)| (subject, WrappedKey::in_columns(version, wrapped));
    Ok(rows.into_iter().map(read).collect())
}

/// Puts a locked key under another wrapping key.
async fn save_key(db: &mut PgConnection, subject: Uuid, key: &WrappedKey) -> Result<(), Fault> {
    sqlx::query("UPDATE subject_key SET version = $2, wrapped = $3 WHERE subject = $1")
        .bind(subject)
        .bind(key.version as i32)
        .bind(&key.bytes)
        .execute(db)
        .await?;
    Ok(())
}
