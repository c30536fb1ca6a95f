//! Products, their variants and their categories.

use holdfast_platform::identity::Role;
use holdfast_proto::{catalog::v1 as catalog, page::v1::PageInfo};
use http::Method;
use serde_json::{Value, json};

use super::{AT, AT_TEXT};
use crate::world::World;

#[tokio::test]
async fn products_are_made() {
    let world = World::new().await;
    let product = |request: &catalog::CreateProductRequest| catalog::Product {
        id: "prd_1".to_owned(),
        slug: "t-shirt".to_owned(),
        name: request.name.clone(),
        kind: request.kind.clone(),
        currency: request.currency.clone(),
        status: request.status.clone(),
        created_at: AT,
        version: 1,
        variants: request
            .variants
            .iter()
            .map(|variant| catalog::Variant {
                sku: variant.sku.clone(),
                name: variant.name.clone(),
                options: variant.options.clone(),
                price: variant.price.clone(),
                other_prices: variant.other_prices.clone(),
                available: variant.stock.unwrap_or_default(),
            })
            .collect(),
        ..catalog::Product::default()
    };
    world.catalog.create_product.otherwise(move |asked| {
        Ok(catalog::CreateProductResponse {
            product: Some(product(asked)),
        })
    });
    let admin = world.somebody(Role::Admin);
    let told = world
        .post("/v1/products")
        .by(&admin)
        .key("k")
        .send(&json!({"name": "T-shirt", "currency": "JPY", "variants": [
            {"sku": "M", "options": {"size": "M"}, "price": {"amount": 1250, "currency": "JPY"},
             "prices": [{"amount": 990, "currency": "EUR"}], "stock": 7},
            {"sku": "S", "price": {"amount": 1200, "currency": "JPY"}},
        ]}))
        .await;
    assert_eq!(
        (told.status.as_u16(), told.header("location")),
        (201, Some("/v1/products/prd_1"))
    );
    assert_eq!(
        told.json(),
        json!({
            "id": "prd_1", "slug": "t-shirt", "name": "T-shirt", "description": "", "kind": "good",
            "category": null, "currency": "JPY", "price": {"amount": 1200, "currency": "JPY"}, "images": [],
            "rating": {"average": null, "count": 0, "histogram": [0, 0, 0, 0, 0]},
            "variants": [
                {"sku": "M", "name": "", "options": {"size": "M"}, "price": {"amount": 1250, "currency": "JPY"},
                 "prices": [{"amount": 990, "currency": "EUR"}], "available": 7},
                {"sku": "S", "name": "", "options": {}, "price": {"amount": 1200, "currency": "JPY"}, "prices": [], "available": 0},
            ],
            "status": "published", "created_at": AT_TEXT,
        })
    );
    let asked = world.catalog.create_product.asked().remove(0);
    assert_eq!(
        (asked.variants[0].stock, asked.variants[1].stock),
        (Some(7), None)
    );
    assert_eq!(asked.fingerprint.len(), 32);
}

#[tokio::test]
async fn products_are_made_and_published_by_the_batch() {
    let world = World::new().await;
    world.catalog.create_products.otherwise(|asked| {
        let made = (1..).zip(&asked.products).map(|(at, product)| {
            let (id, slug) = (format!("prd_{at}"), product.name.to_lowercase());
            catalog::MadeProduct { id, slug }
        });
        Ok(catalog::CreateProductsResponse {
            products: made.collect(),
        })
    });
    let published = Ok(catalog::PublishProductsResponse {});
    world.catalog.publish_products.then(published);
    let admin = world.somebody(Role::Admin);
    let product = |name: &str, status: &str| {
        let price = json!({"amount": 1250, "currency": "JPY"});
        json!({"name": name, "currency": "JPY", "category": "hats", "images": ["https://img.example/1"],
               "status": status, "variants": [{"sku": name, "price": price, "stock": 7}]})
    };
    let told = world
        .post("/v1/product-batches")
        .by(&admin)
        .key("k")
        .send(&json!({"products": [product("HAT", "draft"), product("CAP", "published")]}))
        .await;
    assert_eq!(told.status.as_u16(), 201);
    let made =
        json!({"products": [{"id": "prd_1", "slug": "hat"}, {"id": "prd_2", "slug": "cap"}]});
    assert_eq!(told.json(), made);
    let asked = world.catalog.create_products.asked().remove(0);
    assert_eq!(asked.fingerprint.len(), 32);
    let hat = &asked.products[0];
    assert_eq!((hat.status.as_str(), hat.kind.as_str()), ("draft", "good"));
    assert_eq!((hat.category.as_str(), hat.images.len()), ("hats", 1));
    assert_eq!(hat.variants[0].stock, Some(7));

    let told = world
        .post("/v1/product-batches")
        .by(&admin)
        .key("l")
        .send(&json!({"products": [product("HAT", "draft"), {"name": "CAP", "colour": "red"}]}))
        .await;
    assert_eq!(told.json()["errors"][0]["field"], "products[1].colour");

    let told = world
        .post("/v1/product-publications")
        .by(&admin)
        .send(&json!({"products": ["prd_1", "prd_2"]}))
        .await;
    assert_eq!(told.status.as_u16(), 204);
    let asked = world.catalog.publish_products.asked().remove(0);
    assert_eq!(asked.product_ids, ["prd_1", "prd_2"]);
}

#[tokio::test]
async fn products_are_listed_by_words_filters_and_in_an_order_with_their_facets() {
    let world = World::new().await;
    let listed = catalog::Product {
        id: "prd_1".to_owned(),
        created_at: AT,
        ..catalog::Product::default()
    };
    world
        .catalog
        .list_products
        .then(Ok(catalog::ListProductsResponse {
            products: vec![listed],
            facets: Some(catalog::Facets {
                categories: vec![catalog::FacetValue {
                    value: "shirts".to_owned(),
                    count: 3,
                }],
                prices: vec![catalog::PriceRange {
                    currency: "EUR".to_owned(),
                    from: 500,
                    below: None,
                    count: 3,
                }],
                counted: 3,
                complete: true,
                ..catalog::Facets::default()
            }),
            page: Some(PageInfo {
                next_token: "7b7d".to_owned(),
            }),
        }));
    let told = world
        .get(
            "/v1/products?category=shirts&currency=EUR&limit=1&cursor=5b5d&q=red+shirt&sort=-price\
              &options=size=M;color=Dark%20red&price_min=5&kind=good,tour",
        )
        .send_nothing()
        .await
        .json();
    assert_eq!(
        (&told["next_cursor"], &told["has_more"]),
        (&json!("7b7d"), &json!(true))
    );
    assert_eq!(told["data"][0]["id"], "prd_1");
    let asked = world.catalog.list_products.asked().remove(0);
    let page = asked.page.expect("a page");
    assert_eq!(
        (asked.category.as_str(), page.size, page.token.as_str()),
        ("shirts", 1, "5b5d")
    );
    assert_eq!(asked.currency, "EUR");
    assert_eq!(
        (asked.query.as_str(), asked.sort.as_str()),
        ("red shirt", "-price")
    );
    assert_eq!((asked.price_min, asked.price_max), (Some(5), None));
    assert_eq!(
        (asked.kinds, asked.facets),
        (vec!["good".to_owned(), "tour".to_owned()], true)
    );
    assert_eq!(
        (
            asked.options["size"].as_str(),
            asked.options["color"].as_str()
        ),
        ("M", "Dark red")
    );
    assert_eq!(
        told["facets"],
        json!({
            "categories": [{"value": "shirts", "count": 3}], "options": {}, "currencies": [],
            "prices": [{"currency": "EUR", "from": 500, "below": null, "count": 3}], "counted": 3, "complete": true,
        })
    );
    let told = world.get("/v1/products?options=size").send_nothing().await;
    assert_eq!(told.json()["errors"][0]["field"], "options");
}

#[tokio::test]
async fn products_and_variants_are_changed_and_deleted_only_as_they_were_read() {
    let world = World::new().await;
    let admin = world.somebody(Role::Admin);
    let paths = ["/v1/products/prd_1", "/v1/products/prd_1/variants/M"];
    for path in paths {
        for method in [Method::PATCH, Method::DELETE] {
            let told = world.ask(method, path).by(&admin).send(&json!({})).await;
            assert_eq!(
                told.problem(),
                (428, "precondition_required".into()),
                "{path}"
            );
        }
    }
    let changed = catalog::Product {
        id: "prd_1".to_owned(),
        created_at: AT,
        version: 8,
        ..catalog::Product::default()
    };
    let answer = changed.clone();
    world.catalog.update_product.otherwise(move |_| {
        Ok(catalog::UpdateProductResponse {
            product: Some(answer.clone()),
        })
    });
    let answer = changed.clone();
    world.catalog.update_variant.otherwise(move |_| {
        Ok(catalog::UpdateVariantResponse {
            product: Some(answer.clone()),
        })
    });
    world
        .catalog
        .add_variant
        .then(Ok(catalog::AddVariantResponse {
            product: Some(changed),
        }));
    let patch = |path| {
        let asking = world.ask(Method::PATCH, path).by(&admin);
        asking.with("if-match", "\"7\"")
    };
    let told = patch(paths[0])
        .send(&json!({"name": "Shirt", "category": "", "images": []}))
        .await;
    assert_eq!(
        (told.status.as_u16(), told.header("etag")),
        (200, Some("\"8\""))
    );
    let asked = world.catalog.update_product.asked().remove(0);
    assert_eq!(
        (
            asked.name.as_deref(),
            asked.category.as_deref(),
            asked.expected_version
        ),
        (Some("Shirt"), Some(""), 7)
    );
    assert!(asked.images.is_some_and(|images| images.urls.is_empty()));
    assert_eq!((asked.description, asked.price), (None, None));

    let told = patch(paths[1])
        .send(&json!({"options": {"size": "M"}, "prices": [{"amount": 5, "currency": "EUR"}]}))
        .await;
    assert_eq!(told.status, 200);
    let asked = world.catalog.update_variant.asked().remove(0);
    assert_eq!(asked.sku, "M");
    assert_eq!(asked.options.expect("set").values["size"], "M");
    assert_eq!(asked.other_prices.expect("set").prices[0].amount, 5);

    let told = world
        .post("/v1/products/prd_1/variants")
        .by(&admin)
        .key("k")
        .send(&json!({"sku": "L", "price": {"amount": 1250, "currency": "JPY"}, "stock": 3}))
        .await;
    assert_eq!(
        (told.status.as_u16(), told.header("location")),
        (201, Some("/v1/products/prd_1"))
    );
    let asked = world.catalog.add_variant.asked().remove(0);
    assert_eq!(asked.variant.expect("set").stock, Some(3));

    world
        .catalog
        .delete_product
        .then(Ok(catalog::DeleteProductResponse {}));
    let told = world
        .ask(Method::DELETE, paths[0])
        .by(&admin)
        .with("if-match", "\"8\"")
        .send_nothing()
        .await;
    assert_eq!(told.status, 204);
    let asked = world.catalog.delete_product.asked().remove(0);
    assert_eq!(
        (asked.product_id.as_str(), asked.expected_version),
        ("prd_1", 8)
    );
}

#[tokio::test]
async fn categories_are_shown_as_a_tree_and_changed_as_they_were_read() {
    let world = World::new().await;
    let category = |slug: &str, parent: &str, products| catalog::Category {
        slug: slug.to_owned(),
        name: slug.to_uppercase(),
        parent: parent.to_owned(),
        products,
        version: 3,
    };
    world
        .catalog
        .list_categories
        .then(Ok(catalog::ListCategoriesResponse {
            categories: vec![
                category("a", "", 3),
                category("b", "a", 2),
                category("c", "a", 0),
                category("d", "", 0),
            ],
        }));
    let told = world.get("/v1/categories").send_nothing().await.json();
    let shown = |slug: &str, parent: Value, products: i64, children: Value| json!({"slug": slug, "name": slug.to_uppercase(), "parent": parent, "products": products, "children": children});
    assert_eq!(
        told["data"],
        json!([
            shown(
                "a",
                Value::Null,
                3,
                json!([
                    shown("b", json!("a"), 2, json!([])),
                    shown("c", json!("a"), 0, json!([]))
                ])
            ),
            shown("d", Value::Null, 0, json!([])),
        ])
    );

    let admin = world.somebody(Role::Admin);
    let patch = || world.ask(Method::PATCH, "/v1/categories/b").by(&admin);
    let bare = patch().send(&json!({"parent": null})).await;
    assert_eq!(bare.problem(), (428, "precondition_required".into()));
    world.catalog.update_category.otherwise(move |_| {
        Ok(catalog::UpdateCategoryResponse {
            category: Some(catalog::Category {
                slug: "b".to_owned(),
                version: 4,
                ..catalog::Category::default()
            }),
        })
    });
    let told = patch()
        .with("if-match", "\"3\"")
        .send(&json!({"parent": null}))
        .await;
    assert_eq!(
        (told.status.as_u16(), told.header("etag")),
        (200, Some("\"4\""))
    );
    patch()
        .with("if-match", "\"4\"")
        .send(&json!({"name": "B"}))
        .await;
    let asked = world.catalog.update_category.asked();
    assert_eq!(
        (asked[0].parent.as_deref(), asked[0].expected_version),
        (Some(""), 3)
    );
    assert_eq!(
        (asked[1].parent.as_deref(), asked[1].name.as_deref()),
        (None, Some("B"))
    );
}
