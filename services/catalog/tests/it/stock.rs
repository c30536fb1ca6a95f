//! What is shown as available, and where it comes from.

use holdfast_proto::{catalog::v1 as pb, inventory::v1 as ledger};

use crate::world::{World, shirt};

async fn shown(world: &World, slug: &str) -> i64 {
    let product = world.show(&world.buyer, slug).await.expect("there");
    product.variants[0].available
}

#[tokio::test]
async fn what_the_ledger_announces_is_shown_and_nobody_is_asked() {
    let world = World::new().await;
    world.list(shirt(&["SHIRT-M"])).await.expect("listed");
    let asked = world.inventory.get_pools.asked().len();
    for (version, available, wanted) in [(9, 3, 3), (8, 6, 3), (9, 5, 3), (12, 1, 1)] {
        world.hear_of_stock("sku:SHIRT-M", version, available).await;
        assert_eq!(shown(&world, "t-shirt").await, wanted, "version {version}");
    }
    assert_eq!(world.inventory.get_pools.asked().len(), asked);
}

#[tokio::test]
async fn who_puts_something_in_stock_sees_it_there_at_once() {
    let world = World::new().await;
    world.inventory.adjust.then(Ok(ledger::AdjustResponse {
        pools: vec![ledger::Pool {
            key: "sku:SHIRT-M".to_owned(),
            available: 5,
            version: 1,
            ..ledger::Pool::default()
        }],
    }));
    let made = world.list(shirt(&["SHIRT-M"])).await.expect("listed");
    assert_eq!(made.variants[0].available, 5);
}

#[tokio::test]
async fn stock_that_was_there_before_its_variant_is_shown_with_it() {
    let world = World::new().await;
    world.hear_of_stock("seat:evt_1:S-A-12", 3, 1).await;
    world.hear_of_stock("sku:SHIRT-M", 3, 4).await;
    let mut listing = shirt(&["SHIRT-M"]);
    listing.variants[0].stock = None;
    let made = world.list(listing).await.expect("listed");
    assert_eq!(made.variants[0].available, 4);
}

#[tokio::test]
async fn of_what_the_ledger_does_not_know_there_is_nothing_until_it_says_otherwise() {
    let world = World::new().await;
    let nothing = ledger::GetPoolsResponse::default();
    world.inventory.get_pools.then(Ok(nothing));
    let mut listing = shirt(&["SHIRT-M"]);
    listing.variants[0].stock = None;
    let made: pb::Product = world.list(listing).await.expect("listed");
    assert_eq!(made.variants[0].available, 0);
    world.hear_of_stock("sku:SHIRT-M", 1, 8).await;
    assert_eq!(shown(&world, "t-shirt").await, 8);
}
