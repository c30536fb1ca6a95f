//! What staff do, as the audit log has it.

use holdfast_proto::orders::v1::{self as pb, OrderStatus};
use serde_json::{Value, json};

use crate::{
    vouchers::ten_percent,
    world::{World, new_key, reason},
};

fn actions(lines: &[Value]) -> Vec<&str> {
    let actions = lines.iter().map(|line| line["action"].as_str());
    actions.map(|action| action.expect("an action")).collect()
}

#[tokio::test]
async fn what_staff_do_to_an_order_is_written_down_once_and_names_both() {
    let (world, order) = World::where_bought("ok").await;
    let (ship, deliver, refund) = (new_key(), new_key(), new_key());
    for _ in 0..2 {
        world.ship(&ship, &order.id, "4812").await.expect("shipped");
        world.deliver(&deliver, &order.id).await.expect("delivered");
        let back = world.refund_again(&refund, &order.id, &[], Some(300));
        back.await.expect("refunded");
    }
    let lines = world.audited().await;
    let wanted = ["order_shipped", "order_delivered", "order_refunded"];
    assert_eq!(actions(&lines), wanted);
    for line in &lines {
        assert_eq!(
            (&line["service"], &line["order_id"]),
            (&json!("orders"), &json!(order.id))
        );
        assert_eq!(line["actor"], world.staff.user.to_string());
        assert_eq!(line["subject"], world.customer.user.to_string());
    }
    assert_eq!(
        lines[2]["amount"],
        json!({"amount": 300, "currency": "JPY"})
    );
}

#[tokio::test]
async fn a_refused_move_and_what_customers_do_themselves_are_not_written_down() {
    let (world, order) = World::where_bought("ok").await;
    let early = world.deliver(&new_key(), &order.id).await;
    assert_eq!(
        reason(&early.expect_err("it has not left")),
        "INVALID_TRANSITION"
    );
    world.cancel(&order.id).await.expect("cancelled");
    assert_eq!(world.audited().await, [] as [Value; 0]);

    let other = world.bought(&[("MUG", 1)], "ok", OrderStatus::Confirmed);
    let other = other.await;
    let key = new_key();
    for _ in 0..2 {
        let cancelled = world.cancel_as(&world.staff, &key, &other, "fraud").await;
        cancelled.expect("cancelled");
    }
    let lines = world.audited().await;
    assert_eq!(actions(&lines), ["order_cancelled"]);
    assert_eq!(lines[0]["actor"], world.staff.user.to_string());
}

#[tokio::test]
async fn vouchers_are_written_down_when_they_are_made_changed_and_taken_back() {
    let world = World::new().await;
    let wish = ten_percent("SUMMER10");
    let made = world.make_voucher(wish.clone()).await.expect("made");
    world.make_voucher(wish).await.expect("the same");
    let change = pb::ChangeVoucherRequest {
        code: "SUMMER10".to_owned(),
        expected_version: made.version,
        uses: Some(150),
        ..pb::ChangeVoucherRequest::default()
    };
    let changed = world.change_voucher(change.clone()).await.expect("changed");
    let nothing = pb::ChangeVoucherRequest {
        expected_version: changed.version,
        ..change
    };
    world.change_voucher(nothing).await.expect("as it was");
    world.ledger.stock_of("voucher:TAKEN", 3);
    let refused = world.make_voucher(ten_percent("TAKEN")).await;
    assert_eq!(reason(&refused.expect_err("kept")), "POOL_EXISTS");

    let lines = world.audited().await;
    let told: Vec<_> = lines
        .iter()
        .map(|line| (&line["action"], &line["code"], &line["subject"]))
        .collect();
    let line = |action: &str, code: &str| (json!(action), json!(code), Value::Null);
    let wanted = [
        line("voucher_created", "SUMMER10"),
        line("voucher_changed", "SUMMER10"),
        line("voucher_created", "TAKEN"),
        line("voucher_taken_back", "TAKEN"),
    ];
    let wanted: Vec<_> = wanted.iter().map(|(a, c, s)| (a, c, s)).collect();
    assert_eq!(told, wanted);
}
