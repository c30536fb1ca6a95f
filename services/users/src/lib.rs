//! Profiles: what a person told us of themselves.
//!
//! Read in this order: `domain` (a profile and how it may change), `api` (the door), `shown` (what is kept in memory),
//! `vault` (how it lies sealed), `store` (the tables), `messages` (what is told to others), `error` (how it refuses).

mod api;
mod domain;
mod error;
mod messages;
mod shown;
mod store;
mod vault;

use holdfast_platform::{
    identity::Gate,
    service::{Context, Service, StartError, Task},
};
use holdfast_proto::users::v1::users_service_server::UsersServiceServer;
use serde::Deserialize;
use sqlx::migrate::Migrator;
use tonic::service::Routes;

use crate::{error::UsersError, shown::Shown, vault::Vault};

pub use api::ACCESS;

/// The schema of this service.
pub static MIGRATOR: Migrator = sqlx::migrate!();

/// The defaults of [`Settings`], each key with its meaning and unit.
pub const DEFAULTS: &str = include_str!("../settings.toml");

/// The section `[users]`; see `settings.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "settings.toml explains each key")]
pub struct Settings {
    pub database_url: String,
    pub owner_database_url: String,
    pub max_connections: u32,
    pub wrapping_key_version: u32,
    pub plain_personal_data: bool,
}

/// Builds the service. It calls nobody.
///
/// Seals what lies in the clear before it returns. Fails when a setting is out of its bounds, the database is away, or
/// what it holds was sealed under another secret.
pub async fn build(settings: &Settings, context: Context) -> Result<Service, StartError> {
    let vault = Vault::new(settings, &context)?;
    vault::seal_rows(&context, &vault)
        .await
        .map_err(|error| StartError::Database {
            service: "users",
            source: match error {
                UsersError::Database(source) => source,
                other => sqlx::Error::Decode(other.to_string().into()),
            },
        })?;
    let verifier = context.verifier.clone();
    let consumers = messages::consumers(context.clock.clone(), context.wake.clone());
    let envelope = vault.envelope.clone();
    let wrapping = envelope.keep_wrapping(context.database.clone(), context.shutdown.clone());
    let shown = Shown::new(context.clock.clone());
    let hearing = shown.hearing();
    let server = UsersServiceServer::new(api::Api::new(context, vault, shown));
    let routes = Routes::new(Gate::new(server, ACCESS, verifier));
    let mut service = Service::new("users", routes);
    service.consumers = consumers;
    service.hearing = Some(hearing);
    service.tasks = vec![Task::new("keys of persons", wrapping)];
    Ok(service)
}
