//! Says what this machine lacks for the server to run, and what to do about it.

use std::process::ExitCode;

use holdfast_platform::{cluster, database, postmaster::Programs, settings::Settings};
use serde::Serialize;

use crate::{
    assemble,
    databases::Databases,
    home::{self, Home},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Finding {
    looked_at: String,
    well: bool,
    text: String,
}

#[expect(clippy::print_stdout, reason = "the findings are the command's answer")]
pub(crate) async fn run(settings: &Settings, args: &Args) -> anyhow::Result<ExitCode> {
    let findings = examine(settings).await?;
    let well = findings.iter().all(|finding| finding.well);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        for finding in &findings {
            let mark = if finding.well { "ok  " } else { "BAD " };
            println!("{mark} {}: {}", finding.looked_at, finding.text);
        }
    }
    Ok(if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn examine(settings: &Settings) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut embedded = false;
    for schema in assemble::schemas() {
        if Databases::is_embedded(settings, schema)? {
            embedded = true;
        } else {
            findings.push(reachable(settings, schema).await);
        }
    }
    if embedded {
        findings.push(programs(settings)?);
        findings.push(folder(settings)?);
    }
    Ok(findings)
}

async fn reachable(settings: &Settings, schema: &'static str) -> Finding {
    let databases = Databases::elsewhere(settings);
    let version = async {
        let pool = databases.connect(schema).await?;
        let mut db = database::acquire(&pool).await?;
        let version: String = sqlx::query_scalar("SHOW server_version")
            .fetch_one(&mut *db)
            .await?;
        anyhow::Ok(version)
    };
    match version.await {
        Ok(version) => well(
            format!("database of {schema}"),
            format!("PostgreSQL {version}"),
        ),
        Err(error) => bad(format!("database of {schema}"), format!("{error:#}")),
    }
}

fn programs(settings: &Settings) -> anyhow::Result<Finding> {
    let looked_at = "PostgreSQL";
    let wanted = home::cluster_settings(settings)?.programs;
    Ok(match Programs::find(wanted.as_deref(), None) {
        Ok(programs) => well(
            looked_at,
            format!(
                "version {} in {}",
                programs.major(),
                programs.folder().display()
            ),
        ),
        Err(error) => bad(looked_at, error.to_string()),
    })
}

fn folder(settings: &Settings) -> anyhow::Result<Finding> {
    let looked_at = "data folder";
    let home = match Home::find(&settings.section("process")?) {
        Ok(home) => home,
        Err(error) => return Ok(bad(looked_at, format!("{error:#}"))),
    };
    Ok(match cluster::check_folder(home.folder()) {
        Ok(()) => well(looked_at, home.folder().display().to_string()),
        Err(error) => bad(looked_at, error.to_string()),
    })
}

fn well(looked_at: impl Into<String>, text: impl Into<String>) -> Finding {
    Finding {
        looked_at: looked_at.into(),
        well: true,
        text: text.into(),
    }
}

fn bad(looked_at: impl Into<String>, text: impl Into<String>) -> Finding {
    Finding {
        well: false,
        ..well(looked_at, text)
    }
}
