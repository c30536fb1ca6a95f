//! The ledger: pools, holds, movements. What can run out is taken here and nowhere else.
//!
//! Read in this order: [`domain`] (the words), [`ledger`] (the judgement and the one way to write).

pub mod domain;
pub mod ledger;

use sqlx::migrate::Migrator;

/// The schema of this service.
pub static MIGRATOR: Migrator = sqlx::migrate!();
