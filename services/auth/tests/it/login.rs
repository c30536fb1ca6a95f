use futures::future::join_all;
use holdfast_kernel::Clock;
use holdfast_platform::{
    fault::{Fault, FaultCode},
    identity::Role,
};

use crate::world::{ADA, PASSWORD, SECRET, World};

#[tokio::test]
async fn a_login_gives_a_token_that_everybody_can_verify() {
    let world = World::new().await;
    let account = world.register(ADA, PASSWORD).await.expect("registered");
    let tokens = world
        .login("Ada@EXAMPLE.com", PASSWORD)
        .await
        .expect("logged in");
    assert_eq!(
        (tokens.expires_in, tokens.refresh_expires_in),
        (3_600, 86_400)
    );

    let claims = world.claims(&tokens.access_token).await;
    let now = world.clock.now().as_second();
    assert_eq!(claims.sub.to_string(), account.id);
    assert_eq!(claims.role, Role::User);
    assert_eq!((claims.iat, claims.exp), (now, now + 3_600));
    let header = jsonwebtoken::decode_header(&tokens.access_token).expect("a header");
    assert_eq!(header.typ.as_deref(), Some("at+jwt"));
    assert_eq!(header.alg, jsonwebtoken::Algorithm::EdDSA);

    world.pass(3_600);
    assert!(world.verifier.verify(&tokens.access_token).await.is_err());
}

#[tokio::test]
async fn an_unknown_address_and_a_wrong_password_are_answered_alike() {
    let world = World::new().await;
    world.register(ADA, PASSWORD).await.expect("registered");
    let wrong = world.try_login(ADA, "wrong").await.expect_err("wrong");
    assert_eq!(Fault::from_status(&wrong).reason(), "INVALID_CREDENTIALS");
    for (email, password) in [
        ("nobody@example.com", PASSWORD),
        ("not an address", PASSWORD),
        (ADA, ""),
        ("", ""),
    ] {
        let refused = world.try_login(email, password).await.expect_err("unknown");
        assert_eq!(refused.code(), wrong.code());
        assert_eq!(refused.message(), wrong.message());
        assert_eq!(refused.details(), wrong.details());
    }
    assert_eq!(world.count("session").await, 0);
}

#[tokio::test]
async fn a_storm_of_logins_is_told_to_come_back_and_takes_a_bounded_number_of_hashes() {
    let world = World::with(|settings| {
        settings.hash_threads = 1;
        settings.hash_queue = 2;
    })
    .await;
    let storm = join_all((0..100).map(|_| world.login("nobody@example.com", PASSWORD))).await;
    let refused: Vec<Fault> = storm
        .into_iter()
        .map(|login| login.expect_err("nobody"))
        .collect();
    let busy = refused.iter().filter(|fault| fault.reason() == "BUSY");
    assert!(
        busy.clone()
            .all(|fault| fault.code() == FaultCode::Exhausted && fault.wait().is_some())
    );
    let busy = busy.count();
    assert!(
        (50..=97).contains(&busy),
        "{busy} of 100 were told to come back"
    );

    world
        .register(ADA, PASSWORD)
        .await
        .expect("the storm is over");
}

#[tokio::test]
async fn a_login_under_raised_parameters_renews_the_hash_and_a_failed_one_does_not() {
    let world = World::new().await;
    world.register(ADA, PASSWORD).await.expect("registered");
    let old = world.password_hash().await;
    let raised = world.another(|settings| settings.hash_passes = 3).await;
    assert!(raised.login(ADA, "wrong").await.is_err());
    assert_eq!(world.password_hash().await, old);
    assert!(raised.login(ADA, PASSWORD).await.is_ok());
    let new = world.password_hash().await;
    assert!(new.contains("m=19456,t=3,p=1"), "{new}");
    assert!(world.login(ADA, PASSWORD).await.is_ok());
    assert_eq!(world.password_hash().await, new);
}

#[tokio::test]
async fn parameters_below_the_floor_keep_the_service_from_starting() {
    let world = World::new().await;
    let weak = world
        .start(SECRET, |settings| settings.hash_memory_kib = 19_455)
        .await;
    let refused = weak.err().expect("too weak").to_string();
    assert!(refused.contains("auth.hash_memory_kib"), "{refused}");
}

#[tokio::test]
async fn a_login_forgets_the_sessions_that_are_over() {
    let world = World::new().await;
    world.ada().await;
    world.pass(86_399);
    world.login(ADA, PASSWORD).await.expect("logged in");
    assert_eq!(world.count("session").await, 2);
    world.pass(1);
    world.login(ADA, PASSWORD).await.expect("logged in");
    assert_eq!(world.count("session").await, 2);
}
