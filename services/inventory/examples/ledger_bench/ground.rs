//! The PostgreSQL that all ways stand on: a private one, started and stopped here, durable like the product's own.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use holdfast_inventory::MIGRATOR;
use holdfast_platform::{
    cluster::{Cluster, ClusterSettings, Role},
    database::{self, BUS},
    postmaster,
};
use tempfile::TempDir;
use tokio_postgres::{Client, Config, NoTls};

use crate::{cpu, load};

/// Where distributions keep what survives a restart, that is: on a disk.
const PLACE: &str = "/var/tmp";
const SERVICE: &str = "inventory";

/// A running server.
pub(crate) struct Ground {
    cluster: Cluster,
    socket_dir: PathBuf,
    port: u16,
    /// Its first process.
    pub(crate) postmaster: u32,
    pub(crate) version: String,
    databases: u32,
    _folder: TempDir,
}

/// A database for one run, with the ledger's own schema and stocked pools.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) socket_dir: PathBuf,
    pub(crate) port: u16,
}

/// What a run left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Books {
    /// Pools with more held and sold than there is.
    pub(crate) oversold: i64,
    /// Pools whose balance is not the sum of its holds, or whose book has gaps.
    pub(crate) drifted: i64,
    /// Holds neither committed nor released.
    pub(crate) live: i64,
}

impl Ground {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("holdfast-bench-")
            .tempdir_in(PLACE)
            .with_context(|| format!("make a folder in {PLACE}"))?;
        // PostgreSQL does not run as root; its account has to get through.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let cluster =
            Cluster::start(&folder.path().join("data"), &ClusterSettings::default()).await?;
        match survey(&cluster).await {
            Ok((socket_dir, port, postmaster, version)) => Ok(Self {
                cluster,
                socket_dir,
                port,
                postmaster,
                version,
                databases: 0,
                _folder: folder,
            }),
            Err(error) => {
                cluster.stop().await;
                Err(error)
            }
        }
    }

    /// A new database with so many pools of so many units each; the one before is gone.
    pub(crate) async fn field(&mut self, pools: i32, capacity: i64) -> anyhow::Result<Field> {
        let admin = connect_to(&self.cluster.admin_url()).await?;
        let before = self.databases;
        self.databases += 1;
        let name = format!("run_{}", self.databases);
        admin
            .batch_execute(&format!(
                "DROP DATABASE IF EXISTS run_{before} WITH (FORCE)"
            ))
            .await?;
        admin
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .await?;
        let field = Field {
            name,
            socket_dir: self.socket_dir.clone(),
            port: self.port,
        };
        for schema in [SERVICE, BUS] {
            database::prepare_schemas(&field.url(postmaster::SUPERUSER), &[schema]).await?;
        }
        database::migrate(&field.url("inventory_owner"), &MIGRATOR).await?;
        database::migrate_bus(&field.url("bus_owner")).await?;
        field.stock(pools, capacity).await?;
        Ok(field)
    }

    pub(crate) async fn stop(self) {
        self.cluster.stop().await;
    }
}

/// Where the server is, who it is, and what.
async fn survey(cluster: &Cluster) -> anyhow::Result<(PathBuf, u16, u32, String)> {
    let url = cluster.url(SERVICE, Role::App);
    let (_, place) = url
        .split_once("host=")
        .context("the address names a socket")?;
    let config: Config = url.parse()?;
    let port = config.get_ports().first().copied();
    let admin = connect_to(&cluster.admin_url()).await?;
    let row = admin
        .query_one(
            "SELECT pg_backend_pid(), current_setting('server_version'),
                    current_setting('fsync') = 'on' AND current_setting('synchronous_commit') = 'on'",
            &[],
        )
        .await?;
    anyhow::ensure!(row.get::<_, bool>(2), "the server does not write durably");
    let backend = u32::try_from(row.get::<_, i32>(0))?;
    Ok((
        PathBuf::from(place),
        port.context("the address names a port")?,
        cpu::parent(backend)?,
        row.get(1),
    ))
}

impl Field {
    /// Its address, as this role.
    pub(crate) fn url(&self, role: &str) -> String {
        postmaster::url(&self.socket_dir, role, &self.name)
    }

    /// A connection as the ledger's run-time role.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        connect(&self.socket_dir, self.port, "inventory_app", &self.name).await
    }

    /// Messages that the log took.
    pub(crate) async fn carried(&self) -> anyhow::Result<i64> {
        let row = connect(&self.socket_dir, self.port, "bus_app", &self.name)
            .await?
            .query_one("SELECT coalesce(sum(next_offset), 0)::int8 FROM topic", &[])
            .await?;
        Ok(row.get(0))
    }

    async fn stock(&self, pools: i32, capacity: i64) -> anyhow::Result<()> {
        let client = self.connect().await?;
        let (ids, keys): (Vec<i32>, Vec<String>) =
            (1..=pools).map(|id| (id, load::key(id))).unzip();
        client
            .execute(
                "INSERT INTO pool (id, key, capacity, chain_head)
                 SELECT id, key, $3, decode(repeat('00', 32), 'hex') FROM unnest($1::int4[], $2::text[]) AS b (id, key)",
                &[&ids, &keys, &capacity],
            )
            .await?;
        client
            .execute("SELECT make_movement_partitions(now())", &[])
            .await?;
        // What autovacuum would learn of a shop in use: otherwise the first run plans without statistics.
        connect(
            &self.socket_dir,
            self.port,
            postmaster::SUPERUSER,
            &self.name,
        )
        .await?
        .batch_execute("VACUUM ANALYZE inventory.pool")
        .await?;
        Ok(())
    }

    /// Compares balances, holds and movements with each other.
    pub(crate) async fn audit(&self) -> anyhow::Result<Books> {
        let row = self
            .connect()
            .await?
            .query_one(
                "WITH claimed AS (
                     SELECT b.pool, sum(b.units) FILTER (WHERE state = 1)::int8 AS held,
                            sum(b.units) FILTER (WHERE state = 2)::int8 AS sold
                     FROM hold, unnest(pools, units) AS b (pool, units) GROUP BY b.pool
                 ), moved AS (SELECT pool, count(*) AS movements, max(version) AS version FROM movement GROUP BY pool)
                 SELECT count(*) FILTER (WHERE pool.held + pool.sold + blocked > capacity + overbook),
                        count(*) FILTER (WHERE pool.held <> coalesce(claimed.held, 0) OR pool.sold <> coalesce(claimed.sold, 0)
                                            OR pool.version <> coalesce(movements, 0)
                                            OR pool.version <> coalesce(moved.version, 0)),
                        (SELECT count(*) FROM hold WHERE state = 1)
                 FROM pool LEFT JOIN claimed ON claimed.pool = pool.id LEFT JOIN moved ON moved.pool = pool.id",
                &[],
            )
            .await?;
        Ok(Books {
            oversold: row.get(0),
            drifted: row.get(1),
            live: row.get(2),
        })
    }
}

async fn connect_to(url: &str) -> anyhow::Result<Client> {
    let config: Config = url.parse()?;
    let (_, place) = url
        .split_once("host=")
        .context("the address names a socket")?;
    let port = config.get_ports().first().copied();
    connect(
        Path::new(place),
        port.context("the address names a port")?,
        config.get_user().context("the address names a role")?,
        config
            .get_dbname()
            .context("the address names a database")?,
    )
    .await
}

async fn connect(folder: &Path, port: u16, role: &str, database: &str) -> anyhow::Result<Client> {
    let mut config = Config::new();
    config
        .host_path(folder)
        .port(port)
        .user(role)
        .dbname(database);
    let (client, connection) = config
        .connect(NoTls)
        .await
        .context("connect to PostgreSQL")?;
    // Ends with the client, which is told of every failure.
    tokio::spawn(connection);
    Ok(client)
}
