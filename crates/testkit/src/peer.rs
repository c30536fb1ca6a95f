//! Scripted peers: what a service's neighbours answer in a test at its door, and what they were asked.
//!
//! ```text
//! holdfast_testkit::scripted_peer! {
//!     /// The ledger, as the test says.
//!     pub struct Inventory: InventoryService {
//!         reserve(ReserveRequest) -> ReserveResponse;
//!         release(ReleaseRequest) -> ReleaseResponse;
//!     }
//! }
//!
//! let inventory = Arc::new(Inventory::default());
//! inventory.reserve.then(Err(Status::unavailable("gone")));   // first
//! inventory.reserve.otherwise(|_| Ok(ReserveResponse { .. })); // ever after
//! let transport = peer::local("inventory", InventoryServiceServer::from_arc(inventory.clone()));
//! …
//! assert_eq!(inventory.reserve.asked().len(), 2);
//! ```

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use holdfast_platform::transport::{self, Door, Routes, Transport};
use tokio::sync::watch;
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{Service, http},
    metadata::MetadataMap,
    server::NamedService,
};

/// How long a test waits for a call that never comes.
const WAIT_MAX_SECS: u64 = 10;

/// Returns a transport to `server`, a generated server over a scripted peer, standing in for the service `name`.
///
/// It passes the same guard as the real one.
pub fn local<S>(name: &'static str, server: S) -> Transport
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    transport::local(Door::new(name, Routes::new(server)))
}

/// One call of a scripted peer: its answers, and what it was asked.
pub struct Script<Q, A> {
    told: Mutex<Told<Q, A>>,
    asked: Mutex<Vec<Asked<Q>>>,
    count: watch::Sender<usize>,
}

struct Told<Q, A> {
    next: VecDeque<Result<A, Status>>,
    otherwise: Option<Box<dyn FnMut(&Q) -> Result<A, Status> + Send>>,
}

/// A call as it arrived.
#[derive(Debug, Clone)]
pub struct Asked<Q> {
    /// What it said.
    pub message: Q,
    /// What came with it.
    pub metadata: MetadataMap,
}

impl<Q, A> Default for Script<Q, A> {
    fn default() -> Self {
        Self {
            told: Mutex::new(Told {
                next: VecDeque::new(),
                otherwise: None,
            }),
            asked: Mutex::new(Vec::new()),
            count: watch::Sender::new(0),
        }
    }
}

impl<Q: Clone, A> Script<Q, A> {
    /// Adds an answer, given once, after those added before.
    pub fn then(&self, answer: Result<A, Status>) -> &Self {
        lock(&self.told).next.push_back(answer);
        self
    }

    /// Says what is answered when no single answer is left.
    pub fn otherwise(&self, answer: impl FnMut(&Q) -> Result<A, Status> + Send + 'static) -> &Self {
        lock(&self.told).otherwise = Some(Box::new(answer));
        self
    }

    /// All calls so far, in the order they came.
    pub fn asked(&self) -> Vec<Q> {
        (self.calls().into_iter().map(|call| call.message)).collect()
    }

    /// The same with their metadata.
    pub fn calls(&self) -> Vec<Asked<Q>> {
        lock(&self.asked).clone()
    }

    /// Waits until it was asked `count` times in all; panics when that does not come to be.
    pub async fn asked_times(&self, count: usize) {
        let mut counted = self.count.subscribe();
        let limit = Duration::from_secs(WAIT_MAX_SECS);
        let waited = tokio::time::timeout(limit, counted.wait_for(|asked| *asked >= count)).await;
        assert!(
            waited.is_ok(),
            "asked {} times in {WAIT_MAX_SECS} s, waited for {count}",
            *self.count.borrow()
        );
    }

    /// Answers a call by the script. An unscripted one panics, which its caller sees as `Internal`.
    #[expect(clippy::unused_async, reason = "it stands where handlers stand")]
    pub async fn answer(&self, request: Request<Q>) -> Result<Response<A>, Status> {
        let (metadata, _, message) = request.into_parts();
        lock(&self.asked).push(Asked {
            message: message.clone(),
            metadata,
        });
        self.count.send_modify(|count| *count += 1);
        let mut told = lock(&self.told);
        let answer = match told.next.pop_front() {
            Some(answer) => answer,
            None => match &mut told.otherwise {
                Some(answer) => answer(&message),
                None => {
                    drop(told);
                    panic!("no answer is scripted for {}", std::any::type_name::<Q>())
                }
            },
        };
        answer.map(Response::new)
    }
}

/// Declares a scripted peer: a struct with a [`Script`] for every call, and the generated service trait over it.
#[macro_export]
macro_rules! scripted_peer {
    ($(#[$doc:meta])* $visible:vis struct $name:ident: $service:path {
        $($call:ident($request:ty) -> $response:ty;)+
    }) => {
        $(#[$doc])*
        #[derive(Default)]
        $visible struct $name {
            $($visible $call: $crate::peer::Script<$request, $response>,)+
        }

        #[::tonic::async_trait]
        impl $service for $name {
            $(
                async fn $call(
                    &self,
                    request: ::tonic::Request<$request>,
                ) -> Result<::tonic::Response<$response>, ::tonic::Status> {
                    self.$call.answer(request).await
                }
            )+
        }
    };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
