//! What every process of a service hears: the news of its own service, so that none answers from memory what another
//! process has changed.
//!
//! A [`consumer`](crate::consumer) lets each message take effect once, in whichever process comes first. Memory is
//! another matter: all must hear. So a hearing has no position that is kept; it begins at the end of the log, and when the
//! log is away it says so, for what is told meanwhile is not told again.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use tokio::{task::JoinSet, time};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    bus::{Bus, BusError, Partition, Record},
    cache::Cache,
    message::{Message, Topic},
};

/// How long after the bus failed it is tried again, in milliseconds.
const HEAR_AGAIN_MILLIS: u64 = 500;

/// What somebody does with news: in memory only, at once, as often as it comes.
pub trait Listener: Send + Sync + 'static {
    /// Takes note of a message.
    fn heard(&self, message: &Message);

    /// From here on every message is heard, or none is. Whatever was told before this may have been missed.
    fn set_hearing(&self, hears: bool);
}

/// Forgets the key of every message: for what is kept under the keys that its messages have.
impl<V: Clone + Send + Sync + 'static> Listener for Cache<V> {
    fn heard(&self, message: &Message) {
        self.forget(&message.key);
    }

    fn set_hearing(&self, hears: bool) {
        Self::set_hearing(self, hears);
    }
}

/// One service's part: which topics, and who listens.
#[derive(Clone)]
pub struct Hearing {
    service: &'static str,
    topics: &'static [Topic],
    listener: Arc<dyn Listener>,
}

impl Hearing {
    /// The processes of this service hear these topics.
    pub fn new(
        service: &'static str,
        topics: &'static [Topic],
        listener: Arc<dyn Listener>,
    ) -> Self {
        Self {
            service,
            topics,
            listener,
        }
    }

    /// Who listens.
    pub fn listener(&self) -> &Arc<dyn Listener> {
        &self.listener
    }

    /// Hears until shutdown.
    pub async fn run(self, bus: Arc<dyn Bus>, shutdown: CancellationToken) {
        shutdown
            .run_until_cancelled(async {
                loop {
                    let Err(error) = self.hear(&bus).await;
                    self.tell(false);
                    tracing::warn!(service = self.service, %error, "does not hear what others write, and keeps nothing in memory");
                    time::sleep(Duration::from_millis(HEAR_AGAIN_MILLIS)).await;
                }
            })
            .await;
        self.tell(false);
    }

    async fn hear(&self, bus: &Arc<dyn Bus>) -> Result<Infallible, BusError> {
        // A name of its own: readers of one name may share what there is to read, and here each reads all.
        let name = format!("{}.{}", self.service, Uuid::new_v4().simple());
        let mut subscription = bus.subscribe(&name, self.topics).await?;
        let mut missing: BTreeSet<&str> = self.topics.iter().map(|topic| topic.name()).collect();
        // Ends its readers when it is dropped.
        let mut reading = JoinSet::new();
        loop {
            tokio::select! {
                partition = subscription.next() => {
                    let mut partition = partition?;
                    let from = partition.end().await?;
                    missing.remove(partition.place().topic.name());
                    reading.spawn(follow(partition, from, self.listener.clone()));
                    if missing.is_empty() {
                        self.tell(true);
                    }
                }
                Some(ended) = reading.join_next() => {
                    let Err(error) = ended.map_err(|panicked| BusError::Unavailable(panicked.into()))?;
                    return Err(error);
                }
            }
        }
    }

    fn tell(&self, hears: bool) {
        self.listener.set_hearing(hears);
        metrics::gauge!("holdfast_hearing", "service" => self.service)
            .set(f64::from(u8::from(hears)));
    }
}

async fn follow(
    mut partition: Box<dyn Partition>,
    mut from: i64,
    listener: Arc<dyn Listener>,
) -> Result<Infallible, BusError> {
    loop {
        for record in partition.read(from).await? {
            from = record.log_offset + 1;
            hear_one(&record, listener.as_ref());
        }
    }
}

fn hear_one(record: &Record, listener: &dyn Listener) {
    match Message::from_envelope(&record.envelope) {
        Ok(message) => listener.heard(&message),
        // It may have told anything.
        Err(error) => {
            tracing::warn!(key = record.key, %error, "heard what is no message");
            listener.set_hearing(true);
        }
    }
}
