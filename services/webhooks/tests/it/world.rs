//! The service as an administrator finds it, with its worker at work, at a time that a test turns.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use holdfast_kernel::{Clock, RequestId, Timestamp, time::to_micros};
use holdfast_platform::{
    clock::SystemClock,
    consumer::Consumer,
    identity::Role,
    message::Message,
    service::{Context, Service},
    settings::Settings as AllSettings,
    transport::{self, Door, Transport},
};
use holdfast_proto::webhooks::v1::{self as pb, webhooks_service_client::WebhooksServiceClient};
use holdfast_testkit::{FakeClock, Realm, TestDatabase};
use holdfast_webhooks::{Lookup, Settings};
use serde_json::json;
use tokio::task::JoinHandle;
use tonic::{Request, Status};

use crate::receiver::Receiver;

pub(crate) const ORDERS: &str = "holdfast.orders";
/// How long a test waits for what does not come to be.
const WAIT_MAX_SECS: u64 = 10;
const LOOK_MILLIS: u64 = 5;
const POLL_MILLIS: u64 = 10;

pub(crate) struct World {
    pub(crate) db: TestDatabase,
    pub(crate) clock: FakeClock,
    realm: Realm,
    settings: Settings,
    lookup: Lookup,
    transport: Transport,
    consumer: Consumer,
    context: Context,
    /// The workers, until a test kills them.
    working: Mutex<Vec<JoinHandle<()>>>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With other settings than those of tests, which let deliveries go to loopback.
    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::over(change, |name| panic!("{name} is looked up")).await
    }

    /// Where names have the addresses that `lookup` says.
    pub(crate) async fn over(
        change: impl FnOnce(&mut Settings),
        lookup: impl FnMut(String) -> std::io::Result<Vec<IpAddr>> + Send + 'static,
    ) -> Self {
        let db = TestDatabase::create("webhooks", &holdfast_webhooks::MIGRATOR).await;
        // The independent library looks at its own clock.
        let clock = FakeClock::new(to_micros(SystemClock::new().now()));
        let realm = Realm::new(clock.clone());
        let mut settings: Settings = AllSettings::load(&[holdfast_webhooks::DEFAULTS], None)
            .and_then(|settings| settings.section("webhooks"))
            .expect("the defaults are settings");
        settings.allowed_networks = vec!["127.0.0.0/8".parse().expect("a network")];
        settings.poll_millis = POLL_MILLIS;
        change(&mut settings);
        let context = realm.context("webhooks", db.app());
        let lookup = Mutex::new(lookup);
        let lookup: Lookup = Arc::new(move |name| {
            let found = (lookup.lock().expect("unpoisoned"))(name);
            Box::pin(async { found })
        });
        let service = build(&settings, &lookup, &context);
        let consumer = service.consumers[0].clone();
        let door = Door::new("webhooks", service.routes);
        let world = Self {
            db,
            clock,
            realm,
            settings,
            lookup,
            transport: transport::local(door),
            consumer,
            context,
            working: Mutex::default(),
        };
        world.start_workers();
        world
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Workers as another process of the service has them.
    pub(crate) fn start_workers(&self) {
        let service = build(&self.settings, &self.lookup, &self.context);
        let working = service
            .tasks
            .into_iter()
            .map(|task| tokio::spawn(task.work));
        self.working.lock().expect("unpoisoned").extend(working);
    }

    /// Has workers that start from now on see other settings.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings);
    }

    /// Ends the workers as a power cut does.
    pub(crate) async fn kill_workers(&self) {
        let working: Vec<_> = self.working.lock().expect("unpoisoned").drain(..).collect();
        for task in working {
            task.abort();
            task.await.expect_err("killed");
        }
    }

    pub(crate) fn consumer(&self) -> Consumer {
        self.consumer.clone()
    }

    pub(crate) fn client(&self) -> WebhooksServiceClient<Transport> {
        WebhooksServiceClient::new(self.transport.clone())
    }

    /// In the name of an administrator who has just logged in.
    pub(crate) fn admin<T>(&self, message: T) -> Request<T> {
        self.realm.somebody(Role::Admin).ask(message)
    }

    pub(crate) fn staff<T>(&self, message: T) -> Request<T> {
        self.realm.somebody(Role::Staff).ask(message)
    }

    /// Subscribes, and gives the id and the secret.
    pub(crate) async fn subscribe(&self, url: &str, types: &[&str]) -> (String, String) {
        let answer = self.try_subscribe(url, types).await.expect("subscribed");
        (answer.subscription.expect("set").id, answer.secret)
    }

    pub(crate) async fn try_subscribe(
        &self,
        url: &str,
        types: &[&str],
    ) -> Result<pb::CreateSubscriptionResponse, Status> {
        let request = subscribing(&RequestId::generate(), url, types);
        let answer = self
            .client()
            .create_subscription(self.admin(request))
            .await?;
        Ok(answer.into_inner())
    }

    pub(crate) async fn subscription(&self, id: &str) -> Result<pb::Subscription, Status> {
        let request = self.admin(pb::GetSubscriptionRequest {
            subscription_id: id.to_owned(),
        });
        let answer = self.client().get_subscription(request).await?;
        Ok(answer.into_inner().subscription.expect("set"))
    }

    pub(crate) async fn replay(
        &self,
        id: &str,
        what: pb::replay_request::What,
    ) -> Result<i64, Status> {
        let request = self.admin(pb::ReplayRequest {
            request_id: RequestId::generate().to_string(),
            fingerprint: vec![1].into(),
            subscription_id: id.to_owned(),
            what: Some(what),
        });
        Ok(self.client().replay(request).await?.into_inner().scheduled)
    }

    /// Lets a message take effect, as its arrival does.
    pub(crate) async fn arrives(&self, message: &Message) {
        let pool = self.db.app();
        let mut tx = pool.begin().await.expect("begin");
        let handled = self.consumer.handle(&mut tx, message).await;
        handled.expect("taken in");
        tx.commit().await.expect("commit");
    }

    /// What happened just now to an order, told and taken in.
    pub(crate) async fn order(&self, key: &str, version: i64, kind: &str) -> Message {
        let message = self.message(ORDERS, key, version, kind);
        self.arrives(&message).await;
        message
    }

    pub(crate) fn message(&self, topic: &str, key: &str, version: i64, kind: &str) -> Message {
        Message {
            id: Message::id_of(topic, key, version),
            topic: topic.to_owned(),
            key: key.to_owned(),
            version,
            kind: kind.to_owned(),
            at: self.now(),
            traceparent: None,
            data: json!({"order_id": key}),
        }
    }

    /// Every try to send to a subscription, oldest first.
    pub(crate) async fn attempts(&self, id: &str) -> Vec<pb::Attempt> {
        let request = self.admin(pb::ListAttemptsRequest {
            subscription_id: id.to_owned(),
            page: Some(holdfast_proto::page::v1::PageRequest {
                size: 100,
                token: String::new(),
            }),
        });
        let answer = self.client().list_attempts(request).await.expect("listed");
        let mut attempts = answer.into_inner().attempts;
        attempts.reverse();
        attempts
    }

    /// The same, once so many have ended; panics when that does not come to be.
    pub(crate) async fn ended(&self, id: &str, count: usize) -> Vec<pb::Attempt> {
        let ended = |attempt: &&pb::Attempt| attempt.status_code != 0 || !attempt.error.is_empty();
        let looking = async {
            loop {
                let attempts = self.attempts(id).await;
                if attempts.iter().filter(ended).count() >= count {
                    return attempts;
                }
                tokio::time::sleep(Duration::from_millis(LOOK_MILLIS)).await;
            }
        };
        let limit = Duration::from_secs(WAIT_MAX_SECS);
        let found = tokio::time::timeout(limit, looking).await;
        found.unwrap_or_else(|_| panic!("{count} attempts do not end"))
    }

    /// Waits until no message is kept any more.
    pub(crate) async fn pruned(&self) {
        self.becomes_true("SELECT count(*) = 0 FROM message").await;
    }

    /// Waits until every secret's key is wrapped under the second wrapping key.
    pub(crate) async fn wrapped_anew(&self) {
        self.becomes_true("SELECT bool_and(key_version = 2) FROM secret")
            .await;
    }

    /// Waits until a look into the tables says yes.
    async fn becomes_true(&self, look: &'static str) {
        let looking = async {
            loop {
                let is_true: bool = sqlx::query_scalar(look)
                    .fetch_one(&self.db.owner())
                    .await
                    .expect("the tables");
                if is_true {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(LOOK_MILLIS)).await;
            }
        };
        let limit = Duration::from_secs(WAIT_MAX_SECS);
        let looked = tokio::time::timeout(limit, looking).await;
        assert!(looked.is_ok(), "never true: {look}");
    }

    /// Waits until the workers have looked for what is due now: something else that is due has been sent.
    pub(crate) async fn workers_look(&self) {
        let witness = Receiver::start().await;
        let (id, _) = self.subscribe(&witness.url(), &["user.updated"]).await;
        let user = RequestId::generate().to_string();
        let message = self.message("holdfast.users", &user, 1, "user.updated");
        self.arrives(&message).await;
        witness.got(1).await;
        self.ended(&id, 1).await;
        let request = self.admin(pb::DeleteSubscriptionRequest {
            subscription_id: id,
        });
        self.client()
            .delete_subscription(request)
            .await
            .expect("deleted");
    }
}

pub(crate) fn subscribing(
    request: &RequestId,
    url: &str,
    types: &[&str],
) -> pb::CreateSubscriptionRequest {
    pb::CreateSubscriptionRequest {
        request_id: request.to_string(),
        fingerprint: url.as_bytes()[..url.len().min(64)].to_vec().into(),
        url: url.to_owned(),
        types: types.iter().map(|kind| (*kind).to_owned()).collect(),
        description: "the warehouse".to_owned(),
    }
}

fn build(settings: &Settings, lookup: &Lookup, context: &Context) -> Service {
    holdfast_webhooks::build_over(settings.clone(), lookup, context.clone())
        .unwrap_or_else(|error| panic!("{error}"))
}
