//! The CPU time that a process and all below it have used, as Linux counts it.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::Context as _;

/// Ticks of the counters in /proc; Linux shows programs the same number on every machine.
const TICKS_PER_SEC: u64 = 100;

/// What one line of /proc/<pid>/stat says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    parent: u32,
    /// Its own and that of the children it has collected.
    ticks: u64,
}

/// CPU time of the process, of its living descendants, and of the dead ones that were collected.
pub fn of_tree(root: u32) -> anyhow::Result<Duration> {
    let mut processes = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("CPU time is read from /proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // It may have ended since it was listed.
        if let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat"))
            && let Some(process) = parse(&stat)
        {
            processes.insert(pid, process);
        }
    }
    let ticks = processes
        .iter()
        .filter(|(pid, _)| descends(&processes, **pid, root))
        .map(|(_, process)| process.ticks)
        .sum::<u64>();
    Ok(Duration::from_millis(ticks * 1_000 / TICKS_PER_SEC))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_brackets_does_not_move_the_counters() {
        let stat = "42 (a (b) c) S 7 42 42 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 100 0 0";
        let process = parse(stat).expect("a line of /proc");
        assert_eq!(
            process,
            Process {
                parent: 7,
                ticks: 100
            }
        );
    }

    #[test]
    fn this_process_uses_cpu_time_and_its_tree_no_less() {
        let this = std::process::id();
        let before = of_tree(this).expect("Linux");
        let mut sum = 0_u64;
        while of_tree(this).expect("Linux") == before {
            sum = (0..100_000_u64).fold(sum, u64::wrapping_add);
        }
        assert!(of_tree(this).expect("Linux") > before, "{sum}");
        assert_eq!(of_tree(u32::MAX).expect("Linux"), Duration::ZERO);
    }
}
