//! What lies in the tables, and who can read it there.

use std::{fmt::Write, time::Duration};

use sqlx::PgPool;

use crate::world::World;

/// Everything that a dump of the database tells.
async fn dump(db: &PgPool) -> String {
    let dump: Option<String> = sqlx::query_scalar(
        "SELECT string_agg(line, E'\n') FROM (
            SELECT profile::text AS line FROM profile UNION ALL SELECT subject_key::text FROM subject_key
            UNION ALL SELECT envelope FROM outbox) AS lines",
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
async fn nothing_in_the_tables_tells_a_name_or_an_address() {
    let world = World::new().await;
    world
        .create_profile("ada@example.com", "Ada Lovelace")
        .await;
    world.rename("Ada King", 0).await.expect("renamed");
    let dump = dump(&world.database()).await;
    for told in ["Ada", "example.com"] {
        assert!(!dump.contains(told), "{told} in {dump}");
        let hex = hex(told);
        assert!(!dump.contains(&hex), "{told} in {dump}");
    }
    let profile = world.profile().await;
    assert_eq!(
        (profile.name.as_str(), profile.email.as_str()),
        ("Ada King", "ada@example.com")
    );
}

#[tokio::test]
async fn processes_of_the_version_before_read_what_is_written_beside_them_and_are_read() {
    let world = World::new().await;
    let beside = world
        .another(|settings| settings.plain_personal_data = true)
        .await;
    let made = beside.create_profile("ada@example.com", "Ada").await;
    let read: (String, String) = sqlx::query_as("SELECT email, name FROM profile")
        .fetch_one(&world.database())
        .await
        .expect("as the version before reads it");
    assert_eq!(read, ("ada@example.com".to_owned(), "Ada".to_owned()));
    sqlx::query("UPDATE profile SET name = 'Ada King', version = version + 1")
        .execute(&world.database())
        .await
        .expect("as the version before writes it");
    let profile = beside.profile().await;
    assert_eq!(
        (profile.name.as_str(), profile.version),
        ("Ada King", made.version + 1)
    );
}

#[tokio::test]
async fn what_lies_in_the_clear_is_sealed_by_the_first_process_that_need_not_leave_it() {
    let world = World::new().await;
    sqlx::query(
        "INSERT INTO profile (user_id, email, name, created_at, version)
         SELECT gen_random_uuid(), 'buyer-' || n || '@example.com', 'Buyer ' || n, now(), 1
         FROM generate_series(1, 1200) AS n",
    )
    .execute(&world.database())
    .await
    .expect("more than a batch, of the version before");
    let beside = world
        .another(|settings| settings.plain_personal_data = true)
        .await;
    beside.create_profile("ada@example.com", "Ada").await;
    let (one, other) = tokio::join!(world.another(|_| ()), world.another(|_| ()));
    let dump = dump(&world.database()).await;
    assert!(
        !dump.contains("example.com") && !dump.contains("Buyer"),
        "{dump}"
    );
    assert_eq!(one.profile().await.name, "Ada");
    assert_eq!(other.profile().await.email, "ada@example.com");
}

#[tokio::test]
async fn a_new_wrapping_key_takes_the_old_ones_place_and_the_sealed_texts_stay() {
    let world = World::new().await;
    world.create_profile("ada@example.com", "Ada").await;
    let sealed = || async {
        let sealed: (Vec<u8>, i32) = sqlx::query_as(
            "SELECT sealed_name, subject_key.version FROM profile JOIN subject_key ON subject = user_id",
        )
        .fetch_one(&world.database())
        .await
        .expect("sealed");
        sealed
    };
    let (before, version) = sealed().await;
    assert_eq!(version, 1);
    let rotated = world
        .another(|settings| settings.wrapping_key_version = 2)
        .await;
    let wrapped = async {
        while sealed().await.1 == 1 {
            tokio::task::yield_now().await;
        }
    };
    let bound = Duration::from_secs(10);
    tokio::time::timeout(bound, wrapped)
        .await
        .expect("wrapped anew");
    assert_eq!(sealed().await, (before, 2));
    assert_eq!(rotated.profile().await.name, "Ada");
    assert_eq!(
        world.profile().await.name,
        "Ada",
        "a process of the old version reads it too"
    );
}
