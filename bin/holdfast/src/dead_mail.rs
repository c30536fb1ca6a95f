//! The operator's way to mail that was given up, at the internal door of the process that notifications runs in.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use holdfast_kernel::{Clock, Id, id};
use holdfast_notifications::dead;
use holdfast_platform::identity::Verifier;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::parked::{self, Failure};

/// Lists mail that was given up.
pub(crate) const LIST_PATH: &str = "/mail/dead";
/// Lets it be tried again.
pub(crate) const REVIVE_PATH: &str = "/mail/revive";

/// The schema that the mail lies in, and the time.
#[derive(Clone)]
struct Mail {
    database: PgPool,
    clock: Arc<dyn Clock>,
}

#[derive(Deserialize)]
struct Chosen {
    /// Of all dead mail only that of this notification.
    notification: Option<Id<id::Notification>>,
}

#[derive(Serialize)]
struct Entry {
    notification: String,
    user_id: String,
    r#type: String,
    told_at: String,
    tries: i32,
    note: String,
}

/// The two pages over the schema of notifications.
pub(crate) fn routes(database: PgPool, clock: Arc<dyn Clock>, verifier: Verifier) -> Router {
    let pages = Router::new()
        .route(LIST_PATH, get(list))
        .route(REVIVE_PATH, post(revive))
        .with_state(Mail { database, clock });
    parked::for_operators(pages, verifier)
}

async fn list(State(mail): State<Mail>) -> Result<Json<Vec<Entry>>, Failure> {
    let mut db = mail.database.acquire().await?;
    let dead = dead::list(&mut db).await?;
    let entries = dead.into_iter().map(|mail| Entry {
        notification: mail.notification.to_string(),
        user_id: mail.user.to_string(),
        r#type: mail.kind,
        told_at: mail.told_at.to_string(),
        tries: mail.tries,
        note: mail.note,
    });
    Ok(Json(entries.collect()))
}

async fn revive(
    State(mail): State<Mail>,
    Json(chosen): Json<Chosen>,
) -> Result<Json<Value>, Failure> {
    let mut db = mail.database.acquire().await?;
    let revived = dead::revive(&mut db, chosen.notification, mail.clock.now()).await?;
    Ok(Json(json!({"revived": revived})))
}
