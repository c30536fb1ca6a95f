//! Coming to have an account, and leaving.

use holdfast_kernel::RequestId;
use serde_json::{Value, json};

use crate::shop::Shop;

in_every_topology! {
    whoever_registers_logs_in_stays_logged_in_and_logs_out,
}

async fn whoever_registers_logs_in_stays_logged_in_and_logs_out(shop: &Shop) -> anyhow::Result<()> {
    let door = shop.sandbox.door()?;
    let name = RequestId::generate();
    let (email, password) = (
        format!("{name}@holdfast.example"),
        format!("a fine {name} day"),
    );
    let account = json!({"email": email, "password": password, "name": "Mei"});
    let made = door.post("/v1/users/register", &account).await?.is(201)?;
    assert_eq!(made["role"], "user", "{made}");
    assert_eq!(made["password"], Value::Null, "{made}");
    let again = door.post("/v1/users/register", &account).await?;
    again.is_refused(409, "email_taken")?;

    let wrong = json!({"email": email, "password": "another"});
    let refused = door.post("/v1/users/login", &wrong).await?;
    refused.is_refused(401, "invalid_credentials")?;
    let login = json!({"email": email, "password": password});
    let tokens = door.post("/v1/users/login", &login).await?.is(200)?;
    let me = door.with_token(tokens["access_token"].as_str().unwrap_or_default());
    assert_eq!(me.read("/v1/users/me").await?["id"], made["id"]);

    let body = json!({"refresh_token": tokens["refresh_token"]});
    let fresh = door.post("/v1/users/refresh", &body).await?.is(200)?;
    assert_ne!(fresh["refresh_token"], tokens["refresh_token"]);
    let me = door.with_token(fresh["access_token"].as_str().unwrap_or_default());
    me.read("/v1/users/me").await?;

    let left = me.post("/v1/users/logout", &json!({})).await?;
    left.is(204)?;
    let body = json!({"refresh_token": fresh["refresh_token"]});
    let refused = door.post("/v1/users/refresh", &body).await?;
    assert_eq!(refused.status, 401, "{refused:?}");
    Ok(())
}
