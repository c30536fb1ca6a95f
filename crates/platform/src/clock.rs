//! The machine's clock, and for development a file that moves it.
//!
//! The file is JSON, `{"wall": 3600, "ledger": -0.5}`: offsets in seconds, each 0 when absent. `wall` moves every
//! clock but the ledger's; `ledger` moves the time that holds expire by. A change is seen within
//! [`FILE_CHECK_MILLIS`]; a file that cannot be read or makes no sense leaves the offsets as they were.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use holdfast_kernel::{Clock, Timestamp};
use jiff::SignedDuration;
use serde::Deserialize;

/// How often the file is looked at, at most.
pub const FILE_CHECK_MILLIS: u64 = 50;

/// The farthest a clock is moved either way: a hundred years.
pub const OFFSET_MAX_SECS: f64 = 100.0 * 366.0 * 86_400.0;

/// What the machine says, moved by the offset `wall` where there is a file.
#[derive(Clone, Default)]
pub struct SystemClock {
    offsets: Option<Arc<Offsets>>,
}

/// How far the ledger's time is moved.
///
/// The ledger tells time by its database and adds this to it.
#[derive(Clone, Default)]
pub struct LedgerOffset {
    offsets: Option<Arc<Offsets>>,
}

/// Why the clock's file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ClockFileError {
    /// It cannot be read.
    #[error("clock file {}: {source}", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What the machine said.
        source: io::Error,
    },
    /// It holds something else.
    #[error("clock file {}: {text}; want {{\"wall\":SECONDS,\"ledger\":SECONDS}}", file.display())]
    Malformed {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        text: String,
    },
}

impl SystemClock {
    /// The machine's clock as it is.
    pub fn new() -> Self {
        Self::default()
    }

    /// The machine's clock moved by `file`, which need not exist yet. For development and tests only.
    pub fn moved_by(file: PathBuf) -> Result<Self, ClockFileError> {
        tracing::warn!(file = %file.display(), "clocks are moved by a file");
        Ok(Self {
            offsets: Some(Arc::new(Offsets::of(file)?)),
        })
    }

    /// The ledger's offset in the same file; zero without one.
    pub fn ledger(&self) -> LedgerOffset {
        LedgerOffset {
            offsets: self.offsets.clone(),
        }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let now = machine();
        let Some(offsets) = &self.offsets else {
            return now;
        };
        offsets.look_when_due(Instant::now());
        now.checked_add(SignedDuration::from_micros(
            offsets.wall_micros.load(Relaxed),
        ))
        .expect("a hundred years either way are within a timestamp's range")
    }
}

impl LedgerOffset {
    /// The offset as of now.
    pub fn get(&self) -> SignedDuration {
        let Some(offsets) = &self.offsets else {
            return SignedDuration::ZERO;
        };
        offsets.look_when_due(Instant::now());
        SignedDuration::from_micros(offsets.ledger_micros.load(Relaxed))
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place time comes from")]
fn machine() -> Timestamp {
    Timestamp::now()
}

struct Offsets {
    file: PathBuf,
    wall_micros: AtomicI64,
    ledger_micros: AtomicI64,
    started: Instant,
    /// When the file is to be looked at next, in milliseconds after `started`.
    due_millis: AtomicU64,
    seen: Mutex<Option<Version>>,
}

/// Tells one content of the file from the next, also when the file is replaced within one tick of its time stamp.
#[derive(PartialEq, Eq, Clone, Copy)]
struct Version {
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Content {
    wall: f64,
    ledger: f64,
}

impl Offsets {
    fn of(file: PathBuf) -> Result<Self, ClockFileError> {
        let offsets = Self {
            file,
            wall_micros: AtomicI64::new(0),
            ledger_micros: AtomicI64::new(0),
            started: Instant::now(),
            due_millis: AtomicU64::new(FILE_CHECK_MILLIS),
            seen: Mutex::new(None),
        };
        offsets.look()?;
        Ok(offsets)
    }

    /// Looks at the file unless that was done a moment ago or is being done by another thread.
    fn look_when_due(&self, now: Instant) {
        let now = now.saturating_duration_since(self.started).as_millis() as u64;
        let due = self.due_millis.load(Relaxed);
        let next = now + FILE_CHECK_MILLIS;
        if now < due
            || self
                .due_millis
                .compare_exchange(due, next, Relaxed, Relaxed)
                .is_err()
        {
            return;
        }
        if let Err(error) = self.look() {
            tracing::warn!(%error, "clock file is not used; the offsets stay");
        }
    }

    fn look(&self) -> Result<(), ClockFileError> {
        let unreadable = |source| ClockFileError::Unreadable {
            file: self.file.clone(),
            source,
        };
        let version = match fs::metadata(&self.file) {
            Ok(metadata) => Some(Version::of(&metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(unreadable(error)),
        };
        // Set before reading: a content that makes no sense is complained of once.
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == version {
                return Ok(());
            }
            *seen = version;
        }
        let content = match version {
            None => Content::default(),
            Some(_) => read(
                &self.file,
                &fs::read_to_string(&self.file).map_err(unreadable)?,
            )?,
        };
        self.wall_micros.store(micros(content.wall), Relaxed);
        self.ledger_micros.store(micros(content.ledger), Relaxed);
        Ok(())
    }
}

fn read(file: &Path, text: &str) -> Result<Content, ClockFileError> {
    let malformed = |text: String| ClockFileError::Malformed {
        file: file.to_owned(),
        text,
    };
    let content: Content =
        serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
    for (name, secs) in [("wall", content.wall), ("ledger", content.ledger)] {
        if secs.abs() > OFFSET_MAX_SECS {
            return Err(malformed(format!(
                "{name}: got {secs}, want a hundred years at most"
            )));
        }
    }
    Ok(content)
}

fn micros(secs: f64) -> i64 {
    (secs * 1e6).round() as i64
}

impl Version {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    fn at(offsets: &Offsets, millis: u64) -> (i64, i64) {
        offsets.look_when_due(offsets.started + Duration::from_millis(millis));
        (
            offsets.wall_micros.load(Relaxed),
            offsets.ledger_micros.load(Relaxed),
        )
    }

    #[test]
    fn a_change_of_the_file_is_seen_at_the_next_look_and_not_before() {
        let folder = folder();
        let file = folder.path().join("clock.json");
        let offsets = Offsets::of(file.clone()).expect("no file yet is fine");
        assert_eq!(at(&offsets, 0), (0, 0));

        fs::write(&file, r#"{"wall":3600,"ledger":-0.5}"#).expect("written");
        assert_eq!(at(&offsets, FILE_CHECK_MILLIS - 1), (0, 0));
        assert_eq!(at(&offsets, FILE_CHECK_MILLIS), (3_600_000_000, -500_000));

        fs::write(&file, r#"{"ledger":7}"#).expect("written");
        assert_eq!(at(&offsets, 2 * FILE_CHECK_MILLIS), (0, 7_000_000));

        fs::remove_file(&file).expect("removed");
        assert_eq!(at(&offsets, 3 * FILE_CHECK_MILLIS), (0, 0));
    }

    #[test]
    fn a_file_that_makes_no_sense_is_refused_at_the_start_and_ignored_later() {
        let folder = folder();
        let file = folder.path().join("clock.json");
        for text in [
            "",
            "{",
            r#"{"wal":1}"#,
            r#"{"wall":"1"}"#,
            r#"{"wall":1e12}"#,
        ] {
            fs::write(&file, text).expect("written");
            assert!(Offsets::of(file.clone()).is_err(), "{text}");
        }
        fs::write(&file, r#"{"wall":1}"#).expect("written");
        let offsets = Offsets::of(file.clone()).expect("it makes sense");
        fs::write(&file, "nonsense").expect("written");
        assert_eq!(at(&offsets, FILE_CHECK_MILLIS), (1_000_000, 0));
    }

    #[test]
    fn wall_moves_the_clock_and_ledger_does_not() {
        let folder = folder();
        let file = folder.path().join("clock.json");
        fs::write(&file, r#"{"wall":86400,"ledger":5}"#).expect("written");
        let clock = SystemClock::moved_by(file).expect("it makes sense");
        let ahead = clock.now().duration_since(machine());
        assert!((86_390..=86_400).contains(&ahead.as_secs()), "{ahead}");
        assert_eq!(clock.ledger().get(), SignedDuration::from_secs(5));
        assert_eq!(SystemClock::new().ledger().get(), SignedDuration::ZERO);
    }
}
