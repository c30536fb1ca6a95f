//! What is kept in memory, seen from the public door: counted when it is used, gone when it is wrong.

use std::time::Duration;

use anyhow::Context as _;
use holdfast_e2e::{Door, wait};
use holdfast_kernel::RequestId;
use serde_json::json;

use crate::shop::{SETTLE_MAX_SECS, Shop, buy, id_of, settles};

in_every_topology! {
    what_is_looked_at_twice_is_read_once_and_a_change_is_seen_at_once,
}

async fn what_is_looked_at_twice_is_read_once_and_a_change_is_seen_at_once(
    shop: &Shop,
) -> anyhow::Result<()> {
    let public = shop.sandbox.door()?;
    let word = RequestId::generate().uuid().simple().to_string();
    let product = json!({
        "name": format!("A lamp {word}"),
        "currency": "JPY",
        "variants": [{"sku": word.to_uppercase(), "price": {"amount": 1250, "currency": "JPY"}, "stock": 5}],
    });
    let made = shop.admin.post("/v1/products", &product).await?.is(201)?;
    let id = made["id"].as_str().context("an id")?;
    let (list, one) = (
        format!("/v1/products?q={word}"),
        format!("/v1/products/{id}"),
    );
    let pool = format!("/v1/inventory/{}", word.to_uppercase());
    used(shop, &public, &list, "catalog.lists").await?;
    used(shop, &public, &one, "catalog.products").await?;
    used(shop, &public, &pool, "inventory.available").await?;

    // Whoever changed it sees it at once, where they look and in every list.
    let tag = shop.admin.get(&one).await?;
    let tag = tag.header("etag").context("an ETag")?.to_owned();
    let price = json!({"price": {"amount": 990, "currency": "JPY"}});
    let changed = shop.admin.patch_if(&one, &tag, &price).await?.is(200)?;
    assert_eq!(public.read(&one).await?, changed);
    let listed = public.read(&list).await?;
    assert_eq!(listed["data"][0]["price"]["amount"], 990, "{listed}");

    let buyer = shop.buyer().await?;
    let order = buy(&buyer, &word.to_uppercase(), 2, "sandbox_ok").await?;
    let order = id_of(&order.is(201)?)?;
    settles(&buyer, &order, "confirmed").await?;
    assert_eq!(public.read(&pool).await?["available"], 3);
    let path = format!("/v1/orders/{order}");
    used(shop, &buyer, &path, "orders.details").await?;
    let cancel = format!("{path}/cancel");
    buyer
        .post(&cancel, &json!({"reason": "too dark"}))
        .await?
        .is(200)?;
    let seen = buyer.read(&path).await?;
    assert_ne!(seen["status"], "confirmed", "{seen}");

    used(shop, &buyer, "/v1/users/me", "users.profiles").await?;
    Ok(())
}

/// Looks until a look was answered from memory; looks until then make it be kept, once the process hears its own news.
async fn used(shop: &Shop, door: &Door, path: &str, cache: &str) -> anyhow::Result<()> {
    let before = hits(shop, cache).await?;
    let what = format!("{path} is answered from {cache}");
    wait::until(&what, Duration::from_secs(SETTLE_MAX_SECS), async || {
        door.read(path).await?;
        Ok((hits(shop, cache).await? > before).then_some(()))
    })
    .await
}

async fn hits(shop: &Shop, cache: &str) -> anyhow::Result<u64> {
    let wanted = format!("holdfast_cache_reads_total{{cache=\"{cache}\",outcome=\"hit\"}} ");
    let told = shop.sandbox.metrics().await?;
    let counted = told.lines().filter_map(|line| line.strip_prefix(&wanted));
    counted.map(|value| Ok(value.parse::<u64>()?)).sum()
}
