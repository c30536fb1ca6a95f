//! Paying with points: beside money, instead of it, and what comes back when a purchase does.

use std::time::Duration;

use anyhow::Context as _;
use futures::future::try_join_all;
use holdfast_e2e::{Answer, Door, wait};
use holdfast_kernel::{Id, RequestId, id};
use serde_json::{Value, json};

use crate::shop::{
    PRICE, SETTLE_MAX_SECS, Shop, Stock, basket, buy, id_of, payment_of, payment_settles, settles,
};

in_every_topology! {
    points_are_paid_beside_money_and_come_back_as_they_were_paid,
    what_is_paid_wholly_in_points_charges_no_card,
    more_points_than_there_are_or_than_it_costs_buy_nothing,
    a_purchase_that_comes_to_nothing_leaves_the_points_as_they_were,
    the_last_points_pay_for_one_of_many_purchases_at_once,
    a_purchase_with_points_is_repeated_under_its_key_and_with_other_points_refused,
}

/// What two units earn, a point for each whole 100 JPY.
const EARNED: i64 = 2 * PRICE / 100;

async fn points_are_paid_beside_money_and_come_back_as_they_were_paid(
    shop: &Shop,
) -> anyhow::Result<()> {
    let (sku, buyer) = (shop.sell(4).await?, shop.buyer().await?);
    earns(shop, &buyer).await?;
    let order = buy_using(&buyer, &sku, 2, 20, "sandbox_ok")
        .await?
        .is(201)?;
    let figures =
        ["subtotal", "shipping", "tax", "total"].map(|name| order[name]["amount"].clone());
    assert_eq!(figures, [2 * PRICE, 0, 0, 2 * PRICE - 20].map(Value::from));
    assert_eq!(order["points_used"], 20, "{order}");
    let paid = buyer
        .read(&format!("/v1/payments/{}", payment_of(&order)?))
        .await?;
    assert_eq!(paid["captured"]["amount"], 2 * PRICE - 20, "{paid}");
    // Points earn none.
    let earned = (2 * PRICE - 20) / 100;
    assert_eq!(balance(&buyer).await?, EARNED - 20 + earned);

    let id = id_of(&order)?;
    let refunds = format!("/v1/orders/{id}/refunds");
    let one = json!({"items": [{"sku": sku, "quantity": 1}], "reason": "one too many"});
    shop.staff.post(&refunds, &one).await?.is(201)?;
    let part = settles(&buyer, &id, "partially_refunded").await?;
    assert_eq!(
        (&part["points_refunded"], &part["refunded"]["amount"]),
        (&json!(10), &json!(PRICE - 10))
    );
    assert_eq!(balance(&buyer).await?, EARNED - 10 + (PRICE - 10) / 100);

    let rest = json!({"reason": "the other one as well"});
    shop.staff.post(&refunds, &rest).await?.is(201)?;
    let all = settles(&buyer, &id, "refunded").await?;
    assert_eq!(
        (&all["points_refunded"], &all["refunded"]["amount"]),
        (&json!(20), &json!(2 * PRICE - 20))
    );
    assert_eq!(balance(&buyer).await?, EARNED);
    let moves = buyer.read("/v1/points").await?;
    let moves = moves["data"].as_array().context("a list")?;
    let of_order = moves.iter().filter(|entry| entry["purchase_id"] == id);
    let sum: i64 = of_order.filter_map(|entry| entry["points"].as_i64()).sum();
    assert_eq!(sum, 0, "{moves:?}");
    Ok(())
}

async fn what_is_paid_wholly_in_points_charges_no_card(shop: &Shop) -> anyhow::Result<()> {
    let (sku, buyer) = (shop.sell_at(2, EARNED).await?, shop.buyer().await?);
    earns(shop, &buyer).await?;
    // A card that would be declined is not asked.
    let order = buy_using(&buyer, &sku, 1, EARNED, "sandbox_declined").await?;
    let order = order.is(201)?;
    assert_eq!(order["status"], "confirmed", "{order}");
    assert_eq!(order["total"]["amount"], 0, "{order}");
    assert_eq!(balance(&buyer).await?, 0);
    let mut book = shop.sandbox.book("sandbox").await?;
    let payment: Id<id::Payment> = payment_of(&order)?.parse()?;
    let charges: i64 = sqlx::query_scalar("SELECT count(*) FROM charge WHERE payment_id = $1")
        .bind(payment.uuid())
        .fetch_one(&mut book)
        .await?;
    assert_eq!(charges, 0, "the provider has not heard of it");

    let id = id_of(&order)?;
    buyer
        .post(&format!("/v1/orders/{id}/cancel"), &json!({}))
        .await?
        .is(200)?;
    let back = settles(&buyer, &id, "refunded").await?;
    assert_eq!(back["points_refunded"], EARNED, "{back}");
    assert_eq!(balance(&buyer).await?, EARNED);
    shop.stock_becomes(&sku, Stock::of(2, 0)).await
}

async fn more_points_than_there_are_or_than_it_costs_buy_nothing(
    shop: &Shop,
) -> anyhow::Result<()> {
    let (sku, buyer) = (shop.sell(2).await?, shop.buyer().await?);
    earns(shop, &buyer).await?;
    let short = buy_using(&buyer, &sku, 1, EARNED + 1, "sandbox_ok").await?;
    let short = short.is_refused(409, "insufficient_points")?;
    assert_eq!(
        (&short["asked"], &short["available"]),
        (&json!(EARNED + 1), &json!(EARNED))
    );
    for points in [PRICE + 1, -1, i64::MAX] {
        let refused = buy_using(&buyer, &sku, 1, points, "sandbox_ok").await?;
        let refused = refused.is_refused(422, "invalid_argument")?;
        assert_eq!(refused["errors"][0]["field"], "points", "{refused}");
    }
    assert_eq!(balance(&buyer).await?, EARNED);
    let orders = buyer.read("/v1/orders").await?;
    assert_eq!(orders["data"].as_array().map(Vec::len), Some(1), "{orders}");
    shop.stock_becomes(&sku, Stock::of(2, 0)).await
}

async fn a_purchase_that_comes_to_nothing_leaves_the_points_as_they_were(
    shop: &Shop,
) -> anyhow::Result<()> {
    let (sku, buyer) = (shop.sell(1).await?, shop.buyer().await?);
    earns(shop, &buyer).await?;
    for card in ["sandbox_declined", "sandbox_capture_fails"] {
        let refused = buy_using(&buyer, &sku, 1, EARNED, card).await?;
        refused.is_refused(402, "payment_declined")?;
        balance_becomes(&buyer, EARNED).await.context(card)?;
    }
    let waits = buy_using(&buyer, &sku, 1, EARNED, "sandbox_3ds")
        .await?
        .is(201)?;
    assert_eq!(
        balance(&buyer).await?,
        0,
        "set aside while the customer acts"
    );
    let failed = format!("/v1/payments/{}/sandbox/complete", payment_of(&waits)?);
    buyer
        .post(&failed, &json!({"result": "failed"}))
        .await?
        .is(200)?;
    settles(&buyer, &id_of(&waits)?, "payment_failed").await?;
    balance_becomes(&buyer, EARNED).await.context("failed")?;

    let waits = buy_using(&buyer, &sku, 1, EARNED, "sandbox_3ds")
        .await?
        .is(201)?;
    let id = id_of(&waits)?;
    buyer
        .post(&format!("/v1/orders/{id}/cancel"), &json!({}))
        .await?
        .is(200)?;
    settles(&buyer, &id, "cancelled").await?;
    payment_settles(&buyer, &payment_of(&waits)?, "voided").await?;
    balance_becomes(&buyer, EARNED).await.context("cancelled")?;

    let unknown = buy_using(&buyer, &sku, 1, EARNED, "sandbox_timeout")
        .await?
        .is(201)?;
    settles(&buyer, &id_of(&unknown)?, "confirmed").await?;
    balance_becomes(&buyer, (PRICE - EARNED) / 100)
        .await
        .context("found out later")?;
    shop.stock_becomes(&sku, Stock::of(1, 1)).await
}

async fn the_last_points_pay_for_one_of_many_purchases_at_once(shop: &Shop) -> anyhow::Result<()> {
    const PURCHASES: i64 = 8;
    let (sku, buyer) = (shop.sell(PURCHASES).await?, shop.buyer().await?);
    earns(shop, &buyer).await?;
    let asked = (0..PURCHASES).map(|_| buy_using(&buyer, &sku, 1, EARNED, "sandbox_ok"));
    let answers = try_join_all(asked).await?;
    let mut bought = 0;
    for answer in &answers {
        match answer.status {
            201 => bought += 1,
            // The order stood already when the points were gone.
            402 => {
                let refused = answer.is_refused(402, "payment_declined")?;
                let short = &refused["errors"][0];
                assert_eq!(
                    (&short["code"], &short["asked"]),
                    (&json!("insufficient_points"), &json!(EARNED))
                );
                // Nothing, or what the purchase that got them has earned by then.
                let available = short["available"].as_i64().context("a figure")?;
                assert!(available < EARNED, "{refused}");
            }
            _ => drop(answer.is_refused(409, "insufficient_points")?),
        }
    }
    assert_eq!(bought, 1, "{answers:?}");
    balance_becomes(&buyer, (PRICE - EARNED) / 100).await?;
    shop.stock_becomes(&sku, Stock::of(PURCHASES, 1)).await
}

async fn a_purchase_with_points_is_repeated_under_its_key_and_with_other_points_refused(
    shop: &Shop,
) -> anyhow::Result<()> {
    let (sku, buyer) = (shop.sell(2).await?, shop.buyer().await?);
    earns(shop, &buyer).await?;
    let key = RequestId::generate().to_string();
    let mut body = basket(&[(&sku, 1)], "sandbox_ok");
    body["points"] = json!(EARNED);
    let first = buyer.post_keyed("/v1/orders", &key, &body).await?;
    first.is(201)?;
    let again = buyer.post_keyed("/v1/orders", &key, &body).await?;
    assert_eq!((first.status, &first.bytes), (again.status, &again.bytes));
    body["points"] = json!(EARNED - 1);
    let other = buyer.post_keyed("/v1/orders", &key, &body).await?;
    other.is_refused(422, "idempotency_key_reused")?;
    assert_eq!(balance(&buyer).await?, (PRICE - EARNED) / 100);
    shop.stock_becomes(&sku, Stock::of(2, 1)).await
}

/// Has somebody who owns no points yet earn [`EARNED`].
async fn earns(shop: &Shop, buyer: &Door) -> anyhow::Result<()> {
    let sku = shop.sell(2).await?;
    buy(buyer, &sku, 2, "sandbox_ok").await?.is(201)?;
    assert_eq!(balance(buyer).await?, EARNED);
    Ok(())
}

/// Buys one SKU, and pays so much of it in points.
pub(crate) async fn buy_using(
    buyer: &Door,
    sku: &str,
    quantity: i64,
    points: i64,
    card: &str,
) -> anyhow::Result<Answer> {
    let mut body = basket(&[(sku, quantity)], card);
    body["points"] = json!(points);
    buyer.post("/v1/orders", &body).await
}

/// What somebody has in points of JPY.
pub(crate) async fn balance(buyer: &Door) -> anyhow::Result<i64> {
    let shown = buyer.read("/v1/points").await?;
    let balances = shown["balances"].as_array().context("a list")?;
    Ok(balances
        .first()
        .map_or(0, |balance| balance["points"].as_i64().unwrap_or_default()))
}

/// Waits until somebody has so much in points.
pub(crate) async fn balance_becomes(buyer: &Door, points: i64) -> anyhow::Result<()> {
    let mut last = 0;
    let what = format!("a balance of {points} points");
    let became = wait::until(&what, Duration::from_secs(SETTLE_MAX_SECS), async || {
        last = balance(buyer).await?;
        Ok((last == points).then_some(()))
    });
    became.await.with_context(|| format!("it is {last}"))
}
