//! The service as a process that can be killed.

use std::{future::Future, sync::Arc};

use holdfast_orders::{Peers, Settings};
use holdfast_platform::{
    consumer::Consumer,
    database,
    hearing::Listener,
    settings,
    transport::{self, Door, Transport},
};
use holdfast_proto::orders::v1::orders_service_client::OrdersServiceClient;
use holdfast_testkit::{Realm, TestDatabase};
use sqlx::PgPool;
use tokio::{runtime::Runtime, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// The service in a runtime of its own: dropping that leaves behind what a killed process leaves behind.
pub(crate) struct Process {
    runtime: Option<Runtime>,
    transport: Transport,
    pub(crate) consumers: Vec<Consumer>,
    pub(super) listener: Arc<dyn Listener>,
    shutdown: CancellationToken,
    works: Vec<JoinHandle<()>>,
}

impl Process {
    pub(super) async fn start(
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
