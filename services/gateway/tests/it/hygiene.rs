//! What holds for every request and every answer.

use std::collections::HashSet;

use holdfast_gateway::ACCESS;
use holdfast_platform::identity::Role;
use http::Method;
use serde_json::json;

use crate::world::{Told, World, basket};

const CLIENTS_TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// The trace of a `traceparent`.
fn trace_id(traceparent: Option<&str>) -> String {
    let traceparent = traceparent.expect("a trace");
    let parts: Vec<&str> = traceparent.split('-').collect();
    assert_eq!(parts.len(), 4, "{traceparent}");
    parts[1].to_owned()
}

/// What every answer says, whoever is told whatever.
const ALWAYS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'",
    ),
    ("cross-origin-opener-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    (
        "strict-transport-security",
        "max-age=63072000; includeSubDomains",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
];
/// What is said of an answer itself. Nothing else is: no server's name, no leave for pages from elsewhere.
const OF_ITSELF: [&str; 15] = [
    "allow",
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "etag",
    "location",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "traceparent",
    "transfer-encoding",
    "vary",
    "www-authenticate",
    "x-request-id",
];

fn has_only_the_headers_of_every_answer(told: &Told, at: &str) {
    let mut said: Vec<(&str, &str)> = told
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().expect("ASCII")))
        .filter(|(name, _)| !OF_ITSELF.contains(name))
        .collect();
    said.sort_unstable();
    assert_eq!(said, ALWAYS, "{at}");
    assert!(told.header("x-request-id").is_some(), "{at}");
    assert!(told.header("cache-control").is_some(), "{at}");
    if told.status.as_u16() >= 400 {
        told.problem();
    }
}

#[tokio::test]
async fn every_answer_of_every_route_carries_the_headers_that_keep_browsers_safe_and_no_others() {
    let world = World::new().await;
    let admin = world.somebody(Role::Admin);
    for (method, path, _) in ACCESS {
        let path = path.replace(['{', '}'], "");
        for method in [*method, "BREW"] {
            let ask = || {
                world
                    .ask(method.parse().expect("a method"), &path)
                    .with("origin", "https://elsewhere.example")
            };
            let at = format!("{method} {path}");
            has_only_the_headers_of_every_answer(&ask().send_nothing().await, &at);
            // Nothing is scripted behind the door: whoever gets there is told of a failure.
            let told = ask().by(&admin).key("k").send(&json!({})).await;
            has_only_the_headers_of_every_answer(&told, &at);
        }
    }
    let nowhere = world.get("/v1/nothing").send_nothing().await;
    has_only_the_headers_of_every_answer(&nowhere, "nowhere");
}

#[tokio::test]
async fn pages_from_elsewhere_are_given_no_leave() {
    let world = World::new().await;
    for origin in [
        "null",
        "https://elsewhere.example",
        "http://shop.example",
        "https://shop.example.evil.example",
        "https://shop.example",
    ] {
        let asked = world
            .ask(Method::OPTIONS, "/v1/orders")
            .with("origin", origin)
            .with("access-control-request-method", "POST")
            .with("access-control-request-headers", "authorization")
            .send_nothing()
            .await;
        assert_eq!(asked.problem(), (405, "method_not_allowed".into()));
        let read = world
            .get("/v1/users/me")
            .by(&world.buyer)
            .with("origin", origin)
            .send_nothing()
            .await;
        // What a form can send without asking for leave is not taken.
        let simple = world
            .post("/v1/users/login")
            .with("origin", origin)
            .with("content-type", "text/plain")
            .send_body("{}".into())
            .await;
        assert_eq!(simple.problem(), (415, "unsupported_media_type".into()));
        for told in [asked, read, simple] {
            let leave = told
                .headers
                .keys()
                .find(|name| name.as_str().starts_with("access-control"));
            assert_eq!(leave, None, "{origin}");
            assert!(told.header("set-cookie").is_none());
        }
    }
}

#[tokio::test]
async fn a_request_is_called_what_a_proxy_of_ours_calls_it_and_else_by_a_name_of_its_own() {
    let world = World::behind(&["10.0.0.0/8"]).await;
    let mut ids = HashSet::new();
    let mut ask = async |hop: &str, name: &str| {
        let told = world
            .get("/v1/nothing")
            .from(hop)
            .with("x-request-id", name)
            .send_nothing()
            .await;
        let id = told.header("x-request-id").expect("an id").to_owned();
        assert!(ids.insert(id.clone()), "{id} twice");
        id
    };
    assert_eq!(ask("10.0.0.1", "mine-1.2_3").await, "mine-1.2_3");
    assert_ne!(ask("192.0.2.7", "mine-4").await, "mine-4");
    for name in ["", "a b", "{\"a\":1}", &"x".repeat(129)] {
        assert_ne!(ask("10.0.0.1", name).await, name);
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
async fn pages_need_nothing_from_elsewhere() {
    let world = World::new().await;
    for (path, title) in [
        ("/", "A shop that runs on Holdfast"),
        ("/docs", "The Holdfast API"),
    ] {
        let page = world.get(path).send_nothing().await;
        assert_eq!(
            page.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        let text = String::from_utf8_lossy(&page.bytes).into_owned();
        assert!(text.contains(title), "{path}");
        // The policy forbids scripts and styles in the page itself.
        for forbidden in ["http://", "https://", "<style", " style=", " onclick="] {
            assert!(!text.contains(forbidden), "{path}: {forbidden}");
        }
        for (opening, kind) in [("href=\"", "text/css"), ("src=\"", "text/javascript")] {
            let assets = text.split(opening).skip(1);
            let assets: Vec<&str> = assets
                .filter_map(|rest| rest.split('"').next())
                .filter(|link| link.starts_with("/assets/"))
                .collect();
            assert_eq!(assets.len(), 1, "{path}: {assets:?}");
            let asset = world.get(assets[0]).send_nothing().await;
            let told = asset.header("content-type");
            assert!(told.is_some_and(|it| it.starts_with(kind)), "{assets:?}");
            let text = String::from_utf8_lossy(&asset.bytes).into_owned();
            assert!(!text.contains("://") && !text.contains("innerHTML"));
        }
    }
    let outside = world.get("/assets/..%2fCargo.toml").send_nothing().await;
    assert_eq!(outside.status, 404);
}

#[tokio::test]
async fn who_has_a_page_or_the_description_already_is_not_sent_it_again() {
    let world = World::new().await;
    for path in ["/", "/docs", "/assets/docs.js", "/openapi.json"] {
        let first = world.get(path).send_nothing().await;
        let tag = first.header("etag").expect("a tag").to_owned();
        let ask = async |known: &str| {
            let asked = world.get(path).with("if-none-match", known);
            asked.send_nothing().await
        };
        for known in [&tag, &format!("\"other\", W/{tag}"), "*"] {
            let told = ask(known).await;
            assert_eq!(told.status, 304, "{path}: {known}");
            assert!(told.bytes.is_empty() && told.header("content-type").is_none());
            assert_eq!(told.header("etag"), Some(tag.as_str()));
        }
        let told = ask("\"other\"").await;
        assert_eq!((told.status.as_u16(), &told.bytes), (200, &first.bytes));
    }
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
async fn a_proxy_of_ours_says_whose_a_request_is_and_nobody_else_does() {
    let world = World::behind(&["10.0.0.0/8"]).await;
    world
        .auth
        .login
        .otherwise(|_| Err(tonic::Status::unauthenticated("no")));
    let credentials = json!({"email": "ada@example.com", "password": "x"});
    let whose = async |hop: &str, said: &[&str]| {
        let mut ask = world.post("/v1/users/login").from(hop);
        for line in said {
            ask = ask.with("x-forwarded-for", line);
        }
        assert_eq!(ask.send(&credentials).await.status, 401);
        let last = world.auth.login.asked().pop().expect("asked");
        last.client_address
    };
    assert_eq!(whose("10.0.0.1", &["192.0.2.7"]).await, "192.0.2.7");
    assert_eq!(whose("10.0.0.1", &["192.0.2.7:4711"]).await, "192.0.2.7");
    assert_eq!(whose("10.0.0.1", &["2001:db8::7"]).await, "2001:db8::7");
    // What the client itself wrote stands before what the hops added.
    let forged = ["198.51.100.1, 192.0.2.7", "10.2.3.4"];
    assert_eq!(whose("10.0.0.1", &forged).await, "192.0.2.7");
    assert_eq!(whose("192.0.2.8", &["198.51.100.1"]).await, "192.0.2.8");
    for unusable in ["", "unknown", "198.51.100.1, _hidden", "10.2.3.4"] {
        assert_eq!(whose("10.0.0.1", &[unusable]).await, "", "{unusable}");
    }
}

#[tokio::test]
async fn clients_behind_one_proxy_have_an_allowance_each() {
    let world = World::behind(&["10.0.0.0/8"]).await;
    let ask = async |client: &str| {
        let asked = world.get("/v1/categories").from("10.0.0.1");
        asked.with("x-forwarded-for", client).send_nothing().await
    };
    for _ in 0..100 {
        assert_ne!(ask("192.0.2.7").await.status, 429);
    }
    assert_eq!(ask("192.0.2.7").await.status, 429);
    assert_ne!(ask("192.0.2.8").await.status, 429);
    // One subscriber has all addresses of an IPv6 /64.
    for last in 1..=100 {
        assert_ne!(ask(&format!("2001:db8::{last:x}")).await.status, 429);
    }
    assert_eq!(ask("2001:db8::ffff:1").await.status, 429);
    assert_ne!(ask("2001:db8:0:1::1").await.status, 429);
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
