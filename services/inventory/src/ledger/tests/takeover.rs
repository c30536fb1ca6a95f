//! Writers that die, hang, are cut off or stand in each other's way.

use std::time::{Duration, Instant};

use futures::future::join_all;
use sqlx::Executor;

use super::world::{Terms, World, pool_key, release, reserve};
use crate::domain::{Hold, HoldState, Refusal, Reserve};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn impatient() -> Terms {
    Terms {
        lease: Duration::ZERO,
        ..Terms::default()
    }
}

/// Asks again, with the same id, until somebody knows.
pub(super) async fn insist(world: &World, ask: &Reserve) -> Result<Hold, Refusal> {
    let asked = Instant::now();
    loop {
        match world.ledger().reserve(ask.clone()).await {
            Err(Refusal::Unavailable(_)) if asked.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            answer => return answer,
        }
    }
}

pub(super) async fn cut_connections(world: &World) {
    world
        .sql()
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'holdfast ledger'",
        )
        .await
        .expect("a role may end its own sessions");
}

#[tokio::test]
async fn a_connection_lost_on_commit_counts_the_unit_once() {
    let world = World::new().await;
    world.stock("sku:A", 5).await;
    let sql = world.sql();
    let mut blocker = sql.begin().await.expect("a connection");
    blocker
        .execute("SELECT 1 FROM pool FOR UPDATE")
        .await
        .expect("locked");
    let ask = reserve(&[("sku:A", 1)]);
    let asking = {
        let (ledger, ask) = (world.ledger().clone(), ask.clone());
        tokio::spawn(async move { ledger.reserve(ask).await })
    };
    super::planted::waiting(&world, 1).await;
    cut_connections(&world).await;
    blocker.rollback().await.expect("unlocked");
    let first = asking.await.expect("no panic");
    let again = insist(&world, &ask).await.expect("free");
    if let Ok(first) = first {
        assert_eq!(first, again);
    }
    assert_eq!(world.balance("sku:A").await, (1, 0, 4));
    assert_eq!(world.kinds("sku:A").await, [7, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_a_kill_is_there_after_it_and_nothing_is_half_done() {
    let mut world = World::on(impatient()).await;
    let pools: Vec<String> = (0..10).map(|n| format!("sku:P{n}")).collect();
    for pool in &pools {
        world.stock(pool, 100).await;
    }
    for round in 0..5 {
        let asks: Vec<Reserve> = (0..200)
            .map(|n| {
                let (one, other) = (&pools[n % 10], &pools[(n + 3) % 10]);
                reserve(&[(one, 1), (other, 1)])
            })
            .collect();
        let asking: Vec<_> = asks
            .iter()
            .map(|ask| {
                let (ledger, ask) = (world.ledger().clone(), ask.clone());
                tokio::spawn(async move { ledger.reserve(ask).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(5 * round)).await;
        let next = world.another(impatient());
        std::mem::replace(&mut world.writer, next).kill().await;
        let answers = join_all(asking).await;
        let acknowledged: Vec<Hold> = answers
            .into_iter()
            .filter_map(|answer| answer.expect("no panic").ok())
            .collect();
        for hold in acknowledged {
            let known: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM hold WHERE id = $1 AND cardinality(pools) = 2 AND state = 1",
            )
            .bind(hold.id.uuid())
            .fetch_one(&world.sql())
            .await
            .expect("holds can be read");
            assert_eq!(known, 1, "{}", hold.id);
        }
    }
    insist(&world, &reserve(&[("sku:P0", 1)])).await.ok();
    let mut db = world.sql().acquire().await.expect("a connection");
    let audit = crate::audit(&mut db, &[0; 32], |_| {})
        .await
        .expect("it can run");
    assert_eq!(audit.findings, []);
}

/// The driver hands on no answer before those ahead of it are taken, and keeps two pieces of one that nobody takes.
/// Notices cut the answer to a batch into three; a full buffer in the driver does the same now and then.
#[tokio::test]
async fn a_read_behind_a_batch_whose_answer_comes_in_pieces_does_not_wait_for_ever() {
    let world = World::new().await;
    world.stock("sku:A", 5).await;
    let chatter = "CREATE FUNCTION inventory.chatter() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN RAISE NOTICE ''chatter''; RETURN NULL; END';
         CREATE TRIGGER chatter AFTER UPDATE ON inventory.fence
            FOR EACH ROW EXECUTE FUNCTION inventory.chatter();
         CREATE CONSTRAINT TRIGGER late_chatter AFTER UPDATE ON inventory.fence DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION inventory.chatter()";
    let owner = world.database.owner();
    owner.execute(chatter).await.expect("the owner may");
    let sql = world.sql();
    let mut blocker = sql.begin().await.expect("a connection");
    let lock = "SELECT 1 FROM pool FOR UPDATE";
    blocker.execute(lock).await.expect("locked");
    let ledger = world.ledger().clone();
    let batch = tokio::spawn(async move { ledger.reserve(reserve(&[("sku:A", 1)])).await });
    super::planted::waiting(&world, 1).await;
    let unknown = reserve(&[("sku:A", 1)]).request.makes();
    let ledger = world.ledger().clone();
    let read = tokio::spawn(async move { ledger.commit(super::world::commit(unknown)).await });
    tokio::time::sleep(Duration::from_millis(30)).await;
    blocker.rollback().await.expect("unlocked");
    let both = async {
        (
            batch.await.expect("no panic"),
            read.await.expect("no panic"),
        )
    };
    let (taken, refused) = tokio::time::timeout(PATIENCE, both)
        .await
        .expect("no deadlock");
    taken.expect("free");
    assert_eq!(refused, Err(Refusal::UnknownHold(unknown)));
}

#[tokio::test]
async fn a_writer_that_was_replaced_cannot_write_and_does_not_speak_from_memory() {
    let world = World::new().await;
    world.stock("sku:A", 5).await;
    let hold = world.reserve(&[("sku:A", 5)]).await.expect("free").id;
    let other = world.another(impatient());
    let released = other.ledger.release(release(hold)).await;
    assert_eq!(released, Ok(HoldState::Released));
    // What the first one remembers would be "sold out".
    tokio::time::sleep(Duration::from_millis(150)).await;
    let refused = world.reserve(&[("sku:A", 1)]).await;
    assert!(
        matches!(refused, Err(Refusal::Unavailable(_))),
        "{refused:?}"
    );
    let pools = other
        .ledger
        .look(vec![pool_key("sku:A")])
        .await
        .expect("it writes");
    assert_eq!(pools[0].pool.available(), 5);
}

#[tokio::test]
async fn a_second_process_waits_while_the_first_lives_and_follows_it_at_once() {
    let mut world = World::new().await;
    world.stock("sku:A", 5).await;
    let second = world.another(Terms::default());
    let early = second.ledger.reserve(reserve(&[("sku:A", 1)])).await;
    assert!(matches!(early, Err(Refusal::Unavailable(_))), "{early:?}");
    std::mem::replace(&mut world.writer, second).stop().await;
    let stopped = Instant::now();
    insist(&world, &reserve(&[("sku:A", 1)]))
        .await
        .expect("free");
    assert!(
        stopped.elapsed() < Duration::from_secs(5),
        "{:?}",
        stopped.elapsed()
    );
}

#[tokio::test]
async fn a_killed_writer_is_followed_though_its_lease_has_long_to_run() {
    let mut world = World::new().await;
    world.stock("sku:A", 5).await;
    let second = world.another(Terms::default());
    std::mem::replace(&mut world.writer, second).kill().await;
    let killed = Instant::now();
    insist(&world, &reserve(&[("sku:A", 1)]))
        .await
        .expect("free");
    assert!(
        killed.elapsed() < Duration::from_secs(5),
        "{:?}",
        killed.elapsed()
    );
}

#[tokio::test]
async fn the_next_writer_knows_every_live_hold_and_the_birth_floor_hides_none() {
    let mut world = World::new().await;
    world.stock("sku:A", 5).await;
    let old = world.reserve(&[("sku:A", 1)]).await.expect("free").id;
    let longer = super::world::extend(old, Duration::from_hours(30 * 24));
    world.ledger().extend(longer).await.expect("live");
    world.pass(7 * 24 * 3_600);
    world.reserve(&[("sku:A", 1)]).await.expect("free");
    let mut db = world.sql().acquire().await.expect("a connection");
    crate::seal_heads(&mut db, &[0; 32]).await.expect("sealed");
    world.commit(old).await.expect("live");
    let live = world.reserve(&[("sku:A", 2)]).await.expect("free").id;
    crate::seal_heads(&mut db, &[0; 32]).await.expect("sealed");
    let next = world.another(Terms::default());
    std::mem::replace(&mut world.writer, next).stop().await;
    assert_eq!(world.balance("sku:A").await, (3, 1, 1));
    world.pass(600);
    // Both are overdue now, and the new writer has to know it.
    assert_eq!(world.balance("sku:A").await, (0, 1, 4));
    world.commit(live).await.expect("units are free");
}

#[tokio::test]
async fn the_ledgers_time_never_goes_back_not_even_at_a_takeover() {
    let mut world = World::new().await;
    world.stock("sku:A", 5).await;
    let hold = world.reserve(&[("sku:A", 1)]).await.expect("free");
    world.pass(600);
    world.reserve(&[("sku:A", 1)]).await.expect("free");
    world.pass(-3_600);
    let next = world.another(Terms::default());
    std::mem::replace(&mut world.writer, next).stop().await;
    let later = world.reserve(&[("sku:A", 1)]).await.expect("free");
    assert_eq!(
        later.expires_at,
        hold.expires_at + jiff::SignedDuration::from_mins(10)
    );
    let back: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM movement AS one JOIN movement AS next
             ON next.pool = one.pool AND next.version = one.version + 1 AND next.at < one.at",
    )
    .fetch_one(&world.sql())
    .await
    .expect("movements can be read");
    assert_eq!(back, 0);
}
