//! Every statement on the reply table.

use holdfast_kernel::{RequestId, Timestamp};
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::idempotency::Fingerprint;

/// What is known of a request that was answered before.
pub(crate) struct Stored {
    pub(crate) fingerprint: Fingerprint,
    /// The reply, as long as its time is not over.
    pub(crate) sealed: Option<Vec<u8>>,
}

/// What was answered to these requests, as far as anything was.
pub(crate) async fn find_replies(
    db: &mut PgConnection,
    requests: &[Uuid],
    now: Timestamp,
) -> Result<Vec<(RequestId, Stored)>, sqlx::Error> {
    let rows: Vec<(Uuid, Vec<u8>, Option<Vec<u8>>)> = sqlx::query_as(
        "SELECT request_id, fingerprint, CASE WHEN kept_until > $2 THEN sealed END
           FROM reply WHERE request_id = ANY($1)",
    )
    .bind(requests)
    .bind(now.to_sqlx())
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|(request, fingerprint, sealed)| {
            let fingerprint = fingerprint.try_into().map_err(|other: Vec<u8>| {
                let text = format!("reply.fingerprint of {request}: {} bytes", other.len());
                sqlx::Error::Decode(text.into())
            })?;
            let stored = Stored {
                fingerprint,
                sealed,
            };
            Ok((RequestId::new(request), stored))
        })
        .collect()
}

/// Keeps a reply until `kept_until`, unless one is kept already.
///
/// A row whose reply's time is over takes the new one, if it is of the same request.
pub(crate) async fn keep_reply(
    db: &mut PgConnection,
    request: RequestId,
    fingerprint: &Fingerprint,
    sealed: &[u8],
    now: Timestamp,
    kept_until: Timestamp,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO reply (request_id, fingerprint, sealed, kept_until)
         VALUES ($1, $2, $3, $5)
         ON CONFLICT (request_id) DO UPDATE SET sealed = excluded.sealed, kept_until = excluded.kept_until
          WHERE reply.fingerprint = excluded.fingerprint AND (reply.sealed IS NULL OR reply.kept_until <= $4)",
    )
    .bind(request.uuid())
    .bind(fingerprint.as_slice())
    .bind(sealed)
    .bind(now.to_sqlx())
    .bind(kept_until.to_sqlx())
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Drops the bytes of replies whose time is over, the oldest first, at most `limit`; the keys stay spent.
pub(crate) async fn prune_replies(
    db: &mut PgConnection,
    now: Timestamp,
    limit: i64,
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE reply SET sealed = NULL WHERE request_id IN (
            SELECT request_id FROM reply WHERE sealed IS NOT NULL AND kept_until <= $1
             ORDER BY kept_until LIMIT $2 FOR UPDATE SKIP LOCKED)",
    )
    .bind(now.to_sqlx())
    .bind(limit)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Whether the database answers.
pub(crate) async fn ping(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT 1").execute(db).await.map(drop)
}
