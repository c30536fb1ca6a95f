//! The webhooks service at its door, on a real database, with real receivers on loopback.

mod delivering;
mod feed;
mod guarding;
mod receiver;
mod statements;
mod subscribing;
mod world;
