//! Reviews: what buyers say of what they bought, and what it comes to.
//!
//! Read in this order: `domain` (a review, how it may change, and what the published ones of a product come to), `writing`
//! (what changes a review, under the lock of its product), `api` (the door), `messages` (what is told and listened to),
//! `store` (the tables), `error` (how it refuses).

mod api;
mod domain;
mod error;
mod messages;
mod store;
mod writing;

use holdfast_platform::{
    identity::Gate,
    service::{Context, Service},
};
use holdfast_proto::reviews::v1::reviews_service_server::ReviewsServiceServer;
use serde::Deserialize;
use sqlx::migrate::Migrator;
use tonic::service::Routes;

pub use api::ACCESS;

/// The schema of this service.
pub static MIGRATOR: Migrator = sqlx::migrate!();

/// The defaults of [`Settings`], each key with its meaning and unit.
pub const DEFAULTS: &str = include_str!("../settings.toml");

/// The section `[reviews]`; see `settings.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "settings.toml explains each key")]
pub struct Settings {
    pub database_url: String,
    pub owner_database_url: String,
    pub max_connections: u32,
}

/// Builds the service. It calls nobody.
pub fn build(context: Context) -> Service {
    let verifier = context.verifier.clone();
    let consumers = messages::consumers(context.clock.clone(), context.wake.clone());
    let server = ReviewsServiceServer::new(api::Api::new(context));
    let routes = Routes::new(Gate::new(server, ACCESS, verifier));
    Service {
        consumers,
        ..Service::new("reviews", routes)
    }
}
