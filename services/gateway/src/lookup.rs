//! Looks stored replies up, many at a time.
//!
//! Every request with a key has to be looked up and nearly none is found. A rush of buyers asked one by one would queue
//! for connections until they are told that the database is busy; asked together they cost one statement.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use holdfast_kernel::RequestId;
use holdfast_platform::{database, fault::Fault, service::Context};
use tokio::sync::oneshot;

use crate::store::{self, Stored};

/// Look-ups that one statement carries at most.
const BATCH_MAX_ENTRIES: usize = 1_000;

/// The look-ups that wait for the statement under way to end; whoever comes to the front takes them along.
#[derive(Default)]
pub(crate) struct Lookups {
    waiting: Mutex<Vec<Waiting>>,
    turn: tokio::sync::Mutex<()>,
}

struct Waiting {
    request: RequestId,
    found: oneshot::Sender<Option<Stored>>,
}

impl Lookups {
    /// What was answered to this request, if anything.
    ///
    /// Fails with `UNAVAILABLE` when the database does; one failure is told to all who asked together.
    pub(crate) async fn find(
        &self,
        context: &Context,
        request: RequestId,
    ) -> Result<Option<Stored>, Fault> {
        let (found, mut finding) = oneshot::channel();
        self.waiting().push(Waiting { request, found });
        loop {
            tokio::select! {
                biased;
                found = &mut finding => {
                    return found.map_err(|_| Fault::unavailable("stored replies cannot be read"));
                }
                _turn = self.turn.lock() => self.look_up_all(context).await?,
            }
        }
    }

    async fn look_up_all(&self, context: &Context) -> Result<(), Fault> {
        let batch = {
            let mut waiting = self.waiting();
            let count = waiting.len().min(BATCH_MAX_ENTRIES);
            waiting.drain(..count).collect::<Vec<_>>()
        };
        if batch.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = batch.iter().map(|waiting| waiting.request.uuid()).collect();
        let mut db = database::acquire(&context.database).await?;
        let stored = store::find_replies(&mut db, &ids, context.clock.now()).await?;
        let mut stored: HashMap<_, _> = stored.into_iter().collect();
        for waiting in batch {
            // One that is not there any more has no use for it.
            waiting.found.send(stored.remove(&waiting.request)).ok();
        }
        Ok(())
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
