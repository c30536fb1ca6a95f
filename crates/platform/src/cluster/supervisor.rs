//! Keeps the server up for as long as this process wants one.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::{process::Child, sync::watch, task::JoinHandle, time};
use tokio_util::sync::CancellationToken;

use super::{
    ClusterError,
    folder::FolderLock,
    launch::{self, Launch},
    leftover,
};

const RESTART_PAUSE_MIN_MILLIS: u64 = 100;
const RESTART_PAUSE_MAX_MILLIS: u64 = 5_000;
/// A server that lived this long is started again without a pause.
const SOUND_LIFE_SECS: u64 = 10;
const LOG_LOOK_SECS: u64 = 60;

/// How the server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It took connections when last heard of.
    Up,
    /// It died or cannot start; it is tried again and again, and until then every query fails.
    Down {
        /// What is known of the cause.
        reason: String,
    },
}

/// The task that watches the server, and the way to end both.
#[derive(Debug)]
pub(super) struct Supervisor {
    state: watch::Receiver<State>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone)]
struct State {
    health: Health,
    pid: Option<u32>,
}

impl Supervisor {
    /// Starts the server, and from then on starts it again.
    pub(super) async fn start(launch: Launch, lock: FolderLock) -> Result<Self, ClusterError> {
        let stop = CancellationToken::new();
        let child = launch.start(&stop).await?;
        let (told, state) = watch::channel(State::up(&child));
        let task = tokio::spawn(supervise(launch, child, told, stop.clone(), lock));
        Ok(Self { state, stop, task })
    }

    pub(super) fn health(&self) -> Health {
        self.state.borrow().health.clone()
    }

    /// Ends the server in good order.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "the watch over PostgreSQL failed");
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop.cancel();
        // The task may never run again when the runtime is ending; the server still hears this.
        if !self.task.is_finished()
            && let Some(pid) = self.state.borrow().pid
        {
            leftover::signal(pid, Signal::INT);
        }
    }
}

impl State {
    fn up(child: &Child) -> Self {
        Self {
            health: Health::Up,
            pid: child.id(),
        }
    }

    fn down(reason: impl Into<String>) -> Self {
        Self {
            health: Health::Down {
                reason: reason.into(),
            },
            pid: None,
        }
    }
}

/// Holds the folder's lock until the server has ended.
async fn supervise(
    launch: Launch,
    mut child: Child,
    told: watch::Sender<State>,
    stop: CancellationToken,
    _lock: FolderLock,
) {
    let mut pause_millis = RESTART_PAUSE_MIN_MILLIS;
    loop {
        let started = Instant::now();
        let Some(death) = watch_over(&launch, &mut child, &stop).await else {
            launch::end(&mut child).await;
            told.send_replace(State::down("stopped"));
            return;
        };
        tracing::error!(%death, "PostgreSQL ended by itself, starting it again");
        told.send_replace(State::down(death));
        if started.elapsed() > Duration::from_secs(SOUND_LIFE_SECS) {
            pause_millis = RESTART_PAUSE_MIN_MILLIS;
        } else {
            // What dies young would otherwise be started in a circle without rest.
            rest(&mut pause_millis, &stop).await;
        }
        child = loop {
            match launch.start(&stop).await {
                Ok(child) => break child,
                Err(_) if stop.is_cancelled() => return,
                Err(error) => {
                    tracing::error!(%error, "PostgreSQL cannot be started again");
                    told.send_replace(State::down(error.to_string()));
                    rest(&mut pause_millis, &stop).await;
                }
            }
        };
        tracing::info!(pid = child.id(), "PostgreSQL is up again");
        told.send_replace(State::up(&child));
    }
}

/// Waits until the server dies, and tells how; `None` when it is to be stopped.
async fn watch_over(
    launch: &Launch,
    child: &mut Child,
    stop: &CancellationToken,
) -> Option<String> {
    let mut look = time::interval(Duration::from_secs(LOG_LOOK_SECS));
    loop {
        tokio::select! {
            death = child.wait() => return Some(match death {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            }),
            () = stop.cancelled() => return None,
            _ = look.tick() => if let Err(error) = launch.trim_log() {
                tracing::warn!(%error, "PostgreSQL's log grows on");
            },
        }
    }
}

async fn rest(pause_millis: &mut u64, stop: &CancellationToken) {
    tokio::select! {
        () = time::sleep(Duration::from_millis(*pause_millis)) => {}
        () = stop.cancelled() => {}
    }
    *pause_millis = (*pause_millis * 2).min(RESTART_PAUSE_MAX_MILLIS);
}
