//! What goes on beside the calls: payments whose outcome is unknown or whose time is up, notices of the provider, and
//! what the provider has that nobody intended.

use std::time::Duration;

use holdfast_kernel::Timestamp;
use holdfast_platform::{database, service::Context};
use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;

use crate::{error::PaymentsError, sandbox::Sandbox, store, till::Till};

/// Pause between two looks at what is due.
pub const LOOK_MILLIS: u64 = 500;
/// Payments taken up in one look.
pub(crate) const DUE_MAX_ENTRIES: i64 = 32;
/// Notices taken in one look.
pub(crate) const NOTICES_MAX_ENTRIES: i64 = 64;
/// From one comparison of the provider's list with ours to the next.
pub(crate) const SWEEP_SECS: i64 = 60;
/// Charges younger than this are left for the next comparison.
pub(crate) const SWEEP_GRACE_SECS: i64 = 30;
/// How far back the first comparison reaches.
pub(crate) const SWEEP_FIRST_REACH_SECS: i64 = 24 * 60 * 60;
const SWEEP_PAGE_ENTRIES: i64 = 500;

/// Brings our book and the provider's together.
#[derive(Clone)]
pub struct Reconciler {
    till: Till,
    sandbox: Option<Sandbox>,
    shutdown: CancellationToken,
}

impl Reconciler {
    pub(crate) fn new(till: Till, sandbox: Option<Sandbox>, context: &Context) -> Self {
        Self {
            till,
            sandbox,
            shutdown: context.shutdown.clone(),
        }
    }

    /// Works until shutdown.
    pub(crate) async fn run(self) {
        let mut sweep_at = Timestamp::MIN;
        loop {
            let pause = tokio::time::sleep(Duration::from_millis(LOOK_MILLIS));
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = pause => {}
            }
            self.look_around().await;
            let now = self.till.now();
            if now >= sweep_at {
                log_failure("orphans", self.sweep().await);
                sweep_at = later(now, SWEEP_SECS);
            }
        }
    }

    /// Does everything that is due now, once; what fails is logged and comes again.
    pub async fn look_once(&self) {
        self.look_around().await;
        log_failure("orphans", self.sweep().await);
    }

    async fn look_around(&self) {
        log_failure("notices", self.take_notices().await);
        log_failure("due payments", self.pursue_due().await);
    }

    /// The sandbox's notices come here as a provider's come by webhook. A notice is a hint: what it is about is asked.
    async fn take_notices(&self) -> Result<(), PaymentsError> {
        let Some(sandbox) = &self.sandbox else {
            return Ok(());
        };
        for notice in sandbox.notices(NOTICES_MAX_ENTRIES).await? {
            match self.till.heed(notice.payment).await {
                Ok(()) => sandbox.take_notice(notice).await?,
                Err(error) => {
                    tracing::warn!(payment = %notice.payment, %error, "notice not taken");
                    // It must not stand in the way of those behind it.
                    sandbox.put_off_notice(notice).await?;
                }
            }
        }
        Ok(())
    }

    async fn pursue_due(&self) -> Result<(), PaymentsError> {
        let now = self.till.now();
        let mut db = database::acquire(&self.till.database).await?;
        if !store::is_any_due(&mut db, now).await? {
            return Ok(());
        }
        drop(db);
        let mut tx = database::begin(&self.till.database).await?;
        let due = store::claim_due_payments(&mut tx, now, DUE_MAX_ENTRIES).await?;
        database::commit(tx).await?;
        for payment in due {
            let (id, checks) = (payment.id, payment.checks);
            if let Err(error) = self.till.pursue(payment).await {
                tracing::warn!(payment = %id, checks, %error, "payment stays open");
            }
        }
        Ok(())
    }

    /// Compares what the provider made since the last time with what we intended.
    async fn sweep(&self) -> Result<(), PaymentsError> {
        let provider = &self.till.provider;
        let until = before(self.till.now(), SWEEP_GRACE_SECS);
        let mut db = database::acquire(&self.till.database).await?;
        let from = store::find_swept_until(&mut db, provider.name())
            .await?
            .unwrap_or_else(|| before(until, SWEEP_FIRST_REACH_SECS));
        drop(db);
        if until.duration_since(from).as_secs() < SWEEP_SECS {
            return Ok(());
        }
        let mut after = None;
        loop {
            let page = provider
                .made_between(from, until, after, SWEEP_PAGE_ENTRIES)
                .await?;
            let Some(last) = page.last() else {
                break;
            };
            after = Some((last.created_at, last.ask.payment));
            let ids: Vec<_> = page.iter().map(|charge| charge.ask.payment).collect();
            let mut db = database::acquire(&self.till.database).await?;
            let unknown = store::unknown_among(&mut db, &ids).await?;
            drop(db);
            for charge in page {
                if unknown.contains(&charge.ask.payment) {
                    self.till.end_orphan(charge).await?;
                }
            }
        }
        let mut db = database::acquire(&self.till.database).await?;
        store::save_swept_until(&mut db, provider.name(), until).await
    }
}

fn log_failure(what: &str, done: Result<(), PaymentsError>) {
    if let Err(error) = done {
        tracing::warn!(what, %error, "reconciling failed, will be tried again");
    }
}

fn before(moment: Timestamp, secs: i64) -> Timestamp {
    later(moment, -secs)
}

fn later(moment: Timestamp, secs: i64) -> Timestamp {
    let there = moment.checked_add(SignedDuration::from_secs(secs));
    there.unwrap_or(moment)
}
