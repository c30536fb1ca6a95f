//! Orders kept in memory, for buyers who look again and again how theirs stands.
//!
//! Whoever decides anything about an order, and staff, read it from its table.

use std::{sync::Arc, time::Duration};

use holdfast_kernel::{Clock, Id, id};
use holdfast_platform::{
    cache::{Cache, Limits},
    database,
    hearing::Hearing,
};
use sqlx::PgPool;

use crate::{domain::Order, error::OrdersError, messages::HEARD, store};

const LIMITS: Limits = Limits {
    ttl: Duration::from_mins(5),
    absent_ttl: Duration::from_secs(10),
    weight_max_bytes: 32 << 20,
    absent_max_entries: 10_000,
};
/// Of an order besides its items, about.
const ORDER_BYTES: usize = 512;
/// Of an item, about.
const ITEM_BYTES: usize = 192;

/// What is kept in memory. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shown(Cache<Arc<Order>>);

impl Shown {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Cache::new("orders.details", LIMITS, clock, |order| {
            ORDER_BYTES + order.items.len() * ITEM_BYTES
        }))
    }

    /// Every process of this service hears what became of orders.
    pub(crate) fn hearing(&self) -> Hearing {
        Hearing::new("orders", HEARD, Arc::new(self.0.clone()))
    }

    /// The order of this id, whoever's it is.
    pub(crate) async fn find(
        &self,
        id: Id<id::Order>,
        database: &PgPool,
    ) -> Result<Option<Arc<Order>>, OrdersError> {
        let found = self.0.get_or_fill(id.to_string(), || {
            let database = database.clone();
            async move { Ok(read(id, &database).await?) }
        });
        Ok(found.await?)
    }

    /// Says that an order was written, or may have been: what is asked for from here on is read anew.
    pub(crate) fn forget(&self, id: Id<id::Order>) {
        self.0.forget(&id.to_string());
    }
}

async fn read(id: Id<id::Order>, database: &PgPool) -> Result<Option<Arc<Order>>, OrdersError> {
    let mut db = database::acquire(database).await?;
    let order = store::find_order(&mut db, id).await?;
    Ok(order.map(Arc::new))
}
