//! Bugs planted on purpose. Each test shows the loss with the bug in, and none without it.
//!
//! The ledger is guarded twice over: the fence keeps every other writer out, and the guards on pools and holds would
//! notice one. To see what a guard is worth the fence is taken away: the statement forgets it, and a trigger keeps every
//! writer in one epoch and every lease run out, so that two of them write at the same time.

use std::{borrow::Cow, pin::pin, time::Duration};

use futures::poll;
use sqlx::{AssertSqlSafe, Executor};

use super::{
    super::{
        book::Book,
        decide::{self, Change, Decision, Limits, Request},
        writer::{Reload, Rules},
    },
    model::{Faults, Run},
    world::{Running, TTL, Terms, World, extend, lines, release, reserve, stand},
};
use crate::domain::{HoldId, HoldState, Refusal, Reserve, Stood, Wish};

const FENCE: &str = "WHERE id = 1 AND epoch = $1::int8 AND seq = $2::int8 - 1";
const HOLD_GUARD: &str = "AND hold.version = b.old_version AND hold.expires_at = b.old_expires_at";
const HEAD_GUARD: &str = "AND pool.chain_head = b.old_head";

/// How long a test watches that something does not happen.
const WATCH: Duration = Duration::from_millis(300);

/// The statement with one piece of it replaced.
fn without(statement: &str, piece: &str, by: &str) -> String {
    assert_eq!(statement.matches(piece).count(), 1, "{piece}");
    statement.replace(piece, by)
}

/// Rules under which two writers do not notice each other but by the guards.
fn unfenced() -> Rules {
    let rules = Rules::default();
    Rules {
        statement: Cow::Owned(without(
            &rules.statement,
            FENCE,
            "WHERE id = 1 AND $1::int8 > 0",
        )),
        sweep_max_holds: 0,
        ..rules
    }
}

/// A world with two writers who both believe to be the only one.
async fn two_writers(rules: &Rules) -> (World, Running) {
    let mut world = World::without_writer().await;
    let owner = world.database.owner();
    let one_epoch = "CREATE FUNCTION inventory.one_epoch() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN NEW.epoch := 1; NEW.renewed_at := ''-infinity''; RETURN NEW; END';
         CREATE TRIGGER one_epoch BEFORE UPDATE ON inventory.fence FOR EACH ROW EXECUTE FUNCTION inventory.one_epoch()";
    owner
        .execute(AssertSqlSafe(one_epoch.to_owned()))
        .await
        .expect("the owner may");
    let terms = || Terms {
        rules: rules.clone(),
        ..Terms::default()
    };
    let (first, second) = (world.another(terms()), world.another(terms()));
    std::mem::replace(&mut world.writer, first).stop().await;
    (world, second)
}

/// Whether what pools say is held is what live holds hold.
async fn books_agree(world: &World) -> bool {
    sqlx::query_scalar(
        "SELECT coalesce(bool_and(pool.held = coalesce(live.units, 0)), true)
         FROM pool LEFT JOIN (
             SELECT line.pool, sum(line.units) AS units
             FROM hold, unnest(hold.pools, hold.units) AS line (pool, units)
             WHERE hold.state = 1 GROUP BY line.pool
         ) AS live ON live.pool = pool.id",
    )
    .fetch_one(&world.sql())
    .await
    .expect("the books can be read")
}

/// A stale writer finds a hold overdue that the other one has just extended. Whether the payer keeps his seat.
async fn the_payer_keeps_an_extended_seat(rules: Rules) -> bool {
    let (world, other) = two_writers(&rules).await;
    world.stock("seat:e:1", 1).await;
    let payer = world.reserve(&[("seat:e:1", 1)]).await.expect("free").id;
    let longer = extend(payer, 2 * TTL);
    other.ledger.extend(longer).await.expect("live");
    world.pass(i64::try_from(TTL.as_secs()).expect("short"));
    let taken = world.reserve(&[("seat:e:1", 1)]).await;
    taken.is_err() && books_agree(&world).await
}

#[tokio::test]
async fn a_guard_left_off_holds_sells_the_seat_of_somebody_who_is_paying() {
    let sound = unfenced();
    let mut planted = unfenced();
    planted.statement = Cow::Owned(without(&planted.statement, HOLD_GUARD, ""));
    assert!(the_payer_keeps_an_extended_seat(sound).await);
    assert!(!the_payer_keeps_an_extended_seat(planted).await);
}

/// Two batches of one writer are in flight when another's batch comes between: the first fails on its version, and the
/// second expects the very version number that the other one wrote. Whether the books agree afterwards.
async fn a_version_met_twice_does_no_harm(rules: Rules) -> bool {
    let (world, other) = two_writers(&rules).await;
    world.stock("sku:A", 100).await;
    // Both know the pool, so that neither has to read it.
    world.reserve(&[("sku:A", 1)]).await.expect("free");
    other
        .ledger
        .reserve(reserve(&[("sku:A", 1)]))
        .await
        .expect("free");
    world.reserve(&[("sku:A", 1)]).await.expect("free");
    other
        .ledger
        .reserve(reserve(&[("sku:A", 1)]))
        .await
        .expect("free");
    world.reserve(&[("sku:A", 1)]).await.expect("free");
    let sql = world.sql();
    let mut blocker = sql.begin().await.expect("a connection");
    blocker
        .execute("SELECT 1 FROM pool FOR UPDATE")
        .await
        .expect("locked");
    // The other one is first in the queue for the row, with a state this writer does not know.
    let ledger = other.ledger.clone();
    let others = tokio::spawn(async move { ledger.reserve(reserve(&[("sku:A", 5)])).await });
    waiting(&world, 1).await;
    let mut first = pin!(world.reserve(&[("sku:A", 1)]));
    assert!(poll!(&mut first).is_pending(), "it is in the inbox");
    waiting(&world, 2).await;
    let mut second = pin!(world.reserve(&[("sku:A", 1)]));
    assert!(poll!(&mut second).is_pending(), "it is in the inbox");
    taken_up(&world).await;
    blocker.rollback().await.expect("unlocked");
    others.await.expect("no panic").expect("free");
    first.await.expect("free");
    second.await.expect("free");
    books_agree(&world).await
}

/// Waits until so many statements of writers wait for a lock.
pub(super) async fn waiting(world: &World, count: i64) {
    for _ in 0..1_000 {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'holdfast ledger' AND wait_event_type = 'Lock'",
        )
        .fetch_one(&world.sql())
        .await
        .expect("activity can be read");
        if waiting >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no statement waits");
}

/// Waits until the writer has taken up everything in its inbox. It then sends it without pausing, and on the one thread
/// of a test nothing is seen of it before that is done.
async fn taken_up(world: &World) {
    let inbox = &world.ledger().inbox;
    for _ in 0..1_000 {
        if inbox.capacity() == inbox.max_capacity() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the writer takes nothing up");
}

#[tokio::test]
async fn a_version_without_the_chain_head_lets_one_writer_write_over_another() {
    let sound = unfenced();
    let mut planted = unfenced();
    planted.statement = Cow::Owned(without(&planted.statement, HEAD_GUARD, ""));
    assert!(a_version_met_twice_does_no_harm(sound).await);
    assert!(!a_version_met_twice_does_no_harm(planted).await);
}

/// Another writer releases a hold; this one meets the change at the pool and reads again. Whether it then knows.
async fn a_reload_learns_what_became_of_holds(rules: Rules) -> bool {
    let (world, other) = two_writers(&rules).await;
    world.stock("sku:A", 10).await;
    let ask = reserve(&[("sku:A", 1)]);
    let hold = world.ledger().reserve(ask.clone()).await.expect("free").id;
    other.ledger.release(release(hold)).await.expect("live");
    world.reserve(&[("sku:A", 1)]).await.expect("free");
    let state = HoldState::Released;
    world.ledger().reserve(ask).await == Err(Refusal::HoldEnded { hold, state })
}

#[tokio::test]
async fn holds_reloaded_before_pools_hide_a_dead_hold_under_a_current_pool() {
    let sound = unfenced();
    let mut planted = unfenced();
    planted.reload = [Reload::Holds, Reload::Pools, Reload::Movements];
    assert!(a_reload_learns_what_became_of_holds(sound).await);
    assert!(!a_reload_learns_what_became_of_holds(planted).await);
}

/// Runs the model against these rules: whether it finds nothing wrong.
async fn the_model_agrees(rules: Rules) -> bool {
    let world = World::without_writer().await;
    for seed in 0..16 {
        let run = Run::new(&world, seed, rules.clone(), Faults::None).await;
        if run.go(200).await.is_err() {
            return false;
        }
    }
    true
}

#[tokio::test]
async fn an_expiry_in_a_second_update_of_the_row_is_lost_without_a_word() {
    let mut planted = Rules::default();
    // The row is set to what it would be had nothing expired, and a second update takes the expired units off.
    let set = "SET capacity = b.capacity, held = b.held,";
    let set_late = "SET capacity = b.capacity, held = b.held + coalesce(
        (SELECT sum(m.units) FROM unnest($51::int4[], $53::int2[], $54::int8[]) AS m (pool, kind, units)
         WHERE m.pool = b.id AND m.kind = 4), 0)::int8,";
    let next = "-- only: made_holds\n";
    let second = "), expired AS (
        UPDATE pool SET held = pool.held - m.units
        FROM (SELECT m.pool, sum(m.units)::int8 AS units
              FROM unnest($51::int4[], $53::int2[], $54::int8[]) AS m (pool, kind, units)
              WHERE m.kind = 4 GROUP BY m.pool) AS m
        WHERE pool.id = m.pool\n-- only: made_holds\n";
    let statement = without(&planted.statement, set, set_late);
    planted.statement = Cow::Owned(without(&statement, next, second));
    assert!(!the_model_agrees(planted).await);
}

#[tokio::test]
async fn a_release_by_pool_frees_the_unit_of_whoever_has_it_now() {
    fn by_pool(request: &Request, book: &Book, limits: &Limits) -> Result<Decision, Refusal> {
        let decided = decide::decide(request, book, limits);
        let (Request::Release(release), Ok(mut decision)) = (request, decided.clone()) else {
            return decided;
        };
        let pool = book
            .hold(release.hold)
            .and_then(|hold| hold.lines.first())
            .map(|line| line.pool);
        let owner = book
            .live_holds()
            .find(|(_, hold)| pool.is_some() && hold.lines.first().map(|line| line.pool) == pool);
        let gone = !decision
            .changes
            .iter()
            .any(|change| matches!(change, Change::Release { .. }));
        if let (true, Some((owner, _))) = (gone, owner) {
            decision.changes.push(Change::Release {
                hold: owner,
                actor: release.actor.clone(),
            });
        }
        Ok(decision)
    }
    let planted = Rules {
        decide: by_pool,
        ..Rules::default()
    };
    assert!(!the_model_agrees(planted).await);
}

/// A seat's hold runs out while somebody stands in line for it, and the next request of all asks for that seat. Whether
/// it goes to who stood in line.
async fn who_stands_in_line_is_not_overtaken(rules: Rules) -> bool {
    let world = World::on(Terms {
        rules: Rules {
            sweep_max_holds: 0,
            ..rules
        },
        ..Terms::default()
    })
    .await;
    world.stock("seat:e:1", 1).await;
    world.reserve(&[("seat:e:1", 1)]).await.expect("free");
    let patient = stand(&[("seat:e:1", 1)]);
    let waiting = world.ledger().stand(patient.clone()).await;
    assert!(matches!(waiting, Ok(Stood::Waiting(_))), "{waiting:?}");
    // The writer learns of the time that has passed with this very request.
    world.pass(i64::try_from(TTL.as_secs()).expect("short"));
    let taken = world.reserve(&[("seat:e:1", 1)]).await;
    let stood = world.ledger().stand(patient).await;
    taken.is_err() && matches!(stood, Ok(Stood::Granted(_)))
}

#[tokio::test]
async fn a_waitlist_that_is_served_after_the_callers_is_overtaken() {
    let planted = Rules {
        waiting_come_first: false,
        ..Rules::default()
    };
    assert!(who_stands_in_line_is_not_overtaken(Rules::default()).await);
    assert!(!who_stands_in_line_is_not_overtaken(planted).await);
}

/// A basket may have the last unit by either of its groups. Whether it is told that it cannot have it by both.
async fn groups_do_not_take_the_same_unit_twice(rules: Rules) -> bool {
    let world = World::on(Terms {
        rules,
        ..Terms::default()
    })
    .await;
    world.stock("sku:LAST", 1).await;
    let either = vec![lines(&[("sku:LAST", 1)])];
    let ask = Reserve {
        wish: Wish::new(Vec::new(), vec![either.clone(), either], Vec::new()).expect("a wish"),
        ..reserve(&[("sku:LAST", 1)])
    };
    let refused = world.ledger().reserve(ask).await;
    matches!(refused, Err(Refusal::InsufficientUnits(_)))
}

#[tokio::test]
async fn groups_that_are_looked_at_one_by_one_take_the_same_unit_twice() {
    /// Each group as if it were alone, and what they come to taken together.
    fn one_by_one(request: &Request, book: &Book, limits: &Limits) -> Result<Decision, Refusal> {
        let Request::Reserve(reserve) = request else {
            return decide::decide(request, book, limits);
        };
        let mut together: Option<Decision> = None;
        for group in reserve.wish.any_of() {
            let group = group.iter().map(|basket| basket.lines().to_vec()).collect();
            let alone = Request::Reserve(Reserve {
                wish: Wish::new(Vec::new(), vec![group], Vec::new()).expect("a wish"),
                ..reserve.clone()
            });
            let decision = decide::decide(&alone, book, limits)?;
            match (&mut together, decision) {
                (None, decision) => together = Some(decision),
                (Some(together), mut decision) => together.changes.append(&mut decision.changes),
            }
        }
        together.map_or_else(|| decide::decide(request, book, limits), Ok)
    }
    let planted = Rules {
        decide: one_by_one,
        ..Rules::default()
    };
    assert!(groups_do_not_take_the_same_unit_twice(Rules::default()).await);
    // The database itself refuses what would be oversold, and the ledger has to own up to a defect.
    assert!(!groups_do_not_take_the_same_unit_twice(planted).await);
}

/// The last unit is being taken by a batch that has not committed. Whether the next taker is kept waiting for it.
async fn a_refusal_waits_for_the_batch_it_rests_on(rules: Rules) -> bool {
    let world = World::on(Terms {
        rules,
        ..Terms::default()
    })
    .await;
    world.stock("sku:LAST", 1).await;
    let sql = world.sql();
    let mut blocker = sql.begin().await.expect("a connection");
    blocker
        .execute("SELECT 1 FROM pool FOR UPDATE")
        .await
        .expect("locked");
    let ledger = world.ledger().clone();
    let first = tokio::spawn(async move { ledger.reserve(reserve(&[("sku:LAST", 1)])).await });
    waiting(&world, 1).await;
    // Looked up before, so that the answer needs nothing from the database.
    let unknown: HoldId = reserve(&[("sku:LAST", 1)]).request.makes();
    let ledger = world.ledger().clone();
    let mut second =
        tokio::spawn(async move { ledger.look(vec![super::world::pool_key("sku:LAST")]).await });
    let early = tokio::time::timeout(WATCH, &mut second).await.is_ok();
    blocker.rollback().await.expect("unlocked");
    first.await.expect("no panic").expect("free");
    assert_eq!(
        world.commit(unknown).await,
        Err(Refusal::UnknownHold(unknown))
    );
    !early
}

#[tokio::test]
async fn an_answer_before_its_batch_has_committed_tells_what_may_never_be() {
    let planted = Rules {
        answers_at_once: |_, _| true,
        ..Rules::default()
    };
    assert!(a_refusal_waits_for_the_batch_it_rests_on(Rules::default()).await);
    assert!(!a_refusal_waits_for_the_batch_it_rests_on(planted).await);
}
