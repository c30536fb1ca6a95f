//! The public door: REST over every service, problems, idempotent replies.
//!
//! Read in this order: `access` (every route and who may use it), `api` (a file a resource: decode, call, encode),
//! `problems` (what clients are told), `idempotency` (a request asked twice), `precondition` (what was looked at before), `decode` and `reply` (bytes in, bytes
//! out), `hygiene` and `limits` (what holds for all), `server` and `places` (the sockets), `seal`, `lookup` and `store` (replies at rest).

mod access;
mod api;
mod decode;
mod error;
mod hygiene;
mod idempotency;
mod limits;
mod lookup;
mod places;
mod precondition;
mod problems;
mod reply;
mod seal;
mod server;
mod store;

use std::{sync::Arc, time::Duration};

use axum::Router;
use holdfast_platform::{
    service::{Context, StartError, Task},
    transport::Transport,
};
use holdfast_proto::{
    auth::v1::auth_service_client::AuthServiceClient,
    catalog::v1::catalog_service_client::CatalogServiceClient,
    events::v1::events_service_client::EventsServiceClient,
    inventory::v1::inventory_service_client::InventoryServiceClient,
    notifications::v1::notifications_service_client::NotificationsServiceClient,
    orders::v1::orders_service_client::OrdersServiceClient,
    payments::v1::payments_service_client::PaymentsServiceClient,
    reviews::v1::reviews_service_client::ReviewsServiceClient,
    users::v1::users_service_client::UsersServiceClient,
    webhooks::v1::webhooks_service_client::WebhooksServiceClient,
};
use ipnet::IpNet;
use serde::Deserialize;
use sqlx::migrate::Migrator;
use tokio::sync::Semaphore;

pub use access::{ACCESS, Audience};
pub use limits::RateLimit;
pub use places::Places;
pub use problems::{REASONS, Reason};
pub use server::{ClientAddress, DRAIN_SECS, HEADER_READ_SECS, serve};

/// The schema of this service: replies under idempotency keys.
pub static MIGRATOR: Migrator = sqlx::migrate!();

/// The defaults of [`Settings`], each key with its meaning and unit.
pub const DEFAULTS: &str = include_str!("../settings.toml");

/// The section `[gateway]`; see `settings.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "settings.toml explains each key")]
pub struct Settings {
    pub database_url: String,
    pub owner_database_url: String,
    pub max_connections: u32,
    pub public_url: String,
    pub reply_hours: u64,
    pub max_client_connections: usize,
    pub max_connections_per_address: usize,
    pub max_purchases: usize,
    pub trusted_hops: Vec<IpNet>,
    pub rate_limit: RateLimit,
}

/// Whom this service calls.
#[derive(Clone)]
#[expect(missing_docs, reason = "each field is the service of that name")]
pub struct Peers {
    pub auth: AuthServiceClient<Transport>,
    pub users: UsersServiceClient<Transport>,
    pub catalog: CatalogServiceClient<Transport>,
    pub events: EventsServiceClient<Transport>,
    pub inventory: InventoryServiceClient<Transport>,
    pub notifications: NotificationsServiceClient<Transport>,
    pub orders: OrdersServiceClient<Transport>,
    pub payments: PaymentsServiceClient<Transport>,
    pub webhooks: WebhooksServiceClient<Transport>,
    pub reviews: ReviewsServiceClient<Transport>,
}

/// The built door: what [`serve`] serves, and the work beside it.
pub struct Door {
    /// Every route, behind the table and the hygiene of all requests.
    pub router: Router,
    /// How many connections [`serve`] holds.
    pub places: Places,
    /// Its workers.
    pub tasks: Vec<Task>,
}

/// What handlers share. Cheap to clone.
#[derive(Clone)]
struct Gateway {
    peers: Peers,
    context: Context,
    replies: idempotency::Replies,
    public_url: Arc<str>,
    /// Places for purchases in hand.
    purchases: Arc<Semaphore>,
    trusted_hops: hygiene::TrustedHops,
    /// None when nobody is bound.
    limits: Arc<Option<limits::Limits>>,
}

/// Builds the door. It opens no socket.
pub fn build(settings: &Settings, peers: Peers, context: Context) -> Result<Door, StartError> {
    let public_url = settings.public_url.trim_end_matches('/');
    let is_url = public_url.starts_with("https://") || public_url.starts_with("http://");
    if !public_url.is_empty() && !is_url {
        return Err(StartError::Setting {
            key: "gateway.public_url".to_owned(),
            text: format!("got {public_url:?}, wanted a URL such as \"https://shop.example\""),
        });
    }
    let kept_for = Duration::from_secs(settings.reply_hours.saturating_mul(3600));
    let replies = idempotency::Replies::new(context.clone(), kept_for);
    let tasks = vec![Task::new("reply pruner", replies.clone().prune())];
    let gateway = Gateway {
        peers,
        context,
        replies,
        public_url: public_url.into(),
        purchases: Arc::new(Semaphore::new(settings.max_purchases)),
        trusted_hops: hygiene::TrustedHops::new(&settings.trusted_hops),
        limits: Arc::new(limits::Limits::new(&settings.rate_limit)),
    };
    Ok(Door {
        router: api::router(gateway),
        places: Places::new(
            settings.max_client_connections,
            settings.max_connections_per_address,
            &settings.trusted_hops,
        ),
        tasks,
    })
}
