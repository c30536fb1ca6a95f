//! Cancelling and refunding.

use holdfast_platform::fault::Fault;
use holdfast_proto::{orders::v1::OrderStatus, payments::v1::PaymentStatus};
use tonic::Code;

use crate::{
    line::Break,
    world::{PRICE, World, new_key, order_of, reason},
};

#[tokio::test]
async fn cancelling_an_order_that_waits_for_its_customer_frees_the_units_and_ends_the_payment() {
    let (world, order) = World::where_bought("challenge").await;
    let cancelled = world.cancel(&order.id).await.expect("cancelled");
    assert_eq!(cancelled.status(), OrderStatus::Cancelled);
    assert_eq!(world.till.status(&order.id), PaymentStatus::Voided);
    world.rests().await;
    world.is_sound().await;
}

#[tokio::test]
async fn cancelling_a_captured_order_ends_refunded_with_the_units_back_in_stock() {
    let (world, order) = World::where_bought("ok").await;
    let key = new_key();
    for _ in 0..2 {
        let refunded = world
            .cancel_again(&key, &order.id, "too large")
            .await
            .expect("cancelled");
        assert_eq!(refunded.status(), OrderStatus::Refunded);
        assert_eq!(refunded.refunded, refunded.total);
    }
    assert_eq!(
        world.announced().await,
        [
            "created v1",
            "paid v2",
            "confirmed v3",
            "cancelled v4",
            "refunded v5"
        ]
    );
    world.rests().await;
    world.is_sound().await;
}

#[tokio::test]
async fn cancelling_twice_is_cancelling_once_and_another_body_under_the_same_key_is_refused() {
    let (world, order) = World::where_bought("challenge").await;
    let key = new_key();
    let first = world
        .cancel_again(&key, &order.id, "a")
        .await
        .expect("cancelled");
    assert_eq!(
        world
            .cancel_again(&key, &order.id, "a")
            .await
            .expect("again"),
        first
    );
    assert_eq!(
        world.cancel(&order.id).await.expect("by another key"),
        first
    );
    let refused = world
        .cancel_again(&key, &order.id, "b")
        .await
        .expect_err("another body");
    assert_eq!(reason(&refused), "IDEMPOTENCY_KEY_REUSED");
}

#[tokio::test]
async fn an_order_that_failed_cannot_be_cancelled_and_the_refusal_names_both_states() {
    let world = World::new().await;
    let key = new_key();
    world
        .buy_again(&key, &[("TSHIRT", 2)], "declined")
        .await
        .expect_err("declined");
    let refused = world.cancel(&order_of(&key)).await.expect_err("over");
    let fault = Fault::from_status(&refused);
    assert_eq!(fault.reason(), "INVALID_TRANSITION");
    assert_eq!(
        (fault.figure("from"), fault.figure("to")),
        (Some("payment_failed"), Some("cancelled"))
    );
}

#[tokio::test]
async fn a_wish_to_cancel_is_heeded_at_each_step_it_can_arrive_at() {
    // While this command is on its way, the customer cancels.
    for (peer, command, money_moved) in [
        ("till", "authorize", false),
        ("ledger", "commit", false),
        ("till", "capture", true),
    ] {
        let mut world = World::answering_within(100).await;
        let line = if peer == "till" {
            world.till.line.clone()
        } else {
            world.ledger.line.clone()
        };
        line.breaks(command, Break::HangsOnTheWayBack);
        let key = new_key();
        let buying = world.start_buying(&key, &[("TSHIRT", 2)], "ok");
        line.hangs().await;
        let order = order_of(&key);
        world.cancel(&order).await.expect("asked");
        world.kill_and_restart().await;
        drop(buying);
        let ends = if money_moved {
            OrderStatus::Refunded
        } else {
            OrderStatus::Cancelled
        };
        world.becomes(&order, ends).await;
        world.rests().await;
        world.is_sound().await;
    }
}

#[tokio::test]
async fn a_wish_to_cancel_that_comes_while_the_money_is_being_taken_is_heeded_before_the_confirmation()
 {
    let world = World::answering_within(100).await;
    let line = world.till.line.clone();
    line.breaks("capture", Break::Paused);
    let key = new_key();
    let buying = world.start_buying(&key, &[("TSHIRT", 2)], "ok");
    line.hangs().await;
    let order = order_of(&key);
    world.cancel(&order).await.expect("asked");
    line.go_on();
    world.becomes(&order, OrderStatus::Refunded).await;
    drop(buying);
    let announced = world.announced().await;
    assert_eq!(announced, ["created v1", "cancelled v2", "refunded v3"]);
    world.rests().await;
    world.is_sound().await;
}

#[tokio::test]
async fn a_wish_to_cancel_that_is_being_written_while_its_purchase_is_confirmed_is_heeded() {
    let world = World::answering_within(50).await;
    let line = world.till.line.clone();
    line.breaks("capture", Break::Paused);
    let key = new_key();
    let buying = world.start_buying(&key, &[("TSHIRT", 2)], "ok");
    line.hangs().await;
    let mut wish = world.db.app().begin().await.expect("a transaction");
    sqlx::query("UPDATE saga SET cancel_request = gen_random_uuid(), cancel_fingerprint = ''")
        .execute(&mut *wish)
        .await
        .expect("written");
    line.go_on();
    world.until_waits("WITH mine").await;
    wish.commit().await.expect("written");
    buying.await.expect("it lives").ok();
    world.becomes(&order_of(&key), OrderStatus::Refunded).await;
    world.rests().await;
    assert!(!world.announced().await.contains(&"confirmed v3".to_owned()));
    world.is_sound().await;
}

#[tokio::test]
async fn money_that_arrives_for_a_cancelled_order_goes_back() {
    let world = World::answering_within(100).await;
    let order = world
        .bought(&[("TSHIRT", 2)], "timeout", OrderStatus::AwaitingPayment)
        .await;
    world.cancel(&order).await.expect("asked");
    world.becomes(&order, OrderStatus::Cancelled).await;
    world.provider_says(&order, PaymentStatus::Captured).await;
    world.becomes(&order, OrderStatus::Refunded).await;
    world.rests().await;
    world.is_sound().await;
}

#[tokio::test]
async fn items_that_are_refunded_return_to_stock_and_an_amount_alone_does_not() {
    let world = World::new().await;
    let order = world
        .buy(&[("TSHIRT", 3), ("MUG", 1)], "ok")
        .await
        .expect("bought")
        .id;
    let part = world
        .refund(&order, &[("TSHIRT", 2)], None)
        .await
        .expect("refunded");
    assert_eq!(part.status(), OrderStatus::PartiallyRefunded);
    assert_eq!(part.refunded.expect("set").amount, 2 * PRICE);
    assert_eq!(part.items[0].refunded_quantity, 2);
    assert_eq!(world.ledger.pool("TSHIRT").sold, 1);
    let more = world
        .refund(&order, &[], Some(300))
        .await
        .expect("refunded");
    assert_eq!(more.refunded.expect("set").amount, 2 * PRICE + 300);
    assert_eq!(world.ledger.pool("TSHIRT").sold, 1);
    let rest = world.refund(&order, &[], None).await.expect("refunded");
    assert_eq!(rest.status(), OrderStatus::Refunded);
    assert_eq!(world.till.money(&order), (1, 4 * PRICE, 4 * PRICE));
    assert_eq!(
        world.announced().await[3..],
        [
            "partially_refunded v4",
            "partially_refunded v5",
            "refunded v6"
        ]
    );
    world.rests().await;
    world.is_sound().await;
}

#[tokio::test]
async fn a_refund_asked_for_twice_is_one_refund() {
    let world = World::new().await;
    let order = world.buy(&[("TSHIRT", 3)], "ok").await.expect("bought").id;
    let key = new_key();
    for _ in 0..2 {
        let part = world
            .refund_again(&key, &order, &[("TSHIRT", 1)], None)
            .await
            .expect("refunded");
        assert_eq!(part.refunded.expect("set").amount, PRICE);
    }
    let refused = world
        .refund_again(&key, &order, &[("TSHIRT", 2)], None)
        .await;
    assert_eq!(
        reason(&refused.expect_err("another body")),
        "IDEMPOTENCY_KEY_REUSED"
    );
    assert_eq!(world.ledger.pool("TSHIRT").sold, 2);
    world.is_sound().await;
}

#[tokio::test]
async fn refunds_that_race_never_give_back_more_than_was_captured() {
    let world = World::new().await;
    let order = world.buy(&[("TSHIRT", 3)], "ok").await.expect("bought").id;
    let races: Vec<_> = (0..8)
        .map(|_| world.start_refund(&new_key(), &order, &[("TSHIRT", 1)], None))
        .collect();
    let mut refused = Vec::new();
    for race in races {
        if let Err(status) = race.await.expect("it lives") {
            refused.push(reason(&status));
        }
    }
    assert_eq!(refused.len(), 5, "{refused:?}");
    world.rests().await;
    assert_eq!(world.order(&order).await.status(), OrderStatus::Refunded);
    assert_eq!(world.till.money(&order), (1, 3 * PRICE, 3 * PRICE));
    world.is_sound().await;
}

#[tokio::test]
async fn what_cannot_be_refunded_is_refused_with_what_is_left() {
    let world = World::new().await;
    let order = world.buy(&[("TSHIRT", 3)], "ok").await.expect("bought").id;
    let table = [
        (&[][..], Some(3 * PRICE + 1), "REFUND_EXCEEDS_CAPTURED"),
        (&[("TSHIRT", 4)][..], None, "REFUND_EXCEEDS_CAPTURED"),
        (&[("MUG", 1)][..], None, "UNKNOWN_ITEM"),
        (&[("TSHIRT", 1)][..], Some(1), "INVALID_ARGUMENT"),
        (&[][..], Some(0), "INVALID_ARGUMENT"),
    ];
    for (items, amount, want) in table {
        let refused = world
            .refund(&order, items, amount)
            .await
            .expect_err("too much");
        assert_eq!(reason(&refused), want, "{items:?} {amount:?}");
    }
    let waiting = world
        .buy(&[("TSHIRT", 1)], "challenge")
        .await
        .expect("on its way")
        .id;
    let refused = world
        .refund(&waiting, &[], None)
        .await
        .expect_err("nothing captured");
    assert_eq!(reason(&refused), "INVALID_TRANSITION");
    assert_eq!(world.till.money(&order), (1, 3 * PRICE, 0));
}

#[tokio::test]
async fn a_refund_waits_for_a_capture_whose_outcome_is_unknown() {
    for (outcome, ends, back) in [
        (
            PaymentStatus::Captured,
            OrderStatus::PartiallyRefunded,
            PRICE,
        ),
        (PaymentStatus::Failed, OrderStatus::PaymentFailed, 0),
    ] {
        let world = World::answering_within(100).await;
        let order = world
            .bought(
                &[("TSHIRT", 3)],
                "capture_unknown",
                OrderStatus::AwaitingPayment,
            )
            .await;
        let queued = world
            .refund(&order, &[("TSHIRT", 1)], None)
            .await
            .expect("queued");
        assert_eq!(queued.status(), OrderStatus::AwaitingPayment);
        world.provider_says(&order, outcome).await;
        world.becomes(&order, ends).await;
        world.rests().await;
        assert_eq!(world.till.money(&order).2, back);
        world.is_sound().await;
    }
}

#[tokio::test]
async fn a_refund_the_provider_refuses_moves_neither_units_nor_the_order_and_is_raised() {
    let world = World::with("lease_secs", 1_000_000).await;
    let order = world
        .bought(&[("TSHIRT", 3)], "refund_refused", OrderStatus::Confirmed)
        .await;
    world
        .refund(&order, &[("TSHIRT", 1)], None)
        .await
        .expect("asked");
    world.becomes_in_time("needs_attention").await;
    assert_eq!(world.till.money(&order), (1, 3 * PRICE, 0));
    assert_eq!(world.ledger.pool("TSHIRT").sold, 3);
}

#[tokio::test]
async fn anothers_order_does_not_exist_for_a_user_and_only_staff_refund() {
    let mut world = World::new().await;
    let order = world.buy(&[("TSHIRT", 1)], "ok").await.expect("bought").id;
    world.customer = world
        .realm
        .somebody(holdfast_platform::identity::Role::User);
    let refused = world.cancel(&order).await.expect_err("not theirs");
    assert_eq!(
        (reason(&refused).as_str(), refused.code()),
        ("UNKNOWN_ORDER", Code::NotFound)
    );
    world.staff = world.customer.clone();
    assert!(world.find(&order).await.is_none());
    let refused = world.refund(&order, &[], None).await.expect_err("no staff");
    assert_eq!(refused.code(), Code::PermissionDenied);
}
