//! Money in and out: one payment for one purchase, what may become of it, and the provider that moves the money.
//!
//! Read in this order: `domain` (a payment and its moves), `points` (what it earns and uses), `till` (asking the provider
//! and writing down what it said), `reconcile` (what goes on beside the calls), `api` (the door), [`provider`] (what we ask
//! of one), [`sandbox`] (the one that moves no money), `store`, `messages`, `error`, [`audit()`].

mod api;
mod audit;
mod domain;
mod error;
mod messages;
mod points;
pub mod provider;
mod reconcile;
pub mod sandbox;
mod store;
mod till;

use std::sync::Arc;

use holdfast_platform::{
    identity::Gate,
    service::{Context, Service, StartError, Task},
};
use holdfast_proto::payments::v1::payments_service_server::PaymentsServiceServer;
use serde::Deserialize;
use sqlx::{PgPool, migrate::Migrator};
use tonic::service::Routes;

pub use api::ACCESS;
pub use audit::{PaymentFact, PointFact, audit, audit_points};
pub use domain::{MOVES, Status};
pub use messages::Announcer;
pub use reconcile::{LOOK_MILLIS, Reconciler};
pub use till::FAILPOINTS;

use provider::{MoneyOnly, Provider};
use sandbox::Sandbox;
use till::Till;

/// The schema of this service.
pub static MIGRATOR: Migrator = sqlx::migrate!();

/// The schema `sandbox`, the book of the sandbox provider; prepared and migrated as a service's.
pub static SANDBOX_MIGRATOR: Migrator = sqlx::migrate!("./sandbox/migrations");

/// The defaults of [`Settings`], each key with its meaning and unit.
pub const DEFAULTS: &str = include_str!("../settings.toml");

/// The section `[payments]`; see `settings.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "settings.toml explains each key")]
pub struct Settings {
    pub database_url: String,
    pub owner_database_url: String,
    pub max_connections: u32,
    pub units_per_point: i64,
}

/// Builds the service over the sandbox, whose book is the schema that `sandbox` reaches. It calls nobody.
pub fn build(
    settings: &Settings,
    sandbox: PgPool,
    context: Context,
) -> Result<Service, StartError> {
    let units_per_point = settings.units_per_point;
    if !(1..=UNITS_PER_POINT_MAX).contains(&units_per_point) {
        return Err(StartError::Setting {
            key: "payments.units_per_point".to_owned(),
            text: format!("{units_per_point}, wanted 1 to {UNITS_PER_POINT_MAX}"),
        });
    }
    let sandbox = Sandbox::new(sandbox, context.clock.clone());
    let provider = Arc::new(sandbox.clone());
    let (routes, reconciler) = assemble(provider, Some(sandbox), units_per_point, context);
    Ok(Service {
        fold: Some(Arc::new(Announcer)),
        tasks: vec![Task::new("payments reconciler", reconciler.run())],
        ..Service::new("payments", routes)
    })
}

/// The dearest point that can be set, in minor units of money.
const UNITS_PER_POINT_MAX: i64 = 1_000_000;

/// The door and the worker over any provider; `sandbox` is whom the sandbox's own calls go to, and a payment that begins
/// now earns a point for each whole `units_per_point` of its money.
pub fn assemble(
    provider: Arc<dyn Provider>,
    sandbox: Option<Sandbox>,
    units_per_point: i64,
    context: Context,
) -> (Routes, Reconciler) {
    let till = Till {
        database: context.database.clone(),
        clock: context.clock.clone(),
        wake: context.wake.clone(),
        provider: Arc::new(MoneyOnly(provider)),
        units_per_point,
    };
    let reconciler = Reconciler::new(till.clone(), sandbox.clone(), &context);
    let server = PaymentsServiceServer::new(api::Api::new(till, sandbox));
    let routes = Routes::new(Gate::new(server, ACCESS, context.verifier));
    (routes, reconciler)
}
