//! The callee's side of every call, however it came in.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tonic::{Status, body::Body, service::Routes};
use tower::{Service, ServiceExt};
use tracing::Instrument;

use super::{
    body::{Answer, Source, Until},
    deadline, metadata,
};
use crate::telemetry::trace::Trace;

/// How many calls one service has in hand at most. One more is refused at once, so that a slow service fills neither
/// the memory nor the waiting rooms of its neighbours.
pub const DOOR_MAX_CALLS: usize = 1024;

/// A service's door: its routes behind the guard that every caller passes.
///
/// Clones share one count of calls in hand.
#[derive(Clone)]
pub struct Door {
    name: &'static str,
    routes: Routes,
    in_hand: Arc<Semaphore>,
}

impl Door {
    /// Puts the guard before the routes of the service `name` (`"orders"` for `holdfast.orders.v1`).
    pub fn new(name: &'static str, routes: Routes) -> Self {
        Self::with_limit(name, routes, DOOR_MAX_CALLS)
    }

    /// The same with another limit on the calls in hand.
    pub fn with_limit(name: &'static str, routes: Routes, max_calls: usize) -> Self {
        Self {
            name,
            routes: routes.prepare(),
            in_hand: Arc::new(Semaphore::new(max_calls)),
        }
    }

    /// Whose door it is.
    pub fn name(&self) -> &'static str {
        self.name
    }

    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let Ok(permit) = self.in_hand.try_acquire_owned() else {
            metrics::counter!("rpc_refused_calls_total", "service" => self.name).increment(1);
            return Status::unavailable(format!("{} has too many calls in hand", self.name))
                .into_http();
        };
        let deadline = deadline::of_incoming(request.headers(), Instant::now());
        let trace = Trace::from_headers(request.headers());
        // The panic's own log entry gets service and method from this span.
        let span = tracing::info_span!(
            "rpc",
            service = self.name,
            path = request.uri().path(),
            trace_id = %trace.id(),
        );
        let handler = trace.scope(self.routes.oneshot(without_extensions(request)));
        let handler = deadline::serving(deadline, handler);
        let outcome = deadline::within(deadline, AssertUnwindSafe(handler).catch_unwind())
            .instrument(span)
            .await;
        let mut response = match outcome {
            Ok(Ok(Ok(response))) => {
                let until = Until::Deadline(deadline);
                trace.scope_sync(|| response.map(|body| Answer::guard(body, until, permit)))
            }
            Ok(Ok(Err(never))) => match never {},
            Ok(Err(_panic)) => panicked().into_http(),
            Err(passed) => passed.into_http(),
        };
        // Over a wire they would not arrive either.
        response.extensions_mut().clear();
        metadata::fit(response.headers_mut());
        response
    }
}

impl Service<Request<Body>> for Door {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().answer(request).map(Ok))
    }
}

/// What a caller is told of a panic. Its text is for the log: the panic hook writes it, once.
pub(super) fn panicked() -> Status {
    Status::internal("the callee failed unexpectedly")
}

/// A handler's stream states its failures itself; it only keeps its place among the calls in hand.
impl Source for OwnedSemaphorePermit {}

fn without_extensions(mut request: Request<Body>) -> Request<Body> {
    request.extensions_mut().clear();
    request
}
