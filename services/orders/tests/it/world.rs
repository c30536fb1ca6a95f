//! A shop with a customer, and the service as a process that can be killed and started again on the same database.

mod asking;
mod news;
mod process;
mod soundness;

use std::{sync::Arc, time::Duration};

use holdfast_kernel::{RequestId, id};
use holdfast_orders::Peers;
use holdfast_platform::{fault::Fault, identity::Role};
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
    orders::v1::{self as pb, OrderStatus},
    payments::v1::{
        payments_service_client::PaymentsServiceClient,
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
use tokio::time;
use tonic::Status;

pub(crate) use self::asking::wish;
use self::process::Process;
use crate::{ledger::Ledger, till::Till};

holdfast_testkit::scripted_peer! {
    /// The catalog, as the test prices it.
    pub(crate) struct Catalog: CatalogService {
        create_product(catalog::CreateProductRequest) -> catalog::CreateProductResponse;
        create_products(catalog::CreateProductsRequest) -> catalog::CreateProductsResponse;
        publish_products(catalog::PublishProductsRequest) -> catalog::PublishProductsResponse;
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

    /// Tokens do not live as long as some tests let pass.
    pub(crate) fn staff_log_in_again(&mut self) {
        self.staff = self.realm.somebody(Role::Staff);
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
}

pub(crate) fn new_key() -> String {
    RequestId::generate().to_string()
}

/// The order that a key makes.
pub(crate) fn order_of(key: &str) -> String {
    let request: RequestId = key.parse().expect("a UUID");
    request.makes::<id::Order>().to_string()
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
