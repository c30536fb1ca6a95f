//! Passwords tried by who does not know them.

use futures::future::join_all;
use holdfast_platform::fault::{Fault, FaultCode};

use crate::world::{ADA, PASSWORD, World};

async fn guess(world: &World, email: &str) -> Fault {
    let tried = world.login_from("198.51.100.1", email, "wrong").await;
    tried.expect_err("a wrong password")
}

#[tokio::test]
async fn a_hundred_wrong_passwords_delay_and_lock_nobody_out_for_good() {
    let world = World::new().await;
    world.register(ADA, PASSWORD).await.expect("registered");
    for email in ["nobody@example.com", ADA] {
        for _ in 0..10 {
            assert_eq!(guess(&world, email).await.reason(), "INVALID_CREDENTIALS");
        }
        let mut tries = 0;
        for _ in 0..100 {
            let refused = guess(&world, email).await;
            if refused.reason() == "TOO_MANY_REQUESTS" {
                assert_eq!(refused.code(), FaultCode::Exhausted);
                let wait = refused.wait().expect("how long to wait");
                assert!((1..=60).contains(&wait.as_secs()), "{wait:?}");
            } else {
                tries += 1;
            }
            world.pass(1);
        }
        assert!(tries < 10, "{tries} of 100 were tried");
    }
    let refused = world.login(ADA, PASSWORD).await;
    assert_eq!(
        refused.expect_err("it waits too").reason(),
        "TOO_MANY_REQUESTS"
    );
    world.pass(60);
    world.login(ADA, PASSWORD).await.expect("a minute later");
    world.login(ADA, PASSWORD).await.expect("forgiven");
}

#[tokio::test]
async fn who_is_guessed_at_goes_on_logging_in_from_where_they_are_known() {
    let world = World::new().await;
    world.register(ADA, PASSWORD).await.expect("registered");
    let home = "192.0.2.1";
    world
        .login_from(home, ADA, PASSWORD)
        .await
        .expect("logged in");
    for _ in 0..30 {
        guess(&world, ADA).await;
    }
    assert_eq!(guess(&world, ADA).await.reason(), "TOO_MANY_REQUESTS");
    world
        .login_from(home, ADA, PASSWORD)
        .await
        .expect("not delayed");
    let elsewhere = world.login_from("192.0.2.2", ADA, PASSWORD).await;
    assert_eq!(
        elsewhere.expect_err("unknown there").reason(),
        "TOO_MANY_REQUESTS"
    );
    world.pass(31 * 86_400);
    for _ in 0..10 {
        guess(&world, ADA).await;
    }
    let home = world.login_from(home, ADA, PASSWORD).await;
    assert_eq!(
        home.expect_err("not known any more").reason(),
        "TOO_MANY_REQUESTS"
    );
}

#[tokio::test]
async fn a_place_that_guesses_at_many_accounts_is_slowed_down_and_its_own_account_helps_nothing() {
    let world = World::new().await;
    world
        .register("eve@example.com", PASSWORD)
        .await
        .expect("registered");
    for number in 0..50 {
        guess(&world, &format!("victim-{number}@example.com")).await;
    }
    let place = "198.51.100.1";
    let eve = world.login_from(place, "eve@example.com", PASSWORD).await;
    assert_eq!(eve.expect_err("slowed down").reason(), "TOO_MANY_REQUESTS");
    world.pass(1);
    world
        .login_from(place, "eve@example.com", PASSWORD)
        .await
        .expect("after a wait");
    assert_eq!(
        guess(&world, "victim-1@example.com").await.reason(),
        "TOO_MANY_REQUESTS"
    );
    let other = world
        .login_from("203.0.113.9", "victim-1@example.com", "wrong")
        .await;
    assert_eq!(other.expect_err("wrong").reason(), "INVALID_CREDENTIALS");
}

#[tokio::test]
async fn of_many_guesses_at_once_after_the_free_ones_one_is_tried() {
    let world = World::with(|settings| settings.hash_threads = 4).await;
    world.register(ADA, PASSWORD).await.expect("registered");
    for _ in 0..10 {
        guess(&world, ADA).await;
    }
    world.pass(1);
    let guesses = join_all((0..20).map(|_| guess(&world, ADA))).await;
    let tried = guesses
        .iter()
        .filter(|refused| refused.reason() == "INVALID_CREDENTIALS");
    assert_eq!(tried.count(), 1);
}
