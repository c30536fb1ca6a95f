use futures::future::join_all;
use holdfast_platform::{fault::FaultCode, identity::Role};
use holdfast_proto::{auth::v1 as pb, page::v1::PageRequest};
use serde_json::json;

use crate::world::{ADA, PASSWORD, World, bearing};

async fn list(
    world: &World,
    token: &str,
    request: pb::ListAccountsRequest,
) -> pb::ListAccountsResponse {
    let listed = world
        .auth
        .clone()
        .list_accounts(bearing(token, request))
        .await;
    listed.expect("listed").into_inner()
}

#[tokio::test]
async fn an_account_is_seen_by_its_owner_and_by_admins_and_does_not_exist_for_others() {
    let world = World::new().await;
    let (admin, staff) = (
        world.somebody(Role::Admin).await,
        world.somebody(Role::Staff).await,
    );
    let tokens = world.ada().await;
    let ada = world.claims(&tokens.access_token).await.sub.to_string();
    for token in [&tokens.access_token, &admin] {
        let account = world.account(token, &ada).await.expect("seen");
        assert_eq!(
            (account.email.as_str(), account.role.as_str()),
            (ADA, "user")
        );
        assert!(account.is_active);
    }
    let refused = world.account(&staff, &ada).await.expect_err("not theirs");
    assert_eq!(refused.reason(), "UNKNOWN_USER");
    let nobody = "usr_00000000000000000000000001";
    let refused = world.account(&admin, nobody).await.expect_err("nobody");
    assert_eq!(refused.reason(), "UNKNOWN_USER");
}

#[tokio::test]
async fn accounts_are_listed_from_the_newest_on_without_gap_or_repetition_and_found_by_address() {
    let world = World::new().await;
    let admin = world.somebody(Role::Admin).await;
    for number in 0..5 {
        world.pass(1);
        let email = format!("buyer-{number}@example.com");
        world.register(&email, PASSWORD).await.expect("registered");
    }
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let page = Some(PageRequest { size: 2, token });
        let request = pb::ListAccountsRequest {
            page,
            email: String::new(),
        };
        let listed = list(&world, &admin, request).await;
        assert!(listed.accounts.len() <= 2);
        seen.extend(listed.accounts.into_iter().map(|account| account.email));
        token = listed.page.expect("set").next_token;
        if token.is_empty() {
            break;
        }
    }
    let newest_first: Vec<String> = (0..5)
        .rev()
        .map(|n| format!("buyer-{n}@example.com"))
        .collect();
    assert_eq!(seen[..5], newest_first);
    assert_eq!(seen.len(), 6, "and the admin");
    for (email, found) in [("Buyer-3@EXAMPLE.com", 1), ("nobody@example.com", 0)] {
        let request = pb::ListAccountsRequest {
            page: None,
            email: email.to_owned(),
        };
        assert_eq!(list(&world, &admin, request).await.accounts.len(), found);
    }
}

#[tokio::test]
async fn a_change_of_role_ends_the_sessions_that_say_otherwise_and_is_written_down() {
    let world = World::new().await;
    let mut watcher = world.watch().await;
    let admin = world.somebody(Role::Admin).await;
    let tokens = world.ada().await;
    let claims = world.claims(&tokens.access_token).await;
    let (ada, session) = (claims.sub.to_string(), claims.sid.to_string());
    for _ in 0..2 {
        let changed = world
            .set_role(&admin, &ada, "staff")
            .await
            .expect("changed");
        assert_eq!(changed.role, "staff");
    }
    assert_eq!(watcher.ended().await, [session]);
    assert!(world.refresh(&tokens.refresh_token).await.is_err());
    let tokens = world.login(ADA, PASSWORD).await.expect("logged in");
    assert_eq!(world.claims(&tokens.access_token).await.role, Role::Staff);

    let by = world.claims(&admin).await.sub.to_string();
    let audited = world.audited().await;
    let changes: Vec<_> = audited
        .iter()
        .filter(|line| line["action"] == "role_changed")
        .collect();
    assert_eq!(
        changes,
        [
            &json!({"service": "auth", "actor": by, "subject": ada, "action": "role_changed",
            "from": "user", "to": "staff"})
        ]
    );
    let refused = world
        .set_role(&admin, &ada, "owner")
        .await
        .expect_err("no role");
    assert_eq!(refused.items()[0]["field"], "role");
}

#[tokio::test]
async fn nobody_logs_in_to_an_account_that_is_not_active_and_nothing_tells_that_it_is_there() {
    let world = World::new().await;
    let mut watcher = world.watch().await;
    let admin = world.somebody(Role::Admin).await;
    let tokens = world.ada().await;
    let claims = world.claims(&tokens.access_token).await;
    let ada = claims.sub.to_string();
    for _ in 0..2 {
        let account = world
            .set_active(&admin, &ada, false)
            .await
            .expect("changed");
        assert!(!account.is_active);
    }
    assert_eq!(watcher.ended().await, [claims.sid.to_string()]);
    assert!(world.refresh(&tokens.refresh_token).await.is_err());
    let refused = world.login(ADA, PASSWORD).await.expect_err("not active");
    assert_eq!(refused.reason(), "INVALID_CREDENTIALS");
    let told = [
        "user.registered v1",
        "user.registered v1",
        "user.deactivated v2",
    ];
    assert_eq!(world.announced().await, told);

    world.set_active(&admin, &ada, true).await.expect("changed");
    world.login(ADA, PASSWORD).await.expect("logged in");
    world
        .set_active(&admin, &ada, false)
        .await
        .expect("changed");
    assert_eq!(
        world.announced().await.last().map(String::as_str),
        Some("user.deactivated v3")
    );
}

#[tokio::test]
async fn an_admin_does_not_shut_themselves_out_and_others_change_nobody() {
    let world = World::new().await;
    let admin = world.somebody(Role::Admin).await;
    let own = world.claims(&admin).await.sub.to_string();
    for refused in [
        world.set_role(&admin, &own, "user").await,
        world.set_active(&admin, &own, false).await,
    ] {
        assert_eq!(refused.expect_err("their own").reason(), "OWN_ACCOUNT");
    }
    let staff = world.somebody(Role::Staff).await;
    for refused in [
        world.set_role(&staff, &own, "user").await,
        world.set_active(&staff, &own, false).await,
    ] {
        assert_eq!(refused.expect_err("no admin").code(), FaultCode::Forbidden);
    }
}

#[tokio::test]
async fn of_logins_and_a_deactivation_at_once_no_session_is_left_open() {
    let world = World::with(|settings| settings.hash_threads = 4).await;
    let admin = world.somebody(Role::Admin).await;
    let tokens = world.ada().await;
    let ada = world.claims(&tokens.access_token).await.sub.to_string();
    let logins = join_all((0..12).map(|_| world.login(ADA, PASSWORD)));
    let (_, changed) = tokio::join!(logins, world.set_active(&admin, &ada, false));
    changed.expect("changed");
    let open: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM session JOIN account ON account.id = account_id
         WHERE state = 'open' AND NOT is_active",
    )
    .fetch_one(&world.database.app())
    .await
    .expect("counted");
    assert_eq!(open, 0);
}

#[tokio::test]
async fn every_login_is_written_down_with_its_outcome_and_without_the_address() {
    let world = World::new().await;
    let account = world.register(ADA, PASSWORD).await.expect("registered");
    world.login(ADA, PASSWORD).await.expect("logged in");
    world.login(ADA, "wrong").await.expect_err("wrong");
    world
        .login("nobody@example.com", "wrong")
        .await
        .expect_err("nobody");
    let audited = world.audited().await;
    assert_eq!(
        audited,
        [
            json!({"service": "auth", "actor": account.id, "subject": account.id, "action": "logged_in"}),
            json!({"service": "auth", "actor": null, "subject": account.id, "action": "login_refused"}),
            json!({"service": "auth", "actor": null, "subject": null, "action": "login_refused"}),
        ]
    );
}

#[tokio::test]
async fn an_erased_account_is_nobodys_and_its_address_is_free() {
    let world = World::new().await;
    let mut watcher = world.watch().await;
    let admin = world.somebody(Role::Admin).await;
    let own = world.claims(&admin).await.sub.to_string();
    assert_eq!(
        world
            .erase(&admin, &own)
            .await
            .expect_err("their own")
            .reason(),
        "OWN_ACCOUNT"
    );
    let tokens = world.ada().await;
    let claims = world.claims(&tokens.access_token).await;
    let ada = claims.sub.to_string();
    world.erase(&admin, &ada).await.expect("erased");
    assert_eq!(watcher.ended().await, [claims.sid.to_string()]);
    let again = world.erase(&admin, &ada).await.expect_err("nobody");
    assert_eq!(again.reason(), "UNKNOWN_USER");
    assert!(world.account(&admin, &ada).await.is_err());
    assert!(world.refresh(&tokens.refresh_token).await.is_err());
    let refused = world.login(ADA, PASSWORD).await.expect_err("nobody");
    assert_eq!(refused.reason(), "INVALID_CREDENTIALS");
    let told = [
        "user.registered v1",
        "user.registered v1",
        "user.deactivated v2",
    ];
    assert_eq!(world.announced().await, told);

    let row: String =
        sqlx::query_scalar("SELECT account::text FROM account WHERE erased_at IS NOT NULL")
            .fetch_one(&world.database.app())
            .await
            .expect("its id stays");
    assert!(
        row.contains(&claims.sub.uuid().to_string()) && !row.contains("argon2"),
        "{row}"
    );
    let again = world
        .register(ADA, PASSWORD)
        .await
        .expect("the address is free");
    assert_ne!(again.id, ada);
    world.login(ADA, PASSWORD).await.expect("logged in");
    let keys: i64 = world.count("subject_key").await;
    assert_eq!(keys, 2, "the admin's and the new one");
}
