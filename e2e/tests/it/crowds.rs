//! Many people, few units.

use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::{StreamExt as _, TryStreamExt as _, future::try_join_all, stream};
use holdfast_e2e::{Answer, Door, Role, Topology, wait};
use holdfast_kernel::RequestId;

use crate::shop::{Shop, Stock, basket, in_shop};

in_every_topology! {
    the_last_unit_goes_to_exactly_one_of_two_buyers,
    twenty_units_go_to_exactly_twenty_of_two_hundred_purchases,
}

/// Accounts are made by password in one topology, which is slow on purpose: each buys several times.
const PURCHASES_PER_BUYER: usize = 10;
/// How long one of many may have to wait.
const CROWD_MAX_SECS: u64 = 60;
/// All who want the last unit, each with a wish of their own.
const CROWD_PEOPLE: usize = 10_000;
/// They share accounts, which says nothing to the ledger: a refused wish leaves nothing behind.
const CROWD_ACCOUNTS: usize = 100;
/// So many of them are being answered at any moment; the client's machine has to serve as well.
const CROWD_IN_FLIGHT_CALLS: usize = 256;

/// One in ten thousand, by the public door. In one topology: the crowd is the same and each takes long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ten_thousand_buyers_at_once_exactly_one_gets_the_last_unit() -> anyhow::Result<()> {
    in_shop(Topology::AllInOne, one_in_ten_thousand).await
}

async fn one_in_ten_thousand(shop: &Shop) -> anyhow::Result<()> {
    let sku = shop.sell(1).await?;
    let buyers = shop.sandbox.people(Role::User, CROWD_ACCOUNTS).await?;
    let started = Instant::now();
    let asking = (0..CROWD_PEOPLE).map(|number| {
        let (buyer, sku) = (&buyers[number % buyers.len()], &sku);
        async move {
            let asked = Instant::now();
            let answer = insist(buyer, sku).await?;
            anyhow::Ok((answer, asked.elapsed()))
        }
    });
    let answered: Vec<(Answer, Duration)> = stream::iter(asking)
        .buffer_unordered(CROWD_IN_FLIGHT_CALLS)
        .try_collect()
        .await?;
    let took = started.elapsed();
    let (answers, waits): (Vec<Answer>, Vec<Duration>) = answered.into_iter().unzip();
    sold_to(&answers, 1)?;
    print_waits(&answers, &waits, took);
    shop.stock_becomes(&sku, Stock::of(1, 1)).await?;
    let mut book = shop.sandbox.book("orders").await?;
    let orders: i64 = sqlx::query_scalar("SELECT count(*) FROM order_item WHERE sku = $1")
        .bind(&sku)
        .fetch_one(&mut book)
        .await?;
    ensure!(orders == 1, "{orders} orders of one unit");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the requirement asks for the figure")]
fn print_waits(answers: &[Answer], waits: &[Duration], took: Duration) {
    let refused = answers
        .iter()
        .zip(waits)
        .filter(|(answer, _)| answer.status == 409);
    let mut waits: Vec<Duration> = refused.map(|(_, wait)| *wait).collect();
    waits.sort_unstable();
    println!(
        "{} refusals in {took:.1?}, {CROWD_IN_FLIGHT_CALLS} at a time: p50 {:.0?}, p99 {:.0?}",
        waits.len(),
        waits[waits.len() / 2],
        waits[waits.len() * 99 / 100],
    );
}

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
        if answer.status != 503 {
            return Ok(Some(answer));
        }
        ensure!(answer.header("retry-after").is_some(), "{answer:?}");
        Ok(None)
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
