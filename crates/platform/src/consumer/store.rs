//! Every statement on positions and the states of keys.

use std::collections::HashMap;

use sqlx::PgConnection;

use super::verdict::KeyState;
use crate::{bus::Place, parking::Cause};

pub(super) async fn position(
    conn: &mut PgConnection,
    consumer: &str,
    place: &Place,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT next_offset FROM consumer_position WHERE consumer = $1 AND topic = $2 AND partition = $3",
    )
    .bind(consumer)
    .bind(place.topic.name())
    .bind(place.partition)
    .fetch_optional(conn)
    .await
}

pub(super) async fn begin(
    conn: &mut PgConnection,
    consumer: &str,
    place: &Place,
    next_offset: i64,
    knows_every_key: bool,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO consumer_position (consumer, topic, partition, next_offset, knows_every_key)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (consumer, topic, partition) DO NOTHING",
    )
    .bind(consumer)
    .bind(place.topic.name())
    .bind(place.partition)
    .bind(next_offset)
    .bind(knows_every_key)
    .execute(conn)
    .await?;
    Ok(())
}

/// Moves the position if it is still where the caller read; then says whether every key ever seen is known.
pub(super) async fn move_position(
    conn: &mut PgConnection,
    consumer: &str,
    place: &Place,
    from: i64,
    next: i64,
) -> Result<Option<bool>, sqlx::Error> {
    sqlx::query_scalar(
        "UPDATE consumer_position SET next_offset = $5
         WHERE consumer = $1 AND topic = $2 AND partition = $3 AND next_offset = $4
         RETURNING knows_every_key",
    )
    .bind(consumer)
    .bind(place.topic.name())
    .bind(place.partition)
    .bind(from)
    .bind(next)
    .fetch_optional(conn)
    .await
}

/// Keeps the consumer's readers of the partition out until the caller's transaction ends.
pub(crate) async fn lock_position(
    conn: &mut PgConnection,
    consumer: &str,
    topic: &str,
    partition: i32,
) -> Result<Option<bool>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT knows_every_key FROM consumer_position
         WHERE consumer = $1 AND topic = $2 AND partition = $3 FOR UPDATE",
    )
    .bind(consumer)
    .bind(topic)
    .bind(partition)
    .fetch_optional(conn)
    .await
}

/// What is known of these keys: those seen or blocked, with their last version and the graver cause.
pub(crate) async fn states(
    conn: &mut PgConnection,
    consumer: &str,
    topic: &str,
    keys: &[&str],
) -> Result<HashMap<String, KeyState>, sqlx::Error> {
    let known: Vec<(String, Option<i64>, Option<bool>)> = sqlx::query_as(
        // A subquery a key: planned while the tables are young, `key = ANY` would read every key there is.
        "SELECT key, version, only_gaps FROM (
            SELECT wanted.key,
                   (SELECT known.version FROM consumer_key AS known
                    WHERE known.consumer = $1 AND known.topic = $2 AND known.key = wanted.key) AS version,
                   (SELECT bool_and(cause = 'gap') FROM parked_message AS parked
                    WHERE parked.consumer = $1 AND parked.topic = $2 AND parked.key = wanted.key) AS only_gaps
            FROM unnest($3::text[]) AS wanted (key)
         ) AS looked_up
         WHERE version IS NOT NULL OR only_gaps IS NOT NULL",
    )
    .bind(consumer)
    .bind(topic)
    .bind(keys)
    .fetch_all(conn)
    .await?;
    let cause = |only_gaps| if only_gaps { Cause::Gap } else { Cause::Fault };
    Ok(known
        .into_iter()
        .map(|(key, version, only_gaps)| {
            let blocked = only_gaps.map(cause);
            (key, KeyState { version, blocked })
        })
        .collect())
}

/// Remembers for each key its last version and the offset that brought it.
pub(super) async fn save_versions(
    conn: &mut PgConnection,
    consumer: &str,
    place: &Place,
    advanced: &HashMap<String, (i64, i64)>,
) -> Result<(), sqlx::Error> {
    let (keys, (versions, offsets)): (Vec<&str>, (Vec<i64>, Vec<i64>)) = advanced
        .iter()
        .map(|(key, &saved)| (key.as_str(), saved))
        .unzip();
    sqlx::query(
        "INSERT INTO consumer_key (consumer, topic, partition, key, version, last_offset)
         SELECT $1, $2, $3, key, version, last_offset
         FROM unnest($4::text[], $5::int8[], $6::int8[]) AS saved (key, version, last_offset)
         ON CONFLICT (consumer, topic, key) DO UPDATE
         SET version = excluded.version, partition = excluded.partition, last_offset = excluded.last_offset",
    )
    .bind(consumer)
    .bind(place.topic.name())
    .bind(place.partition)
    .bind(keys)
    .bind(versions)
    .bind(offsets)
    .execute(conn)
    .await?;
    Ok(())
}

/// Remembers the version of one key, whose last offset stays what it was, or becomes `log_offset` for a new one.
pub(crate) async fn save_version(
    conn: &mut PgConnection,
    consumer: &str,
    topic: &str,
    partition: i32,
    key: &str,
    version: i64,
    log_offset: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO consumer_key (consumer, topic, partition, key, version, last_offset)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (consumer, topic, key) DO UPDATE
         SET version = excluded.version, last_offset = greatest(consumer_key.last_offset, excluded.last_offset)",
    )
    .bind(consumer)
    .bind(topic)
    .bind(partition)
    .bind(key)
    .bind(version)
    .bind(log_offset)
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets keys last heard of before `oldest`, and says how many.
pub(super) async fn prune_keys(
    conn: &mut PgConnection,
    consumer: &str,
    place: &Place,
    oldest: i64,
    max_keys: i64,
) -> Result<u64, sqlx::Error> {
    lock_position(conn, consumer, place.topic.name(), place.partition).await?;
    let pruned = sqlx::query(
        "DELETE FROM consumer_key WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM consumer_key AS old
            WHERE consumer = $1 AND topic = $2 AND partition = $3 AND last_offset < $4
            AND NOT EXISTS (
                SELECT FROM parked_message AS parked
                WHERE parked.consumer = $1 AND parked.topic = $2 AND parked.key = old.key
            )
            LIMIT $5
         ))",
    )
    .bind(consumer)
    .bind(place.topic.name())
    .bind(place.partition)
    .bind(oldest)
    .bind(max_keys)
    .execute(&mut *conn)
    .await?
    .rows_affected();
    if pruned > 0 {
        sqlx::query(
            "UPDATE consumer_position SET knows_every_key = false
             WHERE consumer = $1 AND topic = $2 AND partition = $3",
        )
        .bind(consumer)
        .bind(place.topic.name())
        .bind(place.partition)
        .execute(conn)
        .await?;
    }
    Ok(pruned)
}
