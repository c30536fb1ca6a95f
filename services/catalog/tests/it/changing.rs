//! Products and variants that are changed, added and deleted.

use std::collections::HashMap;

use holdfast_kernel::RequestId;
use holdfast_platform::fault::{Fault, FaultCode};
use holdfast_proto::catalog::v1 as pb;
use tonic::{Code, Status};

use crate::{
    quoted,
    world::{World, shirt, yen},
};

fn reason(refused: &Status) -> String {
    Fault::from_status(refused).reason().to_owned()
}

fn addition(product: &pb::Product, sku: &str) -> pb::AddVariantRequest {
    pb::AddVariantRequest {
        request_id: RequestId::generate().to_string(),
        fingerprint: vec![1].into(),
        product_id: product.id.clone(),
        variant: Some(pb::NewVariant {
            sku: sku.to_owned(),
            name: "L".to_owned(),
            options: HashMap::from([("size".to_owned(), "L".to_owned())]),
            price: Some(yen(40)),
            stock: Some(5),
            other_prices: Vec::new(),
        }),
    }
}

async fn add(world: &World, request: pb::AddVariantRequest) -> Result<pb::Product, Status> {
    let answer = world.client().add_variant(world.admin.ask(request)).await?;
    Ok(answer.into_inner().product.expect("set"))
}

async fn change_variant(
    world: &World,
    request: pb::UpdateVariantRequest,
) -> Result<pb::Product, Status> {
    let request = world.admin.ask(request);
    let answer = world.client().update_variant(request).await?;
    Ok(answer.into_inner().product.expect("set"))
}

async fn remove(world: &World, product: &pb::Product, sku: &str) -> Result<(), Status> {
    let request = pb::DeleteVariantRequest {
        product_id: product.id.clone(),
        sku: sku.to_owned(),
        expected_version: product.version,
    };
    let request = world.admin.ask(request);
    world.client().delete_variant(request).await.map(|_| ())
}

async fn delete(world: &World, product: &pb::Product) -> Result<(), Status> {
    let request = pb::DeleteProductRequest {
        product_id: product.id.clone(),
        expected_version: product.version,
    };
    let request = world.admin.ask(request);
    world.client().delete_product(request).await.map(|_| ())
}

fn skus(product: &pb::Product) -> Vec<&str> {
    let variants = product.variants.iter();
    variants.map(|variant| variant.sku.as_str()).collect()
}

#[tokio::test]
async fn a_change_tells_what_is_set_and_leaves_the_rest() {
    let world = World::new().await;
    let before = world.list(shirt(&["SHIRT-M"])).await.expect("listed");
    let change = pb::UpdateProductRequest {
        product_id: before.id.clone(),
        expected_version: before.version,
        name: Some("Tee".to_owned()),
        category: Some("tops".to_owned()),
        images: Some(pb::Images {
            urls: vec!["https://img.example/tee.jpg".to_owned()],
        }),
        price: Some(yen(30)),
        ..pb::UpdateProductRequest::default()
    };
    let after = world.change(change.clone()).await.expect("changed");
    assert_eq!(
        (
            after.name.as_str(),
            after.slug.as_str(),
            after.category.as_str()
        ),
        ("Tee", "t-shirt", "tops")
    );
    assert_eq!(
        (
            after.version,
            after.status.as_str(),
            after.variants[0].price.clone()
        ),
        (before.version + 1, "published", Some(yen(30)))
    );
    assert_eq!(
        after,
        world.show(&world.buyer, "t-shirt").await.expect("there")
    );
    let stale = world.change(change).await.expect_err("stale");
    assert_eq!(reason(&stale), "PRODUCT_CHANGED");
    let none = pb::UpdateProductRequest {
        product_id: before.id,
        category: Some(String::new()),
        ..pb::UpdateProductRequest::default()
    };
    let none = world.change(none).await.expect("changed");
    assert_eq!((none.category.as_str(), none.images.len()), ("", 1));
}

#[tokio::test]
async fn a_variant_is_added_with_its_stock_once_by_the_same_wish() {
    let world = World::new().await;
    let product = world.list(shirt(&["SHIRT-M"])).await.expect("listed");
    let wish = addition(&product, "SHIRT-L");
    let added = add(&world, wish.clone()).await.expect("added");
    assert_eq!(skus(&added), ["SHIRT-M", "SHIRT-L"]);
    let again = add(&world, wish.clone()).await.expect("the same");
    assert_eq!(added, again);
    let other = pb::AddVariantRequest {
        fingerprint: vec![2].into(),
        ..wish
    };
    let refused = add(&world, other).await.expect_err("another body");
    assert_eq!(reason(&refused), "IDEMPOTENCY_KEY_REUSED");
    let stock = world.inventory.adjust.asked();
    assert_eq!(stock[1].changes[0].pool, "sku:SHIRT-L");
    assert_eq!(stock[1].request_id, stock[2].request_id);
    assert_eq!(
        quoted(&world, &["SHIRT-L"]).await,
        [("T-shirt, L".to_owned(), 40)]
    );
}

#[tokio::test]
async fn a_variant_whose_stock_the_ledger_refuses_is_taken_back() {
    let world = World::new().await;
    let product = world.list(shirt(&["SHIRT-M"])).await.expect("listed");
    let refusal = Fault::new(FaultCode::Conflict, "POOL_EXISTS", "it is there");
    world.inventory.adjust.then(Err(refusal.into()));
    let refused = add(&world, addition(&product, "SHIRT-L")).await;
    assert_eq!(reason(&refused.expect_err("refused")), "POOL_EXISTS");
    assert_eq!(world.rows().await, (1, 1));
    assert_eq!(
        world.announced().await.last().map(String::as_str),
        Some("product.updated v4")
    );

    let cut_off = addition(&product, "SHIRT-L");
    world
        .inventory
        .adjust
        .then(Err(Status::unavailable("gone")));
    let lost = add(&world, cut_off.clone()).await.expect_err("cut off");
    assert_eq!(lost.code(), Code::Unavailable);
    let added = add(&world, cut_off).await.expect("completed");
    assert_eq!(skus(&added), ["SHIRT-M", "SHIRT-L"]);
}

#[tokio::test]
async fn a_variant_that_does_not_fit_its_product_is_refused_by_its_field() {
    let world = World::new().await;
    let product = world.list(shirt(&["SHIRT-M"])).await.expect("listed");
    let mut other = addition(&product, "SHIRT-L");
    other.variant.as_mut().expect("set").options.clear();
    let refused = add(&world, other).await.expect_err("other options");
    assert_eq!(Fault::from_status(&refused).items()[0]["field"], "options");
    let refused = add(&world, addition(&product, "SHIRT-M")).await;
    assert_eq!(reason(&refused.expect_err("there already")), "SKU_TAKEN");
}

#[tokio::test]
async fn a_variant_changes_under_the_version_of_its_product() {
    let world = World::new().await;
    let product = world
        .list(shirt(&["SHIRT-M", "SHIRT-L"]))
        .await
        .expect("listed");
    let change = pb::UpdateVariantRequest {
        product_id: product.id.clone(),
        sku: "SHIRT-L".to_owned(),
        expected_version: product.version,
        price: Some(yen(50)),
        ..pb::UpdateVariantRequest::default()
    };
    let changed = change_variant(&world, change.clone())
        .await
        .expect("changed");
    let prices: Vec<_> = (changed.variants.iter())
        .map(|variant| variant.price.as_ref().map(|price| price.amount))
        .collect();
    assert_eq!(prices, [Some(32), Some(50)]);
    let stale = change_variant(&world, change).await.expect_err("stale");
    assert_eq!(reason(&stale), "PRODUCT_CHANGED");
    let nobody = pb::UpdateVariantRequest {
        product_id: product.id,
        sku: "SHIRT-XL".to_owned(),
        ..pb::UpdateVariantRequest::default()
    };
    let nobody = change_variant(&world, nobody).await.expect_err("no such");
    assert_eq!(reason(&nobody), "UNKNOWN_VARIANT");
}

#[tokio::test]
async fn a_removed_variant_is_off_sale_its_sku_stays_taken_and_the_last_one_stays() {
    let world = World::new().await;
    let product = world
        .list(shirt(&["SHIRT-M", "SHIRT-L"]))
        .await
        .expect("listed");
    remove(&world, &product, "SHIRT-L").await.expect("removed");
    let left = world.show(&world.buyer, &product.id).await.expect("there");
    assert_eq!(skus(&left), ["SHIRT-M"]);
    assert_eq!(quoted(&world, &["SHIRT-L"]).await, []);
    let refused = world.list(shirt(&["SHIRT-L"])).await.expect_err("taken");
    assert_eq!(reason(&refused), "SKU_TAKEN");
    let last = remove(&world, &left, "SHIRT-M")
        .await
        .expect_err("the last");
    assert_eq!(reason(&last), "LAST_VARIANT");
    let back = pb::AddVariantRequest {
        variant: Some(pb::NewVariant {
            stock: None,
            ..addition(&left, "SHIRT-L").variant.expect("set")
        }),
        ..addition(&left, "SHIRT-L")
    };
    let back = add(&world, back)
        .await
        .expect("its own product may have it again");
    assert_eq!(skus(&back), ["SHIRT-M", "SHIRT-L"]);
}

#[tokio::test]
async fn a_deleted_product_is_gone_for_everybody_and_its_skus_stay_taken() {
    let world = World::new().await;
    let product = world.list(shirt(&["SHIRT-M"])).await.expect("listed");
    let stale = pb::Product {
        version: 1,
        ..product.clone()
    };
    let refused = delete(&world, &stale).await.expect_err("stale");
    assert_eq!(reason(&refused), "PRODUCT_CHANGED");
    delete(&world, &product).await.expect("deleted");
    for asker in [&world.buyer, &world.admin] {
        for name in [&product.id, &product.slug] {
            let gone = world.show(asker, name).await.expect_err("gone");
            assert_eq!(gone.code(), Code::NotFound);
        }
    }
    assert_eq!(quoted(&world, &["SHIRT-M"]).await, []);
    let page = pb::ListProductsRequest::default();
    let page = world.client().list_products(world.admin.ask(page)).await;
    assert_eq!(page.expect("a page").into_inner().products, []);
    let again = delete(&world, &product).await.expect_err("gone");
    assert_eq!(reason(&again), "UNKNOWN_PRODUCT");
    let taken = world.list(shirt(&["SHIRT-M"])).await.expect_err("taken");
    assert_eq!(reason(&taken), "SKU_TAKEN");
    assert_eq!(
        world.announced().await,
        [
            "product.updated v1",
            "product.updated v2",
            "product.deleted v3"
        ]
    );
}

#[tokio::test]
async fn only_admins_change_products() {
    let world = World::new().await;
    let product = world.list(shirt(&["SHIRT-M"])).await.expect("listed");
    for asker in [&world.buyer, &world.staff] {
        let wish = asker.ask(addition(&product, "SHIRT-L"));
        let refused = world.client().add_variant(wish).await;
        let code = refused.expect_err("not an admin").code();
        assert_eq!(code, Code::PermissionDenied);
    }
}

#[tokio::test]
async fn what_admins_do_to_products_is_written_down_once_and_names_them() {
    let world = World::new().await;
    let listing = shirt(&["SHIRT-M"]);
    let product = world.list(listing.clone()).await.expect("listed");
    world.list(listing).await.expect("the same");
    let more = addition(&product, "SHIRT-L");
    add(&world, more.clone()).await.expect("added");
    let product = add(&world, more).await.expect("the same");
    let renamed = pb::UpdateVariantRequest {
        product_id: product.id.clone(),
        sku: "SHIRT-L".to_owned(),
        expected_version: product.version,
        name: Some("Large".to_owned()),
        ..pb::UpdateVariantRequest::default()
    };
    let product = change_variant(&world, renamed).await.expect("changed");
    let same = world.put(&product, "published", product.version).await;
    let product = same.expect("as it was");
    remove(&world, &product, "SHIRT-L").await.expect("removed");
    let product = world.show(&world.staff, &product.id).await.expect("there");
    let hidden = world.put(&product, "draft", product.version).await;
    let hidden = hidden.expect("off sale");
    let stale = delete(&world, &product).await.expect_err("it has changed");
    assert_eq!(reason(&stale), "PRODUCT_CHANGED");
    delete(&world, &hidden).await.expect("deleted");

    let admin = world.admin.user.to_string();
    let line = |action: &str, of: &str| (admin.clone(), action.to_owned(), of.to_owned());
    assert_eq!(
        world.audited().await,
        [
            line("product_created", &product.id),
            line("product_changed", &product.id),
            line("variant_added", "SHIRT-L"),
            line("variant_changed", "SHIRT-L"),
            line("variant_removed", "SHIRT-L"),
            line("product_changed", &product.id),
            line("product_deleted", &product.id),
        ]
    );
}
