//! From outbox to effect: what is committed takes effect once, in order per key, whatever goes wrong in between.

mod world;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, atomic::Ordering},
};

use holdfast_platform::{
    bus::{Bus, BusError, Outgoing},
    consumer::{Consumer, Handler, Handling},
    database,
    embedded_log::EmbeddedLog,
    message::Message,
    outbox::{self, Announcement},
    parking::{self, Cause, Skipped},
    relay::{BATCH_MAX_MESSAGES, Fold},
    telemetry::trace::Trace,
    wakeup::Wakeups,
};
use jiff::SignedDuration;
use metrics_exporter_prometheus::PrometheusBuilder;
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use sqlx::{Connection, Executor, PgConnection};
use tokio::sync::{Notify, mpsc};
use world::{
    CONSUMER, Gated, LEVELS, LosesAnswers, Recorder, Running, SERVICE, SlowReader, THINGS, Trouble,
    World, change, change_as, level, moment, thing, told, until,
};

fn of(key: &str, versions: impl IntoIterator<Item = i64>) -> Vec<(String, i64)> {
    versions
        .into_iter()
        .map(|version| (key.to_owned(), version))
        .collect()
}

mod outbox_and_relay {
    use super::*;

    #[tokio::test]
    async fn news_committed_before_a_crash_goes_out_after_the_restart_and_takes_effect_once() {
        let world = World::new().await;
        world.change("a").await;
        // The process dies here: the commit is all that is left of it.
        assert_eq!(world.on_bus(THINGS).await, []);
        let relay = world.relay();
        let relaying = Running::of(|shutdown| tokio::spawn(relay.run(shutdown)));
        let listening = world.listen(&Recorder::default());
        until("the effect is there", async || {
            !world.effects().await.is_empty()
        })
        .await;
        world.settled().await;
        relaying.stop().await;
        listening.stop().await;
        assert_eq!(world.effects().await, of("a", [1]));
        assert_eq!(world.pending().await, 0);
    }

    #[tokio::test]
    async fn what_is_rolled_back_is_never_announced() {
        let world = World::new().await;
        let mut tx = world.pool.begin().await.expect("begin");
        change(&mut tx, "a").await;
        world.carry().await;
        tx.rollback().await.expect("rolled back");
        world.change("b").await;
        world.carry().await;
        assert_eq!(world.on_bus(THINGS).await, of("b", [1]));
    }

    #[tokio::test]
    async fn a_crash_between_append_and_delete_repeats_nothing() {
        let world = World::new().await;
        world.change("a").await;
        world.change("a").await;
        let failed = world.relay_to(Arc::new(LosesAnswers(world.log.clone())));
        for _ in 0..2 {
            failed.pass().await.expect_err("the answer got lost");
        }
        assert_eq!(world.pending().await, 2, "kept until the bus has answered");
        world.change("a").await;
        world.carry().await;
        assert_eq!(world.on_bus(THINGS).await, of("a", [1, 2, 3]));
        assert_eq!(world.pending().await, 0);
    }

    #[tokio::test]
    async fn a_lower_id_that_commits_later_is_carried_and_keys_keep_their_order() {
        let world = World::new().await;
        let mut early = world.pool.begin().await.expect("begin");
        change(&mut early, "a").await;
        world.change("b").await;
        world.change("b").await;
        world.carry().await;
        assert_eq!(world.on_bus(THINGS).await, of("b", [1, 2]));
        early.commit().await.expect("commit");
        world.change("a").await;
        world.carry().await;
        assert_eq!(
            world.on_bus(THINGS).await,
            [of("b", [1, 2]), of("a", [1, 2])].concat()
        );
    }

    #[tokio::test]
    async fn the_second_relay_of_a_service_carries_nothing_while_the_first_is_at_it() {
        let world = World::new().await;
        world.change("a").await;
        let (came, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = world.relay_to(Arc::new(Gated {
            log: world.log.clone(),
            came: came.clone(),
            go_on: go_on.clone(),
        }));
        let first = tokio::spawn(async move { slow.pass().await });
        came.notified().await;
        world.change("a").await;
        assert_eq!(world.relay().pass().await.expect("nothing wrong"), 0);
        assert_eq!(world.on_bus(THINGS).await, []);
        go_on.notify_one();
        assert_eq!(first.await.expect("no panic").expect("carried"), 1);
        assert_eq!(world.relay().pass().await.expect("carried"), 1);
        assert_eq!(world.on_bus(THINGS).await, of("a", [1, 2]));
    }

    #[tokio::test]
    async fn two_relays_and_many_writers_keep_the_order_of_every_key() {
        const KEYS: [&str; 4] = ["a", "b", "c", "d"];
        let world = World::new().await;
        let relays: Vec<Running> = [world.relay(), world.relay()]
            .into_iter()
            .map(|relay| Running::of(|shutdown| tokio::spawn(relay.run(shutdown))))
            .collect();
        let write = async |first: usize| {
            for turn in 0..40 {
                world.change(KEYS[(first + turn) % KEYS.len()]).await;
            }
        };
        tokio::join!(write(0), write(1), write(2), write(3));
        until("all is on the bus", async || {
            world.on_bus(THINGS).await.len() >= 160
        })
        .await;
        for relay in relays {
            relay.stop().await;
        }
        let on_bus = world.on_bus(THINGS).await;
        assert_eq!(on_bus.len(), 160);
        for key in KEYS {
            let versions: Vec<i64> = on_bus
                .iter()
                .filter(|(of, _)| of == key)
                .map(|(_, version)| *version)
                .collect();
            assert_eq!(versions, (1..=40).collect::<Vec<_>>(), "{key}");
        }
    }

    #[tokio::test]
    async fn a_transaction_left_open_in_another_schema_holds_no_news_back() {
        let world = World::new().await;
        let admin = database::connect(&world.database.admin_url(), 1)
            .await
            .expect("admin");
        sqlx::raw_sql("CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.slow (id int4)")
            .execute(&admin)
            .await
            .expect("made");
        let mut open = admin.acquire().await.expect("a connection");
        let mut open = open.begin().await.expect("begin");
        // It has written, and it looks at the world as it was: both horizons stand still.
        sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; INSERT INTO elsewhere.slow VALUES (1)")
            .execute(&mut *open)
            .await
            .expect("written");
        for _ in 0..3 {
            world.change("a").await;
            world.carry().await;
        }
        world.catch_up(&Recorder::default()).await;
        assert_eq!(world.effects().await, of("a", [1, 2, 3]));
        open.rollback().await.expect("it was open all the time");
    }

    #[tokio::test]
    async fn a_backlog_goes_out_in_large_batches() {
        let world = World::new().await;
        let mut tx = world.pool.begin().await.expect("begin");
        let news = (1..=700)
            .map(|version| Announcement::new(LEVELS, "level.changed", "a", version, moment(), &()));
        outbox::announce_all(&mut tx, news.collect())
            .await
            .expect("announced");
        tx.commit().await.expect("commit");
        let relay = world.relay();
        assert_eq!(relay.pass().await.expect("carried"), BATCH_MAX_MESSAGES);
        assert_eq!(
            relay.pass().await.expect("carried"),
            700 - BATCH_MAX_MESSAGES
        );
        assert_eq!(relay.pass().await.expect("nothing left"), 0);
        assert_eq!(world.on_bus(LEVELS).await, of("a", 1..=700));
    }

    #[tokio::test]
    async fn an_announcement_that_cannot_travel_fails_its_transaction() {
        let world = World::new().await;
        let mut conn = world.pool.acquire().await.expect("a connection");
        let too_long = "x".repeat(holdfast_platform::message::ENVELOPE_MAX_BYTES);
        for (news, named) in [
            (
                Announcement::new(THINGS, "thing.changed", "a", 1, moment(), &too_long),
                "bytes",
            ),
            (
                Announcement::new(THINGS, "thing.changed", "a", 0, moment(), &()),
                "version",
            ),
            (
                Announcement::new(THINGS, "thing.changed", "a", 1, moment(), &f64_map()),
                "key must be a string",
            ),
        ] {
            let refused = outbox::announce(&mut conn, news).await.expect_err(named);
            assert!(refused.to_string().contains(named), "{refused}");
        }
        assert_eq!(world.pending().await, 0);
    }

    fn f64_map() -> HashMap<Vec<u8>, u8> {
        HashMap::from([(vec![1], 1)])
    }

    struct LastLevels;

    #[tonic::async_trait]
    impl Fold for LastLevels {
        async fn fold(&self, conn: &mut PgConnection) -> Result<Vec<Announcement>, sqlx::Error> {
            let mut last: Vec<(String, i64)> = sqlx::query_as(
                "WITH taken AS (DELETE FROM raw_change RETURNING key, version)
                 SELECT key, max(version) FROM taken GROUP BY key",
            )
            .fetch_all(conn)
            .await?;
            last.sort();
            let news = |(key, version)| {
                Announcement::new(LEVELS, "level.changed", key, version, moment(), &())
            };
            Ok(last.into_iter().map(news).collect())
        }
    }

    #[tokio::test]
    async fn rows_of_a_services_own_form_go_out_folded_to_the_last_state_of_each_key() {
        let world = World::new().await;
        let write =
            "INSERT INTO raw_change (key, version) VALUES ('a', 1), ('a', 2), ('b', 1), ('a', 5)";
        sqlx::query(write)
            .execute(&world.pool)
            .await
            .expect("written");
        let relay = world.relay().folding(Arc::new(LastLevels));
        relay.drain().await.expect("carried");
        relay.drain().await.expect("nothing left");
        assert_eq!(
            world.on_bus(LEVELS).await,
            [of("a", [5]), of("b", [1])].concat()
        );
        world.catch_up(&Recorder::default()).await;
        assert_eq!(
            world.effects_in(LEVELS).await,
            [of("a", [5]), of("b", [1])].concat()
        );
    }

    #[tokio::test]
    async fn the_outbox_is_measured_while_the_bus_is_away() {
        let world = World::new().await;
        world.change("a").await;
        world.change("b").await;
        let recorder = PrometheusBuilder::new().build_recorder();
        let _measured = metrics::set_default_local_recorder(&recorder);
        let relay = world.relay_to(Arc::new(LosesAnswers(world.log.clone())));
        let relaying = Running::of(|shutdown| tokio::spawn(relay.run(shutdown)));
        until("two rows are told", async || {
            let told = recorder.handle().render();
            told.contains("holdfast_outbox_rows{service=\"things\"} 2")
                && told.contains("holdfast_outbox_oldest_seconds{service=\"things\"}")
        })
        .await;
        relaying.stop().await;
    }
}

mod consuming {
    use super::*;

    #[tokio::test]
    async fn two_readers_of_one_consumer_let_each_message_take_effect_once() {
        let world = World::new().await;
        let recorder = Recorder::default();
        let readers = [world.listen(&recorder), world.listen(&recorder)];
        for round in 0..10 {
            for key in ["a", "b", "c"] {
                for _ in 0..=round % 3 {
                    world.change(key).await;
                }
            }
            world.carry().await;
        }
        world.settled().await;
        for reader in readers {
            reader.stop().await;
        }
        for key in ["a", "b", "c"] {
            assert_eq!(
                world.effects_of(key).await,
                (1..=19).collect::<Vec<_>>(),
                "{key}"
            );
        }
    }

    #[tokio::test]
    async fn a_reader_that_was_overtaken_goes_on_where_the_other_is() {
        let world = World::new().await;
        world.put(&thing("a", 1)).await;
        let (sender, mut reads) = mpsc::unbounded_channel();
        let slow = SlowReader {
            log: world.log.clone(),
            reads: sender,
            go_on: Arc::new(Notify::new()),
        };
        let (late, quick) = (Recorder::default(), Recorder::default());
        let late_one = world.listen_to(Arc::new(slow.clone()), &late);
        assert_eq!(reads.recv().await, Some(0));
        world.put(&thing("a", 2)).await;
        world.catch_up(&quick).await;
        // Now it comes with what the other has done, and must not take the position back.
        slow.go_on.notify_one();
        world.put(&thing("a", 3)).await;
        assert_eq!(reads.recv().await, Some(2));
        slow.go_on.notify_one();
        world.settled().await;
        late_one.stop().await;
        assert_eq!(world.effects().await, of("a", [1, 2, 3]));
    }

    #[tokio::test]
    async fn duplicates_in_any_order_come_to_the_same_as_perfect_delivery() {
        const KEYS: [&str; 3] = ["a", "b", "c"];
        const VERSIONS: i64 = 12;
        for seed in 0..6 {
            let world = World::new().await;
            let recorder = Recorder::default();
            let mut messages = Vec::new();
            for key in KEYS {
                for version in 1..=VERSIONS {
                    messages.extend([thing(key, version), thing(key, version)]);
                    messages.push(level(key, version));
                }
            }
            messages.shuffle(&mut StdRng::seed_from_u64(seed));
            // Reading begins somewhere in the middle, so that batches end anywhere.
            for message in &messages[..30] {
                world.put(message).await;
            }
            let listening = world.listen(&recorder);
            for message in &messages[30..] {
                world.put(message).await;
            }
            world.settled().await;
            listening.stop().await;
            assert_eq!(world.parked().await, [], "seed {seed}");
            let levels = world.effects_in(LEVELS).await;
            for key in KEYS {
                let every: Vec<i64> = (1..=VERSIONS).collect();
                assert_eq!(world.effects_of(key).await, every, "{key}, seed {seed}");
                let rising: Vec<i64> = levels
                    .iter()
                    .filter(|(of, _)| of == key)
                    .map(|(_, version)| *version)
                    .collect();
                assert!(rising.is_sorted(), "{rising:?}, seed {seed}");
                assert_eq!(rising.last(), Some(&VERSIONS), "{key}, seed {seed}");
            }
        }
    }

    #[tokio::test]
    async fn a_gap_parks_what_is_behind_it_and_ends_when_the_missing_message_comes() {
        let world = World::new().await;
        let recorder = Recorder::default();
        for message in [
            thing("a", 1),
            thing("a", 4),
            thing("a", 3),
            thing("b", 2),
            thing("c", 1),
        ] {
            world.put(&message).await;
        }
        world.catch_up(&recorder).await;
        assert_eq!(world.effects().await, [of("a", [1]), of("c", [1])].concat());
        let parked: Vec<_> = world
            .parked()
            .await
            .into_iter()
            .map(|parked| (parked.key, parked.version, parked.cause, parked.reason))
            .collect();
        let gap = |key: &str, version: i64, wanted: i64| {
            let reason = format!("version is {version}, wanted {wanted}");
            (key.to_owned(), Some(version), Cause::Gap, reason)
        };
        assert_eq!(parked, [gap("a", 4, 2), gap("a", 3, 2), gap("b", 2, 1)]);
        world.put(&thing("a", 2)).await;
        world.catch_up(&recorder).await;
        assert_eq!(world.effects_of("a").await, [1, 2, 3, 4]);
        assert_eq!(world.parked().await.len(), 1, "b still waits for its first");
    }

    #[tokio::test]
    async fn of_state_messages_only_older_ones_are_dropped() {
        let world = World::new().await;
        for version in [3, 7, 5, 7, 20] {
            world.put(&level("a", version)).await;
        }
        world.catch_up(&Recorder::default()).await;
        assert_eq!(world.effects_in(LEVELS).await, of("a", [3, 7, 20]));
        assert_eq!(world.parked().await, []);
    }

    #[tokio::test]
    async fn types_nobody_listens_to_advance_the_version_of_their_key() {
        let world = World::new().await;
        let mut tx = world.pool.begin().await.expect("begin");
        for kind in ["thing.made", "thing.changed", "thing.seen", "thing.changed"] {
            change_as(&mut tx, "a", kind).await;
        }
        tx.commit().await.expect("commit");
        world.carry().await;
        world.catch_up(&Recorder::default()).await;
        assert_eq!(world.effects().await, of("a", [2, 4]));
        assert_eq!(world.parked().await, []);
    }

    #[tokio::test]
    async fn a_fault_that_passes_halts_the_partition_and_loses_nothing() {
        let world = World::new().await;
        let recorder = Recorder::default();
        recorder.fail_on("a", 2, Trouble::Transient);
        for key in ["a", "a", "b", "a"] {
            world.change(key).await;
        }
        world.carry().await;
        let listening = world.listen(&recorder);
        until("it was tried again", async || {
            recorder.failures.load(Ordering::Relaxed) > 2
        })
        .await;
        assert_eq!(
            world.effects().await,
            of("a", [1]),
            "what came before it took effect"
        );
        assert_eq!(world.parked().await, []);
        recorder.repair();
        world.settled().await;
        listening.stop().await;
        assert_eq!(
            world.effects().await,
            [of("a", [1, 2]), of("b", [1]), of("a", [3])].concat()
        );
    }

    #[tokio::test]
    async fn a_position_older_than_the_log_stops_the_consumer_and_raises_an_alarm() {
        let world = World::new().await;
        let recorder = Recorder::default();
        world.change("a").await;
        world.carry().await;
        world.catch_up(&recorder).await;
        for _ in 0..3 {
            world.change("a").await;
        }
        world.carry().await;
        world.age(3).await;
        assert_eq!(
            world
                .log
                .drop_behind(SignedDuration::from_hours(2))
                .await
                .expect("dropped"),
            4
        );
        let metrics = PrometheusBuilder::new().build_recorder();
        let _measured = metrics::set_default_local_recorder(&metrics);
        let listening = world.listen(&recorder);
        until("it is told that the consumer stopped", async || {
            let labels = "consumer=\"things.recorder\",topic=\"holdfast.things\",partition=\"0\"";
            let told = format!("holdfast_consumer_stopped{{{labels}}} 1");
            metrics.handle().render().contains(&told)
        })
        .await;
        // The other topic goes on.
        world.put(&level("a", 1)).await;
        until("a level took effect", async || {
            !world.effects_in(LEVELS).await.is_empty()
        })
        .await;
        listening.stop().await;
        assert_eq!(
            world.effects().await,
            of("a", [1]),
            "nothing was passed over"
        );
    }

    #[tokio::test]
    async fn a_consumer_that_comes_late_or_forgot_old_keys_takes_the_next_version_it_meets() {
        let world = World::new().await;
        let recorder = Recorder::default();
        for _ in 0..3 {
            world.change("a").await;
        }
        world.carry().await;
        world.catch_up(&recorder).await;
        world.age(3).await;
        assert_eq!(
            world
                .log
                .drop_behind(SignedDuration::from_hours(2))
                .await
                .expect("dropped"),
            3
        );
        let listening = world.listen(&recorder);
        until("the key is forgotten", async || {
            world.known_keys().await == 0
        })
        .await;
        listening.stop().await;
        world.change("a").await;
        world.carry().await;
        world.catch_up(&recorder).await;
        assert_eq!(world.effects_of("a").await, [1, 2, 3, 4]);
        world.forget_consumer().await;
        world.catch_up(&recorder).await;
        assert_eq!(
            world.effects_of("a").await,
            [1, 2, 3, 4, 4],
            "it began at the oldest there is"
        );
        assert_eq!(world.parked().await, []);
    }
}

mod at_once {
    use super::*;

    #[tokio::test]
    async fn what_is_read_together_is_handled_at_once_but_for_types_nobody_listens_to() {
        let world = World::new().await;
        let recorder = Recorder::taking_all();
        for (key, version) in [("a", 1), ("b", 1), ("a", 2), ("a", 2)] {
            world.put(&thing(key, version)).await;
        }
        world.put(&told(THINGS, "thing.ignored", "b", 2)).await;
        world.put(&thing("b", 3)).await;
        world.catch_up(&recorder).await;
        let effects = [of("a", [1]), of("b", [1]), of("a", [2]), of("b", [3])];
        assert_eq!(world.effects().await, effects.concat());
        assert_eq!(recorder.given(), [4]);
        assert_eq!(world.parked().await, []);
    }

    #[tokio::test]
    async fn what_fails_at_once_is_handled_one_by_one_and_only_the_one_at_fault_is_parked() {
        for trouble in [Trouble::Permanent, Trouble::Panic] {
            let world = World::new().await;
            let recorder = Recorder::taking_all();
            recorder.fail_on("b", 1, trouble);
            for key in ["a", "b", "a", "b"] {
                world.change(key).await;
            }
            world.carry().await;
            world.catch_up(&recorder).await;
            assert_eq!(world.effects().await, of("a", [1, 2]));
            assert_eq!(
                world.causes().await,
                [(Some(1), Cause::Fault), (Some(2), Cause::Behind)]
            );
            assert_eq!(recorder.given(), [4], "once, then one by one");
        }
    }

    #[tokio::test]
    async fn a_fault_that_passes_halts_the_partition_at_the_message_that_met_it() {
        let world = World::new().await;
        let recorder = Recorder::taking_all();
        recorder.fail_on("b", 1, Trouble::Transient);
        for key in ["a", "b", "c"] {
            world.change(key).await;
        }
        world.carry().await;
        let listening = world.listen(&recorder);
        until("it was tried again", async || {
            recorder.failures.load(Ordering::Relaxed) > 3
        })
        .await;
        assert_eq!(world.effects().await, of("a", [1]));
        recorder.repair();
        world.settled().await;
        listening.stop().await;
        let effects = [of("a", [1]), of("b", [1]), of("c", [1])].concat();
        assert_eq!(world.effects().await, effects);
        assert_eq!(world.parked().await, []);
    }

    #[tokio::test]
    async fn what_was_gathered_takes_effect_before_a_message_that_fills_a_gap() {
        let world = World::new().await;
        let recorder = Recorder::taking_all();
        for (key, version) in [("a", 1), ("a", 3), ("b", 1), ("a", 2), ("a", 4)] {
            world.put(&thing(key, version)).await;
        }
        world.catch_up(&recorder).await;
        let effects = [of("a", [1]), of("b", [1]), of("a", [2, 3, 4])].concat();
        assert_eq!(world.effects().await, effects);
        assert_eq!(recorder.given(), [2, 1]);
        assert_eq!(world.parked().await, []);
    }
}

mod parked {
    use super::*;

    #[tokio::test]
    async fn a_poisoned_key_is_parked_with_its_reason_while_others_go_on_and_replays_in_order() {
        let world = World::new().await;
        let recorder = Recorder::default();
        recorder.fail_on("a", 2, Trouble::Permanent);
        for key in ["a", "b", "a", "b", "a", "b"] {
            world.change(key).await;
        }
        world.carry().await;
        world.catch_up(&recorder).await;
        assert_eq!(world.effects_of("a").await, [1]);
        assert_eq!(world.effects_of("b").await, [1, 2, 3]);
        assert_eq!(
            world.causes().await,
            [(Some(2), Cause::Fault), (Some(3), Cause::Behind)]
        );
        assert_eq!(world.parked().await[0].reason, "no such thing");

        let still = world.replay(&recorder, "a").await;
        assert_eq!(still.handled, 0);
        assert_eq!(
            still.stopped.expect("not repaired yet").reason,
            "no such thing"
        );
        assert_eq!(
            world.effects_of("a").await,
            [1],
            "its effect was rolled back"
        );

        recorder.repair();
        let replayed = world.replay(&recorder, "a").await;
        assert_eq!(
            (replayed.handled, replayed.dropped, replayed.stopped),
            (2, 0, None)
        );
        assert_eq!(world.effects_of("a").await, [1, 2, 3]);
        assert_eq!(world.parked().await, []);

        world.change("a").await;
        world.carry().await;
        world.catch_up(&recorder).await;
        assert_eq!(world.effects_of("a").await, [1, 2, 3, 4]);
        let again = world.replay(&recorder, "a").await;
        assert_eq!((again.handled, again.dropped, again.stopped), (0, 0, None));
    }

    #[tokio::test]
    async fn messages_that_arrive_during_a_replay_neither_overtake_nor_get_lost() {
        let world = World::new().await;
        let recorder = Recorder::default();
        recorder.fail_on("a", 1, Trouble::Permanent);
        for _ in 0..20 {
            world.change("a").await;
        }
        world.carry().await;
        world.catch_up(&recorder).await;
        recorder.repair();
        let listening = world.listen(&recorder);
        let (replayed, ()) = tokio::join!(world.replay(&recorder, "a"), async {
            for _ in 0..20 {
                world.change("a").await;
                world.carry().await;
            }
        });
        assert_eq!(replayed.stopped, None);
        world.settled().await;
        listening.stop().await;
        assert_eq!(world.effects_of("a").await, (1..=40).collect::<Vec<_>>());
        assert_eq!(world.parked().await, []);
    }

    #[tokio::test]
    async fn a_message_that_arrives_while_the_last_parked_one_is_replayed_is_not_left_behind() {
        let world = World::new().await;
        let recorder = Recorder::default();
        recorder.fail_on("a", 1, Trouble::Permanent);
        world.change("a").await;
        world.carry().await;
        world.catch_up(&recorder).await;
        recorder.fail_on("a", 1, Trouble::Waits);
        let listening = world.listen(&recorder);
        let (replayed, ()) = tokio::join!(world.replay(&recorder, "a"), async {
            recorder.came.notified().await;
            world.change("a").await;
            world.carry().await;
            until(
                "the consumer waits for the replay, or went past it",
                async || world.is_anybody_waiting().await || world.position().await == 2,
            )
            .await;
            recorder.go_on.notify_one();
        });
        assert_eq!(replayed.handled, 1);
        world.settled().await;
        listening.stop().await;
        assert_eq!(world.effects_of("a").await, [1, 2]);
        assert_eq!(world.parked().await, []);
    }

    #[tokio::test]
    async fn a_message_that_cannot_be_read_blocks_its_key_until_somebody_skips_it() {
        let world = World::new().await;
        let recorder = Recorder::default();
        world.put(&thing("a", 1)).await;
        world.put_raw(THINGS.name(), "a", "not even JSON").await;
        world.put(&thing("a", 3)).await;
        world.put(&thing("b", 1)).await;
        world.catch_up(&recorder).await;
        assert_eq!(world.effects().await, [of("a", [1]), of("b", [1])].concat());
        assert_eq!(
            world.causes().await,
            [(None, Cause::Fault), (Some(3), Cause::Behind)]
        );
        assert!(world.parked().await[0].reason.contains("not a CloudEvent"));

        let stopped = world.replay(&recorder, "a").await.stopped;
        assert_eq!(
            stopped.expect("it is still unreadable").id,
            world.parked().await[0].id
        );
        let skipped = world.skip(&recorder, "a").await;
        assert!(matches!(skipped, Some(Skipped::Message(parked)) if parked.version.is_none()));
        let stopped = world.replay(&recorder, "a").await.stopped.expect("a gap");
        assert_eq!(stopped.reason, "version is 3, wanted 2");
        assert_eq!(
            world.skip(&recorder, "a").await,
            Some(Skipped::Gap { from: 2, to: 2 })
        );
        assert_eq!(world.replay(&recorder, "a").await.handled, 1);
        assert_eq!(world.effects_of("a").await, [1, 3]);
        assert_eq!(world.skip(&recorder, "a").await, None);
    }

    #[tokio::test]
    async fn a_handler_that_panics_parks_the_message_and_the_consumer_lives() {
        let world = World::new().await;
        let recorder = Recorder::default();
        recorder.fail_on("a", 1, Trouble::Panic);
        for key in ["a", "b"] {
            world.change(key).await;
        }
        world.carry().await;
        world.catch_up(&recorder).await;
        assert_eq!(world.effects().await, of("b", [1]));
        assert_eq!(world.parked().await[0].reason, "handler panicked");
    }

    #[tokio::test]
    async fn a_fault_among_messages_that_a_gap_kept_waiting_parks_the_rest_of_the_key() {
        let world = World::new().await;
        let recorder = Recorder::default();
        recorder.fail_on("a", 3, Trouble::Permanent);
        for message in [
            thing("a", 2),
            thing("a", 3),
            thing("a", 4),
            thing("a", 1),
            thing("a", 5),
        ] {
            world.put(&message).await;
        }
        world.catch_up(&recorder).await;
        assert_eq!(world.effects_of("a").await, [1, 2]);
        let parked = [
            (Some(3), Cause::Fault),
            (Some(4), Cause::Gap),
            (Some(5), Cause::Behind),
        ];
        assert_eq!(world.causes().await, parked);
        recorder.repair();
        assert_eq!(world.replay(&recorder, "a").await.handled, 3);
        assert_eq!(world.effects_of("a").await, [1, 2, 3, 4, 5]);
    }

    #[tokio::test]
    async fn a_replay_names_a_topic_the_consumer_listens_to() {
        let world = World::new().await;
        let consumer = Recorder::default().consumer();
        let refused = parking::replay(&world.pool, &consumer, "holdfast.other", "a")
            .await
            .expect_err("not listened to");
        assert!(refused.to_string().contains("holdfast.other"), "{refused}");
    }
}

mod log {
    use super::*;

    #[tokio::test]
    async fn old_messages_are_dropped_from_the_front_and_never_those_of_the_last_hour() {
        let world = World::new().await;
        for version in 1..=5 {
            world.put(&thing("a", version)).await;
        }
        let keep = SignedDuration::from_hours(2);
        assert_eq!(
            world.log.drop_behind(keep).await.expect("nothing is old"),
            0
        );
        world.age(3).await;
        world.put(&thing("a", 6)).await;
        assert_eq!(world.log.drop_behind(keep).await.expect("dropped"), 5);
        assert_eq!(world.on_bus(THINGS).await, of("a", [6]));
        let refused = world.log.drop_behind(SignedDuration::from_mins(59)).await;
        assert!(
            refused
                .expect_err("less than an hour")
                .to_string()
                .contains("one hour")
        );
        for forbidden in [
            "DELETE FROM message",
            "UPDATE message SET key = ''",
            "TRUNCATE message",
        ] {
            let refused = sqlx::query(forbidden).execute(&world.bus_pool).await;
            assert!(
                refused
                    .expect_err(forbidden)
                    .to_string()
                    .contains("permission denied")
            );
        }
    }

    #[tokio::test]
    async fn appends_of_many_services_get_offsets_without_holes() {
        let world = World::new().await;
        let append = async |service: &'static str| {
            for outbox_id in 1..=20 {
                let message = thing(service, outbox_id);
                let outgoing = Outgoing {
                    outbox_id,
                    message_id: message.id,
                    topic: THINGS.name().to_owned(),
                    key: message.key.clone(),
                    envelope: message.to_envelope(),
                };
                // Every one twice, as after a lost answer.
                for _ in 0..2 {
                    world
                        .log
                        .append(service, std::slice::from_ref(&outgoing))
                        .await
                        .expect("appended");
                }
            }
        };
        tokio::join!(append("one"), append("two"), append("three"));
        let offsets: Vec<i64> =
            sqlx::query_scalar("SELECT log_offset FROM message ORDER BY log_offset")
                .fetch_all(&world.bus_pool)
                .await
                .expect("bus");
        assert_eq!(offsets, (0..60).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn an_outbox_id_used_again_for_another_message_is_refused() {
        let world = World::new().await;
        let outgoing = |version| Outgoing {
            outbox_id: 1,
            message_id: thing("a", version).id,
            topic: THINGS.name().to_owned(),
            key: "a".to_owned(),
            envelope: thing("a", version).to_envelope(),
        };
        world
            .log
            .append(SERVICE, &[outgoing(1)])
            .await
            .expect("appended");
        let refused = world
            .log
            .append(SERVICE, &[outgoing(2)])
            .await
            .expect_err("used");
        assert!(matches!(refused, BusError::Reused { .. }), "{refused}");
        assert_eq!(world.on_bus(THINGS).await, of("a", [1]));
    }

    #[tokio::test]
    async fn a_position_behind_the_end_of_the_log_is_refused() {
        let world = World::new().await;
        world.put(&thing("a", 1)).await;
        let mut subscription = world
            .log
            .subscribe(CONSUMER, &[THINGS])
            .await
            .expect("subscribed");
        let mut partition = subscription.next().await.expect("the only one");
        assert_eq!(partition.read(0).await.expect("there").len(), 1);
        let refused = partition.read(2).await.expect_err("the log ends before");
        assert!(
            matches!(
                refused,
                BusError::Ahead {
                    wanted: 2,
                    end: 1,
                    ..
                }
            ),
            "{refused}"
        );
    }

    #[tokio::test]
    async fn an_append_wakes_those_who_wait_in_another_process() {
        let world = World::new().await;
        let elsewhere = Wakeups::default();
        let mut woken = elsewhere.of(THINGS.name());
        let url = world.database.bus_url();
        let listening =
            Running::of(|shutdown| tokio::spawn(elsewhere.clone().listen(url, shutdown)));
        woken
            .changed()
            .await
            .expect("all are woken once it listens");
        let here = EmbeddedLog::new(world.bus_pool.clone(), Wakeups::default());
        let message = thing("a", 1);
        let outgoing = Outgoing {
            outbox_id: 1,
            message_id: message.id,
            topic: message.topic.clone(),
            key: message.key.clone(),
            envelope: message.to_envelope(),
        };
        here.append(SERVICE, &[outgoing]).await.expect("appended");
        tokio::time::timeout(std::time::Duration::from_secs(30), woken.changed())
            .await
            .expect("in time")
            .expect("still listening");
        listening.stop().await;
    }

    #[tokio::test]
    async fn a_topic_told_of_before_anybody_listens_is_read_from_its_beginning() {
        let world = World::new().await;
        world.put(&told(THINGS, "thing.changed", "a", 1)).await;
        world.catch_up(&Recorder::default()).await;
        assert_eq!(world.effects().await, of("a", [1]));
    }
}

mod reading {
    use holdfast_platform::{
        bus::{Partition, Record},
        wakeup::Wakeups,
    };
    use rand::Rng;
    use tokio::task::JoinSet;

    use super::*;

    /// A log as another process has it.
    fn elsewhere(world: &World) -> EmbeddedLog {
        EmbeddedLog::new(world.bus_pool.clone(), Wakeups::default())
    }

    async fn partition(log: &EmbeddedLog) -> Box<dyn Partition> {
        let mut subscription = log
            .subscribe(CONSUMER, &[THINGS])
            .await
            .expect("subscribed");
        subscription.next().await.expect("the only one")
    }

    fn news(outbox_id: i64) -> Outgoing {
        let message = thing(&format!("thing-{outbox_id}"), 1);
        Outgoing {
            outbox_id,
            message_id: message.id,
            topic: message.topic.clone(),
            key: message.key.clone(),
            envelope: message.to_envelope(),
        }
    }

    async fn append(log: &EmbeddedLog, outbox_ids: impl IntoIterator<Item = i64>) {
        let outgoing: Vec<Outgoing> = outbox_ids.into_iter().map(news).collect();
        log.append(SERVICE, &outgoing).await.expect("appended");
    }

    /// How often the log was read so far, for one reader alone or for all who wait.
    fn reads(rendered: &str, by: &str) -> usize {
        let name = format!("holdfast_log_reads_total{{by=\"{by}\"}} ");
        let counted = rendered.lines().find_map(|line| line.strip_prefix(&name));
        counted.map_or(0, |count| count.parse().expect("a count"))
    }

    /// Reads on from there, until so many were read.
    async fn read_all(mut partition: Box<dyn Partition>, from: i64, count: usize) -> Vec<Record> {
        let mut all: Vec<Record> = Vec::new();
        while all.len() < count {
            let next = all.last().map_or(from, |last| last.log_offset + 1);
            all.extend(partition.read(next).await.expect("read"));
        }
        all
    }

    #[tokio::test]
    async fn what_a_process_appends_its_readers_do_not_ask_the_log_for() {
        let metrics = PrometheusBuilder::new().build_recorder();
        let _counting = metrics::set_default_local_recorder(&metrics);
        let world = World::new().await;
        append(&world.log, [1]).await;
        let mut readers = Vec::new();
        for _ in 0..5 {
            let mut reader = partition(&world.log).await;
            assert_eq!(reader.read(0).await.expect("read").len(), 1);
            readers.push(reader);
        }
        assert_eq!(reads(&metrics.handle().render(), "alone"), 1, "the first");
        append(&world.log, [2, 3]).await;
        for reader in &mut readers {
            assert_eq!(reader.read(1).await.expect("read").len(), 2);
        }
        let rendered = metrics.handle().render();
        assert_eq!(
            (reads(&rendered, "alone"), reads(&rendered, "for all")),
            (1, 0)
        );
    }

    #[tokio::test]
    async fn what_another_process_appends_one_reads_for_all_who_wait() {
        const READERS: usize = 40;
        let metrics = PrometheusBuilder::new().build_recorder();
        let _counting = metrics::set_default_local_recorder(&metrics);
        let world = World::new().await;
        let wakeups = Wakeups::default();
        let log = EmbeddedLog::new(world.bus_pool.clone(), wakeups.clone());
        append(&log, [1]).await;
        let mut reading = JoinSet::new();
        for _ in 0..READERS {
            let mut reader = partition(&log).await;
            assert_eq!(reader.read(0).await.expect("read").len(), 1);
            reading.spawn(async move { reader.read(1).await.expect("read").len() });
        }
        append(&elsewhere(&world), [2]).await;
        // As the notification of the append would.
        wakeups.grown(THINGS.name(), 2);
        assert_eq!(reading.join_all().await, [1; READERS]);
        let rendered = metrics.handle().render();
        assert_eq!(reads(&rendered, "alone"), 1);
        // One for the news, and one a second if the machine is that slow.
        let for_all = reads(&rendered, "for all");
        assert!((1..READERS / 4).contains(&for_all), "{for_all} reads");
    }

    #[tokio::test]
    async fn who_is_far_behind_reads_by_himself_until_he_has_caught_up() {
        let world = World::new().await;
        append(&world.log, [1]).await;
        let (mut quick, slow) = (partition(&world.log).await, partition(&world.log).await);
        assert_eq!(quick.read(0).await.expect("read").len(), 1);
        // More than is kept in memory.
        for batch in 0..5 {
            append(&world.log, (0..300).map(|place| 2 + batch * 300 + place)).await;
        }
        let (behind, ahead) = tokio::join!(read_all(slow, 0, 1_501), read_all(quick, 1, 1_500));
        let offsets: Vec<i64> = behind.iter().map(|record| record.log_offset).collect();
        assert_eq!(offsets, (0..1_501).collect::<Vec<i64>>());
        assert_eq!(behind[1..], ahead);
    }

    #[tokio::test]
    async fn readers_of_two_processes_see_the_same_messages_in_the_same_order_whoever_appends() {
        const BATCHES: i64 = 40;
        let world = World::new().await;
        let logs = [elsewhere(&world), elsewhere(&world)];
        let mut random = StdRng::seed_from_u64(7);
        let mut appending = JoinSet::new();
        let mut count = 0;
        for writer in 0..4 {
            let sizes: Vec<i64> = (0..BATCHES).map(|_| random.random_range(1..=9)).collect();
            count += sizes.iter().sum::<i64>();
            let log = logs[writer as usize % 2].clone();
            appending.spawn(async move {
                let mut next = writer * 1_000_000;
                for size in sizes {
                    append(&log, next..next + size).await;
                    next += size;
                }
            });
        }
        let mut reading = JoinSet::new();
        for reader in 0..6 {
            let partition = partition(&logs[reader % 2]).await;
            reading.spawn(read_all(partition, 0, count as usize));
        }
        appending.join_all().await;
        let on_bus = world.on_bus(THINGS).await;
        assert_eq!(on_bus.len(), count as usize);
        for read in reading.join_all().await {
            let read: Vec<(String, i64)> = read
                .iter()
                .map(|record| Message::from_envelope(&record.envelope).expect("a message"))
                .map(|message| (message.key, message.version))
                .collect();
            assert_eq!(read, on_bus);
        }
    }

    #[tokio::test]
    async fn a_log_that_turns_out_to_be_an_older_copy_stops_who_waits_at_its_end() {
        let world = World::new().await;
        append(&world.log, [1, 2, 3]).await;
        let mut reader = partition(&world.log).await;
        assert_eq!(reader.read(0).await.expect("read").len(), 3);
        let mut admin = PgConnection::connect(&world.database.admin_url())
            .await
            .expect("the server is there");
        admin
            .execute(
                "DELETE FROM bus.message WHERE log_offset >= 1;
                 UPDATE bus.topic SET next_offset = 1",
            )
            .await
            .expect("restored");
        let refused = reader.read(3).await.expect_err("the log ends before");
        assert!(
            matches!(
                refused,
                BusError::Ahead {
                    wanted: 3,
                    end: 1,
                    ..
                }
            ),
            "{refused}"
        );
        // And what it gets from there on is read as its own.
        append(&world.log, [4]).await;
        assert_eq!(
            reader.read(1).await.expect("read"),
            read_all(partition(&elsewhere(&world)).await, 1, 1).await
        );
    }

    #[tokio::test]
    async fn a_paced_consumer_takes_together_what_keeps_coming() {
        const PACE: std::time::Duration = std::time::Duration::from_millis(500);
        const COUNT: i64 = 100;
        let world = World::new().await;
        let recorder = Recorder::taking_all();
        let consumer = recorder.consumer().paced(PACE);
        let began = std::time::Instant::now();
        let listening = Running::of(|shutdown| {
            tokio::spawn(consumer.run(world.pool.clone(), world.bus(), shutdown))
        });
        for version in 1..=COUNT {
            world.put(&thing("a", version)).await;
        }
        world.settled().await;
        let batches = recorder.given().len();
        let paces = began.elapsed().as_millis() / PACE.as_millis();
        listening.stop().await;
        assert_eq!(world.effects().await, of("a", 1..=COUNT));
        assert!(
            batches as u128 <= paces + 1,
            "{batches} batches in {paces} paces"
        );
    }
}

mod traces {
    use super::*;

    /// Answers each change of a thing by changing another, and remembers in which trace.
    #[derive(Clone, Default)]
    struct Answers(Arc<Mutex<Vec<String>>>);

    #[tonic::async_trait]
    impl Handler for Answers {
        async fn handle(&self, conn: &mut PgConnection, message: &Message) -> Result<(), Handling> {
            let trace = Trace::current().expect("a message is handled in a trace");
            let seen = trace.id().to_string();
            self.0.lock().expect("not poisoned").push(seen);
            if message.key == "asked" {
                change(conn, "answered").await;
            }
            Ok(())
        }
    }

    #[tokio::test]
    async fn news_bears_the_trace_it_was_announced_in_and_its_listeners_go_on_with_it() {
        let world = World::new().await;
        let trace = Trace::begin();
        trace.scope(world.change("asked")).await;
        world.carry().await;
        let heard = Answers::default();
        let consumer = Consumer::new(CONSUMER, world::INTERESTS, heard.clone());
        let listening = Running::of(|shutdown| {
            tokio::spawn(consumer.run(world.pool.clone(), world.bus(), shutdown))
        });
        world.settled().await;
        // The relay works in no trace; what it carries keeps its own.
        world.carry().await;
        world.settled().await;
        listening.stop().await;
        assert_eq!(world.on_bus(THINGS).await.len(), 2);
        let id = trace.id().to_string();
        assert_eq!(*heard.0.lock().expect("not poisoned"), [id.clone(), id]);
    }

    #[tokio::test]
    async fn news_that_nobody_asked_for_begins_a_trace_where_it_is_heard() {
        let world = World::new().await;
        world.change("a").await;
        world.carry().await;
        let mut malformed = thing("b", 1);
        malformed.traceparent = Some("00-malformed".to_owned());
        world.put(&malformed).await;
        let heard = Answers::default();
        let consumer = Consumer::new(CONSUMER, world::INTERESTS, heard.clone());
        let listening = Running::of(|shutdown| {
            tokio::spawn(consumer.run(world.pool.clone(), world.bus(), shutdown))
        });
        world.settled().await;
        listening.stop().await;
        let traces = heard.0.lock().expect("not poisoned");
        assert_eq!(traces.len(), 2);
        assert_ne!(traces[0], traces[1]);
    }
}

mod hearing {
    use holdfast_platform::hearing::{Hearing, Listener};

    use super::*;

    /// Notes what it hears, and whether it hears.
    #[derive(Default)]
    struct Ear {
        heard: Mutex<Vec<String>>,
        hears: Mutex<Vec<bool>>,
    }

    impl Listener for Ear {
        fn heard(&self, message: &Message) {
            let heard = format!("{} {}", message.key, message.version);
            self.heard.lock().expect("not poisoned").push(heard);
        }

        fn set_hearing(&self, hears: bool) {
            self.hears.lock().expect("not poisoned").push(hears);
        }
    }

    impl Ear {
        fn heard(&self) -> Vec<String> {
            self.heard.lock().expect("not poisoned").clone()
        }

        fn hears(&self) -> Vec<bool> {
            self.hears.lock().expect("not poisoned").clone()
        }
    }

    fn open(bus: Arc<dyn Bus>) -> (Arc<Ear>, Running) {
        let ear = Arc::new(Ear::default());
        let hearing = Hearing::new(SERVICE, &[THINGS, LEVELS], ear.clone());
        let running = Running::of(|shutdown| tokio::spawn(hearing.run(bus, shutdown)));
        (ear, running)
    }

    #[tokio::test]
    async fn every_process_hears_all_that_is_told_from_when_it_says_so() {
        let world = World::new().await;
        world.put(&thing("before", 1)).await;
        let (one, other) = (open(world.bus()), open(world.bus()));
        for (ear, _) in [&one, &other] {
            until("it hears", async || ear.hears() == [true]).await;
        }
        world.put(&thing("a", 1)).await;
        world.put(&level("b", 7)).await;
        for (ear, _) in [&one, &other] {
            until("both came", async || ear.heard().len() == 2).await;
            let mut heard = ear.heard();
            heard.sort_unstable();
            assert_eq!(heard, ["a 1", "b 7"]);
        }
        for (ear, running) in [one, other] {
            running.stop().await;
            assert_eq!(ear.hears(), [true, false]);
        }
    }

    #[tokio::test]
    async fn what_is_no_message_may_have_told_anything() {
        let world = World::new().await;
        let (ear, running) = open(world.bus());
        until("it hears", async || ear.hears() == [true]).await;
        world.put_raw(THINGS.name(), "a", "nonsense").await;
        world.put(&thing("a", 1)).await;
        until("the next one came", async || ear.heard() == ["a 1"]).await;
        assert_eq!(ear.hears(), [true, true]);
        running.stop().await;
    }

    #[tokio::test]
    async fn while_the_bus_is_away_nothing_is_heard_and_that_is_said() {
        let world = World::new().await;
        let (ear, running) = open(world.bus());
        until("it hears", async || ear.hears() == [true]).await;
        let mut admin = PgConnection::connect(&world.database.admin_url())
            .await
            .expect("the server is there");
        admin
            .execute("ALTER TABLE bus.message RENAME TO away")
            .await
            .expect("taken away");
        until("it is deaf", async || ear.hears() == [true, false]).await;
        admin
            .execute("ALTER TABLE bus.away RENAME TO message")
            .await
            .expect("brought back");
        until("it begins anew", async || {
            ear.hears() == [true, false, true]
        })
        .await;
        world.put(&thing("a", 1)).await;
        until("it hears again", async || ear.heard() == ["a 1"]).await;
        running.stop().await;
    }
}

mod statements {
    use holdfast_testkit::assert_statements_fit;

    use super::*;

    const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

    #[tokio::test]
    async fn every_statement_on_the_tables_of_messages_fits_the_schema_and_the_rights_of_a_service()
    {
        let world = World::new().await;
        let of_services = ["outbox.rs", "relay.rs", "parking.rs", "consumer"];
        assert_statements_fit(&world.pool, SOURCES, |path| {
            of_services.iter().any(|part| path.starts_with(part))
        })
        .await;
    }

    #[tokio::test]
    async fn every_statement_of_the_embedded_log_fits_its_own_schema() {
        let world = World::new().await;
        assert_statements_fit(&world.bus_pool, SOURCES, |path| path == "embedded_log.rs").await;
    }
}
