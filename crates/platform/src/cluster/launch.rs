//! Making the server's files and starting it.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Seek, SeekFrom},
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tokio::{process::Child, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    ClusterError, ClusterSettings,
    folder::{Layout, refused},
    leftover::{self, AT_ONCE_MAX_SECS, ORDERLY_MAX_SECS},
};
use crate::postmaster::{self, PostmasterError, Programs};

/// How long a server may take to come up; after a crash it reads its log of writes again first.
const START_MAX_SECS: u64 = 300;
const LOOK_AGAIN_MILLIS: u64 = 10;
/// How much of the server's log an error repeats.
const LOG_SHOWN_MAX_BYTES: u64 = 2_000;
/// The size at which the server's log becomes the old one, of which one is kept.
const LOG_MAX_BYTES: u64 = 16 << 20;

/// What is written is kept: the first four are what durability rests on, whatever the folder's own files say.
const SETTINGS: [(&str, &str); 11] = [
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("full_page_writes", "on"),
    ("wal_level", "replica"),
    ("jit", "off"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("logging_collector", "off"),
    // Rows of customers do not belong into a log: neither the statement nor the detail of a failure is written.
    ("log_error_verbosity", "terse"),
    ("log_min_error_statement", "panic"),
    ("cluster_name", "holdfast"),
];

/// A server ready to be started, again and again.
#[derive(Debug)]
pub(super) struct Launch {
    layout: Layout,
    programs: Programs,
    settings: ClusterSettings,
}

impl Launch {
    /// Finds the programs that fit the folder, and makes what is missing in it.
    pub(super) async fn prepare(
        layout: Layout,
        settings: &ClusterSettings,
    ) -> Result<Self, ClusterError> {
        let settings = settings.clone();
        blocking(move || {
            let programs = fitting(&layout, settings.programs.as_deref())?;
            if layout.data.exists() {
                layout.check_owner()?;
            } else {
                make_data(&layout, &programs)?;
            }
            layout.make_private(&layout.socket_dir)?;
            Ok(Self {
                layout,
                programs,
                settings,
            })
        })
        .await
    }

    /// Starts the server and waits until it takes connections.
    ///
    /// Ends what is left of an earlier one before. A failure carries what the server said; nothing is left running then,
    /// nor when `stop` is cancelled meanwhile.
    pub(super) async fn start(&self, stop: &CancellationToken) -> Result<Child, ClusterError> {
        leftover::end(&self.layout.data).await?;
        self.trim_log()?;
        let log = open_log(&self.layout.log)?;
        let said_before = log.metadata().map_or(0, |found| found.len());
        let mut child = self.spawn(log)?;
        let ended = tokio::select! {
            ready = self.wait_until_ready(&mut child) => match ready {
                Ready::Yes => return Ok(child),
                Ready::Ended => "",
                Ready::Late => "it took too long\n",
            },
            () = stop.cancelled() => "it was stopped\n",
        };
        end(&mut child).await;
        Err(ClusterError::Start {
            output: format!("{ended}{}", tail(&self.layout.log, said_before)),
        })
    }

    /// Puts the log aside when it has grown too large. Safe while the server writes.
    pub(super) fn trim_log(&self) -> Result<(), ClusterError> {
        let log = &self.layout.log;
        if fs::metadata(log).is_ok_and(|found| found.len() > LOG_MAX_BYTES) {
            // The server appends to the file it was given, so the file stays and its content goes.
            fs::copy(log, log.with_extension("log.old"))
                .and_then(|_| OpenOptions::new().write(true).truncate(true).open(log))
                .map_err(refused("put aside", log))?;
        }
        Ok(())
    }

    fn spawn(&self, log: File) -> Result<Child, ClusterError> {
        let shared_buffers = format!("{}MB", self.settings.shared_buffers_mb);
        let max_connections = self.settings.max_connections.to_string();
        let mut settings = SETTINGS.to_vec();
        settings.push(("shared_buffers", &shared_buffers));
        settings.push(("max_connections", &max_connections));
        let program = self.programs.postgres();
        let failed = |source| {
            ClusterError::Postmaster(PostmasterError::Spawn {
                program: program.clone(),
                source,
            })
        };
        let also_log = log.try_clone().map_err(failed)?;
        let mut command = postmaster::command(&program, self.layout.account.as_ref());
        command
            .args(postmaster::serving(
                &self.layout.data,
                &self.layout.socket_dir,
                &settings,
            ))
            .stdout(Stdio::from(log))
            .stderr(Stdio::from(also_log))
            // Ctrl-C in a terminal reaches the whole group; the services have to end before their database does.
            .process_group(0);
        tokio::process::Command::from(command)
            .spawn()
            .map_err(failed)
    }

    async fn wait_until_ready(&self, child: &mut Child) -> Ready {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(START_MAX_SECS) {
            if let Ok(Some(_)) | Err(_) = child.try_wait() {
                return Ready::Ended;
            }
            if child.id().is_some() && postmaster::ready_pid(&self.layout.data) == child.id() {
                return Ready::Yes;
            }
            tokio::time::sleep(Duration::from_millis(LOOK_AGAIN_MILLIS)).await;
        }
        Ready::Late
    }
}

enum Ready {
    Yes,
    Ended,
    Late,
}

/// Ends the server: in good order, at once, by force, each when the one before did not do.
pub(super) async fn end(child: &mut Child) {
    for (signal, max_secs) in [
        (Signal::INT, ORDERLY_MAX_SECS),
        (Signal::QUIT, AT_ONCE_MAX_SECS),
        (Signal::KILL, AT_ONCE_MAX_SECS),
    ] {
        let Some(pid) = child.id() else {
            return;
        };
        leftover::signal(pid, signal);
        if timeout(Duration::from_secs(max_secs), child.wait())
            .await
            .is_ok()
        {
            return;
        }
        tracing::warn!(pid, ?signal, max_secs, "PostgreSQL has not ended yet");
    }
}

/// The newest programs, or those of the version that made the folder.
fn fitting(layout: &Layout, bin: Option<&Path>) -> Result<Programs, ClusterError> {
    let newest = Programs::find(bin, None)?;
    let version = layout.data.join("PG_VERSION");
    let its = match fs::read_to_string(&version) {
        Ok(its) => its.trim().to_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(newest),
        Err(error) => return Err(refused("read", &version)(error)),
    };
    its.parse()
        .ok()
        .filter(|its| *its >= postmaster::MAJOR_MIN)
        .and_then(|its| {
            if its == newest.major() {
                return Some(newest.clone());
            }
            Programs::find(bin, Some(its)).ok()
        })
        .ok_or(ClusterError::ForeignVersion {
            folder: layout.root.clone(),
            its,
            installed: newest.major(),
        })
}

/// Makes the server's files under another name and renames them, so that half of them are never taken for all.
fn make_data(layout: &Layout, programs: &Programs) -> Result<(), ClusterError> {
    let unfinished = layout.root.join("postgres.new");
    match fs::remove_dir_all(&unfinished) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(refused("remove", &unfinished)(error)),
    }
    tracing::info!(folder = %layout.root.display(), major = programs.major(), "making a PostgreSQL cluster");
    layout.make_private(&unfinished)?;
    // Who can open the socket is trusted to be any role: the socket's folder is closed to all users but one, and that
    // one could read the files anyway. Roles keep services apart from each other, not from that user.
    programs.initdb(&unfinished, layout.account.as_ref(), &["--data-checksums"])?;
    fs::rename(&unfinished, &layout.data)
        .and_then(|()| File::open(&layout.root)?.sync_all())
        .map_err(refused("name", &layout.data))
}

fn open_log(path: &Path) -> Result<File, ClusterError> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(refused("open", path))
}

/// The last the server said since the log was `from` bytes long.
fn tail(log: &Path, from: u64) -> String {
    let read = || {
        let mut file = File::open(log)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(
            from.max(end.saturating_sub(LOG_SHOWN_MAX_BYTES)),
        ))?;
        let mut said = Vec::new();
        file.take(LOG_SHOWN_MAX_BYTES).read_to_end(&mut said)?;
        std::io::Result::Ok(String::from_utf8_lossy(&said).trim().to_owned())
    };
    read().unwrap_or_else(|error| format!("its log {} is unreadable: {error}", log.display()))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ClusterError> + Send + 'static,
) -> Result<T, ClusterError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}
