//! The ledger against a real PostgreSQL: situations by name, a model it must agree with, and bugs planted into it.

mod choices;
mod encrypted;
mod model;
mod planted;
mod situations;
mod standing;
mod takeover;
mod world;
