//! What became of pools, batch by batch, for those who watch. The writer hands it over as each batch commits, and waits
//! for nobody.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::broadcast;

use crate::domain::Pool;

/// Batches remembered for those who come back.
const HISTORY_MAX_BATCHES: usize = 4_096;
/// States of pools remembered for those who come back.
const HISTORY_MAX_STATES: usize = 100_000;
/// Batches that a watcher may be behind before he is cut off.
const BEHIND_MAX_BATCHES: usize = 1_024;

/// How one batch left the pools that it moved.
#[derive(Debug)]
pub(crate) struct Told {
    /// Rises with each batch of an epoch.
    pub(crate) offset: i64,
    pub(crate) pools: Vec<Pool>,
}

/// Where what is told is heard; its clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Feed(Arc<Mutex<Option<Term>>>);

/// Who watches is told while this lives, and not longer, however the writer ends.
pub(super) struct Telling {
    feed: Feed,
    epoch: i64,
}

/// What was told in one term of writing.
#[derive(Debug)]
struct Term {
    epoch: i64,
    /// Of the newest batch.
    offset: i64,
    /// Of the newest batch that is not remembered any more.
    forgotten: i64,
    history: VecDeque<Arc<Told>>,
    states: usize,
    sender: broadcast::Sender<Arc<Told>>,
}

/// A place to watch from.
pub(crate) struct Watching {
    pub(crate) epoch: i64,
    /// Everything up to here has committed.
    pub(crate) offset: i64,
    /// What was told since the watcher was there; `None` when that is not known, and he must look at everything.
    pub(crate) missed: Option<Vec<Arc<Told>>>,
    /// Ends with the term; who is too far behind is told so.
    pub(crate) told: broadcast::Receiver<Arc<Told>>,
}

impl Feed {
    /// Begins to tell what is written in this epoch, for as long as the answer is kept.
    pub(super) fn begin(&self, epoch: i64) -> Telling {
        let (sender, _) = broadcast::channel(BEHIND_MAX_BATCHES);
        *self.term() = Some(Term {
            epoch,
            offset: 0,
            forgotten: 0,
            history: VecDeque::new(),
            states: 0,
            sender,
        });
        let feed = self.clone();
        Telling { feed, epoch }
    }

    /// Tells how a batch that has committed left its pools.
    pub(super) fn tell(&self, offset: i64, pools: Vec<Pool>) {
        if let Some(term) = &mut *self.term() {
            term.tell(Told { offset, pools });
        }
    }

    /// A place behind what was seen, an epoch and an offset; `None` while this process does not write.
    pub(crate) fn watch(&self, seen: Option<(i64, i64)>) -> Option<Watching> {
        let term = self.term();
        let term = term.as_ref()?;
        Some(Watching {
            epoch: term.epoch,
            offset: term.offset,
            missed: seen.and_then(|(epoch, offset)| term.since(epoch, offset)),
            told: term.sender.subscribe(),
        })
    }

    fn term(&self) -> MutexGuard<'_, Option<Term>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        let mut term = self.feed.term();
        if term.as_ref().is_some_and(|term| term.epoch == self.epoch) {
            *term = None;
        }
    }
}

impl Term {
    fn tell(&mut self, told: Told) {
        self.offset = told.offset;
        self.states += told.pools.len();
        let told = Arc::new(told);
        self.history.push_back(told.clone());
        while self.history.len() > HISTORY_MAX_BATCHES || self.states > HISTORY_MAX_STATES {
            let Some(oldest) = self.history.pop_front() else {
                break;
            };
            self.states -= oldest.pools.len();
            self.forgotten = oldest.offset;
        }
        // Nobody may be there to hear it.
        self.sender.send(told).ok();
    }

    fn since(&self, epoch: i64, offset: i64) -> Option<Vec<Arc<Told>>> {
        if epoch != self.epoch || !(self.forgotten..=self.offset).contains(&offset) {
            return None;
        }
        let missed = self.history.iter().filter(|told| told.offset > offset);
        Some(missed.cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools(count: usize) -> Vec<Pool> {
        let pool = Pool {
            key: "sku:A".parse().expect("a key"),
            capacity: 1,
            held: 0,
            sold: 0,
            blocked: 0,
            overbook: 0,
            low_at: None,
            version: 1,
            capacity_version: 1,
        };
        vec![pool; count]
    }

    fn missed(feed: &Feed, epoch: i64, offset: i64) -> Option<Vec<i64>> {
        let missed = feed
            .watch(Some((epoch, offset)))
            .expect("it writes")
            .missed?;
        Some(missed.iter().map(|told| told.offset).collect())
    }

    #[test]
    fn who_comes_back_is_told_what_he_missed_while_it_is_known() {
        let feed = Feed::default();
        assert!(feed.watch(None).is_none());
        let seventh = feed.begin(7);
        for offset in 1..=3 {
            feed.tell(offset, pools(1));
        }
        assert_eq!(missed(&feed, 7, 1), Some(vec![2, 3]));
        assert_eq!(missed(&feed, 7, 3), Some(vec![]));
        assert_eq!(missed(&feed, 7, 4), None);
        assert_eq!(missed(&feed, 6, 1), None);
        let _eighth = feed.begin(8);
        drop(seventh);
        assert_eq!(missed(&feed, 7, 3), None);
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let feed = Feed::default();
        let _telling = feed.begin(1);
        for offset in 1..=(HISTORY_MAX_BATCHES as i64 + 10) {
            feed.tell(offset, Vec::new());
        }
        assert_eq!(missed(&feed, 1, 9), None);
        assert_eq!(
            missed(&feed, 1, 10).map(|all| all.len()),
            Some(HISTORY_MAX_BATCHES)
        );
        feed.tell(5_000, pools(HISTORY_MAX_STATES));
        feed.tell(5_001, pools(1));
        assert_eq!(missed(&feed, 1, 4_999), None);
        assert_eq!(missed(&feed, 1, 5_000), Some(vec![5_001]));
    }

    #[tokio::test]
    async fn who_is_too_slow_is_cut_off_and_nobody_waits_for_him() {
        let feed = Feed::default();
        let telling = feed.begin(1);
        let mut slow = feed.watch(None).expect("it writes").told;
        for offset in 1..=(BEHIND_MAX_BATCHES as i64 * 2) {
            feed.tell(offset, Vec::new());
        }
        let cut_off = slow.recv().await.expect_err("he is too far behind");
        assert!(matches!(cut_off, broadcast::error::RecvError::Lagged(_)));
        let mut other = feed.watch(None).expect("it writes").told;
        drop(telling);
        let ended = other.recv().await.expect_err("nobody writes");
        assert!(matches!(ended, broadcast::error::RecvError::Closed));
    }
}
