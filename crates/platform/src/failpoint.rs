//! Named points at which a test makes the process fail: between a commit and what follows it.
//!
//! Points are compiled in and do nothing until [`ENVIRONMENT`] arms them at the start of the process, for tests of
//! crashes. Each service lists its points in a `const POINTS: &[&str]`, so a test can walk through all of them:
//!
//! ```text
//! HOLDFAST_FAILPOINTS="orders.recorded=kill@nth(3),payments.captured=error@once"
//! ```
//!
//! | action | does |
//! |---|---|
//! | `kill` | ends the process as `kill -9` does |
//! | `error` | returns [`Injected`], which the service treats as a transient fault |
//! | `pause:FILE` | makes FILE, to say that it is here, and goes on when FILE is gone |
//! | `note:FILE` | adds the point's name to FILE, a line for each hit |
//!
//! Every hit acts, or with `@once` the first, or with `@nth(N)` the Nth.
//!
//! `HOLDFAST_FAILPOINTS=@FILE` arms what FILE says at the moment of each hit, and nothing while there is no FILE: so a
//! test chooses the moment of a life from which a point is deadly.

use std::{
    collections::HashMap,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

/// The environment variable that arms points.
pub const ENVIRONMENT: &str = "HOLDFAST_FAILPOINTS";

/// How often a pause looks for its file.
const PAUSE_POLL_MILLIS: u64 = 5;

static ARMED: OnceLock<Arming> = OnceLock::new();

/// The fault that the action `error` injects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failpoint {0}")]
pub struct Injected(pub &'static str);

/// Arming that makes no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FailpointError {
    /// A point that is not compiled in.
    #[error("failpoint {got:?} does not exist; there are {known}")]
    Unknown {
        /// What was asked for.
        got: String,
        /// What there is.
        known: String,
    },
    /// An entry that cannot be read.
    #[error(
        "failpoint {0:?}: want NAME=kill|error|pause:FILE|note:FILE, then maybe @once or @nth(N)"
    )]
    Malformed(String),
    /// The process has armed its points before.
    #[error("failpoints are armed once, when the process starts")]
    Twice,
}

/// A set of armed points.
#[derive(Debug, Default)]
pub struct Failpoints(HashMap<String, Failpoint>);

/// How the points of this process are armed.
#[derive(Debug)]
enum Arming {
    ForLife(Failpoints),
    ByFile(ByFile),
}

/// Points that a file names as long as it does.
#[derive(Debug)]
struct ByFile {
    file: PathBuf,
    known: Vec<String>,
    last: Mutex<Said>,
}

/// What a file said, and when that was written: the same words written again arm the points again, unhit.
#[derive(Debug, Default)]
struct Said {
    text: String,
    written: Option<SystemTime>,
    points: Arc<Failpoints>,
}

#[derive(Debug)]
struct Failpoint {
    action: Action,
    /// The only hit that acts; every one when `None`.
    at: Option<u64>,
    hits: AtomicU64,
}

#[derive(Debug)]
enum Action {
    Kill,
    Error,
    Pause(PathBuf),
    Note(PathBuf),
}

/// Passes the point `name`: at once and with `Ok`, unless the point is armed.
pub async fn hit(name: &'static str) -> Result<(), Injected> {
    match ARMED.get() {
        None => Ok(()),
        Some(Arming::ForLife(points)) => points.hit(name).await,
        Some(Arming::ByFile(file)) => file.points().hit(name).await,
    }
}

/// Arms the points of this process as [`ENVIRONMENT`] says, if it says anything. For development and tests.
///
/// `known` are all points compiled in. Names the armed points in the log, so that no one wonders.
pub fn arm<'a>(known: impl IntoIterator<Item = &'a str>) -> Result<(), FailpointError> {
    #[expect(
        clippy::disallowed_methods,
        reason = "no setting: a file must not be able to arm a point"
    )]
    let Ok(text) = std::env::var(ENVIRONMENT) else {
        return Ok(());
    };
    let arming = if let Some(file) = text.strip_prefix('@') {
        Arming::ByFile(ByFile::new(file, known))
    } else {
        let points = Failpoints::parse(&text, known)?;
        if points.0.is_empty() {
            return Ok(());
        }
        Arming::ForLife(points)
    };
    tracing::warn!(
        points = text,
        "failpoints are armed: this process fails on purpose"
    );
    ARMED.set(arming).map_err(|_| FailpointError::Twice)
}

impl Failpoints {
    /// Reads the form of [`ENVIRONMENT`].
    pub fn parse<'a>(
        text: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, FailpointError> {
        let known: Vec<_> = known.into_iter().collect();
        let mut armed = HashMap::new();
        for entry in text
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
        {
            let malformed = || FailpointError::Malformed(entry.to_owned());
            let (name, what) = entry.split_once('=').ok_or_else(malformed)?;
            if !known.contains(&name) {
                return Err(FailpointError::Unknown {
                    got: name.to_owned(),
                    known: known.join(", "),
                });
            }
            let point = Failpoint::parse(what).ok_or_else(malformed)?;
            armed.insert(name.to_owned(), point);
        }
        Ok(Self(armed))
    }

    /// Passes the point `name` of this set.
    pub async fn hit(&self, name: &'static str) -> Result<(), Injected> {
        let Some(point) = self.0.get(name) else {
            return Ok(());
        };
        let hit = point.hits.fetch_add(1, Relaxed) + 1;
        if point.at.is_some_and(|at| at != hit) {
            return Ok(());
        }
        match &point.action {
            Action::Kill => kill_this_process(),
            Action::Error => Err(Injected(name)),
            Action::Pause(file) => {
                pause(file).await;
                Ok(())
            }
            Action::Note(file) => {
                if let Err(error) = note(file, name) {
                    tracing::error!(file = %file.display(), %error, "failpoint cannot note");
                }
                Ok(())
            }
        }
    }
}

impl ByFile {
    fn new<'a>(file: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            file: file.into(),
            known: known.into_iter().map(str::to_owned).collect(),
            last: Mutex::default(),
        }
    }

    /// The points that the file names now. What makes no sense arms nothing.
    fn points(&self) -> Arc<Failpoints> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        let written = fs::metadata(&self.file).and_then(|file| file.modified());
        let written = written.ok();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if text != last.text || written != last.written {
            let points = Failpoints::parse(&text, self.known.iter().map(String::as_str));
            let points = points.unwrap_or_else(|error| {
                tracing::error!(file = %self.file.display(), %error, "failpoints are not armed");
                Failpoints::default()
            });
            *last = Said {
                text,
                written,
                points: Arc::new(points),
            };
        }
        last.points.clone()
    }
}

impl Failpoint {
    fn parse(text: &str) -> Option<Self> {
        let (action, at) = match text.rsplit_once('@') {
            None => (text, None),
            Some((action, "once")) => (action, Some(1)),
            Some((action, nth)) => {
                let nth = nth.strip_prefix("nth(")?.strip_suffix(')')?;
                (action, Some(nth.parse().ok().filter(|nth| *nth > 0)?))
            }
        };
        let action = match action {
            "kill" => Action::Kill,
            "error" => Action::Error,
            _ => match action.split_once(':')? {
                ("pause", file) if !file.is_empty() => Action::Pause(file.into()),
                ("note", file) if !file.is_empty() => Action::Note(file.into()),
                _ => return None,
            },
        };
        Some(Self {
            action,
            at,
            hits: AtomicU64::new(0),
        })
    }
}

/// Nothing is flushed, dropped or told: what a power cut leaves behind is what the test wants to see.
fn kill_this_process() -> ! {
    let this = rustix::process::getpid();
    // It cannot fail for the process itself; if it did, an abort is as sudden.
    let _ = rustix::process::kill_process(this, rustix::process::Signal::KILL);
    std::process::abort()
}

/// One write a line, so that lines of several hits at once do not mix.
fn note(file: &Path, name: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    file.write_all(format!("{name}\n").as_bytes())
}

async fn pause(file: &Path) {
    if let Err(error) = fs::write(file, "") {
        tracing::error!(file = %file.display(), %error, "failpoint cannot pause");
        return;
    }
    while file.exists() {
        tokio::time::sleep(Duration::from_millis(PAUSE_POLL_MILLIS)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 2] = ["orders.recorded", "payments.captured"];

    async fn outcomes(points: &Failpoints, count: usize) -> Vec<bool> {
        let mut injected = Vec::new();
        for _ in 0..count {
            injected.push(points.hit("orders.recorded").await.is_err());
        }
        injected
    }

    #[tokio::test]
    async fn a_point_acts_each_time_or_once_or_at_the_nth_hit() {
        for (text, expected) in [
            ("orders.recorded=error", [true, true, true]),
            ("orders.recorded=error@once", [true, false, false]),
            ("orders.recorded=error@nth(2)", [false, true, false]),
            ("payments.captured=error", [false, false, false]),
            ("", [false, false, false]),
        ] {
            let points = Failpoints::parse(text, KNOWN).expect(text);
            assert_eq!(outcomes(&points, 3).await, expected, "{text}");
        }
    }

    #[tokio::test]
    async fn a_pause_makes_its_file_and_goes_on_when_the_file_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("here");
        let text = format!("orders.recorded=pause:{}@once", file.display());
        let points = Failpoints::parse(&text, KNOWN).expect("a pause");
        let passing = tokio::spawn(async move {
            let outcome = points.hit("orders.recorded").await;
            (outcome, points.hit("orders.recorded").await)
        });
        while !file.exists() {
            assert!(!passing.is_finished(), "it passed without a pause");
            tokio::task::yield_now().await;
        }
        fs::remove_file(&file).expect("it is there");
        let outcomes = tokio::time::timeout(Duration::from_secs(10), passing);
        assert_eq!(
            outcomes.await.expect("it went on").expect("no panic"),
            (Ok(()), Ok(()))
        );
        assert!(!file.exists(), "the second hit does not pause");
    }

    #[tokio::test]
    async fn a_note_says_each_time_that_the_point_was_passed() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("passed");
        let text = format!("orders.recorded=note:{}", file.display());
        let points = Failpoints::parse(&text, KNOWN).expect("a note");
        assert_eq!(outcomes(&points, 2).await, [false, false]);
        let noted = fs::read_to_string(&file).expect("it is there");
        assert_eq!(noted, "orders.recorded\norders.recorded\n");
    }

    #[tokio::test]
    async fn a_file_arms_its_points_from_when_it_names_them_until_it_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("armed");
        let by_file = ByFile::new(&file.display().to_string(), KNOWN);
        let injected = async || by_file.points().hit("orders.recorded").await.is_err();
        assert!(!injected().await, "there is no file");
        fs::write(&file, "orders.recorded=error@nth(2)").expect("written");
        assert_eq!([injected().await, injected().await], [false, true]);
        fs::write(&file, "payments.captured=error").expect("written");
        assert!(!injected().await, "it names another point");
        fs::write(&file, "orders.recoded=error").expect("written");
        assert!(!injected().await, "it makes no sense");
        fs::write(&file, "orders.recorded=error").expect("written");
        assert!(injected().await);
        fs::remove_file(&file).expect("it is there");
        assert!(!injected().await, "it is gone");

        // Written twice with nobody coming by in between: the second time counts from the beginning.
        fs::write(&file, "orders.recorded=error@once").expect("written");
        assert_eq!([injected().await, injected().await], [true, false]);
        let at_another_time = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let again = fs::File::options().write(true).open(&file);
        again
            .and_then(|file| file.set_modified(at_another_time))
            .expect("written again");
        assert!(injected().await, "armed again");
    }

    #[test]
    fn unknown_points_are_refused_with_the_known_ones() {
        let refused = Failpoints::parse("orders.recoded=kill", KNOWN).expect_err("misspelt");
        assert_eq!(
            refused.to_string(),
            "failpoint \"orders.recoded\" does not exist; there are orders.recorded, payments.captured"
        );
    }

    #[test]
    fn entries_that_cannot_be_read_are_refused() {
        for what in [
            "",
            "die",
            "pause:",
            "note:",
            "error@",
            "error@twice",
            "error@nth(0)",
            "error@nth(x)",
        ] {
            let entry = format!("orders.recorded={what}");
            assert_eq!(
                Failpoints::parse(&entry, KNOWN).expect_err(what),
                FailpointError::Malformed(entry.clone()),
            );
        }
        let entry = "orders.recorded".to_owned();
        assert_eq!(
            Failpoints::parse(&entry, KNOWN).expect_err("no action"),
            FailpointError::Malformed(entry.clone())
        );
    }
}
