//! What was measured, as a page, and its place in the document.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, ensure};

use crate::{
    drive::Run,
    pgbench::{Figures, Script},
    till::Way,
};

/// Everything between these lines is replaced; what stands around them is written by hand.
const BEGIN: &str = "<!-- measured: ledger -->\n";
const END: &str = "<!-- end of the measured: ledger -->";

/// One line of the table of ways.
pub(crate) struct Row {
    pub(crate) load: &'static str,
    pub(crate) habit: &'static str,
    pub(crate) callers: usize,
    /// Median figures of each way that was run.
    pub(crate) ways: Vec<(Way, Run)>,
}

/// Everything that was measured; what was left out is empty.
#[derive(Default)]
pub(crate) struct Measured {
    /// Where, how, when.
    pub(crate) setting: Vec<String>,
    pub(crate) rows: Vec<Row>,
    pub(crate) pgbench: Vec<(Script, &'static str, Figures)>,
    pub(crate) hello: Option<Run>,
    pub(crate) http: Vec<(&'static str, Run)>,
    /// The long run, and messages carried meanwhile.
    pub(crate) steady: Option<(Run, i64)>,
}

/// A goal, and how far it was met.
struct Goal {
    figure: String,
    must: f64,
    aim: f64,
    unit: &'static str,
    got: Option<f64>,
    at_most: bool,
}

impl Row {
    fn of(&self, way: Way) -> Option<&Run> {
        let found = self.ways.iter().find(|(known, _)| *known == way);
        found.map(|(_, run)| run)
    }
}

impl Measured {
    /// The page.
    pub(crate) fn page(&self) -> String {
        let mut page = String::new();
        for line in &self.setting {
            writeln!(page, "- {line}").expect("memory");
        }
        self.tell_goals(&mut page);
        self.tell_ways(&mut page);
        self.tell_pgbench(&mut page);
        self.tell_http(&mut page);
        self.tell_steady(&mut page);
        page
    }

    fn tell_goals(&self, page: &mut String) {
        page.push_str(
            "\n### Goals\n\n| figure | must | aim | measured | |\n|---|---|---|---|---|\n",
        );
        for goal in self.goals() {
            let sign = if goal.at_most { "≤" } else { "≥" };
            let (got, verdict) = match goal.got {
                None => ("–".to_owned(), "not measured"),
                Some(got) => {
                    let met = if goal.at_most {
                        got <= goal.must
                    } else {
                        got >= goal.must
                    };
                    (
                        format!("{} {}", figure(got), goal.unit),
                        if met { "met" } else { "**missed**" },
                    )
                }
            };
            writeln!(
                page,
                "| {} | {sign} {} {unit} | {} {unit} | {got} | {verdict} |",
                goal.figure,
                figure(goal.must),
                figure(goal.aim),
                unit = goal.unit,
            )
            .expect("memory");
        }
    }

    fn goals(&self) -> Vec<Goal> {
        let least = |figure: &str, must, aim, got| Goal {
            figure: figure.to_owned(),
            must,
            aim,
            unit: "×",
            got,
            at_most: false,
        };
        let most = |figure: &str, must, aim, got| Goal {
            figure: figure.to_owned(),
            must,
            aim,
            unit: "µs",
            got,
            at_most: true,
        };
        let hello = self.hello.as_ref().map(|run| run.ops_per_sec);
        let of_hello = |load: &str| {
            let found = self.http.iter().find(|(known, _)| *known == load);
            found.and_then(|(_, run)| Some(run.ops_per_sec / hello?))
        };
        let zipf = self.ours("Zipf", 256).map(Run::micros_per_op);
        let steady = self.steady.as_ref().map(|(run, _)| run.micros_per_op());
        let crowd = self.ours("uniform", 1_024).map(|run| run.ops_per_sec);
        let of_pgbench = |script| Some(crowd? / self.pgbench(script, "uniform")?.tps);
        vec![
            least(
                "group commit ÷ A, hot, 256 callers",
                40.0,
                100.0,
                self.over_a("hot", 256),
            ),
            least(
                "group commit ÷ A, Zipf, 1,024 callers",
                10.0,
                25.0,
                self.over_a("Zipf", 1_024),
            ),
            least(
                "group commit, uniform, 1,024 callers ÷ pgbench, transaction",
                5.0,
                15.0,
                of_pgbench(Script::Transaction),
            ),
            least(
                "1 caller ÷ better of A and C, hot",
                0.8,
                1.0,
                self.over_best("hot", 1),
            ),
            least(
                "1 caller ÷ better of A and C, Zipf",
                0.8,
                1.0,
                self.over_best("Zipf", 1),
            ),
            least(
                "8 callers ÷ better of A and C, hot",
                1.1,
                2.0,
                self.over_best("hot", 8),
            ),
            least(
                "8 callers ÷ better of A and C, uniform",
                1.1,
                2.0,
                self.over_best("uniform", 8),
            ),
            least(
                "8 callers ÷ better of A and C, Zipf",
                1.1,
                2.0,
                self.over_best("Zipf", 8),
            ),
            least(
                "reserve over HTTP ÷ hello-world, hot",
                0.33,
                0.6,
                of_hello("hot"),
            ),
            least(
                "reserve over HTTP ÷ hello-world, uniform",
                0.33,
                0.6,
                of_hello("uniform"),
            ),
            most(
                "CPU per reserve, Zipf, 256 callers, short run",
                25.0,
                12.0,
                zipf,
            ),
            most(
                "CPU per reserve, Zipf, 256 callers, long run with relay",
                30.0,
                18.0,
                steady,
            ),
        ]
    }

    fn tell_ways(&self, page: &mut String) {
        if self.rows.is_empty() {
            return;
        }
        page.push_str(
            "\n### Ways\n\nOperations/s (p50 / p99 in ms; CPU in µs an operation, client + PostgreSQL).\n\n\
             | load | callers | A: row locks | C: one conditional statement | ours: group commit | ours ÷ A | ours ÷ C |\n\
             |---|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let cell = |way| row.of(way).map_or("–".to_owned(), run_cell);
            let over = |way| {
                let ratio =
                    || Some(row.of(Way::GroupCommit)?.ops_per_sec / row.of(way)?.ops_per_sec);
                ratio().map_or("–".to_owned(), |ratio| format!("{} ×", figure(ratio)))
            };
            writeln!(
                page,
                "| {}{} | {} | {} | {} | {} | {} | {} |",
                row.load,
                row.habit,
                thousands(row.callers as f64),
                cell(Way::RowLocks),
                cell(Way::OneStatement),
                cell(Way::GroupCommit),
                over(Way::RowLocks),
                over(Way::OneStatement),
            )
            .expect("memory");
        }
    }

    fn tell_pgbench(&self, page: &mut String) {
        if self.pgbench.is_empty() {
            return;
        }
        page.push_str(
            "\n### pgbench, 24 clients, prepared statements\n\n\
             One pool a request, no movements, no messages, no hashes: the least that holds a unit.\n\n\
             | SQL | load | operations/s | mean latency | CPU an operation | ours, 1,024 callers, ÷ it |\n|---|---|---|---|---|---|\n",
        );
        for (script, load, figures) in &self.pgbench {
            let ours = self
                .ours(load, 1_024)
                .map(|run| run.ops_per_sec / figures.tps);
            writeln!(
                page,
                "| {} | {load} | {} | {:.1} ms | {:.0} µs | {} |",
                script.name(),
                thousands(figures.tps),
                figures.mean_micros / 1e3,
                figures.micros_per_op,
                ours.map_or("–".to_owned(), |ratio| format!("{} ×", figure(ratio))),
            )
            .expect("memory");
        }
    }

    fn tell_http(&self, page: &mut String) {
        let Some(hello) = &self.hello else {
            return;
        };
        page.push_str(
            "\n### HTTP, 256 connections, client and server in one process\n\n\
             | route | requests/s (p50 / p99 in ms; CPU in µs a request, client and server + PostgreSQL) | ÷ hello-world |\n|---|---|---|\n",
        );
        writeln!(page, "| hello-world | {} | 1 |", run_cell(hello)).expect("memory");
        for (load, run) in &self.http {
            writeln!(
                page,
                "| reserve, {load} | {} | {} |",
                run_cell(run),
                figure(run.ops_per_sec / hello.ops_per_sec)
            )
            .expect("memory");
        }
    }

    fn tell_steady(&self, page: &mut String) {
        let Some((run, carried)) = &self.steady else {
            return;
        };
        writeln!(
            page,
            "\n### Long run: Zipf, 256 callers, relay and autovacuum at work\n\n\
             {} · {} messages carried to the log meanwhile.",
            run_cell(run),
            thousands(*carried as f64)
        )
        .expect("memory");
    }

    fn row(&self, load: &str, callers: usize) -> Option<&Row> {
        self.rows
            .iter()
            .find(|row| row.load == load && row.callers == callers && row.habit.is_empty())
    }

    fn ours(&self, load: &str, callers: usize) -> Option<&Run> {
        self.row(load, callers)?.of(Way::GroupCommit)
    }

    fn over_a(&self, load: &str, callers: usize) -> Option<f64> {
        let a = self.row(load, callers)?.of(Way::RowLocks)?;
        Some(self.ours(load, callers)?.ops_per_sec / a.ops_per_sec)
    }

    fn over_best(&self, load: &str, callers: usize) -> Option<f64> {
        let row = self.row(load, callers)?;
        let (a, c) = (row.of(Way::RowLocks)?, row.of(Way::OneStatement)?);
        Some(self.ours(load, callers)?.ops_per_sec / a.ops_per_sec.max(c.ops_per_sec))
    }

    fn pgbench(&self, script: Script, load: &str) -> Option<&Figures> {
        let found = self.pgbench.iter();
        let mut found = found.filter(|(known, on, _)| *known == script && *on == load);
        found.next().map(|(_, _, figures)| figures)
    }
}

/// Puts the page into its place in the document, whatever stood there.
pub(crate) fn write(document: &Path, page: &str) -> anyhow::Result<()> {
    let text =
        fs::read_to_string(document).with_context(|| format!("read {}", document.display()))?;
    let places = text.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    let (before, after) =
        places.with_context(|| format!("{} has no place for this", document.display()))?;
    ensure!(!page.contains(END), "the page would end itself");
    fs::write(document, format!("{before}{BEGIN}\n{page}\n{END}{after}"))?;
    Ok(())
}

fn run_cell(run: &Run) -> String {
    let millis = |micros: u32| figure(f64::from(micros) / 1e3);
    format!(
        "**{}** ({} / {}; {} + {})",
        thousands(run.ops_per_sec),
        millis(run.p50_micros),
        millis(run.p99_micros),
        figure(run.client_micros_per_op),
        figure(run.postgres_micros_per_op),
    )
}

/// Two digits that mean something.
fn figure(number: f64) -> String {
    if number >= 1_000.0 {
        thousands(number)
    } else if number >= 10.0 {
        format!("{number:.0}")
    } else if number >= 1.0 {
        format!("{number:.1}")
    } else {
        format!("{number:.2}")
    }
}

/// Three digits that mean something, and groups of three.
fn thousands(number: f64) -> String {
    let whole = number.round() as u64;
    let digits = whole.to_string();
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}
