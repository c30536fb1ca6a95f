//! The payments service at its door, with the sandbox behind it, on real databases.

mod commands;
mod methods;
mod outcomes;
mod points;
mod statements;
mod tokens;
mod world;
