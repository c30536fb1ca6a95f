//! Vouchers, for those who run the shop.

use holdfast_platform::identity::Role;
use holdfast_proto::orders::v1 as orders;
use http::Method;
use serde_json::json;

use super::{AT, AT_TEXT, yen};
use crate::world::World;

#[tokio::test]
async fn a_voucher_reads_as_promised() {
    use orders::create_voucher_request as new;
    let world = World::new().await;
    let staff = world.somebody(Role::Staff);
    world.orders.create_voucher.otherwise(|_| {
        Ok(orders::CreateVoucherResponse {
            voucher: Some(summer10()),
        })
    });
    let body = json!({
        "code": "SUMMER10", "percent_off": 10, "least_subtotal": {"amount": 1000, "currency": "JPY"},
        "valid_until": AT_TEXT, "uses": 100,
    });
    let told = (world.post("/v1/vouchers").by(&staff).key("k"))
        .send(&body)
        .await;
    assert_eq!(
        (
            told.status.as_u16(),
            told.header("etag"),
            told.header("location")
        ),
        (201, Some("\"7\""), Some("/v1/vouchers/SUMMER10"))
    );
    assert_eq!(
        told.json(),
        json!({
            "code": "SUMMER10", "percent_off": 10, "amount_off": null, "currency": "JPY",
            "least_subtotal": {"amount": 1000, "currency": "JPY"}, "valid_from": null, "valid_until": AT_TEXT,
            "uses": 100, "used": 2, "held": 1, "created_at": AT_TEXT,
        })
    );
    let asked = world.orders.create_voucher.asked().remove(0);
    assert_eq!(asked.off, Some(new::Off::PercentOff(10)));
    assert_eq!((asked.valid_from, asked.valid_until), (None, AT));

    for (field, spoilt) in [
        ("percent_off", json!({"code": "SUMMER10", "uses": 1})),
        (
            "amount_off",
            json!({"code": "SUMMER10", "uses": 1, "percent_off": 1, "amount_off": {"amount": 1, "currency": "JPY"}}),
        ),
        (
            "valid_from",
            json!({"code": "SUMMER10", "uses": 1, "percent_off": 1, "valid_from": "soon"}),
        ),
    ] {
        let told = (world.post("/v1/vouchers").by(&staff).key(field))
            .send(&spoilt)
            .await;
        assert_eq!(told.status, 422, "{field}");
        assert_eq!(told.json()["errors"][0]["field"], field);
    }
}

#[tokio::test]
async fn a_voucher_changes_under_its_etag() {
    let world = World::new().await;
    let staff = world.somebody(Role::Staff);
    let changed = orders::Voucher {
        off: Some(orders::voucher::Off::AmountOff(yen(500))),
        version: 8,
        ..summer10()
    };
    let response = orders::ChangeVoucherResponse {
        voucher: Some(changed),
    };
    world.orders.change_voucher.then(Ok(response));
    let path = "/v1/vouchers/SUMMER10";
    let told = (world.ask(Method::PATCH, path).by(&staff))
        .send(&json!({"uses": 200}))
        .await;
    assert_eq!(told.status, 428);
    let told = (world.ask(Method::PATCH, path).by(&staff))
        .with("if-match", "\"7\"")
        .send(&json!({"uses": 200}))
        .await;
    assert_eq!(
        (told.status.as_u16(), told.header("etag")),
        (200, Some("\"8\""))
    );
    assert_eq!(told.json()["amount_off"]["amount"], 500);
    let asked = world.orders.change_voucher.asked().remove(0);
    assert_eq!(
        (
            asked.code.as_str(),
            asked.expected_version,
            asked.uses,
            asked.valid_until
        ),
        ("SUMMER10", 7, Some(200), None)
    );
}

fn summer10() -> orders::Voucher {
    orders::Voucher {
        code: "SUMMER10".to_owned(),
        off: Some(orders::voucher::Off::PercentOff(10)),
        currency: "JPY".to_owned(),
        least_subtotal: Some(yen(1_000)),
        valid_until: AT,
        uses: 100,
        used: 2,
        held: 1,
        created_at: AT,
        version: 7,
        ..orders::Voucher::default()
    }
}
