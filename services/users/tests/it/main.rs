//! The users service at its door, on a real database.

mod addresses;
mod erasing;
mod sealing;
mod shown;
mod statements;
mod world;

use holdfast_platform::{fault::Fault, identity::Role};
use holdfast_proto::users::v1 as pb;
use tonic::{Code, Request};
use world::World;

#[tokio::test]
async fn a_profile_is_written_once_and_announced_once() {
    let world = World::new().await;
    let first = world.create_profile("ada@example.com", "Ada").await;
    let again = world
        .create_profile("ada@example.com", "Somebody else")
        .await;
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
    assert_eq!(
        world.announced().await,
        ["user.updated v1", "user.updated v2"]
    );
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
async fn a_person_is_written_to_in_the_language_they_read_until_they_name_another() {
    let world = World::new().await;
    let made = world
        .create_profile_of_reader("ada@example.com", "Ada", "fr, ja;q=0.8, en;q=0.5")
        .await;
    assert_eq!(made.locale, "ja");
    for _ in 0..2 {
        let changed = world.change(None, Some("en-GB"), 0).await.expect("changed");
        assert_eq!((changed.locale.as_str(), changed.version), ("en", 2));
        assert_eq!(changed.name, "Ada");
    }
    let renamed = world.rename("Ada Lovelace", 2).await.expect("renamed");
    assert_eq!(renamed.locale, "en");
    let refused = world.change(Some("Eve"), Some("tlh"), 0).await;
    let refused = Fault::from_status(&refused.expect_err("not ours"));
    assert_eq!(refused.items()[0]["field"], "locale");
    assert_eq!(world.profile().await, renamed);
}

#[tokio::test]
async fn who_reads_no_language_of_ours_names_none() {
    let world = World::new().await;
    let made = world
        .create_profile_of_reader("ada@example.com", "Ada", "fr,*;q=0.1")
        .await;
    assert_eq!(made.locale, "");
    assert_eq!(world.profile().await, made);
}

#[tokio::test]
async fn anothers_profile_does_not_exist_for_a_user_and_exists_for_staff() {
    let world = World::new().await;
    world.create_profile("ada@example.com", "Ada").await;
    let stranger = world.somebody(Role::User);
    let refused = world
        .profile_seen_by(&stranger)
        .await
        .expect_err("a stranger");
    assert_eq!(refused.code(), Code::NotFound);
    let staff = world.somebody(Role::Staff);
    assert!(world.profile_seen_by(&staff).await.is_ok());
}

#[tokio::test]
async fn admins_read_many_profiles_and_rename_anybody() {
    let world = World::new().await;
    world.create_profile("ada@example.com", "Ada").await;
    let (admin, staff) = (world.somebody(Role::Admin), world.somebody(Role::Staff));
    let request = || pb::GetProfilesRequest {
        user_ids: vec![world.user().to_string(), admin.user.to_string()],
    };
    let found = world.client().get_profiles(admin.ask(request())).await;
    let found = found.expect("an admin").into_inner().profiles;
    assert_eq!(found, [world.profile().await], "who has none is left out");
    let refused = world.client().get_profiles(staff.ask(request())).await;
    assert_eq!(refused.expect_err("staff").code(), Code::PermissionDenied);
    let many = pb::GetProfilesRequest {
        user_ids: vec![world.user().to_string(); 101],
    };
    let refused = world.client().get_profiles(admin.ask(many)).await;
    assert_eq!(refused.expect_err("too many").code(), Code::InvalidArgument);

    let rename = |name: &str| pb::UpdateProfileRequest {
        user_id: world.user().to_string(),
        name: Some(name.to_owned()),
        ..pb::UpdateProfileRequest::default()
    };
    let refused = world
        .client()
        .update_profile(staff.ask(rename("Eve")))
        .await;
    assert_eq!(refused.expect_err("staff").code(), Code::NotFound);
    let renamed = world
        .client()
        .update_profile(admin.ask(rename("Ada L")))
        .await;
    assert!(renamed.is_ok());
    assert_eq!(world.profile().await.name, "Ada L");
}

#[tokio::test]
async fn only_the_service_that_makes_accounts_makes_profiles() {
    let world = World::new().await;
    let request = || pb::CreateProfileRequest {
        user_id: world.user().to_string(),
        email: "ada@example.com".to_owned(),
        name: "Ada".to_owned(),
        languages: String::new(),
    };
    let admin = world.somebody(Role::Admin);
    let refused = world.client().create_profile(admin.ask(request())).await;
    assert_eq!(
        refused.expect_err("an admin").code(),
        Code::PermissionDenied
    );
    let refused = world.client().create_profile(Request::new(request())).await;
    assert_eq!(refused.expect_err("nobody").code(), Code::Unauthenticated);
}
