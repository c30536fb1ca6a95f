//! Orders that leave the house and arrive.

use holdfast_platform::{fault::Fault, identity::Role};
use holdfast_proto::orders::v1::OrderStatus;
use tonic::{Code, Status};

use crate::world::{PRICE, World, new_key, reason};

/// A refused move: its reason, and the two statuses it names.
fn refused(status: &Status) -> (String, String, String) {
    let fault = Fault::from_status(status);
    let figure = |name| fault.figure(name).unwrap_or_default().to_owned();
    (reason(status), figure("from"), figure("to"))
}

#[tokio::test]
async fn an_order_that_is_shipped_and_delivered_says_when_and_how_and_is_announced_once() {
    let (world, order) = World::where_bought("ok").await;
    let (ship, deliver) = (new_key(), new_key());
    for key in [&ship, &ship, &new_key()] {
        world.pass(1);
        let shipped = world.ship(key, &order.id, "4812").await.expect("shipped");
        assert_eq!(shipped.status(), OrderStatus::Shipped);
        assert_eq!(
            (shipped.carrier.as_str(), shipped.tracking.as_str()),
            ("Yamato", "4812")
        );
    }
    for key in [&deliver, &deliver, &new_key()] {
        world.pass(1);
        let delivered = world.deliver(key, &order.id).await.expect("delivered");
        assert_eq!(delivered.status(), OrderStatus::Delivered);
    }
    let after = world.order(&order.id).await;
    let made_at = order.created_at.expect("set").seconds;
    let since = |moment: Option<prost_types::Timestamp>| moment.expect("set").seconds - made_at;
    assert_eq!((since(after.shipped_at), since(after.delivered_at)), (1, 4));
    // The request that shipped it is met after it arrived.
    let met = world.ship(&ship, &order.id, "4812").await.expect("met");
    assert_eq!(met, after);
    assert_eq!(world.announced().await[3..], ["shipped v4", "delivered v5"]);
    let told: Vec<(String, String, String, bool)> = sqlx::query_as(
        "SELECT description, old_value, new_value, user_id = $1 FROM order_event WHERE user_id IS NOT NULL ORDER BY id",
    )
    .bind(world.staff.user.uuid())
    .fetch_all(&world.db.app())
    .await
    .expect("a history");
    let line =
        |what: &str, from: &str, to: &str| (what.to_owned(), from.to_owned(), to.to_owned(), true);
    assert_eq!(
        told[1..],
        [
            line("shipped by Yamato as 4812", "confirmed", "shipped"),
            line("delivered", "shipped", "delivered"),
        ]
    );
    world.is_sound().await;
}

#[tokio::test]
async fn a_move_that_delivery_does_not_allow_is_refused_with_both_statuses() {
    let (mut world, order) = World::where_bought("ok").await;
    let order = order.id;
    let illegal = |from: &str, to: &str| {
        (
            "INVALID_TRANSITION".to_owned(),
            from.to_owned(),
            to.to_owned(),
        )
    };
    let early = world.deliver(&new_key(), &order).await;
    assert_eq!(
        refused(&early.expect_err("not shipped")),
        illegal("confirmed", "delivered")
    );

    let key = new_key();
    world.ship(&key, &order, "1").await.expect("shipped");
    let other = world.ship(&key, &order, "2").await;
    assert_eq!(
        reason(&other.expect_err("another body")),
        "IDEMPOTENCY_KEY_REUSED"
    );
    let other = world.ship(&new_key(), &order, "2").await;
    assert_eq!(
        refused(&other.expect_err("another parcel")),
        illegal("shipped", "shipped")
    );
    // Money that goes back does not bring the goods back.
    world
        .refund(&order, &[], Some(PRICE))
        .await
        .expect("refunded");
    assert_eq!(
        world.order(&order).await.status(),
        OrderStatus::PartiallyRefunded
    );
    let late = world.cancel(&order).await;
    assert_eq!(
        refused(&late.expect_err("it has left")),
        illegal("shipped", "cancelled")
    );
    let arrived = world.deliver(&new_key(), &order).await.expect("delivered");
    assert_eq!(arrived.status(), OrderStatus::Delivered);
    let late = world.ship(&new_key(), &order, "1").await;
    assert_eq!(
        refused(&late.expect_err("it arrived")),
        illegal("delivered", "shipped")
    );

    let waits = world
        .buy(&[("MUG", 1)], "challenge")
        .await
        .expect("on its way");
    let early = world.ship(&new_key(), &waits.id, "1").await;
    assert_eq!(
        refused(&early.expect_err("not paid")),
        illegal("awaiting_payment", "shipped")
    );
    world.staff = world.realm.somebody(Role::User);
    let nobody = world.ship(&new_key(), &order, "1").await;
    assert_eq!(nobody.expect_err("no staff").code(), Code::PermissionDenied);
}
