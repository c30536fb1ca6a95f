//! What the platform promises, seen from outside.

mod child;
mod failpoint;
mod internal;
mod shutdown;
mod telemetry;
mod transport;
