//! Money that arrives after the hold was over. These scenarios move the clocks, so each has an installation of its own.

use holdfast_e2e::Topology;

use crate::{
    points::{balance_becomes, buy_using},
    shop::{PRICE, Shop, Stock, buy, id_of, payment_of, payment_settles, settles},
};

/// Longer than a checkout holds its units, with all grace, and longer than the sandbox keeps late money to itself.
const LONG_SECS: i64 = 700;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_money_takes_free_units_and_gives_way_to_who_bought_them_all_in_one()
-> anyhow::Result<()> {
    late_money(Topology::AllInOne).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_money_takes_free_units_and_gives_way_to_who_bought_them_each_alone()
-> anyhow::Result<()> {
    late_money(Topology::EachAlone).await
}

async fn late_money(topology: Topology) -> anyhow::Result<()> {
    let shop = Shop::open(topology, &[]).await?;
    shop.watched(units_free_and_units_sold).await
}

async fn units_free_and_units_sold(shop: &Shop) -> anyhow::Result<()> {
    let (free, sold) = (shop.sell(1).await?, shop.sell(1).await?);
    let (buyer, rival) = (shop.buyer().await?, shop.buyer().await?);
    // Earns 25 points, which the two purchases share.
    let first = shop.sell(2).await?;
    buy(&buyer, &first, 2, "sandbox_ok").await?.is(201)?;
    let (of_free, of_sold) = tokio::join!(
        buy_using(&buyer, &free, 1, 10, "sandbox_late_ok"),
        buy_using(&buyer, &sold, 1, 15, "sandbox_late_ok"),
    );
    let (of_free, of_sold) = (of_free?.is(201)?, of_sold?.is(201)?);
    for order in [&of_free, &of_sold] {
        assert_eq!(order["status"], "awaiting_payment", "{order}");
        assert_eq!(order["payment"]["status"], "processing", "{order}");
    }
    buy(&rival, &sold, 1, "sandbox_ok")
        .await?
        .is_refused(409, "out_of_stock")?;

    // The holds' time is over, and nobody knows of the money yet.
    shop.sandbox.set_clock(0, LONG_SECS)?;
    for order in [&of_free, &of_sold] {
        settles(&buyer, &id_of(order)?, "expired").await?;
    }
    shop.stock_becomes(&free, Stock::of(1, 0)).await?;
    balance_becomes(&buyer, 0).await?;
    shop.sandbox.audit_is_clean()?;
    buy(&rival, &sold, 1, "sandbox_ok").await?.is(201)?;

    // Now it is known.
    shop.sandbox.set_clock(LONG_SECS, LONG_SECS)?;
    settles(&buyer, &id_of(&of_free)?, "confirmed").await?;
    payment_settles(&buyer, &payment_of(&of_free)?, "captured").await?;
    assert_eq!(shop.stock(&free).await?, Stock::of(1, 1));

    payment_settles(&buyer, &payment_of(&of_sold)?, "voided").await?;
    settles(&buyer, &id_of(&of_sold)?, "expired").await?;
    assert_eq!(
        shop.stock(&sold).await?,
        Stock::of(1, 1),
        "the rival keeps the unit"
    );
    // Those of the purchase that was confirmed are spent, and its money has earned others; those of the other are back.
    balance_becomes(&buyer, (PRICE - 10) / 100 + 15).await
}
