//! Mechanisms every service stands on. Each module is a noun with one job and names nothing of the business.
//!
//! Read in this order: [`service`] (what a service is made of), [`settings`], [`identity`] (who calls), [`fault`]
//! (how it fails), [`transport`] (how it is called and calls), [`database`] (where it keeps what it knows), [`cluster`]
//! (a PostgreSQL for whoever has none).

pub mod cluster;
pub mod database;
pub mod fault;
pub mod identity;
pub mod postmaster;
pub mod service;
pub mod settings;
pub mod transport;
pub mod wire;
