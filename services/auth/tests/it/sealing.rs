//! What lies in the tables, and who can read it there.

use std::fmt::Write;

use sqlx::PgPool;

use crate::world::{ADA, ANOTHER_SECRET, PASSWORD, World};

/// Everything that a dump of the database tells of accounts.
async fn dump(db: &PgPool) -> String {
    let dump: Option<String> = sqlx::query_scalar(
        "SELECT string_agg(line, E'\n') FROM (
            SELECT account::text AS line FROM account UNION ALL SELECT subject_key::text FROM subject_key
            UNION ALL SELECT session::text FROM session UNION ALL SELECT envelope FROM outbox) AS lines",
    )
    .fetch_one(db)
    .await
    .expect("a dump");
    dump.unwrap_or_default()
}

fn hex(text: &str) -> String {
    text.bytes().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a text takes more");
        hex
    })
}

#[tokio::test]
async fn nothing_in_the_tables_tells_an_address_and_its_owner_logs_in() {
    let world = World::new().await;
    world.ada().await;
    let dump = dump(&world.database.app()).await;
    for told in [ADA, "example.com", &hex("example.com")] {
        assert!(!dump.contains(told), "{told} in {dump}");
    }
    world
        .login("ADA@example.com", PASSWORD)
        .await
        .expect("logged in");
}

#[tokio::test]
async fn an_address_written_beside_processes_of_the_version_before_is_one_account_for_all() {
    let world = World::new().await;
    let beside = world
        .another(|settings| settings.plain_personal_data = true)
        .await;
    beside.register(ADA, PASSWORD).await.expect("registered");
    let read: String = sqlx::query_scalar("SELECT email FROM account")
        .fetch_one(&world.database.app())
        .await
        .expect("as the version before reads it");
    assert_eq!(read, ADA);
    // As the version before writes one.
    sqlx::query(
        "INSERT INTO account (id, email, password_hash, role, created_at, attempt, registered_at)
         SELECT gen_random_uuid(), 'eve@example.com', password_hash, role, created_at, gen_random_uuid(), registered_at
         FROM account",
    )
    .execute(&world.database.app())
    .await
    .expect("written");
    for email in [ADA, "eve@example.com"] {
        beside.login(email, PASSWORD).await.expect("logged in");
        let refused = beside.register(email, PASSWORD).await.expect_err("taken");
        assert_eq!(refused.reason(), "EMAIL_TAKEN");
    }
}

#[tokio::test]
async fn addresses_in_the_clear_are_sealed_before_a_process_that_need_not_leave_them_serves() {
    let world = World::new().await;
    let beside = world
        .another(|settings| settings.plain_personal_data = true)
        .await;
    beside.register(ADA, PASSWORD).await.expect("registered");
    sqlx::query(
        "INSERT INTO account (id, email, password_hash, role, created_at, attempt, registered_at)
         SELECT gen_random_uuid(), 'buyer-' || n || '@example.com', password_hash, role, created_at,
            gen_random_uuid(), registered_at
         FROM account, generate_series(1, 1200) AS n",
    )
    .execute(&world.database.app())
    .await
    .expect("more than a batch, of the version before");
    let (one, other) = tokio::join!(world.another(|_| ()), world.another(|_| ()));
    assert!(!dump(&world.database.app()).await.contains("example.com"));
    one.login(ADA, PASSWORD).await.expect("logged in");
    other
        .login("buyer-1200@example.com", PASSWORD)
        .await
        .expect("logged in");
    let refused = other.register("Buyer-7@example.com", PASSWORD).await;
    assert_eq!(refused.expect_err("taken").reason(), "EMAIL_TAKEN");
}

#[tokio::test]
async fn a_new_wrapping_key_takes_the_old_ones_place_and_addresses_stay_as_they_lie() {
    let world = World::new().await;
    world.ada().await;
    let lies = || async {
        let lies: (Vec<u8>, i32) = sqlx::query_as(
            "SELECT sealed_email, version FROM account JOIN subject_key ON subject = id",
        )
        .fetch_one(&world.database.app())
        .await
        .expect("sealed");
        lies
    };
    let (before, _) = lies().await;
    let rotated = world
        .another(|settings| settings.wrapping_key_version = 2)
        .await;
    let wrapped = async {
        while lies().await.1 == 1 {
            tokio::task::yield_now().await;
        }
    };
    let bound = std::time::Duration::from_secs(10);
    tokio::time::timeout(bound, wrapped)
        .await
        .expect("wrapped anew");
    assert_eq!(lies().await, (before, 2));
    for process in [&rotated, &world] {
        process.login(ADA, PASSWORD).await.expect("logged in");
    }
}

#[tokio::test]
async fn under_another_secret_nothing_opens() {
    let world = World::new().await;
    world.ada().await;
    assert!(world.start(ANOTHER_SECRET, |_| ()).await.is_err());
}
