//! One PostgreSQL per test process, gone when the process is gone, however that came about.

use std::{
    fs,
    io::ErrorKind,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use holdfast_platform::postmaster::{self, Account, Programs, SUPERUSER};

const START_MAX_SECS: u64 = 60;
const LOOK_AGAIN_MILLIS: u64 = 5;

/// Nothing here outlives the process, so nothing here is made to last.
const SETTINGS: [(&str, &str); 12] = [
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("wal_level", "minimal"),
    ("wal_init_zero", "off"),
    ("max_wal_senders", "0"),
    ("shared_buffers", "64MB"),
    ("max_connections", "300"),
    ("jit", "off"),
    // With a database per test its workers would go round all day.
    ("autovacuum", "off"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
];

/// Waits in a process of its own until the pipe from the test process ends, then stops the server and clears up.
///
/// The server is its child, so that somebody is there to collect it when the test process was killed.
const WATCHDOG: &str = r#"
folder=$1
shift
"$@" >"$folder/log" 2>&1 &
server=$!
read -r _
kill -QUIT "$server"
wait "$server"
rm -rf "$folder"
"#;

pub(crate) struct Server {
    folder: PathBuf,
    /// Holds the pipe whose end the watchdog waits for.
    _watchdog: Child,
}

impl Server {
    /// The server of this process, started by the first who asks.
    pub(crate) fn get() -> &'static Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        SERVER.get_or_init(Self::start)
    }

    pub(crate) fn url(&self, role: &str, database: &str) -> String {
        postmaster::url(&self.folder, role, database)
    }

    pub(crate) fn admin_url(&self, database: &str) -> String {
        self.url(SUPERUSER, database)
    }

    fn start() -> Self {
        Self::start_with(|_, _| {}, &[])
    }

    /// Starts one whose data folder was furnished first, with these settings besides.
    pub(crate) fn start_with(
        furnish: impl FnOnce(&Path, Option<&Account>),
        settings: &[(&str, &str)],
    ) -> Self {
        let programs = Programs::find(None, None).unwrap_or_else(|error| panic!("{error}"));
        let account = Account::for_server().unwrap_or_else(|error| panic!("{error}"));
        let account = account.as_ref();
        let folder = make_folder(account);
        let data = folder.join("data");
        programs
            .initdb(&data, account, &["--no-sync"])
            .unwrap_or_else(|error| panic!("{error}"));
        furnish(&data, account);
        // Of two settings of a name the later counts, so these come behind what every server has.
        let more = settings
            .iter()
            .flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")]);
        let mut watchdog = postmaster::command("/bin/sh", account)
            .args(["-c", WATCHDOG, "sh"])
            .arg(&folder)
            .arg(programs.postgres())
            .args(postmaster::serving(&data, &folder, &SETTINGS))
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C in a terminal goes to the whole group; the watchdog has to live through it.
            .process_group(0)
            .spawn()
            .expect("every system has /bin/sh");
        wait_until_ready(&folder, &data, &mut watchdog);
        Self {
            folder,
            _watchdog: watchdog,
        }
    }
}

/// Socket paths are short, and root's own temporary folder may be closed to the server's account.
fn make_folder(account: Option<&Account>) -> PathBuf {
    let folder = tempfile::Builder::new()
        .prefix("holdfast-test-")
        .tempdir_in("/tmp")
        .expect("/tmp can be written to")
        .keep();
    if let Some(account) = account {
        chown(&folder, Some(account.uid), Some(account.gid)).expect("only root runs as others");
    }
    folder
}

#[expect(
    clippy::disallowed_methods,
    reason = "it is the wait on a condition with a bound, and belongs to no runtime"
)]
fn wait_until_ready(folder: &Path, data: &Path, watchdog: &mut Child) {
    let started = Instant::now();
    while postmaster::ready_pid(data).is_none() {
        let ended = !matches!(watchdog.try_wait(), Ok(None));
        let log = fs::read_to_string(folder.join("log"));
        let failed = matches!(&log, Ok(log) if log.contains("FATAL:"));
        if ended || failed || started.elapsed() > Duration::from_secs(START_MAX_SECS) {
            let log = log.unwrap_or_else(|error| match error.kind() {
                ErrorKind::NotFound => "it wrote no log".to_owned(),
                _ => error.to_string(),
            });
            panic!("PostgreSQL for tests did not start: {log}");
        }
        std::thread::sleep(Duration::from_millis(LOOK_AGAIN_MILLIS));
    }
}
