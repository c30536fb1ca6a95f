//! The same request twice, in all its ways.

use std::{collections::HashSet, time::Duration};

use futures::future::select;
use holdfast_platform::{
    fault::{Fault, FaultCode},
    identity::Role,
};
use http::StatusCode;
use jiff::SignedDuration;
use serde_json::json;
use tonic::Status;

use crate::world::{PLACES, Told, World, basket};

#[tokio::test]
async fn the_same_key_and_body_give_the_same_bytes_and_one_purchase() {
    let world = World::new().await;
    world.orders_sell();
    let first = world.buy("k1").await;
    assert_eq!(first.status, StatusCode::CREATED);
    let again = world.buy("k1").await;
    assert_eq!(first.essence(), again.essence());
    assert_eq!(world.orders.place_order.asked().len(), 1);
    assert_eq!(
        first.header("location"),
        Some(format!("/v1/orders/{}", first.json()["id"].as_str().expect("id")).as_str())
    );
}

#[tokio::test]
async fn the_same_body_written_otherwise_is_the_same_request() {
    let world = World::new().await;
    world.orders_sell();
    let first = world.buy("k1").await;
    let otherwise = r#" { "payment_method": {"token":"sandbox_ok", "type":"card"},
        "items":[ {"quantity":1,"sku":"TSHIRT\u002dM"} ] } "#;
    let again = world
        .post("/v1/orders")
        .by(&world.buyer)
        .key("k1")
        .with("content-type", "application/json; charset=utf-8")
        .send_body(otherwise.into())
        .await;
    assert_eq!(first.essence(), again.essence());
}

#[tokio::test]
async fn the_same_key_with_another_body_is_refused_and_nothing_is_done() {
    let world = World::new().await;
    world.orders_sell();
    world.buy("k1").await;
    let refused = world
        .post("/v1/orders")
        .by(&world.buyer)
        .key("k1")
        .send(&basket(2))
        .await;
    assert_eq!(refused.problem(), (422, "idempotency_key_reused".into()));
    assert_eq!(world.orders.place_order.asked().len(), 1);
}

#[tokio::test]
async fn a_key_is_somebodys_own_and_belongs_to_one_route() {
    let world = World::new().await;
    world.orders_sell();
    world
        .orders
        .cancel_order
        .otherwise(|_| Err(Status::unavailable("gone")));
    world.buy("k1").await;
    let other = world.somebody(Role::User);
    let others = world
        .post("/v1/orders")
        .by(&other)
        .key("k1")
        .send(&basket(1))
        .await;
    assert_eq!(others.status, StatusCode::CREATED);
    for order in ["ord_1", "ord_2"] {
        world
            .post(&format!("/v1/orders/{order}/cancel"))
            .by(&world.buyer)
            .key("k1")
            .send_nothing()
            .await;
    }
    let mut ids: Vec<String> = (world
        .orders
        .place_order
        .asked()
        .into_iter()
        .map(|asked| asked.request_id))
    .chain(
        world
            .orders
            .cancel_order
            .asked()
            .into_iter()
            .map(|asked| asked.request_id),
    )
    .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(
        ids.len(),
        3,
        "two purchases, and one cancel asked of two orders"
    );
    let prints: Vec<_> = (world
        .orders
        .cancel_order
        .asked()
        .into_iter()
        .map(|asked| asked.fingerprint))
    .collect();
    assert_ne!(prints[0], prints[1], "another order is another request");
}

#[tokio::test]
async fn a_request_that_needs_a_key_is_refused_without_one() {
    let world = World::new().await;
    let staff = world.somebody(Role::Admin);
    for path in [
        "/v1/orders",
        "/v1/orders/ord_1/cancel",
        "/v1/orders/ord_1/refunds",
        "/v1/orders/ord_1/resume",
        "/v1/orders/ord_1/ship",
        "/v1/orders/ord_1/deliver",
        "/v1/payment-methods",
        "/v1/products",
        "/v1/product-batches",
        "/v1/inventory",
        "/v1/inventory/A/adjustments",
    ] {
        let asking = || world.post(path).by(&staff).with("if-match", "\"1\"");
        let missing = asking().send(&json!({})).await;
        assert_eq!(
            missing.problem(),
            (400, "idempotency_key_required".into()),
            "{path}"
        );
        let blank = asking().key("a b").send(&json!({})).await;
        assert_eq!(
            blank.problem(),
            (400, "idempotency_key_invalid".into()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn of_two_in_flight_the_second_is_told_to_wait() {
    let world = World::new().await;
    world.orders_sell();
    let (refused, running) = two_at_once(&world, async |world| {
        let other_body = world
            .post("/v1/orders")
            .by(&world.buyer)
            .key("k1")
            .send(&basket(2))
            .await;
        assert_eq!(other_body.problem(), (422, "idempotency_key_reused".into()));
    })
    .await;
    assert_eq!(refused.problem(), (409, "idempotency_in_progress".into()));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(running.status, StatusCode::CREATED);
    assert_eq!(world.orders.place_order.asked().len(), 1);
}

/// Buys twice under one key while the way to orders is blocked: what the refused one was told, and then the other.
async fn two_at_once(world: &World, meanwhile: impl AsyncFnOnce(&World)) -> (Told, Told) {
    let places = world.way_to_orders.acquire_many(PLACES).await;
    let (one, other) = (Box::pin(world.buy("k1")), Box::pin(world.buy("k1")));
    let (refused, running) = select(one, other).await.factor_first();
    meanwhile(world).await;
    drop(places);
    (refused, running.await)
}

#[tokio::test]
async fn a_declined_payment_is_told_again_in_the_same_bytes() {
    let world = World::new().await;
    let declined = Fault::new(
        FaultCode::Conflict,
        "PAYMENT_DECLINED",
        "the card was declined",
    )
    .with("order_id", "ord_1");
    world.orders.place_order.then(Err(declined.into()));
    let first = world.buy("k1").await;
    assert_eq!(first.problem(), (402, "payment_declined".into()));
    assert_eq!(first.json()["order_id"], "ord_1");
    assert_eq!(first.essence(), world.buy("k1").await.essence());
    assert_eq!(world.orders.place_order.asked().len(), 1);
}

#[tokio::test]
async fn a_refusal_without_effect_is_decided_anew_and_spends_nothing() {
    let world = World::new().await;
    let short = Fault::new(
        FaultCode::Conflict,
        "OUT_OF_STOCK",
        "sku TSHIRT-M: 1 asked, 0 left",
    );
    world.orders.place_order.then(Err(short.into()));
    let refused = world.buy("k1").await;
    assert_eq!(refused.problem(), (409, "out_of_stock".into()));
    assert_eq!(world.replies().await, (0, 0));
    world.orders_sell();
    assert_eq!(world.buy("k1").await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn after_a_handler_panicked_midway_the_same_key_goes_on() {
    let world = World::new().await;
    // Nothing is scripted, so the callee panics.
    let failed = world.buy("k1").await;
    assert_eq!(failed.problem(), (500, "internal".into()));
    world.orders_sell();
    assert_eq!(world.buy("k1").await.status, StatusCode::CREATED);
    let asked = world.orders.place_order.asked();
    assert_eq!(
        asked[0], asked[1],
        "the service is asked for the same thing"
    );
}

#[tokio::test]
async fn a_lost_reply_never_repeats_an_effect_because_the_service_is_asked_for_the_same_thing() {
    let world = World::new().await;
    world.orders_sell();
    world.buy("k1").await;
    sqlx::query("TRUNCATE reply")
        .execute(&world.db.owner())
        .await
        .expect("lost");
    let again = world.buy("k1").await;
    assert_eq!(again.status, StatusCode::CREATED);
    let asked = world.orders.place_order.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0], asked[1]);
}

#[tokio::test]
async fn a_reply_that_cannot_be_stored_is_sent_all_the_same() {
    let world = World::new().await;
    world.orders_sell();
    sqlx::raw_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'full'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON reply FOR EACH ROW EXECUTE FUNCTION refuse();",
    )
    .execute(&world.db.owner())
    .await
    .expect("a trigger");
    assert_eq!(world.buy("k1").await.status, StatusCode::CREATED);
    assert_eq!(world.replies().await, (0, 0));
}

#[tokio::test]
async fn a_purchase_costs_the_gateway_one_durable_transaction() {
    let world = World::new().await;
    world.orders_sell();
    sqlx::raw_sql(
        "CREATE TABLE written (by xid8 NOT NULL);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO written VALUES (pg_current_xact_id()); RETURN NULL; END $$;
         CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON reply FOR EACH STATEMENT EXECUTE FUNCTION note();",
    )
    .execute(&world.db.owner())
    .await
    .expect("a trigger");
    world.buy("k1").await;
    world.buy("k1").await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT tablename::text FROM pg_tables WHERE schemaname = 'gateway' AND tablename NOT LIKE '\\_%' ORDER BY 1",
    )
    .fetch_all(&world.db.owner())
    .await
    .expect("the schema");
    let transactions: i64 = sqlx::query_scalar("SELECT count(DISTINCT by) FROM written")
        .fetch_one(&world.db.owner())
        .await
        .expect("noted");
    assert_eq!(
        transactions, 1,
        "the first wrote its reply, the second nothing; tables: {tables:?}"
    );
}

#[tokio::test]
async fn a_client_that_went_away_finds_its_answer_when_it_comes_back() {
    let world = World::new().await;
    world.orders_sell();
    let places = world.way_to_orders.acquire_many(PLACES).await;
    {
        let (one, other) = (Box::pin(world.buy("k1")), Box::pin(world.buy("k1")));
        let (refused, _gone) = select(one, other).await.factor_first();
        assert_eq!(refused.problem(), (409, "idempotency_in_progress".into()));
    }
    drop(places);
    // The request ends a moment after its answer is stored, and until then it is told to be in progress.
    let answered = async {
        loop {
            let told = world.buy("k1").await;
            if told.status != StatusCode::CONFLICT {
                break told;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let answered = tokio::time::timeout(Duration::from_secs(10), answered).await;
    assert_eq!(answered.expect("in time").status, StatusCode::CREATED);
    assert_eq!(world.replies().await, (1, 1));
    assert_eq!(world.orders.place_order.asked().len(), 1);
}

#[tokio::test]
async fn reply_bytes_live_a_day_and_the_key_is_spent_for_good() {
    let world = World::new().await;
    world.orders_sell();
    world.buy("k1").await;
    world.clock.advance(SignedDuration::from_hours(24));
    // Tokens live an hour.
    let other_day = world
        .post("/v1/orders")
        .with("authorization", &world.bearer_of_buyer_now());
    let refused = other_day.key("k1").send(&basket(2)).await;
    assert_eq!(refused.problem(), (422, "idempotency_key_reused".into()));
    let bearer = world.bearer_of_buyer_now();
    let same = async || {
        let asked = world.post("/v1/orders").with("authorization", &bearer);
        asked.key("k1").send(&basket(1)).await
    };
    let anew = same().await;
    assert_eq!(anew.status, StatusCode::CREATED);
    assert_eq!(
        world.orders.place_order.asked().len(),
        2,
        "the service knows its first outcome"
    );
    assert_eq!(anew.essence(), same().await.essence());
    assert_eq!(world.orders.place_order.asked().len(), 2);
}

#[tokio::test]
async fn replies_whose_time_is_over_are_pruned_and_their_keys_stay() {
    let world = World::new().await;
    world.orders_sell();
    world.buy("k1").await;
    world.clock.advance(SignedDuration::from_hours(25));
    let tasks = world.run_tasks();
    let pruned = async {
        while world.replies().await != (1, 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), pruned)
        .await
        .expect("pruned");
    world.begin_to_end();
    tasks.await.expect("it ends with the process");
}

#[tokio::test]
async fn stored_replies_cannot_be_read_without_the_key() {
    let world = World::new().await;
    world.orders_sell();
    let told = world.buy("k1-secret").await;
    let rows: Vec<u8> = sqlx::query_scalar("SELECT sealed FROM reply")
        .fetch_one(&world.db.owner())
        .await
        .expect("a row");
    for part in [b"TSHIRT".as_slice(), b"confirmed", b"k1-secret"] {
        assert!(!rows.windows(part.len()).any(|window| window == part));
    }
    assert!(rows.len() > told.bytes.len());
}

#[tokio::test]
async fn a_rush_of_buyers_is_looked_up_together_and_each_gets_an_answer_of_their_own() {
    const BUYERS: usize = 2_000;
    let world = World::new().await;
    world.orders.place_order.otherwise(|asked| {
        let text = format!("of {}", asked.request_id);
        Err(Fault::new(FaultCode::Conflict, "OUT_OF_STOCK", text).into())
    });
    let buying = (0..BUYERS).map(|_| {
        let buyer = world.somebody(Role::User);
        let asking = world.post("/v1/orders").by(&buyer).key("k");
        async move { asking.send(&basket(1)).await }
    });
    let told = futures::future::join_all(buying).await;
    let details: HashSet<String> = told
        .iter()
        .map(|told| {
            assert_eq!(told.problem(), (409, "out_of_stock".into()));
            told.json()["detail"].to_string()
        })
        .collect();
    assert_eq!(details.len(), BUYERS);
}

#[tokio::test]
async fn while_the_store_cannot_be_read_nothing_is_done() {
    let world = World::new().await;
    world.orders_sell();
    let owner = world.db.owner();
    for (statement, status) in [
        ("ALTER TABLE reply RENAME TO reply_away", 500),
        ("ALTER TABLE reply_away RENAME TO reply", 201),
    ] {
        sqlx::raw_sql(statement)
            .execute(&owner)
            .await
            .expect("renamed");
        assert_eq!(world.buy("k1").await.status.as_u16(), status, "{statement}");
    }
    assert_eq!(world.orders.place_order.asked().len(), 1);
}

#[tokio::test]
async fn a_rush_stands_in_line_at_the_door_and_not_behind_it() {
    let world = World::new().await;
    world.orders_sell();
    let blocked = world
        .way_to_orders
        .acquire_many(PLACES)
        .await
        .expect("open");
    let buyers: Vec<_> = (0..100).map(|_| world.somebody(Role::User)).collect();
    let buying = futures::future::join_all(buyers.iter().map(|buyer| {
        let asking = world.post("/v1/orders").by(buyer).key("k");
        async { asking.send(&basket(1)).await }
    }));
    let behind_the_door = async {
        while world.calls_on_their_way() < 64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Whoever else is to come has come by now; the line holds them.
        tokio::task::yield_now().await;
        let most = world.calls_on_their_way();
        drop(blocked);
        most
    };
    let (told, most) = tokio::join!(buying, behind_the_door);
    assert_eq!(most, 64);
    assert!(told.iter().all(|told| told.status == StatusCode::CREATED));
}
