//! The gateway at its door, with scripted services behind it and its replies in a real database.

mod access;
mod decoding;
mod description;
mod events;
mod hygiene;
mod idempotency;
mod peers;
mod problems;
mod resources;
mod sockets;
mod statements;
mod webhooks;
mod world;
