//! The platform's mechanisms on the real things: servers, folders, processes, connections.

mod cache;
mod child;
mod cluster;
mod failpoint;
mod identity;
mod internal;
mod messages;
mod revocation;
mod shutdown;
mod telemetry;
mod transport;
