//! What must not be found anywhere: secrets that passed through every door, rightly and wrongly.

use anyhow::{Context as _, ensure};
use holdfast_e2e::{Asking, Door};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use super::stage::{SKU, Stage, on_stage, unique};

/// What is said openly, and kept.
const REASON: &str = "a canary sings";
/// A number that cards have, for tests of providers.
const CARD_NUMBER: &str = "4111111111111111";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_found_in_logs_metrics_messages_or_books() -> anyhow::Result<()> {
    on_stage(async |stage| {
        let door = stage.shop.sandbox.door()?;
        let name = unique();
        let email = format!("canary-{name}@holdfast.example");
        let password = format!("canary-{name}-password");
        let secrets = pass_through_every_door(&door, &email, &password).await?;
        let books = everything_kept(stage, &email).await?;
        let elsewhere = [
            ("logs", stage.shop.sandbox.whole_logs()),
            ("metrics", stage.shop.sandbox.metrics().await?),
        ];
        // What may be found is found: the looking works.
        ensure!(books.iter().any(|(_, rows)| rows.contains(REASON)));
        ensure!(elsewhere[1].1.contains("/v1/users/login"));
        for (place, text) in elsewhere.iter().map(|(place, text)| (*place, text)) {
            ensure!(!text.is_empty(), "{place} say nothing at all");
            for secret in secrets.iter().chain([&email]) {
                ensure!(!text.contains(secret), "{place} hold {secret}");
            }
        }
        for (table, rows) in &books {
            for secret in &secrets {
                ensure!(!rows.contains(secret), "{table} holds {secret}");
            }
            // Where a person's address is kept it has to be; messages carry ids.
            if table.starts_with("bus.") || table.ends_with(".outbox") {
                ensure!(!rows.contains(&email), "{table} holds {email}");
            }
        }
        one_record_a_line(&elsewhere[0].1)
    })
    .await
}

/// Does what one does with secrets, and what one does with them by mistake; returns them.
async fn pass_through_every_door(
    door: &Door,
    email: &str,
    password: &str,
) -> anyhow::Result<Vec<String>> {
    let account = json!({"email": email, "password": password, "name": "Canary"});
    door.post("/v1/users/register", &account).await?.is(201)?;
    let login = json!({"email": email, "password": password});
    let tokens = door
        .post_without_key("/v1/users/login", &login)
        .await?
        .is(200)?;
    let text = |name: &str| tokens[name].as_str().unwrap_or_default().to_owned();
    let (access, refresh) = (text("access_token"), text("refresh_token"));
    let me = door.with_token(&access);

    // By mistake: in the wrong field, half a body, another type, a query, a path, a header, a reason.
    for wrong in [
        json!({"email": password, "password": email}),
        json!({"email": email, "password": [password]}),
        json!({"email": email, "password": format!("{password}-wrong")}),
        json!({"email": email, "passwort": password}),
    ] {
        let refused = door.post_without_key("/v1/users/login", &wrong).await?;
        ensure!(refused.status >= 400, "{refused:?}");
    }
    let half = format!("{{\"email\":\"{email}\",\"password\":\"{password}");
    let mut broken =
        Asking::new("POST", "/v1/users/login").with("content-type", "application/json");
    broken.body = Some(half.into_bytes());
    let refused = door.ask(&broken).await?;
    ensure!(!String::from_utf8_lossy(&refused.bytes).contains(password));
    let spent = json!({"refresh_token": refresh});
    door.post_without_key("/v1/users/refresh", &spent).await?;
    door.post_without_key("/v1/users/refresh", &json!({"refresh_token": access}))
        .await?;
    me.get(&format!("/v1/products?token={access}")).await?;
    door.with_token(&format!("{access}x"))
        .get("/v1/users/me")
        .await?;
    let key = format!("canary-key-{}", unique());
    let paid = json!({
        "items": [{"sku": SKU, "quantity": 1}],
        "payment_method": {"type": "card", "token": "sandbox_ok"},
    });
    let order = me.post_keyed("/v1/orders", &key, &paid).await?.is(201)?;
    let card = json!({"type": "card", "token": CARD_NUMBER});
    me.post("/v1/payment-methods", &card).await?.is(422)?;
    let mut by_number = paid.clone();
    by_number["payment_method"] = card;
    me.post("/v1/orders", &by_number).await?.is(422)?;
    let id = order["id"].as_str().context("an order has an id")?;
    let forged = json!({"level": "ERROR", "forged": true});
    let cancel = format!("/v1/orders/{id}/cancel");
    let said = json!({"reason": format!("{REASON}\r\n{forged}")});
    me.post(&cancel, &said).await?.is(422)?;
    me.post(&cancel, &json!({"reason": REASON}))
        .await?
        .is(200)?;
    Ok(vec![
        password.to_owned(),
        access,
        refresh,
        key,
        CARD_NUMBER.to_owned(),
    ])
}

/// Every row of every table, as text.
async fn everything_kept(stage: &Stage, email: &str) -> anyhow::Result<Vec<(String, String)>> {
    let mut kept = Vec::new();
    for table in stage.settled_books().await?.into_keys() {
        let schema = table.split('.').next().unwrap_or_default().to_owned();
        let mut book = stage.shop.sandbox.book(&schema).await?;
        let rows: Option<String> = sqlx::query_scalar(AssertSqlSafe(format!(
            "SELECT string_agg(t::text, chr(10)) FROM {table} t"
        )))
        .fetch_one(&mut book)
        .await?;
        kept.push((table, rows.unwrap_or_default()));
    }
    ensure!(kept.len() > 20, "{} tables, none of {email}", kept.len());
    Ok(kept)
}

/// What a line of the log says is a record of ours: nobody outside can end one and begin another.
fn one_record_a_line(log: &str) -> anyhow::Result<()> {
    for line in log.lines() {
        if let Ok(record) = serde_json::from_str::<Value>(line) {
            ensure!(record["forged"].is_null(), "{line}");
        }
    }
    Ok(())
}
