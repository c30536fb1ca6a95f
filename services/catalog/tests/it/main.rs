//! The catalog at its door, on a real database, beside a scripted ledger.

mod batches;
mod categories;
mod changing;
mod prices;
mod ratings;
mod relevance;
mod shown;
mod statements;
mod stock;
mod world;

use holdfast_platform::fault::{Fault, FaultCode};
use holdfast_proto::{catalog::v1 as pb, page::v1::PageRequest};
use jiff::SignedDuration;
use tonic::{Code, Request, Status};
use world::{World, shirt, yen};

#[tokio::test]
async fn a_listed_product_is_on_sale_with_its_stock_in_the_ledger() {
    let world = World::new().await;
    let made = world
        .list(shirt(&["SHIRT-M", "SHIRT-L"]))
        .await
        .expect("listed");
    assert_eq!(
        (made.status.as_str(), made.slug.as_str()),
        ("published", "t-shirt")
    );
    assert_eq!(made.variants[0].available, 7);
    let asked = world.inventory.adjust.asked();
    let pools: Vec<(&str, i64)> = asked[0]
        .changes
        .iter()
        .map(|change| (change.pool.as_str(), change.delta))
        .collect();
    assert_eq!(pools, [("sku:SHIRT-M", 5), ("sku:SHIRT-L", 5)]);
    assert_eq!(
        world.announced().await,
        ["product.updated v1", "product.updated v2"]
    );
}

#[tokio::test]
async fn the_same_listing_again_is_the_same_product_and_another_under_its_key_is_refused() {
    let world = World::new().await;
    let listing = shirt(&["SHIRT-M"]);
    let first = world.list(listing.clone()).await.expect("listed");
    let again = world.list(listing.clone()).await.expect("the same");
    assert_eq!(first, again);
    let other = pb::CreateProductRequest {
        fingerprint: vec![2].into(),
        ..listing
    };
    let refused = world.list(other).await.expect_err("another");
    assert_eq!(
        Fault::from_status(&refused).reason(),
        "IDEMPOTENCY_KEY_REUSED"
    );
    assert_eq!(world.rows().await, (1, 1));
}

#[tokio::test]
async fn a_listing_that_the_ledger_refuses_leaves_nothing_behind() {
    let world = World::new().await;
    let refusal = Fault::new(FaultCode::Conflict, "POOL_EXISTS", "it is there");
    world.inventory.adjust.then(Err(refusal.into()));
    let refused = world.list(shirt(&["SHIRT-M"])).await.expect_err("refused");
    assert_eq!(Fault::from_status(&refused).reason(), "POOL_EXISTS");
    assert_eq!(world.rows().await, (0, 0));
}

#[tokio::test]
async fn a_listing_cut_off_by_a_lost_ledger_is_seen_by_nobody_and_completed_by_asking_again() {
    let world = World::new().await;
    let listing = shirt(&["SHIRT-M"]);
    world
        .inventory
        .adjust
        .then(Err(Status::unavailable("gone")));
    let cut_off = world.list(listing.clone()).await.expect_err("cut off");
    assert_eq!(cut_off.code(), Code::Unavailable);
    let hidden = world
        .show(&world.buyer, "t-shirt")
        .await
        .expect_err("a draft");
    assert_eq!(hidden.code(), Code::NotFound);
    let made = world.list(listing).await.expect("completed");
    assert_eq!(made.status, "published");
    assert_eq!(world.rows().await, (1, 1));
}

#[tokio::test]
async fn a_sku_is_sold_under_one_product_only() {
    let world = World::new().await;
    world.list(shirt(&["SHIRT-M"])).await.expect("listed");
    let refused = world
        .list(shirt(&["SHIRT-L", "SHIRT-M"]))
        .await
        .expect_err("taken");
    let fault = Fault::from_status(&refused);
    assert_eq!(fault.reason(), "SKU_TAKEN");
    assert_eq!(fault.items()[0]["sku"], "SHIRT-M");
    assert_eq!(world.rows().await, (1, 1));
}

#[tokio::test]
async fn products_of_one_name_have_different_slugs() {
    let world = World::new().await;
    let one = world.list(shirt(&["SHIRT-M"])).await.expect("listed");
    let other = world.list(shirt(&["SHIRT-L"])).await.expect("listed");
    assert_ne!(one.slug, other.slug);
    let found = world.show(&world.buyer, &other.slug).await.expect("found");
    assert_eq!(found.id, other.id);
}

#[tokio::test]
async fn a_draft_exists_for_staff_only_until_it_is_put_on_sale() {
    let world = World::new().await;
    let draft = pb::CreateProductRequest {
        status: "draft".to_owned(),
        ..shirt(&["SHIRT-M"])
    };
    let draft = world.list(draft).await.expect("listed");
    let hidden = world
        .show(&world.buyer, &draft.id)
        .await
        .expect_err("a draft");
    assert_eq!(hidden.code(), Code::NotFound);
    assert!(world.show(&world.staff, &draft.id).await.is_ok());
    assert_eq!(quoted(&world, &["SHIRT-M"]).await, []);

    let stale = world.put(&draft, "published", 99).await.expect_err("stale");
    assert_eq!(Fault::from_status(&stale).reason(), "PRODUCT_CHANGED");
    let on_sale = world.put(&draft, "published", draft.version).await;
    let on_sale = on_sale.expect("on sale");
    let again = world.put(&draft, "published", 0).await.expect("the same");
    assert_eq!(on_sale, again);
    assert!(world.show(&world.buyer, &draft.id).await.is_ok());
    assert_eq!(
        quoted(&world, &["SHIRT-M"]).await,
        [("T-shirt, M".to_owned(), 32)]
    );
}

#[tokio::test]
async fn quotes_leave_out_what_is_not_for_sale() {
    let world = World::new().await;
    world.list(shirt(&["SHIRT-M"])).await.expect("listed");
    assert_eq!(quoted(&world, &["SHIRT-M", "NOBODY-HAS-IT"]).await.len(), 1);
}

#[tokio::test]
async fn a_list_shows_every_product_once_however_it_is_sliced() {
    let world = World::new().await;
    for number in 0..5 {
        world.clock.advance(SignedDuration::from_secs(1));
        world
            .list(shirt(&[&format!("SHIRT-{number}")]))
            .await
            .expect("listed");
    }
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let request = pb::ListProductsRequest {
            category: "clothing".to_owned(),
            page: Some(PageRequest { size: 2, token }),
            ..pb::ListProductsRequest::default()
        };
        let page = world.client().list_products(Request::new(request)).await;
        let page = page.expect("a page").into_inner();
        seen.extend(
            page.products
                .into_iter()
                .map(|product| product.variants[0].sku.clone()),
        );
        token = page.page.expect("set").next_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(
        seen,
        ["SHIRT-4", "SHIRT-3", "SHIRT-2", "SHIRT-1", "SHIRT-0"]
    );
}

#[tokio::test]
async fn each_field_that_cannot_be_taken_is_named_and_nothing_is_written() {
    type Spoil = fn(&mut pb::CreateProductRequest);
    let table: [(&str, Spoil); 6] = [
        ("name", |listing| listing.name.clear()),
        ("currency", |listing| listing.currency = "yen".to_owned()),
        ("kind", |listing| listing.kind = "spaceship".to_owned()),
        ("status", |listing| listing.status = "sold".to_owned()),
        ("variants[0].sku", |listing| {
            listing.variants[0].sku = "shirt".to_owned();
        }),
        ("variants[0].stock", |listing| {
            listing.variants[0].stock = Some(-1);
        }),
    ];
    let world = World::new().await;
    for (field, spoil) in table {
        let mut listing = shirt(&["SHIRT-M"]);
        spoil(&mut listing);
        let refused = world.list(listing).await.expect_err(field);
        let fault = Fault::from_status(&refused);
        assert_eq!(fault.items()[0]["field"], field, "{fault}");
    }
    let mut mixed = shirt(&["SHIRT-M", "SHIRT-L"]);
    mixed.variants[1].price = Some(holdfast_proto::money::v1::Money {
        currency: "GBP".to_owned(),
        ..yen(32)
    });
    let refused = world.list(mixed).await.expect_err("two currencies");
    assert_eq!(Fault::from_status(&refused).reason(), "CURRENCY_MIXED");
    assert_eq!(world.rows().await, (0, 0));
}

#[tokio::test]
async fn only_admins_list_products() {
    let world = World::new().await;
    for asker in [&world.buyer, &world.staff] {
        let refused = world
            .client()
            .create_product(asker.ask(shirt(&["SHIRT-M"])))
            .await;
        assert_eq!(
            refused.expect_err("not an admin").code(),
            Code::PermissionDenied
        );
    }
    assert_eq!(world.rows().await, (0, 0));
}

async fn quoted(world: &World, skus: &[&str]) -> Vec<(String, i64)> {
    quoted_in(world, skus, "").await
}

async fn quoted_in(world: &World, skus: &[&str], currency: &str) -> Vec<(String, i64)> {
    let request = pb::QuoteVariantsRequest {
        skus: skus.iter().map(|sku| (*sku).to_owned()).collect(),
        currency: currency.to_owned(),
    };
    let answer = world
        .client()
        .quote_variants(world.buyer.ask(request))
        .await;
    let quotes = answer.expect("quotes").into_inner().quotes;
    quotes
        .into_iter()
        .map(|quote| (quote.name, quote.price.expect("set").amount))
        .collect()
}
