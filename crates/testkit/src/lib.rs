//! What tests stand on: a fake clock, a PostgreSQL of their own, a realm of users and peers, scripted peers. Knows no
//! service.

mod clock;
mod database;
mod diagram;
mod installation;
mod meter;
pub mod peer;
mod realm;
mod server;
mod statements;
mod tls_server;

pub use clock::FakeClock;
pub use database::TestDatabase;
pub use diagram::assert_states_drawn;
pub use installation::Installation;
pub use meter::Meter;
pub use realm::{Asker, Realm};
pub use statements::assert_statements_fit;
pub use tls_server::TlsServer;
