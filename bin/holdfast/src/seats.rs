//! A seat file: `section,row,seat` and, where the hall is drawn, `x,y`, where seats of a section differ, `tier`; a seat a row.
//!
//! Positions are centimetres right of the middle of the stage and down from it. A section has them for all its seats or for
//! none; then its seats are laid out. A file whose name ends in `.json` is a layout as the public API shows and takes it.
//!
//! The whole file is checked against the event before anything is written, and all that cannot be taken is named. Sections that
//! the file does not name stay as they are. It goes over in one request, or, where that would be too large, in as few as it
//! can: killed between them, the same command completes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::{Value, json};

use crate::client::{Client, ClientError};

/// Most faults of a file that are told at once.
const FAULTS_MAX_SHOWN: usize = 20;
/// Most that is sent in one request, well below what the server takes.
const REQUEST_MAX_BYTES: usize = 900 * 1024;
const SEATS_MAX_ENTRIES: usize = 100_000;
const LABEL_MAX_CHARS: usize = 8;
const SPAN_MAX_CM: i32 = 1_000_000;
const NEEDED_COLUMNS: [&str; 3] = ["section", "row", "seat"];
const OTHER_COLUMNS: [&str; 3] = ["x", "y", "tier"];

/// What an event has that seats can be given to.
#[derive(Debug)]
pub struct Venue {
    /// Its id.
    event: String,
    /// Its seated sections.
    seated: BTreeSet<String>,
    /// Of each tier its section.
    tiers: BTreeMap<String, String>,
}

/// A seat file that was read and found good for an event.
#[derive(Debug)]
pub struct SeatFile {
    sections: Vec<Section>,
}

/// Why an event takes no seats.
#[derive(Debug, thiserror::Error)]
#[error("{event} is {status}: only a draft takes other seats")]
pub struct NotADraft {
    event: String,
    status: String,
}

/// Everything that is wrong with a seat file.
#[derive(Debug, thiserror::Error)]
pub struct SeatFaults(Vec<Fault>);

/// What is wrong with one place of it.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    /// `row 7`, or `sections[0].rows[2]`.
    place: String,
    text: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layout {
    sections: Vec<Section>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    id: String,
    #[serde(default)]
    kind: String,
    /// A layout that was read has it; it stays as it is.
    #[serde(default, rename = "name", skip_serializing)]
    _name: IgnoredAny,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shape: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    capacity: Option<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rows: Vec<SeatRow>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeatRow {
    row: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tier: Option<String>,
    #[serde(default, skip_serializing)]
    seats: Option<usize>,
    #[serde(default)]
    numbers: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    x: Vec<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    y: Vec<i32>,
}

/// One row of a CSV file.
struct Seat<'a> {
    section: &'a str,
    row: &'a str,
    number: &'a str,
    at: Option<(i32, i32)>,
    tier: Option<&'a str>,
}

impl fmt::Display for SeatFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "{count} places cannot be taken, nothing was written")?;
        for fault in self.0.iter().take(FAULTS_MAX_SHOWN) {
            write!(f, "\n  {}: {}", fault.place, fault.text)?;
        }
        if count > FAULTS_MAX_SHOWN {
            write!(f, "\n  and {} more", count - FAULTS_MAX_SHOWN)?;
        }
        Ok(())
    }
}

impl Venue {
    /// The sections and tiers of an event as the public API shows it; fails where that takes no seats any more.
    pub fn of(event: &Value) -> Result<Self, NotADraft> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (id, status) = (text(&event["id"]), text(&event["status"]));
        if status != "draft" {
            return Err(NotADraft { event: id, status });
        }
        let sections = event["sections"].as_array().into_iter().flatten();
        let seated = sections.filter(|section| section["kind"] == "seated");
        let tiers = event["tiers"].as_array().into_iter().flatten();
        Ok(Self {
            event: id,
            seated: seated.map(|section| text(&section["id"])).collect(),
            tiers: tiers
                .map(|tier| (text(&tier["id"]), text(&tier["section"])))
                .collect(),
        })
    }

    fn check_section(&self, id: &str) -> Result<(), String> {
        if self.seated.contains(id) {
            return Ok(());
        }
        let known: Vec<&str> = self.seated.iter().map(String::as_str).collect();
        Err(format!(
            "section: got {id:?}, wanted a seated one of the event: {}",
            known.join(", ")
        ))
    }

    fn check_tier(&self, tier: Option<&str>, section: &str) -> Result<(), String> {
        match tier {
            Some(tier) if self.tiers.get(tier).map(String::as_str) != Some(section) => Err(
                format!("tier: got {tier:?}, wanted a tier of section {section}"),
            ),
            _ => Ok(()),
        }
    }
}

impl SeatFile {
    /// Reads and checks a whole CSV file.
    pub fn read_csv(content: &[u8], venue: &Venue) -> Result<Self, SeatFaults> {
        let mut reader = csv::Reader::from_reader(content);
        let header = reader.headers().cloned().unwrap_or_default();
        let columns = columns(&header).map_err(|text| SeatFaults(vec![in_row(1, text)]))?;
        let mut faults = Vec::new();
        let mut file = Self {
            sections: Vec::new(),
        };
        let mut row_of_seat: BTreeMap<(String, String, String), usize> = BTreeMap::new();
        // Of each section whether its seats have positions, and the row that said so.
        let mut drawn: BTreeMap<String, (bool, usize)> = BTreeMap::new();
        let mut places: BTreeMap<(String, String, Option<String>), (usize, usize)> =
            BTreeMap::new();
        for (at, record) in reader.records().enumerate() {
            let row = at + 2;
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    faults.push(in_row(row, error.to_string()));
                    continue;
                }
            };
            let seat = match read_seat(&record, &columns, venue) {
                Ok(seat) => seat,
                Err(text) => {
                    faults.push(in_row(row, text));
                    continue;
                }
            };
            let owned = |text: &str| text.to_owned();
            let id = (owned(seat.section), owned(seat.row), owned(seat.number));
            if let Some(first) = row_of_seat.insert(id, row) {
                let text = format!(
                    "seat {}-{}-{} stands in row {first} already",
                    seat.section, seat.row, seat.number
                );
                faults.push(in_row(row, text));
                continue;
            }
            let is_drawn = seat.at.is_some();
            let (wanted, first) = *drawn.entry(owned(seat.section)).or_insert((is_drawn, row));
            if is_drawn != wanted {
                let has = if wanted { "has" } else { "has no" };
                let text = format!(
                    "x, y: the seat in row {first} of section {} {has} position: all of them or none",
                    seat.section
                );
                faults.push(in_row(row, text));
                continue;
            }
            let part = (owned(seat.section), owned(seat.row), seat.tier.map(owned));
            let place = match places.get(&part) {
                Some(place) => *place,
                None => *places.entry(part).or_insert(file.begin(&seat)),
            };
            file.sections[place.0].rows[place.1].add(&seat);
        }
        if row_of_seat.is_empty() && faults.is_empty() {
            faults.push(in_row(1, "there are no seats".to_owned()));
        }
        file.checked(faults)
    }

    /// Reads and checks a whole JSON file.
    pub fn read_json(content: &[u8], venue: &Venue) -> Result<Self, SeatFaults> {
        let layout: Layout = serde_json::from_slice(content).map_err(|error| {
            SeatFaults(vec![Fault {
                place: format!("line {}", error.line()),
                text: error.to_string(),
            }])
        })?;
        let mut faults = Vec::new();
        let mut sections = Vec::new();
        for (at, mut section) in layout.sections.into_iter().enumerate() {
            // A layout that was read has standing room in it too, which has no seats to take.
            if section.kind == "general" {
                continue;
            }
            let mut refuse = |place: String, text: String| faults.push(Fault { place, text });
            if let Err(text) = venue.check_section(&section.id) {
                refuse(format!("sections[{at}]"), text);
                continue;
            }
            "seated".clone_into(&mut section.kind);
            let mut seen = BTreeSet::new();
            let drawn = section.rows.first().is_some_and(|row| !row.x.is_empty());
            for (place, row) in section.rows.iter_mut().enumerate() {
                let place = format!("sections[{at}].rows[{place}]");
                if let Err(text) = row.complete(drawn) {
                    refuse(place, text);
                    continue;
                }
                if let Err(text) = venue.check_tier(row.tier.as_deref(), &section.id) {
                    refuse(place, text);
                    continue;
                }
                for number in &row.numbers {
                    if !seen.insert((row.row.clone(), number.clone())) {
                        let text = format!("seat {number} of row {} stands twice", row.row);
                        refuse(place.clone(), text);
                    }
                }
            }
            sections.push(section);
        }
        Self { sections }.checked(faults)
    }

    /// Seats in the file.
    pub fn seats(&self) -> usize {
        let rows = self.sections.iter().flat_map(|section| &section.rows);
        rows.map(|row| row.numbers.len()).sum()
    }

    /// Gives the event these seats in place of those its sections had. Returns how many sections that were.
    pub async fn import(&self, staff: &Client, venue: &Venue) -> Result<usize, ClientError> {
        let path = format!("/v1/events/{}/layout", venue.event);
        let (_, mut tag) = staff.get_tagged(&path).await?;
        for sections in self.requests() {
            let body = json!({"sections": sections});
            (_, tag) = staff.put_tagged(&path, &tag, &body).await?;
        }
        Ok(self.sections.len())
    }

    /// The sections, as many in a request as fit.
    fn requests(&self) -> Vec<Vec<&Section>> {
        let mut requests: Vec<Vec<&Section>> = Vec::new();
        let mut room = 0;
        for section in &self.sections {
            let bytes = section.bytes();
            match requests.last_mut() {
                Some(request) if bytes <= room => request.push(section),
                _ => {
                    requests.push(vec![section]);
                    room = REQUEST_MAX_BYTES;
                }
            }
            room = room.saturating_sub(bytes);
        }
        requests
    }

    /// Makes a place for a seat whose row, or whose part of it, has none yet.
    fn begin(&mut self, seat: &Seat<'_>) -> (usize, usize) {
        let known = self
            .sections
            .iter()
            .position(|section| section.id == seat.section);
        let at = known.unwrap_or_else(|| {
            self.sections.push(Section {
                id: seat.section.to_owned(),
                kind: "seated".to_owned(),
                ..Section::default()
            });
            self.sections.len() - 1
        });
        let rows = &mut self.sections[at].rows;
        rows.push(SeatRow {
            row: seat.row.to_owned(),
            tier: seat.tier.map(str::to_owned),
            ..SeatRow::default()
        });
        (at, rows.len() - 1)
    }

    fn checked(self, mut faults: Vec<Fault>) -> Result<Self, SeatFaults> {
        let mut refuse = |place: &str, text: String| {
            let place = place.to_owned();
            faults.push(Fault { place, text });
        };
        if self.seats() > SEATS_MAX_ENTRIES {
            let text = format!("{} seats, wanted at most {SEATS_MAX_ENTRIES}", self.seats());
            refuse("the file", text);
        }
        for section in &self.sections {
            let bytes = section.bytes();
            if bytes > REQUEST_MAX_BYTES {
                let text = format!(
                    "section {} takes {bytes} bytes, wanted at most {REQUEST_MAX_BYTES}: part it",
                    section.id
                );
                refuse("the file", text);
            }
        }
        if faults.is_empty() {
            Ok(self)
        } else {
            Err(SeatFaults(faults))
        }
    }
}

impl Section {
    /// What it takes of a request.
    fn bytes(&self) -> usize {
        serde_json::to_string(self).map_or(0, |text| text.len() + 1)
    }
}

impl SeatRow {
    fn add(&mut self, seat: &Seat<'_>) {
        self.numbers.push(seat.number.to_owned());
        if let Some((x, y)) = seat.at {
            self.x.push(x);
            self.y.push(y);
        }
    }

    /// Numbers the seats where only their count is given, and checks them.
    fn complete(&mut self, drawn: bool) -> Result<(), String> {
        label("row", &self.row)?;
        let count = self.seats.unwrap_or(self.numbers.len());
        if self.numbers.is_empty() && count <= SEATS_MAX_ENTRIES {
            self.numbers = (1..=count).map(|number| number.to_string()).collect();
        }
        if self.numbers.is_empty() || self.numbers.len() != count {
            return Err(format!("{count} seats, {} numbers", self.numbers.len()));
        }
        for number in &self.numbers {
            label("numbers", number)?;
        }
        let wanted = if drawn { count } else { 0 };
        for (name, places) in [("x", &self.x), ("y", &self.y)] {
            if places.len() != wanted {
                return Err(format!(
                    "{name}: {} positions, wanted {wanted}",
                    places.len()
                ));
            }
            places
                .iter()
                .try_for_each(|place| within_span(name, *place))?;
        }
        Ok(())
    }
}

fn in_row(row: usize, text: String) -> Fault {
    let place = format!("row {row}");
    Fault { place, text }
}

/// Where each column is.
fn columns(header: &csv::StringRecord) -> Result<BTreeMap<&'static str, usize>, String> {
    let known = || NEEDED_COLUMNS.into_iter().chain(OTHER_COLUMNS);
    let mut columns = BTreeMap::new();
    for (at, name) in header.iter().enumerate() {
        let column = known().find(|known| *known == name.trim());
        let column = column.ok_or_else(|| {
            format!("got a column {name:?}, wanted some of section,row,seat,x,y,tier")
        })?;
        if columns.insert(column, at).is_some() {
            return Err(format!("column {column} stands twice"));
        }
    }
    match NEEDED_COLUMNS
        .into_iter()
        .find(|column| !columns.contains_key(column))
    {
        Some(lacking) => Err(format!("there is no column {lacking}")),
        None => Ok(columns),
    }
}

fn read_seat<'a>(
    record: &'a csv::StringRecord,
    columns: &BTreeMap<&'static str, usize>,
    venue: &Venue,
) -> Result<Seat<'a>, String> {
    let cell = |name: &str| -> &'a str {
        let at = columns.get(name);
        at.and_then(|at| record.get(*at)).unwrap_or_default().trim()
    };
    let seat = Seat {
        section: cell("section"),
        row: cell("row"),
        number: cell("seat"),
        at: match (cell("x"), cell("y")) {
            ("", "") => None,
            (x, y) => Some((position("x", x)?, position("y", y)?)),
        },
        tier: Some(cell("tier")).filter(|tier| !tier.is_empty()),
    };
    venue.check_section(seat.section)?;
    label("row", seat.row)?;
    label("seat", seat.number)?;
    venue.check_tier(seat.tier, seat.section)?;
    Ok(seat)
}

fn position(name: &str, text: &str) -> Result<i32, String> {
    let place: i32 = text
        .parse()
        .map_err(|_| format!("{name}: got {text:?}, wanted whole centimetres"))?;
    within_span(name, place)?;
    Ok(place)
}

fn within_span(name: &str, place: i32) -> Result<(), String> {
    if (-SPAN_MAX_CM..=SPAN_MAX_CM).contains(&place) {
        return Ok(());
    }
    Err(format!(
        "{name}: got {place}, wanted -{SPAN_MAX_CM} to {SPAN_MAX_CM}"
    ))
}

fn label(name: &str, text: &str) -> Result<(), String> {
    let is_taken = |letter: u8| letter.is_ascii_alphanumeric() || b"._".contains(&letter);
    if (1..=LABEL_MAX_CHARS).contains(&text.len()) && text.bytes().all(is_taken) {
        return Ok(());
    }
    Err(format!(
        "{name}: got {text:?}, wanted 1 to {LABEL_MAX_CHARS} of A-Z a-z 0-9 . _"
    ))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn venue() -> Venue {
        let event = json!({"id": "evt_1", "status": "draft",
            "sections": [{"id": "S", "kind": "seated"}, {"id": "T", "kind": "seated"}, {"id": "floor", "kind": "general"}],
            "tiers": [{"id": "best", "section": "S"}, {"id": "back", "section": "T"}]});
        Venue::of(&event).expect("a draft")
    }

    fn told(faults: &SeatFaults) -> Vec<&str> {
        faults.0.iter().map(|fault| fault.place.as_str()).collect()
    }

    #[test]
    fn seats_of_one_row_and_tier_become_one_part_in_the_order_of_the_file() {
        let text = "section,row,seat,tier\nS,A,1,best\nS,A,2,best\nS,A,3,\nT,A,1,\nS,A,4,best\n";
        let file = SeatFile::read_csv(text.as_bytes(), &venue()).expect("a good file");
        assert_eq!(file.seats(), 5);
        let rows = &file.sections[0].rows;
        assert_eq!(rows[0].numbers, ["1", "2", "4"]);
        assert_eq!((rows[1].numbers.len(), rows[1].tier.as_deref()), (1, None));
        assert_eq!(file.sections[1].id, "T");
        assert_eq!(file.requests().len(), 1);
    }

    #[test]
    fn every_bad_row_is_named_and_none_hides_another() {
        let rows = [
            "S,A,1,0,800,best",
            "U,A,1,0,0,",
            "floor,A,1,0,0,",
            "S,A-B,1,0,0,",
            "S,A,,0,0,",
            "S,A,2,left,0,",
            "S,A,3,0,,",
            "S,A,4,1000001,0,",
            "S,A,5,,,",
            "S,A,1,0,0,",
            "T,A,1,,,best",
            "T,A,1,,,back",
            "S,A,6",
        ];
        let text = format!("section,row,seat,x,y,tier\n{}\n", rows.join("\n"));
        let faults = SeatFile::read_csv(text.as_bytes(), &venue()).expect_err("bad rows");
        let wanted = [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14];
        assert_eq!(told(&faults), wanted.map(|row| format!("row {row}")));
        let empty = SeatFile::read_csv(b"section,row,seat\n", &venue()).expect_err("no seats");
        assert_eq!(told(&empty), ["row 1"]);
        for header in [
            "section,row",
            "section,row,seat,colour",
            "section,row,seat,x,x",
        ] {
            let refused = SeatFile::read_csv(header.as_bytes(), &venue());
            assert_eq!(told(&refused.expect_err(header)), ["row 1"]);
        }
    }

    #[test]
    fn a_layout_as_the_api_shows_it_is_taken_and_a_bad_one_is_named_by_its_places() {
        let good = json!({"sections": [
            {"id": "S", "name": "Stalls", "kind": "seated", "shape": "curved",
             "rows": [{"row": "A", "seats": 2, "numbers": ["1", "2"], "x": [0, 55], "y": [800, 800]}]},
            {"id": "floor", "name": "Floor", "kind": "general", "capacity": 500},
        ]});
        let file = SeatFile::read_json(good.to_string().as_bytes(), &venue()).expect("a layout");
        assert_eq!((file.seats(), file.sections.len()), (2, 1));
        let bad = json!({"sections": [
            {"id": "S", "rows": [{"row": "A", "seats": 2}, {"row": "A", "numbers": ["2"]}, {"row": "B", "seats": 1, "tier": "back"},
                {"row": "C", "numbers": ["1"], "x": [1], "y": [1]}, {"row": "D"}]},
            {"id": "U", "rows": []},
        ]});
        let faults = SeatFile::read_json(bad.to_string().as_bytes(), &venue()).expect_err("bad");
        let wanted = [
            "sections[0].rows[1]",
            "sections[0].rows[2]",
            "sections[0].rows[3]",
            "sections[0].rows[4]",
            "sections[1]",
        ];
        assert_eq!(told(&faults), wanted);
        let faults = SeatFile::read_json(b"{\n\"seats\": 1}", &venue()).expect_err("no layout");
        assert_eq!(told(&faults), ["line 2"]);
    }

    #[test]
    fn more_than_a_request_takes_goes_over_in_several() {
        let mut text = "section,row,seat,x,y\n".to_owned();
        for section in ["S", "T"] {
            for seat in 0..40_000 {
                let (row, number, x) = (seat / 100, seat % 100, seat - 20_000);
                writeln!(text, "{section},R{row},{number},{x},800").expect("memory");
            }
        }
        let file = SeatFile::read_csv(text.as_bytes(), &venue()).expect("a good file");
        let requests = file.requests();
        let named: Vec<&str> = requests.iter().flatten().map(|it| it.id.as_str()).collect();
        assert_eq!((requests.len(), named), (2, vec!["S", "T"]));
    }

    #[test]
    fn what_is_published_takes_no_seats() {
        let event = json!({"id": "evt_1", "status": "on_sale", "sections": [], "tiers": []});
        let refused = Venue::of(&event).expect_err("published");
        assert!(refused.to_string().contains("on_sale"), "{refused}");
    }
}
