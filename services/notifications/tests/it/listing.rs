//! What people find in their list.

use holdfast_platform::{consumer::Handling, identity::Role};
use tonic::{Code, Status};

use crate::world::{ADDRESS, World, profile_of_reader};

#[tokio::test]
async fn people_read_what_they_were_told_newest_first_in_their_language() {
    let world = World::new().await;
    world.hears(&world.registration()).await;
    world.hears(&world.order_news("order.confirmed", 3)).await;
    world.hears(&world.order_news("order.shipped", 4)).await;

    let english = world.list("", 0, "").await.expect("a list");
    let told: Vec<&str> = (english.notifications.iter())
        .map(|told| told.r#type.as_str())
        .collect();
    assert_eq!(
        told,
        ["order.shipped", "order.confirmed", "user.registered"]
    );
    assert_eq!(english.notifications[2].title, "Welcome to Holdfast");
    assert_eq!(english.notifications[2].order_id, "");
    assert!(english.notifications[1].text.contains("¥12,500"));

    let japanese = world.list("ja-JP,en;q=0.5", 0, "").await.expect("a list");
    assert_eq!(japanese.notifications[2].title, "Holdfast へようこそ");
    assert_eq!(japanese.notifications[1].id, english.notifications[1].id);
}

#[tokio::test]
async fn the_language_that_a_person_chose_comes_before_what_their_client_names() {
    let world = World::new().await;
    world.hears(&world.registration()).await;
    let titled = async |languages: &str| {
        let list = world.list(languages, 0, "").await.expect("a list");
        list.notifications[0].title.clone()
    };
    (world.users.get_profile)
        .otherwise(|asked| Ok(profile_of_reader(&asked.user_id, ADDRESS, "ja")));
    assert_eq!(titled("en").await, "Holdfast へようこそ");
    // Where users is away, the client's word has to do.
    (world.users.get_profile).otherwise(|_| Err(Status::unavailable("away")));
    assert_eq!(titled("en").await, "Welcome to Holdfast");
    assert_eq!(titled("ja").await, "Holdfast へようこそ");
}

#[tokio::test]
async fn a_list_goes_on_where_its_slice_ended_while_news_comes_in() {
    let world = World::new().await;
    for version in 1..=3 {
        world
            .hears(&world.order_news("order.confirmed", version))
            .await;
    }
    let first = world.list("", 2, "").await.expect("a slice");
    world.hears(&world.order_news("order.shipped", 4)).await;
    let token = first.page.expect("set").next_token;
    let rest = world.list("", 2, &token).await.expect("the rest");
    assert_eq!(first.notifications.len(), 2);
    assert_eq!(rest.notifications.len(), 1);
    assert!(!first.notifications.contains(&rest.notifications[0]));
    assert_eq!(rest.page.expect("set").next_token, "");

    let refused = world.list("", 2, "zz").await.expect_err("no token of ours");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let refused = world.list("", 101, "").await.expect_err("too many");
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn what_is_read_stays_read_since_then_and_is_nobody_elses() {
    let world = World::new().await;
    world.hears(&world.registration()).await;
    let list = world.list("", 0, "").await.expect("a list");
    let id = list.notifications[0].id.clone();
    assert_eq!(list.notifications[0].read_at, None);

    let stranger = world.realm.somebody(Role::Admin);
    for (asker, id) in [(&stranger, id.as_str()), (&world.person, "nonsense")] {
        let refused = world.read(asker, id).await.expect_err("not theirs");
        assert_eq!(refused.code(), Code::NotFound);
    }
    let first = world.read(&world.person, &id).await.expect("read");
    world.pass(60);
    let again = world.read(&world.person, &id).await.expect("read");
    assert!(first.read_at.is_some());
    assert_eq!(first.read_at, again.read_at);
}

#[tokio::test]
async fn who_is_at_the_screen_is_not_told_to_pay_there() {
    let world = World::new().await;
    let mut challenged = world.order_news("order.awaiting_payment", 2);
    world.hears(&challenged).await;
    challenged.data["next_action"] = "redirect".into();
    world.hears(&challenged).await;
    assert_eq!(world.mails().await, Vec::<String>::new());
    challenged.data["next_action"] = "konbini_slip".into();
    world.hears(&challenged).await;
    let list = world.list("", 0, "").await.expect("a list");
    assert_eq!(list.notifications[0].r#type, "order.awaiting_payment");
}

#[tokio::test]
async fn news_that_names_nobody_is_refused_for_good() {
    let world = World::new().await;
    let mut message = world.registration();
    message.data["user_id"] = "nobody".into();
    let refused = world.tries_to_hear(&message).await;
    assert!(
        matches!(refused, Err(Handling::Permanent(_))),
        "{refused:?}"
    );
}
