use futures::future::join_all;

use crate::world::{ADA, PASSWORD, World};

const NEW: &str = "another horse battery staple";

#[tokio::test]
async fn a_new_password_ends_all_other_sessions_and_the_old_one_opens_none() {
    let world = World::new().await;
    let mut watcher = world.watch().await;
    let here = world.ada().await;
    let elsewhere = world.login(ADA, PASSWORD).await.expect("logged in");
    world
        .change_password(&here.access_token, PASSWORD, NEW)
        .await
        .expect("changed");
    let ended = world.claims(&elsewhere.access_token).await.sid.to_string();
    assert_eq!(watcher.ended().await, [ended]);
    assert!(world.refresh(&elsewhere.refresh_token).await.is_err());
    assert!(world.refresh(&here.refresh_token).await.is_ok());
    assert!(world.login(ADA, PASSWORD).await.is_err());
    assert!(world.login(ADA, NEW).await.is_ok());
    let audited = world.audited().await;
    assert!(
        audited
            .iter()
            .any(|line| line["action"] == "password_changed"),
        "{audited:?}"
    );
}

#[tokio::test]
async fn a_password_is_not_changed_without_the_current_one_nor_to_one_that_can_be_guessed() {
    let world = World::new().await;
    let tokens = world.ada().await;
    let refused = world
        .change_password(&tokens.access_token, "wrong", NEW)
        .await;
    assert_eq!(refused.expect_err("wrong").reason(), "WRONG_PASSWORD");
    let refused = world
        .change_password(&tokens.access_token, PASSWORD, "ada@example.com")
        .await;
    assert_eq!(refused.expect_err("guessed").reason(), "WEAK_PASSWORD");
    let machine = world
        .somebody(holdfast_platform::identity::Role::User)
        .await;
    let refused = world.change_password(&machine, "", NEW).await;
    assert_eq!(refused.expect_err("has none").reason(), "WRONG_PASSWORD");
    assert!(world.login(ADA, PASSWORD).await.is_ok());
}

#[tokio::test]
async fn of_many_changes_at_once_one_succeeds() {
    let world = World::with(|settings| settings.hash_threads = 4).await;
    let tokens = world.ada().await;
    let new: Vec<String> = (0..6).map(|number| format!("{NEW} {number}")).collect();
    let changes = join_all(
        new.iter()
            .map(|new| world.change_password(&tokens.access_token, PASSWORD, new)),
    )
    .await;
    let mut won = new
        .iter()
        .zip(&changes)
        .filter(|(_, change)| change.is_ok());
    let (winner, _) = won.next().expect("one succeeds");
    assert!(won.next().is_none(), "and no other");
    assert!(world.login(ADA, winner).await.is_ok());
}
