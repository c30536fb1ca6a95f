//! What a process tells about itself while it runs: logs, the panics among them, and which [trace] they belong to.
//!
//! Logs go to stderr; stdout belongs to the command. They are for operators, so they hold ids, codes and figures,
//! never what a person told us: no names, addresses, e-mail, tokens, or request and response bodies.

pub mod trace;

use std::{
    io::{self, IsTerminal},
    panic::{self, PanicHookInfo},
};

use tracing_subscriber::{EnvFilter, filter::ParseError};

/// Why telemetry could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The levels cannot be read.
    #[error(
        "log levels: got {got:?}, want such as \"info\" or \"warn,holdfast_orders=debug\": {source}"
    )]
    Levels {
        /// What was asked for.
        got: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// The process logs already.
    #[error("logs are started once a process")]
    Twice,
}

/// Starts logging to stderr: readable on a terminal, one JSON object a line elsewhere.
///
/// `levels` says what is logged: `info`, or `warn,holdfast_orders=debug`. From here on a panic is one entry of the log,
/// with the call it happened in, whoever catches it.
pub fn start(levels: &str) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(levels).map_err(|source| TelemetryError::Levels {
        got: levels.to_owned(),
        source,
    })?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let started = if io::stderr().is_terminal() {
        logs.try_init()
    } else {
        logs.json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init()
    };
    started.map_err(|_| TelemetryError::Twice)?;
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let location = info.location().map(ToString::to_string);
    let thread = std::thread::current();
    tracing::error!(
        panic = info.payload_as_str().unwrap_or("without a text"),
        location,
        thread = thread.name(),
        backtrace = backtrace(),
        "panicked"
    );
}

/// Only where `RUST_BACKTRACE` asks for it.
fn backtrace() -> Option<String> {
    let backtrace = std::backtrace::Backtrace::capture();
    let captured = backtrace.status() == std::backtrace::BacktraceStatus::Captured;
    captured.then(|| backtrace.to_string())
}
