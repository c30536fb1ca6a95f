//! Payments that take their time: the customer must act, the provider does not say, the truth comes late.

use holdfast_kernel::{Id, id};
use holdfast_proto::{orders::v1::OrderStatus, payments::v1::PaymentStatus};

use crate::{
    line::Break,
    world::{HOLD_SECS, World, new_key, order_of, reason},
};

#[tokio::test]
async fn an_order_whose_customer_must_act_says_so_and_is_confirmed_once_they_did() {
    let (world, order) = World::where_bought("challenge").await;
    assert_eq!(order.status(), OrderStatus::AwaitingPayment);
    assert_eq!(order.payment_status, "requires_action");
    assert!(
        order.next_action.contains("https://bank.example/prove"),
        "{}",
        order.next_action
    );
    world
        .provider_says(&order.id, PaymentStatus::Authorized)
        .await;
    let order = world.becomes(&order.id, OrderStatus::Confirmed).await;
    assert_eq!(order.next_action, "");
    assert_eq!(
        world.announced().await,
        [
            "created v1",
            "awaiting_payment v2",
            "paid v3",
            "confirmed v4"
        ]
    );
    world.rests().await;
    world.is_sound().await;
}

#[tokio::test]
async fn the_hold_is_extended_once_when_the_customer_must_act() {
    let (world, order) = World::where_bought("challenge").await;
    world.pass(HOLD_SECS + 30);
    assert_eq!(
        world.ledger.pool("TSHIRT").held,
        2,
        "the time for the payment is on top"
    );
    world
        .hears(
            "holdfast.payments",
            "payment.requires_action",
            "pay_",
            &order.id,
        )
        .await;
    world
        .until("it looked again", async || {
            (world.till.line.count("get") > 0).then_some(())
        })
        .await;
    assert_eq!(world.ledger.line.count("extend"), 1);
    world.pass(40);
    assert_eq!(world.ledger.pool("TSHIRT").held, 0);
}

#[tokio::test]
async fn a_customer_who_fails_the_challenge_gets_no_order_and_the_units_are_free() {
    let (world, order) = World::where_bought("challenge").await;
    world.provider_says(&order.id, PaymentStatus::Failed).await;
    world.becomes(&order.id, OrderStatus::PaymentFailed).await;
    world.rests().await;
    world.is_sound().await;
}

#[tokio::test]
async fn an_unknown_outcome_is_waited_for_and_found_captured() {
    let world = World::answering_within(300).await;
    let key = new_key();
    let order = world
        .buy_again(&key, &[("TSHIRT", 2)], "timeout")
        .await
        .expect("on its way");
    let order = world.becomes(&order.id, OrderStatus::AwaitingPayment).await;
    assert_eq!(order.payment_status, "processing");
    world
        .provider_says(&order.id, PaymentStatus::Captured)
        .await;
    world.becomes(&order.id, OrderStatus::Confirmed).await;
    let again = world
        .buy_again(&key, &[("TSHIRT", 2)], "timeout")
        .await
        .expect("the same order");
    assert_eq!(
        (again.id, again.status),
        (order.id, OrderStatus::Confirmed.into())
    );
    assert_eq!(world.till.payments(), 1);
    world.rests().await;
    world.is_sound().await;
}

#[tokio::test]
async fn units_stay_the_customers_while_nobody_knows_whether_the_money_was_taken() {
    let world = World::answering_within(300).await;
    let order = world
        .buy(&[("TSHIRT", 2)], "capture_unknown")
        .await
        .expect("on its way");
    let order = world.becomes(&order.id, OrderStatus::AwaitingPayment).await;
    // The hold's time is long over, but it was committed: nobody gives the units away.
    world.pass(2 * HOLD_SECS);
    world
        .hears("holdfast.payments", "payment.authorized", "pay_", &order.id)
        .await;
    world
        .until("it looked again", async || {
            (world.ledger.line.count("extend") > 0).then_some(())
        })
        .await;
    assert_eq!(world.ledger.pool("TSHIRT").sold, 2);
    assert_eq!(
        world.order(&order.id).await.status(),
        OrderStatus::AwaitingPayment
    );
    world
        .provider_says(&order.id, PaymentStatus::Captured)
        .await;
    world.becomes(&order.id, OrderStatus::Confirmed).await;
    world.rests().await;
    world.is_sound().await;
}

#[tokio::test]
async fn a_capture_that_fails_gives_the_units_back_and_is_declined() {
    let world = World::new().await;
    let key = new_key();
    let refused = world
        .buy_again(&key, &[("TSHIRT", 2)], "capture_fails")
        .await;
    assert_eq!(
        reason(&refused.expect_err("not captured")),
        "PAYMENT_DECLINED"
    );
    assert_eq!(
        world.order(&order_of(&key)).await.status(),
        OrderStatus::PaymentFailed
    );
    assert_eq!(world.ledger.pool("TSHIRT").sold, 0);
    world.rests().await;
    world.is_sound().await;
}

#[tokio::test]
async fn money_that_can_only_be_taken_at_once_buys_as_well() {
    let world = World::new().await;
    let order = world
        .buy(&[("TSHIRT", 2)], "at_once")
        .await
        .expect("bought");
    assert_eq!(order.status(), OrderStatus::Confirmed);
    world.is_sound().await;
}

#[tokio::test]
async fn an_order_nobody_paid_for_expires_with_its_hold() {
    let (world, order) = World::where_bought("challenge").await;
    world.hold_expires(&order.id).await;
    world.becomes(&order.id, OrderStatus::Expired).await;
    world.rests().await;
    assert_eq!(world.till.status(&order.id), PaymentStatus::Voided);
    world.is_sound().await;
}

#[tokio::test]
async fn an_order_expires_by_its_own_look_when_the_news_of_its_hold_is_lost() {
    let (world, order) = World::where_bought("challenge").await;
    world.pass(HOLD_SECS + 100);
    world.becomes(&order.id, OrderStatus::Expired).await;
    world.rests().await;
    world.is_sound().await;
}

#[tokio::test]
async fn money_captured_late_confirms_an_expired_order_whose_units_are_still_free() {
    for late in [PaymentStatus::Captured, PaymentStatus::Authorized] {
        let world = World::answering_within(50).await;
        let order = world.expired_with_unknown_outcome().await;
        world.provider_says(&order, late).await;
        world.becomes(&order, OrderStatus::Confirmed).await;
        world.rests().await;
        assert_eq!(
            world.announced().await.last().map(String::as_str),
            Some("confirmed v4")
        );
        world.is_sound().await;
    }
}

#[tokio::test]
async fn money_captured_late_for_units_sold_to_another_goes_back_in_full() {
    let world = World::answering_within(50).await;
    let order = world.expired_with_unknown_outcome().await;
    world.ledger.sell("TSHIRT", 9);
    world.provider_says(&order, PaymentStatus::Captured).await;
    let refunded = world.becomes(&order, OrderStatus::Refunded).await;
    assert_eq!(refunded.refunded, refunded.total);
    world.rests().await;
    assert_eq!(world.till.money(&order), (1, 1000, 1000));
    assert_eq!(
        world.ledger.pool("TSHIRT").sold,
        9,
        "the other buyer keeps theirs"
    );
}

#[tokio::test]
async fn money_authorized_late_for_units_sold_to_another_is_let_go_and_the_order_stays_expired() {
    let world = World::answering_within(50).await;
    let order = world.expired_with_unknown_outcome().await;
    world.ledger.sell("TSHIRT", 9);
    world.provider_says(&order, PaymentStatus::Authorized).await;
    world
        .until("the payment is voided", async || {
            (world.till.status(&order) == PaymentStatus::Voided).then_some(())
        })
        .await;
    world.rests().await;
    assert_eq!(world.order(&order).await.status(), OrderStatus::Expired);
    assert_eq!(
        world.announced().await.last().map(String::as_str),
        Some("expired v3")
    );
}

#[tokio::test]
async fn a_payment_that_failed_and_then_succeeded_confirms_the_order_by_taking_the_units_again() {
    for token in ["declined", "capture_fails"] {
        let world = World::new().await;
        let key = new_key();
        world
            .buy_again(&key, &[("TSHIRT", 2)], token)
            .await
            .expect_err("declined");
        let order = order_of(&key);
        world.provider_says(&order, PaymentStatus::Captured).await;
        world.becomes(&order, OrderStatus::Confirmed).await;
        world.rests().await;
        world.is_sound().await;
        // What was taken again can be given back.
        let refunded = world
            .refund(&order, &[("TSHIRT", 1)], None)
            .await
            .expect("refunded");
        assert_eq!(refunded.status(), OrderStatus::PartiallyRefunded);
        world.is_sound().await;
    }
}

#[tokio::test]
async fn a_payment_that_failed_and_then_succeeded_for_units_sold_to_another_goes_back() {
    let world = World::new().await;
    let key = new_key();
    world
        .buy_again(&key, &[("TSHIRT", 2)], "declined")
        .await
        .expect_err("declined");
    let order = order_of(&key);
    world.ledger.sell("TSHIRT", 9);
    world.provider_says(&order, PaymentStatus::Captured).await;
    world.becomes(&order, OrderStatus::Refunded).await;
    world.rests().await;
    assert_eq!(world.till.money(&order), (1, 1000, 1000));
}

#[tokio::test]
async fn the_late_truth_told_twice_is_told_once() {
    let world = World::answering_within(50).await;
    let order = world.expired_with_unknown_outcome().await;
    world.provider_says(&order, PaymentStatus::Captured).await;
    world.becomes(&order, OrderStatus::Confirmed).await;
    world
        .hears("holdfast.payments", "payment.captured", "pay_", &order)
        .await;
    world
        .hears("holdfast.holds", "hold.expired", &hold_of(&order), &order)
        .await;
    world.rests().await;
    assert_eq!(world.order(&order).await.version, 4);
    world.is_sound().await;
}

#[tokio::test]
async fn a_slow_provider_is_told_of_as_waiting_while_the_call_goes_on() {
    let world = World::new().await;
    world.till.line.breaks("authorize", Break::HangsOnTheWay);
    let order = world.buy(&[("TSHIRT", 2)], "ok").await.expect("on its way");
    assert_eq!(order.status(), OrderStatus::AwaitingPayment);
    // The call is given up after its deadline, and asked again.
    world.becomes(&order.id, OrderStatus::Confirmed).await;
    world.rests().await;
    world.is_sound().await;
}

fn hold_of(order: &str) -> String {
    order.replace("ord_", "hld_")
}

#[tokio::test]
async fn money_told_of_while_its_order_is_being_given_up_is_not_slept_over() {
    let world = World::new().await;
    let order = world
        .bought(&[("TSHIRT", 2)], "timeout", OrderStatus::AwaitingPayment)
        .await;
    world.work_ends().await;
    let mut giving_up = world.db.app().begin().await.expect("a transaction");
    for writing in [
        "UPDATE saga SET phase = 'done', due_at = NULL",
        "UPDATE orders SET status = 'expired'",
    ] {
        sqlx::query(writing)
            .execute(&mut *giving_up)
            .await
            .expect(writing);
    }
    let news = world.hears("holdfast.payments", "payment.captured", "pay_", &order);
    let ending = async {
        world.until_waits("WITH woken").await;
        giving_up.commit().await.expect("given up");
    };
    tokio::join!(news, ending);
    let is_due: bool = sqlx::query_scalar("SELECT due_at IS NOT NULL FROM saga")
        .fetch_one(&world.db.app())
        .await
        .expect("a saga");
    assert!(is_due);
}

#[tokio::test]
async fn news_of_several_orders_that_is_read_together_wakes_each_of_them_and_no_other() {
    let world = World::answering_within(50).await;
    let mut orders = Vec::new();
    for _ in 0..3 {
        let order = world
            .bought(&[("TSHIRT", 1)], "timeout", OrderStatus::AwaitingPayment)
            .await;
        orders.push(order);
    }
    world.work_ends().await;
    let wakes = async || -> Vec<(String, i64)> {
        let all: Vec<(uuid::Uuid, i64)> = sqlx::query_as("SELECT order_id, wakes FROM saga")
            .fetch_all(&world.db.app())
            .await
            .expect("sagas");
        let name = |order| Id::<id::Order>::new(order).to_string();
        let mut all: Vec<_> = (all.into_iter())
            .map(|(order, wakes)| (name(order), wakes))
            .collect();
        all.sort_unstable();
        all
    };
    let before = wakes().await;
    world
        .reads(&[
            ("payment.authorized", &orders[0]),
            ("payment.failed", &orders[2]),
            ("payment.captured", &orders[0]),
        ])
        .await;
    let woken: Vec<String> = (before.into_iter().zip(wakes().await))
        .filter(|((_, before), (_, after))| before < after)
        .map(|((order, _), _)| order)
        .collect();
    let mut told = vec![orders[0].clone(), orders[2].clone()];
    told.sort_unstable();
    assert_eq!(woken, told);
}
