//! Concerts and matches: what seats and places are sold of.

use axum::{
    Extension,
    extract::{Path, State},
};
use holdfast_platform::identity::Caller;
use holdfast_proto::events::v1 as pb;
use http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Answer, promised,
    shape::{Money, Page, Slice, instant, moment, optional_moment, paged, told},
};
use crate::{
    Gateway,
    decode::{Json, Query},
    error::GatewayError,
    idempotency::Keyed,
    precondition::Expected,
    problems::Problem,
    reply::Reply,
};

pub(super) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(list_events, create_event))
        .routes(routes!(one_event, change_event))
        .routes(routes!(layout, replace_layout))
        .routes(routes!(publish_event))
        .routes(routes!(cancel_event))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewEvent {
    #[schema(example = "Winter concert", max_length = 200)]
    name: String,
    #[schema(max_length = 200)]
    venue: String,
    starts_at: String,
    /// IANA.
    timezone: String,
    /// ISO 4217; that of all its prices.
    #[schema(example = "JPY")]
    currency: String,
    /// Tickets an account may have of it; left out: as many as there are.
    #[schema(minimum = 1, maximum = 1000)]
    per_buyer_limit: Option<i32>,
    #[serde(default)]
    sale: Sale,
    /// At most 100, with 100,000 seats in all. They may come later.
    #[serde(default)]
    sections: Vec<NewSection>,
    /// At most 200. They may come later.
    #[serde(default)]
    tiers: Vec<Tier>,
}

/// What shall be otherwise; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EventChange {
    #[schema(example = "Winter concert", max_length = 200)]
    name: Option<String>,
    #[schema(max_length = 200)]
    venue: Option<String>,
    starts_at: Option<String>,
    /// IANA.
    timezone: Option<String>,
    /// Of a draft.
    currency: Option<String>,
    /// 0: as many as there are.
    #[schema(minimum = 0, maximum = 1000)]
    per_buyer_limit: Option<i32>,
    /// The whole of it.
    sale: Option<Sale>,
    /// All of them, of a draft.
    sections: Option<Vec<NewSection>>,
    /// All of them; once the event was published, none goes.
    tiers: Option<Vec<Tier>>,
}

/// When tickets can be bought.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Sale {
    /// Null: as soon as the event is published.
    opens_at: Option<String>,
    /// Null: when the event starts.
    closes_at: Option<String>,
    /// Whether buyers are let in one after the other; then `opens_at` is needed.
    #[serde(default)]
    waiting_room: bool,
    /// Since when the waiting room can be entered; left out: 30 minutes before the sale opens.
    lobby_opens_at: Option<String>,
    /// Buyers it lets in; left out: 600.
    #[schema(minimum = 1, maximum = 100_000)]
    admissions_per_minute: Option<i32>,
}

/// A part of the venue: rows of seats, or room for so many.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewSection {
    /// 1 to 32 of A-Z a-z 0-9 . _ -
    #[schema(example = "S", max_length = 32)]
    id: String,
    /// Left out: its id.
    #[serde(default)]
    #[schema(max_length = 100)]
    name: String,
    /// `seated` or `general`.
    #[schema(example = "seated")]
    kind: String,
    /// `curved` or `straight`: how seats are laid out that come without positions.
    #[serde(default)]
    shape: String,
    /// Of a seated section, front to back.
    #[serde(default)]
    rows: Vec<SeatRow>,
    /// Of a general section: people it holds.
    #[schema(minimum = 1, maximum = 1_000_000)]
    capacity: Option<i32>,
}

/// Seats side by side that are sold alike; a row whose seats are not is given in several parts.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SeatRow {
    /// 1 to 8 of A-Z a-z 0-9 . _
    #[schema(example = "A", max_length = 8)]
    row: String,
    /// Its seats are sold at this tier only; left out: at any of their section.
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<String>,
    /// How many; without `numbers` they are numbered from 1.
    #[schema(example = 3, minimum = 1, maximum = 100_000)]
    seats: Option<i32>,
    /// Left to right, each 1 to 8 of A-Z a-z 0-9 . _; a seat's id is `<section>-<row>-<number>`.
    #[serde(default)]
    numbers: Vec<String>,
    /// One a seat: centimetres right of the middle of the stage, which is at the top of the map. Left out: seats are laid out.
    #[serde(default)]
    x: Vec<i32>,
    /// One a seat: centimetres down from the stage.
    #[serde(default)]
    y: Vec<i32>,
}

/// What a ticket of a section costs, to whom.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Tier {
    /// 1 to 32 of A-Z a-z 0-9 . _ -
    #[schema(example = "adult", max_length = 32)]
    id: String,
    /// Left out: its id.
    #[serde(default)]
    #[schema(max_length = 100)]
    name: String,
    /// The id of the section it is sold for.
    #[schema(example = "S")]
    section: String,
    /// In the event's currency.
    price: Money,
    /// Sold before that moment only.
    ends_at: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LayoutChange {
    /// Those that shall hold other seats, or more or fewer people; others stay.
    sections: Vec<NewSection>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EventCancellation {
    /// For those who hold tickets.
    #[schema(example = "the singer is ill", min_length = 1, max_length = 500)]
    reason: String,
}

#[derive(Serialize, ToSchema)]
struct Event {
    #[schema(example = "evt_01jd3q8m5ze2vtx0c9k4h7n6wb")]
    id: String,
    #[schema(example = "Winter concert")]
    name: String,
    venue: String,
    starts_at: String,
    /// IANA: where it is.
    timezone: String,
    currency: String,
    /// `draft`, `published` (its sale has not begun), `on_sale`, `closed` or `cancelled`.
    #[schema(example = "on_sale")]
    status: String,
    /// Why it was cancelled.
    #[schema(example = "the singer is ill")]
    reason: Option<String>,
    /// Tickets an account may have of it; null: as many as there are.
    per_buyer_limit: Option<i32>,
    sale: Sale,
    sections: Vec<SectionSummary>,
    tiers: Vec<Tier>,
    created_at: String,
    /// Null: never.
    published_at: Option<String>,
}

/// A section without its seats.
#[derive(Serialize, ToSchema)]
struct SectionSummary {
    #[schema(example = "S")]
    id: String,
    #[schema(example = "Stalls")]
    name: String,
    /// `seated` or `general`.
    #[schema(example = "seated")]
    kind: String,
    /// People it holds.
    capacity: i32,
}

/// The seat map of an event. It says nothing of what is free.
#[derive(Serialize, ToSchema)]
struct Layout {
    sections: Vec<Section>,
}

/// A section as it can be given again.
#[derive(Serialize, ToSchema)]
struct Section {
    #[schema(example = "S")]
    id: String,
    #[schema(example = "Stalls")]
    name: String,
    /// `seated` or `general`.
    #[schema(example = "seated")]
    kind: String,
    /// `curved` or `straight`; of a seated section.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "curved")]
    shape: Option<String>,
    /// Of a seated section, front to back.
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<Vec<SeatRow>>,
    /// Of a general section: people it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 500)]
    capacity: Option<i32>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// `true`: those only that start later and are not cancelled.
    upcoming: Option<bool>,
    /// What it is now: `published`, `on_sale`, `closed` or `cancelled`; for staff `draft` too.
    status: Option<String>,
    /// Words, or parts of words, that name and venue must have, all of them.
    q: Option<String>,
    /// 1 to 100; 20 when left out. A page of large events may be shorter.
    limit: Option<i32>,
    /// `next_cursor` of the slice before.
    cursor: Option<String>,
}

/// Lists published events by when they start; staff see drafts too.
#[utoipa::path(get, path = "/v1/events", tag = "events", params(Wanted), responses((status = 200, body = Page<Event>)))]
async fn list_events(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Query(wanted): Query<Wanted>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::ListEventsRequest {
        page: Some(Slice::new(wanted.limit, wanted.cursor).request()?),
        upcoming: wanted.upcoming.unwrap_or_default(),
        status: wanted.status.unwrap_or_default(),
        query: wanted.q.unwrap_or_default(),
    });
    let answer = gateway.peers.events.clone().list_events(request).await;
    let answer = answer
        .map_err(|refused| paged(&refused).calling("query", "q"))?
        .into_inner();
    let events = answer.events.into_iter().map(event);
    let events = events.collect::<Result<_, _>>()?;
    Ok(Reply::ok(&Page::<Event>::new(events, answer.page)))
}

/// Shows one event; drafts to staff.
#[utoipa::path(get, path = "/v1/events/{id}", tag = "events", params(("id" = String, Path)),
    responses((status = 200, body = Event)))]
async fn one_event(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::GetEventRequest { event_id: id });
    let answer = gateway.peers.events.clone().get_event(request).await?;
    shown(answer.into_inner().event)
}

/// Makes a draft, its seats laid out where they come without positions.
#[utoipa::path(post, path = "/v1/events", tag = "events", request_body = NewEvent,
    params(("idempotency-key" = String, Header)), responses((status = 201, body = Event)))]
async fn create_event(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Keyed { body, once }: Keyed<NewEvent>,
) -> Answer {
    let request = caller.request(pb::CreateEventRequest {
        request_id: once.request_id.to_string(),
        fingerprint: once.fingerprint(),
        name: body.name,
        venue: body.venue,
        starts_at: instant("starts_at", Some(&body.starts_at))?,
        timezone: body.timezone,
        currency: body.currency,
        per_buyer_limit: positive("per_buyer_limit", body.per_buyer_limit)?,
        sale: Some(sale_wanted(&body.sale)?),
        sections: sections_wanted(body.sections)?,
        tiers: tiers_wanted(body.tiers)?,
    });
    let mut events = gateway.peers.events.clone();
    let effect = async move {
        let answer = events.create_event(request).await?.into_inner();
        let made = promised(answer.event, "events", "the event")?;
        let (version, location) = (made.version, format!("/v1/events/{}", made.id));
        Ok(Reply::created(&event(made)?, &location).tagged(version))
    };
    gateway.replies.once(once, effect).await
}

/// Changes an event that is still as it was read. Once it was published, currency and sections stay, and no tier goes.
#[utoipa::path(patch, path = "/v1/events/{id}", tag = "events", request_body = EventChange,
    params(("id" = String, Path), ("if-match" = String, Header, description = "the ETag it was read with")),
    responses((status = 200, body = Event)))]
async fn change_event(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Expected(expected): Expected,
    Json(change): Json<EventChange>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::ChangeEventRequest {
        event_id: id,
        expected_version: expected,
        name: change.name,
        venue: change.venue,
        starts_at: instant("starts_at", change.starts_at.as_deref())?,
        timezone: change.timezone,
        currency: change.currency,
        per_buyer_limit: change.per_buyer_limit,
        sale: change.sale.as_ref().map(sale_wanted).transpose()?,
        sections: match change.sections {
            Some(sections) => Some(pb::Sections {
                sections: sections_wanted(sections)?,
            }),
            None => None,
        },
        tiers: match change.tiers {
            Some(tiers) => Some(pb::Tiers {
                tiers: tiers_wanted(tiers)?,
            }),
            None => None,
        },
    });
    let answer = gateway.peers.events.clone().change_event(request).await?;
    shown(answer.into_inner().event)
}

/// Shows the seat map of an event, with an ETag of its own: 304 to who has it.
#[utoipa::path(get, path = "/v1/events/{id}/layout", tag = "events",
    params(("id" = String, Path), ("if-none-match" = Option<String>, Header, description = "the ETag of what one has")),
    responses((status = 200, body = Layout), (status = 304)))]
async fn layout(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Reply, Problem> {
    let known_version = if_none_match(&headers);
    let request = caller.request(pb::GetLayoutRequest {
        event_id: id,
        known_version,
    });
    let answer = gateway.peers.events.clone().get_layout(request).await?;
    let answer = answer.into_inner();
    if answer.version == known_version {
        return Ok(Reply::unchanged().tagged(answer.version));
    }
    Ok(laid_out(answer.sections).tagged(answer.version))
}

/// Gives sections of a draft other seats, or another capacity, if the layout is still as it was read. A section that is named
/// is named as it is.
#[utoipa::path(put, path = "/v1/events/{id}/layout", tag = "events", request_body = LayoutChange,
    params(("id" = String, Path), ("if-match" = String, Header, description = "the layout's ETag")),
    responses((status = 200, body = Layout)))]
async fn replace_layout(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Expected(expected): Expected,
    Json(change): Json<LayoutChange>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::ReplaceLayoutRequest {
        event_id: id,
        expected_version: expected,
        sections: sections_wanted(change.sections)?,
    });
    let answer = gateway.peers.events.clone().replace_layout(request).await?;
    let answer = answer.into_inner();
    Ok(laid_out(answer.sections).tagged(answer.version))
}

/// Shows an event to everybody, for good; one that is published stays as it is.
#[utoipa::path(post, path = "/v1/events/{id}/publish", tag = "events", params(("id" = String, Path)),
    responses((status = 200, body = Event)))]
async fn publish_event(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::PublishEventRequest { event_id: id });
    let answer = gateway.peers.events.clone().publish_event(request).await?;
    shown(answer.into_inner().event)
}

/// Calls an event off, for good; one that was stays as it is, its first reason too.
#[utoipa::path(post, path = "/v1/events/{id}/cancel", tag = "events", request_body = EventCancellation,
    params(("id" = String, Path)), responses((status = 200, body = Event)))]
async fn cancel_event(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Json(cancellation): Json<EventCancellation>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::CancelEventRequest {
        event_id: id,
        reason: cancellation.reason,
    });
    let answer = gateway.peers.events.clone().cancel_event(request).await?;
    shown(answer.into_inner().event)
}

/// The version among those a client has that could be the one; 0 where it named none.
fn if_none_match(headers: &HeaderMap) -> i64 {
    let named = headers.get(header::IF_NONE_MATCH);
    let named = named
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let tags = named
        .split(',')
        .map(|tag| tag.trim().trim_start_matches("W/"));
    let versions = tags.filter_map(|tag| {
        let digits = tag.strip_prefix('"')?.strip_suffix('"')?;
        digits.parse().ok().filter(|version: &i64| *version > 0)
    });
    // Versions rise: the newest is the only one that can still hold.
    versions.max().unwrap_or_default()
}

/// A number that to services means none when it is 0, and that nobody asks for as 0.
fn positive(field: &str, given: Option<i32>) -> Result<i32, GatewayError> {
    match given {
        None => Ok(0),
        Some(number @ 1..) => Ok(number),
        Some(number) => Err(GatewayError::Field {
            field: field.to_owned(),
            text: format!("got {number}, wanted at least 1"),
        }),
    }
}

fn sale_wanted(sale: &Sale) -> Result<pb::Sale, GatewayError> {
    Ok(pb::Sale {
        opens_at: instant("sale.opens_at", sale.opens_at.as_deref())?,
        closes_at: instant("sale.closes_at", sale.closes_at.as_deref())?,
        waiting_room: sale.waiting_room,
        lobby_opens_at: instant("sale.lobby_opens_at", sale.lobby_opens_at.as_deref())?,
        admissions_per_minute: positive("sale.admissions_per_minute", sale.admissions_per_minute)?,
    })
}

fn sections_wanted(sections: Vec<NewSection>) -> Result<Vec<pb::Section>, GatewayError> {
    let wanted = sections.into_iter().enumerate().map(|(at, section)| {
        let rows = section.rows.into_iter().enumerate().map(|(place, row)| {
            let seats = positive(&format!("sections[{at}].rows[{place}].seats"), row.seats)?;
            Ok(pb::Row {
                row: row.row,
                tier: row.tier.unwrap_or_default(),
                seats,
                numbers: row.numbers,
                x: row.x,
                y: row.y,
            })
        });
        Ok(pb::Section {
            id: section.id,
            name: section.name,
            kind: section.kind,
            capacity: positive(&format!("sections[{at}].capacity"), section.capacity)?,
            shape: section.shape,
            rows: rows.collect::<Result<_, GatewayError>>()?,
            ..pb::Section::default()
        })
    });
    wanted.collect()
}

fn tiers_wanted(tiers: Vec<Tier>) -> Result<Vec<pb::Tier>, GatewayError> {
    let wanted = tiers.into_iter().enumerate().map(|(at, tier)| {
        Ok(pb::Tier {
            ends_at: instant(&format!("tiers[{at}].ends_at"), tier.ends_at.as_deref())?,
            id: tier.id,
            name: tier.name,
            section: tier.section,
            price: Some(tier.price.into()),
        })
    });
    wanted.collect()
}

fn shown(found: Option<pb::Event>) -> Result<Reply, Problem> {
    let found = promised(found, "events", "the event")?;
    let version = found.version;
    Ok(Reply::ok(&event(found)?).tagged(version))
}

fn event(event: pb::Event) -> Result<Event, Problem> {
    let sale = promised(event.sale, "events", "the sale")?;
    let tiers = event.tiers.into_iter().map(tier);
    let sections = event.sections.into_iter().map(|section| SectionSummary {
        id: section.id,
        name: section.name,
        kind: section.kind,
        capacity: section.capacity,
    });
    Ok(Event {
        id: event.id,
        name: event.name,
        venue: event.venue,
        starts_at: moment(event.starts_at.as_ref(), "events")?,
        timezone: event.timezone,
        currency: event.currency,
        status: event.status,
        reason: told(event.reason),
        per_buyer_limit: (event.per_buyer_limit > 0).then_some(event.per_buyer_limit),
        sale: Sale {
            opens_at: optional_moment(sale.opens_at.as_ref()),
            closes_at: optional_moment(sale.closes_at.as_ref()),
            waiting_room: sale.waiting_room,
            lobby_opens_at: optional_moment(sale.lobby_opens_at.as_ref()),
            admissions_per_minute: sale.waiting_room.then_some(sale.admissions_per_minute),
        },
        sections: sections.collect(),
        tiers: tiers.collect::<Result<_, _>>()?,
        created_at: moment(event.created_at.as_ref(), "events")?,
        published_at: optional_moment(event.published_at.as_ref()),
    })
}

fn tier(tier: pb::Tier) -> Result<Tier, Problem> {
    Ok(Tier {
        id: tier.id,
        name: tier.name,
        section: tier.section,
        price: promised(tier.price, "events", "the price of a tier")?.into(),
        ends_at: optional_moment(tier.ends_at.as_ref()),
    })
}

fn laid_out(sections: Vec<pb::Section>) -> Reply {
    let sections = sections.into_iter().map(|section| {
        let is_seated = section.kind == "seated";
        let rows = section.rows.into_iter().map(|row| SeatRow {
            row: row.row,
            tier: told(row.tier),
            seats: Some(row.seats),
            numbers: row.numbers,
            x: row.x,
            y: row.y,
        });
        Section {
            id: section.id,
            name: section.name,
            kind: section.kind,
            shape: told(section.shape),
            rows: is_seated.then(|| rows.collect()),
            capacity: (!is_seated).then_some(section.capacity),
        }
    });
    Reply::ok(&Layout {
        sections: sections.collect(),
    })
}
