use futures::future::join_all;
use holdfast_platform::fault::FaultCode;
use holdfast_proto::auth::v1 as pb;

use crate::world::{ADA, Mishap, PASSWORD, World};

#[tokio::test]
async fn an_account_comes_with_its_profile_and_is_announced_once() {
    let world = World::new().await;
    let account = world
        .register(" Ada@Example.com ", PASSWORD)
        .await
        .expect("registered");
    assert_eq!(account.email, ADA);
    assert_eq!(account.role, "user");
    // What users made of the languages they read.
    assert_eq!(account.locale, "ja");
    let [profile] = &world.users.profiles()[..] else {
        panic!("one profile");
    };
    assert_eq!(
        (&profile.user_id, &profile.email),
        (&account.id, &account.email)
    );
    assert_eq!(world.announced().await, ["user.registered v1"]);
    assert!(world.login(ADA, PASSWORD).await.is_ok());
}

#[tokio::test]
async fn an_address_in_other_letters_is_taken_and_its_owner_loses_nothing() {
    let world = World::new().await;
    world.register(ADA, PASSWORD).await.expect("registered");
    let refused = world
        .register("ADA@EXAMPLE.COM", "another horse battery staple")
        .await
        .expect_err("taken");
    assert_eq!(refused.reason(), "EMAIL_TAKEN");
    assert_eq!(refused.code(), FaultCode::Conflict);
    assert!(world.login(ADA, PASSWORD).await.is_ok());
    assert_eq!(world.announced().await, ["user.registered v1"]);
}

#[tokio::test]
async fn what_cannot_be_taken_leaves_no_account_and_names_its_field() {
    let world = World::new().await;
    let refused = world
        .register("ada", PASSWORD)
        .await
        .expect_err("no address");
    assert_eq!(refused.reason(), "INVALID_ARGUMENT");
    assert_eq!(refused.items()[0]["field"], "email");
    let refused = world
        .register(ADA, "ada@example")
        .await
        .expect_err("guessed");
    assert_eq!(refused.reason(), "WEAK_PASSWORD");
    assert_eq!(refused.items()[0]["field"], "password");
    assert_eq!(world.count("account").await, 0);
    assert!(world.users.profiles().is_empty());
}

#[tokio::test]
async fn a_name_that_users_refuses_is_told_to_who_sent_it_and_the_address_stays_free() {
    let world = World::new().await;
    world.users.befall(Mishap::NameRefused);
    let refused = world.register(ADA, PASSWORD).await.expect_err("no name");
    assert_eq!(refused.reason(), "INVALID_ARGUMENT");
    assert_eq!(refused.items()[0]["field"], "name");
    assert!(world.announced().await.is_empty());
    assert!(world.register(ADA, PASSWORD).await.is_ok());
}

#[tokio::test]
async fn a_registration_cut_off_at_the_profile_is_healed_by_the_next_one() {
    for mishap in [Mishap::AwayBeforeWriting, Mishap::AwayAfterWriting] {
        let world = World::new().await;
        world.users.befall(mishap);
        let failed = world
            .register(ADA, "an older horse battery")
            .await
            .expect_err("cut off");
        assert_eq!(failed.code(), FaultCode::Unavailable);
        let refused = world
            .login(ADA, "an older horse battery")
            .await
            .expect_err("no account");
        assert_eq!(refused.reason(), "INVALID_CREDENTIALS");
        assert!(world.announced().await.is_empty());

        let account = world.register(ADA, PASSWORD).await.expect("healed");
        let [profile] = &world.users.profiles()[..] else {
            panic!("one profile, whichever registration wrote it");
        };
        assert_eq!(profile.user_id, account.id);
        assert_eq!(world.announced().await, ["user.registered v1"]);
        assert!(world.login(ADA, PASSWORD).await.is_ok());
        assert!(world.login(ADA, "an older horse battery").await.is_err());
    }
}

#[tokio::test]
async fn of_ten_registrations_of_one_address_one_wins_and_its_password_alone_logs_in() {
    let world = World::with(|settings| settings.hash_threads = 4).await;
    let passwords: Vec<String> = (0..10).map(|n| format!("{PASSWORD} {n}")).collect();
    let outcomes = join_all(
        passwords
            .iter()
            .map(|password| world.register(ADA, password)),
    )
    .await;
    let mut won = Vec::new();
    for (password, outcome) in passwords.iter().zip(outcomes) {
        match outcome {
            Ok(account) => won.push((password, account)),
            Err(refused) => assert_eq!(refused.reason(), "EMAIL_TAKEN"),
        }
    }
    let [(winner, account)] = &won[..] else {
        panic!("{} won", won.len());
    };
    for password in &passwords {
        assert_eq!(
            world.login(ADA, password).await.is_ok(),
            password == *winner
        );
    }
    assert_eq!(world.users.profiles()[0].user_id, account.id);
    assert_eq!(world.announced().await, ["user.registered v1"]);
}

#[tokio::test]
async fn a_role_cannot_be_asked_for() {
    let world = World::new().await;
    let account: pb::Account = world.register(ADA, PASSWORD).await.expect("registered");
    let tokens = world.login(ADA, PASSWORD).await.expect("logged in");
    assert_eq!(
        account.role,
        world.claims(&tokens.access_token).await.role.as_str()
    );
}
