//! What the public is shown of a pool, kept in memory: the writer's own changes at once, exact for all who decide by it.

use holdfast_platform::identity::Role;
use holdfast_proto::inventory::v1 as pb;
use holdfast_testkit::Meter;

use crate::world::{World, line};

const AVAILABLE: &str = "inventory.available";

fn one(key: &str) -> pb::GetPoolsRequest {
    pb::GetPoolsRequest {
        keys: vec![key.to_owned()],
        at: None,
    }
}

async fn publicly(world: &World, key: &str) -> Option<i64> {
    let answer = world
        .client()
        .get_pools(tonic::Request::new(one(key)))
        .await;
    let pools = answer.expect("anyone may").into_inner().pools;
    pools.first().map(|pool| pool.available)
}

#[tokio::test]
async fn a_pool_is_looked_at_once_until_it_changes_and_then_at_once() {
    let meter = Meter::new();
    let _measured = meter.measure();
    let world = World::new().await;
    world.hear(true);
    assert_eq!(publicly(&world, "sku:A").await, None);
    world.stock("sku:A", 5).await;
    for _ in 0..3 {
        assert_eq!(publicly(&world, "sku:A").await, Some(5));
    }
    assert_eq!(meter.reads(AVAILABLE, ["miss", "hit"]), [2, 2]);
    let hold = world.reserve(vec![line("sku:A", 2)]).await.expect("free");
    assert_eq!(publicly(&world, "sku:A").await, Some(3));
    world.commit(&hold.id).await.expect("live");
    assert_eq!(publicly(&world, "sku:A").await, Some(3));
    let back = world.give_back(&hold.id, vec![line("sku:A", 1)]).await;
    back.expect("sold");
    assert_eq!(publicly(&world, "sku:A").await, Some(4));
    let released = world.reserve(vec![line("sku:A", 4)]).await.expect("free");
    assert_eq!(publicly(&world, "sku:A").await, Some(0));
    let release = pb::ReleaseRequest {
        hold_id: released.id,
        actor: "usr_buyer".to_owned(),
        command: None,
    };
    let request = world.seller(release);
    world.client().release(request).await.expect("live");
    assert_eq!(publicly(&world, "sku:A").await, Some(4));
}

#[tokio::test]
async fn staff_and_sellers_read_the_ledger_and_nothing_that_is_kept() {
    let meter = Meter::new();
    let _measured = meter.measure();
    let world = World::new().await;
    world.hear(true);
    world.stock("sku:A", 5).await;
    publicly(&world, "sku:A").await;
    let read = meter.reads(AVAILABLE, ["miss", "hit"]);
    let staff = world.somebody(Role::Staff);
    let answer = world.client().get_pools(staff.ask(one("sku:A"))).await;
    let pool = answer.expect("staff may").into_inner().pools.remove(0);
    assert_eq!((pool.capacity, pool.capacity_version), (5, 1));
    assert_eq!(world.pool("sku:A").await, pool);
    assert_eq!(meter.reads(AVAILABLE, ["miss", "hit"]), read);
}

#[tokio::test]
async fn units_whose_hold_ran_out_are_shown_after_five_seconds_or_when_told() {
    let world = World::new().await;
    world.hear(true);
    world.stock("sku:A", 5).await;
    world.reserve(vec![line("sku:A", 5)]).await.expect("free");
    assert_eq!(publicly(&world, "sku:A").await, Some(0));
    world.pass(601);
    assert_eq!(publicly(&world, "sku:A").await, Some(5));
    // Another process of the service hears of it by message.
    world.stock("sku:B", 1).await;
    assert_eq!(publicly(&world, "sku:B").await, Some(1));
    world.hear(false);
    world.reserve(vec![line("sku:B", 1)]).await.expect("free");
    assert_eq!(publicly(&world, "sku:B").await, Some(0));
}
