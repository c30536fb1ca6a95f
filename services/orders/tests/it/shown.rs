//! Orders kept in memory for their buyers: never older than what this process wrote, and nobody else's.

use holdfast_platform::identity::Role;
use holdfast_proto::orders::v1 as pb;
use holdfast_testkit::Asker;
use jiff::SignedDuration;
use tonic::{Code, Status};

use crate::world::World;

async fn seen_by(world: &World, asker: &Asker, order: &str) -> Result<pb::Order, Status> {
    let mut client = world.process.client();
    let request = asker.ask(pb::GetOrderRequest {
        order_id: order.to_owned(),
    });
    let answer = world
        .process
        .spawn(async move { client.get_order(request).await });
    let answer = answer.await.expect("it lives")?;
    Ok(answer.into_inner().order.expect("set"))
}

async fn payment(world: &World, asker: &Asker, order: &str) -> String {
    let order = seen_by(world, asker, order).await.expect("theirs");
    order.payment_status
}

#[tokio::test]
async fn an_order_is_read_once_until_it_is_told_of_and_after_five_minutes_in_any_case() {
    let world = World::new().await;
    world.process.hear(true);
    let order = world.buy(&[("TSHIRT", 1)], "ok").await.expect("bought").id;
    assert_eq!(payment(&world, &world.customer, &order).await, "captured");
    world.pay_behind_its_back(&order, "crow").await;
    assert_eq!(payment(&world, &world.customer, &order).await, "captured");
    // Staff see what is written.
    let staff = world.realm.somebody(Role::Staff);
    assert_eq!(payment(&world, &staff, &order).await, "crow");
    world.tell().await;
    assert_eq!(payment(&world, &world.customer, &order).await, "crow");

    world.pay_behind_its_back(&order, "dove").await;
    world.clock.advance(SignedDuration::from_secs(299));
    assert_eq!(payment(&world, &world.customer, &order).await, "crow");
    world.clock.advance(SignedDuration::from_secs(1));
    assert_eq!(payment(&world, &world.customer, &order).await, "dove");
    // Who hears nothing keeps nothing.
    world.process.hear(false);
    world.pay_behind_its_back(&order, "owl").await;
    assert_eq!(payment(&world, &world.customer, &order).await, "owl");
}

#[tokio::test]
async fn whatever_becomes_of_an_order_is_read_at_once() {
    let world = World::new().await;
    world.process.hear(true);
    let order = world.buy(&[("TSHIRT", 2)], "ok").await.expect("bought");
    let look = async || seen_by(&world, &world.customer, &order.id).await;
    assert_eq!(look().await.expect("theirs"), order);
    let cancelled = world.cancel(&order.id).await.expect("cancelled");
    assert_ne!(cancelled.status, order.status);
    assert_eq!(look().await.expect("theirs"), cancelled);
    let refused = world.buy(&[("MUG", 1)], "declined").await;
    refused.expect_err("declined");
}

#[tokio::test]
async fn what_is_kept_for_its_buyer_exists_for_nobody_else() {
    let world = World::new().await;
    world.process.hear(true);
    let order = world.buy(&[("TSHIRT", 1)], "ok").await.expect("bought").id;
    seen_by(&world, &world.customer, &order)
        .await
        .expect("theirs");
    let stranger = world.realm.somebody(Role::User);
    for _ in 0..2 {
        let refused = seen_by(&world, &stranger, &order).await;
        assert_eq!(refused.expect_err("a stranger").code(), Code::NotFound);
    }
    seen_by(&world, &world.customer, &order)
        .await
        .expect("still theirs");
}
