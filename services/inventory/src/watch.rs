//! What a watcher is told: all pools under a prefix, then each as it changes.
//!
//! He gets his place before the pools are read, so nothing falls between the two; a change that was in what he read
//! already is not told again. Units of a hold that ran out are told as free once that is written down, which the writer
//! does by itself, within 50 ms and 256 holds at a time.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use holdfast_kernel::PoolKey;
use holdfast_platform::database;
use holdfast_proto::inventory::v1 as pb;
use sqlx::PgPool;
use tokio::{
    sync::broadcast::{
        Receiver,
        error::{RecvError, TryRecvError},
    },
    time::timeout,
};
use tonic::Status;

use crate::{
    domain::{Pool, Refusal},
    error::InventoryError,
    ledger::{
        Ledger,
        feed::{Told, Watching},
    },
    store::{self, PoolState},
};

/// Pools of one message, but that of a single batch.
const MESSAGE_MAX_POOLS: usize = 1_000;
/// How long a watcher hears nothing before he is told that there is nothing to tell.
const SILENCE_MAX_SECS: u64 = 10;
/// Batches whose commit the writer may not have heard of while it can be read.
const UNHEARD_MAX_BATCHES: i64 = 2;

/// Which pools, and how they are shown.
pub(crate) struct View {
    pub(crate) prefix: String,
    /// What of a pool is told; nothing of those that are not.
    pub(crate) show: fn(&Pool) -> Option<pb::Pool>,
}

/// Tells what is there, unless the watcher missed only what is still known, and then what changes.
pub(crate) fn tell(
    watching: Watching,
    view: View,
    ledger: Ledger,
    database: PgPool,
) -> BoxStream<'static, Result<pb::WatchResponse, Status>> {
    let step = match watching.missed {
        Some(missed) => Step::Catching(missed.into()),
        None => Step::Reading(String::new()),
    };
    let watcher = Watcher {
        epoch: watching.epoch,
        offset: watching.offset,
        told: watching.told,
        step,
        read: HashMap::new(),
        read_to: 0,
        view,
        ledger,
        database,
    };
    let messages = stream::unfold(Some(watcher), async |watcher| {
        let mut watcher = watcher?;
        match watcher.next().await {
            Ok(message) => Some((Ok(message), Some(watcher))),
            Err(status) => Some((Err(status), None)),
        }
    });
    messages.boxed()
}

struct Watcher {
    epoch: i64,
    /// Of the newest batch that was told or read.
    offset: i64,
    told: Receiver<Arc<Told>>,
    step: Step,
    /// Versions of the pools that were read, as long as something older may be told of them.
    read: HashMap<PoolKey, i64>,
    read_to: i64,
    view: View,
    ledger: Ledger,
    database: PgPool,
}

enum Step {
    /// What is there, behind this key.
    Reading(String),
    /// What was missed.
    Catching(VecDeque<Arc<Told>>),
    Following,
}

impl Watcher {
    async fn next(&mut self) -> Result<pb::WatchResponse, Status> {
        match &mut self.step {
            Step::Reading(after) => {
                let after = std::mem::take(after);
                self.read_piece(&after).await
            }
            Step::Catching(missed) => {
                let mut pools = BTreeMap::new();
                while pools.len() < MESSAGE_MAX_POOLS
                    && let Some(told) = missed.pop_front()
                {
                    self.offset = told.offset;
                    take_up(&told, &self.view, &mut self.read, &mut pools);
                }
                if missed.is_empty() {
                    self.step = Step::Following;
                }
                Ok(self.say(pools.into_values().collect()))
            }
            Step::Following => self.follow().await,
        }
    }

    /// The next pools that are there.
    async fn read_piece(&mut self, after: &str) -> Result<pb::WatchResponse, Status> {
        let mut db = database::acquire(&self.database).await?;
        let limit = MESSAGE_MAX_POOLS as i64;
        let rows = store::pools_under(&mut db, &self.view.prefix, after, limit)
            .await
            .map_err(InventoryError::from)?;
        drop(db);
        let more = rows.len() == MESSAGE_MAX_POOLS;
        let last = rows.last().map(|row| row.key.clone());
        let mut pools = Vec::with_capacity(rows.len());
        for row in rows {
            let pool = read(&row)?;
            self.read.insert(pool.key.clone(), pool.version);
            pools.extend((self.view.show)(&pool));
        }
        self.step = match last {
            Some(last) if more => Step::Reading(last),
            _ => {
                let newest = self.ledger.watch(None).ok_or_else(replaced)?;
                self.read_to = newest.offset + UNHEARD_MAX_BATCHES;
                Step::Following
            }
        };
        Ok(pb::WatchResponse {
            snapshot: true,
            more,
            ..self.say(pools)
        })
    }

    /// What changes next, all of it that waits to be told, or that nothing does.
    async fn follow(&mut self) -> Result<pb::WatchResponse, Status> {
        let mut pools = BTreeMap::new();
        let silence = Duration::from_secs(SILENCE_MAX_SECS);
        let first = async {
            while pools.is_empty() {
                let told = self.told.recv().await?;
                self.offset = told.offset;
                take_up(&told, &self.view, &mut self.read, &mut pools);
            }
            Ok(())
        };
        match timeout(silence, first).await {
            Err(_) => return Ok(self.say(Vec::new())),
            Ok(Ok(())) => {}
            Ok(Err(RecvError::Closed)) => return Err(replaced()),
            Ok(Err(RecvError::Lagged(_))) => return Err(too_slow()),
        }
        while pools.len() < MESSAGE_MAX_POOLS {
            match self.told.try_recv() {
                Ok(told) => {
                    self.offset = told.offset;
                    take_up(&told, &self.view, &mut self.read, &mut pools);
                }
                // If it has ended, the next look finds that.
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                Err(TryRecvError::Lagged(_)) => return Err(too_slow()),
            }
        }
        if self.offset > self.read_to {
            self.read = HashMap::new();
        }
        Ok(self.say(pools.into_values().collect()))
    }

    fn say(&self, pools: Vec<pb::Pool>) -> pb::WatchResponse {
        pb::WatchResponse {
            epoch: self.epoch,
            offset: self.offset,
            pools,
            snapshot: false,
            more: false,
        }
    }
}

/// Takes up what is shown of a batch, over what was taken up of the same pools before.
fn take_up(
    told: &Told,
    view: &View,
    read: &mut HashMap<PoolKey, i64>,
    pools: &mut BTreeMap<PoolKey, pb::Pool>,
) {
    for pool in &told.pools {
        let is_news = read
            .get(&pool.key)
            .is_none_or(|version| pool.version > *version);
        if is_news
            && pool.key.as_str().starts_with(&view.prefix)
            && let Some(shown) = (view.show)(pool)
        {
            pools.insert(pool.key.clone(), shown);
        }
    }
}

fn read(row: &PoolState) -> Result<Pool, InventoryError> {
    let key = row
        .key
        .parse()
        .map_err(|error| InventoryError::Unreadable(format!("pool.key: {error}")))?;
    Ok(Pool {
        key,
        capacity: row.capacity,
        held: row.held,
        sold: row.sold,
        blocked: row.blocked,
        overbook: row.overbook,
        low_at: row.low_at,
        version: row.version,
        capacity_version: row.capacity_version,
    })
}

fn replaced() -> Status {
    Refusal::Unavailable("the process that writes it was replaced; watch again").into()
}

fn too_slow() -> Status {
    Refusal::Unavailable("too much was told while nobody listened; watch again").into()
}
