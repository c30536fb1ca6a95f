//! Living a plan: the shop opens with its stock, everybody buys, then some bring things back.
//!
//! Orders of different invoices do not depend on each other and are placed at the same time; a refund comes after all of
//! them.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use futures::{StreamExt, TryStreamExt, stream};
use holdfast_kernel::RequestId;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::plan::{Order, Plan, Product, Refund};
use crate::{Answer, Door, wait};

/// Calls in flight at the same time.
const CALLS_MAX: usize = 32;
/// Tries of one call; the same key makes them one.
const TRIES_MAX: usize = 10;
/// Before the next try, unless the server says when.
const RETRY_MILLIS: u64 = 250;
/// How long a purchase may take until it is confirmed.
const CONFIRM_MAX_SECS: u64 = 60;

/// Who lives the plan.
pub struct People {
    /// Opens the shop.
    pub admin: Door,
    /// Takes things back.
    pub staff: Door,
    /// An account for each the plan asks for.
    pub buyers: Vec<Door>,
}

/// What was bought, and how it went.
#[derive(Debug)]
pub struct Lived {
    /// The id of each of the plan's orders.
    pub orders: Vec<String>,
    /// From the first call that buys to the last answer.
    pub buying: Duration,
    /// How long each purchase took, the shortest first.
    pub latencies: Vec<Duration>,
    /// Calls that had to be made again.
    pub asked_again: usize,
}

/// The calls of one replay: keys that no other replay uses, and how many calls were made again.
struct Calls {
    replay: String,
    again: AtomicUsize,
}

/// Opens the shop: every product with its variants, and all that will be sold of them in stock.
pub async fn open(plan: &Plan, people: &People, progress: &ProgressBar) -> anyhow::Result<()> {
    let calls = Calls::new();
    stream::iter(&plan.products)
        .map(|product| async {
            calls
                .make(
                    &people.admin,
                    "/v1/products",
                    &product.code,
                    &as_body(product),
                )
                .await?
                .is(201)?;
            progress.inc(1);
            anyhow::Ok(())
        })
        .buffer_unordered(CALLS_MAX)
        .try_collect::<()>()
        .await
}

/// Places every order, then every refund.
pub async fn live(plan: &Plan, people: &People, progress: &ProgressBar) -> anyhow::Result<Lived> {
    let calls = Calls::new();
    let started = Instant::now();
    let placed: Vec<(String, Duration)> = stream::iter(&plan.orders)
        .map(|order| async {
            let placed = calls.place(order, &people.buyers[order.account]).await?;
            progress.inc(1);
            anyhow::Ok(placed)
        })
        .buffered(CALLS_MAX)
        .try_collect()
        .await?;
    let buying = started.elapsed();
    let (orders, mut latencies): (Vec<String>, Vec<Duration>) = placed.into_iter().unzip();
    latencies.sort();
    stream::iter(&plan.refunds)
        .map(|refund| async {
            calls
                .give_back(refund, &orders[refund.order], &people.staff)
                .await?;
            progress.inc(1);
            anyhow::Ok(())
        })
        .buffer_unordered(CALLS_MAX)
        .try_collect::<()>()
        .await?;
    Ok(Lived {
        orders,
        buying,
        latencies,
        asked_again: calls.again.into_inner(),
    })
}

impl Calls {
    fn new() -> Self {
        Self {
            replay: RequestId::generate().to_string(),
            again: AtomicUsize::new(0),
        }
    }

    /// Buys, and waits until the purchase is confirmed. The time is that of the call that bought.
    async fn place(&self, order: &Order, buyer: &Door) -> anyhow::Result<(String, Duration)> {
        let items: Vec<Value> = order
            .lines
            .iter()
            .map(|(sku, quantity)| json!({"sku": sku, "quantity": quantity}))
            .collect();
        let card = json!({"type": "card", "token": "sandbox_ok"});
        let body = json!({"items": items, "payment_method": card});
        let started = Instant::now();
        let answer = self
            .make(buyer, "/v1/orders", &order.invoice, &body)
            .await?;
        let took = started.elapsed();
        let placed = answer
            .is(201)
            .with_context(|| format!("invoice {}", order.invoice))?;
        let id = placed["id"]
            .as_str()
            .context("an order has an id")?
            .to_owned();
        if placed["status"] != "confirmed" {
            settled(buyer, &id, "confirmed").await?;
        }
        Ok((id, took))
    }

    async fn give_back(&self, refund: &Refund, order: &str, staff: &Door) -> anyhow::Result<()> {
        let items: Vec<Value> = refund
            .items
            .iter()
            .map(|(sku, quantity)| json!({"sku": sku, "quantity": quantity}))
            .collect();
        let reason = format!("cancelled by {}", refund.invoice);
        let path = format!("/v1/orders/{order}/refunds");
        let name = format!("{}-{}", refund.invoice, refund.order);
        self.make(
            staff,
            &path,
            &name,
            &json!({"items": items, "reason": reason}),
        )
        .await?
        .is(201)
        .with_context(|| format!("invoice {}", refund.invoice))?;
        Ok(())
    }

    /// Posts under a key made of `name`, again and again while the server is not the one to blame for what it is asked.
    async fn make(
        &self,
        door: &Door,
        path: &str,
        name: &str,
        body: &Value,
    ) -> anyhow::Result<Answer> {
        let key = format!("{}-{name}", self.replay);
        for _ in 1..TRIES_MAX {
            let answer = door.post_keyed(path, &key, body).await;
            let pause = match &answer {
                Ok(answer)
                    if answer.status == 429 || answer.status >= 500 || in_progress(answer) =>
                {
                    answer
                        .header("retry-after")
                        .and_then(|secs| secs.parse().ok())
                }
                Ok(_) => return answer,
                Err(_) => None,
            };
            self.again.fetch_add(1, Relaxed);
            let pause = pause.map_or(Duration::from_millis(RETRY_MILLIS), Duration::from_secs);
            tokio::time::sleep(pause).await;
        }
        door.post_keyed(path, &key, body).await
    }
}

/// The first call under the same key is not over.
fn in_progress(answer: &Answer) -> bool {
    answer.is_refused(409, "idempotency_in_progress").is_ok()
}

async fn settled(buyer: &Door, order: &str, wanted: &str) -> anyhow::Result<()> {
    let limit = Duration::from_secs(CONFIRM_MAX_SECS);
    let path = format!("/v1/orders/{order}");
    wait::until(&format!("order {order} is {wanted}"), limit, async || {
        let answer = buyer.get(&path).await?;
        let order = match answer.status {
            200 => answer.is(200)?,
            429 | 500.. => return Ok(None),
            _ => bail!(
                "{}",
                answer
                    .is(200)
                    .err()
                    .map_or_else(String::new, |error| error.to_string())
            ),
        };
        Ok((order["status"] == wanted).then_some(()))
    })
    .await
}

fn as_body(product: &Product) -> Value {
    let variants: Vec<Value> = product
        .variants
        .iter()
        .map(|variant| {
            json!({
                "sku": variant.sku,
                "name": variant.sku.as_str(),
                "price": variant.price,
                "stock": variant.sold,
            })
        })
        .collect();
    let currency = product
        .variants
        .first()
        .map(|variant| variant.price.currency);
    json!({
        "name": product.name,
        "category": "everything",
        "currency": currency,
        "variants": variants,
    })
}
