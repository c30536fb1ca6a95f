//! One binary: every service, and the commands that run, seed and audit them.
//!
//! Read in this order: this file (what can be asked of it), `assemble` (the one file that knows all services),
//! `process` (what runs, and how it starts and ends), then a file a command under `commands`. What the commands do to a
//! running server goes through its public API: `client`, `products`, `seats`.

mod assemble;
pub mod client;
mod commands;
mod databases;
mod dead_mail;
mod home;
mod internal;
mod parked;
mod process;
pub mod products;
pub mod seats;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use holdfast_platform::{failpoint, settings::Settings, telemetry};

use crate::assemble::DEFAULTS;

pub use assemble::failpoints;

/// Sells anything that can run out, and never sells it twice.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version)]
struct Cli {
    /// Settings file, TOML
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the embedded cluster, its secrets and the running server's address [default: .holdfast]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs services until told to stop; without names, all of them
    Serve(commands::serve::Args),
    /// Brings every schema up to date
    Migrate,
    /// Prints the settings as they stand, or with --defaults what each of them means
    Settings(commands::settings::Args),
    /// Says what this machine lacks for the server to run
    Doctor(commands::doctor::Args),
    /// Proves from the books that nothing was sold twice and no money lost its purchase
    Audit(commands::audit::Args),
    /// Writes products, or the seats of an event, from a file into a running server
    Import(commands::import::Args),
    /// Writes products of a running server into a file that can be imported
    Export(commands::export::Args),
    /// Makes accounts without a password and prints their access tokens; for development on this machine
    Token(commands::token::Args),
    /// Fills a running server with a shop to look at
    Seed,
    /// Lists and replays messages that were set aside
    Messages(commands::messages::Args),
    /// Lists mail that was given up, and lets it be tried again
    Mail(commands::mail::Args),
    /// Starts, seeds and buys, shows what happened, and goes on serving
    Demo(commands::demo::Args),
}

/// Runs the program on its command line; the exit code tells how it ended.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    // The one TLS implementation, chosen once for everything that speaks TLS.
    rustls::crypto::ring::default_provider()
        .install_default()
        .expect("nothing else chose one before");
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    match runtime.block_on(execute(cli)) {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

async fn execute(cli: Cli) -> anyhow::Result<ExitCode> {
    let mut settings = Settings::load(DEFAULTS, cli.config.as_deref())?;
    if let Some(folder) = &cli.data_dir {
        settings = settings.with("process.data_dir", folder);
    }
    let process: process::ProcessSettings = settings.section("process")?;
    telemetry::start(&process.log)?;
    failpoint::arm(assemble::failpoints())?;
    match cli.command {
        Command::Serve(args) => commands::serve::run(settings, args).await,
        Command::Migrate => commands::migrate::run(&settings).await,
        Command::Settings(args) => commands::settings::run(&settings, &args),
        Command::Doctor(args) => commands::doctor::run(&settings, &args).await,
        Command::Audit(args) => commands::audit::run(&settings, &args).await,
        Command::Import(args) => commands::import::run(&settings, args).await,
        Command::Export(args) => commands::export::run(&settings, args).await,
        Command::Token(args) => commands::token::run(&settings, &args).await,
        Command::Seed => commands::seed::run(&settings).await,
        Command::Messages(args) => commands::messages::run(&settings, args).await,
        Command::Mail(args) => commands::mail::run(&settings, args).await,
        Command::Demo(args) => commands::demo::run(settings, args).await,
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the last word of a command line program"
)]
fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("holdfast: {error:#}");
    ExitCode::FAILURE
}
