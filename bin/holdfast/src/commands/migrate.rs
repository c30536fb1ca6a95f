//! Brings every schema up to date, as a job of its own where services do not own their database.

use std::process::ExitCode;

use anyhow::Context as _;
use holdfast_platform::{
    cluster::{Cluster, Role},
    database::{self, BUS},
    settings::Settings,
};

use crate::{
    assemble::{Databases, SANDBOX, SERVICES},
    home::{self, Home},
};

pub(crate) async fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    let mut embedded = Vec::new();
    for known in SERVICES.iter().chain([&SANDBOX]) {
        if Databases::is_embedded(settings, known.name)? {
            embedded.push(known.name);
        }
    }
    let cluster = if embedded.is_empty() && !Databases::is_embedded(settings, BUS)? {
        None
    } else {
        let home = Home::find(&settings.section("process")?)?;
        let cluster = Cluster::start(home.folder(), &home::cluster_settings(settings)?).await?;
        cluster.prepare(&embedded).await?;
        Some(cluster)
    };
    let databases = Databases {
        settings: settings.clone(),
        cluster,
    };
    let migrated = migrate(&databases).await;
    if let Some(cluster) = databases.cluster {
        cluster.stop().await;
    }
    migrated.map(|()| ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "what was done is the command's answer")]
async fn migrate(databases: &Databases) -> anyhow::Result<()> {
    database::migrate_bus(&databases.url(BUS, Role::Owner)?).await?;
    println!("{BUS}: up to date");
    for known in SERVICES.iter().chain([&SANDBOX]) {
        let url = databases.url(known.name, Role::Owner)?;
        database::migrate(&url, known.migrator)
            .await
            .with_context(|| format!("schema {}", known.name))?;
        println!("{}: up to date", known.name);
    }
    Ok(())
}
