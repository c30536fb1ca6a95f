//! Takes up purchases that nobody carries on: their worker died, a step failed, or news came for them.

use std::{sync::Arc, time::Duration};

use holdfast_kernel::time::to_micros;
use holdfast_platform::{database, failpoint, fault::Fault, telemetry::trace::carried};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{self, Instant},
};

use crate::{
    checkout::{Desk, Run},
    error::OrdersError,
    points, store,
};

/// How often in a row a step may fail before its order is raised to people.
pub(crate) const FAILURES_MAX: i32 = 50;
/// Shortest ceiling of the wait after a failure; it doubles.
const BACKOFF_MIN_MILLIS: u64 = 200;
/// Longest wait after a failure. Once a fault is over, everything is taken up again within it.
const BACKOFF_MAX_MILLIS: u64 = 30_000;
/// How long after news the worker looks: the transaction that carries the news has to commit first.
const SETTLE_MILLIS: u64 = 15;
/// How often stuck and waiting purchases are counted.
const MEASURE_SECS: u64 = 15;
/// How long an orderly end waits for purchases under way; another worker takes up what is left.
const DRAIN_SECS: u64 = 5;

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

/// How long to wait after the `failures`th failure in a row, with `random` from 0 to 1: anything up to a ceiling that
/// doubles, so that what failed together does not come back together.
pub(crate) fn backoff(failures: i32, random: f64) -> Duration {
    let doublings = failures.clamp(1, 32).cast_unsigned() - 1;
    let ceiling = BACKOFF_MIN_MILLIS
        .saturating_mul(1 << doublings)
        .min(BACKOFF_MAX_MILLIS);
    Duration::from_millis(ceiling).mul_f64(random.clamp(0.0, 1.0))
}

/// Carries purchases on until shutdown.
pub(crate) async fn work(desk: Arc<Desk>) {
    let shutdown = desk.context.shutdown.clone();
    let mut turns = JoinSet::new();
    let mut measured = None;
    let poll = Duration::from_millis(desk.settings.poll_millis);
    while !shutdown.is_cancelled() {
        if measured.is_none_or(|at: Instant| at.elapsed().as_secs() >= MEASURE_SECS) {
            measure(&desk).await;
            measured = Some(Instant::now());
        }
        let room = desk.settings.worker_max_sagas.saturating_sub(turns.len());
        let taken = match take(&desk, room).await {
            Ok(runs) => runs,
            Err(error) => {
                tracing::warn!(cause = %Fault::from(error), "cannot look for purchases that are due");
                Vec::new()
            }
        };
        let full = taken.len() == room;
        for run in taken {
            turns.spawn(desk.running.track_future(carried(run.run())));
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = turns.join_next(), if full => {}
            () = desk.bell.rung(), if !full => {}
            () = time::sleep(poll), if !full => {}
        }
        // Finished turns make room.
        while turns.try_join_next().is_some() {}
    }
    desk.running.close();
    let drained = time::timeout(Duration::from_secs(DRAIN_SECS), desk.running.wait()).await;
    if drained.is_err() {
        tracing::warn!(
            left = desk.running.len(),
            "purchases are left to another worker"
        );
    }
}

/// Claims purchases that are due, at most `room`.
async fn take(desk: &Arc<Desk>, room: usize) -> Result<Vec<Run>, OrdersError> {
    if room == 0 {
        return Ok(Vec::new());
    }
    let now = to_micros(desk.context.clock.now());
    let lease = Duration::from_secs(desk.settings.lease_secs);
    let mut db = database::acquire(&desk.context.database).await?;
    // Most looks find nothing: one round trip for those.
    if !store::is_any_due(&mut db, now).await? {
        return Ok(Vec::new());
    }
    drop(db);
    let mut tx = database::begin(&desk.context.database).await?;
    let sagas = store::claim_due(&mut tx, room as i64, lease, now).await?;
    if sagas.is_empty() {
        return Ok(Vec::new());
    }
    let mut runs = Vec::with_capacity(sagas.len());
    for saga in sagas {
        let order = store::find_order(&mut tx, saga.order).await?;
        let order = order.ok_or(OrdersError::UnknownOrder)?;
        runs.push(Run::resume(desk.clone(), order, saga));
    }
    failpoint::hit(points::CLAIM.0).await?;
    database::commit(tx).await?;
    failpoint::hit(points::CLAIM.1).await?;
    Ok(runs)
}

async fn measure(desk: &Desk) {
    let now = to_micros(desk.context.clock.now());
    let measured = async {
        let mut db = database::acquire(&desk.context.database).await?;
        store::measure(&mut db, now).await
    };
    match measured.await {
        Ok((stuck, age_seconds)) => {
            metrics::gauge!("holdfast_sagas_needing_attention").set(stuck as f64);
            metrics::gauge!("holdfast_saga_age_seconds").set(age_seconds);
        }
        Err(error) => tracing::warn!(cause = %Fault::from(error), "cannot count purchases"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_half_a_minute_and_are_spread_over_the_whole_span() {
        let table = [
            (1, 1.0, 200),
            (2, 1.0, 400),
            (8, 1.0, 25_600),
            (9, 1.0, 30_000),
            (50, 1.0, 30_000),
            (50, 0.5, 15_000),
            (3, 0.0, 0),
        ];
        for (failures, random, millis) in table {
            let wait = backoff(failures, random);
            assert_eq!(wait, Duration::from_millis(millis), "{failures} {random}");
        }
    }
}
