//! Mechanisms every service stands on. Each module is a noun with one job and names nothing of the business.
//!
//! Read in this order: [`service`] (what a service is made of), [`settings`], [`identity`] (who calls), [`fault`]
//! (how it fails), [`transport`] (how it is called and calls), [`database`] (where it keeps what it knows). Then, for
//! what services tell each other, [`message`], [`outbox`], [`relay`], [`bus`], [`embedded_log`], [`wakeup`],
//! [`consumer`], [`parking`].

pub mod bus;
pub mod consumer;
pub mod database;
pub mod embedded_log;
pub mod fault;
pub mod identity;
pub mod message;
pub mod outbox;
pub mod parking;
pub mod postmaster;
pub mod relay;
pub mod service;
pub mod settings;
pub mod transport;
pub mod wakeup;
pub mod wire;
