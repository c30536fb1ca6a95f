use std::collections::HashSet;

use holdfast_platform::identity::Role;

use crate::world::{ADA, PASSWORD, World};

#[tokio::test]
async fn minted_accounts_are_whole_accounts_that_nobody_logs_in_to() {
    let world = World::new().await;
    let tokens = world
        .operator()
        .await
        .mint_accounts(Role::Staff, 30)
        .await
        .expect("minted");
    let mut users = HashSet::new();
    for token in &tokens {
        let claims = world.claims(token).await;
        assert_eq!(claims.role, Role::Staff);
        users.insert(claims.sub.to_string());
    }
    assert_eq!(users.len(), 30);
    let profiles = world.users.profiles();
    assert_eq!(profiles.len(), 30);
    assert!(
        profiles
            .iter()
            .all(|profile| users.contains(&profile.user_id))
    );
    assert_eq!(world.announced().await.len(), 30);
    assert!(world.logout(&tokens[0]).await.is_ok());
    for password in ["", PASSWORD] {
        assert!(world.login(&profiles[0].email, password).await.is_err());
    }
}

#[tokio::test]
async fn ensuring_an_account_makes_it_once_and_then_sets_password_and_role() {
    let world = World::new().await;
    let operator = world.operator().await;
    let made = operator
        .ensure_account(ADA, PASSWORD, "Ada", Role::User)
        .await
        .expect("made");
    let other = "other horse battery staple";
    let kept = operator
        .ensure_account(ADA, other, "Ada", Role::Admin)
        .await
        .expect("kept");
    assert_eq!(made, kept);
    assert_eq!(world.users.profiles().len(), 1);
    assert_eq!(world.announced().await, ["user.registered v1"]);
    assert!(world.login(ADA, PASSWORD).await.is_err());
    let tokens = world.login(ADA, other).await.expect("logged in");
    assert_eq!(world.claims(&tokens.access_token).await.role, Role::Admin);
}

#[tokio::test]
async fn commands_of_the_owner_act_under_one_account_that_no_admin_changes() {
    let world = World::new().await;
    let operator = world.operator().await;
    let first = operator.own_token().await.expect("an account");
    let again = operator.own_token().await.expect("the same account");
    let claims = world.claims(&first).await;
    assert_eq!(claims.sub, world.claims(&again).await.sub);
    assert_eq!(claims.role, Role::Admin);

    let admin = world.somebody(Role::Admin).await;
    let owner = claims.sub.to_string();
    for refused in [
        world.set_role(&admin, &owner, "user").await.err(),
        world.set_active(&admin, &owner, false).await.err(),
        world.erase(&admin, &owner).await.err(),
    ] {
        assert_eq!(refused.expect("nobody may").reason(), "OWNERS_ACCOUNT");
    }
    assert!(world.is_open(&claims.sid.to_string()).await);
}
