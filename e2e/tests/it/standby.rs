//! Two processes of the ledger's service: one writes, the other stands by. Each scenario has an installation of its own.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use holdfast_e2e::{Door, Topology, server::Server, wait};
use holdfast_kernel::RequestId;

use crate::shop::{Shop, Stock, basket, buy, id_of, settles};

/// How soon somebody else has to write, whatever became of the writer.
const TAKEOVER_MAX: Duration = Duration::from_secs(5);
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purchases_through_a_process_that_stands_by_outlive_a_writer_that_dies_or_hangs()
-> anyhow::Result<()> {
    let mut shop = Shop::open(Topology::EachAlone, &[]).await?;
    let (buyer, sku) = (shop.buyer().await?, shop.sell(4).await?);

    let mut writer = write_elsewhere(&mut shop, "inventory-2").await?;
    let order = buy(&buyer, &sku, 1, "sandbox_ok").await?.is(201)?;
    settles(&buyer, &id_of(&order)?, "confirmed").await?;
    writer.kill()?;
    let died = Instant::now();
    sells_again(&shop, &buyer, &sku, died).await?;

    let writer = write_elsewhere(&mut shop, "inventory-3").await?;
    writer.pause()?;
    let stopped = Instant::now();
    sells_again(&shop, &buyer, &sku, stopped).await?;
    // It takes up what it was asked while it could not answer, and finds that it may not write any more.
    writer.resume()?;
    let order = buy(&buyer, &sku, 1, "sandbox_ok").await?.is(201)?;
    settles(&buyer, &id_of(&order)?, "confirmed").await?;

    shop.watched(async |shop: &Shop| shop.stock_becomes(&sku, Stock::of(4, 4)).await)
        .await
}

/// Has another process write the ledger, while that which everybody asks stands by.
async fn write_elsewhere(shop: &mut Shop, name: &str) -> anyhow::Result<Server> {
    let sandbox = shop.sandbox_mut();
    let writer = sandbox.start_beside("inventory", name).await?;
    let address = writer.ready.grpc.clone().context("it serves others")?;
    sandbox.terminate("inventory").await?;
    let mut book = sandbox.book("inventory").await?;
    wait::until("the other process writes", PATIENCE, async || {
        let url: Option<String> = sqlx::query_scalar("SELECT url FROM fence")
            .fetch_one(&mut book)
            .await?;
        Ok((url.as_ref() == Some(&address)).then_some(()))
    })
    .await?;
    sandbox.revive("inventory", &[]).await?;
    Ok(writer)
}

/// One more is bought, by a customer who asks until he is answered, within the time that a takeover may take.
#[expect(clippy::print_stdout, reason = "how long it took is worth a look")]
async fn sells_again(shop: &Shop, buyer: &Door, sku: &str, since: Instant) -> anyhow::Result<()> {
    let ready = wait::until("the ledger answers", PATIENCE, async || {
        let path = format!("/v1/inventory/{sku}");
        Ok((shop.staff.get(&path).await?.status == 200).then(|| since.elapsed()))
    });
    let ready = ready.await?;
    let key = RequestId::generate().to_string();
    let body = basket(&[(sku, 1)], "sandbox_ok");
    let order = wait::until("a purchase is answered", PATIENCE, async || {
        let answer = buyer.post_keyed("/v1/orders", &key, &body).await?;
        Ok((answer.status != 503).then_some(answer))
    });
    let order = order.await?.is(201)?;
    println!(
        "written again after {ready:?}, sold after {:?}",
        since.elapsed()
    );
    assert!(ready < TAKEOVER_MAX, "{ready:?}");
    settles(buyer, &id_of(&order)?, "confirmed").await.map(drop)
}
