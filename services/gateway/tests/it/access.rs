//! Who may use which route.

use std::collections::BTreeSet;

use holdfast_gateway::{ACCESS, Audience};
use holdfast_platform::identity::Role;
use http::Method;
use serde_json::json;

use crate::world::World;

fn at(path: &str) -> String {
    path.replace("{service}", "gateway")
        .replace("{file}", "shop.js")
        .replace("{code}", "not_found")
        .replace("{id}", "ord_1")
        .replace("{key}", "A")
        .replace("{slug}", "clothing")
        .replace("{sku}", "A")
}

#[tokio::test]
async fn every_route_lets_in_whom_its_row_names_and_nobody_else() {
    let world = World::new().await;
    let roles = [None, Some(Role::User), Some(Role::Staff), Some(Role::Admin)];
    for (method, path, audience) in ACCESS {
        for role in roles {
            let wanted = match audience {
                Audience::Open | Audience::Anyone => None,
                Audience::User => Some(Role::User),
                Audience::Staff => Some(Role::Staff),
                Audience::Admin => Some(Role::Admin),
            };
            let asking = world.ask(method.parse().expect("a method"), &at(path));
            let asking = match role {
                Some(role) => asking.by(&world.somebody(role)),
                None => asking,
            };
            // Nothing is scripted and no body fits: whoever is let in meets another problem, or none.
            let told = asking.send(&json!([])).await.status.as_u16();
            let refusal = match (role, wanted) {
                (_, None) => None,
                (None, Some(_)) => Some(401),
                (Some(role), Some(wanted)) => (role < wanted).then_some(403),
            };
            let told_refusal = matches!(told, 401 | 403).then_some(told);
            assert_eq!(told_refusal, refusal, "{role:?} {method} {path}: {told}");
        }
    }
}

#[tokio::test]
async fn who_may_not_is_told_so_before_the_body_or_its_key_is_looked_at() {
    let world = World::new().await;
    let nobody = world
        .post("/v1/orders")
        .send(&json!({"nonsense": true}))
        .await;
    assert_eq!(nobody.problem(), (401, "unauthenticated".into()));
    assert_eq!(nobody.header("www-authenticate"), Some("Bearer"));
    let user = world
        .post("/v1/products")
        .by(&world.buyer)
        .send(&json!({"nonsense": true}))
        .await;
    assert_eq!(user.problem(), (403, "forbidden".into()));
}

#[tokio::test]
async fn a_token_that_does_not_hold_is_refused_where_tokens_matter_and_not_looked_at_elsewhere() {
    let world = World::new().await;
    for path in ["/v1/orders", "/v1/products"] {
        let told = world
            .get(path)
            .with("authorization", "Bearer x.y.z")
            .send_nothing()
            .await;
        assert_eq!(told.problem(), (401, "unauthenticated".into()), "{path}");
    }
    let told = world
        .get("/healthz")
        .with("authorization", "Bearer x.y.z")
        .send_nothing()
        .await;
    assert_eq!(told.status, 200);
}

#[tokio::test]
async fn the_documented_routes_are_the_routes_of_the_table() {
    let world = World::new().await;
    let told = world.get("/openapi.json").send_nothing().await.json();
    assert_eq!(
        told["openapi"].as_str().map(|version| &version[..3]),
        Some("3.1")
    );
    let paths = told["paths"].as_object().expect("paths");
    let documented: BTreeSet<(String, String)> = paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().expect("operations").keys();
            methods.map(|method| (method.to_uppercase(), path.clone()))
        })
        .collect();
    let pages = [
        "/",
        "/docs",
        "/assets/{file}",
        "/problems/{code}",
        "/openapi.json",
    ];
    // Documented once, as /v1/{service}/healthz.
    let is_health =
        |path: &str| path.ends_with("/healthz") && !path.contains('{') && path != "/healthz";
    let listed: BTreeSet<(String, String)> = ACCESS
        .iter()
        .filter(|(_, path, _)| !pages.contains(path) && !is_health(path))
        .map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned()))
        .collect();
    assert_eq!(documented, listed);
    for (path, item) in paths {
        for (method, operation) in item.as_object().expect("operations") {
            assert!(
                operation["summary"].is_string(),
                "{method} {path} says what it does"
            );
            assert!(
                operation["responses"]["default"].is_object(),
                "{method} {path}"
            );
        }
    }
    assert!(told["paths"]["/v1/orders"]["post"]["security"].is_array());
    assert!(told["components"]["schemas"]["Problem"].is_object());
}

#[tokio::test]
async fn an_unknown_path_is_404_and_a_wrong_method_405_with_those_allowed() {
    let world = World::new().await;
    for path in [
        "/v1/nothing",
        "/v1/orders/ord_1/nothing",
        "/nothing",
        "/bench/reserve",
        "/metrics",
    ] {
        let told = world.get(path).send_nothing().await;
        assert_eq!(told.problem(), (404, "not_found".into()), "{path}");
    }
    for (method, allow) in [
        (Method::DELETE, "GET, POST, HEAD"),
        (Method::OPTIONS, "GET, POST, HEAD"),
        (Method::TRACE, "GET, POST, HEAD"),
    ] {
        let told = world
            .ask(method, "/v1/orders")
            .by(&world.buyer)
            .send_nothing()
            .await;
        assert_eq!(told.problem(), (405, "method_not_allowed".into()));
        assert_eq!(told.header("allow"), Some(allow));
    }
    let overridden = world
        .get("/v1/inventory/A/policy")
        .with("x-http-method-override", "PUT")
        .send_nothing()
        .await;
    assert_eq!(overridden.problem(), (405, "method_not_allowed".into()));
}
