//! Accounts and their sessions, the profile and the addresses of a person, and what is held of them.

use holdfast_platform::{
    fault::{Fault, FaultCode},
    identity::Role,
};
use holdfast_proto::{auth::v1 as auth, page::v1::PageInfo, users::v1 as users};
use http::Method;
use serde_json::json;

use super::{AT, AT_TEXT};
use crate::world::World;

#[tokio::test]
async fn somebody_registers_and_logs_in_and_out() {
    let world = World::new().await;
    world.auth.register.otherwise(|asked| {
        Ok(auth::RegisterResponse {
            account: Some(auth::Account {
                id: "usr_1".to_owned(),
                email: asked.email.clone(),
                name: asked.name.clone(),
                role: "user".to_owned(),
                created_at: AT,
                is_active: true,
                locale: asked.languages.clone(),
            }),
        })
    });
    let told = world
        .post("/v1/users/register")
        .with("accept-language", "ja")
        .send(&json!({"email": "ada@example.com", "password": "correct horse", "name": "Ada"}))
        .await;
    assert_eq!(told.status, 201);
    assert_eq!(
        told.json(),
        json!({"id": "usr_1", "email": "ada@example.com", "name": "Ada", "role": "user", "locale": "ja", "created_at": AT_TEXT})
    );

    let tokens = || auth::Tokens {
        access_token: "a".to_owned(),
        expires_in: 3600,
        refresh_token: "r".to_owned(),
        refresh_expires_in: 86400,
    };
    world.auth.login.then(Ok(auth::LoginResponse {
        tokens: Some(tokens()),
    }));
    world.auth.refresh.then(Ok(auth::RefreshResponse {
        tokens: Some(tokens()),
    }));
    let credentials = json!({"email": "ada@example.com", "password": "correct horse"});
    let login = world
        .post("/v1/users/login")
        .from("192.0.2.7")
        .with("user-agent", "curl")
        .send(&credentials)
        .await;
    let asked = &world.auth.login.asked()[0];
    assert_eq!(
        (asked.user_agent.as_str(), asked.client_address.as_str()),
        ("curl", "192.0.2.7")
    );
    let refresh = world
        .post("/v1/users/refresh")
        .with("authorization", "Bearer expired")
        .send(&json!({"refresh_token": "r"}))
        .await;
    for told in [login, refresh] {
        assert_eq!(told.status, 200);
        assert_eq!(
            told.json(),
            json!({"access_token": "a", "token_type": "Bearer", "expires_in": 3600,
                "refresh_token": "r", "refresh_expires_in": 86400})
        );
    }

    world.auth.logout.then(Ok(auth::LogoutResponse {}));
    let told = world
        .post("/v1/users/logout")
        .by(&world.buyer)
        .send_nothing()
        .await;
    assert_eq!((told.status.as_u16(), told.bytes.len()), (204, 0));
}

#[tokio::test]
async fn a_password_is_changed_by_who_knows_it() {
    let world = World::new().await;
    world
        .auth
        .change_password
        .then(Ok(auth::ChangePasswordResponse {}))
        .then(Err(refusal(FaultCode::Invalid, "WRONG_PASSWORD")));
    let change = || {
        world
            .ask(Method::PUT, "/v1/users/me/password")
            .by(&world.buyer)
    };
    let body = json!({"current": "correct horse", "new": "battery staple"});
    assert_eq!(change().send(&body).await.status, 204);
    let told = change().send(&body).await;
    assert_eq!(told.problem(), (422, "wrong_password".into()));
    let asked = world.auth.change_password.asked();
    assert_eq!(
        (asked[0].current.as_str(), asked[0].new.as_str()),
        ("correct horse", "battery staple")
    );
}

#[tokio::test]
async fn sessions_are_listed_and_ended() {
    let world = World::new().await;
    let session = auth::Session {
        id: "ses_1".to_owned(),
        created_at: AT,
        last_used_at: AT,
        expires_at: AT,
        user_agent: "curl".to_owned(),
        current: true,
    };
    world
        .auth
        .list_sessions
        .then(Ok(auth::ListSessionsResponse {
            sessions: vec![session],
        }));
    let told = world
        .get("/v1/users/me/sessions")
        .by(&world.buyer)
        .send_nothing()
        .await;
    assert_eq!(
        told.json(),
        json!({"data": [{"id": "ses_1", "created_at": AT_TEXT, "last_used_at": AT_TEXT, "expires_at": AT_TEXT,
            "user_agent": "curl", "current": true}], "next_cursor": null, "has_more": false})
    );
    world
        .auth
        .end_session
        .then(Ok(auth::EndSessionResponse {}))
        .then(Err(refusal(FaultCode::NotFound, "UNKNOWN_SESSION")));
    let end = || {
        world
            .ask(Method::DELETE, "/v1/users/me/sessions/ses_1")
            .by(&world.buyer)
    };
    assert_eq!(end().send_nothing().await.status, 204);
    let told = end().send_nothing().await;
    assert_eq!(told.problem(), (404, "unknown_session".into()));
    assert_eq!(world.auth.end_session.asked()[0].session_id, "ses_1");
}

#[tokio::test]
async fn admins_see_accounts_with_their_names_and_change_their_standing() {
    let world = World::new().await;
    let admin = world.somebody(Role::Admin);
    let account = |role: &str, is_active| auth::Account {
        id: "usr_1".to_owned(),
        email: "ada@example.com".to_owned(),
        name: String::new(),
        role: role.to_owned(),
        created_at: AT,
        is_active,
        locale: String::new(),
    };
    let profile = || users::Profile {
        user_id: "usr_1".to_owned(),
        email: "ada@example.com".to_owned(),
        name: "Ada".to_owned(),
        created_at: AT,
        version: 3,
        locale: "en".to_owned(),
    };
    let shown = |role: &str, is_active: bool| {
        json!({"id": "usr_1", "email": "ada@example.com", "name": "Ada", "role": role, "is_active": is_active,
            "locale": "en", "created_at": AT_TEXT})
    };
    world
        .auth
        .list_accounts
        .then(Ok(auth::ListAccountsResponse {
            accounts: vec![account("user", true)],
            page: Some(PageInfo {
                next_token: "more".to_owned(),
            }),
        }));
    world
        .users
        .get_profiles
        .then(Ok(users::GetProfilesResponse {
            profiles: vec![profile()],
        }));
    let told = world
        .get("/v1/users?email=ada@example.com&limit=1")
        .by(&admin)
        .send_nothing()
        .await;
    assert_eq!(
        told.json(),
        json!({"data": [shown("user", true)], "next_cursor": "more", "has_more": true})
    );
    assert_eq!(world.auth.list_accounts.asked()[0].email, "ada@example.com");

    world.users.get_profile.otherwise(move |_| {
        Ok(users::GetProfileResponse {
            profile: Some(profile()),
        })
    });
    world.auth.get_account.then(Ok(auth::GetAccountResponse {
        account: Some(account("user", true)),
    }));
    let told = world.get("/v1/users/usr_1").by(&admin).send_nothing().await;
    assert_eq!(
        (told.header("etag"), told.json()),
        (Some("\"3\""), shown("user", true))
    );
    world
        .auth
        .set_role
        .then(Ok(auth::SetRoleResponse {
            account: Some(account("staff", true)),
        }))
        .then(Err(refusal(FaultCode::Conflict, "OWN_ACCOUNT")));
    let role = || world.ask(Method::PUT, "/v1/users/usr_1/role").by(&admin);
    let told = role().send(&json!({"role": "staff"})).await;
    assert_eq!(told.json(), shown("staff", true));
    let told = role().send(&json!({"role": "user"})).await;
    assert_eq!(told.problem(), (409, "own_account".into()));
    world.auth.set_active.then(Ok(auth::SetActiveResponse {
        account: Some(account("staff", false)),
    }));
    let told = world
        .ask(Method::PUT, "/v1/users/usr_1/active")
        .by(&admin)
        .send(&json!({"is_active": false}))
        .await;
    assert_eq!(told.json(), shown("staff", false));
    assert!(!world.auth.set_active.asked()[0].is_active);

    world
        .auth
        .get_account
        .then(Err(refusal(FaultCode::NotFound, "UNKNOWN_USER")));
    let told = world
        .get("/v1/users/usr_2")
        .by(&world.buyer)
        .send_nothing()
        .await;
    assert_eq!(told.problem(), (404, "unknown_user".into()));
}

#[tokio::test]
async fn a_profile_is_read_with_its_tag_and_changed_with_it() {
    let world = World::new().await;
    let user = world.buyer.user.to_string();
    let profile = |user_id: &str, name: &str, version| {
        Some(users::Profile {
            user_id: user_id.to_owned(),
            email: "ada@example.com".to_owned(),
            name: name.to_owned(),
            created_at: AT,
            version,
            locale: String::new(),
        })
    };
    world.users.get_profile.then(Ok(users::GetProfileResponse {
        profile: profile(&user, "Ada", 3),
    }));
    let told = world
        .get("/v1/users/me")
        .by(&world.buyer)
        .send_nothing()
        .await;
    assert_eq!(told.header("etag"), Some("\"3\""));
    assert_eq!(
        told.json(),
        json!({"id": user, "email": "ada@example.com", "name": "Ada", "role": "user", "locale": null, "created_at": AT_TEXT})
    );

    let changed = Fault::new(
        FaultCode::Conflict,
        "PROFILE_CHANGED",
        "the profile is at version 4, not 3",
    )
    .with("version", 4);
    world
        .users
        .update_profile
        .then(Ok(users::UpdateProfileResponse {
            profile: profile(&user, "Ada King", 4),
        }))
        .then(Err(changed.into()));
    let rename = || world.ask(Method::PATCH, "/v1/users/me").by(&world.buyer);
    let told = rename()
        .send(&json!({"name": "Ada King", "locale": "en"}))
        .await;
    assert_eq!(
        (told.status.as_u16(), told.header("etag")),
        (200, Some("\"4\""))
    );
    let told = rename()
        .with("if-match", "\"3\"")
        .send(&json!({"locale": "ja"}))
        .await;
    assert_eq!(told.problem(), (412, "precondition_failed".into()));
    assert_eq!(told.json()["version"], 4);
    let asked = world.users.update_profile.asked();
    assert_eq!(
        (asked[0].expected_version, asked[1].expected_version),
        (0, 3)
    );
    let wished = |at: usize| (asked[at].name.as_deref(), asked[at].locale.as_deref());
    assert_eq!(
        [wished(0), wished(1)],
        [(Some("Ada King"), Some("en")), (None, Some("ja"))]
    );
    let told = rename()
        .send(&json!({"name": "Ada", "role": "admin"}))
        .await;
    assert_eq!(told.json()["errors"][0]["field"], "role");
}

#[tokio::test]
async fn addresses_are_kept_changed_and_removed() {
    let world = World::new().await;
    let postal = || users::PostalAddress {
        name: "Ada".to_owned(),
        line1: "12 St James's Square".to_owned(),
        city: "London".to_owned(),
        country: "GB".to_owned(),
        location: Some(users::Location {
            lat: 51.5,
            lng: -0.1,
        }),
        ..users::PostalAddress::default()
    };
    let address = move |version| users::Address {
        id: "adr_1".to_owned(),
        postal: Some(postal()),
        created_at: AT,
        version,
    };
    let shown = json!({"id": "adr_1", "name": "Ada", "line1": "12 St James's Square", "line2": "", "city": "London",
        "region": "", "postal_code": "", "country": "GB", "phone": "", "location": {"lat": 51.5, "lng": -0.1},
        "created_at": AT_TEXT});
    world.users.add_address.otherwise(move |_| {
        Ok(users::AddAddressResponse {
            address: Some(address(1)),
        })
    });
    let body = json!({"name": "Ada", "line1": "12 St James's Square", "city": "London", "country": "GB",
        "location": {"lat": 51.5, "lng": -0.1}});
    let add = || world.post("/v1/users/me/addresses").by(&world.buyer);
    let unkeyed = add().send(&body).await;
    assert_eq!(unkeyed.problem(), (400, "idempotency_key_required".into()));
    let (first, again) = (
        add().key("home").send(&body).await,
        add().key("home").send(&body).await,
    );
    assert_eq!((first.status.as_u16(), first.json()), (201, shown.clone()));
    assert_eq!(first.essence(), again.essence());
    assert_eq!(world.users.add_address.asked()[0].postal, Some(postal()));

    world
        .users
        .list_addresses
        .then(Ok(users::ListAddressesResponse {
            addresses: vec![address(1)],
        }));
    let told = world
        .get("/v1/users/me/addresses")
        .by(&world.buyer)
        .send_nothing()
        .await;
    assert_eq!(
        told.json(),
        json!({"data": [shown], "next_cursor": null, "has_more": false})
    );

    world
        .users
        .change_address
        .then(Ok(users::ChangeAddressResponse {
            address: Some(address(2)),
        }))
        .then(Err(refusal(FaultCode::Conflict, "ADDRESS_CHANGED")));
    let change = || {
        let asking = world.ask(Method::PATCH, "/v1/users/me/addresses/adr_1");
        asking.by(&world.buyer).with("if-match", "\"1\"")
    };
    let told = change()
        .send(&json!({"city": "York", "location": null}))
        .await;
    assert_eq!(
        (told.status.as_u16(), told.header("etag")),
        (200, Some("\"2\""))
    );
    let told = change().send(&json!({"city": "York"})).await;
    assert_eq!(told.problem(), (412, "precondition_failed".into()));
    let asked = world.users.change_address.asked();
    assert_eq!(
        (asked[0].city.as_deref(), asked[0].name.as_deref()),
        (Some("York"), None)
    );
    assert_eq!(
        asked[0].location,
        Some(users::LocationChange { location: None })
    );
    assert_eq!(asked[1].location, None, "left out, it stays");
    assert_eq!(asked[1].expected_version, 1);

    world
        .users
        .remove_address
        .then(Ok(users::RemoveAddressResponse {}));
    let removal = world.ask(Method::DELETE, "/v1/users/me/addresses/adr_1");
    assert_eq!(removal.by(&world.buyer).send_nothing().await.status, 204);
}

#[tokio::test]
async fn what_is_held_of_somebody_is_given_to_them_and_forgotten_by_admins() {
    let world = World::new().await;
    world.auth.get_account.then(Ok(auth::GetAccountResponse {
        account: Some(auth::Account {
            id: "usr_1".to_owned(),
            email: "ada@example.com".to_owned(),
            name: String::new(),
            role: "user".to_owned(),
            created_at: AT,
            is_active: true,
            locale: String::new(),
        }),
    }));
    world.users.get_profile.then(Ok(users::GetProfileResponse {
        profile: Some(users::Profile {
            user_id: "usr_1".to_owned(),
            email: "ada@example.com".to_owned(),
            name: "Ada".to_owned(),
            created_at: AT,
            version: 1,
            locale: "ja".to_owned(),
        }),
    }));
    world
        .users
        .list_addresses
        .then(Ok(users::ListAddressesResponse {
            addresses: Vec::new(),
        }));
    world
        .auth
        .list_sessions
        .then(Ok(auth::ListSessionsResponse {
            sessions: Vec::new(),
        }));
    let told = world
        .get("/v1/users/me/export")
        .by(&world.buyer)
        .send_nothing()
        .await
        .json();
    assert_eq!(
        told["account"],
        json!({"id": "usr_1", "email": "ada@example.com", "name": "Ada", "role": "user", "locale": "ja", "created_at": AT_TEXT})
    );
    assert_eq!(
        (&told["addresses"], &told["sessions"]),
        (&json!([]), &json!([]))
    );
    assert_eq!(told["elsewhere"][0]["at"], "/v1/orders");

    world
        .auth
        .erase_account
        .then(Ok(auth::EraseAccountResponse {}));
    let erase = || world.ask(Method::DELETE, "/v1/users/usr_1");
    let told = erase().by(&world.buyer).send_nothing().await;
    assert_eq!(told.problem(), (403, "forbidden".into()));
    let admin = world.somebody(Role::Admin);
    assert_eq!(erase().by(&admin).send_nothing().await.status, 204);
}

#[tokio::test]
async fn the_issuer_says_where_its_keys_are() {
    let world = World::new().await;
    let told = world
        .get("/.well-known/openid-configuration")
        .with("host", "shop.example:8080")
        .send_nothing()
        .await;
    let configuration = told.json();
    assert_eq!(configuration["issuer"], "test");
    assert_eq!(
        configuration["jwks_uri"],
        "http://shop.example:8080/.well-known/jwks.json"
    );
    let keys = auth::GetKeysResponse {
        jwks: r#"{"keys":[]}"#.to_owned(),
    };
    world.auth.get_keys.then(Ok(keys));
    let told = world.get("/.well-known/jwks.json").send_nothing().await;
    assert_eq!(told.json(), json!({"keys": []}));
    assert_eq!(told.header("cache-control"), Some("public, max-age=300"));
    for host in ["", "a b", "x/y"] {
        let told = world
            .get("/.well-known/openid-configuration")
            .with("host", host)
            .send_nothing()
            .await;
        assert_eq!(told.problem().0, 422, "{host}");
    }
}

fn refusal(code: FaultCode, reason: &'static str) -> tonic::Status {
    Fault::new(code, reason, "refused").into()
}
