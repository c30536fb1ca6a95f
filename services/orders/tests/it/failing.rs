//! What breaks: lines, processes, workers. Each step, on the way there and on the way back.

use holdfast_proto::{orders::v1::OrderStatus, payments::v1::PaymentStatus};
use tonic::Code;

use crate::{
    line::{Break, Line},
    world::{LEASE_SECS, World, new_key, order_of, reason},
};

/// The commands of a purchase that succeeds, and of one that is undone, with whom they go to.
const FORWARD: [(&str, &str); 3] = [
    ("till", "authorize"),
    ("ledger", "commit"),
    ("till", "capture"),
];
const BACKWARD: [(&str, &str); 2] = [("ledger", "return"), ("till", "capture")];

#[tokio::test]
async fn a_command_that_fails_for_now_is_asked_again_until_it_is_done() {
    for (peer, command) in FORWARD {
        for how in [Break::OnTheWay, Break::OnTheWayBack] {
            let world = World::new().await;
            line(&world, peer).breaks_often(command, how, 3);
            let key = new_key();
            // The clock stands still while the call waits, so the next try may come after its answer.
            world
                .buy_again(&key, &[("TSHIRT", 2)], "ok")
                .await
                .expect("on its way");
            world.becomes(&order_of(&key), OrderStatus::Confirmed).await;
            world.rests().await;
            world.is_sound().await;
        }
    }
}

#[tokio::test]
async fn undoing_that_fails_for_now_is_asked_again_until_all_is_undone() {
    for (peer, command) in BACKWARD {
        for how in [Break::OnTheWay, Break::OnTheWayBack] {
            let world = World::answering_within(100).await;
            line(&world, peer).breaks_often(command, how, 3);
            let key = new_key();
            world
                .buy_again(&key, &[("TSHIRT", 2)], "capture_fails")
                .await
                .ok();
            world
                .becomes(&order_of(&key), OrderStatus::PaymentFailed)
                .await;
            world.rests().await;
            world.is_sound().await;
        }
    }
    for (peer, command) in [("till", "void"), ("ledger", "release")] {
        for how in [Break::OnTheWay, Break::OnTheWayBack] {
            let world = World::answering_within(100).await;
            let order = world
                .bought(&[("TSHIRT", 2)], "challenge", OrderStatus::AwaitingPayment)
                .await;
            line(&world, peer).breaks_often(command, how, 3);
            world.cancel(&order).await.expect("asked");
            world.becomes(&order, OrderStatus::Cancelled).await;
            world.rests().await;
            world.is_sound().await;
        }
    }
}

#[tokio::test]
async fn a_purchase_whose_process_is_killed_at_any_command_is_confirmed_by_the_next() {
    for (peer, command) in FORWARD {
        for how in [Break::HangsOnTheWay, Break::HangsOnTheWayBack] {
            let mut world = World::answering_within(100).await;
            let line = line(&world, peer);
            line.breaks(command, how);
            let key = new_key();
            let buying = world.start_buying(&key, &[("TSHIRT", 2)], "ok");
            line.hangs().await;
            world.kill_and_restart().await;
            drop(buying);
            world.becomes(&order_of(&key), OrderStatus::Confirmed).await;
            world.rests().await;
            world.is_sound().await;
        }
    }
}

#[tokio::test]
async fn an_undoing_whose_process_is_killed_at_any_command_is_finished_by_the_next() {
    for command in ["return", "capture"] {
        for how in [Break::HangsOnTheWay, Break::HangsOnTheWayBack] {
            let mut world = World::answering_within(100).await;
            let line = line(
                &world,
                if command == "return" {
                    "ledger"
                } else {
                    "till"
                },
            );
            line.breaks(command, how);
            let key = new_key();
            let buying = world.start_buying(&key, &[("TSHIRT", 2)], "capture_fails");
            line.hangs().await;
            world.kill_and_restart().await;
            drop(buying);
            world
                .becomes(&order_of(&key), OrderStatus::PaymentFailed)
                .await;
            world.rests().await;
            world.is_sound().await;
        }
    }
    for (peer, command) in [("till", "void"), ("ledger", "release")] {
        for how in [Break::HangsOnTheWay, Break::HangsOnTheWayBack] {
            let mut world = World::answering_within(50).await;
            let order = world
                .bought(&[("TSHIRT", 2)], "challenge", OrderStatus::AwaitingPayment)
                .await;
            let line = line(&world, peer);
            line.breaks(command, how);
            world.cancel(&order).await.expect("asked");
            line.hangs().await;
            world.kill_and_restart().await;
            world.becomes(&order, OrderStatus::Cancelled).await;
            world.rests().await;
            world.is_sound().await;
        }
    }
}

#[tokio::test]
async fn a_refund_whose_process_is_killed_at_any_command_is_finished_by_the_next() {
    for (peer, command) in [("till", "refund"), ("ledger", "return")] {
        for how in [Break::HangsOnTheWay, Break::HangsOnTheWayBack] {
            let mut world = World::answering_within(50).await;
            let order = world
                .bought(&[("TSHIRT", 2)], "ok", OrderStatus::Confirmed)
                .await;
            let line = line(&world, peer);
            line.breaks(command, how);
            world
                .refund(&order, &[("TSHIRT", 1)], None)
                .await
                .expect("asked");
            line.hangs().await;
            world.kill_and_restart().await;
            world.becomes(&order, OrderStatus::PartiallyRefunded).await;
            world.rests().await;
            world.is_sound().await;
        }
    }
}

#[tokio::test]
async fn a_crash_between_reserve_and_record_is_gone_on_with_by_the_same_request() {
    for how in [Break::HangsOnTheWay, Break::HangsOnTheWayBack] {
        let mut world = World::new().await;
        world.ledger.line.breaks("reserve", how);
        let key = new_key();
        let buying = world.start_buying(&key, &[("TSHIRT", 2)], "ok");
        world.ledger.line.hangs().await;
        world.kill_and_restart().await;
        drop(buying);
        assert!(world.find(&order_of(&key)).await.is_none());
        let order = world
            .buy_again(&key, &[("TSHIRT", 2)], "ok")
            .await
            .expect("bought");
        assert_eq!(order.status(), OrderStatus::Confirmed);
        assert_eq!(world.ledger.holds(), 1);
        world.is_sound().await;
    }
}

#[tokio::test]
async fn the_same_request_after_its_hold_ended_unrecorded_is_an_order_that_expired() {
    let mut world = World::new().await;
    world
        .ledger
        .line
        .breaks("reserve", Break::HangsOnTheWayBack);
    let key = new_key();
    let buying = world.start_buying(&key, &[("TSHIRT", 2)], "ok");
    world.ledger.line.hangs().await;
    world.kill_and_restart().await;
    drop(buying);
    world.pass(3_000);
    for _ in 0..2 {
        let order = world
            .buy_again(&key, &[("TSHIRT", 2)], "ok")
            .await
            .expect("an answer");
        assert_eq!(order.status(), OrderStatus::Expired);
    }
    assert_eq!(world.announced().await, ["created v1", "expired v2"]);
    assert_eq!(world.till.payments(), 0);
    world.rests().await;
    world.is_sound().await;
}

#[tokio::test]
async fn the_same_request_many_times_at_once_is_one_purchase() {
    let world = World::new().await;
    let key = new_key();
    let clicks: Vec<_> = (0..8)
        .map(|_| world.start_buying(&key, &[("TSHIRT", 2)], "ok"))
        .collect();
    for click in clicks {
        let order = click.await.expect("it lives").expect("bought");
        assert_eq!(
            (order.id.as_str(), order.status()),
            (order_of(&key).as_str(), OrderStatus::Confirmed)
        );
    }
    assert_eq!((world.till.payments(), world.ledger.holds()), (1, 1));
    assert_eq!(
        world.announced().await,
        ["created v1", "paid v2", "confirmed v3"]
    );
    world.rests().await;
    world.is_sound().await;
}

#[tokio::test]
async fn another_body_under_the_same_key_is_refused_and_nothing_is_done() {
    let world = World::new().await;
    let key = new_key();
    world
        .buy_again(&key, &[("TSHIRT", 2)], "ok")
        .await
        .expect("bought");
    let refused = world
        .buy_again(&key, &[("TSHIRT", 3)], "ok")
        .await
        .expect_err("another body");
    assert_eq!(
        (reason(&refused).as_str(), refused.code()),
        ("IDEMPOTENCY_KEY_REUSED", Code::InvalidArgument)
    );
    assert_eq!(world.ledger.pool("TSHIRT").sold, 2);
    world.is_sound().await;
}

#[tokio::test]
async fn the_last_units_go_to_one_basket_whole_or_not_at_all() {
    let world = World::new().await;
    let baskets: Vec<_> = (0..6)
        .map(|_| world.start_buying(&new_key(), &[("TSHIRT", 3), ("MUG", 2)], "ok"))
        .collect();
    let mut refused = 0;
    for basket in baskets {
        if let Err(status) = basket.await.expect("it lives") {
            assert_eq!(reason(&status), "OUT_OF_STOCK");
            refused += 1;
        }
    }
    assert_eq!(refused, 3, "ten shirts are three baskets of three");
    world.rests().await;
    world.is_sound().await;
}

#[tokio::test]
async fn a_worker_whose_purchase_was_taken_over_can_do_nothing_any_more() {
    let world = World::answering_within(50).await;
    let line = world.till.line.clone();
    // The first worker hears of its authorization only after the second one has the purchase.
    line.breaks("authorize", Break::Paused);
    let key = new_key();
    let buying = world.start_buying(&key, &[("TSHIRT", 2)], "ok");
    line.hangs().await;
    world.pass(LEASE_SECS + 1);
    let second = world.another_process().await;
    world.becomes(&order_of(&key), OrderStatus::Confirmed).await;
    let commits = world.ledger.line.count("commit");
    line.go_on();
    buying.await.expect("it lives").ok();
    world.work_ends().await;
    second.ask_to_end();
    assert_eq!(
        world.ledger.line.count("commit"),
        commits,
        "it looked before it went on"
    );
    let order = world.order(&order_of(&key)).await;
    assert_eq!((order.status(), order.version), (OrderStatus::Confirmed, 3));
    world.rests().await;
    world.is_sound().await;
}

#[tokio::test]
async fn an_old_workers_command_is_refused_by_the_peer_and_its_writes_by_the_database() {
    let world = World::answering_within(50).await;
    // Past its last look: the command itself is on its way when the second worker takes over.
    let line = world.till.line.clone();
    line.breaks("capture", Break::PausedOnTheWay);
    let key = new_key();
    let buying = world.start_buying(&key, &[("TSHIRT", 2)], "capture_fails");
    line.hangs().await;
    world.pass(LEASE_SECS + 1);
    let second = world.another_process().await;
    world
        .becomes(&order_of(&key), OrderStatus::PaymentFailed)
        .await;
    line.go_on();
    buying.await.expect("it lives").ok();
    world
        .until("the first worker is through", async || {
            (line.paused() == 0).then_some(())
        })
        .await;
    second.ask_to_end();
    world.rests().await;
    assert_eq!(
        world.order(&order_of(&key)).await.status(),
        OrderStatus::PaymentFailed
    );
    assert_eq!(world.till.money(&order_of(&key)).0, 0);
    world.is_sound().await;
}

#[tokio::test]
async fn two_workers_at_the_same_time_carry_out_every_purchase_once() {
    let world = World::answering_within(50).await;
    let second = world.another_process().await;
    let mut orders = Vec::new();
    for _ in 0..10 {
        let order = world
            .bought(&[("TSHIRT", 1)], "challenge", OrderStatus::AwaitingPayment)
            .await;
        orders.push(order);
    }
    for order in &orders {
        world.provider_says(order, PaymentStatus::Authorized).await;
    }
    for order in &orders {
        let order = world.becomes(order, OrderStatus::Confirmed).await;
        assert_eq!(order.version, 4);
    }
    world.rests().await;
    second.ask_to_end();
    world.is_sound().await;
}

#[tokio::test]
async fn a_step_that_fails_fifty_times_is_raised_and_goes_on_when_it_can() {
    let world = World::with("lease_secs", 1_000_000).await;
    let order = world
        .bought(&[("TSHIRT", 2)], "challenge", OrderStatus::AwaitingPayment)
        .await;
    world
        .ledger
        .line
        .breaks_often("release", Break::OnTheWay, 50);
    world.cancel(&order).await.expect("asked");
    world.becomes_in_time("needs_attention").await;
    assert_eq!(world.ledger.line.count("release"), 50);
    world
        .hears("holdfast.payments", "payment.voided", "pay_", &order)
        .await;
    world.becomes_in_time("cancelled").await;
    assert_eq!(
        world.announced().await,
        [
            "created v1",
            "awaiting_payment v2",
            "needs_attention v3",
            "cancelled v4"
        ]
    );
    world.is_sound().await;
}

#[tokio::test]
async fn the_run_time_role_cannot_rewrite_an_orders_history() {
    let world = World::new().await;
    world.buy(&[("TSHIRT", 1)], "ok").await.expect("bought");
    for rewriting in [
        "UPDATE order_event SET new_value = 'refunded'",
        "DELETE FROM order_event",
        "TRUNCATE order_event",
    ] {
        let refused = sqlx::query(rewriting).execute(&world.db.app()).await;
        let refused = refused.expect_err(rewriting).to_string();
        assert!(
            refused.contains("permission denied"),
            "{rewriting}: {refused}"
        );
    }
}

#[tokio::test]
async fn a_purchase_that_succeeds_writes_in_two_transactions() {
    let world = World::new().await;
    for statement in [
        "CREATE TABLE seen (xid xid8 PRIMARY KEY)",
        "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
         $$ BEGIN INSERT INTO seen VALUES (pg_current_xact_id()) ON CONFLICT DO NOTHING; RETURN NULL; END $$",
        "CREATE TRIGGER see AFTER INSERT OR UPDATE OR DELETE ON orders EXECUTE FUNCTION see()",
        "CREATE TRIGGER see AFTER INSERT OR UPDATE OR DELETE ON order_item EXECUTE FUNCTION see()",
        "CREATE TRIGGER see AFTER INSERT OR UPDATE OR DELETE ON order_event EXECUTE FUNCTION see()",
        "CREATE TRIGGER see AFTER INSERT OR UPDATE OR DELETE ON saga EXECUTE FUNCTION see()",
        "CREATE TRIGGER see AFTER INSERT OR UPDATE OR DELETE ON refund EXECUTE FUNCTION see()",
        "CREATE TRIGGER see AFTER INSERT OR UPDATE OR DELETE ON outbox EXECUTE FUNCTION see()",
    ] {
        sqlx::query(statement).execute(&world.db.owner()).await.expect(statement);
    }
    // The worker's empty looks fire statement triggers too, so it is asked to end first.
    world.work_ends().await;
    sqlx::query("DELETE FROM seen")
        .execute(&world.db.owner())
        .await
        .expect("emptied");
    world
        .buy(&[("TSHIRT", 1), ("MUG", 2)], "ok")
        .await
        .expect("bought");
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM seen")
        .fetch_one(&world.db.owner())
        .await
        .expect("counted");
    assert_eq!(count, 2, "record and confirm");
}

fn line(world: &World, peer: &str) -> Line {
    match peer {
        "till" => world.till.line.clone(),
        _ => world.ledger.line.clone(),
    }
}
