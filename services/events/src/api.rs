//! The door: decode, authorise, act, encode. How plans are read and events are shown has files of its own.

mod read;
mod show;

use holdfast_kernel::{
    Id, id,
    page::{self, PageToken},
    time,
};
use holdfast_platform::{
    database,
    identity::{Access, AccessTable, Caller, Role},
    service::Context,
};
use holdfast_proto::{
    events::v1::{self as pb, events_service_server::EventsService},
    page::v1 as page_pb,
};
use prost::Message;
use tonic::{Request, Response, Status};

use crate::{
    domain::{self, Phase},
    error::{EventsError, Field},
    planning,
    store::{self, Wanted},
};

/// Who may call what.
pub const ACCESS: AccessTable = &[
    ("ListEvents", Access::Anyone),
    ("GetEvent", Access::Anyone),
    ("GetLayout", Access::Anyone),
    ("ListSeats", Access::StaffOr(&["tickets", "bookings"])),
    ("CreateEvent", Access::Staff),
    ("ChangeEvent", Access::Staff),
    ("ReplaceLayout", Access::Staff),
    ("PublishEvent", Access::Staff),
    ("CancelEvent", Access::Staff),
];

/// A page of events ends before it, at one event at least, whatever number was asked for: a message has its bound.
const LIST_MAX_BYTES: usize = 2 * 1024 * 1024;
const SEATS_DEFAULT_ENTRIES: usize = 1_000;
const SEATS_MAX_ENTRIES: usize = 5_000;
const QUERY_MAX_CHARS: usize = 200;

/// Where a list of seats goes on: in the layout of this version, in the section at this position, behind so many seats.
type SeatPlace = (i64, i32, usize);

pub(crate) struct Api {
    context: Context,
}

impl Api {
    pub(crate) fn new(context: Context) -> Self {
        Self { context }
    }
}

#[tonic::async_trait]
impl EventsService for Api {
    /// Events the caller may see, by when they start.
    async fn list_events(
        &self,
        request: Request<pb::ListEventsRequest>,
    ) -> Result<Response<pb::ListEventsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let wanted = Wanted {
            drafts: sees_drafts(&caller),
            upcoming: request.upcoming,
            phase: match request.status.as_str() {
                "" => None,
                word => Some(Phase::parse(word)?),
            },
            words: words(&request.query)?,
        };
        let asked = request.page.unwrap_or_default();
        let size = page::page_size(asked.size).map_err(EventsError::from)?;
        let place = page::read_token(&asked.token).map_err(EventsError::from)?;
        let now = time::to_micros(self.context.clock.now());

        let mut db = database::acquire(&self.context.database).await?;
        let found = store::list_events(&mut db, &wanted, now, place, size + 1).await?;
        drop(db);
        let (mut bytes, mut events, mut last) = (0, Vec::new(), None);
        let count = found.len();
        for event in found.into_iter().take(size as usize) {
            let place = (event.plan.starts_at.as_microsecond(), event.id.uuid());
            let event = show::event(event, now);
            bytes += event.encoded_len();
            if bytes > LIST_MAX_BYTES && !events.is_empty() {
                break;
            }
            events.push(event);
            last = Some(place);
        }
        let next_token = last
            .filter(|_| events.len() < count)
            .map(|last| PageToken::after(&last))
            .unwrap_or_default()
            .into_text();
        Ok(Response::new(pb::ListEventsResponse {
            events,
            page: Some(page_pb::PageInfo { next_token }),
        }))
    }

    /// An event; one that was never published exists for staff and peers only.
    async fn get_event(
        &self,
        request: Request<pb::GetEventRequest>,
    ) -> Result<Response<pb::GetEventResponse>, Status> {
        let caller = Caller::of(&request)?;
        let id = parse_event(&request.into_inner().event_id)?;
        let mut db = database::acquire(&self.context.database).await?;
        let event = store::find_event(&mut db, id)
            .await?
            .filter(|event| event.published_at().is_some() || sees_drafts(&caller))
            .ok_or(EventsError::UnknownEvent)?;
        Ok(Response::new(pb::GetEventResponse {
            event: Some(self.show(event)),
        }))
    }

    /// The whole seat map, unless the caller has it.
    async fn get_layout(
        &self,
        request: Request<pb::GetLayoutRequest>,
    ) -> Result<Response<pb::GetLayoutResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let id = parse_event(&request.event_id)?;
        let mut db = database::acquire(&self.context.database).await?;
        // Or a layout could go under another one's version.
        let mut moment = store::begin_reading(&mut db).await?;
        let (version, _) = store::find_layout_version(&mut moment, id)
            .await?
            .filter(|(_, is_public)| *is_public || sees_drafts(&caller))
            .ok_or(EventsError::UnknownEvent)?;
        let sections = if request.known_version == version {
            Vec::new()
        } else {
            store::find_layout(&mut moment, id).await?
        };
        moment.commit().await.map_err(EventsError::from)?;
        let sections = sections
            .into_iter()
            .map(|section| show::section(section, id));
        Ok(Response::new(pb::GetLayoutResponse {
            sections: sections.collect(),
            version,
        }))
    }

    /// Seats one by one.
    async fn list_seats(
        &self,
        request: Request<pb::ListSeatsRequest>,
    ) -> Result<Response<pb::ListSeatsResponse>, Status> {
        let request = request.into_inner();
        let id = parse_event(&request.event_id)?;
        let size = seats_asked(request.size)?;
        let place: Option<SeatPlace> =
            page::read_token(&request.token).map_err(EventsError::from)?;

        let mut db = database::acquire(&self.context.database).await?;
        let mut moment = store::begin_reading(&mut db).await?;
        let found = store::find_layout_version(&mut moment, id).await?;
        let (version, _) = found.ok_or(EventsError::UnknownEvent)?;
        let (begun_at, mut position, mut behind) = place.unwrap_or((version, 0, 0));
        if begun_at != version {
            return Err(EventsError::LayoutChanged {
                expected: begun_at,
                actual: version,
            }
            .into());
        }
        let (mut seats, mut next_token) = (Vec::with_capacity(size), String::new());
        while let Some(stand) = store::find_stand(&mut moment, id, position).await? {
            if stand.position != position {
                behind = 0;
            }
            let all = domain::seats(&stand.rows).skip(behind);
            let wanted = size - seats.len();
            let before = seats.len();
            seats.extend(
                all.take(wanted)
                    .map(|seat| show::seat(&stand.section, &seat, id)),
            );
            let taken = seats.len() - before;
            if taken == wanted {
                let place: SeatPlace = (version, stand.position, behind + taken);
                next_token = PageToken::after(&place).into_text();
                break;
            }
            (position, behind) = (stand.position + 1, 0);
        }
        moment.commit().await.map_err(EventsError::from)?;
        Ok(Response::new(pb::ListSeatsResponse { seats, next_token }))
    }

    /// Makes a draft.
    async fn create_event(
        &self,
        request: Request<pb::CreateEventRequest>,
    ) -> Result<Response<pb::CreateEventResponse>, Status> {
        let actor = Caller::of(&request)?.user()?;
        let wish = read::new_event(request.into_inner())?;
        let now = time::to_micros(self.context.clock.now());
        let mut tx = database::begin(&self.context.database).await?;
        let event = planning::create(&mut tx, wish, actor, now).await?;
        database::commit(tx).await?;
        self.context.wake.wake();
        Ok(Response::new(pb::CreateEventResponse {
            event: Some(self.show(event)),
        }))
    }

    /// Changes what is set.
    async fn change_event(
        &self,
        request: Request<pb::ChangeEventRequest>,
    ) -> Result<Response<pb::ChangeEventResponse>, Status> {
        let actor = Caller::of(&request)?.user()?;
        let request = request.into_inner();
        let id = parse_event(&request.event_id)?;
        let expected = version(request.expected_version);
        let now = time::to_micros(self.context.clock.now());
        let mut tx = database::begin(&self.context.database).await?;
        // Prices are read in the event's own currency, unless that changes with them.
        let currency = store::find_currency(&mut tx, id).await?;
        let currency = currency.ok_or(EventsError::UnknownEvent)?;
        let change = read::change(request, currency)?;
        let event = planning::change(&mut tx, id, expected, change, actor, now).await?;
        database::commit(tx).await?;
        self.context.wake.wake();
        Ok(Response::new(pb::ChangeEventResponse {
            event: Some(self.show(event)),
        }))
    }

    /// Gives sections of a draft other seats, or another capacity.
    async fn replace_layout(
        &self,
        request: Request<pb::ReplaceLayoutRequest>,
    ) -> Result<Response<pb::ReplaceLayoutResponse>, Status> {
        let actor = Caller::of(&request)?.user()?;
        let request = request.into_inner();
        let id = parse_event(&request.event_id)?;
        let expected = version(request.expected_version);
        let layout = read::layout(request.sections)?;
        let now = time::to_micros(self.context.clock.now());
        let mut tx = database::begin(&self.context.database).await?;
        let event = planning::reseat(&mut tx, id, expected, layout, actor, now).await?;
        database::commit(tx).await?;
        self.context.wake.wake();
        let sections = event.plan.sections.into_iter();
        Ok(Response::new(pb::ReplaceLayoutResponse {
            sections: sections.map(|section| show::section(section, id)).collect(),
            version: event.layout_version,
        }))
    }

    /// Shows an event to everybody.
    async fn publish_event(
        &self,
        request: Request<pb::PublishEventRequest>,
    ) -> Result<Response<pb::PublishEventResponse>, Status> {
        let actor = Caller::of(&request)?.user()?;
        let id = parse_event(&request.into_inner().event_id)?;
        let now = time::to_micros(self.context.clock.now());
        let mut tx = database::begin(&self.context.database).await?;
        let event = planning::publish(&mut tx, id, actor, now).await?;
        database::commit(tx).await?;
        self.context.wake.wake();
        Ok(Response::new(pb::PublishEventResponse {
            event: Some(self.show(event)),
        }))
    }

    /// Calls an event off.
    async fn cancel_event(
        &self,
        request: Request<pb::CancelEventRequest>,
    ) -> Result<Response<pb::CancelEventResponse>, Status> {
        let actor = Caller::of(&request)?.user()?;
        let request = request.into_inner();
        let id = parse_event(&request.event_id)?;
        let now = time::to_micros(self.context.clock.now());
        let mut tx = database::begin(&self.context.database).await?;
        let event = planning::cancel(&mut tx, id, &request.reason, actor, now).await?;
        database::commit(tx).await?;
        self.context.wake.wake();
        Ok(Response::new(pb::CancelEventResponse {
            event: Some(self.show(event)),
        }))
    }
}

impl Api {
    /// An event as it is at this moment.
    fn show(&self, event: domain::Event) -> pb::Event {
        show::event(event, time::to_micros(self.context.clock.now()))
    }
}

/// Whether what the public has never seen exists for this caller.
fn sees_drafts(caller: &Caller) -> bool {
    caller.has(Role::Staff) || caller.peer().is_some()
}

fn parse_event(text: &str) -> Result<Id<id::Event>, EventsError> {
    text.parse().map_err(|_| EventsError::UnknownEvent)
}

fn version(expected: i64) -> Option<i64> {
    (expected != 0).then_some(expected)
}

/// What name and venue must have.
fn words(query: &str) -> Result<Vec<String>, EventsError> {
    let chars = query.chars().count();
    if chars > QUERY_MAX_CHARS {
        let text = format!("{chars} characters, wanted at most {QUERY_MAX_CHARS}");
        return Err(refused("query", text));
    }
    Ok(query.split_whitespace().map(str::to_owned).collect())
}

fn seats_asked(size: i32) -> Result<usize, EventsError> {
    match usize::try_from(size) {
        Ok(0) => Ok(SEATS_DEFAULT_ENTRIES),
        Ok(size @ 1..=SEATS_MAX_ENTRIES) => Ok(size),
        _ => Err(refused(
            "size",
            format!("got {size}, wanted 1 to {SEATS_MAX_ENTRIES}"),
        )),
    }
}

fn refused(name: impl Into<String>, text: impl Into<String>) -> EventsError {
    EventsError::Refused(Field {
        name: name.into(),
        text: text.into(),
    })
}
