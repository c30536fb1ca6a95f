use std::collections::HashSet;

use futures::future::join_all;
use holdfast_proto::auth::v1 as pb;

use crate::world::{ADA, PASSWORD, World, bearing};

#[tokio::test]
async fn each_refresh_gives_the_next_token_of_the_same_session() {
    let world = World::new().await;
    let first = world.ada().await;
    world.pass(60);
    let second = world
        .refresh(&first.refresh_token)
        .await
        .expect("refreshed");
    let third = world
        .refresh(&second.refresh_token)
        .await
        .expect("refreshed");
    assert_ne!(first.refresh_token, second.refresh_token);
    assert_ne!(second.refresh_token, third.refresh_token);
    let (before, after) = (
        world.claims(&first.access_token).await,
        world.claims(&third.access_token).await,
    );
    assert_eq!((before.sub, before.sid), (after.sub, after.sid));
    assert_eq!(after.iat, before.iat + 60);
    assert_eq!(third.refresh_expires_in, 86_400 - 60);
}

#[tokio::test]
async fn the_direct_predecessor_gets_the_same_successor_for_ten_seconds() {
    let world = World::new().await;
    let first = world.ada().await.refresh_token;
    let second = world
        .refresh(&first)
        .await
        .expect("refreshed")
        .refresh_token;
    world.pass(9);
    assert_eq!(
        world.refresh(&first).await.expect("grace").refresh_token,
        second
    );
    world.pass(1);
    assert_eq!(
        world.refresh(&first).await.err().as_deref(),
        Some("REFRESH_REUSED")
    );
}

#[tokio::test]
async fn a_token_used_again_ends_the_session_for_everybody_and_no_other_session() {
    let world = World::new().await;
    let first = world.ada().await.refresh_token;
    let elsewhere = world
        .login(ADA, PASSWORD)
        .await
        .expect("logged in")
        .refresh_token;
    let second = world
        .refresh(&first)
        .await
        .expect("refreshed")
        .refresh_token;
    let third = world
        .refresh(&second)
        .await
        .expect("refreshed")
        .refresh_token;
    // At once: grace is the direct predecessor's alone.
    for token in [&first, &second, &third] {
        assert_eq!(
            world.refresh(token).await.err().as_deref(),
            Some("REFRESH_REUSED")
        );
    }
    assert!(world.refresh(&elsewhere).await.is_ok());
}

#[tokio::test]
async fn twenty_refreshes_at_once_end_with_one_chain() {
    let world = World::new().await;
    let first = world.ada().await.refresh_token;
    let outcomes = join_all((0..20).map(|_| world.refresh(&first))).await;
    let successors: HashSet<String> = outcomes
        .into_iter()
        .map(|outcome| outcome.expect("within grace").refresh_token)
        .collect();
    assert_eq!(successors.len(), 1);
    let second = successors.into_iter().next().expect("one");
    assert!(world.refresh(&second).await.is_ok());
}

#[tokio::test]
async fn a_wrong_secret_beside_the_right_session_burns_nothing() {
    let world = World::new().await;
    let first = world.ada().await.refresh_token;
    let (head, last) = first.split_at(first.len() - 2);
    let forged = format!("{head}{}", if last == "AA" { "BA" } else { "AA" });
    for token in [
        forged.as_str(),
        head,
        "",
        "hrt_",
        "hrt_AAAA",
        &first[4..],
        &"x".repeat(100_000),
    ] {
        assert_eq!(
            world.refresh(token).await.err().as_deref(),
            Some("REFRESH_INVALID")
        );
    }
    assert!(world.refresh(&first).await.is_ok());
}

#[tokio::test]
async fn a_session_ends_a_day_after_its_login_and_no_access_token_outlives_it() {
    let world = World::new().await;
    let mut tokens = world.ada().await;
    world.pass(86_400 - 100);
    tokens = world.refresh(&tokens.refresh_token).await.expect("in time");
    assert_eq!((tokens.expires_in, tokens.refresh_expires_in), (100, 100));
    world.pass(100);
    assert_eq!(
        world.refresh(&tokens.refresh_token).await.err().as_deref(),
        Some("REFRESH_INVALID")
    );
    assert!(world.verifier.verify(&tokens.access_token).await.is_err());
}

#[tokio::test]
async fn a_logout_ends_this_session_and_no_other_and_twice_is_once() {
    let world = World::new().await;
    let here = world.ada().await;
    let elsewhere = world.login(ADA, PASSWORD).await.expect("logged in");
    for _ in 0..2 {
        world.logout(&here.access_token).await.expect("logged out");
    }
    assert_eq!(
        world.refresh(&here.refresh_token).await.err().as_deref(),
        Some("REFRESH_INVALID")
    );
    assert!(world.refresh(&elsewhere.refresh_token).await.is_ok());
}

#[tokio::test]
async fn a_refresh_token_opens_no_door_but_its_own() {
    let world = World::new().await;
    let tokens = world.ada().await;
    for token in [&tokens.refresh_token, "", "x.y.z"] {
        let refused = world.logout(token).await.expect_err("no access token");
        assert_eq!(refused.reason(), "UNAUTHENTICATED");
    }
    assert_eq!(
        world.refresh(&tokens.access_token).await.err().as_deref(),
        Some("REFRESH_INVALID")
    );
}

#[tokio::test]
async fn a_dead_access_token_is_no_hindrance_to_getting_a_living_one() {
    let world = World::new().await;
    let tokens = world.ada().await;
    world.pass(7_200);
    let request = pb::RefreshRequest {
        refresh_token: tokens.refresh_token,
    };
    let refreshed = world
        .auth
        .clone()
        .refresh(bearing(&tokens.access_token, request))
        .await;
    assert!(refreshed.is_ok());
}
