//! Doors opened to callers in other processes.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{Request, Response};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    service::Routes,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::Service;

use super::{
    Door,
    body::{Answer, Until},
    deadline, metadata,
    slot::{KEEPALIVE_ANSWER_SECS, KEEPALIVE_SECS},
};

/// How many calls one connection carries at once; above every door's own limit, so that the door decides.
const CONNECTION_MAX_STREAMS: u32 = 4096;

/// Why the server could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The contracts handed in for reflection cannot be read.
    #[error("gRPC reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server itself failed.
    #[error("gRPC server: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves the doors to callers in other processes until `shutdown`, then lets the calls in hand end.
///
/// Beside them stand `grpc.health.v1`, which knows the process (`""`) and each door by name, and, where `reflection`
/// carries the encoded contracts, gRPC reflection. A call goes to the door that its package names:
/// `holdfast.orders.v1` to `orders`.
///
/// Answers without a deadline end with `Unavailable` at `shutdown`, as nothing else would end them. Returns when the
/// last connection is closed; whoever cannot wait for that long bounds the wait.
pub async fn serve_tcp(
    doors: Vec<Door>,
    listener: TcpListener,
    reflection: Option<&'static [u8]>,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let mut own = Routes::builder();
    own.add_service(health_service);
    if let Some(contracts) = reflection {
        own.add_service(
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(contracts)
                .build_v1()?,
        );
    }
    let names: Vec<_> = doors.iter().map(Door::name).collect();
    report(&health, &names, ServingStatus::Serving).await;
    let street = Street {
        doors: Arc::new(doors.into_iter().map(|door| (door.name(), door)).collect()),
        own: Door::new("grpc", own.routes()),
        closing: shutdown.clone(),
    };
    Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(KEEPALIVE_SECS)))
        .http2_keepalive_timeout(Some(Duration::from_secs(KEEPALIVE_ANSWER_SECS)))
        .http2_max_header_list_size(metadata::WIRE_MAX_BYTES)
        .max_concurrent_streams(CONNECTION_MAX_STREAMS)
        .serve_with_incoming_shutdown(street, TcpIncoming::from(listener), async {
            shutdown.cancelled().await;
            report(&health, &names, ServingStatus::NotServing).await;
        })
        .await?;
    Ok(())
}

/// All doors behind one address.
#[derive(Clone)]
struct Street {
    doors: Arc<HashMap<&'static str, Door>>,
    own: Door,
    closing: CancellationToken,
}

impl Service<Request<Body>> for Street {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut door = service_of(request.uri().path())
            .and_then(|name| self.doors.get(name))
            .unwrap_or(&self.own)
            .clone();
        if deadline::is_set(request.headers()) {
            return door.call(request);
        }
        let closing = self.closing.clone();
        Box::pin(async move {
            let response = door.call(request).await?;
            Ok(response.map(|body| Answer::guard(body, Until::Closing(closing), ())))
        })
    }
}

/// Reads `orders` from `/holdfast.orders.v1.OrdersService/PlaceOrder`.
fn service_of(path: &str) -> Option<&str> {
    path.strip_prefix("/holdfast.")?.split('.').next()
}

async fn report(health: &HealthReporter, names: &[&'static str], status: ServingStatus) {
    for name in names.iter().copied().chain([""]) {
        health.set_service_status(name, status).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_names_the_door() {
        for (path, name) in [
            (
                "/holdfast.orders.v1.OrdersService/PlaceOrder",
                Some("orders"),
            ),
            ("/grpc.health.v1.Health/Check", None),
            ("/", None),
        ] {
            assert_eq!(service_of(path), name, "{path}");
        }
    }
}
