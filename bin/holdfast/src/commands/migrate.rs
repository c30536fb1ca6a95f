//! Brings every schema up to date, as a job of its own where services do not own their database.

use std::process::ExitCode;

use holdfast_platform::settings::Settings;

use crate::{
    assemble,
    databases::{Databases, Opening},
    home::Home,
};

pub(crate) async fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    let home = Home::find(&settings.section("process")?)?;
    let schemas = assemble::schemas();
    let databases = Databases::open(settings, &home, &schemas, Opening::Own).await?;
    let migrated = migrate(&databases, &schemas).await;
    databases.stop().await;
    migrated.map(|()| ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "what was done is the command's answer")]
async fn migrate(databases: &Databases, schemas: &[&'static str]) -> anyhow::Result<()> {
    for schema in schemas {
        databases.migrate(schema).await?;
        println!("{schema}: up to date");
    }
    Ok(())
}
