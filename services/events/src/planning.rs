//! What changes an event: each change locks it, decides, writes, tells and leaves a line for the audit log, in one transaction.

use holdfast_kernel::{Id, Timestamp, id};
use sqlx::PgConnection;

use crate::{
    domain::{Change, Event, Plan, Section},
    error::EventsError,
    messages::{self, Action, News},
    store,
};

/// A wish to plan an event.
pub(crate) struct NewEvent {
    pub(crate) id: Id<id::Event>,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) plan: Plan,
}

/// Makes a draft; the same wish again is the same event, as it now stands.
pub(crate) async fn create(
    db: &mut PgConnection,
    wish: NewEvent,
    actor: Id<id::User>,
    now: Timestamp,
) -> Result<Event, EventsError> {
    let event = Event::draft(wish.id, wish.plan, now)?;
    if store::insert_event(db, &event, &wish.fingerprint).await? {
        messages::record(db, event.id, actor, Action::EventCreated, now).await?;
        return Ok(event);
    }
    if store::find_fingerprint(db, event.id).await? != Some(wish.fingerprint) {
        return Err(EventsError::KeyReused);
    }
    let earlier = store::find_event(db, event.id).await?;
    earlier.ok_or(EventsError::UnknownEvent)
}

/// Changes what staff say of an event.
///
/// `expected` is the version the caller looked at, if they said so, here and below.
pub(crate) async fn change(
    db: &mut PgConnection,
    event: Id<id::Event>,
    expected: Option<i64>,
    change: Change,
    actor: Id<id::User>,
    now: Timestamp,
) -> Result<Event, EventsError> {
    let before = lock(db, event).await?.at_version(expected)?;
    let layout = before.layout_version;
    let (mut after, fields) = before.change(change)?;
    if fields.is_empty() {
        return Ok(after);
    }
    if after.layout_version != layout {
        store::replace_sections(db, &after).await?;
    } else if fields.contains(&"tiers") {
        store::replace_tiers(db, &after).await?;
    }
    save(db, &mut after, News::Changed(&fields), now).await?;
    messages::record(db, event, actor, Action::EventChanged, now).await?;
    Ok(after)
}

/// Gives sections of a draft other places; `expected` is the layout's version.
pub(crate) async fn reseat(
    db: &mut PgConnection,
    event: Id<id::Event>,
    expected: Option<i64>,
    layout: Vec<Section>,
    actor: Id<id::User>,
    now: Timestamp,
) -> Result<Event, EventsError> {
    let before = lock(db, event).await?.at_layout(expected)?;
    let version = before.layout_version;
    let mut after = before.reseat(layout)?;
    if after.layout_version == version {
        return Ok(after);
    }
    store::replace_sections(db, &after).await?;
    save(db, &mut after, News::Changed(&["sections"]), now).await?;
    messages::record(db, event, actor, Action::LayoutReplaced, now).await?;
    Ok(after)
}

/// Shows an event to everybody.
pub(crate) async fn publish(
    db: &mut PgConnection,
    event: Id<id::Event>,
    actor: Id<id::User>,
    now: Timestamp,
) -> Result<Event, EventsError> {
    let before = lock(db, event).await?;
    let version = before.version;
    let mut after = before.publish(now)?;
    if after.version == version {
        return Ok(after);
    }
    save(db, &mut after, News::Published, now).await?;
    messages::record(db, event, actor, Action::EventPublished, now).await?;
    Ok(after)
}

/// Calls an event off.
pub(crate) async fn cancel(
    db: &mut PgConnection,
    event: Id<id::Event>,
    reason: &str,
    actor: Id<id::User>,
    now: Timestamp,
) -> Result<Event, EventsError> {
    let before = lock(db, event).await?;
    let version = before.version;
    let mut after = before.cancel(reason)?;
    if after.version == version {
        return Ok(after);
    }
    save(db, &mut after, News::Cancelled, now).await?;
    messages::record(db, event, actor, Action::EventCancelled, now).await?;
    Ok(after)
}

async fn lock(db: &mut PgConnection, event: Id<id::Event>) -> Result<Event, EventsError> {
    let found = store::lock_event(db, event).await?;
    found.ok_or(EventsError::UnknownEvent)
}

/// Writes a changed event, and tells of it if the public has seen it.
async fn save(
    db: &mut PgConnection,
    event: &mut Event,
    news: News<'_>,
    now: Timestamp,
) -> Result<(), EventsError> {
    let is_public = event.published_at().is_some();
    event.announced += i64::from(is_public);
    store::save_event(db, event).await?;
    if is_public {
        messages::announce(db, event, news, now).await?;
    }
    Ok(())
}
