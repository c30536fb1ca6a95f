//! Many products at once: all of them or none, as one.

use holdfast_kernel::RequestId;
use holdfast_platform::fault::{Fault, FaultCode};
use holdfast_proto::catalog::v1 as pb;
use tonic::{Code, Status};

use crate::world::{World, shirt};

#[tokio::test]
async fn a_batch_is_made_and_put_on_sale_as_each_of_it_would_be_alone() {
    let world = World::new().await;
    let mut wish = batch(&[&["SHIRT-M", "SHIRT-L"], &["TUNIC"], &["SCARF"]]);
    wish.products[1].name = "Tunic".to_owned();
    wish.products[1].category = "tunics".to_owned();
    wish.products[1].images = vec!["https://img.example/1.jpg".to_owned()];
    wish.products[2].status = "draft".to_owned();
    wish.products[2].variants[0].stock = None;
    let made = make(&world, &wish).await.expect("made");
    assert_eq!(
        (made[0].slug.as_str(), made[1].slug.as_str()),
        ("t-shirt", "tunic")
    );
    assert_ne!(made[2].slug, "t-shirt", "it has the name of the first");

    let asked = world.inventory.adjust.asked();
    let pools = asked.iter().flat_map(|asked| &asked.changes);
    let pools: Vec<&str> = pools.map(|change| change.pool.as_str()).collect();
    assert_eq!(pools, ["sku:SHIRT-M", "sku:SHIRT-L", "sku:TUNIC"]);
    assert_eq!(asked.len(), 1);

    let tunic = world.show(&world.buyer, "tunic").await.expect("on sale");
    assert_eq!(tunic.id, made[1].id);
    assert_eq!(tunic.category, "tunics");
    assert_eq!(tunic.images, wish.products[1].images);
    let shirt = world.show(&world.buyer, "t-shirt").await.expect("on sale");
    let skus = shirt.variants.iter().map(|variant| variant.sku.as_str());
    assert!(skus.eq(["SHIRT-M", "SHIRT-L"]));
    let hidden = world.show(&world.buyer, &made[2].id).await;
    assert_eq!(hidden.expect_err("a draft").code(), Code::NotFound);
    assert_eq!(
        world.announced().await,
        [
            "product.updated v1",
            "product.updated v1",
            "product.updated v1",
            "product.updated v2",
            "product.updated v2"
        ]
    );
    world.until_found("tunics", &["TUNIC"]).await;
    // Newest first: the last of the batch.
    world.until_found("", &["TUNIC", "SHIRT-M"]).await;
}

#[tokio::test]
async fn the_same_batch_again_is_the_same_products_and_another_under_its_key_is_refused() {
    let world = World::new().await;
    let wish = batch(&[&["SHIRT-M"], &["SHIRT-L"]]);
    let first = make(&world, &wish).await.expect("made");
    let again = make(&world, &wish).await.expect("the same");
    assert_eq!(first, again);
    let mut drafts = wish.clone();
    drafts.products.truncate(1);
    drafts.fingerprint = vec![2].into();
    let refused = make(&world, &drafts).await.expect_err("another");
    assert_eq!(
        Fault::from_status(&refused).reason(),
        "IDEMPOTENCY_KEY_REUSED"
    );
    assert_eq!(world.rows().await, (2, 2));
    assert_eq!(world.announced().await.len(), 4);
}

#[tokio::test]
async fn one_that_cannot_be_taken_is_named_by_its_place_and_none_is_written() {
    type Spoil = fn(&mut pb::CreateProductsRequest);
    let table: [(&str, Spoil); 8] = [
        ("products[1].name", |wish| wish.products[1].name.clear()),
        ("products[2].kind", |wish| {
            wish.products[2].kind = "ship".to_owned();
        }),
        ("products[0].variants[0].sku", |wish| {
            wish.products[0].variants[0].sku = "shirt".to_owned();
        }),
        ("products[2].variants[0].options", |wish| {
            let options = (0..11).map(|at| (at.to_string(), "x".to_owned()));
            wish.products[2].variants[0].options = options.collect();
        }),
        ("products[2].variants[1].sku", |wish| {
            let again = wish.products[0].variants[0].clone();
            wish.products[2].variants.push(again);
        }),
        ("products", |wish| wish.products.clear()),
        ("products", |wish| {
            let one = wish.products[0].clone();
            wish.products = vec![one; 101];
            for (at, product) in wish.products.iter_mut().enumerate() {
                product.variants[0].sku = format!("MANY-{at}");
            }
        }),
        ("products", |wish| {
            let one = wish.products[0].variants[0].clone();
            let variants = |of: usize| {
                let sku = |at| format!("MANY-{of}-{at}");
                (0..91)
                    .map(|at| pb::NewVariant {
                        sku: sku(at),
                        ..one.clone()
                    })
                    .collect()
            };
            let product = wish.products[0].clone();
            wish.products = (0..11)
                .map(|of| pb::NewProduct {
                    variants: variants(of),
                    ..product.clone()
                })
                .collect();
        }),
    ];
    let world = World::new().await;
    for (field, spoil) in table {
        let mut wish = batch(&[&["SHIRT-M"], &["SHIRT-L"], &["SHIRT-S"]]);
        spoil(&mut wish);
        let refused = make(&world, &wish).await.expect_err(field);
        let fault = Fault::from_status(&refused);
        assert_eq!(fault.items()[0]["field"], field, "{fault}");
    }
    world.list(shirt(&["SHIRT-S"])).await.expect("listed");
    let wish = batch(&[&["SHIRT-M"], &["SHIRT-L"], &["SHIRT-S"]]);
    let refused = make(&world, &wish).await.expect_err("taken");
    let fault = Fault::from_status(&refused);
    assert_eq!(fault.reason(), "SKU_TAKEN");
    assert_eq!(fault.items()[0]["sku"], "SHIRT-S");
    assert_eq!(world.rows().await, (1, 1));
}

#[tokio::test]
async fn a_batch_that_the_ledger_refuses_leaves_nothing_and_one_it_did_not_answer_is_completed() {
    let world = World::new().await;
    let refusal = Fault::new(FaultCode::Conflict, "POOL_EXISTS", "it is there");
    let wish = batch(&[&["SHIRT-M"], &["SHIRT-L"]]);
    world.inventory.adjust.then(Err(refusal.into()));
    let refused = make(&world, &wish).await.expect_err("refused");
    assert_eq!(Fault::from_status(&refused).reason(), "POOL_EXISTS");
    assert_eq!(world.rows().await, (0, 0));

    let gone = Status::unavailable("gone");
    world.inventory.adjust.then(Err(gone));
    let cut_off = make(&world, &wish).await.expect_err("cut off");
    assert_eq!(cut_off.code(), Code::Unavailable);
    let hidden = world.show(&world.buyer, "t-shirt").await;
    assert_eq!(hidden.expect_err("a draft").code(), Code::NotFound);
    let made = make(&world, &wish).await.expect("completed");
    assert!(world.show(&world.buyer, &made[1].id).await.is_ok());
    assert_eq!(world.rows().await, (2, 2));
}

#[tokio::test]
async fn drafts_are_put_on_sale_together_once_and_none_where_one_is_not_there() {
    let world = World::new().await;
    let mut wish = batch(&[&["SHIRT-M"], &["SHIRT-L"]]);
    for product in &mut wish.products {
        product.status = "draft".to_owned();
    }
    let made = make(&world, &wish).await.expect("made");
    let ids: Vec<String> = made.iter().map(|made| made.id.clone()).collect();
    let gone = "prd_01jd3q8m5ze2vtx0c9k4h7n6wb".to_owned();
    let mut with_gone = ids.clone();
    with_gone.push(gone.clone());
    let refused = publish(&world, &with_gone).await.expect_err("one is gone");
    let fault = Fault::from_status(&refused);
    assert_eq!(fault.reason(), "UNKNOWN_PRODUCT");
    assert_eq!(fault.items()[0]["product"], gone.as_str());
    let twice = [ids[0].clone(), ids[0].clone()];
    for (field, wrong) in [
        ("products[1]", &twice[..]),
        ("products[0]", &["x".to_owned()]),
        ("products", &[]),
    ] {
        let refused = publish(&world, wrong).await.expect_err(field);
        assert_eq!(Fault::from_status(&refused).items()[0]["field"], field);
    }
    assert_eq!(world.announced().await.len(), 2);

    // One of them somebody has put on sale already.
    world
        .put(
            &world
                .show(&world.staff, &ids[1])
                .await
                .expect("it is there"),
            "published",
            0,
        )
        .await
        .expect("on sale");
    for _ in 0..2 {
        publish(&world, &ids).await.expect("on sale");
    }
    for id in &ids {
        let shown = world.show(&world.buyer, id).await.expect("on sale");
        assert_eq!((shown.status.as_str(), shown.version), ("published", 2));
    }
    assert_eq!(world.announced().await.len(), 4);
}

#[tokio::test]
async fn only_admins_make_and_publish_batches() {
    let world = World::new().await;
    let wish = batch(&[&["SHIRT-M"]]);
    for asker in [&world.buyer, &world.staff] {
        let refused = world
            .client()
            .create_products(asker.ask(wish.clone()))
            .await;
        assert_eq!(
            refused.expect_err("not an admin").code(),
            Code::PermissionDenied
        );
        let request = pb::PublishProductsRequest::default();
        let refused = world.client().publish_products(asker.ask(request)).await;
        assert_eq!(
            refused.expect_err("not an admin").code(),
            Code::PermissionDenied
        );
    }
    assert_eq!(world.rows().await, (0, 0));
}

/// T-shirts in these skus, a product each.
fn batch(skus: &[&[&str]]) -> pb::CreateProductsRequest {
    let products = skus.iter().map(|skus| {
        let shirt = shirt(skus);
        pb::NewProduct {
            name: shirt.name,
            currency: shirt.currency,
            category: shirt.category,
            variants: shirt.variants,
            ..pb::NewProduct::default()
        }
    });
    pb::CreateProductsRequest {
        request_id: RequestId::generate().to_string(),
        fingerprint: vec![1].into(),
        products: products.collect(),
    }
}

async fn make(
    world: &World,
    wish: &pb::CreateProductsRequest,
) -> Result<Vec<pb::MadeProduct>, Status> {
    let request = world.admin.ask(wish.clone());
    let answer = world.client().create_products(request).await?;
    Ok(answer.into_inner().products)
}

async fn publish(world: &World, ids: &[String]) -> Result<(), Status> {
    let request = world.admin.ask(pb::PublishProductsRequest {
        product_ids: ids.to_vec(),
    });
    world.client().publish_products(request).await.map(drop)
}
