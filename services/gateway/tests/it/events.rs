//! Events and their seat maps, as clients send and see them.

use holdfast_platform::{
    fault::{Fault, FaultCode},
    identity::Role,
};
use holdfast_proto::{events::v1 as pb, money::v1::Money};
use http::Method;
use prost_types::Timestamp;
use serde_json::{Value, json};

use crate::world::World;

const AT: Option<Timestamp> = Some(Timestamp {
    seconds: 1_922_000_000,
    nanos: 0,
});
const AT_TEXT: &str = "2030-11-27T08:53:20Z";

/// A concert as the service tells it.
fn concert(version: i64) -> pb::Event {
    pb::Event {
        id: "evt_1".to_owned(),
        name: "Winter concert".to_owned(),
        venue: "Hall".to_owned(),
        starts_at: AT,
        timezone: "Asia/Tokyo".to_owned(),
        currency: "JPY".to_owned(),
        per_buyer_limit: 6,
        sale: Some(pb::Sale {
            opens_at: AT,
            waiting_room: true,
            lobby_opens_at: AT,
            admissions_per_minute: 600,
            ..pb::Sale::default()
        }),
        sections: vec![pb::Section {
            id: "S".to_owned(),
            name: "Stalls".to_owned(),
            kind: "seated".to_owned(),
            capacity: 2,
            shape: "curved".to_owned(),
            ..pb::Section::default()
        }],
        tiers: vec![pb::Tier {
            id: "adult".to_owned(),
            name: "Adult".to_owned(),
            section: "S".to_owned(),
            price: Some(Money {
                amount: 4_500,
                currency: "JPY".to_owned(),
            }),
            ends_at: None,
        }],
        status: "on_sale".to_owned(),
        created_at: AT,
        published_at: AT,
        version,
        layout_version: 3,
        ..pb::Event::default()
    }
}

fn shown() -> Value {
    json!({
        "id": "evt_1", "name": "Winter concert", "venue": "Hall", "starts_at": AT_TEXT, "timezone": "Asia/Tokyo",
        "currency": "JPY", "status": "on_sale", "reason": null, "per_buyer_limit": 6,
        "sale": {"opens_at": AT_TEXT, "closes_at": null, "waiting_room": true, "lobby_opens_at": AT_TEXT,
            "admissions_per_minute": 600},
        "sections": [{"id": "S", "name": "Stalls", "kind": "seated", "capacity": 2}],
        "tiers": [{"id": "adult", "name": "Adult", "section": "S", "price": {"amount": 4500, "currency": "JPY"},
            "ends_at": null}],
        "created_at": AT_TEXT, "published_at": AT_TEXT,
    })
}

fn stalls() -> pb::Section {
    pb::Section {
        rows: vec![pb::Row {
            row: "A".to_owned(),
            seats: 2,
            numbers: vec!["1".to_owned(), "2".to_owned()],
            x: vec![-28, 28],
            y: vec![800, 800],
            ..pb::Row::default()
        }],
        ..concert(1).sections.remove(0)
    }
}

#[tokio::test]
async fn an_event_is_made_once_under_its_key_and_read_and_changed_by_its_tag() {
    let world = World::new().await;
    let staff = world.somebody(Role::Staff);
    let made = pb::CreateEventResponse {
        event: Some(concert(1)),
    };
    world.events.create_event.then(Ok(made));
    let body = json!({
        "name": "Winter concert", "venue": "Hall", "starts_at": "2030-11-27T17:53:20+09:00", "timezone": "Asia/Tokyo",
        "currency": "JPY", "per_buyer_limit": 6, "sale": {"opens_at": AT_TEXT, "waiting_room": true},
        "sections": [{"id": "S", "name": "Stalls", "kind": "seated", "rows": [{"row": "A", "seats": 2}]},
            {"id": "floor", "name": "Floor", "kind": "general", "capacity": 500}],
        "tiers": [{"id": "adult", "name": "Adult", "section": "S", "price": {"amount": 4500, "currency": "JPY"}}],
    });
    for _ in 0..2 {
        let told = (world.post("/v1/events").by(&staff).key("k"))
            .send(&body)
            .await;
        assert_eq!((told.status.as_u16(), told.json()), (201, shown()));
        assert_eq!(told.header("location"), Some("/v1/events/evt_1"));
        assert_eq!(told.header("etag"), Some("\"1\""));
    }
    let asked = world.events.create_event.asked();
    assert_eq!(asked.len(), 1, "the second time the reply is repeated");
    assert_eq!(
        (asked[0].starts_at, asked[0].sections[0].rows[0].seats),
        (AT, 2)
    );
    assert_eq!(asked[0].sections[1].capacity, 500);
    assert!(asked[0].sale.expect("set").waiting_room);

    let changed = pb::ChangeEventResponse {
        event: Some(concert(2)),
    };
    world.events.change_event.then(Ok(changed));
    let change = || world.ask(Method::PATCH, "/v1/events/evt_1").by(&staff);
    let told = change().send(&json!({"name": "Winter concert"})).await;
    assert_eq!(told.problem(), (428, "precondition_required".to_owned()));
    let told = change()
        .with("if-match", "\"1\"")
        .send(&json!({"sale": {}, "tiers": []}))
        .await;
    assert_eq!(
        (told.status.as_u16(), told.header("etag")),
        (200, Some("\"2\""))
    );
    let asked = world.events.change_event.asked().remove(0);
    assert_eq!(
        (asked.expected_version, asked.name, asked.sections),
        (1, None, None)
    );
    assert_eq!(asked.tiers, Some(pb::Tiers::default()));

    let list = pb::ListEventsResponse {
        events: vec![concert(2)],
        page: None,
    };
    world.events.list_events.then(Ok(list));
    let told = world
        .get("/v1/events?upcoming=true&status=on_sale&q=hall")
        .send_nothing()
        .await;
    assert_eq!(told.json()["data"], json!([shown()]));
    let asked = &world.events.list_events.asked()[0];
    assert!(asked.upcoming);
    assert_eq!(
        (asked.status.as_str(), asked.query.as_str()),
        ("on_sale", "hall")
    );
}

#[tokio::test]
async fn a_layout_is_told_as_it_is_given_and_not_at_all_to_who_has_it() {
    let world = World::new().await;
    let staff = world.somebody(Role::Staff);
    world.events.get_layout.otherwise(|asked| {
        let sections = if asked.known_version == 3 {
            Vec::new()
        } else {
            vec![stalls()]
        };
        Ok(pb::GetLayoutResponse {
            sections,
            version: 3,
        })
    });
    let path = "/v1/events/evt_1/layout";
    let told = world.get(path).send_nothing().await;
    let layout = json!({"sections": [{"id": "S", "name": "Stalls", "kind": "seated", "shape": "curved",
        "rows": [{"row": "A", "seats": 2, "numbers": ["1", "2"], "x": [-28, 28], "y": [800, 800]}]}]});
    assert_eq!((told.status.as_u16(), told.json()), (200, layout.clone()));
    assert_eq!(told.header("etag"), Some("\"3\""));
    for (tags, status) in [
        ("\"3\"", 304),
        ("\"2\", W/\"3\"", 304),
        ("\"2\"", 200),
        ("3", 200),
    ] {
        let told = world
            .get(path)
            .with("if-none-match", tags)
            .send_nothing()
            .await;
        assert_eq!(
            (told.status.as_u16(), told.header("etag")),
            (status, Some("\"3\"")),
            "{tags}"
        );
        assert_eq!(told.bytes.is_empty(), status == 304);
    }

    let replaced = pb::ReplaceLayoutResponse {
        sections: vec![stalls()],
        version: 4,
    };
    world.events.replace_layout.then(Ok(replaced));
    let told = (world.ask(Method::PUT, path).by(&staff))
        .with("if-match", "\"3\"")
        .send(&layout)
        .await;
    assert_eq!(
        (told.status.as_u16(), told.header("etag")),
        (200, Some("\"4\""))
    );
    let asked = world.events.replace_layout.asked().remove(0);
    assert_eq!(
        asked.sections[0].rows,
        stalls().rows,
        "what was read can be sent again"
    );
    assert_eq!((asked.expected_version, asked.sections[0].capacity), (3, 0));
}

#[tokio::test]
async fn what_an_event_lacks_is_told_field_by_field() {
    let world = World::new().await;
    let staff = world.somebody(Role::Staff);
    let fault = Fault::new(
        FaultCode::Conflict,
        "EVENT_INCOMPLETE",
        "it lacks one thing",
    );
    let item = [
        ("field", Value::from("tiers")),
        ("message", Value::from("section S has none")),
    ];
    world
        .events
        .publish_event
        .then(Err(fault.item(item).into()));
    let told = world
        .post("/v1/events/evt_1/publish")
        .by(&staff)
        .send_nothing()
        .await;
    assert_eq!(told.problem(), (409, "event_incomplete".to_owned()));
    assert_eq!(
        told.json()["errors"],
        json!([{"field": "tiers", "message": "section S has none"}])
    );

    for (body, field) in [
        (json!({"starts_at": "tomorrow"}), "starts_at"),
        (json!({"sale": {"opens_at": "soon"}}), "sale.opens_at"),
        (
            json!({"tiers": [{"id": "a", "section": "S", "price": {"amount": 1, "currency": "JPY"}, "ends_at": "late"}]}),
            "tiers[0].ends_at",
        ),
        (
            json!({"sections": [{"id": "S", "kind": "general", "capacity": 0}]}),
            "sections[0].capacity",
        ),
    ] {
        let told = (world.ask(Method::PATCH, "/v1/events/evt_1").by(&staff))
            .with("if-match", "\"1\"")
            .send(&body)
            .await;
        assert_eq!(told.problem(), (422, "invalid_argument".to_owned()));
        assert_eq!(told.json()["errors"][0]["field"], field);
    }
}

#[tokio::test]
async fn an_event_is_called_off_with_a_reason() {
    let world = World::new().await;
    let staff = world.somebody(Role::Staff);
    let cancelled = pb::Event {
        status: "cancelled".to_owned(),
        reason: "the singer is ill".to_owned(),
        ..concert(3)
    };
    let answer = pb::CancelEventResponse {
        event: Some(cancelled),
    };
    world.events.cancel_event.then(Ok(answer));
    let told = (world.post("/v1/events/evt_1/cancel").by(&staff))
        .send(&json!({"reason": "the singer is ill"}))
        .await;
    let body = told.json();
    assert_eq!(
        (&body["status"], &body["reason"]),
        (&json!("cancelled"), &json!("the singer is ill"))
    );
    assert_eq!(
        world.events.cancel_event.asked()[0].reason,
        "the singer is ill"
    );
}
