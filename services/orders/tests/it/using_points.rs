//! Orders that are paid in points, in part or wholly.

use holdfast_platform::fault::Fault;
use holdfast_proto::orders::v1::OrderStatus;
use serde_json::json;

use crate::{
    line::Break,
    world::{PRICE, World, new_key, order_of, reason},
};

#[tokio::test]
async fn points_are_taken_off_the_total_and_back_with_the_money_as_it_was_paid() {
    let world = World::new().await;
    world.till.gives_points(1_000);
    let order = world
        .buy_using(300, &[("TSHIRT", 2)], "ok")
        .await
        .expect("bought");
    let amount = |money: Option<holdfast_proto::money::v1::Money>| money.expect("set").amount;
    assert_eq!(
        (
            amount(order.subtotal.clone()),
            order.points_used,
            amount(order.total.clone())
        ),
        (2 * PRICE, 300, 2 * PRICE - 300)
    );
    assert_eq!(world.till.points(), 700);
    let told = world.told("order.confirmed").await;
    assert_eq!(
        (&told["points_used"], &told["points_earned"]),
        (&json!(300), &json!(7))
    );
    let part = world
        .refund(&order.id, &[("TSHIRT", 1)], None)
        .await
        .expect("refunded");
    assert_eq!((amount(part.refunded), part.points_refunded), (350, 150));
    let all = world.refund(&order.id, &[], None).await.expect("refunded");
    assert_eq!(
        (all.status(), all.points_refunded),
        (OrderStatus::Refunded, 300)
    );
    assert_eq!(world.till.points(), 1_000);
    assert_eq!(world.till.money(&order.id), (1, 700, 700));
    world.rests().await;
    world.is_sound().await;
}

#[tokio::test]
async fn an_order_paid_wholly_in_points_is_confirmed_cancelled_and_gives_them_back() {
    let world = World::new().await;
    world.till.gives_points(PRICE);
    let order = world
        .buy_using(PRICE, &[("TSHIRT", 1)], "ok")
        .await
        .expect("bought");
    assert_eq!(
        (order.status(), world.till.points()),
        (OrderStatus::Confirmed, 0)
    );
    world.cancel(&order.id).await.expect("cancelled");
    world.becomes(&order.id, OrderStatus::Refunded).await;
    assert_eq!(world.till.points(), PRICE);
    world.rests().await;
    world.is_sound().await;
}

#[tokio::test]
async fn more_points_than_there_are_or_than_it_costs_make_no_order() {
    let world = World::new().await;
    world.till.gives_points(PRICE);
    for (points, why) in [(PRICE + 1, "INVALID_ARGUMENT"), (-1, "INVALID_ARGUMENT")] {
        let refused = world.buy_using(points, &[("TSHIRT", 1)], "ok").await;
        assert_eq!(reason(&refused.expect_err("too many")), why, "{points}");
    }
    let refused = world.buy_using(PRICE + 1, &[("TSHIRT", 2)], "ok").await;
    assert_eq!(
        reason(&refused.expect_err("too few")),
        "INSUFFICIENT_POINTS"
    );
    assert_eq!(world.ledger.pool("TSHIRT").held, 0);
    assert_eq!(world.till.payments(), 0);
}

#[tokio::test]
async fn a_refused_purchase_leaves_the_points_as_they_were() {
    for token in ["declined", "capture_fails"] {
        let world = World::new().await;
        world.till.gives_points(100);
        let refused = world.buy_using(100, &[("TSHIRT", 1)], token).await;
        let refused = refused.expect_err("refused");
        assert_eq!(reason(&refused), "PAYMENT_DECLINED");
        assert!(Fault::from_status(&refused).items().is_empty(), "{token}");
        assert_eq!(world.till.points(), 100, "{token}");
        world.rests().await;
        world.is_sound().await;
    }
}

#[tokio::test]
async fn a_lost_answer_uses_the_points_once() {
    for call in ["authorize", "capture"] {
        let world = World::new().await;
        world.till.gives_points(100);
        world.till.line.breaks(call, Break::OnTheWayBack);
        let order = world
            .buy_using(100, &[("TSHIRT", 1)], "ok")
            .await
            .expect("on its way");
        world.becomes(&order.id, OrderStatus::Confirmed).await;
        assert_eq!(world.till.points(), 0, "{call}");
        world.rests().await;
        world.is_sound().await;
    }
}

/// Between the look at the points and the order's payment somebody else used them.
#[tokio::test]
async fn an_order_whose_points_are_gone_when_it_is_paid_ends_unpaid_and_frees_its_units() {
    let world = World::new().await;
    world.till.gives_points(100);
    let key = new_key();
    let mut told = Vec::new();
    for _ in 0..2 {
        let refused = world
            .buy_using_again(&key, 100, &[("TSHIRT", 1)], "points_gone")
            .await;
        let refused = Fault::from_status(&refused.expect_err("refused"));
        assert_eq!(refused.reason(), "PAYMENT_DECLINED");
        told.push((refused.text().to_owned(), refused.items().to_vec()));
    }
    assert_eq!(told[0], told[1], "the same request is told the same");
    let [short] = &told[0].1[..] else {
        panic!("one thing is short: {told:?}")
    };
    assert_eq!(
        (&short["field"], &short["code"]),
        (&json!("points"), &json!("insufficient_points"))
    );
    assert_eq!(
        (&short["asked"], &short["available"]),
        (&json!(100), &json!(99))
    );
    let order = world.order(&order_of(&key)).await;
    assert_eq!(order.status(), OrderStatus::PaymentFailed);
    assert_eq!(world.ledger.pool("TSHIRT").held, 0);
    assert_eq!(world.till.points(), 100);
    world.rests().await;
    world.is_sound().await;
}

#[tokio::test]
async fn a_cancelled_challenge_leaves_the_points_as_they_were() {
    let world = World::answering_within(100).await;
    world.till.gives_points(100);
    let waits = world.buy_using(100, &[("TSHIRT", 1)], "challenge").await;
    let waits = waits.expect("it waits").id;
    world.becomes(&waits, OrderStatus::AwaitingPayment).await;
    assert_eq!(world.till.points(), 0);
    world.cancel(&waits).await.expect("asked");
    world.becomes(&waits, OrderStatus::Cancelled).await;
    world.rests().await;
    assert_eq!(world.till.points(), 100);
    world.is_sound().await;
}
