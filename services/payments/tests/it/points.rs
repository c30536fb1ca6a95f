//! Points: earned by money that is kept, taken back with it, never below nothing.

use futures::future::join_all;
use holdfast_kernel::Id;
use holdfast_platform::identity::Role;
use holdfast_proto::{page::v1::PageRequest, payments::v1 as pb};
use holdfast_testkit::Asker;

use crate::world::{Break, World, card, new_purchase};

async fn points(world: &World, asker: &Asker, page: Option<PageRequest>) -> pb::ListPointsResponse {
    let request = asker.ask(pb::ListPointsRequest { page });
    let answer = world.client().list_points(request).await;
    answer.expect("points").into_inner()
}

async fn balance(world: &World) -> i64 {
    let shown = points(world, &world.customer, None).await;
    shown.balances.first().map_or(0, |balance| balance.points)
}

/// Spends as nobody can yet: by hand, so that there is less to take back.
async fn lose(world: &World, left: i64) {
    sqlx::query("UPDATE point_account SET balance = $1")
        .bind(left)
        .execute(&world.db.owner())
        .await
        .expect("changed");
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
    lose(&world, 5).await;
    let refunded = world.refund(&purchase, Id::generate(), 1_250).await;
    refunded.expect("refunded");
    assert_eq!(balance(&world).await, 0);
    assert_eq!(written_off(&world).await, 7);
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
