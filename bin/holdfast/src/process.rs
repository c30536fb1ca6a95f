//! What runs in a process, from the ground up: the cluster, the schemas, the bus, the services, the doors; and how it
//! ends, in the opposite order.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail};
use axum::Router;
use holdfast_kernel::Clock;
use holdfast_platform::{
    bus::Bus,
    clock::SystemClock,
    cluster::{Role, Secrets},
    database::BUS,
    embedded_log::{EmbeddedLog, KEEP_HOURS},
    internal::{self, Check},
    listener::{self, Listener},
    relay::Relay,
    settings::Settings,
    shutdown::Shutdown,
    transport,
    wakeup::Wakeups,
};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

use crate::{
    assemble::{self, Assembly, Ground, SERVICES},
    databases::{Databases, Opening},
    dead_mail,
    home::Home,
    parked,
};

/// The section `[process]`; see `settings.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProcessSettings {
    pub(crate) data_dir: PathBuf,
    pub(crate) listen: String,
    pub(crate) internal_listen: String,
    pub(crate) grpc_listen: String,
    pub(crate) grpc_reflection: bool,
    pub(crate) log: String,
}

/// The line a started server prints, for scripts.
#[derive(Debug, Clone, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are those of the line")]
pub(crate) struct Ready {
    ready: bool,
    /// The public door; none in a process without the gateway.
    pub(crate) url: Option<String>,
    internal: String,
    grpc: Option<String>,
}

/// A running server.
pub(crate) struct Process {
    pub(crate) ready: Ready,
    home: Home,
    databases: Databases,
    shutdown: Shutdown,
    pools: Vec<PgPool>,
}

impl Process {
    /// Starts the services of these names.
    pub(crate) async fn start(settings: Settings, names: &BTreeSet<&str>) -> anyhow::Result<Self> {
        let process: ProcessSettings = settings.section("process")?;
        let shutdown = Shutdown::new();
        shutdown.on_signals()?;
        let home = Home::find(&process)?;
        let schemas = assemble::schemas_of(names);
        let databases = Databases::open(&settings, &home, &schemas, Opening::Own).await?;
        let started = async {
            databases.migrate_embedded(&schemas).await?;
            start_parts(&settings, &process, &databases, &home, names, &shutdown).await
        };
        match started.await {
            Ok((ready, pools)) => Ok(Self {
                ready,
                home,
                databases,
                shutdown,
                pools,
            }),
            Err(error) => {
                // What was started is ended in order; the error that stopped us is what is told.
                shutdown.begin();
                shutdown.drain().await;
                databases.stop().await;
                Err(error)
            }
        }
    }

    /// Waits for the end, and ends in order. Fails when a part died by itself.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let drained = self.shutdown.drain().await;
        for pool in &self.pools {
            pool.close().await;
        }
        self.databases.stop().await;
        self.home.forget_address();
        if !drained.cut_off.is_empty() {
            tracing::warn!(parts = ?drained.cut_off, "did not end in time");
        }
        if !drained.died.is_empty() {
            bail!("{} ended by itself", drained.died.join(", "));
        }
        Ok(())
    }

    /// Ends the server as SIGTERM would.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.begin();
        self.run().await
    }
}

async fn start_parts(
    settings: &Settings,
    process: &ProcessSettings,
    databases: &Databases,
    home: &Home,
    names: &BTreeSet<&str>,
    shutdown: &Shutdown,
) -> anyhow::Result<(Ready, Vec<PgPool>)> {
    let clock = clock(settings)?;
    let bus_pool = databases.connect(BUS).await?;
    let bus = bus(&bus_pool, databases, shutdown)?;
    let grpc = bind_grpc(process, names).await?;
    let ground = Ground {
        settings,
        data_dir: home.folder(),
        databases,
        secrets: secrets(settings, home)?,
        ledger_offset: clock.ledger(),
        clock: Arc::new(clock),
        shutdown,
        reached_at: grpc.as_ref().and_then(reached_at),
    };
    let assembly = assemble::assemble(names, &ground).await?;
    let mut pools = vec![bus_pool];
    pools.extend(assembly.parts.iter().map(|part| part.database.clone()));

    let internal = listener::bind("process.internal_listen", &process.internal_listen).await?;
    let public = match &assembly.public {
        Some(_) => Some(listener::bind("process.listen", &process.listen).await?),
        None => None,
    };
    let ready = Ready {
        ready: true,
        url: public.as_ref().map(url),
        internal: url(&internal),
        grpc: grpc.as_ref().map(url),
    };
    let pages = operators_pages(&assembly, ground.clock.clone());
    serve_internal(internal, checks(&assembly), pages, shutdown);
    if let Some(grpc) = grpc {
        let reflection = process
            .grpc_reflection
            .then_some(holdfast_proto::DESCRIPTORS);
        serve_grpc(grpc, assembly.doors, reflection, shutdown);
    }
    let following = assembly.verifier.clone();
    shutdown.work(
        "revocations heard",
        following.follow_revocations(shutdown.workers()),
    );
    for part in assembly.parts {
        part.start(&bus, shutdown);
    }
    if let (Some(gateway), Some(public)) = (assembly.public, public) {
        for task in gateway.tasks {
            shutdown.work(task.name, task.work);
        }
        let (router, places) = (gateway.router, gateway.places);
        let begun = shutdown.begun();
        shutdown.serve("public door", async move {
            holdfast_gateway::serve(router, public.socket, places, begun).await;
        });
    }
    if let Some(url) = &ready.url {
        home.write_address(url, &ready.internal)?;
    }
    Ok((ready, pools))
}

/// The machine's clock, or the one that the development setting moves.
pub(crate) fn clock(settings: &Settings) -> anyhow::Result<SystemClock> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct ClockSettings {
        file: PathBuf,
    }
    let section: ClockSettings = settings.section("clock")?;
    if section.file.as_os_str().is_empty() {
        return Ok(SystemClock::new());
    }
    Ok(SystemClock::moved_by(section.file)?)
}

/// The secret that the settings give, for processes that share no folder, or that of the data folder.
pub(crate) fn secrets(settings: &Settings, home: &Home) -> anyhow::Result<Secrets> {
    #[derive(Deserialize)]
    struct Shared {
        cluster_secret: String,
    }
    let shared: Shared = settings.section("identity")?;
    if shared.cluster_secret.is_empty() {
        return home.secrets();
    }
    Secrets::parse(&shared.cluster_secret)
        .context("setting identity.cluster_secret: not 64 hexadecimal digits")
}

fn bus(pool: &PgPool, databases: &Databases, shutdown: &Shutdown) -> anyhow::Result<Arc<dyn Bus>> {
    let wakeups = Wakeups::default();
    let listening = wakeups.clone();
    let (url, ending) = (databases.url(BUS, Role::App)?, shutdown.workers());
    shutdown.work("bus wake-ups", async move {
        listening.listen(url, ending).await;
    });
    let log = EmbeddedLog::new(pool.clone(), wakeups);
    let (keeping, ending) = (log.clone(), shutdown.workers());
    let keep = SignedDuration::from_hours(KEEP_HOURS);
    shutdown.work("bus retention", keeping.retain(keep, ending));
    Ok(Arc::new(log))
}

/// The socket for other processes: where the settings say; for a subset without a word, its first service's port.
async fn bind_grpc(
    process: &ProcessSettings,
    names: &BTreeSet<&str>,
) -> anyhow::Result<Option<Listener>> {
    let address = if !process.grpc_listen.is_empty() {
        process.grpc_listen.clone()
    } else if names.len() == SERVICES.len() {
        return Ok(None);
    } else {
        let mut ports = SERVICES
            .iter()
            .filter(|known| names.contains(known.name))
            .filter_map(|known| known.port);
        match ports.next() {
            Some(port) => SocketAddr::from(([127, 0, 0, 1], port)).to_string(),
            None => return Ok(None),
        }
    };
    Ok(Some(listener::bind("process.grpc_listen", &address).await?))
}

fn url(listener: &Listener) -> String {
    format!("http://{}", listener.address)
}

/// Where others find this process, unless it listens on every address: which of them leads here only the settings know.
fn reached_at(grpc: &Listener) -> Option<String> {
    (!grpc.address.ip().is_unspecified()).then(|| url(grpc))
}

fn serve_internal(internal: Listener, checks: Vec<Check>, pages: Router, shutdown: &Shutdown) {
    // Told last to close: orchestrators ask it how the rest ends.
    let ending = shutdown.workers();
    shutdown.work("internal door", async move {
        if let Err(error) = internal::serve(internal.socket, checks, pages, ending).await {
            tracing::error!(%error, "internal door");
        }
    });
}

fn serve_grpc(
    grpc: Listener,
    doors: Vec<transport::Door>,
    reflection: Option<&'static [u8]>,
    shutdown: &Shutdown,
) {
    let begun = shutdown.begun();
    shutdown.serve("gRPC door", async move {
        if let Err(error) = transport::serve_tcp(doors, grpc.socket, reflection, begun).await {
            tracing::error!(%error, "gRPC door");
        }
    });
}

/// What operators may ask of the services here, at the internal door.
fn operators_pages(assembly: &Assembly, clock: Arc<dyn Clock>) -> Router {
    let verifier = &assembly.verifier;
    let pages = parked::routes(listeners(assembly), verifier.clone());
    let mut parts = assembly.parts.iter();
    match parts.find(|part| part.service.name == "notifications") {
        Some(part) => {
            let database = part.database.clone();
            pages.merge(dead_mail::routes(database, clock, verifier.clone()))
        }
        None => pages,
    }
}

/// Who listens here, for the operator who replays what they set aside.
fn listeners(assembly: &Assembly) -> Vec<parked::Listener> {
    let of = |part: &assemble::Part| {
        let database = part.database.clone();
        let consumers = part.service.consumers.clone();
        consumers.into_iter().map(move |consumer| parked::Listener {
            consumer,
            database: database.clone(),
        })
    };
    assembly.parts.iter().flat_map(of).collect()
}

/// What `/readyz` looks at: each service's database, and so the cluster beneath them.
fn checks(assembly: &Assembly) -> Vec<Check> {
    assembly
        .parts
        .iter()
        .map(|part| {
            let pool = part.database.clone();
            Check::new(part.service.name, move || {
                let pool = pool.clone();
                async move {
                    let answer = sqlx::query("SELECT 1").execute(&pool).await;
                    answer.map(|_| ()).map_err(|error| error.to_string())
                }
            })
        })
        .collect()
}

impl assemble::Part {
    /// Starts what goes on beside the calls: the relay, the listeners, the workers.
    fn start(self, bus: &Arc<dyn Bus>, shutdown: &Shutdown) {
        let Self {
            service,
            database,
            wake,
        } = self;
        let mut relay = Relay::new(service.name, database.clone(), bus.clone(), wake);
        if let Some(fold) = service.fold {
            relay = relay.folding(fold);
        }
        shutdown.work("relay", relay.run(shutdown.workers()));
        for consumer in service.consumers {
            let name = consumer.name();
            let (database, bus) = (database.clone(), bus.clone());
            shutdown.work(name, consumer.run(database, bus, shutdown.workers()));
        }
        if let Some(hearing) = service.hearing {
            shutdown.work("hearing", hearing.run(bus.clone(), shutdown.workers()));
        }
        for task in service.tasks {
            shutdown.work(task.name, task.work);
        }
    }
}
