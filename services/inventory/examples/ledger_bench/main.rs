//! Measures the ledger beside the ways it was chosen over, all in one run on one PostgreSQL of its own.
//!
//! Read in this order: this file (what is run, and in which order), `load` (what callers want), `till` with `row_locks` and
//! `one_statement` (the ways), `drive` (how callers ask and what is counted), `buying` (who they are, and how the books are
//! compared after each run), `pgbench`, `http`, `steady`, `ground` (the PostgreSQL), `report`.
//!
//! Rounds are interleaved: each round runs everything once, and a figure is the median of the rounds. On a machine with
//! other work only ratios say something, and the share of the others is printed.

mod buying;
mod cpu;
mod drive;
mod ground;
mod http;
mod load;
mod one_statement;
mod pgbench;
mod report;
mod row_locks;
mod sessions;
mod steady;
mod till;

use std::{fs, path::PathBuf, time::Duration};

use clap::Parser;

use buying::Habit;
use drive::{Run, Span};
use ground::Ground;
use http::Route;
use load::Load;
use pgbench::Script;
use report::{Measured, Row};
use till::Way;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Loads and callers at which all ways reserve.
const CELLS: [(Load, &[usize]); 3] = [
    (Load::Hot, &[1, 8, 64, 256, 1_024]),
    (Load::Uniform, &[8, 256, 1_024]),
    (Load::Zipf, &[1, 8, 256, 1_024]),
];
/// Loads on which A and ours reserve, commit and release.
const MIXED: [Load; 2] = [Load::Hot, Load::Zipf];
const MIXED_CALLERS: usize = 256;
const SMOKE_CALLERS: usize = 8;
const HTTP_CONNECTIONS: usize = 256;
const HTTP_LOADS: [Load; 2] = [Load::Hot, Load::Uniform];
const STEADY_CALLERS: usize = 256;
const PGBENCH: [(Script, Load); 5] = [
    (Script::Transaction, Load::Hot),
    (Script::Transaction, Load::Uniform),
    (Script::Statement, Load::Hot),
    (Script::Statement, Load::Uniform),
    (Script::Insert, Load::Uniform),
];

/// Measures the ledger beside the ways it was chosen over.
#[derive(Parser)]
struct Args {
    /// Everything once, for moments, by a handful of callers: that it runs, not how fast
    #[arg(long)]
    smoke: bool,
    /// Document that takes up the figures in their place; a smoke run writes nothing
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// What the document shall say of when and what: a date, a commit
    #[arg(long, value_name = "TEXT", default_value = "")]
    noted: String,
    /// Rounds; a figure is the median of them
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Measured seconds of a run
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// Measured seconds of the long run
    #[arg(long, default_value_t = 60.0)]
    steady_seconds: f64,
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Ways,
    Mixed,
    Pgbench,
    Http,
    Steady,
}

/// What is run, and for how long.
struct Plan {
    only: Vec<Part>,
    smoke: bool,
    rounds: usize,
    span: Span,
    steady: Span,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let plan = Plan::of(&args);
    let mut ground = Ground::start().await?;
    let measured = measure(&plan, &mut ground).await;
    let version = ground.version.clone();
    ground.stop().await;
    let mut measured = measured?;
    measured.setting = setting(&plan, &version, &args.noted, &measured)?;
    if args.smoke {
        say("everything ran; the figures mean nothing");
        return Ok(());
    }
    let page = measured.page();
    say(&page);
    match args.write {
        Some(document) => report::write(&document, &page),
        None => Ok(()),
    }
}

impl Plan {
    fn of(args: &Args) -> Self {
        let span = |seconds: f64| Span {
            warm: Duration::from_secs_f64(seconds / 5.0).min(Duration::from_secs(2)),
            measured: Duration::from_secs_f64(seconds),
        };
        let (rounds, seconds, steady) = if args.smoke {
            (1, 0.1, 1.0)
        } else {
            (args.rounds, args.seconds, args.steady_seconds)
        };
        Self {
            only: args.only.clone(),
            smoke: args.smoke,
            rounds,
            span: span(seconds),
            steady: span(steady),
        }
    }

    fn has(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// A smoke run does each kind of thing once, and leaves out what differs only in how many do it.
    fn runs(&self, callers: usize) -> bool {
        !self.smoke || callers == SMOKE_CALLERS
    }

    fn callers(&self, callers: usize) -> usize {
        if self.smoke {
            callers.min(SMOKE_CALLERS)
        } else {
            callers
        }
    }
}

async fn measure(plan: &Plan, ground: &mut Ground) -> anyhow::Result<Measured> {
    let mut rounds = Vec::with_capacity(plan.rounds);
    for round in 1..=plan.rounds {
        say(&format!("round {round} of {}", plan.rounds));
        rounds.push(Round::run(plan, ground).await?);
    }
    for way in Way::ALL {
        buying::sell_out(ground, way).await?;
    }
    say("sold out by every way: as many units as there were, to as many callers");
    let mut measured = Round::medians(&rounds);
    if plan.has(Part::Steady) {
        let callers = plan.callers(STEADY_CALLERS);
        measured.steady = Some(steady::run(ground, callers, plan.steady).await?);
    }
    Ok(measured)
}

/// A run of one way at one load.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Cell {
    load: Load,
    habit: Habit,
    callers: usize,
    way: Way,
}

/// Everything once.
#[derive(Default)]
struct Round {
    ways: Vec<(Cell, Run)>,
    pgbench: Vec<(Script, Load, pgbench::Figures)>,
    hello: Option<Run>,
    http: Vec<(Load, Run)>,
}

impl Round {
    async fn run(plan: &Plan, ground: &mut Ground) -> anyhow::Result<Self> {
        let mut round = Self::default();
        for cell in Self::cells(plan) {
            let Cell {
                load,
                habit,
                callers,
                way,
            } = cell;
            let asking = plan.callers(callers);
            let run = buying::run(ground, way, load, habit, asking, plan.span).await?;
            tell(&format!("{} {} {callers}", way.name(), load.name()), &run);
            round.ways.push((cell, run));
        }
        if plan.has(Part::Pgbench) {
            let loads = PGBENCH
                .iter()
                .filter(|(_, load)| !plan.smoke || *load == Load::Uniform);
            for &(script, load) in loads {
                let figures = pgbench::run(ground, script, load, plan.span.measured).await?;
                say(&format!(
                    "pgbench, {}, {}: {:.0}/s",
                    script.name(),
                    load.name(),
                    figures.tps
                ));
                round.pgbench.push((script, load, figures));
            }
        }
        if plan.has(Part::Http) {
            let connections = plan.callers(HTTP_CONNECTIONS);
            let hello = http::run(ground, Route::Hello, Load::Hot, connections, plan.span).await?;
            tell("HTTP hello-world", &hello);
            round.hello = Some(hello);
            for load in HTTP_LOADS {
                let run = http::run(ground, Route::Reserve, load, connections, plan.span).await?;
                tell(&format!("HTTP reserve {}", load.name()), &run);
                round.http.push((load, run));
            }
        }
        Ok(round)
    }

    fn cells(plan: &Plan) -> Vec<Cell> {
        let mut cells = Vec::new();
        if plan.has(Part::Ways) {
            for (load, crowds) in CELLS {
                for &callers in crowds.iter().filter(|callers| plan.runs(**callers)) {
                    cells.extend(Way::ALL.map(|way| Cell {
                        load,
                        habit: Habit::Reserve,
                        callers,
                        way,
                    }));
                }
            }
        }
        if plan.has(Part::Mixed) {
            for load in MIXED {
                cells.extend([Way::RowLocks, Way::GroupCommit].map(|way| Cell {
                    load,
                    habit: Habit::Mixed,
                    callers: MIXED_CALLERS,
                    way,
                }));
            }
        }
        cells
    }

    /// The medians of rounds that all ran the same.
    fn medians(rounds: &[Self]) -> Measured {
        let mut measured = Measured::default();
        let Some(first) = rounds.first() else {
            return measured;
        };
        for (at, (cell, _)) in first.ways.iter().enumerate() {
            let runs: Vec<Run> = rounds.iter().map(|round| round.ways[at].1).collect();
            let run = (cell.way, Run::median(&runs));
            let (load, callers) = (cell.load.name(), cell.callers);
            let habit = match cell.habit {
                Habit::Reserve => "",
                Habit::Mixed => ": reserve, 80 % commit, 15 % release",
            };
            match measured.rows.last_mut() {
                Some(row) if row.load == load && row.habit == habit && row.callers == callers => {
                    row.ways.push(run);
                }
                _ => measured.rows.push(Row {
                    load,
                    habit,
                    callers,
                    ways: vec![run],
                }),
            }
        }
        for (at, (script, load, _)) in first.pgbench.iter().enumerate() {
            let runs: Vec<_> = rounds.iter().map(|round| round.pgbench[at].2).collect();
            let median = pgbench::Figures::median(&runs);
            measured.pgbench.push((*script, load.name(), median));
        }
        let hello: Vec<Run> = rounds.iter().filter_map(|round| round.hello).collect();
        measured.hello = first.hello.map(|_| Run::median(&hello));
        for (at, (load, _)) in first.http.iter().enumerate() {
            let runs: Vec<Run> = rounds.iter().map(|round| round.http[at].1).collect();
            measured.http.push((load.name(), Run::median(&runs)));
        }
        measured
    }
}

/// Where, how and under which circumstances it was measured.
fn setting(
    plan: &Plan,
    postgres: &str,
    noted: &str,
    measured: &Measured,
) -> anyhow::Result<Vec<String>> {
    let processor = fs::read_to_string("/proc/cpuinfo")?;
    let model = processor.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "model name").then(|| value.trim().to_owned())
    });
    let cores = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let runs = measured.rows.iter().flat_map(|row| &row.ways);
    let mut others: Vec<f64> = runs.map(|(_, run)| run.others_cores).collect();
    others.sort_unstable_by(f64::total_cmp);
    let mut lines = vec![
        format!(
            "{cores} cores of {}, Linux {}, PostgreSQL {postgres} with fsync and synchronous_commit on; callers, ledger and database on the same cores",
            model.as_deref().unwrap_or("an unnamed processor"),
            kernel.trim(),
        ),
        format!(
            "medians of {} interleaved rounds of {:.1} s a run; A and C on {} connections; books compared after every run: nothing oversold, nothing drifted, as many holds as answers",
            plan.rounds,
            plan.span.measured.as_secs_f64(),
            sessions::CONNECTIONS,
        ),
    ];
    if let (Some(least), Some(most)) = (others.first(), others.last()) {
        lines.push(format!(
            "meanwhile other processes of the machine used {least:.1} to {most:.1} of its {cores} cores"
        ));
    }
    if !noted.is_empty() {
        lines.push(noted.to_owned());
    }
    Ok(lines)
}

fn tell(what: &str, run: &Run) {
    say(&format!(
        "{what}: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms, CPU {:.1} + {:.1} µs, others {:.1} cores",
        run.ops_per_sec,
        f64::from(run.p50_micros) / 1e3,
        f64::from(run.p99_micros) / 1e3,
        run.client_micros_per_op,
        run.postgres_micros_per_op,
        run.others_cores,
    ));
}

#[expect(clippy::print_stdout, reason = "a program for the command line")]
fn say(text: &str) {
    println!("{text}");
}
