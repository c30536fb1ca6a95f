//! The users service at its door, on a real database.

use holdfast_proto::users::v1 as pb;
use tonic::Code;
use world::World;

mod world;

#[tokio::test]
async fn a_profile_is_written_once_and_announced_once() {
    let world = World::new().await;
    let first = world.create_profile("ada@example.com", "Ada").await;
    let again = world.create_profile("ada@example.com", "Somebody else").await;
    assert_eq!(first, again);
    assert_eq!(world.announced().await, ["user.updated v1"]);
}

#[tokio::test]
async fn a_user_renames_themselves_and_the_same_name_again_changes_nothing() {
    let world = World::new().await;
    let profile = world.create_profile("ada@example.com", "Ada").await;
    for _ in 0..2 {
        let renamed = world.rename("Ada Lovelace", 0).await.expect("renamed");
        assert_eq!(renamed.name, "Ada Lovelace");
        assert_eq!(renamed.version, profile.version + 1);
    }
    assert_eq!(world.announced().await, ["user.updated v1", "user.updated v2"]);
}

#[tokio::test]
async fn a_rename_of_a_version_that_moved_on_is_refused_and_leaves_no_trace() {
    let world = World::new().await;
    world.create_profile("ada@example.com", "Ada").await;
    world.rename("Ada L", 1).await.expect("renamed");
    let refused = world.rename("Ada Lovelace", 1).await.expect_err("stale");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(world.profile().await.name, "Ada L");
}

#[tokio::test]
async fn anothers_profile_does_not_exist_for_a_user() {
    let world = World::new().await;
    world.create_profile("ada@example.com", "Ada").await;
    let refused = world
        .as_stranger()
        .get_profile(pb::GetProfileRequest { user_id: world.user() })
        .await
        .expect_err("a stranger");
    assert_eq!(refused.code(), Code::NotFound);
}
