//! Sessions: which there are, ending them, and telling everybody that they ended.

use futures::{StreamExt, stream::BoxStream};
use holdfast_kernel::{Id, id, time};
use holdfast_platform::{database, identity::Claims, wire};
use holdfast_proto::auth::v1 as pb;
use tonic::{Response, Status};

use crate::{
    Parts,
    domain::{Revocation, Session},
    error::AuthError,
    revocation, store,
};

/// Sessions of an account that are shown at most.
const SHOWN_MAX_SESSIONS: i64 = 100;
/// Longest part of a refused text that an error repeats, in characters.
const SHOWN_CHARS: usize = 64;

pub(super) fn parse(text: &str) -> Result<Id<id::Session>, AuthError> {
    text.parse().map_err(|_| AuthError::SessionIdRefused {
        got: text.chars().take(SHOWN_CHARS).collect(),
    })
}

pub(super) async fn list(
    parts: &Parts,
    claims: &Claims,
) -> Result<Response<pb::ListSessionsResponse>, Status> {
    let now = parts.context.clock.now();
    let mut db = database::acquire(&parts.context.database).await?;
    let open = store::list_open_sessions(&mut db, claims.sub, now, SHOWN_MAX_SESSIONS).await?;
    let show = |session: Session| pb::Session {
        id: session.id.to_string(),
        created_at: Some(wire::timestamp(session.opened_at)),
        last_used_at: Some(wire::timestamp(session.last_used_at())),
        expires_at: Some(wire::timestamp(session.expires_at)),
        user_agent: session.user_agent.as_str().to_owned(),
        current: session.id == claims.sid,
    };
    let sessions = open.into_iter().map(show).collect();
    Ok(Response::new(pb::ListSessionsResponse { sessions }))
}

/// Ends a session of the caller's; what is another's does not exist.
pub(super) async fn end_own(
    parts: &Parts,
    session: Id<id::Session>,
    claims: &Claims,
) -> Result<Response<pb::EndSessionResponse>, Status> {
    let mut db = database::acquire(&parts.context.database).await?;
    let found = store::find_session(&mut db, session).await?;
    drop(db);
    if found.is_none_or(|found| found.user != claims.sub) {
        return Err(AuthError::UnknownSession.into());
    }
    end(parts, session, claims.sub).await?;
    Ok(Response::new(pb::EndSessionResponse {}))
}

/// Ends a session of this account, if it is open, and has everybody told.
pub(super) async fn end(
    parts: &Parts,
    session: Id<id::Session>,
    user: Id<id::User>,
) -> Result<(), AuthError> {
    let now = time::to_micros(parts.context.clock.now());
    let mut tx = database::begin(&parts.context.database).await?;
    let ended = store::log_out(&mut tx, session, user).await?;
    revocation::revoke(&mut tx, &parts.minter, ended.as_slice(), now).await?;
    database::commit(tx).await?;
    parts.revocations.ring();
    Ok(())
}

pub(super) fn watch(
    parts: &Parts,
) -> BoxStream<'static, Result<pb::WatchRevocationsResponse, Status>> {
    let tell = |revocation: Revocation| pb::Revocation {
        session_id: revocation.session.to_string(),
        dead_at: Some(wire::timestamp(revocation.dead_at)),
    };
    let told = parts.revocations.watch().map(move |news| {
        let revoked = news.into_iter().map(tell).collect();
        Ok(pb::WatchRevocationsResponse { revoked })
    });
    told.boxed()
}

pub(super) async fn is_open(
    parts: &Parts,
    session: Id<id::Session>,
) -> Result<Response<pb::IsSessionOpenResponse>, Status> {
    let now = parts.context.clock.now();
    let mut db = database::acquire(&parts.context.database).await?;
    let found = store::find_session(&mut db, session).await?;
    let open = found.is_some_and(|session| session.is_open(now));
    Ok(Response::new(pb::IsSessionOpenResponse { open }))
}
