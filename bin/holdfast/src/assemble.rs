//! The one file that knows all services: which there are, what each is built from, and who reaches whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::bail;
use futures::StreamExt;
use holdfast_kernel::Clock;
use holdfast_platform::{
    cluster::{Role, Secrets},
    database::BUS,
    fault::Fault,
    identity::{
        KeySource, PeerIdentity, PeerKey, RevocationSource, RevocationStream, Revoked,
        VERIFIER_PEER, Verifier,
    },
    outbox::Wake,
    service::{Context, Service},
    settings::Settings,
    shutdown::Shutdown,
    transport::{self, Door, Slot, Transport, open_ended},
    wire,
};
use holdfast_proto::{
    auth::v1::{
        GetKeysRequest, IsSessionOpenRequest, Revocation, WatchRevocationsRequest,
        auth_service_client::AuthServiceClient,
    },
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
use serde::Deserialize;
use sqlx::{PgPool, migrate::Migrator};
use tonic::Request;

use crate::databases::Databases;

/// The annotated defaults of every part.
pub(crate) const DEFAULTS: &[&str] = &[
    include_str!("../settings.toml"),
    holdfast_auth::DEFAULTS,
    holdfast_users::DEFAULTS,
    holdfast_catalog::DEFAULTS,
    holdfast_inventory::DEFAULTS,
    holdfast_payments::DEFAULTS,
    holdfast_orders::DEFAULTS,
    holdfast_notifications::DEFAULTS,
    holdfast_webhooks::DEFAULTS,
    holdfast_reviews::DEFAULTS,
    holdfast_events::DEFAULTS,
    holdfast_gateway::DEFAULTS,
];

/// A service, and where it keeps what it knows.
pub(crate) struct Known {
    /// Its name, its schema's and its settings section's.
    pub(crate) name: &'static str,
    /// Its gRPC port when it runs alone and nobody says otherwise; none for the gateway, which is HTTP only.
    pub(crate) port: Option<u16>,
    /// The schema it owns.
    pub(crate) migrator: &'static Migrator,
}

/// Every service. The ports are those of the architecture's table.
pub(crate) const SERVICES: &[Known] = &[
    known("auth", Some(50051), &holdfast_auth::MIGRATOR),
    known("users", Some(50052), &holdfast_users::MIGRATOR),
    known("catalog", Some(50053), &holdfast_catalog::MIGRATOR),
    known("events", Some(50054), &holdfast_events::MIGRATOR),
    known("payments", Some(50058), &holdfast_payments::MIGRATOR),
    known("inventory", Some(50059), &holdfast_inventory::MIGRATOR),
    known("orders", Some(50060), &holdfast_orders::MIGRATOR),
    known(
        "notifications",
        Some(50063),
        &holdfast_notifications::MIGRATOR,
    ),
    known("webhooks", Some(50064), &holdfast_webhooks::MIGRATOR),
    known("reviews", Some(50062), &holdfast_reviews::MIGRATOR),
    known("gateway", None, &holdfast_gateway::MIGRATOR),
];

/// Where mail lies in the data folder, when the settings name no other place.
const MAIL_FOLDER: &str = "mail";

/// The schema in which the sandbox keeps what a provider of payments would; it belongs to no service.
pub(crate) const SANDBOX: Known = known("sandbox", None, &holdfast_payments::SANDBOX_MIGRATOR);

const fn known(name: &'static str, port: Option<u16>, migrator: &'static Migrator) -> Known {
    Known {
        name,
        port,
        migrator,
    }
}

/// Names of all schemas: the message log's first, for services write to it.
pub(crate) fn schemas() -> Vec<&'static str> {
    let own = SERVICES.iter().map(|known| known.name);
    [BUS].into_iter().chain(own).chain([SANDBOX.name]).collect()
}

/// Names of the schemas that services of these names need.
pub(crate) fn schemas_of(names: &BTreeSet<&str>) -> Vec<&'static str> {
    let sandbox = |schema| schema == SANDBOX.name && names.contains("payments");
    let mut schemas = schemas();
    schemas.retain(|schema| *schema == BUS || sandbox(*schema) || names.contains(schema));
    schemas
}

/// What makes the tables of a schema; none for the message log, whose tables are the platform's.
pub(crate) fn migrator(schema: &str) -> Option<&'static Migrator> {
    let mut known = SERVICES.iter().chain([&SANDBOX]);
    known
        .find(|known| known.name == schema)
        .map(|known| known.migrator)
}

/// Every point at which a test may make the process fail.
pub fn failpoints() -> impl Iterator<Item = &'static str> {
    [
        holdfast_auth::FAILPOINTS,
        holdfast_notifications::FAILPOINTS,
        holdfast_orders::FAILPOINTS,
        holdfast_payments::FAILPOINTS,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// What all services of a process stand on.
pub(crate) struct Ground<'a> {
    pub(crate) settings: &'a Settings,
    /// Where services keep files that are theirs.
    pub(crate) data_dir: &'a Path,
    pub(crate) databases: &'a Databases,
    pub(crate) secrets: Secrets,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ledger_offset: holdfast_platform::clock::LedgerOffset,
    pub(crate) shutdown: &'a Shutdown,
    /// The gRPC URL at which other processes reach this one, as far as it can know.
    pub(crate) reached_at: Option<String>,
}

/// The services of this process, built and not yet started.
pub(crate) struct Assembly {
    pub(crate) parts: Vec<Part>,
    /// The door to clients.
    pub(crate) public: Option<holdfast_gateway::Door>,
    /// Verifies who calls, for the doors that are the process's own.
    pub(crate) verifier: Verifier,
    /// The doors of the services, for callers in other processes.
    pub(crate) doors: Vec<Door>,
}

/// A service with what its messages need.
pub(crate) struct Part {
    pub(crate) service: Service,
    pub(crate) database: PgPool,
    pub(crate) wake: Wake,
}

/// Builds the services of these names, and leads each of their peers to this process or to where the settings say.
pub(crate) async fn assemble(
    names: &BTreeSet<&str>,
    ground: &Ground<'_>,
) -> anyhow::Result<Assembly> {
    let peers = Directory::default();
    let verifier = verifier(&peers, ground)?;
    let mut parts = Vec::new();
    let mut public = None;
    for known in SERVICES.iter().filter(|known| names.contains(known.name)) {
        let context = context(known.name, &verifier, ground).await?;
        let (database, wake) = (context.database.clone(), context.wake.clone());
        let peer = |name: &'static str| peers.transport(known.name, name);
        let service = match known.name {
            "gateway" => {
                let peers = holdfast_gateway::Peers {
                    auth: AuthServiceClient::new(peer("auth")),
                    users: UsersServiceClient::new(peer("users")),
                    catalog: CatalogServiceClient::new(peer("catalog")),
                    inventory: InventoryServiceClient::new(peer("inventory")),
                    notifications: NotificationsServiceClient::new(peer("notifications")),
                    orders: OrdersServiceClient::new(peer("orders")),
                    payments: PaymentsServiceClient::new(peer("payments")),
                    webhooks: WebhooksServiceClient::new(peer("webhooks")),
                    reviews: ReviewsServiceClient::new(peer("reviews")),
                    events: EventsServiceClient::new(peer("events")),
                };
                let settings: holdfast_gateway::Settings = ground.settings.section("gateway")?;
                public = Some(holdfast_gateway::build(&settings, peers, context)?);
                continue;
            }
            "auth" => {
                let peers = holdfast_auth::Peers {
                    users: UsersServiceClient::new(peer("users")),
                };
                holdfast_auth::build(ground.settings.section("auth")?, peers, context).await?
            }
            "users" => {
                let settings = ground.settings.section("users")?;
                holdfast_users::build(&settings, context).await?
            }
            "catalog" => {
                let peers = holdfast_catalog::Peers {
                    inventory: InventoryServiceClient::new(peer("inventory")),
                };
                holdfast_catalog::build(peers, context)?
            }
            "payments" => {
                let sandbox = ground.databases.connect(SANDBOX.name).await?;
                let settings = ground.settings.section("payments")?;
                holdfast_payments::build(&settings, sandbox, context)?
            }
            "inventory" => {
                let mut settings: holdfast_inventory::Settings =
                    ground.settings.section("inventory")?;
                settings.database_url = ground.databases.url("inventory", Role::App)?;
                if settings.reached_at.is_empty() {
                    settings.reached_at = ground.reached_at.clone().unwrap_or_default();
                }
                let reading = holdfast_inventory::read_time(ground.ledger_offset.clone());
                holdfast_inventory::build(&settings, reading, context)?
            }
            "orders" => {
                let peers = holdfast_orders::Peers {
                    users: UsersServiceClient::new(peer("users")),
                    catalog: CatalogServiceClient::new(peer("catalog")),
                    inventory: InventoryServiceClient::new(peer("inventory")),
                    payments: PaymentsServiceClient::new(peer("payments")),
                };
                let settings = ground.settings.section("orders")?;
                holdfast_orders::build(settings, peers, context)?
            }
            "notifications" => {
                let peers = holdfast_notifications::Peers {
                    users: UsersServiceClient::new(peer("users")),
                };
                let settings = notifications(ground.settings, ground.data_dir)?;
                holdfast_notifications::build(&settings, peers, context)?
            }
            "webhooks" => holdfast_webhooks::build(ground.settings.section("webhooks")?, context)?,
            "reviews" => holdfast_reviews::build(context),
            "events" => holdfast_events::build(context),
            other => unreachable!("{other} is in the table and has no recipe"),
        };
        parts.push(Part {
            service,
            database,
            wake,
        });
    }
    let doors: Vec<Door> = parts
        .iter()
        .map(|part| Door::new(part.service.name, part.service.routes.clone()))
        .collect();
    peers.lead(&doors, ground.settings)?;
    Ok(Assembly {
        parts,
        public,
        verifier,
        doors,
    })
}

/// The section `[notifications]`, with the folder of mail in the data folder unless it names another one.
pub(crate) fn notifications(
    settings: &Settings,
    data_dir: &Path,
) -> anyhow::Result<holdfast_notifications::Settings> {
    let mut section: holdfast_notifications::Settings = settings.section("notifications")?;
    if section.mail_folder.as_os_str().is_empty() {
        section.mail_folder = data_dir.join(MAIL_FOLDER);
    }
    Ok(section)
}

/// What makes accounts beside the door, for the owner of the machine: auth's own hand, and users to keep the profiles.
pub(crate) async fn operator(ground: &Ground<'_>) -> anyhow::Result<holdfast_auth::Operator> {
    let peers = Directory::default();
    let verifier = verifier(&peers, ground)?;
    let users = context("users", &verifier, ground).await?;
    let settings = ground.settings.section("users")?;
    let users = holdfast_users::build(&settings, users).await?;
    let users = transport::local(Door::new("users", users.routes));
    let peers = holdfast_auth::Peers {
        users: UsersServiceClient::new(users),
    };
    let context = context("auth", &verifier, ground).await?;
    let settings = ground.settings.section("auth")?;
    Ok(holdfast_auth::Operator::open(&settings, peers, context).await?)
}

async fn context(
    service: &'static str,
    verifier: &Verifier,
    ground: &Ground<'_>,
) -> anyhow::Result<Context> {
    Ok(Context {
        database: ground.databases.connect(service).await?,
        clock: ground.clock.clone(),
        verifier: verifier.clone(),
        identity: identity(service, ground),
        secrets: ground.secrets.clone(),
        wake: Wake::default(),
        shutdown: ground.shutdown.workers(),
    })
}

/// Slots for peers that are found once everything here is built, and who asked for them.
#[derive(Default)]
struct Directory(Mutex<BTreeMap<&'static str, Wanted>>);

struct Wanted {
    slot: Slot,
    by: BTreeSet<&'static str>,
}

impl Directory {
    fn transport(&self, caller: &'static str, peer: &'static str) -> Transport {
        let mut wanted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = wanted.entry(peer).or_insert_with(|| Wanted {
            slot: Slot::new(peer),
            by: BTreeSet::new(),
        });
        entry.by.insert(caller);
        entry.slot.transport()
    }

    fn lead(&self, doors: &[Door], settings: &Settings) -> anyhow::Result<()> {
        let addresses: BTreeMap<String, String> = settings.section("peers")?;
        let wanted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (peer, Wanted { slot, by }) in wanted.iter() {
            let here = doors.iter().find(|door| door.name() == *peer);
            let elsewhere = addresses.get(*peer).filter(|url| !url.is_empty());
            match (here, elsewhere) {
                (Some(door), _) => slot.fill_local(door.clone()),
                (None, Some(url)) => slot.fill_remote(transport::channel(peer, url)?),
                (None, None) => {
                    let by = by.iter().copied().collect::<Vec<_>>().join(", ");
                    bail!(
                        "{by} needs {peer}, which is neither here nor anywhere: run it here \
                         (`holdfast serve … {peer}`) or say where it runs (`--peer {peer}=http://host:port`)"
                    )
                }
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentitySettings {
    issuer: String,
    audience: String,
    #[expect(
        dead_code,
        reason = "read before the services are built; named here so that the section is whole"
    )]
    cluster_secret: String,
}

fn verifier(peers: &Directory, ground: &Ground<'_>) -> anyhow::Result<Verifier> {
    let settings: IdentitySettings = ground.settings.section("identity")?;
    let auth = AuthServiceClient::new(peers.transport("every service", "auth"));
    let revocations = revocations(auth.clone(), identity(VERIFIER_PEER, ground));
    let source: KeySource = Arc::new(move || {
        let mut auth = auth.clone();
        Box::pin(async move {
            let answer = auth.get_keys(Request::new(GetKeysRequest {})).await;
            answer
                .map(|keys| keys.into_inner().jwks)
                .map_err(|status| Fault::from_status(&status))
        })
    });
    Ok(Verifier::told_of_revocations(
        settings.issuer,
        settings.audience,
        peer_key(&ground.secrets),
        ground.clock.clone(),
        source,
        revocations,
    ))
}

fn revocations(auth: AuthServiceClient<Transport>, identity: PeerIdentity) -> RevocationSource {
    let (watched, asked) = ((auth.clone(), identity.clone()), (auth, identity));
    RevocationSource {
        watch: Arc::new(move || {
            let (mut auth, identity) = watched.clone();
            Box::pin(async move {
                let mut request = open_ended(WatchRevocationsRequest {});
                *request.metadata_mut() = identity.request(()).into_parts().0;
                let answer = auth.watch_revocations(request).await;
                let stream = answer.map_err(|status| Fault::from_status(&status))?;
                let told = stream.into_inner().map(|news| match news {
                    Ok(news) => news.revoked.iter().map(revoked).collect(),
                    Err(status) => Err(Fault::from_status(&status)),
                });
                Ok::<RevocationStream, Fault>(told.boxed())
            })
        }),
        is_open: Arc::new(move |session| {
            let (mut auth, identity) = asked.clone();
            Box::pin(async move {
                let request = identity.request(IsSessionOpenRequest {
                    session_id: session.to_string(),
                });
                let answer = auth.is_session_open(request).await;
                answer
                    .map(|session| session.into_inner().open)
                    .map_err(|status| Fault::from_status(&status))
            })
        }),
    }
}

fn revoked(told: &Revocation) -> Result<Revoked, Fault> {
    let session = told.session_id.parse().map_err(Fault::internal)?;
    let dead_at = wire::moment(told.dead_at.as_ref())
        .ok_or_else(|| Fault::internal("a revocation without a time"))?;
    Ok(Revoked { session, dead_at })
}

fn identity(service: &'static str, ground: &Ground<'_>) -> PeerIdentity {
    PeerIdentity::new(service, peer_key(&ground.secrets), ground.clock.clone())
}

/// The key by which processes of an installation know each other, and the operator's commands.
pub(crate) fn peer_key(secrets: &Secrets) -> PeerKey {
    PeerKey::new(&secrets.key("peer identity"))
}
