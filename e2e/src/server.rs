//! One process of the real binary: started, told to end, killed, waited for.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::wait;

/// How long a process may take until it serves: on a busy machine it makes a database cluster first.
const READY_MAX_SECS: u64 = 180;
/// How long a process may take to end once it was told to.
const END_MAX_SECS: u64 = 60;
/// How much of a process's log a failure repeats.
const LOG_SHOWN_LINES: usize = 60;

/// What a started server prints.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    #[serde(rename = "ready")]
    serves: bool,
    /// Its public door; none without the gateway.
    pub url: Option<String>,
    /// Its internal door.
    pub internal: String,
    /// Where it serves other processes.
    pub grpc: Option<String>,
}

/// A process ended before it served.
#[derive(Debug)]
pub struct EndedEarly {
    /// How.
    pub status: ExitStatus,
    log: String,
}

impl fmt::Display for EndedEarly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "it ended with {} before it served:\n{}",
            self.status, self.log
        )
    }
}

impl std::error::Error for EndedEarly {}

/// A server process. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    name: String,
    folder: PathBuf,
    child: Child,
    /// What it printed when it served.
    pub ready: Ready,
}

impl Server {
    /// Starts `command` and waits until it serves. Its files lie in `folder`, under `name`.
    pub async fn start(name: &str, folder: &Path, mut command: Command) -> anyhow::Result<Self> {
        let said = folder.join(format!("{name}.out"));
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log_file(folder, name))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&said)?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        // Read by the undertaker, should this process end before it can clear up.
        fs::write(pid_file(folder, name), child.id().to_string())?;
        let mut server = Self {
            name: name.to_owned(),
            folder: folder.to_owned(),
            child,
            ready: Ready {
                serves: false,
                url: None,
                internal: String::new(),
                grpc: None,
            },
        };
        let limit = Duration::from_secs(READY_MAX_SECS);
        server.ready = wait::until(&format!("{name} serves"), limit, async || {
            if let Some(status) = server.child.try_wait()? {
                let log = log_tail(folder, name);
                return Err(EndedEarly { status, log }.into());
            }
            let said = fs::read_to_string(&said)?;
            let Some((line, _)) = said.split_once('\n') else {
                return Ok(None);
            };
            let ready: Ready =
                serde_json::from_str(line).with_context(|| format!("its line is {line:?}"))?;
            ensure!(ready.serves, "its line is {line:?}");
            Ok(Some(ready))
        })
        .await?;
        Ok(server)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        // Already dead is as good.
        self.child.kill().ok();
        self.child
            .wait()
            .with_context(|| format!("kill {}", self.name))?;
        Ok(())
    }

    /// Tells it to end in order, and waits until it has.
    pub async fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.end().await
    }

    /// Stops it where it stands, as a machine without memory to spare does, until [`resume`](Self::resume).
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on as if nothing had been.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Waits until it has ended, by itself or by what was done to it.
    pub async fn end(&mut self) -> anyhow::Result<ExitStatus> {
        let limit = Duration::from_secs(END_MAX_SECS);
        let what = format!("{} ends", self.name);
        wait::until(&what, limit, async || Ok(self.child.try_wait()?)).await
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }
}

impl Server {
    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.context("a process has an id")?;
        kill_process(pid, signal).with_context(|| format!("send {signal:?} to {}", self.name))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill().ok();
        fs::remove_file(pid_file(&self.folder, &self.name)).ok();
    }
}

fn pid_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.pid"))
}

fn log_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.log"))
}

/// All that a process wrote to its log, over all its lives.
pub fn log_text(folder: &Path, name: &str) -> String {
    let log = fs::read(log_file(folder, name)).unwrap_or_default();
    String::from_utf8_lossy(&log).into_owned()
}

/// The last lines a process wrote to its log, over all its lives.
pub fn log_tail(folder: &Path, name: &str) -> String {
    let log = log_text(folder, name);
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_SHOWN_LINES)..].join("\n")
}
