//! The purchase of goods as a saga: what is done, what undoes it, and how it goes on after anything that may happen.
//!
//! [`STEPS`] is the purchase. They are done top down; when one turns back, what was done is undone bottom up. Nothing but
//! the record and the end is saved in between, for every step can be asked again: commands are keyed (saga, step, epoch),
//! so the ledger and payments answer a repeated one with what came of the first, and refuse one of an older epoch. A
//! worker that takes a purchase over begins at the top.
//!
//! Three things come from outside, and none of them moves anything by itself: a wish to cancel (a flag, read before each
//! step that could be regretted), the ledger's word that the hold is over (a flag as well), and news of the payment. They
//! wake the saga, and the saga looks.
//!
//! Money that arrives for an order that was given up ([`Run::reopen`]) runs the same steps again: the units are taken
//! once more, and the order is confirmed; where they are gone or the customer cancelled, the money goes back.

mod command;
mod turn;

use std::{any::Any, future::Future, panic::AssertUnwindSafe, pin::Pin, sync::Arc};

use futures::FutureExt as _;
use holdfast_kernel::{Id, id};
use holdfast_platform::{database, failpoint, fault::Fault, service::Context};
use holdfast_proto::{
    inventory::v1 as ledger,
    payments::v1::{self as payments, PaymentStatus},
};
use sqlx::{Postgres, Transaction};
use tokio_util::task::TaskTracker;

use self::command::{
    LEDGER_COMMAND_SECS, PAYMENT_COMMAND_SECS, lines, payment_refused, points_found, units_gone,
};
pub(crate) use self::command::{around, stop};
use crate::{
    Peers, Settings,
    domain::{Change, Order, Status},
    error::OrdersError,
    points,
    saga::{Method, Phase, Saga},
    shown::Shown,
    store::{self, Due, Progress},
    worker::Bell,
};

/// One step: what does it, and what undoes it. Both may be asked any number of times.
struct Step {
    name: &'static str,
    act: Act,
    undo: Undo,
}

type Act = for<'r> fn(&'r mut Run) -> Pin<Box<dyn Future<Output = Result<Next, Stop>> + Send + 'r>>;
type Undo =
    for<'r> fn(&'r mut Run) -> Pin<Box<dyn Future<Output = Result<Undone, Stop>> + Send + 'r>>;

const STEPS: [Step; 6] = [
    Step {
        name: "reserve",
        act: |run| Box::pin(run.reserve()),
        undo: |run| Box::pin(run.release()),
    },
    Step {
        name: "record",
        act: |run| Box::pin(run.record()),
        undo: NOTHING, // the order stays, and gets its ending
    },
    Step {
        name: "authorize",
        act: |run| Box::pin(run.authorize()),
        undo: |run| Box::pin(run.void()),
    },
    Step {
        name: "commit_units",
        act: |run| Box::pin(run.commit_units()),
        undo: |run| Box::pin(run.return_units()),
    },
    Step {
        name: "capture",
        act: |run| Box::pin(run.capture()),
        undo: NOTHING, // voiding gives back what was captured
    },
    Step {
        name: "confirm",
        act: |run| Box::pin(run.confirm()),
        undo: NOTHING, // the last step; a confirmed order is cancelled by a refund
    },
];

const NOTHING: Undo = |_| Box::pin(std::future::ready(Ok(Undone::Done)));

/// What every purchase is carried out with.
pub(crate) struct Desk {
    pub(crate) peers: Peers,
    pub(crate) context: Context,
    pub(crate) settings: Settings,
    pub(crate) bell: Bell,
    /// Told of every write of an order.
    pub(crate) shown: Shown,
    /// Purchases under way in this process, for an orderly end.
    pub(crate) running: TaskTracker,
    /// From 0 to 1, for waits that must not march in step.
    pub(crate) random: fn() -> f64,
}

impl Desk {
    /// Makes what a transaction did to an order true, and forgets the order, whatever came of that.
    pub(crate) async fn commit(
        &self,
        tx: Transaction<'_, Postgres>,
        order: Id<id::Order>,
    ) -> Result<(), OrdersError> {
        let committed = database::commit(tx).await;
        self.shown.forget(order);
        committed?;
        self.context.wake.wake();
        Ok(())
    }
}

/// How far a run came.
#[derive(Debug)]
pub(crate) enum Reached {
    /// The order is over, or waits for somebody else.
    Rest(Box<Order>),
    /// A step failed for now, or another worker has it.
    OnItsWay,
}

/// One worker's turn at a purchase.
pub(crate) struct Run {
    pub(crate) desk: Arc<Desk>,
    pub(crate) order: Order,
    pub(crate) saga: Saga,
    /// Whether order and saga are in the database.
    recorded: bool,
    /// As payments last answered in this turn.
    payment: Option<payments::Payment>,
    /// Whether units may have been committed, in this turn or an earlier one.
    may_have_committed: bool,
    /// Undoing gave committed units back; their hold is over by that.
    units_back: bool,
    /// Undoing gave captured money back.
    money_back: bool,
    step: &'static str,
}

/// What a step that was done leads to.
enum Next {
    On,
    /// Nothing to do until woken or due; that is saved.
    Rest,
    /// What was done must be undone, and the order ends so.
    Back(Status, String),
}

/// What undoing a step leads to.
enum Undone {
    Done,
    /// The money is on its way back; to be looked at again.
    Rest,
}

/// Why a turn ends early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Another worker has the purchase.
    Lost,
    /// Nothing was recorded: the purchase is refused.
    Refused(OrdersError),
    /// The step failed for now.
    Failed(OrdersError),
}

impl Run {
    /// A purchase that is about to be made.
    pub(crate) fn start(desk: Arc<Desk>, order: Order, method: Method) -> Self {
        let saga = Saga {
            order: order.id,
            epoch: 1,
            phase: Phase::Forward,
            ending: None,
            ending_reason: String::new(),
            method: Some(method),
            hold_attempt: 0,
            hold_extended: false,
            hold_ended: false,
            cancel: None,
            open_refunds: 0,
            wakes: 0,
            leased_until: order.created_at,
            failures: 0,
            failed_step: String::new(),
        };
        Self {
            recorded: false,
            may_have_committed: false,
            ..Self::resume(desk, order, saga)
        }
    }

    /// A purchase that was claimed.
    pub(crate) fn resume(desk: Arc<Desk>, order: Order, saga: Saga) -> Self {
        Self {
            desk,
            order,
            saga,
            recorded: true,
            payment: None,
            may_have_committed: true,
            units_back: false,
            money_back: false,
            step: "claim",
        }
    }

    /// Carries the purchase as far as it goes now.
    ///
    /// Fails only while nothing is recorded; after that a failure is saved, and a worker tries again.
    pub(crate) async fn run(mut self) -> Result<Reached, OrdersError> {
        // A turn that panics is a step that failed: it is put off, and raised in the end, as any other. What it had in
        // mind when it panicked is no worse than what one that stops half-way has.
        let turn = AssertUnwindSafe(self.go()).catch_unwind().await;
        match turn.unwrap_or_else(|panic| Err(Stop::Failed(panicked(&*panic)))) {
            Ok(()) => Ok(Reached::Rest(Box::new(self.order))),
            Err(Stop::Lost) => Ok(Reached::OnItsWay),
            Err(Stop::Refused(error)) => Err(error),
            Err(Stop::Failed(error)) if !self.recorded => Err(error),
            Err(Stop::Failed(error)) => {
                self.put_off(error).await;
                Ok(Reached::OnItsWay)
            }
        }
    }

    async fn go(&mut self) -> Result<(), Stop> {
        if self.saga.phase == Phase::Done && self.saga.open_refunds == 0 {
            let Some(given_up) = self.given_up() else {
                // Woken by what came while the last turn ended.
                return self.rest(Due::Woken).await;
            };
            self.reopen(given_up).await?;
        }
        if self.saga.phase == Phase::Forward {
            self.forward().await?;
        }
        if self.saga.phase == Phase::Undoing {
            self.back().await?;
        }
        if self.saga.phase == Phase::Done && self.saga.open_refunds > 0 {
            self.step = "refund";
            self.carry_out_refunds().await?;
        }
        Ok(())
    }

    async fn forward(&mut self) -> Result<(), Stop> {
        for step in &STEPS {
            self.step = step.name;
            match (step.act)(self).await? {
                Next::On => {}
                Next::Rest => break,
                Next::Back(ending, reason) => return self.turn_back(ending, reason).await,
            }
        }
        Ok(())
    }

    async fn back(&mut self) -> Result<(), Stop> {
        for step in STEPS.iter().rev() {
            self.step = step.name;
            match (step.undo)(self).await? {
                Undone::Done => {}
                Undone::Rest => return self.rest(Due::At(self.look_again_at())).await,
            }
        }
        self.end().await
    }

    // ---- the steps ----

    /// Takes the units; beside it, before anything is written, payments tells whether the method could be charged at all.
    async fn reserve(&mut self) -> Result<Next, Stop> {
        if self.recorded {
            return if self.saga.hold_attempt == 0 {
                Ok(Next::On)
            } else {
                self.reserve_again().await
            };
        }
        let (reserved, validated) = tokio::join!(self.ask_reserve(), self.ask_validate());
        match (validated, reserved) {
            (Ok(()), Ok(hold)) => {
                self.note_hold(&hold);
                Ok(Next::On)
            }
            (Ok(()), Err(fault)) if fault.reason() == "HOLD_ENDED" => {
                // An earlier try of this request came so far and no further. Its hold is over, and so is the order.
                self.saga.finish();
                Ok(Next::On)
            }
            (Ok(()), Err(fault)) => Err(Stop::Refused(self.refused_units(fault))),
            (Err(fault), Ok(_)) => {
                // Where payments could not answer the hold stays for the next try of the same request.
                if !fault.is_transient() {
                    self.ask_release().await.map_err(Stop::Failed).ok();
                }
                Err(Stop::Refused(fault.into()))
            }
            (Err(fault), Err(_)) => Err(Stop::Refused(fault.into())),
        }
    }

    /// Takes the units once more, for money that came late for a hold that was given back.
    async fn reserve_again(&mut self) -> Result<Next, Stop> {
        match self.ask_reserve().await {
            Ok(_) => Ok(Next::On),
            Err(fault) => units_gone(fault),
        }
    }

    /// Writes the order, its items at the prices quoted, and the saga: from here on the purchase cannot be forgotten.
    async fn record(&mut self) -> Result<Next, Stop> {
        if self.recorded {
            return Ok(Next::On);
        }
        let now = self.now();
        let (mut order, mut saga) = (self.order.clone(), self.saga.clone());
        saga.leased_until = now + self.lease();
        let mut changes = vec![order.created()];
        if saga.phase == Phase::Done {
            let why = "the hold was over before the order was written";
            changes.push(order.enter(Status::Expired, why, None, now)?);
        }
        failpoint::hit(points::RECORD.0).await?;
        let mut db = database::acquire(&self.desk.context.database).await?;
        let recorded = store::record_order(&mut db, &order, &saga, &changes, now).await;
        drop(db);
        self.desk.shown.forget(order.id);
        if !recorded? {
            // The same request, twice at the same time: the other one carries it out.
            self.recorded = true;
            return Err(Stop::Lost);
        }
        self.desk.context.wake.wake();
        (self.order, self.saga) = (order, saga);
        self.recorded = true;
        if self.saga.phase == Phase::Done {
            return Ok(Next::Rest);
        }
        failpoint::hit(points::RECORD.1).await?;
        Ok(Next::On)
    }

    /// Has the money reserved, or taken where it cannot be reserved.
    async fn authorize(&mut self) -> Result<Next, Stop> {
        if self.is_free() {
            return Ok(Next::On);
        }
        if self.saga.cancel.is_some() && !self.is_late() {
            return Ok(self.cancelled());
        }
        if self.payment.is_none() {
            let asked = if self.order.payment.is_some() {
                self.ask_payment().await
            } else {
                self.ask_authorize().await?
            };
            match asked {
                Ok(payment) => self.note_payment(payment),
                Err(fault) => {
                    self.order.points_found = points_found(&fault);
                    return payment_refused(fault);
                }
            }
        }
        match self.payment_status() {
            PaymentStatus::Authorized | PaymentStatus::Captured => Ok(Next::On),
            PaymentStatus::Processing | PaymentStatus::RequiresAction => {
                self.wait_for_payment().await
            }
            PaymentStatus::Expired => Ok(Next::Back(
                Status::Expired,
                "the customer did not pay in time".to_owned(),
            )),
            PaymentStatus::Failed | PaymentStatus::Voided => Ok(self.payment_failed()),
            PaymentStatus::RefundPending
            | PaymentStatus::PartiallyRefunded
            | PaymentStatus::Refunded => Ok(Next::Back(
                Status::PaymentFailed,
                "the payment was given back".to_owned(),
            )),
            PaymentStatus::Unspecified => Err(self.nonsense("a payment without a status")),
        }
    }

    /// Turns held units into sold ones; of a hold whose time is over, by taking them again.
    async fn commit_units(&mut self) -> Result<Next, Stop> {
        self.look().await?;
        if self.saga.cancel.is_some() && !self.is_late() {
            return Ok(self.cancelled());
        }
        self.may_have_committed = true;
        let request = ledger::CommitRequest {
            hold_id: self.hold().to_string(),
            actor: self.order.user.to_string(),
            command: Some(self.command("commit_units")),
        };
        let mut inventory = self.desk.peers.inventory.clone();
        let call = inventory.commit(self.own(request, LEDGER_COMMAND_SECS));
        match around(points::COMMIT_UNITS, call).await? {
            Ok(_) => Ok(Next::On),
            Err(fault) => units_gone(fault),
        }
    }

    /// Takes the money, now that the units are surely the customer's.
    async fn capture(&mut self) -> Result<Next, Stop> {
        if self.is_free() {
            return Ok(Next::On);
        }
        self.look().await?;
        if self.saga.cancel.is_some() && !self.is_late() {
            return Ok(self.cancelled());
        }
        let request = payments::CaptureRequest {
            command: Some(self.command("capture")),
            payment_id: self.payment_id(),
        };
        let mut till = self.desk.peers.payments.clone();
        let request = self.own(request, PAYMENT_COMMAND_SECS);
        let call = around(points::CAPTURE, async move { till.capture(request).await });
        match self.patiently(Box::pin(call)).await? {
            Ok(answer) => {
                let payment = self.given(answer.payment)?;
                self.note_payment(payment);
            }
            Err(fault) => return payment_refused(fault),
        }
        match self.payment_status() {
            PaymentStatus::Captured => Ok(Next::On),
            PaymentStatus::Processing => {
                // The units are ours and stay so until the outcome is known.
                self.publish_waiting("the provider has not said whether it took the money")
                    .await?;
                self.rest(Due::At(self.look_again_at())).await?;
                Ok(Next::Rest)
            }
            PaymentStatus::Failed | PaymentStatus::Voided | PaymentStatus::Expired => {
                Ok(self.payment_failed())
            }
            PaymentStatus::RefundPending
            | PaymentStatus::PartiallyRefunded
            | PaymentStatus::Refunded => Ok(Next::Back(
                Status::PaymentFailed,
                "the payment was given back".to_owned(),
            )),
            PaymentStatus::Authorized
            | PaymentStatus::RequiresAction
            | PaymentStatus::Unspecified => Err(self.nonsense("a capture that captured nothing")),
        }
    }

    /// Tells the world. A wish to cancel that came meanwhile still wins: then the money goes back.
    async fn confirm(&mut self) -> Result<Next, Stop> {
        let now = self.now();
        let (mut order, mut saga) = (self.order.clone(), self.saga.clone());
        let mut changes = Vec::with_capacity(2);
        if matches!(order.status, Status::Pending | Status::AwaitingPayment) {
            changes.push(order.enter(Status::Paid, "payment captured", None, now)?);
        }
        let late = if self.is_late() {
            "paid late; the units were taken again"
        } else {
            "purchase complete"
        };
        changes.push(Change {
            points_earned: Some(self.points_earned()),
            ..order.enter(Status::Confirmed, late, None, now)?
        });
        self.apply_payment(&mut order);
        saga.finish();

        let progress = Progress {
            saga: &saga,
            due: Due::Never,
            heeds_cancel: !self.is_late(),
            order: &order,
            version_before: self.order.version,
            changes: &changes,
        };
        if !self.save_progress(&progress, now, points::CONFIRM).await? {
            self.look().await?;
            return match self.saga.cancel {
                Some(_) if progress.heeds_cancel => Ok(self.cancelled()),
                _ => Err(Stop::Lost),
            };
        }
        (self.order, self.saga) = (order, saga);
        failpoint::hit(points::CONFIRM.1).await?;
        Ok(Next::On)
    }

    // ---- what undoes them ----

    /// Gives units back that were sold, if they were.
    async fn return_units(&mut self) -> Result<Undone, Stop> {
        if !self.may_have_committed {
            return Ok(Undone::Done);
        }
        let request = ledger::ReturnRequest {
            request_id: self.derived("return"),
            hold_id: self.hold().to_string(),
            actor: self.order.user.to_string(),
            lines: lines(self.order.claims_left()),
        };
        let mut inventory = self.desk.peers.inventory.clone();
        let call = inventory.r#return(self.own(request, LEDGER_COMMAND_SECS));
        match around(points::RETURN_UNITS, call).await? {
            Ok(_) => {
                self.units_back = true;
                Ok(Undone::Done)
            }
            Err(fault) if matches!(fault.reason(), "HOLD_NOT_COMMITTED" | "UNKNOWN_HOLD") => {
                Ok(Undone::Done)
            }
            Err(fault) => Err(stop(fault)),
        }
    }

    /// Ends the payment; what was captured goes back to the customer.
    async fn void(&mut self) -> Result<Undone, Stop> {
        if self.is_free() {
            return Ok(Undone::Done);
        }
        if self.payment.is_none() && self.order.payment.is_some() {
            let payment = self.ask_payment().await.map_err(stop)?;
            self.note_payment(payment);
        }
        let known = self.payment.as_ref().map(payments::Payment::status);
        let settled = matches!(
            known,
            Some(PaymentStatus::Failed | PaymentStatus::Voided | PaymentStatus::Expired)
        );
        // The hold ran out before the provider knew: whatever it says in the end still counts.
        let undecided =
            known == Some(PaymentStatus::Processing) && self.saga.ending == Some(Status::Expired);
        if settled || undecided {
            return Ok(Undone::Done);
        }
        let request = payments::VoidRequest {
            command: Some(self.command("void")),
            payment_id: self.payment_id(),
        };
        let mut till = self.desk.peers.payments.clone();
        let call = till.void(self.own(request, PAYMENT_COMMAND_SECS));
        let answer = around(points::VOID, call).await?.map_err(stop)?;
        let Some(payment) = answer.payment else {
            return Ok(Undone::Done);
        };
        self.note_payment(payment);
        match self.payment_status() {
            PaymentStatus::Refunded => {
                self.money_back = true;
                Ok(Undone::Done)
            }
            PaymentStatus::RefundPending => Ok(Undone::Rest),
            PaymentStatus::Voided
            | PaymentStatus::Failed
            | PaymentStatus::Expired
            | PaymentStatus::Processing => Ok(Undone::Done),
            PaymentStatus::Authorized
            | PaymentStatus::Captured
            | PaymentStatus::PartiallyRefunded
            | PaymentStatus::RequiresAction
            | PaymentStatus::Unspecified => Err(self.nonsense("a void that voided nothing")),
        }
    }

    /// Frees the units. Of an order that expired the hold is over already, and money that comes late may still take
    /// them by it; a released one can never be committed.
    async fn release(&mut self) -> Result<Undone, Stop> {
        if self.units_back || self.saga.ending == Some(Status::Expired) {
            return Ok(Undone::Done);
        }
        self.ask_release().await.map_err(|error| {
            // Somebody committed behind our back: the next try returns the units first.
            self.may_have_committed = true;
            match error {
                OrdersError::Peer(fault) => stop(*fault),
                error => Stop::Failed(error),
            }
        })?;
        Ok(Undone::Done)
    }
}

/// What a panic says, where it says anything.
fn panicked(panic: &(dyn Any + Send)) -> OrdersError {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
    OrdersError::Panicked(said.unwrap_or("without a word").to_owned())
}

impl From<OrdersError> for Stop {
    fn from(error: OrdersError) -> Self {
        Self::Failed(error)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault.into())
    }
}

impl From<failpoint::Injected> for Stop {
    fn from(injected: failpoint::Injected) -> Self {
        Self::Failed(injected.into())
    }
}
