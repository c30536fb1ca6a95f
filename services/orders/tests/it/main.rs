//! The orders service at its door, on a real database, between a ledger and payments that are right.

mod buying;
mod ledger;
mod line;
mod till;
mod world;
