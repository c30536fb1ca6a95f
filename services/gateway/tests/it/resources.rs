//! Each resource once, from the client's bytes to the service's message and back.

use holdfast_platform::{
    fault::{Fault, FaultCode},
    identity::Role,
};
use holdfast_proto::{
    auth::v1 as auth, catalog::v1 as catalog, inventory::v1 as inventory, money::v1::Money,
    notifications::v1 as notifications, orders::v1 as orders, page::v1::PageInfo,
    payments::v1 as payments, reviews::v1 as reviews, users::v1 as users,
};
use http::Method;
use serde_json::{Value, json};

use crate::world::{World, basket, confirmed};

const AT: Option<prost_types::Timestamp> = Some(prost_types::Timestamp {
    seconds: 1_795_000_000,
    nanos: 0,
});
const AT_TEXT: &str = "2026-11-18T11:06:40Z";

fn yen(amount: i64) -> Money {
    Money {
        amount,
        currency: "JPY".to_owned(),
    }
}

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

fn refusal(code: FaultCode, reason: &'static str) -> tonic::Status {
    Fault::new(code, reason, "refused").into()
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
async fn products_are_made() {
    let world = World::new().await;
    let product = |request: &catalog::CreateProductRequest| catalog::Product {
        id: "prd_1".to_owned(),
        slug: "t-shirt".to_owned(),
        name: request.name.clone(),
        kind: request.kind.clone(),
        currency: request.currency.clone(),
        status: request.status.clone(),
        created_at: AT,
        version: 1,
        variants: request
            .variants
            .iter()
            .map(|variant| catalog::Variant {
                sku: variant.sku.clone(),
                name: variant.name.clone(),
                options: variant.options.clone(),
                price: variant.price.clone(),
                other_prices: variant.other_prices.clone(),
                available: variant.stock.unwrap_or_default(),
            })
            .collect(),
        ..catalog::Product::default()
    };
    world.catalog.create_product.otherwise(move |asked| {
        Ok(catalog::CreateProductResponse {
            product: Some(product(asked)),
        })
    });
    let admin = world.somebody(Role::Admin);
    let told = world
        .post("/v1/products")
        .by(&admin)
        .key("k")
        .send(&json!({"name": "T-shirt", "currency": "JPY", "variants": [
            {"sku": "M", "options": {"size": "M"}, "price": {"amount": 1250, "currency": "JPY"},
             "prices": [{"amount": 990, "currency": "EUR"}], "stock": 7},
            {"sku": "S", "price": {"amount": 1200, "currency": "JPY"}},
        ]}))
        .await;
    assert_eq!(
        (told.status.as_u16(), told.header("location")),
        (201, Some("/v1/products/prd_1"))
    );
    assert_eq!(
        told.json(),
        json!({
            "id": "prd_1", "slug": "t-shirt", "name": "T-shirt", "description": "", "kind": "good",
            "category": null, "currency": "JPY", "price": {"amount": 1200, "currency": "JPY"}, "images": [],
            "rating": {"average": null, "count": 0, "histogram": [0, 0, 0, 0, 0]},
            "variants": [
                {"sku": "M", "name": "", "options": {"size": "M"}, "price": {"amount": 1250, "currency": "JPY"},
                 "prices": [{"amount": 990, "currency": "EUR"}], "available": 7},
                {"sku": "S", "name": "", "options": {}, "price": {"amount": 1200, "currency": "JPY"}, "prices": [], "available": 0},
            ],
            "status": "published", "created_at": AT_TEXT,
        })
    );
    let asked = world.catalog.create_product.asked().remove(0);
    assert_eq!(
        (asked.variants[0].stock, asked.variants[1].stock),
        (Some(7), None)
    );
    assert_eq!(asked.fingerprint.len(), 32);
}

#[tokio::test]
async fn products_are_listed_by_words_filters_and_in_an_order_with_their_facets() {
    let world = World::new().await;
    let listed = catalog::Product {
        id: "prd_1".to_owned(),
        created_at: AT,
        ..catalog::Product::default()
    };
    world
        .catalog
        .list_products
        .then(Ok(catalog::ListProductsResponse {
            products: vec![listed],
            facets: Some(catalog::Facets {
                categories: vec![catalog::FacetValue {
                    value: "shirts".to_owned(),
                    count: 3,
                }],
                prices: vec![catalog::PriceRange {
                    currency: "EUR".to_owned(),
                    from: 500,
                    below: None,
                    count: 3,
                }],
                counted: 3,
                complete: true,
                ..catalog::Facets::default()
            }),
            page: Some(PageInfo {
                next_token: "7b7d".to_owned(),
            }),
        }));
    let told = world
        .get(
            "/v1/products?category=shirts&currency=EUR&limit=1&cursor=5b5d&q=red+shirt&sort=-price\
              &options=size=M;color=Dark%20red&price_min=5&kind=good,tour",
        )
        .send_nothing()
        .await
        .json();
    assert_eq!(
        (&told["next_cursor"], &told["has_more"]),
        (&json!("7b7d"), &json!(true))
    );
    assert_eq!(told["data"][0]["id"], "prd_1");
    let asked = world.catalog.list_products.asked().remove(0);
    let page = asked.page.expect("a page");
    assert_eq!(
        (asked.category.as_str(), page.size, page.token.as_str()),
        ("shirts", 1, "5b5d")
    );
    assert_eq!(asked.currency, "EUR");
    assert_eq!(
        (asked.query.as_str(), asked.sort.as_str()),
        ("red shirt", "-price")
    );
    assert_eq!((asked.price_min, asked.price_max), (Some(5), None));
    assert_eq!(
        (asked.kinds, asked.facets),
        (vec!["good".to_owned(), "tour".to_owned()], true)
    );
    assert_eq!(
        (
            asked.options["size"].as_str(),
            asked.options["color"].as_str()
        ),
        ("M", "Dark red")
    );
    assert_eq!(
        told["facets"],
        json!({
            "categories": [{"value": "shirts", "count": 3}], "options": {}, "currencies": [],
            "prices": [{"currency": "EUR", "from": 500, "below": null, "count": 3}], "counted": 3, "complete": true,
        })
    );
    let told = world.get("/v1/products?options=size").send_nothing().await;
    assert_eq!(told.json()["errors"][0]["field"], "options");
}

#[tokio::test]
async fn products_and_variants_are_changed_and_deleted_only_as_they_were_read() {
    let world = World::new().await;
    let admin = world.somebody(Role::Admin);
    let paths = ["/v1/products/prd_1", "/v1/products/prd_1/variants/M"];
    for path in paths {
        for method in [Method::PATCH, Method::DELETE] {
            let told = world.ask(method, path).by(&admin).send(&json!({})).await;
            assert_eq!(
                told.problem(),
                (428, "precondition_required".into()),
                "{path}"
            );
        }
    }
    let changed = catalog::Product {
        id: "prd_1".to_owned(),
        created_at: AT,
        version: 8,
        ..catalog::Product::default()
    };
    let answer = changed.clone();
    world.catalog.update_product.otherwise(move |_| {
        Ok(catalog::UpdateProductResponse {
            product: Some(answer.clone()),
        })
    });
    let answer = changed.clone();
    world.catalog.update_variant.otherwise(move |_| {
        Ok(catalog::UpdateVariantResponse {
            product: Some(answer.clone()),
        })
    });
    world
        .catalog
        .add_variant
        .then(Ok(catalog::AddVariantResponse {
            product: Some(changed),
        }));
    let patch = |path| {
        let asking = world.ask(Method::PATCH, path).by(&admin);
        asking.with("if-match", "\"7\"")
    };
    let told = patch(paths[0])
        .send(&json!({"name": "Shirt", "category": "", "images": []}))
        .await;
    assert_eq!(
        (told.status.as_u16(), told.header("etag")),
        (200, Some("\"8\""))
    );
    let asked = world.catalog.update_product.asked().remove(0);
    assert_eq!(
        (
            asked.name.as_deref(),
            asked.category.as_deref(),
            asked.expected_version
        ),
        (Some("Shirt"), Some(""), 7)
    );
    assert!(asked.images.is_some_and(|images| images.urls.is_empty()));
    assert_eq!((asked.description, asked.price), (None, None));

    let told = patch(paths[1])
        .send(&json!({"options": {"size": "M"}, "prices": [{"amount": 5, "currency": "EUR"}]}))
        .await;
    assert_eq!(told.status, 200);
    let asked = world.catalog.update_variant.asked().remove(0);
    assert_eq!(asked.sku, "M");
    assert_eq!(asked.options.expect("set").values["size"], "M");
    assert_eq!(asked.other_prices.expect("set").prices[0].amount, 5);

    let told = world
        .post("/v1/products/prd_1/variants")
        .by(&admin)
        .key("k")
        .send(&json!({"sku": "L", "price": {"amount": 1250, "currency": "JPY"}, "stock": 3}))
        .await;
    assert_eq!(
        (told.status.as_u16(), told.header("location")),
        (201, Some("/v1/products/prd_1"))
    );
    let asked = world.catalog.add_variant.asked().remove(0);
    assert_eq!(asked.variant.expect("set").stock, Some(3));

    world
        .catalog
        .delete_product
        .then(Ok(catalog::DeleteProductResponse {}));
    let told = world
        .ask(Method::DELETE, paths[0])
        .by(&admin)
        .with("if-match", "\"8\"")
        .send_nothing()
        .await;
    assert_eq!(told.status, 204);
    let asked = world.catalog.delete_product.asked().remove(0);
    assert_eq!(
        (asked.product_id.as_str(), asked.expected_version),
        ("prd_1", 8)
    );
}

#[tokio::test]
async fn categories_are_shown_as_a_tree_and_changed_as_they_were_read() {
    let world = World::new().await;
    let category = |slug: &str, parent: &str, products| catalog::Category {
        slug: slug.to_owned(),
        name: slug.to_uppercase(),
        parent: parent.to_owned(),
        products,
        version: 3,
    };
    world
        .catalog
        .list_categories
        .then(Ok(catalog::ListCategoriesResponse {
            categories: vec![
                category("a", "", 3),
                category("b", "a", 2),
                category("c", "a", 0),
                category("d", "", 0),
            ],
        }));
    let told = world.get("/v1/categories").send_nothing().await.json();
    let shown = |slug: &str, parent: Value, products: i64, children: Value| json!({"slug": slug, "name": slug.to_uppercase(), "parent": parent, "products": products, "children": children});
    assert_eq!(
        told["data"],
        json!([
            shown(
                "a",
                Value::Null,
                3,
                json!([
                    shown("b", json!("a"), 2, json!([])),
                    shown("c", json!("a"), 0, json!([]))
                ])
            ),
            shown("d", Value::Null, 0, json!([])),
        ])
    );

    let admin = world.somebody(Role::Admin);
    let patch = || world.ask(Method::PATCH, "/v1/categories/b").by(&admin);
    let bare = patch().send(&json!({"parent": null})).await;
    assert_eq!(bare.problem(), (428, "precondition_required".into()));
    world.catalog.update_category.otherwise(move |_| {
        Ok(catalog::UpdateCategoryResponse {
            category: Some(catalog::Category {
                slug: "b".to_owned(),
                version: 4,
                ..catalog::Category::default()
            }),
        })
    });
    let told = patch()
        .with("if-match", "\"3\"")
        .send(&json!({"parent": null}))
        .await;
    assert_eq!(
        (told.status.as_u16(), told.header("etag")),
        (200, Some("\"4\""))
    );
    patch()
        .with("if-match", "\"4\"")
        .send(&json!({"name": "B"}))
        .await;
    let asked = world.catalog.update_category.asked();
    assert_eq!(
        (asked[0].parent.as_deref(), asked[0].expected_version),
        (Some(""), 3)
    );
    assert_eq!(
        (asked[1].parent.as_deref(), asked[1].name.as_deref()),
        (None, Some("B"))
    );
}

fn pool(key: &str, version: i64) -> inventory::Pool {
    inventory::Pool {
        key: key.to_owned(),
        capacity: 10,
        held: 1,
        sold: 2,
        blocked: 0,
        overbook: 0,
        available: 7,
        low_at: None,
        version: 9,
        capacity_version: version,
    }
}

#[tokio::test]
async fn the_public_sees_what_is_available_and_staff_see_all() {
    let world = World::new().await;
    world.inventory.get_pools.otherwise(|asked| {
        Ok(inventory::GetPoolsResponse {
            pools: vec![pool(&asked.keys[0], 3)],
        })
    });
    for (path, key) in [
        ("/v1/inventory/TSHIRT-M", "sku:TSHIRT-M"),
        ("/v1/inventory/sku:TSHIRT-M", "sku:TSHIRT-M"),
        ("/v1/inventory/seat%3Aevt_1%3AS-A-12", "seat:evt_1:S-A-12"),
    ] {
        let told = world.get(path).send_nothing().await;
        assert_eq!(told.json(), json!({"key": key, "available": 7}), "{path}");
        assert_eq!(told.header("etag"), None);
    }
    let staff = world.somebody(Role::Staff);
    let told = world
        .get("/v1/inventory/A?at=2026-11-20T10:00:00Z")
        .by(&staff)
        .send_nothing()
        .await;
    assert_eq!(told.header("etag"), Some("\"3\""));
    assert_eq!(
        told.json(),
        json!({"key": "sku:A", "capacity": 10, "held": 1, "sold": 2, "blocked": 0, "overbook": 0,
            "available": 7, "low_at": null, "version": 9})
    );
    let asked = world.inventory.get_pools.asked().pop().expect("asked");
    assert_eq!(asked.at.map(|at| at.seconds), Some(1_795_168_800));
    world
        .inventory
        .get_pools
        .then(Ok(inventory::GetPoolsResponse::default()));
    let told = world.get("/v1/inventory/A").send_nothing().await;
    assert_eq!(told.problem(), (404, "unknown_pool".into()));
}

#[tokio::test]
async fn staff_begin_to_keep_a_pool_and_adjust_it() {
    let world = World::new().await;
    let staff = world.somebody(Role::Staff);
    world.inventory.adjust.otherwise(|asked| {
        let change = &asked.changes[0];
        let made = pool(&change.pool, change.expected_capacity_version + 1);
        Ok(inventory::AdjustResponse { pools: vec![made] })
    });
    let told = world
        .post("/v1/inventory")
        .by(&staff)
        .key("k")
        .send(&json!({"key": "A", "capacity": 10}))
        .await;
    assert_eq!(
        (told.status.as_u16(), told.header("etag")),
        (201, Some("\"1\""))
    );
    let adjust = || {
        world
            .post("/v1/inventory/A/adjustments")
            .by(&staff)
            .with("if-match", "\"1\"")
    };
    let told = adjust()
        .key("k")
        .send(&json!({"delta": -2, "reason": "counted"}))
        .await;
    assert_eq!(
        (told.status.as_u16(), told.header("etag")),
        (200, Some("\"2\""))
    );
    let asked = world.inventory.adjust.asked();
    assert_eq!(asked[0].changes[0].expected_capacity_version, 0);
    assert_eq!(
        (
            asked[1].changes[0].delta,
            asked[1].changes[0].expected_capacity_version
        ),
        (-2, 1)
    );
    assert_eq!(
        (asked[1].actor.as_str(), asked[1].reason.as_str()),
        (staff.user.to_string().as_str(), "counted")
    );
    assert_ne!(asked[0].request_id, asked[1].request_id);
}

#[tokio::test]
async fn an_adjustment_that_cannot_be_is_refused_with_the_figures() {
    let world = World::new().await;
    let staff = world.somebody(Role::Staff);
    let refusals = [
        (
            Fault::new(FaultCode::Conflict, "CAPACITY_CHANGED", "at 5, not 1").with("version", 5),
            412,
            "precondition_failed",
        ),
        (
            Fault::new(FaultCode::Conflict, "BELOW_COMMITTED", "8 held and sold")
                .with("held", 3)
                .with("sold", 5),
            409,
            "below_committed",
        ),
    ];
    for (number, (fault, status, code)) in refusals.into_iter().enumerate() {
        world.inventory.adjust.then(Err(fault.into()));
        let told = world
            .post("/v1/inventory/A/adjustments")
            .by(&staff)
            .with("if-match", "\"1\"")
            .key(&format!("r{number}"))
            .send(&json!({"delta": -9, "reason": "x"}))
            .await;
        assert_eq!(told.problem(), (status, code.into()));
        assert!(told.json()["version"] == 5 || told.json()["sold"] == 5);
    }
}

#[tokio::test]
async fn staff_bound_a_pool_and_read_its_book() {
    let world = World::new().await;
    let staff = world.somebody(Role::Staff);
    world
        .inventory
        .set_policy
        .then(Ok(inventory::SetPolicyResponse {
            pool: Some(pool("sku:A", 3)),
        }));
    let told = world
        .ask(Method::PUT, "/v1/inventory/A/policy")
        .by(&staff)
        .with("if-match", "\"2\"")
        .send(&json!({"overbook": 2, "low_at": 1}))
        .await;
    assert_eq!(
        (told.status.as_u16(), told.header("etag")),
        (200, Some("\"3\""))
    );
    let asked = world.inventory.set_policy.asked().remove(0);
    assert_eq!(
        (
            asked.overbook,
            asked.low_at,
            asked.expected_capacity_version
        ),
        (2, Some(1), 2)
    );

    let movement = inventory::Movement {
        version: 1,
        kind: inventory::MovementKind::Adjust.into(),
        quantity: 10,
        capacity_after: 10,
        at: AT,
        effective_at: AT,
        actor: "usr_1".to_owned(),
        ..inventory::Movement::default()
    };
    let movements = vec![movement];
    world
        .inventory
        .list_movements
        .then(Ok(inventory::ListMovementsResponse {
            movements,
            page: None,
        }));
    let told = world
        .get("/v1/inventory/A/movements")
        .by(&staff)
        .send_nothing()
        .await
        .json();
    assert_eq!(
        (&told["data"][0]["kind"], &told["data"][0]["hold_id"]),
        (&json!("adjust"), &json!(null))
    );
    assert_eq!(
        (&told["next_cursor"], &told["has_more"]),
        (&json!(null), &json!(false))
    );
}

#[tokio::test]
async fn an_order_reads_as_promised() {
    let world = World::new().await;
    world.orders.place_order.otherwise(|_| {
        let mut order = confirmed("1");
        order.status = orders::OrderStatus::AwaitingPayment.into();
        order.payment_status = "requires_action".to_owned();
        order.next_action = r#"{"type":"redirect","url":"/pay"}"#.to_owned();
        order.hold_expires_at = AT;
        Ok(orders::PlaceOrderResponse { order: Some(order) })
    });
    let told = world.buy("k").await;
    let yen = |amount: i64| json!({"amount": amount, "currency": "JPY"});
    assert_eq!(
        told.json(),
        json!({
            "id": "ord_1", "user_id": "usr_1", "source": "checkout", "status": "awaiting_payment",
            "items": [{"sku": "TSHIRT-M", "name": "T-shirt", "quantity": 1, "unit_price": yen(1250), "discount": yen(0), "total": yen(1250), "refunded_quantity": 0}],
            "voucher": null, "discount": yen(0), "subtotal": yen(1250), "shipping": yen(0), "tax": yen(0), "points_used": 0, "points_refunded": 0, "total": yen(1250),
            "refunded": yen(0), "currency": "JPY", "hold_expires_at": AT_TEXT,
            "payment": {"id": "pay_1", "status": "requires_action", "next_action": {"type": "redirect", "url": "/pay"}},
            "delivery": null, "created_at": AT_TEXT, "updated_at": null,
        })
    );
    let call = world.orders.place_order.calls().remove(0);
    assert_eq!(call.message.items[0].sku, "TSHIRT-M");
    assert_eq!(call.message.points, 0);
    let timeout = call
        .metadata
        .get("grpc-timeout")
        .expect("a deadline")
        .to_str()
        .expect("ASCII");
    let micros: u64 = timeout.trim_end_matches('u').parse().expect("microseconds");
    assert!(
        (2_000_001..=5_000_000).contains(&micros),
        "a purchase may take 5 s: {timeout}"
    );
}

#[tokio::test]
async fn a_purchase_may_name_a_voucher_and_tells_what_it_took_off() {
    let world = World::new().await;
    world.orders.place_order.otherwise(|_| {
        let mut order = confirmed("1");
        order.voucher = "SUMMER10".to_owned();
        order.discount = Some(yen(125));
        order.items[0].discount = Some(yen(125));
        Ok(orders::PlaceOrderResponse { order: Some(order) })
    });
    let mut body = basket(1);
    body["voucher"] = json!("summer10");
    let asking = world.post("/v1/orders").by(&world.buyer).key("k");
    let told = asking.send(&body).await.json();
    assert_eq!(told["voucher"], "SUMMER10");
    assert_eq!(
        (
            &told["discount"]["amount"],
            &told["items"][0]["discount"]["amount"]
        ),
        (&json!(125), &json!(125))
    );
    let asked = world.orders.place_order.asked().remove(0);
    assert_eq!(asked.voucher.as_deref(), Some("summer10"));
}

#[tokio::test]
async fn a_purchase_may_name_a_saved_method_or_a_konbini() {
    use orders::payment_method_choice::Choice;
    let world = World::new().await;
    world.orders_sell();
    for (key, method) in [
        ("k1", json!("pm_1")),
        ("k2", json!({"type": "konbini", "store": "lawson"})),
    ] {
        let mut body = basket(1);
        body["payment_method"] = method;
        let told = world
            .post("/v1/orders")
            .by(&world.buyer)
            .key(key)
            .send(&body)
            .await;
        assert_eq!(told.status, 201);
    }
    let choices: Vec<_> = (world.orders.place_order.asked().into_iter())
        .map(|asked| {
            asked
                .payment_method
                .and_then(|method| method.choice)
                .expect("chosen")
        })
        .collect();
    let konbini = orders::InlineMethod {
        r#type: "konbini".to_owned(),
        token: "lawson".to_owned(),
    };
    assert_eq!(
        choices,
        [Choice::Id("pm_1".to_owned()), Choice::Inline(konbini)]
    );
}

#[tokio::test]
async fn orders_are_listed_and_read_with_their_history() {
    let world = World::new().await;
    let staff = world.somebody(Role::Staff);
    let page = Some(PageInfo {
        next_token: String::new(),
    });
    let orders = vec![confirmed("1")];
    world
        .orders
        .list_orders
        .then(Ok(orders::ListOrdersResponse { orders, page }));
    let told = world
        .get(&format!(
            "/v1/orders?status=partially_refunded&user_id=*&sku=A-1&from={AT_TEXT}"
        ))
        .by(&staff)
        .send_nothing()
        .await;
    assert_eq!(told.json()["data"][0]["id"], "ord_1");
    let asked = world.orders.list_orders.asked().remove(0);
    assert_eq!(
        (asked.status(), asked.user_id.as_str(), asked.sku.as_str()),
        (orders::OrderStatus::PartiallyRefunded, "*", "A-1")
    );
    assert_eq!((asked.from, asked.to), (AT, None));
    let told = world
        .get("/v1/orders?to=yesterday")
        .by(&staff)
        .send_nothing()
        .await;
    assert_eq!(told.json()["errors"][0]["field"], "to");

    world.orders.get_order.then(Ok(orders::GetOrderResponse {
        order: Some(confirmed("1")),
    }));
    let told = world
        .get("/v1/orders/ord_1")
        .by(&world.buyer)
        .send_nothing()
        .await;
    assert_eq!(
        (told.status.as_u16(), told.header("etag")),
        (200, Some("\"1\""))
    );

    let event = orders::OrderEvent {
        r#type: "order.confirmed".to_owned(),
        description: "paid".to_owned(),
        old_value: "paid".to_owned(),
        new_value: "confirmed".to_owned(),
        user_id: String::new(),
        created_at: AT,
    };
    world
        .orders
        .list_order_events
        .then(Ok(orders::ListOrderEventsResponse {
            events: vec![event],
        }));
    let told = world
        .get("/v1/orders/ord_1/events")
        .by(&world.buyer)
        .send_nothing()
        .await;
    assert_eq!(
        told.json()["data"],
        json!([{"type": "order.confirmed", "description": "paid", "old_value": "paid",
            "new_value": "confirmed", "user_id": null, "created_at": AT_TEXT}])
    );
}

#[tokio::test]
async fn orders_are_cancelled_refunded_and_resumed() {
    let world = World::new().await;
    let staff = world.somebody(Role::Staff);
    world
        .orders
        .cancel_order
        .then(Ok(orders::CancelOrderResponse {
            order: Some(confirmed("1")),
        }));
    let told = world
        .post("/v1/orders/ord_1/cancel")
        .by(&world.buyer)
        .key("k")
        .send_nothing()
        .await;
    assert_eq!(told.status, 200);
    let asked = world.orders.cancel_order.asked().remove(0);
    assert_eq!(
        (asked.order_id.as_str(), asked.reason.as_str()),
        ("ord_1", "")
    );

    world.orders.refund_order.otherwise(|_| {
        Ok(orders::RefundOrderResponse {
            order: Some(confirmed("1")),
        })
    });
    for (key, body) in [
        ("all", json!({})),
        (
            "items",
            json!({"items": [{"sku": "A", "quantity": 1}], "reason": "broken"}),
        ),
        (
            "amount",
            json!({"amount": {"amount": 5, "currency": "JPY"}}),
        ),
    ] {
        let told = world
            .post("/v1/orders/ord_1/refunds")
            .by(&staff)
            .key(key)
            .send(&body)
            .await;
        assert_eq!(told.status, 201, "{key}");
    }
    let asked = world.orders.refund_order.asked();
    assert_eq!((asked[0].items.len(), &asked[0].amount), (0, &None));
    assert_eq!(asked[1].items[0].sku, "A");
    assert_eq!(asked[2].amount, Some(yen(5)));
    let both =
        json!({"amount": {"amount": 5, "currency": "JPY"}, "items": [{"sku": "A", "quantity": 1}]});
    let told = world
        .post("/v1/orders/ord_1/refunds")
        .by(&staff)
        .key("both")
        .send(&both)
        .await;
    assert_eq!(told.json()["errors"][0]["field"], "amount");

    let resumed = orders::ResumeOrderResponse {
        order: Some(confirmed("1")),
    };
    world.orders.resume_order.then(Ok(resumed));
    let told = world
        .post("/v1/orders/ord_1/resume")
        .by(&staff)
        .key("resume")
        .send(&json!({"reason": "the warehouse is back"}))
        .await;
    assert_eq!(
        (told.status.as_u16(), &told.json()["status"]),
        (200, &json!("confirmed"))
    );
    let asked = world.orders.resume_order.asked().remove(0);
    assert_eq!(
        (asked.order_id.as_str(), asked.reason.as_str()),
        ("ord_1", "the warehouse is back")
    );
}

#[tokio::test]
async fn points_are_shown_with_how_they_came_and_went() {
    let world = World::new().await;
    let balances = vec![payments::PointBalance {
        currency: "JPY".to_owned(),
        points: 7,
    }];
    let entry = payments::PointEntry {
        r#type: "taken_back".to_owned(),
        payment_id: "pay_1".to_owned(),
        purchase_id: "ord_1".to_owned(),
        currency: "JPY".to_owned(),
        points: -5,
        created_at: AT,
    };
    let page = Some(PageInfo {
        next_token: "more".to_owned(),
    });
    world
        .payments
        .list_points
        .then(Ok(payments::ListPointsResponse {
            balances,
            entries: vec![entry],
            page,
        }));
    let told = world
        .get("/v1/points?limit=1")
        .by(&world.buyer)
        .send_nothing()
        .await;
    assert_eq!(
        told.json(),
        json!({
            "balances": [{"currency": "JPY", "points": 7}],
            "data": [{"type": "taken_back", "payment_id": "pay_1", "purchase_id": "ord_1", "currency": "JPY",
                      "points": -5, "created_at": AT_TEXT}],
            "next_cursor": "more", "has_more": true,
        })
    );
    let asked = world.payments.list_points.asked().remove(0);
    assert_eq!(asked.page.expect("set").size, 1);
}

#[tokio::test]
async fn an_order_is_shipped_with_or_without_a_number_and_delivered() {
    let world = World::new().await;
    let staff = world.somebody(Role::Staff);
    let shipped = orders::Order {
        status: orders::OrderStatus::Shipped.into(),
        carrier: "Yamato".to_owned(),
        shipped_at: AT,
        ..confirmed("1")
    };
    world.orders.ship_order.otherwise(move |_| {
        Ok(orders::ShipOrderResponse {
            order: Some(shipped.clone()),
        })
    });
    for (key, body) in [
        ("bare", json!({})),
        ("told", json!({"carrier": "Yamato", "tracking": "4812"})),
    ] {
        let told = world
            .post("/v1/orders/ord_1/ship")
            .by(&staff)
            .key(key)
            .send(&body)
            .await;
        assert_eq!(
            (told.status.as_u16(), &told.json()["delivery"]),
            (
                200,
                &json!({"carrier": "Yamato", "tracking": null, "shipped_at": AT_TEXT, "delivered_at": null})
            )
        );
    }
    let asked = world.orders.ship_order.asked();
    assert_eq!(
        (asked[0].carrier.as_str(), asked[0].tracking.as_str()),
        ("", "")
    );
    assert_eq!(
        (asked[1].carrier.as_str(), asked[1].tracking.as_str()),
        ("Yamato", "4812")
    );

    world
        .orders
        .deliver_order
        .then(Ok(orders::DeliverOrderResponse {
            order: Some(confirmed("1")),
        }));
    let told = world
        .post("/v1/orders/ord_1/deliver")
        .by(&staff)
        .key("deliver")
        .send(&json!({}))
        .await;
    assert_eq!(
        (told.status.as_u16(), &told.json()["delivery"]),
        (200, &json!(null))
    );
    assert_eq!(world.orders.deliver_order.asked()[0].order_id, "ord_1");
}

fn payment(
    status: payments::PaymentStatus,
    next_action: Option<payments::NextAction>,
) -> payments::Payment {
    payments::Payment {
        id: "pay_1".to_owned(),
        purchase_id: "ord_1".to_owned(),
        user_id: "usr_1".to_owned(),
        status: status.into(),
        amount: Some(yen(1250)),
        captured: Some(yen(0)),
        refunded: Some(yen(0)),
        next_action,
        failure: String::new(),
        created_at: AT,
        version: 2,
        points: 0,
        points_back: 0,
    }
}

#[tokio::test]
async fn payments_tell_what_the_customer_must_do() {
    let world = World::new().await;
    let slip = payments::NextAction {
        r#type: "konbini_slip".to_owned(),
        confirmation_number: "12345".to_owned(),
        store: "lawson".to_owned(),
        expires_at: AT,
        url: String::new(),
    };
    let waiting = payments::PaymentStatus::RequiresAction;
    world
        .payments
        .get_payment
        .then(Ok(payments::GetPaymentResponse {
            payment: Some(payment(waiting, Some(slip))),
        }));
    let told = world
        .get("/v1/payments/pay_1")
        .by(&world.buyer)
        .send_nothing()
        .await;
    assert_eq!(
        told.json(),
        json!({"id": "pay_1", "purchase_id": "ord_1", "user_id": "usr_1", "status": "requires_action",
            "amount": {"amount": 1250, "currency": "JPY"}, "captured": {"amount": 0, "currency": "JPY"},
            "refunded": {"amount": 0, "currency": "JPY"},
            "next_action": {"type": "konbini_slip", "confirmation_number": "12345", "store": "lawson", "expires_at": AT_TEXT},
            "created_at": AT_TEXT})
    );
}

#[tokio::test]
async fn the_sandbox_lets_a_customer_pay_and_answer_a_challenge() {
    let world = World::new().await;
    let paid = payments::PaymentStatus::Captured;
    world
        .payments
        .pay_sandbox_slip
        .then(Ok(payments::PaySandboxSlipResponse {
            payment: Some(payment(paid, None)),
        }));
    let told = world
        .post("/v1/payments/pay_1/sandbox/pay")
        .by(&world.buyer)
        .send_nothing()
        .await;
    assert_eq!(told.json()["status"], "captured");
    world
        .payments
        .complete_sandbox_challenge
        .otherwise(move |_| {
            Ok(payments::CompleteSandboxChallengeResponse {
                payment: Some(payment(paid, None)),
            })
        });
    for result in ["ok", "failed"] {
        let path = "/v1/payments/pay_1/sandbox/complete";
        let told = world
            .post(path)
            .by(&world.buyer)
            .send(&json!({"result": result}))
            .await;
        assert_eq!(told.status, 200);
    }
    let asked = world.payments.complete_sandbox_challenge.asked();
    assert_eq!((asked[0].succeeded, asked[1].succeeded), (true, false));
}

#[tokio::test]
async fn payment_methods_are_saved_and_listed() {
    let world = World::new().await;
    let saved = payments::PaymentMethod {
        id: "pm_1".to_owned(),
        user_id: "usr_1".to_owned(),
        r#type: "card".to_owned(),
        label: "sandbox_ok".to_owned(),
        created_at: AT,
    };
    let methods = vec![saved.clone()];
    world
        .payments
        .save_payment_method
        .then(Ok(payments::SavePaymentMethodResponse {
            method: Some(saved),
        }));
    world
        .payments
        .list_payment_methods
        .then(Ok(payments::ListPaymentMethodsResponse {
            methods,
            page: None,
        }));
    let told = world
        .post("/v1/payment-methods")
        .by(&world.buyer)
        .key("k")
        .send(&json!({"type": "card", "token": "sandbox_ok"}))
        .await;
    let shown = json!({"id": "pm_1", "type": "card", "label": "sandbox_ok", "created_at": AT_TEXT});
    assert_eq!((told.status.as_u16(), told.json()), (201, shown.clone()));
    let told = world
        .get("/v1/payment-methods")
        .by(&world.buyer)
        .send_nothing()
        .await;
    assert_eq!(told.json()["data"], json!([shown]));
}

#[tokio::test]
async fn somebody_reads_what_they_were_told_in_their_language() {
    let world = World::new().await;
    let told_at = |read_at| notifications::Notification {
        id: "ntf_1".to_owned(),
        r#type: "order.confirmed".to_owned(),
        title: "T".to_owned(),
        text: "A.\n\nB.".to_owned(),
        order_id: "ord_1".to_owned(),
        created_at: AT,
        read_at,
    };
    let list = notifications::ListNotificationsResponse {
        notifications: vec![told_at(None)],
        page: Some(PageInfo {
            next_token: "more".to_owned(),
        }),
    };
    world.notifications.list_notifications.then(Ok(list));
    let read = notifications::ReadNotificationResponse {
        notification: Some(told_at(AT)),
    };
    world.notifications.read_notification.then(Ok(read));

    let told = world
        .get("/v1/notifications?limit=1")
        .by(&world.buyer)
        .with("accept-language", "ja;q=0.9")
        .send_nothing()
        .await;
    let shape = |read_at: serde_json::Value| {
        json!({"id": "ntf_1", "type": "order.confirmed", "title": "T", "text": "A.\n\nB.", "order_id": "ord_1",
            "created_at": AT_TEXT, "read_at": read_at})
    };
    assert_eq!(
        told.json(),
        json!({"data": [shape(json!(null))], "next_cursor": "more", "has_more": true})
    );
    let asked = &world.notifications.list_notifications.asked()[0];
    assert_eq!(asked.languages, "ja;q=0.9");
    assert_eq!(asked.page.as_ref().map(|page| page.size), Some(1));

    let told = world
        .post("/v1/notifications/ntf_1/read")
        .by(&world.buyer)
        .send_nothing()
        .await;
    assert_eq!(told.json(), shape(json!(AT_TEXT)));
    let asked = &world.notifications.read_notification.asked()[0];
    assert_eq!(asked.notification_id, "ntf_1");
}

#[tokio::test]
async fn a_review_is_written_once_under_its_key_and_read_changed_moderated_and_taken_back_by_its_tag()
 {
    let world = World::new().await;
    let review = |version| reviews::Review {
        id: "rev_1".to_owned(),
        product_id: "prd_1".to_owned(),
        user_id: "usr_1".to_owned(),
        rating: 4,
        title: "Warm".to_owned(),
        text: "It does not scratch.".to_owned(),
        status: "published".to_owned(),
        created_at: AT,
        written_at: AT,
        version,
        ..reviews::Review::default()
    };
    let shown = json!({"id": "rev_1", "product_id": "prd_1", "user_id": "usr_1", "rating": 4, "title": "Warm",
        "text": "It does not scratch.", "status": "published", "reason": null, "created_at": AT_TEXT, "written_at": AT_TEXT});
    let written = reviews::WriteReviewResponse {
        review: Some(review(1)),
    };
    world.reviews.write_review.then(Ok(written));
    for _ in 0..2 {
        let told = world
            .post("/v1/products/prd_1/reviews")
            .by(&world.buyer)
            .key("k")
            .send(&json!({"rating": 4, "title": "Warm", "text": "It does not scratch."}))
            .await;
        assert_eq!((told.status.as_u16(), told.json()), (201, shown.clone()));
    }
    let asked = world.reviews.write_review.asked();
    assert_eq!(asked.len(), 1, "the second time the reply is repeated");
    assert_eq!(
        (asked[0].product_id.as_str(), asked[0].rating),
        ("prd_1", 4)
    );

    let list = reviews::ListReviewsResponse {
        reviews: vec![review(1)],
        page: None,
    };
    world.reviews.list_reviews.then(Ok(list));
    let told = world
        .get("/v1/products/prd_1/reviews?rating=4")
        .send_nothing()
        .await;
    assert_eq!(told.json()["data"], json!([shown]));
    assert_eq!(world.reviews.list_reviews.asked()[0].rating, 4);

    let one = reviews::GetReviewResponse {
        review: Some(review(3)),
    };
    world.reviews.get_review.then(Ok(one));
    let told = world.get("/v1/reviews/rev_1").send_nothing().await;
    assert_eq!(told.header("etag"), Some("\"3\""));

    let changed = reviews::ChangeReviewResponse {
        review: Some(review(4)),
    };
    world.reviews.change_review.then(Ok(changed));
    let told = world
        .ask(Method::PATCH, "/v1/reviews/rev_1")
        .by(&world.buyer)
        .with("if-match", "\"3\"")
        .send(&json!({"title": "Warmer"}))
        .await;
    assert_eq!(
        (told.status.as_u16(), told.header("etag")),
        (200, Some("\"4\""))
    );
    let asked = world.reviews.change_review.asked().remove(0);
    assert_eq!(
        (asked.expected_version, asked.rating, asked.title.as_deref()),
        (3, None, Some("Warmer"))
    );
}

fn summer10() -> orders::Voucher {
    orders::Voucher {
        code: "SUMMER10".to_owned(),
        off: Some(orders::voucher::Off::PercentOff(10)),
        currency: "JPY".to_owned(),
        least_subtotal: Some(yen(1_000)),
        valid_until: AT,
        uses: 100,
        used: 2,
        held: 1,
        created_at: AT,
        version: 7,
        ..orders::Voucher::default()
    }
}

#[tokio::test]
async fn a_voucher_reads_as_promised() {
    use orders::create_voucher_request as new;
    let world = World::new().await;
    let staff = world.somebody(Role::Staff);
    world.orders.create_voucher.otherwise(|_| {
        Ok(orders::CreateVoucherResponse {
            voucher: Some(summer10()),
        })
    });
    let body = json!({
        "code": "SUMMER10", "percent_off": 10, "least_subtotal": {"amount": 1000, "currency": "JPY"},
        "valid_until": AT_TEXT, "uses": 100,
    });
    let told = (world.post("/v1/vouchers").by(&staff).key("k"))
        .send(&body)
        .await;
    assert_eq!(
        (
            told.status.as_u16(),
            told.header("etag"),
            told.header("location")
        ),
        (201, Some("\"7\""), Some("/v1/vouchers/SUMMER10"))
    );
    assert_eq!(
        told.json(),
        json!({
            "code": "SUMMER10", "percent_off": 10, "amount_off": null, "currency": "JPY",
            "least_subtotal": {"amount": 1000, "currency": "JPY"}, "valid_from": null, "valid_until": AT_TEXT,
            "uses": 100, "used": 2, "held": 1, "created_at": AT_TEXT,
        })
    );
    let asked = world.orders.create_voucher.asked().remove(0);
    assert_eq!(asked.off, Some(new::Off::PercentOff(10)));
    assert_eq!((asked.valid_from, asked.valid_until), (None, AT));

    for (field, spoilt) in [
        ("percent_off", json!({"code": "SUMMER10", "uses": 1})),
        (
            "amount_off",
            json!({"code": "SUMMER10", "uses": 1, "percent_off": 1, "amount_off": {"amount": 1, "currency": "JPY"}}),
        ),
        (
            "valid_from",
            json!({"code": "SUMMER10", "uses": 1, "percent_off": 1, "valid_from": "soon"}),
        ),
    ] {
        let told = (world.post("/v1/vouchers").by(&staff).key(field))
            .send(&spoilt)
            .await;
        assert_eq!(told.status, 422, "{field}");
        assert_eq!(told.json()["errors"][0]["field"], field);
    }
}

#[tokio::test]
async fn a_voucher_changes_under_its_etag() {
    let world = World::new().await;
    let staff = world.somebody(Role::Staff);
    let changed = orders::Voucher {
        off: Some(orders::voucher::Off::AmountOff(yen(500))),
        version: 8,
        ..summer10()
    };
    let response = orders::ChangeVoucherResponse {
        voucher: Some(changed),
    };
    world.orders.change_voucher.then(Ok(response));
    let path = "/v1/vouchers/SUMMER10";
    let told = (world.ask(Method::PATCH, path).by(&staff))
        .send(&json!({"uses": 200}))
        .await;
    assert_eq!(told.status, 428);
    let told = (world.ask(Method::PATCH, path).by(&staff))
        .with("if-match", "\"7\"")
        .send(&json!({"uses": 200}))
        .await;
    assert_eq!(
        (told.status.as_u16(), told.header("etag")),
        (200, Some("\"8\""))
    );
    assert_eq!(told.json()["amount_off"]["amount"], 500);
    let asked = world.orders.change_voucher.asked().remove(0);
    assert_eq!(
        (
            asked.code.as_str(),
            asked.expected_version,
            asked.uses,
            asked.valid_until
        ),
        ("SUMMER10", 7, Some(200), None)
    );
}
