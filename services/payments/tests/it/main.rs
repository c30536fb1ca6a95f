//! The payments service at its door, with the sandbox behind it, on real databases.

mod tokens;
mod world;
