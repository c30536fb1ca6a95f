//! What the reviews of products come to, as the catalog heard.

use holdfast_kernel::{Id, id};
use holdfast_proto::catalog::v1 as pb;

use crate::world::{World, shirt};

const PUBLISHED: &str = "review.published";
const REMOVED: &str = "review.removed";

#[tokio::test]
async fn the_latest_word_on_a_product_stands_however_often_and_in_which_order_it_is_heard() {
    let world = World::new().await;
    let made = world.list(shirt(&["SHIRT-M"])).await.expect("listed");
    let heard = [
        (PUBLISHED, 2, [0, 0, 0, 1, 1], [0, 0, 0, 1, 1]),
        // Again, and again under other words, which nobody says: a version is told once.
        (PUBLISHED, 2, [0, 0, 0, 1, 1], [0, 0, 0, 1, 1]),
        (PUBLISHED, 2, [9, 9, 9, 9, 9], [0, 0, 0, 1, 1]),
        // The one before, late.
        (PUBLISHED, 1, [0, 0, 0, 0, 1], [0, 0, 0, 1, 1]),
        (REMOVED, 5, [0, 0, 0, 1, 0], [0, 0, 0, 1, 0]),
        (PUBLISHED, 4, [3, 0, 0, 1, 1], [0, 0, 0, 1, 0]),
        (REMOVED, 6, [0; 5], [0; 5]),
    ];
    for (kind, version, told, wanted) in heard {
        world.hear_of_reviews(kind, &made.id, version, told).await;
        let shown = world.show(&world.buyer, &made.id).await.expect("there");
        assert_eq!(shown.histogram, wanted, "after version {version}");
        assert_eq!(
            shown.version, made.version,
            "the product itself is as it was"
        );
    }
}

#[tokio::test]
async fn the_best_rated_come_first_and_the_unrated_last() {
    let world = World::new().await;
    for (sku, histogram) in [
        ("GOOD", [0, 0, 1, 1, 0]),
        ("UNRATED", [0; 5]),
        ("BEST", [0, 0, 0, 1, 1]),
        ("POOR", [1, 0, 0, 0, 0]),
    ] {
        let mut listing = shirt(&[sku]);
        listing.name = sku.to_owned();
        let made = world.list(listing).await.expect("listed");
        if histogram != [0; 5] {
            world
                .hear_of_reviews(PUBLISHED, &made.id, 1, histogram)
                .await;
        }
    }
    let request = pb::ListProductsRequest {
        sort: "rating".to_owned(),
        ..pb::ListProductsRequest::default()
    };
    let answer = world.client().list_products(world.buyer.ask(request)).await;
    let products = answer.expect("a list").into_inner().products;
    let names: Vec<&str> = products
        .iter()
        .map(|product| product.name.as_str())
        .collect();
    assert_eq!(names, ["BEST", "GOOD", "POOR", "UNRATED"]);
}

#[tokio::test]
async fn a_word_on_a_product_that_is_not_there_is_let_go() {
    let world = World::new().await;
    let nobody = Id::<id::Product>::generate().to_string();
    world
        .hear_of_reviews(PUBLISHED, &nobody, 1, [0, 0, 0, 0, 1])
        .await;
    assert_eq!(world.rows().await, (0, 0));
}
