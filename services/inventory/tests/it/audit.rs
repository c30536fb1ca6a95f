//! What the auditor finds: each fault planted by SQL into sound books.

use holdfast_inventory::{audit, seal_heads};
use sqlx::{AssertSqlSafe, Executor, PgPool};

use crate::world::{World, line};

const KEY: [u8; 32] = [7; 32];

/// A world with something of everything in its books.
async fn sound() -> World {
    let world = World::new().await;
    world.stock("sku:A", 9).await;
    world.stock("seat:e:1", 1).await;
    let sold = world
        .reserve(vec![line("sku:A", 3), line("seat:e:1", 1)])
        .await
        .expect("free");
    world.commit(&sold.id).await.expect("live");
    world
        .give_back(&sold.id, vec![line("sku:A", 1)])
        .await
        .expect("sold");
    world.reserve(vec![line("sku:A", 2)]).await.expect("free");
    seal_heads(&mut *connection(&world).await, &KEY)
        .await
        .expect("sealed");
    world.reserve(vec![line("sku:A", 1)]).await.expect("free");
    world
}

async fn connection(world: &World) -> sqlx::pool::PoolConnection<sqlx::Postgres> {
    world.owner().acquire().await.expect("a connection")
}

async fn plant(pool: &PgPool, sql: &str) {
    pool.execute(AssertSqlSafe(sql.to_owned()))
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn findings(world: &World) -> Vec<String> {
    let found = audit(&mut *connection(world).await, &KEY, |_| {})
        .await
        .expect("it can run");
    found
        .findings
        .into_iter()
        .map(|finding| format!("{}: {}", finding.about, finding.text))
        .collect()
}

#[tokio::test]
async fn sound_books_have_no_findings_and_all_of_them_are_read() {
    let world = sound().await;
    let mut steps = 0;
    let found = audit(&mut *connection(&world).await, &KEY, |_| steps += 1)
        .await
        .expect("it can run");
    assert_eq!(found.findings, []);
    assert_eq!((found.pools, found.movements, found.holds), (2, 9, 3));
    assert!(steps > 0);
}

#[tokio::test]
async fn a_changed_movement_is_found() {
    let world = sound().await;
    plant(
        &world.owner(),
        "UPDATE movement SET actor = 'usr_mallory' WHERE pool = 1 AND version = 3",
    )
    .await;
    let found = findings(&world).await;
    assert!(
        found.contains(&"sku:A: movement 3 was changed".to_owned()),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_missing_movement_is_found() {
    let world = sound().await;
    plant(
        &world.owner(),
        "DELETE FROM movement WHERE pool = 1 AND version = 2",
    )
    .await;
    let found = findings(&world).await;
    assert!(
        found.contains(&"sku:A: movement 2 is missing".to_owned()),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_deleted_tail_is_found_though_the_pool_was_set_back_to_fit() {
    let world = sound().await;
    plant(
        &world.owner(),
        "DELETE FROM movement WHERE pool = 1 AND version > 3",
    )
    .await;
    let found = findings(&world).await;
    assert!(
        found.contains(&"sku:A: stands at version 6, its book proves 3".to_owned()),
        "{found:?}"
    );
    // A careful thief sets everything back: only the seal is beyond him.
    plant(
        &world.owner(),
        "UPDATE pool SET version = 3, held = m.held_after, sold = m.sold_after, chain_head = m.hash
         FROM movement AS m WHERE m.pool = 1 AND m.version = 3 AND pool.id = 1;
         UPDATE hold SET returned = '{}';
         DELETE FROM hold WHERE state = 1",
    )
    .await;
    let found = findings(&world).await;
    assert_eq!(found, ["sku:A: ends at movement 3, but 5 was sealed"]);
}

#[tokio::test]
async fn a_forged_checkpoint_is_found() {
    let world = sound().await;
    plant(
        &world.owner(),
        "UPDATE checkpoint SET head = decode(repeat('00', 32), 'hex') WHERE pool = 2",
    )
    .await;
    let found = findings(&world).await;
    assert!(
        found.contains(&"seat:e:1: the seal of version 3 is broken".to_owned()),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_drifted_counter_is_found() {
    let world = sound().await;
    plant(
        &world.owner(),
        "UPDATE pool SET sold = sold + 1 WHERE key = 'sku:A'",
    )
    .await;
    let found = findings(&world).await;
    assert!(
        found
            .iter()
            .any(|text| text.starts_with("sku:A: its counters are")),
        "{found:?}"
    );
    assert!(
        found.contains(&"sku:A: 3 held and 3 sold, holds own 3 and 2".to_owned()),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_hold_without_lines_is_found() {
    let world = sound().await;
    plant(
        &world.owner(),
        "UPDATE hold SET pools = '{}', units = '{}' WHERE state = 1",
    )
    .await;
    let found = findings(&world).await;
    assert!(
        found
            .iter()
            .any(|text| text.ends_with("is Live without lines")),
        "{found:?}"
    );
}

#[tokio::test]
async fn two_owners_of_a_seat_are_found() {
    let world = sound().await;
    plant(
        &world.owner(),
        "INSERT INTO hold (id, state, version, expires_at, born_at, epoch, account, reference, pools, units, returned)
         SELECT gen_random_uuid(), 2, 1, expires_at, born_at, 0, '', '', pools, units, returned
         FROM hold WHERE state = 2",
    )
    .await;
    let found = findings(&world).await;
    assert!(
        found.contains(&"seat:e:1: 2 units have an owner, there are 1".to_owned()),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_pool_oversold_behind_the_ledgers_back_is_found() {
    let world = sound().await;
    plant(
        &world.owner(),
        "ALTER TABLE pool DROP CONSTRAINT no_oversell; UPDATE pool SET sold = 2 WHERE key = 'seat:e:1'",
    )
    .await;
    let found = findings(&world).await;
    assert!(
        found.contains(&"seat:e:1: 2 units are taken of 1".to_owned()),
        "{found:?}"
    );
}

#[tokio::test]
async fn the_database_itself_refuses_to_oversell() {
    let world = sound().await;
    let refused = world
        .owner()
        .execute("UPDATE pool SET sold = 2 WHERE key = 'seat:e:1'")
        .await;
    let refused = refused.expect_err("a check");
    let constraint = refused
        .as_database_error()
        .and_then(|error| error.constraint());
    assert_eq!(constraint, Some("no_oversell"));
}
