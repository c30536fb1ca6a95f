//! When tickets can be bought, and whether buyers wait for it in a room.

use holdfast_kernel::Timestamp;

use super::refused;
use crate::error::EventsError;

/// When tickets can be bought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sale {
    /// None: as soon as the event is published.
    pub(crate) opens_at: Option<Timestamp>,
    /// None: when the event starts.
    pub(crate) closes_at: Option<Timestamp>,
    /// None: buyers just come in.
    pub(crate) waiting_room: Option<WaitingRoom>,
}

/// Where buyers gather before a sale opens, and are let in one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WaitingRoom {
    pub(crate) lobby_opens_at: Timestamp,
    pub(crate) admissions_per_minute: u32,
}

/// How long before the sale a lobby opens of which nothing else was said.
pub(crate) const LOBBY_DEFAULT_SECS: i64 = 30 * 60;
/// Buyers a minute that a waiting room lets in of which nothing else was said.
pub(crate) const ADMISSIONS_DEFAULT: u32 = 600;
/// The field that says when a sale ends.
pub(super) const CLOSES_AT: &str = "sale.closes_at";
const ADMISSIONS_MAX: u32 = 100_000;

impl Sale {
    /// Tells the first thing that cannot be taken; `closes_at` is when the sale ends, given or not.
    pub(super) fn check(&self, closes_at: Timestamp) -> Result<(), EventsError> {
        if let Some(opens_at) = self.opens_at
            && opens_at >= closes_at
        {
            let text =
                format!("got {opens_at}, wanted a moment before {closes_at}, when it closes");
            return Err(refused("sale.opens_at", text));
        }
        let Some(room) = self.waiting_room else {
            return Ok(());
        };
        let Some(opens_at) = self.opens_at else {
            let text = "is missing: a waiting room waits for a moment";
            return Err(refused("sale.opens_at", text));
        };
        if room.lobby_opens_at >= opens_at {
            let text = format!(
                "got {}, wanted a moment before {opens_at}, when the sale opens",
                room.lobby_opens_at
            );
            return Err(refused("sale.lobby_opens_at", text));
        }
        if !(1..=ADMISSIONS_MAX).contains(&room.admissions_per_minute) {
            let text = format!(
                "got {}, wanted 1 to {ADMISSIONS_MAX}",
                room.admissions_per_minute
            );
            return Err(refused("sale.admissions_per_minute", text));
        }
        Ok(())
    }
}
