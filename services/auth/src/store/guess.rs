//! Statements on wrong passwords, and on the places an account is known from.

use holdfast_kernel::{Id, Timestamp, id};
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;

use crate::{domain::Guesses, error::AuthError};

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
