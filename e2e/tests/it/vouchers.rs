//! Codes that take something off, whose uses run out.

use futures::future::try_join;
use holdfast_e2e::{Answer, Door};
use holdfast_kernel::RequestId;
use serde_json::{Value, json};

use crate::shop::{PRICE, Shop, Stock, basket, id_of, payment_of, settles};

in_every_topology! {
    a_code_takes_its_part_off_and_a_refund_does_not_give_the_use_back,
    the_last_use_goes_to_one_of_two_buyers_and_the_other_holds_nothing,
    a_declined_purchase_gives_the_use_back,
    staff_end_a_voucher_and_nobody_else_learns_of_it,
}

async fn a_code_takes_its_part_off_and_a_refund_does_not_give_the_use_back(
    shop: &Shop,
) -> anyhow::Result<()> {
    let (sku, buyer, code) = (
        shop.sell(2).await?,
        shop.buyer().await?,
        makes(shop, 5).await?,
    );
    let order = buy(&buyer, &sku, 2, &code, "sandbox_ok").await?.is(201)?;
    let (full, off) = (2 * PRICE, 2 * PRICE / 10);
    assert_eq!(order["voucher"], code, "{order}");
    let figures = ["discount", "subtotal", "total"].map(|name| order[name]["amount"].clone());
    assert_eq!(figures, [off, full - off, full - off].map(Value::from));
    let paid = format!("/v1/payments/{}", payment_of(&order)?);
    assert_eq!(buyer.read(&paid).await?["captured"]["amount"], full - off);

    let id = id_of(&order)?;
    let refunds = format!("/v1/orders/{id}/refunds");
    shop.staff
        .post(&refunds, &json!({"reason": "torn"}))
        .await?
        .is(201)?;
    let back = settles(&buyer, &id, "refunded").await?;
    assert_eq!(back["refunded"]["amount"], full - off);
    shop.stock_becomes(&sku, Stock::of(2, 0)).await?;
    let voucher = shop.staff.read(&format!("/v1/vouchers/{code}")).await?;
    assert_eq!((&voucher["used"], &voucher["held"]), (&json!(1), &json!(0)));
    Ok(())
}

async fn the_last_use_goes_to_one_of_two_buyers_and_the_other_holds_nothing(
    shop: &Shop,
) -> anyhow::Result<()> {
    let (sku, code) = (shop.sell(5).await?, makes(shop, 1).await?);
    let (one, two) = (shop.buyer().await?, shop.buyer().await?);
    let answers = try_join(
        buy(&one, &sku, 1, &code, "sandbox_ok"),
        buy(&two, &sku, 1, &code, "sandbox_ok"),
    )
    .await?;
    let (won, lost) = match answers {
        (one, two) if one.status == 201 => (one, two),
        (one, two) => (two, one),
    };
    won.is(201)?;
    let lost = lost.is_refused(409, "voucher_used_up")?;
    assert_eq!(lost["errors"][0]["field"], "voucher");
    shop.stock_becomes(&sku, Stock::of(5, 1)).await?;
    shop.stock_becomes(&format!("voucher:{code}"), Stock::of(1, 1))
        .await
}

async fn a_declined_purchase_gives_the_use_back(shop: &Shop) -> anyhow::Result<()> {
    let (sku, buyer, code) = (
        shop.sell(1).await?,
        shop.buyer().await?,
        makes(shop, 1).await?,
    );
    for card in ["sandbox_declined", "sandbox_capture_fails"] {
        let refused = buy(&buyer, &sku, 1, &code, card).await?;
        refused.is_refused(402, "payment_declined")?;
        shop.stock_becomes(&format!("voucher:{code}"), Stock::of(1, 0))
            .await?;
    }
    buy(&buyer, &sku, 1, &code, "sandbox_ok").await?.is(201)?;
    Ok(())
}

async fn staff_end_a_voucher_and_nobody_else_learns_of_it(shop: &Shop) -> anyhow::Result<()> {
    let (sku, buyer, code) = (
        shop.sell(1).await?,
        shop.buyer().await?,
        makes(shop, 1).await?,
    );
    let path = format!("/v1/vouchers/{code}");
    buyer.get(&path).await?.is_refused(403, "forbidden")?;
    let pool = format!("/v1/inventory/voucher:{code}");
    buyer.get(&pool).await?.is_refused(404, "unknown_pool")?;

    let seen = shop.staff.get(&path).await?;
    let tag = seen.header("etag").unwrap_or_default().to_owned();
    let end = json!({"valid_until": "2020-01-01T00:00:00Z"});
    let ended = shop.staff.patch_if(&path, &tag, &end).await?.is(200)?;
    assert_eq!(ended["valid_until"], "2020-01-01T00:00:00Z");
    let stale = shop.staff.patch_if(&path, &tag, &end).await?;
    stale.is_refused(412, "precondition_failed")?;

    let late = buy(&buyer, &sku, 1, &code, "sandbox_ok").await?;
    let late = late.is_refused(422, "voucher_not_valid")?;
    assert_eq!(late["errors"][0]["valid_until"], "2020-01-01T00:00:00Z");
    let none = buy(&buyer, &sku, 1, "NOBODYS", "sandbox_ok").await?;
    none.is_refused(422, "voucher_unknown")?;
    shop.stock_becomes(&sku, Stock::of(1, 0)).await
}

/// A code that takes 10 % off, so often.
async fn makes(shop: &Shop, uses: i64) -> anyhow::Result<String> {
    let code = RequestId::generate()
        .uuid()
        .simple()
        .to_string()
        .to_uppercase();
    let voucher = json!({"code": code, "percent_off": 10, "uses": uses});
    shop.staff.post("/v1/vouchers", &voucher).await?.is(201)?;
    Ok(code)
}

async fn buy(
    buyer: &Door,
    sku: &str,
    quantity: i64,
    code: &str,
    card: &str,
) -> anyhow::Result<Answer> {
    let mut body = basket(&[(sku, quantity)], card);
    body["voucher"] = json!(code);
    buyer.post("/v1/orders", &body).await
}
