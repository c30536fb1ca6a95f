//! A shop's catalog beside a ledger that answers as the test says.

use std::{collections::HashMap, sync::Arc, time::Duration};

use holdfast_kernel::{RequestId, Timestamp};
use holdfast_platform::{
    consumer::Consumer,
    hearing::Listener,
    identity::Role,
    message::Message,
    outbox,
    transport::{self, Door, Transport},
};
use holdfast_proto::{
    catalog::v1::{self as pb, catalog_service_client::CatalogServiceClient},
    inventory::v1::{
        self as ledger,
        inventory_service_client::InventoryServiceClient,
        inventory_service_server::{InventoryService, InventoryServiceServer},
    },
    money::v1::Money,
};
use holdfast_testkit::{Asker, FakeClock, Realm, TestDatabase, peer};
use serde_json::{Value, json};
use tonic::{Code, Status};

holdfast_testkit::scripted_peer! {
    /// The ledger, as the test says.
    pub(crate) struct Inventory: InventoryService {
        reserve(ledger::ReserveRequest) -> ledger::ReserveResponse;
        stand(ledger::StandRequest) -> ledger::StandResponse;
        extend(ledger::ExtendRequest) -> ledger::ExtendResponse;
        bind(ledger::BindRequest) -> ledger::BindResponse;
        commit(ledger::CommitRequest) -> ledger::CommitResponse;
        release(ledger::ReleaseRequest) -> ledger::ReleaseResponse;
        r#return(ledger::ReturnRequest) -> ledger::ReturnResponse;
        adjust(ledger::AdjustRequest) -> ledger::AdjustResponse;
        set_policy(ledger::SetPolicyRequest) -> ledger::SetPolicyResponse;
        get_pools(ledger::GetPoolsRequest) -> ledger::GetPoolsResponse;
        list_pools(ledger::ListPoolsRequest) -> ledger::ListPoolsResponse;
        list_movements(ledger::ListMovementsRequest) -> ledger::ListMovementsResponse;
    } unscripted {
        watch(ledger::WatchRequest) -> ledger::WatchResponse as WatchStream;
    }
}

/// How often a condition that has to come about is looked at, and for how long at most.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const WAIT_MAX: Duration = Duration::from_secs(30);

/// One process of the service.
pub(crate) struct Process {
    catalog: Transport,
    consumers: Vec<Consumer>,
    listener: Arc<dyn Listener>,
}

pub(crate) struct World {
    db: TestDatabase,
    realm: Realm,
    pub(crate) process: Process,
    pub(crate) clock: FakeClock,
    pub(crate) inventory: Arc<Inventory>,
    pub(crate) admin: Asker,
    pub(crate) staff: Asker,
    pub(crate) buyer: Asker,
}

impl World {
    /// A ledger that takes every stock and has seven of everything.
    pub(crate) async fn new() -> Self {
        let db = TestDatabase::create("catalog", &holdfast_catalog::MIGRATOR).await;
        let clock = FakeClock::new(Timestamp::UNIX_EPOCH);
        let realm = Realm::new(clock.clone());
        let inventory = Arc::new(Inventory::default());
        inventory
            .adjust
            .otherwise(|_| Ok(ledger::AdjustResponse::default()));
        inventory.get_pools.otherwise(|request| {
            let pools = request.keys.iter().map(|key| ledger::Pool {
                key: key.clone(),
                available: 7,
                ..ledger::Pool::default()
            });
            Ok(ledger::GetPoolsResponse {
                pools: pools.collect(),
            })
        });
        Self {
            process: Process::start(&db, &realm, &inventory),
            db,
            clock,
            inventory,
            admin: realm.somebody(Role::Admin),
            staff: realm.somebody(Role::Staff),
            buyer: realm.somebody(Role::User),
            realm,
        }
    }

    /// One more process of the service, on the same database.
    pub(crate) fn another_process(&self) -> Process {
        Process::start(&self.db, &self.realm, &self.inventory)
    }

    pub(crate) fn client(&self) -> CatalogServiceClient<Transport> {
        self.process.client()
    }

    pub(crate) async fn list(
        &self,
        listing: pb::CreateProductRequest,
    ) -> Result<pb::Product, Status> {
        let answer = self
            .client()
            .create_product(self.admin.ask(listing))
            .await?;
        Ok(answer.into_inner().product.expect("set"))
    }

    pub(crate) async fn show(&self, asker: &Asker, id: &str) -> Result<pb::Product, Status> {
        self.show_in(asker, id, "").await
    }

    pub(crate) async fn show_in(
        &self,
        asker: &Asker,
        id: &str,
        currency: &str,
    ) -> Result<pb::Product, Status> {
        let request = pb::GetProductRequest {
            id: id.to_owned(),
            currency: currency.to_owned(),
        };
        let answer = self.client().get_product(asker.ask(request)).await?;
        Ok(answer.into_inner().product.expect("set"))
    }

    pub(crate) async fn put(
        &self,
        product: &pb::Product,
        status: &str,
        version: i64,
    ) -> Result<pb::Product, Status> {
        let request = pb::UpdateProductRequest {
            product_id: product.id.clone(),
            expected_version: version,
            status: status.to_owned(),
            ..pb::UpdateProductRequest::default()
        };
        self.change(request).await
    }

    pub(crate) async fn change(
        &self,
        request: pb::UpdateProductRequest,
    ) -> Result<pb::Product, Status> {
        let answer = self
            .client()
            .update_product(self.admin.ask(request))
            .await?;
        Ok(answer.into_inner().product.expect("set"))
    }

    /// Lets the service hear how a pool stands.
    pub(crate) async fn hear_of_stock(&self, pool: &str, version: i64, available: i64) {
        let data = json!({"pool": pool, "available": available});
        let place = ("holdfast.stock", "stock.updated", pool);
        self.hear("catalog.stock", place, version, data).await;
    }

    /// Lets the service hear what the reviews of a product come to.
    pub(crate) async fn hear_of_reviews(
        &self,
        kind: &str,
        product: &str,
        version: i64,
        histogram: [i64; 5],
    ) {
        let data = json!({"product_id": product, "rating": 5, "histogram": histogram});
        let place = ("holdfast.reviews", kind, product);
        self.hear("catalog.reviews", place, version, data).await;
    }

    async fn hear(
        &self,
        consumer: &str,
        (topic, kind, key): (&str, &str, &str),
        version: i64,
        data: Value,
    ) {
        let message = Message {
            id: Message::id_of(topic, key, version),
            topic: topic.to_owned(),
            key: key.to_owned(),
            version,
            kind: kind.to_owned(),
            at: Timestamp::UNIX_EPOCH,
            traceparent: None,
            data,
        };
        let mut db = self.db.app().acquire().await.expect("a connection");
        let consumer = self
            .process
            .consumers
            .iter()
            .find(|it| it.name() == consumer);
        let consumer = consumer.expect("it listens");
        let heard = consumer.handle(&mut db, &message).await;
        heard.expect("an effect");
    }

    /// Lets the service hear what the reviews of a product come to.
    pub(crate) async fn hear_of_review(&self, product: &str, version: i64, histogram: [i64; 5]) {
        let message = Message {
            id: uuid::Uuid::nil(),
            topic: "holdfast.reviews".to_owned(),
            key: product.to_owned(),
            version,
            kind: "review.published".to_owned(),
            at: Timestamp::UNIX_EPOCH,
            traceparent: None,
            data: serde_json::json!({"histogram": histogram}),
        };
        let mut db = self.db.app().acquire().await.expect("a connection");
        let heard = self.process.consumers[1].handle(&mut db, &message).await;
        heard.expect("an effect");
    }

    /// Lets a process hear all that was announced so far.
    pub(crate) async fn tell(&self, process: &Process) {
        let mut db = self.db.app().acquire().await.expect("a connection");
        let pending = outbox::pending(&mut db, 100).await.expect("the outbox");
        for message in &pending {
            process.listener.heard(message);
        }
    }

    /// The product as a process shows it to a buyer.
    pub(crate) async fn show_at(&self, process: &Process, id: &str) -> Result<pb::Product, Code> {
        let request = pb::GetProductRequest {
            id: id.to_owned(),
            ..pb::GetProductRequest::default()
        };
        let answer = process.client().get_product(self.buyer.ask(request)).await;
        let answer = answer.map_err(|status| status.code())?;
        Ok(answer.into_inner().product.expect("set"))
    }

    /// Sets a price past the service, which tells nobody.
    pub(crate) async fn price_behind_its_back(&self, sku: &str, price: i64) {
        sqlx::query("UPDATE variant SET price = $2 WHERE sku = $1")
            .bind(sku)
            .bind(price)
            .execute(&self.db.app())
            .await
            .expect("set");
    }

    /// Gives a variant another option as a program would that knows nothing of what is kept for counting.
    pub(crate) async fn resize_as_an_older_program(&self, sku: &str, size: &str) {
        sqlx::query(
            "WITH resized AS (
                 UPDATE variant SET options = jsonb_build_object('size', $2::text) WHERE sku = $1
                 RETURNING product_id
             )
             UPDATE product SET version = version + 1, indexed = true FROM resized WHERE id = product_id",
        )
        .bind(sku)
        .bind(size)
        .execute(&self.db.app())
        .await
        .expect("resized");
    }

    /// Waits until a search finds these skus.
    pub(crate) async fn until_found(&self, query: &str, wanted: &[&str]) {
        self.until(&format!("{query:?} finds {wanted:?}"), async || {
            let request = pb::ListProductsRequest {
                query: query.to_owned(),
                ..pb::ListProductsRequest::default()
            };
            let answer = self
                .client()
                .list_products(tonic::Request::new(request))
                .await;
            let products = answer.expect("an answer").into_inner().products;
            let found = products.iter().map(|product| &product.variants[0].sku);
            found.eq(wanted)
        })
        .await;
    }

    /// Waits for what comes about by itself.
    pub(crate) async fn until(&self, what: &str, mut comes_about: impl AsyncFnMut() -> bool) {
        let waiting = async {
            while !comes_about().await {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let ended = tokio::time::timeout(WAIT_MAX, waiting).await;
        assert!(ended.is_ok(), "{what}: not within {WAIT_MAX:?}");
    }

    /// Rows of products and of variants.
    pub(crate) async fn rows(&self) -> (i64, i64) {
        sqlx::query_as("SELECT (SELECT count(*) FROM product), (SELECT count(*) FROM variant)")
            .fetch_one(&self.db.app())
            .await
            .expect("counted")
    }

    /// What was written down for the audit log, oldest first: who did it, what, and to what.
    pub(crate) async fn audited(&self) -> Vec<(String, String, String)> {
        let mut db = self.db.app().acquire().await.expect("a connection");
        let pending = outbox::pending(&mut db, 100).await.expect("the outbox");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (pending.iter())
            .filter(|message| message.kind == "audit.recorded")
            .map(|message| {
                let line = &message.data;
                let named = ["sku", "category", "product_id"].map(|name| text(&line[name]));
                let named = named.into_iter().find(|named| !named.is_empty());
                let named = named.expect("it names what it was done to");
                (text(&line["actor"]), text(&line["action"]), named)
            })
            .collect()
    }

    /// What was announced of the catalog, oldest first: kind and version.
    pub(crate) async fn announced(&self) -> Vec<String> {
        let mut db = self.db.app().acquire().await.expect("a connection");
        let pending = outbox::pending(&mut db, 100).await.expect("the outbox");
        (pending.iter())
            .filter(|message| message.kind != "audit.recorded")
            .map(|message| format!("{} v{}", message.kind, message.version))
            .collect()
    }
}

impl Process {
    fn start(db: &TestDatabase, realm: &Realm, inventory: &Arc<Inventory>) -> Self {
        let server = InventoryServiceServer::from_arc(inventory.clone());
        let peers = holdfast_catalog::Peers {
            inventory: InventoryServiceClient::new(peer::local("inventory", server)),
        };
        let context = realm.context("catalog", db.app());
        let service = holdfast_catalog::build(peers, context).expect("nothing to fail on");
        for task in service.tasks {
            tokio::spawn(task.work);
        }
        let hearing = service.hearing.expect("it hears its own news");
        Self {
            catalog: transport::local(Door::new("catalog", service.routes)),
            consumers: service.consumers,
            listener: hearing.listener().clone(),
        }
    }

    pub(crate) fn client(&self) -> CatalogServiceClient<Transport> {
        CatalogServiceClient::new(self.catalog.clone())
    }

    /// Whether it hears what is written, and so keeps anything; at first it does not.
    pub(crate) fn hear(&self, hears: bool) {
        self.listener.set_hearing(hears);
    }
}

/// A T-shirt in these SKUs at 32 yen, each with a stock of five.
pub(crate) fn shirt(skus: &[&str]) -> pb::CreateProductRequest {
    let variants = skus.iter().map(|sku| pb::NewVariant {
        sku: (*sku).to_owned(),
        name: "M".to_owned(),
        options: HashMap::from([("size".to_owned(), "M".to_owned())]),
        price: Some(yen(32)),
        stock: Some(5),
        other_prices: Vec::new(),
    });
    pb::CreateProductRequest {
        request_id: RequestId::generate().to_string(),
        fingerprint: vec![1].into(),
        name: "T-shirt".to_owned(),
        currency: "JPY".to_owned(),
        category: "clothing".to_owned(),
        variants: variants.collect(),
        ..pb::CreateProductRequest::default()
    }
}

pub(crate) fn yen(amount: i64) -> Money {
    Money {
        amount,
        currency: "JPY".to_owned(),
    }
}
