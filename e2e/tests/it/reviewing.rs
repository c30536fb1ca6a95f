//! What buyers say of what they bought, and what everybody sees of it.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use holdfast_e2e::{Door, wait};
use serde_json::{Value, json};

use crate::shop::{SETTLE_MAX_SECS, Shop, buy, id_of, settles};

in_every_topology! {
    buyers_review_what_was_delivered_once_and_its_product_shows_what_they_think,
}

async fn buyers_review_what_was_delivered_once_and_its_product_shows_what_they_think(
    shop: &Shop,
) -> anyhow::Result<()> {
    let sku = shop.sell(2).await?;
    let found = shop.admin.read(&format!("/v1/products?q={sku}")).await?;
    let product = found["data"][0]["id"].as_str().context("it is found")?;
    let product = Product {
        path: format!("/v1/products/{product}"),
        search: format!("/v1/products?q={sku}"),
        nobody: shop.sandbox.door()?,
    };
    product
        .shows(json!({"average": null, "count": 0, "histogram": [0, 0, 0, 0, 0]}))
        .await?;

    let stranger = shop.buyer().await?;
    let refused = product.review(&stranger, 1).await?;
    refused.is_refused(403, "not_a_buyer")?;
    let first = shop.buyer().await?;
    let order = receives(shop, &first, &sku).await?;
    let review = written(&product, &first, 5).await?;
    let second = product.review(&first, 1).await?;
    let second = second.is_refused(409, "already_reviewed")?;
    assert_eq!(second["review_id"], review["id"], "{second}");
    product
        .shows(json!({"average": 5.0, "count": 1, "histogram": [0, 0, 0, 0, 1]}))
        .await?;

    let other = shop.buyer().await?;
    receives(shop, &other, &sku).await?;
    let unkind = written(&product, &other, 2).await?;
    product
        .shows(json!({"average": 3.5, "count": 2, "histogram": [0, 1, 0, 0, 1]}))
        .await?;

    let moderate = format!("/v1/reviews/{}/moderate", id_in(&unkind)?);
    let removal = json!({"decision": "remove", "reason": "an insult"});
    let refused = first.post(&moderate, &removal).await?;
    refused.is_refused(403, "forbidden")?;
    let removed = shop.staff.post(&moderate, &removal).await?.is(200)?;
    assert_eq!(removed["status"], "removed", "{removed}");
    product
        .shows(json!({"average": 5.0, "count": 1, "histogram": [0, 0, 0, 0, 1]}))
        .await?;
    let list = product
        .nobody
        .read(&format!("{}/reviews", product.path))
        .await?;
    let seen: Vec<&Value> = (list["data"].as_array().into_iter().flatten())
        .map(|review| &review["id"])
        .collect();
    assert_eq!(seen, [&review["id"]], "{list}");
    // Money given back takes no word back.
    let all = json!({"reason": "too small"});
    let refunds = format!("/v1/orders/{order}/refunds");
    shop.staff.post(&refunds, &all).await?.is(201)?;
    settles(&first, &order, "refunded").await?;
    product
        .shows(json!({"average": 5.0, "count": 1, "histogram": [0, 0, 0, 0, 1]}))
        .await
}

/// A product as everybody sees it.
struct Product {
    path: String,
    search: String,
    nobody: Door,
}

impl Product {
    async fn review(&self, author: &Door, stars: i64) -> anyhow::Result<holdfast_e2e::Answer> {
        let opinion = json!({"rating": stars, "title": "Well", "text": "It is what it is."});
        author
            .post(&format!("{}/reviews", self.path), &opinion)
            .await
    }

    /// Waits until both the product and the list that it is in show this rating, and says how long that took.
    #[expect(clippy::print_stdout, reason = "the requirement gives it a second")]
    async fn shows(&self, rating: Value) -> anyhow::Result<()> {
        let asked = Instant::now();
        let what = format!("the product and its list show {rating}");
        let limit = Duration::from_secs(SETTLE_MAX_SECS);
        wait::until(&what, limit, async || {
            let detail = self.nobody.read(&self.path).await?["rating"].clone();
            let list = self.nobody.read(&self.search).await?["data"][0]["rating"].clone();
            Ok((detail == rating && list == rating).then_some(()))
        })
        .await?;
        println!("{rating} was shown {:.0?} after it was so", asked.elapsed());
        Ok(())
    }
}

/// Buys one and gets it delivered; gives the order.
async fn receives(shop: &Shop, buyer: &Door, sku: &str) -> anyhow::Result<String> {
    let order = id_of(&buy(buyer, sku, 1, "sandbox_ok").await?.is(201)?)?;
    settles(buyer, &order, "confirmed").await?;
    for (step, body) in [
        ("ship", json!({"carrier": "Yamato"})),
        ("deliver", json!({})),
    ] {
        let path = format!("/v1/orders/{order}/{step}");
        shop.staff.post(&path, &body).await?.is(200)?;
    }
    Ok(order)
}

/// Writes a review as soon as the news of the delivery has come.
async fn written(product: &Product, author: &Door, stars: i64) -> anyhow::Result<Value> {
    let limit = Duration::from_secs(SETTLE_MAX_SECS);
    let answer = wait::until("who got it delivered may review it", limit, async || {
        let answer = product.review(author, stars).await?;
        Ok((answer.status != 403).then_some(answer))
    });
    answer.await?.is(201)
}

fn id_in(review: &Value) -> anyhow::Result<&str> {
    review["id"]
        .as_str()
        .with_context(|| format!("no id in {review}"))
}
