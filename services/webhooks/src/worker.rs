//! Sends what is due, and lets go of what is kept no longer.
//!
//! A delivery is claimed under an epoch, for the length of a lease. Who dies leaves a lease that runs out; who was only
//! paused begins no try when its lease may have run out, and what comes of an older try is not taken.

use std::{collections::HashMap, sync::Arc, time::Duration};

use holdfast_kernel::{Id, Timestamp, time::to_micros};
use holdfast_platform::{
    database, fault::Fault, message::Message, service::Context, telemetry::trace::carried,
};
use tokio::{
    sync::Notify,
    task::{self, JoinSet},
    time::{self, Instant},
};
use uuid::Uuid;

use crate::{
    Settings,
    domain::{Failure, Next, Outcome, Reason, Schedule, Status},
    error::WebhooksError,
    guard::Guard,
    seal::Vault,
    sender::{Letter, Sender},
    signature::{self, Secret},
    store::{self, Claimed, Room, SealedSecret, Verdict},
};

/// Longest try that can be set.
pub(crate) const TRY_MAX_SECS: u64 = 10;
/// How long a claimed delivery is left alone: three of the longest tries.
const LEASE_SECS: u64 = 3 * TRY_MAX_SECS;
/// How long after news the worker looks: the transaction that carries the news has to commit first.
const SETTLE_MILLIS: u64 = 15;
/// How long an orderly end waits for tries under way.
const DRAIN_SECS: u64 = 5;
const PRUNE_MAX_ROWS: i64 = 1_000;
const PRUNE_PAUSE: Duration = Duration::from_mins(1);

/// What the parts of this service share.
pub(crate) struct Desk {
    pub(crate) context: Context,
    pub(crate) settings: Settings,
    pub(crate) schedule: Schedule,
    pub(crate) guard: Guard,
    pub(crate) vault: Vault,
    pub(crate) sender: Sender,
    pub(crate) bell: Bell,
}

/// Wakes the worker of this process. A hint: it may ring for nothing, and the worker looks by itself besides.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bell(Arc<Notify>);

impl Bell {
    pub(crate) fn ring(&self) {
        self.0.notify_one();
    }

    async fn rung(&self) {
        self.0.notified().await;
        time::sleep(Duration::from_millis(SETTLE_MILLIS)).await;
    }
}

/// A claimed delivery with what it is signed with.
struct Try {
    claimed: Claimed,
    secrets: Vec<Secret>,
    claimed_at: Instant,
}

/// Sends what is due until shutdown.
pub(crate) async fn work(desk: Arc<Desk>) {
    let shutdown = desk.context.shutdown.clone();
    let poll = Duration::from_millis(desk.settings.poll_millis);
    let mut tries = JoinSet::new();
    // The subscription of each try under way.
    let mut busy: HashMap<task::Id, Uuid> = HashMap::new();
    let mut last = Uuid::nil();
    while !shutdown.is_cancelled() {
        let room = desk.settings.max_tries.saturating_sub(tries.len());
        let claimed = match claim(&desk, room, &busy, last).await {
            Ok(claimed) => claimed,
            Err(error) => {
                tracing::warn!(cause = %Fault::from(error), "cannot look for deliveries that are due");
                Vec::new()
            }
        };
        let full = claimed.len() == room;
        for claimed in claimed {
            last = claimed.claimed.subscription_id;
            let trying = tries.spawn(carried(attempt(desk.clone(), claimed)));
            busy.insert(trying.id(), last);
        }
        let mut ended = tokio::select! {
            () = shutdown.cancelled() => break,
            // Makes room, for its own subscription at least.
            Some(ended) = tries.join_next_with_id() => Some(ended),
            () = desk.bell.rung(), if !full => None,
            () = time::sleep(poll), if !full => None,
        };
        while let Some(done) = ended {
            busy.remove(&done.map_or_else(|panicked| panicked.id(), |(id, ())| id));
            ended = tries.try_join_next_with_id();
        }
    }
    let draining = async { while tries.join_next().await.is_some() {} };
    let limit = Duration::from_secs(DRAIN_SECS);
    if time::timeout(limit, draining).await.is_err() {
        tracing::warn!("deliveries under way are left to another worker");
    }
}

/// Lets go of what is kept no longer, until shutdown.
pub(crate) async fn prune(desk: Arc<Desk>) {
    loop {
        match prune_once(&desk).await {
            Ok(pruned) if pruned >= PRUNE_MAX_ROWS => continue,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(cause = %Fault::from(error), "old messages could not be pruned");
            }
        }
        tokio::select! {
            () = time::sleep(PRUNE_PAUSE) => {}
            () = desk.context.shutdown.cancelled() => return,
        }
    }
}

/// Prunes a bounded part; how many rows the longest of the lists lost.
async fn prune_once(desk: &Desk) -> Result<i64, WebhooksError> {
    let now = to_micros(desk.context.clock.now());
    let keep = Duration::from_hours(24 * desk.settings.keep_days);
    let before = now.checked_sub(keep).unwrap_or(Timestamp::MIN);
    let mut db = database::acquire(&desk.context.database).await?;
    let messages = store::prune_messages(&mut db, before, PRUNE_MAX_ROWS).await?;
    let deliveries = store::prune_deliveries(&mut db, PRUNE_MAX_ROWS).await?;
    store::prune_secrets(&mut db, now).await?;
    drop(db);
    let wrapped = wrap_anew(desk).await?;
    Ok(messages.max(deliveries.cast_signed()).max(wrapped))
}

/// Wraps keys of secrets that lie under an old wrapping key under the one of now; how many.
async fn wrap_anew(desk: &Desk) -> Result<i64, WebhooksError> {
    let mut tx = database::begin(&desk.context.database).await?;
    let old = store::lock_old_keys(&mut tx, desk.vault.version(), PRUNE_MAX_ROWS).await?;
    for (request, key) in &old {
        let key = desk.vault.rewrap(*request, key)?;
        store::save_key(&mut tx, *request, &key).await?;
    }
    database::commit(tx).await?;
    Ok(old.len() as i64)
}

/// Claims what is due, at most `room`.
async fn claim(
    desk: &Desk,
    room: usize,
    busy: &HashMap<task::Id, Uuid>,
    after: Uuid,
) -> Result<Vec<Try>, WebhooksError> {
    if room == 0 {
        return Ok(Vec::new());
    }
    let mut counts: HashMap<Uuid, i64> = HashMap::new();
    for subscription in busy.values() {
        *counts.entry(*subscription).or_default() += 1;
    }
    let (busy, counts): (Vec<Uuid>, Vec<i64>) = counts.into_iter().unzip();
    let room = Room {
        tries: room as i64,
        tries_each: desk.settings.max_tries_each as i64,
        busy: (&busy, &counts),
        after,
    };
    let claimed_at = Instant::now();
    let now = to_micros(desk.context.clock.now());
    let lease = Duration::from_secs(LEASE_SECS);
    let mut db = database::acquire(&desk.context.database).await?;
    let claimed = store::claim_due(&mut db, &room, lease, now).await?;
    if claimed.is_empty() {
        return Ok(Vec::new());
    }
    let subscriptions: Vec<Uuid> = claimed.iter().map(|one| one.subscription_id).collect();
    let sealed = store::live_secrets(&mut db, &subscriptions, now).await?;
    drop(db);
    let mut secrets: HashMap<Uuid, Vec<Secret>> = HashMap::new();
    for SealedSecret {
        request_id,
        subscription_id,
        at_rest,
        ..
    } in sealed
    {
        let Some(at_rest) = at_rest else { continue };
        match desk.vault.open(request_id, &at_rest) {
            Ok(opened) => secrets.entry(subscription_id).or_default().push(opened),
            // The deliveries of others go on.
            Err(error) => tracing::error!(%error, "a webhook's secret cannot be opened"),
        }
    }
    let tries = claimed.into_iter().map(|claimed| Try {
        secrets: secrets
            .get(&claimed.subscription_id)
            .cloned()
            .unwrap_or_default(),
        claimed,
        claimed_at,
    });
    Ok(tries.collect())
}

/// Tries a delivery once and writes down what came of it.
async fn attempt(desk: Arc<Desk>, this: Try) {
    let Try {
        claimed,
        secrets,
        claimed_at,
    } = this;
    let left = Duration::from_secs(LEASE_SECS).saturating_sub(claimed_at.elapsed());
    // This worker was paused, and another may be at it.
    if left < Duration::from_secs(TRY_MAX_SECS) {
        return;
    }
    let began = Instant::now();
    let outcome = if secrets.is_empty() {
        Outcome::Failed(Failure::Unsigned)
    } else {
        send(&desk, &claimed, &secrets).await
    };
    if let Err(error) = settle(&desk, &claimed, outcome, began.elapsed()).await {
        // Nothing was written: when the lease has run out, it is tried again.
        tracing::warn!(
            cause = %Fault::from(error),
            message = %claimed.message_id,
            "what came of a delivery could not be written down"
        );
    }
}

/// Sends a delivery, signed as of now.
async fn send(desk: &Desk, claimed: &Claimed, secrets: &[Secret]) -> Outcome {
    let id = claimed.message_id.to_string();
    let at = desk.context.clock.now();
    let letter = Letter {
        signature: signature::sign(secrets, &id, at.as_second(), &claimed.envelope),
        traceparent: Message::from_envelope(&claimed.envelope)
            .ok()
            .and_then(|message| message.traceparent),
        body: claimed.envelope.clone(),
        id: &id,
        at,
    };
    desk.sender.send(&claimed.url, letter).await
}

/// Writes down what came of a try, unless another has begun since.
async fn settle(
    desk: &Desk,
    claimed: &Claimed,
    outcome: Outcome,
    took: Duration,
) -> Result<(), WebhooksError> {
    let now = to_micros(desk.context.clock.now());
    let failures = usize::try_from(claimed.failures).unwrap_or(usize::MAX);
    let next = desk.schedule.next(outcome, failures, rand::random());
    let (state, due_at) = match next {
        Next::Delivered => ("delivered", now),
        Next::Again(wait) => ("waiting", now.checked_add(wait).unwrap_or(Timestamp::MAX)),
        Next::Dead | Next::Gone => ("dead", now),
    };
    let verdict = Verdict {
        state,
        due_at,
        failures: claimed.failures + i32::from(next != Next::Delivered),
    };
    let mut tx = database::begin(&desk.context.database).await?;
    // The subscription before its deliveries, as everywhere.
    if next == Next::Delivered {
        store::note_success(&mut tx, claimed.subscription_id).await?;
    } else {
        let subscription = Id::new(claimed.subscription_id);
        let made = store::lock_subscription(&mut tx, subscription).await?;
        let mut found = made.ok_or(WebhooksError::UnknownWebhook)?.subscription;
        let since = *found.failing_since.get_or_insert(now);
        if found.status == Status::Active {
            if next == Next::Gone {
                found.status = Status::Disabled(Reason::Gone);
            } else if desk.schedule.gives_up(since, now) {
                found.status = Status::Disabled(Reason::Failing);
            }
        }
        store::save_subscription(&mut tx, &found).await?;
    }
    if !store::settle_delivery(&mut tx, claimed, &verdict, now).await? {
        return Ok(());
    }
    store::finish_attempt(&mut tx, claimed, outcome, took).await?;
    database::commit(tx).await?;
    let result = match outcome {
        Outcome::Answered { .. } if next == Next::Delivered => "delivered",
        Outcome::Answered { .. } => "refused",
        Outcome::Failed(failure) => failure.as_str(),
    };
    metrics::counter!("holdfast_webhook_deliveries_total", "result" => result).increment(1);
    Ok(())
}
