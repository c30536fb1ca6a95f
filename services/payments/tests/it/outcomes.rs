//! Outcomes that are unknown, that come late, that come twice, and that nobody asked for.

use futures::future::join_all;
use holdfast_kernel::{Id, Money, id};
use holdfast_payments::provider::{Ask, Method, MethodKind, Provider, Truth};
use holdfast_proto::payments::v1::PaymentStatus;

use crate::world::{Break, HOLD_SECS, World, konbini, new_purchase, reason};

/// R10: the question never arrived, or the answer never did; either way one charge under one key.
#[tokio::test]
async fn an_authorization_without_an_answer_is_processing_and_found_by_its_key() {
    for how in [Break::OnTheWay, Break::OnTheWayBack] {
        let world = World::new().await;
        let purchase = new_purchase();
        world.line.breaks("authorize", how);
        let payment = world.authorize(&purchase, "sandbox_ok").await.expect("ok");
        assert_eq!(payment.status(), PaymentStatus::Processing, "{how:?}");
        let refused = world.capture(&purchase).await.expect_err("not known yet");
        assert_eq!(reason(&refused), "INVALID_TRANSITION");

        world.live(2).await;
        let found = world.payment(&payment.id).await;
        assert_eq!(found.status(), PaymentStatus::Authorized, "{how:?}");
        world.capture(&purchase).await.expect("ok");
        assert_eq!(world.books().await, [(1, 1250, 0)], "{how:?}");
        assert_eq!(world.announced().await, ["authorized v1", "captured v2"]);
    }
}

/// R10 for the money itself.
#[tokio::test]
async fn a_capture_without_an_answer_is_processing_and_captured_once() {
    for how in [Break::OnTheWay, Break::OnTheWayBack] {
        let world = World::new().await;
        let purchase = new_purchase();
        world.authorize(&purchase, "sandbox_ok").await.expect("ok");
        world.line.breaks("capture", how);
        for _ in 0..2 {
            let payment = world.capture(&purchase).await.expect("an answer");
            assert_eq!(payment.status(), PaymentStatus::Processing, "{how:?}");
        }
        world.live(2).await;
        let payment = world.capture(&purchase).await.expect("known");
        assert_eq!(payment.status(), PaymentStatus::Captured, "{how:?}");
        assert_eq!(world.books().await, [(1, 1250, 0)], "{how:?}");
        assert_eq!(world.announced().await, ["authorized v1", "captured v2"]);
    }
}

/// I5: killed after the provider acted and before we wrote it down.
#[tokio::test]
async fn a_crash_between_the_provider_and_our_commit_then_a_repeat_is_one_charge() {
    let world = World::new().await;
    let purchase = new_purchase();
    world.line.breaks("authorize", Break::Crash);
    world
        .authorize(&purchase, "sandbox_ok")
        .await
        .expect_err("killed");
    let payment = world.authorize(&purchase, "sandbox_ok").await.expect("ok");
    assert_eq!(payment.status(), PaymentStatus::Authorized);

    world.line.breaks("capture", Break::Crash);
    world.capture(&purchase).await.expect_err("killed");
    let payment = world.capture(&purchase).await.expect("ok");
    assert_eq!(payment.status(), PaymentStatus::Captured);
    assert_eq!(world.books().await, [(1, 1250, 0)]);

    let refund = Id::generate();
    world.line.breaks("refund", Break::Crash);
    world
        .refund(&purchase, refund, 500)
        .await
        .expect_err("killed");
    let payment = world.refund(&purchase, refund, 500).await.expect("ok");
    assert_eq!(payment.status(), PaymentStatus::PartiallyRefunded);
    assert_eq!(world.books().await, [(1, 1250, 500)]);
}

#[tokio::test]
async fn a_crash_that_nobody_repeats_is_finished_by_the_reconciler() {
    let world = World::new().await;
    let purchase = new_purchase();
    world.line.breaks("authorize", Break::Crash);
    world
        .authorize(&purchase, "sandbox_ok")
        .await
        .expect_err("killed");
    world.live(2).await;
    let payment = world.authorize(&purchase, "sandbox_ok").await.expect("ok");
    assert_eq!(payment.status(), PaymentStatus::Authorized);
    assert_eq!(world.line.count("authorize"), 1);

    world.capture(&purchase).await.expect("ok");
    world.line.breaks("refund", Break::Crash);
    world
        .refund(&purchase, Id::generate(), 1250)
        .await
        .expect_err("killed");
    world.live(2).await;
    let payment = world.payment(&payment.id).await;
    assert_eq!(payment.status(), PaymentStatus::Refunded);
    assert_eq!(world.books().await, [(1, 1250, 1250)]);
}

#[tokio::test]
async fn a_void_whose_answer_is_lost_is_promised_and_kept() {
    for how in [Break::OnTheWay, Break::OnTheWayBack] {
        let world = World::new().await;
        let purchase = new_purchase();
        world.authorize(&purchase, "sandbox_ok").await.expect("ok");
        world.line.breaks("void", how);
        let payment = world.void(&purchase).await.expect("ok").expect("a payment");
        assert_eq!(payment.status(), PaymentStatus::Processing, "{how:?}");
        world.live(2).await;
        let payment = world.payment(&payment.id).await;
        assert_eq!(payment.status(), PaymentStatus::Voided, "{how:?}");
        assert_eq!(world.announced().await, ["authorized v1", "voided v2"]);
    }
}

#[tokio::test]
async fn a_void_that_finds_the_money_taken_gives_it_back() {
    let (world, purchase, _) = World::where_authorized("sandbox_ok").await;
    world.line.breaks("capture", Break::Crash);
    world.capture(&purchase).await.expect_err("killed");
    let payment = world.void(&purchase).await.expect("ok").expect("a payment");
    assert_eq!(payment.status(), PaymentStatus::Refunded);
    assert_eq!(world.books().await, [(1, 1250, 1250)]);
    assert_eq!(world.announced().await, ["authorized v1", "refunded v2"]);
}

#[tokio::test]
async fn a_void_while_the_authorization_is_under_way_undoes_it_once_it_is_known() {
    let (world, purchase, _) = World::where_authorized("sandbox_late_ok").await;
    let payment = world.void(&purchase).await.expect("ok").expect("a payment");
    assert_eq!(payment.status(), PaymentStatus::Processing);
    world.pass(HOLD_SECS);
    world.live(5).await;
    let payment = world.payment(&payment.id).await;
    assert_eq!(payment.status(), PaymentStatus::Voided);
    assert_eq!(world.books().await, [(0, 0, 0)]);
    assert_eq!(world.announced().await, ["voided v1"]);
}

/// R30: the refund waits for the capture.
#[tokio::test]
async fn a_refund_while_the_capture_is_unknown_waits_for_it() {
    let (world, purchase, _) = World::where_authorized("sandbox_timeout").await;
    world.capture(&purchase).await.expect("processing");
    let refund = Id::generate();
    for _ in 0..2 {
        let payment = world.refund(&purchase, refund, 1000).await.expect("queued");
        assert_eq!(payment.status(), PaymentStatus::Processing);
    }
    let refused = world
        .refund(&purchase, Id::generate(), 251)
        .await
        .expect_err("more than there will be");
    assert_eq!(reason(&refused), "REFUND_EXCEEDS_CAPTURED");

    world.live(3).await;
    let payment = world.capture(&purchase).await.expect("known");
    assert_eq!(payment.status(), PaymentStatus::PartiallyRefunded);
    assert_eq!(world.books().await, [(1, 1250, 1000)]);
    assert_eq!(
        world.announced().await,
        ["authorized v1", "captured v2", "partially_refunded v3"]
    );
}

#[tokio::test]
async fn a_void_behind_a_refund_that_waits_gives_back_the_rest_as_well_or_nothing_at_all() {
    let (world, purchase, payment) = World::where_authorized("sandbox_timeout").await;
    world.capture(&purchase).await.expect("processing");
    world
        .refund(&purchase, Id::generate(), 500)
        .await
        .expect("queued");
    world.void(&purchase).await.expect("promised");
    world.live(4).await;
    let payment = world.payment(&payment.id).await;
    assert_eq!(payment.status(), PaymentStatus::Refunded);
    assert_eq!(world.books().await, [(1, 1250, 1250)]);

    let (world, purchase, payment) = World::where_authorized("sandbox_ok").await;
    world.line.breaks("capture", Break::OnTheWay);
    world.capture(&purchase).await.expect("processing");
    world.line.breaks("capture", Break::OnTheWay);
    let refund = Id::generate();
    world.refund(&purchase, refund, 500).await.expect("queued");
    world.void(&purchase).await.expect("undone");
    let payment = world.payment(&payment.id).await;
    assert_eq!(payment.status(), PaymentStatus::Voided);
    assert_eq!(world.books().await, [(0, 0, 0)]);
    let mut db = world.db.app().acquire().await.expect("a connection");
    let facts = holdfast_payments::audit(&mut db).await.expect("facts");
    assert_eq!((facts[0].refunding, facts[0].refunds_open), (0, 0));
}

/// R31: what the provider refuses to give back is visible, and can be tried again.
#[tokio::test]
async fn a_refund_that_the_provider_refuses_leaves_the_payment_captured_and_is_told() {
    let world = World::new().await;
    let purchase = world.captured().await;
    sqlx::query("UPDATE charge SET refunded = 1000")
        .execute(&world.book.app())
        .await
        .expect("the book takes it");
    let payment = world
        .refund(&purchase, Id::generate(), 1250)
        .await
        .expect("an answer");
    assert_eq!(payment.status(), PaymentStatus::Captured);
    assert_eq!(payment.refunded.expect("set").amount, 0);
    assert_eq!(
        world.announced().await,
        ["authorized v1", "captured v2", "refund_failed v3"]
    );
    let payment = world
        .refund(&purchase, Id::generate(), 250)
        .await
        .expect("an answer");
    assert_eq!(payment.status(), PaymentStatus::PartiallyRefunded);
}

#[tokio::test]
async fn a_challenge_nobody_completes_expires_at_its_time_and_not_before() {
    let (world, _, payment) = World::where_authorized("sandbox_3ds").await;
    world.pass(HOLD_SECS - 2);
    world.live(1).await;
    let waiting = world.payment(&payment.id).await;
    assert_eq!(waiting.status(), PaymentStatus::RequiresAction);
    world.live(1).await;
    let expired = world.payment(&payment.id).await;
    assert_eq!(expired.status(), PaymentStatus::Expired);
    let refused = world
        .complete_challenge(&payment.id, true)
        .await
        .expect_err("over");
    assert_eq!(reason(&refused), "INVALID_TRANSITION");
    assert_eq!(
        world.announced().await,
        ["requires_action v1", "expired v2"]
    );
}

#[tokio::test]
async fn a_slip_paid_in_the_last_second_is_captured_though_its_notice_comes_late() {
    let world = World::new().await;
    let purchase = new_purchase();
    let slip = world
        .authorize_as(&purchase, konbini("lawson"), 1250, 1)
        .await
        .expect("ok");
    world.pass(HOLD_SECS - 1);
    // Paid at the till; we are down and hear of it only after the slip ended.
    let id: Id<id::Payment> = slip.id.parse().expect("a payment");
    world.sandbox.pay_slip(id).await.expect("paid");
    world.live(2).await;
    let payment = world.payment(&slip.id).await;
    assert_eq!(payment.status(), PaymentStatus::Captured);
    assert_eq!(world.books().await, [(1, 1250, 0)]);
}

/// R11: said to have failed, then found to have worked; announced, so that the saga decides.
#[tokio::test]
async fn late_truth_after_a_failure_or_an_expiry_is_taken_in_and_announced() {
    for (token, ended) in [
        ("sandbox_declined", "failed v1"),
        ("sandbox_3ds", "expired v2"),
    ] {
        for (truth, status, told) in [
            ("authorized", PaymentStatus::Authorized, "authorized"),
            ("captured", PaymentStatus::Captured, "captured"),
        ] {
            let world = World::new().await;
            let purchase = new_purchase();
            let payment = world.authorize(&purchase, token).await.expect("ok");
            world.pass(HOLD_SECS);
            world.live(1).await;
            assert_eq!(world.announced().await.last().expect("told"), ended);

            world.provider_decides(&payment.id, truth, 1).await;
            world.live(1).await;
            let payment = world.payment(&payment.id).await;
            assert_eq!(payment.status(), status, "{token} {truth}");
            let announced = world.announced().await;
            let last = announced.last().expect("told");
            assert!(last.starts_with(told), "{announced:?}");
        }
    }
}

#[tokio::test]
async fn late_truth_after_a_void_is_undone_without_asking() {
    for (truth, status, book) in [
        ("authorized", PaymentStatus::Voided, (0, 0, 0)),
        ("captured", PaymentStatus::Refunded, (1, 1250, 1250)),
    ] {
        let world = World::new().await;
        let purchase = new_purchase();
        world.authorize(&purchase, "sandbox_ok").await.expect("ok");
        let payment = world.void(&purchase).await.expect("ok").expect("a payment");
        world.provider_decides(&payment.id, truth, 1).await;
        world.live(2).await;
        let payment = world.payment(&payment.id).await;
        assert_eq!(payment.status(), status, "{truth}");
        assert_eq!(world.books().await, [book], "{truth}");
    }
}

/// R07: the same notice ten times at once.
#[tokio::test]
async fn a_notice_ten_times_at_once_is_taken_in_once() {
    let world = World::new().await;
    let purchase = new_purchase();
    let slip = world
        .authorize_as(&purchase, konbini("lawson"), 1250, 1)
        .await
        .expect("ok");
    world.provider_decides(&slip.id, "captured", 10).await;
    join_all((0..10).map(|_| world.reconciler.look_once())).await;
    let payment = world.payment(&slip.id).await;
    assert_eq!(payment.status(), PaymentStatus::Captured);
    assert_eq!(world.books().await, [(1, 1250, 0)]);
    assert_eq!(
        world.announced().await,
        ["requires_action v1", "captured v2"]
    );
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM notice")
        .fetch_one(&world.book.app())
        .await
        .expect("the book");
    assert_eq!(left, 0, "taken notices do not come again");
}

/// R08: the notice overtakes the answer to the call that made the payment.
#[tokio::test]
async fn a_notice_that_comes_before_the_answer_is_taken_in_and_the_answer_changes_nothing() {
    let world = World::new().await;
    let purchase = new_purchase();
    world.line.breaks("authorize", Break::OnTheWayBack);
    let payment = world.authorize(&purchase, "sandbox_ok").await.expect("ok");
    assert_eq!(payment.status(), PaymentStatus::Processing);
    world.provider_decides(&payment.id, "authorized", 1).await;
    world.reconciler.look_once().await;
    let noticed = world.payment(&payment.id).await;
    assert_eq!(noticed.status(), PaymentStatus::Authorized);
    let again = world.authorize(&purchase, "sandbox_ok").await.expect("ok");
    assert_eq!(again, noticed);
    assert_eq!(world.announced().await, ["authorized v1"]);
}

#[tokio::test]
async fn an_old_answer_never_undoes_a_newer_one() {
    let (world, purchase, payment) = World::where_authorized("sandbox_capture_fails").await;
    world.provider_decides(&payment.id, "authorized", 1).await;
    // "Authorized" is on its way to us while the capture fails.
    world.line.breaks("look", Break::Held);
    tokio::join!(world.reconciler.look_once(), async {
        world.line.holds().await;
        let payment = world.capture(&purchase).await.expect("an answer");
        assert_eq!(payment.status(), PaymentStatus::Failed);
        world.line.let_through();
    });
    let payment = world.payment(&payment.id).await;
    assert_eq!(payment.status(), PaymentStatus::Failed);
    assert_eq!(world.announced().await, ["authorized v1", "failed v2"]);
}

#[tokio::test]
async fn an_authorization_that_is_heard_of_after_the_void_brings_nothing_back() {
    let world = World::new().await;
    let purchase = new_purchase();
    // "Authorized" is on its way to us while the payment is undone.
    world.line.breaks("authorize", Break::Held);
    let (answered, ()) = tokio::join!(world.authorize(&purchase, "sandbox_ok"), async {
        world.line.holds().await;
        let voided = world.void(&purchase).await.expect("ok").expect("a payment");
        assert_eq!(voided.status(), PaymentStatus::Voided);
        world.line.let_through();
    });
    let answered = answered.expect("an answer");
    assert_eq!(answered.status(), PaymentStatus::Voided);
    assert_eq!(world.payment(&answered.id).await, answered);
    assert_eq!(world.announced().await, ["voided v1"]);
}

#[tokio::test]
async fn a_refusal_that_is_heard_of_after_the_void_changes_nothing() {
    let world = World::new().await;
    let purchase = new_purchase();
    // What a refusal changes besides the payment is not written either.
    world.line.breaks("authorize", Break::Held);
    let (answered, ()) = tokio::join!(world.authorize(&purchase, "sandbox_declined"), async {
        world.line.holds().await;
        let voided = world.void(&purchase).await.expect("ok").expect("a payment");
        assert_eq!(voided.status(), PaymentStatus::Voided);
        world.line.let_through();
    });
    let answered = answered.expect("an answer");
    assert_eq!(answered.status(), PaymentStatus::Voided);
    assert_eq!(world.announced().await, ["voided v1"]);
}

#[tokio::test]
async fn what_the_provider_has_without_an_intent_is_ended() {
    let world = World::new().await;
    // As a restored backup would leave it: the provider knows payments that we do not.
    let reserved = card_payment("sandbox_ok");
    world.sandbox.authorize(&reserved).await.expect("reserved");
    let taken = card_payment("sandbox_ok");
    world.sandbox.authorize(&taken).await.expect("reserved");
    world.sandbox.capture(&taken).await.expect("taken");
    let ours = world.captured().await;

    for _ in 0..3 {
        world.pass(60);
        world.reconciler.look_once().await;
    }
    let mut books = world.books().await;
    books.sort_unstable();
    assert_eq!(books, [(0, 0, 0), (1, 1250, 0), (1, 1250, 1250)]);
    let charge = world.sandbox.look(reserved.payment).await.expect("known");
    let truth = charge.expect("known").truth;
    assert_eq!(truth, Truth::Voided);
    let payment = world.capture(&ours).await.expect("untouched");
    assert_eq!(payment.status(), PaymentStatus::Captured);
}

#[tokio::test]
async fn an_authorization_that_never_arrived_ends_with_its_hold_and_is_refused_afterwards() {
    let world = World::new().await;
    let purchase = new_purchase();
    world.line.breaks("authorize", Break::OnTheWay);
    let payment = world.authorize(&purchase, "sandbox_ok").await.expect("ok");
    world.pass(HOLD_SECS);
    world.live(1).await;
    let payment = world.payment(&payment.id).await;
    assert_eq!(payment.status(), PaymentStatus::Expired);
    let again = world.authorize(&purchase, "sandbox_ok").await.expect("ok");
    assert_eq!(again.status(), PaymentStatus::Expired);
    assert_eq!(world.books().await, [(0, 0, 0)]);
}

#[tokio::test]
async fn the_auditors_facts_agree_with_the_providers_book() {
    let world = World::new().await;
    let purchase = world.captured().await;
    world
        .refund(&purchase, Id::generate(), 500)
        .await
        .expect("ok");
    world.captured().await;
    let unpaid = new_purchase();
    world
        .authorize(&unpaid, "sandbox_declined")
        .await
        .expect("ok");

    let mut db = world.db.app().acquire().await.expect("a connection");
    let ours = holdfast_payments::audit(&mut db).await.expect("facts");
    let mut db = world.book.app().acquire().await.expect("a connection");
    let theirs = holdfast_payments::sandbox::audit(&mut db)
        .await
        .expect("facts");
    assert_eq!(ours.len(), 3);
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours.payment, theirs.payment);
        assert_eq!(ours.captured, theirs.captured);
        assert_eq!(ours.refunded, theirs.refunded);
        assert_eq!(ours.refunded, ours.refunds_done);
        assert_eq!(ours.refunding, ours.refunds_open);
        assert_eq!(theirs.captures, i64::from(ours.captured > 0));
    }
}

#[tokio::test]
async fn a_notice_that_cannot_be_taken_comes_again_and_lets_others_pass() {
    let world = World::new().await;
    let purchase = new_purchase();
    let slip = world
        .authorize_as(&purchase, konbini("lawson"), 1250, 1)
        .await
        .expect("ok");
    world.provider_decides(&slip.id, "captured", 1).await;
    world.line.breaks("look", Break::OnTheWay);
    world.live(9).await;
    let waiting = world.payment(&slip.id).await;
    assert_eq!(waiting.status(), PaymentStatus::RequiresAction);
    world.live(2).await;
    let payment = world.payment(&slip.id).await;
    assert_eq!(payment.status(), PaymentStatus::Captured);
}

#[tokio::test]
async fn a_capture_and_a_void_at_once_at_the_sandbox_are_one_of_the_two() {
    let world = World::new().await;
    for _ in 0..10 {
        let ask = card_payment("sandbox_ok");
        world.sandbox.authorize(&ask).await.expect("reserved");
        let (captured, voided) =
            tokio::join!(world.sandbox.capture(&ask), world.sandbox.void(&ask));
        let truth = captured.expect("an answer").truth;
        assert_eq!(voided.expect("an answer").truth, truth);
        let entries: Vec<String> =
            sqlx::query_scalar("SELECT kind FROM entry WHERE payment_id = $1 ORDER BY entry_id")
                .bind(ask.payment.uuid())
                .fetch_all(&world.book.app())
                .await
                .expect("the book");
        let ended = match truth {
            Truth::Captured => "capture",
            Truth::Voided => "void",
            other => panic!("{other:?}"),
        };
        assert_eq!(entries, ["authorize", ended]);
    }
}

#[tokio::test]
async fn the_sandboxs_entries_can_only_be_added_to() {
    let world = World::new().await;
    world.captured().await;
    for statement in [
        "UPDATE entry SET amount = 1",
        "DELETE FROM entry",
        "TRUNCATE entry",
    ] {
        let refused = sqlx::query(statement).execute(&world.book.app()).await;
        let refused = refused.expect_err(statement).to_string();
        assert!(refused.contains("permission denied"), "{refused}");
    }
}

#[tokio::test]
async fn what_is_announced_is_ids_figures_and_status() {
    let world = World::new().await;
    let purchase = world.captured().await;
    let mut db = world.db.app().acquire().await.expect("a connection");
    let told = holdfast_platform::outbox::pending(&mut db, 10)
        .await
        .expect("the outbox");
    let payment = world.capture(&purchase).await.expect("again");
    assert_eq!(told[1].topic, "holdfast.payments");
    assert_eq!(told[1].key, payment.id);
    let money = |amount: i64| serde_json::json!({ "amount": amount, "currency": "JPY" });
    assert_eq!(
        told[1].data,
        serde_json::json!({
            "payment_id": payment.id,
            "purchase_id": purchase,
            "user_id": world.customer.user.to_string(),
            "status": "captured",
            "amount": money(1250),
            "captured": money(1250),
            "refunded": money(0),
            "points": 0,
            "points_back": 0,
        })
    );
}

/// What the provider is asked about a payment that no purchase of ours knows.
fn card_payment(token: &str) -> Ask {
    Ask {
        payment: Id::generate(),
        method: Method {
            kind: MethodKind::Card,
            token: token.to_owned(),
        },
        amount: Money::new(1250, "JPY".parse().expect("a currency")),
        expires_at: "2026-12-01T10:00:00Z".parse().expect("a moment"),
    }
}
