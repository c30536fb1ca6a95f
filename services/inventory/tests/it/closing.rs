//! Months of movements that are closed and dropped, and what can be proved and told after that.

use holdfast_inventory::{audit, drop_months, seal_heads};
use holdfast_kernel::Timestamp;
use holdfast_platform::{fault::Fault, identity::Role};
use holdfast_proto::{inventory::v1 as pb, page::v1::PageRequest};
use sqlx::{Executor, PgPool};
use tonic::Status;

use crate::world::{World, line};

const KEY: [u8; 32] = [7; 32];
const DAY_SECS: i64 = 24 * 60 * 60;

/// In December stock is made, and one unit each of `sku:A` and the seat are sold; a second of `sku:A` is reserved and
/// never paid. In January `sku:A` is sold once more. Then it is the fourth of March.
async fn three_months() -> (World, pb::Hold) {
    let world = World::new().await;
    world.stock("sku:A", 9).await;
    world.stock("seat:e:1", 1).await;
    let lines = vec![line("sku:A", 1), line("seat:e:1", 1)];
    let sold = world.reserve(lines).await.expect("free");
    world.commit(&sold.id).await.expect("live");
    world.reserve(vec![line("sku:A", 1)]).await.expect("free");
    // The first of January: what was reserved in the last minutes of December is written off then.
    world.pass(31 * DAY_SECS);
    let second = world.reserve(vec![line("sku:A", 8)]).await.expect("free");
    world.commit(&second.id).await.expect("live");
    world.pass(62 * DAY_SECS);
    world.stock("sku:B", 1).await;
    seal(&world).await;
    (world, sold)
}

async fn seal(world: &World) {
    let mut db = world.app().acquire().await.expect("a connection");
    seal_heads(&mut db, &KEY).await.expect("sealed");
}

/// Drops all but the running month and so many before it.
async fn drop_all_but(world: &World, months: u32) -> Vec<String> {
    let mut db = world.app().acquire().await.expect("a connection");
    drop_months(&mut db, &KEY, world.now(), months)
        .await
        .expect("it can run")
}

async fn findings(world: &World) -> Vec<String> {
    let mut db = world.owner().acquire().await.expect("a connection");
    let found = audit(&mut db, &KEY, |_| {}).await.expect("it can run");
    found
        .findings
        .into_iter()
        .map(|finding| format!("{}: {}", finding.about, finding.text))
        .collect()
}

async fn plant(pool: &PgPool, sql: &'static str) {
    let planted = pool.execute(sql).await.expect(sql);
    assert!(planted.rows_affected() > 0, "{sql}");
}

async fn months(world: &World) -> Vec<String> {
    sqlx::query_scalar("SELECT name FROM movement_month ORDER BY since")
        .fetch_all(&world.owner())
        .await
        .expect("months")
}

async fn page(world: &World, pool: &str, token: &str) -> Result<(Vec<i64>, String), Status> {
    let request = pb::ListMovementsRequest {
        pool: pool.to_owned(),
        page: Some(PageRequest {
            size: 100,
            token: token.to_owned(),
        }),
    };
    let staff = world.somebody(Role::Staff);
    let answer = world.client().list_movements(staff.ask(request)).await?;
    let answer = answer.into_inner();
    let versions = answer.movements.iter().map(|movement| movement.version);
    Ok((versions.collect(), answer.page.expect("set").next_token))
}

#[tokio::test]
async fn months_are_dropped_behind_their_closing_and_the_audit_begins_there() {
    let (world, _) = three_months().await;
    assert_eq!(findings(&world).await, [""; 0]);
    assert_eq!(drop_all_but(&world, 2).await, ["movement_2026_12"]);
    assert_eq!(findings(&world).await, [""; 0]);
    assert_eq!(drop_all_but(&world, 2).await, [""; 0]);
    assert_eq!(drop_all_but(&world, 1).await, ["movement_2027_01"]);
    assert_eq!(
        months(&world).await,
        [
            "movement_2027_02",
            "movement_2027_03",
            "movement_2027_04",
            "movement_2027_05"
        ]
    );
    assert_eq!(findings(&world).await, [""; 0]);
}

#[tokio::test]
async fn what_was_bought_in_a_dropped_month_can_be_given_back() {
    let (world, sold) = three_months().await;
    drop_all_but(&world, 1).await;
    world
        .give_back(&sold.id, vec![line("seat:e:1", 1)])
        .await
        .expect("sold");
    assert_eq!(world.pool("seat:e:1").await.available, 1);
    assert_eq!(findings(&world).await, [""; 0]);
    let next = world.reserve(vec![line("seat:e:1", 1)]).await;
    world.commit(&next.expect("free").id).await.expect("live");
    assert_eq!(findings(&world).await, [""; 0]);
}

#[tokio::test]
async fn a_month_that_is_not_closed_to_its_end_is_not_dropped() {
    let (world, _) = three_months().await;
    let before = months(&world).await;
    let refused = async || {
        let asked = world
            .app()
            .execute("SELECT drop_movement_months('2027-01-01T00:00:00Z')")
            .await;
        asked.expect_err("no closing").to_string()
    };
    assert!(refused().await.contains("pool 1 is not closed until"));
    // One movement more than was closed.
    plant(
        &world.owner(),
        "INSERT INTO closing (pool, until, version, head, capacity, held, sold, overbook, at, seal)
         SELECT pool, '2027-01-01T00:00:00Z', max(version) - (pool = 2)::int4, decode(repeat('00', 32), 'hex'), 0, 0, 0, 0, now(), ''
         FROM movement_2026_12 GROUP BY pool",
    )
    .await;
    assert!(refused().await.contains("pool 2 is not closed until"));
    assert_eq!(months(&world).await, before);
}

#[tokio::test]
async fn a_month_in_which_a_live_hold_was_born_is_not_dropped() {
    let world = World::new().await;
    world.stock("sku:A", 1).await;
    world.pass(30 * DAY_SECS);
    let mut slip = World::reserve_request(vec![line("sku:A", 1)]);
    slip.ttl = Some(holdfast_platform::wire::duration(
        std::time::Duration::from_hours(24 * 10),
    ));
    world.seller_reserves(slip).await.expect("free");
    world.pass(5 * DAY_SECS);
    world.stock("sku:B", 1).await;
    seal(&world).await;
    assert_eq!(drop_all_but(&world, 0).await, [""; 0]);
    let asked = world
        .app()
        .execute("SELECT drop_movement_months('2027-01-01T00:00:00Z')")
        .await;
    let refused = asked.expect_err("it may live").to_string();
    assert!(refused.contains("holds born before may live"), "{refused}");
    world.pass(5 * DAY_SECS);
    world.stock("sku:C", 1).await;
    seal(&world).await;
    assert_eq!(drop_all_but(&world, 0).await, ["movement_2026_12"]);
    assert_eq!(findings(&world).await, [""; 0]);
}

#[tokio::test]
async fn no_month_is_dropped_while_a_book_is_not_sound() {
    let (world, _) = three_months().await;
    let before = months(&world).await;
    plant(
        &world.owner(),
        "UPDATE movement SET actor = 'usr_mallory' WHERE pool = 2 AND version = 2",
    )
    .await;
    assert_eq!(drop_all_but(&world, 1).await, [""; 0]);
    assert_eq!(months(&world).await, before);
}

#[tokio::test]
async fn a_changed_closing_is_found() {
    let (world, _) = three_months().await;
    drop_all_but(&world, 1).await;
    plant(
        &world.owner(),
        "UPDATE closing SET sold = sold - 1 WHERE pool = 2",
    )
    .await;
    plant(
        &world.owner(),
        "UPDATE pool SET sold = sold - 1 WHERE id = 2",
    )
    .await;
    assert_eq!(
        findings(&world).await,
        ["seat:e:1: the seal of its closing until 2027-02-01T00:00:00Z is broken"]
    );
}

#[tokio::test]
async fn a_second_owner_from_a_dropped_month_is_found_in_the_sum() {
    let (world, _) = three_months().await;
    drop_all_but(&world, 1).await;
    plant(
        &world.owner(),
        "INSERT INTO hold (id, state, version, expires_at, born_at, epoch, account, reference, pools, units, returned)
         SELECT gen_random_uuid(), 2, 1, expires_at, born_at, 0, '', '', '{2}', '{1}', '{}'
         FROM hold WHERE 2 = ANY(pools)",
    )
    .await;
    let wrong = "holds own that were born before 2027-02-01T00:00:00Z";
    assert_eq!(
        findings(&world).await,
        [format!(
            "seat:e:1: its book has 0 held and -1 sold units more than {wrong}"
        )]
    );
    plant(&world.owner(), "DELETE FROM hold WHERE pools = '{2}'").await;
    assert_eq!(findings(&world).await, [""; 0]);
    plant(
        &world.owner(),
        "UPDATE hold SET state = 3 WHERE 2 = ANY(pools)",
    )
    .await;
    assert_eq!(
        findings(&world).await,
        [
            format!("sku:A: its book has 0 held and 1 sold units more than {wrong}"),
            format!("seat:e:1: its book has 0 held and 1 sold units more than {wrong}"),
        ]
    );
}

#[tokio::test]
async fn the_past_before_the_first_kept_movement_is_refused_and_not_made_up() {
    let (world, _) = three_months().await;
    let newest = page(&world, "sku:A", "").await.expect("all is kept");
    assert_eq!((newest.0.first(), newest.0.last()), (Some(&7), Some(&1)));
    assert_eq!(newest.1, "");
    drop_all_but(&world, 2).await;
    let refused = |status: Status| {
        let fault = Fault::from_status(&status);
        assert_eq!(fault.reason(), "MOVEMENTS_NOT_KEPT");
        assert_eq!(fault.figure("kept_since"), Some("2027-01-01T00:00:00Z"));
    };

    let (versions, token) = page(&world, "sku:A", "").await.expect("January is kept");
    assert_eq!(versions, [7, 6, 5]);
    refused(
        page(&world, "sku:A", &token)
            .await
            .expect_err("December is not"),
    );
    refused(
        page(&world, "seat:e:1", "")
            .await
            .expect_err("nothing is kept of it"),
    );

    let moment = |text: &str| text.parse::<Timestamp>().expect("a moment");
    let then = moment("2027-01-01T00:00:00Z");
    let seat = world.pools_at(&["seat:e:1"], then).await;
    assert_eq!(
        (seat[0].sold, seat[0].available, seat[0].version),
        (1, 0, 3)
    );
    let before = moment("2026-12-31T23:59:59Z");
    refused(
        world
            .ask_pools_at(&["seat:e:1"], before)
            .await
            .expect_err("before all"),
    );
}

#[tokio::test]
async fn the_run_time_role_cannot_drop_a_month_by_itself() {
    let (world, _) = three_months().await;
    for forbidden in [
        "DROP TABLE movement_2026_12",
        "ALTER TABLE movement DETACH PARTITION movement_2026_12",
        "TRUNCATE movement_2026_12",
        "UPDATE movement_floor SET kept_since = now()",
        "UPDATE closing SET sold = 0",
        "DELETE FROM closing",
    ] {
        let refused = world.app().execute(forbidden).await.expect_err(forbidden);
        let code = refused
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code);
        assert_eq!(code.as_deref(), Some("42501"), "{forbidden}: {refused}");
    }
}
