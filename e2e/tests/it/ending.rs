//! Processes that end, in order and otherwise. Each scenario has an installation of its own.

use holdfast_e2e::{Sandbox, Topology};
use serde_json::json;

use crate::shop::{Shop, Stock, basket, buy, id_of, settles};

const SERVICES: [&str; 8] = [
    "gateway",
    "orders",
    "catalog",
    "auth",
    "payments",
    "inventory",
    "users",
    "webhooks",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_told_to_ends_with_zero_and_comes_back_with_everything()
-> anyhow::Result<()> {
    let mut shop = Shop::open(Topology::AllInOne, &[]).await?;
    let (buyer, sku) = (shop.buyer().await?, shop.sell(3).await?);
    let order = buy(&buyer, &sku, 1, "sandbox_ok").await?.is(201)?;

    let status = shop.sandbox_mut().terminate("gateway").await?;
    assert_eq!(status.code(), Some(0), "{}", shop.sandbox.logs());
    assert!(buyer.get("/v1/orders").await.is_err(), "nobody is there");
    shop.sandbox.audit_is_clean()?;

    shop.sandbox_mut().revive("gateway", &[]).await?;
    shop.watched(async |shop: &Shop| {
        assert_eq!(settles(&buyer, &id_of(&order)?, "confirmed").await?, order);
        assert_eq!(shop.stock(&sku).await?, Stock::of(3, 1));
        buy(&buyer, &sku, 1, "sandbox_ok").await?.is(201)?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_that_are_down_are_problems_to_try_again_after() -> anyhow::Result<()> {
    let mut shop = Shop::open(Topology::EachAlone, &[]).await?;
    let (buyer, sku) = (shop.buyer().await?, shop.sell(3).await?);
    let sandbox = shop.sandbox_mut();

    for (service, path) in [
        ("users", "/v1/users/me"),
        ("catalog", "/v1/products"),
        ("orders", "/v1/orders"),
        ("payments", "/v1/payment-methods"),
    ] {
        sandbox.kill(service)?;
        let answer = buyer.get(path).await?;
        let problem = answer.is_refused(503, "unavailable")?;
        assert!(
            answer.header("retry-after").is_some(),
            "{service}: {problem}"
        );
        sandbox.revive(service, &[]).await?;
        buyer.read(path).await?;
    }

    let nobody = sandbox.door()?;
    sandbox.kill("auth")?;
    let login = json!({"email": "a@holdfast.example", "password": "correct horse"});
    let answer = nobody.post("/v1/users/login", &login).await?;
    answer.is_refused(503, "unavailable")?;
    // Who is logged in stays so.
    buyer.read("/v1/orders").await?;
    sandbox.revive("auth", &[]).await?;

    // What a purchase needs is not there: the same key finds its way once it is.
    let body = basket(&[(&sku, 1)], "sandbox_ok");
    for service in ["inventory", "catalog", "orders"] {
        sandbox.kill(service)?;
        let key = format!("while-{service}-is-down");
        let answer = buyer.post_keyed("/v1/orders", &key, &body).await?;
        answer.is_refused(503, "unavailable")?;
        sandbox.revive(service, &[]).await?;
        let order = buyer.post_keyed("/v1/orders", &key, &body).await?.is(201)?;
        settles(&buyer, &id_of(&order)?, "confirmed").await?;
    }

    shop.watched(async |shop: &Shop| {
        assert_eq!(shop.stock(&sku).await?, Stock::of(3, 3));
        Ok(())
    })
    .await?;
    all_end_in_order(shop.sandbox_mut()).await
}

async fn all_end_in_order(sandbox: &mut Sandbox) -> anyhow::Result<()> {
    for service in SERVICES {
        let status = sandbox.terminate(service).await?;
        assert_eq!(status.code(), Some(0), "{service}: {}", sandbox.logs());
    }
    Ok(())
}
