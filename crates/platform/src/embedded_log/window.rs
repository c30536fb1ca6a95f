//! The newest messages of a topic in memory: what one reader of the process has read, the others need not read again.

use std::collections::VecDeque;

use crate::bus::{READ_MAX_RECORDS, Record};

/// Most messages kept of a topic.
pub(super) const WINDOW_MAX_RECORDS: usize = 1_000;
/// Most that the messages kept of a topic take up, keys and envelopes.
pub(super) const WINDOW_MAX_BYTES: usize = 1024 * 1024;

/// The last stretch of a topic as far as it is known here, without a hole.
///
/// It is bounded however slow its readers are: the oldest messages make room, and who is behind them reads by himself.
#[derive(Debug, Default)]
pub(super) struct Window {
    records: VecDeque<Record>,
    bytes: usize,
    /// Behind the last message known of; none before anybody read so far.
    end: Option<i64>,
}

/// What a window has for a reader.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The next messages.
    Records(Vec<Record>),
    /// There is nothing behind that place, as far as is known.
    End,
    /// The window does not reach there.
    Elsewhere,
}

impl Window {
    pub(super) const fn end(&self) -> Option<i64> {
        self.end
    }

    /// The first messages from there on, at most [`READ_MAX_RECORDS`].
    pub(super) fn seen(&self, from: i64) -> Seen {
        if self.end == Some(from) {
            return Seen::End;
        }
        let reaches = (self.records.front()).is_some_and(|oldest| oldest.log_offset <= from);
        let begin = (self.records).partition_point(|record| record.log_offset < from);
        if !reaches || begin == self.records.len() {
            return Seen::Elsewhere;
        }
        let records = self.records.range(begin..).take(READ_MAX_RECORDS);
        Seen::Records(records.cloned().collect())
    }

    /// Takes in all messages there are from `from` up to `end`.
    ///
    /// What is known already changes nothing. What begins behind the known is taken instead of it.
    pub(super) fn take_in(
        &mut self,
        from: i64,
        end: i64,
        records: impl IntoIterator<Item = Record>,
    ) {
        let known = match self.end {
            Some(known) if end <= known => return,
            Some(known) if from <= known => known,
            _ => {
                self.forget();
                from
            }
        };
        for record in records {
            if record.log_offset >= known {
                self.bytes += weight(&record);
                self.records.push_back(record);
            }
        }
        self.end = Some(end);
        while self.records.len() > WINDOW_MAX_RECORDS || self.bytes > WINDOW_MAX_BYTES {
            let Some(oldest) = self.records.pop_front() else {
                return;
            };
            self.bytes -= weight(&oldest);
        }
    }

    /// Knows nothing any more.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

fn weight(record: &Record) -> usize {
    record.key.len() + record.envelope.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(from: i64, end: i64) -> Vec<Record> {
        (from..end).map(|at| record(at, "{}")).collect()
    }

    fn record(log_offset: i64, envelope: &str) -> Record {
        Record {
            log_offset,
            key: "a".to_owned(),
            envelope: envelope.to_owned(),
        }
    }

    fn window(from: i64, end: i64) -> Window {
        let mut window = Window::default();
        window.take_in(from, end, records(from, end));
        window
    }

    #[test]
    fn a_window_that_knows_nothing_has_nothing_to_say() {
        let window = Window::default();
        assert_eq!(window.seen(0), Seen::Elsewhere);
        assert_eq!(window.end(), None);
    }

    #[test]
    fn readers_within_the_window_get_what_lies_behind_them() {
        let window = window(5, 9);
        assert_eq!(window.seen(5), Seen::Records(records(5, 9)));
        assert_eq!(window.seen(8), Seen::Records(records(8, 9)));
        assert_eq!(window.seen(9), Seen::End);
    }

    #[test]
    fn readers_before_and_behind_the_window_read_by_themselves() {
        let window = window(5, 9);
        assert_eq!(window.seen(4), Seen::Elsewhere);
        assert_eq!(window.seen(10), Seen::Elsewhere);
    }

    #[test]
    fn one_read_gives_no_more_than_a_bus_may() {
        let Seen::Records(given) = window(0, 500).seen(100) else {
            panic!("they are there");
        };
        let end = 100 + READ_MAX_RECORDS as i64;
        assert_eq!(given, records(100, end));
    }

    #[test]
    fn what_was_read_twice_is_there_once() {
        let mut window = window(0, 4);
        window.take_in(2, 6, records(2, 6));
        window.take_in(1, 3, records(1, 3));
        assert_eq!(window.seen(0), Seen::Records(records(0, 6)));
    }

    #[test]
    fn what_begins_behind_the_known_takes_its_place_and_leaves_no_hole() {
        let mut window = window(0, 4);
        window.take_in(6, 8, records(6, 8));
        assert_eq!(window.seen(3), Seen::Elsewhere, "4 and 5 are not known");
        assert_eq!(window.seen(6), Seen::Records(records(6, 8)));
        // What was appended before and is told of later.
        window.take_in(4, 6, records(4, 6));
        assert_eq!(window.seen(4), Seen::Elsewhere);
        assert_eq!(window.end(), Some(8));
    }

    #[test]
    fn the_oldest_make_room_when_there_are_too_many() {
        let end = WINDOW_MAX_RECORDS as i64 + 10;
        let window = window(0, end);
        assert_eq!(window.seen(9), Seen::Elsewhere);
        assert!(matches!(window.seen(10), Seen::Records(_)));
        assert_eq!(window.records.len(), WINDOW_MAX_RECORDS);
    }

    #[test]
    fn the_oldest_make_room_when_they_take_up_too_much() {
        let long = "x".repeat(WINDOW_MAX_BYTES / 2);
        let mut window = Window::default();
        window.take_in(0, 3, (0..3).map(|at| record(at, &long)));
        assert_eq!(window.seen(1), Seen::Elsewhere);
        assert_eq!(window.seen(2), Seen::Records(vec![record(2, &long)]));
        let too_long = "x".repeat(WINDOW_MAX_BYTES + 1);
        window.take_in(3, 4, [record(3, &too_long)]);
        assert_eq!(window.seen(3), Seen::Elsewhere, "whoever wants it reads it");
        assert_eq!((window.bytes, window.end()), (0, Some(4)));
    }
}
