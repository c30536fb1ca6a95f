//! Accounts from outside: who may come in, and who may no longer.

use std::time::Duration;

use anyhow::Context as _;
use holdfast_e2e::{Door, wait::until};
use holdfast_kernel::{Id, RequestId, id};
use serde_json::{Value, json};

use crate::shop::Shop;

in_every_topology! {
    a_session_that_was_ended_elsewhere_opens_nothing_any_more,
    an_account_gains_a_role_loses_its_leave_and_is_forgotten,
}

/// What a logged-out token may live at most. It is told in milliseconds; this is the promise.
const DEAD_MAX: Duration = Duration::from_mins(1);

/// How long news may take from one service to another.
const FORGOTTEN_MAX: Duration = Duration::from_secs(30);

/// Somebody who has registered.
struct Person {
    email: String,
    password: String,
}

impl Person {
    async fn register(door: &Door) -> anyhow::Result<Self> {
        let name = RequestId::generate();
        let person = Self {
            email: format!("{name}@holdfast.example"),
            password: format!("a fine {name} day"),
        };
        let account = json!({"email": person.email, "password": person.password, "name": "Mei"});
        door.post_without_key("/v1/users/register", &account)
            .await?
            .is(201)?;
        Ok(person)
    }

    /// A door of theirs, and the tokens behind it.
    async fn login(&self, door: &Door) -> anyhow::Result<(Door, Value)> {
        let login = json!({"email": self.email, "password": self.password});
        let tokens = door
            .post_without_key("/v1/users/login", &login)
            .await?
            .is(200)?;
        let token = tokens["access_token"].as_str().context("a token")?;
        Ok((door.with_token(token), tokens))
    }
}

async fn is_dead(door: &Door) -> anyhow::Result<()> {
    until("the token is not taken any more", DEAD_MAX, async || {
        let answer = door.get("/v1/users/me").await?;
        Ok((answer.status == 401).then_some(()))
    })
    .await
}

async fn a_session_that_was_ended_elsewhere_opens_nothing_any_more(
    shop: &Shop,
) -> anyhow::Result<()> {
    let door = shop.sandbox.door()?;
    let mei = Person::register(&door).await?;
    let ((here, _), (there, tokens)) = (mei.login(&door).await?, mei.login(&door).await?);
    there.read("/v1/users/me").await?;
    let sessions = here.read("/v1/users/me/sessions").await?;
    let sessions = sessions["data"].as_array().context("a list")?;
    assert_eq!(sessions.len(), 2, "{sessions:?}");
    let other = sessions.iter().find(|session| session["current"] == false);
    let other = other.and_then(|session| session["id"].as_str());
    let path = format!("/v1/users/me/sessions/{}", other.context("one elsewhere")?);
    here.delete(&path).await?.is(204)?;

    is_dead(&there).await?;
    let body = json!({"refresh_token": tokens["refresh_token"]});
    let refused = door.post_without_key("/v1/users/refresh", &body).await?;
    refused.is_refused(401, "refresh_invalid")?;
    here.read("/v1/users/me").await?;
    here.post("/v1/users/logout", &json!({})).await?.is(204)?;
    is_dead(&here).await
}

async fn an_account_gains_a_role_loses_its_leave_and_is_forgotten(
    shop: &Shop,
) -> anyhow::Result<()> {
    let door = shop.sandbox.door()?;
    let mei = Person::register(&door).await?;
    let (me, _) = mei.login(&door).await?;
    let home = json!({"name": "Mei", "line1": "1-1 Marunouchi", "city": "Tokyo", "country": "JP"});
    me.post("/v1/users/me/addresses", &home).await?.is(201)?;
    let export = me.read("/v1/users/me/export").await?;
    assert_eq!(export["account"]["email"], mei.email, "{export}");
    assert_eq!(export["addresses"][0]["city"], "Tokyo", "{export}");
    let id = export["account"]["id"].as_str().context("an id")?;
    me.get("/v1/inventory")
        .await?
        .is_refused(403, "forbidden")?;

    let (admin, path) = (&shop.admin, format!("/v1/users/{id}"));
    let found = admin
        .read(&format!("/v1/users?email={}", mei.email))
        .await?;
    assert_eq!(found["data"][0]["name"], "Mei", "{found}");
    let role = admin
        .put(&format!("{path}/role"), &json!({"role": "staff"}))
        .await?;
    assert_eq!(role.is(200)?["role"], "staff");
    is_dead(&me).await?;
    let (staff, _) = mei.login(&door).await?;
    staff.read("/v1/inventory").await?;
    let active = json!({"is_active": false});
    admin
        .put(&format!("{path}/active"), &active)
        .await?
        .is(200)?;
    is_dead(&staff).await?;
    let login = json!({"email": mei.email, "password": mei.password});
    let refused = door.post_without_key("/v1/users/login", &login).await?;
    refused.is_refused(401, "invalid_credentials")?;

    admin.delete(&path).await?.is(204)?;
    admin.get(&path).await?.is_refused(404, "unknown_user")?;
    // Users hears of it a moment later.
    let user: Id<id::User> = id.parse()?;
    let mut book = shop.sandbox.book("users").await?;
    until("users has forgotten", FORGOTTEN_MAX, async || {
        let kept = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM subject_key WHERE subject = $1)
                + (SELECT count(*) FROM address WHERE user_id = $1)",
        );
        let kept: i64 = kept.bind(user.uuid()).fetch_one(&mut book).await?;
        Ok((kept == 0).then_some(()))
    })
    .await?;
    let account = json!({"email": mei.email, "password": mei.password, "name": "Mei"});
    let anew = door
        .post_without_key("/v1/users/register", &account)
        .await?;
    assert_ne!(anew.is(201)?["id"], id);
    Ok(())
}
