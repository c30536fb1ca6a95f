//! The door on a real database, with scripted services behind it.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use axum::{Router, body::Body};
use bytes::Bytes;
use holdfast_gateway::{ClientAddress, Peers};
use holdfast_kernel::Timestamp;
use holdfast_platform::{
    identity::Role,
    service::{Context, Task},
    transport::Transport,
};
use holdfast_proto::{
    auth::v1::{auth_service_client::AuthServiceClient, auth_service_server::AuthServiceServer},
    catalog::v1::{
        catalog_service_client::CatalogServiceClient, catalog_service_server::CatalogServiceServer,
    },
    events::v1::{
        events_service_client::EventsServiceClient, events_service_server::EventsServiceServer,
    },
    inventory::v1::{
        inventory_service_client::InventoryServiceClient,
        inventory_service_server::InventoryServiceServer,
    },
    money::v1::Money,
    notifications::v1::{
        notifications_service_client::NotificationsServiceClient,
        notifications_service_server::NotificationsServiceServer,
    },
    orders::v1::{
        self as orders, orders_service_client::OrdersServiceClient,
        orders_service_server::OrdersServiceServer,
    },
    payments::v1::{
        payments_service_client::PaymentsServiceClient,
        payments_service_server::PaymentsServiceServer,
    },
    reviews::v1::{
        reviews_service_client::ReviewsServiceClient, reviews_service_server::ReviewsServiceServer,
    },
    users::v1::{
        users_service_client::UsersServiceClient, users_service_server::UsersServiceServer,
    },
    webhooks::v1::{
        webhooks_service_client::WebhooksServiceClient,
        webhooks_service_server::WebhooksServiceServer,
    },
};
use holdfast_testkit::{Asker, FakeClock, Realm, TestDatabase, peer};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tower::{ServiceExt, util::BoxCloneSyncService};

use crate::peers::{
    Auth, Catalog, Events, Inventory, Notifications, Orders, Payments, Reviews, Users, Webhooks,
};

pub(crate) struct World {
    pub(crate) db: TestDatabase,
    pub(crate) clock: FakeClock,
    pub(crate) auth: Arc<Auth>,
    pub(crate) users: Arc<Users>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) events: Arc<Events>,
    pub(crate) inventory: Arc<Inventory>,
    pub(crate) notifications: Arc<Notifications>,
    pub(crate) orders: Arc<Orders>,
    pub(crate) payments: Arc<Payments>,
    pub(crate) reviews: Arc<Reviews>,
    pub(crate) webhooks: Arc<Webhooks>,
    /// Calls to orders pass one by one through here; a test that takes the places holds them up.
    pub(crate) way_to_orders: Arc<Semaphore>,
    on_their_way: Arc<AtomicUsize>,
    pub(crate) buyer: Asker,
    realm: Realm,
    context: Context,
    router: Router,
    tasks: Mutex<Vec<Task>>,
}

/// A request being written.
pub(crate) struct Asking<'a> {
    router: &'a Router,
    request: http::request::Builder,
}

/// An answer, read to its end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

/// As many calls to orders as pass at once.
pub(crate) const PLACES: u32 = 1_000;

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(settings()).await
    }

    /// The door behind proxies that stand in these networks.
    pub(crate) async fn behind(networks: &[&str]) -> Self {
        let mut settings = settings();
        settings.trusted_hops = networks
            .iter()
            .map(|network| network.parse().expect("a network"))
            .collect();
        Self::with(settings).await
    }

    async fn with(settings: holdfast_gateway::Settings) -> Self {
        let db = TestDatabase::create("gateway", &holdfast_gateway::MIGRATOR).await;
        let clock = FakeClock::new(
            "2026-11-21T10:00:00Z"
                .parse::<Timestamp>()
                .expect("a moment"),
        );
        let realm = Realm::new(clock.clone());
        let context = realm.context("gateway", db.app());
        let (auth, users, catalog) = <(Arc<Auth>, Arc<Users>, Arc<Catalog>)>::default();
        let (inventory, orders, payments) =
            <(Arc<Inventory>, Arc<Orders>, Arc<Payments>)>::default();
        let reviews = Arc::<Reviews>::default();
        let events = Arc::<Events>::default();
        let notifications = Arc::<Notifications>::default();
        let webhooks = Arc::<Webhooks>::default();
        let way_to_orders = Arc::new(Semaphore::new(PLACES as usize));
        let on_their_way = Arc::<AtomicUsize>::default();
        let to_orders = peer::local("orders", OrdersServiceServer::from_arc(orders.clone()));
        let peers = Peers {
            auth: AuthServiceClient::new(peer::local(
                "auth",
                AuthServiceServer::from_arc(auth.clone()),
            )),
            users: UsersServiceClient::new(peer::local(
                "users",
                UsersServiceServer::from_arc(users.clone()),
            )),
            catalog: CatalogServiceClient::new(peer::local(
                "catalog",
                CatalogServiceServer::from_arc(catalog.clone()),
            )),
            events: EventsServiceClient::new(peer::local(
                "events",
                EventsServiceServer::from_arc(events.clone()),
            )),
            inventory: InventoryServiceClient::new(peer::local(
                "inventory",
                InventoryServiceServer::from_arc(inventory.clone()),
            )),
            notifications: NotificationsServiceClient::new(peer::local(
                "notifications",
                NotificationsServiceServer::from_arc(notifications.clone()),
            )),
            orders: OrdersServiceClient::new(through(
                way_to_orders.clone(),
                on_their_way.clone(),
                to_orders,
            )),
            payments: PaymentsServiceClient::new(peer::local(
                "payments",
                PaymentsServiceServer::from_arc(payments.clone()),
            )),
            reviews: ReviewsServiceClient::new(peer::local(
                "reviews",
                ReviewsServiceServer::from_arc(reviews.clone()),
            )),
            webhooks: WebhooksServiceClient::new(peer::local(
                "webhooks",
                WebhooksServiceServer::from_arc(webhooks.clone()),
            )),
        };
        let door = holdfast_gateway::build(&settings, peers, context.clone()).expect("built");
        let buyer = realm.somebody(Role::User);
        Self {
            db,
            clock,
            auth,
            users,
            catalog,
            events,
            inventory,
            notifications,
            orders,
            payments,
            reviews,
            webhooks,
            way_to_orders,
            on_their_way,
            buyer,
            realm,
            context,
            router: door.router,
            tasks: Mutex::new(door.tasks),
        }
    }

    pub(crate) fn somebody(&self, role: Role) -> Asker {
        self.realm.somebody(role)
    }

    /// A token of the buyer's that is alive at the time the clock shows.
    pub(crate) fn bearer_of_buyer_now(&self) -> String {
        let token = self.realm.token(self.buyer.user, Role::User);
        format!("Bearer {token}")
    }

    /// Runs the door's own work until the process is to end.
    pub(crate) fn run_tasks(&self) -> tokio::task::JoinHandle<()> {
        let tasks = self.tasks.lock().expect("unpoisoned").split_off(0);
        tokio::spawn(async {
            for task in tasks {
                task.work.await;
            }
        })
    }

    pub(crate) fn begin_to_end(&self) {
        self.context.shutdown.cancel();
    }

    pub(crate) fn ask(&self, method: Method, path: &str) -> Asking<'_> {
        Asking {
            router: &self.router,
            request: Request::builder().method(method).uri(path),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Asking<'_> {
        self.ask(Method::GET, path)
    }

    pub(crate) fn post(&self, path: &str) -> Asking<'_> {
        self.ask(Method::POST, path)
    }

    /// The buyer buys one unit under this key.
    pub(crate) async fn buy(&self, key: &str) -> Told {
        self.post("/v1/orders")
            .by(&self.buyer)
            .key(key)
            .send(&basket(1))
            .await
    }

    /// Orders answers every purchase with the order it asks for, in a new state each time, as a saga that goes on would.
    pub(crate) fn orders_sell(&self) {
        let mut asked = 0;
        self.orders.place_order.otherwise(move |request| {
            asked += 1;
            let mut order = confirmed(&request.request_id);
            order.version = asked;
            order.items[0].name = format!("T-shirt, asked {asked}");
            Ok(orders::PlaceOrderResponse { order: Some(order) })
        });
    }

    /// How many calls to orders have left the door and not come back.
    pub(crate) fn calls_on_their_way(&self) -> usize {
        self.on_their_way.load(Relaxed)
    }

    /// How many replies are stored, and of how many the bytes are still there.
    pub(crate) async fn replies(&self) -> (i64, i64) {
        sqlx::query_as("SELECT count(*), count(sealed) FROM reply")
            .fetch_one(&self.db.owner())
            .await
            .expect("the table")
    }
}

fn settings() -> holdfast_gateway::Settings {
    holdfast_platform::settings::Settings::load(&[holdfast_gateway::DEFAULTS], None)
        .and_then(|settings| settings.section("gateway"))
        .expect("the defaults are settings")
}

fn through(
    places: Arc<Semaphore>,
    on_their_way: Arc<AtomicUsize>,
    transport: Transport,
) -> Transport {
    BoxCloneSyncService::new(tower::service_fn(move |request| {
        let (places, transport) = (places.clone(), transport.clone());
        let on_their_way = on_their_way.clone();
        async move {
            on_their_way.fetch_add(1, Relaxed);
            let _place = places.acquire().await.expect("never closed");
            let answer = transport.oneshot(request).await;
            on_their_way.fetch_sub(1, Relaxed);
            answer
        }
    }))
}

pub(crate) fn basket(quantity: i64) -> Value {
    json!({
        "items": [{"sku": "TSHIRT-M", "quantity": quantity}],
        "payment_method": {"type": "card", "token": "sandbox_ok"},
    })
}

/// An order as orders tells it, its id made of the request's.
pub(crate) fn confirmed(request_id: &str) -> orders::Order {
    let yen = |amount| {
        Some(Money {
            amount,
            currency: "JPY".to_owned(),
        })
    };
    orders::Order {
        id: format!("ord_{request_id}"),
        user_id: "usr_1".to_owned(),
        source: "checkout".to_owned(),
        status: orders::OrderStatus::Confirmed.into(),
        items: vec![orders::Item {
            sku: "TSHIRT-M".to_owned(),
            name: "T-shirt".to_owned(),
            quantity: 1,
            unit_price: yen(1250),
            total: yen(1250),
            refunded_quantity: 0,
            discount: None,
        }],
        subtotal: yen(1250),
        shipping: yen(0),
        tax: yen(0),
        points_used: 0,
        total: yen(1250),
        refunded: yen(0),
        payment_id: "pay_1".to_owned(),
        payment_status: "captured".to_owned(),
        next_action: String::new(),
        created_at: Some(prost_types::Timestamp {
            seconds: 1_795_000_000,
            nanos: 0,
        }),
        version: 1,
        ..orders::Order::default()
    }
}

impl Asking<'_> {
    pub(crate) fn by(self, asker: &Asker) -> Self {
        let bearer = format!("Bearer {}", asker.token());
        self.with(header::AUTHORIZATION.as_str(), &bearer)
    }

    pub(crate) fn key(self, key: &str) -> Self {
        self.with("idempotency-key", key)
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    /// Over a connection from this address.
    pub(crate) fn from(mut self, address: &str) -> Self {
        let address = ClientAddress(address.parse().expect("an address"));
        self.request = self.request.extension(address);
        self
    }

    pub(crate) async fn send(self, body: &Value) -> Told {
        self.with("content-type", "application/json")
            .send_body(Body::from(body.to_string()))
            .await
    }

    pub(crate) async fn send_nothing(self) -> Told {
        self.send_body(Body::empty()).await
    }

    pub(crate) async fn send_body(self, body: Body) -> Told {
        let request = self.request.body(body).expect("a request");
        let answer = self.router.clone().oneshot(request).await;
        let (parts, body) = answer.expect("a router never fails").into_parts();
        Told {
            status: parts.status,
            headers: parts.headers,
            bytes: body.collect().await.expect("a body").to_bytes(),
        }
    }
}

impl Told {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|_| panic!("not JSON: {}", String::from_utf8_lossy(&self.bytes)))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The status and code of a problem.
    pub(crate) fn problem(&self) -> (u16, String) {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        let problem = self.json();
        let code = problem["code"].as_str().expect("every problem has a code");
        assert_eq!(problem["status"], self.status.as_u16());
        assert_eq!(problem["type"], format!("/problems/{code}"));
        (self.status.as_u16(), code.to_owned())
    }

    /// Everything that a replay has to repeat.
    pub(crate) fn essence(&self) -> (StatusCode, Vec<Option<String>>, Bytes) {
        let headers = ["content-type", "location", "etag"]
            .map(|name| self.header(name).map(ToOwned::to_owned));
        (self.status, headers.to_vec(), self.bytes.clone())
    }
}
