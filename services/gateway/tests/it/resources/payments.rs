//! Payments, saved methods, points.

use holdfast_proto::{page::v1::PageInfo, payments::v1 as payments};
use serde_json::json;

use super::{AT, AT_TEXT, yen};
use crate::world::World;

#[tokio::test]
async fn payments_tell_what_the_customer_must_do() {
    let world = World::new().await;
    let slip = payments::NextAction {
        r#type: "konbini_slip".to_owned(),
        confirmation_number: "12345".to_owned(),
        store: "lawson".to_owned(),
        expires_at: AT,
        url: String::new(),
    };
    let waiting = payments::PaymentStatus::RequiresAction;
    world
        .payments
        .get_payment
        .then(Ok(payments::GetPaymentResponse {
            payment: Some(payment(waiting, Some(slip))),
        }));
    let told = world
        .get("/v1/payments/pay_1")
        .by(&world.buyer)
        .send_nothing()
        .await;
    assert_eq!(
        told.json(),
        json!({"id": "pay_1", "purchase_id": "ord_1", "user_id": "usr_1", "status": "requires_action",
            "amount": {"amount": 1250, "currency": "JPY"}, "captured": {"amount": 0, "currency": "JPY"},
            "refunded": {"amount": 0, "currency": "JPY"},
            "next_action": {"type": "konbini_slip", "confirmation_number": "12345", "store": "lawson", "expires_at": AT_TEXT},
            "created_at": AT_TEXT})
    );
}

#[tokio::test]
async fn the_sandbox_lets_a_customer_pay_and_answer_a_challenge() {
    let world = World::new().await;
    let paid = payments::PaymentStatus::Captured;
    world
        .payments
        .pay_sandbox_slip
        .then(Ok(payments::PaySandboxSlipResponse {
            payment: Some(payment(paid, None)),
        }));
    let told = world
        .post("/v1/payments/pay_1/sandbox/pay")
        .by(&world.buyer)
        .send_nothing()
        .await;
    assert_eq!(told.json()["status"], "captured");
    world
        .payments
        .complete_sandbox_challenge
        .otherwise(move |_| {
            Ok(payments::CompleteSandboxChallengeResponse {
                payment: Some(payment(paid, None)),
            })
        });
    for result in ["ok", "failed"] {
        let path = "/v1/payments/pay_1/sandbox/complete";
        let told = world
            .post(path)
            .by(&world.buyer)
            .send(&json!({"result": result}))
            .await;
        assert_eq!(told.status, 200);
    }
    let asked = world.payments.complete_sandbox_challenge.asked();
    assert_eq!((asked[0].succeeded, asked[1].succeeded), (true, false));
}

#[tokio::test]
async fn payment_methods_are_saved_and_listed() {
    let world = World::new().await;
    let saved = payments::PaymentMethod {
        id: "pm_1".to_owned(),
        user_id: "usr_1".to_owned(),
        r#type: "card".to_owned(),
        label: "sandbox_ok".to_owned(),
        created_at: AT,
    };
    let methods = vec![saved.clone()];
    world
        .payments
        .save_payment_method
        .then(Ok(payments::SavePaymentMethodResponse {
            method: Some(saved),
        }));
    world
        .payments
        .list_payment_methods
        .then(Ok(payments::ListPaymentMethodsResponse {
            methods,
            page: None,
        }));
    let told = world
        .post("/v1/payment-methods")
        .by(&world.buyer)
        .key("k")
        .send(&json!({"type": "card", "token": "sandbox_ok"}))
        .await;
    let shown = json!({"id": "pm_1", "type": "card", "label": "sandbox_ok", "created_at": AT_TEXT});
    assert_eq!((told.status.as_u16(), told.json()), (201, shown.clone()));
    let told = world
        .get("/v1/payment-methods")
        .by(&world.buyer)
        .send_nothing()
        .await;
    assert_eq!(told.json()["data"], json!([shown]));
}

#[tokio::test]
async fn points_are_shown_with_how_they_came_and_went() {
    let world = World::new().await;
    let balances = vec![payments::PointBalance {
        currency: "JPY".to_owned(),
        points: 7,
    }];
    let entry = payments::PointEntry {
        r#type: "taken_back".to_owned(),
        payment_id: "pay_1".to_owned(),
        purchase_id: "ord_1".to_owned(),
        currency: "JPY".to_owned(),
        points: -5,
        created_at: AT,
    };
    let page = Some(PageInfo {
        next_token: "more".to_owned(),
    });
    world
        .payments
        .list_points
        .then(Ok(payments::ListPointsResponse {
            balances,
            entries: vec![entry],
            page,
        }));
    let told = world
        .get("/v1/points?limit=1")
        .by(&world.buyer)
        .send_nothing()
        .await;
    assert_eq!(
        told.json(),
        json!({
            "balances": [{"currency": "JPY", "points": 7}],
            "data": [{"type": "taken_back", "payment_id": "pay_1", "purchase_id": "ord_1", "currency": "JPY",
                      "points": -5, "created_at": AT_TEXT}],
            "next_cursor": "more", "has_more": true,
        })
    );
    let asked = world.payments.list_points.asked().remove(0);
    assert_eq!(asked.page.expect("set").size, 1);
}

fn payment(
    status: payments::PaymentStatus,
    next_action: Option<payments::NextAction>,
) -> payments::Payment {
    payments::Payment {
        id: "pay_1".to_owned(),
        purchase_id: "ord_1".to_owned(),
        user_id: "usr_1".to_owned(),
        status: status.into(),
        amount: Some(yen(1250)),
        captured: Some(yen(0)),
        refunded: Some(yen(0)),
        next_action,
        failure: String::new(),
        created_at: AT,
        version: 2,
        points: 0,
        points_back: 0,
        points_earned: 0,
    }
}
