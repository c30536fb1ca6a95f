//! Whole purchases through the public door, in every topology.
//!
//! Read in this order: [`sandbox`] (a whole installation, started for a test), [`door`] (the public API as a test sees
//! it), [`replay`] (a real shop's invoices). The scenarios are in `tests/it`.

pub mod replay;
