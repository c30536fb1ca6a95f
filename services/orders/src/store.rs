//! Every statement, a file for each thing it is about.
//!
//! Who needs several of the rows locks the saga first, then the order.

mod audit;
mod handover;
mod history;
mod listing;
mod order;
mod refund;
mod resumption;
mod saga;
mod voucher;

use holdfast_kernel::{Id, id};
use sqlx::{Postgres, postgres::PgArguments, query::Query};

use crate::error::OrdersError;

pub(crate) use {
    audit::*, handover::*, history::*, listing::*, order::*, refund::*, resumption::*, saga::*,
    voucher::*,
};

/// A statement whose next parameters are bound.
type Bound<'q> = Query<'q, Postgres, PgArguments>;

fn unreadable<K: id::Kind>(table: &str, column: &str, row: Id<K>, got: &str) -> OrdersError {
    OrdersError::Unreadable(format!("{table}.{column} of {row} is {got:?}"))
}
