//! Wakes those who wait for messages of a topic, in this process at once and in others over one LISTEN connection.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::postgres::PgListener;
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

/// The channel on which appends are told, each with the topic's name.
pub const CHANNEL: &str = "holdfast_bus";
/// How long to wait before listening is tried again after it failed.
const RECONNECT_MILLIS: u64 = 1_000;

/// The waiters of this process, by topic.
///
/// A wake-up is a hint: it may come without news, and waiters look by themselves from time to time.
#[derive(Debug, Clone, Default)]
pub struct Wakeups {
    topics: Arc<Mutex<HashMap<String, watch::Sender<()>>>>,
}

impl Wakeups {
    /// Wakes all who wait for the topic.
    pub fn wake(&self, topic: &str) {
        if let Some(waiters) = self.lock().get(topic) {
            waiters.send_replace(());
        }
    }

    /// Where a waiter for the topic is woken. What happens after the last look is remembered, so look first, then wait.
    pub fn of(&self, topic: &str) -> watch::Receiver<()> {
        self.lock()
            .entry(topic.to_owned())
            .or_insert_with(|| watch::Sender::new(()))
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
                Some(told) => self.wake(told.payload()),
                // The connection broke and was made anew; what was told in between is lost.
                None => self.wake_all(),
            }
        }
    }

    fn wake_all(&self) {
        for waiters in self.lock().values() {
            waiters.send_replace(());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, watch::Sender<()>>> {
        // Nothing in the map can be left half done.
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
