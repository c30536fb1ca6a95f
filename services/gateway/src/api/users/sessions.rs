//! Where somebody is logged in.

use axum::{
    Extension,
    extract::{Path, State},
};
use holdfast_platform::identity::Caller;
use holdfast_proto::auth::v1 as pb;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::super::shape::{Page, moment};
use crate::{Gateway, problems::Problem, reply::Reply};

pub(super) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(my_sessions))
        .routes(routes!(end_session))
}

/// A login that can be ended on its own.
#[derive(Serialize, ToSchema)]
pub(super) struct Session {
    #[schema(example = "ses_01jd3q8m5ze2vtx0c9k4h7n6wb")]
    id: String,
    created_at: String,
    /// When it gave tokens last: at login or by a refresh.
    last_used_at: String,
    expires_at: String,
    /// What the client called itself at login.
    user_agent: String,
    /// The session of the token that asks.
    current: bool,
}

/// Lists where one is logged in, the latest used first, at most 100.
#[utoipa::path(get, path = "/v1/users/me/sessions", tag = "identity", responses((status = 200, body = Page<Session>)))]
async fn my_sessions(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
) -> Result<Reply, Problem> {
    Ok(Reply::ok(&Page::new(open(&gateway, &caller).await?, None)))
}

/// Ends one of one's own sessions: logs out elsewhere.
#[utoipa::path(delete, path = "/v1/users/me/sessions/{id}", tag = "identity", params(("id" = String, Path)), responses((status = 204)))]
async fn end_session(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::EndSessionRequest { session_id: id });
    gateway.peers.auth.clone().end_session(request).await?;
    Ok(Reply::nothing())
}

/// The caller's open sessions.
pub(super) async fn open(gateway: &Gateway, caller: &Caller) -> Result<Vec<Session>, Problem> {
    let request = caller.request(pb::ListSessionsRequest {});
    let answer = gateway.peers.auth.clone().list_sessions(request).await?;
    let sessions = answer.into_inner().sessions.into_iter();
    sessions.map(session).collect()
}

fn session(session: pb::Session) -> Result<Session, Problem> {
    Ok(Session {
        created_at: moment(session.created_at.as_ref(), "auth")?,
        last_used_at: moment(session.last_used_at.as_ref(), "auth")?,
        expires_at: moment(session.expires_at.as_ref(), "auth")?,
        id: session.id,
        user_agent: session.user_agent,
        current: session.current,
    })
}
