//! The HTTP door for operators and orchestrators, one a process, never open to the public.
//!
//! `/healthz` answers 200 while the process lives. `/readyz` answers 200 when every [`Check`] passes, else 503 and a
//! JSON object that says which failed and why. `/metrics` is in the Prometheus text format.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self},
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long a check may take before it counts as failed.
pub const CHECK_MAX_MILLIS: u64 = 1_000;

/// How often samples of histograms are folded when nobody reads them.
const UPKEEP_SECS: u64 = 5;

/// The upper bounds of every histogram whose name ends in `_seconds`.
const SECONDS_BUCKETS: [f64; 12] = [
    0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Something without which the process cannot do its work.
#[derive(Clone)]
pub struct Check {
    name: &'static str,
    run: Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
}

impl Check {
    /// A check of that name; its error says what is wrong, without secrets or addresses.
    pub fn new<F>(name: &'static str, run: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self {
            name,
            run: Arc::new(move || run().boxed()),
        }
    }

    async fn failure(&self) -> Option<(&'static str, String)> {
        let limit = Duration::from_millis(CHECK_MAX_MILLIS);
        match tokio::time::timeout(limit, (self.run)()).await {
            Ok(Ok(())) => None,
            Ok(Err(reason)) => Some((self.name, reason)),
            Err(_) => Some((self.name, format!("no answer within {CHECK_MAX_MILLIS} ms"))),
        }
    }
}

/// Starts recording metrics, once a process; what is measured before is lost.
pub fn record_metrics() -> PrometheusHandle {
    RECORDER
        .get_or_init(|| {
            PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)
                .expect("there are buckets")
                .install_recorder()
                .expect("nothing else in the process records metrics")
        })
        .clone()
}

/// Serves the three pages, and those that the process adds, until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    checks: Vec<Check>,
    more: Router,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let metrics = record_metrics();
    let upkeep = fold_samples(metrics.clone());
    let served = axum::serve(listener, routes(checks, metrics).merge(more))
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .into_future();
    tokio::select! {
        ended = served => ended,
        () = upkeep => Ok(()),
    }
}

/// The pages by themselves.
pub fn routes(checks: Vec<Check>, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready).with_state(Arc::new(checks)))
        .route("/metrics", get(async move || measured(&metrics)))
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    failed: BTreeMap<&'static str, String>,
}

async fn ready(State(checks): State<Arc<Vec<Check>>>) -> impl IntoResponse {
    let failed: BTreeMap<_, _> = stream::iter(checks.iter())
        .map(Check::failure)
        .buffer_unordered(checks.len().max(1))
        .filter_map(async |failure| failure)
        .collect()
        .await;
    let ready = failed.is_empty();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(Readiness { ready, failed }))
}

fn measured(metrics: &PrometheusHandle) -> impl IntoResponse + use<> {
    let format = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, format)], metrics.render())
}

/// Without it, samples that no scrape collects would pile up.
async fn fold_samples(metrics: PrometheusHandle) {
    let mut ticks = tokio::time::interval(Duration::from_secs(UPKEEP_SECS));
    loop {
        ticks.tick().await;
        metrics.run_upkeep();
    }
}
