//! Lives a shop's invoices through the public API and compares the outcome with the file, to the penny.
//!
//! `replay FILE` starts a server of its own beside this program; `--url` and `--data-dir` name one that runs on this
//! machine. Ends with 1 when anything differs from the file or the audit finds anything.

use std::{
    fs::File,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Parser;
use holdfast_e2e::{
    Door, Operator, Role, Sandbox, Topology, cpu,
    replay::{
        check, invoice,
        live::{self, Lived, People},
        plan::{Class, Count, Plan},
    },
};
use holdfast_kernel::{Currency, Money};
use indicatif::{ProgressBar, ProgressStyle};

const CURRENCY: &str = "GBP";
/// Differences from the file that are told; there is rarely a need for more to find the cause.
const DIFFERENCES_MAX_SHOWN: usize = 20;

/// Lives a shop's invoices through the public API.
#[derive(Parser)]
struct Args {
    /// CSV, plain or gzip: InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
    file: PathBuf,
    /// Public door of a server that runs on this machine [default: one is started]
    #[arg(long, requires = "data_dir")]
    url: Option<String>,
    /// That server's data folder
    #[arg(long, requires = "url")]
    data_dir: Option<PathBuf>,
    /// Only say what the file's lines would become
    #[arg(long)]
    plan: bool,
}

/// The server that the shop lives on.
enum Shop {
    Own(Sandbox),
    Running { url: String, data_dir: PathBuf },
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let currency: Currency = CURRENCY.parse()?;
    let file = File::open(&args.file).with_context(|| format!("open {}", args.file.display()))?;
    let plan = Plan::of(invoice::read(file, currency)?)?;
    tell_plan(&plan, currency);
    if args.plan {
        return Ok(ExitCode::SUCCESS);
    }
    let shop = match (args.url, args.data_dir) {
        (Some(url), Some(data_dir)) => Shop::Running { url, data_dir },
        _ => Shop::Own(start().await?),
    };
    let people = shop.people(&plan)?;

    let started = Instant::now();
    let bar = progress("opening the shop", plan.products.len());
    live::open(&plan, &people, &bar).await?;
    bar.finish_and_clear();
    say(&format!(
        "stocked {} products in {:.1} s",
        plan.products.len(),
        started.elapsed().as_secs_f64()
    ));

    let before = shop.cpu()?;
    let bar = progress(
        "buying and bringing back",
        plan.orders.len() + plan.refunds.len(),
    );
    let lived = live::live(&plan, &people, &bar).await?;
    bar.finish_and_clear();
    let after = shop.cpu()?;
    tell_life(
        &plan,
        &lived,
        before
            .zip(after)
            .map(|(before, after)| after.saturating_sub(before)),
    );

    let bar = progress("comparing", plan.orders.len() + plan.variants().count());
    let differences = check::check(&plan, &lived, &people, &bar).await?;
    bar.finish_and_clear();
    for difference in differences.iter().take(DIFFERENCES_MAX_SHOWN) {
        say(&format!("DIFFERS  {difference}"));
    }
    say(&format!(
        "compared {} orders and {} stock levels with the file: {} differences",
        plan.orders.len(),
        plan.variants().count(),
        differences.len()
    ));
    let audit = shop.operator()?.audit()?;
    for finding in &audit.findings {
        say(&format!("AUDIT    {finding}"));
    }
    say(if audit.clean {
        "audit: clean"
    } else {
        "audit: NOT clean"
    });
    Ok(if differences.is_empty() && audit.clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn start() -> anyhow::Result<Sandbox> {
    let bar = ProgressBar::new_spinner().with_message("starting a server");
    bar.enable_steady_tick(Duration::from_millis(100));
    let sandbox = Sandbox::start(Topology::AllInOne).await?;
    bar.finish_and_clear();
    Ok(sandbox)
}

impl Shop {
    fn operator(&self) -> anyhow::Result<Operator> {
        match self {
            Self::Own(sandbox) => sandbox.operator(),
            Self::Running { data_dir, .. } => Operator::of(data_dir),
        }
    }

    fn people(&self, plan: &Plan) -> anyhow::Result<People> {
        let operator = self.operator()?;
        let door = match self {
            Self::Own(sandbox) => sandbox.door()?,
            Self::Running { url, .. } => {
                // Own servers have chosen it already.
                rustls::crypto::ring::default_provider()
                    .install_default()
                    .ok();
                Door::new(url)
            }
        };
        let one = |role| -> anyhow::Result<Door> {
            let tokens = operator.mint(role, 1)?;
            let token = tokens.first().context("one was asked for")?;
            Ok(door.with_token(token))
        };
        let tokens = operator.mint(Role::User, plan.accounts)?;
        ensure!(
            tokens.len() == plan.accounts,
            "accounts: got {}",
            tokens.len()
        );
        Ok(People {
            admin: one(Role::Admin)?,
            staff: one(Role::Staff)?,
            buyers: tokens.iter().map(|token| door.with_token(token)).collect(),
        })
    }

    /// CPU time of the server and its database; unknown of a server that others started.
    fn cpu(&self) -> anyhow::Result<Option<Duration>> {
        match self {
            Self::Own(sandbox) => Ok(Some(cpu::of_tree(sandbox.server("gateway")?.pid())?)),
            Self::Running { .. } => Ok(None),
        }
    }
}

fn tell_plan(plan: &Plan, currency: Currency) {
    let lines: usize = plan.classes.values().map(|count| count.lines).sum();
    say(&format!("{lines} lines, each one of:"));
    for (
        class,
        Count {
            lines,
            units,
            value,
        },
    ) in &plan.classes
    {
        let value = Money::new(*value, currency);
        say(&format!(
            "  {class:<24}{lines:>8} lines{units:>10} units  {value}"
        ));
    }
    let taken = |class| plan.classes.get(&class).map_or(0, |count| count.lines);
    say(&format!(
        "{} orders of {} lines, {} refunds of {} lines, {} accounts, {} products with {} variants; {} lines left out",
        plan.orders.len(),
        taken(Class::Sale),
        plan.refunds.len(),
        taken(Class::Refund),
        plan.accounts,
        plan.products.len(),
        plan.variants().count(),
        plan.left_out.len(),
    ));
}

fn tell_life(plan: &Plan, lived: &Lived, cpu: Option<Duration>) {
    let orders = lived.orders.len().max(1);
    let at = |share: usize| {
        let place =
            (lived.latencies.len() * share / 100).min(lived.latencies.len().saturating_sub(1));
        lived.latencies.get(place).copied().unwrap_or_default()
    };
    say(&format!(
        "{} orders in {:.1} s: {:.0} a second, half within {} ms, 99 % within {} ms; {} calls made again",
        lived.orders.len(),
        lived.buying.as_secs_f64(),
        orders as f64 / lived.buying.as_secs_f64(),
        at(50).as_millis(),
        at(99).as_millis(),
        lived.asked_again,
    ));
    let lines: usize = plan.orders.iter().map(|order| order.lines.len()).sum();
    match cpu {
        Some(cpu) => say(&format!(
            "CPU of server and database, refunds included: {:.1} s, {:.1} ms an order, {:.2} ms a line",
            cpu.as_secs_f64(),
            cpu.as_secs_f64() * 1e3 / orders as f64,
            cpu.as_secs_f64() * 1e3 / lines.max(1) as f64,
        )),
        None => say("CPU: not known of a server that others started"),
    }
}

fn progress(what: &'static str, steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(steps as u64)
        .with_style(style)
        .with_message(what)
}

#[expect(
    clippy::print_stdout,
    reason = "what was found out is for whoever started it"
)]
fn say(line: &str) {
    println!("{line}");
}
