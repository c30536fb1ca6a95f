//! What the saga commands: twice is once, old workers are refused, and nothing goes back that was not taken.

use futures::future::join_all;
use holdfast_kernel::{Id, id};
use holdfast_platform::identity::Role;
use holdfast_proto::payments::v1::{self as pb, PaymentStatus};
use tonic::Code;

use crate::world::{World, card, command, konbini, new_purchase, reason, yen};

#[tokio::test]
async fn every_command_twice_is_the_command_once() {
    let world = World::new().await;
    let purchase = new_purchase();
    let first = world.authorize(&purchase, "sandbox_ok").await.expect("ok");
    let again = world.authorize(&purchase, "sandbox_ok").await.expect("ok");
    assert_eq!(first, again);
    let first = world.capture(&purchase).await.expect("ok");
    let again = world.capture(&purchase).await.expect("ok");
    assert_eq!(first, again);
    let refund = Id::generate();
    let first = world.refund(&purchase, refund, 500).await.expect("ok");
    let again = world.refund(&purchase, refund, 500).await.expect("ok");
    assert_eq!(first, again);
    assert_eq!(first.status(), PaymentStatus::PartiallyRefunded);
    let first = world.void(&purchase).await.expect("ok");
    let again = world.void(&purchase).await.expect("ok");
    assert_eq!(first, again);
    assert_eq!(first.expect("a payment").status(), PaymentStatus::Refunded);

    assert_eq!(world.books().await, [(1, 1250, 1250)]);
    assert_eq!(
        world.announced().await,
        [
            "authorized v1",
            "captured v2",
            "partially_refunded v3",
            "refunded v4"
        ]
    );
}

/// R26: a double click, two tabs.
#[tokio::test]
async fn ten_authorizations_and_captures_at_once_make_one_payment_and_one_charge() {
    let world = World::new().await;
    let purchase = new_purchase();
    for payment in join_all((0..10).map(|_| world.authorize(&purchase, "sandbox_ok"))).await {
        let status = payment.expect("ok").status();
        assert_eq!(status, PaymentStatus::Authorized);
    }
    for payment in join_all((0..10).map(|_| world.capture(&purchase))).await {
        assert_eq!(payment.expect("ok").status(), PaymentStatus::Captured);
    }
    assert_eq!(world.books().await, [(1, 1250, 0)]);
    assert_eq!(world.announced().await, ["authorized v1", "captured v2"]);
}

#[tokio::test]
async fn a_purchase_cannot_be_paid_a_second_time_in_another_way() {
    let (world, purchase, _) = World::where_authorized("sandbox_ok").await;
    let refused = world
        .authorize_as(&purchase, card("sandbox_ok"), 1251, 1)
        .await
        .expect_err("another amount");
    assert_eq!(reason(&refused), "IDEMPOTENCY_KEY_REUSED");
    let refused = world
        .authorize(&purchase, "sandbox_3ds")
        .await
        .expect_err("another method");
    assert_eq!(reason(&refused), "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(world.books().await, [(0, 0, 0)]);
}

#[tokio::test]
async fn an_authorized_payment_is_voided_once_and_cannot_be_captured_afterwards() {
    let (world, purchase, _) = World::where_authorized("sandbox_ok").await;
    for _ in 0..2 {
        let voided = world.void(&purchase).await.expect("ok").expect("a payment");
        assert_eq!(voided.status(), PaymentStatus::Voided);
    }
    let refused = world.capture(&purchase).await.expect_err("voided");
    assert_eq!(reason(&refused), "INVALID_TRANSITION");
    assert_eq!(world.books().await, [(0, 0, 0)]);
    assert_eq!(world.announced().await, ["authorized v1", "voided v2"]);
}

#[tokio::test]
async fn voiding_a_challenge_or_a_slip_ends_it_for_the_customer_too() {
    let world = World::new().await;
    for method in [card("sandbox_3ds"), konbini("familymart")] {
        let purchase = new_purchase();
        let waiting = world
            .authorize_as(&purchase, method, 1250, 1)
            .await
            .expect("ok");
        let voided = world.void(&purchase).await.expect("ok").expect("a payment");
        assert_eq!(voided.status(), PaymentStatus::Voided);
        let refused = world
            .complete_challenge(&waiting.id, true)
            .await
            .expect_err("over");
        assert_eq!(reason(&refused), "INVALID_TRANSITION");
        let refused = world.pay_slip(&waiting.id).await.expect_err("over");
        assert_eq!(reason(&refused), "INVALID_TRANSITION");
    }
    assert_eq!(world.books().await, [(0, 0, 0), (0, 0, 0)]);
}

#[tokio::test]
async fn a_void_of_a_payment_never_seen_refuses_the_authorization_that_comes_late() {
    let world = World::new().await;
    let purchase = new_purchase();
    for _ in 0..2 {
        assert_eq!(world.void(&purchase).await.expect("a tombstone"), None);
    }
    let refused = world
        .authorize(&purchase, "sandbox_ok")
        .await
        .expect_err("undone");
    assert_eq!(reason(&refused), "STEP_UNDONE");
    assert_eq!(world.books().await, []);
}

#[tokio::test]
async fn a_void_and_an_authorization_at_once_leave_no_money_reserved() {
    let world = World::new().await;
    for _ in 0..10 {
        let purchase = new_purchase();
        let (authorized, voided) = tokio::join!(
            world.authorize(&purchase, "sandbox_ok"),
            world.void(&purchase)
        );
        voided.expect("undoing is never refused");
        if let Err(refused) = authorized {
            assert_eq!(reason(&refused), "STEP_UNDONE");
            continue;
        }
        let ended = world.void(&purchase).await.expect("ok").expect("a payment");
        assert_eq!(ended.status(), PaymentStatus::Voided);
    }
    let reserved: i64 = sqlx::query_scalar("SELECT count(*) FROM charge WHERE status <> 'voided'")
        .fetch_one(&world.book.app())
        .await
        .expect("the book");
    assert_eq!(reserved, 0);
}

/// R13, R14: the worker that was replaced.
#[tokio::test]
async fn a_worker_that_was_replaced_can_do_nothing_any_more() {
    let (world, purchase, _) = World::where_authorized("sandbox_ok").await;
    // The replacement shows itself by its first command, here a capture whose outcome it does not hear.
    world
        .authorize_as(&purchase, card("sandbox_ok"), 1250, 3)
        .await
        .expect("ok");
    let refusals = [
        world
            .authorize_as(&purchase, card("sandbox_ok"), 1250, 2)
            .await
            .expect_err("stale"),
        world.capture_in(&purchase, 2).await.expect_err("stale"),
        world.void_in(&purchase, 2).await.expect_err("stale"),
        world
            .refund_in(&purchase, Id::generate(), 1, 2)
            .await
            .expect_err("stale"),
    ];
    for refused in refusals {
        assert_eq!(reason(&refused), "STALE_EPOCH");
        assert_eq!(refused.code(), Code::FailedPrecondition);
    }
    assert_eq!(world.books().await, [(0, 0, 0)]);
    let captured = world.capture_in(&purchase, 4).await.expect("the newest");
    assert_eq!(captured.status(), PaymentStatus::Captured);
    let refused = world.void_in(&purchase, 3).await.expect_err("stale by now");
    assert_eq!(reason(&refused), "STALE_EPOCH");
}

#[tokio::test]
async fn a_tombstone_remembers_the_epoch_too() {
    let world = World::new().await;
    let purchase = new_purchase();
    world.void_in(&purchase, 2).await.expect("a tombstone");
    let refused = world
        .authorize(&purchase, "sandbox_ok")
        .await
        .expect_err("stale");
    assert_eq!(reason(&refused), "STALE_EPOCH");
    let refused = world
        .authorize_as(&purchase, card("sandbox_ok"), 1250, 3)
        .await
        .expect_err("undone");
    assert_eq!(reason(&refused), "STEP_UNDONE");
    let refused = world.void_in(&purchase, 2).await.expect_err("stale by now");
    assert_eq!(reason(&refused), "STALE_EPOCH");
    let refused = world.capture_in(&purchase, 2).await.expect_err("stale too");
    assert_eq!(reason(&refused), "STALE_EPOCH");
}

/// R30: more than was captured, however it is asked for.
#[tokio::test]
async fn refunds_racing_each_other_never_give_back_more_than_was_captured() {
    let world = World::new().await;
    let purchase = world.captured().await;
    let asked = (0..8).map(|_| world.refund(&purchase, Id::generate(), 500));
    let mut done = 0;
    for refunded in join_all(asked).await {
        match refunded {
            Ok(_) => done += 1,
            Err(refused) => assert_eq!(reason(&refused), "REFUND_EXCEEDS_CAPTURED"),
        }
    }
    assert_eq!(done, 2);
    let rest = world
        .refund(&purchase, Id::generate(), 250)
        .await
        .expect("what is left");
    assert_eq!(rest.status(), PaymentStatus::Refunded);
    assert_eq!(world.books().await, [(1, 1250, 1250)]);
}

/// R30: one refund, asked for twice at the same moment.
#[tokio::test]
async fn one_refund_asked_for_ten_times_at_once_is_one_refund() {
    let world = World::new().await;
    let purchase = world.captured().await;
    let refund = Id::generate();
    for refunded in join_all((0..10).map(|_| world.refund(&purchase, refund, 500))).await {
        refunded.expect("the same refund");
    }
    assert_eq!(world.books().await, [(1, 1250, 500)]);
    let refused = world
        .refund(&purchase, refund, 501)
        .await
        .expect_err("another amount");
    assert_eq!(reason(&refused), "IDEMPOTENCY_KEY_REUSED");
}

#[tokio::test]
async fn partial_refunds_add_up_and_the_one_too_much_is_refused_with_the_figures() {
    let world = World::new().await;
    let purchase = world.captured().await;
    let refunded = world
        .refund(&purchase, Id::generate(), 1000)
        .await
        .expect("ok");
    assert_eq!(refunded.status(), PaymentStatus::PartiallyRefunded);
    assert_eq!(refunded.refunded.expect("set").amount, 1000);
    let refused = world
        .refund(&purchase, Id::generate(), 251)
        .await
        .expect_err("too much");
    assert_eq!(reason(&refused), "REFUND_EXCEEDS_CAPTURED");
    assert_eq!(
        refused.message(),
        "refund of 251 exceeds what is left: 1250 captured, 1000 refunded or about to be"
    );
    let refunded = world
        .refund(&purchase, Id::generate(), 250)
        .await
        .expect("ok");
    assert_eq!(refunded.status(), PaymentStatus::Refunded);
}

#[tokio::test]
async fn a_refund_of_nothing_of_another_currency_or_of_money_not_taken_is_refused() {
    let world = World::new().await;
    let purchase = world.captured().await;
    let refused = world
        .refund(&purchase, Id::generate(), 0)
        .await
        .expect_err("nothing");
    assert_eq!(reason(&refused), "INVALID_ARGUMENT");

    let mut request = pb::RefundRequest {
        command: Some(command(&purchase, "refund", 1)),
        payment_id: String::new(),
        refund_id: Id::<id::Refund>::generate().uuid().to_string(),
        amount: Some(yen(100)),
        reason: String::new(),
        points: 0,
    };
    request.amount.as_mut().expect("set").currency = "GBP".to_owned();
    let refused = world
        .client()
        .refund(world.peer("orders").request(request))
        .await
        .expect_err("another currency");
    assert_eq!(reason(&refused), "INVALID_ARGUMENT");

    let authorized = new_purchase();
    world
        .authorize(&authorized, "sandbox_ok")
        .await
        .expect("ok");
    let refused = world
        .refund(&authorized, Id::generate(), 1)
        .await
        .expect_err("not taken");
    assert_eq!(reason(&refused), "INVALID_TRANSITION");
    let refused = world
        .refund(&new_purchase(), Id::generate(), 1)
        .await
        .expect_err("never seen");
    assert_eq!(reason(&refused), "UNKNOWN_PAYMENT");
}

#[tokio::test]
async fn a_konbini_refund_rests_until_the_buyer_can_be_paid() {
    let world = World::new().await;
    let purchase = new_purchase();
    let slip = world
        .authorize_as(&purchase, konbini("ministop"), 1250, 1)
        .await
        .expect("ok");
    world.pay_slip(&slip.id).await.expect("ok");
    let refund = Id::generate();
    for _ in 0..2 {
        let pending = world.refund(&purchase, refund, 1250).await.expect("ok");
        assert_eq!(pending.status(), PaymentStatus::RefundPending);
    }
    world.live(3).await;
    let refunded = world.payment(&slip.id).await;
    assert_eq!(refunded.status(), PaymentStatus::Refunded);
    assert_eq!(world.books().await, [(1, 1250, 1250)]);
}

#[tokio::test]
async fn a_purchase_and_its_payment_that_do_not_belong_together_are_refused() {
    let world = World::new().await;
    let purchase = world.captured().await;
    let other = world.captured().await;
    let payment = world.capture(&other).await.expect("again").id;
    let request = pb::VoidRequest {
        command: Some(command(&purchase, "void", 1)),
        payment_id: payment,
    };
    let refused = world
        .client()
        .void(world.peer("orders").request(request))
        .await
        .expect_err("another's");
    assert_eq!(reason(&refused), "UNKNOWN_PAYMENT");
    assert_eq!(world.books().await, [(1, 1250, 0), (1, 1250, 0)]);
}

#[tokio::test]
async fn only_the_sagas_move_money_and_another_users_payment_does_not_exist() {
    let world = World::new().await;
    let purchase = world.captured().await;
    let payment = world.capture(&purchase).await.expect("again").id;
    let capture = || pb::CaptureRequest {
        command: Some(command(&purchase, "capture", 1)),
        payment_id: String::new(),
    };
    let mut client = world.client();
    let refused = client.capture(world.customer.ask(capture())).await;
    assert_eq!(refused.expect_err("a user").code(), Code::PermissionDenied);
    let refused = client
        .capture(world.peer("catalog").request(capture()))
        .await;
    assert_eq!(refused.expect_err("no saga").code(), Code::PermissionDenied);

    let get = || pb::GetPaymentRequest {
        payment_id: payment.clone(),
    };
    client
        .get_payment(world.customer.ask(get()))
        .await
        .expect("one's own");
    client
        .get_payment(world.somebody(Role::Staff).ask(get()))
        .await
        .expect("staff");
    let stranger = world.somebody(Role::User);
    let refused = client.get_payment(stranger.ask(get())).await;
    assert_eq!(reason(&refused.expect_err("a stranger")), "UNKNOWN_PAYMENT");
    let pay = pb::PaySandboxSlipRequest {
        payment_id: payment.clone(),
    };
    let refused = client.pay_sandbox_slip(stranger.ask(pay)).await;
    assert_eq!(reason(&refused.expect_err("a stranger")), "UNKNOWN_PAYMENT");
}

#[tokio::test]
async fn a_checkout_costs_three_writing_transactions() {
    let world = World::new().await;
    // The sweep notes how far it came, once a minute for all payments.
    world.reconciler.look_once().await;
    // A trigger notes each transaction that writes a row of ours.
    sqlx::raw_sql(
        "CREATE TABLE wrote (xid xid8 PRIMARY KEY);
         CREATE FUNCTION note_writer() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN INSERT INTO wrote VALUES (pg_current_xact_id()) ON CONFLICT DO NOTHING; RETURN NULL; END $$;
         DO $$ DECLARE name text; BEGIN
            FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'payments' AND tablename <> 'wrote' LOOP
                EXECUTE format('CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON %I
                                EXECUTE FUNCTION note_writer()', name);
            END LOOP;
         END $$",
    )
    .execute(&world.db.owner())
    .await
    .expect("the owner may");
    let purchase = world.captured().await;
    let count = async || -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM wrote")
            .fetch_one(&world.db.app())
            .await
            .expect("a count")
    };
    assert_eq!(count().await, 3);
    // Told again, it only has to be looked up; the worker has nothing to write either.
    world.capture(&purchase).await.expect("again");
    world.live(2).await;
    assert_eq!(count().await, 3);
}
