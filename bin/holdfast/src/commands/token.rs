//! Makes accounts without a password and prints their access tokens: for development and load tests.

use std::{io::Write, process::ExitCode, sync::Arc};

use anyhow::ensure;
use holdfast_auth::Operator;
use holdfast_platform::{identity::Role, settings::Settings, shutdown::Shutdown};

use crate::{
    assemble::{self, Ground},
    client::Client,
    databases::{Databases, Opening},
    home::Home,
    process,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What the accounts may do: user, staff or admin
    #[arg(long, default_value = "user")]
    role: Role,
    /// How many accounts
    #[arg(long, default_value_t = 1)]
    count: u32,
}

/// The schemas that an account lies in.
const ACCOUNTS: [&str; 2] = ["auth", "users"];

pub(crate) async fn run(settings: &Settings, args: &Args) -> anyhow::Result<ExitCode> {
    let tokens = mint(settings, args.role, args.count).await?;
    let mut out = std::io::stdout().lock();
    for token in tokens {
        writeln!(out, "{token}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A caller of the server of this machine who may do everything; the same account whoever runs the command, and when.
pub(crate) async fn admin_client(settings: &Settings) -> anyhow::Result<Client> {
    let home = Home::find(&settings.section("process")?)?;
    let url = home.address()?.url;
    let token = with_operator(settings, async |operator| Ok(operator.own_token().await?)).await?;
    Ok(Client::new(&url).with_token(token))
}

/// Makes that many accounts of a role and gives a token of each, server up or down.
pub(crate) async fn mint(
    settings: &Settings,
    role: Role,
    count: u32,
) -> anyhow::Result<Vec<String>> {
    with_operator(settings, async |operator| {
        Ok(operator.mint_accounts(role, count).await?)
    })
    .await
}

/// Does something that only the owner of the machine may, server up or down.
///
/// Refused where the accounts do not lie in the embedded cluster of this machine: elsewhere, whoever could run this
/// would be everybody.
pub(crate) async fn with_operator<T>(
    settings: &Settings,
    work: impl AsyncFnOnce(&Operator) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    for schema in ACCOUNTS {
        ensure!(
            Databases::is_embedded(settings, schema)?,
            "accounts are minted on an embedded cluster only, and setting {schema}.database_url names another"
        );
    }
    let home = Home::find(&settings.section("process")?)?;
    let databases = Databases::open(settings, &home, &ACCOUNTS, Opening::Beside).await?;
    let done = match open(settings, &databases, &home).await {
        Ok(operator) => work(&operator).await,
        Err(error) => Err(error),
    };
    databases.stop().await;
    done
}

async fn open(settings: &Settings, databases: &Databases, home: &Home) -> anyhow::Result<Operator> {
    let clock = process::clock(settings)?;
    let ground = Ground {
        settings,
        data_dir: home.folder(),
        databases,
        secrets: process::secrets(settings, home)?,
        ledger_offset: clock.ledger(),
        clock: Arc::new(clock),
        shutdown: &Shutdown::new(),
        reached_at: None,
    };
    assemble::operator(&ground).await
}
