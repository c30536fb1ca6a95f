//! Price lists: what is sold in which currency, and at what price.

use holdfast_platform::fault::Fault;
use holdfast_proto::{catalog::v1 as pb, money::v1::Money};
use tonic::{Code, Request};

use crate::{
    quoted_in,
    world::{World, shirt, yen},
};

fn euro(amount: i64) -> Money {
    Money {
        amount,
        currency: "EUR".to_owned(),
    }
}

/// Two shirts in yen, one of them for 20 euro cents too.
fn travelled() -> pb::CreateProductRequest {
    let mut listing = shirt(&["SHIRT-M", "SHIRT-L"]);
    listing.variants[1].other_prices = vec![euro(20)];
    listing
}

#[tokio::test]
async fn in_a_currency_everything_is_shown_and_quoted_at_its_price_there_and_the_rest_is_not() {
    let world = World::new().await;
    world.list(travelled()).await.expect("listed");
    world.list(shirt(&["OTHER"])).await.expect("listed");
    let shown = world.show_in(&world.buyer, "t-shirt", "EUR").await;
    let shown = shown.expect("it is sold there");
    assert_eq!((shown.currency.as_str(), shown.variants.len()), ("EUR", 1));
    assert_eq!(shown.variants[0].price, Some(euro(20)));

    let own = world.show(&world.buyer, "t-shirt").await.expect("there");
    assert_eq!(own.currency, "JPY");
    assert_eq!(own.variants[1].other_prices, [euro(20)]);
    let nowhere = world.show_in(&world.buyer, "t-shirt", "GBP").await;
    assert_eq!(nowhere.expect_err("no price").code(), Code::NotFound);

    let request = pb::ListProductsRequest {
        currency: "EUR".to_owned(),
        ..pb::ListProductsRequest::default()
    };
    let page = world.client().list_products(Request::new(request)).await;
    let products = page.expect("a page").into_inner().products;
    assert_eq!(products, [shown]);

    let skus = ["SHIRT-M", "SHIRT-L", "OTHER"];
    let prices = async |currency| -> Vec<i64> {
        let quotes = quoted_in(&world, &skus, currency).await;
        quotes.into_iter().map(|(_, price)| price).collect()
    };
    assert_eq!(prices("EUR").await, [20]);
    assert_eq!(prices("JPY").await, [32, 32, 32]);
    assert_eq!(prices("").await, [32, 32, 32]);
}

#[tokio::test]
async fn a_price_in_a_new_currency_is_given_to_all_variants_or_to_one() {
    let world = World::new().await;
    let product = world.list(travelled()).await.expect("listed");
    let change = pb::UpdateProductRequest {
        product_id: product.id.clone(),
        price: Some(euro(25)),
        ..pb::UpdateProductRequest::default()
    };
    let changed = world.change(change).await.expect("changed");
    for variant in &changed.variants {
        assert_eq!(
            (&variant.price, &variant.other_prices),
            (&Some(yen(32)), &vec![euro(25)])
        );
    }
    let change = pb::UpdateVariantRequest {
        product_id: product.id,
        sku: "SHIRT-M".to_owned(),
        other_prices: Some(pb::Prices { prices: Vec::new() }),
        ..pb::UpdateVariantRequest::default()
    };
    let changed = world.client().update_variant(world.admin.ask(change)).await;
    let changed = changed.expect("changed").into_inner().product;
    assert_eq!(changed.expect("set").variants[0].other_prices, []);
}

#[tokio::test]
async fn a_second_price_in_one_currency_is_refused() {
    let world = World::new().await;
    for (prices, field) in [
        (vec![yen(30)], "variants[1].prices"),
        (vec![euro(1), euro(2)], "variants[1].prices"),
        (vec![euro(-1)], "variants[1].prices.EUR.amount"),
    ] {
        let mut listing = travelled();
        listing.variants[1].other_prices = prices;
        let refused = world.list(listing).await.expect_err(field);
        assert_eq!(Fault::from_status(&refused).items()[0]["field"], field);
    }
}
