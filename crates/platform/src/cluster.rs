//! The embedded PostgreSQL: a server of our own on a folder of our own, for whoever has none.
//!
//! The binary starts it, watches it, starts it again when it dies, and stops it at the end. One process owns a data
//! folder at a time; a server that a killed owner left behind is stopped by the next start. Nothing is lost by a kill on
//! either side: the server writes durably, and what it acknowledged it has.
//!
//! Read in this order: [`folder`] (where everything lies and who may use it), `launch` (making and starting the server),
//! `supervisor` (keeping it up), `leftover` (processes of an earlier life), [`Secrets`].

mod folder;
mod launch;
mod leftover;
mod secrets;
mod supervisor;

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sqlx::{ConnectOptions, Connection, Executor, postgres::PgConnectOptions};

use crate::{
    database::{self, BUS, DatabaseError},
    postmaster::{self, PostmasterError, SUPERUSER},
};

pub use folder::{Closed, Moved, Placement};
pub use secrets::Secrets;
pub use supervisor::Health;

use folder::{FolderLock, Layout};
use launch::Launch;
use supervisor::Supervisor;

/// The database of all services.
const DATABASE: &str = "holdfast";
/// How long [`Cluster::attach`] waits for a server that its owner is starting.
const ATTACH_MAX_SECS: u64 = 60;
const LOOK_AGAIN_MILLIS: u64 = 20;

/// What an operator may want to set.
#[derive(Debug, Clone)]
pub struct ClusterSettings {
    /// Folder of PostgreSQL's programs; `None` looks where packages put them and along `PATH`.
    pub programs: Option<PathBuf>,
    /// Memory that the server keeps pages in, MiB.
    pub shared_buffers_mb: u32,
    /// Connections it takes, of all services together.
    pub max_connections: u32,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self {
            programs: None,
            shared_buffers_mb: 128,
            max_connections: 200,
        }
    }
}

/// Which of a service's two roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Owns the schema and migrates it.
    Owner,
    /// Serves requests: reads and writes rows.
    App,
}

/// An embedded PostgreSQL that takes connections.
///
/// To be ended by [`Cluster::stop`]. Dropping it asks the server to end and does not wait.
#[derive(Debug)]
pub struct Cluster {
    socket_dir: PathBuf,
    /// `None`: another process owns the server.
    supervisor: Option<Supervisor>,
}

/// Why there is no embedded PostgreSQL.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// PostgreSQL is not there, or a program of it failed.
    #[error(transparent)]
    Postmaster(#[from] PostmasterError),
    /// Another process works on the folder.
    #[error(
        "data folder {} is in use by {}; stop it or name another folder",
        .folder.display(),
        .pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    InUse {
        /// The data folder.
        folder: PathBuf,
        /// Who holds it, as far as it said.
        pid: Option<u32>,
    },
    /// The server's account cannot get there.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The folder was made by a PostgreSQL that is not installed.
    #[error(
        "data folder {} was made by PostgreSQL {its} and installed is {installed}; install PostgreSQL {its} or name another folder",
        .folder.display()
    )]
    ForeignVersion {
        /// The data folder.
        folder: PathBuf,
        /// The version that made it.
        its: String,
        /// The newest one here.
        installed: u32,
    },
    /// The folder belongs to an account that the server cannot run under.
    #[error(
        "{} belongs to user {owner} and PostgreSQL would run as user {wanted}; start as the user who made it or name another folder",
        .folder.display()
    )]
    ForeignOwner {
        /// The folder of the server's files, or of its socket.
        folder: PathBuf,
        /// The user id it belongs to.
        owner: u32,
        /// The user id it has to belong to.
        wanted: u32,
    },
    /// The place of the socket is something else than a folder closed to others.
    #[error("{} is no folder closed to other users, so no socket is put there; remove it", .folder.display())]
    SocketFolder {
        /// The place.
        folder: PathBuf,
    },
    /// There is nothing to attach to.
    #[error("data folder {} holds no database; start the server once", .folder.display())]
    Empty {
        /// The data folder.
        folder: PathBuf,
    },
    /// The server ended instead of taking connections, or did not come up in time.
    #[error("PostgreSQL did not start: {output}")]
    Start {
        /// The end of its log.
        output: String,
    },
    /// The server came up and then refused what it needs to be asked.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A secret of the folder is damaged or open to others.
    #[error("{}: {text}", .file.display())]
    Secret {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        text: &'static str,
    },
    /// The file system refused.
    #[error("cannot {doing} {}: {source}", .path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

impl Cluster {
    /// Starts the server of `data_dir`, making the folder and the database when they are missing.
    ///
    /// Refuses a folder that another process has, that another major version of PostgreSQL made, or that the server's
    /// account cannot reach. A server left behind by a killed owner is stopped first. From then on the server is started
    /// again whenever it dies; [`Cluster::health`] tells how it is.
    pub async fn start(data_dir: &Path, settings: &ClusterSettings) -> Result<Self, ClusterError> {
        let layout = Layout::create(data_dir)?;
        let lock = FolderLock::take(&layout)?;
        Self::own(layout, lock, settings).await
    }

    /// Uses the server of `data_dir` if its owner runs it, else starts it until [`Cluster::stop`].
    ///
    /// For tools that look at the data, server up or down; makes no new database. When the owner ends, so does the server.
    pub async fn attach(data_dir: &Path, settings: &ClusterSettings) -> Result<Self, ClusterError> {
        let layout = Layout::find(data_dir)?;
        let started = Instant::now();
        loop {
            match FolderLock::take(&layout) {
                Ok(lock) => return Self::own(layout, lock, settings).await,
                Err(in_use @ ClusterError::InUse { .. }) => {
                    if layout.is_served() {
                        return Ok(Self {
                            socket_dir: layout.socket_dir,
                            supervisor: None,
                        });
                    }
                    if started.elapsed() > Duration::from_secs(ATTACH_MAX_SECS) {
                        return Err(in_use);
                    }
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(Duration::from_millis(LOOK_AGAIN_MILLIS)).await;
        }
    }

    /// Makes the schemas and roles of `services`, and those of the message log, as far as they are missing.
    pub async fn prepare(&self, services: &[&str]) -> Result<(), ClusterError> {
        let schemas: Vec<&str> = services.iter().copied().chain([BUS]).collect();
        Ok(database::prepare_schemas(&self.admin_url(), &schemas).await?)
    }

    /// The address of `service`'s schema under one of its roles.
    pub fn url(&self, service: &str, role: Role) -> String {
        let role = match role {
            Role::Owner => format!("{service}_owner"),
            Role::App => format!("{service}_app"),
        };
        postmaster::url(&self.socket_dir, &role, DATABASE)
    }

    /// The address under the superuser.
    pub fn admin_url(&self) -> String {
        postmaster::url(&self.socket_dir, SUPERUSER, DATABASE)
    }

    /// How the server is at this moment; one that another process owns is taken to be up.
    pub fn health(&self) -> Health {
        match &self.supervisor {
            Some(supervisor) => supervisor.health(),
            None => Health::Up,
        }
    }

    /// Stops the server in good order, unless it is another process's.
    ///
    /// Connections still open are cut and their transactions rolled back, so close the pools first.
    pub async fn stop(self) {
        if let Some(supervisor) = self.supervisor {
            supervisor.stop().await;
        }
    }

    async fn own(
        layout: Layout,
        lock: FolderLock,
        settings: &ClusterSettings,
    ) -> Result<Self, ClusterError> {
        let socket_dir = layout.socket_dir.clone();
        let launch = Launch::prepare(layout, settings).await?;
        let supervisor = Supervisor::start(launch, lock).await?;
        let cluster = Self {
            socket_dir,
            supervisor: Some(supervisor),
        };
        match cluster.make_database().await {
            Ok(()) => Ok(cluster),
            Err(error) => {
                cluster.stop().await;
                Err(error)
            }
        }
    }

    async fn make_database(&self) -> Result<(), ClusterError> {
        let maintenance = postmaster::url(&self.socket_dir, SUPERUSER, "postgres");
        let refused = |source| {
            ClusterError::Database(DatabaseError::Prepare {
                schema: DATABASE.to_owned(),
                source,
            })
        };
        let options: PgConnectOptions = maintenance.parse().map_err(refused)?;
        let mut connection = options.connect().await.map_err(refused)?;
        let exists: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
                .bind(DATABASE)
                .fetch_one(&mut connection)
                .await
                .map_err(refused)?;
        if !exists {
            connection
                .execute("CREATE DATABASE holdfast")
                .await
                .map_err(refused)?;
        }
        connection.close().await.ok();
        Ok(())
    }
}

/// Chooses the data folder: the one `given`, which is then the one used or refused, or else `.holdfast` here.
///
/// When we are root and the server's account cannot enter the default, the folder moves to the user's state directory;
/// the caller should say so. Where one of the two has a database already, it stays there.
pub fn place(given: Option<&Path>) -> Result<Placement, ClusterError> {
    folder::place(given)
}

/// Checks that the account which would run PostgreSQL can enter `data_dir`, or those of its parents that exist.
pub fn check_folder(data_dir: &Path) -> Result<(), ClusterError> {
    folder::check(data_dir)
}
