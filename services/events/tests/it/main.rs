//! The events service at its door, on a real database.

mod seating;
mod statements;
mod world;

use holdfast_platform::{fault::Fault, identity::Role};
use holdfast_proto::{events::v1 as pb, page::v1::PageRequest};
use jiff::SignedDuration;
use serde_json::{Value, json};
use tonic::{Code, Request};
use world::{World, at, concert, field, reason, seated, tier};

#[tokio::test]
async fn a_draft_exists_for_staff_alone_until_it_is_published_for_everybody() {
    let world = World::new().await;
    let made = world.create(concert()).await.expect("made");
    assert_eq!((made.status.as_str(), made.version), ("draft", 1));
    for hidden in [
        world
            .show(&world.buyer, &made.id)
            .await
            .expect_err("a draft"),
        world
            .layout(&world.buyer, &made.id, 0)
            .await
            .expect_err("a draft"),
    ] {
        assert_eq!(reason(&hidden), "UNKNOWN_EVENT");
    }
    assert_eq!(
        world.show(&world.staff, &made.id).await.expect("theirs"),
        made
    );
    assert_eq!(world.announced(&made.id).await, []);

    for _ in 0..2 {
        let published = world.publish(&made.id).await.expect("published");
        assert_eq!(
            (published.status.as_str(), published.version),
            ("published", 2)
        );
    }
    let nobody = Request::new(pb::GetEventRequest {
        event_id: made.id.clone(),
    });
    let shown = world.client().get_event(nobody).await.expect("public");
    let shown = shown.into_inner().event.expect("set");
    assert_eq!(shown.sections[0].capacity, 7);
    assert_eq!(shown.sections[1].pool, format!("ga:{}:floor", made.id));
    assert_eq!(
        shown.tiers[0].name, "adult",
        "what has no name is called by its id"
    );
    assert_eq!(
        world.announced(&made.id).await,
        [("event.published".to_owned(), 1, Value::Null)]
    );
    assert_eq!(world.audited().await, ["event_created", "event_published"]);
}

#[tokio::test]
async fn only_staff_plan_events() {
    let world = World::new().await;
    let refused = world
        .client()
        .create_event(world.buyer.ask(concert()))
        .await;
    assert_eq!(
        refused.expect_err("no staff").code(),
        Code::PermissionDenied
    );
    let event = world.published().await.id;
    let cancel = pb::CancelEventRequest {
        event_id: event.clone(),
        reason: "for fun".to_owned(),
    };
    let refused = world.client().cancel_event(world.buyer.ask(cancel)).await;
    assert_eq!(
        refused.expect_err("no staff").code(),
        Code::PermissionDenied
    );
    let seats = pb::ListSeatsRequest {
        event_id: event,
        ..pb::ListSeatsRequest::default()
    };
    let refused = world.client().list_seats(world.buyer.ask(seats)).await;
    assert_eq!(refused.expect_err("no peer").code(), Code::PermissionDenied);
}

#[tokio::test]
async fn the_same_request_again_is_the_same_event_and_another_under_its_id_is_refused() {
    let world = World::new().await;
    let wish = concert();
    let tries = (0..4).map(|_| world.create(wish.clone()));
    let made = futures::future::join_all(tries).await;
    let first = made[0].as_ref().expect("made");
    for again in &made {
        assert_eq!(again.as_ref().expect("the same"), first);
    }
    let other = pb::CreateEventRequest {
        fingerprint: vec![2].into(),
        ..wish
    };
    let refused = world.create(other).await.expect_err("another");
    assert_eq!(reason(&refused), "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(world.audited().await, ["event_created"]);
}

#[tokio::test]
async fn time_opens_and_closes_the_sale_and_lists_know_it() {
    let world = World::new().await;
    let event = world.published().await.id;
    for (passes, status) in [
        (99, "published"),
        (1, "on_sale"),
        (99, "on_sale"),
        (1, "closed"),
    ] {
        world.clock.advance(SignedDuration::from_secs(passes));
        let buyer = world.somebody(Role::User);
        let shown = world.show(&buyer, &event).await.expect("public");
        assert_eq!(shown.status, status);
        for word in ["draft", "published", "on_sale", "closed", "cancelled"] {
            let wanted = pb::ListEventsRequest {
                status: word.to_owned(),
                ..pb::ListEventsRequest::default()
            };
            let listed = world.list(&buyer, wanted).await.expect("a list").events;
            assert_eq!(
                listed.len(),
                usize::from(word == status),
                "{word} when it is {status}"
            );
        }
    }
}

#[tokio::test]
async fn a_list_runs_by_the_start_and_narrows_by_time_and_words_page_by_page() {
    let world = World::new().await;
    for (name, venue, starts_at) in [
        ("Late show", "Club", 900),
        ("Early SHOW", "Hall", 400),
        ("Match", "Stadium of 100% steel", 500),
        ("Gone show", "Club", 450),
    ] {
        let event = world.create(pb::CreateEventRequest {
            name: name.to_owned(),
            venue: venue.to_owned(),
            starts_at: at(starts_at),
            ..concert()
        });
        let event = event.await.expect("made").id;
        if name != "Late show" {
            world.publish(&event).await.expect("published");
        }
        if name == "Gone show" {
            world.cancel(&event, "ill").await.expect("cancelled");
        }
    }
    let names = async |role: Role, query: &str, upcoming: bool| -> Vec<String> {
        let (mut names, mut token) = (Vec::new(), String::new());
        loop {
            let wanted = pb::ListEventsRequest {
                page: Some(PageRequest { size: 1, token }),
                upcoming,
                query: query.to_owned(),
                ..pb::ListEventsRequest::default()
            };
            let page = world
                .list(&world.somebody(role), wanted)
                .await
                .expect("a page");
            names.extend(page.events.into_iter().map(|event| event.name));
            token = page.page.expect("set").next_token;
            if token.is_empty() {
                return names;
            }
        }
    };
    assert_eq!(
        names(Role::User, "", false).await,
        ["Early SHOW", "Gone show", "Match"]
    );
    assert_eq!(names(Role::User, "", true).await, ["Early SHOW", "Match"]);
    assert_eq!(
        names(Role::Staff, "show", true).await,
        ["Early SHOW", "Late show"]
    );
    assert_eq!(names(Role::User, "ear hall", false).await, ["Early SHOW"]);
    assert_eq!(names(Role::User, "100% steel", false).await, ["Match"]);
    assert_eq!(names(Role::User, "%", false).await, ["Match"]);
    world.clock.advance(SignedDuration::from_secs(450));
    assert_eq!(names(Role::User, "", true).await, ["Match"]);

    let odd = pb::ListEventsRequest {
        status: "sold".to_owned(),
        ..pb::ListEventsRequest::default()
    };
    let buyer = world.somebody(Role::User);
    let refused = world.list(&buyer, odd).await.expect_err("no such status");
    assert_eq!(field(&refused), "status");
}

#[tokio::test]
async fn an_event_changes_only_as_it_was_read_and_the_public_is_told_what_of_it() {
    let world = World::new().await;
    let made = world.create(concert()).await.expect("made");
    let rename = |version: i64, name: &str| pb::ChangeEventRequest {
        event_id: made.id.clone(),
        expected_version: version,
        name: Some(name.to_owned()),
        ..pb::ChangeEventRequest::default()
    };
    let changed = world
        .change(rename(1, "Summer concert"))
        .await
        .expect("a draft");
    assert_eq!(
        (changed.name.as_str(), changed.version),
        ("Summer concert", 2)
    );
    assert_eq!(
        world.announced(&made.id).await,
        [],
        "drafts change silently"
    );
    let stale = world.change(rename(1, "Autumn concert")).await;
    let stale = Fault::from_status(&stale.expect_err("stale"));
    assert_eq!(
        (stale.reason(), stale.figure("version")),
        ("EVENT_CHANGED", Some("2"))
    );

    world.publish(&made.id).await.expect("published");
    let same = world
        .change(rename(3, "Summer concert"))
        .await
        .expect("no change");
    assert_eq!(same.version, 3);
    let put_off = pb::ChangeEventRequest {
        event_id: made.id.clone(),
        starts_at: at(9_000),
        tiers: Some(pb::Tiers {
            tiers: vec![
                tier("adult", "S", 5_000),
                tier("child", "S", 2_000),
                tier("floor", "floor", 3_000),
                tier("late", "floor", 4_000),
            ],
        }),
        ..pb::ChangeEventRequest::default()
    };
    let after = world.change(put_off).await.expect("changed");
    assert_eq!((after.version, after.tiers.len()), (4, 4));
    assert_eq!(
        world.show(&world.buyer, &made.id).await.expect("public"),
        after
    );
    assert_eq!(
        world.announced(&made.id).await,
        [
            ("event.published".to_owned(), 1, Value::Null),
            ("event.changed".to_owned(), 2, json!(["starts_at", "tiers"])),
        ]
    );
    let fewer = pb::ChangeEventRequest {
        event_id: made.id.clone(),
        tiers: Some(pb::Tiers {
            tiers: vec![tier("adult", "S", 5_000)],
        }),
        ..pb::ChangeEventRequest::default()
    };
    let refused = world
        .change(fewer)
        .await
        .expect_err("somebody may hold one");
    assert_eq!(
        (reason(&refused).as_str(), field(&refused).as_str()),
        ("EVENT_PUBLISHED", "tiers")
    );
}

#[tokio::test]
async fn of_many_changes_of_one_version_one_is_made() {
    let world = World::new().await;
    let made = world.create(concert()).await.expect("made");
    let tries = (0..8).map(|number| {
        world.change(pb::ChangeEventRequest {
            event_id: made.id.clone(),
            expected_version: 1,
            name: Some(format!("Concert {number}")),
            ..pb::ChangeEventRequest::default()
        })
    });
    let done = futures::future::join_all(tries).await;
    assert_eq!(done.iter().filter(|answer| answer.is_ok()).count(), 1);
    let refused = done.iter().filter_map(|answer| answer.as_ref().err());
    assert!(refused.map(reason).all(|reason| reason == "EVENT_CHANGED"));
}

#[tokio::test]
async fn an_event_that_lacks_something_is_not_published_and_told_what() {
    let world = World::new().await;
    let bare = pb::CreateEventRequest {
        sections: vec![seated("S", &[])],
        tiers: Vec::new(),
        ..concert()
    };
    let made = world.create(bare).await.expect("a draft").id;
    let refused = world.publish(&made).await.expect_err("incomplete");
    let fault = Fault::from_status(&refused);
    assert_eq!(fault.reason(), "EVENT_INCOMPLETE");
    let fields: Vec<&Value> = fault.items().iter().map(|item| &item["field"]).collect();
    assert_eq!(fields, ["sections[0].rows", "tiers"]);
    assert_eq!(
        world.show(&world.staff, &made).await.expect("there").status,
        "draft"
    );
}

#[tokio::test]
async fn a_cancelled_event_is_told_once_with_its_first_reason_and_one_nobody_saw_is_not() {
    let world = World::new().await;
    let event = world.published().await.id;
    for reason in ["the singer is ill", "the hall burned down"] {
        let cancelled = world.cancel(&event, reason).await.expect("cancelled");
        assert_eq!(
            (cancelled.status.as_str(), cancelled.reason.as_str()),
            ("cancelled", "the singer is ill")
        );
    }
    assert_eq!(
        world
            .show(&world.buyer, &event)
            .await
            .expect("public")
            .status,
        "cancelled"
    );
    let kinds: Vec<(String, i64)> = (world.announced(&event).await.into_iter())
        .map(|(kind, version, _)| (kind, version))
        .collect();
    assert_eq!(
        kinds,
        [
            ("event.published".to_owned(), 1),
            ("event.cancelled".to_owned(), 2)
        ]
    );
    let refused = world.publish(&event).await.expect_err("cancelled");
    assert_eq!(reason(&refused), "EVENT_CANCELLED");

    let draft = world.create(concert()).await.expect("made").id;
    world.cancel(&draft, "no money").await.expect("cancelled");
    assert_eq!(world.announced(&draft).await, []);
    let hidden = world
        .show(&world.buyer, &draft)
        .await
        .expect_err("never seen");
    assert_eq!(reason(&hidden), "UNKNOWN_EVENT");
}

/// Makes something wrong with a wish.
type Spoil = fn(&mut pb::CreateEventRequest);

#[tokio::test]
async fn what_cannot_be_read_of_a_plan_is_refused_by_its_field() {
    let world = World::new().await;
    let fields: [(&str, Spoil); 13] = [
        ("request_id", |wish| wish.request_id = "1".to_owned()),
        ("starts_at", |wish| wish.starts_at = None),
        ("timezone", |wish| wish.timezone = "JST+9".to_owned()),
        ("currency", |wish| wish.currency = "yen".to_owned()),
        ("per_buyer_limit", |wish| wish.per_buyer_limit = -1),
        ("sale.opens_at", |wish| {
            wish.sale = Some(pb::Sale {
                waiting_room: true,
                ..pb::Sale::default()
            });
        }),
        ("sale.lobby_opens_at", |wish| {
            wish.sale = Some(pb::Sale {
                lobby_opens_at: at(1),
                ..pb::Sale::default()
            });
        }),
        ("sections[1].kind", |wish| {
            wish.sections[1].kind = "sitting".to_owned();
        }),
        ("sections[0].capacity", |wish| wish.sections[0].capacity = 7),
        ("sections[0].shape", |wish| {
            wish.sections[0].shape = "round".to_owned();
        }),
        ("sections[0].rows[1].x", |wish| {
            wish.sections[0].rows[0].x = vec![0, 1, 2];
            wish.sections[0].rows[0].y = vec![0, 1, 2];
        }),
        ("sections[0].rows[1].y", |wish| {
            wish.sections[0].rows[1].x = vec![0, 1, 2, 3];
        }),
        ("sections[0].rows[1].seats", |wish| {
            wish.sections[0].rows[1].seats = i32::MAX;
        }),
    ];
    for (wanted, change) in fields {
        let mut wish = concert();
        change(&mut wish);
        let refused = world.create(wish).await.expect_err(wanted);
        assert_eq!(field(&refused), wanted);
    }
    let mut mixed = concert();
    mixed.currency = "EUR".to_owned();
    let refused = world.create(mixed).await.expect_err("prices in yen");
    assert_eq!(reason(&refused), "CURRENCY_MIXED");
}

#[tokio::test]
async fn a_waiting_room_opens_half_an_hour_before_its_sale_unless_it_is_said_otherwise() {
    let world = World::new().await;
    let with = |sale: pb::Sale| pb::CreateEventRequest {
        starts_at: at(20_000),
        sale: Some(sale),
        ..concert()
    };
    let plain = pb::Sale {
        opens_at: at(10_000),
        waiting_room: true,
        ..pb::Sale::default()
    };
    let made = world.create(with(plain)).await.expect("made");
    let sale = made.sale.expect("set");
    assert_eq!(
        (sale.lobby_opens_at, sale.admissions_per_minute),
        (at(8_200), 600)
    );
    let said = pb::Sale {
        lobby_opens_at: at(9_000),
        admissions_per_minute: 60,
        ..plain
    };
    let made = world.create(with(said)).await.expect("made");
    assert_eq!(made.sale, Some(said));
}
