//! Orders: the commercial record of purchases, and the saga that carries them out.
//!
//! Read in this order: `domain` (an order and every move it may make), `checkout` (the purchase as a saga: its steps and
//! what undoes them; `checkout/turn` leads from one to another, `checkout/command` asks the peers), `saga` (how far it
//! is), `refund` (giving back), `vouchers` (made and changed by those who run the shop), `worker` (who takes up what lies
//! still), `api` (the door), `shown` (what is kept in memory for those who only look), `store` (its tables), `messages`
//! (what is told and listened to), `points` (where tests make it fail), `error` (how it refuses).

mod api;
mod audit;
mod checkout;
mod domain;
mod error;
mod messages;
mod points;
mod refund;
mod saga;
mod shown;
mod store;
mod vouchers;
mod worker;

use std::sync::Arc;

use holdfast_platform::{
    identity::Gate,
    service::{Context, Service, StartError, Task},
    transport::Transport,
};
use holdfast_proto::{
    catalog::v1::catalog_service_client::CatalogServiceClient,
    inventory::v1::inventory_service_client::InventoryServiceClient,
    orders::v1::orders_service_server::OrdersServiceServer,
    payments::v1::payments_service_client::PaymentsServiceClient,
    users::v1::users_service_client::UsersServiceClient,
};
use serde::Deserialize;
use sqlx::migrate::Migrator;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use crate::shown::Shown;

pub use api::ACCESS;
pub use audit::{OrderFact, audit};
pub use domain::{MOVES, Status};
pub use points::FAILPOINTS;

/// The schema of this service.
pub static MIGRATOR: Migrator = sqlx::migrate!();

/// The defaults of [`Settings`], each key with its meaning and unit.
pub const DEFAULTS: &str = include_str!("../settings.toml");

/// The section `[orders]`; see `settings.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "settings.toml explains each key")]
pub struct Settings {
    pub database_url: String,
    pub owner_database_url: String,
    pub max_connections: u32,
    pub hold_secs: u64,
    pub hold_grace_secs: u64,
    pub answer_millis: u64,
    pub lease_secs: u64,
    pub poll_millis: u64,
    pub worker_max_sagas: usize,
    pub account_trusted_secs: i64,
}

/// Whom this service calls.
#[derive(Clone)]
pub struct Peers {
    /// Whether an account that logged in long ago is still there.
    pub users: UsersServiceClient<Transport>,
    /// Names and prices.
    pub catalog: CatalogServiceClient<Transport>,
    /// Units: held, sold, given back.
    pub inventory: InventoryServiceClient<Transport>,
    /// Money: reserved, taken, given back.
    pub payments: PaymentsServiceClient<Transport>,
}

/// Builds the service.
pub fn build(settings: Settings, peers: Peers, context: Context) -> Result<Service, StartError> {
    check(&settings)?;
    let verifier = context.verifier.clone();
    let bell = worker::Bell::default();
    let consumers = messages::consumers(context.clock.clone(), bell.clone());
    let shown = Shown::new(context.clock.clone());
    let hearing = shown.hearing();
    let desk = Arc::new(checkout::Desk {
        peers,
        context,
        settings,
        bell,
        shown,
        running: TaskTracker::new(),
        random: rand::random,
    });
    let server = OrdersServiceServer::new(api::Api::new(desk.clone()));
    let routes = Routes::new(Gate::new(server, ACCESS, verifier));
    Ok(Service {
        consumers,
        hearing: Some(hearing),
        tasks: vec![Task::new("purchase worker", worker::work(desk))],
        ..Service::new("orders", routes)
    })
}

fn check(settings: &Settings) -> Result<(), StartError> {
    for (key, value, most) in [
        ("hold_secs", settings.hold_secs, SPAN_MAX_SECS),
        ("lease_secs", settings.lease_secs, SPAN_MAX_SECS),
        (
            "answer_millis",
            settings.answer_millis,
            SPAN_MAX_SECS * 1_000,
        ),
        ("poll_millis", settings.poll_millis, SPAN_MAX_SECS * 1_000),
        ("worker_max_sagas", settings.worker_max_sagas as u64, 1_000),
    ] {
        if !(1..=most).contains(&value) {
            return Err(StartError::Setting {
                key: format!("orders.{key}"),
                text: format!("{value}, wanted 1 to {most}"),
            });
        }
    }
    Ok(())
}

/// The longest span that can be set: the longest hold the ledger takes.
const SPAN_MAX_SECS: u64 = 31 * 24 * 60 * 60;
