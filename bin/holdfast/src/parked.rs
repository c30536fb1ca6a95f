//! The operator's way to parked messages, at the internal door: only who holds the installation's secret gets in.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Query, Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use holdfast_platform::{
    consumer::Consumer,
    identity::Verifier,
    parking::{self, LIST_MAX_MESSAGES},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::internal::OPERATOR;

/// Lists parked messages, of all consumers here or of `?consumer=`: the oldest [`LIST_MAX_MESSAGES`] of each.
pub(crate) const LIST_PATH: &str = "/messages/parked";
/// Replays the messages of a key.
pub(crate) const REPLAY_PATH: &str = "/messages/replay";

/// A consumer, and the schema in which its position and its parked messages lie.
#[derive(Clone)]
pub(crate) struct Listener {
    pub(crate) consumer: Consumer,
    pub(crate) database: PgPool,
}

#[derive(Deserialize)]
struct Wanted {
    consumer: Option<String>,
}

#[derive(Deserialize)]
struct Chosen {
    consumer: String,
    topic: String,
    key: String,
}

#[derive(Serialize)]
struct Entry {
    consumer: String,
    topic: String,
    key: String,
    version: Option<i64>,
    reason: String,
    parked_at: String,
    message: Value,
}

/// The two pages over these consumers.
pub(crate) fn routes(listeners: Vec<Listener>, verifier: Verifier) -> Router {
    let pages = Router::new()
        .route(LIST_PATH, get(list))
        .route(REPLAY_PATH, post(replay))
        .with_state(Arc::new(listeners));
    for_operators(pages, verifier)
}

/// Pages that only who holds the installation's secret gets to see.
pub(crate) fn for_operators(pages: Router, verifier: Verifier) -> Router {
    pages.layer(middleware::from_fn_with_state(verifier, operators_only))
}

async fn operators_only(
    State(verifier): State<Verifier>,
    request: Request,
    next: Next,
) -> Response {
    match verifier.caller(request.headers()).await {
        Ok(caller) if caller.peer() == Some(OPERATOR) => next.run(request).await,
        _ => (StatusCode::UNAUTHORIZED, "for operators only\n").into_response(),
    }
}

async fn list(
    State(listeners): State<Arc<Vec<Listener>>>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Vec<Entry>>, Failure> {
    let mut entries = Vec::new();
    for listener in listeners.iter() {
        let name = listener.consumer.name();
        if wanted.consumer.as_deref().is_some_and(|only| only != name) {
            continue;
        }
        let mut db = listener.database.acquire().await?;
        let parked = parking::list(&mut db, Some(name), None, 0, LIST_MAX_MESSAGES).await?;
        entries.extend(parked.into_iter().map(|parked| Entry {
            consumer: parked.consumer,
            topic: parked.topic,
            key: parked.key,
            version: parked.version,
            reason: parked.reason,
            parked_at: parked.parked_at.to_string(),
            message:
                serde_json::from_str(&parked.envelope).unwrap_or(Value::String(parked.envelope)),
        }));
    }
    Ok(Json(entries))
}

async fn replay(
    State(listeners): State<Arc<Vec<Listener>>>,
    Json(chosen): Json<Chosen>,
) -> Result<Json<Value>, Failure> {
    let listener = listeners
        .iter()
        .find(|listener| listener.consumer.name() == chosen.consumer)
        .ok_or_else(|| Failure(format!("no consumer {:?} runs here", chosen.consumer)))?;
    let done = parking::replay(
        &listener.database,
        &listener.consumer,
        &chosen.topic,
        &chosen.key,
    )
    .await
    .map_err(|error| Failure(error.to_string()))?;
    Ok(Json(json!({
        "handled": done.handled,
        "dropped": done.dropped,
        "stopped": done.stopped.map(|stopped| json!({"id": stopped.id, "reason": stopped.reason})),
    })))
}

/// What an operator is told of a failure: all of it.
pub(crate) struct Failure(String);

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self(error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (StatusCode::UNPROCESSABLE_ENTITY, self.0 + "\n").into_response()
    }
}
