//! What a service keeps in memory of what it read, in front of its store: filled by reading, forgotten by writing.
//!
//! ```text
//! read:  found → answer            not found → read the store once, for all who ask meanwhile; keep it
//! write: commit → forget here → answer            its message → every process of the service forgets
//! ```
//!
//! What one asks for after [`Cache::forget`] returned is never older than that: a fill that was under way then still
//! answers those who had asked before, and is not kept. A fill that fails answers those who wait for it, is not kept,
//! and the next one to ask tries again.
//!
//! A process whose cache is not told what others write must not keep anything. So a cache is born deaf, and deaf it reads
//! the store on every call; [`hearing`](crate::hearing) opens its ears, and closes them when the bus is away. The time to
//! live bounds what is left: how long a value may be wrong that no message spoke of.
//!
//! Keys are texts in the key space of the cache's name, so that a cache shared by processes can stand behind the same
//! type. Who may see a value is the reader's to decide, on every read: nothing here knows callers.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use holdfast_kernel::{Clock, Timestamp};
use moka::{notification::RemovalCause, sync::Cache as Store};

use crate::fault::Fault;

/// What a cache may keep, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of what was found.
    pub ttl: Duration,
    /// Of the knowledge that there is nothing: shorter, for what is not there is what somebody is about to make.
    pub absent_ttl: Duration,
    /// Of keys and values together, as the cache's own scales say.
    pub weight_max_bytes: u64,
    /// Keys of which it is known that there is nothing. A bound of their own: who tries names displaces no value.
    pub absent_max_entries: u64,
}

/// Values of one kind by their names. Cheap to clone; clones share what is kept.
pub struct Cache<V>(Arc<State<V>>);

struct State<V> {
    name: &'static str,
    limits: Limits,
    clock: Arc<dyn Clock>,
    found: Store<Arc<str>, Kept<V>>,
    absent: Store<Arc<str>, Kept<()>>,
    hears: AtomicBool,
    /// Rises when everything is forgotten; what was kept before counts as gone.
    epoch: AtomicU64,
    /// What is being read. Whoever keeps or forgets holds this lock, so that a fill is kept before a forgetting, which
    /// then takes it away, or after it, where it finds that it is not under way any more.
    fills: Mutex<Fills<V>>,
}

struct Fills<V> {
    next: u64,
    under_way: HashMap<Arc<str>, Fill<V>>,
}

struct Fill<V> {
    number: u64,
    /// Weak: when all who wait are gone, nobody reads on, and no connection is kept.
    filling: WeakShared<Filling<V>>,
}

/// What is kept of a key.
enum Known<V> {
    Found(V),
    /// That there is nothing.
    Absent,
}

/// What looking under the lock came to.
enum Looked<V, M> {
    Known(Known<V>),
    Filling(Shared<Filling<V>>),
    Deaf(M),
}

type Filling<V> = BoxFuture<'static, Filled<V>>;
type Filled<V> = Result<Option<V>, Fault>;

#[derive(Clone)]
struct Kept<V> {
    value: V,
    until: Timestamp,
    epoch: u64,
}

/// Of one kept value besides itself, about, in bytes.
const OVERHEAD_BYTES: usize = 128;

impl<V> Clone for Cache<V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<V: Clone + Send + Sync + 'static> Cache<V> {
    /// An empty, deaf cache by the name under which it is measured: the service's, a dot, what is kept.
    ///
    /// `weigh` says about how many bytes a value takes.
    pub fn new(
        name: &'static str,
        limits: Limits,
        clock: Arc<dyn Clock>,
        weigh: fn(&V) -> usize,
    ) -> Self {
        let found = Store::builder()
            .name(name)
            .max_capacity(limits.weight_max_bytes)
            .weigher(move |key: &Arc<str>, kept: &Kept<V>| {
                let bytes = OVERHEAD_BYTES + key.len() + weigh(&kept.value);
                u32::try_from(bytes).unwrap_or(u32::MAX)
            })
            // Frees what nobody asks for; what counts is the clock that was handed in.
            .time_to_live(limits.ttl)
            .eviction_listener(move |_, _, cause| count_eviction(name, cause))
            .build();
        let absent = Store::builder()
            .name(name)
            .max_capacity(limits.absent_max_entries)
            .time_to_live(limits.absent_ttl)
            .eviction_listener(move |_, _, cause| count_eviction(name, cause))
            .build();
        Self(Arc::new(State {
            name,
            limits,
            clock,
            found,
            absent,
            hears: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            fills: Mutex::new(Fills {
                next: 0,
                under_way: HashMap::new(),
            }),
        }))
    }

    /// What is kept under this key, or what `fill` finds now; none where there is nothing.
    ///
    /// Of many who miss at once one fills. `fill` may be dropped halfway when nobody waits for it any more.
    pub async fn get_or_fill<F>(
        &self,
        key: impl AsRef<str> + Send,
        fill: impl FnOnce() -> F,
    ) -> Result<Option<V>, Fault>
    where
        F: Future<Output = Result<Option<V>, Fault>> + Send + 'static,
    {
        let key = key.as_ref();
        if self.0.hears()
            && let Some(known) = self.0.known(key)
        {
            self.count(known.outcome());
            return Ok(known.into());
        }
        match self.begin_or_join(key, fill) {
            Looked::Known(known) => Ok(known.into()),
            Looked::Filling(filling) => filling.await,
            Looked::Deaf(fill) => fill().await,
        }
    }

    /// Forgets one key. What is asked for after this is read anew.
    pub fn forget(&self, key: &str) {
        let mut fills = self.0.fills();
        fills.under_way.remove(key);
        self.0.found.invalidate(key);
        self.0.absent.invalidate(key);
        drop(fills);
        self.count_forgotten();
    }

    /// Forgets everything, as [`forget`](Self::forget) forgets one key.
    pub fn forget_all(&self) {
        let mut fills = self.0.fills();
        self.0.forget_all(&mut fills);
        drop(fills);
        self.count_forgotten();
    }

    /// Says whether this process is told from now on what others write; either way everything is forgotten.
    pub fn set_hearing(&self, hears: bool) {
        let mut fills = self.0.fills();
        self.0.forget_all(&mut fills);
        // Last: who sees that it hears sees as well that everything was forgotten.
        self.0.hears.store(hears, Ordering::Release);
        drop(fills);
        self.count_forgotten();
    }

    fn begin_or_join<F, M>(&self, key: &str, fill: M) -> Looked<V, M>
    where
        M: FnOnce() -> F,
        F: Future<Output = Filled<V>> + Send + 'static,
    {
        let mut fills = self.0.fills();
        let joined = (fills.under_way.get(key)).and_then(|fill| fill.filling.upgrade());
        let (looked, outcome) = if !self.0.hears() {
            (Looked::Deaf(fill), "deaf")
        } else if let Some(known) = self.0.known(key) {
            // Kept since we looked.
            let outcome = known.outcome();
            (Looked::Known(known), outcome)
        } else if let Some(joined) = joined {
            (Looked::Filling(joined), "joined")
        } else {
            let begun = self.begin(&mut fills, key.into(), fill());
            (Looked::Filling(begun), "miss")
        };
        drop(fills);
        self.count(outcome);
        looked
    }

    /// Begins a fill that others can join, and that is kept if nothing was forgotten meanwhile.
    fn begin(
        &self,
        fills: &mut Fills<V>,
        key: Arc<str>,
        fill: impl Future<Output = Filled<V>> + Send + 'static,
    ) -> Shared<Filling<V>> {
        let number = fills.next;
        fills.next += 1;
        let landing = Landing {
            state: self.0.clone(),
            key: key.clone(),
            number,
        };
        let filling = async move {
            let filled = AssertUnwindSafe(fill).catch_unwind().await;
            let filled = filled.unwrap_or_else(|_| Err(Fault::internal("a fill panicked")));
            landing.land(&filled);
            filled
        };
        let filling = filling.boxed().shared();
        if let Some(weak) = filling.downgrade() {
            let fill = Fill {
                number,
                filling: weak,
            };
            fills.under_way.insert(key, fill);
        }
        filling
    }

    fn count(&self, outcome: &'static str) {
        let name = self.0.name;
        metrics::counter!("holdfast_cache_reads_total", "cache" => name, "outcome" => outcome)
            .increment(1);
    }

    fn count_forgotten(&self) {
        metrics::counter!("holdfast_cache_forgotten_total", "cache" => self.0.name).increment(1);
    }
}

impl<V: Clone + Send + Sync + 'static> State<V> {
    /// What is known of the key: a value, or that there is none.
    fn known(&self, key: &str) -> Option<Known<V>> {
        if let Some(kept) = self.found.get(key)
            && self.counts(&kept)
        {
            return Some(Known::Found(kept.value));
        }
        let absent = self.absent.get(key)?;
        self.counts(&absent).then_some(Known::Absent)
    }

    fn counts<T>(&self, kept: &Kept<T>) -> bool {
        kept.epoch == self.epoch.load(Ordering::Acquire) && self.clock.now() < kept.until
    }
}

impl<V: Clone + Send + Sync + 'static> State<V> {
    /// Under the lock.
    fn keep(&self, key: &Arc<str>, found: Option<V>) {
        let epoch = self.epoch.load(Ordering::Acquire);
        let now = self.clock.now();
        if let Some(value) = found {
            let until = now + self.limits.ttl;
            let kept = Kept {
                value,
                until,
                epoch,
            };
            self.absent.invalidate(key);
            self.found.insert(key.clone(), kept);
        } else {
            let until = now + self.limits.absent_ttl;
            let kept = Kept {
                value: (),
                until,
                epoch,
            };
            self.found.invalidate(key);
            self.absent.insert(key.clone(), kept);
        }
    }

    fn forget_all(&self, fills: &mut Fills<V>) {
        fills.under_way.clear();
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.found.invalidate_all();
        self.absent.invalidate_all();
    }
}

impl<V> State<V> {
    fn hears(&self) -> bool {
        self.hears.load(Ordering::Acquire)
    }

    fn fills(&self) -> MutexGuard<'_, Fills<V>> {
        self.fills
            .lock()
            .expect("nothing panics while it holds this lock")
    }
}

/// Where a fill comes down, or that nobody waits for it any more.
struct Landing<V> {
    state: Arc<State<V>>,
    key: Arc<str>,
    number: u64,
}

impl<V: Clone + Send + Sync + 'static> Landing<V> {
    /// Keeps what was found, unless it was forgotten while it was read.
    fn land(&self, filled: &Filled<V>) {
        let state = &self.state;
        let mut fills = state.fills();
        let outcome = if !fills.end(&self.key, self.number) {
            "overtaken"
        } else if let Ok(found) = filled {
            state.keep(&self.key, found.clone());
            "kept"
        } else {
            "failed"
        };
        drop(fills);
        metrics::counter!("holdfast_cache_fills_total", "cache" => state.name, "outcome" => outcome)
            .increment(1);
    }
}

impl<V> Drop for Landing<V> {
    fn drop(&mut self) {
        self.state.fills().end(&self.key, self.number);
    }
}

impl<V> Fills<V> {
    /// Whether this fill was still under way.
    fn end(&mut self, key: &str, number: u64) -> bool {
        let ours = (self.under_way.get(key)).is_some_and(|fill| fill.number == number);
        if ours {
            self.under_way.remove(key);
        }
        ours
    }
}

impl<V> Known<V> {
    const fn outcome(&self) -> &'static str {
        match self {
            Self::Found(_) => "hit",
            Self::Absent => "absent",
        }
    }
}

impl<V> From<Known<V>> for Option<V> {
    fn from(known: Known<V>) -> Self {
        match known {
            Known::Found(value) => Some(value),
            Known::Absent => None,
        }
    }
}

/// What had to make room, or was kept until its time; what was forgotten or replaced is counted elsewhere.
fn count_eviction(name: &'static str, cause: RemovalCause) {
    if cause.was_evicted() {
        metrics::counter!("holdfast_cache_evictions_total", "cache" => name).increment(1);
    }
}
