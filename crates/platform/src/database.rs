//! A service's way to its PostgreSQL: the pool it queries with, the migrations of its schema, and the roles that fence it in.
//!
//! Every service owns one schema, named as the service. Two roles know it: `<service>_owner` may change its shape and
//! runs the migrations; `<service>_app` serves requests and may only read and write rows. Neither can look into the
//! schema of another service. The embedded message log is fenced in the same way under the name [`BUS`].

use std::time::Duration;

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, PgPool, Postgres,
    Transaction,
    migrate::{Migrate as _, MigrateError, Migrator},
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::fault::Fault;

/// The schema of the embedded message log.
pub const BUS: &str = "bus";

/// How long a caller waits for a connection before it is told that the database is busy or away.
pub const ACQUIRE_TIMEOUT_SECS: u64 = 1;
/// How long an unused connection is kept.
pub const IDLE_TIMEOUT_SECS: u64 = 30;
/// How long a connection may lie unused before it is tried out on being taken again.
pub const UNTRIED_MAX_SECS: u64 = 1;
/// Longest run of one statement, and longest rest of an open transaction, of a run-time connection.
pub const STATEMENT_TIMEOUT_SECS: u64 = 10;

/// A database that could not be reached, prepared or migrated.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The address is not one of PostgreSQL.
    #[error("database address is not a postgres:// URL: {0}")]
    Url(#[source] sqlx::Error),
    /// Nothing that answers as PostgreSQL could be reached there, or it refused the role.
    #[error("cannot connect to {target}: {source}")]
    Connect {
        /// Role, host and database, without the password.
        target: String,
        /// What the connection met.
        source: sqlx::Error,
    },
    /// Roles, schema or grants could not be made.
    #[error("cannot prepare schema {schema}: {source}")]
    Prepare {
        /// The schema meant.
        schema: String,
        /// What the statement met.
        source: sqlx::Error,
    },
    /// A name that cannot be a schema's.
    #[error(
        "service name is {0:?}, wanted 1 to 40 lower-case letters, digits and underscores, a letter first"
    )]
    Name(String),
    /// A migration failed, or the database was migrated by another version of the program.
    #[error("cannot migrate {target}: {source}")]
    Migrate {
        /// Role, host and database, without the password.
        target: String,
        /// Which migration, and what it met.
        source: MigrateError,
    },
}

/// The tables that every service with messages has in its own schema.
static PLATFORM_TABLES: Migrator = Migrator {
    table_name: std::borrow::Cow::Borrowed("_platform_migrations"),
    ..sqlx::migrate!("./migrations")
};

/// The tables of the embedded message log.
static BUS_TABLES: Migrator = sqlx::migrate!("./bus-migrations");

/// Opens a pool of at most `max_connections`, none of which is held when there is nothing to do.
///
/// Connects once before it returns, so that a wrong address is told at start. A caller who finds all connections taken
/// fails after [`ACQUIRE_TIMEOUT_SECS`] instead of queueing; a statement is ended after [`STATEMENT_TIMEOUT_SECS`].
pub async fn connect(url: &str, max_connections: u32) -> Result<PgPool, DatabaseError> {
    let options = options(url)?;
    let target = target(&options);
    PgPoolOptions::new()
        .max_connections(max_connections)
        .min_connections(0)
        .acquire_timeout(Duration::from_secs(ACQUIRE_TIMEOUT_SECS))
        .idle_timeout(Duration::from_secs(IDLE_TIMEOUT_SECS))
        // The pool's own test would cost a round trip on every use; a connection used a moment ago is believed.
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                Ok(meta.idle_for < Duration::from_secs(UNTRIED_MAX_SECS)
                    || connection.ping().await.is_ok())
            })
        })
        // Not as start-up options: poolers between us and the server refuse those.
        .after_connect(|connection, _| {
            Box::pin(async move {
                connection
                    .execute(AssertSqlSafe(format!(
                        "SET statement_timeout = '{STATEMENT_TIMEOUT_SECS}s'; \
                         SET idle_in_transaction_session_timeout = '{STATEMENT_TIMEOUT_SECS}s'"
                    )))
                    .await?;
                Ok(())
            })
        })
        .connect_with(options)
        .await
        .map_err(|source| DatabaseError::Connect { target, source })
}

/// A connection of the pool, for reads that need no transaction.
pub async fn acquire(pool: &PgPool) -> Result<PoolConnection<Postgres>, Fault> {
    Ok(pool.acquire().await?)
}

/// A transaction; dropping it rolls back.
pub async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>, Fault> {
    Ok(pool.begin().await?)
}

/// Makes what the transaction did true. Where it fails the outcome is unknown, and the caller asks again.
pub async fn commit(tx: Transaction<'_, Postgres>) -> Result<(), Fault> {
    Ok(tx.commit().await?)
}

/// Brings the owner's schema up to date: first the message tables every service has, then the service's own.
///
/// Safe to run by several processes at once and again at any time. Fails when the database was migrated by a version of
/// the program that this one does not know.
pub async fn migrate(owner_url: &str, service: &Migrator) -> Result<(), DatabaseError> {
    run(owner_url, &[&PLATFORM_TABLES, service]).await
}

/// Brings the schema of the embedded message log up to date.
pub async fn migrate_bus(owner_url: &str) -> Result<(), DatabaseError> {
    run(owner_url, &[&BUS_TABLES]).await
}

/// Makes the schemas `services`, two roles for each and their rights, and the extensions, as far as they are missing.
///
/// For databases that are ours: the embedded one and those of tests. Needs a superuser. Elsewhere an operator makes the
/// same by hand. Roles belong to the whole server, so databases of one server share them; the rights are per database.
pub async fn prepare_schemas(admin_url: &str, services: &[&str]) -> Result<(), DatabaseError> {
    let named = |service: &&&str| {
        service.len() <= 40
            && service.starts_with(|first: char| first.is_ascii_lowercase())
            && service
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    if let Some(unnamed) = services.iter().find(|service| !named(service)) {
        return Err(DatabaseError::Name((*unnamed).to_owned()));
    }
    let (mut connection, _) = open(admin_url).await?;
    for service in services {
        fence(&mut connection, service)
            .await
            .map_err(|source| DatabaseError::Prepare {
                schema: (*service).to_owned(),
                source,
            })?;
    }
    // The server forgets the session by itself when this fails.
    connection.close().await.ok();
    Ok(())
}

/// Those of these schemas that [`migrate`] or [`migrate_bus`] would change or refuse; the bus has no migrator of its own.
///
/// Asked on one connection, as a superuser: a start that finds all as it shall be costs a few reads, and not two sessions
/// a service.
pub async fn not_up_to_date(
    admin_url: &str,
    schemas: &[(&'static str, Option<&Migrator>)],
) -> Result<Vec<&'static str>, DatabaseError> {
    let (mut connection, target) = open(admin_url).await?;
    let mut behind = Vec::new();
    for (schema, service) in schemas {
        let migrators = match service {
            Some(service) => vec![&PLATFORM_TABLES, *service],
            None => vec![&BUS_TABLES],
        };
        for migrator in migrators {
            let is_current = is_current(&mut connection, schema, migrator).await;
            let is_current = is_current.map_err(|source| DatabaseError::Migrate {
                target: target.clone(),
                source,
            })?;
            if !is_current {
                behind.push(*schema);
                break;
            }
        }
    }
    connection.close().await.ok();
    Ok(behind)
}

async fn is_current(
    connection: &mut PgConnection,
    schema: &str,
    migrator: &Migrator,
) -> Result<bool, MigrateError> {
    let table = format!("{schema}.{}", migrator.table_name);
    let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(&table)
        .fetch_one(&mut *connection)
        .await?;
    if !exists || connection.dirty_version(&table).await?.is_some() {
        return Ok(false);
    }
    let applied = connection.list_applied_migrations(&table).await?;
    let applied = applied
        .iter()
        .map(|applied| (applied.version, &applied.checksum));
    Ok(applied.eq(migrator
        .iter()
        .map(|known| (known.version, &known.checksum))))
}

async fn fence(connection: &mut PgConnection, service: &str) -> Result<(), sqlx::Error> {
    let mut tx = connection.begin().await?;
    let database: String =
        sqlx::query_scalar("SELECT quote_ident(current_database()) FROM pg_advisory_xact_lock($1)")
            .bind(FENCE_LOCK)
            .fetch_one(&mut *tx)
            .await?;
    // The lock covers one database; another one of this server may make the same role at this moment, which is as good.
    let role = |name: &str| {
        format!(
            "DO $$ BEGIN
                IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') THEN CREATE ROLE {name} LOGIN; END IF;
             EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
             END $$;"
        )
    };
    let extensions = EXTENSIONS
        .map(|name| format!("CREATE EXTENSION IF NOT EXISTS {name} SCHEMA public;"))
        .concat();
    let statements = format!(
        "{owner} {app} {extensions}
         REVOKE ALL ON DATABASE {database} FROM PUBLIC;
         GRANT CONNECT ON DATABASE {database} TO {service}_owner, {service}_app;
         CREATE SCHEMA IF NOT EXISTS {service} AUTHORIZATION {service}_owner;
         GRANT USAGE ON SCHEMA {service} TO {service}_app;
         ALTER DEFAULT PRIVILEGES FOR ROLE {service}_owner IN SCHEMA {service}
            GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {service}_app;
         ALTER DEFAULT PRIVILEGES FOR ROLE {service}_owner IN SCHEMA {service}
            GRANT USAGE, SELECT ON SEQUENCES TO {service}_app;
         ALTER ROLE {service}_owner IN DATABASE {database} SET search_path = {service}, public;
         ALTER ROLE {service}_app IN DATABASE {database} SET search_path = {service}, public;",
        owner = role(&format!("{service}_owner")),
        app = role(&format!("{service}_app")),
    );
    tx.execute(AssertSqlSafe(statements)).await?;
    tx.commit().await
}

/// What services' tables may use besides what every server has, all of it delivered with PostgreSQL. On a server that is
/// not ours its operator makes them, or lets the owners of schemas do so by the right to create in the database.
const EXTENSIONS: [&str; 1] = ["pg_trgm"];

/// Any number, as long as it is always the same.
const FENCE_LOCK: i64 = 0x686f_6c64_6661_7374;

async fn run(owner_url: &str, migrators: &[&Migrator]) -> Result<(), DatabaseError> {
    let (mut connection, target) = open(owner_url).await?;
    for migrator in migrators {
        // On failure the connection is dropped, and with it the migrator's lock.
        migrator
            .run(&mut connection)
            .await
            .map_err(|source| DatabaseError::Migrate {
                target: target.clone(),
                source,
            })?;
        close_books(&mut connection, &migrator.table_name)
            .await
            .map_err(|source| DatabaseError::Migrate {
                target: target.clone(),
                source: source.into(),
            })?;
    }
    connection.close().await.ok();
    Ok(())
}

/// Leaves the record of what was migrated to the owner alone, whom default privileges made share it.
async fn close_books(connection: &mut PgConnection, table: &str) -> Result<(), sqlx::Error> {
    connection
        .execute(AssertSqlSafe(format!(
            "DO $$ DECLARE app name; BEGIN
                FOR app IN SELECT DISTINCT grantee::regrole FROM pg_class, aclexplode(relacl)
                    WHERE pg_class.oid = '{table}'::regclass AND grantee <> relowner LOOP
                    EXECUTE format('REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON {table} FROM %s', app);
                END LOOP;
             END $$"
        )))
        .await
        .map(drop)
}

/// A single connection without time limits: what runs on it is the program's own upkeep.
async fn open(url: &str) -> Result<(PgConnection, String), DatabaseError> {
    let options = options(url)?;
    let target = target(&options);
    match options.connect().await {
        Ok(connection) => Ok((connection, target)),
        Err(source) => Err(DatabaseError::Connect { target, source }),
    }
}

fn options(url: &str) -> Result<PgConnectOptions, DatabaseError> {
    let options: PgConnectOptions = url.parse().map_err(DatabaseError::Url)?;
    Ok(match options.get_application_name() {
        Some(_) => options,
        None => options.application_name("holdfast"),
    })
}

fn target(options: &PgConnectOptions) -> String {
    let place = match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    };
    let database = options.get_database().unwrap_or("its default database");
    format!("{database} at {place} as {}", options.get_username())
}
