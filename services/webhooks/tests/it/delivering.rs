//! What receivers get, when, and what becomes of it.

use std::time::Duration;

use holdfast_platform::{
    bus::{Bus, Outgoing},
    embedded_log::EmbeddedLog,
    message::Message,
    wakeup::Wakeups,
};
use holdfast_proto::webhooks::v1 as pb;
use http::HeaderMap;
use jiff::ToSpan;
use standardwebhooks::Webhook;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::{
    receiver::{Answer, Receiver},
    world::{ORDERS, World},
};

const ANY_ORDER: &[&str] = &["order.*"];
/// The waits after failures, in seconds, each drawn from half to one and a half of it.
const WAITS_SECS: [i64; 9] = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];

fn secs(secs: i64) -> jiff::SignedDuration {
    jiff::SignedDuration::from_secs(secs)
}

#[tokio::test]
async fn a_subscriber_gets_what_it_asked_for_signed_as_an_independent_library_verifies() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    let (id, secret) = world.subscribe(&receiver.url(), &["order.created"]).await;
    let mut message = world.message(ORDERS, "ord_1", 1, "order.created");
    message.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    world.arrives(&message).await;
    world.order("ord_1", 2, "order.paid").await;

    let got = &receiver.got(1).await[0];
    let library = Webhook::new(&secret).expect("a secret of the standard's form");
    library
        .verify(&got.body, &got.headers)
        .expect("a signature of the standard");
    let changed = [got.body.as_ref(), b" "].concat();
    assert!(library.verify(&changed, &got.headers).is_err());
    let mut headers: HeaderMap = got.headers.clone();
    headers.insert("webhook-id", "another".parse().expect("a header"));
    assert!(library.verify(&got.body, &headers).is_err());

    assert_eq!(got.id(), message.id.to_string());
    assert_eq!(got.at_second(), world.now().as_second());
    assert_eq!(got.body.as_ref(), message.to_envelope().as_bytes());
    assert_eq!(
        got.header("traceparent"),
        message.traceparent.as_deref().expect("set")
    );
    assert_eq!(
        got.header("content-type"),
        "application/cloudevents+json; charset=utf-8"
    );
    let body = got.json();
    assert_eq!(
        (&body["specversion"], &body["type"]),
        (&"1.0".into(), &"order.created".into())
    );

    let attempts = world.ended(&id, 1).await;
    let [attempt] = attempts.as_slice() else {
        panic!("{attempts:?}");
    };
    assert_eq!((attempt.number, attempt.status_code), (1, 200));
    assert_eq!(attempt.message_id, message.id.to_string());
    assert_eq!(attempt.state(), pb::DeliveryState::Delivered);
    assert_eq!(attempt.next_attempt_at, None);
}

#[tokio::test]
async fn the_same_message_again_is_sent_once() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    let (id, _) = world.subscribe(&receiver.url(), ANY_ORDER).await;
    let message = world.order("ord_1", 1, "order.created").await;
    world.arrives(&message).await;
    world.ended(&id, 1).await;
    world.arrives(&message).await;
    world.workers_look().await;
    assert_eq!(receiver.so_far().len(), 1);
}

#[tokio::test]
async fn nobody_who_did_not_ask_is_told_and_stock_only_who_asked_by_its_name() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    let (all, _) = world.subscribe(&receiver.url(), &["*"]).await;
    let (other, _) = world
        .subscribe(&receiver.url(), &["payment.*", "stock.*"])
        .await;
    let stock = world.message("holdfast.stock", "sku:A", 1, "stock.updated");
    world.arrives(&stock).await;
    world.order("ord_1", 1, "order.created").await;
    world.workers_look().await;
    // The witness of that is an update, which who asked for everything gets too.
    let attempts = world.ended(&all, 2).await;
    let kinds: Vec<&str> = attempts.iter().map(|one| one.r#type.as_str()).collect();
    assert_eq!(kinds, ["order.created", "user.updated"]);
    assert_eq!(world.attempts(&other).await, []);

    let (named, _) = world.subscribe(&receiver.url(), &["stock.updated"]).await;
    let stock = world.message("holdfast.stock", "sku:A", 7, "stock.updated");
    world.arrives(&stock).await;
    let attempts = world.ended(&named, 1).await;
    assert_eq!(attempts[0].r#type, "stock.updated");
}

#[tokio::test]
async fn a_receiver_that_stays_down_is_tried_through_the_schedule_and_then_left_alone() {
    let world = World::new().await;
    let gone = Receiver::start().await.url();
    let (id, _) = world.subscribe(&gone, ANY_ORDER).await;
    world.order("ord_1", 1, "order.created").await;
    for (number, wait) in WAITS_SECS.into_iter().enumerate() {
        let attempts = world.ended(&id, number + 1).await;
        let last = attempts.last().expect("just ended");
        assert_eq!(last.state(), pb::DeliveryState::Waiting);
        let next = last.next_attempt_at.expect("waiting").seconds - world.now().as_second();
        assert!(
            (wait / 2 - 1..=wait * 3 / 2 + 1).contains(&next),
            "{wait}: {next}"
        );
        world.clock.advance(secs(wait / 2 - 2));
        world.workers_look().await;
        assert_eq!(world.attempts(&id).await.len(), number + 1, "too early");
        world.clock.advance(secs(wait + 4));
    }
    let attempts = world.ended(&id, WAITS_SECS.len() + 1).await;
    for (attempt, number) in attempts.iter().zip(1..) {
        assert_eq!(attempt.number, number);
        assert_eq!(
            (attempt.status_code, attempt.error.as_str()),
            (0, "connect")
        );
        assert_eq!(attempt.state(), pb::DeliveryState::Dead);
        assert_eq!(attempt.next_attempt_at, None);
    }
    world.clock.advance(secs(10 * 86_400));
    world.workers_look().await;
    assert_eq!(world.attempts(&id).await.len(), attempts.len());
}

#[tokio::test]
async fn a_receiver_that_was_down_for_a_day_gets_what_it_missed_under_the_same_ids() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    let (id, secret) = world.subscribe(&receiver.url(), ANY_ORDER).await;
    let began = world.now();
    receiver.answers((0..100).map(|_| Answer::Status(503)));
    let message = world.order("ord_1", 1, "order.created").await;
    let mut tries = 0;
    loop {
        tries += 1;
        let attempts = world.ended(&id, tries).await;
        let last = attempts.last().expect("just ended");
        assert_eq!(
            last.state(),
            pb::DeliveryState::Waiting,
            "given up within a day"
        );
        assert_eq!(last.status_code, 503);
        let next = last.next_attempt_at.expect("waiting").seconds;
        let is_back = next - began.as_second() > 24 * 3_600;
        if is_back {
            receiver.answers_nothing_more();
        }
        world
            .clock
            .advance(secs(next - world.now().as_second() + 1));
        if is_back {
            break;
        }
    }
    let attempts = world.ended(&id, tries + 1).await;
    assert_eq!(attempts[tries].state(), pb::DeliveryState::Delivered);
    let got = receiver.got(tries + 1).await;
    let last = got.last().expect("just arrived");
    assert_eq!(last.id(), message.id.to_string());
    assert!(last.is_signed_with(&secret));
    let times: Vec<i64> = got.iter().map(super::receiver::Got::at_second).collect();
    assert!(times.is_sorted_by(|one, other| one < other), "{times:?}");
    let subscription = world.subscription(&id).await.expect("there");
    assert_eq!(subscription.status(), pb::SubscriptionStatus::Active);
}

#[tokio::test]
async fn a_receiver_that_is_too_slow_is_left_and_one_that_never_ends_is_not_heard_out() {
    let world = World::with(|settings| settings.try_millis = 200).await;
    let receiver = Receiver::start().await;
    let (id, _) = world.subscribe(&receiver.url(), ANY_ORDER).await;
    receiver.answers([Answer::Held(200)]);
    world.order("ord_1", 1, "order.created").await;
    let attempts = world.ended(&id, 1).await;
    assert_eq!(
        (attempts[0].status_code, attempts[0].error.as_str()),
        (0, "timeout")
    );
    assert!(attempts[0].duration_millis >= 200, "{:?}", attempts[0]);

    receiver.answers([Answer::Endless]);
    world.order("ord_2", 1, "order.created").await;
    let attempts = world.ended(&id, 2).await;
    assert_eq!(attempts[1].status_code, 200);
    assert_eq!(attempts[1].state(), pb::DeliveryState::Delivered);
}

#[tokio::test]
async fn a_receiver_that_says_it_is_gone_is_sent_nothing_more_until_it_is_enabled_again() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    let (id, _) = world.subscribe(&receiver.url(), ANY_ORDER).await;
    receiver.answers([Answer::Status(500), Answer::Status(410)]);
    let waiting = world.order("ord_1", 1, "order.created").await;
    world.ended(&id, 1).await;
    let refused = world.order("ord_2", 1, "order.created").await;
    world.ended(&id, 2).await;
    let subscription = world.subscription(&id).await.expect("there");
    assert_eq!(subscription.status(), pb::SubscriptionStatus::Disabled);
    assert_eq!(subscription.disabled_reason, "gone");

    world.clock.advance(1.hour());
    world.order("ord_3", 1, "order.created").await;
    world.workers_look().await;
    assert_eq!(receiver.so_far().len(), 2);
    let what = pb::replay_request::What::MessageId(refused.id.to_string());
    let told = world.replay(&id, what).await.expect_err("disabled");
    assert_eq!(told.code(), Code::FailedPrecondition);

    let request = world.admin(pb::EnableSubscriptionRequest {
        subscription_id: id.clone(),
    });
    let enabled = world.client().enable_subscription(request).await;
    let enabled = enabled
        .expect("enabled")
        .into_inner()
        .subscription
        .expect("set");
    assert_eq!(enabled.status(), pb::SubscriptionStatus::Active);
    assert_eq!(enabled.disabled_reason, "");
    let got = receiver.got(3).await;
    assert_eq!(got[2].id(), waiting.id.to_string());
    world.ended(&id, 3).await;
    world.workers_look().await;
    assert_eq!(
        receiver.so_far().len(),
        3,
        "what was refused for good stays so"
    );
}

#[tokio::test]
async fn a_receiver_that_fails_for_five_days_is_disabled_and_the_reason_is_told() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    let (id, _) = world.subscribe(&receiver.url(), ANY_ORDER).await;
    receiver.answers((0..100).map(|_| Answer::Status(500)));
    let began = world.now();
    for day in 0..5 {
        let subscription = world.subscription(&id).await.expect("there");
        assert_eq!(
            subscription.status(),
            pb::SubscriptionStatus::Active,
            "day {day}"
        );
        world.order(&format!("ord_{day}"), 1, "order.created").await;
        receiver.got(day + 1).await;
        world.workers_look().await;
        world.clock.advance(24.hours());
        world.workers_look().await;
    }
    world.clock.advance(1.minute());
    world.order("ord_9", 1, "order.created").await;
    let mut subscription = world.subscription(&id).await.expect("there");
    while subscription.status() == pb::SubscriptionStatus::Active {
        world.workers_look().await;
        subscription = world.subscription(&id).await.expect("there");
    }
    assert_eq!(subscription.disabled_reason, "failing");
    let since = subscription.failing_since.expect("set").seconds;
    assert!((since - began.as_second()).abs() < 60, "{since}");
}

#[tokio::test]
async fn one_success_ends_the_failing() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    let (id, _) = world.subscribe(&receiver.url(), ANY_ORDER).await;
    receiver.answers([Answer::Status(500)]);
    world.order("ord_1", 1, "order.created").await;
    world.ended(&id, 1).await;
    assert!(
        world
            .subscription(&id)
            .await
            .expect("there")
            .failing_since
            .is_some()
    );
    world.order("ord_2", 1, "order.created").await;
    world.ended(&id, 2).await;
    assert_eq!(
        world.subscription(&id).await.expect("there").failing_since,
        None
    );
}

#[tokio::test]
async fn a_busy_receiver_is_left_alone_for_as_long_as_it_asks() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    let (id, _) = world.subscribe(&receiver.url(), ANY_ORDER).await;
    let busy = |wait: &str| Answer::With(429, "retry-after", wait.to_owned());
    receiver.answers([busy("3600")]);
    world.order("ord_1", 1, "order.created").await;
    let attempts = world.ended(&id, 1).await;
    assert_eq!(attempts[0].status_code, 429);
    let next = attempts[0].next_attempt_at.expect("waiting").seconds;
    assert_eq!(next - world.now().as_second(), 3_600);
    world.clock.advance(secs(3_598));
    world.workers_look().await;
    assert_eq!(receiver.so_far().len(), 1);
    world.clock.advance(secs(3));
    world.ended(&id, 2).await;

    receiver.answers([busy("31536000")]);
    world.order("ord_2", 1, "order.created").await;
    let attempts = world.ended(&id, 3).await;
    let next = attempts[2].next_attempt_at.expect("waiting").seconds;
    assert_eq!(next - world.now().as_second(), 86_400, "at most a day");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_followed_nowhere() {
    let world = World::new().await;
    let (receiver, inside) = (Receiver::start().await, Receiver::start().await);
    let (id, _) = world.subscribe(&receiver.url(), ANY_ORDER).await;
    receiver
        .answers([301, 302, 307, 308].map(|status| Answer::With(status, "location", inside.url())));
    for (number, status) in [301, 302, 307, 308].into_iter().enumerate() {
        world
            .order(&format!("ord_{number}"), 1, "order.created")
            .await;
        let attempts = world.ended(&id, number + 1).await;
        assert_eq!(attempts[number].status_code, status);
        assert_eq!(attempts[number].state(), pb::DeliveryState::Waiting);
    }
    assert_eq!(inside.so_far().len(), 0);
}

#[tokio::test]
async fn a_delivery_whose_worker_was_killed_is_sent_by_another_and_shown_as_interrupted() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    let (id, _) = world.subscribe(&receiver.url(), ANY_ORDER).await;
    receiver.answers([Answer::Held(200)]);
    let message = world.order("ord_1", 1, "order.created").await;
    receiver.got(1).await;
    world.kill_workers().await;

    world.start_workers();
    world.workers_look().await;
    assert_eq!(world.attempts(&id).await.len(), 1, "the lease still runs");
    world.clock.advance(secs(31));
    let attempts = world.ended(&id, 2).await;
    assert_eq!(attempts[0].error, "interrupted");
    assert_eq!((attempts[1].number, attempts[1].status_code), (2, 200));
    let got = receiver.got(2).await;
    assert!(got.iter().all(|got| got.id() == message.id.to_string()));
    // What was interrupted has used up none of the schedule.
    assert_eq!(attempts[1].state(), pb::DeliveryState::Delivered);
}

#[tokio::test]
async fn what_comes_of_a_try_after_its_lease_is_not_taken() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    let (id, _) = world.subscribe(&receiver.url(), ANY_ORDER).await;
    receiver.answers([Answer::Held(410)]);
    world.order("ord_1", 1, "order.created").await;
    receiver.got(1).await;
    // The try goes on, and so does time; another worker takes over and succeeds.
    world.clock.advance(secs(31));
    let attempts = world.ended(&id, 2).await;
    assert_eq!(attempts[1].status_code, 200);
    receiver.release();
    world.workers_look().await;
    let attempts = world.attempts(&id).await;
    assert_eq!(
        (attempts[0].status_code, attempts[0].error.as_str()),
        (0, "interrupted")
    );
    assert_eq!(attempts[1].state(), pb::DeliveryState::Delivered);
    let subscription = world.subscription(&id).await.expect("there");
    assert_eq!(subscription.status(), pb::SubscriptionStatus::Active);
}

#[tokio::test]
async fn two_workers_send_each_message_once() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    world.start_workers();
    let (id, _) = world.subscribe(&receiver.url(), ANY_ORDER).await;
    for order in 0..40 {
        world
            .order(&format!("ord_{order}"), 1, "order.created")
            .await;
    }
    world.ended(&id, 40).await;
    world.workers_look().await;
    let mut ids: Vec<String> = receiver
        .so_far()
        .iter()
        .map(|got| got.id().to_owned())
        .collect();
    assert_eq!(ids.len(), 40);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 40);
}

#[tokio::test]
async fn a_receiver_that_hangs_does_not_keep_others_waiting() {
    let world = World::with(|settings| {
        settings.max_tries = 6;
        settings.max_tries_each = 4;
    })
    .await;
    let (slow, quick) = (Receiver::start().await, Receiver::start().await);
    world.subscribe(&slow.url(), &["order.created"]).await;
    let (quick_id, _) = world.subscribe(&quick.url(), &["order.paid"]).await;
    slow.answers((0..20).map(|_| Answer::Held(200)));
    for order in 0..20 {
        world
            .order(&format!("ord_{order}"), 1, "order.created")
            .await;
    }
    slow.got(4).await;
    for order in 0..20 {
        world.order(&format!("ord_{order}"), 2, "order.paid").await;
    }
    world.ended(&quick_id, 20).await;
    assert_eq!(
        slow.so_far().len(),
        4,
        "as many as one receiver gets at once"
    );
}

#[tokio::test]
async fn messages_are_sent_again_one_or_a_span_of_them_under_their_ids() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    let (id, secret) = world.subscribe(&receiver.url(), &["order.created"]).await;
    let mut sent = Vec::new();
    for order in 0..3 {
        sent.push(
            world
                .order(&format!("ord_{order}"), 1, "order.created")
                .await,
        );
        world.order(&format!("ord_{order}"), 2, "order.paid").await;
        // A try under way would outlive its lease.
        world.ended(&id, order + 1).await;
        world.clock.advance(1.minute());
    }

    let what = pb::replay_request::What::MessageId(sent[1].id.to_string());
    assert_eq!(world.replay(&id, what).await.expect("replayed"), 1);
    let got = receiver.got(4).await;
    assert_eq!(got[3].id(), sent[1].id.to_string());
    assert_eq!(got[3].at_second(), world.now().as_second());
    assert!(got[3].is_signed_with(&secret));
    let attempts = world.ended(&id, 4).await;
    assert_eq!(attempts[3].number, 2);

    let span = |from: &Message, to: &Message| {
        let moment = |at| Some(holdfast_platform::wire::timestamp(at));
        pb::replay_request::What::Span(pb::Span {
            from: moment(from.at),
            to: moment(to.at),
        })
    };
    assert_eq!(
        world
            .replay(&id, span(&sent[0], &sent[2]))
            .await
            .expect("replayed"),
        2
    );
    let got = receiver.got(6).await;
    let mut again: Vec<&str> = got[4..].iter().map(super::receiver::Got::id).collect();
    again.sort_unstable();
    let mut wanted = [sent[0].id.to_string(), sent[1].id.to_string()];
    wanted.sort();
    assert_eq!(again, wanted);

    let backwards = world
        .replay(&id, span(&sent[2], &sent[0]))
        .await
        .expect_err("empty");
    assert_eq!(backwards.code(), Code::InvalidArgument);
    let paid = Message::id_of(ORDERS, "ord_0", 2);
    for unknown in [paid.to_string(), "nonsense".to_owned()] {
        let what = pb::replay_request::What::MessageId(unknown);
        let told = world.replay(&id, what).await.expect_err("not asked for");
        assert_eq!(told.code(), Code::NotFound);
    }
}

#[tokio::test]
async fn what_is_asked_for_again_while_it_is_being_sent_is_sent_again() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    let (id, _) = world.subscribe(&receiver.url(), ANY_ORDER).await;
    receiver.answers([Answer::Held(200)]);
    let message = world.order("ord_1", 1, "order.created").await;
    receiver.got(1).await;
    let what = pb::replay_request::What::MessageId(message.id.to_string());
    world.replay(&id, what).await.expect("replayed");
    world.workers_look().await;
    assert_eq!(receiver.so_far().len(), 1, "two tries at once");
    receiver.release();
    receiver.got(2).await;
    let attempts = world.ended(&id, 2).await;
    assert_eq!(attempts[1].state(), pb::DeliveryState::Delivered);
}

#[tokio::test]
async fn reading_the_bus_again_from_its_beginning_sends_nothing_again() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    let (id, _) = world.subscribe(&receiver.url(), ANY_ORDER).await;
    let pool = holdfast_platform::database::connect(&world.db.bus_url(), 4).await;
    let log = EmbeddedLog::new(pool.expect("the bus"), Wakeups::default());
    let outgoing: Vec<Outgoing> = (1..=5)
        .map(|version| {
            let kind = ["order.created", "order.paid"][usize::from(version > 1)];
            let message = world.message(ORDERS, "ord_1", version, kind);
            Outgoing {
                outbox_id: version,
                message_id: message.id,
                topic: message.topic.clone(),
                key: message.key.clone(),
                envelope: message.to_envelope(),
            }
        })
        .collect();
    log.append("orders", &outgoing).await.expect("appended");

    let position = "SELECT sum(next_offset)::int8 FROM consumer_position";
    for round in 0..2 {
        let ending = CancellationToken::new();
        let bus = std::sync::Arc::new(log.clone());
        let reading = tokio::spawn(world.consumer().run(world.db.app(), bus, ending.clone()));
        let read_on = async {
            loop {
                let at: Option<i64> = sqlx::query_scalar(position)
                    .fetch_one(&world.db.owner())
                    .await
                    .expect("the table");
                if at == Some(5) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let limit = Duration::from_secs(10);
        tokio::time::timeout(limit, read_on)
            .await
            .expect("read to its end");
        ending.cancel();
        reading.await.expect("ended");
        world.ended(&id, 5).await;
        world.workers_look().await;
        assert_eq!(receiver.so_far().len(), 5, "round {round}");
        // What was read together lies in the feed in its order, once.
        let fetching = world.admin(pb::ListMessagesRequest::default());
        let fed = world.client().list_messages(fetching).await;
        let fed = fed.expect("a page").into_inner().envelopes;
        let orders: Vec<&String> = fed.iter().filter(|one| one.contains("ord_1")).collect();
        let told: Vec<&String> = outgoing.iter().map(|one| &one.envelope).collect();
        assert_eq!(orders, told, "round {round}");
        let parked: i64 = sqlx::query_scalar("SELECT count(*) FROM parked_message")
            .fetch_one(&world.db.owner())
            .await
            .expect("the table");
        assert_eq!(parked, 0, "round {round}");
        for table in ["DELETE FROM consumer_position", "DELETE FROM consumer_key"] {
            sqlx::query(table)
                .execute(&world.db.owner())
                .await
                .expect("forgotten");
        }
    }
}

#[tokio::test]
async fn what_was_pruned_and_comes_again_is_not_sent_again() {
    let (world, receiver) = (
        World::with(|settings| settings.keep_days = 7).await,
        Receiver::start().await,
    );
    let (id, _) = world.subscribe(&receiver.url(), ANY_ORDER).await;
    let message = world.order("ord_1", 1, "order.created").await;
    world.ended(&id, 1).await;
    world.clock.advance(secs(7 * 86_400 + 1));
    world.kill_workers().await;
    world.start_workers();
    world.pruned().await;
    assert_eq!(world.attempts(&id).await, []);
    world.arrives(&message).await;
    world.workers_look().await;
    assert_eq!(receiver.so_far().len(), 1);
}
