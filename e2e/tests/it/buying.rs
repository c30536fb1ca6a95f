//! One purchase, every way it can go.

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::shop::{PRICE, Shop, Stock, basket, buy, id_of, payment_of, payment_settles, settles};

in_every_topology! {
    a_purchase_is_confirmed_and_its_units_leave_the_stock,
    a_basket_with_one_short_line_is_refused_with_the_figures_and_leaves_nothing_behind,
    the_same_sku_twice_is_one_line,
    a_declined_card_gives_the_units_back,
    a_card_that_cannot_be_captured_gives_the_units_back,
    a_challenged_customer_who_proves_themselves_has_bought,
    a_challenged_customer_who_fails_has_not_bought,
    a_payment_of_unknown_outcome_is_found_captured,
    a_slip_is_paid_at_the_till,
    a_saved_card_buys,
    what_is_not_sold_cannot_be_bought,
    an_order_exists_for_its_buyer_only,
}

async fn a_purchase_is_confirmed_and_its_units_leave_the_stock(shop: &Shop) -> anyhow::Result<()> {
    let sku = shop.sell(5).await?;
    let buyer = shop.buyer().await?;
    let order = buy(&buyer, &sku, 2, "sandbox_ok").await?.is(201)?;
    assert_eq!(order["status"], "confirmed", "{order}");
    assert_eq!(
        order["total"],
        json!({"amount": 2 * PRICE, "currency": "JPY"})
    );
    assert_eq!(order["items"][0]["sku"], sku.as_str());
    assert_eq!(order["items"][0]["quantity"], 2);
    assert_eq!(order["payment"]["status"], "captured");
    assert_eq!(shop.stock(&sku).await?, Stock::of(5, 2));

    let id = id_of(&order)?;
    let read = buyer.read(&format!("/v1/orders/{id}")).await?;
    assert_eq!(read, order, "what was answered is what is read");
    let payment = buyer
        .read(&format!("/v1/payments/{}", payment_of(&order)?))
        .await?;
    assert_eq!(payment["captured"]["amount"], 2 * PRICE, "{payment}");
    assert_eq!(
        kinds(&buyer.read(&format!("/v1/orders/{id}/events")).await?)?,
        ["order.created", "order.paid", "order.confirmed"]
    );
    Ok(())
}

/// The kinds of an order's events, oldest first.
fn kinds(events: &Value) -> anyhow::Result<Vec<String>> {
    let events = events["data"]
        .as_array()
        .with_context(|| format!("no list in {events}"))?;
    let kind = |event: &Value| event["type"].as_str().map(str::to_owned);
    events
        .iter()
        .map(|event| kind(event).with_context(|| format!("no type in {event}")))
        .collect()
}

async fn a_basket_with_one_short_line_is_refused_with_the_figures_and_leaves_nothing_behind(
    shop: &Shop,
) -> anyhow::Result<()> {
    let (plenty, scarce) = (shop.sell(10).await?, shop.sell(3).await?);
    let buyer = shop.buyer().await?;
    let body = basket(&[(&plenty, 2), (&scarce, 4)], "sandbox_ok");
    let answer = buyer.post("/v1/orders", &body).await?;
    let problem = answer.is_refused(409, "out_of_stock")?;
    assert_eq!(
        problem["errors"],
        json!([{"sku": scarce, "requested": 4, "available": 3}]),
        "{problem}"
    );
    assert_eq!(shop.stock(&plenty).await?, Stock::of(10, 0));
    assert_eq!(shop.stock(&scarce).await?, Stock::of(3, 0));
    let orders = buyer.read("/v1/orders").await?;
    assert_eq!(
        orders["data"],
        json!([]),
        "an attempt without stock is no order"
    );
    Ok(())
}

async fn the_same_sku_twice_is_one_line(shop: &Shop) -> anyhow::Result<()> {
    let sku = shop.sell(3).await?;
    let buyer = shop.buyer().await?;
    let twice_two = basket(&[(&sku, 2), (&sku, 2)], "sandbox_ok");
    let refused = buyer.post("/v1/orders", &twice_two).await?;
    refused.is_refused(409, "out_of_stock")?;
    let order = buyer
        .post("/v1/orders", &basket(&[(&sku, 2), (&sku, 1)], "sandbox_ok"))
        .await?
        .is(201)?;
    assert_eq!(order["items"].as_array().map(Vec::len), Some(1), "{order}");
    assert_eq!(order["items"][0]["quantity"], 3);
    assert_eq!(shop.stock(&sku).await?, Stock::of(3, 3));
    Ok(())
}

async fn a_declined_card_gives_the_units_back(shop: &Shop) -> anyhow::Result<()> {
    unpaid(shop, "sandbox_declined").await
}

async fn a_card_that_cannot_be_captured_gives_the_units_back(shop: &Shop) -> anyhow::Result<()> {
    unpaid(shop, "sandbox_capture_fails").await
}

async fn unpaid(shop: &Shop, card: &str) -> anyhow::Result<()> {
    let sku = shop.sell(1).await?;
    let buyer = shop.buyer().await?;
    let answer = buy(&buyer, &sku, 1, card).await?;
    let problem = answer.is_refused(402, "payment_declined")?;
    let id = problem["order_id"]
        .as_str()
        .with_context(|| format!("no order in {problem}"))?;
    settles(&buyer, id, "payment_failed").await?;
    shop.stock_becomes(&sku, Stock::of(1, 0)).await?;
    // The unit is really free.
    buy(&buyer, &sku, 1, "sandbox_ok").await?.is(201)?;
    Ok(())
}

async fn a_challenged_customer_who_proves_themselves_has_bought(shop: &Shop) -> anyhow::Result<()> {
    let sku = shop.sell(2).await?;
    let buyer = shop.buyer().await?;
    let order = buy(&buyer, &sku, 1, "sandbox_3ds").await?.is(201)?;
    assert_eq!(order["status"], "awaiting_payment", "{order}");
    assert_eq!(
        order["payment"]["next_action"]["type"], "redirect",
        "{order}"
    );
    assert_eq!(
        shop.stock(&sku).await?.held,
        1,
        "held while the customer is away"
    );
    let complete = format!("/v1/payments/{}/sandbox/complete", payment_of(&order)?);
    buyer
        .post(&complete, &json!({"result": "ok"}))
        .await?
        .is(200)?;
    settles(&buyer, &id_of(&order)?, "confirmed").await?;
    assert_eq!(shop.stock(&sku).await?, Stock::of(2, 1));
    Ok(())
}

async fn a_challenged_customer_who_fails_has_not_bought(shop: &Shop) -> anyhow::Result<()> {
    let sku = shop.sell(2).await?;
    let buyer = shop.buyer().await?;
    let order = buy(&buyer, &sku, 1, "sandbox_3ds").await?.is(201)?;
    let complete = format!("/v1/payments/{}/sandbox/complete", payment_of(&order)?);
    buyer
        .post(&complete, &json!({"result": "failed"}))
        .await?
        .is(200)?;
    settles(&buyer, &id_of(&order)?, "payment_failed").await?;
    shop.stock_becomes(&sku, Stock::of(2, 0)).await
}

async fn a_payment_of_unknown_outcome_is_found_captured(shop: &Shop) -> anyhow::Result<()> {
    let sku = shop.sell(2).await?;
    let buyer = shop.buyer().await?;
    let order = buy(&buyer, &sku, 1, "sandbox_timeout").await?.is(201)?;
    assert_eq!(order["status"], "awaiting_payment", "{order}");
    assert_eq!(order["payment"]["status"], "processing", "{order}");
    settles(&buyer, &id_of(&order)?, "confirmed").await?;
    payment_settles(&buyer, &payment_of(&order)?, "captured").await?;
    assert_eq!(shop.stock(&sku).await?, Stock::of(2, 1));
    Ok(())
}

async fn a_slip_is_paid_at_the_till(shop: &Shop) -> anyhow::Result<()> {
    let sku = shop.sell(2).await?;
    let buyer = shop.buyer().await?;
    let mut body = basket(&[(&sku, 1)], "");
    body["payment_method"] = json!({"type": "konbini", "store": "lawson"});
    let order = buyer.post("/v1/orders", &body).await?.is(201)?;
    assert_eq!(order["status"], "awaiting_payment", "{order}");
    let slip = &order["payment"]["next_action"];
    assert_eq!(slip["type"], "konbini_slip", "{order}");
    assert_eq!(slip["store"], "lawson", "{order}");
    let pay = format!("/v1/payments/{}/sandbox/pay", payment_of(&order)?);
    buyer.post(&pay, &json!({})).await?.is(200)?;
    settles(&buyer, &id_of(&order)?, "confirmed").await?;
    assert_eq!(shop.stock(&sku).await?, Stock::of(2, 1));
    Ok(())
}

async fn a_saved_card_buys(shop: &Shop) -> anyhow::Result<()> {
    let sku = shop.sell(2).await?;
    let (buyer, other) = (shop.buyer().await?, shop.buyer().await?);
    let card = json!({"type": "card", "token": "sandbox_ok"});
    let saved = buyer.post("/v1/payment-methods", &card).await?.is(201)?;
    let mut body = basket(&[(&sku, 1)], "");
    body["payment_method"] = saved["id"].clone();
    let order = buyer.post("/v1/orders", &body).await?.is(201)?;
    assert_eq!(order["status"], "confirmed", "{order}");
    let theirs = other.post("/v1/orders", &body).await?;
    theirs.is_refused(422, "payment_method_invalid")?;
    assert_eq!(shop.stock(&sku).await?, Stock::of(2, 1));
    Ok(())
}

async fn what_is_not_sold_cannot_be_bought(shop: &Shop) -> anyhow::Result<()> {
    let sku = shop.sell(2).await?;
    let buyer = shop.buyer().await?;
    let unknown = buy(&buyer, "NO-SUCH-THING", 1, "sandbox_ok").await?;
    unknown.is_refused(422, "unknown_sku")?;
    let card = buy(&buyer, &sku, 1, "sandbox_unheard_of").await?;
    card.is_refused(422, "payment_method_invalid")?;
    let number = buy(&buyer, &sku, 1, "4111111111111111").await?;
    number.is_refused(422, "invalid_argument")?;
    for quantity in [0, -1] {
        let refused = buy(&buyer, &sku, quantity, "sandbox_ok").await?;
        assert_eq!(refused.status, 422, "{quantity} units: {refused:?}");
    }
    assert_eq!(shop.stock(&sku).await?, Stock::of(2, 0));
    Ok(())
}

async fn an_order_exists_for_its_buyer_only(shop: &Shop) -> anyhow::Result<()> {
    let sku = shop.sell(2).await?;
    let (buyer, other) = (shop.buyer().await?, shop.buyer().await?);
    let order = buy(&buyer, &sku, 1, "sandbox_ok").await?.is(201)?;
    let path = format!("/v1/orders/{}", id_of(&order)?);
    assert_eq!(other.get(&path).await?.status, 404);
    assert_eq!(other.get(&format!("{path}/events")).await?.status, 404);
    let cancel = other.post(&format!("{path}/cancel"), &json!({})).await?;
    assert_eq!(cancel.status, 404);
    let payment = format!("/v1/payments/{}", payment_of(&order)?);
    assert_eq!(other.get(&payment).await?.status, 404);
    let nobody = shop.sandbox.door()?;
    nobody
        .get(&path)
        .await?
        .is_refused(401, "unauthenticated")?;
    let refund = buyer.post(&format!("{path}/refunds"), &json!({})).await?;
    refund.is_refused(403, "forbidden")?;
    assert_eq!(settles(&buyer, &id_of(&order)?, "confirmed").await?, order);
    Ok(())
}
