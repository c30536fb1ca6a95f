//! Orders whose steps failed too often, and people who set them going again.

use holdfast_platform::identity::Role;
use holdfast_proto::{orders::v1::OrderStatus, payments::v1::PaymentStatus};
use tonic::Code;

use crate::{
    line::Break,
    world::{World, new_key, reason},
};

/// How often a step fails until its order is raised.
const FAILURES_MAX: usize = 50;

/// Clocks move far here; a worker keeps what it has.
async fn patient_world() -> World {
    World::with("lease_secs", 1_000_000).await
}

/// An order that was to be cancelled, whose units the ledger does not release so often.
async fn stuck(world: &World, failures: usize) -> String {
    let order = world
        .bought(&[("TSHIRT", 2)], "challenge", OrderStatus::AwaitingPayment)
        .await;
    let line = &world.ledger.line;
    line.breaks_often("release", Break::OnTheWay, failures);
    world.cancel(&order).await.expect("asked");
    world.becomes_in_time("needs_attention").await;
    order
}

#[tokio::test]
async fn a_stuck_order_is_resumed_by_staff_with_all_patience_again_and_its_history_names_them() {
    let mut world = patient_world().await;
    let again = 10;
    let order = stuck(&world, FAILURES_MAX + again).await;
    world.staff_log_in_again();
    let key = new_key();
    for _ in 0..2 {
        let resumed = world.resume(&key, &order, "the ledger is back");
        let resumed = resumed.await.expect("resumed");
        assert_eq!(resumed.status(), OrderStatus::NeedsAttention, "on its way");
    }
    world.becomes_in_time("cancelled").await;
    assert_eq!(world.ledger.line.count("release"), FAILURES_MAX + again + 1);
    // The same request is met after it has done its work.
    world.staff_log_in_again();
    let met = world.resume(&key, &order, "the ledger is back").await;
    assert_eq!(met.expect("met").status(), OrderStatus::Cancelled);

    let query =
        "SELECT description, user_id IS NOT NULL FROM order_event WHERE type = 'order.resumed'";
    let told: Vec<(String, bool)> = sqlx::query_as(query)
        .fetch_all(&world.db.app())
        .await
        .expect("a history");
    assert_eq!(told, [("the ledger is back".to_owned(), true)]);
    let [line] = &world.audited().await[..] else {
        panic!("one line for the audit log")
    };
    assert_eq!(line["action"], "order_resumed");
    assert_eq!(
        world.announced().await,
        [
            "created v1",
            "awaiting_payment v2",
            "needs_attention v3",
            "cancelled v4"
        ]
    );
    world.rests().await;
    world.is_sound().await;
}

#[tokio::test]
async fn only_staff_resume_and_only_what_is_stuck() {
    let mut world = patient_world().await;
    let order = stuck(&world, FAILURES_MAX).await;
    world.staff = world.realm.somebody(Role::User);
    let refused = world.resume(&new_key(), &order, "").await;
    assert_eq!(
        refused.expect_err("no staff").code(),
        Code::PermissionDenied
    );
    world.staff_log_in_again();
    let nothing = "ord_01jd3q8m5ze2vtx0c9k4h7n6wb";
    let refused = world.resume(&new_key(), nothing, "").await;
    assert_eq!(reason(&refused.expect_err("no order")), "UNKNOWN_ORDER");

    let key = new_key();
    let resumed = world.resume(&key, &order, "").await;
    resumed.expect("resumed");
    let refused = world.resume(&key, &order, "another body").await;
    assert_eq!(
        reason(&refused.expect_err("another body")),
        "IDEMPOTENCY_KEY_REUSED"
    );
    world.becomes(&order, OrderStatus::Cancelled).await;
    let refused = world.resume(&new_key(), &order, "").await;
    let refused = refused.expect_err("it is over");
    assert_eq!(reason(&refused), "INVALID_TRANSITION");
    assert!(refused.message().contains("cancelled"), "{refused:?}");
}

#[tokio::test]
async fn a_stuck_order_that_is_woken_by_news_tries_once_and_rests_again() {
    let mut world = patient_world().await;
    let order = stuck(&world, FAILURES_MAX + 1).await;
    world
        .hears("holdfast.payments", "payment.voided", "pay_", &order)
        .await;
    world
        .until("it tried", async || {
            let tries = world.ledger.line.count("release");
            let query = "SELECT count(*) FROM saga WHERE due_at IS NULL AND failures > $1";
            let resting: i64 = sqlx::query_scalar(query)
                .bind(FAILURES_MAX as i64)
                .fetch_one(&world.db.app())
                .await
                .ok()?;
            (tries == FAILURES_MAX + 1 && resting == 1).then_some(())
        })
        .await;
    world.staff_log_in_again();
    let resumed = world.resume(&new_key(), &order, "").await;
    resumed.expect("resumed");
    world.becomes(&order, OrderStatus::Cancelled).await;
    world.is_sound().await;
}

#[tokio::test]
async fn a_given_up_order_that_got_stuck_over_late_news_is_looked_after_when_it_is_resumed() {
    for (late, ends) in [
        (PaymentStatus::Captured, OrderStatus::Confirmed),
        (PaymentStatus::Failed, OrderStatus::Expired),
    ] {
        let mut world = patient_world().await;
        let order = world.expired_with_unknown_outcome().await;
        let line = &world.till.line;
        line.breaks_often("get", Break::OnTheWay, FAILURES_MAX);
        world.till.provider_says(&order, late);
        world
            .hears("holdfast.payments", "payment.captured", "pay_", &order)
            .await;
        world.becomes_in_time("needs_attention").await;
        world.staff_log_in_again();
        let resumed = world.resume(&new_key(), &order, "").await;
        resumed.expect("resumed");
        world.becomes(&order, ends).await;
        world.rests().await;
        world.is_sound().await;
    }
}

#[tokio::test]
async fn a_turn_that_panics_is_a_failed_try_and_its_order_is_raised_and_resumed() {
    let mut world = patient_world().await;
    let order = world
        .bought(&[("TSHIRT", 2)], "ok", OrderStatus::Confirmed)
        .await;
    world.till.line.breaks("refund", Break::OnTheWay);
    world
        .refund(&order, &[("TSHIRT", 2)], None)
        .await
        .expect("asked");
    // A row that no code of ours writes: of the order's only item it makes the tenth.
    let units = async |item: usize| {
        sqlx::query("UPDATE refund SET units = jsonb_build_array(jsonb_build_object('item', $1::bigint, 'quantity', 2))")
            .bind(item as i64)
            .execute(&world.db.owner())
            .await
            .expect("written");
    };
    units(9).await;
    world.becomes_in_time("needs_attention").await;
    let failures: i32 = sqlx::query_scalar("SELECT failures FROM saga")
        .fetch_one(&world.db.app())
        .await
        .expect("a saga");
    assert_eq!(failures as usize, FAILURES_MAX);
    units(0).await;
    world.staff_log_in_again();
    let resumed = world.resume(&new_key(), &order, "mended by hand").await;
    resumed.expect("resumed");
    world.becomes(&order, OrderStatus::Refunded).await;
    world.rests().await;
    world.is_sound().await;
}
