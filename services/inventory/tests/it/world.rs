//! The service, a seller who buys from it, and time that tests turn.

use std::sync::Arc;

use holdfast_kernel::{Clock, RequestId, Timestamp};
use holdfast_platform::{
    hearing::Listener,
    identity::Role,
    message::Message,
    outbox,
    relay::Fold,
    transport::{self, Door, Transport},
    wire,
};
use holdfast_proto::inventory::v1::{
    self as pb, inventory_service_client::InventoryServiceClient, stand_response::Outcome,
};
use holdfast_testkit::{Asker, FakeClock, Realm, TestDatabase};
use jiff::SignedDuration;
use sqlx::PgPool;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::Status;

pub(crate) struct World {
    db: Arc<TestDatabase>,
    realm: Realm,
    clock: FakeClock,
    transport: Transport,
    fold: Arc<dyn Fold>,
    consumer: holdfast_platform::consumer::Consumer,
    listener: Arc<dyn Listener>,
    work: Vec<JoinHandle<()>>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::start(&Self::nowhere().await, None)
    }

    /// A service that other processes reach over TCP.
    pub(crate) async fn reached() -> Self {
        Self::start(&Self::nowhere().await, Some(free_port().await))
    }

    /// Another process of the service, on the same database.
    pub(crate) async fn another(&self) -> Self {
        let ground = (self.db.clone(), self.realm.clone(), self.clock.clone());
        Self::start(&ground, Some(free_port().await))
    }

    async fn nowhere() -> Ground {
        let db = TestDatabase::create("inventory", &holdfast_inventory::MIGRATOR).await;
        let clock = FakeClock::new("2026-12-01T09:00:00Z".parse().expect("a moment"));
        (Arc::new(db), Realm::new(clock.clone()), clock)
    }

    fn start((db, realm, clock): &Ground, socket: Option<TcpListener>) -> Self {
        let context = realm.context("inventory", db.app());
        let address = socket.as_ref().map(TcpListener::local_addr);
        let url = address.map(|address| format!("http://{}", address.expect("it is bound")));
        let settings = holdfast_inventory::Settings {
            database_url: db.app_url(),
            owner_database_url: String::new(),
            max_connections: 5,
            reached_at: url.unwrap_or_default(),
            lease_secs: 4,
            account_max_holds: 50,
            live_max_holds: 10_000,
            keep_movement_months: 0,
        };
        let hand = clock.clone();
        let service = holdfast_inventory::build(&settings, Arc::new(move |_| hand.now()), context)
            .expect("sound settings");
        let tasks = service.tasks.into_iter();
        let mut work: Vec<_> = tasks.map(|task| tokio::spawn(task.work)).collect();
        let door = Door::new("inventory", service.routes);
        if let Some(socket) = socket {
            let doors = vec![door.clone()];
            let serving = transport::serve_tcp(doors, socket, None, CancellationToken::new());
            work.push(tokio::spawn(async { serving.await.expect("it serves") }));
        }
        Self {
            transport: transport::local(door),
            fold: service.fold.expect("the ledger folds"),
            consumer: service
                .consumers
                .into_iter()
                .next()
                .expect("it listens to orders"),
            listener: (service.hearing.expect("it hears its own news").listener()).clone(),
            db: db.clone(),
            realm: realm.clone(),
            clock: clock.clone(),
            work,
        }
    }

    /// Ends this process in the middle of whatever it does.
    pub(crate) async fn kill(self) {
        for work in self.work {
            work.abort();
            work.await.ok();
        }
    }

    pub(crate) fn client(&self) -> InventoryServiceClient<Transport> {
        InventoryServiceClient::new(self.transport.clone())
    }

    /// Whether this process hears what is written, and so keeps anything; at first it does not.
    pub(crate) fn hear(&self, hears: bool) {
        self.listener.set_hearing(hears);
    }

    pub(crate) fn somebody(&self, role: Role) -> Asker {
        self.realm.somebody(role)
    }

    pub(crate) fn owner(&self) -> PgPool {
        self.db.owner()
    }

    /// How many batches the writer has committed.
    pub(crate) async fn batches_written(&self) -> i64 {
        sqlx::query_scalar("SELECT seq FROM fence WHERE id = 1")
            .fetch_one(&self.owner())
            .await
            .expect("the fence is there")
    }

    pub(crate) fn admin_url(&self) -> String {
        self.db.admin_url()
    }

    pub(crate) fn app(&self) -> PgPool {
        self.db.app()
    }

    /// What its processes seal heads with.
    pub(crate) fn seal_key(&self) -> [u8; 32] {
        let context = self.realm.context("inventory", self.db.app());
        context.secrets.key(holdfast_inventory::SEAL_PURPOSE)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn pass(&self, seconds: i64) {
        self.clock.advance(SignedDuration::from_secs(seconds));
    }

    pub(crate) fn seller<T>(&self, message: T) -> tonic::Request<T> {
        self.realm.peer("orders").request(message)
    }

    pub(crate) async fn stock(&self, pool: &str, units: i64) {
        let request = pb::AdjustRequest {
            request_id: RequestId::generate().to_string(),
            actor: "usr_staff".to_owned(),
            reason: "opening stock".to_owned(),
            changes: vec![pb::CapacityChange {
                pool: pool.to_owned(),
                delta: units,
                expected_capacity_version: 0,
            }],
        };
        let staff = self.somebody(Role::Staff);
        self.client()
            .adjust(staff.ask(request))
            .await
            .expect("a new pool");
    }

    pub(crate) fn reserve_request(lines: Vec<pb::Line>) -> pb::ReserveRequest {
        pb::ReserveRequest {
            request_id: RequestId::generate().to_string(),
            account: "usr_buyer".to_owned(),
            actor: "usr_buyer".to_owned(),
            lines,
            ttl: Some(wire::duration(std::time::Duration::from_mins(10))),
            ..pb::ReserveRequest::default()
        }
    }

    pub(crate) async fn seller_reserves(
        &self,
        request: pb::ReserveRequest,
    ) -> Result<pb::Hold, Status> {
        let answer = self.client().reserve(self.seller(request)).await?;
        Ok(answer.into_inner().hold.expect("set"))
    }

    pub(crate) async fn reserve(&self, lines: Vec<pb::Line>) -> Result<pb::Hold, Status> {
        self.seller_reserves(Self::reserve_request(lines)).await
    }

    /// Stands in line for these lines for an hour; what is granted is held for ten minutes.
    pub(crate) fn stand_request(lines: Vec<pb::Line>) -> pb::StandRequest {
        pb::StandRequest {
            request_id: RequestId::generate().to_string(),
            account: "usr_patient".to_owned(),
            actor: "usr_patient".to_owned(),
            lines,
            ttl: Some(wire::duration(std::time::Duration::from_mins(10))),
            patience: Some(wire::duration(std::time::Duration::from_hours(1))),
            reference: "wait_1".to_owned(),
            ..pb::StandRequest::default()
        }
    }

    pub(crate) async fn stand(&self, request: &pb::StandRequest) -> Result<Outcome, Status> {
        let answer = self.client().stand(self.seller(request.clone())).await?;
        Ok(answer.into_inner().outcome.expect("set"))
    }

    pub(crate) async fn release(&self, hold: &str) -> Result<(), Status> {
        let request = pb::ReleaseRequest {
            hold_id: hold.to_owned(),
            actor: "usr_buyer".to_owned(),
            command: None,
        };
        self.client().release(self.seller(request)).await.map(drop)
    }

    pub(crate) async fn commit(&self, hold: &str) -> Result<pb::Hold, Status> {
        let request = pb::CommitRequest {
            hold_id: hold.to_owned(),
            actor: "usr_buyer".to_owned(),
            command: None,
        };
        let answer = self.client().commit(self.seller(request)).await?;
        Ok(answer.into_inner().hold.expect("set"))
    }

    pub(crate) async fn give_back(&self, hold: &str, lines: Vec<pb::Line>) -> Result<(), Status> {
        let request = pb::ReturnRequest {
            request_id: RequestId::generate().to_string(),
            hold_id: hold.to_owned(),
            actor: "usr_staff".to_owned(),
            lines,
        };
        self.client().r#return(self.seller(request)).await.map(drop)
    }

    pub(crate) async fn pool(&self, key: &str) -> pb::Pool {
        let request = pb::GetPoolsRequest {
            keys: vec![key.to_owned()],
            at: None,
        };
        let answer = self.client().get_pools(self.seller(request)).await;
        let mut pools = answer.expect("peers may ask").into_inner().pools;
        pools.pop().expect("the pool exists")
    }

    pub(crate) async fn pools_at(&self, keys: &[&str], at: Timestamp) -> Vec<pb::Pool> {
        let answer = self.ask_pools_at(keys, at).await;
        answer.expect("peers may ask")
    }

    pub(crate) async fn ask_pools_at(
        &self,
        keys: &[&str],
        at: Timestamp,
    ) -> Result<Vec<pb::Pool>, Status> {
        let request = pb::GetPoolsRequest {
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            at: Some(wire::timestamp(at)),
        };
        let answer = self.client().get_pools(self.seller(request)).await?;
        Ok(answer.into_inner().pools)
    }

    /// Folds what batches changed, and says what it came to.
    pub(crate) async fn announced(&self) -> Vec<String> {
        self.news().await.iter().map(shown).collect()
    }

    /// Folds what batches changed.
    pub(crate) async fn news(&self) -> Vec<Message> {
        let mut tx = self.db.app().begin().await.expect("a connection");
        let news = self
            .fold
            .fold(&mut tx)
            .await
            .expect("changes can be folded");
        outbox::announce_all(&mut tx, news)
            .await
            .expect("news can be announced");
        let told = outbox::pending(&mut tx, 100).await.expect("the outbox");
        sqlx::query("DELETE FROM outbox")
            .execute(&mut *tx)
            .await
            .expect("rows can be deleted");
        tx.commit().await.expect("a commit");
        told
    }

    /// Lets the service hear that an order was made.
    pub(crate) async fn hear_of_order(&self, order: &str) {
        let message = Message {
            id: uuid::Uuid::nil(),
            topic: "holdfast.orders".to_owned(),
            key: order.to_owned(),
            version: 1,
            kind: "order.created".to_owned(),
            at: self.now(),
            traceparent: None,
            data: serde_json::Value::Null,
        };
        let mut db = self.db.app().acquire().await.expect("a connection");
        self.consumer
            .handle(&mut db, &message)
            .await
            .expect("handled");
    }
}

/// A database, who is known there, and the time.
type Ground = (Arc<TestDatabase>, Realm, FakeClock);

async fn free_port() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

pub(crate) fn line(pool: &str, quantity: i64) -> pb::Line {
    pb::Line {
        pool: pool.to_owned(),
        quantity,
    }
}

fn shown(message: &Message) -> String {
    let available = message.data.get("available");
    let available = available.map(|units| format!(" available={units}"));
    format!(
        "{} {} v{}{}",
        message.kind,
        message.key,
        message.version,
        available.unwrap_or_default()
    )
}
