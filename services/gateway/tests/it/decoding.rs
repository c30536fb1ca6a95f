//! What clients send, and what they are told when it cannot be taken.

use futures::StreamExt;
use holdfast_platform::{fault::Fault, identity::Role};
use http::Method;
use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn a_body_that_does_not_fit_is_refused_by_the_name_of_its_field() {
    let world = World::new().await;
    let line = json!({"sku": "A", "quantity": 1});
    let table: [(Value, &str, &str); 13] = [
        (json!({}), "items", "is missing"),
        (json!({"items": [line]}), "payment_method", "is missing"),
        (
            json!({"items": [line], "payment_method": 7}),
            "payment_method",
            "got integer `7`, wanted a payment method's id or an object with type and token",
        ),
        (
            json!({"items": [line], "payment_method": {"type": "card", "token": "t", "pan": "4111"}}),
            "payment_method.pan",
            "is no field here, wanted one of type, token, store",
        ),
        (
            json!({"items": [line], "payment_method": {"type": "card"}}),
            "payment_method.token",
            "is missing",
        ),
        (
            json!({"items": [line], "payment_method": {"type": "cash", "token": "t"}}),
            "payment_method.type",
            "wanted card or konbini",
        ),
        (
            json!({"items": [line], "payment_method": {"type": "card", "token": "t", "store": "lawson"}}),
            "payment_method.store",
            "a card has none",
        ),
        (
            json!({"items": [{"sku": "A", "quantity": "2"}], "payment_method": "pm_1"}),
            "items[0].quantity",
            "got string \"2\", wanted a whole number",
        ),
        (
            json!({"items": [line, {"sku": "A", "quantity": 1, "price": 0}], "payment_method": "pm_1"}),
            "items[1].price",
            "is no field here, wanted one of sku or quantity",
        ),
        (
            json!({"items": [line], "payment_method": "pm_1", "status": "paid"}),
            "status",
            "is no field here, wanted one of items, payment_method, address_id, slot_id, points, voucher",
        ),
        (
            json!({"items": [["A", 1]], "payment_method": "pm_1"}),
            "items[0]",
            "got a list, wanted an object",
        ),
        (
            json!([[line], "pm_1"]),
            "body",
            "got a list, wanted an object",
        ),
        (
            json!("order"),
            "body",
            "got string \"order\", wanted an object",
        ),
    ];
    for (body, field, message) in table {
        let told = world
            .post("/v1/orders")
            .by(&world.buyer)
            .key("k")
            .send(&body)
            .await;
        assert_eq!(told.problem(), (422, "invalid_argument".into()), "{body}");
        let problem = told.json();
        assert_eq!(problem["errors"][0]["field"], field, "{body}");
        assert_eq!(problem["errors"][0]["message"], message, "{body}");
        assert_eq!(problem["detail"], format!("{field}: {message}"), "{body}");
    }
    assert!(world.orders.place_order.asked().is_empty());
}

#[tokio::test]
async fn what_is_not_offered_yet_is_refused_not_ignored() {
    let world = World::new().await;
    for (field, value) in [("address_id", json!("adr_1")), ("slot_id", json!("s"))] {
        let mut body = crate::world::basket(1);
        body[field] = value;
        let told = world
            .post("/v1/orders")
            .by(&world.buyer)
            .key("k")
            .send(&body)
            .await;
        assert_eq!(told.problem(), (422, "not_available".into()), "{field}");
        assert_eq!(told.json()["errors"], json!([{"field": field}]));
    }
}

#[tokio::test]
async fn what_is_no_json_or_not_called_so_is_refused() {
    let world = World::new().await;
    let login = || world.post("/v1/users/login");
    let json_type = ("content-type", "application/json");
    for body in ["{", r#"{"email":"a","password":"b"}{}"#, "\u{feff}{}"] {
        let told = login()
            .with(json_type.0, json_type.1)
            .send_body(body.to_owned().into())
            .await;
        assert_eq!(
            told.problem(),
            (400, "malformed_body".into()),
            "{}",
            &body[..1]
        );
    }
    for media_type in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let told = login()
            .with("content-type", media_type)
            .send_body("{}".into())
            .await;
        assert_eq!(
            told.problem(),
            (415, "unsupported_media_type".into()),
            "{media_type}"
        );
    }
}

#[tokio::test]
async fn a_body_above_its_limit_is_refused_whether_it_says_so_or_not() {
    let world = World::new().await;
    let mebibyte = 1024 * 1024;
    let login = || {
        world
            .post("/v1/users/login")
            .with("content-type", "application/json")
    };
    let told = login()
        .with("content-length", "99999999999")
        .send_body("{}".into())
        .await;
    assert_eq!(told.problem(), (413, "body_too_large".into()));
    let chunks = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 64 * 1024]));
    let chunks = chunks.take(17);
    let told = login()
        .send_body(axum::body::Body::from_stream(chunks))
        .await;
    assert_eq!(told.problem(), (413, "body_too_large".into()));
    let fits = format!("{{{}}}", " ".repeat(mebibyte - 2));
    let told = login().send_body(fits.into()).await;
    assert_eq!(
        told.problem(),
        (422, "invalid_argument".into()),
        "read, and found to lack fields"
    );
}

#[tokio::test]
async fn a_query_that_does_not_fit_is_refused_by_name() {
    let world = World::new().await;
    let staff = world.somebody(Role::Staff);
    for (path, field) in [
        ("/v1/products?colour=red", "colour"),
        ("/v1/products?limit=many", "limit"),
        ("/v1/products?limit=0", "limit"),
        ("/v1/products?limit=101", "limit"),
        ("/v1/products?limit=1&limit=2", "limit"),
        ("/v1/orders?status=sold", "status"),
        ("/v1/orders?status=unspecified", "status"),
        ("/v1/inventory/A?at=yesterday", "at"),
        ("/v1/inventory/a%20b", "key"),
    ] {
        let told = world.get(path).by(&staff).send_nothing().await;
        assert_eq!(told.problem(), (422, "invalid_argument".into()), "{path}");
        assert_eq!(told.json()["errors"][0]["field"], field, "{path}");
    }
}

#[tokio::test]
async fn a_change_says_what_it_was_read_as_or_is_refused() {
    let world = World::new().await;
    let staff = world.somebody(Role::Staff);
    for (method, path, body) in [
        (
            Method::POST,
            "/v1/inventory/A/adjustments",
            json!({"delta": 1, "reason": "counted"}),
        ),
        (
            Method::PUT,
            "/v1/inventory/A/policy",
            json!({"overbook": 1}),
        ),
    ] {
        let asking = || world.ask(method.clone(), path).by(&staff).key("k");
        let missing = asking().send(&body).await;
        assert_eq!(
            missing.problem(),
            (428, "precondition_required".into()),
            "{path}"
        );
        for tag in ["*", "7", "W/\"7\"", "\"x\"", "\"0\"", "\"7\", \"8\""] {
            let told = asking().with("if-match", tag).send(&body).await;
            assert_eq!(
                told.problem(),
                (422, "invalid_argument".into()),
                "{path} {tag}"
            );
        }
    }
}

#[tokio::test]
async fn a_cursor_that_no_list_gave_is_refused_by_its_own_name() {
    let world = World::new().await;
    let refused = Fault::invalid("page", "the page token is none that this list gave");
    world.catalog.list_products.then(Err(refused.into()));
    let told = world.get("/v1/products?cursor=zz").send_nothing().await;
    assert_eq!(told.problem(), (422, "invalid_argument".into()));
    assert_eq!(told.json()["errors"][0]["field"], "cursor");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let world = World::new().await;
    let never = futures::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    // From here on time jumps to the next timer.
    tokio::time::pause();
    let told = world
        .post("/v1/users/login")
        .with("content-type", "application/json")
        .send_body(axum::body::Body::from_stream(never))
        .await;
    assert_eq!(told.problem(), (408, "body_too_slow".into()));
}
