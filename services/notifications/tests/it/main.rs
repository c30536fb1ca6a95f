//! The notifications service at its door, on a real database, with a real folder of mail and real mail servers.

mod listing;
mod mailing;
mod serving;
mod sink;
mod statements;
mod world;
