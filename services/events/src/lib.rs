//! Events: what seats and places are sold of, where they are, at which prices and when.
//!
//! Read in this order: `domain` (an event, how it may change, what it is at a moment; `seating`, `floor` and `sale` are its
//! parts), `planning` (what changes one, in one transaction each), `api` (the door), `messages` (what is told), `store`
//! (the tables; seats are one value a section), `error` (how it refuses).

mod api;
mod domain;
mod error;
mod messages;
mod planning;
mod store;

use holdfast_platform::{
    identity::Gate,
    service::{Context, Service},
};
use holdfast_proto::events::v1::events_service_server::EventsServiceServer;
use serde::Deserialize;
use sqlx::migrate::Migrator;
use tonic::service::Routes;

pub use api::ACCESS;

/// The schema of this service.
pub static MIGRATOR: Migrator = sqlx::migrate!();

/// The defaults of [`Settings`], each key with its meaning and unit.
pub const DEFAULTS: &str = include_str!("../settings.toml");

/// The section `[events]`; see `settings.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "settings.toml explains each key")]
pub struct Settings {
    pub database_url: String,
    pub owner_database_url: String,
    pub max_connections: u32,
}

/// Builds the service. It calls nobody and listens to nobody.
pub fn build(context: Context) -> Service {
    let verifier = context.verifier.clone();
    let server = EventsServiceServer::new(api::Api::new(context));
    let routes = Routes::new(Gate::new(server, ACCESS, verifier));
    Service::new("events", routes)
}
