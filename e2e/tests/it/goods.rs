//! Goods after they were bought: on their way, in the lists, and what the purchase earned.

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::shop::{PRICE, Shop, buy, id_of, settles};

in_every_topology! {
    an_order_is_shipped_and_delivered_and_leaves_only_once,
    staff_find_an_order_by_its_sku_its_status_and_its_day,
    a_purchase_earns_points_and_a_refund_takes_its_share_back,
}

async fn an_order_is_shipped_and_delivered_and_leaves_only_once(shop: &Shop) -> anyhow::Result<()> {
    let sku = shop.sell(2).await?;
    let buyer = shop.buyer().await?;
    let order = buy(&buyer, &sku, 2, "sandbox_ok").await?.is(201)?;
    let order = format!("/v1/orders/{}", id_of(&order)?);
    let (shipping, deliver) = (format!("{order}/ship"), format!("{order}/deliver"));
    let parcel = json!({"carrier": "Yamato", "tracking": "4812"});
    buyer
        .post(&shipping, &parcel)
        .await?
        .is_refused(403, "forbidden")?;
    let early = shop.staff.post(&deliver, &json!({})).await?;
    let early = early.is_refused(409, "invalid_transition")?;
    assert_eq!(
        (&early["from"], &early["to"]),
        (&json!("confirmed"), &json!("delivered"))
    );

    for _ in 0..2 {
        let shipped = shop.staff.post(&shipping, &parcel).await?.is(200)?;
        assert_eq!(shipped["status"], "shipped", "{shipped}");
    }
    let late = buyer.post(&format!("{order}/cancel"), &json!({})).await?;
    late.is_refused(409, "invalid_transition")?;
    shop.staff.post(&deliver, &json!({})).await?.is(200)?;
    let read = buyer.read(&order).await?;
    assert_eq!(read["status"], "delivered", "{read}");
    assert_eq!(read["delivery"]["tracking"], "4812", "{read}");
    let late = shop.staff.post(&shipping, &parcel).await?;
    late.is_refused(409, "invalid_transition")?;

    let events = buyer.read(&format!("{order}/events")).await?;
    let events = events["data"].as_array().context("a history")?;
    let told: Vec<&Value> = events.iter().map(|event| &event["type"]).collect();
    assert_eq!(told[3..], ["order.shipped", "order.delivered"]);
    Ok(())
}

async fn staff_find_an_order_by_its_sku_its_status_and_its_day(shop: &Shop) -> anyhow::Result<()> {
    let sku = shop.sell(2).await?;
    let buyer = shop.buyer().await?;
    let order = buy(&buyer, &sku, 1, "sandbox_ok").await?.is(201)?;
    let made_at = order["created_at"].as_str().context("a moment")?;
    let everybodys = format!("/v1/orders?user_id=*&sku={sku}");
    for (more, found) in [
        (String::new(), true),
        (format!("&status=confirmed&from={made_at}"), true),
        (format!("&to={made_at}"), false),
        ("&status=refunded".to_owned(), false),
    ] {
        let path = format!("{everybodys}{more}");
        let list = shop.staff.read(&path).await?;
        let wanted = if found { json!([order]) } else { json!([]) };
        assert_eq!(list["data"], wanted, "{path}");
    }
    let stranger = shop.buyer().await?;
    let none = stranger.read(&format!("/v1/orders?sku={sku}")).await?;
    assert_eq!(none["data"], json!([]));
    Ok(())
}

async fn a_purchase_earns_points_and_a_refund_takes_its_share_back(
    shop: &Shop,
) -> anyhow::Result<()> {
    let sku = shop.sell(2).await?;
    let buyer = shop.buyer().await?;
    let order = buy(&buyer, &sku, 2, "sandbox_ok").await?.is(201)?;
    let id = id_of(&order)?;
    let earned = 2 * PRICE / 100;
    let points = buyer.read("/v1/points").await?;
    assert_eq!(
        points["balances"],
        json!([{"currency": "JPY", "points": earned}])
    );

    let one = json!({"items": [{"sku": sku, "quantity": 1}], "reason": "one too many"});
    let refunds = format!("/v1/orders/{id}/refunds");
    shop.staff.post(&refunds, &one).await?.is(201)?;
    settles(&buyer, &id, "partially_refunded").await?;
    let kept = PRICE / 100;
    let points = buyer.read("/v1/points").await?;
    assert_eq!(
        points["balances"],
        json!([{"currency": "JPY", "points": kept}])
    );
    let moves = points["data"].as_array().context("a list")?;
    let told: Vec<_> = (moves.iter())
        .map(|entry| (&entry["type"], &entry["points"], &entry["purchase_id"]))
        .collect();
    let (back, id) = (kept - earned, json!(id));
    assert_eq!(
        told,
        [
            (&json!("taken_back"), &json!(back), &id),
            (&json!("earned"), &json!(earned), &id),
        ]
    );
    Ok(())
}
