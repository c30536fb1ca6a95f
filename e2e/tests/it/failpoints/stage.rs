//! An installation whose processes die where they are told to, and what people do there meanwhile.

use std::{
    collections::BTreeMap, fs, os::unix::process::ExitStatusExt, path::PathBuf, time::Duration,
};

use anyhow::{Context as _, ensure};
use holdfast_e2e::{Answer, Door, Topology, wait};
use holdfast_kernel::RequestId;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::shop::{self, Shop, Stock};

/// What the code of everything takes off.
const OFF: i64 = 200;
/// Longer than the sandbox keeps the outcome of a time-out to itself.
pub(super) const TIMEOUT_SECS: i64 = 5;
/// How long a checkout holds its units, and the grace.
const HOLD_SECS: i64 = 120;
const GRACE_SECS: i64 = 5;
/// Longer than that, and longer than the sandbox keeps late money to itself.
const LONG_SECS: i64 = HOLD_SECS + GRACE_SECS + 25;
/// A short lease, and a little more: what a killed worker had is free after it.
const LEASE_SECS: i64 = 4;
/// There are hundreds of deaths, and after each of them a worker has to find what the dead one had.
const POLL_MILLIS: &str = "50";
/// A dear currency of points: who has bought once has enough of them for all that follows.
pub(super) const UNITS_PER_POINT: i64 = 1;
/// Tokens live through all deaths of an outcome, each of which moves the clock.
const TOKEN_SECS: i64 = 24 * 60 * 60;
/// How long a step may take, the death included.
const STEP_MAX_SECS: u64 = 90;
const SIGKILL: i32 = 9;

/// Where a process dies: at a point, when it is passed for the first time, or the second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Death {
    pub(super) point: &'static str,
    pub(super) passing: usize,
}

/// Every point on the ways of purchases.
pub(super) fn points() -> impl Iterator<Item = &'static str> {
    holdfast::failpoints().filter(|point| matches!(service_of(point), "orders" | "payments"))
}

/// The code that is made with something to sell.
pub(super) fn code_of(sku: &str) -> &str {
    sku.trim_start_matches("THING-")
}

/// The service that passes a point.
pub(super) fn service_of(point: &'static str) -> &'static str {
    point.split_once('.').map_or(point, |(service, _)| service)
}

impl Death {
    /// Whether it hangs on the moment at which news arrives if somebody comes by: workers that are woken look once more,
    /// and payments ask once more.
    pub(super) fn is_by_chance(self) -> bool {
        self.passing > 1
            || self.point.starts_with("orders.claim.")
            || self.point.starts_with("orders.rest.")
    }
}

pub(super) struct Stage {
    pub(super) shop: Shop,
    pub(super) buyer: Door,
    pub(super) rival: Door,
    /// Where processes read what is armed, and where they note what they passed.
    files: TempDir,
    /// What is armed as soon as it shall be.
    arming: String,
    /// Who is to die still.
    death: Option<Death>,
    wall_secs: i64,
    ledger_secs: i64,
}

impl Stage {
    pub(super) async fn open(topology: Topology) -> anyhow::Result<Self> {
        let files = tempfile::tempdir()?;
        let armed = format!("@{}", files.path().join(ARMED).display());
        let figures = [LEASE_SECS, HOLD_SECS, GRACE_SECS, TOKEN_SECS].map(|secs| secs.to_string());
        let [lease, hold, grace, token] = &figures;
        let units_per_point = UNITS_PER_POINT.to_string();
        let environment = [
            ("HOLDFAST_FAILPOINTS", armed.as_str()),
            ("HOLDFAST_ORDERS__LEASE_SECS", lease),
            ("HOLDFAST_ORDERS__POLL_MILLIS", POLL_MILLIS),
            ("HOLDFAST_ORDERS__HOLD_SECS", hold),
            ("HOLDFAST_ORDERS__HOLD_GRACE_SECS", grace),
            ("HOLDFAST_AUTH__ACCESS_TOKEN_SECS", token),
            ("HOLDFAST_PAYMENTS__UNITS_PER_POINT", &units_per_point),
        ];
        let shop = Shop::open(topology, &environment).await?;
        let buyer = shop.buyer().await?;
        let sku = shop.sell(1).await?;
        shop::buy(&buyer, &sku, 1, "sandbox_ok").await?.is(201)?;
        Ok(Self {
            buyer,
            rival: shop.buyer().await?,
            shop,
            files,
            arming: String::new(),
            death: None,
            wall_secs: 0,
            ledger_secs: 0,
        })
    }

    /// From the next arming on, points note that they are passed.
    pub(super) fn notes(&mut self, besides: Option<&str>) {
        let file = self.file(NOTED);
        let notes = points().map(|point| format!("{point}=note:{}", file.display()));
        // What is named last counts, so what goes wrong besides goes wrong.
        let besides = besides.map(str::to_owned);
        self.arming = notes.chain(besides).collect::<Vec<_>>().join(",");
        self.death = None;
    }

    /// How often each point was passed since it was to be noted.
    pub(super) fn noted(&self) -> anyhow::Result<BTreeMap<String, usize>> {
        let text = fs::read_to_string(self.file(NOTED)).context("somebody passed a point")?;
        fs::remove_file(self.file(NOTED))?;
        self.disarm()?;
        let mut passed = BTreeMap::new();
        for point in text.lines() {
            *passed.entry(point.to_owned()).or_default() += 1;
        }
        Ok(passed)
    }

    /// From the next arming on, a process dies there.
    pub(super) fn dies(&mut self, death: Death, besides: Option<&str>) {
        let Death { point, passing } = death;
        let kill = format!("{point}=kill@nth({passing})");
        self.arming = besides
            .map(str::to_owned)
            .into_iter()
            .chain([kill])
            .collect::<Vec<_>>()
            .join(",");
        self.death = Some(death);
    }

    /// Whether somebody has died where they were to; nobody will any more.
    pub(super) fn has_died(&mut self) -> anyhow::Result<bool> {
        let died = self.death.take().is_none();
        if !died {
            self.disarm()?;
        }
        Ok(died)
    }

    /// From now on it is serious.
    pub(super) fn arm(&self) -> anyhow::Result<()> {
        let fresh = self.file("fresh");
        fs::write(&fresh, &self.arming)?;
        fs::rename(&fresh, self.file(ARMED))?;
        Ok(())
    }

    fn disarm(&self) -> anyhow::Result<()> {
        fs::remove_file(self.file(ARMED))?;
        Ok(())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    pub(super) fn pass(&mut self, wall_secs: i64, ledger_secs: i64) -> anyhow::Result<()> {
        self.wall_secs += wall_secs;
        self.ledger_secs += ledger_secs;
        self.shop
            .sandbox
            .set_clock(self.wall_secs, self.ledger_secs)
    }

    /// The ledger's time passes, and nobody knows of late money yet.
    pub(super) fn hold_ends(&mut self) -> anyhow::Result<()> {
        self.pass(0, LONG_SECS)
    }

    /// Everybody else's time follows.
    pub(super) fn late_money_comes(&mut self) -> anyhow::Result<()> {
        self.pass(LONG_SECS, 0)
    }

    /// One unit of something new, and one use of a code that takes off what it costs beyond the usual.
    pub(super) async fn sells_one(&self) -> anyhow::Result<String> {
        let sku = self.shop.sell_at(1, shop::PRICE + OFF).await?;
        let off = json!({"amount": OFF, "currency": "JPY"});
        let voucher = json!({"code": code_of(&sku), "amount_off": off, "uses": 1});
        let made = self.shop.staff.post("/v1/vouchers", &voucher).await?;
        made.is(201)?;
        Ok(sku)
    }

    /// The use of the code that was made with the SKU is free again, or spent.
    pub(super) async fn use_ends(&mut self, sku: &str, spent: i64) -> anyhow::Result<()> {
        let pool = format!("voucher:{}", code_of(sku));
        self.stock_ends(&pool, Stock::of(1, spent)).await
    }

    /// Buys, and insists on an order, paid or not.
    pub(super) async fn buys(&mut self, who: &Door, basket: &Value) -> anyhow::Result<String> {
        let answer = self.insists(who, "/v1/orders", basket).await?;
        let document = match answer.status {
            402 => answer.is_refused(402, "payment_declined")?,
            _ => answer.is(201)?,
        };
        let id = document["order_id"].as_str().or(document["id"].as_str());
        Ok(id
            .with_context(|| format!("no order in {document}"))?
            .to_owned())
    }

    /// Buys in peace.
    pub(super) async fn bought(&mut self, basket: &Value, status: &str) -> anyhow::Result<String> {
        let buyer = self.buyer.clone();
        let order = self.buys(&buyer, basket).await?;
        self.order_ends(&order, status).await?;
        self.rests_but_waits().await?;
        Ok(order)
    }

    pub(super) async fn cancels(&mut self, order: &str) -> anyhow::Result<()> {
        let buyer = self.buyer.clone();
        let path = format!("/v1/orders/{order}/cancel");
        self.insists(&buyer, &path, &json!({})).await?.is(200)?;
        Ok(())
    }

    /// Posts under one key until it is answered for good.
    pub(super) async fn insists(
        &mut self,
        who: &Door,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<Answer> {
        let key = RequestId::generate().to_string();
        self.until(&format!("an answer to POST {path}"), async |_| {
            let answer = who.post_keyed(path, &key, body).await?;
            Ok(Some(answer).filter(is_final))
        })
        .await
    }

    pub(super) async fn order_ends(&mut self, order: &str, status: &str) -> anyhow::Result<Value> {
        let buyer = self.buyer.clone();
        self.ends(&buyer, order, status).await
    }

    pub(super) async fn ends(
        &mut self,
        who: &Door,
        order: &str,
        status: &str,
    ) -> anyhow::Result<Value> {
        self.document(who, &format!("/v1/orders/{order}"), status)
            .await
    }

    pub(super) async fn payment_ends(
        &mut self,
        order: &str,
        status: &str,
    ) -> anyhow::Result<Value> {
        let buyer = self.buyer.clone();
        let path = format!("/v1/orders/{order}");
        let found = self.until(&path, async |_| {
            let order = buyer.read(&path).await?;
            Ok(order["payment"]["id"].as_str().map(str::to_owned))
        });
        let path = format!("/v1/payments/{}", found.await?);
        self.document(&buyer, &path, status).await
    }

    pub(super) async fn stock_ends(&mut self, sku: &str, wanted: Stock) -> anyhow::Result<()> {
        self.until(&format!("stock of {sku} is {wanted:?}"), async |shop| {
            Ok((shop.stock(sku).await? == wanted).then_some(()))
        })
        .await
    }

    /// Nothing is under way any more, in no book: what comes next is not disturbed by what was.
    pub(super) async fn rests(&mut self) -> anyhow::Result<()> {
        self.news_is_heard().await?;
        self.counts(&[
            ("orders", OPEN_SAGAS),
            (
                "payments",
                "SELECT count(*) FROM payment WHERE next_check_at IS NOT NULL",
            ),
            ("sandbox", "SELECT count(*) FROM notice"),
        ])
        .await
    }

    /// Nobody works at anything; it may be waited for customers.
    async fn rests_but_waits(&mut self) -> anyhow::Result<()> {
        self.news_is_heard().await?;
        self.counts(&[("orders", WORKED_AT)]).await
    }

    /// Orders have heard all there is to hear.
    async fn news_is_heard(&mut self) -> anyhow::Result<()> {
        const UNSENT: &str = "SELECT count(*) FROM outbox";
        self.counts(&[("payments", UNSENT), ("inventory", UNSENT)])
            .await?;
        self.until("news is heard", async |shop| {
            let mut log = shop.sandbox.book("bus").await?;
            let told: i64 = sqlx::query_scalar(TOLD).fetch_one(&mut log).await?;
            let mut book = shop.sandbox.book("orders").await?;
            let heard: i64 = sqlx::query_scalar(HEARD).fetch_one(&mut book).await?;
            Ok((told == heard).then_some(()))
        })
        .await
    }

    async fn counts(&mut self, counts: &[(&str, &'static str)]) -> anyhow::Result<()> {
        for (schema, count) in counts {
            let mut last = 0_i64;
            let zero = self.until(count, async |shop| {
                let mut book = shop.sandbox.book(schema).await?;
                last = sqlx::query_scalar(*count).fetch_one(&mut book).await?;
                Ok((last == 0).then_some(()))
            });
            zero.await
                .with_context(|| format!("{last} are in the book of {schema}"))?;
        }
        Ok(())
    }

    async fn document(&mut self, who: &Door, path: &str, status: &str) -> anyhow::Result<Value> {
        let mut last = Value::Null;
        let what = format!("{path} is {status}");
        let found = self.until(&what, async |_| {
            last = who.read(path).await?;
            Ok((last["status"] == status).then(|| last.clone()))
        });
        let found = found.await;
        found.with_context(|| format!("it is {last}"))
    }

    /// Waits for something while a process may die and come back.
    async fn until<T>(
        &mut self,
        what: &str,
        mut condition: impl AsyncFnMut(&Shop) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        wait::until(what, Duration::from_secs(STEP_MAX_SECS), async || {
            match condition(&self.shop).await {
                Ok(found) => {
                    self.bury().await?;
                    Ok(found)
                }
                // It was down; what it meant is told when it is back.
                Err(_) if self.bury().await? => Ok(None),
                // It is about to be seen dead, or says that it cannot answer now.
                Err(error) if error.downcast_ref::<reqwest::Error>().is_some() => Ok(None),
                Err(error) if error.to_string().contains(" 503 ") => Ok(None),
                // A server that lives says what it means.
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Brings a process back that died where it was to; says whether one had died.
    async fn bury(&mut self) -> anyhow::Result<bool> {
        let service = match self.death {
            Some(death) => service_of(death.point),
            None => "gateway",
        };
        let server = self.shop.sandbox_mut().server_mut(service)?;
        if !server.has_ended()? {
            return Ok(false);
        }
        let status = server.end().await?;
        ensure!(
            status.signal() == Some(SIGKILL),
            "{service} ended with {status}"
        );
        ensure!(self.death.is_some(), "{service} died and nobody was to");
        self.death = None;
        self.disarm()?;
        self.pass(LEASE_SECS + 1, LEASE_SECS + 1)?;
        self.shop.sandbox_mut().revive(service, &[]).await?;
        Ok(true)
    }
}

const ARMED: &str = "armed";
const NOTED: &str = "noted";
const OPEN_SAGAS: &str =
    "SELECT count(*) FROM saga WHERE phase <> 'done' OR open_refunds > 0 OR due_at IS NOT NULL";
/// What waits for a customer has found nothing to do for a while.
const WORKED_AT: &str =
    "SELECT count(*) FROM saga WHERE due_at < leased_until + interval '5 seconds'";
const TOLD: &str = "SELECT coalesce(sum(next_offset), 0)::int8 FROM topic
     WHERE name IN ('holdfast.payments', 'holdfast.holds')";
const HEARD: &str = "SELECT coalesce(sum(next_offset), 0)::int8 FROM consumer_position";

/// Whether a client has no reason to ask again.
fn is_final(answer: &Answer) -> bool {
    match answer.status {
        409 => answer.is_refused(409, "idempotency_in_progress").is_err(),
        status => status < 500 && status != 429,
    }
}
