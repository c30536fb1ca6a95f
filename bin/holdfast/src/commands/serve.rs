//! Runs services until told to stop.

use std::{collections::BTreeSet, process::ExitCode};

use anyhow::bail;
use holdfast_platform::settings::Settings;

use crate::{
    assemble::SERVICES,
    process::{Process, Ready},
};

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Which services to run here [default: all]
    services: Vec<String>,
    /// Address of the public HTTP door [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    /// Address of health, readiness and metrics
    #[arg(long, value_name = "ADDRESS")]
    internal_listen: Option<String>,
    /// Address that serves these services to other processes
    #[arg(long, value_name = "ADDRESS")]
    grpc_listen: Option<String>,
    /// Where a service runs that is not here
    #[arg(long = "peer", value_name = "NAME=URL")]
    peers: Vec<String>,
}

/// Prints one line of JSON when it serves, and returns when it has ended.
pub(crate) async fn run(settings: Settings, args: Args) -> anyhow::Result<ExitCode> {
    let names = names(&args.services)?;
    let process = Process::start(args.over(settings)?, &names).await?;
    tell(&process.ready)?;
    process.run().await?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// The settings with what the flags say over them.
    fn over(&self, mut settings: Settings) -> anyhow::Result<Settings> {
        let flags = [
            ("process.listen", &self.listen),
            ("process.internal_listen", &self.internal_listen),
            ("process.grpc_listen", &self.grpc_listen),
        ];
        for (key, value) in flags {
            if let Some(value) = value {
                settings = settings.with(key, value);
            }
        }
        for peer in &self.peers {
            match peer.split_once('=') {
                Some((name, url)) if SERVICES.iter().any(|known| known.name == name) => {
                    settings = settings.with(&format!("peers.{name}"), url);
                }
                _ => bail!(
                    "--peer {peer:?}: wanted NAME=URL, NAME one of {}",
                    known_names()
                ),
            }
        }
        Ok(settings)
    }
}

fn names(given: &[String]) -> anyhow::Result<BTreeSet<&'static str>> {
    if given.is_empty() {
        return Ok(all());
    }
    given
        .iter()
        .map(
            |name| match SERVICES.iter().find(|known| known.name == name) {
                Some(known) => Ok(known.name),
                None => bail!(
                    "there is no service {name:?}; the services are {}",
                    known_names()
                ),
            },
        )
        .collect()
}

/// The names of all services.
pub(crate) fn all() -> BTreeSet<&'static str> {
    SERVICES.iter().map(|known| known.name).collect()
}

fn known_names() -> String {
    all().into_iter().collect::<Vec<_>>().join(", ")
}

#[expect(clippy::print_stdout, reason = "the line scripts wait for")]
fn tell(ready: &Ready) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(ready)?);
    Ok(())
}
