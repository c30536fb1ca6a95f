//! Workers whose purchase was taken over while they were away. Each test is decided by one check alone: of the epoch when a
//! worker looks, when it renews its lease, and when it writes.

use holdfast_proto::orders::v1::OrderStatus;
use sqlx::PgConnection;

use crate::{
    line::Break,
    world::{LEASE_SECS, World, new_key, order_of},
};

/// Somebody whose clock is ahead finds the lease over; by the old worker's own clock it is not.
async fn is_free(db: &mut PgConnection) {
    sqlx::query("UPDATE saga SET leased_until = leased_until - interval '1 hour'")
        .execute(db)
        .await
        .expect("written");
}

#[tokio::test]
async fn a_worker_finds_by_its_look_alone_that_its_purchase_is_another_ones() {
    let world = World::answering_within(50).await;
    let line = world.till.line.clone();
    line.breaks("authorize", Break::Paused);
    let key = new_key();
    let buying = world.start_buying(&key, &[("TSHIRT", 2)], "ok");
    line.hangs().await;
    is_free(&mut world.db.app().acquire().await.expect("a connection")).await;
    world.becomes(&order_of(&key), OrderStatus::Confirmed).await;
    let commits = world.ledger.line.count("commit");
    line.go_on();
    buying.await.expect("it lives").ok();
    world.work_ends().await;
    assert_eq!(world.ledger.line.count("commit"), commits);
    world.is_sound().await;
}

#[tokio::test]
async fn a_worker_whose_purchase_is_taken_over_between_its_look_and_the_renewal_of_its_lease_stops()
{
    let mut world = World::answering_within(50).await;
    let line = world.till.line.clone();
    line.breaks("authorize", Break::Paused);
    let key = new_key();
    let buying = world.start_buying(&key, &[("TSHIRT", 2)], "ok");
    line.hangs().await;
    // So little is left of the lease that the worker will ask for more.
    world.pass(LEASE_SECS - 4);
    let mut other = world.db.app().begin().await.expect("a transaction");
    sqlx::query(
        "UPDATE saga SET epoch = epoch + 1, leased_until = leased_until + interval '1 hour'",
    )
    .execute(&mut *other)
    .await
    .expect("taken over");
    line.go_on();
    // It has looked, for a look does not wait; its renewal does.
    world.until_waits("UPDATE saga SET leased_until").await;
    other.commit().await.expect("taken over");
    buying.await.expect("it lives").ok();
    world.work_ends().await;
    assert_eq!(world.ledger.line.count("commit"), 0);

    // The other one dies of it.
    is_free(&mut world.db.app().acquire().await.expect("a connection")).await;
    world.kill_and_restart().await;
    world.becomes(&order_of(&key), OrderStatus::Confirmed).await;
    world.rests().await;
    world.is_sound().await;
}

#[tokio::test]
async fn a_worker_that_was_replaced_writes_nothing_of_the_step_that_failed_it() {
    let world = World::answering_within(50).await;
    let line = world.till.line.clone();
    line.breaks("capture", Break::PausedAndLost);
    let key = new_key();
    let buying = world.start_buying(&key, &[("TSHIRT", 2)], "ok");
    line.hangs().await;
    is_free(&mut world.db.app().acquire().await.expect("a connection")).await;
    world.becomes(&order_of(&key), OrderStatus::Confirmed).await;
    world.rests().await;
    line.go_on();
    buying.await.expect("it lives").ok();
    world.work_ends().await;
    let failed_step: String = sqlx::query_scalar("SELECT failed_step FROM saga")
        .fetch_one(&world.db.app())
        .await
        .expect("a saga");
    assert_eq!(failed_step, "");
    world.rests().await;
    world.is_sound().await;
}

#[tokio::test]
async fn a_worker_whose_purchase_is_taken_over_while_its_confirmation_waits_confirms_nothing() {
    let world = World::answering_within(50).await;
    let line = world.till.line.clone();
    line.breaks("capture", Break::Paused);
    let key = new_key();
    let buying = world.start_buying(&key, &[("TSHIRT", 2)], "ok");
    line.hangs().await;
    let mut other = world.db.app().begin().await.expect("a transaction");
    sqlx::query(
        "UPDATE saga SET epoch = epoch + 1, leased_until = leased_until + interval '1 hour'",
    )
    .execute(&mut *other)
    .await
    .expect("taken over");
    line.go_on();
    world.until_waits("WITH mine").await;
    other.commit().await.expect("taken over");
    buying.await.expect("it lives").ok();
    assert_eq!(
        world.order(&order_of(&key)).await.status(),
        OrderStatus::Pending
    );
    assert_eq!(world.announced().await, ["created v1"]);

    is_free(&mut world.db.app().acquire().await.expect("a connection")).await;
    world.becomes(&order_of(&key), OrderStatus::Confirmed).await;
    world.rests().await;
    world.is_sound().await;
}
