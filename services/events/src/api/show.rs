//! Events, sections and seats as the contract shows them.

use holdfast_kernel::{Id, Timestamp, id};
use holdfast_platform::wire;
use holdfast_proto::{events::v1 as pb, money::v1 as money_pb};

use crate::domain::{Event, Places, Row, Sale, Seat, Section, Status, Tier, seat_id};

/// An event as it is at a moment, its sections without their rows.
pub(super) fn event(event: Event, now: Timestamp) -> pb::Event {
    let status = event.phase(now).as_str().to_owned();
    let published_at = event.published_at().map(wire::timestamp);
    let currency = event.plan.currency.to_string();
    let sections = event.plan.sections.into_iter();
    let tiers = event.plan.tiers.into_iter();
    pb::Event {
        id: event.id.to_string(),
        name: event.plan.name,
        venue: event.plan.venue,
        starts_at: Some(wire::timestamp(event.plan.starts_at)),
        timezone: event.plan.timezone.as_str().to_owned(),
        per_buyer_limit: event.plan.per_buyer_limit.unwrap_or_default() as i32,
        sale: Some(sale(&event.plan.sale)),
        sections: sections
            .map(|it| pb::Section {
                rows: Vec::new(),
                ..section(it, event.id)
            })
            .collect(),
        tiers: tiers.map(|it| tier(it, &currency)).collect(),
        currency,
        status,
        reason: match event.status {
            Status::Cancelled { reason, .. } => reason,
            Status::Draft | Status::Published { .. } => String::new(),
        },
        created_at: Some(wire::timestamp(event.created_at)),
        published_at,
        version: event.version,
        layout_version: event.layout_version,
    }
}

/// A section with its rows.
pub(super) fn section(section: Section, event: Id<id::Event>) -> pb::Section {
    let (kind, capacity) = (section.places.kind(), section.places.count());
    let pool = section.pool(event).unwrap_or_default();
    let (shape, rows) = match section.places {
        Places::Seated { shape, rows, .. } => (shape.as_str(), rows),
        Places::General { .. } => ("", Vec::new()),
    };
    pb::Section {
        id: section.id,
        name: section.name,
        kind: kind.to_owned(),
        capacity: capacity as i32,
        shape: shape.to_owned(),
        rows: rows.into_iter().map(row).collect(),
        pool,
    }
}

/// A seat of a section, with its pool.
pub(super) fn seat(section: &str, seat: &Seat<'_>, event: Id<id::Event>) -> pb::Seat {
    let id = seat_id(section, &seat.row.label, seat.number);
    pb::Seat {
        pool: format!("seat:{event}:{id}"),
        id,
        section: section.to_owned(),
        row: seat.row.label.clone(),
        number: seat.number.to_owned(),
        tier: seat.row.tier.clone().unwrap_or_default(),
        x: seat.at.x,
        y: seat.at.y,
    }
}

fn row(row: Row) -> pb::Row {
    pb::Row {
        row: row.label,
        tier: row.tier.unwrap_or_default(),
        seats: row.numbers.len() as i32,
        numbers: row.numbers,
        x: row.points.iter().map(|point| point.x).collect(),
        y: row.points.iter().map(|point| point.y).collect(),
    }
}

fn sale(sale: &Sale) -> pb::Sale {
    let room = sale.waiting_room;
    pb::Sale {
        opens_at: sale.opens_at.map(wire::timestamp),
        closes_at: sale.closes_at.map(wire::timestamp),
        waiting_room: room.is_some(),
        lobby_opens_at: room.map(|room| wire::timestamp(room.lobby_opens_at)),
        admissions_per_minute: room.map_or(0, |room| room.admissions_per_minute as i32),
    }
}

fn tier(tier: Tier, currency: &str) -> pb::Tier {
    pb::Tier {
        id: tier.id,
        name: tier.name,
        section: tier.section,
        price: Some(money_pb::Money {
            amount: tier.price,
            currency: currency.to_owned(),
        }),
        ends_at: tier.ends_at.map(wire::timestamp),
    }
}
