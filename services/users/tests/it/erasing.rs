//! Forgetting a person whose account was erased.

use holdfast_kernel::RequestId;
use holdfast_proto::users::v1 as pb;
use tonic::Code;

use crate::world::World;

async fn lives_in_york(world: &World) {
    let request = pb::AddAddressRequest {
        request_id: RequestId::generate().to_string(),
        postal: Some(pb::PostalAddress {
            name: "Ada".to_owned(),
            line1: "1 Shambles".to_owned(),
            city: "York".to_owned(),
            country: "GB".to_owned(),
            ..pb::PostalAddress::default()
        }),
    };
    let added = world.client().add_address(world.owner().ask(request)).await;
    added.expect("added");
}

#[tokio::test]
async fn of_an_erased_person_nothing_is_left_and_everybody_is_told_once() {
    let world = World::new().await;
    world
        .create_profile_of_reader("ada@example.com", "Ada", "ja")
        .await;
    lives_in_york(&world).await;
    for _ in 0..2 {
        world.hears_of_deactivation(true).await;
    }
    let refused = world
        .profile_seen_by(world.owner())
        .await
        .expect_err("forgotten");
    assert_eq!(refused.code(), Code::NotFound);
    let left: (i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM subject_key), (SELECT count(*) FROM address),
            (SELECT count(*) FROM profile WHERE sealed_name IS NOT NULL OR sealed_email IS NOT NULL
                OR locale IS NOT NULL)",
    )
    .fetch_one(&world.database())
    .await
    .expect("counted");
    assert_eq!(left, (0, 0, 0));
    assert_eq!(
        world.announced().await,
        ["user.updated v1", "user.erased v2"]
    );
    let refused = world.rename("Ada again", 0).await.expect_err("forgotten");
    assert_eq!(refused.code(), Code::NotFound);
}

#[tokio::test]
async fn whoever_may_not_log_in_for_a_while_is_not_forgotten() {
    let world = World::new().await;
    world.create_profile("ada@example.com", "Ada").await;
    world.hears_of_deactivation(false).await;
    assert_eq!(world.profile().await.name, "Ada");
}
