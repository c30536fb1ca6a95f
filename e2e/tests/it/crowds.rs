//! Many people, few units.

use std::time::Duration;

use futures::future::try_join_all;
use holdfast_e2e::{Answer, Door, Role, wait};
use holdfast_kernel::RequestId;

use crate::shop::{Shop, Stock, basket};

in_every_topology! {
    the_last_unit_goes_to_exactly_one_of_two_buyers,
    twenty_units_go_to_exactly_twenty_of_two_hundred_purchases,
}

/// Accounts are made by password in one topology, which is slow on purpose: each buys several times.
const PURCHASES_PER_BUYER: usize = 10;
/// How long one of many may have to wait.
const CROWD_MAX_SECS: u64 = 60;

async fn the_last_unit_goes_to_exactly_one_of_two_buyers(shop: &Shop) -> anyhow::Result<()> {
    let sku = shop.sell(1).await?;
    let (one, other) = (shop.buyer().await?, shop.buyer().await?);
    let (one, other) = tokio::join!(insist(&one, &sku), insist(&other, &sku));
    sold_to(&[one?, other?], 1)?;
    shop.stock_becomes(&sku, Stock::of(1, 1)).await
}

async fn twenty_units_go_to_exactly_twenty_of_two_hundred_purchases(
    shop: &Shop,
) -> anyhow::Result<()> {
    let sku = shop.sell(20).await?;
    let buyers = shop
        .sandbox
        .people(Role::User, 200 / PURCHASES_PER_BUYER)
        .await?;
    let purchases = (0..200).map(|number| insist(&buyers[number % buyers.len()], &sku));
    let answers = try_join_all(purchases).await?;
    sold_to(&answers, 20)?;
    shop.stock_becomes(&sku, Stock::of(20, 20)).await
}

/// Buys one unit, and asks again under the same key where the shop has too much to do.
async fn insist(buyer: &Door, sku: &str) -> anyhow::Result<Answer> {
    let key = RequestId::generate().to_string();
    let body = basket(&[(sku, 1)], "sandbox_ok");
    let limit = Duration::from_secs(CROWD_MAX_SECS);
    wait::until("a purchase is answered", limit, async || {
        let answer = buyer.post_keyed("/v1/orders", &key, &body).await?;
        Ok((answer.status != 503).then_some(answer))
    })
    .await
}

/// So many bought, and all others were told that there is no more.
fn sold_to(answers: &[Answer], wanted: usize) -> anyhow::Result<()> {
    let (bought, refused): (Vec<&Answer>, Vec<&Answer>) =
        answers.iter().partition(|answer| answer.status == 201);
    for answer in &refused {
        answer.is_refused(409, "out_of_stock")?;
    }
    for answer in &bought {
        answer.is(201)?;
    }
    assert_eq!(bought.len(), wanted);
    Ok(())
}
