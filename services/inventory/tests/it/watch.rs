//! Watching pools: what is there, and then what changes.

use std::time::Duration;

use holdfast_platform::{identity::Role, transport};
use holdfast_proto::inventory::v1 as pb;
use tonic::{Code, Status, Streaming};

use crate::world::{World, line};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

struct Watcher(Streaming<pb::WatchResponse>);

impl Watcher {
    async fn next(&mut self) -> Result<pb::WatchResponse, Status> {
        let message = tokio::time::timeout(PATIENCE, self.0.message()).await;
        let message = message.expect("something is told in time")?;
        Ok(message.expect("it has no end"))
    }

    /// Key, available and held units of the pools of the next message that has some.
    async fn changes(&mut self) -> Vec<(String, i64, i64)> {
        loop {
            let message = self.next().await.expect("it goes on");
            if !message.pools.is_empty() {
                assert!(!message.snapshot);
                return figures(&message);
            }
        }
    }
}

fn figures(message: &pb::WatchResponse) -> Vec<(String, i64, i64)> {
    let pools = message.pools.iter();
    pools
        .map(|pool| (pool.key.clone(), pool.available, pool.held))
        .collect()
}

fn one(key: &str, available: i64, held: i64) -> Vec<(String, i64, i64)> {
    vec![(key.to_owned(), available, held)]
}

/// A watcher behind what he has seen, as a peer.
async fn watch(world: &World, prefix: &str, epoch: i64, offset: i64) -> Watcher {
    let message = pb::WatchRequest {
        prefix: prefix.to_owned(),
        epoch,
        offset,
    };
    let mut request = transport::open_ended(message.clone());
    *request.metadata_mut() = world.seller(message).metadata().clone();
    let answer = world.client().watch(request).await;
    Watcher(answer.expect("peers may watch").into_inner())
}

#[tokio::test]
async fn a_watcher_sees_what_is_there_and_then_what_changes() {
    let world = World::new().await;
    world.stock("seat:e:1", 1).await;
    world.stock("seat:e:2", 1).await;
    world.stock("seat:f:1", 1).await;
    let first = world
        .reserve(vec![line("seat:e:1", 1)])
        .await
        .expect("free");
    let mut watcher = watch(&world, "seat:e:", 0, 0).await;
    let there = watcher.next().await.expect("a snapshot");
    assert!(there.snapshot && !there.more);
    let seats = [("seat:e:1", 0, 1), ("seat:e:2", 1, 0)];
    let seats = seats.map(|(key, available, held)| (key.to_owned(), available, held));
    assert_eq!(figures(&there), seats);
    world
        .reserve(vec![line("seat:f:1", 1)])
        .await
        .expect("free");
    world
        .reserve(vec![line("seat:e:2", 1)])
        .await
        .expect("free");
    assert_eq!(watcher.changes().await, one("seat:e:2", 0, 1));
    world.commit(&first.id).await.expect("live");
    assert_eq!(watcher.changes().await, one("seat:e:1", 0, 0));
    // Nobody asks for anything, and the time of a hold is over.
    world.pass(600);
    assert_eq!(watcher.changes().await, one("seat:e:2", 1, 0));
}

#[tokio::test]
async fn who_comes_back_is_told_what_was_missed_and_no_more() {
    let world = World::new().await;
    world.stock("seat:e:1", 1).await;
    world.stock("seat:e:2", 1).await;
    let mut watcher = watch(&world, "seat:e:", 0, 0).await;
    let seen = watcher.next().await.expect("a snapshot");
    drop(watcher);
    world
        .reserve(vec![line("seat:e:2", 1)])
        .await
        .expect("free");
    let mut watcher = watch(&world, "seat:e:", seen.epoch, seen.offset).await;
    let missed = watcher.next().await.expect("what was missed");
    assert!(!missed.snapshot);
    assert_eq!(figures(&missed), one("seat:e:2", 0, 1));
    assert!(missed.offset > seen.offset);
    // Of another writer's time nothing is known.
    let mut watcher = watch(&world, "seat:e:", seen.epoch + 1, seen.offset).await;
    assert!(watcher.next().await.expect("all of it").snapshot);
}

#[tokio::test]
async fn the_public_watches_what_is_available_and_nothing_of_what_is_private() {
    let world = World::new().await;
    world.stock("sku:A", 5).await;
    world.stock("voucher:TEN", 5).await;
    let user = world.somebody(Role::User);
    let open = async |prefix: &str| {
        let message = pb::WatchRequest {
            prefix: prefix.to_owned(),
            ..pb::WatchRequest::default()
        };
        let asked = user.ask(message);
        world.client().watch(asked).await
    };
    let answer = open("sku:").await.expect("anybody may");
    let there = Watcher(answer.into_inner()).next().await;
    let pool = there.expect("a snapshot").pools.remove(0);
    assert_eq!((pool.available, pool.capacity, pool.version), (5, 0, 0));
    let answer = open("voucher:").await.expect("as if there were none");
    let there = Watcher(answer.into_inner()).next().await;
    assert_eq!(there.expect("a snapshot").pools, []);
    let refused = open("voucher").await.expect_err("not even a kind");
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_watch_through_a_process_that_stands_by_lasts_and_ends_with_the_writer() {
    let writer = World::reached().await;
    writer.stock("sku:A", 5).await;
    let standby = writer.another().await;
    let mut watcher = watch(&standby, "sku:", 0, 0).await;
    let there = watcher.next().await.expect("a snapshot");
    assert_eq!(figures(&there), one("sku:A", 5, 0));
    // Longer than any other call may take: the stream is told that there is nothing to tell.
    let silence = watcher.next().await.expect("it goes on");
    assert_eq!((silence.pools, silence.epoch), (vec![], there.epoch));
    writer.kill().await;
    let ended = loop {
        match watcher.next().await {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unavailable);
}
