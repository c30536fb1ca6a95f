//! What a service is made of, whichever it is, so that the binary can run any subset of them in one process.

use std::{pin::Pin, sync::Arc};

use holdfast_kernel::Clock;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    cluster::Secrets,
    consumer::Consumer,
    hearing::Hearing,
    identity::{PeerIdentity, Verifier},
    outbox::Wake,
    relay::Fold,
};

/// What the platform hands to every service.
#[derive(Clone)]
pub struct Context {
    /// The service's own schema, as its run-time role.
    pub database: PgPool,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Verifies who calls.
    pub verifier: Verifier,
    /// The service's own name, signed, for calls it makes in nobody's name.
    pub identity: PeerIdentity,
    /// The installation's secret, from which the service derives a key for each purpose.
    pub secrets: Secrets,
    /// Tells the service's relay that there is news, so that it need not wait for its next look.
    pub wake: Wake,
    /// Cancelled when the process is to end; tasks then finish what they hold and return.
    pub shutdown: CancellationToken,
}

/// A built service: it serves nothing and runs nothing until the binary starts it.
pub struct Service {
    /// As in the call graph: `orders`.
    pub name: &'static str,
    /// Its gRPC door, behind its gate.
    pub routes: Routes,
    /// What it listens to, with its database, in which each effect and its position move together.
    pub consumers: Vec<Consumer>,
    /// What all its processes hear, for what they keep in memory.
    pub hearing: Option<Hearing>,
    /// Makes messages of what the service wrote down in another form, where its statements cannot make them.
    pub fold: Option<Arc<dyn Fold>>,
    /// Its workers.
    pub tasks: Vec<Task>,
}

impl Service {
    /// A service that only answers calls; what else it does is added to it.
    pub fn new(name: &'static str, routes: Routes) -> Self {
        Self {
            name,
            routes,
            consumers: Vec::new(),
            hearing: None,
            fold: None,
            tasks: Vec::new(),
        }
    }
}

/// Work that goes on beside the calls until shutdown.
pub struct Task {
    /// For logs: `checkout worker`.
    pub name: &'static str,
    /// Ends by itself soon after the context's shutdown token is cancelled.
    pub work: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Task {
    /// A task of that name.
    pub fn new(name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            name,
            work: Box::pin(work),
        }
    }
}

/// Why a service could not be built.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting whose value no service can run with.
    #[error("setting {key}: {text}")]
    Setting {
        /// Dotted, as in the settings file.
        key: String,
        /// What was got, what is wanted.
        text: String,
    },
    /// The database did not give what the service needs to start.
    #[error("database of {service}: {source}")]
    Database {
        /// The service.
        service: &'static str,
        /// What the database said.
        source: sqlx::Error,
    },
    /// Something that is part of the program cannot be used.
    #[error("{service}: {text}")]
    Defect {
        /// The service.
        service: &'static str,
        /// What, and why.
        text: String,
    },
}
