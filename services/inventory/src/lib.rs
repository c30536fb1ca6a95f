//! The ledger: pools, holds, movements. What can run out is taken here and nowhere else.
//!
//! Read in this order: `domain` (the words and the states of a hold), `ledger` (the judgement and the one way to write),
//! `api` (the door), `forward` (what stands before it while another process writes), `shown`
//! (what is kept in memory for the public), `watch` (what watchers are told), `messages` (what is told to others),
//! `seal`, `audit` and `closing` (how the books are proved, and what is let go of), `store` (what is read of them), `error`.

mod api;
mod audit;
mod closing;
pub mod domain;
mod error;
mod forward;
pub mod ledger;
mod messages;
mod seal;
mod shown;
mod store;
mod watch;

use std::{sync::Arc, time::Duration};

use holdfast_platform::{
    clock::LedgerOffset,
    identity::Gate,
    service::{Context, Service, StartError, Task},
    transport::{self, Door},
};
use holdfast_proto::inventory::v1::{
    inventory_service_client::InventoryServiceClient,
    inventory_service_server::InventoryServiceServer,
};
use serde::Deserialize;
use sqlx::migrate::Migrator;
use tonic::service::Routes;

pub use api::ACCESS;
pub use audit::{Audit, Finding, audit, sold_of_kind};
pub use closing::drop_months;
use forward::Forward;
use ledger::{Ledger, LedgerOptions, Reading};
pub use seal::{SEAL_PURPOSE, seal_heads};
use shown::Shown;

/// The schema of this service.
pub static MIGRATOR: Migrator = sqlx::migrate!();

/// The defaults of [`Settings`], each key with its meaning and unit.
pub const DEFAULTS: &str = include_str!("../settings.toml");

/// The section `[inventory]`; see `settings.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "settings.toml explains each key")]
pub struct Settings {
    pub database_url: String,
    pub owner_database_url: String,
    pub max_connections: u32,
    pub reached_at: String,
    pub lease_secs: u64,
    pub account_max_holds: u32,
    pub live_max_holds: usize,
    pub keep_movement_months: u32,
}

/// Builds the service. It calls nobody.
///
/// `settings.database_url` must be filled in, with the embedded cluster's where that is used: the writer opens a
/// connection of its own. Where `settings.reached_at` is empty, processes that stand by cannot pass calls on to this one.
/// `reading` is what the ledger makes of the database's time: [`read_time`], or a test's clock.
pub fn build(
    settings: &Settings,
    reading: Reading,
    context: Context,
) -> Result<Service, StartError> {
    if settings.lease_secs == 0 {
        return Err(StartError::Setting {
            key: "inventory.lease_secs".to_owned(),
            text: "0, wanted 1 or more".to_owned(),
        });
    }
    let keeping = seal::Keeping {
        months: settings.keep_movement_months,
        reading: reading.clone(),
    };
    let shown = Shown::new(context.clock.clone());
    let (forgetting, wake) = (shown.clone(), context.wake.clone());
    let options = LedgerOptions {
        database_url: settings.database_url.clone(),
        reached_at: reached_at(settings)?,
        lease: Duration::from_secs(settings.lease_secs),
        account_max_holds: settings.account_max_holds,
        live_max_holds: settings.live_max_holds,
        reading,
        changed: Arc::new(move |pool| {
            forgetting.forget(pool);
            wake.wake();
        }),
    };
    let (ledger, writing) = Ledger::new(options, context.shutdown.clone());
    let sealing = seal::keep_sealing(context.clone(), keeping);
    let (verifier, identity) = (context.verifier.clone(), context.identity.clone());
    let hearing = shown.hearing();
    let server = InventoryServiceServer::new(api::Api::new(ledger.clone(), context, shown));
    let server = Forward::new(server, ledger.clone());
    let mut service = Service::new(
        "inventory",
        Routes::new(Gate::new(server, ACCESS, verifier)),
    );
    let own_door = transport::local(Door::new(service.name, service.routes.clone()));
    let own_door = InventoryServiceClient::new(own_door);
    let consumer = messages::binder(ledger, own_door, identity);
    service.consumers.push(consumer);
    service.hearing = Some(hearing);
    service.fold = Some(Arc::new(messages::Announcer));
    service.tasks.push(Task::new("ledger writer", writing));
    service.tasks.push(Task::new("ledger sealer", sealing));
    Ok(service)
}

/// Checked here, or only those would find out who stand by.
fn reached_at(settings: &Settings) -> Result<Option<Arc<str>>, StartError> {
    let url = &settings.reached_at;
    if url.is_empty() {
        return Ok(None);
    }
    match transport::channel("inventory", url) {
        Ok(_) => Ok(Some(Arc::from(url.as_str()))),
        Err(_) => Err(StartError::Setting {
            key: "inventory.reached_at".to_owned(),
            text: format!("{url:?}, wanted a URL such as \"http://10.0.0.7:50059\""),
        }),
    }
}

/// The database's time, moved as development asks for.
pub fn read_time(offset: LedgerOffset) -> Reading {
    Arc::new(move |database| {
        let moved = database.saturating_add(offset.get());
        moved.unwrap_or(database)
    })
}
