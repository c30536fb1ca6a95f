//! The tree of categories, and the products in it.

use holdfast_kernel::RequestId;
use holdfast_platform::fault::Fault;
use holdfast_proto::catalog::v1 as pb;
use tonic::{Code, Request, Status};

use crate::world::{World, shirt};

fn category(slug: &str, parent: &str) -> pb::CreateCategoryRequest {
    pb::CreateCategoryRequest {
        request_id: RequestId::generate().to_string(),
        fingerprint: vec![1].into(),
        slug: slug.to_owned(),
        parent: parent.to_owned(),
        ..pb::CreateCategoryRequest::default()
    }
}

async fn make(world: &World, request: pb::CreateCategoryRequest) -> Result<pb::Category, Status> {
    let answer = world
        .client()
        .create_category(world.admin.ask(request))
        .await?;
    Ok(answer.into_inner().category.expect("set"))
}

async fn change(world: &World, request: pb::UpdateCategoryRequest) -> Result<pb::Category, Status> {
    let answer = world
        .client()
        .update_category(world.admin.ask(request))
        .await?;
    Ok(answer.into_inner().category.expect("set"))
}

async fn delete(world: &World, slug: &str, version: i64) -> Result<(), Status> {
    let request = pb::DeleteCategoryRequest {
        slug: slug.to_owned(),
        expected_version: version,
    };
    let mut catalog = world.client();
    let answer = catalog.delete_category(world.admin.ask(request)).await;
    answer.map(|_| ())
}

/// Slug, parent and products of all.
async fn tree(world: &World) -> Vec<(String, String, i64)> {
    let request = Request::new(pb::ListCategoriesRequest {});
    let answer = world.client().list_categories(request).await;
    let categories = answer.expect("the tree").into_inner().categories;
    let row = |category: pb::Category| (category.slug, category.parent, category.products);
    categories.into_iter().map(row).collect()
}

fn row(slug: &str, parent: &str, products: i64) -> (String, String, i64) {
    (slug.to_owned(), parent.to_owned(), products)
}

fn reason(refused: &Status) -> String {
    Fault::from_status(refused).reason().to_owned()
}

async fn listed(world: &World, category: &str) -> Vec<String> {
    let request = pb::ListProductsRequest {
        category: category.to_owned(),
        ..pb::ListProductsRequest::default()
    };
    let answer = world.client().list_products(Request::new(request)).await;
    let products = answer.expect("a page").into_inner().products;
    let sku = |product: pb::Product| product.variants[0].sku.clone();
    products.into_iter().map(sku).collect()
}

#[tokio::test]
async fn a_category_lists_and_counts_what_is_in_those_below_it() {
    let world = World::new().await;
    world.list(shirt(&["SHIRT"])).await.expect("listed");
    make(&world, category("fashion", "")).await.expect("made");
    let request = pb::UpdateCategoryRequest {
        slug: "clothing".to_owned(),
        expected_version: 1,
        parent: Some("fashion".to_owned()),
        ..pb::UpdateCategoryRequest::default()
    };
    change(&world, request).await.expect("moved");
    assert_eq!(
        tree(&world).await,
        [row("fashion", "", 1), row("clothing", "fashion", 1)]
    );
    assert_eq!(listed(&world, "fashion").await, ["SHIRT"]);
    assert_eq!(listed(&world, "clothing").await, ["SHIRT"]);
    assert_eq!(listed(&world, "nothing").await, [""; 0]);
}

#[tokio::test]
async fn what_a_product_names_that_is_not_there_becomes_a_root_and_what_is_there_stays() {
    let world = World::new().await;
    make(&world, category("fashion", "")).await.expect("made");
    let named = pb::CreateCategoryRequest {
        name: "Clothes".to_owned(),
        ..category("clothing", "fashion")
    };
    make(&world, named).await.expect("made");
    world.list(shirt(&["SHIRT"])).await.expect("listed");
    let elsewhere = pb::CreateProductRequest {
        category: "kitchen".to_owned(),
        ..shirt(&["POT"])
    };
    world.list(elsewhere).await.expect("listed");
    assert_eq!(
        tree(&world).await,
        [
            row("fashion", "", 1),
            row("clothing", "fashion", 1),
            row("kitchen", "", 1)
        ]
    );
}

#[tokio::test]
async fn the_same_wish_makes_a_category_once_and_another_of_its_slug_is_refused() {
    let world = World::new().await;
    let wish = category("fashion", "");
    let first = make(&world, wish.clone()).await.expect("made");
    let again = make(&world, wish.clone()).await.expect("the same");
    assert_eq!(first, again);
    let other = pb::CreateCategoryRequest {
        fingerprint: vec![2].into(),
        ..wish
    };
    let refused = make(&world, other).await.expect_err("another body");
    assert_eq!(reason(&refused), "IDEMPOTENCY_KEY_REUSED");
    let refused = make(&world, category("fashion", "")).await;
    assert_eq!(reason(&refused.expect_err("taken")), "CATEGORY_EXISTS");
    for (slug, parent, field) in [("No Slug", "", "slug"), ("x", "nowhere", "parent")] {
        let refused = make(&world, category(slug, parent)).await.expect_err(field);
        assert_eq!(Fault::from_status(&refused).items()[0]["field"], field);
    }
}

#[tokio::test]
async fn products_follow_a_category_to_its_new_slug_and_a_rename_keeps_the_old_one() {
    let world = World::new().await;
    world.list(shirt(&["SHIRT"])).await.expect("listed");
    let renamed = pb::UpdateCategoryRequest {
        slug: "clothing".to_owned(),
        expected_version: 1,
        name: Some("Things to wear".to_owned()),
        ..pb::UpdateCategoryRequest::default()
    };
    let renamed = change(&world, renamed).await.expect("renamed");
    assert_eq!(
        (renamed.slug.as_str(), renamed.version, renamed.products),
        ("clothing", 2, 1)
    );
    let moved = pb::UpdateCategoryRequest {
        slug: "clothing".to_owned(),
        expected_version: 2,
        new_slug: Some("wear".to_owned()),
        ..pb::UpdateCategoryRequest::default()
    };
    change(&world, moved.clone()).await.expect("moved");
    assert_eq!(listed(&world, "wear").await, ["SHIRT"]);
    let gone = change(&world, moved)
        .await
        .expect_err("it has another slug");
    assert_eq!(gone.code(), Code::NotFound);
    let stale = pb::UpdateCategoryRequest {
        slug: "wear".to_owned(),
        expected_version: 2,
        name: Some("Wear".to_owned()),
        ..pb::UpdateCategoryRequest::default()
    };
    let stale = change(&world, stale).await.expect_err("stale");
    assert_eq!(reason(&stale), "CATEGORY_CHANGED");
}

#[tokio::test]
async fn a_category_cannot_be_moved_below_itself() {
    let world = World::new().await;
    make(&world, category("a", "")).await.expect("made");
    make(&world, category("b", "a")).await.expect("made");
    let request = pb::UpdateCategoryRequest {
        slug: "a".to_owned(),
        expected_version: 1,
        parent: Some("b".to_owned()),
        ..pb::UpdateCategoryRequest::default()
    };
    let refused = change(&world, request).await.expect_err("a circle");
    assert_eq!(reason(&refused), "CATEGORY_CYCLE");
    assert_eq!(tree(&world).await, [row("a", "", 0), row("b", "a", 0)]);
}

#[tokio::test]
async fn what_something_hangs_on_is_not_deleted_and_what_hangs_on_it_is_named() {
    let world = World::new().await;
    let product = world.list(shirt(&["SHIRT"])).await.expect("listed");
    make(&world, category("shirts", "clothing"))
        .await
        .expect("made");
    let refused = delete(&world, "clothing", 1).await.expect_err("in use");
    let fault = Fault::from_status(&refused);
    assert_eq!(fault.reason(), "CATEGORY_IN_USE");
    assert_eq!(fault.items()[0]["category"], "shirts");
    assert_eq!(fault.items()[1]["product"], product.id);

    let stale = delete(&world, "shirts", 2).await.expect_err("stale");
    assert_eq!(reason(&stale), "CATEGORY_CHANGED");
    delete(&world, "shirts", 1).await.expect("deleted");
    let gone = delete(&world, "shirts", 1).await.expect_err("gone");
    assert_eq!(reason(&gone), "UNKNOWN_CATEGORY");
    assert_eq!(tree(&world).await, [row("clothing", "", 1)]);
}

#[tokio::test]
async fn only_admins_shape_the_tree() {
    let world = World::new().await;
    for asker in [&world.buyer, &world.staff] {
        let refused = world
            .client()
            .create_category(asker.ask(category("fashion", "")))
            .await;
        assert_eq!(
            refused.expect_err("not an admin").code(),
            Code::PermissionDenied
        );
    }
    assert_eq!(tree(&world).await, []);
}

#[tokio::test]
async fn what_admins_do_to_the_tree_is_written_down() {
    let world = World::new().await;
    let made = make(&world, category("tops", "")).await.expect("made");
    let renamed = pb::UpdateCategoryRequest {
        slug: made.slug,
        expected_version: made.version,
        new_slug: Some("shirts".to_owned()),
        ..pb::UpdateCategoryRequest::default()
    };
    let renamed = change(&world, renamed).await.expect("renamed");
    let deleted = delete(&world, "shirts", renamed.version).await;
    deleted.expect("deleted");
    let admin = world.admin.user.to_string();
    let line = |action: &str, of: &str| (admin.clone(), action.to_owned(), of.to_owned());
    assert_eq!(
        world.audited().await,
        [
            line("category_created", "tops"),
            line("category_changed", "shirts"),
            line("category_deleted", "shirts"),
        ]
    );
}
