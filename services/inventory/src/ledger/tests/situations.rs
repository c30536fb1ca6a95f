//! Situations of shops, each by its name.

use std::time::Duration;

use futures::future::join_all;
use holdfast_kernel::RequestId;

use super::world::{
    Terms, World, adjust, commit, extend, give_back, policy, pool_key, release, reserve,
};
use crate::domain::{Adjust, CapacityChange, CapacityChanges, HoldId, HoldState, Name, Refusal};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_unit_goes_to_exactly_one_of_ten_thousand() {
    let world = World::new().await;
    world.stock("sku:LAST", 1).await;
    let takers = (0..10_000).map(|_| {
        let ledger = world.ledger().clone();
        tokio::spawn(async move {
            let asked = std::time::Instant::now();
            let taken = ledger.reserve(reserve(&[("sku:LAST", 1)])).await;
            (taken, asked.elapsed())
        })
    });
    let mut waits = Vec::new();
    let mut winners = 0;
    for taker in join_all(takers).await {
        match taker.expect("no taker panics") {
            (Ok(_), _) => winners += 1,
            (Err(Refusal::InsufficientUnits(short)), wait) => {
                assert_eq!((short[0].requested, short[0].available), (1, 0));
                waits.push(wait);
            }
            (Err(other), _) => panic!("{other}"),
        }
    }
    waits.sort_unstable();
    println!(
        "refusals: {}, p50 {:?}, p99 {:?}",
        waits.len(),
        waits[waits.len() / 2],
        waits[waits.len() * 99 / 100]
    );
    assert_eq!(winners, 1);
    assert_eq!(world.balance("sku:LAST").await, (1, 0, 0));
}

#[tokio::test]
async fn a_group_of_five_finds_four_seats_and_takes_none() {
    let world = World::new().await;
    let seats = ["seat:e:1", "seat:e:2", "seat:e:3", "seat:e:4", "seat:e:5"];
    for seat in seats {
        world.stock(seat, 1).await;
    }
    world
        .reserve(&[("seat:e:3", 1)])
        .await
        .expect("a free seat");
    let group: Vec<(&str, i64)> = seats.iter().map(|seat| (*seat, 1)).collect();
    let refused = world.reserve(&group).await.expect_err("one is taken");
    let Refusal::InsufficientUnits(short) = refused else {
        panic!("{refused}");
    };
    assert_eq!(short.len(), 1);
    assert_eq!(short[0].pool.as_str(), "seat:e:3");
    for seat in ["seat:e:1", "seat:e:2", "seat:e:4", "seat:e:5"] {
        assert_eq!(world.balance(seat).await, (0, 0, 1), "{seat}");
    }
}

#[tokio::test]
async fn lines_of_one_pool_count_together() {
    let world = World::new().await;
    world.stock("sku:A", 3).await;
    let refused = world.reserve(&[("sku:A", 2), ("sku:A", 2)]).await;
    assert!(matches!(refused, Err(Refusal::InsufficientUnits(_))));
    let hold = world
        .reserve(&[("sku:A", 2), ("sku:A", 1)])
        .await
        .expect("three");
    assert_eq!(hold.lines.len(), 1);
    assert_eq!(world.balance("sku:A").await, (3, 0, 0));
}

#[tokio::test]
async fn the_same_reserve_again_is_the_same_hold_and_with_other_lines_it_is_refused() {
    let world = World::new().await;
    world.stock("sku:A", 3).await;
    let mut ask = reserve(&[("sku:A", 1)]);
    let first = world.ledger().reserve(ask.clone()).await.expect("free");
    assert_eq!(world.ledger().reserve(ask.clone()).await, Ok(first.clone()));
    assert_eq!(world.balance("sku:A").await, (1, 0, 2));
    ask.wish = super::world::basket(&[("sku:A", 2)]).into();
    let refused = world.ledger().reserve(ask).await;
    assert_eq!(refused, Err(Refusal::HoldMismatch(first.id)));
}

#[tokio::test]
async fn a_reserve_repeated_to_a_writer_that_never_heard_of_it_meets_the_first() {
    let mut world = World::new().await;
    world.stock("sku:A", 3).await;
    let ask = reserve(&[("sku:A", 1)]);
    let first = world.ledger().reserve(ask.clone()).await.expect("free");
    // Ended holds are not loaded at start, so only the key of the row can tell.
    world.commit(first.id).await.expect("live");
    let next = world.another(Terms::default());
    std::mem::replace(&mut world.writer, next).stop().await;
    let (again, other) = tokio::join!(world.ledger().reserve(ask), world.reserve(&[("sku:A", 1)]));
    assert_eq!(again.expect("it is there").state, HoldState::Committed);
    other.expect("the innocent of the batch is not harmed");
    assert_eq!(world.balance("sku:A").await, (1, 1, 1));
}

#[tokio::test]
async fn commit_release_and_return_twice_are_once() {
    let world = World::new().await;
    world.stock("sku:A", 5).await;
    let sold = world.reserve(&[("sku:A", 2)]).await.expect("free").id;
    let first = world.commit(sold).await.expect("live");
    assert_eq!(world.commit(sold).await, Ok(first));
    let given_up = world.reserve(&[("sku:A", 1)]).await.expect("free").id;
    assert_eq!(world.release(given_up).await, Ok(HoldState::Released));
    assert_eq!(world.release(given_up).await, Ok(HoldState::Released));
    assert_eq!(world.balance("sku:A").await, (0, 2, 3));
    let back = give_back(sold, &[("sku:A", 1)]);
    assert_eq!(world.ledger().give_back(back.clone()).await, Ok(()));
    assert_eq!(world.ledger().give_back(back.clone()).await, Ok(()));
    assert_eq!(world.balance("sku:A").await, (0, 1, 4));
    let mut other = give_back(sold, &[("sku:A", 2)]);
    let exceeds = world.ledger().give_back(other.clone()).await;
    assert!(matches!(
        exceeds,
        Err(Refusal::ReturnExceedsSold {
            requested: 2,
            sold: 1,
            ..
        })
    ));
    other.request = back.request;
    let mismatch = world.ledger().give_back(other).await;
    assert_eq!(mismatch, Err(Refusal::RequestMismatch(back.request)));
    assert_eq!(world.kinds("sku:A").await, [7, 1, 2, 1, 3, 6]);
}

#[tokio::test]
async fn what_is_not_sold_cannot_come_back_and_what_is_sold_cannot_be_released() {
    let world = World::new().await;
    world.stock("sku:A", 5).await;
    let hold = world.reserve(&[("sku:A", 2)]).await.expect("free").id;
    let back = world.give_back(hold, &[("sku:A", 1)]).await;
    assert_eq!(back, Err(Refusal::HoldNotCommitted(hold)));
    world.commit(hold).await.expect("live");
    assert_eq!(world.release(hold).await, Err(Refusal::HoldCommitted(hold)));
    let back = world.give_back(hold, &[("sku:B", 1)]).await;
    assert!(matches!(
        back,
        Err(Refusal::ReturnExceedsSold { sold: 0, .. })
    ));
    assert_eq!(world.balance("sku:A").await, (0, 2, 3));
}

#[tokio::test]
async fn a_release_before_its_reserve_refuses_the_reserve() {
    let world = World::new().await;
    world.stock("sku:A", 1).await;
    let late = reserve(&[("sku:A", 1)]);
    let hold: HoldId = late.request.makes();
    assert_eq!(world.release(hold).await, Ok(HoldState::Released));
    let state = HoldState::Released;
    let refused = world.ledger().reserve(late).await;
    assert_eq!(refused, Err(Refusal::HoldEnded { hold, state }));
    assert_eq!(
        world.commit(hold).await,
        Err(Refusal::HoldEnded { hold, state })
    );
    assert_eq!(world.balance("sku:A").await, (0, 0, 1));
}

#[tokio::test]
async fn a_release_before_its_reserve_refuses_it_at_the_next_writer_too() {
    let mut world = World::new().await;
    world.stock("sku:A", 1).await;
    let late = reserve(&[("sku:A", 1)]);
    let hold: HoldId = late.request.makes();
    world.release(hold).await.expect("a tombstone");
    let next = world.another(Terms::default());
    std::mem::replace(&mut world.writer, next).stop().await;
    let state = HoldState::Released;
    let refused = world.ledger().reserve(late).await;
    assert_eq!(refused, Err(Refusal::HoldEnded { hold, state }));
}

#[tokio::test]
async fn a_hold_expires_exactly_at_its_moment() {
    let world = World::new().await;
    world.stock("seat:e:1", 1).await;
    let hold = world.reserve(&[("seat:e:1", 1)]).await.expect("free");
    world.pass(599);
    world
        .clock
        .advance(jiff::SignedDuration::from_micros(999_999));
    let early = world.reserve(&[("seat:e:1", 1)]).await;
    assert!(
        matches!(early, Err(Refusal::InsufficientUnits(_))),
        "{early:?}"
    );
    world.clock.advance(jiff::SignedDuration::from_micros(1));
    assert_eq!(world.now(), hold.expires_at);
    let mine = world.reserve(&[("seat:e:1", 1)]).await.expect("free again");
    assert_eq!(mine.state, HoldState::Live);
    let expiry: Vec<(jiff_sqlx::Timestamp, jiff_sqlx::Timestamp)> =
        sqlx::query_as("SELECT at, effective_at FROM movement WHERE kind = 4")
            .fetch_all(&world.sql())
            .await
            .expect("movements can be read");
    assert_eq!(expiry.len(), 1);
    assert_eq!(jiff::Timestamp::from(expiry[0].1), hold.expires_at);
}

#[tokio::test]
async fn an_expired_hold_frees_its_units_though_nobody_sweeps() {
    let mut terms = Terms::default();
    terms.rules.sweep_max_holds = 0;
    let world = World::on(terms).await;
    world.stock("sku:A", 3).await;
    for _ in 0..3 {
        world.reserve(&[("sku:A", 1)]).await.expect("free");
    }
    world.pass(1_200);
    assert_eq!(world.balance("sku:A").await, (0, 0, 3));
    // Whole holds expire, and no more of them than are needed.
    world.reserve(&[("sku:A", 2)]).await.expect("free in truth");
    assert_eq!(world.kinds("sku:A").await, [7, 1, 1, 1, 4, 4, 1]);
    assert_eq!(world.balance("sku:A").await, (2, 0, 1));
    let refused = world.reserve(&[("sku:A", 2)]).await;
    let Err(Refusal::InsufficientUnits(short)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(short[0].available, 1);
    assert_eq!(world.kinds("sku:A").await.len(), 7);
}

#[tokio::test]
async fn a_sweep_returns_all_units_of_a_hoarder_within_a_second_of_due() {
    let world = World::on(Terms {
        account_max_holds: 1_000,
        ..Terms::default()
    })
    .await;
    world.stock("sku:A", 1_000).await;
    let asks = (0..1_000).map(|_| {
        let mut ask = reserve(&[("sku:A", 1)]);
        ask.account = Some(Name::from("usr_hoarder"));
        world.ledger().reserve(ask)
    });
    for hold in join_all(asks).await {
        hold.expect("free");
    }
    world.pass(600);
    let due = std::time::Instant::now();
    loop {
        let held: i64 = sqlx::query_scalar("SELECT held FROM pool")
            .fetch_one(&world.sql())
            .await
            .expect("one pool");
        if held == 0 {
            break;
        }
        assert!(
            due.elapsed() < Duration::from_secs(1),
            "{held} units still held"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_account_has_no_more_live_holds_than_its_limit() {
    let world = World::new().await;
    world.stock("sku:A", 1_000).await;
    let ask = |account: &str| {
        let mut ask = reserve(&[("sku:A", 1)]);
        ask.account = Some(Name::from(account));
        ask
    };
    let mut holds = Vec::new();
    for _ in 0..50 {
        let taken = world.ledger().reserve(ask("usr_hoarder")).await;
        holds.push(taken.expect("below the limit").id);
    }
    let limit = 50;
    let refused = world.ledger().reserve(ask("usr_hoarder")).await;
    assert_eq!(refused, Err(Refusal::TooManyHolds { limit }));
    world
        .ledger()
        .reserve(ask("usr_other"))
        .await
        .expect("another account");
    world
        .reserve(&[("sku:A", 1)])
        .await
        .expect("nobody's account");
    world.commit(holds[0]).await.expect("live");
    world
        .ledger()
        .reserve(ask("usr_hoarder"))
        .await
        .expect("one less is live");
    world.pass(600);
    world
        .ledger()
        .reserve(ask("usr_hoarder"))
        .await
        .expect("all have expired");
}

#[tokio::test]
async fn a_late_commit_takes_the_units_again_while_they_are_free() {
    let world = World::new().await;
    world.stock("seat:e:1", 1).await;
    let hold = world.reserve(&[("seat:e:1", 1)]).await.expect("free").id;
    world.pass(3_600);
    let committed = world.commit(hold).await.expect("still free");
    assert_eq!(committed.state, HoldState::Committed);
    assert_eq!(world.balance("seat:e:1").await, (0, 1, 0));
    assert_eq!(world.kinds("seat:e:1").await, [7, 1, 4, 5]);
}

#[tokio::test]
async fn a_late_commit_finds_the_seat_sold_to_another_and_leaves_it_to_him() {
    let world = World::new().await;
    world.stock("seat:e:1", 1).await;
    let late = world.reserve(&[("seat:e:1", 1)]).await.expect("free").id;
    world.pass(3_600);
    let other = world
        .reserve(&[("seat:e:1", 1)])
        .await
        .expect("free again")
        .id;
    let refused = world.commit(late).await;
    assert!(
        matches!(refused, Err(Refusal::InsufficientUnits(_))),
        "{refused:?}"
    );
    // The undoing of the late purchase, after the seat went on.
    assert_eq!(world.release(late).await, Ok(HoldState::Released));
    assert_eq!(world.balance("seat:e:1").await, (1, 0, 0));
    world.commit(other).await.expect("his hold was not touched");
    assert_eq!(world.balance("seat:e:1").await, (0, 1, 0));
    let state = HoldState::Released;
    let refused = world.commit(late).await;
    assert_eq!(refused, Err(Refusal::HoldEnded { hold: late, state }));
}

#[tokio::test]
async fn an_extension_counts_from_now_and_never_shortens() {
    let world = World::new().await;
    world.stock("sku:A", 1).await;
    let hold = world.reserve(&[("sku:A", 1)]).await.expect("free");
    let shorter = world
        .ledger()
        .extend(extend(hold.id, Duration::from_secs(10)))
        .await;
    assert_eq!(shorter.expect("live").expires_at, hold.expires_at);
    world.pass(599);
    let longer = world
        .ledger()
        .extend(extend(hold.id, Duration::from_mins(10)))
        .await;
    assert_eq!(
        longer.expect("live").expires_at,
        hold.expires_at + jiff::SignedDuration::from_secs(599)
    );
    world.pass(598);
    world.commit(hold.id).await.expect("still live");
    let state = HoldState::Committed;
    let ended = world
        .ledger()
        .extend(extend(hold.id, Duration::from_mins(10)))
        .await;
    assert_eq!(
        ended,
        Err(Refusal::HoldEnded {
            hold: hold.id,
            state
        })
    );
}

#[tokio::test]
async fn capacity_is_not_lowered_below_what_is_held_and_sold() {
    let world = World::new().await;
    world.stock("sku:A", 10).await;
    world.reserve(&[("sku:A", 3)]).await.expect("free");
    let sold = world.reserve(&[("sku:A", 4)]).await.expect("free").id;
    world.commit(sold).await.expect("live");
    let refused = world.adjust("sku:A", -4, 1).await;
    assert!(
        matches!(
            refused,
            Err(Refusal::BelowCommitted {
                capacity: 10,
                held: 3,
                sold: 4,
                ..
            })
        ),
        "{refused:?}"
    );
    let pool = world.adjust("sku:A", -3, 1).await.expect("exactly enough");
    assert_eq!(
        (pool.capacity, pool.capacity_version, pool.available()),
        (7, 2, 0)
    );
    let refused = world.adjust("sku:A", -1, 2).await;
    assert!(matches!(refused, Err(Refusal::BelowCommitted { .. })));
    world.pass(600);
    // The held units have expired, so they are nobody's.
    assert_eq!(
        world.adjust("sku:A", -3, 2).await.expect("free").capacity,
        4
    );
}

#[tokio::test]
async fn an_adjustment_compares_the_version_it_was_decided_on() {
    let world = World::new().await;
    world.stock("sku:A", 10).await;
    let first = adjust("sku:A", 5, 1);
    let raised = world
        .ledger()
        .adjust(first.clone())
        .await
        .expect("version 1 stands");
    assert_eq!((raised[0].capacity, raised[0].capacity_version), (15, 2));
    let again = world.ledger().adjust(first).await.expect("the same wish");
    assert_eq!(again[0].capacity, 15);
    let changed = world.adjust("sku:A", 5, 1).await;
    assert!(matches!(
        changed,
        Err(Refusal::CapacityChanged {
            expected: 1,
            actual: 2,
            ..
        })
    ));
    let exists = world.adjust("sku:A", 5, 0).await;
    assert!(matches!(exists, Err(Refusal::PoolExists(_))));
    let unknown = world.adjust("sku:B", 5, 1).await;
    assert!(matches!(unknown, Err(Refusal::UnknownPools(_))));
    // Sales do not move what an ETag compares.
    world.reserve(&[("sku:A", 1)]).await.expect("free");
    world.adjust("sku:A", 1, 2).await.expect("version 2 stands");
}

#[tokio::test]
async fn overbooked_units_are_sold_and_the_policy_is_not_lowered_below_them() {
    let world = World::new().await;
    world.stock("night:r:2026-12-24", 2).await;
    let wide = policy("night:r:2026-12-24", 1, None, 1);
    let pool = world
        .ledger()
        .set_policy(wide)
        .await
        .expect("version 1 stands");
    assert_eq!((pool.available(), pool.capacity_version), (3, 2));
    world
        .reserve(&[("night:r:2026-12-24", 3)])
        .await
        .expect("two and one over");
    let narrow = policy("night:r:2026-12-24", 0, None, 2);
    let refused = world.ledger().set_policy(narrow).await;
    assert!(matches!(
        refused,
        Err(Refusal::BelowCommitted {
            overbook: 1,
            held: 3,
            ..
        })
    ));
}

#[tokio::test]
async fn low_stock_is_announced_on_crossing_and_again_only_after_it_had_risen() {
    let world = World::new().await;
    world.stock("sku:A", 100).await;
    let mark = policy("sku:A", 0, Some(20), 1);
    world
        .ledger()
        .set_policy(mark)
        .await
        .expect("version 1 stands");
    let lows = async || -> i64 {
        sqlx::query_scalar("SELECT coalesce(sum(cardinality(low)), 0)::int8 FROM change")
            .fetch_one(&world.sql())
            .await
            .expect("changes can be read")
    };
    world.reserve(&[("sku:A", 79)]).await.expect("free");
    assert_eq!(lows().await, 0, "21 are left");
    let crossing = world.reserve(&[("sku:A", 1)]).await.expect("free").id;
    assert_eq!(lows().await, 1, "20 are left");
    world.reserve(&[("sku:A", 1)]).await.expect("free");
    world.release(crossing).await.expect("live");
    world.reserve(&[("sku:A", 1)]).await.expect("free");
    assert_eq!(lows().await, 1, "a unit to and fro is no news");
    world
        .adjust("sku:A", 10, 2)
        .await
        .expect("version 2 stands");
    world.reserve(&[("sku:A", 10)]).await.expect("free");
    assert_eq!(lows().await, 2, "it had risen to 29");
}

#[tokio::test]
async fn a_worker_that_was_replaced_can_do_nothing() {
    let world = World::new().await;
    world.stock("sku:A", 1).await;
    let mut ask = reserve(&[("sku:A", 1)]);
    ask.epoch = Some(1);
    let hold = world.ledger().reserve(ask.clone()).await.expect("free").id;
    let mut longer = extend(hold, Duration::from_mins(1));
    longer.epoch = Some(2);
    world.ledger().extend(longer).await.expect("the new worker");
    let stale = Refusal::StaleEpoch { got: 1, seen: 2 };
    let mut sell = commit(hold);
    sell.epoch = Some(1);
    assert_eq!(
        world.ledger().commit(sell.clone()).await,
        Err(stale.clone())
    );
    let mut undo = release(hold);
    undo.epoch = Some(1);
    assert_eq!(world.ledger().release(undo).await, Err(stale.clone()));
    assert_eq!(world.ledger().reserve(ask).await, Err(stale));
    sell.epoch = Some(2);
    world.ledger().commit(sell).await.expect("the new worker");
}

#[tokio::test]
async fn unknown_holds_and_pools_are_named() {
    let world = World::new().await;
    world.stock("sku:A", 1).await;
    let hold: HoldId = RequestId::generate().makes();
    assert_eq!(world.commit(hold).await, Err(Refusal::UnknownHold(hold)));
    let nothing = world.give_back(hold, &[("sku:A", 1)]).await;
    assert_eq!(nothing, Err(Refusal::UnknownHold(hold)));
    let refused = world.reserve(&[("sku:A", 1), ("sku:B", 1)]).await;
    let Err(Refusal::UnknownPools(unknown)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(unknown.len(), 1);
    assert_eq!(world.balance("sku:A").await, (0, 0, 1));
}

#[tokio::test]
async fn many_pools_made_at_once_leave_room_between_them_for_who_buys() {
    let world = World::new().await;
    world.stock("sku:A", 1).await;
    let before: i64 = batches(&world).await;
    let stadium = (0..12).map(|row| {
        let changes = (0..1_000).map(|seat| CapacityChange {
            pool: pool_key(&format!("seat:e:{row}-{seat}")),
            delta: 1,
            expected: 0,
        });
        let changes = CapacityChanges::new(changes.collect()).expect("distinct");
        let ask = Adjust {
            changes,
            ..adjust("sku:A", 1, 1)
        };
        world.ledger().adjust(ask)
    });
    let (made, bought) = tokio::join!(join_all(stadium), world.reserve(&[("sku:A", 1)]));
    assert!(made.iter().all(Result::is_ok));
    bought.expect("free");
    let written = batches(&world).await - before;
    // Four thousand a batch, not all twelve in one.
    assert!((3..=12).contains(&written), "{written} batches");
    world.reserve(&[("seat:e:11-999", 1)]).await.expect("free");
}

async fn batches(world: &World) -> i64 {
    sqlx::query_scalar("SELECT seq FROM fence WHERE id = 1")
        .fetch_one(&world.sql())
        .await
        .expect("the fence is there")
}
