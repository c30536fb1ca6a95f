//! Making, showing, rotating and ending subscriptions.

use holdfast_kernel::RequestId;
use holdfast_proto::webhooks::v1 as pb;
use jiff::ToSpan;
use tonic::Code;

use crate::{
    receiver::Receiver,
    world::{World, subscribing},
};

fn rotating(request: &RequestId, id: &str) -> pb::RotateSecretRequest {
    pb::RotateSecretRequest {
        request_id: request.to_string(),
        fingerprint: vec![7].into(),
        subscription_id: id.to_owned(),
    }
}

#[tokio::test]
async fn a_subscription_is_made_once_and_its_secret_told_to_the_same_request_again() {
    let world = World::new().await;
    let request = RequestId::generate();
    let url = "https://example.com/hooks";
    let mut told = Vec::new();
    for _ in 0..2 {
        let request = world.admin(subscribing(&request, url, &["order.*"]));
        let made = world.client().create_subscription(request).await;
        told.push(made.expect("made").into_inner());
    }
    assert_eq!(told[0], told[1]);
    assert!(told[0].secret.starts_with("whsec_"), "{told:?}");
    let made = told[0].subscription.clone().expect("set");
    assert_eq!(made.status(), pb::SubscriptionStatus::Active);
    assert_eq!(
        (made.url.as_str(), made.types.as_slice()),
        (url, &["order.*".to_owned()][..])
    );
    assert_eq!(world.subscription(&made.id).await.expect("there"), made);

    let other = world.admin(subscribing(&request, "https://example.org/", &["order.*"]));
    let refused = world.client().create_subscription(other).await;
    assert_eq!(
        refused.expect_err("another wish").code(),
        Code::FailedPrecondition
    );
}

#[tokio::test]
async fn what_cannot_be_subscribed_to_is_refused_by_the_name_of_the_field() {
    let world = World::with(|settings| settings.allowed_networks.clear()).await;
    for (url, types, named) in [
        ("ftp://example.com", vec!["order.*"], "url: "),
        ("https://user@example.com", vec!["order.*"], "url: "),
        (
            "https://169.254.169.254/latest/meta-data",
            vec!["order.*"],
            "url: 169.254.169.254",
        ),
        ("https://[::ffff:10.0.0.1]/", vec!["order.*"], "url: "),
        ("http://example.com:6379/", vec!["order.*"], "url: port"),
        ("https://example.com", vec![], "types: "),
        (
            "https://example.com",
            vec!["order.sold", "order.*", "x"],
            "order.sold, x",
        ),
    ] {
        let refused = world.try_subscribe(url, &types).await.expect_err(url);
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(named), "{refused}");
    }
    let mut request = subscribing(&RequestId::generate(), "https://example.com", &["*"]);
    request.description = "x".repeat(201);
    let refused = world
        .client()
        .create_subscription(world.admin(request))
        .await;
    assert_eq!(refused.expect_err("too long").code(), Code::InvalidArgument);
}

#[tokio::test]
async fn there_are_only_so_many_subscriptions_and_a_deleted_one_makes_room() {
    let world = World::with(|settings| settings.max_subscriptions = 2).await;
    let (first, _) = world.subscribe("https://example.com/1", &["*"]).await;
    world.subscribe("https://example.com/2", &["*"]).await;
    let refused = world.try_subscribe("https://example.com/3", &["*"]).await;
    assert_eq!(refused.expect_err("full").code(), Code::FailedPrecondition);
    let deleting = world.admin(pb::DeleteSubscriptionRequest {
        subscription_id: first,
    });
    world
        .client()
        .delete_subscription(deleting)
        .await
        .expect("deleted");
    world.subscribe("https://example.com/3", &["*"]).await;

    let listing = world.admin(pb::ListSubscriptionsRequest {
        page: Some(holdfast_proto::page::v1::PageRequest {
            size: 1,
            token: String::new(),
        }),
    });
    let page = world
        .client()
        .list_subscriptions(listing)
        .await
        .expect("listed")
        .into_inner();
    let token = page.page.expect("set").next_token;
    assert_eq!(page.subscriptions[0].url, "https://example.com/3");
    let listing = world.admin(pb::ListSubscriptionsRequest {
        page: Some(holdfast_proto::page::v1::PageRequest { size: 1, token }),
    });
    let page = world
        .client()
        .list_subscriptions(listing)
        .await
        .expect("listed")
        .into_inner();
    assert_eq!(page.subscriptions[0].url, "https://example.com/2");
    assert_eq!(page.page.expect("set").next_token, "");
}

#[tokio::test]
async fn a_rotated_secret_signs_beside_the_new_one_for_a_day_and_then_no_more() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    let (id, old) = world.subscribe(&receiver.url(), &["order.*"]).await;
    let request = RequestId::generate();
    let mut told = Vec::new();
    for _ in 0..2 {
        let rotating = world.admin(rotating(&request, &id));
        let rotated = world.client().rotate_secret(rotating).await;
        told.push(rotated.expect("rotated").into_inner().secret);
    }
    assert_eq!(
        told[0], told[1],
        "the same request again is the same secret"
    );
    let new = &told[0];
    assert_ne!(*new, old);

    world.order("ord_1", 1, "order.created").await;
    let got = receiver.got(1).await;
    assert!(got[0].is_signed_with(&old) && got[0].is_signed_with(new));
    assert_eq!(got[0].header("webhook-signature").split(' ').count(), 2);

    world.clock.advance(24.hours());
    world.order("ord_2", 1, "order.created").await;
    let got = receiver.got(2).await;
    assert!(!got[1].is_signed_with(&old) && got[1].is_signed_with(new));

    let (other, _) = world.subscribe(&receiver.url(), &["payment.*"]).await;
    let anothers = world.admin(rotating(&request, &other));
    let refused = world.client().rotate_secret(anothers).await;
    assert_eq!(
        refused.expect_err("another's").code(),
        Code::FailedPrecondition
    );
}

#[tokio::test]
async fn however_often_a_secret_is_rotated_only_so_many_sign() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    let (id, first) = world.subscribe(&receiver.url(), &["order.*"]).await;
    for _ in 0..6 {
        world.clock.advance(1.minute());
        let rotating = world.admin(rotating(&RequestId::generate(), &id));
        world
            .client()
            .rotate_secret(rotating)
            .await
            .expect("rotated");
    }
    world.order("ord_1", 1, "order.created").await;
    let got = receiver.got(1).await;
    assert_eq!(got[0].header("webhook-signature").split(' ').count(), 5);
    assert!(!got[0].is_signed_with(&first));
}

#[tokio::test]
async fn a_deleted_subscription_does_not_exist_and_gets_nothing() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    let (id, _) = world.subscribe(&receiver.url(), &["order.*"]).await;
    let deleting = || {
        world.admin(pb::DeleteSubscriptionRequest {
            subscription_id: id.clone(),
        })
    };
    world
        .client()
        .delete_subscription(deleting())
        .await
        .expect("deleted");
    world.order("ord_1", 1, "order.created").await;
    world.workers_look().await;
    assert_eq!(receiver.so_far().len(), 0);
    let again = world.client().delete_subscription(deleting()).await;
    assert_eq!(again.expect_err("gone").code(), Code::NotFound);
    assert_eq!(
        world.subscription(&id).await.expect_err("gone").code(),
        Code::NotFound
    );
    let what = pb::replay_request::What::MessageId(String::new());
    assert_eq!(
        world.replay(&id, what).await.expect_err("gone").code(),
        Code::NotFound
    );
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM secret WHERE sealed IS NOT NULL")
        .fetch_one(&world.db.owner())
        .await
        .expect("the table");
    // The witness of `workers_look` was deleted too.
    assert_eq!(kept, 0, "a secret outlives its subscription");
}

#[tokio::test]
async fn no_table_holds_a_secret_that_can_be_read() {
    let world = World::new().await;
    let (_, secret) = world.subscribe("https://example.com", &["*"]).await;
    let dump: Vec<String> = sqlx::query_scalar(
        "SELECT secret::text FROM secret UNION ALL SELECT subscription::text FROM subscription",
    )
    .fetch_all(&world.db.owner())
    .await
    .expect("the tables");
    let encoded = secret.strip_prefix("whsec_").expect("the standard's form");
    let bytes = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, encoded);
    let hex = bytes
        .expect("base 64")
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    assert_eq!(dump.len(), 2);
    for row in dump {
        assert!(!row.contains(encoded) && !row.contains(&hex), "{row}");
    }
}

#[tokio::test]
async fn a_raised_version_of_the_wrapping_key_has_secrets_wrapped_anew_and_they_go_on_signing() {
    let (mut world, receiver) = (World::new().await, Receiver::start().await);
    let (_, secret) = world.subscribe(&receiver.url(), &["order.*"]).await;
    world.kill_workers().await;
    world.change(|settings| settings.wrapping_key_version = 2);
    world.start_workers();
    world.wrapped_anew().await;
    world.order("ord_1", 1, "order.created").await;
    let got = receiver.got(1).await;
    assert!(got[0].is_signed_with(&secret));
}

#[tokio::test]
async fn who_has_no_secret_that_opens_is_sent_nothing_and_keeps_nobody_waiting() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    let (broken, _) = world.subscribe(&receiver.url(), &["order.created"]).await;
    sqlx::query("UPDATE secret SET sealed = sealed || '\\x00'")
        .execute(&world.db.owner())
        .await
        .expect("broken");
    let (whole, _) = world.subscribe(&receiver.url(), &["order.created"]).await;
    world.order("ord_1", 1, "order.created").await;
    assert_eq!(world.ended(&broken, 1).await[0].error, "unsigned");
    assert_eq!(world.ended(&whole, 1).await[0].status_code, 200);
    assert_eq!(receiver.so_far().len(), 1);
}

#[tokio::test]
async fn of_many_who_ask_at_once_the_same_make_one_and_others_as_many_as_there_may_be() {
    let world = World::with(|settings| settings.max_subscriptions = 3).await;
    let request = RequestId::generate();
    let same = (0..5).map(|_| {
        let request = world.admin(subscribing(&request, "https://example.com/", &["*"]));
        let mut client = world.client();
        async move {
            client
                .create_subscription(request)
                .await
                .expect("made")
                .into_inner()
        }
    });
    let told = futures::future::join_all(same).await;
    assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
    let others = (0..5).map(|_| world.try_subscribe("https://example.org/", &["*"]));
    let made = futures::future::join_all(others).await;
    assert_eq!(made.iter().filter(|one| one.is_ok()).count(), 2);
}

#[tokio::test]
async fn only_administrators_come_in() {
    let world = World::new().await;
    let request = subscribing(&RequestId::generate(), "https://example.com", &["*"]);
    let refused = world
        .client()
        .create_subscription(world.staff(request))
        .await;
    assert_eq!(refused.expect_err("staff").code(), Code::PermissionDenied);
    let nobody = tonic::Request::new(pb::ListMessagesRequest::default());
    let refused = world.client().list_messages(nobody).await;
    assert_eq!(refused.expect_err("nobody").code(), Code::Unauthenticated);
}
