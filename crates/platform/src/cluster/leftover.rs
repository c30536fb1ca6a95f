//! Processes that an earlier life of the server left behind.
//!
//! When the owner is killed, the server goes on; when the server's first process is killed, the others finish what they
//! do. Both have to end before the folder is served again. Knows Linux's `/proc`; elsewhere it finds nothing, and the
//! server itself refuses to start beside another.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use super::{ClusterError, folder::refused};
use crate::postmaster::{self, NOTE};

/// How long a server may take to write down what it holds in memory.
pub(super) const ORDERLY_MAX_SECS: u64 = 60;
/// How long processes may take to drop everything.
pub(super) const AT_ONCE_MAX_SECS: u64 = 5;
const LOOK_AGAIN_MILLIS: u64 = 10;

/// Ends whatever still serves `data`: in good order if it can, by force if it must.
///
/// The caller holds the folder's lock, so nobody else is about to use what is ended.
pub(super) async fn end(data: &Path) -> Result<(), ClusterError> {
    let left = processes_in(data);
    if !left.is_empty() {
        let head = postmaster::noted_pid(data).filter(|pid| left.contains(pid));
        tracing::warn!(?head, processes = left.len(), folder = %data.display(), "stopping a PostgreSQL that was left running");
        let ended = match head {
            Some(head) => {
                signal(head, Signal::INT);
                all_gone(data, ORDERLY_MAX_SECS).await
            }
            None => false,
        };
        if !ended {
            for strength in [Signal::QUIT, Signal::KILL] {
                for pid in processes_in(data) {
                    signal(pid, strength);
                }
                if all_gone(data, AT_ONCE_MAX_SECS).await {
                    break;
                }
            }
        }
    }
    // The note's pid may be somebody else's by now, or one of a dead process that nobody collected; the server would
    // take either for a rival. We know that there is none.
    let note = data.join(NOTE);
    if Path::new("/proc/self").exists() && processes_in(data).is_empty() && note.exists() {
        fs::remove_file(&note).map_err(refused("remove", &note))?;
    }
    Ok(())
}

/// The server processes that work in `data`.
///
/// A pid alone proves nothing, since pids are used again; these are PostgreSQL by name and stand in that folder.
pub(super) fn processes_in(data: &Path) -> Vec<u32> {
    let Ok(all) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    all.filter_map(Result::ok)
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let process = entry.path();
            let ours = fs::read_to_string(process.join("comm")).ok()?.trim() == "postgres"
                && fs::read_link(process.join("cwd")).ok()? == data;
            ours.then_some(pid)
        })
        .collect()
}

pub(super) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may be gone already, which is what a signal is for.
        kill_process(pid, signal).ok();
    }
}

async fn all_gone(data: &Path, max_secs: u64) -> bool {
    let started = Instant::now();
    loop {
        if processes_in(data).is_empty() {
            return true;
        }
        if started.elapsed() > Duration::from_secs(max_secs) {
            return false;
        }
        sleep(Duration::from_millis(LOOK_AGAIN_MILLIS)).await;
    }
}
