//! How a process ends: in order, within a bound, and at once when told twice.
//!
//! SIGTERM or SIGINT begins it. First the doors close and the calls in hand finish; then the workers stop, which may
//! still call and be told things by each other; what they all stand on (the embedded cluster) is stopped by whoever
//! started it, after [`Shutdown::drain`]. A second signal ends the process where it stands: everything that matters
//! survives that.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long calls in hand may take to finish.
pub const DOORS_DRAIN_SECS: u64 = 10;

/// How long workers may take to put down what they hold.
pub const WORKERS_DRAIN_SECS: u64 = 10;

/// What runs in a process and how it is ended. Clones are the same.
#[derive(Clone, Default)]
pub struct Shutdown(Arc<Inner>);

#[derive(Default)]
struct Inner {
    doors: Stage,
    workers: Stage,
    died: Mutex<Vec<&'static str>>,
}

#[derive(Default)]
struct Stage {
    closing: CancellationToken,
    tasks: TaskTracker,
    running: Mutex<Vec<&'static str>>,
}

/// How it ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// What ended or panicked by itself and so began the shutdown.
    pub died: Vec<&'static str>,
    /// What did not end within its time.
    pub cut_off: Vec<&'static str>,
}

impl Shutdown {
    /// Nothing runs yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes SIGTERM and SIGINT begin the shutdown, and the second of them end the process at once.
    pub fn on_signals(&self) -> io::Result<()> {
        let (mut terminate, mut interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let shutdown = self.clone();
        tokio::spawn(async move {
            let first = either(&mut terminate, &mut interrupt).await;
            tracing::info!(signal = first, "shutting down");
            shutdown.begin();
            let second = either(&mut terminate, &mut interrupt).await;
            tracing::warn!(signal = second, "ending at once");
            std::process::exit(128 + second);
        });
        Ok(())
    }

    /// Begins the shutdown; again is the same.
    pub fn begin(&self) {
        self.0.doors.closing.cancel();
    }

    /// Cancelled when the shutdown begins: whatever accepts, accepts no more.
    pub fn begun(&self) -> CancellationToken {
        self.0.doors.closing.clone()
    }

    /// Cancelled when the doors are closed: whatever works by itself puts it down.
    pub fn workers(&self) -> CancellationToken {
        self.0.workers.closing.clone()
    }

    /// Runs a server, which is to end by itself once [`begun`](Self::begun) is cancelled.
    ///
    /// One that ends before, well or in panic, ends the process: it would be missed by nobody but its callers.
    pub fn serve(&self, name: &'static str, server: impl Future<Output = ()> + Send + 'static) {
        self.run(name, |inner| &inner.doors, server);
    }

    /// Runs a worker, which is to end by itself once [`workers`](Self::workers) is cancelled; else as `serve`.
    pub fn work(&self, name: &'static str, worker: impl Future<Output = ()> + Send + 'static) {
        self.run(name, |inner| &inner.workers, worker);
    }

    /// Waits for the shutdown to begin, then for everything to end in order, each stage within its time.
    pub async fn drain(&self) -> Drained {
        self.0.doors.closing.cancelled().await;
        let mut cut_off = self
            .0
            .doors
            .end(Duration::from_secs(DOORS_DRAIN_SECS))
            .await;
        cut_off.extend(
            self.0
                .workers
                .end(Duration::from_secs(WORKERS_DRAIN_SECS))
                .await,
        );
        Drained {
            died: std::mem::take(&mut self.0.died.lock().unwrap_or_else(PoisonError::into_inner)),
            cut_off,
        }
    }

    fn run(
        &self,
        name: &'static str,
        stage: fn(&Inner) -> &Stage,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        // Dropped when the task ends, however it does.
        let ending = Ending {
            name,
            shutdown: self.clone(),
            stage,
        };
        let running = &stage(&self.0).running;
        running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(name);
        stage(&self.0).tasks.spawn(async move {
            let _ending = ending;
            task.await;
        });
    }
}

impl Stage {
    /// Tells the tasks to end, waits, and returns those that did not.
    async fn end(&self, limit: Duration) -> Vec<&'static str> {
        self.closing.cancel();
        self.tasks.close();
        if tokio::time::timeout(limit, self.tasks.wait()).await.is_ok() {
            return Vec::new();
        }
        let left = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        tracing::warn!(?left, secs = limit.as_secs(), "not ended in time");
        left
    }
}

struct Ending {
    name: &'static str,
    shutdown: Shutdown,
    stage: fn(&Inner) -> &Stage,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let inner = &*self.shutdown.0;
        let stage = (self.stage)(inner);
        let mut running = stage.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = running.iter().position(|name| *name == self.name) {
            running.swap_remove(place);
        }
        if !stage.closing.is_cancelled() {
            tracing::error!(name = self.name, "ended before the process was told to end");
            inner
                .died
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(self.name);
            self.shutdown.begin();
        }
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> i32 {
    tokio::select! {
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn doors_end_before_workers_are_told_to() {
        let (told, mut heard) = mpsc::unbounded_channel();
        let shutdown = Shutdown::new();
        let (closing, stopping) = (shutdown.begun(), shutdown.workers());
        let (door, worker) = (told.clone(), told);
        let call_in_hand = stopping.clone();
        shutdown.serve("door", async move {
            closing.cancelled().await;
            // Workers are still there while the last calls finish.
            door.send(("door", call_in_hand.is_cancelled()))
                .expect("heard");
        });
        shutdown.work("worker", async move {
            stopping.cancelled().await;
            worker.send(("worker", true)).expect("heard");
        });
        shutdown.begin();
        assert_eq!(shutdown.drain().await, Drained::default());
        assert_eq!(heard.recv().await, Some(("door", false)));
        assert_eq!(heard.recv().await, Some(("worker", true)));
    }

    #[tokio::test]
    async fn a_worker_that_panics_or_ends_early_ends_the_process_and_is_named() {
        for panics in [true, false] {
            let shutdown = Shutdown::new();
            shutdown.work("relay", async move { assert!(!panics, "on purpose") });
            let begun = shutdown.begun();
            shutdown.serve("door", async move { begun.cancelled().await });
            let drained = tokio::time::timeout(Duration::from_secs(10), shutdown.drain());
            let drained = drained.await.expect("it begins by itself");
            assert_eq!(drained.died, ["relay"], "panics: {panics}");
        }
    }

    #[tokio::test]
    async fn what_does_not_end_in_time_is_cut_off_and_named() {
        let shutdown = Shutdown::new();
        shutdown.serve("deaf", std::future::pending());
        let limit = Duration::from_millis(20);
        assert_eq!(shutdown.0.doors.end(limit).await, ["deaf"]);
    }
}
