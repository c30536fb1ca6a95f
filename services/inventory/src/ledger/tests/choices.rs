//! Alternatives in order of preference, and pools that come to be with who first names them.

use holdfast_kernel::PoolKey;

use super::world::{Terms, World, lines, pool_key, reserve};
use crate::domain::{Alternative, HoldState, Line, Refusal, Reserve, Short, Wish};

/// Lines in any case, groups of alternatives, and what is made with how much.
fn ask(fixed: &[(&str, i64)], any_of: &[&[&[(&str, i64)]]], makes: &[(&str, i64)]) -> Reserve {
    let group = |group: &&[&[(&str, i64)]]| group.iter().map(|one| lines(one)).collect();
    let makes = makes.iter().map(|(key, units)| (pool_key(key), *units));
    let any_of = any_of.iter().map(group).collect();
    let wish = Wish::new(lines(fixed), any_of, makes.collect()).expect("a wish");
    Reserve {
        wish,
        ..reserve(&[("sku:none", 1)])
    }
}

fn keys(lines: &[Line]) -> Vec<&str> {
    lines.iter().map(|line| line.pool.as_str()).collect()
}

fn short(pool: &str, requested: i64, available: i64, of: Option<(usize, usize)>) -> Short {
    Short {
        pool: pool_key(pool),
        requested,
        available,
        of: of.map(|(group, place)| Alternative { group, place }),
    }
}

async fn audit_is_clean(world: &World) {
    let mut db = world.sql().acquire().await.expect("a connection");
    let audit = crate::audit(&mut db, &[0; 32], |_| {}).await;
    assert_eq!(audit.expect("it can run").findings, []);
}

#[tokio::test]
async fn the_first_alternative_that_fits_is_taken_and_every_repeat_says_the_same() {
    let mut world = World::new().await;
    for seat in ["seat:e:1", "seat:e:2", "seat:e:3", "seat:e:4"] {
        world.stock(seat, 1).await;
    }
    world.reserve(&[("seat:e:2", 1)]).await.expect("free");
    let pair = [("seat:e:1", 1), ("seat:e:2", 1)];
    let next_pair = [("seat:e:3", 1), ("seat:e:4", 1)];
    let ask = ask(&[], &[&[&pair, &next_pair]], &[]);
    let hold = world.ledger().reserve(ask.clone()).await.expect("a pair");
    assert_eq!(*hold.taken, [1]);
    assert_eq!(keys(&hold.lines), ["seat:e:3", "seat:e:4"]);
    assert_eq!(world.balance("seat:e:1").await, (0, 0, 1));
    // What was preferred is free by now; the choice stands.
    let other = world.reserve(&[("seat:e:1", 1)]).await.expect("free");
    world.release(other.id).await.expect("live");
    assert_eq!(world.ledger().reserve(ask.clone()).await, Ok(hold.clone()));
    world.commit(hold.id).await.expect("live");
    let next = world.another(Terms::default());
    std::mem::replace(&mut world.writer, next).stop().await;
    let again = world.ledger().reserve(ask.clone()).await.expect("known");
    assert_eq!(
        (again.state, again.taken),
        (HoldState::Committed, hold.taken)
    );
    let other = Reserve {
        wish: super::world::basket(&next_pair).into(),
        ..ask
    };
    // The same lines, but there was no choice in it.
    let refused = world.ledger().reserve(other).await;
    assert_eq!(refused, Err(Refusal::HoldMismatch(hold.id)));
}

#[tokio::test]
async fn a_refusal_names_what_is_short_in_every_alternative_and_takes_nothing() {
    let world = World::new().await;
    world.stock("sku:A", 3).await;
    world.stock("sku:B", 2).await;
    world.stock("sku:C", 5).await;
    let groups: &[&[&[(&str, i64)]]] = &[
        &[&[("sku:C", 4)]],
        &[&[("sku:A", 2)], &[("sku:B", 3), ("sku:C", 2)]],
    ];
    let refused = world
        .ledger()
        .reserve(ask(&[("sku:A", 2)], groups, &[]))
        .await;
    // Of C the group before has taken four.
    let shorts = vec![
        short("sku:A", 4, 3, Some((1, 0))),
        short("sku:B", 3, 2, Some((1, 1))),
        short("sku:C", 6, 5, Some((1, 1))),
    ];
    assert_eq!(refused, Err(Refusal::InsufficientUnits(shorts)));
    // What is wanted in any case comes first, and is told alone.
    let refused = world
        .ledger()
        .reserve(ask(&[("sku:A", 4)], groups, &[]))
        .await;
    let shorts = vec![short("sku:A", 4, 3, None)];
    assert_eq!(refused, Err(Refusal::InsufficientUnits(shorts)));
    for (pool, units) in [("sku:A", 3), ("sku:B", 2), ("sku:C", 5)] {
        assert_eq!(world.balance(pool).await, (0, 0, units), "{pool}");
        assert_eq!(world.kinds(pool).await, [7], "{pool}");
    }
}

#[tokio::test]
async fn groups_take_one_after_the_other_and_lines_of_one_pool_become_one() {
    let world = World::new().await;
    world.stock("sku:A", 3).await;
    world.stock("sku:B", 3).await;
    let first_a: &[&[(&str, i64)]] = &[&[("sku:A", 1)], &[("sku:B", 1)]];
    let ask = ask(&[("sku:A", 2)], &[first_a, first_a], &[]);
    let hold = world.ledger().reserve(ask).await.expect("both fit");
    assert_eq!(*hold.taken, [0, 1]);
    assert_eq!(hold.lines, lines(&[("sku:A", 3), ("sku:B", 1)]));
    assert_eq!(world.balance("sku:A").await, (3, 0, 0));
    assert_eq!(world.balance("sku:B").await, (1, 0, 2));
    audit_is_clean(&world).await;
}

#[tokio::test]
async fn only_the_alternative_that_is_taken_writes_holds_off() {
    let world = World::new().await;
    world.stock("seat:e:1", 1).await;
    world.stock("seat:e:2", 1).await;
    world.reserve(&[("seat:e:1", 1)]).await.expect("free");
    world.reserve(&[("seat:e:2", 1)]).await.expect("free");
    world.pass(600);
    let ask = ask(&[], &[&[&[("seat:e:1", 2)], &[("seat:e:2", 1)]]], &[]);
    let hold = world.ledger().reserve(ask).await.expect("the time is over");
    assert_eq!(*hold.taken, [1]);
    assert_eq!(world.kinds("seat:e:2").await, [7, 1, 4, 1]);
    audit_is_clean(&world).await;
}

#[tokio::test]
async fn a_limit_comes_to_be_with_the_first_reserve_that_names_it_and_keeps_its_capacity() {
    let world = World::new().await;
    world.stock("ga:e:standing", 100).await;
    let under = |units: i64, capacity: i64| {
        let lines = [("ga:e:standing", units), ("limit:e:usr_1", units)];
        ask(&lines, &[], &[("limit:e:usr_1", capacity)])
    };
    // Of two in one batch the first makes it.
    let (first, second) = tokio::join!(
        world.ledger().reserve(under(3, 4)),
        world.ledger().reserve(under(2, 4))
    );
    let first = first.expect("under the limit").id;
    let shorts = vec![short("limit:e:usr_1", 2, 1, None)];
    assert_eq!(second, Err(Refusal::InsufficientUnits(shorts.clone())));
    // Who comes later cannot raise it.
    let refused = world.ledger().reserve(under(2, 50)).await;
    assert_eq!(refused, Err(Refusal::InsufficientUnits(shorts)));
    world.commit(first).await.expect("live");
    assert_eq!(world.balance("limit:e:usr_1").await, (0, 3, 1));
    assert_eq!(world.balance("ga:e:standing").await, (0, 3, 97));
    assert_eq!(world.kinds("limit:e:usr_1").await, [7, 1, 2]);
    audit_is_clean(&world).await;
}

#[tokio::test]
async fn what_is_refused_and_what_is_not_taken_makes_no_pool() {
    let world = World::new().await;
    world.stock("sku:A", 1).await;
    let gone = |key: &'static str| {
        let ledger = world.ledger().clone();
        async move { ledger.look(vec![pool_key(key)]).await == Ok(vec![]) }
    };
    let refused = ask(&[("sku:A", 2), ("limit:e:1", 1)], &[], &[("limit:e:1", 4)]);
    let shorts = vec![short("sku:A", 2, 1, None)];
    let refused = world.ledger().reserve(refused).await;
    assert_eq!(refused, Err(Refusal::InsufficientUnits(shorts)));
    assert!(gone("limit:e:1").await);
    let beyond = ask(&[("limit:e:1", 5)], &[], &[("limit:e:1", 4)]);
    let shorts = vec![short("limit:e:1", 5, 4, None)];
    let refused = world.ledger().reserve(beyond).await;
    assert_eq!(refused, Err(Refusal::InsufficientUnits(shorts)));
    let one: [&[(&str, i64)]; 2] = [
        &[("limit:e:1", 1), ("sku:A", 2)],
        &[("limit:e:2", 1), ("sku:A", 1)],
    ];
    let choice = ask(&[], &[&one], &[("limit:e:1", 4), ("limit:e:2", 4)]);
    let hold = world
        .ledger()
        .reserve(choice)
        .await
        .expect("the second fits");
    assert_eq!(keys(&hold.lines), ["limit:e:2", "sku:A"]);
    assert!(gone("limit:e:1").await);
    // A pool that nobody brings with him is missed, in whatever alternative.
    let missing = ask(&[("sku:A", 1)], &[&[&[("sku:A", 1)], &[("sku:B", 1)]]], &[]);
    let unknown: Vec<PoolKey> = vec![pool_key("sku:B")];
    let refused = world.ledger().reserve(missing).await;
    assert_eq!(refused, Err(Refusal::UnknownPools(unknown)));
    // The number that was left out belongs to nobody.
    world.stock("sku:B", 1).await;
    audit_is_clean(&world).await;
}

#[tokio::test]
async fn an_admission_comes_back_with_its_hold_and_is_spent_with_its_purchase() {
    let world = World::new().await;
    world.stock("seat:e:1", 2).await;
    let enter = || {
        let lines = [("admit:jti-1", 1), ("seat:e:1", 1)];
        ask(&lines, &[], &[("admit:jti-1", 1)])
    };
    let used = || {
        Err(Refusal::InsufficientUnits(vec![short(
            "admit:jti-1",
            1,
            0,
            None,
        )]))
    };
    let first = world.ledger().reserve(enter()).await.expect("admitted").id;
    assert_eq!(world.ledger().reserve(enter()).await, used());
    world.release(first).await.expect("live");
    let second = world
        .ledger()
        .reserve(enter())
        .await
        .expect("given back")
        .id;
    world.commit(second).await.expect("live");
    world.pass(100_000);
    assert_eq!(world.ledger().reserve(enter()).await, used());
}
