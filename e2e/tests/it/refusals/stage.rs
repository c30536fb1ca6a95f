//! An installation with something to ask for, and what its books hold.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, bail, ensure};
use holdfast_e2e::{Asking, Contract, Door, Operation, Role, Topology, wait};
use holdfast_kernel::RequestId;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tokio::sync::Mutex;

use super::table::Asker;
use crate::shop::{SETTLE_MAX_SECS, Shop, basket, buy, payment_of, settles};

/// What the examples buy.
pub(crate) const SKU: &str = "TSHIRT-M";
/// More than all tests buy.
const STOCK: i64 = 1_000_000;
/// Tables that the platform moves by itself: how far it came, who writes, when it looked. What a saga does shows elsewhere.
const MOVED_BY_ITSELF: [&str; 5] = [
    "consumer_key",
    "consumer_position",
    "fence",
    "saga",
    "sweep",
];

/// What must be there before an operation is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Thing {
    Nothing,
    /// A confirmed order of the owner's.
    Order,
    /// An order of the owner's that is on its way.
    ShippedOrder,
    /// Something the owner was told.
    Notification,
    /// A product that was delivered to the owner.
    Delivered,
    /// The owner's review, with its ETag.
    Review,
    /// The payment of an order of the owner's, by this card.
    Payment(&'static str),
    /// A konbini slip of the owner's that waits for its money.
    Slip,
    /// Something in stock, with its ETag.
    Pool,
    /// A product, with its ETag.
    Product,
    /// A draft that the body names.
    Draft,
    /// The account of the owner.
    OwnersAccount,
    /// An account of somebody who does nothing else.
    Account,
    /// A session of an owner who does nothing else.
    Session,
    /// An address of an owner who does nothing else, with its ETag.
    Address,
    /// The asker has registered with the password of the examples.
    Ada,
    /// The asker is somebody who does nothing else: what is asked changes who they are.
    SomebodyNew,
    /// A refresh token that was not used.
    RefreshToken,
    /// One of two variants of a product, with the product's ETag.
    Variant,
    /// A product, and a variant for it that it does not have.
    NewVariant,
    /// A category without products, with its ETag.
    Category,
    /// A voucher, with its ETag.
    Voucher,
    /// An event that everybody sees.
    Event,
    /// An event that only staff see, with its ETag or its layout's.
    DraftOfEvent,
    /// A webhook for what does not happen here, so that nothing is sent.
    Webhook,
    /// Names of the body that nobody has yet.
    NewEmail,
    NewSlug,
    NewKey,
    NewSku,
    /// The same in a batch.
    NewSkuOfMany,
    NewCode,
}

/// The installation and who asks it.
pub(crate) struct Stage {
    pub(crate) shop: Shop,
    pub(crate) contract: Contract,
    nobody: Door,
    owner: Door,
    other: Door,
}

/// What the books of all services hold, a digest a table.
pub(crate) type Books = BTreeMap<String, String>;

/// Runs on the one stage of all these tests, one at a time, for they look at all that is written; audits it then.
pub(crate) async fn on_stage(
    scene: impl AsyncFnOnce(&Stage) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    static STAGE: Mutex<Option<Stage>> = Mutex::const_new(None);
    let mut stage = STAGE.lock().await;
    if stage.is_none() {
        *stage = Some(Stage::open(Topology::AllInOne).await?);
    }
    let stage = stage.as_ref().context("it was opened")?.reconnected();
    stage.shop.watched(async |_| scene(&stage).await).await
}

impl Stage {
    async fn open(topology: Topology) -> anyhow::Result<Self> {
        Self::in_shop(Shop::open(topology, &[]).await?).await
    }

    /// A stage in a shop where others may be at the same time.
    pub(crate) async fn in_shop(shop: Shop) -> anyhow::Result<Self> {
        let stage = Self {
            contract: Contract::of(&shop.sandbox.door()?).await?,
            nobody: shop.sandbox.door()?,
            owner: shop.buyer().await?,
            other: shop.buyer().await?,
            shop,
        };
        // What the examples speak of is there.
        let mut product = stage.example_body("POST /v1/products")?;
        product["variants"][0]["stock"] = STOCK.into();
        let admin = &stage.shop.admin;
        admin.post("/v1/products", &product).await?.is(201)?;
        let root = json!({"slug": "clothing"});
        let made = admin.post("/v1/categories", &root).await?;
        ensure!(matches!(made.status, 201 | 409), "{made:?}");
        let ada = stage.example_body("POST /v1/users/register")?;
        let made = stage.nobody.post("/v1/users/register", &ada).await?;
        made.is(201)?;
        Ok(stage)
    }

    /// The same on connections of its own: those of another test's runtime end with it.
    fn reconnected(&self) -> Self {
        Self {
            shop: self.shop.reconnected(),
            contract: self.contract.clone(),
            nobody: self.nobody.reconnected(),
            owner: self.owner.reconnected(),
            other: self.other.reconnected(),
        }
    }

    pub(crate) fn door(&self, asker: Asker) -> &Door {
        match asker {
            Asker::Nobody => &self.nobody,
            Asker::Owner => &self.owner,
            Asker::Other => &self.other,
            Asker::Staff => &self.shop.staff,
            Asker::Admin => &self.shop.admin,
        }
    }

    pub(crate) fn operation(&self, name: &str) -> anyhow::Result<Operation> {
        let operations = self.contract.operations()?;
        let found = operations.into_iter().find(|it| it.name() == name);
        found.with_context(|| format!("{name} is not described"))
    }

    fn example_body(&self, operation: &str) -> anyhow::Result<Value> {
        let asking = self.operation(operation)?.example()?;
        asking
            .json()
            .with_context(|| format!("{operation} takes nothing"))
    }

    /// A request of the operation that has all it needs, and the door for it.
    pub(crate) async fn prepare(
        &self,
        operation: &Operation,
        thing: Thing,
        asker: Asker,
    ) -> anyhow::Result<(Door, Asking)> {
        let mut asking = operation.example()?;
        if operation
            .parameters
            .iter()
            .any(|it| it.name == "idempotency-key")
        {
            asking = asking.with("idempotency-key", &unique());
        }
        let mut door = self.door(asker).clone();
        match thing {
            Thing::Nothing => {}
            Thing::Order
            | Thing::ShippedOrder
            | Thing::Notification
            | Thing::Payment(_)
            | Thing::Slip
            | Thing::Delivered
            | Thing::Review => {
                let id = self.of_the_owner(thing).await?;
                asking.path = operation.path.replace("{id}", &id);
                if thing == Thing::Review {
                    let path = format!("/v1/reviews/{id}");
                    asking = self.tagged(asking, operation, &path).await?;
                }
            }
            Thing::Pool
            | Thing::Product
            | Thing::Draft
            | Thing::Variant
            | Thing::NewVariant
            | Thing::Category
            | Thing::Voucher
            | Thing::Event
            | Thing::DraftOfEvent
            | Thing::Webhook => {
                asking = self.of_the_shop(thing, asking, operation).await?;
            }
            Thing::NewSlug
            | Thing::NewEmail
            | Thing::NewKey
            | Thing::NewSku
            | Thing::NewSkuOfMany
            | Thing::NewCode
            | Thing::RefreshToken => {
                asking = self.with_a_new_name(thing, asking).await?;
            }
            Thing::OwnersAccount
            | Thing::Account
            | Thing::Session
            | Thing::Address
            | Thing::Ada
            | Thing::SomebodyNew => {
                (door, asking) = self
                    .of_a_person(thing, asking, operation, asker, door)
                    .await?;
            }
        }
        Ok((door, asking))
    }

    /// The id of something that the owner bought, or has because of it.
    async fn of_the_owner(&self, thing: Thing) -> anyhow::Result<String> {
        match thing {
            Thing::Order => {
                let order = self.order(|_| {}).await?;
                let id = order["id"].as_str().context("an order has an id")?;
                settles(&self.owner, id, "confirmed").await?;
                Ok(id.to_owned())
            }
            Thing::ShippedOrder => {
                let order = self.order(|_| {}).await?;
                let id = order["id"].as_str().context("an order has an id")?;
                settles(&self.owner, id, "confirmed").await?;
                let ship = self.example_body("POST /v1/orders/{id}/ship")?;
                let shipped = self
                    .shop
                    .staff
                    .post(&format!("/v1/orders/{id}/ship"), &ship)
                    .await?;
                shipped.is(200)?;
                Ok(id.to_owned())
            }
            Thing::Notification => {
                buy(&self.owner, SKU, 1, "sandbox_ok").await?.is(201)?;
                let limit = Duration::from_secs(SETTLE_MAX_SECS);
                let told = wait::until("the owner was told something", limit, async || {
                    let list = self.owner.read("/v1/notifications").await?;
                    Ok(list["data"][0]["id"].as_str().map(str::to_owned))
                });
                Ok(told.await?)
            }
            Thing::Payment(card) => {
                let order = buy(&self.owner, SKU, 1, card).await?.is(201)?;
                Ok(payment_of(&order)?)
            }
            Thing::Slip => {
                let konbini = json!({"type": "konbini", "store": "lawson"});
                let order = self.order(|body| body["payment_method"] = konbini).await?;
                Ok(payment_of(&order)?)
            }
            Thing::Delivered => self.delivered().await,
            Thing::Review => {
                let product = self.delivered().await?;
                let body = self.example_body("POST /v1/products/{id}/reviews")?;
                let path = format!("/v1/products/{product}/reviews");
                let made = self.owner.post(&path, &body).await?.is(201)?;
                let id = made["id"].as_str().context("a review has an id")?;
                Ok(id.to_owned())
            }
            other => bail!("{other:?} does not come by buying"),
        }
    }

    /// A request about something that the shop has.
    async fn of_the_shop(
        &self,
        thing: Thing,
        mut asking: Asking,
        operation: &Operation,
    ) -> anyhow::Result<Asking> {
        match thing {
            Thing::Pool => {
                let sku = self.shop.sell(20).await?;
                asking.path = operation.path.replace("{key}", &sku);
                asking = self
                    .tagged(asking, operation, &format!("/v1/inventory/{sku}"))
                    .await?;
            }
            Thing::Product => {
                let (_, made) = self.new_product().await?;
                let id = made["id"].as_str().context("a product has an id")?;
                asking.path = operation.path.replace("{id}", id);
                asking = self
                    .tagged(asking, operation, &format!("/v1/products/{id}"))
                    .await?;
            }
            Thing::Draft => {
                let mut body = self.example_body("POST /v1/products")?;
                body["variants"][0]["sku"] = json!(new_sku());
                body["status"] = json!("draft");
                let made = self.shop.admin.post("/v1/products", &body).await?.is(201)?;
                asking = changed(asking, "/products/0", &made["id"])?;
            }
            Thing::Variant => {
                let (sku, made) = self.new_product().await?;
                let path = format!("/v1/products/{}", made["id"].as_str().context("an id")?);
                let other = self.other_variant()?;
                let admin = &self.shop.admin;
                admin
                    .post(&format!("{path}/variants"), &other)
                    .await?
                    .is(201)?;
                asking.path = format!("{path}/variants/{sku}");
                asking = self.tagged(asking, operation, &path).await?;
            }
            Thing::NewVariant => {
                let (_, made) = self.new_product().await?;
                let id = made["id"].as_str().context("a product has an id")?;
                asking.path = operation.path.replace("{id}", id);
                asking = asking.with_json(Some(&self.other_variant()?));
            }
            Thing::Category => {
                let body = json!({"slug": unique()});
                let admin = &self.shop.admin;
                admin.post("/v1/categories", &body).await?.is(201)?;
                let slug = body["slug"].as_str().unwrap_or_default();
                asking.path = operation.path.replace("{slug}", slug);
                let path = format!("/v1/categories/{slug}");
                asking = self.tagged(asking, operation, &path).await?;
            }
            Thing::Voucher => {
                let mut body = self.example_body("POST /v1/vouchers")?;
                let code = new_code();
                body["code"] = json!(code);
                let staff = &self.shop.staff;
                staff.post("/v1/vouchers", &body).await?.is(201)?;
                asking.path = operation.path.replace("{code}", &code);
                let path = format!("/v1/vouchers/{code}");
                asking = self.tagged(asking, operation, &path).await?;
            }
            Thing::Event | Thing::DraftOfEvent => {
                let body = self.example_body("POST /v1/events")?;
                let staff = &self.shop.staff;
                let made = staff.post("/v1/events", &body).await?.is(201)?;
                let id = made["id"].as_str().context("an event has an id")?;
                if thing == Thing::Event {
                    let publish = format!("/v1/events/{id}/publish");
                    staff.post(&publish, &json!({})).await?.is(200)?;
                }
                asking.path = operation.path.replace("{id}", id);
                let path = asking.path.clone();
                asking = self.tagged(asking, operation, &path).await?;
            }
            Thing::Webhook => {
                // There may only be so many: one that is there will do.
                let webhooks = self.shop.admin.read("/v1/webhooks").await?;
                let webhook = match &webhooks["data"][0] {
                    Value::Null => {
                        let body = self.example_body("POST /v1/webhooks")?;
                        let made = self.shop.admin.post("/v1/webhooks", &body).await?;
                        made.is(201)?
                    }
                    there => there.clone(),
                };
                let id = webhook["id"].as_str().context("a webhook has an id")?;
                asking.path = operation.path.replace("{id}", id);
            }
            other => bail!("{other:?} is not the shop's"),
        }
        Ok(asking)
    }

    /// A request that names what nobody has named yet.
    async fn with_a_new_name(&self, thing: Thing, mut asking: Asking) -> anyhow::Result<Asking> {
        match thing {
            Thing::NewSlug => asking = changed(asking, "/slug", &json!(unique()))?,
            Thing::NewEmail => {
                let email = format!("{}@holdfast.example", unique());
                asking = changed(asking, "/email", &json!(email))?;
            }
            Thing::NewKey => asking = changed(asking, "/key", &json!(new_sku()))?,
            Thing::NewSku => asking = changed(asking, "/variants/0/sku", &json!(new_sku()))?,
            Thing::NewSkuOfMany => {
                let sku = json!(new_sku());
                asking = changed(asking, "/products/0/variants/0/sku", &sku)?;
            }
            Thing::NewCode => asking = changed(asking, "/code", &json!(new_code()))?,
            Thing::RefreshToken => {
                let ada = self.example_body("POST /v1/users/login")?;
                let tokens = self
                    .nobody
                    .post_without_key("/v1/users/login", &ada)
                    .await?;
                let fresh = tokens.is(200)?["refresh_token"].clone();
                asking = changed(asking, "/refresh_token", &fresh)?;
            }
            other => bail!("{other:?} is no name"),
        }
        Ok(asking)
    }

    /// A request about somebody, and the door of who asks, where that is them.
    async fn of_a_person(
        &self,
        thing: Thing,
        mut asking: Asking,
        operation: &Operation,
        asker: Asker,
        mut door: Door,
    ) -> anyhow::Result<(Door, Asking)> {
        match thing {
            Thing::OwnersAccount => {
                asking.path = operation
                    .path
                    .replace("{id}", &account_of(&self.owner).await?);
            }
            Thing::Account => {
                let somebody = self.shop.buyer().await?;
                asking.path = operation
                    .path
                    .replace("{id}", &account_of(&somebody).await?);
            }
            Thing::Session => {
                let owner = self.shop.buyer().await?;
                let sessions = owner.read("/v1/users/me/sessions").await?;
                let id = sessions["data"][0]["id"].as_str();
                asking.path = operation
                    .path
                    .replace("{id}", id.context("a session's id")?);
                if asker == Asker::Owner {
                    door = owner;
                }
            }
            Thing::Address => {
                let owner = self.shop.buyer().await?;
                let body = self.example_body("POST /v1/users/me/addresses")?;
                let made = owner.post("/v1/users/me/addresses", &body).await?;
                let tag = made
                    .header("etag")
                    .context("an address has an ETag")?
                    .to_owned();
                let made = made.is(201)?;
                let id = made["id"].as_str().context("an address has an id")?;
                asking.path = operation.path.replace("{id}", id);
                asking = asking.with("if-match", &tag);
                if asker == Asker::Owner {
                    door = owner;
                }
            }
            Thing::Ada => {
                if asker != Asker::Nobody {
                    door = self.new_ada().await?;
                }
            }
            Thing::SomebodyNew => {
                let role = match asker {
                    Asker::Nobody => None,
                    Asker::Owner | Asker::Other => Some(Role::User),
                    Asker::Staff => Some(Role::Staff),
                    Asker::Admin => Some(Role::Admin),
                };
                if let Some(role) = role {
                    door = self.shop.sandbox.somebody(role).await?;
                }
            }
            other => bail!("{other:?} is nobody's own"),
        }
        Ok((door, asking))
    }

    /// The id of a product that was delivered to the owner, who has not reviewed it; services have heard of it.
    async fn delivered(&self) -> anyhow::Result<String> {
        let (sku, product) = self.new_product().await?;
        let order = buy(&self.owner, &sku, 1, "sandbox_ok").await?.is(201)?;
        let order = order["id"].as_str().context("an order has an id")?;
        settles(&self.owner, order, "confirmed").await?;
        for step in ["ship", "deliver"] {
            let done = self
                .shop
                .staff
                .post(&format!("/v1/orders/{order}/{step}"), &json!({}))
                .await?;
            done.is(200)?;
        }
        self.settled_books().await?;
        let id = product["id"].as_str().context("a product has an id")?;
        Ok(id.to_owned())
    }

    async fn order(&self, change: impl FnOnce(&mut Value)) -> anyhow::Result<Value> {
        let mut body = basket(&[(SKU, 1)], "sandbox_ok");
        change(&mut body);
        self.owner.post("/v1/orders", &body).await?.is(201)
    }

    /// Somebody who registered and logged in as the examples do, under an address of their own.
    async fn new_ada(&self) -> anyhow::Result<Door> {
        let mut account = self.example_body("POST /v1/users/register")?;
        account["email"] = json!(format!("{}@holdfast.example", unique()));
        let made = self
            .nobody
            .post_without_key("/v1/users/register", &account)
            .await?;
        made.is(201)?;
        let login = json!({"email": account["email"], "password": account["password"]});
        let tokens = self
            .nobody
            .post_without_key("/v1/users/login", &login)
            .await?
            .is(200)?;
        let token = tokens["access_token"]
            .as_str()
            .context("a login gives a token")?;
        Ok(self.nobody.with_token(token))
    }

    async fn new_product(&self) -> anyhow::Result<(String, Value)> {
        let mut body = self.example_body("POST /v1/products")?;
        let sku = new_sku();
        body["variants"][0]["sku"] = json!(sku);
        let made = self.shop.admin.post("/v1/products", &body).await?.is(201)?;
        Ok((sku, made))
    }

    /// What a product of the examples may have besides.
    fn other_variant(&self) -> anyhow::Result<Value> {
        let mut body = self.example_body("POST /v1/products/{id}/variants")?;
        body["sku"] = json!(new_sku());
        body["options"] = json!({"size": "L"});
        Ok(body)
    }

    /// With the ETag of what it changes, where the operation looks at that.
    async fn tagged(
        &self,
        asking: Asking,
        operation: &Operation,
        path: &str,
    ) -> anyhow::Result<Asking> {
        if !operation.parameters.iter().any(|it| it.name == "if-match") {
            return Ok(asking);
        }
        let seen = self.shop.admin.get(path).await?;
        let tag = seen
            .header("etag")
            .with_context(|| format!("{path} has no ETag"))?;
        Ok(asking.with("if-match", tag))
    }

    /// What the books hold once nothing is on its way between services.
    pub(crate) async fn settled_books(&self) -> anyhow::Result<Books> {
        let mut last = Books::new();
        let limit = Duration::from_secs(SETTLE_MAX_SECS);
        wait::until("all news has arrived", limit, async || {
            // In this order: what was on its way while that was looked at is seen to have changed the books.
            let still = self.nothing_is_on_its_way().await?;
            let now = self.books().await?;
            let still = still && now == last;
            last.clone_from(&now);
            Ok(still.then_some(now))
        })
        .await
    }

    /// What the books hold.
    pub(crate) async fn books(&self) -> anyhow::Result<Books> {
        let mut books = Books::new();
        for schema in self.shop.sandbox.schemas() {
            let mut book = self.shop.sandbox.book(schema).await?;
            let tables: Vec<String> = sqlx::query_scalar(
                "SELECT table_name::text FROM information_schema.tables
                 WHERE table_schema = $1 AND table_type = 'BASE TABLE'",
            )
            .bind(schema)
            .fetch_all(&mut book)
            .await?;
            let tables = tables
                .into_iter()
                .filter(|name| !MOVED_BY_ITSELF.contains(&name.as_str()));
            let digests: Vec<String> = tables
                .map(|table| {
                    format!(
                        "SELECT '{schema}.{table}', count(*) || ' ' ||
                         coalesce(md5(string_agg(md5(t::text), '' ORDER BY md5(t::text))), '')
                         FROM {schema}.{table} t"
                    )
                })
                .collect();
            ensure!(!digests.is_empty(), "{schema} has no tables");
            let digests: Vec<(String, String)> =
                sqlx::query_as(AssertSqlSafe(digests.join(" UNION ALL ")))
                    .fetch_all(&mut book)
                    .await?;
            books.extend(digests);
        }
        Ok(books)
    }

    async fn nothing_is_on_its_way(&self) -> anyhow::Result<bool> {
        let mut bus = self.shop.sandbox.book("bus").await?;
        let ends: Vec<(String, i32, i64)> =
            sqlx::query_as("SELECT name, partition, next_offset FROM bus.topic")
                .fetch_all(&mut bus)
                .await?;
        let mut book = self.shop.sandbox.book("notifications").await?;
        let mails: i64 =
            sqlx::query_scalar("SELECT count(*) FROM notifications.mail WHERE due_at IS NOT NULL")
                .fetch_one(&mut book)
                .await?;
        if mails > 0 {
            return Ok(false);
        }
        for service in self.shop.sandbox.services() {
            let mut book = self.shop.sandbox.book(service).await?;
            let waiting: i64 = sqlx::query_scalar(AssertSqlSafe(format!(
                "SELECT count(*) FROM {service}.outbox"
            )))
            .fetch_one(&mut book)
            .await?;
            let places: Vec<(String, i32, i64)> = sqlx::query_as(AssertSqlSafe(format!(
                "SELECT topic, partition, next_offset FROM {service}.consumer_position"
            )))
            .fetch_all(&mut book)
            .await?;
            let behind = places.iter().any(|(topic, partition, next)| {
                let end = ends
                    .iter()
                    .find(|(name, of, _)| name == topic && of == partition);
                end.is_some_and(|(.., end)| next < end)
            });
            if waiting > 0 || behind {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Names of tables whose digests differ.
pub(crate) fn written(before: &Books, after: &Books) -> Vec<String> {
    let differ = after
        .iter()
        .filter(|(table, digest)| before.get(*table) != Some(digest));
    differ.map(|(table, _)| table.clone()).collect()
}

/// The same request with another value at a place of its body.
pub(crate) fn changed(asking: Asking, place: &str, value: &Value) -> anyhow::Result<Asking> {
    let mut body = asking.json().context("a body of JSON")?;
    let part = body
        .pointer_mut(place)
        .with_context(|| format!("nothing at {place}"))?;
    *part = value.clone();
    Ok(asking.with_json(Some(&body)))
}

async fn account_of(door: &Door) -> anyhow::Result<String> {
    let me = door.read("/v1/users/me").await?;
    Ok(me["id"]
        .as_str()
        .context("an account has an id")?
        .to_owned())
}

pub(crate) fn unique() -> String {
    RequestId::generate().uuid().simple().to_string()
}

fn new_sku() -> String {
    format!("THING-{}", unique().to_uppercase())
}

/// As long as a code may be.
fn new_code() -> String {
    unique().to_uppercase()
}
