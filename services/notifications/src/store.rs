//! Every statement on the tables of notifications and their mail.

use std::{collections::HashSet, time::Duration};

use holdfast_kernel::{Id, Timestamp, id};
use jiff_sqlx::ToSqlx;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use crate::{
    dead::DeadMail,
    domain::{Bounds, Facts, Kind, MAIL_WINDOW, News, Notification, Settled},
    error::NotificationsError,
};

/// A mail that a worker has to itself until its lease is over.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) news: News,
    pub(crate) epoch: i64,
    pub(crate) tries: i32,
}

/// Mails that are under way, and those that were given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) waiting: i64,
    pub(crate) dead: i64,
}

/// Writes what people are told and promises a mail of each, unless the bounds forbid it; news that is known changes
/// nothing. Says how many mails were promised.
pub(crate) async fn tell(
    db: &mut PgConnection,
    news: &[News],
    bounds: Bounds,
    now: Timestamp,
) -> Result<i64, sqlx::Error> {
    let ids: Vec<Uuid> = news.iter().map(|news| news.id.uuid()).collect();
    let users: Vec<Uuid> = news.iter().map(|news| news.user.uuid()).collect();
    let kinds: Vec<&str> = news.iter().map(|news| news.kind.as_str()).collect();
    let facts: Vec<Json<&Facts>> = news.iter().map(|news| Json(&news.facts)).collect();
    let moments: Vec<_> = news.iter().map(|news| news.happened_at.to_sqlx()).collect();
    sqlx::query_scalar(
        "WITH told AS (
             INSERT INTO notification (id, user_id, kind, facts, happened_at, told_at)
             SELECT id, user_id, kind, facts, happened_at, $6
             FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::jsonb[], $5::timestamptz[])
                  WITH ORDINALITY AS news (id, user_id, kind, facts, happened_at, place)
             ORDER BY place
             ON CONFLICT (id) DO NOTHING
             RETURNING id, seq, user_id, happened_at < $7 AS is_old
         ), counted AS (
             SELECT id, seq, user_id, is_old,
                    row_number() OVER (PARTITION BY user_id, is_old ORDER BY seq) + (
                        SELECT count(*) FROM mail
                        WHERE mail.user_id = told.user_id AND mail.told_at > $8
                          AND mail.state NOT IN ('too_old', 'too_many')) AS place
             FROM told
         ), promised AS (
             INSERT INTO mail (notification_id, seq, user_id, told_at, state, due_at)
             SELECT id, seq, user_id, $6,
                    CASE WHEN is_old THEN 'too_old' WHEN place > $9 THEN 'too_many' ELSE 'waiting' END,
                    CASE WHEN NOT is_old AND place <= $9 THEN $6 END
             FROM counted
             RETURNING state
         )
         SELECT count(*) FROM promised WHERE state = 'waiting'",
    )
    .bind(ids)
    .bind(users)
    .bind(kinds)
    .bind(facts)
    .bind(moments)
    .bind(now.to_sqlx())
    .bind((now - bounds.age_max).to_sqlx())
    .bind((now - MAIL_WINDOW).to_sqlx())
    .bind(bounds.mails_max)
    .fetch_one(db)
    .await
}

/// What a person was told, the newest first; with `before` only what came before that.
pub(crate) async fn list(
    db: &mut PgConnection,
    user: Id<id::User>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Notification>, NotificationsError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, seq, user_id, kind, facts, happened_at, read_at
         FROM notification WHERE user_id = $1 AND seq < $2
         ORDER BY seq DESC LIMIT $3",
    )
    .bind(user.uuid())
    .bind(before.unwrap_or(i64::MAX))
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Row::read).collect()
}

/// Marks one of a person's notifications as read, since now or since it was first read.
pub(crate) async fn mark_read(
    db: &mut PgConnection,
    user: Id<id::User>,
    notification: Id<id::Notification>,
    now: Timestamp,
) -> Result<Option<Notification>, NotificationsError> {
    let row: Option<Row> = sqlx::query_as(
        "UPDATE notification SET read_at = coalesce(read_at, $3)
         WHERE id = $1 AND user_id = $2
         RETURNING id, seq, user_id, kind, facts, happened_at, read_at",
    )
    .bind(notification.uuid())
    .bind(user.uuid())
    .bind(now.to_sqlx())
    .fetch_optional(db)
    .await?;
    row.map(Row::read).transpose()
}

/// Whether [`claim_due`] would find any.
pub(crate) async fn is_any_due(db: &mut PgConnection, now: Timestamp) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM mail WHERE due_at <= $1 AND leased_until <= $1)")
        .bind(now.to_sqlx())
        .fetch_one(db)
        .await
}

/// Takes up to `limit` mails that are due and nobody's, those due longest first.
pub(crate) async fn claim_due(
    db: &mut PgConnection,
    limit: i64,
    lease: Duration,
    now: Timestamp,
) -> Result<Vec<Claimed>, NotificationsError> {
    let rows: Vec<ClaimedRow> = sqlx::query_as(
        "WITH due AS MATERIALIZED (
             SELECT notification_id FROM mail WHERE due_at <= $1 AND leased_until <= $1
             ORDER BY due_at, seq LIMIT $3 FOR UPDATE SKIP LOCKED
         )
         UPDATE mail SET epoch = epoch + 1, leased_until = $2
         FROM due JOIN notification ON notification.id = due.notification_id
         WHERE mail.notification_id = due.notification_id
         RETURNING notification.id, notification.user_id, notification.kind, notification.facts,
                   notification.happened_at, mail.epoch, mail.tries",
    )
    .bind(now.to_sqlx())
    .bind((now + lease).to_sqlx())
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(ClaimedRow::read).collect()
}

/// Writes how claimed mails stand now, but for those that another worker has taken since.
pub(crate) async fn settle(
    db: &mut PgConnection,
    settled: &[(Id<id::Notification>, i64, Settled)],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = settled.iter().map(|(id, ..)| id.uuid()).collect();
    let epochs: Vec<i64> = settled.iter().map(|(_, epoch, _)| *epoch).collect();
    let states: Vec<&str> = settled.iter().map(|(.., now)| now.state.as_str()).collect();
    let tries: Vec<i32> = settled.iter().map(|(.., now)| now.tries).collect();
    let due: Vec<_> = (settled.iter())
        .map(|(.., now)| now.due_at.map(ToSqlx::to_sqlx))
        .collect();
    let notes: Vec<&str> = settled.iter().map(|(.., now)| now.note.as_str()).collect();
    sqlx::query(
        "UPDATE mail SET state = now.state, tries = now.tries, due_at = now.due_at, note = now.note,
                         leased_until = '-infinity', settled_at = CASE WHEN now.due_at IS NULL THEN $7::timestamptz END
         FROM unnest($1::uuid[], $2::int8[], $3::text[], $4::int4[], $5::timestamptz[], $6::text[])
              AS now (id, epoch, state, tries, due_at, note)
         WHERE mail.notification_id = now.id AND mail.epoch = now.epoch",
    )
    .bind(ids)
    .bind(epochs)
    .bind(states)
    .bind(tries)
    .bind(due)
    .bind(notes)
    .bind(now.to_sqlx())
    .execute(db)
    .await?;
    Ok(())
}

/// Mail that was given up, the oldest first.
pub(crate) async fn list_dead(
    db: &mut PgConnection,
    limit: i64,
) -> Result<Vec<DeadMail>, sqlx::Error> {
    let rows: Vec<DeadRow> = sqlx::query_as(
        "SELECT notification.id, mail.user_id, notification.kind, mail.told_at, mail.tries, mail.note
         FROM mail JOIN notification ON notification.id = mail.notification_id
         WHERE mail.state = 'dead' ORDER BY mail.told_at, mail.seq LIMIT $1",
    )
    .bind(limit)
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(DeadRow::read).collect())
}

/// Makes mail that was given up due again, as if never tried: the oldest, or only that of a notification. Says how many.
pub(crate) async fn revive_dead(
    db: &mut PgConnection,
    only: Option<Id<id::Notification>>,
    limit: i64,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    let revived = sqlx::query(
        "WITH dead AS MATERIALIZED (
             SELECT notification_id FROM mail
             WHERE state = 'dead' AND ($1::uuid IS NULL OR notification_id = $1)
             ORDER BY told_at, seq LIMIT $2 FOR UPDATE SKIP LOCKED
         )
         UPDATE mail SET state = 'waiting', tries = 0, due_at = $3, settled_at = NULL
         FROM dead WHERE mail.notification_id = dead.notification_id",
    )
    .bind(only.map(Id::uuid))
    .bind(limit)
    .bind(now.to_sqlx())
    .execute(db)
    .await?;
    Ok(revived.rows_affected())
}

/// Those of these blinded addresses that get no mail any more.
pub(crate) async fn suppressed(
    db: &mut PgConnection,
    blinded: &[Vec<u8>],
) -> Result<HashSet<Vec<u8>>, sqlx::Error> {
    let found: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT blinded FROM suppressed_address WHERE blinded = ANY ($1)")
            .bind(blinded)
            .fetch_all(db)
            .await?;
    Ok(found.into_iter().collect())
}

/// Sends no mail to this blinded address any more.
pub(crate) async fn suppress(
    db: &mut PgConnection,
    blinded: &[u8],
    note: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO suppressed_address (blinded, since, note) VALUES ($1, $2, $3)
         ON CONFLICT (blinded) DO NOTHING",
    )
    .bind(blinded)
    .bind(now.to_sqlx())
    .bind(note)
    .execute(db)
    .await?;
    Ok(())
}

/// Counts mails that are under way and those that were given up.
pub(crate) async fn measure(db: &mut PgConnection) -> Result<Figures, sqlx::Error> {
    let (waiting, dead) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM mail WHERE due_at IS NOT NULL),
                (SELECT count(*) FROM mail WHERE state = 'dead')",
    )
    .fetch_one(db)
    .await?;
    Ok(Figures { waiting, dead })
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    seq: i64,
    user_id: Uuid,
    kind: String,
    facts: Json<Facts>,
    happened_at: jiff_sqlx::Timestamp,
    read_at: Option<jiff_sqlx::Timestamp>,
}

impl Row {
    fn read(self) -> Result<Notification, NotificationsError> {
        Ok(Notification {
            news: News {
                id: Id::new(self.id),
                user: Id::new(self.user_id),
                kind: read_kind(self.id, &self.kind)?,
                facts: self.facts.0,
                happened_at: self.happened_at.into(),
            },
            seq: self.seq,
            read_at: self.read_at.map(Into::into),
        })
    }
}

#[derive(sqlx::FromRow)]
struct ClaimedRow {
    id: Uuid,
    user_id: Uuid,
    kind: String,
    facts: Json<Facts>,
    happened_at: jiff_sqlx::Timestamp,
    epoch: i64,
    tries: i32,
}

impl ClaimedRow {
    fn read(self) -> Result<Claimed, NotificationsError> {
        Ok(Claimed {
            news: News {
                id: Id::new(self.id),
                user: Id::new(self.user_id),
                kind: read_kind(self.id, &self.kind)?,
                facts: self.facts.0,
                happened_at: self.happened_at.into(),
            },
            epoch: self.epoch,
            tries: self.tries,
        })
    }
}

#[derive(sqlx::FromRow)]
struct DeadRow {
    id: Uuid,
    user_id: Uuid,
    kind: String,
    told_at: jiff_sqlx::Timestamp,
    tries: i32,
    note: String,
}

impl DeadRow {
    fn read(self) -> DeadMail {
        DeadMail {
            notification: Id::new(self.id),
            user: Id::new(self.user_id),
            kind: self.kind,
            told_at: self.told_at.into(),
            tries: self.tries,
            note: self.note,
        }
    }
}

fn read_kind(row: Uuid, text: &str) -> Result<Kind, NotificationsError> {
    Kind::parse(text).ok_or_else(|| {
        NotificationsError::Unreadable(format!("notification.kind of {row}: {text:?}"))
    })
}
