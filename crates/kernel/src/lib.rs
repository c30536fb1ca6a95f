//! Values every service speaks in. No I/O, nothing async, and no clock but the one that is handed in.
//!
//! Read in this order: [`id`] (who and what), [`money`], [`stock`] (what can run out), [`time`], [`page`], [`language`].

pub mod id;
pub mod language;
pub mod money;
pub mod page;
pub mod stock;
pub mod time;

pub use id::{Id, RequestId};
pub use language::Language;
pub use money::{Currency, Money};
pub use stock::{PoolKey, Sku};
pub use time::{Clock, Timestamp};
