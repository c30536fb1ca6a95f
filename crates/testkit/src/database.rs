//! A database per test, cloned from one that was migrated once.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
};

use holdfast_platform::database::{self, BUS};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, PgPool, migrate::Migrator,
    postgres::PgConnectOptions,
};

use crate::server::Server;

/// Finished tests' databases that are left lying, 8 MB each: removing one makes the server write out everything, which
/// costs more than making one.
const LEFT_MAX_DATABASES: usize = 50;
/// Enough for a test to race a few tasks against each other.
const POOL_MAX_CONNECTIONS: u32 = 10;

/// A database of one test's own, which may go any time after this value: keep it as long as its pools are used.
///
/// It holds the schema of one service, migrated, and the schema of the embedded message log.
pub struct TestDatabase {
    name: String,
    service: &'static str,
    app: PgPool,
    owner: PgPool,
}

impl TestDatabase {
    /// Makes a database for `service` with everything `migrator` makes.
    ///
    /// The first call of a process starts its PostgreSQL, the first for a service migrates the template; all others copy
    /// files for about a tenth of a second.
    pub async fn create(service: &'static str, migrator: &'static Migrator) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let server = tokio::task::spawn_blocking(Server::get)
            .await
            .unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
        let template = template(server, service, migrator).await;
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        statement(
            server,
            format!("CREATE DATABASE {name} TEMPLATE {template}"),
        )
        .await;
        // Rights on a database and settings of roles in it are not cloned with it.
        prepare(&server.admin_url(&name), &[service, BUS]).await;
        let pool = async |role| {
            let url = server.url(&format!("{service}_{role}"), &name);
            database::connect(&url, POOL_MAX_CONNECTIONS)
                .await
                .expect("the clone was just made")
        };
        let (app, owner) = (pool("app").await, pool("owner").await);
        Self {
            name,
            service,
            app,
            owner,
        }
    }

    /// A pool under the role that serves requests.
    pub fn app(&self) -> PgPool {
        self.app.clone()
    }

    /// A pool under the role that owns the schema.
    pub fn owner(&self) -> PgPool {
        self.owner.clone()
    }

    /// The address under the role that serves requests.
    pub fn app_url(&self) -> String {
        Server::get().url(&format!("{}_app", self.service), &self.name)
    }

    /// The address under the role that owns the schema.
    pub fn owner_url(&self) -> String {
        Server::get().url(&format!("{}_owner", self.service), &self.name)
    }

    /// The address of the embedded message log, under the role that serves it.
    pub fn bus_url(&self) -> String {
        Server::get().url(&format!("{BUS}_app"), &self.name)
    }

    /// The address of the embedded message log, under the role that owns it.
    pub fn bus_owner_url(&self) -> String {
        Server::get().url(&format!("{BUS}_owner"), &self.name)
    }

    /// The address of this database as superuser, for what no service may do.
    pub fn admin_url(&self) -> String {
        Server::get().admin_url(&self.name)
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // Dropping cannot wait, so a thread removes what is too much.
        static REMOVER: LazyLock<mpsc::Sender<String>> = LazyLock::new(|| {
            let (sender, names) = mpsc::channel();
            thread::spawn(move || remove_beyond_bound(names));
            sender
        });
        REMOVER.send(std::mem::take(&mut self.name)).ok();
    }
}

fn remove_beyond_bound(names: mpsc::Receiver<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a thread can have a runtime");
    let mut left = VecDeque::new();
    for name in names {
        left.push_back(name);
        if left.len() > LEFT_MAX_DATABASES
            && let Some(oldest) = left.pop_front()
        {
            let drop = format!("DROP DATABASE {oldest} WITH (FORCE)");
            runtime.block_on(statement(Server::get(), drop));
        }
    }
}

/// The database that those of `service` are cloned from, made on first use.
async fn template(server: &Server, service: &'static str, migrator: &'static Migrator) -> String {
    static MADE: LazyLock<tokio::sync::Mutex<HashSet<&'static str>>> =
        LazyLock::new(tokio::sync::Mutex::default);
    let name = format!("template_{service}");
    let mut made = MADE.lock().await;
    if made.contains(service) {
        return name;
    }
    // Left over when an earlier test failed while migrating; its failure would hide behind "already exists".
    statement(server, format!("DROP DATABASE IF EXISTS {name}")).await;
    statement(server, format!("CREATE DATABASE {name}")).await;
    prepare(&server.admin_url(&name), &[service, BUS]).await;
    let owner = |schema| server.url(&format!("{schema}_owner"), &name);
    database::migrate(&owner(service), migrator)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    database::migrate_bus(&owner(BUS))
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    made.insert(service);
    name
}

pub(crate) async fn prepare(admin_url: &str, schemas: &[&str]) {
    database::prepare_schemas(admin_url, schemas)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
}

pub(crate) async fn statement(server: &Server, sql: String) {
    let options: PgConnectOptions = server
        .admin_url("postgres")
        .parse()
        .expect("we wrote the address");
    let mut connection: PgConnection = options.connect().await.expect("the server is up");
    connection
        .execute(AssertSqlSafe(sql.clone()))
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    connection.close().await.ok();
}
