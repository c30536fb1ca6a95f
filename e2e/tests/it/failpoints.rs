//! Every point at which a process can die between two steps of a purchase: it dies there, comes back, and every purchase
//! ends as it would have.
//!
//! Purchases of every outcome are made at the same time on an installation that dies at one point after another: each
//! life has the next point armed. What was not answered is asked again under the same key, as a client does.

use std::{
    collections::{BTreeSet, VecDeque},
    os::unix::process::ExitStatusExt,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use futures::future::join_all;
use holdfast_e2e::{Answer, Door, Role, Topology, server::EndedEarly, wait};
use holdfast_kernel::RequestId;
use serde_json::{Value, json};

use crate::shop::{PRICE, Shop, Stock, basket};

/// Longer than a checkout holds its units, with all grace, and longer than the sandbox keeps late money to itself.
const LONG_SECS: i64 = 700;
/// Longer than the sandbox keeps the outcome of a time-out to itself.
const TIMEOUT_SECS: i64 = 5;
/// A short lease, and a little more: what a killed worker had is free after it.
const LEASE_SECS: i64 = 4;
const LEASE: &str = "4";
/// How long a round's step may take, kills included.
const STEP_MAX_SECS: u64 = 90;
const SIGKILL: i32 = 9;

/// Points that a purchase comes by only after a step failed for the moment: what makes one fail.
const AFTER_A_FAILURE: [(&str, &str); 2] = [
    ("orders.put_off.before", "orders.authorize.before"),
    ("orders.put_off.after", "orders.authorize.before"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purchases_end_right_wherever_the_process_dies() -> anyhow::Result<()> {
    let environment = [("HOLDFAST_ORDERS__LEASE_SECS", LEASE)];
    let shop = Shop::open(Topology::AllInOne, &environment).await?;
    let mut crashes = Crashes {
        shop,
        waiting: holdfast::failpoints().collect(),
        armed: None,
        died_at: BTreeSet::new(),
        missed: BTreeSet::new(),
        wall_secs: 0,
        ledger_secs: 0,
    };
    crashes.arm_next().await?;
    loop {
        let armed = crashes.armed;
        let round = crashes.round().await;
        if round.is_err() {
            crashes.shop.sandbox.show_logs();
        }
        round.with_context(|| format!("died at {:?}, armed {armed:?}", crashes.died_at))?;
        let Some(armed) = armed else { break };
        if crashes.armed == Some(armed) {
            // It was armed for a whole round, and nobody came by.
            crashes.missed.insert(armed);
            crashes.arm_next().await?;
        }
    }
    assert!(
        crashes.missed.is_empty(),
        "nobody came by {:?}",
        crashes.missed
    );
    assert_eq!(crashes.died_at, holdfast::failpoints().collect());
    Ok(())
}

/// An installation that dies at one point after another.
struct Crashes {
    shop: Shop,
    waiting: VecDeque<&'static str>,
    armed: Option<&'static str>,
    died_at: BTreeSet<&'static str>,
    missed: BTreeSet<&'static str>,
    wall_secs: i64,
    ledger_secs: i64,
}

/// Something to be posted until it is answered.
struct Wish {
    door: Door,
    path: String,
    key: String,
    body: Value,
}

impl Wish {
    fn new(door: &Door, path: &str, body: Value) -> Self {
        Self {
            door: door.clone(),
            path: path.to_owned(),
            key: RequestId::generate().to_string(),
            body,
        }
    }
}

/// The cards of a round: what each buyer's order has to become before anybody is late, refunds or cancels.
const CARDS: [(&str, &str); 9] = [
    ("sandbox_ok", "confirmed"),
    ("sandbox_ok", "confirmed"),
    ("sandbox_ok", "confirmed"),
    ("sandbox_declined", "payment_failed"),
    ("sandbox_capture_fails", "payment_failed"),
    ("sandbox_timeout", "confirmed"),
    ("sandbox_3ds", "awaiting_payment"),
    ("sandbox_late_ok", "awaiting_payment"),
    ("sandbox_late_ok", "awaiting_payment"),
];
const KEPT: usize = 0;
const REFUNDED: usize = 1;
const CANCELLED: usize = 2;
const TIMED_OUT: usize = 5;
const CHALLENGED: usize = 6;
const LATE_AND_FREE: usize = 7;
const LATE_AND_SOLD: usize = 8;

impl Crashes {
    /// One purchase of every outcome, from beginning to end.
    async fn round(&mut self) -> anyhow::Result<()> {
        let people = self.shop.sandbox.people(Role::User, 2).await?;
        let [buyer, rival] = people.as_slice() else {
            anyhow::bail!("two were asked for");
        };
        self.shop.staff = self.shop.sandbox.somebody(Role::Staff).await?;
        self.shop.admin = self.shop.sandbox.somebody(Role::Admin).await?;
        let mut skus = Vec::new();
        for _ in CARDS {
            skus.push(self.shop.sell(1).await?);
        }

        let wishes = CARDS
            .iter()
            .zip(&skus)
            .map(|((card, _), sku)| Wish::new(buyer, "/v1/orders", basket(&[(sku, 1)], card)));
        let answers = self.insist(&wishes.collect::<Vec<_>>()).await?;
        let orders = answers
            .iter()
            .map(order_of)
            .collect::<anyhow::Result<Vec<_>>>()?;
        self.move_clocks(TIMEOUT_SECS, 0)?;
        for (order, (_, status)) in orders.iter().zip(CARDS) {
            self.settles(buyer, order, status).await?;
        }

        let staff = self.shop.staff.clone();
        let path = |order: usize, what: &str| format!("/v1/orders/{}/{what}", orders[order]);
        let wishes = [
            Wish::new(
                &staff,
                &path(REFUNDED, "refunds"),
                json!({"reason": "broken"}),
            ),
            Wish::new(buyer, &path(CANCELLED, "cancel"), json!({})),
            Wish::new(buyer, &path(CHALLENGED, "cancel"), json!({})),
        ];
        self.insist(&wishes).await?;
        self.settles(buyer, &orders[REFUNDED], "refunded").await?;
        self.settles(buyer, &orders[CANCELLED], "refunded").await?;
        self.settles(buyer, &orders[CHALLENGED], "cancelled")
            .await?;

        // The holds' time is over, and nobody knows of the money yet.
        self.move_clocks(0, LONG_SECS)?;
        self.settles(buyer, &orders[LATE_AND_FREE], "expired")
            .await?;
        self.settles(buyer, &orders[LATE_AND_SOLD], "expired")
            .await?;
        let unit = basket(&[(&skus[LATE_AND_SOLD], 1)], "sandbox_ok");
        let bought = self.insist(&[Wish::new(rival, "/v1/orders", unit)]).await?;
        let rivals = order_of(bought.first().context("one wish has one answer")?)?;
        self.settles(rival, &rivals, "confirmed").await?;
        self.move_clocks(LONG_SECS, 0)?;
        self.settles(buyer, &orders[LATE_AND_FREE], "confirmed")
            .await?;
        self.payment_ends(buyer, &orders[LATE_AND_SOLD], "voided")
            .await?;
        self.settles(buyer, &orders[LATE_AND_SOLD], "expired")
            .await?;

        let sold = [KEPT, TIMED_OUT, LATE_AND_FREE, LATE_AND_SOLD];
        for (number, sku) in skus.iter().enumerate() {
            let wanted = Stock::of(1, i64::from(sold.contains(&number)));
            self.until(&format!("stock of {sku} is {wanted:?}"), async |shop| {
                Ok((shop.stock(sku).await? == wanted).then_some(()))
            })
            .await?;
        }
        for number in [KEPT, TIMED_OUT, LATE_AND_FREE] {
            let payment = self
                .payment_ends(buyer, &orders[number], "captured")
                .await?;
            ensure!(payment["captured"]["amount"] == PRICE, "{payment}");
        }
        self.alive().await?;
        self.shop.sandbox.audit_is_clean()
    }

    /// Posts all wishes until each is answered for good.
    async fn insist(&mut self, wishes: &[Wish]) -> anyhow::Result<Vec<Answer>> {
        let mut answers: Vec<Option<Answer>> = vec![None; wishes.len()];
        let started = std::time::Instant::now();
        loop {
            let open = wishes
                .iter()
                .zip(&answers)
                .filter(|(_, answer)| answer.is_none());
            let posts =
                open.map(|(wish, _)| wish.door.post_keyed(&wish.path, &wish.key, &wish.body));
            let mut posted = join_all(posts).await.into_iter();
            for slot in answers.iter_mut().filter(|answer| answer.is_none()) {
                *slot = posted.next().and_then(Result::ok).filter(is_final);
            }
            if answers.iter().all(Option::is_some) {
                return Ok(answers.into_iter().flatten().collect());
            }
            ensure!(
                started.elapsed() < Duration::from_secs(STEP_MAX_SECS),
                "no answer to {:?}",
                wishes
                    .iter()
                    .zip(&answers)
                    .find(|(_, answer)| answer.is_none())
                    .map(|(wish, _)| &wish.path)
            );
            self.alive().await?;
        }
    }

    async fn settles(&mut self, door: &Door, order: &str, status: &str) -> anyhow::Result<Value> {
        let path = format!("/v1/orders/{order}");
        self.document(door, &path, status).await
    }

    async fn payment_ends(
        &mut self,
        door: &Door,
        order: &str,
        status: &str,
    ) -> anyhow::Result<Value> {
        let path = format!("/v1/orders/{order}");
        let mut payment = None;
        let found = self.until(&path, async |_| {
            let order = door.read(&path).await?;
            payment = order["payment"]["id"].as_str().map(str::to_owned);
            Ok(payment.clone())
        });
        let id = found.await?;
        self.document(door, &format!("/v1/payments/{id}"), status)
            .await
    }

    async fn document(&mut self, door: &Door, path: &str, status: &str) -> anyhow::Result<Value> {
        let mut last = Value::Null;
        let what = format!("{path} is {status}");
        let found = self.until(&what, async |_| {
            last = door.read(path).await?;
            Ok((last["status"] == status).then(|| last.clone()))
        });
        let found = found.await;
        found.with_context(|| format!("it is {last}"))
    }

    /// Waits for something while the server may die and come back.
    async fn until<T>(
        &mut self,
        what: &str,
        mut condition: impl AsyncFnMut(&Shop) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        wait::until(what, Duration::from_secs(STEP_MAX_SECS), async || {
            match condition(&self.shop).await {
                Ok(found) => {
                    self.alive().await?;
                    Ok(found)
                }
                // It was down; what it meant is told when it is back.
                Err(_) if self.alive().await? => Ok(None),
                // It is about to be seen dead, or says that it cannot answer now.
                Err(error) if error.downcast_ref::<reqwest::Error>().is_some() => Ok(None),
                Err(error) if error.to_string().contains(" 503 ") => Ok(None),
                // A server that lives says what it means.
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Brings the server back if it died where it was to, with the next point armed; says whether it had died.
    async fn alive(&mut self) -> anyhow::Result<bool> {
        if !self.shop.sandbox_mut().server_mut("gateway")?.has_ended()? {
            return Ok(false);
        }
        let status = self.shop.sandbox_mut().server_mut("gateway")?.end().await?;
        ensure!(
            status.signal() == Some(SIGKILL),
            "the server ended with {status}"
        );
        let point = self
            .armed
            .context("the server died and no point was armed")?;
        self.died_at.insert(point);
        self.move_clocks(LEASE_SECS + 1, 0)?;
        self.arm_next().await?;
        Ok(true)
    }

    /// Starts the server again with the next point armed; that it dies there before it serves is as good.
    async fn arm_next(&mut self) -> anyhow::Result<()> {
        loop {
            self.armed = self.waiting.pop_front();
            let arming = self.armed.map(arming_of);
            let environment: Vec<(&str, &str)> = arming
                .iter()
                .map(|arming| ("HOLDFAST_FAILPOINTS", arming.as_str()))
                .collect();
            match self
                .shop
                .sandbox_mut()
                .revive("gateway", &environment)
                .await
            {
                Ok(()) => return Ok(()),
                Err(error) => {
                    let early = error
                        .downcast_ref::<EndedEarly>()
                        .map(|ended| ended.status.signal());
                    match self.armed {
                        Some(point) if early == Some(Some(SIGKILL)) => self.died_at.insert(point),
                        _ => return Err(error),
                    };
                    self.move_clocks(LEASE_SECS + 1, 0)?;
                }
            }
        }
    }

    fn move_clocks(&mut self, wall_secs: i64, ledger_secs: i64) -> anyhow::Result<()> {
        self.wall_secs += wall_secs;
        self.ledger_secs += ledger_secs;
        self.shop
            .sandbox
            .set_clock(self.wall_secs, self.ledger_secs)
    }
}

/// What arms a point.
fn arming_of(point: &str) -> String {
    let failure = AFTER_A_FAILURE.iter().find(|(after, _)| *after == point);
    let failure = failure.map(|(_, before)| format!("{before}=error@once,"));
    format!("{}{point}=kill", failure.unwrap_or_default())
}

/// Whether a client has no reason to ask again.
fn is_final(answer: &Answer) -> bool {
    match answer.status {
        409 => answer.is_refused(409, "idempotency_in_progress").is_err(),
        status => status < 500 && status != 429,
    }
}

/// The order that was made, whether it was paid or not.
fn order_of(answer: &Answer) -> anyhow::Result<String> {
    let document = match answer.status {
        402 => answer.is_refused(402, "payment_declined")?,
        _ => answer.is(201)?,
    };
    let id = document["order_id"].as_str().or(document["id"].as_str());
    Ok(id
        .with_context(|| format!("no order in {document}"))?
        .to_owned())
}
