//! What each of the sandbox's tokens does.

use holdfast_proto::payments::v1::PaymentStatus;

use crate::world::{HOLD_SECS, World, card, inline, konbini, new_purchase, reason};

#[tokio::test]
async fn sandbox_ok_is_authorized_then_captured_and_each_is_announced_once() {
    let (world, purchase, payment) = World::where_authorized("sandbox_ok").await;
    assert_eq!(payment.status(), PaymentStatus::Authorized);
    assert_eq!(payment.purchase_id, purchase);
    assert_eq!(world.books().await, [(0, 0, 0)]);

    let payment = world.capture(&purchase).await.expect("ok");
    assert_eq!(payment.status(), PaymentStatus::Captured);
    assert_eq!(payment.captured.expect("set").amount, 1250);
    assert_eq!(world.books().await, [(1, 1250, 0)]);
    assert_eq!(world.announced().await, ["authorized v1", "captured v2"]);
}

#[tokio::test]
async fn sandbox_declined_is_an_answer_and_no_error_and_cannot_be_captured() {
    let world = World::new().await;
    let purchase = new_purchase();
    for _ in 0..2 {
        let payment = world
            .authorize(&purchase, "sandbox_declined")
            .await
            .expect("an answer");
        assert_eq!(payment.status(), PaymentStatus::Failed);
        assert_eq!(payment.failure, "card_declined");
    }
    let refused = world.capture(&purchase).await.expect_err("it failed");
    assert_eq!(reason(&refused), "INVALID_TRANSITION");
    assert_eq!(world.announced().await, ["failed v1"]);
}

#[tokio::test]
async fn sandbox_3ds_waits_for_the_customer_whose_proof_authorizes_it() {
    let (world, _, payment) = World::where_authorized("sandbox_3ds").await;
    assert_eq!(payment.status(), PaymentStatus::RequiresAction);
    let action = payment.next_action.expect("set");
    assert_eq!(action.r#type, "redirect");
    assert!(action.url.contains(&payment.id), "{}", action.url);

    for _ in 0..2 {
        let payment = world
            .complete_challenge(&payment.id, true)
            .await
            .expect("ok");
        assert_eq!(payment.status(), PaymentStatus::Authorized);
    }
    assert_eq!(
        world.announced().await,
        ["requires_action v1", "authorized v2"]
    );
}

#[tokio::test]
async fn a_failed_challenge_fails_the_payment_and_cannot_succeed_afterwards() {
    let (world, _, payment) = World::where_authorized("sandbox_3ds").await;
    let payment = world
        .complete_challenge(&payment.id, false)
        .await
        .expect("an answer");
    assert_eq!(payment.status(), PaymentStatus::Failed);
    assert_eq!(payment.failure, "challenge_failed");
    let refused = world
        .complete_challenge(&payment.id, true)
        .await
        .expect_err("over");
    assert_eq!(reason(&refused), "INVALID_TRANSITION");
}

#[tokio::test]
async fn sandbox_timeout_is_processing_and_found_captured_three_seconds_later() {
    let (world, purchase, _) = World::where_authorized("sandbox_timeout").await;
    let payment = world.capture(&purchase).await.expect("an answer");
    assert_eq!(payment.status(), PaymentStatus::Processing);

    world.live(2).await;
    let early = world.payment(&payment.id).await;
    assert_eq!(early.status(), PaymentStatus::Processing);
    world.live(1).await;
    let found = world.payment(&payment.id).await;
    assert_eq!(found.status(), PaymentStatus::Captured);
    assert_eq!(world.books().await, [(1, 1250, 0)]);
    assert_eq!(world.announced().await, ["authorized v1", "captured v2"]);
}

#[tokio::test]
async fn sandbox_late_ok_is_processing_until_five_seconds_after_the_hold_ended() {
    let (world, purchase, payment) = World::where_authorized("sandbox_late_ok").await;
    assert_eq!(payment.status(), PaymentStatus::Processing);

    world.pass(HOLD_SECS);
    world.live(4).await;
    let early = world.payment(&payment.id).await;
    assert_eq!(early.status(), PaymentStatus::Processing);
    world.live(1).await;
    let found = world.payment(&payment.id).await;
    assert_eq!(found.status(), PaymentStatus::Authorized);
    let captured = world.capture(&purchase).await.expect("ok");
    assert_eq!(captured.status(), PaymentStatus::Captured);
}

#[tokio::test]
async fn sandbox_capture_fails_is_authorized_and_fails_at_the_capture_each_time() {
    let (world, purchase, _) = World::where_authorized("sandbox_capture_fails").await;
    for _ in 0..2 {
        let payment = world.capture(&purchase).await.expect("an answer");
        assert_eq!(payment.status(), PaymentStatus::Failed);
        assert_eq!(payment.failure, "capture_failed");
    }
    assert_eq!(world.books().await, [(0, 0, 0)]);
    assert_eq!(world.announced().await, ["authorized v1", "failed v2"]);
}

#[tokio::test]
async fn a_konbini_slip_is_paid_once_and_captured_at_once() {
    let world = World::new().await;
    let purchase = new_purchase();
    let slip = world
        .authorize_as(&purchase, konbini("lawson"), 1250, 1)
        .await
        .expect("ok");
    assert_eq!(slip.status(), PaymentStatus::RequiresAction);
    let action = slip.next_action.expect("set");
    assert_eq!(action.r#type, "konbini_slip");
    assert_eq!(action.store, "lawson");
    assert_eq!(action.confirmation_number.len(), 10);
    assert!(action.expires_at.is_some());

    for _ in 0..2 {
        let paid = world.pay_slip(&slip.id).await.expect("ok");
        assert_eq!(paid.status(), PaymentStatus::Captured);
    }
    let captured = world.capture(&purchase).await.expect("it is already");
    assert_eq!(captured.status(), PaymentStatus::Captured);
    assert_eq!(world.books().await, [(1, 1250, 0)]);
    assert_eq!(
        world.announced().await,
        ["requires_action v1", "captured v2"]
    );
}

#[tokio::test]
async fn unknown_tokens_stores_and_kinds_are_refused_and_leave_no_payment() {
    let world = World::new().await;
    for method in [
        card("sandbox_nope"),
        card(""),
        konbini("harrods"),
        inline("cheque", "sandbox_ok"),
        inline("card", "4242 4242 4242 4242"),
    ] {
        let purchase = new_purchase();
        let refused = world
            .authorize_as(&purchase, method.clone(), 1250, 1)
            .await
            .expect_err("no such method");
        let reason = reason(&refused);
        assert!(
            ["PAYMENT_METHOD_INVALID", "INVALID_ARGUMENT"].contains(&reason.as_str()),
            "{method:?}: {reason}"
        );
        assert!(!refused.message().contains("4242"), "{refused}");
        assert_eq!(world.void(&purchase).await.expect("nothing there"), None);
    }
    assert_eq!(world.books().await, []);
}
