//! A shop with a customer, and the service as a process that can be killed and started again on the same database.

use std::{future::Future, sync::Arc, time::Duration};

use holdfast_kernel::{Id, RequestId, id};
use holdfast_orders::{Peers, Settings, Status as Stands};
use holdfast_platform::{
    bus::{Bus, Outgoing},
    consumer::Consumer,
    database,
    embedded_log::EmbeddedLog,
    fault::Fault,
    hearing::Listener,
    identity::Role,
    message::Message,
    outbox, settings,
    transport::{self, Door, Transport},
    wakeup::Wakeups,
};
use holdfast_proto::{
    catalog::v1::{
        self as catalog,
        catalog_service_client::CatalogServiceClient,
        catalog_service_server::{CatalogService, CatalogServiceServer},
    },
    inventory::v1::{
        inventory_service_client::InventoryServiceClient,
        inventory_service_server::InventoryServiceServer,
    },
    money::v1::Money,
    orders::v1::{self as pb, OrderStatus, orders_service_client::OrdersServiceClient},
    payments::v1::{
        PaymentStatus, payments_service_client::PaymentsServiceClient,
        payments_service_server::PaymentsServiceServer,
    },
    users::v1::{
        self as users,
        users_service_client::UsersServiceClient,
        users_service_server::{UsersService, UsersServiceServer},
    },
};
use holdfast_testkit::{Asker, FakeClock, Realm, TestDatabase, peer};
use jiff::SignedDuration;
use sqlx::PgPool;
use tokio::{runtime::Runtime, task::JoinHandle, time};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{ledger::Ledger, till::Till};

holdfast_testkit::scripted_peer! {
    /// The catalog, as the test prices it.
    pub(crate) struct Catalog: CatalogService {
        create_product(catalog::CreateProductRequest) -> catalog::CreateProductResponse;
        get_product(catalog::GetProductRequest) -> catalog::GetProductResponse;
        list_products(catalog::ListProductsRequest) -> catalog::ListProductsResponse;
        quote_variants(catalog::QuoteVariantsRequest) -> catalog::QuoteVariantsResponse;
        update_product(catalog::UpdateProductRequest) -> catalog::UpdateProductResponse;
        delete_product(catalog::DeleteProductRequest) -> catalog::DeleteProductResponse;
        add_variant(catalog::AddVariantRequest) -> catalog::AddVariantResponse;
        update_variant(catalog::UpdateVariantRequest) -> catalog::UpdateVariantResponse;
        delete_variant(catalog::DeleteVariantRequest) -> catalog::DeleteVariantResponse;
        list_categories(catalog::ListCategoriesRequest) -> catalog::ListCategoriesResponse;
        get_category(catalog::GetCategoryRequest) -> catalog::GetCategoryResponse;
        create_category(catalog::CreateCategoryRequest) -> catalog::CreateCategoryResponse;
        update_category(catalog::UpdateCategoryRequest) -> catalog::UpdateCategoryResponse;
        delete_category(catalog::DeleteCategoryRequest) -> catalog::DeleteCategoryResponse;
    }
}

holdfast_testkit::scripted_peer! {
    /// Users, asked only about accounts whose token is old.
    pub(crate) struct Users: UsersService {
        create_profile(users::CreateProfileRequest) -> users::CreateProfileResponse;
        get_profile(users::GetProfileRequest) -> users::GetProfileResponse;
        update_profile(users::UpdateProfileRequest) -> users::UpdateProfileResponse;
        get_profiles(users::GetProfilesRequest) -> users::GetProfilesResponse;
        list_addresses(users::ListAddressesRequest) -> users::ListAddressesResponse;
        add_address(users::AddAddressRequest) -> users::AddAddressResponse;
        change_address(users::ChangeAddressRequest) -> users::ChangeAddressResponse;
        remove_address(users::RemoveAddressRequest) -> users::RemoveAddressResponse;
    }
}

/// Yen, of every SKU that the catalog knows: TSHIRT, MUG, and DOLLAR, which is priced in another currency.
pub(crate) const PRICE: i64 = 500;
pub(crate) const HOLD_SECS: i64 = 600;
pub(crate) const LEASE_SECS: i64 = 15;
/// What the gateway gives a purchase.
const PURCHASE_DEADLINE_SECS: u64 = 5;
/// How long a test waits for something that never comes.
const WAIT_MAX_SECS: u64 = 60;

pub(crate) struct World {
    pub(crate) db: TestDatabase,
    pub(crate) clock: FakeClock,
    pub(crate) realm: Realm,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) till: Arc<Till>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) users: Arc<Users>,
    pub(crate) customer: Asker,
    pub(crate) staff: Asker,
    pub(crate) process: Process,
    setting: (&'static str, u64),
}

/// The service in a runtime of its own: dropping that leaves behind what a killed process leaves behind.
pub(crate) struct Process {
    runtime: Option<Runtime>,
    transport: Transport,
    pub(crate) consumers: Vec<Consumer>,
    listener: Arc<dyn Listener>,
    shutdown: CancellationToken,
    works: Vec<JoinHandle<()>>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::answering_within(2_000).await
    }

    pub(crate) async fn answering_within(answer_millis: u64) -> Self {
        Self::with("answer_millis", answer_millis).await
    }

    /// With an order of two shirts, bought with that token, as far as it came at once.
    pub(crate) async fn where_bought(token: &str) -> (Self, pb::Order) {
        let world = Self::new().await;
        let order = world.buy(&[("TSHIRT", 2)], token).await;
        (world, order.expect("an order"))
    }

    /// With another value for a setting.
    pub(crate) async fn with(key: &'static str, value: u64) -> Self {
        let db = TestDatabase::create("orders", &holdfast_orders::MIGRATOR).await;
        let clock = FakeClock::new("2026-12-01T09:00:00Z".parse().expect("a moment"));
        let realm = Realm::new(clock.clone());
        let ledger = Arc::new(Ledger::new(clock.clone()));
        for sku in ["TSHIRT", "MUG", "DOLLAR"] {
            ledger.stock(sku, 10);
        }
        let till: Arc<Till> = Arc::default();
        let catalog: Arc<Catalog> = Arc::default();
        catalog
            .quote_variants
            .otherwise(|ask| Ok(quote(ask, PRICE)));
        let users: Arc<Users> = Arc::default();
        let peers = peers(&ledger, &till, &catalog, &users);
        let process = Process::start(&db, &realm, peers, (key, value)).await;
        Self {
            customer: realm.somebody(Role::User),
            staff: realm.somebody(Role::Staff),
            db,
            clock,
            realm,
            ledger,
            till,
            catalog,
            users,
            process,
            setting: (key, value),
        }
    }

    /// A second process on the same database.
    pub(crate) async fn another_process(&self) -> Process {
        let peers = peers(&self.ledger, &self.till, &self.catalog, &self.users);
        Process::start(&self.db, &self.realm, peers, self.setting).await
    }

    /// Kills the process and starts another one once the lease of what it was doing is over.
    pub(crate) async fn kill_and_restart(&mut self) {
        self.process.kill();
        self.ledger.line.mend();
        self.till.line.mend();
        self.pass(LEASE_SECS + 1);
        self.process = self.another_process().await;
    }

    pub(crate) fn pass(&self, secs: i64) {
        self.clock.advance(SignedDuration::from_secs(secs));
    }

    /// Buys with a new key.
    pub(crate) async fn buy(
        &self,
        items: &[(&str, i64)],
        token: &str,
    ) -> Result<pb::Order, Status> {
        self.buy_again(&new_key(), items, token).await
    }

    pub(crate) async fn buy_again(
        &self,
        key: &str,
        items: &[(&str, i64)],
        token: &str,
    ) -> Result<pb::Order, Status> {
        self.start_buying(key, items, token)
            .await
            .expect("it lives on")
    }

    /// Buys in the process; the call dies with it.
    pub(crate) fn start_buying(
        &self,
        key: &str,
        items: &[(&str, i64)],
        token: &str,
    ) -> JoinHandle<Result<pb::Order, Status>> {
        let mut request = self.customer.ask(wish(key, items, token));
        request.set_timeout(Duration::from_secs(PURCHASE_DEADLINE_SECS));
        let mut client = self.process.client();
        self.process.spawn(async move {
            let answer = client.place_order(request).await?;
            Ok(answer.into_inner().order.expect("set"))
        })
    }

    /// Buys, and uses points.
    pub(crate) async fn buy_using(
        &self,
        points: i64,
        items: &[(&str, i64)],
        token: &str,
    ) -> Result<pb::Order, Status> {
        let mut request = self.customer.ask(pb::PlaceOrderRequest {
            points,
            ..wish(&new_key(), items, token)
        });
        request.set_timeout(Duration::from_secs(PURCHASE_DEADLINE_SECS));
        let mut client = self.process.client();
        let answer = self
            .process
            .spawn(async move { client.place_order(request).await });
        let answer = answer.await.expect("it lives")?;
        Ok(answer.into_inner().order.expect("set"))
    }

    /// Buys under that key, and uses a voucher.
    pub(crate) async fn buy_with(
        &self,
        key: &str,
        voucher: &str,
        items: &[(&str, i64)],
        token: &str,
    ) -> Result<pb::Order, Status> {
        let buying = self.start_buying_with(key, voucher, items, token);
        buying.await.expect("it lives")
    }

    /// The same in the process; the call dies with it.
    pub(crate) fn start_buying_with(
        &self,
        key: &str,
        voucher: &str,
        items: &[(&str, i64)],
        token: &str,
    ) -> JoinHandle<Result<pb::Order, Status>> {
        let mut request = self.customer.ask(pb::PlaceOrderRequest {
            voucher: Some(voucher.to_owned()),
            ..wish(key, items, token)
        });
        request.set_timeout(Duration::from_secs(PURCHASE_DEADLINE_SECS));
        let mut client = self.process.client();
        self.process.spawn(async move {
            let answer = client.place_order(request).await?;
            Ok(answer.into_inner().order.expect("set"))
        })
    }

    /// Buys, and waits until the order is in that status, however soon the call answers.
    pub(crate) async fn bought(
        &self,
        items: &[(&str, i64)],
        token: &str,
        status: OrderStatus,
    ) -> String {
        let key = new_key();
        self.buy_again(&key, items, token)
            .await
            .expect("on its way");
        self.becomes(&order_of(&key), status).await.id
    }

    /// An order of two shirts that expired, while nobody knew what came of its payment.
    pub(crate) async fn expired_with_unknown_outcome(&self) -> String {
        let order = self
            .bought(&[("TSHIRT", 2)], "timeout", OrderStatus::AwaitingPayment)
            .await;
        self.hold_expires(&order).await;
        self.becomes(&order, OrderStatus::Expired).await;
        self.rests().await;
        order
    }

    pub(crate) async fn order(&self, order: &str) -> pb::Order {
        let request = self.staff.ask(pb::GetOrderRequest {
            order_id: order.to_owned(),
        });
        let mut client = self.process.client();
        let answer = self
            .process
            .spawn(async move { client.get_order(request).await });
        let answer = answer.await.expect("it lives").expect("an order");
        answer.into_inner().order.expect("set")
    }

    /// Tokens do not live as long as some tests let pass.
    pub(crate) fn staff_log_in_again(&mut self) {
        self.staff = self.realm.somebody(Role::Staff);
    }

    pub(crate) async fn find(&self, order: &str) -> Option<pb::Order> {
        let request = self.staff.ask(pb::GetOrderRequest {
            order_id: order.to_owned(),
        });
        let mut client = self.process.client();
        let answer = self
            .process
            .spawn(async move { client.get_order(request).await });
        let answer = answer.await.expect("it lives").ok()?;
        answer.into_inner().order
    }

    pub(crate) async fn cancel(&self, order: &str) -> Result<pb::Order, Status> {
        self.cancel_again(&new_key(), order, "changed my mind")
            .await
    }

    pub(crate) async fn cancel_again(
        &self,
        key: &str,
        order: &str,
        reason: &str,
    ) -> Result<pb::Order, Status> {
        let mut request = self.customer.ask(pb::CancelOrderRequest {
            request_id: key.to_owned(),
            fingerprint: fingerprint(reason).into(),
            order_id: order.to_owned(),
            reason: reason.to_owned(),
        });
        request.set_timeout(Duration::from_secs(PURCHASE_DEADLINE_SECS));
        let mut client = self.process.client();
        let answer = self
            .process
            .spawn(async move { client.cancel_order(request).await });
        let answer = answer.await.expect("it lives")?;
        Ok(answer.into_inner().order.expect("set"))
    }

    pub(crate) async fn refund(
        &self,
        order: &str,
        items: &[(&str, i64)],
        amount: Option<i64>,
    ) -> Result<pb::Order, Status> {
        self.refund_again(&new_key(), order, items, amount).await
    }

    pub(crate) async fn refund_again(
        &self,
        key: &str,
        order: &str,
        items: &[(&str, i64)],
        amount: Option<i64>,
    ) -> Result<pb::Order, Status> {
        let answer = self.start_refund(key, order, items, amount).await;
        answer.expect("it lives")
    }

    pub(crate) fn start_refund(
        &self,
        key: &str,
        order: &str,
        items: &[(&str, i64)],
        amount: Option<i64>,
    ) -> JoinHandle<Result<pb::Order, Status>> {
        let mut request = self.staff.ask(pb::RefundOrderRequest {
            request_id: key.to_owned(),
            fingerprint: fingerprint(&format!("{items:?} {amount:?}")).into(),
            order_id: order.to_owned(),
            items: lines(items),
            amount: amount.map(yen),
            reason: "did not fit".to_owned(),
        });
        request.set_timeout(Duration::from_secs(PURCHASE_DEADLINE_SECS));
        let mut client = self.process.client();
        self.process.spawn(async move {
            let answer = client.refund_order(request).await?;
            Ok(answer.into_inner().order.expect("set"))
        })
    }

    pub(crate) async fn resume(
        &self,
        key: &str,
        order: &str,
        reason: &str,
    ) -> Result<pb::Order, Status> {
        let mut request = self.staff.ask(pb::ResumeOrderRequest {
            request_id: key.to_owned(),
            fingerprint: fingerprint(reason).into(),
            order_id: order.to_owned(),
            reason: reason.to_owned(),
        });
        request.set_timeout(Duration::from_secs(PURCHASE_DEADLINE_SECS));
        let mut client = self.process.client();
        let answer = self
            .process
            .spawn(async move { client.resume_order(request).await });
        let answer = answer.await.expect("it lives")?;
        Ok(answer.into_inner().order.expect("set"))
    }

    /// Staff say that the order left the house, with that number of the carrier's.
    pub(crate) async fn ship(
        &self,
        key: &str,
        order: &str,
        tracking: &str,
    ) -> Result<pb::Order, Status> {
        let request = self.staff.ask(pb::ShipOrderRequest {
            request_id: key.to_owned(),
            fingerprint: fingerprint(tracking).into(),
            order_id: order.to_owned(),
            carrier: "Yamato".to_owned(),
            tracking: tracking.to_owned(),
        });
        let mut client = self.process.client();
        let answer = self
            .process
            .spawn(async move { client.ship_order(request).await });
        let answer = answer.await.expect("it lives")?;
        Ok(answer.into_inner().order.expect("set"))
    }

    /// Staff say that the order arrived.
    pub(crate) async fn deliver(&self, key: &str, order: &str) -> Result<pb::Order, Status> {
        let request = self.staff.ask(pb::DeliverOrderRequest {
            request_id: key.to_owned(),
            fingerprint: fingerprint("arrived").into(),
            order_id: order.to_owned(),
        });
        let mut client = self.process.client();
        let answer = self
            .process
            .spawn(async move { client.deliver_order(request).await });
        let answer = answer.await.expect("it lives")?;
        Ok(answer.into_inner().order.expect("set"))
    }

    /// Waits until the order is in that status, while a little time passes at each look.
    pub(crate) async fn becomes(&self, order: &str, status: OrderStatus) -> pb::Order {
        self.until(&format!("{order} is {status:?}"), async || {
            let order = self.find(order).await?;
            (order.status() == status).then_some(order)
        })
        .await
    }

    /// Waits until the only order is in that status, while the longest wait after a failure passes at each look. Tokens
    /// do not live that long, and leases must, or the clock takes the purchase from its worker.
    pub(crate) async fn becomes_in_time(&self, status: &str) {
        self.until(&format!("the order is {status}"), async || {
            self.pass(31);
            let query = sqlx::query_scalar("SELECT status FROM orders");
            let stands: String = query.fetch_one(&self.db.app()).await.ok()?;
            (stands == status).then_some(())
        })
        .await;
    }

    /// Asks the process to end and waits until nobody in it has a turn at anything any more; its door stays open.
    pub(crate) async fn work_ends(&self) {
        self.process.ask_to_end();
        self.until("all turns are over", async || {
            self.process.has_ended().then_some(())
        })
        .await;
    }

    /// Waits until no saga is under way and no refund open.
    pub(crate) async fn rests(&self) {
        self.until("all sagas rest", async || {
            (self.open_sagas().await == 0).then_some(())
        })
        .await;
    }

    /// Waits until a statement that begins so waits for a lock.
    pub(crate) async fn until_waits(&self, statement: &str) {
        self.until(&format!("{statement} waits"), async || {
            let query = "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock' AND starts_with(query, $1)";
            let waiting: i64 = sqlx::query_scalar(query)
                .bind(statement)
                .fetch_one(&self.db.app())
                .await
                .ok()?;
            (waiting > 0).then_some(())
        })
        .await;
    }

    pub(crate) async fn until<T>(&self, what: &str, look: impl AsyncFn() -> Option<T>) -> T {
        let looking = async {
            loop {
                if let Some(seen) = look().await {
                    return seen;
                }
                time::sleep(Duration::from_millis(5)).await;
                // Waits after failures are over at some time.
                self.clock.advance(SignedDuration::from_millis(50));
            }
        };
        time::timeout(Duration::from_secs(WAIT_MAX_SECS), looking)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"))
    }

    /// The provider tells what came of the order's payment, and payments announce it.
    pub(crate) async fn provider_says(&self, order: &str, status: PaymentStatus) {
        self.till.provider_says(order, status);
        let kind = match self.till.status(order) {
            PaymentStatus::Authorized => "payment.authorized",
            PaymentStatus::Captured => "payment.captured",
            PaymentStatus::Failed => "payment.failed",
            PaymentStatus::Expired => "payment.expired",
            PaymentStatus::Voided => "payment.voided",
            PaymentStatus::Refunded => "payment.refunded",
            other => panic!("nobody announces {other:?}"),
        };
        self.hears("holdfast.payments", kind, "pay_", order).await;
    }

    /// The ledger announces that the order's hold is over, which it is by the clock.
    pub(crate) async fn hold_expires(&self, order: &str) {
        self.pass(HOLD_SECS + 61);
        let id: Id<id::Order> = order.parse().expect("an order");
        let hold = Id::<id::Hold>::new(id.uuid()).to_string();
        self.hears("holdfast.holds", "hold.expired", &hold, order)
            .await;
    }

    pub(crate) async fn hears(&self, topic: &str, kind: &str, key: &str, order: &str) {
        let message = Message {
            id: RequestId::generate().uuid(),
            topic: topic.to_owned(),
            key: key.to_owned(),
            version: 1,
            kind: kind.to_owned(),
            at: holdfast_kernel::Clock::now(&self.clock),
            traceparent: None,
            data: serde_json::json!({ "purchase_id": order }),
        };
        for consumer in &self.process.consumers {
            let mut tx = self.db.app().begin().await.expect("a transaction");
            consumer.handle(&mut tx, &message).await.expect("an effect");
            tx.commit().await.expect("committed");
        }
    }

    /// News of orders' money lies on the bus, each of a payment of its own, and the service reads it all together.
    pub(crate) async fn reads(&self, news: &[(&str, &str)]) {
        let bus_pool = database::connect(&self.db.bus_url(), 2)
            .await
            .expect("a bus");
        let log = EmbeddedLog::new(bus_pool, Wakeups::default());
        let outgoing: Vec<Outgoing> = (news.iter().zip(1..))
            .map(|((kind, order), outbox_id)| {
                let message = Message {
                    id: RequestId::generate().uuid(),
                    topic: "holdfast.payments".to_owned(),
                    key: format!("pay_{outbox_id}"),
                    version: 1,
                    kind: (*kind).to_owned(),
                    at: holdfast_kernel::Clock::now(&self.clock),
                    traceparent: None,
                    data: serde_json::json!({ "purchase_id": order }),
                };
                Outgoing {
                    outbox_id,
                    message_id: message.id,
                    topic: message.topic.clone(),
                    key: message.key.clone(),
                    envelope: message.to_envelope(),
                }
            })
            .collect();
        log.append("payments", &outgoing).await.expect("appended");
        let shutdown = CancellationToken::new();
        let reading: Vec<_> = (self.process.consumers.iter())
            .map(|consumer| {
                let bus: Arc<dyn Bus> = Arc::new(log.clone());
                tokio::spawn(consumer.clone().run(self.db.app(), bus, shutdown.clone()))
            })
            .collect();
        self.until("all is read", async || {
            let position: i64 = sqlx::query_scalar(
                "SELECT next_offset FROM consumer_position WHERE consumer = 'orders.payments'",
            )
            .fetch_one(&self.db.app())
            .await
            .ok()?;
            (position == outgoing.len() as i64).then_some(())
        })
        .await;
        shutdown.cancel();
        for reader in reading {
            reader.await.expect("it ends in order");
        }
    }

    pub(crate) async fn open_sagas(&self) -> i64 {
        sqlx::query_scalar(
            "SELECT count(*) FROM saga WHERE phase <> 'done' OR open_refunds > 0 OR due_at IS NOT NULL",
        )
        .fetch_one(&self.db.app())
        .await
        .expect("counted")
    }

    /// What was announced, oldest first: kind and version.
    pub(crate) async fn announced(&self) -> Vec<String> {
        let mut db = self.db.app().acquire().await.expect("a connection");
        let pending = outbox::pending(&mut db, 1_000).await.expect("the outbox");
        pending
            .iter()
            .map(|message| {
                format!(
                    "{} v{}",
                    message.kind.trim_start_matches("order."),
                    message.version
                )
            })
            .collect()
    }

    /// Lets the process hear all that was announced so far.
    pub(crate) async fn tell(&self) {
        let mut db = self.db.app().acquire().await.expect("a connection");
        let pending = outbox::pending(&mut db, 1_000).await.expect("the outbox");
        for message in &pending {
            self.process.listener.heard(message);
        }
    }

    /// Writes how an order's payment stands past the service, which tells nobody.
    pub(crate) async fn pay_behind_its_back(&self, order: &str, status: &str) {
        let order: holdfast_kernel::Id<id::Order> = order.parse().expect("an order's id");
        sqlx::query("UPDATE orders SET payment_status = $2 WHERE id = $1")
            .bind(order.uuid())
            .bind(status)
            .execute(&self.db.app())
            .await
            .expect("set");
    }

    /// What must hold whatever happened, once nothing is under way: units and money agree with the orders.
    pub(crate) async fn is_sound(&self) {
        let mut db = self.db.app().acquire().await.expect("a connection");
        let facts = holdfast_orders::audit(&mut db, None, 1_000)
            .await
            .expect("an audit");
        let mut sold =
            std::collections::HashMap::from([("TSHIRT".to_owned(), 0), ("MUG".to_owned(), 0)]);
        let mut spent: std::collections::HashMap<&str, i64> = std::collections::HashMap::new();
        for fact in &facts {
            if let Some(voucher) = &fact.voucher {
                *spent.entry(voucher).or_default() += i64::from(fact.was_confirmed);
            }
            assert!(fact.illegal_history.is_empty(), "{fact:?}");
            let (times, captured, refunded) = self.till.money(&fact.order.to_string());
            assert!(times <= 1, "captured twice: {fact:?}");
            assert_eq!(refunded, fact.refunded.amount, "money given back: {fact:?}");
            let (used, back) = self.till.points_of(&fact.order.to_string());
            let kept = fact.points - fact.points_refunded;
            let is_kept = !matches!(
                fact.status,
                Stands::Cancelled | Stands::PaymentFailed | Stands::Expired
            );
            assert_eq!(
                used - back,
                if is_kept { kept } else { 0 },
                "points used: {fact:?}"
            );
            let owns = matches!(
                fact.status,
                Stands::Confirmed | Stands::Shipped | Stands::Delivered | Stands::PartiallyRefunded
            );
            let owned = if owns || fact.status == Stands::Refunded {
                fact.total.amount
            } else {
                0
            };
            assert_eq!(captured, owned, "money taken: {fact:?}");
            for (sku, bought, returned) in &fact.items {
                if owns {
                    *sold.entry(sku.clone()).or_default() += bought - returned;
                }
            }
        }
        for (voucher, spent) in spent {
            let pool = self.ledger.pool_of(voucher).expect("a pool");
            assert_eq!((pool.held, pool.sold), (0, spent), "{voucher}: {facts:#?}");
        }
        for (sku, sold) in sold {
            let pool = self.ledger.pool(&sku);
            assert_eq!(
                (pool.held, pool.sold),
                (0, sold),
                "units of {sku}: {facts:#?}"
            );
        }
    }
}

impl Process {
    async fn start(
        db: &TestDatabase,
        realm: &Realm,
        peers: Peers,
        (key, value): (&'static str, u64),
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let url = db.app_url();
        let pool = runtime.spawn(async move { database::connect(&url, 8).await });
        let pool: PgPool = pool.await.expect("no panic").expect("connected");
        let mut context = realm.context("orders", pool);
        let shutdown = CancellationToken::new();
        context.shutdown = shutdown.clone();
        let defaults =
            settings::Settings::load(&[holdfast_orders::DEFAULTS], None).expect("defaults");
        let settings: Settings = defaults
            .with(&format!("orders.{key}"), value)
            .with("orders.poll_millis", 5)
            .section("orders")
            .expect("the service's own section");
        let service = holdfast_orders::build(settings, peers, context).expect("built");
        let works = (service.tasks.into_iter())
            .map(|task| runtime.spawn(task.work))
            .collect();
        Self {
            runtime: Some(runtime),
            transport: transport::local(Door::new("orders", service.routes)),
            consumers: service.consumers,
            listener: (service.hearing.expect("it hears its own news").listener()).clone(),
            shutdown,
            works,
        }
    }

    /// Whether it hears what is written, and so keeps anything; at first it does not.
    pub(crate) fn hear(&self, hears: bool) {
        self.listener.set_hearing(hears);
    }

    /// Whether its workers have ended; its door has not.
    pub(crate) fn has_ended(&self) -> bool {
        self.works.iter().all(JoinHandle::is_finished)
    }

    pub(crate) fn client(&self) -> OrdersServiceClient<Transport> {
        OrdersServiceClient::new(self.transport.clone())
    }

    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.runtime.as_ref().expect("not killed").spawn(work)
    }

    /// As `kill -9`: nothing is finished, rolled back or told.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// As SIGTERM.
    pub(crate) fn ask_to_end(&self) {
        self.shutdown.cancel();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn new_key() -> String {
    RequestId::generate().to_string()
}

/// The order that a key makes.
pub(crate) fn order_of(key: &str) -> String {
    let request: RequestId = key.parse().expect("a UUID");
    request.makes::<id::Order>().to_string()
}

pub(crate) fn wish(key: &str, items: &[(&str, i64)], token: &str) -> pb::PlaceOrderRequest {
    pb::PlaceOrderRequest {
        request_id: key.to_owned(),
        fingerprint: fingerprint(&format!("{items:?} {token}")).into(),
        items: lines(items),
        payment_method: Some(pb::PaymentMethodChoice {
            choice: Some(pb::payment_method_choice::Choice::Inline(
                pb::InlineMethod {
                    r#type: "card".to_owned(),
                    token: token.to_owned(),
                },
            )),
        }),
        points: 0,
        voucher: None,
    }
}

pub(crate) fn reason(status: &Status) -> String {
    Fault::from_status(status).reason().to_owned()
}

pub(crate) fn quote(
    ask: &catalog::QuoteVariantsRequest,
    price: i64,
) -> catalog::QuoteVariantsResponse {
    let known = |sku: &&String| ["TSHIRT", "MUG", "DOLLAR"].contains(&sku.as_str());
    let quotes = (ask.skus.iter().filter(known))
        .map(|sku| catalog::Quote {
            sku: sku.clone(),
            name: format!("A {}", sku.to_lowercase()),
            price: Some(Money {
                amount: price,
                currency: if sku == "DOLLAR" { "USD" } else { "JPY" }.to_owned(),
            }),
        })
        .collect();
    catalog::QuoteVariantsResponse { quotes }
}

fn lines(items: &[(&str, i64)]) -> Vec<pb::ItemRequest> {
    (items.iter())
        .map(|(sku, quantity)| pb::ItemRequest {
            sku: (*sku).to_owned(),
            quantity: *quantity,
        })
        .collect()
}

fn yen(amount: i64) -> Money {
    Money {
        amount,
        currency: "JPY".to_owned(),
    }
}

/// Stands for the SHA-256 of the body: the same for the same, another for another.
fn fingerprint(body: &str) -> Vec<u8> {
    RequestId::derive(&[body]).uuid().as_bytes().to_vec()
}

fn peers(
    ledger: &Arc<Ledger>,
    till: &Arc<Till>,
    catalog: &Arc<Catalog>,
    users: &Arc<Users>,
) -> Peers {
    Peers {
        users: UsersServiceClient::new(peer::local(
            "users",
            UsersServiceServer::from_arc(users.clone()),
        )),
        catalog: CatalogServiceClient::new(peer::local(
            "catalog",
            CatalogServiceServer::from_arc(catalog.clone()),
        )),
        inventory: InventoryServiceClient::new(peer::local(
            "inventory",
            InventoryServiceServer::from_arc(ledger.clone()),
        )),
        payments: PaymentsServiceClient::new(peer::local(
            "payments",
            PaymentsServiceServer::from_arc(till.clone()),
        )),
    }
}
