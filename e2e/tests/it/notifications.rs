//! What people are told: in their list, and by mail.

use std::{fs, time::Duration};

use anyhow::Context as _;
use holdfast_e2e::wait;
use holdfast_kernel::RequestId;
use serde_json::{Value, json};

use crate::shop::{SETTLE_MAX_SECS, Shop, buy, id_of};

in_every_topology! {
    who_registers_and_buys_is_told_so_once_each_and_in_order,
}

async fn who_registers_and_buys_is_told_so_once_each_and_in_order(
    shop: &Shop,
) -> anyhow::Result<()> {
    let sku = shop.sell(1).await?;
    let door = shop.sandbox.door()?;
    let name = RequestId::generate();
    let email = format!("{name}@holdfast.example");
    let password = format!("a fine {name} day");
    let account = json!({"email": email, "password": password, "name": "Mei"});
    door.post("/v1/users/register", &account).await?.is(201)?;
    let login = json!({"email": email, "password": password});
    let tokens = door.post("/v1/users/login", &login).await?.is(200)?;
    let me = door.with_token(tokens["access_token"].as_str().context("a token")?);
    let order = id_of(&buy(&me, &sku, 1, "sandbox_ok").await?.is(201)?)?;

    let limit = Duration::from_secs(SETTLE_MAX_SECS);
    let letters = wait::until("two letters lie in the folder", limit, async || {
        let letters = letters_to(shop, &email)?;
        Ok((letters.len() >= 2).then_some(letters))
    });
    let letters = letters.await?;
    assert_eq!(letters.len(), 2, "{letters:?}");
    assert!(
        letters[0].contains("Subject: Welcome to Holdfast"),
        "{letters:?}"
    );
    assert!(letters[1].contains(&order), "{letters:?}");

    let list = me.read("/v1/notifications").await?;
    let told: Vec<&Value> = (list["data"].as_array().into_iter().flatten())
        .map(|told| &told["type"])
        .collect();
    assert_eq!(told, ["order.confirmed", "user.registered"], "{list}");
    let id = list["data"][0]["id"].as_str().context("an id")?;
    let read = me
        .post(&format!("/v1/notifications/{id}/read"), &json!({}))
        .await?;
    assert_ne!(read.is(200)?["read_at"], Value::Null);
    let stranger = shop.buyer().await?;
    let theirs = stranger
        .post(&format!("/v1/notifications/{id}/read"), &json!({}))
        .await?;
    theirs.is_refused(404, "unknown_notification")?;
    Ok(())
}

/// The letters to an address, by the order of what they tell of.
fn letters_to(shop: &Shop, address: &str) -> anyhow::Result<Vec<String>> {
    let folder = shop.sandbox.data_dir_of("notifications").join("mail");
    let mut files: Vec<_> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    files.sort();
    files.retain(|file| file.extension().is_some_and(|kind| kind == "eml"));
    let letters = files.into_iter().map(fs::read_to_string);
    let mut letters: Vec<String> = letters.collect::<std::io::Result<_>>()?;
    let to = format!("To: {address}");
    letters.retain(|letter| letter.lines().any(|line| line == to));
    Ok(letters)
}
