//! A real shop's invoices, lived through the public API: every sale an order, every cancellation that can be matched a
//! refund, and at the end every total and every stock level compared with the file, to the penny.
//!
//! Read in this order: [`invoice`] (the file's lines), [`plan`] (what each line becomes, by rule), [`live`] (placing and
//! refunding), [`check`] (comparing). The first two are pure.

pub mod check;
pub mod invoice;
pub mod live;
pub mod plan;
