//! What tests stand on: a fake clock, a PostgreSQL of their own, scripted peers. Knows no service.

mod clock;
mod database;
pub mod peer;
mod server;

pub use clock::FakeClock;
pub use database::TestDatabase;
