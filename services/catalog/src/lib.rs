//! Products, their variants and categories: what is for sale, under which name, at which price.
//!
//! Read in this order: `domain` (products and what they may look like), `listing` (how a product gets its first stock
//! and is put on sale), `changing` (how it changes after that), `search` (how it is found), `shown` (what is
//! kept in memory of that), `stock` (what is shown as available), `api` (the door), `store` (its tables), `messages`,
//! `error`.

mod api;
mod changing;
mod domain;
mod error;
mod listing;
mod messages;
mod search;
mod shown;
mod stock;
mod store;

use holdfast_platform::{
    identity::Gate,
    service::{Context, Service, StartError, Task},
    transport::Transport,
};
use holdfast_proto::{
    catalog::v1::catalog_service_server::CatalogServiceServer,
    inventory::v1::inventory_service_client::InventoryServiceClient,
};
use serde::Deserialize;
use sqlx::migrate::Migrator;
use tonic::service::Routes;

use crate::shown::Shown;

pub use api::ACCESS;

/// The schema of this service.
pub static MIGRATOR: Migrator = sqlx::migrate!();

/// The defaults of [`Settings`], each key with its meaning and unit.
pub const DEFAULTS: &str = include_str!("../settings.toml");

/// The section `[catalog]`; see `settings.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "settings.toml explains each key")]
pub struct Settings {
    pub database_url: String,
    pub owner_database_url: String,
    pub max_connections: u32,
}

/// Whom this service calls.
#[derive(Clone)]
pub struct Peers {
    /// First stock, and what is available of what it has not told of.
    pub inventory: InventoryServiceClient<Transport>,
}

/// Builds the service.
pub fn build(peers: Peers, context: Context) -> Result<Service, StartError> {
    let verifier = context.verifier.clone();
    let finding = search::keep_findable(context.clone());
    let asking = stock::ask_for_all_missing(peers.clone(), context.clone());
    let (shown, clock) = (Shown::new(&context.clock), context.clock.clone());
    let reviews = messages::review_listener(clock, context.wake.clone());
    let hearing = shown.hearing();
    let server = CatalogServiceServer::new(api::Api::new(peers, context, shown));
    let routes = Routes::new(Gate::new(server, ACCESS, verifier));
    Ok(Service {
        consumers: vec![messages::stock_listener(), reviews],
        hearing: Some(hearing),
        tasks: vec![
            Task::new("keeping products findable", finding),
            Task::new("asking what is available", asking),
        ],
        ..Service::new("catalog", routes)
    })
}
