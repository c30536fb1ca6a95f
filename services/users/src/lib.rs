//! Profiles: what a person told us of themselves.
//!
//! Read in this order: `domain` (a profile and how it may change), `api` (the door), `store` (its table), `messages`
//! (what is told to others), `error` (how it refuses).

mod api;
mod domain;
mod error;
mod messages;
mod store;

use holdfast_platform::{
    identity::Gate,
    service::{Context, Service, StartError},
};
use holdfast_proto::users::v1::users_service_server::UsersServiceServer;
use serde::Deserialize;
use sqlx::migrate::Migrator;
use tonic::service::Routes;

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
}

/// Builds the service. It calls nobody.
pub fn build(context: Context) -> Result<Service, StartError> {
    let verifier = context.verifier.clone();
    let server = UsersServiceServer::new(api::Api::new(context));
    let routes = Routes::new(Gate::new(server, ACCESS, verifier));
    Ok(Service::new("users", routes))
}
