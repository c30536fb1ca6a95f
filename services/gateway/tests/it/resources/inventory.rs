//! Pools: what is available, and the book of it.

use holdfast_platform::{
    fault::{Fault, FaultCode},
    identity::Role,
};
use holdfast_proto::inventory::v1 as inventory;
use http::Method;
use serde_json::json;

use super::AT;
use crate::world::World;

#[tokio::test]
async fn the_public_sees_what_is_available_and_staff_see_all() {
    let world = World::new().await;
    world.inventory.get_pools.otherwise(|asked| {
        Ok(inventory::GetPoolsResponse {
            pools: vec![pool(&asked.keys[0], 3)],
        })
    });
    for (path, key) in [
        ("/v1/inventory/TSHIRT-M", "sku:TSHIRT-M"),
        ("/v1/inventory/sku:TSHIRT-M", "sku:TSHIRT-M"),
        ("/v1/inventory/seat%3Aevt_1%3AS-A-12", "seat:evt_1:S-A-12"),
    ] {
        let told = world.get(path).send_nothing().await;
        assert_eq!(told.json(), json!({"key": key, "available": 7}), "{path}");
        assert_eq!(told.header("etag"), None);
    }
    let staff = world.somebody(Role::Staff);
    let told = world
        .get("/v1/inventory/A?at=2026-11-20T10:00:00Z")
        .by(&staff)
        .send_nothing()
        .await;
    assert_eq!(told.header("etag"), Some("\"3\""));
    assert_eq!(
        told.json(),
        json!({"key": "sku:A", "capacity": 10, "held": 1, "sold": 2, "blocked": 0, "overbook": 0,
            "available": 7, "low_at": null, "version": 9})
    );
    let asked = world.inventory.get_pools.asked().pop().expect("asked");
    assert_eq!(asked.at.map(|at| at.seconds), Some(1_795_168_800));
    world
        .inventory
        .get_pools
        .then(Ok(inventory::GetPoolsResponse::default()));
    let told = world.get("/v1/inventory/A").send_nothing().await;
    assert_eq!(told.problem(), (404, "unknown_pool".into()));
}

#[tokio::test]
async fn staff_begin_to_keep_a_pool_and_adjust_it() {
    let world = World::new().await;
    let staff = world.somebody(Role::Staff);
    world.inventory.adjust.otherwise(|asked| {
        let change = &asked.changes[0];
        let made = pool(&change.pool, change.expected_capacity_version + 1);
        Ok(inventory::AdjustResponse { pools: vec![made] })
    });
    let told = world
        .post("/v1/inventory")
        .by(&staff)
        .key("k")
        .send(&json!({"key": "A", "capacity": 10}))
        .await;
    assert_eq!(
        (told.status.as_u16(), told.header("etag")),
        (201, Some("\"1\""))
    );
    let adjust = || {
        world
            .post("/v1/inventory/A/adjustments")
            .by(&staff)
            .with("if-match", "\"1\"")
    };
    let told = adjust()
        .key("k")
        .send(&json!({"delta": -2, "reason": "counted"}))
        .await;
    assert_eq!(
        (told.status.as_u16(), told.header("etag")),
        (200, Some("\"2\""))
    );
    let asked = world.inventory.adjust.asked();
    assert_eq!(asked[0].changes[0].expected_capacity_version, 0);
    assert_eq!(
        (
            asked[1].changes[0].delta,
            asked[1].changes[0].expected_capacity_version
        ),
        (-2, 1)
    );
    assert_eq!(
        (asked[1].actor.as_str(), asked[1].reason.as_str()),
        (staff.user.to_string().as_str(), "counted")
    );
    assert_ne!(asked[0].request_id, asked[1].request_id);
}

#[tokio::test]
async fn an_adjustment_that_cannot_be_is_refused_with_the_figures() {
    let world = World::new().await;
    let staff = world.somebody(Role::Staff);
    let refusals = [
        (
            Fault::new(FaultCode::Conflict, "CAPACITY_CHANGED", "at 5, not 1").with("version", 5),
            412,
            "precondition_failed",
        ),
        (
            Fault::new(FaultCode::Conflict, "BELOW_COMMITTED", "8 held and sold")
                .with("held", 3)
                .with("sold", 5),
            409,
            "below_committed",
        ),
    ];
    for (number, (fault, status, code)) in refusals.into_iter().enumerate() {
        world.inventory.adjust.then(Err(fault.into()));
        let told = world
            .post("/v1/inventory/A/adjustments")
            .by(&staff)
            .with("if-match", "\"1\"")
            .key(&format!("r{number}"))
            .send(&json!({"delta": -9, "reason": "x"}))
            .await;
        assert_eq!(told.problem(), (status, code.into()));
        assert!(told.json()["version"] == 5 || told.json()["sold"] == 5);
    }
}

#[tokio::test]
async fn staff_bound_a_pool_and_read_its_book() {
    let world = World::new().await;
    let staff = world.somebody(Role::Staff);
    world
        .inventory
        .set_policy
        .then(Ok(inventory::SetPolicyResponse {
            pool: Some(pool("sku:A", 3)),
        }));
    let told = world
        .ask(Method::PUT, "/v1/inventory/A/policy")
        .by(&staff)
        .with("if-match", "\"2\"")
        .send(&json!({"overbook": 2, "low_at": 1}))
        .await;
    assert_eq!(
        (told.status.as_u16(), told.header("etag")),
        (200, Some("\"3\""))
    );
    let asked = world.inventory.set_policy.asked().remove(0);
    assert_eq!(
        (
            asked.overbook,
            asked.low_at,
            asked.expected_capacity_version
        ),
        (2, Some(1), 2)
    );

    let movement = inventory::Movement {
        version: 1,
        kind: inventory::MovementKind::Adjust.into(),
        quantity: 10,
        capacity_after: 10,
        at: AT,
        effective_at: AT,
        actor: "usr_1".to_owned(),
        ..inventory::Movement::default()
    };
    let movements = vec![movement];
    world
        .inventory
        .list_movements
        .then(Ok(inventory::ListMovementsResponse {
            movements,
            page: None,
        }));
    let told = world
        .get("/v1/inventory/A/movements")
        .by(&staff)
        .send_nothing()
        .await
        .json();
    assert_eq!(
        (&told["data"][0]["kind"], &told["data"][0]["hold_id"]),
        (&json!("adjust"), &json!(null))
    );
    assert_eq!(
        (&told["next_cursor"], &told["has_more"]),
        (&json!(null), &json!(false))
    );
}

fn pool(key: &str, version: i64) -> inventory::Pool {
    inventory::Pool {
        key: key.to_owned(),
        capacity: 10,
        held: 1,
        sold: 2,
        blocked: 0,
        overbook: 0,
        available: 7,
        low_at: None,
        version: 9,
        capacity_version: version,
    }
}
