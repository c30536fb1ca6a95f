//! What leads from one step to another: turning back, ending, waiting, beginning again, failing.

use std::time::Duration;

use holdfast_kernel::{Timestamp, time};
use holdfast_platform::{database, failpoint, fault::Fault};
use holdfast_proto::payments::v1::PaymentStatus;
use sqlx::{Postgres, Transaction};

use super::{
    Next, Run, Stop,
    command::{Extended, stop},
};
use crate::{
    domain::{self, Change, Order, RefundState, Returned, Status},
    error::OrdersError,
    points::{self, Around},
    saga::{Cancel, Phase, Saga},
    store::{self, Due, Progress},
    worker,
};

/// A worker with less of its lease left asks for more before it goes on.
const LEASE_LEFT_MIN_SECS: u64 = 6;
/// How often a purchase that waits looks by itself, in case news was lost.
const LOOK_SECS: i64 = 15;
/// What a probe asks the ledger to add to a hold: as little as can be.
const PROBE_TTL_SECS: u64 = 1;

impl Run {
    /// Decides that the purchase ends this way, before anything is undone.
    pub(super) async fn turn_back(&mut self, ending: Status, reason: String) -> Result<(), Stop> {
        let now = self.now();
        let mut saga = self.saga.clone();
        // An order that was given up before ends as it was, unless money goes back.
        saga.ending = Some(saga.ending.unwrap_or(ending));
        saga.ending_reason = reason;
        saga.phase = Phase::Undoing;
        saga.failures = 0;
        if self.order.points_found.is_none() {
            self.save_saga(&saga, Due::Kept, now, points::TURN_BACK)
                .await?;
        } else {
            let mut tx = self.begin().await?;
            if !store::save_saga(&mut tx, &saga, Due::Kept, false, now).await? {
                return Err(Stop::Lost);
            }
            store::note_points_found(&mut tx, &self.order).await?;
            self.commit(tx, points::TURN_BACK).await?;
        }
        self.saga = saga;
        failpoint::hit(points::TURN_BACK.1).await?;
        Ok(())
    }

    /// Gives the order its ending, once all is undone.
    pub(super) async fn end(&mut self) -> Result<(), Stop> {
        let now = self.now();
        let (mut order, mut saga) = (self.order.clone(), self.saga.clone());
        let reason = std::mem::take(&mut saga.ending_reason);
        let ending = saga.ending.unwrap_or(order.status);
        let by = saga.cancel.as_ref().and_then(|cancel| cancel.by);
        let by = by.filter(|_| ending == Status::Cancelled);
        let mut changes = Vec::with_capacity(2);
        if self.money_back {
            if matches!(order.status, Status::Pending | Status::AwaitingPayment) {
                let (through, why) = match ending {
                    Status::Cancelled => (Status::Cancelled, reason.as_str()),
                    _ => (Status::Paid, "payment captured"),
                };
                changes.push(order.enter(through, why, by, now)?);
            }
            order.refunded = order.total;
            order.points_refunded = order.points;
            for item in &mut order.items {
                item.refunded_quantity = item.quantity;
            }
            let why = domain::refunded(order.total, order.points, &reason);
            changes.push(order.enter(Status::Refunded, why, by, now)?);
        } else if order.status != ending {
            changes.push(order.enter(ending, reason, by, now)?);
        }
        self.apply_payment(&mut order);
        saga.finish();

        let mut tx = self.begin().await?;
        if !store::save_saga(&mut tx, &saga, Due::Woken, false, now).await? {
            return Err(Stop::Lost);
        }
        if self.money_back {
            let all: Vec<_> = (order.items.iter().enumerate())
                .map(|(item, bought)| Returned {
                    item,
                    quantity: bought.quantity,
                })
                .collect();
            store::save_returned(&mut tx, &order, &all).await?;
        }
        // Whatever else was to be given back went back by undoing, or was never taken.
        for refund in store::list_open_refunds(&mut tx, order.id).await? {
            store::close_refund(&mut tx, &refund, RefundState::Dropped).await?;
        }
        saga.open_refunds = 0;
        if !changes.is_empty() {
            self.save_order(&mut tx, &order, &changes).await?;
        }
        self.commit(tx, points::END).await?;
        (self.order, self.saga) = (order, saga);
        failpoint::hit(points::END.1).await?;
        Ok(())
    }

    /// Looks after an order that was given up and of whose money there is news.
    ///
    /// | payment | expired, payment failed | cancelled, or meant to be |
    /// |---|---|---|
    /// | authorized | units taken again and captured, else voided | voided |
    /// | captured | units taken again, else given back | given back |
    /// | given back | refunded | refunded |
    /// | anything else | as it was | as it was |
    pub(super) async fn reopen(&mut self, given_up: Status) -> Result<(), Stop> {
        self.step = "reopen";
        if self.order.payment.is_none() {
            return self.leave(given_up).await;
        }
        let payment = self.ask_payment().await.map_err(stop)?;
        self.note_payment(payment);
        let unwanted = given_up == Status::Cancelled || self.saga.cancel.is_some();
        let phase = match self.payment_status() {
            PaymentStatus::Authorized | PaymentStatus::Captured if !unwanted => Phase::Forward,
            PaymentStatus::Authorized
            | PaymentStatus::Captured
            | PaymentStatus::RefundPending
            | PaymentStatus::PartiallyRefunded
            | PaymentStatus::Refunded => Phase::Undoing,
            PaymentStatus::Processing
            | PaymentStatus::RequiresAction
            | PaymentStatus::Failed
            | PaymentStatus::Voided
            | PaymentStatus::Expired
            | PaymentStatus::Unspecified => return self.leave(given_up).await,
        };
        self.saga.phase = phase;
        self.saga.ending = Some(given_up);
        "the payment succeeded after the order was given up"
            .clone_into(&mut self.saga.ending_reason);
        if given_up == Status::PaymentFailed && phase == Phase::Forward {
            // Its hold was released, and a released hold is over for good.
            self.saga.hold_attempt += 1;
        }
        Ok(())
    }

    /// Leaves a given-up order as it was, also one that needed attention meanwhile.
    async fn leave(&mut self, given_up: Status) -> Result<(), Stop> {
        if self.order.status == given_up {
            return self.rest(Due::Woken).await;
        }
        self.saga.ending = Some(given_up);
        "there is no money to look after".clone_into(&mut self.saga.ending_reason);
        self.end().await
    }

    /// The status in which this order was given up, if it was; a stuck one keeps it as its saga's ending.
    pub(super) fn given_up(&self) -> Option<Status> {
        let stood = match self.order.status {
            Status::NeedsAttention => self.saga.ending?,
            status => status,
        };
        stood.is_given_up().then_some(stood)
    }

    pub(super) async fn wait_for_payment(&mut self) -> Result<Next, Stop> {
        let asked = if !self.saga.hold_extended && !self.is_late() {
            Some(self.ask_extend("extend", self.time_to_pay()).await?)
        } else if self.saga.hold_ended || self.now() >= self.order.hold_expires_at {
            // Time is the ledger's. Our clock and the news of an expiry, which a late commit may have overtaken, only
            // tell when to ask it.
            Some(
                self.ask_extend("probe", Duration::from_secs(PROBE_TTL_SECS))
                    .await?,
            )
        } else {
            None
        };
        match asked {
            Some(Extended::Lives) => self.saga.hold_extended = true,
            // The capture is under way; the units are ours and stay so until its outcome is known.
            Some(Extended::Committed) | None => {}
            Some(Extended::Over) => {
                let why = "the hold was over before the payment";
                return Ok(Next::Back(Status::Expired, why.to_owned()));
            }
        }
        self.publish_waiting(match self.payment_status() {
            PaymentStatus::RequiresAction => "the customer has to act",
            _ => "the provider has not said what came of the payment",
        })
        .await?;
        let hold_over = self.order.hold_expires_at.max(self.now()) + Duration::from_secs(1);
        self.rest(Due::At(self.look_again_at().min(hold_over)))
            .await?;
        Ok(Next::Rest)
    }

    /// Says that the order waits for its payment, or for another act than before. Says it once.
    pub(super) async fn publish_waiting(&mut self, why: &str) -> Result<(), Stop> {
        let waits = self.order.status == Status::AwaitingPayment;
        let may_wait = waits
            || matches!(self.order.status, Status::Pending | Status::NeedsAttention)
                && !self.is_late();
        let mut order = self.order.clone();
        self.apply_payment(&mut order);
        if !may_wait || (waits && order.payment == self.order.payment) {
            return Ok(());
        }
        let now = self.now();
        let change = order.enter(Status::AwaitingPayment, why, None, now)?;
        let progress = Progress {
            saga: &self.saga,
            due: Due::Kept,
            heeds_cancel: false,
            order: &order,
            version_before: self.order.version,
            changes: &[change],
        };
        if !self.save_progress(&progress, now, points::AWAIT).await? {
            return Err(Stop::Lost);
        }
        self.order = order;
        failpoint::hit(points::AWAIT.1).await?;
        Ok(())
    }

    /// Leaves the purchase to whoever finds it due, or to news.
    pub(crate) async fn rest(&mut self, due: Due) -> Result<(), Stop> {
        let now = self.now();
        self.saga.failures = 0;
        self.save_saga(&self.saga, due, now, points::REST).await?;
        failpoint::hit(points::REST.1).await?;
        Ok(())
    }

    /// Saves that a step failed, and when to try again; after the last try the order is raised to people.
    pub(super) async fn put_off(mut self, error: OrdersError) {
        let now = self.now();
        let again = self.saga.failed_step == self.step;
        self.saga.failures = if again { self.saga.failures + 1 } else { 1 };
        self.step.clone_into(&mut self.saga.failed_step);
        let failures = self.saga.failures;
        tracing::warn!(
            order = %self.order.id, step = self.step, failures, cause = %Fault::from(error), "a step of a purchase failed"
        );
        let saved = if failures < worker::FAILURES_MAX {
            let wait = worker::backoff(failures, (self.desk.random)());
            self.save_put_off(Due::At(now + wait), None).await
        } else {
            metrics::counter!("holdfast_sagas_parked_total", "step" => self.step).increment(1);
            tracing::error!(order = %self.order.id, step = self.step, "a purchase needs attention");
            self.save_put_off(Due::Woken, Some(now)).await
        };
        match saved {
            Ok(()) | Err(Stop::Lost) => {}
            // The lease runs out, and a worker takes it from where it was last saved.
            Err(Stop::Failed(error) | Stop::Refused(error)) => {
                tracing::warn!(order = %self.order.id, cause = %error, "cannot save that a step failed");
            }
        }
    }

    pub(super) async fn save_put_off(
        &mut self,
        due: Due,
        parked_at: Option<Timestamp>,
    ) -> Result<(), Stop> {
        let now = self.now();
        if parked_at.is_some() && self.saga.phase == Phase::Done {
            self.saga.ending = self.given_up();
        }
        let mut tx = self.begin().await?;
        if !store::save_saga(&mut tx, &self.saga, due, false, now).await? {
            return Err(Stop::Lost);
        }
        if let Some(now) = parked_at {
            // What this turn had in mind may be more than what was saved.
            let order = store::lock_order(&mut tx, self.order.id).await?;
            let mut order = order.ok_or(OrdersError::UnknownOrder)?;
            self.order = order.clone();
            if order.status != Status::NeedsAttention {
                let why = format!("step {} failed {} times", self.step, self.saga.failures);
                let change = order.enter(Status::NeedsAttention, why, None, now)?;
                self.save_order(&mut tx, &order, &[change]).await?;
            }
        }
        self.commit(tx, points::PUT_OFF).await?;
        failpoint::hit(points::PUT_OFF.1).await?;
        Ok(())
    }

    /// Makes sure the purchase is still this worker's, and reads what came from outside.
    pub(crate) async fn look(&mut self) -> Result<(), Stop> {
        let now = self.now();
        let mut db = database::acquire(&self.desk.context.database).await?;
        let glance = store::glance(&mut db, self.order.id).await?;
        let glance = glance
            .filter(|glance| glance.epoch == self.saga.epoch)
            .ok_or(Stop::Lost)?;
        self.saga.hold_ended = glance.hold_ended;
        self.saga.open_refunds = glance.open_refunds;
        self.saga.cancel = Cancel::read(
            glance.cancel_request,
            glance.cancel_fingerprint,
            glance.cancelled_by,
            glance.cancel_reason,
        );
        if self.saga.leased_until < now + Duration::from_secs(LEASE_LEFT_MIN_SECS) {
            self.saga.leased_until = now + self.lease();
            let (order, epoch) = (self.order.id, self.saga.epoch);
            if !store::renew_lease(&mut db, order, epoch, self.saga.leased_until).await? {
                return Err(Stop::Lost);
            }
        }
        Ok(())
    }

    pub(crate) fn look_again_at(&self) -> Timestamp {
        self.now() + jiff::SignedDuration::from_secs(LOOK_SECS)
    }

    pub(crate) fn now(&self) -> Timestamp {
        time::to_micros(self.desk.context.clock.now())
    }

    pub(super) fn lease(&self) -> Duration {
        Duration::from_secs(self.desk.settings.lease_secs)
    }

    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Postgres>, Stop> {
        Ok(database::begin(&self.desk.context.database).await?)
    }

    pub(crate) async fn commit(
        &self,
        tx: Transaction<'_, Postgres>,
        point: Around,
    ) -> Result<(), Stop> {
        failpoint::hit(point.0).await?;
        Ok(self.desk.commit(tx, self.order.id).await?)
    }

    pub(crate) async fn save_order(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        order: &Order,
        changes: &[Change],
    ) -> Result<(), Stop> {
        if store::save_order(tx, order, self.order.version, changes).await? {
            Ok(())
        } else {
            Err(Stop::Lost)
        }
    }

    /// Writes how far the saga is, in a transaction that is nothing but this.
    async fn save_saga(
        &self,
        saga: &Saga,
        due: Due,
        now: Timestamp,
        point: Around,
    ) -> Result<(), Stop> {
        failpoint::hit(point.0).await?;
        let mut db = database::acquire(&self.desk.context.database).await?;
        if store::save_saga(&mut db, saga, due, false, now).await? {
            Ok(())
        } else {
            Err(Stop::Lost)
        }
    }

    /// Writes saga and order, in a transaction that is nothing but this; `false` when that cannot be.
    pub(super) async fn save_progress(
        &self,
        progress: &Progress<'_>,
        now: Timestamp,
        point: Around,
    ) -> Result<bool, Stop> {
        failpoint::hit(point.0).await?;
        let mut db = database::acquire(&self.desk.context.database).await?;
        let saved = store::save_progress(&mut db, progress, now).await;
        self.desk.shown.forget(self.order.id);
        let saved = saved?;
        self.desk.context.wake.wake();
        Ok(saved)
    }
}
