//! What the platform promises, seen from outside.

mod transport;
