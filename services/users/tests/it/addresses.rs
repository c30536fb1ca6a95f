//! Addresses at the door.

use futures::future::join_all;
use holdfast_kernel::RequestId;
use holdfast_platform::{fault::Fault, identity::Role};
use holdfast_proto::users::v1 as pb;
use holdfast_testkit::Asker;

use crate::world::World;

fn home() -> pb::PostalAddress {
    pb::PostalAddress {
        name: "Ada".to_owned(),
        line1: "12 St James's Square".to_owned(),
        city: "London".to_owned(),
        country: "gb".to_owned(),
        location: Some(pb::Location {
            lat: 51.5,
            lng: -0.1,
        }),
        ..pb::PostalAddress::default()
    }
}

async fn add(
    world: &World,
    request_id: RequestId,
    postal: pb::PostalAddress,
) -> Result<pb::Address, Fault> {
    let request = pb::AddAddressRequest {
        request_id: request_id.to_string(),
        postal: Some(postal),
    };
    match world.client().add_address(world.owner().ask(request)).await {
        Ok(answer) => Ok(answer.into_inner().address.expect("an address")),
        Err(status) => Err(Fault::from_status(&status)),
    }
}

async fn list(world: &World, asker: &Asker) -> Vec<pb::Address> {
    let listed = world
        .client()
        .list_addresses(asker.ask(pb::ListAddressesRequest {}))
        .await;
    listed.expect("listed").into_inner().addresses
}

async fn change(
    world: &World,
    asker: &Asker,
    request: pb::ChangeAddressRequest,
) -> Result<pb::Address, Fault> {
    match world.client().change_address(asker.ask(request)).await {
        Ok(answer) => Ok(answer.into_inner().address.expect("an address")),
        Err(status) => Err(Fault::from_status(&status)),
    }
}

#[tokio::test]
async fn the_same_request_many_times_is_one_address_and_another_under_its_id_is_refused() {
    let world = World::new().await;
    world.create_profile("ada@example.com", "Ada").await;
    let request_id = RequestId::generate();
    let added = join_all((0..10).map(|_| add(&world, request_id, home()))).await;
    for address in &added {
        assert_eq!(
            address.as_ref().expect("added"),
            added[0].as_ref().expect("added")
        );
    }
    let other = pb::PostalAddress {
        city: "York".to_owned(),
        ..home()
    };
    let refused = add(&world, request_id, other).await.expect_err("another");
    assert_eq!(refused.reason(), "REQUEST_MISMATCH");
    let kept = list(&world, world.owner()).await;
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].postal.as_ref().expect("set").country, "GB");
}

#[tokio::test]
async fn what_is_said_changes_and_the_rest_stays_unless_it_was_changed_meanwhile() {
    let world = World::new().await;
    world.create_profile("ada@example.com", "Ada").await;
    let address = add(&world, RequestId::generate(), home())
        .await
        .expect("added");
    let york = |expected_version| pb::ChangeAddressRequest {
        address_id: address.id.clone(),
        expected_version,
        city: Some("York".to_owned()),
        location: Some(pb::LocationChange { location: None }),
        ..pb::ChangeAddressRequest::default()
    };
    for _ in 0..2 {
        let changed = change(&world, world.owner(), york(0))
            .await
            .expect("changed");
        let postal = changed.postal.expect("set");
        assert_eq!(
            (postal.city.as_str(), postal.name.as_str(), postal.location),
            ("York", "Ada", None)
        );
        assert_eq!(changed.version, 2);
    }
    let refused = change(&world, world.owner(), york(1))
        .await
        .expect_err("moved on");
    assert_eq!(refused.reason(), "ADDRESS_CHANGED");
    let nowhere = pb::ChangeAddressRequest {
        country: Some("XX".to_owned()),
        ..york(0)
    };
    let refused = change(&world, world.owner(), nowhere)
        .await
        .expect_err("no country");
    assert_eq!(refused.items()[0]["field"], "country");
}

#[tokio::test]
async fn anothers_addresses_do_not_exist() {
    let world = World::new().await;
    world.create_profile("ada@example.com", "Ada").await;
    let address = add(&world, RequestId::generate(), home())
        .await
        .expect("added");
    for role in [Role::User, Role::Admin] {
        let other = world.somebody(role);
        assert!(list(&world, &other).await.is_empty());
        let request = pb::ChangeAddressRequest {
            address_id: address.id.clone(),
            ..pb::ChangeAddressRequest::default()
        };
        let refused = change(&world, &other, request)
            .await
            .expect_err("not theirs");
        assert_eq!(refused.reason(), "UNKNOWN_ADDRESS");
        let request = pb::RemoveAddressRequest {
            address_id: address.id.clone(),
            expected_version: 0,
        };
        let refused = world.client().remove_address(other.ask(request)).await;
        let refused = Fault::from_status(&refused.expect_err("not theirs"));
        assert_eq!(refused.reason(), "UNKNOWN_ADDRESS");
    }
    let request = pb::RemoveAddressRequest {
        address_id: address.id,
        expected_version: 1,
    };
    world
        .client()
        .remove_address(world.owner().ask(request))
        .await
        .expect("removed");
    assert!(list(&world, world.owner()).await.is_empty());
}

#[tokio::test]
async fn fifty_addresses_are_kept_however_many_are_added_at_once() {
    let world = World::new().await;
    world.create_profile("ada@example.com", "Ada").await;
    for _ in 0..47 {
        let added = add(&world, RequestId::generate(), home()).await;
        added.expect("there is room");
    }
    let added = join_all((0..8).map(|_| add(&world, RequestId::generate(), home()))).await;
    let refused: Vec<_> = added.into_iter().filter_map(Result::err).collect();
    let is_full = |fault: &Fault| fault.reason() == "TOO_MANY_ADDRESSES";
    assert!(refused.iter().all(is_full), "{refused:?}");
    let kept = list(&world, world.owner()).await;
    assert_eq!((refused.len(), kept.len()), (5, 50));
}

#[tokio::test]
async fn nothing_in_the_tables_tells_where_somebody_lives() {
    let world = World::new().await;
    world.create_profile("ada@example.com", "Ada").await;
    add(&world, RequestId::generate(), home())
        .await
        .expect("added");
    let lies: String = sqlx::query_scalar("SELECT encode(sealed, 'escape') FROM address")
        .fetch_one(&world.database())
        .await
        .expect("sealed");
    assert!(!lies.contains("London") && !lies.contains("51.5"), "{lies}");
}
