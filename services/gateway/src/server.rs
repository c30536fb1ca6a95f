//! Serves a router to clients, each within bounds of time and number.
//!
//! The loop is our own because the framework's has no timers: whoever opened a connection and said nothing, or one
//! letter every ten seconds, would keep it for ever.

use std::{
    io,
    net::{IpAddr, Ipv6Addr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use http::Request;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use crate::places::{Place, Places};

/// How long a client may take for the head of a request, and how long an idle connection is kept.
pub const HEADER_READ_SECS: u64 = 10;
/// How long requests in hand may take to end at shutdown.
pub const DRAIN_SECS: u64 = 20;

/// Whose request it is, in its extensions: where its connection comes from, or whom a proxy of ours passes on.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// What one subscriber has to themselves: an IPv4 address, the first half of an IPv6 address.
    pub(crate) fn network(self) -> IpAddr {
        match self.0.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & IPV6_NETWORK).into(),
            address @ IpAddr::V4(_) => address,
        }
    }
}

const IPV6_NETWORK: u128 = !(u64::MAX as u128);
const HEADERS_MAX_BYTES: u32 = 16 * 1024;
/// Least that hyper can be told for HTTP/1: one head and the beginning of a body.
const READ_BUFFER_MAX_BYTES: usize = 64 * 1024;
const HEADERS_MAX_ENTRIES: usize = 100;
const STREAMS_MAX: u32 = 128;
const PENDING_RESETS_MAX: usize = 20;
const PING_SECS: u64 = 20;
const PING_ANSWER_SECS: u64 = 10;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` at `listener` until `shutdown`, then lets the requests in hand end, for [`DRAIN_SECS`] at most.
///
/// Speaks HTTP/1.1 and HTTP/2. When all places are taken further clients wait in the listener's own queue; whose network
/// has as many as one may have is hung up on.
pub async fn serve(
    router: Router,
    listener: TcpListener,
    places: Places,
    shutdown: CancellationToken,
) {
    let connections = TaskTracker::new();
    let aborted = CancellationToken::new();
    while let Some((stream, client, place)) = next_client(&listener, &places, &shutdown).await {
        let serving = connection(router.clone(), stream, client, shutdown.clone());
        let aborted = aborted.clone();
        connections.spawn(async move {
            let _place = place;
            tokio::select! {
                () = serving => {}
                () = aborted.cancelled() => {}
            }
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(Duration::from_secs(DRAIN_SECS), connections.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            connections = connections.len(),
            "clients cut off at shutdown"
        );
        aborted.cancel();
        connections.wait().await;
    }
}

async fn next_client(
    listener: &TcpListener,
    places: &Places,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, Option<ClientAddress>, Place)> {
    let accepting = async {
        loop {
            let free = places.free().await;
            let stream = accept(listener).await;
            // Unknown only when the client has gone already.
            let client = stream.peer_addr().ok();
            let client = client.map(|address| ClientAddress(address.ip()));
            match places.take(free, client) {
                Some(place) => return (stream, client, place),
                None => metrics::counter!("gateway_connections_refused_total").increment(1),
            }
        }
    };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        client = accepting => Some(client),
    }
}

/// The next connection. What fails for one client says nothing about the next.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if is_clients_fault(&error) => {}
            Err(error) => {
                // Out of file descriptors, most likely: pausing gives others time to end.
                tracing::error!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_clients_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

async fn connection(
    router: Router,
    stream: TcpStream,
    client: Option<ClientAddress>,
    shutdown: CancellationToken,
) {
    // Only costs latency when it cannot be set.
    stream.set_nodelay(true).ok();
    let spoken = Arc::new(AtomicBool::new(false));
    let service = {
        let spoken = spoken.clone();
        hyper_util::service::TowerToHyperService::new(tower::service_fn(
            move |mut request: Request<hyper::body::Incoming>| {
                spoken.store(true, Relaxed);
                if let Some(client) = client {
                    request.extensions_mut().insert(client);
                }
                router.clone().oneshot(request.map(Body::new))
            },
        ))
    };
    let builder = protocols();
    let mut serving = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let mut silence = pin!(tokio::time::sleep(Duration::from_secs(HEADER_READ_SECS)));
    let mut listening = true;
    let mut draining = false;
    loop {
        tokio::select! {
            // Whatever went wrong, it was with this client; a reset is no news.
            _ = serving.as_mut() => return,
            // The protocol's own timers begin only when it is known which protocol it is.
            () = silence.as_mut(), if listening => {
                listening = false;
                if !spoken.load(Relaxed) {
                    return;
                }
            }
            () = shutdown.cancelled(), if !draining => {
                draining = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}

fn protocols() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(HEADER_READ_SECS))
        .max_buf_size(READ_BUFFER_MAX_BYTES)
        .max_headers(HEADERS_MAX_ENTRIES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_header_list_size(HEADERS_MAX_BYTES)
        .keep_alive_interval(Duration::from_secs(PING_SECS))
        .keep_alive_timeout(Duration::from_secs(PING_ANSWER_SECS));
    builder
}
