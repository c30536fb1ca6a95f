//! Orders, from the purchase to the door.

use holdfast_platform::identity::Role;
use holdfast_proto::{orders::v1 as orders, page::v1::PageInfo};
use serde_json::json;

use super::{AT, AT_TEXT, yen};
use crate::world::{World, basket, confirmed};

#[tokio::test]
async fn an_order_reads_as_promised() {
    let world = World::new().await;
    world.orders.place_order.otherwise(|_| {
        let mut order = confirmed("1");
        order.status = orders::OrderStatus::AwaitingPayment.into();
        order.payment_status = "requires_action".to_owned();
        order.next_action = r#"{"type":"redirect","url":"/pay"}"#.to_owned();
        order.hold_expires_at = AT;
        Ok(orders::PlaceOrderResponse { order: Some(order) })
    });
    let told = world.buy("k").await;
    let yen = |amount: i64| json!({"amount": amount, "currency": "JPY"});
    assert_eq!(
        told.json(),
        json!({
            "id": "ord_1", "user_id": "usr_1", "source": "checkout", "status": "awaiting_payment",
            "items": [{"sku": "TSHIRT-M", "name": "T-shirt", "quantity": 1, "unit_price": yen(1250), "discount": yen(0), "total": yen(1250), "refunded_quantity": 0}],
            "voucher": null, "discount": yen(0), "subtotal": yen(1250), "shipping": yen(0), "tax": yen(0), "points_used": 0, "points_refunded": 0, "total": yen(1250),
            "refunded": yen(0), "currency": "JPY", "hold_expires_at": AT_TEXT,
            "payment": {"id": "pay_1", "status": "requires_action", "next_action": {"type": "redirect", "url": "/pay"}},
            "delivery": null, "created_at": AT_TEXT, "updated_at": null,
        })
    );
    let call = world.orders.place_order.calls().remove(0);
    assert_eq!(call.message.items[0].sku, "TSHIRT-M");
    assert_eq!(call.message.points, 0);
    let timeout = call
        .metadata
        .get("grpc-timeout")
        .expect("a deadline")
        .to_str()
        .expect("ASCII");
    let micros: u64 = timeout.trim_end_matches('u').parse().expect("microseconds");
    assert!(
        (2_000_001..=5_000_000).contains(&micros),
        "a purchase may take 5 s: {timeout}"
    );
}

#[tokio::test]
async fn a_purchase_may_name_a_voucher_and_tells_what_it_took_off() {
    let world = World::new().await;
    world.orders.place_order.otherwise(|_| {
        let mut order = confirmed("1");
        order.voucher = "SUMMER10".to_owned();
        order.discount = Some(yen(125));
        order.items[0].discount = Some(yen(125));
        Ok(orders::PlaceOrderResponse { order: Some(order) })
    });
    let mut body = basket(1);
    body["voucher"] = json!("summer10");
    let asking = world.post("/v1/orders").by(&world.buyer).key("k");
    let told = asking.send(&body).await.json();
    assert_eq!(told["voucher"], "SUMMER10");
    assert_eq!(
        (
            &told["discount"]["amount"],
            &told["items"][0]["discount"]["amount"]
        ),
        (&json!(125), &json!(125))
    );
    let asked = world.orders.place_order.asked().remove(0);
    assert_eq!(asked.voucher.as_deref(), Some("summer10"));
}

#[tokio::test]
async fn a_purchase_may_name_a_saved_method_or_a_konbini() {
    use orders::payment_method_choice::Choice;
    let world = World::new().await;
    world.orders_sell();
    for (key, method) in [
        ("k1", json!("pm_1")),
        ("k2", json!({"type": "konbini", "store": "lawson"})),
    ] {
        let mut body = basket(1);
        body["payment_method"] = method;
        let told = world
            .post("/v1/orders")
            .by(&world.buyer)
            .key(key)
            .send(&body)
            .await;
        assert_eq!(told.status, 201);
    }
    let choices: Vec<_> = (world.orders.place_order.asked().into_iter())
        .map(|asked| {
            asked
                .payment_method
                .and_then(|method| method.choice)
                .expect("chosen")
        })
        .collect();
    let konbini = orders::InlineMethod {
        r#type: "konbini".to_owned(),
        token: "lawson".to_owned(),
    };
    assert_eq!(
        choices,
        [Choice::Id("pm_1".to_owned()), Choice::Inline(konbini)]
    );
}

#[tokio::test]
async fn orders_are_listed_and_read_with_their_history() {
    let world = World::new().await;
    let staff = world.somebody(Role::Staff);
    let page = Some(PageInfo {
        next_token: String::new(),
    });
    let orders = vec![confirmed("1")];
    world
        .orders
        .list_orders
        .then(Ok(orders::ListOrdersResponse { orders, page }));
    let told = world
        .get(&format!(
            "/v1/orders?status=partially_refunded&user_id=*&sku=A-1&from={AT_TEXT}"
        ))
        .by(&staff)
        .send_nothing()
        .await;
    assert_eq!(told.json()["data"][0]["id"], "ord_1");
    let asked = world.orders.list_orders.asked().remove(0);
    assert_eq!(
        (asked.status(), asked.user_id.as_str(), asked.sku.as_str()),
        (orders::OrderStatus::PartiallyRefunded, "*", "A-1")
    );
    assert_eq!((asked.from, asked.to), (AT, None));
    let told = world
        .get("/v1/orders?to=yesterday")
        .by(&staff)
        .send_nothing()
        .await;
    assert_eq!(told.json()["errors"][0]["field"], "to");

    world.orders.get_order.then(Ok(orders::GetOrderResponse {
        order: Some(confirmed("1")),
    }));
    let told = world
        .get("/v1/orders/ord_1")
        .by(&world.buyer)
        .send_nothing()
        .await;
    assert_eq!(
        (told.status.as_u16(), told.header("etag")),
        (200, Some("\"1\""))
    );

    let event = orders::OrderEvent {
        r#type: "order.confirmed".to_owned(),
        description: "paid".to_owned(),
        old_value: "paid".to_owned(),
        new_value: "confirmed".to_owned(),
        user_id: String::new(),
        created_at: AT,
    };
    world
        .orders
        .list_order_events
        .then(Ok(orders::ListOrderEventsResponse {
            events: vec![event],
        }));
    let told = world
        .get("/v1/orders/ord_1/events")
        .by(&world.buyer)
        .send_nothing()
        .await;
    assert_eq!(
        told.json()["data"],
        json!([{"type": "order.confirmed", "description": "paid", "old_value": "paid",
            "new_value": "confirmed", "user_id": null, "created_at": AT_TEXT}])
    );
}

#[tokio::test]
async fn orders_are_cancelled_refunded_and_resumed() {
    let world = World::new().await;
    let staff = world.somebody(Role::Staff);
    world
        .orders
        .cancel_order
        .then(Ok(orders::CancelOrderResponse {
            order: Some(confirmed("1")),
        }));
    let told = world
        .post("/v1/orders/ord_1/cancel")
        .by(&world.buyer)
        .key("k")
        .send_nothing()
        .await;
    assert_eq!(told.status, 200);
    let asked = world.orders.cancel_order.asked().remove(0);
    assert_eq!(
        (asked.order_id.as_str(), asked.reason.as_str()),
        ("ord_1", "")
    );

    world.orders.refund_order.otherwise(|_| {
        Ok(orders::RefundOrderResponse {
            order: Some(confirmed("1")),
        })
    });
    for (key, body) in [
        ("all", json!({})),
        (
            "items",
            json!({"items": [{"sku": "A", "quantity": 1}], "reason": "broken"}),
        ),
        (
            "amount",
            json!({"amount": {"amount": 5, "currency": "JPY"}}),
        ),
    ] {
        let told = world
            .post("/v1/orders/ord_1/refunds")
            .by(&staff)
            .key(key)
            .send(&body)
            .await;
        assert_eq!(told.status, 201, "{key}");
    }
    let asked = world.orders.refund_order.asked();
    assert_eq!((asked[0].items.len(), &asked[0].amount), (0, &None));
    assert_eq!(asked[1].items[0].sku, "A");
    assert_eq!(asked[2].amount, Some(yen(5)));
    let both =
        json!({"amount": {"amount": 5, "currency": "JPY"}, "items": [{"sku": "A", "quantity": 1}]});
    let told = world
        .post("/v1/orders/ord_1/refunds")
        .by(&staff)
        .key("both")
        .send(&both)
        .await;
    assert_eq!(told.json()["errors"][0]["field"], "amount");

    let resumed = orders::ResumeOrderResponse {
        order: Some(confirmed("1")),
    };
    world.orders.resume_order.then(Ok(resumed));
    let told = world
        .post("/v1/orders/ord_1/resume")
        .by(&staff)
        .key("resume")
        .send(&json!({"reason": "the warehouse is back"}))
        .await;
    assert_eq!(
        (told.status.as_u16(), &told.json()["status"]),
        (200, &json!("confirmed"))
    );
    let asked = world.orders.resume_order.asked().remove(0);
    assert_eq!(
        (asked.order_id.as_str(), asked.reason.as_str()),
        ("ord_1", "the warehouse is back")
    );
}

#[tokio::test]
async fn an_order_is_shipped_with_or_without_a_number_and_delivered() {
    let world = World::new().await;
    let staff = world.somebody(Role::Staff);
    let shipped = orders::Order {
        status: orders::OrderStatus::Shipped.into(),
        carrier: "Yamato".to_owned(),
        shipped_at: AT,
        ..confirmed("1")
    };
    world.orders.ship_order.otherwise(move |_| {
        Ok(orders::ShipOrderResponse {
            order: Some(shipped.clone()),
        })
    });
    for (key, body) in [
        ("bare", json!({})),
        ("told", json!({"carrier": "Yamato", "tracking": "4812"})),
    ] {
        let told = world
            .post("/v1/orders/ord_1/ship")
            .by(&staff)
            .key(key)
            .send(&body)
            .await;
        assert_eq!(
            (told.status.as_u16(), &told.json()["delivery"]),
            (
                200,
                &json!({"carrier": "Yamato", "tracking": null, "shipped_at": AT_TEXT, "delivered_at": null})
            )
        );
    }
    let asked = world.orders.ship_order.asked();
    assert_eq!(
        (asked[0].carrier.as_str(), asked[0].tracking.as_str()),
        ("", "")
    );
    assert_eq!(
        (asked[1].carrier.as_str(), asked[1].tracking.as_str()),
        ("Yamato", "4812")
    );

    world
        .orders
        .deliver_order
        .then(Ok(orders::DeliverOrderResponse {
            order: Some(confirmed("1")),
        }));
    let told = world
        .post("/v1/orders/ord_1/deliver")
        .by(&staff)
        .key("deliver")
        .send(&json!({}))
        .await;
    assert_eq!(
        (told.status.as_u16(), &told.json()["delivery"]),
        (200, &json!(null))
    );
    assert_eq!(world.orders.deliver_order.asked()[0].order_id, "ord_1");
}
