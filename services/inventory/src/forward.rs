//! Passes calls on to the process that writes, while this one stands by.
//!
//! The call goes on as it came: message, user's token, peer's identity, trace, what is left of its time. The answer comes
//! back as the writer gave it. One hop and no more: who writes may change while a call is on its way, and a call that was
//! passed on once and meets another that stands by is `UNAVAILABLE`. So is one whose writer cannot be reached or ceases
//! to be the writer before it has answered: whether it was done is unknown, and asking again with the same id tells.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use holdfast_platform::transport::{self, Transport};
use http::{HeaderName, HeaderValue, Request, Response};
use tonic::{Status, body::Body, server::NamedService};
use tower::{Service, ServiceExt};

use crate::{
    domain::Refusal,
    ledger::{Ledger, WhoWrites},
};

/// Marks a call that was passed on. Only services see it: the gateway sends none of what clients wrote there.
const FORWARDED: HeaderName = HeaderName::from_static("x-holdfast-forwarded");
/// Calls that any process answers from the database; all others need the writer, if only to know what has expired.
const ANSWERED_ANYWHERE: &[&str] = &["ListMovements"];

/// Calls whose answers are streams without an end.
const WITHOUT_END: &[&str] = &["Watch"];

/// Stands before the server, behind its gate.
#[derive(Clone)]
pub(crate) struct Forward<S> {
    inner: S,
    ledger: Ledger,
    way: Arc<Mutex<Option<Way>>>,
}

/// The way to the last writer that was asked.
struct Way {
    url: Arc<str>,
    transport: Transport,
}

impl<S> Forward<S> {
    pub(crate) fn new(inner: S, ledger: Ledger) -> Self {
        Self {
            inner,
            ledger,
            way: Arc::default(),
        }
    }

    /// The way there; made anew only when it leads elsewhere than the last.
    fn way_to(&self, url: &Arc<str>) -> Result<Transport, Status> {
        let mut way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = way.as_ref().filter(|known| known.url == *url) {
            return Ok(known.transport.clone());
        }
        let channel = transport::channel("inventory", url).map_err(|error| {
            tracing::warn!(%error, "the writer's address is of no use");
            unavailable("the process that writes it has no address")
        })?;
        let transport = transport::remote("inventory", channel);
        *way = Some(Way {
            url: url.clone(),
            transport: transport.clone(),
        });
        Ok(transport)
    }

    async fn pass_on(
        &self,
        url: Arc<str>,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let way = self.way_to(&url)?;
        if is_one_of(WITHOUT_END, &request) {
            transport::keep_open(&mut request);
        }
        metrics::counter!("holdfast_forwarded_calls_total").increment(1);
        request
            .headers_mut()
            .insert(FORWARDED, HeaderValue::from_static("1"));
        let writer = WhoWrites::Another(Some(url));
        tokio::select! {
            answer = way.oneshot(request) => answer,
            () = self.ledger.no_longer(&writer) => {
                Err(unavailable("the process that writes it was replaced"))
            }
        }
    }
}

impl<S: NamedService> NamedService for Forward<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Forward<S>
where
    S: Service<
            Request<Body>,
            Response = Response<Body>,
            Error = Infallible,
            Future = BoxFuture<'static, Result<Response<Body>, Infallible>>,
        > + Clone
        + Send
        + Sync
        + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if self.ledger.is_written_here() || is_one_of(ANSWERED_ANYWHERE, &request) {
            return self.inner.call(request);
        }
        // The one that `poll_ready` prepared is the one to call.
        let fresh = self.clone();
        let mut this = std::mem::replace(self, fresh);
        Box::pin(async move {
            let answer = match this.ledger.who_writes().await {
                WhoWrites::Us => return this.inner.call(request).await,
                WhoWrites::Another(Some(url)) if !request.headers().contains_key(FORWARDED) => {
                    this.pass_on(url, request).await
                }
                WhoWrites::Another(None) => Err(unavailable(
                    "another process writes it, and where it is reached is not known (inventory.reached_at)",
                )),
                WhoWrites::Another(Some(_)) | WhoWrites::Undecided => {
                    Err(unavailable("another process writes it"))
                }
            };
            Ok(answer.unwrap_or_else(Status::into_http))
        })
    }
}

fn is_one_of(calls: &[&str], request: &Request<Body>) -> bool {
    let method = request.uri().path().rsplit('/').next();
    method.is_some_and(|method| calls.contains(&method))
}

fn unavailable(why: &'static str) -> Status {
    Refusal::Unavailable(why).into()
}
