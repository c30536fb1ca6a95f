//! Where each schema lies: at the URL that the settings name, or in the embedded cluster of this machine.

use anyhow::{Context as _, bail};
use holdfast_platform::{
    cluster::{Cluster, Role},
    database::{self, BUS},
    settings::Settings,
};
use serde::Deserialize;
use sqlx::PgPool;

use crate::{
    assemble,
    home::{self, Home},
};

/// The way to schemas; whoever opened it stops it.
pub(crate) struct Databases {
    settings: Settings,
    /// There if a schema lies in it.
    cluster: Option<Cluster>,
}

/// Whose the embedded cluster is, where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// This process's, from now until it stops; refused while another has it. Schemas and roles are made as they are missing.
    Own,
    /// The running server's, or, when there is none, this process's until it stops. Nothing is made.
    Beside,
}

/// What every section that has a database says of it; the section's owner reads the rest.
#[derive(Deserialize)]
struct Place {
    database_url: String,
    owner_database_url: String,
    max_connections: u32,
}

impl Databases {
    /// Opens the way to these schemas; the embedded cluster is started only if one of them lies there.
    pub(crate) async fn open(
        settings: &Settings,
        home: &Home,
        schemas: &[&'static str],
        opening: Opening,
    ) -> anyhow::Result<Self> {
        let embedded = embedded(settings, schemas)?;
        let mut databases = Self::elsewhere(settings);
        if embedded.is_empty() {
            return Ok(databases);
        }
        let (folder, how) = (home.folder(), home::cluster_settings(settings)?);
        let cluster = match opening {
            Opening::Beside => Cluster::attach(folder, &how).await?,
            Opening::Own => {
                let cluster = Cluster::start(folder, &how).await?;
                let services: Vec<&str> =
                    (embedded.into_iter().filter(|schema| *schema != BUS)).collect();
                if let Err(error) = cluster.prepare(&services).await {
                    cluster.stop().await;
                    return Err(error.into());
                }
                cluster
            }
        };
        databases.cluster = Some(cluster);
        Ok(databases)
    }

    /// The way to schemas whose URLs the settings name, and to no others. Nothing has to be stopped.
    pub(crate) fn elsewhere(settings: &Settings) -> Self {
        Self {
            settings: settings.clone(),
            cluster: None,
        }
    }

    /// Whether the schema of that name lies in the embedded cluster.
    pub(crate) fn is_embedded(settings: &Settings, schema: &str) -> anyhow::Result<bool> {
        Ok(settings.section::<Place>(schema)?.database_url.is_empty())
    }

    /// The URL of a schema under one of its roles.
    pub(crate) fn url(&self, schema: &'static str, role: Role) -> anyhow::Result<String> {
        let place: Place = self.settings.section(schema)?;
        let (key, given) = match role {
            Role::App => ("database_url", place.database_url),
            Role::Owner => ("owner_database_url", place.owner_database_url),
        };
        match &self.cluster {
            _ if !given.is_empty() => Ok(given),
            Some(cluster) => Ok(cluster.url(schema, role)),
            None => bail!("setting {schema}.{key} is empty and there is no embedded cluster"),
        }
    }

    /// A pool in a schema, as its run-time role.
    pub(crate) async fn connect(&self, schema: &'static str) -> anyhow::Result<PgPool> {
        let place: Place = self.settings.section(schema)?;
        let url = self.url(schema, Role::App)?;
        database::connect(&url, place.max_connections)
            .await
            .with_context(|| format!("database of {schema}"))
    }

    /// Brings a schema up to date, as its owner.
    pub(crate) async fn migrate(&self, schema: &'static str) -> anyhow::Result<()> {
        let url = self.url(schema, Role::Owner)?;
        let migrated = match assemble::migrator(schema) {
            Some(migrator) => database::migrate(&url, migrator).await,
            None => database::migrate_bus(&url).await,
        };
        migrated.with_context(|| format!("schema {schema}"))
    }

    /// Brings those of these schemas up to date that nobody else will: they lie in the embedded cluster.
    pub(crate) async fn migrate_embedded(&self, schemas: &[&'static str]) -> anyhow::Result<()> {
        let Some(cluster) = &self.cluster else {
            return Ok(());
        };
        let embedded = embedded(&self.settings, schemas)?;
        let known: Vec<_> = (embedded.into_iter())
            .map(|schema| (schema, assemble::migrator(schema)))
            .collect();
        for schema in database::not_up_to_date(&cluster.admin_url(), &known).await? {
            self.migrate(schema).await?;
        }
        Ok(())
    }

    /// Stops the embedded cluster, unless it is another process's. Close the pools first.
    pub(crate) async fn stop(self) {
        if let Some(cluster) = self.cluster {
            cluster.stop().await;
        }
    }
}

/// Those that lie in the embedded cluster.
fn embedded(settings: &Settings, schemas: &[&'static str]) -> anyhow::Result<Vec<&'static str>> {
    let mut embedded = Vec::new();
    for schema in schemas {
        if Databases::is_embedded(settings, schema)? {
            embedded.push(*schema);
        }
    }
    Ok(embedded)
}
