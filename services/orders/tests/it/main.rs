//! The orders service at its door, on a real database, between a ledger and payments that are right.

mod audited;
mod buying;
mod failing;
mod giving_back;
mod handing_over;
mod ledger;
mod line;
mod reading;
mod shown;
mod statements;
mod stuck;
mod taken_over;
mod till;
mod using_points;
mod using_vouchers;
mod vouchers;
mod waiting;
mod world;
