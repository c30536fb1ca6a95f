//! Reading what staff plan: once, so that all behind here is well-formed but for its bounds, which the domain knows.

use holdfast_kernel::{Currency, RequestId, Timestamp, time};
use holdfast_platform::wire;
use holdfast_proto::events::v1 as pb;
use prost_types::Timestamp as Moment;

use super::refused;
use crate::{
    domain::{
        ADMISSIONS_DEFAULT, Change, LOBBY_DEFAULT_SECS, Places, Plan, Point, Row,
        SEATS_MAX_ENTRIES, Sale, Section, Shape, Tier, WaitingRoom, Zone,
    },
    error::EventsError,
    planning::NewEvent,
};

/// Longest part of a refused word that an error repeats, in characters.
const SHOWN_CHARS: usize = 64;

/// A wish for a new event.
pub(super) fn new_event(request: pb::CreateEventRequest) -> Result<NewEvent, EventsError> {
    let id: RequestId =
        (request.request_id.parse()).map_err(|_| refused("request_id", "wanted a UUID"))?;
    let currency = currency(&request.currency)?;
    let plan = Plan {
        name: request.name,
        venue: request.venue,
        starts_at: moment("starts_at", request.starts_at.as_ref())?
            .ok_or_else(|| refused("starts_at", "missing"))?,
        timezone: Zone::parse(&request.timezone)?,
        currency,
        per_buyer_limit: limit(request.per_buyer_limit)?,
        sale: request.sale.map(sale).transpose()?.unwrap_or_default(),
        sections: sections(request.sections)?,
        tiers: tiers(request.tiers, currency)?,
    };
    Ok(NewEvent {
        id: id.makes(),
        fingerprint: request.fingerprint.to_vec(),
        plan,
    })
}

/// What shall be otherwise of an event whose prices are in this currency.
pub(super) fn change(
    request: pb::ChangeEventRequest,
    priced_in: Currency,
) -> Result<Change, EventsError> {
    let new_currency = request.currency.as_deref().map(currency).transpose()?;
    let priced_in = new_currency.unwrap_or(priced_in);
    Ok(Change {
        name: request.name,
        venue: request.venue,
        starts_at: moment("starts_at", request.starts_at.as_ref())?,
        timezone: request.timezone.as_deref().map(Zone::parse).transpose()?,
        currency: new_currency,
        per_buyer_limit: request.per_buyer_limit.map(limit).transpose()?,
        sale: request.sale.map(sale).transpose()?,
        sections: match request.sections {
            Some(list) => Some(sections(list.sections)?),
            None => None,
        },
        tiers: match request.tiers {
            Some(list) => Some(tiers(list.tiers, priced_in)?),
            None => None,
        },
    })
}

/// Sections as they were sent; the name is empty where none was.
pub(super) fn layout(given: Vec<pb::Section>) -> Result<Vec<Section>, EventsError> {
    let mut seats = 0;
    let read = given.into_iter().enumerate().map(|(at, mut section)| {
        let id = std::mem::take(&mut section.id);
        let name = std::mem::take(&mut section.name);
        let places = section_places(at, section, &mut seats)?;
        Ok(Section { id, name, places })
    });
    read.collect()
}

fn sections(given: Vec<pb::Section>) -> Result<Vec<Section>, EventsError> {
    let mut sections = layout(given)?;
    for section in &mut sections {
        // A section without a name is called by its id.
        if section.name.is_empty() {
            section.name.clone_from(&section.id);
        }
    }
    Ok(sections)
}

/// What a section holds; `seats` counts those of all sections, so that a few bytes cannot ask for more than there may be.
fn section_places(
    at: usize,
    section: pb::Section,
    seats: &mut usize,
) -> Result<Places, EventsError> {
    let field = |name: &str| format!("sections[{at}].{name}");
    match section.kind.as_str() {
        "seated" => {
            if section.capacity != 0 {
                let text = "a seated section holds as many as it has seats; leave it out";
                return Err(refused(field("capacity"), text));
            }
            let shape = match section.shape.as_str() {
                "" => Shape::default(),
                word => Shape::parse(word).ok_or_else(|| {
                    let text = format!("got {:?}, wanted curved or straight", shown(word));
                    refused(field("shape"), text)
                })?,
            };
            let given = section.rows.into_iter().enumerate();
            let rows = given
                .map(|(place, given)| row(&format!("sections[{at}].rows[{place}]"), given, seats));
            let rows = rows.collect::<Result<Vec<_>, _>>()?;
            let laid = rows.iter().filter(|row| !row.points.is_empty()).count();
            if let Some(bare) = rows.iter().position(|row| row.points.is_empty())
                && laid > 0
            {
                let text = "missing, and other rows of the section have positions";
                return Err(refused(format!("sections[{at}].rows[{bare}].x"), text));
            }
            Ok(Places::seated(shape, rows))
        }
        "general" => {
            if !section.rows.is_empty() {
                return Err(refused(field("rows"), "a general section has no rows"));
            }
            if !section.shape.is_empty() {
                return Err(refused(
                    field("shape"),
                    "a general section has no seats to lay out",
                ));
            }
            let capacity = u32::try_from(section.capacity).unwrap_or_default();
            Ok(Places::General { capacity })
        }
        other => {
            let text = format!("got {:?}, wanted seated or general", shown(other));
            Err(refused(field("kind"), text))
        }
    }
}

fn row(field: &str, given: pb::Row, seats: &mut usize) -> Result<Row, EventsError> {
    let said = usize::try_from(given.seats).unwrap_or(usize::MAX);
    let count = if given.numbers.is_empty() {
        said
    } else {
        given.numbers.len()
    };
    if said != 0 && said != count {
        let text = format!(
            "got {}, wanted {count}, for so many numbers are given",
            given.seats
        );
        return Err(refused(format!("{field}.seats"), text));
    }
    if count > SEATS_MAX_ENTRIES {
        let text = format!("got {}, wanted at most {SEATS_MAX_ENTRIES}", given.seats);
        return Err(refused(format!("{field}.seats"), text));
    }
    *seats += count;
    if *seats > SEATS_MAX_ENTRIES {
        let text = format!("an event has at most {SEATS_MAX_ENTRIES} seats");
        return Err(refused(format!("{field}.seats"), text));
    }
    let numbers = if given.numbers.is_empty() {
        (1..=count).map(|number| number.to_string()).collect()
    } else {
        given.numbers
    };
    for (name, places) in [("x", given.x.len()), ("y", given.y.len())] {
        let wanted = if given.x.is_empty() && given.y.is_empty() {
            0
        } else {
            count
        };
        if places != wanted {
            let text = format!("{places} positions of {count} seats");
            return Err(refused(format!("{field}.{name}"), text));
        }
    }
    let points = given.x.into_iter().zip(given.y);
    Ok(Row {
        label: given.row,
        tier: Some(given.tier).filter(|tier| !tier.is_empty()),
        numbers,
        points: points.map(|(x, y)| Point { x, y }).collect(),
    })
}

fn tiers(given: Vec<pb::Tier>, currency: Currency) -> Result<Vec<Tier>, EventsError> {
    let read = given.into_iter().enumerate().map(|(at, tier)| {
        let field = |name: &str| format!("tiers[{at}].{name}");
        let price = tier
            .price
            .ok_or_else(|| refused(field("price"), "missing"))?;
        let priced_in: Currency = (price.currency.parse())
            .map_err(|error| refused(field("price.currency"), format!("{error}")))?;
        if priced_in != currency {
            return Err(EventsError::CurrencyMixed {
                tier: tier.id,
                got: priced_in,
                wanted: currency,
            });
        }
        Ok(Tier {
            ends_at: moment(&field("ends_at"), tier.ends_at.as_ref())?,
            // A tier without a name is called by its id.
            name: if tier.name.is_empty() {
                tier.id.clone()
            } else {
                tier.name
            },
            id: tier.id,
            section: tier.section,
            price: price.amount,
        })
    });
    read.collect()
}

fn sale(given: pb::Sale) -> Result<Sale, EventsError> {
    let opens_at = moment("sale.opens_at", given.opens_at.as_ref())?;
    let lobby_opens_at = moment("sale.lobby_opens_at", given.lobby_opens_at.as_ref())?;
    let waiting_room = if given.waiting_room {
        let before = opens_at.map(|opens_at| {
            let second = opens_at.as_second() - LOBBY_DEFAULT_SECS;
            Timestamp::from_second(second).unwrap_or(Timestamp::MIN)
        });
        let lobby_opens_at = lobby_opens_at.or(before).ok_or_else(|| {
            refused(
                "sale.opens_at",
                "missing: a waiting room waits for a moment",
            )
        })?;
        let admissions = match given.admissions_per_minute {
            0 => ADMISSIONS_DEFAULT,
            // What is below its bound is refused with it.
            given => u32::try_from(given).unwrap_or_default(),
        };
        Some(WaitingRoom {
            lobby_opens_at,
            admissions_per_minute: admissions,
        })
    } else {
        for (name, is_given) in [
            ("sale.lobby_opens_at", lobby_opens_at.is_some()),
            (
                "sale.admissions_per_minute",
                given.admissions_per_minute != 0,
            ),
        ] {
            if is_given {
                return Err(refused(
                    name,
                    "there is no waiting room; set waiting_room, or leave it out",
                ));
            }
        }
        None
    };
    Ok(Sale {
        opens_at,
        closes_at: moment("sale.closes_at", given.closes_at.as_ref())?,
        waiting_room,
    })
}

fn limit(given: i32) -> Result<Option<u32>, EventsError> {
    match u32::try_from(given) {
        Ok(0) => Ok(None),
        Ok(limit) => Ok(Some(limit)),
        Err(_) => Err(refused(
            "per_buyer_limit",
            format!("got {given}, wanted 0 for none, or more"),
        )),
    }
}

fn currency(text: &str) -> Result<Currency, EventsError> {
    text.parse()
        .map_err(|error| refused("currency", format!("{error}")))
}

/// A moment as the database keeps it, where one is given.
fn moment(field: &str, given: Option<&Moment>) -> Result<Option<Timestamp>, EventsError> {
    let Some(given) = given else {
        return Ok(None);
    };
    let moment =
        wire::moment(Some(given)).ok_or_else(|| refused(field, "lies outside the calendar"))?;
    Ok(Some(time::to_micros(moment)))
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}
