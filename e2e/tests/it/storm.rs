//! Kill -9, again and again, while people buy and staff give back.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use holdfast_e2e::{Answer, Door, Role, Topology, wait};
use holdfast_kernel::RequestId;
use serde_json::{Value, json};

use crate::shop::{Shop, Stock, basket};

const KILLS: usize = 20;
/// Answered calls between two kills, so that every life does something.
const CALLS_PER_LIFE: usize = 12;
const BUYERS: usize = 6;
/// How many purchases ago what is given back was bought.
const BOUGHT_AGO: usize = 4;
const KINDS: usize = 4;
const UNITS: i64 = 100_000;
/// How long one life may take until it has answered its calls.
const LIFE_MAX_SECS: u64 = 60;
/// How long a wish may take until it is answered, over several lives.
const WISH_MAX_SECS: u64 = 120;
/// Nothing may be under way so long after the last kill.
const OPEN_MAX_SECS: u64 = 60;

/// What one buyer was told, and what staff told them.
#[derive(Default)]
struct Told {
    /// Orders that were answered: id, SKU, units.
    orders: Vec<(String, String, i64)>,
    /// Of which those were wholly given back.
    refunded: Vec<String>,
    /// Orders whose card was declined.
    declined: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_order_is_lost_to_twenty_kills() -> anyhow::Result<()> {
    let mut shop = Shop::open(Topology::AllInOne, &[]).await?;
    let mut skus = Vec::new();
    for _ in 0..KINDS {
        skus.push(shop.sell(UNITS).await?);
    }
    let buyers = shop.sandbox.people(Role::User, BUYERS).await?;
    let staff = shop.staff.clone();
    let (enough, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let people = try_join_all(buyers.iter().enumerate().map(|(number, buyer)| {
        let person = Person {
            buyer,
            staff: &staff,
            skus: &skus,
            number,
            enough: &enough,
            answered: &answered,
        };
        person.live()
    }));
    let sandbox = shop.sandbox_mut();
    let kills = async {
        for life in 1..=KILLS {
            let goal = answered.load(Relaxed) + CALLS_PER_LIFE;
            let limit = Duration::from_secs(LIFE_MAX_SECS);
            let what = format!("life {life} answers {CALLS_PER_LIFE} calls");
            wait::until(&what, limit, async || {
                Ok((answered.load(Relaxed) >= goal).then_some(()))
            })
            .await?;
            sandbox.kill("gateway")?;
            sandbox.revive("gateway", &[]).await?;
        }
        enough.store(true, Relaxed);
        anyhow::Ok(())
    };
    // A failure of either side ends both.
    let done = tokio::try_join!(people, kills);
    let told = match done {
        Ok((told, ())) => told,
        Err(error) => {
            shop.sandbox.show_logs();
            return Err(error);
        }
    };

    shop.watched(async |shop: &Shop| {
        nothing_is_under_way(shop).await?;
        for (buyer, told) in buyers.iter().zip(&told) {
            is_as_told(buyer, told).await?;
        }
        for sku in &skus {
            let sold: i64 = told.iter().map(|told| told.sold(sku)).sum();
            ensure!(
                shop.stock(sku).await? == Stock::of(UNITS, sold),
                "{sku}: {:?}, people were told of {sold} sold",
                shop.stock(sku).await?
            );
        }
        Ok(())
    })
    .await
}

/// Somebody who buys until it is enough, and insists on an answer to every wish.
struct Person<'a> {
    buyer: &'a Door,
    staff: &'a Door,
    skus: &'a [String],
    number: usize,
    enough: &'a AtomicBool,
    answered: &'a AtomicUsize,
}

impl Person<'_> {
    async fn live(self) -> anyhow::Result<Told> {
        let mut told = Told::default();
        let mut wish = self.number;
        while !self.enough.load(Relaxed) {
            wish += 1;
            let sku = &self.skus[wish % self.skus.len()];
            let units = 1 + (wish % 3) as i64;
            if wish.is_multiple_of(7) {
                let body = basket(&[(sku, units)], "sandbox_declined");
                let answer = self
                    .insist(self.buyer, "/v1/orders", &body, &[201, 402])
                    .await?;
                let field = if answer.status == 402 {
                    "order_id"
                } else {
                    "id"
                };
                told.declined.push(text(&answer.is(answer.status)?, field)?);
                continue;
            }
            let body = basket(&[(sku, units)], "sandbox_ok");
            let answer = self.insist(self.buyer, "/v1/orders", &body, &[201]).await?;
            let id = text(&answer.is(201)?, "id")?;
            told.orders.push((id, sku.clone(), units));
            if wish.is_multiple_of(3) {
                self.give_back(&mut told).await?;
            }
        }
        Ok(told)
    }

    /// Staff give an order back that was bought some wishes ago.
    async fn give_back(&self, told: &mut Told) -> anyhow::Result<()> {
        let ago = told.orders.len().saturating_sub(BOUGHT_AGO);
        let Some((id, ..)) = told.orders.get(ago) else {
            return Ok(());
        };
        if told.refunded.contains(id) {
            return Ok(());
        }
        let path = format!("/v1/orders/{id}/refunds");
        // An order that is still on its way is refused; whoever insists is served when it has arrived.
        self.insist(self.staff, &path, &json!({"reason": "storm"}), &[201])
            .await?;
        told.refunded.push(id.clone());
        Ok(())
    }

    /// Makes the same wish under the same key until it is answered in one of these ways.
    async fn insist(
        &self,
        door: &Door,
        path: &str,
        body: &Value,
        wanted: &[u16],
    ) -> anyhow::Result<Answer> {
        let key = RequestId::generate().to_string();
        let limit = Duration::from_secs(WISH_MAX_SECS);
        let mut last = None;
        let what = format!("POST {path}");
        let answer = wait::until(&what, limit, async || {
            let Ok(answer) = door.post_keyed(path, &key, body).await else {
                return Ok(None);
            };
            if wanted.contains(&answer.status) {
                return Ok(Some(answer));
            }
            let again = answer.status >= 500 || matches!(answer.status, 409 | 429);
            ensure!(again, "{answer:?}");
            last = Some(answer);
            Ok(None)
        });
        let answer = answer.await.with_context(|| format!("last: {last:?}"))?;
        self.answered.fetch_add(1, Relaxed);
        Ok(answer)
    }
}

impl Told {
    fn sold(&self, sku: &str) -> i64 {
        self.orders
            .iter()
            .filter(|(id, of, _)| of == sku && !self.refunded.contains(id))
            .map(|(_, _, units)| units)
            .sum()
    }
}

fn text(document: &Value, field: &str) -> anyhow::Result<String> {
    let found = document[field].as_str();
    Ok(found
        .with_context(|| format!("no {field} in {document}"))?
        .to_owned())
}

async fn nothing_is_under_way(shop: &Shop) -> anyhow::Result<()> {
    let limit = Duration::from_secs(OPEN_MAX_SECS);
    let mut open = Value::Null;
    let ended = wait::until("no purchase is under way", limit, async || {
        let said = shop.sandbox.operator()?.run(&["audit", "--json"])?;
        let report: Value = serde_json::from_slice(&said.stdout)?;
        open = report["open"].clone();
        Ok((open == 0).then_some(()))
    });
    ended.await.with_context(|| format!("{open} are"))
}

async fn is_as_told(buyer: &Door, told: &Told) -> anyhow::Result<()> {
    let refunded = |id| told.refunded.contains(id);
    let bought = told.orders.iter().map(|(id, _, _)| {
        (
            id,
            if refunded(id) {
                "refunded"
            } else {
                "confirmed"
            },
        )
    });
    let declined = told.declined.iter().map(|id| (id, "payment_failed"));
    for (id, status) in bought.chain(declined) {
        let order = buyer.read(&format!("/v1/orders/{id}")).await?;
        ensure!(order["status"] == status, "wanted {status}: {order}");
    }
    Ok(())
}
