//! Every statement on events, their sections and tiers.

mod rows;

use std::collections::HashMap;

use holdfast_kernel::{Currency, Id, Timestamp, id, page::InvalidPage};
use jiff_sqlx::ToSqlx;
use sqlx::{Connection, PgConnection, Postgres, Transaction};
use uuid::Uuid;

use crate::{
    domain::{
        Event, Phase, Places, Plan, Row, Sale, Section, Shape, Status, Tier, WaitingRoom, Zone,
    },
    error::EventsError,
};

/// Where a list goes on: behind the event that starts then, of that id.
pub(crate) type ListPlace = (i64, Uuid);

/// Which events are asked for.
pub(crate) struct Wanted {
    /// Also those the public has never seen.
    pub(crate) drafts: bool,
    /// Those only that start later and are not cancelled.
    pub(crate) upcoming: bool,
    pub(crate) phase: Option<Phase>,
    /// Parts of name or venue, in whichever case, all of which it must have.
    pub(crate) words: Vec<String>,
}

/// The seats of one section.
pub(crate) struct Stand {
    pub(crate) position: i32,
    pub(crate) section: String,
    pub(crate) rows: Vec<Row>,
}

/// Writes a new event; false where one of its id is there.
pub(crate) async fn insert_event(
    db: &mut PgConnection,
    event: &Event,
    fingerprint: &[u8],
) -> Result<bool, EventsError> {
    let plan = &event.plan;
    let room = plan.sale.waiting_room;
    let inserted = sqlx::query(
        "INSERT INTO event (id, fingerprint, name, venue, starts_at, timezone, currency, per_buyer_limit, opens_at,
                            closes_at, lobby_opens_at, admissions_per_minute, sells_until, status, created_at, version,
                            layout_version, announced)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 'draft', $14, $15, $16, $17)
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(event.id.uuid())
    .bind(fingerprint)
    .bind(&plan.name)
    .bind(&plan.venue)
    .bind(plan.starts_at.to_sqlx())
    .bind(plan.timezone.as_str())
    .bind(plan.currency.code())
    .bind(plan.per_buyer_limit.map(|limit| limit as i32))
    .bind(plan.sale.opens_at.map(ToSqlx::to_sqlx))
    .bind(plan.sale.closes_at.map(ToSqlx::to_sqlx))
    .bind(room.map(|room| room.lobby_opens_at.to_sqlx()))
    .bind(room.map(|room| room.admissions_per_minute as i32))
    .bind(plan.sells_until().to_sqlx())
    .bind(event.created_at.to_sqlx())
    .bind(event.version)
    .bind(event.layout_version)
    .bind(event.announced)
    .execute(&mut *db)
    .await?
    .rows_affected();
    if inserted == 0 {
        return Ok(false);
    }
    insert_sections(db, event).await?;
    insert_tiers(db, event).await?;
    Ok(true)
}

/// Writes a changed event, without its sections and tiers.
pub(crate) async fn save_event(db: &mut PgConnection, event: &Event) -> Result<(), EventsError> {
    let plan = &event.plan;
    let room = plan.sale.waiting_room;
    let (status, reason) = match &event.status {
        Status::Draft => ("draft", None),
        Status::Published { .. } => ("published", None),
        Status::Cancelled { reason, .. } => ("cancelled", Some(reason)),
    };
    sqlx::query(
        "UPDATE event
         SET name = $2, venue = $3, starts_at = $4, timezone = $5, currency = $6, per_buyer_limit = $7, opens_at = $8,
             closes_at = $9, lobby_opens_at = $10, admissions_per_minute = $11, sells_until = $12, status = $13,
             reason = $14, published_at = $15, version = $16, layout_version = $17, announced = $18
         WHERE id = $1",
    )
    .bind(event.id.uuid())
    .bind(&plan.name)
    .bind(&plan.venue)
    .bind(plan.starts_at.to_sqlx())
    .bind(plan.timezone.as_str())
    .bind(plan.currency.code())
    .bind(plan.per_buyer_limit.map(|limit| limit as i32))
    .bind(plan.sale.opens_at.map(ToSqlx::to_sqlx))
    .bind(plan.sale.closes_at.map(ToSqlx::to_sqlx))
    .bind(room.map(|room| room.lobby_opens_at.to_sqlx()))
    .bind(room.map(|room| room.admissions_per_minute as i32))
    .bind(plan.sells_until().to_sqlx())
    .bind(status)
    .bind(reason)
    .bind(event.published_at().map(ToSqlx::to_sqlx))
    .bind(event.version)
    .bind(event.layout_version)
    .bind(event.announced)
    .execute(db)
    .await?;
    Ok(())
}

/// Writes the sections and tiers of an event in place of those it had.
pub(crate) async fn replace_sections(
    db: &mut PgConnection,
    event: &Event,
) -> Result<(), EventsError> {
    delete_tiers(db, event.id).await?;
    sqlx::query("DELETE FROM section WHERE event_id = $1")
        .bind(event.id.uuid())
        .execute(&mut *db)
        .await?;
    insert_sections(db, event).await?;
    insert_tiers(db, event).await
}

/// Writes the tiers of an event in place of those it had.
pub(crate) async fn replace_tiers(db: &mut PgConnection, event: &Event) -> Result<(), EventsError> {
    delete_tiers(db, event.id).await?;
    insert_tiers(db, event).await
}

/// The event of this id without the rows of its sections.
pub(crate) async fn find_event(
    db: &mut PgConnection,
    event: Id<id::Event>,
) -> Result<Option<Event>, EventsError> {
    let row: Option<EventRow> = sqlx::query_as(
        "SELECT id, name, venue, starts_at, timezone, currency, per_buyer_limit, opens_at, closes_at, lobby_opens_at,
                admissions_per_minute, status, reason, published_at, created_at, version, layout_version, announced
         FROM event WHERE id = $1",
    )
    .bind(event.uuid())
    .fetch_optional(&mut *db)
    .await?;
    Ok(with_parts(db, row.into_iter().collect()).await?.pop())
}

/// The event of this id with everything of it, which nobody else changes until the transaction ends.
pub(crate) async fn lock_event(
    db: &mut PgConnection,
    event: Id<id::Event>,
) -> Result<Option<Event>, EventsError> {
    let row: Option<EventRow> = sqlx::query_as(
        "SELECT id, name, venue, starts_at, timezone, currency, per_buyer_limit, opens_at, closes_at, lobby_opens_at,
                admissions_per_minute, status, reason, published_at, created_at, version, layout_version, announced
         FROM event WHERE id = $1 FOR UPDATE",
    )
    .bind(event.uuid())
    .fetch_optional(&mut *db)
    .await?;
    let Some(mut event) = with_parts(db, row.into_iter().collect()).await?.pop() else {
        return Ok(None);
    };
    event.plan.sections = find_layout(db, event.id).await?;
    Ok(Some(event))
}

/// The fingerprint of the request that made this event, if it was made.
pub(crate) async fn find_fingerprint(
    db: &mut PgConnection,
    event: Id<id::Event>,
) -> Result<Option<Vec<u8>>, EventsError> {
    let fingerprint = sqlx::query_scalar("SELECT fingerprint FROM event WHERE id = $1");
    Ok(fingerprint.bind(event.uuid()).fetch_optional(db).await?)
}

/// Begins to read what all belongs to one moment.
pub(crate) async fn begin_reading(
    db: &mut PgConnection,
) -> Result<Transaction<'_, Postgres>, EventsError> {
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    Ok(db.begin_with(begin).await?)
}

/// The currency of an event's prices.
pub(crate) async fn find_currency(
    db: &mut PgConnection,
    event: Id<id::Event>,
) -> Result<Option<Currency>, EventsError> {
    let found: Option<String> = sqlx::query_scalar("SELECT currency FROM event WHERE id = $1")
        .bind(event.uuid())
        .fetch_optional(db)
        .await?;
    let unreadable = |_| EventsError::Unreadable(format!("event.currency of {event}"));
    found
        .map(|code| code.parse().map_err(unreadable))
        .transpose()
}

/// The version of an event's layout, and whether the public may see it.
pub(crate) async fn find_layout_version(
    db: &mut PgConnection,
    event: Id<id::Event>,
) -> Result<Option<(i64, bool)>, EventsError> {
    let found =
        sqlx::query_as("SELECT layout_version, published_at IS NOT NULL FROM event WHERE id = $1");
    Ok(found.bind(event.uuid()).fetch_optional(db).await?)
}

/// All sections of an event with their rows.
pub(crate) async fn find_layout(
    db: &mut PgConnection,
    event: Id<id::Event>,
) -> Result<Vec<Section>, EventsError> {
    let sections: Vec<SectionRow> = sqlx::query_as(
        "SELECT event_id, id, name, kind, shape, capacity, rows
         FROM section WHERE event_id = $1 ORDER BY position",
    )
    .bind(event.uuid())
    .fetch_all(db)
    .await?;
    sections.into_iter().map(SectionRow::read).collect()
}

/// The first seated section of an event from this position on.
pub(crate) async fn find_stand(
    db: &mut PgConnection,
    event: Id<id::Event>,
    from: i32,
) -> Result<Option<Stand>, EventsError> {
    let found: Option<(i32, String, Vec<u8>)> = sqlx::query_as(
        "SELECT position, id, rows FROM section
         WHERE event_id = $1 AND position >= $2 AND kind = 'seated' ORDER BY position LIMIT 1",
    )
    .bind(event.uuid())
    .bind(from)
    .fetch_optional(db)
    .await?;
    let stand = found.map(|(position, section, bytes)| {
        Ok(Stand {
            position,
            rows: read_rows(event.uuid(), &section, &bytes)?,
            section,
        })
    });
    stand.transpose()
}

/// Events by when they start, from behind `place` on, without the rows of their sections.
pub(crate) async fn list_events(
    db: &mut PgConnection,
    wanted: &Wanted,
    now: Timestamp,
    place: Option<ListPlace>,
    limit: i64,
) -> Result<Vec<Event>, EventsError> {
    let (starts_at, id) = place.unzip();
    let starts_at = starts_at
        .map(Timestamp::from_microsecond)
        .transpose()
        .map_err(|_| EventsError::Page(InvalidPage::Token))?;
    let rows: Vec<EventRow> = sqlx::query_as(
        "SELECT id, name, venue, starts_at, timezone, currency, per_buyer_limit, opens_at, closes_at, lobby_opens_at,
                admissions_per_minute, status, reason, published_at, created_at, version, layout_version, announced
         FROM event
         WHERE ($1 OR published_at IS NOT NULL)
           AND (NOT $2 OR (starts_at > $3 AND status <> 'cancelled'))
           AND ($4::text IS NULL OR $4 = CASE
                    WHEN status <> 'published' THEN status
                    WHEN sells_until <= $3 THEN 'closed'
                    WHEN opens_at > $3 THEN 'published'
                    ELSE 'on_sale' END)
           AND NOT EXISTS (SELECT 1 FROM unnest($5::text[]) AS wanted (word)
                           WHERE position(lower(word) IN lower(name || ' ' || venue)) = 0)
           AND ($6::timestamptz IS NULL OR (starts_at, id) > ($6, $7))
         ORDER BY starts_at, id
         LIMIT $8",
    )
    .bind(wanted.drafts)
    .bind(wanted.upcoming)
    .bind(now.to_sqlx())
    .bind(wanted.phase.map(Phase::as_str))
    .bind(&wanted.words)
    .bind(starts_at.map(ToSqlx::to_sqlx))
    .bind(id)
    .bind(limit)
    .fetch_all(&mut *db)
    .await?;
    with_parts(db, rows).await
}

async fn insert_sections(db: &mut PgConnection, event: &Event) -> Result<(), EventsError> {
    for (position, section) in (0..).zip(&event.plan.sections) {
        let (shape, rows) = match &section.places {
            Places::Seated { shape, rows, .. } => (Some(shape.as_str()), Some(rows::write(rows))),
            Places::General { .. } => (None, None),
        };
        let position: i32 = position;
        sqlx::query(
            "INSERT INTO section (event_id, position, id, name, kind, shape, capacity, rows)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(event.id.uuid())
        .bind(position)
        .bind(&section.id)
        .bind(&section.name)
        .bind(section.places.kind())
        .bind(shape)
        .bind(section.places.count() as i32)
        .bind(rows)
        .execute(&mut *db)
        .await?;
    }
    Ok(())
}

async fn insert_tiers(db: &mut PgConnection, event: &Event) -> Result<(), EventsError> {
    let tiers = &event.plan.tiers;
    let column = |read: fn(&Tier) -> &str| -> Vec<&str> { tiers.iter().map(read).collect() };
    let ends: Vec<Option<jiff_sqlx::Timestamp>> = (tiers.iter())
        .map(|tier| tier.ends_at.map(ToSqlx::to_sqlx))
        .collect();
    sqlx::query(
        "INSERT INTO tier (event_id, position, id, name, section, price, ends_at)
         SELECT $1, position - 1, id, name, section, price, ends_at
         FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[], $6::timestamptz[])
              WITH ORDINALITY AS given (id, name, section, price, ends_at, position)",
    )
    .bind(event.id.uuid())
    .bind(column(|tier| &tier.id))
    .bind(column(|tier| &tier.name))
    .bind(column(|tier| &tier.section))
    .bind(tiers.iter().map(|tier| tier.price).collect::<Vec<_>>())
    .bind(ends)
    .execute(db)
    .await?;
    Ok(())
}

async fn delete_tiers(db: &mut PgConnection, event: Id<id::Event>) -> Result<(), EventsError> {
    let deleted = sqlx::query("DELETE FROM tier WHERE event_id = $1");
    deleted.bind(event.uuid()).execute(db).await?;
    Ok(())
}

async fn with_parts(db: &mut PgConnection, rows: Vec<EventRow>) -> Result<Vec<Event>, EventsError> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let sections: Vec<SectionRow> = sqlx::query_as(
        "SELECT event_id, id, name, kind, shape, capacity, NULL::bytea AS rows
         FROM section WHERE event_id = ANY ($1) ORDER BY event_id, position",
    )
    .bind(&ids)
    .fetch_all(&mut *db)
    .await?;
    let tiers: Vec<TierRow> = sqlx::query_as(
        "SELECT event_id, id, name, section, price, ends_at
         FROM tier WHERE event_id = ANY ($1) ORDER BY event_id, position",
    )
    .bind(&ids)
    .fetch_all(db)
    .await?;
    let mut sections_of: HashMap<Uuid, Vec<Section>> = HashMap::new();
    for section in sections {
        let event = section.event_id;
        sections_of.entry(event).or_default().push(section.read()?);
    }
    let mut tiers_of: HashMap<Uuid, Vec<Tier>> = HashMap::new();
    for tier in tiers {
        let event = tier.event_id;
        tiers_of.entry(event).or_default().push(tier.read());
    }
    rows.into_iter()
        .map(|row| {
            let sections = sections_of.remove(&row.id).unwrap_or_default();
            let tiers = tiers_of.remove(&row.id).unwrap_or_default();
            row.read(sections, tiers)
        })
        .collect()
}

#[derive(sqlx::FromRow)]
struct EventRow {
    id: Uuid,
    name: String,
    venue: String,
    starts_at: jiff_sqlx::Timestamp,
    timezone: String,
    currency: String,
    per_buyer_limit: Option<i32>,
    opens_at: Option<jiff_sqlx::Timestamp>,
    closes_at: Option<jiff_sqlx::Timestamp>,
    lobby_opens_at: Option<jiff_sqlx::Timestamp>,
    admissions_per_minute: Option<i32>,
    status: String,
    reason: Option<String>,
    published_at: Option<jiff_sqlx::Timestamp>,
    created_at: jiff_sqlx::Timestamp,
    version: i64,
    layout_version: i64,
    announced: i64,
}

#[derive(sqlx::FromRow)]
struct SectionRow {
    event_id: Uuid,
    id: String,
    name: String,
    kind: String,
    shape: Option<String>,
    capacity: i32,
    /// Not read where only the event is asked for.
    rows: Option<Vec<u8>>,
}

#[derive(sqlx::FromRow)]
struct TierRow {
    event_id: Uuid,
    id: String,
    name: String,
    section: String,
    price: i64,
    ends_at: Option<jiff_sqlx::Timestamp>,
}

impl EventRow {
    fn read(self, sections: Vec<Section>, tiers: Vec<Tier>) -> Result<Event, EventsError> {
        let id = Id::new(self.id);
        let unreadable = |column: &str| EventsError::Unreadable(format!("event.{column} of {id}"));
        let currency: Currency = (self.currency.parse()).map_err(|_| unreadable("currency"))?;
        let published_at = self.published_at.map(Timestamp::from);
        let status = match (self.status.as_str(), published_at, self.reason) {
            ("draft", None, None) => Status::Draft,
            ("published", Some(at), None) => Status::Published { at },
            ("cancelled", published_at, Some(reason)) => Status::Cancelled {
                reason,
                published_at,
            },
            _ => return Err(unreadable("status")),
        };
        let waiting_room = match (self.lobby_opens_at, self.admissions_per_minute) {
            (Some(opens_at), Some(admissions)) => Some(WaitingRoom {
                lobby_opens_at: Timestamp::from(opens_at),
                admissions_per_minute: admissions as u32,
            }),
            (None, None) => None,
            _ => return Err(unreadable("lobby_opens_at")),
        };
        Ok(Event {
            id,
            plan: Plan {
                name: self.name,
                venue: self.venue,
                starts_at: Timestamp::from(self.starts_at),
                timezone: Zone::parse(&self.timezone).map_err(|_| unreadable("timezone"))?,
                currency,
                per_buyer_limit: self.per_buyer_limit.map(|limit| limit as u32),
                sale: Sale {
                    opens_at: self.opens_at.map(Timestamp::from),
                    closes_at: self.closes_at.map(Timestamp::from),
                    waiting_room,
                },
                sections,
                tiers,
            },
            status,
            created_at: Timestamp::from(self.created_at),
            version: self.version,
            layout_version: self.layout_version,
            announced: self.announced,
        })
    }
}

impl SectionRow {
    fn read(self) -> Result<Section, EventsError> {
        let capacity = self.capacity as u32;
        let places = match (
            self.kind.as_str(),
            self.shape.as_deref().and_then(Shape::parse),
        ) {
            ("seated", Some(shape)) => Places::Seated {
                shape,
                rows: match &self.rows {
                    Some(bytes) => read_rows(self.event_id, &self.id, bytes)?,
                    None => Vec::new(),
                },
                seats: capacity,
            },
            ("general", None) => Places::General { capacity },
            _ => {
                let event: Id<id::Event> = Id::new(self.event_id);
                let text = format!("section.kind of {event} {}", self.id);
                return Err(EventsError::Unreadable(text));
            }
        };
        Ok(Section {
            id: self.id,
            name: self.name,
            places,
        })
    }
}

impl TierRow {
    fn read(self) -> Tier {
        Tier {
            id: self.id,
            name: self.name,
            section: self.section,
            price: self.price,
            ends_at: self.ends_at.map(Timestamp::from),
        }
    }
}

fn read_rows(event: Uuid, section: &str, bytes: &[u8]) -> Result<Vec<Row>, EventsError> {
    rows::read(bytes).ok_or_else(|| {
        let event: Id<id::Event> = Id::new(event);
        EventsError::Unreadable(format!("section.rows of {event} {section}"))
    })
}
