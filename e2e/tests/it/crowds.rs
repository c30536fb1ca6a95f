//! Many people, few units.

use futures::future::try_join_all;
use holdfast_e2e::{Answer, Role};

use crate::shop::{Shop, Stock, buy};

in_every_topology! {
    the_last_unit_goes_to_exactly_one_of_two_buyers,
    twenty_units_go_to_exactly_twenty_of_two_hundred_purchases,
}

/// Accounts are made by password in one topology, which is slow on purpose: each buys several times.
const PURCHASES_PER_BUYER: usize = 10;

async fn the_last_unit_goes_to_exactly_one_of_two_buyers(shop: &Shop) -> anyhow::Result<()> {
    let sku = shop.sell(1).await?;
    let (one, other) = (shop.buyer().await?, shop.buyer().await?);
    let (one, other) = tokio::join!(
        buy(&one, &sku, 1, "sandbox_ok"),
        buy(&other, &sku, 1, "sandbox_ok")
    );
    sold_to(&[one?, other?], 1)?;
    assert_eq!(shop.stock(&sku).await?, Stock::of(1, 1));
    Ok(())
}

async fn twenty_units_go_to_exactly_twenty_of_two_hundred_purchases(
    shop: &Shop,
) -> anyhow::Result<()> {
    let sku = shop.sell(20).await?;
    let buyers = shop
        .sandbox
        .people(Role::User, 200 / PURCHASES_PER_BUYER)
        .await?;
    let purchases =
        (0..200).map(|number| buy(&buyers[number % buyers.len()], &sku, 1, "sandbox_ok"));
    let answers = try_join_all(purchases).await?;
    sold_to(&answers, 20)?;
    assert_eq!(shop.stock(&sku).await?, Stock::of(20, 20));
    Ok(())
}

/// So many bought, and all others were told that there is no more.
fn sold_to(answers: &[Answer], wanted: usize) -> anyhow::Result<()> {
    let (bought, refused): (Vec<&Answer>, Vec<&Answer>) =
        answers.iter().partition(|answer| answer.status == 201);
    for answer in &refused {
        answer.is_refused(409, "out_of_stock")?;
    }
    for answer in &bought {
        assert_eq!(answer.is(201)?["status"], "confirmed");
    }
    assert_eq!(bought.len(), wanted);
    Ok(())
}
