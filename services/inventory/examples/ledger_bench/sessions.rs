//! A bounded number of connections that callers take in turn.

use std::{
    ops::Deref,
    sync::{Mutex, PoisonError},
};

use tokio::sync::{Semaphore, SemaphorePermit};

/// Connections of ways that use one a request: as many as pgbench has clients.
pub(crate) const CONNECTIONS: usize = 24;

/// One plan for ever, made of index look-ups, as the ledger's own connection asks for.
pub(crate) const PLAN: &str = "
    SET plan_cache_mode = force_generic_plan;
    SET enable_hashjoin = off;
    SET enable_mergejoin = off;
    SET enable_seqscan = off;
    SET jit = off";

pub(crate) struct Sessions<S> {
    free: Mutex<Vec<S>>,
    permits: Semaphore,
}

/// A connection in use; it is free again when this is dropped.
pub(crate) struct Taken<'a, S> {
    /// Some until the drop.
    session: Option<S>,
    home: &'a Mutex<Vec<S>>,
    _permit: SemaphorePermit<'a>,
}

impl<S> Sessions<S> {
    pub(crate) fn new(sessions: Vec<S>) -> Self {
        Self {
            permits: Semaphore::new(sessions.len()),
            free: Mutex::new(sessions),
        }
    }

    /// A connection, as soon as one is free; who came first is first.
    pub(crate) async fn take(&self) -> anyhow::Result<Taken<'_, S>> {
        let permit = self.permits.acquire().await?;
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Taken {
            session: free.pop(),
            home: &self.free,
            _permit: permit,
        })
    }
}

impl<S> Deref for Taken<'_, S> {
    type Target = S;

    fn deref(&self) -> &S {
        self.session
            .as_ref()
            .expect("a permit stands for a free connection")
    }
}

impl<S> Drop for Taken<'_, S> {
    fn drop(&mut self) {
        let mut home = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        home.extend(self.session.take());
    }
}
