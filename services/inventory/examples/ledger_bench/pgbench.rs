//! What PostgreSQL's own load generator makes of the least SQL that holds a unit.

use std::{process::Command, time::Duration};

use anyhow::{Context as _, ensure};
use holdfast_platform::postmaster::Programs;

use crate::{cpu::Cpu, ground::Ground, load::Load};

const CLIENTS: usize = 24;
const PLENTY: i64 = 1_000_000_000;

/// The script that is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    /// A transaction of an update and an insert, as an application sends it.
    Transaction,
    /// The same in one statement.
    Statement,
    /// A hold without a pool: the insert alone.
    Insert,
}

/// What one run came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) tps: f64,
    pub(crate) mean_micros: f64,
    pub(crate) micros_per_op: f64,
}

impl Script {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Transaction => "transaction of an update and an insert",
            Self::Statement => "the same as one statement",
            Self::Insert => "the insert alone",
        }
    }

    fn text(self, pools: i32) -> String {
        let hold = "INSERT INTO hold (id, state, version, expires_at, born_at, epoch, account, reference, pools, units, returned)";
        let row = "gen_random_uuid(), 1, 1, now() + interval '1 h', now(), 0, '', '', ARRAY[:pool]::int4[], ARRAY[1]::int8[], '{}'";
        let take = "UPDATE pool SET held = held + 1, version = version + 1 \
                    WHERE id = :pool AND held + sold + blocked < capacity + overbook";
        let choose = format!("\\set pool random(1, {pools})\n");
        let sql = match self {
            Self::Transaction => format!("BEGIN;\n{take};\n{hold} VALUES ({row});\nCOMMIT;\n"),
            Self::Statement => {
                format!("WITH taken AS ({take} RETURNING id) {hold} SELECT {row} FROM taken;\n")
            }
            Self::Insert => format!("{hold} VALUES ({row});\n"),
        };
        choose + &sql
    }
}

/// One run.
pub(crate) async fn run(
    ground: &mut Ground,
    script: Script,
    load: Load,
    time: Duration,
) -> anyhow::Result<Figures> {
    let field = ground.field(load.pools(), PLENTY).await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("script.sql");
    std::fs::write(&file, script.text(load.pools()))?;
    let program = Programs::find(None, None)?.folder().join("pgbench");
    let mut command = Command::new(&program);
    command
        .args(["--no-vacuum", "--protocol", "prepared", "--jobs", "2"])
        .args(["--client", &CLIENTS.to_string()])
        .args(["--time", &time.as_secs().max(1).to_string()])
        .arg("--file")
        .arg(&file)
        .arg("--host")
        .arg(&field.socket_dir)
        .args(["--port", &field.port.to_string()])
        .args(["--username", "inventory_app", &field.name]);
    let before = Cpu::now(ground.postmaster)?;
    let output = tokio::task::spawn_blocking(move || command.output())
        .await?
        .with_context(|| format!("run {}", program.display()))?;
    let used = Cpu::now(ground.postmaster)?.since(before);
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "{}: {}",
        program.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let figure = |label: &str| -> anyhow::Result<f64> {
        let line = said.lines().find_map(|line| line.strip_prefix(label));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        number.with_context(|| format!("pgbench said nothing of {label:?}: {said}"))
    };
    let done = figure("number of transactions actually processed: ")?;
    let cpu = (used.client + used.postgres).as_secs_f64();
    Ok(Figures {
        tps: figure("tps = ")?,
        mean_micros: figure("latency average = ")? * 1e3,
        micros_per_op: cpu * 1e6 / done.max(1.0),
    })
}

impl Figures {
    /// Each the median.
    pub(crate) fn median(runs: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| {
            let mut figures: Vec<f64> = runs.iter().map(figure).collect();
            figures.sort_unstable_by(f64::total_cmp);
            let middle = figures.len() / 2;
            figures.get(middle).copied().unwrap_or_default()
        };
        Self {
            tps: of(|run| run.tps),
            mean_micros: of(|run| run.mean_micros),
            micros_per_op: of(|run| run.micros_per_op),
        }
    }
}
