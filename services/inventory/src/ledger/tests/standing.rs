//! Standing in line for what cannot be had now.

use std::time::Duration;

use futures::{future::join_all, poll};
use sqlx::Executor;

use super::{
    planted::waiting,
    takeover::{cut_connections, impatient, insist},
    world::{TTL, Terms, World, adjust, lines, policy, pool_key, release, reserve, stand},
};
use crate::domain::{Hold, HoldId, HoldState, Name, Refusal, Release, Stand, Stood, Wish};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

async fn joins(world: &World, stand: &Stand) -> HoldId {
    let stood = world.ledger().stand(stand.clone()).await;
    assert!(matches!(stood, Ok(Stood::Waiting(_))), "{stood:?}");
    stand.request.makes()
}

/// What has come of it; nothing while it waits.
async fn granted(world: &World, stand: &Stand) -> Option<Hold> {
    match world.ledger().stand(stand.clone()).await.expect("known") {
        Stood::Granted(hold) => Some(hold),
        Stood::Waiting(_) => None,
    }
}

async fn audit_is_clean(world: &World) {
    let mut db = world.sql().acquire().await.expect("a connection");
    let audit = crate::audit(&mut db, &[0; 32], |_| {}).await;
    assert_eq!(audit.expect("it can run").findings, []);
}

#[tokio::test]
async fn units_that_come_back_in_whatever_way_go_to_who_stands_in_line() {
    let world = World::new().await;
    world.stock("sku:A", 2).await;
    let released = world.reserve(&[("sku:A", 1)]).await.expect("free").id;
    let sold = world.reserve(&[("sku:A", 1)]).await.expect("free").id;
    world.commit(sold).await.expect("live");
    let line: Vec<Stand> = (0..5).map(|_| stand(&[("sku:A", 1)])).collect();
    for one in &line {
        joins(&world, one).await;
    }
    world.release(released).await.expect("live");
    let first = granted(&world, &line[0]).await.expect("released");
    assert_eq!(first.state, HoldState::Live);
    assert_eq!(first.reference, Name::from("wait_1"));
    assert_eq!(first.expires_at, world.now() + TTL);
    world.commit(first.id).await.expect("a hold like any other");
    world.give_back(sold, &[("sku:A", 1)]).await.expect("sold");
    assert!(granted(&world, &line[1]).await.is_some(), "returned");
    world.adjust("sku:A", 1, 1).await.expect("one more");
    assert!(granted(&world, &line[2]).await.is_some(), "added");
    let overbook = policy("sku:A", 1, None, 2);
    world.ledger().set_policy(overbook).await.expect("one more");
    assert!(granted(&world, &line[3]).await.is_some(), "overbooked");
    assert_eq!(granted(&world, &line[4]).await, None);
    world.pass(600);
    let last = granted(&world, &line[4]).await.expect("expired");
    assert_eq!(last.expires_at, world.now() + TTL);
    // What it was granted with is what the book of the pool says.
    let holds: Vec<(uuid::Uuid, String)> =
        sqlx::query_as("SELECT hold, actor FROM movement WHERE kind = 1 ORDER BY version")
            .fetch_all(&world.sql())
            .await
            .expect("movements can be read");
    let patient = "usr_patient".to_owned();
    assert_eq!(holds.last(), Some(&(last.id.uuid(), patient)));
    audit_is_clean(&world).await;
}

#[tokio::test]
async fn what_fits_at_once_is_granted_at_once() {
    let world = World::new().await;
    world.stock("sku:A", 1).await;
    let ask = stand(&[("sku:A", 1)]);
    let hold = granted(&world, &ask).await.expect("free");
    assert_eq!(granted(&world, &ask).await, Some(hold));
    assert_eq!(world.balance("sku:A").await, (1, 0, 0));
    audit_is_clean(&world).await;
}

#[tokio::test]
async fn the_oldest_that_fits_is_served_before_whoever_asks_in_the_same_moment() {
    let world = World::new().await;
    world.stock("sku:A", 3).await;
    let all = world.reserve(&[("sku:A", 3)]).await.expect("free").id;
    let much = stand(&[("sku:A", 4)]);
    let two = stand(&[("sku:A", 2)]);
    let also_two = stand(&[("sku:A", 2)]);
    for one in [&much, &two, &also_two] {
        joins(&world, one).await;
    }
    // One batch: the units come free, and somebody is there who wants them.
    let ledger = world.ledger();
    let (released, taken) = tokio::join!(
        ledger.release(release(all)),
        ledger.reserve(reserve(&[("sku:A", 2)]))
    );
    assert_eq!(released, Ok(HoldState::Released));
    assert!(
        matches!(taken, Err(Refusal::InsufficientUnits(_))),
        "{taken:?}"
    );
    // The first cannot be helped, and keeps nobody from what he cannot use.
    assert_eq!(granted(&world, &much).await, None);
    assert!(granted(&world, &two).await.is_some());
    assert_eq!(granted(&world, &also_two).await, None);
    assert_eq!(world.balance("sku:A").await, (2, 0, 1));
    world
        .reserve(&[("sku:A", 1)])
        .await
        .expect("nobody in line can use it");
    audit_is_clean(&world).await;
}

#[tokio::test]
async fn who_came_first_is_first_for_whichever_pool_comes_free() {
    let world = World::new().await;
    world.stock("seat:e:1", 1).await;
    world.stock("seat:e:2", 1).await;
    let taker = world.reserve(&[("seat:e:1", 1), ("seat:e:2", 1)]).await;
    let taker = taker.expect("free").id;
    let second_seat = stand(&[("seat:e:2", 1)]);
    let either = Stand {
        wish: Wish::new(
            vec![],
            vec![vec![lines(&[("seat:e:2", 1)]), lines(&[("seat:e:1", 1)])]],
            vec![],
        )
        .expect("a wish"),
        ..stand(&[("seat:e:1", 1)])
    };
    let first_seat = stand(&[("seat:e:1", 1)]);
    for one in [&second_seat, &either, &first_seat] {
        joins(&world, one).await;
    }
    world.release(taker).await.expect("live");
    assert!(granted(&world, &second_seat).await.is_some());
    let hold = granted(&world, &either).await.expect("the other one");
    assert_eq!(*hold.taken, [1]);
    assert_eq!(granted(&world, &first_seat).await, None);
    audit_is_clean(&world).await;
}

#[tokio::test]
async fn who_gives_up_his_place_gets_nothing_and_his_id_is_spent() {
    let world = World::new().await;
    world.stock("sku:A", 1).await;
    let taker = world.reserve(&[("sku:A", 1)]).await.expect("free").id;
    let ask = stand(&[("sku:A", 1)]);
    let id = joins(&world, &ask).await;
    // It is nobody's hold yet.
    assert_eq!(world.commit(id).await, Err(Refusal::UnknownHold(id)));
    let mut same_id = reserve(&[("sku:A", 1)]);
    same_id.request = ask.request;
    let refused = world.ledger().reserve(same_id).await;
    assert_eq!(refused, Err(Refusal::HoldMismatch(id)));
    assert_eq!(world.release(id).await, Ok(HoldState::Released));
    assert_eq!(world.release(id).await, Ok(HoldState::Released));
    world.release(taker).await.expect("live");
    assert_eq!(world.balance("sku:A").await, (0, 0, 1));
    let state = HoldState::Released;
    let ended = Err(Refusal::HoldEnded { hold: id, state });
    assert_eq!(world.ledger().stand(ask).await, ended);
    audit_is_clean(&world).await;
}

#[tokio::test]
async fn who_waits_in_vain_leaves_the_line_and_cannot_come_back() {
    let mut world = World::new().await;
    world.stock("sku:A", 1).await;
    let taker = world.reserve(&[("sku:A", 1)]).await.expect("free").id;
    world.commit(taker).await.expect("live");
    let ask = stand(&[("sku:A", 1)]);
    let id = joins(&world, &ask).await;
    world.pass(3_600);
    let state = HoldState::Expired;
    let ended = Refusal::HoldEnded { hold: id, state };
    let stood = world.ledger().stand(ask.clone()).await;
    assert_eq!(stood, Err(ended.clone()));
    world.give_back(taker, &[("sku:A", 1)]).await.expect("sold");
    assert_eq!(world.balance("sku:A").await, (0, 0, 1));
    // There is nothing that a late commit could take up again, here or at the next writer.
    assert_eq!(world.commit(id).await, Err(ended.clone()));
    let next = world.another(Terms::default());
    std::mem::replace(&mut world.writer, next).stop().await;
    assert_eq!(world.commit(id).await, Err(ended));
    assert_eq!(world.release(id).await, Ok(HoldState::Released));
    audit_is_clean(&world).await;
}

#[tokio::test]
async fn the_same_request_stands_once_and_with_other_lines_it_is_refused() {
    let world = World::new().await;
    world.stock("sku:A", 1).await;
    world.reserve(&[("sku:A", 1)]).await.expect("free");
    let ask = stand(&[("sku:A", 1)]);
    let first = world.ledger().stand(ask.clone()).await;
    world.pass(1);
    assert_eq!(world.ledger().stand(ask.clone()).await, first);
    let other = Stand {
        wish: super::world::basket(&[("sku:A", 2)]).into(),
        ..ask.clone()
    };
    let mismatch = Err(Refusal::HoldMismatch(ask.request.makes()));
    assert_eq!(world.ledger().stand(other).await, mismatch);
    let unknown = world.ledger().stand(stand(&[("sku:B", 1)])).await;
    assert_eq!(unknown, Err(Refusal::UnknownPools(vec![pool_key("sku:B")])));
}

#[tokio::test]
async fn the_waitlist_outlives_its_writer_and_keeps_its_order() {
    let mut world = World::new().await;
    world.stock("sku:A", 1).await;
    let taker = world.reserve(&[("sku:A", 1)]).await.expect("free").id;
    let line: Vec<Stand> = (0..3).map(|_| stand(&[("sku:A", 1)])).collect();
    for one in &line {
        joins(&world, one).await;
    }
    let next = world.another(Terms::default());
    std::mem::replace(&mut world.writer, next).stop().await;
    let late = stand(&[("sku:A", 1)]);
    joins(&world, &late).await;
    world.release(taker).await.expect("live");
    for one in line.iter().chain([&late]) {
        let hold = granted(&world, one).await.expect("it is his turn");
        world.release(hold.id).await.expect("live");
    }
    assert_eq!(world.balance("sku:A").await, (0, 0, 1));
    audit_is_clean(&world).await;
}

#[tokio::test]
async fn units_that_came_free_while_nobody_wrote_go_to_who_waits_first() {
    let mut world = World::on(impatient()).await;
    world.stock("sku:A", 1).await;
    world.reserve(&[("sku:A", 1)]).await.expect("free");
    let ask = stand(&[("sku:A", 1)]);
    joins(&world, &ask).await;
    world.writer.strike_down();
    world.pass(600);
    let next = world.another(impatient());
    std::mem::replace(&mut world.writer, next).kill().await;
    let taken = insist(&world, &reserve(&[("sku:A", 1)])).await;
    assert!(
        matches!(taken, Err(Refusal::InsufficientUnits(_))),
        "{taken:?}"
    );
    assert!(granted(&world, &ask).await.is_some());
}

#[tokio::test]
async fn a_grant_whose_connection_is_lost_is_made_once() {
    let world = World::on(impatient()).await;
    world.stock("sku:A", 1).await;
    let taker = world.reserve(&[("sku:A", 1)]).await.expect("free").id;
    let ask = stand(&[("sku:A", 1)]);
    joins(&world, &ask).await;
    let sql = world.sql();
    let mut blocker = sql.begin().await.expect("a connection");
    blocker
        .execute("SELECT 1 FROM pool FOR UPDATE")
        .await
        .expect("locked");
    let ledger = world.ledger().clone();
    let releasing = tokio::spawn(async move { ledger.release(release(taker)).await });
    waiting(&world, 1).await;
    cut_connections(&world).await;
    blocker.rollback().await.expect("unlocked");
    releasing.await.expect("no panic").ok();
    let begun = std::time::Instant::now();
    let hold = loop {
        world.release(taker).await.ok();
        match world.ledger().stand(ask.clone()).await {
            Ok(Stood::Granted(hold)) => break hold,
            _ if begun.elapsed() < PATIENCE => tokio::time::sleep(Duration::from_millis(10)).await,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(hold.state, HoldState::Live);
    assert_eq!(world.kinds("sku:A").await, [7, 1, 3, 1]);
    audit_is_clean(&world).await;
}

#[tokio::test]
async fn a_limit_holds_for_who_stands_in_line_too() {
    let world = World::new().await;
    world.stock("ga:e:standing", 2).await;
    let under_limit = |units: i64| {
        let lines = lines(&[("ga:e:standing", units), ("limit:e:usr_1", units)]);
        let makes = vec![(pool_key("limit:e:usr_1"), 2)];
        Wish::new(lines, vec![], makes).expect("a wish")
    };
    let all = world
        .reserve(&[("ga:e:standing", 2)])
        .await
        .expect("free")
        .id;
    let two = Stand {
        wish: under_limit(2),
        ..stand(&[("ga:e:standing", 1)])
    };
    let one_more = Stand {
        wish: under_limit(1),
        ..stand(&[("ga:e:standing", 1)])
    };
    joins(&world, &two).await;
    joins(&world, &one_more).await;
    // The limit is there with its first request in line, and nothing of it is taken.
    assert_eq!(world.balance("limit:e:usr_1").await, (0, 0, 2));
    world.release(all).await.expect("live");
    let hold = granted(&world, &two).await.expect("under the limit");
    world.adjust("ga:e:standing", 5, 1).await.expect("more");
    assert_eq!(granted(&world, &one_more).await, None);
    // What comes free of the limit is looked at like anything else.
    world.release(hold.id).await.expect("live");
    assert!(granted(&world, &one_more).await.is_some());
    audit_is_clean(&world).await;
}

#[tokio::test]
async fn requests_in_line_count_against_the_limit_of_holds() {
    let world = World::on(Terms {
        account_max_holds: 2,
        ..Terms::default()
    })
    .await;
    world.stock("sku:A", 2).await;
    let account = Some(Name::from("usr_1"));
    let mine = |lines: &[(&str, i64)]| Stand {
        account: account.clone(),
        ..stand(lines)
    };
    let (one, two) = (mine(&[("sku:A", 3)]), mine(&[("sku:A", 2)]));
    joins(&world, &one).await;
    assert!(granted(&world, &two).await.is_some());
    let limit = 2;
    let refused = world.ledger().stand(mine(&[("sku:A", 3)])).await;
    assert_eq!(refused, Err(Refusal::TooManyHolds { limit }));
    // Being granted changes nothing, giving up does.
    world.adjust("sku:A", 3, 1).await.expect("more");
    assert!(granted(&world, &one).await.is_some());
    let refused = world.ledger().stand(mine(&[("sku:A", 3)])).await;
    assert_eq!(refused, Err(Refusal::TooManyHolds { limit }));
    world.release(one.request.makes()).await.expect("live");
    joins(&world, &mine(&[("sku:A", 9)])).await;
}

#[tokio::test]
async fn sixty_four_of_a_line_are_looked_at_and_what_they_cannot_use_is_for_all() {
    let world = World::new().await;
    world.stock("sku:A", 1).await;
    let taker = world.reserve(&[("sku:A", 1)]).await.expect("free").id;
    let greedy: Vec<Stand> = (0..64).map(|_| stand(&[("sku:A", 2)])).collect();
    for one in &greedy {
        joins(&world, one).await;
    }
    let modest = stand(&[("sku:A", 1)]);
    joins(&world, &modest).await;
    world.release(taker).await.expect("live");
    assert_eq!(granted(&world, &modest).await, None);
    let taker = world.reserve(&[("sku:A", 1)]).await.expect("for all").id;
    // One less before him, and he comes into sight.
    world
        .release(greedy[0].request.makes())
        .await
        .expect("waits");
    world.release(taker).await.expect("live");
    assert!(granted(&world, &modest).await.is_some());
}

#[tokio::test]
async fn a_waitlist_longer_than_a_batch_is_served_to_its_end_before_the_next_caller() {
    let world = World::new().await;
    world.stock("sku:A", 1).await;
    world.reserve(&[("sku:A", 1)]).await.expect("free");
    let line: Vec<Stand> = (0..600).map(|_| stand(&[("sku:A", 1)])).collect();
    let standing = line.iter().map(|one| world.ledger().stand(one.clone()));
    for stood in join_all(standing).await {
        assert!(matches!(stood, Ok(Stood::Waiting(_))), "{stood:?}");
    }
    let ledger = world.ledger();
    let adding = ledger.adjust(adjust("sku:A", 600, 1));
    let mut adding = std::pin::pin!(adding);
    assert!(poll!(&mut adding).is_pending(), "it is in the inbox");
    let (added, taken) = tokio::join!(adding, ledger.reserve(reserve(&[("sku:A", 1)])));
    added.expect("more");
    assert!(
        matches!(taken, Err(Refusal::InsufficientUnits(_))),
        "{taken:?}"
    );
    assert_eq!(world.balance("sku:A").await, (601, 0, 0));
    audit_is_clean(&world).await;
}

#[tokio::test]
async fn of_who_gives_up_and_who_is_granted_in_one_moment_one_wins() {
    let world = World::new().await;
    world.stock("sku:A", 1).await;
    let taker = world.reserve(&[("sku:A", 1)]).await.expect("free").id;
    let ask = stand(&[("sku:A", 1)]);
    let id = joins(&world, &ask).await;
    let withdrawal = Release {
        hold: id,
        ..release(taker)
    };
    let ledger = world.ledger();
    let (freed, given_up) =
        tokio::join!(ledger.release(release(taker)), ledger.release(withdrawal));
    freed.expect("live");
    // Granted a moment before, and given up as a hold.
    given_up.expect("in line or held");
    assert_eq!(world.balance("sku:A").await, (0, 0, 1));
    assert_eq!(world.kinds("sku:A").await, [7, 1, 3, 1, 3]);
    audit_is_clean(&world).await;
}
