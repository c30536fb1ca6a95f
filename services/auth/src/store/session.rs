//! Statements on sessions, and on what is told of those that ended.

use holdfast_kernel::{Id, Timestamp, id};
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    domain::{Ended, Revocation, Session, SessionState, UserAgent},
    error::AuthError,
};

/// Ends every open session of this account, but the one that is `kept`.
pub(crate) async fn end_sessions(
    db: &mut PgConnection,
    user: Id<id::User>,
    kept: Option<Id<id::Session>>,
    now: Timestamp,
) -> Result<Vec<Ended>, AuthError> {
    let ended: Vec<(Uuid, jiff_sqlx::Timestamp)> = sqlx::query_as(
        "UPDATE session SET state = 'logged_out'
         WHERE account_id = $1 AND state = 'open' AND expires_at > $2 AND id IS DISTINCT FROM $3
         RETURNING id, expires_at",
    )
    .bind(user.uuid())
    .bind(now.to_sqlx())
    .bind(kept.map(Id::uuid))
    .fetch_all(db)
    .await?;
    Ok(ended.into_iter().map(read_ended).collect())
}

/// Writes sessions that have just been opened.
pub(crate) async fn insert_sessions(
    db: &mut PgConnection,
    sessions: &[Session],
) -> Result<(), AuthError> {
    let mut ids = Vec::with_capacity(sessions.len());
    let mut users = Vec::with_capacity(sessions.len());
    let mut opened = Vec::with_capacity(sessions.len());
    let mut expires = Vec::with_capacity(sessions.len());
    let mut agents = Vec::with_capacity(sessions.len());
    for session in sessions {
        ids.push(session.id.uuid());
        users.push(session.user.uuid());
        opened.push(session.opened_at.to_sqlx());
        expires.push(session.expires_at.to_sqlx());
        agents.push(session.user_agent.as_str());
    }
    sqlx::query(
        "INSERT INTO session (id, account_id, state, turn, turned_at, opened_at, expires_at, user_agent)
         SELECT id, account_id, 'open', 1, opened_at, opened_at, expires_at, user_agent
         FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::timestamptz[], $5::text[])
            AS opened (id, account_id, opened_at, expires_at, user_agent)",
    )
    .bind(ids)
    .bind(users)
    .bind(opened)
    .bind(expires)
    .bind(agents)
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets the sessions of this account whose lifetime is over: a login tidies up after those before it.
pub(crate) async fn delete_expired_sessions(
    db: &mut PgConnection,
    user: Id<id::User>,
    now: Timestamp,
) -> Result<(), AuthError> {
    sqlx::query("DELETE FROM session WHERE account_id = $1 AND expires_at <= $2")
        .bind(user.uuid())
        .bind(now.to_sqlx())
        .execute(db)
        .await?;
    Ok(())
}

/// The session of this id, which nobody else changes until the transaction ends.
pub(crate) async fn lock_session(
    db: &mut PgConnection,
    session: Id<id::Session>,
) -> Result<Option<Session>, AuthError> {
    let row: Option<SessionRow> = sqlx::query_as(
        "SELECT id, account_id, state, turn, turned_at, opened_at, expires_at, user_agent
         FROM session WHERE id = $1 FOR UPDATE",
    )
    .bind(session.uuid())
    .fetch_optional(db)
    .await?;
    row.map(SessionRow::read).transpose()
}

/// The session of this id.
pub(crate) async fn find_session(
    db: &mut PgConnection,
    session: Id<id::Session>,
) -> Result<Option<Session>, AuthError> {
    let row: Option<SessionRow> = sqlx::query_as(
        "SELECT id, account_id, state, turn, turned_at, opened_at, expires_at, user_agent
         FROM session WHERE id = $1",
    )
    .bind(session.uuid())
    .fetch_optional(db)
    .await?;
    row.map(SessionRow::read).transpose()
}

/// The open sessions of this account, the latest used first, at most `limit`.
pub(crate) async fn list_open_sessions(
    db: &mut PgConnection,
    user: Id<id::User>,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<Session>, AuthError> {
    let rows: Vec<SessionRow> = sqlx::query_as(
        "SELECT id, account_id, state, turn, turned_at, opened_at, expires_at, user_agent
         FROM session WHERE account_id = $1 AND state = 'open' AND expires_at > $2
         ORDER BY turned_at DESC, id LIMIT $3",
    )
    .bind(user.uuid())
    .bind(now.to_sqlx())
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(SessionRow::read).collect()
}

/// Writes what may change of a locked session.
pub(crate) async fn save_session(
    db: &mut PgConnection,
    session: &Session,
) -> Result<(), AuthError> {
    match session.state {
        SessionState::Open { turn, turned_at } => {
            sqlx::query("UPDATE session SET turn = $2, turned_at = $3 WHERE id = $1")
                .bind(session.id.uuid())
                .bind(turn)
                .bind(turned_at.to_sqlx())
                .execute(db)
                .await?;
        }
        SessionState::LoggedOut | SessionState::Revoked => {
            sqlx::query("UPDATE session SET state = $2 WHERE id = $1")
                .bind(session.id.uuid())
                .bind(state_word(session.state))
                .execute(db)
                .await?;
        }
    }
    Ok(())
}

/// Ends a session of this account, if it is open.
pub(crate) async fn log_out(
    db: &mut PgConnection,
    session: Id<id::Session>,
    user: Id<id::User>,
) -> Result<Option<Ended>, AuthError> {
    let ended: Option<(Uuid, jiff_sqlx::Timestamp)> = sqlx::query_as(
        "UPDATE session SET state = 'logged_out' WHERE id = $1 AND account_id = $2 AND state = 'open'
         RETURNING id, expires_at",
    )
    .bind(session.uuid())
    .bind(user.uuid())
    .fetch_optional(db)
    .await?;
    Ok(ended.map(read_ended))
}

/// Writes down that access tokens of these sessions are dead, to be told in the order of commits.
pub(crate) async fn insert_revocations(
    db: &mut PgConnection,
    revoked: &[Revocation],
) -> Result<(), AuthError> {
    if revoked.is_empty() {
        return Ok(());
    }
    let last: i64 =
        sqlx::query_scalar("UPDATE revocation_counter SET last = last + $1 RETURNING last")
            .bind(revoked.len() as i64)
            .fetch_one(&mut *db)
            .await?;
    let (sessions, dead): (Vec<Uuid>, Vec<_>) = revoked
        .iter()
        .map(|revocation| (revocation.session.uuid(), revocation.dead_at.to_sqlx()))
        .unzip();
    sqlx::query(
        "INSERT INTO revocation (number, session_id, dead_at)
         SELECT $1 + place, session_id, dead_at
         FROM unnest($2::uuid[], $3::timestamptz[]) WITH ORDINALITY AS revoked (session_id, dead_at, place)",
    )
    .bind(last - revoked.len() as i64)
    .bind(sessions)
    .bind(dead)
    .execute(db)
    .await?;
    Ok(())
}

/// Revocations numbered above `after` that matter still, in the order of their numbers, at most `limit`.
pub(crate) async fn list_revocations(
    db: &mut PgConnection,
    after: i64,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<(i64, Revocation)>, AuthError> {
    let rows: Vec<(i64, Uuid, jiff_sqlx::Timestamp)> = sqlx::query_as(
        "SELECT number, session_id, dead_at FROM revocation
         WHERE number > $1 AND dead_at > $2 ORDER BY number LIMIT $3",
    )
    .bind(after)
    .bind(now.to_sqlx())
    .bind(limit)
    .fetch_all(db)
    .await?;
    let read = |(number, session, dead_at): (i64, Uuid, jiff_sqlx::Timestamp)| {
        let (session, dead_at) = (Id::new(session), dead_at.into());
        (number, Revocation { session, dead_at })
    };
    Ok(rows.into_iter().map(read).collect())
}

/// Forgets revocations of sessions whose access tokens are all dead by themselves.
pub(crate) async fn prune_revocations(
    db: &mut PgConnection,
    now: Timestamp,
) -> Result<u64, AuthError> {
    let done = sqlx::query("DELETE FROM revocation WHERE dead_at <= $1")
        .bind(now.to_sqlx())
        .execute(db)
        .await?;
    Ok(done.rows_affected())
}

#[derive(sqlx::FromRow)]
struct SessionRow {
    id: Uuid,
    account_id: Uuid,
    state: String,
    turn: i64,
    turned_at: jiff_sqlx::Timestamp,
    opened_at: jiff_sqlx::Timestamp,
    expires_at: jiff_sqlx::Timestamp,
    user_agent: String,
}

impl SessionRow {
    fn read(self) -> Result<Session, AuthError> {
        let id = Id::new(self.id);
        let open = SessionState::Open {
            turn: self.turn,
            turned_at: self.turned_at.into(),
        };
        let state = [open, SessionState::LoggedOut, SessionState::Revoked]
            .into_iter()
            .find(|state| state_word(*state) == self.state)
            .ok_or_else(|| {
                AuthError::Unreadable(format!("session.state of {id}: {:?}", self.state))
            })?;
        Ok(Session {
            id,
            user: Id::new(self.account_id),
            state,
            opened_at: self.opened_at.into(),
            expires_at: self.expires_at.into(),
            user_agent: UserAgent::cut(&self.user_agent),
        })
    }
}

fn read_ended((session, expires_at): (Uuid, jiff_sqlx::Timestamp)) -> Ended {
    Ended {
        session: Id::new(session),
        expires_at: expires_at.into(),
    }
}

fn state_word(state: SessionState) -> &'static str {
    match state {
        SessionState::Open { .. } => "open",
        SessionState::LoggedOut => "logged_out",
        SessionState::Revoked => "revoked",
    }
}
