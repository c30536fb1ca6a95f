//! Cancelling and giving back.

use holdfast_e2e::Door;
use serde_json::{Value, json};

use crate::shop::{PRICE, Shop, Stock, buy, id_of, payment_of, payment_settles, settles};

in_every_topology! {
    cancelling_before_payment_frees_the_units_and_the_card,
    cancelling_what_was_paid_gives_all_money_and_units_back,
    cancelling_twice_is_cancelling_once,
    a_full_refund_brings_money_and_units_back,
    units_that_come_back_are_paid_back_and_can_be_bought_again,
    an_amount_alone_brings_no_units_back,
    no_more_is_given_back_than_was_paid,
}

async fn bought(shop: &Shop, units: i64) -> anyhow::Result<(Door, String, Value)> {
    let sku = shop.sell(units).await?;
    let buyer = shop.buyer().await?;
    let order = buy(&buyer, &sku, units, "sandbox_ok").await?.is(201)?;
    assert_eq!(order["status"], "confirmed", "{order}");
    Ok((buyer, sku, order))
}

async fn cancelling_before_payment_frees_the_units_and_the_card(shop: &Shop) -> anyhow::Result<()> {
    let sku = shop.sell(1).await?;
    let buyer = shop.buyer().await?;
    let order = buy(&buyer, &sku, 1, "sandbox_3ds").await?.is(201)?;
    let id = id_of(&order)?;
    let cancel = format!("/v1/orders/{id}/cancel");
    buyer
        .post(&cancel, &json!({"reason": "too slow"}))
        .await?
        .is(200)?;
    settles(&buyer, &id, "cancelled").await?;
    payment_settles(&buyer, &payment_of(&order)?, "voided").await?;
    shop.stock_becomes(&sku, Stock::of(1, 0)).await
}

async fn cancelling_what_was_paid_gives_all_money_and_units_back(
    shop: &Shop,
) -> anyhow::Result<()> {
    let (buyer, sku, order) = bought(shop, 2).await?;
    let id = id_of(&order)?;
    let cancel = format!("/v1/orders/{id}/cancel");
    buyer.post(&cancel, &json!({})).await?.is(200)?;
    settles(&buyer, &id, "refunded").await?;
    let payment = payment_settles(&buyer, &payment_of(&order)?, "refunded").await?;
    assert_eq!(payment["refunded"]["amount"], 2 * PRICE, "{payment}");
    shop.stock_becomes(&sku, Stock::of(2, 0)).await
}

async fn cancelling_twice_is_cancelling_once(shop: &Shop) -> anyhow::Result<()> {
    let (buyer, sku, order) = bought(shop, 2).await?;
    let id = id_of(&order)?;
    let cancel = format!("/v1/orders/{id}/cancel");
    let body = json!({});
    let (one, other) = tokio::join!(buyer.post(&cancel, &body), buyer.post(&cancel, &body));
    let statuses = [one?.status, other?.status];
    assert!(statuses.contains(&200), "{statuses:?}");
    assert!(
        statuses.iter().all(|status| [200, 409].contains(status)),
        "{statuses:?}"
    );
    settles(&buyer, &id, "refunded").await?;
    let payment = payment_settles(&buyer, &payment_of(&order)?, "refunded").await?;
    assert_eq!(payment["refunded"]["amount"], 2 * PRICE, "{payment}");
    shop.stock_becomes(&sku, Stock::of(2, 0)).await
}

async fn a_full_refund_brings_money_and_units_back(shop: &Shop) -> anyhow::Result<()> {
    let (buyer, sku, order) = bought(shop, 3).await?;
    let id = id_of(&order)?;
    let body = json!({"reason": "broken"});
    shop.staff
        .post(&format!("/v1/orders/{id}/refunds"), &body)
        .await?
        .is(201)?;
    let order = settles(&buyer, &id, "refunded").await?;
    assert_eq!(order["refunded"]["amount"], 3 * PRICE, "{order}");
    payment_settles(&buyer, &payment_of(&order)?, "refunded").await?;
    shop.stock_becomes(&sku, Stock::of(3, 0)).await
}

async fn units_that_come_back_are_paid_back_and_can_be_bought_again(
    shop: &Shop,
) -> anyhow::Result<()> {
    let (buyer, sku, order) = bought(shop, 3).await?;
    let id = id_of(&order)?;
    let body = json!({"items": [{"sku": sku, "quantity": 2}], "reason": "too many"});
    shop.staff
        .post(&format!("/v1/orders/{id}/refunds"), &body)
        .await?
        .is(201)?;
    let order = settles(&buyer, &id, "partially_refunded").await?;
    assert_eq!(order["refunded"]["amount"], 2 * PRICE, "{order}");
    assert_eq!(order["items"][0]["refunded_quantity"], 2, "{order}");
    shop.stock_becomes(&sku, Stock::of(3, 1)).await?;
    buy(&buyer, &sku, 2, "sandbox_ok").await?.is(201)?;
    buy(&buyer, &sku, 1, "sandbox_ok")
        .await?
        .is_refused(409, "out_of_stock")?;
    Ok(())
}

async fn an_amount_alone_brings_no_units_back(shop: &Shop) -> anyhow::Result<()> {
    let (buyer, sku, order) = bought(shop, 2).await?;
    let id = id_of(&order)?;
    let body = json!({"amount": {"amount": 100, "currency": "JPY"}, "reason": "scratched"});
    shop.staff
        .post(&format!("/v1/orders/{id}/refunds"), &body)
        .await?
        .is(201)?;
    let order = settles(&buyer, &id, "partially_refunded").await?;
    assert_eq!(order["refunded"]["amount"], 100, "{order}");
    let payment = payment_settles(&buyer, &payment_of(&order)?, "partially_refunded").await?;
    assert_eq!(payment["refunded"]["amount"], 100, "{payment}");
    assert_eq!(shop.stock(&sku).await?, Stock::of(2, 2));
    Ok(())
}

async fn no_more_is_given_back_than_was_paid(shop: &Shop) -> anyhow::Result<()> {
    let (buyer, sku, order) = bought(shop, 2).await?;
    let id = id_of(&order)?;
    let path = format!("/v1/orders/{id}/refunds");
    let amount =
        |amount: i64| json!({"amount": {"amount": amount, "currency": "JPY"}, "reason": "x"});
    let above = shop.staff.post(&path, &amount(2 * PRICE + 1)).await?;
    above.is_refused(409, "refund_exceeds_captured")?;
    let units = json!({"items": [{"sku": sku, "quantity": 3}], "reason": "x"});
    let too_many = shop.staff.post(&path, &units).await?;
    assert!((400..500).contains(&too_many.status), "{too_many:?}");
    // Two at once that fit alone and not together.
    let (one, other) = (amount(2 * PRICE - 1), amount(2 * PRICE - 1));
    let (one, other) = tokio::join!(shop.staff.post(&path, &one), shop.staff.post(&path, &other));
    let mut statuses = [one?.status, other?.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);
    let order = settles(&buyer, &id, "partially_refunded").await?;
    assert_eq!(order["refunded"]["amount"], 2 * PRICE - 1, "{order}");
    Ok(())
}
