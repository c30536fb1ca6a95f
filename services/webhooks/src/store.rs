//! Every statement of this service.

use std::time::Duration;

use holdfast_kernel::{Id, Timestamp, id};
use holdfast_platform::{envelope::WrappedKey, message::Message};
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    domain::{Outcome, Status, Subscription},
    error::WebhooksError,
    seal::AtRest,
};

/// A subscription as it was asked for, under the fingerprint of that request.
pub(crate) struct Made {
    pub(crate) subscription: Subscription,
    pub(crate) fingerprint: Vec<u8>,
}

/// What is known of a secret.
pub(crate) struct SealedSecret {
    pub(crate) request_id: Uuid,
    pub(crate) subscription_id: Uuid,
    pub(crate) fingerprint: Vec<u8>,
    /// None once it signs nothing any more.
    pub(crate) at_rest: Option<AtRest>,
}

/// A delivery that was claimed, with all it takes to try it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct Claimed {
    pub(crate) subscription_id: Uuid,
    pub(crate) message_id: Uuid,
    pub(crate) epoch: i64,
    pub(crate) failures: i32,
    pub(crate) replays: i32,
    pub(crate) url: String,
    pub(crate) envelope: String,
}

/// How a delivery stands after a try.
pub(crate) struct Verdict {
    pub(crate) state: &'static str,
    pub(crate) due_at: Timestamp,
    pub(crate) failures: i32,
}

/// What a worker may claim.
pub(crate) struct Room<'a> {
    pub(crate) tries: i64,
    pub(crate) tries_each: i64,
    /// Subscriptions with tries under way here, and how many.
    pub(crate) busy: (&'a [Uuid], &'a [i64]),
    /// The subscription that was served last; those behind it come first.
    pub(crate) after: Uuid,
}

/// One try, with how its message stands.
#[derive(sqlx::FromRow)]
pub(crate) struct Attempt {
    pub(crate) id: i64,
    pub(crate) message_id: Uuid,
    pub(crate) kind: String,
    pub(crate) number: i64,
    pub(crate) at: jiff_sqlx::Timestamp,
    pub(crate) status: Option<i32>,
    pub(crate) failure: Option<String>,
    pub(crate) millis: Option<i64>,
    pub(crate) state: String,
    pub(crate) due_at: jiff_sqlx::Timestamp,
}

/// A message of the feed.
#[derive(sqlx::FromRow)]
pub(crate) struct Fed {
    pub(crate) feed_offset: i64,
    pub(crate) envelope: String,
}

// Subscriptions.

/// Lets one caller at a time count subscriptions and add one, until the transaction ends.
pub(crate) async fn lock_register(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('webhooks.register', 0))")
        .execute(db)
        .await?;
    Ok(())
}

pub(crate) async fn count_subscriptions(db: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT count(*) FROM subscription WHERE status <> 'deleted'")
        .fetch_one(db)
        .await
}

pub(crate) async fn insert_subscription(
    db: &mut PgConnection,
    made: &Made,
) -> Result<(), sqlx::Error> {
    let Made {
        subscription,
        fingerprint,
    } = made;
    sqlx::query(
        "INSERT INTO subscription (id, fingerprint, url, types, description, status, created_at)
         VALUES ($1, $2, $3, $4, $5, 'active', $6)",
    )
    .bind(subscription.id.uuid())
    .bind(fingerprint)
    .bind(&subscription.url)
    .bind(&subscription.types)
    .bind(&subscription.description)
    .bind(subscription.created_at.to_sqlx())
    .execute(db)
    .await?;
    Ok(())
}

/// The subscription of that id, deleted ones too.
pub(crate) async fn find_subscription(
    db: &mut PgConnection,
    subscription: Id<id::Webhook>,
) -> Result<Option<Made>, WebhooksError> {
    let row: Option<SubscriptionRow> = sqlx::query_as(
        "SELECT id, fingerprint, url, types, description, status, disabled_reason, failing_since, created_at
         FROM subscription WHERE id = $1",
    )
    .bind(subscription.uuid())
    .fetch_optional(db)
    .await?;
    row.map(SubscriptionRow::read).transpose()
}

/// The same; nobody else changes it until the transaction ends.
pub(crate) async fn lock_subscription(
    db: &mut PgConnection,
    subscription: Id<id::Webhook>,
) -> Result<Option<Made>, WebhooksError> {
    let row: Option<SubscriptionRow> = sqlx::query_as(
        "SELECT id, fingerprint, url, types, description, status, disabled_reason, failing_since, created_at
         FROM subscription WHERE id = $1 FOR NO KEY UPDATE",
    )
    .bind(subscription.uuid())
    .fetch_optional(db)
    .await?;
    row.map(SubscriptionRow::read).transpose()
}

/// Subscriptions that are not deleted, newest first, behind the one with this sort key.
pub(crate) async fn list_subscriptions(
    db: &mut PgConnection,
    after: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> Result<Vec<Subscription>, WebhooksError> {
    let rows: Vec<SubscriptionRow> = sqlx::query_as(
        "SELECT id, fingerprint, url, types, description, status, disabled_reason, failing_since, created_at
         FROM subscription
         WHERE status <> 'deleted' AND ($1::timestamptz IS NULL OR (created_at, id) < ($1, $2))
         ORDER BY created_at DESC, id DESC LIMIT $3",
    )
    .bind(after.map(|(at, _)| at.to_sqlx()))
    .bind(after.map(|(_, id)| id))
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| row.read().map(|made| made.subscription))
        .collect()
}

/// Writes what may change of a locked subscription.
pub(crate) async fn save_subscription(
    db: &mut PgConnection,
    subscription: &Subscription,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE subscription SET status = $2, disabled_reason = $3, failing_since = $4 WHERE id = $1",
    )
    .bind(subscription.id.uuid())
    .bind(subscription.status.as_str())
    .bind(subscription.status.reason())
    .bind(subscription.failing_since.map(ToSqlx::to_sqlx))
    .execute(db)
    .await?;
    Ok(())
}

/// Notes that something came through, where nothing had.
pub(crate) async fn note_success(
    db: &mut PgConnection,
    subscription: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE subscription SET failing_since = NULL WHERE id = $1 AND failing_since IS NOT NULL",
    )
    .bind(subscription)
    .execute(db)
    .await?;
    Ok(())
}

// Secrets.

/// Keeps a secret that signs until it is rotated out.
pub(crate) async fn insert_secret(
    db: &mut PgConnection,
    secret: &SealedSecret,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let at_rest = secret.at_rest.as_ref();
    sqlx::query(
        "INSERT INTO secret (request_id, subscription_id, fingerprint, key_version, wrapped_key, sealed, made_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(secret.request_id)
    .bind(secret.subscription_id)
    .bind(&secret.fingerprint)
    .bind(at_rest.map(|at_rest| at_rest.key.version.cast_signed()))
    .bind(at_rest.map(|at_rest| &at_rest.key.bytes))
    .bind(at_rest.map(|at_rest| &at_rest.sealed))
    .bind(now.to_sqlx())
    .execute(db)
    .await?;
    Ok(())
}

/// The secret that this request made.
pub(crate) async fn find_secret(
    db: &mut PgConnection,
    request: Uuid,
) -> Result<Option<SealedSecret>, sqlx::Error> {
    let row: Option<SecretRow> = sqlx::query_as(
        "SELECT request_id, subscription_id, fingerprint, key_version, wrapped_key, sealed
         FROM secret WHERE request_id = $1",
    )
    .bind(request)
    .fetch_optional(db)
    .await?;
    Ok(row.map(SecretRow::read))
}

/// Ends the secrets of a locked subscription at this moment, but for those that end before; of these the newest
/// `kept` go on, and older ones end now.
pub(crate) async fn end_secrets(
    db: &mut PgConnection,
    subscription: Id<id::Webhook>,
    until: Timestamp,
    kept: i64,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE secret SET signs_until = CASE
            WHEN newer.rank > $3 THEN $4
            ELSE least(signs_until, $2)
         END
         FROM (
            SELECT request_id, row_number() OVER (ORDER BY made_at DESC, request_id) AS rank
            FROM secret WHERE subscription_id = $1 AND sealed IS NOT NULL
         ) AS newer
         WHERE secret.request_id = newer.request_id",
    )
    .bind(subscription.uuid())
    .bind(until.to_sqlx())
    .bind(kept)
    .bind(now.to_sqlx())
    .execute(db)
    .await?;
    Ok(())
}

/// The secrets of these subscriptions that sign now, the newest first.
pub(crate) async fn live_secrets(
    db: &mut PgConnection,
    subscriptions: &[Uuid],
    now: Timestamp,
) -> Result<Vec<SealedSecret>, sqlx::Error> {
    let rows: Vec<SecretRow> = sqlx::query_as(
        "SELECT request_id, subscription_id, fingerprint, key_version, wrapped_key, sealed FROM secret
         WHERE subscription_id = ANY ($1) AND sealed IS NOT NULL AND (signs_until IS NULL OR signs_until > $2)
         ORDER BY made_at DESC, request_id",
    )
    .bind(subscriptions)
    .bind(now.to_sqlx())
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(SecretRow::read).collect())
}

/// Forgets every secret of a subscription.
pub(crate) async fn forget_secrets(
    db: &mut PgConnection,
    subscription: Id<id::Webhook>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE secret SET key_version = NULL, wrapped_key = NULL, sealed = NULL
         WHERE subscription_id = $1 AND sealed IS NOT NULL",
    )
    .bind(subscription.uuid())
    .execute(db)
    .await?;
    Ok(())
}

/// Keys of secrets that lie under an older wrapping key than this version, which nobody else changes until the
/// transaction ends.
pub(crate) async fn lock_old_keys(
    db: &mut PgConnection,
    version: u32,
    limit: i64,
) -> Result<Vec<(Uuid, WrappedKey)>, sqlx::Error> {
    let rows: Vec<(Uuid, i32, Vec<u8>)> = sqlx::query_as(
        "SELECT request_id, key_version, wrapped_key FROM secret
         WHERE sealed IS NOT NULL AND key_version < $1 LIMIT $2 FOR UPDATE SKIP LOCKED",
    )
    .bind(version.cast_signed())
    .bind(limit)
    .fetch_all(db)
    .await?;
    let key = |(request, version, bytes): (Uuid, i32, Vec<u8>)| {
        let version = version.cast_unsigned();
        (request, WrappedKey { version, bytes })
    };
    Ok(rows.into_iter().map(key).collect())
}

/// Writes a locked secret's key as it was wrapped anew.
pub(crate) async fn save_key(
    db: &mut PgConnection,
    request: Uuid,
    key: &WrappedKey,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE secret SET key_version = $2, wrapped_key = $3 WHERE request_id = $1")
        .bind(request)
        .bind(key.version.cast_signed())
        .bind(&key.bytes)
        .execute(db)
        .await?;
    Ok(())
}

// The feed.

/// Takes messages into the feed, in this order, as far as they are not there already, with a delivery for each
/// subscription that asked for one; `wishes` are the ways in which it may have asked for each type, and what has the type
/// `only_if_asked` is left out where nobody asked for it. Says how many deliveries that made.
pub(crate) async fn take_in(
    db: &mut PgConnection,
    messages: &[&Message],
    wishes: &[(&str, String)],
    only_if_asked: &str,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    let ids: Vec<Uuid> = messages.iter().map(|message| message.id).collect();
    let kinds: Vec<&str> = messages
        .iter()
        .map(|message| message.kind.as_str())
        .collect();
    let times: Vec<jiff_sqlx::Timestamp> = messages
        .iter()
        .map(|message| message.at.to_sqlx())
        .collect();
    let envelopes: Vec<String> = messages
        .iter()
        .map(|message| message.to_envelope())
        .collect();
    let (of_kinds, asked): (Vec<&str>, Vec<&str>) = (wishes.iter())
        .map(|(kind, wish)| (*kind, wish.as_str()))
        .unzip();
    let done = sqlx::query(
        "WITH asking AS MATERIALIZED (
            SELECT DISTINCT wish.kind, subscription.id
            FROM unnest($5::text[], $6::text[]) AS wish (kind, asked)
            JOIN subscription ON subscription.status = 'active' AND wish.asked = ANY (subscription.types)
         ), coming AS MATERIALIZED (
            SELECT id, kind, at, envelope, place
            FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::text[])
                 WITH ORDINALITY AS coming (id, kind, at, envelope, place)
            WHERE kind <> $7 OR EXISTS (SELECT FROM asking WHERE asking.kind = coming.kind)
         ), turn AS MATERIALIZED (
            SELECT one FROM feed WHERE EXISTS (SELECT FROM coming) FOR UPDATE
         ), taken AS (
            INSERT INTO message (id, kind, at, envelope, taken_at)
            SELECT coming.id, coming.kind, coming.at, coming.envelope, $8
            FROM turn CROSS JOIN coming ORDER BY coming.place
            ON CONFLICT (id) DO NOTHING
            RETURNING id, kind, feed_offset
         )
         INSERT INTO delivery (subscription_id, message_id, feed_offset, state, due_at)
         SELECT asking.id, taken.id, taken.feed_offset, 'waiting', $8
         FROM taken JOIN asking ON asking.kind = taken.kind",
    )
    .bind(ids)
    .bind(kinds)
    .bind(times)
    .bind(envelopes)
    .bind(of_kinds)
    .bind(asked)
    .bind(only_if_asked)
    .bind(now.to_sqlx())
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Messages of these types behind that place.
pub(crate) async fn list_messages(
    db: &mut PgConnection,
    after: i64,
    kinds: &[&str],
    limit: i64,
) -> Result<Vec<Fed>, sqlx::Error> {
    sqlx::query_as(
        "SELECT feed_offset, envelope FROM message
         WHERE feed_offset > $1 AND kind = ANY ($2) ORDER BY feed_offset LIMIT $3",
    )
    .bind(after)
    .bind(kinds)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// The highest place of the feed that is not kept any more.
pub(crate) async fn pruned_to(db: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT pruned_to FROM feed")
        .fetch_one(db)
        .await
}

// Deliveries.

/// Claims what is due until the lease ends, and writes down that it is being tried. A try whose lease ran out before is
/// written down as interrupted.
pub(crate) async fn claim_due(
    db: &mut PgConnection,
    room: &Room<'_>,
    lease: Duration,
    now: Timestamp,
) -> Result<Vec<Claimed>, sqlx::Error> {
    let leased_until = now.checked_add(lease).unwrap_or(Timestamp::MAX);
    sqlx::query_as(
        "WITH open AS MATERIALIZED (
            SELECT subscription.id, subscription.url, greatest($4 - coalesce(busy.tries, 0), 0) AS room
            FROM subscription LEFT JOIN unnest($5::uuid[], $6::int8[]) AS busy (id, tries) ON busy.id = subscription.id
            WHERE subscription.status = 'active'
            ORDER BY subscription.id <= $7, subscription.id
         ), due AS MATERIALIZED (
            SELECT waiting.subscription_id, waiting.message_id, open.url
            FROM open CROSS JOIN LATERAL (
                SELECT subscription_id, message_id FROM delivery
                WHERE subscription_id = open.id AND state = 'waiting' AND due_at <= $1 AND leased_until <= $1
                ORDER BY due_at, feed_offset LIMIT open.room
                FOR UPDATE SKIP LOCKED
            ) AS waiting
            LIMIT $3
         ), claimed AS (
            UPDATE delivery SET epoch = epoch + 1, leased_until = $2
            FROM due
            WHERE delivery.subscription_id = due.subscription_id AND delivery.message_id = due.message_id
            RETURNING delivery.subscription_id, delivery.message_id, epoch, failures, replays, due.url
         ), interrupted AS (
            UPDATE attempt SET failure = 'interrupted'
            FROM claimed
            WHERE attempt.subscription_id = claimed.subscription_id AND attempt.message_id = claimed.message_id
              AND attempt.number = claimed.epoch - 1 AND attempt.status IS NULL AND attempt.failure IS NULL
         ), begun AS (
            INSERT INTO attempt (subscription_id, message_id, number, at)
            SELECT subscription_id, message_id, epoch, $1 FROM claimed
         )
         SELECT claimed.subscription_id, claimed.message_id, claimed.epoch, claimed.failures, claimed.replays,
                claimed.url, message.envelope
         FROM claimed JOIN message ON message.id = claimed.message_id
         ORDER BY message.feed_offset",
    )
    .bind(now.to_sqlx())
    .bind(leased_until.to_sqlx())
    .bind(room.tries)
    .bind(room.tries_each)
    .bind(room.busy.0)
    .bind(room.busy.1)
    .bind(room.after)
    .fetch_all(db)
    .await
}

/// Writes down how a delivery stands after a try, unless a later try has begun: then says no, and writes nothing.
///
/// What was asked for again while the try went on stays due as it was asked for.
pub(crate) async fn settle_delivery(
    db: &mut PgConnection,
    claimed: &Claimed,
    verdict: &Verdict,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE delivery SET
            state = CASE WHEN replays = $4 THEN $5 ELSE state END,
            due_at = CASE WHEN replays = $4 THEN $6 ELSE due_at END,
            failures = CASE WHEN replays = $4 THEN $7 ELSE failures END,
            leased_until = $8
         WHERE subscription_id = $1 AND message_id = $2 AND epoch = $3",
    )
    .bind(claimed.subscription_id)
    .bind(claimed.message_id)
    .bind(claimed.epoch)
    .bind(claimed.replays)
    .bind(verdict.state)
    .bind(verdict.due_at.to_sqlx())
    .bind(verdict.failures)
    .bind(now.to_sqlx())
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Writes down what came of a try.
pub(crate) async fn finish_attempt(
    db: &mut PgConnection,
    claimed: &Claimed,
    outcome: Outcome,
    took: Duration,
) -> Result<(), sqlx::Error> {
    let (status, failure) = match outcome {
        Outcome::Answered { status, .. } => (Some(i32::from(status)), None),
        Outcome::Failed(failure) => (None, Some(failure.as_str())),
    };
    sqlx::query(
        "UPDATE attempt SET status = $4, failure = $5, millis = $6
         WHERE subscription_id = $1 AND message_id = $2 AND number = $3",
    )
    .bind(claimed.subscription_id)
    .bind(claimed.message_id)
    .bind(claimed.epoch)
    .bind(status)
    .bind(failure)
    .bind(took.as_millis() as i64)
    .execute(db)
    .await?;
    Ok(())
}

/// Every try to send to a subscription, newest first, before that one.
pub(crate) async fn list_attempts(
    db: &mut PgConnection,
    subscription: Id<id::Webhook>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Attempt>, sqlx::Error> {
    sqlx::query_as(
        "SELECT attempt.id, attempt.message_id, message.kind, attempt.number, attempt.at, attempt.status,
                attempt.failure, attempt.millis, delivery.state, delivery.due_at
         FROM attempt
         JOIN delivery USING (subscription_id, message_id)
         JOIN message ON message.id = attempt.message_id
         WHERE attempt.subscription_id = $1 AND ($2::int8 IS NULL OR attempt.id < $2)
         ORDER BY attempt.id DESC LIMIT $3",
    )
    .bind(subscription.uuid())
    .bind(before)
    .bind(limit)
    .fetch_all(db)
    .await
}

// Replays.

/// The fingerprint of a replay that was asked for under this id, its subscription, and how much was scheduled.
pub(crate) async fn find_replay(
    db: &mut PgConnection,
    request: Uuid,
) -> Result<Option<(Vec<u8>, Uuid, i64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT fingerprint, subscription_id, scheduled FROM replay WHERE request_id = $1",
    )
    .bind(request)
    .fetch_optional(db)
    .await
}

pub(crate) async fn insert_replay(
    db: &mut PgConnection,
    request: Uuid,
    subscription: Id<id::Webhook>,
    fingerprint: &[u8],
    scheduled: i64,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO replay (request_id, subscription_id, fingerprint, scheduled, made_at)
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(request)
    .bind(subscription.uuid())
    .bind(fingerprint)
    .bind(scheduled)
    .bind(now.to_sqlx())
    .execute(db)
    .await?;
    Ok(())
}

/// The message of that id, if it has one of these types.
pub(crate) async fn find_messages(
    db: &mut PgConnection,
    message: Uuid,
    kinds: &[&str],
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar("SELECT id FROM message WHERE id = $1 AND kind = ANY ($2)")
        .bind(message)
        .bind(kinds)
        .fetch_all(db)
        .await
}

/// Messages of these types that tell of what happened within these moments, at most so many.
pub(crate) async fn find_messages_within(
    db: &mut PgConnection,
    from: Timestamp,
    to: Timestamp,
    kinds: &[&str],
    limit: i64,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT id FROM message WHERE at >= $1 AND at < $2 AND kind = ANY ($3) LIMIT $4",
    )
    .bind(from.to_sqlx())
    .bind(to.to_sqlx())
    .bind(kinds)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Makes these messages due for a subscription, whatever became of them before. One that is being tried at this moment
/// is tried once more after that.
pub(crate) async fn schedule_again(
    db: &mut PgConnection,
    subscription: Id<id::Webhook>,
    messages: &[Uuid],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO delivery (subscription_id, message_id, feed_offset, state, due_at)
         SELECT $1, id, feed_offset, 'waiting', $3 FROM message WHERE id = ANY ($2) ORDER BY id
         ON CONFLICT (subscription_id, message_id) DO UPDATE
         SET state = 'waiting', due_at = $3, failures = 0, replays = delivery.replays + 1",
    )
    .bind(subscription.uuid())
    .bind(messages)
    .bind(now.to_sqlx())
    .execute(db)
    .await?;
    Ok(())
}

// Retention.

/// Drops the oldest messages, at most so many, as far as they came in before that moment, with their deliveries; how
/// many.
pub(crate) async fn prune_messages(
    db: &mut PgConnection,
    before: Timestamp,
    limit: i64,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "WITH dropped AS (
            DELETE FROM message WHERE feed_offset = ANY (ARRAY(
                SELECT feed_offset FROM (
                    SELECT feed_offset, taken_at FROM message ORDER BY feed_offset LIMIT $2
                ) AS oldest WHERE taken_at < $1
            ))
            RETURNING feed_offset
         ), noted AS (
            UPDATE feed SET pruned_to = greatest(pruned_to, (SELECT max(feed_offset) FROM dropped))
            WHERE EXISTS (SELECT FROM dropped)
         )
         SELECT count(*) FROM dropped",
    )
    .bind(before.to_sqlx())
    .bind(limit)
    .fetch_one(db)
    .await
}

/// Drops deliveries of subscriptions that are deleted; how many.
pub(crate) async fn prune_deliveries(
    db: &mut PgConnection,
    limit: i64,
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "DELETE FROM delivery WHERE ctid = ANY (ARRAY(
            SELECT delivery.ctid FROM subscription JOIN delivery ON delivery.subscription_id = subscription.id
            WHERE subscription.status = 'deleted' LIMIT $1
         ))",
    )
    .bind(limit)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Forgets secrets that sign nothing any more.
pub(crate) async fn prune_secrets(
    db: &mut PgConnection,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE secret SET key_version = NULL, wrapped_key = NULL, sealed = NULL
         WHERE sealed IS NOT NULL AND signs_until <= $1",
    )
    .bind(now.to_sqlx())
    .execute(db)
    .await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct SecretRow {
    request_id: Uuid,
    subscription_id: Uuid,
    fingerprint: Vec<u8>,
    key_version: Option<i32>,
    wrapped_key: Option<Vec<u8>>,
    sealed: Option<Vec<u8>>,
}

impl SecretRow {
    fn read(self) -> SealedSecret {
        let at_rest = match (self.key_version, self.wrapped_key, self.sealed) {
            (Some(version), Some(bytes), Some(sealed)) => Some(AtRest {
                key: WrappedKey {
                    version: version.cast_unsigned(),
                    bytes,
                },
                sealed,
            }),
            // The schema has all three or none.
            _ => None,
        };
        SealedSecret {
            request_id: self.request_id,
            subscription_id: self.subscription_id,
            fingerprint: self.fingerprint,
            at_rest,
        }
    }
}

#[derive(sqlx::FromRow)]
struct SubscriptionRow {
    id: Uuid,
    fingerprint: Vec<u8>,
    url: String,
    types: Vec<String>,
    description: String,
    status: String,
    disabled_reason: Option<String>,
    failing_since: Option<jiff_sqlx::Timestamp>,
    created_at: jiff_sqlx::Timestamp,
}

impl SubscriptionRow {
    fn read(self) -> Result<Made, WebhooksError> {
        let id = Id::new(self.id);
        let status = Status::read(&self.status, self.disabled_reason.as_deref());
        let status = status.ok_or_else(|| {
            WebhooksError::Unreadable(format!(
                "subscription.status of {id}: {:?}, {:?}",
                self.status, self.disabled_reason
            ))
        })?;
        Ok(Made {
            subscription: Subscription {
                id,
                url: self.url,
                types: self.types,
                description: self.description,
                status,
                failing_since: self.failing_since.map(Timestamp::from),
                created_at: Timestamp::from(self.created_at),
            },
            fingerprint: self.fingerprint,
        })
    }
}
