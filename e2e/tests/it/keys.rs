//! The same wish twice.

use std::time::Duration;

use holdfast_e2e::wait;
use holdfast_kernel::RequestId;
use serde_json::json;

use crate::shop::{SETTLE_MAX_SECS, Shop, Stock, basket, id_of, settles};

in_every_topology! {
    a_repeated_purchase_is_answered_to_the_byte_and_bought_once,
    a_repeated_refusal_of_the_card_is_answered_to_the_byte,
    a_key_is_spent_on_one_body,
    a_key_whose_first_request_runs_is_not_worked_on_twice,
    a_purchase_without_a_key_is_refused,
    two_buyers_may_use_the_same_key,
}

fn key() -> String {
    RequestId::generate().to_string()
}

async fn a_repeated_purchase_is_answered_to_the_byte_and_bought_once(
    shop: &Shop,
) -> anyhow::Result<()> {
    let sku = shop.sell(5).await?;
    let buyer = shop.buyer().await?;
    let (key, body) = (key(), basket(&[(&sku, 2)], "sandbox_ok"));
    let first = buyer.post_keyed("/v1/orders", &key, &body).await?;
    first.is(201)?;
    let again = buyer.post_keyed("/v1/orders", &key, &body).await?;
    again.is(201)?;
    assert_eq!(first.bytes, again.bytes);
    assert_eq!(first.header("location"), again.header("location"));
    assert_eq!(shop.stock(&sku).await?, Stock::of(5, 2));
    let orders = buyer.read("/v1/orders").await?;
    assert_eq!(orders["data"].as_array().map(Vec::len), Some(1));
    Ok(())
}

async fn a_repeated_refusal_of_the_card_is_answered_to_the_byte(shop: &Shop) -> anyhow::Result<()> {
    let sku = shop.sell(5).await?;
    let buyer = shop.buyer().await?;
    let (key, body) = (key(), basket(&[(&sku, 2)], "sandbox_declined"));
    let first = buyer.post_keyed("/v1/orders", &key, &body).await?;
    first.is_refused(402, "payment_declined")?;
    let again = buyer.post_keyed("/v1/orders", &key, &body).await?;
    assert_eq!((first.status, first.bytes), (again.status, again.bytes));
    shop.stock_becomes(&sku, Stock::of(5, 0)).await
}

async fn a_key_is_spent_on_one_body(shop: &Shop) -> anyhow::Result<()> {
    let sku = shop.sell(5).await?;
    let buyer = shop.buyer().await?;
    let key = key();
    let two = basket(&[(&sku, 2)], "sandbox_ok");
    buyer.post_keyed("/v1/orders", &key, &two).await?.is(201)?;
    let three = basket(&[(&sku, 3)], "sandbox_ok");
    let other = buyer.post_keyed("/v1/orders", &key, &three).await?;
    other.is_refused(422, "idempotency_key_reused")?;
    assert_eq!(shop.stock(&sku).await?, Stock::of(5, 2));
    Ok(())
}

async fn a_key_whose_first_request_runs_is_not_worked_on_twice(shop: &Shop) -> anyhow::Result<()> {
    let sku = shop.sell(5).await?;
    let buyer = shop.buyer().await?;
    let key = key();
    // Its outcome is not known for a while, so the first request runs for as long as a purchase may take to answer.
    let body = basket(&[(&sku, 1)], "sandbox_timeout");
    let first = {
        let (buyer, key, body) = (buyer.clone(), key.clone(), body.clone());
        tokio::spawn(async move { buyer.post_keyed("/v1/orders", &key, &body).await })
    };
    let limit = Duration::from_secs(SETTLE_MAX_SECS);
    wait::until("the first request has taken its unit", limit, async || {
        Ok((shop.stock(&sku).await?.available == 4).then_some(()))
    })
    .await?;
    let second = buyer.post_keyed("/v1/orders", &key, &body).await?;
    let first = first.await??;
    let order = first.is(201)?;
    second.is_refused(409, "idempotency_in_progress")?;
    assert!(second.header("retry-after").is_some(), "{second:?}");
    let third = buyer.post_keyed("/v1/orders", &key, &body).await?;
    assert_eq!(third.bytes, first.bytes);
    settles(&buyer, &id_of(&order)?, "confirmed").await?;
    assert_eq!(shop.stock(&sku).await?, Stock::of(5, 1));
    Ok(())
}

async fn a_purchase_without_a_key_is_refused(shop: &Shop) -> anyhow::Result<()> {
    let sku = shop.sell(5).await?;
    let buyer = shop.buyer().await?;
    let body = basket(&[(&sku, 1)], "sandbox_ok");
    let refused = buyer.post_without_key("/v1/orders", &body).await?;
    refused.is_refused(400, "idempotency_key_required")?;
    let empty = buyer.post_keyed("/v1/orders", "", &body).await?;
    assert_eq!(empty.status, 400, "{empty:?}");
    let long = buyer
        .post_keyed("/v1/orders", &"k".repeat(256), &body)
        .await?;
    assert_eq!(long.status, 400, "{long:?}");
    assert_eq!(shop.stock(&sku).await?, Stock::of(5, 0));
    Ok(())
}

async fn two_buyers_may_use_the_same_key(shop: &Shop) -> anyhow::Result<()> {
    let sku = shop.sell(5).await?;
    let (one, other) = (shop.buyer().await?, shop.buyer().await?);
    let (key, body) = (key(), basket(&[(&sku, 1)], "sandbox_ok"));
    let first = one.post_keyed("/v1/orders", &key, &body).await?.is(201)?;
    let second = other.post_keyed("/v1/orders", &key, &body).await?.is(201)?;
    assert_ne!(first["id"], second["id"]);
    assert_ne!(first["user_id"], json!(null));
    assert_ne!(first["user_id"], second["user_id"]);
    assert_eq!(shop.stock(&sku).await?, Stock::of(5, 2));
    Ok(())
}
