//! What people are told: in their list, and by mail.

use std::{fs, os::unix::process::ExitStatusExt, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use holdfast_e2e::{Asking, Door, Topology, wait};
use holdfast_kernel::{Id, RequestId, id};
use serde_json::{Value, json};

use crate::shop::{SETTLE_MAX_SECS, Shop, buy, id_of};

in_every_topology! {
    who_registers_and_buys_is_told_so_once_each_and_in_order,
    people_are_told_in_the_language_they_registered_in_until_they_choose_another,
    mail_that_was_given_up_goes_out_after_all_when_an_operator_says_so,
}

const LIMIT: Duration = Duration::from_secs(SETTLE_MAX_SECS);
const SIGKILL: i32 = 9;
/// How far the clock is moved for another worker to take a mail: the time of a lease, and a second.
const LEASE_OVER_SECS: i64 = 61;

async fn who_registers_and_buys_is_told_so_once_each_and_in_order(
    shop: &Shop,
) -> anyhow::Result<()> {
    let sku = shop.sell(1).await?;
    let Person { email, door: me } = Person::register(shop, "en").await?;
    let order = id_of(&buy(&me, &sku, 1, "sandbox_ok").await?.is(201)?)?;
    let letters = told_by_mail(shop, &email, 2).await?;
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

async fn people_are_told_in_the_language_they_registered_in_until_they_choose_another(
    shop: &Shop,
) -> anyhow::Result<()> {
    let Person { email, door: me } = Person::register(shop, "ja-JP, en;q=0.5").await?;
    let profile = me.read("/v1/users/me").await?;
    assert_eq!(profile["locale"], "ja", "{profile}");
    let letters = told_by_mail(shop, &email, 1).await?;
    // "Holdfast へようこそ" as a header carries it.
    assert!(
        letters[0].contains("Subject: Holdfast =?utf-8?"),
        "{letters:?}"
    );
    // Whatever their client names.
    let titled = async || {
        let asking = Asking::new("GET", "/v1/notifications").with("accept-language", "fr, en");
        let list = me.ask(&asking).await?.is(200)?;
        anyhow::Ok(list["data"][0]["title"].clone())
    };
    assert_eq!(titled().await?, "Holdfast へようこそ");

    let wish = json!({"locale": "tlh"});
    let refused = me.patch("/v1/users/me", &wish).await?;
    let refused = refused.is_refused(422, "invalid_argument")?;
    assert_eq!(refused["errors"][0]["field"], "locale", "{refused}");
    let wish = json!({"locale": "en"});
    let changed = me.patch("/v1/users/me", &wish).await?.is(200)?;
    assert_eq!(
        (&changed["locale"], &changed["name"]),
        (&json!("en"), &json!("Mei"))
    );
    assert_eq!(titled().await?, "Welcome to Holdfast");
    let sku = shop.sell(1).await?;
    let order = id_of(&buy(&me, &sku, 1, "sandbox_ok").await?.is(201)?)?;
    let letters = told_by_mail(shop, &email, 2).await?;
    assert!(
        letters[1].contains(&format!("Subject: Order {order}")),
        "{letters:?}"
    );
    Ok(())
}

async fn mail_that_was_given_up_goes_out_after_all_when_an_operator_says_so(
    shop: &Shop,
) -> anyhow::Result<()> {
    let Person { email, door: me } = Person::register(shop, "en").await?;
    let welcome = told_by_mail(shop, &email, 1).await?;
    let list = me.read("/v1/notifications").await?;
    let id: Id<id::Notification> = list["data"][0]["id"].as_str().unwrap_or_default().parse()?;
    // As if the mail server had been away for hours.
    let mut book = shop.sandbox.book("notifications").await?;
    wait::until("the mail is recorded as sent", LIMIT, async || {
        let given_up = sqlx::query(
            "UPDATE notifications.mail SET state = 'dead', tries = 5, note = '421'
             WHERE notification_id = $1 AND state = 'sent'",
        );
        let done = given_up.bind(id.uuid()).execute(&mut book).await?;
        Ok((done.rows_affected() == 1).then_some(()))
    })
    .await?;
    for (file, _) in files_to(shop, &email)? {
        fs::remove_file(file)?;
    }

    let operator = shop.sandbox.operator()?;
    let internal = &shop.sandbox.server("notifications")?.ready.internal;
    let mail = |words: &[&str]| {
        operator.done(&[&["mail", "--internal", internal.as_str()], words].concat())
    };
    let id = id.to_string();
    let dead = mail(&["dead"])?;
    let line = dead.lines().find(|line| line.contains(&id));
    let line: Value =
        serde_json::from_str(line.with_context(|| format!("{id} is not in {dead}"))?)?;
    assert_eq!((&line["tries"], &line["note"]), (&json!(5), &json!("421")));
    assert!(!dead.contains(&email), "{dead}");
    assert_eq!(mail(&["revive", &id])?.trim(), r#"{"revived":1}"#);
    assert_eq!(told_by_mail(shop, &email, 1).await?, welcome);
    assert_eq!(mail(&["revive", &id])?.trim(), r#"{"revived":0}"#);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_whose_worker_died_between_handing_it_over_and_recording_it_comes_again_as_it_was_all_in_one()
-> anyhow::Result<()> {
    dies_in_between(Topology::AllInOne).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_whose_worker_died_between_handing_it_over_and_recording_it_comes_again_as_it_was_each_alone()
-> anyhow::Result<()> {
    dies_in_between(Topology::EachAlone).await
}

async fn dies_in_between(topology: Topology) -> anyhow::Result<()> {
    let mut shop = Shop::open(topology, &[]).await?;
    everybody_is_told(&shop).await?;
    let deadly = ("HOLDFAST_FAILPOINTS", "notifications.settle.before=kill");
    shop.sandbox_mut()
        .revive("notifications", &[deadly])
        .await?;
    let name = RequestId::generate();
    let email = format!("{name}@holdfast.example");
    let account = json!({"email": email, "password": format!("a fine {name} day"), "name": "Mei"});
    let door = shop.sandbox.door()?;
    // The process may be gone before it answers.
    let answer = door.post("/v1/users/register", &account).await;
    let ended = shop
        .sandbox_mut()
        .server_mut("notifications")?
        .end()
        .await?;
    ensure!(
        ended.signal() == Some(SIGKILL),
        "it ended with {ended}; {answer:?}"
    );

    let handed_over = files_to(&shop, &email)?;
    ensure!(handed_over.len() == 1, "{handed_over:?}");
    fs::remove_file(&handed_over[0].0)?;
    shop.sandbox_mut().revive("notifications", &[]).await?;
    ensure!(mails(&shop).await? == ["waiting, taken once"]);
    // Nobody takes it as long as whoever has it may still be at it.
    shop.sandbox.set_clock(LEASE_OVER_SECS, 0)?;
    wait::until("the mail is recorded", LIMIT, async || {
        Ok((mails(&shop).await? == ["sent, taken 2 times"]).then_some(()))
    })
    .await?;
    // The same name, the same Message-ID, the same bytes: in a folder one letter, in a mail box one that came twice.
    ensure!(files_to(&shop, &email)? == handed_over);
    shop.sandbox.audit_is_clean()
}

/// Waits until everybody who has an account was written to.
async fn everybody_is_told(shop: &Shop) -> anyhow::Result<()> {
    let mut auth = shop.sandbox.book("auth").await?;
    let mut book = shop.sandbox.book("notifications").await?;
    wait::until("everybody was written to", LIMIT, async || {
        let accounts: i64 =
            sqlx::query_scalar("SELECT count(*) FROM auth.account WHERE registered_at IS NOT NULL")
                .fetch_one(&mut auth)
                .await?;
        let mails: i64 =
            sqlx::query_scalar("SELECT count(*) FROM notifications.mail WHERE due_at IS NULL")
                .fetch_one(&mut book)
                .await?;
        Ok((mails == accounts).then_some(()))
    })
    .await?;
    // What was is no part of what comes.
    sqlx::query("DELETE FROM notifications.mail")
        .execute(&mut book)
        .await?;
    Ok(())
}

/// How the mails stand.
async fn mails(shop: &Shop) -> anyhow::Result<Vec<String>> {
    let mut book = shop.sandbox.book("notifications").await?;
    let mails = sqlx::query_scalar(
        "SELECT state || ', taken ' || CASE epoch WHEN 1 THEN 'once' ELSE epoch || ' times' END
         FROM notifications.mail ORDER BY seq",
    );
    Ok(mails.fetch_all(&mut book).await?)
}

/// Somebody who registered and logged in.
struct Person {
    email: String,
    door: Door,
}

impl Person {
    /// With a client that names these languages.
    async fn register(shop: &Shop, languages: &str) -> anyhow::Result<Self> {
        let door = shop.sandbox.door()?;
        let name = RequestId::generate();
        let email = format!("{name}@holdfast.example");
        let password = format!("a fine {name} day");
        let account = json!({"email": email, "password": password, "name": "Mei"});
        let registering = Asking::new("POST", "/v1/users/register")
            .with("accept-language", languages)
            .with_json(Some(&account));
        door.ask(&registering).await?.is(201)?;
        let login = json!({"email": email, "password": password});
        let tokens = door.post("/v1/users/login", &login).await?.is(200)?;
        let token = tokens["access_token"].as_str().context("a token")?;
        Ok(Self {
            email,
            door: door.with_token(token),
        })
    }
}

/// Waits until so many letters to an address lie in the folder, and no more; gives them by the order of what they tell of.
async fn told_by_mail(shop: &Shop, address: &str, count: usize) -> anyhow::Result<Vec<String>> {
    let what = format!("{count} letters lie in the folder");
    let files = wait::until(&what, LIMIT, async || {
        let files = files_to(shop, address)?;
        Ok((files.len() >= count).then_some(files))
    });
    let files = files.await?;
    ensure!(files.len() == count, "{files:?}");
    Ok(files.into_iter().map(|(_, letter)| letter).collect())
}

/// The files of letters to an address, by the order of what they tell of.
fn files_to(shop: &Shop, address: &str) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let folder = shop.sandbox.data_dir_of("notifications").join("mail");
    let mut files: Vec<_> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    files.sort();
    files.retain(|file| file.extension().is_some_and(|kind| kind == "eml"));
    let to = format!("To: {address}");
    let mut letters = Vec::new();
    for file in files {
        let letter = fs::read_to_string(&file)?;
        if letter.lines().any(|line| line == to) {
            letters.push((file, letter));
        }
    }
    Ok(letters)
}
