//! Wakes those who wait for messages of a topic, in this process at once and in others over one LISTEN connection.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::postgres::PgListener;
use tokio::{
    sync::watch,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

/// The channel on which appends are told, each with the topic's name and the offset behind the last message.
pub const CHANNEL: &str = "holdfast_bus";
/// How long to wait before listening is tried again after it failed.
const RECONNECT_MILLIS: u64 = 1_000;

/// The waiters of this process, by topic.
///
/// A wake-up is a hint: it may come without news, and waiters look by themselves from time to time.
#[derive(Debug, Clone, Default)]
pub struct Wakeups {
    topics: Arc<Mutex<HashMap<String, watch::Sender<Told>>>>,
}

/// What was told of a topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// The offset behind the last message told of.
    pub end: i64,
    /// When there last may have been news of which nothing more is known.
    pub hinted: Option<Instant>,
}

impl Wakeups {
    /// Wakes all who wait for the topic: there may be news.
    pub fn wake(&self, topic: &str) {
        if let Some(waiters) = self.lock().get(topic) {
            hint(waiters);
        }
    }

    /// Wakes all who wait for the topic, unless they know already that it reaches up to `end`.
    pub fn grown(&self, topic: &str, end: i64) {
        if let Some(waiters) = self.lock().get(topic) {
            waiters.send_if_modified(|told| {
                let grown = end > told.end;
                told.end = told.end.max(end);
                grown
            });
        }
    }

    /// Wakes all who wait for the topic: it ends before what was told of it, so it is another log.
    pub fn shrunk(&self, topic: &str, end: i64) {
        if let Some(waiters) = self.lock().get(topic) {
            waiters.send_modify(|told| told.end = end);
        }
    }

    /// Where a waiter for the topic is woken. What happens after the last look is remembered, so look first, then wait.
    pub fn of(&self, topic: &str) -> watch::Receiver<Told> {
        self.lock()
            .entry(topic.to_owned())
            .or_insert_with(|| watch::Sender::new(Told::default()))
            .subscribe()
    }

    /// Passes on what other processes tell, over a connection of its own, until shutdown.
    pub async fn listen(self, url: String, shutdown: CancellationToken) {
        shutdown
            .run_until_cancelled(async {
                loop {
                    let Err(error) = self.pass_on(&url).await;
                    tracing::warn!(%error, "cannot listen for messages of other processes; looking from time to time instead");
                    time::sleep(Duration::from_millis(RECONNECT_MILLIS)).await;
                }
            })
            .await;
    }

    async fn pass_on(&self, url: &str) -> Result<std::convert::Infallible, sqlx::Error> {
        let mut listener = PgListener::connect(url).await?;
        listener.listen(CHANNEL).await?;
        // What was told before we listened is not told again.
        self.wake_all();
        loop {
            match listener.try_recv().await? {
                Some(told) => self.pass(told.payload()),
                // The connection broke and was made anew; what was told in between is lost.
                None => self.wake_all(),
            }
        }
    }

    fn pass(&self, payload: &str) {
        let grown =
            (payload.split_once(' ')).and_then(|(topic, end)| Some((topic, end.parse().ok()?)));
        match grown {
            Some((topic, end)) => self.grown(topic, end),
            // An older version of the program names the topic only.
            None => self.wake(payload),
        }
    }

    fn wake_all(&self) {
        for waiters in self.lock().values() {
            hint(waiters);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, watch::Sender<Told>>> {
        // Nothing in the map can be left half done.
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hint(waiters: &watch::Sender<Told>) {
    waiters.send_modify(|told| told.hinted = Some(Instant::now()));
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = "holdfast.things";

    #[test]
    fn what_is_known_wakes_nobody() {
        let wakeups = Wakeups::default();
        let mut waiter = wakeups.of(TOPIC);
        wakeups.grown(TOPIC, 7);
        assert_eq!(waiter.borrow_and_update().end, 7);
        wakeups.pass("holdfast.things 7");
        wakeups.pass("holdfast.things 6");
        assert!(!waiter.has_changed().expect("there is a sender"));
        wakeups.pass("holdfast.things 8");
        assert_eq!(waiter.borrow_and_update().end, 8);
    }

    #[tokio::test]
    async fn a_topic_named_without_an_end_is_a_hint() {
        let wakeups = Wakeups::default();
        let mut waiter = wakeups.of(TOPIC);
        wakeups.pass(TOPIC);
        assert!(waiter.borrow_and_update().hinted.is_some());
        wakeups.pass("another 9");
        assert!(!waiter.has_changed().expect("there is a sender"));
    }

    #[test]
    fn a_log_that_ends_earlier_is_told_as_such() {
        let wakeups = Wakeups::default();
        let mut waiter = wakeups.of(TOPIC);
        wakeups.grown(TOPIC, 7);
        wakeups.shrunk(TOPIC, 3);
        assert_eq!(waiter.borrow_and_update().end, 3);
        wakeups.grown(TOPIC, 4);
        assert_eq!(waiter.borrow_and_update().end, 4);
    }
}
