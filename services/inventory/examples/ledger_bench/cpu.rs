//! CPU time as Linux counts it: ours, PostgreSQL's, and everybody's.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::Context as _;

/// Ticks of the counters in /proc; Linux shows programs the same number on every machine.
const TICKS_PER_SEC: u64 = 100;

/// A reading of the counters; two of them say what was used in between.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpu {
    /// This process and what it started, PostgreSQL left out.
    pub(crate) client: Duration,
    /// The server and all its processes.
    pub(crate) postgres: Duration,
    /// All of the machine, idling left out.
    everybody: Duration,
}

impl Cpu {
    /// Reads the counters; `postmaster` is the server's first process, a child of this one.
    pub(crate) fn now(postmaster: u32) -> anyhow::Result<Self> {
        let processes = processes()?;
        let of = |root| {
            let below = |pid| descends(&processes, pid, root);
            let ticks = processes.iter().filter(|(pid, _)| below(**pid));
            ticks.map(|(_, process)| process.ticks).sum::<u64>()
        };
        let postgres = of(postmaster);
        Ok(Self {
            client: time(of(std::process::id()).saturating_sub(postgres)),
            postgres: time(postgres),
            everybody: time(machine()?),
        })
    }

    /// What was used since an earlier reading.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            client: self.client.saturating_sub(earlier.client),
            postgres: self.postgres.saturating_sub(earlier.postgres),
            everybody: self.everybody.saturating_sub(earlier.everybody),
        }
    }

    /// What processes that are no part of this used.
    pub(crate) fn others(self) -> Duration {
        self.everybody
            .saturating_sub(self.client)
            .saturating_sub(self.postgres)
    }
}

/// The parent of a process.
pub(crate) fn parent(pid: u32) -> anyhow::Result<u32> {
    let process = processes()?.remove(&pid);
    Ok(process.context("the process has ended")?.parent)
}

struct Process {
    parent: u32,
    /// Its own and those of the children it has collected.
    ticks: u64,
}

fn processes() -> anyhow::Result<BTreeMap<u32, Process>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("CPU time is read from /proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // It may have ended since it was listed.
        if let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat"))
            && let Some(process) = parse(&stat)
        {
            found.insert(pid, process);
        }
    }
    Ok(found)
}

fn parse(stat: &str) -> Option<Process> {
    // The second field is a name in brackets that may hold anything; what follows it has no brackets.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Process {
        parent: u32::try_from(number(1)?).ok()?,
        ticks: number(11)? + number(12)? + number(13)? + number(14)?,
    })
}

fn descends(processes: &BTreeMap<u32, Process>, pid: u32, root: u32) -> bool {
    let mut at = pid;
    while at != root {
        match processes.get(&at) {
            Some(process) if process.parent != 0 => at = process.parent,
            _ => return false,
        }
    }
    true
}

/// Ticks in which any core did anything: user, nice, system, interrupts.
fn machine() -> anyhow::Result<u64> {
    let stat = fs::read_to_string("/proc/stat").context("CPU time is read from /proc")?;
    let mut fields = stat.lines().next().unwrap_or_default().split_whitespace();
    fields.next();
    let ticks: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
    Ok([0, 1, 2, 5, 6].iter().filter_map(|at| ticks.get(*at)).sum())
}

fn time(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1_000 / TICKS_PER_SEC)
}
