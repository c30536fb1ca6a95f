//! Points: earned by money that is kept, taken back with it, never below nothing.

use futures::future::join_all;
use holdfast_kernel::Id;
use holdfast_platform::{fault::Fault, identity::Role};
use holdfast_proto::{
    page::v1::PageRequest,
    payments::v1::{self as pb, PaymentStatus},
};
use holdfast_testkit::Asker;

use crate::world::{Break, HOLD_SECS, World, card, new_purchase, reason};

async fn points(world: &World, asker: &Asker, page: Option<PageRequest>) -> pb::ListPointsResponse {
    let request = asker.ask(pb::ListPointsRequest { page });
    let answer = world.client().list_points(request).await;
    answer.expect("points").into_inner()
}

async fn balance(world: &World) -> i64 {
    let shown = points(world, &world.customer, None).await;
    shown.balances.first().map_or(0, |balance| balance.points)
}

async fn written_off(world: &World) -> i64 {
    sqlx::query_scalar(
        "SELECT coalesce(-sum(amount), 0)::bigint FROM point_entry WHERE account = 'written_off'",
    )
    .fetch_one(&world.db.app())
    .await
    .expect("summed")
}

/// The book agrees with itself, and with the money that earned its points.
async fn is_sound(world: &World) {
    let mut db = world.db.app().acquire().await.expect("a connection");
    for payment in holdfast_payments::audit(&mut db).await.expect("an audit") {
        assert_eq!(payment.points_sum, 0, "{payment:?}");
        assert_eq!(payment.points_issued, payment.points_due(), "{payment:?}");
        assert_eq!(
            payment.points_out,
            payment.points - payment.points_back,
            "{payment:?}"
        );
    }
    let accounts = holdfast_payments::audit_points(&mut db).await;
    for account in accounts.expect("an audit") {
        assert_eq!(account.balance, account.entries, "{account:?}");
    }
}

#[tokio::test]
async fn a_capture_earns_points_once_and_a_refund_takes_its_share_back_once() {
    let world = World::new().await;
    let purchase = new_purchase();
    world.authorize(&purchase, "sandbox_ok").await.expect("ok");
    assert_eq!(balance(&world).await, 0, "nothing is taken yet");
    for _ in 0..2 {
        world.capture(&purchase).await.expect("ok");
        assert_eq!(balance(&world).await, 12);
    }
    world.pass(1);
    let refund = Id::generate();
    for _ in 0..2 {
        world.refund(&purchase, refund, 625).await.expect("ok");
        assert_eq!(balance(&world).await, 6);
    }
    is_sound(&world).await;

    let shown = points(&world, &world.customer, None).await;
    let told: Vec<_> = (shown.entries.iter())
        .map(|entry| {
            assert_eq!(entry.purchase_id, purchase);
            (entry.r#type.as_str(), entry.currency.as_str(), entry.points)
        })
        .collect();
    assert_eq!(told, [("taken_back", "JPY", -6), ("earned", "JPY", 12)]);
    let stranger = points(&world, &world.somebody(Role::User), None).await;
    assert_eq!((stranger.balances.len(), stranger.entries.len()), (0, 0));
}

#[tokio::test]
async fn money_that_is_not_kept_earns_nothing() {
    let world = World::new().await;
    for token in ["sandbox_declined", "sandbox_capture_fails", "sandbox_ok"] {
        let purchase = new_purchase();
        world.authorize(&purchase, token).await.expect("an answer");
        if token == "sandbox_capture_fails" {
            world.capture(&purchase).await.expect("an answer");
        }
        world.void(&purchase).await.expect("an answer");
    }
    let small = new_purchase();
    let payment = world.authorize_as(&small, card("sandbox_ok"), 99, 1).await;
    payment.expect("authorized");
    world.capture(&small).await.expect("captured");
    assert_eq!(balance(&world).await, 0);
    // Undone by a void after it was captured: earned, and taken back.
    let undone = world.captured().await;
    world.void(&undone).await.expect("undone");
    assert_eq!(balance(&world).await, 0);
    is_sound(&world).await;
}

#[tokio::test]
async fn points_that_were_spent_meanwhile_are_written_off_by_name() {
    let world = World::new().await;
    let purchase = world.captured().await;
    let spent = world
        .authorize_using(&new_purchase(), "sandbox_ok", 500, 7)
        .await;
    spent.expect("authorized");
    let refunded = world.refund(&purchase, Id::generate(), 1_250).await;
    refunded.expect("refunded");
    assert_eq!(balance(&world).await, 0);
    assert_eq!(written_off(&world).await, 7);
    is_sound(&world).await;
}

#[tokio::test]
async fn a_capture_that_is_found_out_about_later_earns_its_points_then_and_once() {
    let (world, purchase, _) = World::where_authorized("sandbox_ok").await;
    world.line.breaks("capture", Break::OnTheWayBack);
    world.capture(&purchase).await.expect("unknown");
    assert_eq!(balance(&world).await, 0);
    world.live(3).await;
    assert_eq!(balance(&world).await, 12);
    is_sound(&world).await;
}

#[tokio::test]
async fn a_refund_that_the_provider_refuses_leaves_the_points_where_they_were() {
    let world = World::new().await;
    let purchase = world.captured().await;
    // The provider gave the money back behind our backs, and refuses to do it twice.
    sqlx::query("UPDATE charge SET refunded = captured")
        .execute(&world.book.owner())
        .await
        .expect("changed");
    let refused = world.refund(&purchase, Id::generate(), 1_250).await;
    let refused = refused.expect("an answer").refunded.expect("set");
    assert_eq!(refused.amount, 0, "nothing went back");
    assert_eq!(balance(&world).await, 12);
    is_sound(&world).await;
}

#[tokio::test]
async fn captures_and_refunds_of_one_customer_at_once_leave_a_book_that_adds_up() {
    let world = World::new().await;
    let purchases: Vec<String> = (0..20).map(|_| new_purchase()).collect();
    join_all(purchases.iter().map(async |purchase| {
        world.authorize(purchase, "sandbox_ok").await.expect("ok");
        world.capture(purchase).await.expect("ok");
        let refunded = world.refund(purchase, Id::generate(), 625).await;
        refunded.expect("ok");
    }))
    .await;
    assert_eq!(balance(&world).await, 20 * 6);
    assert_eq!(written_off(&world).await, 0);
    is_sound(&world).await;

    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let page = Some(PageRequest { size: 7, token });
        let slice = points(&world, &world.customer, page).await;
        let entries = slice.entries.into_iter();
        seen.extend(entries.map(|entry| (entry.payment_id, entry.points)));
        token = slice.page.expect("set").next_token;
        if token.is_empty() {
            break;
        }
    }
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!((count, seen.len()), (40, 40), "none twice, none skipped");
}

#[tokio::test]
async fn the_database_itself_keeps_balances_above_nothing_and_entries_as_they_were_written() {
    let world = World::new().await;
    world.captured().await;
    let app = world.db.app();
    for statement in [
        "UPDATE point_account SET balance = balance - 13",
        "UPDATE point_entry SET amount = 1000 WHERE account = 'person'",
        "DELETE FROM point_entry",
    ] {
        let refused = sqlx::query(statement).execute(&app).await;
        refused.expect_err(statement);
    }
    assert_eq!(balance(&world).await, 12);
}

/// With a customer who has earned so many points.
async fn where_earned(points: i64) -> World {
    let world = World::new().await;
    let purchase = new_purchase();
    let money = world.authorize_as(&purchase, card("sandbox_ok"), points * 100, 1);
    money.await.expect("authorized");
    world.capture(&purchase).await.expect("captured");
    assert_eq!(balance(&world).await, points);
    world
}

#[tokio::test]
async fn points_are_held_with_the_authorization_spent_with_the_capture_and_back_with_the_void() {
    let world = where_earned(300).await;
    let (bought, given_up) = (new_purchase(), new_purchase());
    for purchase in [&bought, &given_up] {
        for _ in 0..2 {
            let asked = world
                .authorize_using(purchase, "sandbox_ok", 700, 100)
                .await;
            assert_eq!(
                asked.expect("authorized").status(),
                PaymentStatus::Authorized
            );
        }
    }
    assert_eq!(balance(&world).await, 100);
    for _ in 0..2 {
        world.capture(&bought).await.expect("captured");
        world.void(&given_up).await.expect("voided");
    }
    assert_eq!(balance(&world).await, 100 + 7 + 100);
    is_sound(&world).await;
    let refused = world.authorize_using(&bought, "sandbox_ok", 700, 99).await;
    assert_eq!(
        reason(&refused.expect_err("other points")),
        "IDEMPOTENCY_KEY_REUSED"
    );
}

#[tokio::test]
async fn a_refused_payment_leaves_the_balance_as_it_was() {
    let world = where_earned(100).await;
    let declined = world
        .authorize_using(&new_purchase(), "sandbox_declined", 700, 100)
        .await;
    assert_eq!(declined.expect("an answer").status(), PaymentStatus::Failed);
    let uncaptured = new_purchase();
    let asked = world.authorize_using(&uncaptured, "sandbox_capture_fails", 700, 100);
    asked.await.expect("authorized");
    let failed = world.capture(&uncaptured).await.expect("an answer");
    assert_eq!(failed.status(), PaymentStatus::Failed);
    assert_eq!(balance(&world).await, 100);
    is_sound(&world).await;
}

/// The third row of the table in `docs/PRICING.md`.
#[tokio::test]
async fn what_is_paid_wholly_in_points_asks_no_provider_for_money() {
    let world = where_earned(1_000).await;
    let (authorized, captured) = (world.line.count("authorize"), world.line.count("capture"));
    let purchase = new_purchase();
    // A card that would be declined is not charged.
    let asked = world
        .authorize_using(&purchase, "sandbox_declined", 0, 1_000)
        .await;
    assert_eq!(
        asked.expect("authorized").status(),
        PaymentStatus::Authorized
    );
    let paid = world.capture(&purchase).await.expect("captured");
    assert_eq!(paid.status(), PaymentStatus::Captured);
    assert_eq!(balance(&world).await, 0);
    let refund = Id::generate();
    for _ in 0..2 {
        let back = world
            .refund_of(&purchase, refund, 0, 400)
            .await
            .expect("back");
        assert_eq!(
            (back.status(), back.points_back),
            (PaymentStatus::PartiallyRefunded, 400)
        );
    }
    for _ in 0..2 {
        let back = world
            .void(&purchase)
            .await
            .expect("back")
            .expect("a payment");
        assert_eq!(
            (back.status(), back.points_back),
            (PaymentStatus::Refunded, 1_000)
        );
    }
    assert_eq!(balance(&world).await, 1_000);
    assert_eq!(
        (
            world.line.count("authorize"),
            world.line.count("capture"),
            world.line.count("refund")
        ),
        (authorized, captured, 0)
    );
    is_sound(&world).await;
}

/// The second row of the table in `docs/PRICING.md`.
#[tokio::test]
async fn a_refund_gives_back_points_beside_money_and_takes_back_what_the_money_earned() {
    let world = where_earned(300).await;
    let purchase = new_purchase();
    let asked = world
        .authorize_using(&purchase, "sandbox_ok", 700, 300)
        .await;
    asked.expect("authorized");
    world.capture(&purchase).await.expect("captured");
    assert_eq!(balance(&world).await, 7);
    let refund = Id::generate();
    for _ in 0..2 {
        world
            .refund_of(&purchase, refund, 350, 150)
            .await
            .expect("refunded");
        assert_eq!(balance(&world).await, 7 + 150 - 4);
    }
    let other = world.refund_of(&purchase, refund, 350, 149).await;
    assert_eq!(
        reason(&other.expect_err("other points")),
        "IDEMPOTENCY_KEY_REUSED"
    );
    let refused = world.refund_of(&purchase, Id::generate(), 1, 151).await;
    assert_eq!(
        reason(&refused.expect_err("too many")),
        "REFUND_EXCEEDS_CAPTURED"
    );
    let all = world.refund_of(&purchase, Id::generate(), 350, 150).await;
    assert_eq!(all.expect("refunded").status(), PaymentStatus::Refunded);
    assert_eq!(balance(&world).await, 300);
    is_sound(&world).await;
}

/// S33: many purchases use one balance at once.
#[tokio::test]
async fn fifty_purchases_at_once_spend_a_balance_once_and_never_below_nothing() {
    let world = where_earned(100).await;
    let asked = (0..50).map(async |_| {
        world
            .authorize_using(&new_purchase(), "sandbox_ok", 500, 30)
            .await
    });
    let (won, lost): (Vec<_>, Vec<_>) = join_all(asked).await.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (3, 47));
    for refused in lost {
        let refused = refused.expect_err("of those that lost");
        assert_eq!(reason(&refused), "INSUFFICIENT_POINTS", "{refused:?}");
    }
    assert_eq!(balance(&world).await, 10);
    is_sound(&world).await;
}

#[tokio::test]
async fn money_that_comes_late_for_a_purchase_whose_points_went_back_goes_back() {
    let world = where_earned(100).await;
    let purchase = new_purchase();
    let waits = world
        .authorize_using(&purchase, "sandbox_3ds", 700, 100)
        .await;
    let waits = waits.expect("on its way");
    assert_eq!(balance(&world).await, 0);
    world.live(HOLD_SECS + 1).await;
    assert_eq!(
        world.payment(&waits.id).await.status(),
        PaymentStatus::Expired
    );
    assert_eq!(balance(&world).await, 100);
    world.provider_decides(&waits.id, "captured", 1).await;
    world.live(3).await;
    assert_eq!(
        world.payment(&waits.id).await.status(),
        PaymentStatus::Refunded
    );
    assert_eq!(balance(&world).await, 100);
    is_sound(&world).await;
}

#[tokio::test]
async fn a_refund_that_gives_points_back_and_takes_points_back_shows_both_on_any_page() {
    let world = where_earned(300).await;
    let purchase = new_purchase();
    let asked = world.authorize_using(&purchase, "sandbox_ok", 700, 300);
    asked.await.expect("authorized");
    world.capture(&purchase).await.expect("captured");
    let refunded = world.refund_of(&purchase, Id::generate(), 350, 150).await;
    refunded.expect("refunded");
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let page = Some(PageRequest { size: 1, token });
        let slice = points(&world, &world.customer, page).await;
        let entries = slice.entries.into_iter();
        seen.extend(entries.map(|entry| (entry.r#type, entry.points)));
        token = slice.page.expect("set").next_token;
        if token.is_empty() {
            break;
        }
    }
    seen.sort();
    let of = |kind: &str, points| (kind.to_owned(), points);
    assert_eq!(
        seen,
        [
            of("earned", 7),
            of("earned", 300),
            of("given_back", 150),
            of("taken_back", -4),
            of("used", -300),
        ]
    );
}

#[tokio::test]
async fn every_change_of_a_balance_is_told_once_in_order_and_names_no_person() {
    let world = where_earned(300).await;
    let purchase = new_purchase();
    for _ in 0..2 {
        let asked = world.authorize_using(&purchase, "sandbox_ok", 700, 300);
        asked.await.expect("authorized");
        world.capture(&purchase).await.expect("captured");
    }
    let refunded = world.refund_of(&purchase, Id::generate(), 350, 150).await;
    refunded.expect("refunded");
    let told = world.told_of_points().await;
    let seen: Vec<_> = (told.iter())
        .map(|message| {
            let data = &message.data;
            assert_eq!(message.kind, "points.changed");
            assert_eq!(
                message.key,
                format!("{}:JPY", data["user_id"].as_str().expect("an id"))
            );
            let figure = |name: &str| data[name].as_i64().expect("a figure");
            let reason = data["reason"].as_str().expect("a word");
            (message.version, reason, figure("delta"), figure("balance"))
        })
        .collect();
    assert_eq!(
        seen,
        [
            (1, "earned", 300, 300),
            (2, "used", -300, 0),
            (3, "earned", 7, 7),
            (4, "given_back", 150, 157),
            (5, "taken_back", -4, 153),
        ]
    );
    let last = &told[4].data;
    assert_eq!(last["purchase_id"], purchase);
    let members: Vec<_> = last.as_object().expect("an object").keys().collect();
    assert_eq!(members.len(), 7, "{members:?}");
    assert_eq!(world.told_of_points().await.len(), 0, "told once");
}

#[tokio::test]
async fn a_payment_earns_at_the_rate_it_began_at_whatever_is_set_since() {
    let world = World::new().await;
    let (old, new) = (new_purchase(), new_purchase());
    world.authorize(&old, "sandbox_ok").await.expect("ok");
    let world = world.restarted_at(50);
    world.capture(&old).await.expect("captured");
    assert_eq!(balance(&world).await, 12);
    world.authorize(&new, "sandbox_ok").await.expect("ok");
    world.capture(&new).await.expect("captured");
    assert_eq!(balance(&world).await, 12 + 25);
    for purchase in [&old, &new] {
        let refunded = world.refund(purchase, Id::generate(), 1_250).await;
        refunded.expect("refunded");
    }
    assert_eq!(balance(&world).await, 0);
    assert_eq!(written_off(&world).await, 0);
    is_sound(&world).await;
}

#[tokio::test]
async fn more_points_than_there_are_are_refused_with_both_figures() {
    let world = where_earned(100).await;
    let purchase = new_purchase();
    let asked = world.authorize_using(&purchase, "sandbox_ok", 500, 101);
    let refused = Fault::from_status(&asked.await.expect_err("too many"));
    assert_eq!(refused.reason(), "INSUFFICIENT_POINTS");
    assert_eq!(
        (refused.figure("asked"), refused.figure("available")),
        (Some("101"), Some("100"))
    );
    assert_eq!(
        world.line.count("authorize"),
        1,
        "the provider is not asked"
    );
    is_sound(&world).await;
}

/// What could go wrong between two writes of a payment that uses points.
#[tokio::test]
async fn a_crash_at_the_provider_holds_spends_and_gives_back_points_once() {
    for call in ["authorize", "capture", "void"] {
        let world = where_earned(100).await;
        let purchase = new_purchase();
        world.line.breaks(call, Break::Crash);
        for _ in 0..2 {
            let asked = world.authorize_using(&purchase, "sandbox_ok", 700, 100);
            asked.await.ok();
            if call == "void" {
                world.void(&purchase).await.ok();
            } else {
                world.capture(&purchase).await.ok();
            }
        }
        let left = if call == "void" { 100 } else { 7 };
        assert_eq!(balance(&world).await, left, "{call}");
        is_sound(&world).await;
    }
}
