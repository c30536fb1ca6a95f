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
    for started in started {
        started.unwrap_or_else(|error| panic!("{error}"));
    }
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

fn key_of(tokens: &pb::Tokens) -> String {
    let header = jsonwebtoken::decode_header(&tokens.access_token).expect("a header");
    header.kid.expect("a name")
}

fn names(keys: &[Value]) -> Vec<String> {
    let names = keys.iter().map(|key| key["kid"].as_str().expect("a name"));
    names.map(ToOwned::to_owned).collect()
}

/// Waits until this process signs with another key than that.
async fn signs_anew(world: &World, old: &str) -> pb::Tokens {
    let anew = async {
        loop {
            let tokens = world.login(ADA, PASSWORD).await.expect("logged in");
            if key_of(&tokens) != old {
                return tokens;
            }
        }
    };
    let bound = std::time::Duration::from_secs(20);
    tokio::time::timeout(bound, anew)
        .await
        .expect("the keys turn")
}

#[tokio::test]
async fn an_old_key_gives_way_to_the_one_published_before_and_what_it_signed_lives_on() {
    let world = World::new().await;
    let before = world.ada().await;
    let (old, published) = (key_of(&before), names(&keys(&world).await));
    world.pass(30 * 86_400 - 1);
    let too_early = world.another(|_| ()).await;
    assert_eq!(names(&keys(&too_early).await), published);

    world.pass(1);
    // Signed at the last moment by a process that has not looked yet.
    let last = world.login(ADA, PASSWORD).await.expect("logged in");
    assert_eq!(key_of(&last), old);
    let other = world.another(|_| ()).await;
    let first = signs_anew(&other, &old).await;
    assert!(
        published.contains(&key_of(&first)),
        "it was known before it signed"
    );
    for tokens in [&last, &first] {
        other.claims(&tokens.access_token).await;
        world.claims(&tokens.access_token).await;
    }
    let now = keys(&world).await;
    assert_eq!(now.len(), 3, "retired, active, next");
    let private: i64 = sqlx::query_scalar(
        "SELECT count(sealed_private_key) FROM signing_key WHERE state = 'retired'",
    )
    .fetch_one(&world.database.app())
    .await
    .expect("counted");
    assert_eq!(private, 0, "a retired key signs nothing, whoever steals it");
}

#[tokio::test]
async fn a_key_does_not_sign_before_everybody_can_know_it() {
    let world = World::new().await;
    let old = key_of(&world.ada().await);
    let due = |age: &'static str| {
        let sql = format!(
            "UPDATE signing_key SET created_at = created_at - interval '{age}',
                activated_at = activated_at - interval '31 days'"
        );
        sqlx::query(sqlx::AssertSqlSafe(sql))
    };
    let db = world.database.app();
    due("0 s").execute(&db).await.expect("old");
    world.pass(599);
    let waiting = world.another(|_| ()).await;
    waiting.watch().await;
    let tokens = waiting.login(ADA, PASSWORD).await.expect("logged in");
    assert_eq!(key_of(&tokens), old);
    world.pass(1);
    signs_anew(&world.another(|_| ()).await, &old).await;
}

#[tokio::test]
async fn processes_that_look_at_once_turn_the_keys_once_and_retired_ones_go_after_their_tokens() {
    let world = World::new().await;
    let old = key_of(&world.ada().await);
    world.pass(30 * 86_400);
    let started = join_all((0..4).map(|_| world.another(|_| ()))).await;
    for other in &started {
        signs_anew(other, &old).await;
    }
    assert_eq!(world.count("signing_key").await, 3);
    // The token's hour and the time in which processes may still have signed with it.
    world.pass(3_600 + 600 + 1);
    let later = world.another(|_| ()).await;
    let gone = async {
        while names(&keys(&later).await).contains(&old) {
            tokio::task::yield_now().await;
        }
    };
    let bound = std::time::Duration::from_secs(20);
    tokio::time::timeout(bound, gone).await.expect("taken back");
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
