//! Accounts from outside: who may come in, and who may no longer.

use std::time::Duration;

use anyhow::Context as _;
use holdfast_e2e::{Door, wait::until};
use holdfast_kernel::RequestId;
use serde_json::{Value, json};

use crate::shop::Shop;

in_every_topology! {
    a_session_that_was_ended_elsewhere_opens_nothing_any_more,
}

/// What a logged-out token may live at most. It is told in milliseconds; this is the promise.
const DEAD_MAX: Duration = Duration::from_secs(60);

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
