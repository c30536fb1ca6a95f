//! The caller's side of every call, wherever it goes.

use std::{
    error::Error,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{Request, Response, Uri};
use tokio::time::Instant;
use tonic::{
    Status, TimeoutExpired,
    body::Body,
    transport::{Channel, Endpoint},
};
use tower::{Service, ServiceExt, util::BoxCloneSyncService};

use super::{
    Door, Transport,
    body::{Answer, Source, Until},
    deadline, metadata,
};

const CONNECT_MAX_SECS: u64 = 2;

/// How often an idle connection is asked whether it lives, and how long it has to answer. A machine that vanished
/// without closing is noticed after the sum of both.
pub(super) const KEEPALIVE_SECS: u64 = 20;
pub(super) const KEEPALIVE_ANSWER_SECS: u64 = 10;

/// A place for a peer that is found later.
///
/// Clients can be handed out before the services they call exist. A call through a slot that nobody filled is
/// answered `Unavailable`. Clones are the same slot.
#[derive(Clone)]
pub struct Slot(Arc<Peer>);

struct Peer {
    name: &'static str,
    way: OnceLock<Way>,
    // Says whether the last answer was a transport fault, so that an outage is logged when it begins and when it ends.
    lost: AtomicBool,
}

enum Way {
    Local(Door),
    Remote(Channel),
}

/// An address no peer can be reached at.
#[derive(Debug, thiserror::Error)]
#[error("peers.{peer}: got {got:?}, want a URL such as \"http://{peer}:50050\"")]
pub struct PeerAddressError {
    peer: String,
    got: String,
}

impl Slot {
    /// Makes an empty slot for the service `peer`.
    pub fn new(peer: &'static str) -> Self {
        Self(Arc::new(Peer {
            name: peer,
            way: OnceLock::new(),
            lost: AtomicBool::new(false),
        }))
    }

    /// Whose slot it is.
    pub fn peer(&self) -> &'static str {
        self.0.name
    }

    /// Returns what clients of this peer are made over; it may be called before the slot is filled.
    pub fn transport(&self) -> Transport {
        BoxCloneSyncService::new(self.clone())
    }

    /// Says whether the peer was found.
    pub fn is_filled(&self) -> bool {
        self.0.way.get().is_some()
    }

    /// Leads the slot to a service of this process. Panics when it is filled already: that is a mistake in assembly.
    pub fn fill_local(&self, door: Door) {
        self.fill(Way::Local(door));
    }

    /// Leads the slot to a service elsewhere. Panics when it is filled already: that is a mistake in assembly.
    pub fn fill_remote(&self, channel: Channel) {
        self.fill(Way::Remote(channel));
    }

    fn fill(&self, way: Way) {
        let fresh = self.0.way.set(way).is_ok();
        assert!(fresh, "the slot for {} is filled twice", self.0.name);
    }
}

/// Returns a connection to `peer`, made when the first call needs it and made anew after it broke.
///
/// Takes plain `http://host:port`.
pub fn channel(peer: &str, url: &str) -> Result<Channel, PeerAddressError> {
    let refused = || PeerAddressError {
        peer: peer.to_owned(),
        got: url.to_owned(),
    };
    let uri: Uri = url.parse().map_err(|_| refused())?;
    if uri.scheme_str() != Some("http") || uri.port().is_none() || uri.path() != "/" {
        return Err(refused());
    }
    Ok(Endpoint::from(uri)
        .connect_timeout(Duration::from_secs(CONNECT_MAX_SECS))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(KEEPALIVE_SECS))
        .keep_alive_timeout(Duration::from_secs(KEEPALIVE_ANSWER_SECS))
        .keep_alive_while_idle(true)
        .http2_max_header_list_size(metadata::WIRE_MAX_BYTES)
        .connect_lazy())
}

impl Service<Request<Body>> for Slot {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Body>, Status>>;

    // Always ready: a generated client turns an error told here into `Unknown`, so waiting for a connection is part
    // of the call, where it is under the deadline too.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let peer = Arc::clone(&self.0);
        let now = Instant::now();
        let deadline = deadline::of_outgoing(&request, now);
        deadline::announce(deadline, now, request.headers_mut());
        metadata::trace(request.headers_mut());
        request.extensions_mut().clear();
        Box::pin(async move {
            metadata::check(request.headers())?;
            let mut response = deadline::within(deadline, peer.send(request)).await??;
            response.extensions_mut().clear();
            let until = Until::Deadline(deadline);
            Ok(response.map(|body| Answer::guard(body, until, peer)))
        })
    }
}

impl Peer {
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        match self.way.get() {
            None => Err(Status::unavailable(format!(
                "{} has not started",
                self.name
            ))),
            Some(Way::Local(door)) => door
                .clone()
                .oneshot(request)
                .await
                .map_err(|never| match never {}),
            Some(Way::Remote(channel)) => match channel.clone().oneshot(request).await {
                Ok(response) => {
                    self.found();
                    Ok(response)
                }
                Err(error) => Err(self.fault(&error)),
            },
        }
    }

    /// The one map of transport faults: a passed deadline, or the peer cannot be reached. Whether the callee did
    /// anything is unknown either way.
    fn fault(&self, error: &(dyn Error + 'static)) -> Status {
        if causes(error).any(<dyn Error>::is::<TimeoutExpired>) {
            return deadline::passed();
        }
        metrics::counter!("rpc_transport_faults_total", "peer" => self.name).increment(1);
        if !self.lost.swap(true, Relaxed) {
            let told: Vec<_> = causes(error).map(ToString::to_string).collect();
            let cause = told.join(": ");
            tracing::warn!(peer = self.name, cause, "peer cannot be reached");
        }
        Status::unavailable(format!("{} cannot be reached", self.name))
    }

    fn found(&self) {
        // Read first: every answer passes here, and a shared line written by all of them would be felt.
        if self.lost.load(Relaxed) && self.lost.swap(false, Relaxed) {
            tracing::info!(peer = self.name, "peer reached again");
        }
    }
}

impl Source for Arc<Peer> {
    fn broke_off(&self, fault: Status) -> Status {
        self.fault(&fault)
    }
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
