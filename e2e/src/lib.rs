//! Whole purchases through the public door, in every topology.
//!
//! Read in this order: [`sandbox`] (a whole installation, started for a test), [`server`] (one process of it),
//! [`operator`] (the binary's other commands), [`door`] (the public API as a test sees it), [`contract`] (the API as it describes itself), [`fuzzed`] (what is read from outside, for any bytes), [`replay`] (a real shop's invoices). The scenarios are in `tests/it`.

pub mod contract;
pub mod cpu;
pub mod door;
pub mod fuzzed;
pub mod operator;
pub mod replay;
pub mod sandbox;
pub mod server;
pub mod wait;

pub use contract::{Contract, Operation};
pub use door::{Answer, Asking, Door};
pub use operator::{Audit, Operator, Role};
pub use sandbox::{Sandbox, Topology};
