//! A whole installation of the real binary, started for a test and gone after it, however the test ended.
//!
//! Nothing here is faked: the processes are those an operator starts, on a database of their own, on free loopback
//! ports. A test may kill them, start them again, and move their clocks.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use holdfast_kernel::{Id, RequestId, id};
use holdfast_testkit::Installation;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::{
    door::{Answer, Door},
    operator::{Operator, Role},
    server::{Server, log_tail, log_text},
    wait,
};

/// Waits in a process of its own until this one is gone or says so; then ends what is left and clears up.
///
/// Servers first, or they would start their PostgreSQL again.
const UNDERTAKER: &str = r#"
folder=$1
cat >/dev/null
for file in "$folder"/*.pid; do
    [ -e "$file" ] && kill -KILL "$(cat "$file")" 2>/dev/null
done
find "$folder" -name postmaster.pid | while read -r file; do
    postmaster=$(head -n 1 "$file")
    kill -QUIT "$postmaster" 2>/dev/null
    tries=0
    while [ -e "$file" ] && [ $tries -lt 100 ]; do sleep 0.05; tries=$((tries + 1)); done
done
rm -rf "$folder"
"#;

/// The service whose address everybody needs before anybody is there: it gives out the keys of tokens.
const AUTH: &str = "auth";
const GATEWAY: &str = "gateway";
/// Each service with those it calls, callees first.
const SERVICES: [(&str, &[&str]); 11] = [
    ("users", &[]),
    ("inventory", &[]),
    ("payments", &[]),
    ("webhooks", &[]),
    ("reviews", &[]),
    ("events", &[]),
    (AUTH, &["users"]),
    ("notifications", &["users"]),
    ("catalog", &["inventory"]),
    ("orders", &["users", "catalog", "inventory", "payments"]),
    (
        GATEWAY,
        &[
            "users",
            "catalog",
            "inventory",
            "payments",
            "orders",
            "webhooks",
            "notifications",
            "reviews",
            "events",
        ],
    ),
];
/// The sandbox provider's schema, which belongs to no service.
const PROVIDER: &str = "sandbox";
const BUS: &str = "bus";
const ANY_PORT: &str = "127.0.0.1:0";
/// How long a busy installation may send somebody away who wants to register or log in.
const ANSWER_MAX_SECS: u64 = 60;
/// The process of an installation that has only one.
const WHOLE: &str = "holdfast";

/// How the services are spread over processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// One process with its embedded cluster; calls stay in the process.
    AllInOne,
    /// Each service in a process of its own, over TCP, on a PostgreSQL that was there before.
    EachAlone,
}

/// A running installation.
#[derive(Debug)]
pub struct Sandbox {
    topology: Topology,
    folder: PathBuf,
    environment: Vec<(String, String)>,
    installation: Option<Installation>,
    servers: BTreeMap<&'static str, Server>,
    /// Where each process serves the others; it comes back there after it was killed.
    addresses: BTreeMap<&'static str, String>,
    /// Where the public door is; it comes back there as well.
    public: Option<String>,
    undertaker: Child,
}

impl Sandbox {
    /// Starts an installation and waits until it serves.
    pub async fn start(topology: Topology) -> anyhow::Result<Self> {
        Self::start_with(topology, &[]).await
    }

    /// Starts an installation whose processes see this environment besides.
    pub async fn start_with(
        topology: Topology,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        // Whoever was first chose the same.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let mut sandbox = Self::lay_out(topology)?;
        sandbox.set_environment(environment);
        match topology {
            Topology::AllInOne => sandbox.revive(WHOLE, &[]).await?,
            Topology::EachAlone => sandbox.start_each().await?,
        }
        Ok(sandbox)
    }

    fn lay_out(topology: Topology) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("holdfast-e2e-")
            .tempdir_in("/tmp")
            .context("make a folder in /tmp")?;
        // PostgreSQL does not run as root; its account has to get through.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let undertaker = Command::new("/bin/sh")
            .args(["-c", UNDERTAKER, "sh"])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C in a terminal goes to the whole group; the undertaker has to live through it.
            .process_group(0)
            .spawn()
            .context("every system has /bin/sh")?;
        Ok(Self {
            topology,
            folder: folder.keep(),
            environment: Vec::new(),
            installation: None,
            servers: BTreeMap::new(),
            addresses: BTreeMap::new(),
            public: None,
            undertaker,
        })
    }

    fn set_environment(&mut self, more: &[(&str, &str)]) {
        let clock = self.clock_file().display().to_string();
        self.environment
            .push(("HOLDFAST_CLOCK__FILE".to_owned(), clock));
        // A test asks more of one address in a minute than people do.
        let unlimited = "HOLDFAST_GATEWAY__RATE_LIMIT__ENABLED".to_owned();
        self.environment.push((unlimited, "false".to_owned()));
        // Receivers of webhooks stand on loopback, where deliveries go only if allowed.
        let networks = "HOLDFAST_WEBHOOKS__ALLOWED_NETWORKS".to_owned();
        self.environment
            .push((networks, r#"["127.0.0.0/8"]"#.to_owned()));
        let more = more
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.environment.extend(more);
    }

    async fn start_each(&mut self) -> anyhow::Result<()> {
        let names: Vec<&str> = SERVICES.iter().map(|(name, _)| *name).collect();
        let schemas = [names.as_slice(), &[PROVIDER]].concat();
        let installation = Installation::create(&schemas).await;
        for schema in schemas.into_iter().chain([BUS]) {
            let section = schema.to_uppercase();
            for (key, role) in [("DATABASE_URL", "app"), ("OWNER_DATABASE_URL", "owner")] {
                let url = installation.url(&format!("{schema}_{role}"));
                self.environment
                    .push((format!("HOLDFAST_{section}__{key}"), url));
            }
        }
        self.installation = Some(installation);
        let secret = format!("{:064x}", RequestId::generate().uuid().as_u128());
        self.environment
            .push(("HOLDFAST_IDENTITY__CLUSTER_SECRET".to_owned(), secret));
        self.operator()?.done(&["migrate"])?;
        self.addresses
            .insert(AUTH, format!("http://{}", free_address()?));
        for (service, _) in SERVICES {
            self.revive(service, &[]).await?;
        }
        Ok(())
    }

    /// How the services are spread.
    pub fn topology(&self) -> Topology {
        self.topology
    }

    /// The public API, for nobody in particular.
    pub fn door(&self) -> anyhow::Result<Door> {
        Ok(Door::new(self.url()?))
    }

    /// Where the public API is.
    pub fn url(&self) -> anyhow::Result<&str> {
        self.public
            .as_deref()
            .context("the gateway was not started")
    }

    /// The public API as seen by somebody new.
    pub async fn somebody(&self, role: Role) -> anyhow::Result<Door> {
        let mut doors = self.people(role, 1).await?;
        doors.pop().context("one was asked for")
    }

    /// The public API as seen by so many new people.
    pub async fn people(&self, role: Role, count: usize) -> anyhow::Result<Vec<Door>> {
        let door = self.door()?;
        let tokens = match self.topology {
            Topology::AllInOne => self.operator()?.mint(role, count)?,
            Topology::EachAlone => self.register(role, count).await?,
        };
        Ok(tokens.iter().map(|token| door.with_token(token)).collect())
    }

    /// As people come to have accounts; what they may do beyond buying is written into the book by hand.
    async fn register(&self, role: Role, count: usize) -> anyhow::Result<Vec<String>> {
        let door = self.door()?;
        let mut tokens = Vec::with_capacity(count);
        for _ in 0..count {
            let name = RequestId::generate();
            let email = format!("{name}@holdfast.example");
            let password = format!("correct {name} staple");
            let account = json!({"email": email, "password": password, "name": "Somebody"});
            let made = answered(&door, "/v1/users/register", &account).await?;
            // Whom a busy service sent away it may have registered all the same.
            ensure!(matches!(made.status, 201 | 409), "{made:?}");
            let login = json!({"email": email, "password": password});
            let mut tokened = answered(&door, "/v1/users/login", &login).await?.is(200)?;
            if role != Role::User {
                // Addresses lie sealed in the book; by its id an account is found.
                let token = tokened["access_token"].as_str().unwrap_or_default();
                let me = door.with_token(token).read("/v1/users/me").await?;
                let account: Id<id::User> = me["id"].as_str().unwrap_or_default().parse()?;
                let mut book = self.book(AUTH).await?;
                let promoted = sqlx::query("UPDATE account SET role = $1 WHERE id = $2")
                    .bind(role.as_str())
                    .bind(account.uuid())
                    .execute(&mut book)
                    .await?;
                ensure!(promoted.rows_affected() == 1, "{me} is in no book");
                tokened = answered(&door, "/v1/users/login", &login).await?.is(200)?;
            }
            let token = tokened["access_token"].as_str();
            tokens.push(token.context("a login gives an access token")?.to_owned());
        }
        Ok(tokens)
    }

    /// Kills a service's process, and with it all that run in the same one.
    pub fn kill(&mut self, service: &'static str) -> anyhow::Result<()> {
        self.server_mut(service)?.kill()
    }

    /// Ends a service's process in order.
    pub async fn terminate(&mut self, service: &'static str) -> anyhow::Result<ExitStatus> {
        self.server_mut(service)?.terminate().await
    }

    /// The process that a service runs in.
    pub fn server(&self, service: &'static str) -> anyhow::Result<&Server> {
        let name = self.process_of(service);
        self.servers
            .get(name)
            .with_context(|| format!("{name} was not started"))
    }

    /// The same, to do something to it.
    pub fn server_mut(&mut self, service: &'static str) -> anyhow::Result<&mut Server> {
        let name = self.process_of(service);
        self.servers
            .get_mut(name)
            .with_context(|| format!("{name} was not started"))
    }

    /// Starts a service's process, again if it ran before, with this in its environment besides.
    pub async fn revive(
        &mut self,
        service: &'static str,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let name = self.process_of(service);
        // Dropping the old one forgets its files; the new one writes them again.
        self.servers.remove(name);
        let mut command = self.operator_of(name)?.command();
        let public = self
            .public
            .as_deref()
            .filter(|_| self.process_of(GATEWAY) == name);
        command
            .arg("serve")
            .args(["--listen", public.map_or(ANY_PORT, address_of)])
            .args(["--internal-listen", ANY_PORT])
            .envs(environment.iter().copied());
        if self.topology == Topology::EachAlone {
            let address = self.addresses.get(name);
            let address = address.map_or(ANY_PORT, |url| address_of(url));
            self.isolate(&mut command, name, address)?;
        }
        let server = Server::start(name, &self.folder, command).await?;
        if let Some(address) = &server.ready.grpc {
            self.addresses.insert(name, address.clone());
        }
        if let Some(url) = &server.ready.url {
            self.public = Some(url.clone());
        }
        self.servers.insert(name, server);
        Ok(())
    }

    /// Starts another process of a service, as `name`, beside the one that its callers know.
    pub async fn start_beside(&self, service: &str, name: &str) -> anyhow::Result<Server> {
        ensure!(
            self.topology == Topology::EachAlone,
            "an embedded cluster has one process"
        );
        let mut command = self.operator_of(name)?.command();
        command.arg("serve").args(["--internal-listen", ANY_PORT]);
        self.isolate(&mut command, service, ANY_PORT)?;
        Server::start(name, &self.folder, command).await
    }

    fn isolate(&self, command: &mut Command, name: &str, address: &str) -> anyhow::Result<()> {
        let (_, peers) = SERVICES
            .iter()
            .find(|(service, _)| *service == name)
            .with_context(|| format!("there is no service {name}"))?;
        command.arg(name);
        if name != GATEWAY {
            command.args(["--grpc-listen", address]);
        }
        for peer in peers.iter().chain([&AUTH]).filter(|peer| **peer != name) {
            let address = self.addresses.get(peer);
            let address =
                address.with_context(|| format!("{peer} was not started before {name}"))?;
            command.args(["--peer", &format!("{peer}={address}")]);
        }
        Ok(())
    }

    /// Moves the clocks of all processes: so many seconds ahead of the machine's. Seen within 50 ms.
    pub fn set_clock(&self, wall_secs: i64, ledger_secs: i64) -> anyhow::Result<()> {
        let file = self.clock_file();
        let fresh = file.with_extension("new");
        let offsets = json!({"wall": wall_secs, "ledger": ledger_secs});
        fs::write(&fresh, offsets.to_string())?;
        fs::rename(&fresh, &file)?;
        Ok(())
    }

    /// Has the books audited, and fails when anything is wrong.
    pub fn audit_is_clean(&self) -> anyhow::Result<()> {
        let audit = self.operator()?.audit()?;
        ensure!(audit.clean, "audit: {}", json!(audit.findings));
        Ok(())
    }

    /// A service's schema under the role that owns it: for reading what no API tells, and for breaking what no service
    /// would.
    pub async fn book(&self, schema: &str) -> anyhow::Result<PgConnection> {
        let role = format!("{schema}_owner");
        let url = match &self.installation {
            Some(installation) => installation.url(&role),
            None => embedded_url(&self.data_dir(WHOLE), &role)?,
        };
        PgConnection::connect(&url)
            .await
            .with_context(|| format!("open the book of {schema}"))
    }

    /// The services there are.
    pub fn services(&self) -> impl Iterator<Item = &'static str> {
        SERVICES.iter().map(|(name, _)| *name)
    }

    /// Every schema that [`book`](Self::book) opens: the services', the sandbox provider's and the bus's.
    pub fn schemas(&self) -> impl Iterator<Item = &'static str> {
        self.services().chain([PROVIDER, BUS])
    }

    /// The last lines of every process's log.
    pub fn logs(&self) -> String {
        let logs = self.servers.keys().map(|name| {
            let tail = log_tail(&self.folder, name);
            format!("--- {name}\n{tail}\n")
        });
        logs.collect()
    }

    /// All that every process ever logged.
    pub fn whole_logs(&self) -> String {
        let names = self.servers.keys();
        names.map(|name| log_text(&self.folder, name)).collect()
    }

    /// What the metrics of every process say.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        let mut told = String::new();
        for server in self.servers.values() {
            let metrics = Door::new(&server.ready.internal).get("/metrics").await?;
            told.push_str(&String::from_utf8_lossy(&metrics.bytes));
        }
        Ok(told)
    }

    /// Who runs the binary's other commands on this installation.
    pub fn operator(&self) -> anyhow::Result<Operator> {
        self.operator_of(self.process_of(GATEWAY))
    }

    fn operator_of(&self, process: &str) -> anyhow::Result<Operator> {
        Ok(Operator::of(&self.data_dir(process))?.with(&self.environment))
    }

    fn process_of(&self, service: &'static str) -> &'static str {
        match self.topology {
            Topology::AllInOne => WHOLE,
            Topology::EachAlone => service,
        }
    }

    /// The data folder of the process that a service runs in.
    pub fn data_dir_of(&self, service: &'static str) -> PathBuf {
        self.data_dir(self.process_of(service))
    }

    fn data_dir(&self, process: &str) -> PathBuf {
        self.folder.join(process)
    }

    fn clock_file(&self) -> PathBuf {
        self.folder.join("clock.json")
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        self.servers.clear();
        drop(self.undertaker.stdin.take());
        self.undertaker.wait().ok();
    }
}

impl Sandbox {
    /// Writes the logs' ends where a failing test shows them.
    #[expect(
        clippy::print_stderr,
        reason = "a failing test shows what the processes said"
    )]
    pub fn show_logs(&self) {
        eprintln!("{}", self.logs());
    }
}

/// Posts until it is answered: passwords are slow on purpose, and a busy machine says come back.
async fn answered(door: &Door, path: &str, body: &Value) -> anyhow::Result<Answer> {
    let limit = Duration::from_secs(ANSWER_MAX_SECS);
    wait::until(&format!("an answer to POST {path}"), limit, async || {
        let answer = door.post_without_key(path, body).await?;
        Ok((answer.status != 503).then_some(answer))
    })
    .await
}

fn address_of(url: &str) -> &str {
    url.strip_prefix("http://").unwrap_or(url)
}

fn free_address() -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("take a free port")?;
    Ok(listener.local_addr()?.to_string())
}

/// The address of the PostgreSQL that runs on a data folder, by what it wrote beside its files.
fn embedded_url(data_dir: &Path, role: &str) -> anyhow::Result<String> {
    let file = postmaster_file(data_dir)
        .with_context(|| format!("no PostgreSQL runs on {}", data_dir.display()))?;
    let text = fs::read_to_string(&file)?;
    let lines: Vec<&str> = text.lines().collect();
    let [_, _, _, port, socket, ..] = lines.as_slice() else {
        bail!("{} is {text:?}", file.display());
    };
    Ok(format!(
        "postgres://{role}@localhost:{port}/holdfast?host={socket}"
    ))
}

fn postmaster_file(folder: &Path) -> Option<PathBuf> {
    let folders = fs::read_dir(folder).ok()?;
    let files = folders
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("postmaster.pid"));
    files.into_iter().find(|file| file.is_file())
}
