//! A shop on an installation: somebody who runs it, people who buy, and what its books say.

use std::{sync::Arc, thread, time::Duration};

use anyhow::{Context as _, bail, ensure};
use holdfast_e2e::{Answer, Door, Role, Sandbox, Topology, wait};
use holdfast_kernel::RequestId;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// How long an order may take to get where it has to.
pub(crate) const SETTLE_MAX_SECS: u64 = 30;
/// What one unit of everything costs, JPY.
pub(crate) const PRICE: i64 = 1_250;

pub(crate) struct Shop {
    /// Shared by the scenarios that leave it running.
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) admin: Door,
    pub(crate) staff: Door,
}

/// How a pool stands.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) struct Stock {
    pub(crate) capacity: i64,
    pub(crate) held: i64,
    pub(crate) sold: i64,
    pub(crate) available: i64,
}

/// Runs a scenario in the installation of a topology that all scenarios share, and audits it.
pub(crate) async fn in_shop(
    topology: Topology,
    scenario: impl AsyncFnOnce(&Shop) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    static ALL_IN_ONE: OnceCell<Shop> = OnceCell::const_new();
    static EACH_ALONE: OnceCell<Shop> = OnceCell::const_new();
    let shared = match topology {
        Topology::AllInOne => &ALL_IN_ONE,
        Topology::EachAlone => &EACH_ALONE,
    };
    let shop = shared.get_or_try_init(|| Shop::open(topology, &[])).await?;
    shop.reconnected().watched(scenario).await
}

/// Shows what the processes said when a scenario fails, in whichever way.
struct Watch<'a>(&'a Sandbox);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.show_logs();
        }
    }
}

impl Shop {
    pub(crate) async fn open(
        topology: Topology,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let sandbox = Sandbox::start_with(topology, environment).await?;
        Ok(Self {
            admin: sandbox.somebody(Role::Admin).await?,
            staff: sandbox.somebody(Role::Staff).await?,
            sandbox: Arc::new(sandbox),
        })
    }

    /// The same shop on connections of its own: those of another test's runtime end with it.
    pub(crate) fn reconnected(&self) -> Self {
        Self {
            sandbox: self.sandbox.clone(),
            admin: self.admin.reconnected(),
            staff: self.staff.reconnected(),
        }
    }

    /// The installation, to do something to it.
    pub(crate) fn sandbox_mut(&mut self) -> &mut Sandbox {
        Arc::get_mut(&mut self.sandbox)
            .expect("scenarios that change an installation have their own")
    }

    /// Runs a scenario here, and audits the books.
    pub(crate) async fn watched(
        &self,
        scenario: impl AsyncFnOnce(&Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let watch = Watch(&self.sandbox);
        let done = match scenario(self).await {
            Ok(()) => self.sandbox.audit_is_clean(),
            Err(error) => Err(error),
        };
        if done.is_err() {
            watch.0.show_logs();
        }
        done
    }

    pub(crate) async fn buyer(&self) -> anyhow::Result<Door> {
        self.sandbox.somebody(Role::User).await
    }

    /// Something new to sell, with so many units of it; returns its SKU.
    pub(crate) async fn sell(&self, units: i64) -> anyhow::Result<String> {
        self.sell_at(units, PRICE).await
    }

    /// The same at another price.
    pub(crate) async fn sell_at(&self, units: i64, price: i64) -> anyhow::Result<String> {
        let number = RequestId::generate().uuid().simple().to_string();
        let sku = format!("THING-{}", number.to_uppercase());
        let variant = json!({
            "sku": sku,
            "price": {"amount": price, "currency": "JPY"},
            "stock": units,
        });
        let product = json!({"name": "A thing", "currency": "JPY", "variants": [variant]});
        self.admin.post("/v1/products", &product).await?.is(201)?;
        Ok(sku)
    }

    pub(crate) async fn stock(&self, sku: &str) -> anyhow::Result<Stock> {
        let pool = self.staff.read(&format!("/v1/inventory/{sku}")).await?;
        let figure = |name: &str| {
            pool[name]
                .as_i64()
                .with_context(|| format!("{name} of {pool}"))
        };
        Ok(Stock {
            capacity: figure("capacity")?,
            held: figure("held")?,
            sold: figure("sold")?,
            available: figure("available")?,
        })
    }

    /// Waits until the stock stands so.
    pub(crate) async fn stock_becomes(&self, sku: &str, wanted: Stock) -> anyhow::Result<()> {
        let mut last = None;
        let what = format!("stock of {sku} is {wanted:?}");
        let became = wait::until(&what, Duration::from_secs(SETTLE_MAX_SECS), async || {
            last = Some(self.stock(sku).await?);
            Ok((last == Some(wanted)).then_some(()))
        });
        became.await.with_context(|| format!("it is {last:?}"))
    }
}

impl Stock {
    /// Of so many units, so many sold, none held.
    pub(crate) fn of(capacity: i64, sold: i64) -> Self {
        Self {
            capacity,
            held: 0,
            sold,
            available: capacity - sold,
        }
    }
}

/// The body of a purchase.
pub(crate) fn basket(items: &[(&str, i64)], card: &str) -> Value {
    let items: Vec<Value> = items
        .iter()
        .map(|(sku, quantity)| json!({"sku": sku, "quantity": quantity}))
        .collect();
    json!({"items": items, "payment_method": {"type": "card", "token": card}})
}

/// Buys one SKU.
pub(crate) async fn buy(
    buyer: &Door,
    sku: &str,
    quantity: i64,
    card: &str,
) -> anyhow::Result<Answer> {
    buyer
        .post("/v1/orders", &basket(&[(sku, quantity)], card))
        .await
}

/// The id of an order that was answered.
pub(crate) fn id_of(order: &Value) -> anyhow::Result<String> {
    let id = order["id"]
        .as_str()
        .with_context(|| format!("no id in {order}"))?;
    ensure!(id.starts_with("ord_"), "{id} is no order's id");
    Ok(id.to_owned())
}

/// Waits until an order has this status.
pub(crate) async fn settles(buyer: &Door, order: &str, status: &str) -> anyhow::Result<Value> {
    let mut last = Value::Null;
    let what = format!("order {order} is {status}");
    let settled = wait::until(&what, Duration::from_secs(SETTLE_MAX_SECS), async || {
        last = buyer.read(&format!("/v1/orders/{order}")).await?;
        Ok((last["status"] == status).then(|| last.clone()))
    });
    match settled.await {
        Ok(order) => Ok(order),
        Err(error) => bail!("{error:#}; it is {last}"),
    }
}

/// Waits until a payment has this status.
pub(crate) async fn payment_settles(
    buyer: &Door,
    payment: &str,
    status: &str,
) -> anyhow::Result<Value> {
    let mut last = Value::Null;
    let what = format!("payment {payment} is {status}");
    let settled = wait::until(&what, Duration::from_secs(SETTLE_MAX_SECS), async || {
        last = buyer.read(&format!("/v1/payments/{payment}")).await?;
        Ok((last["status"] == status).then(|| last.clone()))
    });
    match settled.await {
        Ok(payment) => Ok(payment),
        Err(error) => bail!("{error:#}; it is {last}"),
    }
}

/// The id of an order's payment.
pub(crate) fn payment_of(order: &Value) -> anyhow::Result<String> {
    let id = order["payment"]["id"].as_str();
    Ok(id
        .with_context(|| format!("no payment in {order}"))?
        .to_owned())
}
