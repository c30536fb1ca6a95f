//! What is kept in memory: filled once, forgotten at once, never older than the last forgetting.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{
    FutureExt,
    future::{self, BoxFuture},
};
use holdfast_kernel::Timestamp;
use holdfast_platform::{
    cache::{Cache, Limits},
    fault::Fault,
};
use holdfast_testkit::{FakeClock, Meter};
use tokio::sync::Semaphore;

const LIMITS: Limits = Limits {
    ttl: Duration::from_mins(5),
    absent_ttl: Duration::from_secs(10),
    weight_max_bytes: 1 << 20,
    absent_max_entries: 100,
};

/// The least that a clock moves.
const A_MOMENT: Duration = Duration::from_nanos(1);

/// A store with one row, which is slow when it is told to be.
#[derive(Clone)]
struct Shelf {
    row: Arc<std::sync::Mutex<Result<Option<&'static str>, Fault>>>,
    reads: Arc<AtomicUsize>,
    /// As many reads as it holds permits come to their end.
    let_through: Arc<Semaphore>,
}

type Read = BoxFuture<'static, Result<Option<Arc<str>>, Fault>>;

impl Shelf {
    fn with(row: Option<&'static str>) -> Self {
        Self {
            row: Arc::new(std::sync::Mutex::new(Ok(row))),
            reads: Arc::default(),
            let_through: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        }
    }

    /// The same, each of whose reads ends when it is let through.
    fn slow(row: Option<&'static str>) -> Self {
        Self {
            let_through: Arc::new(Semaphore::new(0)),
            ..Self::with(row)
        }
    }

    fn write(&self, row: Result<Option<&'static str>, Fault>) {
        *self.row.lock().expect("not poisoned") = row;
    }

    /// What a read finds is what stood there when it began.
    fn read(&self) -> Read {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let row = self.row.lock().expect("not poisoned").clone();
        let let_through = self.let_through.clone();
        async move {
            let permit = let_through.acquire().await.expect("never closed");
            permit.forget();
            Ok(row?.map(Arc::from))
        }
        .boxed()
    }

    fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }
}

fn cache(name: &'static str, clock: &FakeClock) -> Cache<Arc<str>> {
    bounded(name, LIMITS, clock)
}

fn bounded(name: &'static str, limits: Limits, clock: &FakeClock) -> Cache<Arc<str>> {
    let cache = Cache::new(name, limits, Arc::new(clock.clone()), |text: &Arc<str>| {
        text.len()
    });
    cache.set_hearing(true);
    cache
}

fn clock() -> FakeClock {
    FakeClock::new(Timestamp::UNIX_EPOCH)
}

async fn get(cache: &Cache<Arc<str>>, shelf: &Shelf) -> Option<Arc<str>> {
    let got = cache.get_or_fill("key", || shelf.read()).await;
    got.expect("an answer")
}

/// A read that has begun and waits.
async fn begin(cache: &Cache<Arc<str>>, shelf: &Shelf) -> Read {
    let (cache, shelf) = (cache.clone(), shelf.clone());
    let mut reading = async move { cache.get_or_fill("key", || shelf.read()).await }.boxed();
    assert!(futures::poll!(&mut reading).is_pending());
    reading
}

#[tokio::test]
async fn a_thousand_who_miss_at_once_make_one_fill() {
    let (cache, shelf) = (cache("thousand", &clock()), Shelf::slow(Some("one")));
    let mut readings = Vec::new();
    for _ in 0..1_000 {
        readings.push(begin(&cache, &shelf).await);
    }
    assert_eq!(shelf.reads(), 1);
    shelf.let_through.add_permits(1);
    let answers = future::join_all(readings).await;
    assert!(answers.into_iter().all(|answer| {
        let answer = answer.expect("an answer");
        answer.as_deref() == Some("one")
    }));
    assert_eq!(get(&cache, &shelf).await.as_deref(), Some("one"));
    assert_eq!(shelf.reads(), 1);
}

#[tokio::test]
async fn what_is_kept_is_answered_until_its_time_is_over() {
    let clock = clock();
    let (cache, shelf) = (cache("time", &clock), Shelf::with(Some("one")));
    get(&cache, &shelf).await;
    shelf.write(Ok(Some("two")));
    clock.advance(LIMITS.ttl.saturating_sub(A_MOMENT));
    assert_eq!(get(&cache, &shelf).await.as_deref(), Some("one"));
    clock.advance(A_MOMENT);
    assert_eq!(get(&cache, &shelf).await.as_deref(), Some("two"));
    assert_eq!(shelf.reads(), 2);
}

#[tokio::test]
async fn that_there_is_nothing_is_kept_for_a_shorter_time() {
    let clock = clock();
    let (cache, shelf) = (cache("nothing", &clock), Shelf::with(None));
    assert_eq!(get(&cache, &shelf).await, None);
    shelf.write(Ok(Some("one")));
    clock.advance(LIMITS.absent_ttl.saturating_sub(A_MOMENT));
    assert_eq!(get(&cache, &shelf).await, None);
    clock.advance(A_MOMENT);
    assert_eq!(get(&cache, &shelf).await.as_deref(), Some("one"));
}

#[tokio::test]
async fn names_that_are_not_there_are_bounded_and_displace_no_value() {
    let (cache, shelf) = (cache("names", &clock()), Shelf::with(Some("one")));
    get(&cache, &shelf).await;
    let nothing = Shelf::with(None);
    for round in 1..=2 {
        for number in 0..5_000 {
            let key = format!("nobody-{number}");
            let got = cache.get_or_fill(&key, || nothing.read()).await;
            assert_eq!(got.expect("an answer"), None);
        }
        // Of those who come round again hardly any is remembered.
        assert!(nothing.reads() > round * 4_500, "{}", nothing.reads());
    }
    get(&cache, &shelf).await;
    assert_eq!(shelf.reads(), 1);
}

#[tokio::test]
async fn values_that_weigh_more_than_is_allowed_make_room() {
    let meter = Meter::new();
    let _measured = meter.measure();
    let limits = Limits {
        weight_max_bytes: 10_000,
        ..LIMITS
    };
    let cache = bounded("weight", limits, &clock());
    let shelf = Shelf::with(Some(
        "one hundred bytes or so with what every value takes besides",
    ));
    for _ in 0..2 {
        for number in 0..2_000 {
            let key = format!("{number}");
            let got = cache.get_or_fill(&key, || shelf.read()).await;
            assert!(got.expect("an answer").is_some());
        }
    }
    assert!(shelf.reads() > 3_500, "{}", shelf.reads());
    assert!(meter.count("holdfast_cache_evictions_total", r#"cache="weight""#) > 1_000);
}

#[tokio::test]
async fn what_is_written_is_read_at_once() {
    let (cache, shelf) = (cache("written", &clock()), Shelf::with(Some("one")));
    get(&cache, &shelf).await;
    for forget in [
        |cache: &Cache<Arc<str>>| cache.forget("key"),
        |cache: &Cache<Arc<str>>| cache.forget_all(),
    ] {
        shelf.write(Ok(Some("two")));
        forget(&cache);
        assert_eq!(get(&cache, &shelf).await.as_deref(), Some("two"));
        shelf.write(Ok(None));
        forget(&cache);
        assert_eq!(get(&cache, &shelf).await, None);
        shelf.write(Ok(Some("three")));
        forget(&cache);
        assert_eq!(get(&cache, &shelf).await.as_deref(), Some("three"));
    }
    cache.forget("another");
    get(&cache, &shelf).await;
    assert_eq!(shelf.reads(), 7);
}

#[tokio::test]
async fn a_fill_begun_before_a_forgetting_is_not_kept_and_answers_none_who_ask_after_it() {
    for forget in [
        |cache: &Cache<Arc<str>>| cache.forget("key"),
        |cache: &Cache<Arc<str>>| cache.forget_all(),
        |cache: &Cache<Arc<str>>| cache.set_hearing(true),
    ] {
        let (cache, shelf) = (cache("overtaken", &clock()), Shelf::slow(Some("old")));
        let before = begin(&cache, &shelf).await;
        shelf.write(Ok(Some("new")));
        forget(&cache);
        let after = begin(&cache, &shelf).await;
        shelf.let_through.add_permits(2);
        // Either may come down first.
        let (after, before) = (after.await, before.await);
        assert_eq!(before.expect("an answer").as_deref(), Some("old"));
        assert_eq!(after.expect("an answer").as_deref(), Some("new"));
        assert_eq!(get(&cache, &shelf).await.as_deref(), Some("new"));
        assert_eq!(shelf.reads(), 2);
    }
}

#[tokio::test]
async fn a_fill_begun_before_a_forgetting_is_not_kept_when_it_comes_down_last_or_alone() {
    let (cache, shelf) = (cache("alone", &clock()), Shelf::slow(Some("old")));
    let before = begin(&cache, &shelf).await;
    cache.forget("key");
    shelf.write(Ok(Some("new")));
    shelf.let_through.add_permits(2);
    assert_eq!(before.await.expect("an answer").as_deref(), Some("old"));
    assert_eq!(get(&cache, &shelf).await.as_deref(), Some("new"));

    let shelf = Shelf::slow(Some("old"));
    cache.forget("key");
    let before = begin(&cache, &shelf).await;
    cache.forget("key");
    let fresh = Shelf::with(Some("new"));
    assert_eq!(get(&cache, &fresh).await.as_deref(), Some("new"));
    shelf.let_through.add_permits(1);
    assert_eq!(before.await.expect("an answer").as_deref(), Some("old"));
    assert_eq!(get(&cache, &fresh).await.as_deref(), Some("new"));
}

#[tokio::test]
async fn a_fill_that_fails_answers_those_who_wait_and_is_not_kept() {
    let (cache, shelf) = (cache("failed", &clock()), Shelf::slow(None));
    shelf.write(Err(Fault::unavailable("the store is away")));
    let (one, other) = (begin(&cache, &shelf).await, begin(&cache, &shelf).await);
    shelf.let_through.add_permits(10);
    for answer in [one.await, other.await] {
        assert!(answer.expect_err("it failed").is_transient());
    }
    shelf.write(Ok(Some("one")));
    assert_eq!(get(&cache, &shelf).await.as_deref(), Some("one"));
    assert_eq!(shelf.reads(), 2);
}

#[tokio::test]
async fn a_fill_that_panics_is_a_fault_and_the_next_one_tries_again() {
    let (cache, shelf) = (cache("panicked", &clock()), Shelf::with(Some("one")));
    let got = cache
        .get_or_fill("key", || -> Read { async { panic!("on purpose") }.boxed() })
        .await;
    assert_eq!(got.expect_err("a fault").reason(), "INTERNAL");
    assert_eq!(get(&cache, &shelf).await.as_deref(), Some("one"));
}

#[tokio::test]
async fn a_fill_goes_on_while_somebody_waits_and_is_begun_anew_when_nobody_did() {
    let (cache, shelf) = (cache("dropped", &clock()), Shelf::slow(Some("one")));
    let (first, second) = (begin(&cache, &shelf).await, begin(&cache, &shelf).await);
    drop(first);
    shelf.let_through.add_permits(1);
    assert_eq!(second.await.expect("an answer").as_deref(), Some("one"));
    assert_eq!(shelf.reads(), 1);

    cache.forget("key");
    drop(begin(&cache, &shelf).await);
    shelf.let_through.add_permits(1);
    assert_eq!(get(&cache, &shelf).await.as_deref(), Some("one"));
    assert_eq!(shelf.reads(), 3);
}

#[tokio::test]
async fn a_cache_that_is_not_told_what_others_write_keeps_nothing() {
    let (cache, shelf) = (cache("deaf", &clock()), Shelf::with(Some("one")));
    get(&cache, &shelf).await;
    cache.set_hearing(false);
    for row in ["two", "three"] {
        shelf.write(Ok(Some(row)));
        assert_eq!(get(&cache, &shelf).await.as_deref(), Some(row));
    }
    shelf.write(Ok(Some("four")));
    cache.set_hearing(true);
    get(&cache, &shelf).await;
    assert_eq!(get(&cache, &shelf).await.as_deref(), Some("four"));
    assert_eq!(shelf.reads(), 4);
}

#[tokio::test]
async fn hits_misses_fills_and_forgettings_are_counted() {
    let meter = Meter::new();
    let _measured = meter.measure();
    let (cache, shelf) = (cache("counted", &clock()), Shelf::slow(Some("one")));
    let (one, other) = (begin(&cache, &shelf).await, begin(&cache, &shelf).await);
    shelf.let_through.add_permits(10);
    one.await.expect("an answer");
    other.await.expect("an answer");
    get(&cache, &shelf).await;
    get(&cache, &shelf).await;
    cache.forget("key");
    let reads = meter.reads("counted", ["miss", "joined", "hit", "absent"]);
    assert_eq!(reads, [1, 1, 2, 0]);
    let kept = meter.count(
        "holdfast_cache_fills_total",
        r#"cache="counted",outcome="kept""#,
    );
    let forgotten = meter.count("holdfast_cache_forgotten_total", r#"cache="counted""#);
    // It was made to hear, which forgets as well.
    assert_eq!((kept, forgotten), (1, 2));
}
