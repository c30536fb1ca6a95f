//! What a test may rely on when it takes a database.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use futures::FutureExt;
use holdfast_platform::database;
use holdfast_testkit::{TestDatabase, assert_statements_fit};
use sqlx::{Connection, PgConnection, PgPool, error::DatabaseError, migrate::Migrator};

static MIGRATOR: Migrator = sqlx::migrate!("./tests/migrations");

#[tokio::test]
async fn a_test_sees_no_row_of_another_test() {
    let (one, other) = tokio::join!(kitchen(), kitchen());
    fill(&one.app(), 12).await;
    assert_eq!(cookies(&one.owner()).await, Some(12));
    assert_eq!(cookies(&other.app()).await, None);
    fill(&other.app(), 7).await;
    assert_eq!(cookies(&one.app()).await, Some(12));
}

#[tokio::test]
async fn the_serving_role_writes_rows_but_changes_neither_shape_nor_history() {
    let kitchen = kitchen().await;
    fill(&kitchen.app(), 12).await;
    for refused in [
        "DROP TABLE jar",
        "ALTER TABLE jar ADD COLUMN lid boolean",
        "CREATE TABLE shelf ()",
        "CREATE TEMPORARY TABLE shelf ()",
        "TRUNCATE jar",
        "UPDATE jar_event SET label = 'other'",
        "DELETE FROM jar_event",
        "TRUNCATE jar_event",
        "UPDATE _sqlx_migrations SET success = false",
        "DELETE FROM _platform_migrations",
        "SET ROLE kitchen_owner",
        "SET ROLE postgres",
    ] {
        let error = sqlx::query(refused)
            .execute(&kitchen.app())
            .await
            .expect_err(refused);
        let code = error.as_database_error().and_then(DatabaseError::code);
        assert_eq!(code.as_deref(), Some("42501"), "{refused}: {error}");
    }
    assert_eq!(cookies(&kitchen.app()).await, Some(12));
}

#[tokio::test]
async fn a_statement_that_does_not_fit_is_told_by_its_place_and_what_the_database_says() {
    let kitchen = kitchen().await;
    let judge = async |statement: &str| {
        let folder = tempfile::tempdir().expect("a folder");
        let source = format!("fn find() {{ sqlx::query(\"{statement}\") }}");
        std::fs::write(folder.path().join("store.rs"), source).expect("written");
        let pool = kitchen.app();
        let judged = assert_statements_fit(&pool, folder.path(), |_| true);
        let judged = std::panic::AssertUnwindSafe(judged).catch_unwind().await;
        judged.map_err(|told| *told.downcast::<String>().expect("a text"))
    };
    for fits in [
        "SELECT label FROM jar WHERE cookies > $1",
        "UPDATE jar SET cookies = $1",
    ] {
        assert_eq!(judge(fits).await, Ok(()));
    }
    for (statement, said) in [
        ("SELECT lid FROM jar", "column \"lid\" does not exist"),
        ("UPDATE jar SET cookies = label", "is of type"),
        ("UPDATE jar_event SET label = $1", "permission denied"),
        ("SELECT 1; SELECT 2", "cannot insert multiple commands"),
    ] {
        let told = judge(statement).await.expect_err(statement);
        assert!(
            told.starts_with("store.rs:1: ") && told.contains(said),
            "{told}"
        );
    }
}

#[tokio::test]
async fn the_message_log_lies_beside_the_service_and_neither_sees_the_other() {
    let kitchen = kitchen().await;
    let mut bus = PgConnection::connect(&kitchen.bus_url())
        .await
        .expect("the bus has a role that serves");
    let schema: String = sqlx::query_scalar("SELECT current_schema()")
        .fetch_one(&mut bus)
        .await
        .expect("a role may ask this");
    assert_eq!(schema, "bus");
    let error = sqlx::query("SELECT label FROM kitchen.jar")
        .execute(&mut bus)
        .await
        .expect_err("schemas are closed");
    assert!(error.to_string().contains("permission denied"), "{error}");
    let error = sqlx::query("SELECT FROM bus._sqlx_migrations")
        .execute(&kitchen.owner())
        .await
        .expect_err("schemas are closed");
    assert!(error.to_string().contains("permission denied"), "{error}");
}

#[tokio::test]
async fn a_schema_is_up_to_date_when_all_its_migrations_and_no_others_were_made() {
    let kitchen = kitchen().await;
    let behind = async || {
        let schemas = [("kitchen", Some(&MIGRATOR)), ("bus", None)];
        let behind = database::not_up_to_date(&kitchen.admin_url(), &schemas).await;
        behind.expect("a superuser may ask")
    };
    assert!(behind().await.is_empty());
    for (done, undone) in [
        (
            "UPDATE _sqlx_migrations SET checksum = checksum || '\\x00'",
            "UPDATE _sqlx_migrations SET checksum = substr(checksum, 1, length(checksum) - 1)",
        ),
        (
            "UPDATE _platform_migrations SET success = version > 1",
            "UPDATE _platform_migrations SET success = true",
        ),
        (
            "INSERT INTO _sqlx_migrations SELECT 9999, 'later', now(), true, '\\x00', 0",
            "DELETE FROM _sqlx_migrations WHERE version = 9999",
        ),
        (
            "ALTER TABLE _sqlx_migrations RENAME TO elsewhere",
            "ALTER TABLE elsewhere RENAME TO _sqlx_migrations",
        ),
    ] {
        let owner = kitchen.owner();
        sqlx::query(done).execute(&owner).await.expect(done);
        assert_eq!(behind().await, ["kitchen"], "{done}");
        sqlx::query(undone).execute(&owner).await.expect(undone);
        assert!(behind().await.is_empty(), "{undone}");
    }
}

#[tokio::test]
async fn nothing_of_a_killed_test_process_is_left_running_or_lying_about() {
    let mut killed = Command::new(std::env::current_exe().expect("a test is a program"))
        .args(["--ignored", "--exact", "--nocapture", "waits_to_be_killed"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs already");
    let output = BufReader::new(killed.stdout.take().expect("asked for"));
    let folder = output
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.split_once("folder=").map(|found| found.1.to_owned()))
        .expect("it tells where its server is");
    let folder = Path::new(&folder);
    let note = std::fs::read_to_string(folder.join("data/postmaster.pid")).expect("it is up");
    let server = note.lines().next().expect("the pid comes first").to_owned();
    let server = Path::new("/proc").join(server);
    assert!(server.exists(), "the server runs before the kill");

    killed.kill().expect("it waits for this");
    killed.wait().expect("it is our child");

    // Whoever clears up is a process of its own and tells nobody when it is done: looked at again, within a bound.
    let started = Instant::now();
    while folder.exists() || server.exists() {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{folder:?} or {server:?} is still there"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

// Ignored, because alone it would wait to be killed.
#[tokio::test]
#[ignore = "is run and killed by nothing_of_a_killed_test_process_is_left_running_or_lying_about"]
async fn waits_to_be_killed() {
    let kitchen = kitchen().await;
    let url = kitchen.app_url();
    let (_, folder) = url.split_once("host=").expect("it is a socket");
    println!("folder={folder}");
    std::io::stdin().read_line(&mut String::new()).ok();
}

async fn kitchen() -> TestDatabase {
    TestDatabase::create("kitchen", &MIGRATOR).await
}

async fn fill(pool: &PgPool, cookies: i32) {
    sqlx::query("INSERT INTO jar (label, cookies) VALUES ('oat', $1)")
        .bind(cookies)
        .execute(pool)
        .await
        .expect("the serving role may write");
}

async fn cookies(pool: &PgPool) -> Option<i32> {
    sqlx::query_scalar("SELECT cookies FROM jar WHERE label = 'oat'")
        .fetch_optional(pool)
        .await
        .expect("the serving role may read")
}
