//! Webhooks and the feed, from the client's bytes to the service's message and back.

use holdfast_platform::{
    fault::{Fault, FaultCode},
    identity::Role,
};
use holdfast_proto::{page::v1::PageInfo, webhooks::v1 as webhooks};
use http::Method;
use serde_json::json;

use crate::world::World;

const AT: Option<prost_types::Timestamp> = Some(prost_types::Timestamp {
    seconds: 1_795_000_000,
    nanos: 0,
});
const AT_TEXT: &str = "2026-11-18T11:06:40Z";

fn subscription() -> webhooks::Subscription {
    webhooks::Subscription {
        id: "whk_1".to_owned(),
        url: "https://example.com/".to_owned(),
        types: vec!["order.*".to_owned()],
        description: "the warehouse".to_owned(),
        status: webhooks::SubscriptionStatus::Disabled.into(),
        disabled_reason: "failing".to_owned(),
        failing_since: AT,
        created_at: AT,
    }
}

fn shown() -> serde_json::Value {
    json!({"id": "whk_1", "url": "https://example.com/", "types": ["order.*"], "description": "the warehouse",
        "status": "disabled", "disabled_reason": "failing", "failing_since": AT_TEXT, "created_at": AT_TEXT})
}

fn with_secret(secret: &str) -> serde_json::Value {
    let mut shown = shown();
    shown["secret"] = secret.into();
    shown
}

#[tokio::test]
async fn a_webhook_is_made_with_its_secret_and_shown_without() {
    let world = World::new().await;
    let admin = world.somebody(Role::Admin);
    let made = webhooks::CreateSubscriptionResponse {
        subscription: Some(subscription()),
        secret: "whsec_x".to_owned(),
    };
    world.webhooks.create_subscription.then(Ok(made));
    let body = json!({"url": "https://example.com/", "types": ["order.*"], "description": "the warehouse"});
    for _ in 0..2 {
        let told = world
            .post("/v1/webhooks")
            .by(&admin)
            .key("k")
            .send(&body)
            .await;
        assert_eq!(
            (told.status.as_u16(), told.json()),
            (201, with_secret("whsec_x"))
        );
        assert_eq!(told.header("location"), Some("/v1/webhooks/whk_1"));
    }
    let asked = world.webhooks.create_subscription.asked();
    let [asked] = asked.as_slice() else {
        panic!("the same key asks once: {asked:?}");
    };
    assert_eq!(
        (asked.url.as_str(), asked.types.as_slice()),
        ("https://example.com/", &["order.*".to_owned()][..])
    );
    let told = world.post("/v1/webhooks").by(&admin).send(&body).await;
    assert_eq!(told.problem(), (400, "idempotency_key_required".into()));

    let listed = webhooks::ListSubscriptionsResponse {
        subscriptions: vec![subscription()],
        page: Some(PageInfo {
            next_token: "more".to_owned(),
        }),
    };
    world.webhooks.list_subscriptions.then(Ok(listed));
    let told = world.get("/v1/webhooks").by(&admin).send_nothing().await;
    assert_eq!(
        told.json(),
        json!({"data": [shown()], "next_cursor": "more", "has_more": true})
    );
    let found = webhooks::GetSubscriptionResponse {
        subscription: Some(subscription()),
    };
    world.webhooks.get_subscription.then(Ok(found));
    let told = world
        .get("/v1/webhooks/whk_1")
        .by(&admin)
        .send_nothing()
        .await;
    assert_eq!(told.json(), shown());
}

#[tokio::test]
async fn types_that_no_message_has_are_refused_by_their_names() {
    let world = World::new().await;
    let refused = Fault::new(
        FaultCode::Invalid,
        "UNKNOWN_MESSAGE_TYPE",
        "no message has the type x",
    )
    .item([("field", "types".into()), ("type", "x".into())]);
    world.webhooks.create_subscription.then(Err(refused.into()));
    let told = world
        .post("/v1/webhooks")
        .by(&world.somebody(Role::Admin))
        .key("k")
        .send(&json!({"url": "https://example.com/", "types": ["x"]}))
        .await;
    assert_eq!(told.problem(), (422, "unknown_message_type".into()));
    assert_eq!(
        told.json()["errors"],
        json!([{"field": "types", "type": "x"}])
    );
}

#[tokio::test]
async fn a_webhook_is_enabled_rotated_and_ended() {
    let world = World::new().await;
    let admin = world.somebody(Role::Admin);
    let enabled = webhooks::EnableSubscriptionResponse {
        subscription: Some(subscription()),
    };
    world.webhooks.enable_subscription.then(Ok(enabled));
    let told = world
        .post("/v1/webhooks/whk_1/enable")
        .by(&admin)
        .send_nothing()
        .await;
    assert_eq!((told.status.as_u16(), told.json()), (200, shown()));

    let rotated = webhooks::RotateSecretResponse {
        subscription: Some(subscription()),
        secret: "whsec_y".to_owned(),
    };
    world.webhooks.rotate_secret.then(Ok(rotated));
    for _ in 0..2 {
        let told = world
            .post("/v1/webhooks/whk_1/rotate")
            .by(&admin)
            .key("k")
            .send_nothing()
            .await;
        assert_eq!(
            (told.status.as_u16(), told.json()),
            (200, with_secret("whsec_y"))
        );
    }
    assert_eq!(world.webhooks.rotate_secret.asked().len(), 1);

    let ended = webhooks::DeleteSubscriptionResponse {};
    world.webhooks.delete_subscription.then(Ok(ended));
    let told = world
        .ask(Method::DELETE, "/v1/webhooks/whk_1")
        .by(&admin)
        .send_nothing()
        .await;
    assert_eq!((told.status.as_u16(), told.bytes.len()), (204, 0));
    let gone = Fault::new(FaultCode::NotFound, "UNKNOWN_WEBHOOK", "no such webhook");
    world.webhooks.get_subscription.then(Err(gone.into()));
    let told = world
        .get("/v1/webhooks/whk_1")
        .by(&admin)
        .send_nothing()
        .await;
    assert_eq!(told.problem(), (404, "unknown_webhook".into()));
}

#[tokio::test]
async fn messages_are_asked_for_again_by_id_or_by_a_span_and_not_by_both() {
    let world = World::new().await;
    let admin = world.somebody(Role::Admin);
    world
        .webhooks
        .replay
        .otherwise(|_| Ok(webhooks::ReplayResponse { scheduled: 2 }));
    let span = json!({"from": "2026-11-18T11:06:40Z", "to": "2026-11-18T20:06:41+09:00"});
    let wishes = [json!({"message_id": "m"}), span];
    for (key, wish) in ["1", "2"].into_iter().zip(&wishes) {
        let told = world
            .post("/v1/webhooks/whk_1/replay")
            .by(&admin)
            .key(key)
            .send(wish)
            .await;
        assert_eq!(
            (told.status.as_u16(), told.json()),
            (200, json!({"scheduled": 2}))
        );
    }
    let asked: Vec<_> = world
        .webhooks
        .replay
        .asked()
        .into_iter()
        .map(|asked| asked.what)
        .collect();
    let later = prost_types::Timestamp {
        seconds: 1_795_000_001,
        nanos: 0,
    };
    let wanted = [
        webhooks::replay_request::What::MessageId("m".to_owned()),
        webhooks::replay_request::What::Span(webhooks::Span {
            from: AT,
            to: Some(later),
        }),
    ];
    assert_eq!(asked, wanted.map(Some));
    for refused in [
        json!({}),
        json!({"from": AT_TEXT}),
        json!({"message_id": "m", "from": AT_TEXT, "to": AT_TEXT}),
        json!({"from": "yesterday", "to": AT_TEXT}),
    ] {
        let told = world
            .post("/v1/webhooks/whk_1/replay")
            .by(&admin)
            .key("3")
            .send(&refused)
            .await;
        assert_eq!(
            told.problem(),
            (422, "invalid_argument".into()),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn every_try_is_listed_with_what_came_of_it() {
    let world = World::new().await;
    let attempt =
        |number, status_code, error: &str, state: webhooks::DeliveryState| webhooks::Attempt {
            message_id: "m".to_owned(),
            r#type: "order.paid".to_owned(),
            number,
            at: AT,
            status_code,
            error: error.to_owned(),
            duration_millis: 31,
            state: state.into(),
            next_attempt_at: AT.filter(|_| state == webhooks::DeliveryState::Waiting),
        };
    let attempts = vec![
        attempt(2, 0, "timeout", webhooks::DeliveryState::Waiting),
        attempt(1, 500, "", webhooks::DeliveryState::Dead),
    ];
    let listed = webhooks::ListAttemptsResponse {
        attempts,
        page: None,
    };
    world.webhooks.list_attempts.then(Ok(listed));
    let told = world
        .get("/v1/webhooks/whk_1/deliveries?limit=2")
        .by(&world.somebody(Role::Admin))
        .send_nothing()
        .await;
    assert_eq!(
        told.json()["data"],
        json!([
            {"message_id": "m", "type": "order.paid", "attempt": 2, "attempted_at": AT_TEXT, "status_code": null,
             "error": "timeout", "duration_ms": 31, "state": "waiting", "next_attempt_at": AT_TEXT},
            {"message_id": "m", "type": "order.paid", "attempt": 1, "attempted_at": AT_TEXT, "status_code": 500,
             "error": null, "duration_ms": 31, "state": "dead", "next_attempt_at": null},
        ])
    );
}

#[tokio::test]
async fn the_feed_gives_messages_as_they_are_and_always_a_place_to_go_on() {
    let world = World::new().await;
    let admin = world.somebody(Role::Admin);
    let fetched = webhooks::ListMessagesResponse {
        envelopes: vec![r#"{"specversion":"1.0","version":"3"}"#.to_owned()],
        page: Some(PageInfo {
            next_token: "7".to_owned(),
        }),
        has_more: false,
    };
    world.webhooks.list_messages.then(Ok(fetched));
    let told = world
        .get("/v1/messages?after=6&types=order.*,payment.captured&limit=5")
        .by(&admin)
        .send_nothing()
        .await;
    assert_eq!(
        told.json(),
        json!({"data": [{"specversion": "1.0", "version": "3"}], "next_cursor": "7", "has_more": false})
    );
    let asked = &world.webhooks.list_messages.asked()[0];
    assert_eq!(asked.types, ["order.*", "payment.captured"]);
    let page = asked.page.clone().expect("set");
    assert_eq!((page.token.as_str(), page.size), ("6", 5));
    let gone = Fault::new(
        FaultCode::NotFound,
        "MESSAGES_NOT_KEPT",
        "not kept any more",
    );
    world.webhooks.list_messages.then(Err(gone.into()));
    let told = world
        .get("/v1/messages?after=1")
        .by(&admin)
        .send_nothing()
        .await;
    assert_eq!(told.problem(), (410, "messages_not_kept".into()));
    let refused = Fault::invalid("page", "the page token is none that this list gave");
    world.webhooks.list_messages.then(Err(refused.into()));
    let told = world
        .get("/v1/messages?after=x")
        .by(&admin)
        .send_nothing()
        .await;
    assert_eq!(told.problem(), (422, "invalid_argument".into()));
    assert_eq!(told.json()["errors"][0]["field"], "after");
}
