//! A registration that a crash cuts off between account and profile, which lie in two services.

use std::{os::unix::process::ExitStatusExt, time::Duration};

use anyhow::{Context as _, ensure};
use holdfast_e2e::{Topology, wait::until};
use holdfast_kernel::{Id, RequestId, id};
use serde_json::json;
use uuid::Uuid;

use crate::shop::Shop;

const SIGKILL: i32 = 9;
/// How long a gateway may say that a service which is back is not.
const BACK_MAX_SECS: u64 = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_that_a_crash_cut_off_is_whole_once_it_is_sent_again_all_in_one()
-> anyhow::Result<()> {
    cut_off_everywhere(Topology::AllInOne).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_that_a_crash_cut_off_is_whole_once_it_is_sent_again_each_alone()
-> anyhow::Result<()> {
    cut_off_everywhere(Topology::EachAlone).await
}

async fn cut_off_everywhere(topology: Topology) -> anyhow::Result<()> {
    let mut shop = Shop::open(topology, &[]).await?;
    let points: Vec<&str> = holdfast::failpoints()
        .filter(|point| point.starts_with("auth."))
        .collect();
    ensure!(!points.is_empty(), "auth has no failpoints");
    for point in points {
        let done = cut_off(&mut shop, point).await;
        if done.is_err() {
            shop.sandbox.show_logs();
        }
        done.with_context(|| point.to_owned())?;
    }
    Ok(())
}

async fn cut_off(shop: &mut Shop, point: &str) -> anyhow::Result<()> {
    let (name, path) = (RequestId::generate(), "/v1/users/register");
    let (email, password) = (
        format!("{name}@holdfast.example"),
        format!("a fine {name} day"),
    );
    let account = json!({"email": email, "password": password, "name": "Mei"});
    let sandbox = shop.sandbox_mut();
    let armed = format!("{point}=kill");
    sandbox
        .revive("auth", &[("HOLDFAST_FAILPOINTS", &armed)])
        .await?;
    let door = sandbox.door()?;
    // The connection breaks, or a gateway that lives says that it cannot.
    if let Ok(answer) = door.post_without_key(path, &account).await {
        ensure!(answer.status >= 500, "{answer:?}");
    }
    let status = sandbox.server_mut("auth")?.end().await?;
    ensure!(status.signal() == Some(SIGKILL), "it ended with {status}");
    sandbox.revive("auth", &[]).await?;

    let back = Duration::from_secs(BACK_MAX_SECS);
    let again = until("the same registration is answered", back, async || {
        let answer = door.post_without_key(path, &account).await?;
        Ok((answer.status != 503).then_some(answer))
    });
    let again = again.await?;
    // Who died after the last commit had registered them, and had not said so.
    if again.status == 409 {
        again.is_refused(409, "email_taken")?;
    } else {
        again.is(201)?;
    }
    let login = json!({"email": email, "password": password});
    let tokens = door
        .post_without_key("/v1/users/login", &login)
        .await?
        .is(200)?;
    let me = door.with_token(tokens["access_token"].as_str().unwrap_or_default());
    let me = me.read("/v1/users/me").await?;
    ensure!(me["email"] == email.as_str() && me["name"] == "Mei", "{me}");

    // Addresses lie sealed; but an account without its profile, or a profile without its account, would show.
    let mut book = shop.sandbox.book("auth").await?;
    let accounts: Vec<Uuid> =
        sqlx::query_scalar("SELECT id FROM account WHERE registered_at IS NOT NULL ORDER BY id")
            .fetch_all(&mut book)
            .await?;
    let mut book = shop.sandbox.book("users").await?;
    let profiles: Vec<Uuid> = sqlx::query_scalar("SELECT user_id FROM profile ORDER BY user_id")
        .fetch_all(&mut book)
        .await?;
    let user: Id<id::User> = me["id"].as_str().unwrap_or_default().parse()?;
    ensure!(
        profiles == accounts && accounts.contains(&user.uuid()),
        "accounts {accounts:?}, profiles {profiles:?}, {me}"
    );
    Ok(())
}
