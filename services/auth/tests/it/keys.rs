use futures::future::join_all;
use holdfast_proto::auth::v1 as pb;
use serde_json::Value;

use crate::world::{ADA, ANOTHER_SECRET, PASSWORD, SECRET, World};

async fn keys(world: &World) -> Vec<Value> {
    let answer = world
        .auth
        .clone()
        .get_keys(pb::GetKeysRequest {})
        .await
        .expect("keys");
    let set: Value = serde_json::from_str(&answer.into_inner().jwks).expect("JSON");
    set["keys"].as_array().expect("keys").clone()
}

#[tokio::test]
async fn the_key_set_holds_public_halves_alone_and_the_next_key_before_it_signs() {
    let world = World::new().await;
    let tokens = world.ada().await;
    let header = jsonwebtoken::decode_header(&tokens.access_token).expect("a header");
    let keys = keys(&world).await;
    assert_eq!(keys.len(), 2, "one signs and one is next");
    assert!(
        keys.iter()
            .any(|key| key["kid"].as_str() == header.kid.as_deref())
    );
    for key in &keys {
        let members: Vec<&String> = key.as_object().expect("a key").keys().collect();
        assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x"]);
        assert_eq!(
            (&key["alg"], &key["crv"]),
            (&"EdDSA".into(), &"Ed25519".into())
        );
    }
}

#[tokio::test]
async fn processes_that_start_at_once_sign_with_one_key() {
    let world = World::new().await;
    sqlx::query("DELETE FROM signing_key")
        .execute(&world.database.app())
        .await
        .expect("no keys as yet");
    let started = join_all((0..8).map(|_| world.start(SECRET, |_| ()))).await;
    assert!(started.iter().all(Result::is_ok));
    assert_eq!(world.count("signing_key").await, 2);
}

#[tokio::test]
async fn a_token_of_one_process_is_known_to_another() {
    let world = World::new().await;
    let tokens = world.ada().await;
    let other = world.another(|_| ()).await;
    assert_eq!(
        other.claims(&tokens.access_token).await,
        world.claims(&tokens.access_token).await
    );
    let refreshed = other
        .refresh(&tokens.refresh_token)
        .await
        .expect("refreshed");
    assert!(world.refresh(&refreshed.refresh_token).await.is_ok());
}

#[tokio::test]
async fn a_start_under_another_secret_is_refused_by_name() {
    let world = World::new().await;
    let refused = world
        .start(ANOTHER_SECRET, |_| ())
        .await
        .err()
        .expect("not its keys");
    assert!(refused.to_string().contains("secret"), "{refused}");
}

#[tokio::test]
async fn a_key_put_in_the_place_of_another_is_not_opened() {
    let world = World::new().await;
    sqlx::query(
        "UPDATE signing_key SET sealed_private_key =
            (SELECT sealed_private_key FROM signing_key WHERE state = 'next') WHERE state = 'active'",
    )
    .execute(&world.database.app())
    .await
    .expect("swapped");
    assert!(world.start(SECRET, |_| ()).await.is_err());
}

#[tokio::test]
async fn known_keys_go_on_while_auth_is_away() {
    let world = World::new().await;
    let first = world.ada().await;
    world.claims(&first.access_token).await;
    let second = world.login(ADA, PASSWORD).await.expect("logged in");
    world.database.app().close().await;
    assert!(
        world
            .auth
            .clone()
            .get_keys(pb::GetKeysRequest {})
            .await
            .is_err()
    );
    world.claims(&second.access_token).await;
}
