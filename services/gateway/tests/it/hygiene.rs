//! What holds for every request and every answer.

use std::collections::HashSet;

use holdfast_platform::identity::Role;
use http::Method;
use serde_json::json;

use crate::world::{World, basket};

const CLIENTS_TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// The trace of a `traceparent`.
fn trace_id(traceparent: Option<&str>) -> String {
    let traceparent = traceparent.expect("a trace");
    let parts: Vec<&str> = traceparent.split('-').collect();
    assert_eq!(parts.len(), 4, "{traceparent}");
    parts[1].to_owned()
}

#[tokio::test]
async fn every_answer_carries_the_headers_that_keep_browsers_safe_and_a_request_id_of_its_own() {
    let world = World::new().await;
    let mut ids = HashSet::new();
    for path in [
        "/",
        "/healthz",
        "/v1/orders",
        "/v1/nothing",
        "/v1/products/x",
        "/openapi.json",
    ] {
        let told = world
            .get(path)
            .with("x-request-id", "mine")
            .send_nothing()
            .await;
        for (name, value) in [
            (
                "strict-transport-security",
                "max-age=63072000; includeSubDomains",
            ),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
        ] {
            assert_eq!(told.header(name), Some(value), "{path}");
        }
        let policy = told.header("content-security-policy").expect("a policy");
        for part in [
            "object-src 'none'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(told.header("server").is_none());
        let id = told.header("x-request-id").expect("an id");
        assert!(ids.insert(id.to_owned()) && id != "mine", "{path}");
    }
}

#[tokio::test]
async fn what_is_somebodys_own_is_stored_nowhere_on_its_way() {
    let world = World::new().await;
    world.orders_sell();
    let told = world.buy("k").await;
    assert_eq!(told.header("cache-control"), Some("no-store"));
    let page = world.get("/").send_nothing().await;
    assert_eq!(page.header("cache-control"), Some("no-cache"));
}

#[tokio::test]
async fn headers_by_which_services_talk_do_not_come_in_from_outside() {
    let world = World::new().await;
    world.orders_sell();
    // Looked at, this one would be refused: it is no peer's identity.
    let told = world
        .post("/v1/orders")
        .by(&world.buyer)
        .key("k")
        .with("x-holdfast-peer", "e30.e30.e30")
        .with("x-holdfast-anything", "1")
        .with("grpc-timeout", "1n")
        .with("x-user-id", "usr_other")
        .send(&basket(1))
        .await;
    assert_eq!(told.status, 201);
    let call = world.orders.place_order.calls().remove(0);
    for name in [
        "x-holdfast-peer",
        "x-holdfast-anything",
        "x-user-id",
        "idempotency-key",
    ] {
        assert!(call.metadata.get(name).is_none(), "{name}");
    }
    let bearer = call
        .metadata
        .get("authorization")
        .expect("the user's own token");
    assert_eq!(
        bearer.to_str().ok(),
        Some(format!("Bearer {}", world.buyer.token()).as_str())
    );
}

#[tokio::test]
async fn every_request_from_outside_begins_a_trace_whatever_it_says() {
    let world = World::new().await;
    world.orders_sell();
    let told = world
        .post("/v1/orders")
        .by(&world.buyer)
        .key("k")
        .from("192.0.2.7")
        .with("traceparent", CLIENTS_TRACE)
        .with("tracestate", "vendor=1")
        .send(&basket(1))
        .await;
    assert_eq!(told.status, 201);
    let answered = trace_id(told.header("traceparent"));
    assert_ne!(answered, trace_id(Some(CLIENTS_TRACE)));
    let call = world.orders.place_order.calls().remove(0);
    let carried = call.metadata.get("traceparent").expect("a trace");
    assert_eq!(trace_id(carried.to_str().ok()), answered);
    assert!(call.metadata.get("tracestate").is_none());

    let refused = world.get("/v1/nothing").send_nothing().await;
    assert_ne!(trace_id(refused.header("traceparent")), answered);
}

#[tokio::test]
async fn a_proxy_of_ours_says_which_trace_a_request_belongs_to() {
    let world = World::behind(&["10.0.0.0/8", "2001:db8::/32"]).await;
    let ask = async |hop, trace| {
        let told = world
            .get("/healthz")
            .from(hop)
            .with("traceparent", trace)
            .send_nothing()
            .await;
        let step = told.header("traceparent").expect("a trace").to_owned();
        assert_ne!(step, trace, "the answer names the gateway's own step");
        trace_id(Some(&step))
    };
    let clients = trace_id(Some(CLIENTS_TRACE));
    for hop in ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1"] {
        assert_eq!(ask(hop, CLIENTS_TRACE).await, clients, "{hop}");
    }
    for hop in ["192.0.2.7", "2001:db9::1"] {
        assert_ne!(ask(hop, CLIENTS_TRACE).await, clients, "{hop}");
    }
    let malformed = CLIENTS_TRACE.to_uppercase();
    assert_ne!(ask("10.1.2.3", &malformed).await, clients);
}

#[tokio::test]
async fn a_head_is_a_get_without_a_body() {
    let world = World::new().await;
    let told = world.ask(Method::HEAD, "/healthz").send_nothing().await;
    assert_eq!(told.status, 200);
    assert!(told.bytes.is_empty());
}

#[tokio::test]
async fn the_landing_page_needs_nothing_from_elsewhere() {
    let world = World::new().await;
    let page = world.get("/").send_nothing().await;
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let text = String::from_utf8_lossy(&page.bytes).into_owned();
    assert!(text.contains("A shop that runs on Holdfast"));
    assert!(!text.contains("http://") && !text.contains("https://"));
    for (path, kind) in [
        ("/assets/shop.css", "text/css"),
        ("/assets/shop.js", "text/javascript"),
    ] {
        assert!(text.contains(path));
        let asset = world.get(path).send_nothing().await;
        assert!(
            asset
                .header("content-type")
                .is_some_and(|it| it.starts_with(kind)),
            "{path}"
        );
    }
    assert_eq!(
        world
            .get("/assets/..%2fCargo.toml")
            .send_nothing()
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn the_door_is_ready_while_its_database_answers_and_it_is_not_about_to_end() {
    let world = World::new().await;
    for path in ["/healthz", "/readyz", "/v1/gateway/healthz"] {
        let told = world.get(path).send_nothing().await;
        assert_eq!(
            (told.status.as_u16(), told.json()),
            (200, json!({"status": "ok"})),
            "{path}"
        );
    }
    world.begin_to_end();
    assert_eq!(world.get("/readyz").send_nothing().await.problem().0, 503);
    assert_eq!(world.get("/healthz").send_nothing().await.status, 200);
}

#[tokio::test]
async fn a_service_is_healthy_when_it_answers_anything_at_all() {
    let world = World::new().await;
    world
        .orders
        .get_order
        .then(Err(tonic::Status::unauthenticated("who are you")));
    world
        .payments
        .get_payment
        .then(Err(tonic::Status::unavailable("gone")));
    assert_eq!(
        world.get("/v1/orders/healthz").send_nothing().await.status,
        200
    );
    assert_eq!(
        world
            .get("/v1/payments/healthz")
            .send_nothing()
            .await
            .problem()
            .0,
        503
    );
    assert_eq!(
        world
            .get("/v1/nobody/healthz")
            .send_nothing()
            .await
            .problem()
            .0,
        404
    );
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let world = World::new().await;
    let ask = async || {
        world
            .get("/v1/users/me")
            .by(&world.buyer)
            .send_nothing()
            .await
    };
    let first = ask().await;
    assert_eq!(
        first.header("ratelimit-policy"),
        Some("\"requests\";q=100;w=60")
    );
    assert_eq!(first.header("ratelimit"), Some("\"requests\";r=99;t=60"));
    for _ in 1..100 {
        assert_ne!(ask().await.status, 429);
    }
    let refused = ask().await;
    assert_eq!(refused.problem(), (429, "too_many_requests".into()));
    assert_eq!(refused.header("retry-after"), Some("1"));
    world.clock.advance(jiff::SignedDuration::from_secs(1));
    assert_ne!(ask().await.status, 429);
    let other = world.somebody(Role::User);
    assert_ne!(
        world
            .get("/v1/users/me")
            .by(&other)
            .send_nothing()
            .await
            .status,
        429
    );
    let staff = world.somebody(Role::Staff);
    for _ in 0..=100 {
        assert_ne!(
            world
                .get("/v1/users/me")
                .by(&staff)
                .send_nothing()
                .await
                .status,
            429
        );
    }
}

#[tokio::test]
async fn passwords_are_tried_ten_times_a_minute_from_one_address() {
    let world = World::new().await;
    world
        .auth
        .login
        .otherwise(|_| Err(tonic::Status::unauthenticated("no")));
    let credentials = json!({"email": "ada@example.com", "password": "x"});
    for _ in 0..10 {
        let told = world.post("/v1/users/login").send(&credentials).await;
        assert_eq!(told.status, 401);
    }
    let told = world.post("/v1/users/login").send(&credentials).await;
    assert_eq!(told.problem(), (429, "too_many_requests".into()));
    assert_eq!(told.header("retry-after"), Some("6"));
    assert_eq!(world.auth.login.asked().len(), 10);
}
