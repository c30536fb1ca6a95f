//! What is shown cannot be sent: one rule everywhere, a member that an operation does not take is refused by its name.

use anyhow::{Context as _, bail, ensure};
use serde_json::json;

use super::{
    places::places,
    stage::{on_stage, written},
    table::{Asker, row_of},
};

/// What somebody would try who read how such systems are attacked.
const TRIED: [&str; 8] = [
    "is_admin",
    "role",
    "status",
    "user_id",
    "paid",
    "price",
    "version",
    "__proto__",
];

/// Members of answers whose names sound like secrets, and are meant to be told where they are.
#[rustfmt::skip]
const TOLD: [(&str, &str); 7] = [
    ("access_token", "POST /v1/users/login"),
    ("refresh_token", "POST /v1/users/login"),
    ("token_type", "POST /v1/users/login"),
    ("token_endpoint", "GET /.well-known/openid-configuration"),
    ("id_token_signing_alg_values_supported", "GET /.well-known/openid-configuration"),
    ("key", "GET /v1/inventory"),
    // Of the answer to POST; where it is told again is for the service's own tests.
    ("secret", "GET /v1/webhooks"),
];
const SECRET: [&str; 8] = [
    "password",
    "hash",
    "secret",
    "token",
    "key",
    "fingerprint",
    "epoch",
    "internal",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_operation_takes_a_member_that_is_only_shown() -> anyhow::Result<()> {
    on_stage(async |stage| {
        let mut names: Vec<String> = stage.contract.names_answered()?.into_keys().collect();
        names.extend(TRIED.map(str::to_owned));
        for operation in stage.contract.operations()? {
            let Some(body) = &operation.body else {
                continue;
            };
            let name = operation.name();
            let row = row_of(&name).with_context(|| format!("{name} has no row"))?;
            let asker = row.admitted();
            let (door, asking) = stage.prepare(&operation, row.thing, asker).await?;
            let good = asking.json().context("a body of JSON")?;
            let before = stage.settled_books().await?;
            for place in places(&stage.contract.resolved(&body.schema), &good) {
                let Some(members) = place.members() else {
                    continue;
                };
                for extra in names.iter().filter(|it| !members.contains_key(*it)) {
                    let mut more = good.clone();
                    let Some(object) = more.pointer_mut(&place.pointer) else {
                        continue;
                    };
                    if !object.is_object() {
                        continue;
                    }
                    object[extra] = json!("x");
                    let dot = if place.name.is_empty() { "" } else { "." };
                    let field = format!("{}{dot}{extra}", place.name);
                    let answer = door.ask(&asking.clone().with_json(Some(&more))).await?;
                    let problem = answer
                        .is_refused(422, "invalid_argument")
                        .with_context(|| format!("{name} with {field}"))?;
                    ensure!(
                        problem["errors"][0]["field"] == field,
                        "{name} with {field}: {problem}"
                    );
                }
            }
            let touched = written(&before, &stage.books().await?);
            ensure!(touched.is_empty(), "{name} wrote to {touched:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_shows_a_secret() -> anyhow::Result<()> {
    on_stage(async |stage| {
        let names = stage.contract.names_answered()?;
        for (name, first) in &names {
            let sounds_secret = SECRET.iter().any(|word| name.contains(word));
            if sounds_secret && !TOLD.contains(&(name, first)) {
                bail!("{first} answers {name}: is that meant to be told?");
            }
        }
        ensure!(names.len() > 50, "{} names", names.len());
        // The answers themselves are compared with the description by the test of who may do what.
        ensure!(stage.door(Asker::Nobody).get("/healthz").await?.status == 200);
        Ok(())
    })
    .await
}
