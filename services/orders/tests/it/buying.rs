//! From a basket to an order, or to a refusal.

use holdfast_platform::{fault::Fault, outbox, telemetry::trace::Trace};
use holdfast_proto::orders::v1::OrderStatus;
use tonic::Code;

use crate::world::{PRICE, World, new_key, order_of, quote, reason, wish};

#[tokio::test]
async fn a_basket_that_is_there_and_paid_is_confirmed_in_the_answer() {
    let world = World::new().await;
    let order = world
        .buy(&[("TSHIRT", 2), ("MUG", 1)], "ok")
        .await
        .expect("bought");
    assert_eq!(order.status(), OrderStatus::Confirmed);
    assert_eq!(order.payment_status, "captured");
    assert_eq!(order.total.as_ref().expect("set").amount, 3 * PRICE);
    assert_eq!(order.version, 3);
    assert_eq!(order, world.order(&order.id).await);
    assert_eq!(
        world.announced().await,
        ["created v1", "paid v2", "confirmed v3"]
    );
    assert_eq!(world.open_sagas().await, 0);
    world.is_sound().await;
}

#[tokio::test]
async fn more_than_there_is_is_refused_with_the_figures_and_leaves_no_order() {
    let world = World::new().await;
    let key = new_key();
    let basket = [("TSHIRT", 11), ("MUG", 1)];
    let refused = world
        .buy_again(&key, &basket, "ok")
        .await
        .expect_err("short");
    let fault = Fault::from_status(&refused);
    assert_eq!(fault.reason(), "OUT_OF_STOCK");
    assert_eq!(
        serde_json::json!(fault.items()),
        serde_json::json!([{"sku": "TSHIRT", "requested": 11, "available": 10}])
    );
    assert!(world.find(&order_of(&key)).await.is_none());
    assert!(world.announced().await.is_empty());
    world.is_sound().await;
}

#[tokio::test]
async fn a_declined_payment_is_refused_with_the_orders_id_and_the_units_are_free_again() {
    let world = World::new().await;
    let key = new_key();
    for _ in 0..2 {
        let refused = world.buy_again(&key, &[("TSHIRT", 2)], "declined").await;
        let fault = Fault::from_status(&refused.expect_err("declined"));
        assert_eq!(fault.reason(), "PAYMENT_DECLINED");
        assert_eq!(fault.figure("order_id"), Some(order_of(&key).as_str()));
    }
    assert_eq!(
        world.order(&order_of(&key)).await.status(),
        OrderStatus::PaymentFailed
    );
    assert_eq!(world.announced().await, ["created v1", "payment_failed v2"]);
    world.is_sound().await;
}

#[tokio::test]
async fn a_method_nobody_knows_is_refused_before_an_order_is_written() {
    let world = World::new().await;
    let key = new_key();
    let refused = world
        .buy_again(&key, &[("TSHIRT", 2)], "unknown")
        .await
        .expect_err("unknown");
    assert_eq!(reason(&refused), "PAYMENT_METHOD_INVALID");
    assert!(world.find(&order_of(&key)).await.is_none());
    world.is_sound().await;
}

#[tokio::test]
async fn what_cannot_be_a_basket_is_refused_by_name() {
    let world = World::new().await;
    let table: [(&[(&str, i64)], &str); 7] = [
        (&[], "INVALID_ARGUMENT"),
        (&[("TSHIRT", 0)], "INVALID_ARGUMENT"),
        (&[("TSHIRT", -1)], "INVALID_ARGUMENT"),
        (
            &[("TSHIRT", 600_000), ("TSHIRT", 600_000)],
            "INVALID_ARGUMENT",
        ),
        (&[("t-shirt", 1)], "INVALID_ARGUMENT"),
        (&[("TSHIRT", 1), ("HAT", 1)], "UNKNOWN_SKU"),
        (&[("TSHIRT", 1), ("DOLLAR", 1)], "CURRENCY_MIXED"),
    ];
    for (basket, want) in table {
        let refused = world.buy(basket, "ok").await.expect_err("no basket");
        assert_eq!(
            (reason(&refused).as_str(), refused.code()),
            (want, Code::InvalidArgument),
            "{basket:?}"
        );
    }
    let lines: Vec<(&str, i64)> = vec![("TSHIRT", 1); 1_001];
    let refused = world.buy(&lines, "ok").await.expect_err("too long");
    assert_eq!(reason(&refused), "INVALID_ARGUMENT");
    assert_eq!(world.ledger.holds(), 0);
}

#[tokio::test]
async fn the_same_sku_twice_is_one_line_with_the_sum() {
    let world = World::new().await;
    let order = world
        .buy(&[("TSHIRT", 2), ("MUG", 1), ("TSHIRT", 3)], "ok")
        .await
        .expect("bought");
    let lines: Vec<_> = order
        .items
        .iter()
        .map(|item| (item.sku.as_str(), item.quantity))
        .collect();
    assert_eq!(lines, [("TSHIRT", 5), ("MUG", 1)]);
    world.is_sound().await;
}

#[tokio::test]
async fn a_price_that_changes_later_does_not_change_the_order() {
    let world = World::new().await;
    let key = new_key();
    world
        .buy_again(&key, &[("TSHIRT", 1)], "ok")
        .await
        .expect("bought");
    world
        .catalog
        .quote_variants
        .otherwise(|ask| Ok(quote(ask, 9_000)));
    let again = world
        .buy_again(&key, &[("TSHIRT", 1)], "ok")
        .await
        .expect("the same order");
    assert_eq!(again.total.expect("set").amount, PRICE);
}

#[tokio::test]
async fn a_purchase_does_all_it_does_as_part_of_the_trace_it_was_asked_in() {
    let world = World::new().await;
    let mut client = world.process.client();
    let request = world.customer.ask(wish(&new_key(), &[("TSHIRT", 1)], "ok"));
    let trace = Trace::begin();
    let asking = trace.scope(async move { client.place_order(request).await });
    let answer = world.process.spawn(asking).await.expect("it lives");
    answer.expect("bought");
    world.rests().await;

    let mut db = world.db.app().acquire().await.expect("a connection");
    let announced = outbox::pending(&mut db, 100).await.expect("the outbox");
    let kinds: Vec<&str> = announced.iter().map(|news| news.kind.as_str()).collect();
    assert_eq!(kinds, ["order.created", "order.paid", "order.confirmed"]);
    for news in announced {
        let traceparent = news.traceparent.unwrap_or_default();
        assert!(
            traceparent.contains(&trace.id().to_string()),
            "{}: {traceparent:?}",
            news.kind
        );
    }
    let quoted = world.catalog.quote_variants.calls().remove(0);
    let traceparent = quoted.metadata.get("traceparent").expect("a trace");
    assert!(
        traceparent
            .to_str()
            .expect("ascii")
            .contains(&trace.id().to_string())
    );
}
