//! Mechanisms every service stands on. Each module is a noun with one job and names nothing of the business.
//!
//! Read in this order:
//! what a service is made of and how it is reached: [`service`], [`settings`], [`identity`] (who calls), [`fault`] (how
//! it fails), [`transport`] (how it is called and calls), [`wire`], [`database`] (where it keeps what it knows), [`envelope`] (what it keeps of persons),
//! [`cache`] (what it keeps in memory);
//! what services tell each other: [`message`], [`outbox`], [`relay`], [`bus`], [`embedded_log`], [`wakeup`],
//! [`consumer`], [`parking`], [`hearing`], [`audit_log`];
//! what a process is made of: [`clock`], [`failpoint`], [`telemetry`], [`listener`], [`internal`], [`shutdown`],
//! [`cluster`] (its own PostgreSQL), [`postmaster`] (PostgreSQL's programs).

pub mod audit_log;
pub mod bus;
pub mod cache;
pub mod clock;
pub mod cluster;
pub mod consumer;
pub mod database;
pub mod embedded_log;
pub mod envelope;
pub mod failpoint;
pub mod fault;
pub mod hearing;
pub mod identity;
pub mod internal;
pub mod listener;
pub mod message;
pub mod outbox;
pub mod parking;
pub mod postmaster;
pub mod relay;
pub mod service;
pub mod settings;
pub mod shutdown;
pub mod telemetry;
pub mod transport;
pub mod wakeup;
pub mod wire;
