//! What the auditor finds: each fault planted by SQL into sound books.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::join_all;
use holdfast_inventory::{audit, domain::HoldId, seal_heads};
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

/// A world in which one was granted what he stood in line for, and another waits.
async fn with_a_line() -> World {
    let world = World::new().await;
    world.stock("sku:A", 3).await;
    world.stock("sku:B", 3).await;
    for units in [3, 4] {
        let ask = World::stand_request(vec![line("sku:A", units)]);
        world.stand(&ask).await.expect("he may stand");
    }
    world
}

#[tokio::test]
async fn a_line_that_was_served_is_clean() {
    let world = with_a_line().await;
    assert_eq!(findings(&world).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_grant_of_something_else_is_found() {
    let world = with_a_line().await;
    let lie = "UPDATE stand SET pools = ARRAY[2] WHERE NOT standing";
    plant(&world.owner(), lie).await;
    let found = findings(&world).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].ends_with("was granted what it did not stand in line for"),
        "{found:?}"
    );
}

#[tokio::test]
async fn who_was_sent_away_and_who_was_served_twice_is_found() {
    let world = with_a_line().await;
    plant(&world.owner(), "UPDATE stand SET standing = NOT standing").await;
    let found = findings(&world).await;
    let says = |end: &str| found.iter().filter(|text| text.ends_with(end)).count();
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(says("has left the line without a trace"), 1, "{found:?}");
    assert_eq!(says("stands in line and has a hold"), 1, "{found:?}");
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
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found
            .iter()
            .any(|text| text.starts_with("seat:e:1: its book knows nothing of hld_")),
        "{found:?}"
    );
}

#[tokio::test]
async fn two_owners_of_a_seat_are_found_long_after_it_was_sold() {
    let world = sound().await;
    world.pass(60);
    world.stock("sku:B", 1).await;
    let second = plant_second_owner(&world).await;
    assert_eq!(
        findings(&world).await,
        [
            format!("sku:A: its book knows nothing of {second}, which claims some of its 9 units"),
            format!(
                "seat:e:1: its book knows nothing of {second}, which claims some of its 1 units"
            ),
        ]
    );
}

#[tokio::test]
async fn a_hold_from_the_future_is_found() {
    let world = sound().await;
    plant(
        &world.owner(),
        "UPDATE hold SET born_at = born_at + interval '1 year' WHERE state = 2",
    )
    .await;
    let found = findings(&world).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].ends_with("was born later than the newest batch was written"),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_hold_that_was_taken_away_is_found() {
    let world = sound().await;
    plant(&world.owner(), "DELETE FROM hold WHERE state = 2").await;
    let found = findings(&world).await;
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found
            .iter()
            .all(|text| text.contains("its book names hld_")
                && text.ends_with("which does not exist")),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_hold_that_came_back_to_life_is_found() {
    let world = sound().await;
    world.pass(600);
    world
        .reserve(vec![line("sku:A", 7)])
        .await
        .expect("free again");
    plant(&world.owner(), "UPDATE hold SET state = 2 WHERE state = 4").await;
    let found = findings(&world).await;
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found
            .iter()
            .any(|text| text.ends_with("owns 0 held and 2 sold units, its book says 0 and 0")),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_hold_that_grew_is_found() {
    let world = sound().await;
    plant(
        &world.owner(),
        "UPDATE hold SET units = '{3}' WHERE units = '{2}'",
    )
    .await;
    let found = findings(&world).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].ends_with("claims 3 units, its book says 2"),
        "{found:?}"
    );
}

#[tokio::test]
async fn movements_behind_their_pool_and_of_no_pool_are_found() {
    let world = sound().await;
    plant(
        &world.owner(),
        "INSERT INTO movement SELECT (jsonb_populate_record(movement, jsonb_build_object('version', 7))).*
         FROM movement WHERE pool = 1 AND version = 6;
         INSERT INTO movement SELECT (jsonb_populate_record(movement, jsonb_build_object('pool', 9))).*
         FROM movement WHERE pool = 1 AND version = 1",
    )
    .await;
    assert_eq!(
        findings(&world).await,
        [
            "sku:A: the book goes further than its pool",
            "pool 9: the book goes further than its pool"
        ]
    );
}

#[tokio::test]
async fn an_audit_in_the_midst_of_a_storm_is_clean() {
    let world = sound().await;
    world.stock("ga:e:standing", 100_000).await;
    let over = AtomicBool::new(false);
    let storm = async {
        let buyer = async || {
            while !over.load(Ordering::Relaxed) {
                world.pass(1);
                let lines = vec![line("ga:e:standing", 2)];
                let hold = world.reserve(lines).await.expect("enough for all");
                world.commit(&hold.id).await.expect("live");
                let back = vec![line("ga:e:standing", 1)];
                world.give_back(&hold.id, back).await.expect("sold");
            }
        };
        join_all((0..4).map(|_| buyer())).await;
    };
    let audits = async {
        let mut read = Vec::new();
        while read.len() < 5 {
            let found = audit(&mut *connection(&world).await, &KEY, |_| {}).await;
            let found = found.expect("it can run");
            assert_eq!(found.findings, []);
            // Only what went on during an audit shows that it is right then.
            if read.last().is_none_or(|last| *last < found.movements) {
                read.push(found.movements);
            }
        }
        over.store(true, Ordering::Relaxed);
    };
    futures::join!(storm, audits);
    assert_eq!(findings(&world).await, [""; 0]);
}

#[tokio::test]
async fn an_audit_reads_no_table_from_end_to_end() {
    let world = sound().await;
    let mut db = connection(&world).await;
    // In tables as small as these reading all is quickest; a scan that is left has no index to go by.
    db.execute("SET enable_seqscan = off").await.expect("set");
    let scans = async || -> i64 {
        sqlx::query_scalar(
            "SELECT sum(seq_scan)::int8 FROM pg_stat_user_tables
             WHERE schemaname = 'inventory' AND (relname LIKE 'movement_2%' OR relname IN ('hold', 'pool', 'checkpoint'))",
        )
        .fetch_one(&world.owner())
        .await
        .expect("statistics")
    };
    db.execute("SELECT pg_stat_force_next_flush()")
        .await
        .expect("told");
    let before = scans().await;
    audit(&mut db, &KEY, |_| {}).await.expect("it can run");
    db.execute("SELECT pg_stat_force_next_flush()")
        .await
        .expect("told");
    assert_eq!(scans().await, before);
    db.execute("SELECT count(*) FROM hold WHERE units = '{3}'")
        .await
        .expect("a scan");
    db.execute("SELECT pg_stat_force_next_flush()")
        .await
        .expect("told");
    assert!(scans().await > before, "a scan is counted");
}

/// Gives the seat that was sold to somebody else too, and names him.
async fn plant_second_owner(world: &World) -> HoldId {
    let id: uuid::Uuid = sqlx::query_scalar(
        "INSERT INTO hold (id, state, version, expires_at, born_at, epoch, account, reference, pools, units, returned)
         SELECT gen_random_uuid(), 2, 1, expires_at, born_at, 0, '', '', pools, units, returned
         FROM hold WHERE state = 2 RETURNING id",
    )
    .fetch_one(&world.owner())
    .await
    .expect("planted");
    HoldId::new(id)
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
