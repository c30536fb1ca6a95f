use holdfast_platform::fault::FaultCode;
use holdfast_proto::auth::v1 as pb;

use crate::world::{ADA, PASSWORD, World};

#[tokio::test]
async fn sessions_are_listed_with_what_tells_them_apart_the_latest_used_first() {
    let world = World::new().await;
    let here = world.ada().await;
    world.pass(60);
    let elsewhere = world.login(ADA, PASSWORD).await.expect("logged in");
    world.pass(60);
    let here = world.refresh(&here.refresh_token).await.expect("refreshed");
    let sessions = world.sessions(&here.access_token).await;
    let [first, second] = &sessions[..] else {
        panic!("{sessions:?}");
    };
    assert!(first.current && !second.current);
    assert_eq!(
        first.id,
        world.claims(&here.access_token).await.sid.to_string()
    );
    assert_eq!(
        second.id,
        world.claims(&elsewhere.access_token).await.sid.to_string()
    );
    assert_eq!(first.user_agent, "a test");
    let [made, used, over] = [first.created_at, first.last_used_at, first.expires_at]
        .map(|moment| moment.expect("set").seconds);
    assert_eq!((used - made, over - made), (120, 86_400));
}

#[tokio::test]
async fn a_session_ended_elsewhere_is_over_and_anothers_does_not_exist() {
    let world = World::new().await;
    let here = world.ada().await;
    let elsewhere = world.login(ADA, PASSWORD).await.expect("logged in");
    let there = world.claims(&elsewhere.access_token).await.sid.to_string();
    world
        .register("eve@example.com", PASSWORD)
        .await
        .expect("registered");
    let eve = world
        .login("eve@example.com", PASSWORD)
        .await
        .expect("logged in");
    let refused = world.end_session(&eve.access_token, &there).await;
    assert_eq!(refused.expect_err("not hers").code(), FaultCode::NotFound);
    let refused = world.end_session(&here.access_token, "ses_1").await;
    assert_eq!(refused.expect_err("no id").code(), FaultCode::Invalid);

    for _ in 0..2 {
        world
            .end_session(&here.access_token, &there)
            .await
            .expect("ended");
    }
    assert_eq!(world.sessions(&here.access_token).await.len(), 1);
    assert_eq!(
        world
            .refresh(&elsewhere.refresh_token)
            .await
            .err()
            .as_deref(),
        Some("REFRESH_INVALID")
    );
    assert!(world.refresh(&here.refresh_token).await.is_ok());
}

#[tokio::test]
async fn every_process_is_told_of_a_session_that_ended_in_any_of_them() {
    let world = World::new().await;
    let other = world.another(|_| ()).await;
    let mut watchers = [world.watch().await, other.watch().await];
    assert!(watchers.iter().all(|watcher| watcher.snapshot.is_empty()));
    let tokens = world.ada().await;
    let session = world.claims(&tokens.access_token).await.sid.to_string();
    assert!(world.is_open(&session).await);

    world
        .logout(&tokens.access_token)
        .await
        .expect("logged out");
    for watcher in &mut watchers {
        assert_eq!(watcher.ended().await, std::slice::from_ref(&session));
    }
    assert!(!other.is_open(&session).await);
    assert_eq!(
        other.watch().await.snapshot,
        [session],
        "who comes later is told too"
    );
}

#[tokio::test]
async fn a_family_that_was_stolen_from_is_told_and_a_second_logout_is_not() {
    let world = World::new().await;
    let mut watcher = world.watch().await;
    let stolen = world.ada().await;
    let mut tokens = stolen.clone();
    for _ in 0..2 {
        tokens = world
            .refresh(&tokens.refresh_token)
            .await
            .expect("refreshed");
    }
    assert!(world.refresh(&stolen.refresh_token).await.is_err());
    let session = world.claims(&stolen.access_token).await.sid.to_string();
    assert_eq!(watcher.ended().await, [session]);
    world
        .logout(&stolen.access_token)
        .await
        .expect("over already");
    assert_eq!(world.count("revocation").await, 1);
}

#[tokio::test]
async fn a_revocation_is_forgotten_once_its_access_tokens_are_dead_by_themselves() {
    let world = World::new().await;
    let tokens = world.ada().await;
    world
        .logout(&tokens.access_token)
        .await
        .expect("logged out");
    assert_eq!(world.count("revocation").await, 1);
    // An hour, and what clocks may lie apart.
    world.pass(3_600 + 60);
    // A process that starts looks at once.
    let other = world.another(|_| ()).await;
    assert!(other.watch().await.snapshot.is_empty());
    assert_eq!(world.count("revocation").await, 0);
}

#[tokio::test]
async fn only_processes_of_the_installation_are_told() {
    let world = World::new().await;
    let told = world
        .auth
        .clone()
        .watch_revocations(pb::WatchRevocationsRequest {})
        .await;
    assert_eq!(
        told.expect_err("nobody").code(),
        tonic::Code::Unauthenticated
    );
    let tokens = world.ada().await;
    let request = crate::world::bearing(&tokens.access_token, pb::WatchRevocationsRequest {});
    let told = world.auth.clone().watch_revocations(request).await;
    assert_eq!(
        told.expect_err("a user").code(),
        tonic::Code::PermissionDenied
    );
}
