//! Messages for those outside: sent, signed, to whoever subscribed; or fetched.
//!
//! Read in this order: `domain` (a subscription, what it asks for, what becomes of a delivery after a try), `messages`
//! (what may be told, and how it gets into the feed), `worker` (who sends, and when), `sender` (one try), [`url`] and
//! `guard` (where to, and where never), `signature` and `seal` (secrets in use and at rest), `api` (the door), `store`
//! (its tables), `error` (how it refuses).

mod api;
mod domain;
mod error;
mod guard;
mod messages;
mod seal;
mod sender;
mod signature;
mod store;
pub mod url;
mod worker;

use std::{sync::Arc, time::Duration};

use holdfast_platform::{
    envelope::Envelope,
    identity::Gate,
    service::{Context, Service, StartError, Task},
};
use holdfast_proto::webhooks::v1::webhooks_service_server::WebhooksServiceServer;
use ipnet::IpNet;
use serde::Deserialize;
use sqlx::migrate::Migrator;
use tonic::service::Routes;

pub use api::ACCESS;
pub use guard::Lookup;
pub use signature::verify;

use domain::Schedule;
use guard::Guard;
use seal::Vault;
use sender::Sender;
use worker::{Bell, Desk};

/// The schema of this service.
pub static MIGRATOR: Migrator = sqlx::migrate!();

/// The defaults of [`Settings`], each key with its meaning and unit.
pub const DEFAULTS: &str = include_str!("../settings.toml");

/// The section `[webhooks]`; see `settings.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "settings.toml explains each key")]
pub struct Settings {
    pub database_url: String,
    pub owner_database_url: String,
    pub max_connections: u32,
    pub wrapping_key_version: u32,
    pub max_subscriptions: u32,
    pub allowed_networks: Vec<IpNet>,
    pub try_millis: u64,
    pub retry_secs: Vec<u64>,
    pub old_secret_hours: u64,
    pub disable_after_days: u64,
    pub keep_days: u64,
    pub max_tries: usize,
    pub max_tries_each: usize,
    pub poll_millis: u64,
}

/// Builds the service. It calls nobody.
pub fn build(settings: Settings, context: Context) -> Result<Service, StartError> {
    build_over(settings, &guard::system_lookup(), context)
}

/// The same over another way to look names up.
pub fn build_over(
    settings: Settings,
    lookup: &Lookup,
    context: Context,
) -> Result<Service, StartError> {
    check(&settings)?;
    let guard = Guard::new(&settings.allowed_networks);
    let try_max = Duration::from_millis(settings.try_millis);
    let sender = Sender::new(guard.clone(), lookup, try_max).map_err(|error| {
        let text = format!("no client for deliveries can be made: {error}");
        refused("allowed_networks", text)
    })?;
    let schedule = Schedule {
        waits: settings
            .retry_secs
            .iter()
            .map(|secs| Duration::from_secs(*secs))
            .collect(),
        patience: Duration::from_hours(24 * settings.disable_after_days),
    };
    let verifier = context.verifier.clone();
    let keep = Duration::from_hours(24 * settings.keep_days);
    let bell = Bell::default();
    let consumer = messages::consumer(context.clock.clone(), keep, bell.clone());
    let desk = Arc::new(Desk {
        vault: Vault::new(Envelope::new(
            &context.secrets,
            seal::PURPOSE,
            settings.wrapping_key_version,
        )),
        context,
        settings,
        schedule,
        guard,
        sender,
        bell,
    });
    let server = WebhooksServiceServer::new(api::Api::new(desk.clone()));
    let routes = Routes::new(Gate::new(server, ACCESS, verifier));
    Ok(Service {
        consumers: vec![consumer],
        tasks: vec![
            Task::new("webhook worker", worker::work(desk.clone())),
            Task::new("webhook pruner", worker::prune(desk)),
        ],
        ..Service::new("webhooks", routes)
    })
}

fn check(settings: &Settings) -> Result<(), StartError> {
    for (key, value, least, most) in [
        (
            "wrapping_key_version",
            settings.wrapping_key_version.into(),
            1,
            i32::MAX as u64,
        ),
        (
            "max_subscriptions",
            settings.max_subscriptions.into(),
            1,
            1_000,
        ),
        (
            "try_millis",
            settings.try_millis,
            1,
            worker::TRY_MAX_SECS * 1_000,
        ),
        ("old_secret_hours", settings.old_secret_hours, 0, 24 * 31),
        ("disable_after_days", settings.disable_after_days, 1, 366),
        ("keep_days", settings.keep_days, 7, 3_660),
        ("max_tries", settings.max_tries as u64, 1, 1_000),
        ("max_tries_each", settings.max_tries_each as u64, 1, 1_000),
        ("poll_millis", settings.poll_millis, 1, 60_000),
    ] {
        if !(least..=most).contains(&value) {
            let text = format!("{value}, wanted {least} to {most}");
            return Err(refused(key, text));
        }
    }
    let waits = &settings.retry_secs;
    // One and a half of the whole, for each may be drawn that long; what is due must still be kept.
    let longest: u64 = waits.iter().fold(0, |all, secs| all.saturating_add(*secs));
    if waits.len() > WAITS_MAX_ENTRIES || longest / 2 * 3 > settings.keep_days * 24 * 60 * 60 {
        let text = format!(
            "{} waits of {longest} s in all, wanted at most {WAITS_MAX_ENTRIES} that end within webhooks.keep_days",
            waits.len()
        );
        return Err(refused("retry_secs", text));
    }
    Ok(())
}

fn refused(key: &str, text: String) -> StartError {
    StartError::Setting {
        key: format!("webhooks.{key}"),
        text,
    }
}

/// Most tries of a schedule but the first.
const WAITS_MAX_ENTRIES: usize = 50;
