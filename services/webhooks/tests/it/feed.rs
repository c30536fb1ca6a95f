//! Fetching messages instead of being sent them.

use holdfast_proto::{page::v1::PageRequest, webhooks::v1 as pb};
use jiff::ToSpan;
use tonic::{Code, Status};

use crate::world::World;

async fn fetch(
    world: &World,
    token: &str,
    size: i32,
    types: &[&str],
) -> Result<pb::ListMessagesResponse, Status> {
    let request = world.admin(pb::ListMessagesRequest {
        page: Some(PageRequest {
            size,
            token: token.to_owned(),
        }),
        types: types.iter().map(|kind| (*kind).to_owned()).collect(),
    });
    Ok(world.client().list_messages(request).await?.into_inner())
}

fn next(page: &pb::ListMessagesResponse) -> String {
    page.page.clone().expect("set").next_token
}

#[tokio::test]
async fn who_fetches_gets_every_message_once_in_the_order_of_their_coming() {
    let world = World::new().await;
    let empty = fetch(&world, "", 2, &[]).await.expect("a page");
    assert!(empty.envelopes.is_empty() && !empty.has_more);
    let mut told = Vec::new();
    for version in 1..=5 {
        let kind = ["order.created", "order.paid"][usize::from(version > 1)];
        told.push(world.order("ord_1", version, kind).await.to_envelope());
    }
    let (mut token, mut got) = (next(&empty), Vec::new());
    for round in 0..3 {
        let page = fetch(&world, &token, 2, &[]).await.expect("a page");
        assert_eq!(page.has_more, round < 2);
        token = next(&page);
        got.extend(page.envelopes);
    }
    assert_eq!(got, told);
    let page = fetch(&world, &token, 2, &[]).await.expect("a page");
    assert!(page.envelopes.is_empty());
    assert_eq!(next(&page), token);
    let late = world.order("ord_2", 1, "order.created").await.to_envelope();
    let page = fetch(&world, &token, 2, &[]).await.expect("a page");
    assert_eq!(page.envelopes, [late]);
}

#[tokio::test]
async fn who_fetches_some_types_gets_those() {
    let world = World::new().await;
    world.order("ord_1", 1, "order.created").await;
    let paid = world.order("ord_1", 2, "order.paid").await.to_envelope();
    let captured = world.message("holdfast.payments", "pay_1", 1, "payment.captured");
    world.arrives(&captured).await;
    let page = fetch(&world, "", 10, &["order.paid", "payment.*"]).await;
    let wanted = [paid, captured.to_envelope()];
    assert_eq!(page.expect("a page").envelopes, wanted);
    let refused = fetch(&world, "", 10, &["order.sold"]).await;
    assert_eq!(refused.expect_err("unknown").code(), Code::InvalidArgument);
    let refused = fetch(&world, "zz", 10, &[]).await;
    assert_eq!(refused.expect_err("no place").code(), Code::InvalidArgument);
}

#[tokio::test]
async fn stock_is_kept_only_while_somebody_asks_for_it() {
    let world = World::new().await;
    let stock = |version| world.message("holdfast.stock", "sku:A", version, "stock.updated");
    world.arrives(&stock(1)).await;
    world
        .subscribe("http://127.0.0.1:1/", &["stock.updated"])
        .await;
    let told = stock(2);
    world.arrives(&told).await;
    let page = fetch(&world, "", 10, &["stock.updated"])
        .await
        .expect("a page");
    assert_eq!(page.envelopes, [told.to_envelope()]);
}

#[tokio::test]
async fn a_place_that_is_not_kept_any_more_is_refused_instead_of_passed_over() {
    let world = World::with(|settings| settings.keep_days = 7).await;
    world.order("ord_1", 1, "order.created").await;
    world.order("ord_1", 2, "order.paid").await;
    let first = fetch(&world, "", 1, &[]).await.expect("a page");
    let second = fetch(&world, &next(&first), 1, &[]).await.expect("a page");
    world.clock.advance((8 * 24).hours());
    world.kill_workers().await;
    world.start_workers();
    world.pruned().await;
    let late = world.order("ord_2", 1, "order.created").await.to_envelope();
    let refused = fetch(&world, &next(&first), 1, &[]).await;
    assert_eq!(refused.expect_err("one is missing").code(), Code::NotFound);
    for token in [next(&second), String::new()] {
        let page = fetch(&world, &token, 1, &[])
            .await
            .expect("none is missing");
        assert_eq!(page.envelopes, std::slice::from_ref(&late));
    }
}

#[tokio::test]
async fn a_message_that_commits_late_is_not_passed_over() {
    let world = World::new().await;
    let pool = world.db.app();
    let early = world.message("holdfast.orders", "ord_1", 1, "order.created");
    let mut tx = pool.begin().await.expect("begin");
    let handled = world.consumer().handle(&mut tx, &early).await;
    handled.expect("taken in");
    // Another topic's message comes meanwhile; it cannot be seen before the first is.
    let other = world.message("holdfast.payments", "pay_1", 1, "payment.captured");
    let mut arriving = std::pin::pin!(world.arrives(&other));
    let limit = std::time::Duration::from_millis(100);
    let waited = tokio::time::timeout(limit, arriving.as_mut()).await;
    assert!(waited.is_err(), "it did not wait its turn");
    let page = fetch(&world, "", 10, &[]).await.expect("a page");
    assert!(page.envelopes.is_empty());
    tx.commit().await.expect("commit");
    arriving.await;
    let page = fetch(&world, "", 10, &[]).await.expect("a page");
    assert_eq!(page.envelopes, [early.to_envelope(), other.to_envelope()]);
}
