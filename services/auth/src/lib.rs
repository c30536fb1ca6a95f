//! Accounts, sessions, signing keys: who somebody is.
//!
//! Read in this order: `domain` (accounts and sessions, and how they may change), `registration` (an account comes to be
//! together with its profile), `password` (the bounded place where passwords are hashed), `guessing` (what slows down who
//! tries them), `token` (what a client holds), `keys` (what tokens are signed with), `revocation` (how everybody is told
//! of dead ones), `api` (the door), `operator` (what the machine's owner may do without a password), `vault` (how e-mails
//! lie sealed), `store` (the tables), `messages` (what is told to others), `error` (how it refuses).

mod api;
mod domain;
mod error;
mod guessing;
mod keys;
mod messages;
mod operator;
mod password;
mod registration;
mod revocation;
mod store;
mod token;
mod vault;

use holdfast_platform::{
    identity::Gate,
    service::{Context, Service, StartError, Task},
    transport::Transport,
};
use holdfast_proto::{
    auth::v1::auth_service_server::AuthServiceServer,
    users::v1::users_service_client::UsersServiceClient,
};
use serde::Deserialize;
use sqlx::migrate::Migrator;
use tonic::service::Routes;

pub use api::ACCESS;
pub use operator::{MINT_MAX_ACCOUNTS, Operator};
pub use registration::FAILPOINTS;

use crate::{
    error::AuthError,
    keys::{Signer, SigningKey},
    password::Passwords,
    revocation::Revocations,
    token::Minter,
    vault::Vault,
};

/// The schema of this service.
pub static MIGRATOR: Migrator = sqlx::migrate!();

/// The defaults of [`Settings`], each key with its meaning and unit.
pub const DEFAULTS: &str = include_str!("../settings.toml");

/// The section `[auth]`; see `settings.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "settings.toml explains each key")]
pub struct Settings {
    pub database_url: String,
    pub owner_database_url: String,
    pub max_connections: u32,
    pub access_token_secs: u32,
    pub session_secs: u32,
    pub refresh_grace_secs: u32,
    pub key_rotation_days: u32,
    pub hash_memory_kib: u32,
    pub hash_passes: u32,
    pub hash_threads: u32,
    pub hash_queue: u32,
    pub wrapping_key_version: u32,
    pub plain_personal_data: bool,
}

/// Whom this service calls.
#[derive(Clone)]
pub struct Peers {
    /// Keeps the profile of every account.
    pub users: UsersServiceClient<Transport>,
}

/// Builds the service. It signs for the issuer and audience that the context's verifier takes.
///
/// Makes the first signing keys when there are none. Fails when a setting is out of its bounds, the database is away,
/// or its keys were sealed under another secret.
pub async fn build(
    settings: Settings,
    peers: Peers,
    context: Context,
) -> Result<Service, StartError> {
    let verifier = context.verifier.clone();
    let parts = Parts::make(&settings, peers, context).await?;
    let reading = parts
        .revocations
        .clone()
        .keep_reading(parts.context.clone());
    let envelope = parts.vault.envelope.clone();
    let wrapping = envelope.keep_wrapping(
        parts.context.database.clone(),
        parts.context.shutdown.clone(),
    );
    let life = parts.minter.key_life();
    let turning = parts
        .signer
        .clone()
        .keep_turning(parts.context.clone(), life);
    let server = AuthServiceServer::new(api::Api::new(parts));
    let routes = Routes::new(Gate::new(server, ACCESS, verifier));
    let mut service = Service::new("auth", routes);
    service.tasks = vec![
        Task::new("revocations told", reading),
        Task::new("signing keys", turning),
        Task::new("keys of persons", wrapping),
    ];
    Ok(service)
}

/// What the door and the operator work with.
struct Parts {
    context: Context,
    peers: Peers,
    passwords: Passwords,
    vault: Vault,
    minter: Minter,
    signer: Signer,
    revocations: Revocations,
}

impl Parts {
    async fn make(settings: &Settings, peers: Peers, context: Context) -> Result<Self, StartError> {
        let passwords = Passwords::new(settings).await?;
        let vault = Vault::new(settings, &context)?;
        vault::seal_rows(&context, &vault)
            .await
            .map_err(unprepared)?;
        let signer = Signer::new(SigningKey::load_or_make(&context).await?);
        let minter = Minter::new(settings, signer.clone(), &context)?;
        Ok(Self {
            context,
            peers,
            passwords,
            vault,
            minter,
            signer,
            revocations: Revocations::new(),
        })
    }
}

fn unprepared(error: AuthError) -> StartError {
    let source = match error {
        AuthError::Database(source) => source,
        other => sqlx::Error::Decode(other.to_string().into()),
    };
    StartError::Database {
        service: "auth",
        source,
    }
}
