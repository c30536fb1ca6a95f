//! What this service tells others. Ids and moments only: who needs a name asks for it.

use holdfast_kernel::{Id, Timestamp, id};
use holdfast_platform::{
    audit_log::Line,
    message::Topic,
    outbox::{self, Announcement},
};
use serde::Serialize;
use sqlx::PgConnection;

use crate::{domain::Event, error::EventsError};

/// By event; numbered by what was told of it, for drafts change silently.
const EVENTS: Topic = Topic::ordinary("holdfast.events");

/// What the public is told.
#[derive(Debug, Clone, Copy)]
pub(crate) enum News<'a> {
    Published,
    /// The names of what became otherwise.
    Changed(&'a [&'static str]),
    Cancelled,
}

/// What staff did, as the audit log has it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    EventCreated,
    EventChanged,
    LayoutReplaced,
    EventPublished,
    EventCancelled,
}

#[derive(Serialize)]
struct EventNews<'a> {
    event_id: String,
    /// When it starts; RFC 3339.
    starts_at: String,
    /// What became otherwise; of changes only.
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<&'a [&'static str]>,
}

/// What was done, and to which event.
#[derive(Serialize)]
struct Done {
    action: &'static str,
    event_id: Id<id::Event>,
}

/// Announces news of an event that the public has seen, under the number it bears.
pub(crate) async fn announce(
    db: &mut PgConnection,
    event: &Event,
    news: News<'_>,
    now: Timestamp,
) -> Result<(), EventsError> {
    let (kind, fields) = match news {
        News::Published => ("event.published", None),
        News::Changed(fields) => ("event.changed", Some(fields)),
        News::Cancelled => ("event.cancelled", None),
    };
    let data = EventNews {
        event_id: event.id.to_string(),
        starts_at: event.plan.starts_at.to_string(),
        fields,
    };
    let message = Announcement::new(EVENTS, kind, event.id, event.announced, now, &data);
    Ok(outbox::announce(db, message).await?)
}

/// Writes a line for the audit log.
pub(crate) async fn record(
    db: &mut PgConnection,
    event: Id<id::Event>,
    actor: Id<id::User>,
    action: Action,
    now: Timestamp,
) -> Result<(), EventsError> {
    let line = Line {
        service: "events",
        actor: Some(actor),
        subject: None,
        action: Done {
            action: match action {
                Action::EventCreated => "event_created",
                Action::EventChanged => "event_changed",
                Action::LayoutReplaced => "layout_replaced",
                Action::EventPublished => "event_published",
                Action::EventCancelled => "event_cancelled",
            },
            event_id: event,
        },
    };
    Ok(outbox::announce(db, line.recorded(now)).await?)
}
