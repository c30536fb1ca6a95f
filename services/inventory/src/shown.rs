//! How much of one pool is available, kept in memory for the public, who look and take nothing.
//!
//! Whoever decides by figures reads the ledger: staff, whose ETags come from there, sellers, and all who ask for several
//! pools. The writer of this process forgets a pool before it answers what changed it.

use std::{sync::Arc, time::Duration};

use holdfast_kernel::{Clock, PoolKey};
use holdfast_platform::{
    cache::{Cache, Limits},
    fault::Fault,
    hearing::Hearing,
};

use crate::{error::InventoryError, ledger::Ledger, messages::HEARD};

const LIMITS: Limits = Limits {
    // Short: that a hold's time ran out is told only once it is written down.
    ttl: Duration::from_secs(5),
    absent_ttl: Duration::from_secs(5),
    weight_max_bytes: 8 << 20,
    absent_max_entries: 10_000,
};

/// What is kept in memory. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shown(Cache<i64>);

impl Shown {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Cache::new("inventory.available", LIMITS, clock, |_| {
            size_of::<i64>()
        }))
    }

    /// Every process of this service hears how pools stand.
    pub(crate) fn hearing(&self) -> Hearing {
        Hearing::new("inventory", HEARD, Arc::new(self.0.clone()))
    }

    /// How much of this pool is available; none where there is no such pool.
    pub(crate) async fn available(
        &self,
        key: &PoolKey,
        ledger: &Ledger,
    ) -> Result<Option<i64>, Fault> {
        let found = self.0.get_or_fill(key.as_str(), || {
            let (key, ledger) = (key.clone(), ledger.clone());
            async move { look(key, &ledger).await }
        });
        found.await
    }

    /// Says that a pool was written, or may have been: what is asked for from here on is read anew.
    pub(crate) fn forget(&self, key: &PoolKey) {
        self.0.forget(key.as_str());
    }
}

async fn look(key: PoolKey, ledger: &Ledger) -> Result<Option<i64>, Fault> {
    let standings = ledger.look(vec![key]).await.map_err(InventoryError::from)?;
    Ok(standings.first().map(|standing| standing.pool.available()))
}
