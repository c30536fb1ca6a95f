//! Sections, rows and seats: what an event has, by ids that say where they are.

use std::collections::BTreeSet;

use holdfast_kernel::{Id, id};

use super::{ID_MAX_CHARS, LABEL_NAME_MAX_CHARS, counted, identifier, refused, within};
use crate::error::EventsError;

/// A part of the venue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) places: Places,
}

/// What a section holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Places {
    /// Seats by number.
    Seated {
        shape: Shape,
        /// Front to back. Who asks for an event alone is given none of them.
        rows: Vec<Row>,
        /// In all rows.
        seats: u32,
    },
    /// Standing room, or seats nobody numbers.
    General { capacity: u32 },
}

/// How seats are laid out that came without positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Shape {
    /// Each row an arc around the stage.
    #[default]
    Curved,
    Straight,
}

/// Seats side by side that are sold alike. A row whose seats are not stands in several parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) label: String,
    /// Sold at this tier only; none: at any of the section.
    pub(crate) tier: Option<String>,
    /// Left to right on a map with the stage at its top.
    pub(crate) numbers: Vec<String>,
    /// Where each seat is; none of them is known before the row is laid out.
    pub(crate) points: Vec<Point>,
}

/// Centimetres from the middle of the stage, on a map with the stage at its top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    /// To the right.
    pub(crate) x: i32,
    /// Down, away from the stage.
    pub(crate) y: i32,
}

/// One seat.
#[derive(Debug)]
pub(crate) struct Seat<'a> {
    pub(crate) row: &'a Row,
    pub(crate) number: &'a str,
    pub(crate) at: Point,
}

const SECTIONS_MAX_ENTRIES: usize = 100;
/// Of an event; each part of a row counts.
const ROWS_MAX_ENTRIES: usize = 10_000;
/// Of an event.
pub(crate) const SEATS_MAX_ENTRIES: usize = 100_000;
/// Of a section.
const CAPACITY_MAX_PLACES: u32 = 1_000_000;
const ROW_MAX_CHARS: usize = 8;
const NUMBER_MAX_CHARS: usize = 8;
/// Farthest from the middle of the stage that a seat can be, in each direction.
const SPAN_MAX_CM: i32 = 1_000_000;

impl Section {
    /// The pool of a general section's places.
    pub(crate) fn pool(&self, event: Id<id::Event>) -> Option<String> {
        match self.places {
            Places::Seated { .. } => None,
            Places::General { .. } => Some(format!("ga:{event}:{}", self.id)),
        }
    }
}

impl Places {
    /// These rows of seats.
    pub(crate) fn seated(shape: Shape, rows: Vec<Row>) -> Self {
        let seats = rows.iter().map(|row| row.numbers.len() as u32).sum();
        Self::Seated { shape, rows, seats }
    }

    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Seated { .. } => "seated",
            Self::General { .. } => "general",
        }
    }

    /// People it holds.
    pub(crate) const fn count(&self) -> u32 {
        match self {
            Self::Seated { seats, .. } => *seats,
            Self::General { capacity } => *capacity,
        }
    }

    /// Its rows; a general section has none.
    pub(crate) fn rows(&self) -> &[Row] {
        match self {
            Self::Seated { rows, .. } => rows,
            Self::General { .. } => &[],
        }
    }
}

impl Shape {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Curved => "curved",
            Self::Straight => "straight",
        }
    }

    /// Reads the word.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        let mut known = [Self::Curved, Self::Straight].into_iter();
        known.find(|shape| shape.as_str() == word)
    }
}

/// The id of a seat. It reads in one way only, for rows and numbers have no hyphen.
pub(crate) fn seat_id(section: &str, row: &str, number: &str) -> String {
    format!("{section}-{row}-{number}")
}

/// Every seat of these rows, which were laid out.
pub(crate) fn seats(rows: &[Row]) -> impl Iterator<Item = Seat<'_>> {
    rows.iter().flat_map(|row| {
        let seats = row.numbers.iter().zip(&row.points);
        seats.map(move |(number, at)| Seat {
            row,
            number,
            at: *at,
        })
    })
}

/// Tells the first thing that cannot be taken of sections that were laid out.
pub(super) fn check(sections: &[Section]) -> Result<(), EventsError> {
    counted("sections", sections.len(), SECTIONS_MAX_ENTRIES)?;
    let rows = sections.iter().flat_map(|section| section.places.rows());
    let (rows, seats) = rows.fold((0, 0), |(rows, seats), row| {
        (rows + 1, seats + row.numbers.len())
    });
    for (what, count, most) in [
        ("rows", rows, ROWS_MAX_ENTRIES),
        ("seats", seats, SEATS_MAX_ENTRIES),
    ] {
        if count > most {
            let text = format!("{count} {what} in all, wanted at most {most}");
            return Err(refused("sections", text));
        }
    }
    let mut ids = BTreeSet::new();
    for (at, section) in sections.iter().enumerate() {
        let field = |name: &str| format!("sections[{at}].{name}");
        identifier(&field("id"), &section.id, ID_MAX_CHARS, b"._-")?;
        if !ids.insert(&section.id) {
            return Err(refused(field("id"), format!("{} stands twice", section.id)));
        }
        within(&field("name"), &section.name, 1, LABEL_NAME_MAX_CHARS)?;
        match &section.places {
            Places::Seated { rows, .. } => check_rows(at, rows)?,
            Places::General { capacity } if !(1..=CAPACITY_MAX_PLACES).contains(capacity) => {
                let text = format!("got {capacity}, wanted 1 to {CAPACITY_MAX_PLACES}");
                return Err(refused(field("capacity"), text));
            }
            Places::General { .. } => {}
        }
    }
    Ok(())
}

fn check_rows(section: usize, rows: &[Row]) -> Result<(), EventsError> {
    let mut seen = BTreeSet::new();
    for (at, row) in rows.iter().enumerate() {
        let field = |name: &str| format!("sections[{section}].rows[{at}].{name}");
        identifier(&field("row"), &row.label, ROW_MAX_CHARS, b"._")?;
        if row.numbers.is_empty() {
            return Err(refused(field("seats"), "the row has none"));
        }
        for (place, number) in row.numbers.iter().enumerate() {
            let field = || format!("sections[{section}].rows[{at}].numbers[{place}]");
            identifier(&field(), number, NUMBER_MAX_CHARS, b"._")?;
            if !seen.insert((row.label.as_str(), number.as_str())) {
                let text = format!("seat {number} of row {} stands twice", row.label);
                return Err(refused(field(), text));
            }
        }
        for (name, far) in [
            ("x", row.points.iter().find(|point| is_far(point.x))),
            ("y", row.points.iter().find(|point| is_far(point.y))),
        ] {
            if let Some(Point { x, y }) = far {
                let got = if name == "x" { x } else { y };
                let text = format!("got {got}, wanted -{SPAN_MAX_CM} to {SPAN_MAX_CM}");
                return Err(refused(field(name), text));
            }
        }
    }
    Ok(())
}

fn is_far(distance: i32) -> bool {
    !(-SPAN_MAX_CM..=SPAN_MAX_CM).contains(&distance)
}
