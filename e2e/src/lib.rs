//! Whole purchases through the public door, in every topology.
//!
//! Read in this order: [`sandbox`] (a whole installation, started for a test), [`server`] (one process of it),
//! [`operator`] (the binary's other commands), [`door`] (the public API as a test sees it), [`replay`] (a real shop's invoices). The scenarios are in `tests/it`.

pub mod cpu;
pub mod door;
pub mod operator;
pub mod replay;
pub mod sandbox;
pub mod server;
pub mod wait;

pub use door::{Answer, Door};
pub use operator::{Audit, Operator, Role};
pub use sandbox::{Sandbox, Topology};
