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

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use holdfast_kernel::{Id, RequestId, Timestamp, id, time};
use holdfast_platform::{database, failpoint, fault::Fault, service::Context, wire};
use holdfast_proto::{
    inventory::v1 as ledger,
    money::v1 as money_pb,
    payments::v1::{self as payments, PaymentStatus},
    saga::v1::Command,
};
use serde::{Deserialize, Serialize};
use sqlx::{Postgres, Transaction};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status as GrpcStatus};
use uuid::Uuid;

use crate::{
    Peers, Settings,
    domain::{Change, Order, Payment, RefundState, Status},
    error::{OrdersError, Short},
    messages,
    points::{self, Around},
    store::{self, Due},
    worker::{self, Bell},
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

/// How long a command to payments may take: the provider stands behind it.
const PAYMENT_COMMAND_SECS: u64 = 5;
/// How long a command to the ledger may take.
const LEDGER_COMMAND_SECS: u64 = 2;
/// A worker with less of its lease left asks for more before it goes on.
const LEASE_LEFT_MIN_SECS: u64 = 6;
/// How long the provider may take before the order says that it is waited for. Less than a call waits for its answer.
const AWAITED_AFTER_MILLIS: u64 = 1_500;
/// How often a purchase that waits looks by itself, in case news was lost.
const LOOK_SECS: i64 = 15;
/// What a probe asks the ledger to add to a hold: as little as can be.
const PROBE_TTL_SECS: u64 = 1;

/// How far a purchase is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Saga {
    pub(crate) order: Id<id::Order>,
    /// Rises with every take-over. Commands of a lower one are refused everywhere.
    pub(crate) epoch: i64,
    pub(crate) phase: Phase,
    /// The status the order gets when all is undone. While going forward: the status it had been given up in.
    pub(crate) ending: Option<Status>,
    pub(crate) ending_reason: String,
    pub(crate) method: Option<Method>,
    /// Which hold it stands on: 0 is the order's own, later ones were taken after that one had ended.
    pub(crate) hold_attempt: i32,
    pub(crate) hold_extended: bool,
    pub(crate) hold_ended: bool,
    pub(crate) cancel: Option<Cancel>,
    pub(crate) open_refunds: i32,
    /// Counts news, so that what arrives while a worker is busy is not slept over.
    pub(crate) wakes: i64,
    pub(crate) leased_until: Timestamp,
    pub(crate) failures: i32,
    pub(crate) failed_step: String,
}

/// Which way the saga goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Forward,
    Undoing,
    Done,
}

/// A wish to cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cancel {
    pub(crate) request: Uuid,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) by: Option<Id<id::User>>,
}

/// How the customer wants to pay: a method they saved, or one for this purchase.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Method {
    Saved(String),
    Inline { kind: String, token: String },
}

/// Tokens of methods stand in no log.
impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Saved(id) => f.debug_tuple("Saved").field(id).finish(),
            Self::Inline { kind, .. } => f
                .debug_struct("Inline")
                .field("kind", kind)
                .finish_non_exhaustive(),
        }
    }
}

/// What every purchase is carried out with.
pub(crate) struct Desk {
    pub(crate) peers: Peers,
    pub(crate) context: Context,
    pub(crate) settings: Settings,
    pub(crate) bell: Bell,
    /// Purchases under way in this process, for an orderly end.
    pub(crate) running: TaskTracker,
    /// From 0 to 1, for waits that must not march in step.
    pub(crate) random: fn() -> f64,
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

/// What the ledger says of a hold that was to be extended.
enum Extended {
    Lives,
    Committed,
    Over,
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
        match self.go().await {
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
        if self.order.status == Status::NeedsAttention {
            self.saga.failures = 0;
        }
        if self.saga.phase == Phase::Done && self.order.status.is_given_up() {
            self.reopen().await?;
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
            Err(fault) => self.units_gone(fault),
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
        let mut tx = self.begin().await?;
        if !store::insert_order(&mut tx, &order).await? {
            // The same request, twice at the same time: the other one carries it out.
            self.recorded = true;
            return Err(Stop::Lost);
        }
        store::insert_saga(&mut tx, &saga, now).await?;
        self.tell(&mut tx, &order, &changes).await?;
        self.commit(tx, points::RECORD).await?;
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
            return Ok(cancelled());
        }
        if self.payment.is_none() {
            let asked = if self.order.payment.is_some() {
                self.ask_payment().await
            } else {
                self.ask_authorize().await?
            };
            match asked {
                Ok(payment) => self.note_payment(payment),
                Err(fault) => return self.payment_refused(fault),
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
            return Ok(cancelled());
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
            Err(fault) => self.units_gone(fault),
        }
    }

    /// Takes the money, now that the units are surely the customer's.
    async fn capture(&mut self) -> Result<Next, Stop> {
        if self.is_free() {
            return Ok(Next::On);
        }
        self.look().await?;
        if self.saga.cancel.is_some() && !self.is_late() {
            return Ok(cancelled());
        }
        let request = payments::CaptureRequest {
            command: Some(self.command("capture")),
            payment_id: self.payment_id(),
        };
        let mut till = self.desk.peers.payments.clone();
        let request = self.own(request, PAYMENT_COMMAND_SECS);
        let call = around(points::CAPTURE, async move { till.capture(request).await });
        match self.patiently(call).await? {
            Ok(answer) => {
                let payment = self.given(answer.payment)?;
                self.note_payment(payment);
            }
            Err(fault) => return self.payment_refused(fault),
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
        changes.push(order.enter(Status::Confirmed, late, None, now)?);
        self.apply_payment(&mut order);
        saga.finish();

        let mut tx = self.begin().await?;
        let heeds_cancel = !self.is_late();
        if !store::save_saga(&mut tx, &saga, Due::Never, heeds_cancel, now).await? {
            drop(tx);
            self.look().await?;
            return Ok(cancelled());
        }
        self.save_order(&mut tx, &order).await?;
        self.tell(&mut tx, &order, &changes).await?;
        self.commit(tx, points::CONFIRM).await?;
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
        let lines = (self.order.units_left().into_iter())
            .map(|(sku, quantity)| ledger::Line {
                pool: sku.pool().to_string(),
                quantity,
            })
            .collect();
        let request = ledger::ReturnRequest {
            request_id: self.derived("return"),
            hold_id: self.hold().to_string(),
            actor: self.order.user.to_string(),
            lines,
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

    // ---- what leads from one to the other ----

    /// Decides that the purchase ends this way, before anything is undone.
    async fn turn_back(&mut self, ending: Status, reason: String) -> Result<(), Stop> {
        let now = self.now();
        let mut saga = self.saga.clone();
        // An order that was given up before ends as it was, unless money goes back.
        saga.ending = Some(saga.ending.unwrap_or(ending));
        saga.ending_reason = reason;
        saga.phase = Phase::Undoing;
        saga.failures = 0;
        let mut tx = self.begin().await?;
        if !store::save_saga(&mut tx, &saga, Due::Kept, false, now).await? {
            return Err(Stop::Lost);
        }
        self.commit(tx, points::TURN_BACK).await?;
        self.saga = saga;
        failpoint::hit(points::TURN_BACK.1).await?;
        Ok(())
    }

    /// Gives the order its ending, once all is undone.
    async fn end(&mut self) -> Result<(), Stop> {
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
            for item in &mut order.items {
                item.refunded_quantity = item.quantity;
            }
            let why = format!("{} refunded: {reason}", order.total);
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
                .map(|(item, bought)| crate::domain::Returned {
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
            self.save_order(&mut tx, &order).await?;
            self.tell(&mut tx, &order, &changes).await?;
        }
        self.commit(tx, points::END).await?;
        (self.order, self.saga) = (order, saga);
        failpoint::hit(points::END.1).await?;
        Ok(())
    }

    /// Looks after an order that was given up and of whose money there is news.
    ///
    /// | payment | expired, payment failed | cancelled |
    /// |---|---|---|
    /// | authorized | units taken again and captured, else voided | voided |
    /// | captured | units taken again, else given back | given back |
    /// | given back | refunded | refunded |
    /// | anything else | as it was | as it was |
    async fn reopen(&mut self) -> Result<(), Stop> {
        self.step = "reopen";
        if self.order.payment.is_none() {
            return self.rest(Due::Woken).await;
        }
        let payment = self.ask_payment().await.map_err(stop)?;
        self.note_payment(payment);
        let given_up = self.order.status;
        let phase = match self.payment_status() {
            PaymentStatus::Authorized | PaymentStatus::Captured
                if given_up != Status::Cancelled =>
            {
                Phase::Forward
            }
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
            | PaymentStatus::Unspecified => return self.rest(Due::Woken).await,
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

    async fn wait_for_payment(&mut self) -> Result<Next, Stop> {
        let asked = if !self.saga.hold_extended && !self.is_late() {
            let grace = Duration::from_secs(self.desk.settings.hold_grace_secs);
            Some(
                self.ask_extend("extend", self.time_to_act() + grace)
                    .await?,
            )
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
    async fn publish_waiting(&mut self, why: &str) -> Result<(), Stop> {
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
        let mut tx = self.begin().await?;
        if !store::save_saga(&mut tx, &self.saga, Due::Kept, false, now).await? {
            return Err(Stop::Lost);
        }
        self.save_order(&mut tx, &order).await?;
        self.tell(&mut tx, &order, &[change]).await?;
        self.commit(tx, points::AWAIT).await?;
        self.order = order;
        failpoint::hit(points::AWAIT.1).await?;
        Ok(())
    }

    /// Leaves the purchase to whoever finds it due, or to news.
    pub(crate) async fn rest(&mut self, due: Due) -> Result<(), Stop> {
        let now = self.now();
        self.saga.failures = 0;
        let mut tx = self.begin().await?;
        if !store::save_saga(&mut tx, &self.saga, due, false, now).await? {
            return Err(Stop::Lost);
        }
        self.commit(tx, points::REST).await?;
        failpoint::hit(points::REST.1).await?;
        Ok(())
    }

    /// Saves that a step failed, and when to try again; after the last try the order is raised to people.
    async fn put_off(mut self, error: OrdersError) {
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

    async fn save_put_off(&mut self, due: Due, parked_at: Option<Timestamp>) -> Result<(), Stop> {
        let now = self.now();
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
                self.save_order(&mut tx, &order).await?;
                self.tell(&mut tx, &order, &[change]).await?;
            }
        }
        self.commit(tx, points::PUT_OFF).await
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

    // ---- what is asked of peers ----

    async fn ask_reserve(&self) -> Result<ledger::Hold, Fault> {
        let lines = (self.order.items.iter())
            .map(|item| ledger::Line {
                pool: item.sku.pool().to_string(),
                quantity: item.quantity,
            })
            .collect();
        let request = ledger::ReserveRequest {
            request_id: self.hold().to_string(),
            account: self.order.user.to_string(),
            actor: self.order.user.to_string(),
            lines,
            ttl: Some(wire::duration(Duration::from_secs(
                self.desk.settings.hold_secs,
            ))),
            command: Some(self.command("reserve")),
        };
        let mut inventory = self.desk.peers.inventory.clone();
        let call = inventory.reserve(self.own(request, LEDGER_COMMAND_SECS));
        let answer = around(points::RESERVE, call)
            .await
            .map_err(Fault::unavailable)??;
        (answer.hold).ok_or_else(|| Fault::internal("the ledger reserved without a hold"))
    }

    async fn ask_validate(&self) -> Result<(), Fault> {
        if self.is_free() {
            return Ok(());
        }
        let request = payments::ValidateMethodRequest {
            user_id: self.order.user.to_string(),
            method: self.saga.method.as_ref().map(Method::encode),
        };
        let mut till = self.desk.peers.payments.clone();
        let call = till.validate_method(self.own(request, LEDGER_COMMAND_SECS));
        around(points::VALIDATE, call)
            .await
            .map_err(Fault::unavailable)?
            .map(drop)
    }

    async fn ask_authorize(&mut self) -> Result<Result<payments::Payment, Fault>, Stop> {
        let request = payments::AuthorizeRequest {
            command: Some(self.command("authorize")),
            user_id: self.order.user.to_string(),
            amount: Some(money_pb::Money {
                amount: self.order.total.amount,
                currency: self.order.total.currency.to_string(),
            }),
            method: self.saga.method.as_ref().map(Method::encode),
            expires_at: Some(wire::timestamp(self.order.hold_expires_at)),
        };
        let mut till = self.desk.peers.payments.clone();
        let request = self.own(request, PAYMENT_COMMAND_SECS);
        let call = around(
            points::AUTHORIZE,
            async move { till.authorize(request).await },
        );
        match self.patiently(call).await? {
            Ok(answer) => Ok(Ok(self.given(answer.payment)?)),
            Err(fault) => Ok(Err(fault)),
        }
    }

    async fn ask_payment(&self) -> Result<payments::Payment, Fault> {
        let request = payments::GetPaymentRequest {
            payment_id: self.payment_id(),
        };
        let mut till = self.desk.peers.payments.clone();
        let call = till.get_payment(self.own(request, PAYMENT_COMMAND_SECS));
        let answer = call.await.map_err(|status| Fault::from_status(&status))?;
        (answer.into_inner().payment)
            .ok_or_else(|| Fault::internal("payments answered without a payment"))
    }

    async fn ask_release(&self) -> Result<(), OrdersError> {
        let request = ledger::ReleaseRequest {
            hold_id: self.hold().to_string(),
            actor: self.order.user.to_string(),
            command: Some(self.command("release")),
        };
        let mut inventory = self.desk.peers.inventory.clone();
        let call = inventory.release(self.own(request, LEDGER_COMMAND_SECS));
        around(points::RELEASE, call).await??;
        Ok(())
    }

    /// Gives the hold at least that long from now, if it is neither over nor committed.
    async fn ask_extend(&mut self, step: &'static str, ttl: Duration) -> Result<Extended, Stop> {
        let request = ledger::ExtendRequest {
            hold_id: self.hold().to_string(),
            ttl: Some(wire::duration(ttl)),
            command: Some(self.command(step)),
        };
        let mut inventory = self.desk.peers.inventory.clone();
        let call = inventory.extend(self.own(request, LEDGER_COMMAND_SECS));
        match around(points::EXTEND, call).await? {
            Ok(answer) => {
                if let Some(hold) = answer.hold {
                    self.note_hold(&hold);
                }
                Ok(Extended::Lives)
            }
            Err(fault) if fault.figure("state") == Some("committed") => Ok(Extended::Committed),
            Err(fault) if matches!(fault.reason(), "HOLD_ENDED" | "UNKNOWN_HOLD") => {
                Ok(Extended::Over)
            }
            Err(fault) => Err(stop(fault)),
        }
    }

    /// Waits for the provider; when it takes long, the order says so meanwhile.
    async fn patiently<T>(
        &mut self,
        call: impl Future<Output = Result<Result<T, Fault>, failpoint::Injected>>,
    ) -> Result<Result<T, Fault>, Stop> {
        tokio::pin!(call);
        let patience = Duration::from_millis(AWAITED_AFTER_MILLIS);
        match tokio::time::timeout(patience, &mut call).await {
            Ok(answer) => Ok(answer?),
            Err(_) => {
                self.publish_waiting("the provider takes long").await?;
                Ok(call.await?)
            }
        }
    }

    // ---- small ----

    /// A command of this saga; the hold's number keeps the steps of a second attempt apart from those of the first.
    fn command(&self, step: &str) -> Command {
        let step = match self.saga.hold_attempt {
            0 => step.to_owned(),
            attempt => format!("{step}.{attempt}"),
        };
        Command {
            saga_id: self.order.id.to_string(),
            step,
            epoch: self.saga.epoch,
        }
    }

    pub(crate) fn own<T>(&self, message: T, secs: u64) -> Request<T> {
        let mut request = self.desk.context.identity.request(message);
        request.set_timeout(Duration::from_secs(secs));
        request
    }

    /// The hold this purchase stands on.
    pub(crate) fn hold(&self) -> Uuid {
        hold_of(self.order.id, self.saga.hold_attempt)
    }

    fn derived(&self, what: &str) -> String {
        let attempt = self.saga.hold_attempt.to_string();
        RequestId::derive(&[what, &self.order.id.to_string(), &attempt]).to_string()
    }

    pub(crate) fn payment_id(&self) -> String {
        let known = self.payment.as_ref().map(|payment| payment.id.clone());
        let saved = || {
            self.order
                .payment
                .as_ref()
                .map(|payment| payment.id.to_string())
        };
        known.or_else(saved).unwrap_or_default()
    }

    fn payment_status(&self) -> PaymentStatus {
        (self.payment.as_ref()).map_or(PaymentStatus::Unspecified, payments::Payment::status)
    }

    pub(crate) fn note_payment(&mut self, payment: payments::Payment) {
        self.payment = Some(payment);
    }

    fn note_hold(&mut self, hold: &ledger::Hold) {
        if let Some(expires_at) = wire::moment(hold.expires_at.as_ref()) {
            self.order.hold_expires_at = time::to_micros(expires_at);
        }
    }

    /// Writes what payments last answered onto the order that is about to be saved.
    pub(crate) fn apply_payment(&self, order: &mut Order) {
        let Some(payment) = &self.payment else { return };
        let Ok(id) = payment.id.parse() else { return };
        order.payment = Some(Payment {
            id,
            status: status_name(payment.status()).to_owned(),
            next_action: payment
                .next_action
                .as_ref()
                .map_or(String::new(), next_action_json),
        });
    }

    /// Until when the customer may act, counted from now.
    fn time_to_act(&self) -> Duration {
        let action = self
            .payment
            .as_ref()
            .and_then(|payment| payment.next_action.as_ref());
        let until = action
            .and_then(|action| wire::moment(action.expires_at.as_ref()))
            .map_or(self.order.hold_expires_at, |ends| {
                ends.max(self.order.hold_expires_at)
            });
        Duration::try_from(until.duration_since(self.now())).unwrap_or_default()
    }

    fn payment_failed(&self) -> Next {
        let failure = self
            .payment
            .as_ref()
            .map_or("", |payment| payment.failure.as_str());
        let failure = if failure.is_empty() {
            "payment_failed"
        } else {
            failure
        };
        Next::Back(Status::PaymentFailed, failure.to_owned())
    }

    /// Payments refuses for good what it was asked, or fails for now.
    fn payment_refused(&self, fault: Fault) -> Result<Next, Stop> {
        match fault.reason() {
            "PAYMENT_METHOD_INVALID" | "STEP_UNDONE" | "INVALID_TRANSITION" => Ok(Next::Back(
                Status::PaymentFailed,
                fault.reason().to_ascii_lowercase(),
            )),
            _ => Err(stop(fault)),
        }
    }

    /// The ledger has the units no more, or fails for now.
    fn units_gone(&self, fault: Fault) -> Result<Next, Stop> {
        match fault.reason() {
            "INSUFFICIENT_UNITS" | "HOLD_ENDED" | "UNKNOWN_HOLD" | "UNKNOWN_POOL" => {
                Ok(Next::Back(
                    Status::Expired,
                    "the units were sold to somebody else".to_owned(),
                ))
            }
            _ => Err(stop(fault)),
        }
    }

    /// The ledger's refusal in the words of a shop.
    fn refused_units(&self, fault: Fault) -> OrdersError {
        if !matches!(fault.reason(), "INSUFFICIENT_UNITS" | "UNKNOWN_POOL") {
            return fault.into();
        }
        let available = |pool: &str| {
            (fault.items().iter())
                .find(|item| item["pool"] == pool)
                .map(|item| item["available"].as_i64().unwrap_or_default())
        };
        let shorts: Vec<Short> = (self.order.items.iter())
            .filter_map(|item| {
                Some(Short {
                    sku: item.sku.clone(),
                    requested: item.quantity,
                    available: available(item.sku.pool().as_str())?,
                })
            })
            .collect();
        OrdersError::OutOfStock(shorts)
    }

    /// Money for an order that had been given up.
    fn is_late(&self) -> bool {
        self.saga.phase == Phase::Forward && self.saga.ending.is_some()
    }

    fn is_free(&self) -> bool {
        self.order.total.amount == 0
    }

    pub(crate) fn look_again_at(&self) -> Timestamp {
        self.now() + jiff::SignedDuration::from_secs(LOOK_SECS)
    }

    pub(crate) fn now(&self) -> Timestamp {
        time::to_micros(self.desk.context.clock.now())
    }

    fn lease(&self) -> Duration {
        Duration::from_secs(self.desk.settings.lease_secs)
    }

    pub(crate) fn given<T>(&self, answer: Option<T>) -> Result<T, Stop> {
        answer.ok_or_else(|| self.nonsense("an answer without its content"))
    }

    fn nonsense(&self, what: &str) -> Stop {
        let status = self.payment_status().as_str_name();
        Stop::Failed(OrdersError::Nonsense(format!("{what} ({status})")))
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
        database::commit(tx).await?;
        self.desk.context.wake.wake();
        Ok(())
    }

    pub(crate) async fn save_order(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        order: &Order,
    ) -> Result<(), Stop> {
        if store::save_order(tx, order, self.order.version).await? {
            Ok(())
        } else {
            Err(Stop::Lost)
        }
    }

    pub(crate) async fn tell(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        order: &Order,
        changes: &[Change],
    ) -> Result<(), Stop> {
        store::append_events(tx, order.id, changes).await?;
        messages::announce(tx, order, changes).await?;
        Ok(())
    }
}

impl Saga {
    /// Nothing to do any more until something new happens.
    fn finish(&mut self) {
        self.phase = Phase::Done;
        self.ending = None;
        self.ending_reason.clear();
        // The token of a method is nobody's business once it has been used.
        self.method = None;
        self.failures = 0;
    }
}

impl Phase {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Undoing => "undoing",
            Self::Done => "done",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Forward, Self::Undoing, Self::Done]
            .into_iter()
            .find(|phase| phase.as_str() == text)
    }
}

impl Cancel {
    /// The wish that these columns hold, if they hold one.
    pub(crate) fn read(
        request: Option<Uuid>,
        fingerprint: Option<Vec<u8>>,
        by: Option<Uuid>,
    ) -> Option<Self> {
        Some(Self {
            request: request?,
            fingerprint: fingerprint.unwrap_or_default(),
            by: by.map(Id::new),
        })
    }
}

impl Method {
    fn encode(&self) -> payments::Method {
        let method = match self {
            Self::Saved(id) => payments::method::Method::Id(id.clone()),
            Self::Inline { kind, token } => {
                payments::method::Method::Inline(payments::InlineMethod {
                    r#type: kind.clone(),
                    token: token.clone(),
                })
            }
        };
        payments::Method {
            method: Some(method),
        }
    }
}

/// The hold of that attempt: the order's own shares its UUID, later ones are derived from it.
pub(crate) fn hold_of(order: Id<id::Order>, attempt: i32) -> Uuid {
    match attempt {
        0 => order.uuid(),
        attempt => RequestId::derive(&["hold", &order.to_string(), &attempt.to_string()]).uuid(),
    }
}

/// Awaits a command to a peer between its two points.
pub(crate) async fn around<T>(
    point: Around,
    call: impl Future<Output = Result<Response<T>, GrpcStatus>>,
) -> Result<Result<T, Fault>, failpoint::Injected> {
    failpoint::hit(point.0).await?;
    let answer = call.await;
    failpoint::hit(point.1).await?;
    Ok(answer
        .map(Response::into_inner)
        .map_err(|status| Fault::from_status(&status)))
}

/// What a peer's refusal means for the turn: the purchase is another worker's, or the step failed for now.
pub(crate) fn stop(fault: Fault) -> Stop {
    match fault.reason() {
        "STALE_EPOCH" => Stop::Lost,
        _ => Stop::Failed(fault.into()),
    }
}

fn cancelled() -> Next {
    Next::Back(Status::Cancelled, "cancelled".to_owned())
}

/// As the API names it.
fn status_name(status: PaymentStatus) -> &'static str {
    match status {
        PaymentStatus::Unspecified => "",
        PaymentStatus::Processing => "processing",
        PaymentStatus::RequiresAction => "requires_action",
        PaymentStatus::Authorized => "authorized",
        PaymentStatus::Captured => "captured",
        PaymentStatus::Failed => "failed",
        PaymentStatus::Voided => "voided",
        PaymentStatus::Expired => "expired",
        PaymentStatus::RefundPending => "refund_pending",
        PaymentStatus::Refunded => "refunded",
        PaymentStatus::PartiallyRefunded => "partially_refunded",
    }
}

fn next_action_json(action: &payments::NextAction) -> String {
    let mut members = serde_json::Map::new();
    for (name, value) in [
        ("type", &action.r#type),
        ("url", &action.url),
        ("confirmation_number", &action.confirmation_number),
        ("store", &action.store),
    ] {
        if !value.is_empty() {
            members.insert(name.to_owned(), value.as_str().into());
        }
    }
    if let Some(ends) = wire::moment(action.expires_at.as_ref()) {
        members.insert("expires_at".to_owned(), ends.to_string().into());
    }
    serde_json::Value::Object(members).to_string()
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
