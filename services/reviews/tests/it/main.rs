//! The reviews service at its door, on a real database.

mod statements;
mod world;

use holdfast_kernel::Id;
use holdfast_platform::fault::Fault;
use holdfast_proto::reviews::v1 as pb;
use jiff::SignedDuration;
use serde_json::json;
use tonic::{Code, Request};
use world::{World, reason};

#[tokio::test]
async fn a_buyer_reviews_what_was_delivered_and_everybody_reads_it() {
    let world = World::new().await;
    let written = world.write(&world.buyer, world.praise(4)).await;
    let written = written.expect("written");
    assert_eq!(written.status, "published");
    assert_eq!(written.user_id, world.buyer.user.to_string());
    let nobody = Request::new(pb::ListReviewsRequest {
        product_id: world.shirt.to_string(),
        ..pb::ListReviewsRequest::default()
    });
    let read = world.client().list_reviews(nobody).await.expect("public");
    let read = read.into_inner().reviews;
    assert_eq!(read.len(), 1);
    assert_eq!(
        (read[0].rating, read[0].text.as_str()),
        (4, "And it does not scratch.")
    );
    assert_eq!(read[0].user_id, "", "who wrote it is nobody's business");
    assert_eq!(
        world.announced().await,
        [("review.published".to_owned(), 1, json!([0, 0, 0, 1, 0]))]
    );
}

#[tokio::test]
async fn who_did_not_buy_it_is_refused_and_leaves_no_trace() {
    let world = World::new().await;
    let stranger = world.somebody();
    world.deliver(&stranger, &["SOCKS"]).await;
    let refused = world.write(&stranger, world.praise(1)).await;
    let refused = refused.expect_err("never bought");
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::PermissionDenied, "NOT_A_BUYER")
    );
    assert_eq!(world.announced().await, []);
    assert_eq!(world.counts().await.1, [0, 0, 0, 0, 0]);
}

#[tokio::test]
async fn a_second_review_is_refused_and_names_the_first() {
    let world = World::new().await;
    let first = world.write(&world.buyer, world.praise(4)).await;
    let first = first.expect("written");
    let refused = world.write(&world.buyer, world.praise(5)).await;
    let fault = Fault::from_status(&refused.expect_err("the second"));
    assert_eq!(fault.reason(), "ALREADY_REVIEWED");
    assert_eq!(fault.figure("review_id"), Some(first.id.as_str()));
    assert_eq!(world.counts().await.1, [0, 0, 0, 1, 0]);
}

#[tokio::test]
async fn of_many_reviews_sent_at_once_by_one_buyer_one_is_written() {
    let world = World::new().await;
    let tries = (0..8).map(|_| world.write(&world.buyer, world.praise(5)));
    let done = futures::future::join_all(tries).await;
    let written = done.iter().filter(|answer| answer.is_ok()).count();
    let refused = done.iter().filter_map(|answer| answer.as_ref().err());
    assert_eq!(written, 1);
    assert!(
        refused
            .map(reason)
            .all(|reason| reason == "ALREADY_REVIEWED")
    );
    assert_eq!(world.announced().await.len(), 1);
}

#[tokio::test]
async fn the_same_request_again_is_the_same_review_and_another_under_its_id_is_refused() {
    let world = World::new().await;
    let wish = world.praise(4);
    let first = world.write(&world.buyer, wish.clone()).await;
    let again = world.write(&world.buyer, wish.clone()).await;
    assert_eq!(first.expect("written"), again.expect("the same"));
    let other = pb::WriteReviewRequest {
        fingerprint: vec![2].into(),
        ..wish
    };
    let refused = world.write(&world.buyer, other).await;
    assert_eq!(
        reason(&refused.expect_err("another")),
        "IDEMPOTENCY_KEY_REUSED"
    );
    assert_eq!(world.announced().await.len(), 1);
}

#[tokio::test]
async fn a_removed_review_exists_for_its_author_and_staff_and_comes_back_when_published() {
    let world = World::new().await;
    let review = world.write(&world.buyer, world.praise(2)).await;
    let review = review.expect("written").id;
    let forbidden = world.moderate(&world.buyer, &review, "remove").await;
    assert_eq!(
        forbidden.expect_err("no staff").code(),
        Code::PermissionDenied
    );
    for _ in 0..2 {
        let removed = world.moderate(&world.staff, &review, "remove").await;
        assert_eq!(removed.expect("removed").reason, "names a person");
    }
    let stranger = world.somebody();
    let hidden = world.show(&stranger, &review).await.expect_err("removed");
    assert_eq!(reason(&hidden), "UNKNOWN_REVIEW");
    assert_eq!(world.list(&stranger, 0, "").await.expect("a list").0, []);
    for asker in [&world.buyer, &world.staff] {
        let shown = world.show(asker, &review).await.expect("theirs to see");
        assert_eq!(shown.status, "removed");
    }
    assert_eq!(
        world
            .list(&world.staff, 0, "")
            .await
            .expect("a list")
            .0
            .len(),
        1
    );
    let again = world.write(&world.buyer, world.praise(5)).await;
    assert_eq!(
        reason(&again.expect_err("it keeps its place")),
        "ALREADY_REVIEWED"
    );
    let kept = world.withdraw(&world.buyer, &review).await;
    assert_eq!(
        reason(&kept.expect_err("it keeps its place")),
        "REVIEW_REMOVED"
    );

    world
        .moderate(&world.staff, &review, "publish")
        .await
        .expect("published");
    world.show(&stranger, &review).await.expect("back");
    let none = json!([0, 0, 0, 0, 0]);
    let one = json!([0, 1, 0, 0, 0]);
    assert_eq!(
        world.announced().await,
        [
            ("review.published".to_owned(), 1, one.clone()),
            ("review.removed".to_owned(), 2, none),
            ("review.published".to_owned(), 3, one),
        ]
    );
    let audited = world.pending().await;
    let audited = audited.iter().filter(|news| news.kind == "audit.recorded");
    let actions: Vec<_> = audited.map(|news| news.data["action"].clone()).collect();
    assert_eq!(actions, ["review_removed", "review_published"]);
}

#[tokio::test]
async fn its_author_changes_a_review_and_nobody_else_does() {
    let world = World::new().await;
    let review = world.write(&world.buyer, world.praise(2)).await;
    let review = review.expect("written");
    let change = pb::ChangeReviewRequest {
        review_id: review.id.clone(),
        expected_version: 1,
        rating: Some(5),
        title: None,
        text: Some("It grew on me.".to_owned()),
    };
    for other in [&world.somebody(), &world.staff] {
        let refused = world.change(other, change.clone()).await;
        assert_eq!(reason(&refused.expect_err("not theirs")), "UNKNOWN_REVIEW");
    }
    world.clock.advance(SignedDuration::from_mins(30));
    let changed = world.change(&world.buyer, change.clone()).await;
    let changed = changed.expect("changed");
    assert_eq!(
        (
            changed.rating,
            changed.title.as_str(),
            changed.text.as_str(),
            changed.version
        ),
        (5, "Warm", "It grew on me.", 2)
    );
    assert_ne!(changed.written_at, changed.created_at);
    let stale = world.change(&world.buyer, change).await;
    assert_eq!(reason(&stale.expect_err("moved on")), "REVIEW_CHANGED");
    let same = pb::ChangeReviewRequest {
        review_id: review.id,
        rating: Some(5),
        ..pb::ChangeReviewRequest::default()
    };
    let same = world.change(&world.buyer, same).await.expect("the same");
    assert_eq!(same.version, 2);
    assert_eq!(
        world.announced().await.pop(),
        Some(("review.published".to_owned(), 2, json!([0, 0, 0, 0, 1])))
    );
}

#[tokio::test]
async fn a_withdrawn_review_is_gone_and_another_may_be_written() {
    let world = World::new().await;
    let wish = world.praise(2);
    let first = world
        .write(&world.buyer, wish.clone())
        .await
        .expect("written");
    world
        .withdraw(&world.buyer, &first.id)
        .await
        .expect("withdrawn");
    let gone = world.show(&world.buyer, &first.id).await.expect_err("gone");
    assert_eq!(reason(&gone), "UNKNOWN_REVIEW");
    let twice = world.withdraw(&world.buyer, &first.id).await;
    assert_eq!(reason(&twice.expect_err("gone")), "UNKNOWN_REVIEW");
    let replayed = world.write(&world.buyer, wish).await.expect("as it stands");
    assert_eq!(
        (replayed.status.as_str(), replayed.text.as_str()),
        ("withdrawn", "")
    );
    let second = world
        .write(&world.buyer, world.praise(3))
        .await
        .expect("another");
    assert_ne!(first.id, second.id);
    assert_eq!(world.counts().await.1, [0, 0, 1, 0, 0]);
}

#[tokio::test]
async fn counts_and_last_message_are_what_the_published_reviews_come_to() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for rating in [1, 5, 5, 3, 4, 5] {
        let buyer = world.another_buyer().await;
        let written = world.write(&buyer, world.praise(rating)).await;
        ids.push((written.expect("written").id, buyer));
    }
    world
        .moderate(&world.staff, &ids[1].0, "remove")
        .await
        .expect("removed");
    world
        .withdraw(&ids[0].1, &ids[0].0)
        .await
        .expect("withdrawn");
    let (counted, lying) = world.counts().await;
    assert_eq!(counted, [0, 0, 1, 1, 2]);
    assert_eq!(counted, lying);
    let announced = world.announced().await;
    let versions: Vec<i64> = announced.iter().map(|(_, version, _)| *version).collect();
    assert_eq!(versions, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(announced[7].2, json!(counted));
}

#[tokio::test]
async fn a_list_runs_newest_first_and_goes_on_where_it_stopped() {
    let world = World::new().await;
    for rating in 1..=5 {
        let buyer = world.another_buyer().await;
        world.clock.advance(SignedDuration::from_secs(1));
        world
            .write(&buyer, world.praise(rating))
            .await
            .expect("written");
    }
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let (page, next) = world.list(&world.buyer, 2, &token).await.expect("a page");
        seen.extend(page.into_iter().map(|review| review.rating));
        if next.is_empty() {
            break;
        }
        token = next;
    }
    assert_eq!(seen, [5, 4, 3, 2, 1]);
    let fives = pb::ListReviewsRequest {
        product_id: world.shirt.to_string(),
        rating: 5,
        page: None,
    };
    let fives = world.client().list_reviews(Request::new(fives)).await;
    assert_eq!(fives.expect("a list").into_inner().reviews.len(), 1);
}

#[tokio::test]
async fn a_product_that_is_off_sale_exists_for_staff_and_a_deleted_one_for_nobody() {
    let world = World::new().await;
    world.list_product(world.shirt, "draft").await;
    let hidden = world.list(&world.buyer, 0, "").await.expect_err("a draft");
    assert_eq!(reason(&hidden), "UNKNOWN_PRODUCT");
    world
        .list(&world.staff, 0, "")
        .await
        .expect("theirs to see");
    let refused = world.write(&world.buyer, world.praise(5)).await;
    assert_eq!(reason(&refused.expect_err("a draft")), "UNKNOWN_PRODUCT");
    world.delete_product(world.shirt).await;
    let gone = world.list(&world.staff, 0, "").await.expect_err("deleted");
    assert_eq!(reason(&gone), "UNKNOWN_PRODUCT");
    let never = pb::WriteReviewRequest {
        product_id: Id::<holdfast_kernel::id::Product>::generate().to_string(),
        ..world.praise(5)
    };
    let refused = world.write(&world.buyer, never).await;
    assert_eq!(reason(&refused.expect_err("never was")), "UNKNOWN_PRODUCT");
}

#[tokio::test]
async fn news_of_a_delivery_may_come_before_that_of_the_product_and_twice() {
    let world = World::new().await;
    let early = world.somebody();
    for _ in 0..2 {
        world.deliver(&early, &["SOCKS", "SHIRT-M"]).await;
    }
    let socks = Id::generate();
    world.list_product(socks, "published").await;
    let refused = pb::WriteReviewRequest {
        product_id: socks.to_string(),
        ..world.praise(5)
    };
    // The skus it names are the shirt's, and stay so.
    let refused = world
        .write(&early, refused)
        .await
        .expect_err("another's skus");
    assert_eq!(reason(&refused), "NOT_A_BUYER");
    world.write(&early, world.praise(5)).await.expect("a buyer");
}

#[tokio::test]
async fn who_is_forgotten_leaves_neither_text_nor_stars_nor_deliveries() {
    let world = World::new().await;
    let forgotten = world.another_buyer().await;
    let review = world
        .write(&forgotten, world.praise(1))
        .await
        .expect("written");
    world
        .write(&world.buyer, world.praise(5))
        .await
        .expect("written");
    world
        .moderate(&world.staff, &review.id, "remove")
        .await
        .expect("removed");
    assert_eq!(world.held_of(&forgotten).await, (1, 1));
    for _ in 0..2 {
        world.erase(&forgotten).await;
    }
    assert_eq!(world.held_of(&forgotten).await, (0, 0));
    assert_eq!(world.held_of(&world.buyer).await, (1, 1));
    let (counted, lying) = world.counts().await;
    assert_eq!(
        (counted.as_slice(), lying),
        ([0, 0, 0, 0, 1].as_slice(), counted.clone())
    );
}
