//! What is kept in memory of what buyers are shown: its own writes at once, others' once they are heard.

use holdfast_proto::{catalog::v1 as pb, page::v1::PageRequest};
use holdfast_testkit::Meter;
use jiff::SignedDuration;
use tonic::Code;

use crate::world::{Process, World, shirt, yen};

const LISTS: &str = "catalog.lists";
const PRODUCTS: &str = "catalog.products";

/// Name, price and what is available of each product listed.
async fn listed(process: &Process, request: pb::ListProductsRequest) -> Vec<(String, i64, i64)> {
    let answer = process
        .client()
        .list_products(tonic::Request::new(request))
        .await;
    let products = answer.expect("a list").into_inner().products;
    products
        .into_iter()
        .map(|product| {
            let variant = &product.variants[0];
            let price = variant.price.as_ref().expect("set").amount;
            (product.name, price, variant.available)
        })
        .collect()
}

async fn all(process: &Process) -> Vec<(String, i64, i64)> {
    listed(process, pb::ListProductsRequest::default()).await
}

fn shirt_at(price: i64) -> (String, i64, i64) {
    ("T-shirt".to_owned(), price, 7)
}

fn price_of(product: &pb::Product, amount: i64) -> pb::UpdateProductRequest {
    pb::UpdateProductRequest {
        product_id: product.id.clone(),
        price: Some(yen(amount)),
        ..pb::UpdateProductRequest::default()
    }
}

#[tokio::test]
async fn a_list_is_read_once_until_a_product_changes_and_then_at_once() {
    let meter = Meter::new();
    let _measured = meter.measure();
    let world = World::new().await;
    world.process.hear(true);
    let product = world.list(shirt(&["SHIRT-M"])).await.expect("listed");
    for _ in 0..3 {
        assert_eq!(all(&world.process).await, [shirt_at(32)]);
    }
    assert_eq!(meter.reads(LISTS, ["miss", "hit", "deaf"]), [1, 2, 0]);

    world.change(price_of(&product, 40)).await.expect("changed");
    assert_eq!(all(&world.process).await, [shirt_at(40)]);
    world.list(shirt(&["SHIRT-L"])).await.expect("listed");
    assert_eq!(all(&world.process).await.len(), 2);
    let variant = pb::UpdateVariantRequest {
        product_id: product.id.clone(),
        sku: "SHIRT-M".to_owned(),
        price: Some(yen(50)),
        ..pb::UpdateVariantRequest::default()
    };
    let request = world.admin.ask(variant);
    world
        .client()
        .update_variant(request)
        .await
        .expect("changed");
    assert_eq!(all(&world.process).await[1], shirt_at(50));
    let gone = pb::DeleteProductRequest {
        product_id: product.id,
        ..pb::DeleteProductRequest::default()
    };
    let request = world.admin.ask(gone);
    world.client().delete_product(request).await.expect("gone");
    assert_eq!(all(&world.process).await, [shirt_at(32)]);
    assert_eq!(meter.reads(LISTS, ["miss", "hit"]), [5, 2]);
}

#[tokio::test]
async fn lists_that_were_asked_for_otherwise_are_other_lists() {
    let world = World::new().await;
    world.process.hear(true);
    world.list(shirt(&["SHIRT-M"])).await.expect("listed");
    world.clock.advance(SignedDuration::from_secs(1));
    world.list(shirt(&["SHIRT-L"])).await.expect("listed");
    assert_eq!(all(&world.process).await.len(), 2);
    let nothing = pb::ListProductsRequest::default();
    let one = Some(PageRequest {
        size: 1,
        token: String::new(),
    });
    let option = |value: &str| [("size".to_owned(), value.to_owned())].into();
    for (request, found) in [
        (
            pb::ListProductsRequest {
                page: one,
                ..nothing.clone()
            },
            1,
        ),
        (
            pb::ListProductsRequest {
                query: "SHIRT-L".to_owned(),
                ..nothing.clone()
            },
            1,
        ),
        (
            pb::ListProductsRequest {
                category: "none".to_owned(),
                ..nothing.clone()
            },
            0,
        ),
        (
            pb::ListProductsRequest {
                currency: "EUR".to_owned(),
                ..nothing.clone()
            },
            0,
        ),
        (
            pb::ListProductsRequest {
                options: option("M"),
                ..nothing.clone()
            },
            2,
        ),
        (
            pb::ListProductsRequest {
                options: option("L"),
                ..nothing.clone()
            },
            0,
        ),
        (
            pb::ListProductsRequest {
                price_max: Some(31),
                ..nothing.clone()
            },
            0,
        ),
        (
            pb::ListProductsRequest {
                price_min: Some(33),
                ..nothing.clone()
            },
            0,
        ),
    ] {
        for _ in 0..2 {
            let list = listed(&world.process, request.clone()).await;
            assert_eq!(list.len(), found, "{request:?}");
        }
    }
}

#[tokio::test]
async fn a_product_is_read_once_by_id_or_slug_until_it_changes_and_then_at_once() {
    let meter = Meter::new();
    let _measured = meter.measure();
    let world = World::new().await;
    world.process.hear(true);
    let product = world.list(shirt(&["SHIRT-M"])).await.expect("listed");
    for name in [&product.id, &product.slug, &product.id, &product.slug] {
        let shown = world.show(&world.buyer, name).await.expect("shown");
        assert_eq!(shown, product);
    }
    assert_eq!(meter.reads(PRODUCTS, ["miss", "hit"]), [1, 3]);
    assert_eq!(meter.reads("catalog.slugs", ["miss", "hit"]), [1, 1]);
    let changed = world.change(price_of(&product, 40)).await.expect("changed");
    for name in [&product.id, &product.slug] {
        let shown = world.show(&world.buyer, name).await.expect("shown");
        assert_eq!(shown, changed);
    }
    let gone = pb::DeleteProductRequest {
        product_id: product.id.clone(),
        ..pb::DeleteProductRequest::default()
    };
    let request = world.admin.ask(gone);
    world.client().delete_product(request).await.expect("gone");
    for name in [&product.id, &product.slug] {
        let gone = world.show(&world.buyer, name).await.expect_err("gone");
        assert_eq!(gone.code(), Code::NotFound);
    }
}

#[tokio::test]
async fn a_draft_stays_staffs_and_is_everybodys_the_moment_it_is_put_on_sale() {
    let world = World::new().await;
    world.process.hear(true);
    let draft = pb::CreateProductRequest {
        status: "draft".to_owned(),
        ..shirt(&["SHIRT-M"])
    };
    let draft = world.list(draft).await.expect("listed");
    for name in [&draft.id, &draft.slug] {
        assert!(world.show(&world.staff, name).await.is_ok());
        let hidden = world.show(&world.buyer, name).await.expect_err("a draft");
        assert_eq!(hidden.code(), Code::NotFound);
    }
    world.put(&draft, "published", 0).await.expect("on sale");
    for name in [&draft.id, &draft.slug] {
        assert!(world.show(&world.buyer, name).await.is_ok());
    }
    world.put(&draft, "draft", 0).await.expect("taken back");
    for name in [&draft.id, &draft.slug] {
        let hidden = world.show(&world.buyer, name).await.expect_err("a draft");
        assert_eq!(hidden.code(), Code::NotFound);
    }
}

#[tokio::test]
async fn what_is_available_is_told_anew_with_every_answer() {
    let meter = Meter::new();
    let _measured = meter.measure();
    let world = World::new().await;
    world.process.hear(true);
    let product = world.list(shirt(&["SHIRT-M"])).await.expect("listed");
    for available in [7, 3, 0] {
        let version = 10 - available;
        world.hear_of_stock("sku:SHIRT-M", version, available).await;
        assert_eq!(all(&world.process).await[0].2, available);
        let shown = world.show(&world.buyer, &product.id).await.expect("shown");
        assert_eq!(shown.variants[0].available, available);
    }
    assert_eq!(meter.reads(LISTS, ["miss", "hit"]), [1, 2]);
    assert_eq!(meter.reads(PRODUCTS, ["miss", "hit"]), [1, 2]);
}

#[tokio::test]
async fn what_another_process_wrote_is_shown_once_it_is_heard() {
    let world = World::new().await;
    let other = world.another_process();
    let product = world.list(shirt(&["SHIRT-M"])).await.expect("listed");
    other.hear(true);
    assert_eq!(all(&other).await, [shirt_at(32)]);
    let by_slug = world.show_at(&other, &product.slug).await.expect("shown");
    world.change(price_of(&product, 40)).await.expect("changed");
    // Nobody has told it.
    assert_eq!(all(&other).await, [shirt_at(32)]);
    assert_eq!(world.show_at(&other, &product.slug).await, Ok(by_slug));
    world.tell(&other).await;
    assert_eq!(all(&other).await, [shirt_at(40)]);
    let shown = world.show_at(&other, &product.slug).await.expect("shown");
    assert_eq!(shown.variants[0].price, Some(yen(40)));
    world.change(price_of(&product, 50)).await.expect("changed");
    // While it hears nothing it keeps nothing.
    other.hear(false);
    assert_eq!(all(&other).await, [shirt_at(50)]);
}

#[tokio::test]
async fn what_reviews_come_to_is_shown_in_every_process_once_it_is_heard() {
    let world = World::new().await;
    let other = world.another_process();
    let product = world.list(shirt(&["SHIRT-M"])).await.expect("listed");
    for process in [&world.process, &other] {
        process.hear(true);
        all(process).await;
        let shown = world.show_at(process, &product.id).await.expect("shown");
        assert_eq!(shown.histogram, [] as [i64; 0]);
    }
    world.hear_of_review(&product.id, 1, [0, 0, 0, 1, 2]).await;
    for process in [&world.process, &other] {
        world.tell(process).await;
        let shown = world.show_at(process, &product.id).await.expect("shown");
        assert_eq!(shown.histogram, [0, 0, 0, 1, 2]);
        let best = pb::ListProductsRequest {
            sort: "rating".to_owned(),
            ..pb::ListProductsRequest::default()
        };
        assert_eq!(listed(process, best).await.len(), 1);
    }
    // The same news again changes nothing, and is not passed on.
    let before = world.announced().await.len();
    world.hear_of_review(&product.id, 1, [0, 0, 0, 1, 2]).await;
    assert_eq!(world.announced().await.len(), before);
}

#[tokio::test]
async fn a_category_under_another_name_has_its_products_at_once() {
    let world = World::new().await;
    world.process.hear(true);
    world.list(shirt(&["SHIRT-M"])).await.expect("listed");
    let of = |category: &str| pb::ListProductsRequest {
        category: category.to_owned(),
        ..pb::ListProductsRequest::default()
    };
    assert_eq!(listed(&world.process, of("clothing")).await.len(), 1);
    assert_eq!(listed(&world.process, of("clothes")).await.len(), 0);
    let change = pb::UpdateCategoryRequest {
        slug: "clothing".to_owned(),
        new_slug: Some("clothes".to_owned()),
        expected_version: 1,
        ..pb::UpdateCategoryRequest::default()
    };
    let request = world.admin.ask(change);
    let changed = world.client().update_category(request).await;
    changed.expect("changed");
    assert_eq!(listed(&world.process, of("clothing")).await.len(), 0);
    assert_eq!(listed(&world.process, of("clothes")).await.len(), 1);
}

#[tokio::test]
async fn what_nobody_told_of_is_read_anew_after_five_and_after_thirty_minutes() {
    let world = World::new().await;
    world.process.hear(true);
    let product = world.list(shirt(&["SHIRT-M"])).await.expect("listed");
    let shown = async || {
        let shown = world.show(&world.buyer, &product.id).await;
        shown.expect("shown").variants[0].price.clone()
    };
    assert_eq!(all(&world.process).await, [shirt_at(32)]);
    assert_eq!(shown().await, Some(yen(32)));
    world.price_behind_its_back("SHIRT-M", 99).await;
    world.clock.advance(SignedDuration::from_secs(299));
    assert_eq!(all(&world.process).await, [shirt_at(32)]);
    world.clock.advance(SignedDuration::from_secs(1));
    assert_eq!(all(&world.process).await, [shirt_at(99)]);
    world.clock.advance(SignedDuration::from_secs(1_499));
    assert_eq!(shown().await, Some(yen(32)));
    world.clock.advance(SignedDuration::from_secs(1));
    assert_eq!(shown().await, Some(yen(99)));
}
