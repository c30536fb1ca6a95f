//! Where money moves: ask the provider outside any transaction, then write down what it said.
//!
//! A checkout costs three writing statements here, each a transaction of its own: the intent before the provider hears of
//! it, the authorization, the capture. The provider's answer is taken in only by the state it was asked about: it is
//! written by version, and when the payment moved meanwhile the provider is asked again, so an old answer never undoes a
//! newer one. Undoing and giving back begin with a command instead of an answer, and lock the saga and the payment first.

use std::sync::Arc;

use holdfast_kernel::{Clock, Id, Money, RequestId, Timestamp, id, time};
use holdfast_platform::{database, failpoint, outbox::Wake};
use sqlx::{PgConnection, PgPool, Postgres, Transaction};

use crate::{
    domain::{
        Bill, Change, Illegal, Payment, Purchase, Refund, RefundTruth, State, Status, Truth,
        payment_of,
    },
    error::PaymentsError,
    messages,
    points::Lying,
    provider::{Ask, Charge, Provider, Unknown},
    store::{self, Begun},
};

/// Where a process may be killed or a call broken off in tests.
pub const FAILPOINTS: &[&str] = &[
    INTENT.before,
    INTENT.after,
    CALL.before,
    CALL.after,
    TRUTH.before,
    TRUTH.after,
];

/// Writing down what we are about to do.
const INTENT: Points = Points {
    before: "payments.intent.before_commit",
    after: "payments.intent.after_commit",
};
/// Asking the provider.
const CALL: Points = Points {
    before: "payments.provider.before_call",
    after: "payments.provider.after_call",
};
/// Writing down what the provider said.
const TRUTH: Points = Points {
    before: "payments.truth.before_commit",
    after: "payments.truth.after_commit",
};

struct Points {
    before: &'static str,
    after: &'static str,
}

/// How often a payment may move under our hands before we give up for now.
const LEARN_MAX_TRIES: usize = 5;

/// A command as far as every one is alike.
pub(crate) struct Command {
    pub(crate) purchase: Purchase,
    pub(crate) epoch: i64,
}

/// Moves money for commands and for the reconciler.
#[derive(Clone)]
pub(crate) struct Till {
    pub(crate) database: PgPool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) wake: Wake,
    pub(crate) provider: Arc<dyn Provider>,
    /// Minor units of kept money that earn one point, of payments that begin now.
    pub(crate) units_per_point: i64,
}

impl Till {
    pub(crate) fn now(&self) -> Timestamp {
        time::to_micros(self.clock.now())
    }

    /// Makes the purchase's payment and has it authorized. Again is the same payment, as far as it got.
    pub(crate) async fn authorize(
        &self,
        command: &Command,
        bill: Bill,
    ) -> Result<Payment, PaymentsError> {
        let intent = Payment::new(bill, self.units_per_point, self.now());
        let payment = self.begin(command, intent).await?;
        if payment.status() != Status::Processing {
            return Ok(payment);
        }
        match self.ask(self.provider.authorize(&ask(&payment))).await? {
            Ok(charge) => self.learn(payment, charge).await,
            Err(unknown) => {
                tracing::warn!(payment = %payment.id, %unknown, "authorization without an answer");
                Ok(payment)
            }
        }
    }

    /// Takes the authorized money. Again is the same capture, whatever came of it.
    pub(crate) async fn capture(&self, command: &Command) -> Result<Payment, PaymentsError> {
        let payment = self.obey(command).await?;
        if !payment.wants_capture()? {
            return Ok(payment);
        }
        match self.ask(self.provider.capture(&ask(&payment))).await? {
            Ok(charge) => self.learn(payment, charge).await,
            Err(unknown) => {
                tracing::warn!(payment = %payment.id, %unknown, "capture without an answer");
                self.change(payment.id, Payment::capture_unknown).await
            }
        }
    }

    /// Undoes the purchase's payment; `None` when there was none, and now there will be none.
    pub(crate) async fn void(&self, command: &Command) -> Result<Option<Payment>, PaymentsError> {
        let id = payment_of(&command.purchase);
        let mut tx = database::begin(&self.database).await?;
        let seen = store::see_saga(&mut tx, &command.purchase, command.epoch).await?;
        command.refuse_if_stale(seen.epoch)?;
        let Some(payment) = store::lock_payment(&mut tx, id).await? else {
            store::bury_payment(&mut tx, &command.purchase, self.now()).await?;
            self.commit(tx, INTENT).await?;
            return Ok(None);
        };
        // The promise to undo is written before the provider hears of it: whatever it says later is undone as well.
        let now = self.now();
        let change = payment.void(now)?;
        write_locked(&mut tx, &change, now).await?;
        self.commit(tx, INTENT).await?;
        self.pursue(change.payment).await.map(Some)
    }

    /// Gives money back; the same refund again is the same refund.
    pub(crate) async fn refund(
        &self,
        command: &Command,
        refund: Refund,
        amount: Money,
    ) -> Result<Payment, PaymentsError> {
        let id = payment_of(&command.purchase);
        let mut tx = database::begin(&self.database).await?;
        // The payment's lock comes second everywhere, so commands of one saga never wait for each other in a ring.
        let seen = store::see_saga(&mut tx, &command.purchase, command.epoch).await?;
        command.refuse_if_stale(seen.epoch)?;
        let payment = lock(&mut tx, id).await?;
        // Refuses an amount in another currency.
        payment.amount.minus(amount).map_err(Illegal::from)?;
        let payment = match store::find_refund(&mut tx, refund.id).await? {
            Some(first)
                if first.payment == id
                    && (first.amount, first.points) == (refund.amount, refund.points) =>
            {
                payment
            }
            Some(_) => return Err(PaymentsError::KeyReused),
            None => {
                let now = self.now();
                let change = payment.refund(refund, now)?;
                write_locked(&mut tx, &change, now).await?;
                change.payment
            }
        };
        self.commit(tx, INTENT).await?;
        self.pursue(payment).await
    }

    /// Goes on with whatever a payment waits for, as far as the provider answers.
    pub(crate) async fn pursue(&self, payment: Payment) -> Result<Payment, PaymentsError> {
        let mut payment = payment;
        // A void may find money taken, which then has to go back: two rounds, and one to spare.
        for _ in 0..3 {
            let version = payment.version;
            payment = match self.pursue_once(payment.clone()).await {
                Ok(payment) => payment,
                Err(PaymentsError::Provider(unknown)) => {
                    tracing::warn!(payment = %payment.id, %unknown, "payment stays open");
                    return Ok(payment);
                }
                Err(error) => return Err(error),
            };
            if payment.version == version {
                break;
            }
        }
        Ok(payment)
    }

    /// Takes in what the provider has to say of a payment. One that is not ours is ended there.
    pub(crate) async fn heed(&self, id: Id<id::Payment>) -> Result<(), PaymentsError> {
        let mut db = database::acquire(&self.database).await?;
        let payment = store::find_payment(&mut db, id).await?;
        drop(db);
        let charge = self.ask(self.provider.look(id)).await??;
        match (payment, charge) {
            (Some(payment), Some(charge)) => {
                let payment = self.learn(payment, charge).await?;
                self.pursue(payment).await?;
            }
            (None, Some(charge)) => self.end_orphan(charge).await?,
            (_, None) => {}
        }
        Ok(())
    }

    async fn pursue_once(&self, payment: Payment) -> Result<Payment, PaymentsError> {
        let about = ask(&payment);
        let over = self.now() >= payment.expires_at;
        match payment.state {
            State::Processing => {
                let charge = match self.ask(self.provider.look(payment.id)).await?? {
                    Some(charge) => charge,
                    // Never seen. Ended there first, so that a question still under way finds it ended.
                    None if over => self.ask(self.provider.void(&about)).await??,
                    None => self.ask(self.provider.authorize(&about)).await??,
                };
                self.learn(payment, charge).await
            }
            State::RequiresAction(_) if over => {
                let charge = match self.ask(self.provider.look(payment.id)).await?? {
                    Some(charge) if !matches!(charge.truth, Truth::RequiresAction(_)) => charge,
                    _ => self.ask(self.provider.void(&about)).await??,
                };
                self.learn(payment, charge).await
            }
            State::Capturing { .. } => {
                let charge = self.ask(self.provider.capture(&about)).await??;
                self.learn(payment, charge).await
            }
            State::Voiding { .. } => {
                let charge = self.ask(self.provider.void(&about)).await??;
                self.learn(payment, charge).await
            }
            State::RefundPending(_) => self.give_back(payment).await,
            State::RequiresAction(_)
            | State::Authorized
            | State::Captured(_)
            | State::PartiallyRefunded(_)
            | State::Refunded(_)
            | State::Failed(_)
            | State::Voided
            | State::Expired => Ok(payment),
        }
    }

    async fn give_back(&self, payment: Payment) -> Result<Payment, PaymentsError> {
        let mut db = database::acquire(&self.database).await?;
        let refunds = store::open_refunds(&mut db, payment.id).await?;
        drop(db);
        let about = ask(&payment);
        let mut payment = payment;
        for refund in refunds {
            let amount = Money::new(refund.amount, about.amount.currency);
            let truth = self
                .ask(self.provider.refund(&about, refund.id, amount))
                .await??;
            payment = self.settle_refund(payment, refund.id, &truth).await?;
        }
        Ok(payment)
    }

    async fn settle_refund(
        &self,
        payment: Payment,
        refund: Id<id::Refund>,
        truth: &RefundTruth,
    ) -> Result<Payment, PaymentsError> {
        if *truth == RefundTruth::Pending {
            return Ok(payment);
        }
        if let RefundTruth::Refused { reason } = truth {
            tracing::error!(payment = %payment.id, %refund, reason, "the provider refused a refund");
        }
        let mut tx = database::begin(&self.database).await?;
        let payment = lock(&mut tx, payment.id).await?;
        let Some(row) = store::find_refund(&mut tx, refund)
            .await?
            .filter(|row| row.is_open)
        else {
            return Ok(payment);
        };
        let now = self.now();
        let change = payment.settle_refund(row.amount, truth, now)?;
        store::close_refund(&mut tx, refund, truth, now).await?;
        write_locked(&mut tx, &change, now).await?;
        self.commit(tx, TRUTH).await?;
        Ok(change.payment)
    }

    /// Takes in what the provider said when it was asked about `seen`.
    async fn learn(&self, seen: Payment, charge: Charge) -> Result<Payment, PaymentsError> {
        let (mut known, mut charge) = (seen, charge);
        for _ in 0..LEARN_MAX_TRIES {
            if charge.ask.amount != known.amount {
                return Err(PaymentsError::AmountDiffers {
                    said: charge.ask.amount.to_string(),
                    ours: known.amount.to_string(),
                });
            }
            let now = self.now();
            let learned = known.learn(charge.truth, now)?;
            if !learned.is_move() || self.write_truth(&learned, now).await? {
                return Ok(learned.payment);
            }
            known = self.find(learned.payment.id).await?;
            charge = self
                .ask(self.provider.look(known.id))
                .await??
                .ok_or_else(|| Unknown::because("it forgot a payment it knew"))?;
        }
        Err(PaymentsError::Restless(known.id.to_string()))
    }

    /// Writes down what was learned; `false` when the payment moved meanwhile, and nothing was written.
    async fn write_truth(&self, learned: &Change, now: Timestamp) -> Result<bool, PaymentsError> {
        if learned.needs_transaction() {
            let mut tx = database::begin(&self.database).await?;
            let written = write(&mut tx, learned, now).await?;
            if written {
                self.commit(tx, TRUTH).await?;
            }
            return Ok(written);
        }
        let mut db = database::acquire(&self.database).await?;
        self.between(TRUTH, write(&mut db, learned, now)).await
    }

    /// Ends at the provider what no intent of ours owns.
    pub(crate) async fn end_orphan(&self, charge: Charge) -> Result<(), PaymentsError> {
        let payment = charge.ask.payment;
        tracing::error!(%payment, truth = ?charge.truth, "the provider has a payment that nobody intended");
        match charge.truth {
            Truth::Pending | Truth::RequiresAction(_) | Truth::Authorized => {
                self.ask(self.provider.void(&charge.ask)).await??;
            }
            Truth::Captured => {
                let rest = charge
                    .ask
                    .amount
                    .minus(charge.refunded)
                    .map_err(Illegal::from)?;
                if rest.amount > 0 {
                    let refund = RequestId::derive(&["orphan", &payment.to_string()]).makes();
                    self.ask(self.provider.refund(&charge.ask, refund, rest))
                        .await??;
                }
            }
            Truth::Failed { .. } | Truth::Voided => {}
        }
        Ok(())
    }

    /// Writes down that the provider is about to be asked; a payment that was begun before for the same is that one.
    async fn begin(&self, command: &Command, intent: Payment) -> Result<Payment, PaymentsError> {
        let begun = if intent.points.all > 0 {
            self.begin_holding_points(command, &intent).await?
        } else {
            let mut db = database::acquire(&self.database).await?;
            let begin = store::begin_payment(&mut db, command.epoch, &intent);
            self.between(INTENT, begin).await?
        };
        command.refuse_if_stale(begun.saga.epoch)?;
        if begun.saga.undone {
            return Err(PaymentsError::StepUndone {
                saga: command.purchase.as_str().to_owned(),
            });
        }
        if begun.is_new {
            return Ok(intent);
        }
        let first = self.find(intent.id).await?;
        if !first.is_for(&intent) {
            return Err(PaymentsError::KeyReused);
        }
        Ok(first)
    }

    /// Begins a payment that uses points, which are set aside in the same transaction or are refused with it.
    async fn begin_holding_points(
        &self,
        command: &Command,
        intent: &Payment,
    ) -> Result<Begun, PaymentsError> {
        let mut tx = database::begin(&self.database).await?;
        let begun = store::begin_payment(&mut tx, command.epoch, intent).await?;
        if begun.is_new && !store::hold_points(&mut tx, intent).await? {
            let currency = intent.amount.currency;
            return Err(PaymentsError::PointsShort {
                asked: intent.points.all,
                available: store::find_balance(&mut tx, intent.user, currency).await?,
            });
        }
        self.commit(tx, INTENT).await?;
        Ok(begun)
    }

    /// The payment of a command that was seen in time, for a step that writes only after the provider answered.
    async fn obey(&self, command: &Command) -> Result<Payment, PaymentsError> {
        let mut db = database::acquire(&self.database).await?;
        let known = store::find_saga(&mut db, &command.purchase)
            .await?
            .ok_or(PaymentsError::UnknownPayment)?;
        command.refuse_if_stale(known.epoch)?;
        let mut payment = known.payment;
        if known.epoch < command.epoch {
            // A worker took over: written down before it acts, so that the one before it is refused from now on.
            let seen = store::see_saga(&mut db, &command.purchase, command.epoch).await?;
            command.refuse_if_stale(seen.epoch)?;
            // What it acts on is what that one left behind.
            payment = store::find_payment(&mut db, payment_of(&command.purchase)).await?;
        }
        payment.ok_or(PaymentsError::UnknownPayment)
    }

    async fn find(&self, id: Id<id::Payment>) -> Result<Payment, PaymentsError> {
        let mut db = database::acquire(&self.database).await?;
        store::find_payment(&mut db, id)
            .await?
            .ok_or(PaymentsError::UnknownPayment)
    }

    async fn change(
        &self,
        id: Id<id::Payment>,
        how: impl FnOnce(Payment, Timestamp) -> Result<Change, Illegal>,
    ) -> Result<Payment, PaymentsError> {
        let mut tx = database::begin(&self.database).await?;
        let payment = lock(&mut tx, id).await?;
        let now = self.now();
        let change = how(payment, now)?;
        write_locked(&mut tx, &change, now).await?;
        self.commit(tx, TRUTH).await?;
        Ok(change.payment)
    }

    async fn commit(
        &self,
        tx: Transaction<'_, Postgres>,
        points: Points,
    ) -> Result<(), PaymentsError> {
        self.between(points, async { Ok(database::commit(tx).await?) })
            .await
    }

    /// Does what commits, the end of a transaction or a statement that is one by itself, between two points of failure.
    async fn between<T>(
        &self,
        points: Points,
        commit: impl Future<Output = Result<T, PaymentsError>>,
    ) -> Result<T, PaymentsError> {
        failpoint::hit(points.before).await?;
        let done = commit.await?;
        self.wake.wake();
        failpoint::hit(points.after).await?;
        Ok(done)
    }

    /// Asks the provider; the outer error is a test's, which ends the call as a crash would.
    async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, Unknown>>,
    ) -> Result<Result<T, Unknown>, PaymentsError> {
        failpoint::hit(CALL.before).await?;
        let answer = question.await;
        failpoint::hit(CALL.after).await?;
        Ok(answer)
    }
}

impl Command {
    fn refuse_if_stale(&self, seen: i64) -> Result<(), PaymentsError> {
        if self.epoch < seen {
            return Err(PaymentsError::StaleEpoch {
                saga: self.purchase.as_str().to_owned(),
                got: self.epoch,
                seen,
            });
        }
        Ok(())
    }
}

fn ask(payment: &Payment) -> Ask {
    Ask {
        payment: payment.id,
        method: payment.method.clone(),
        amount: payment.amount,
        expires_at: payment.expires_at,
    }
}

async fn lock(db: &mut PgConnection, id: Id<id::Payment>) -> Result<Payment, PaymentsError> {
    store::lock_payment(db, id)
        .await?
        .ok_or(PaymentsError::UnknownPayment)
}

/// Writes a change of a payment that was locked before.
async fn write_locked(
    db: &mut PgConnection,
    change: &Change,
    now: Timestamp,
) -> Result<(), PaymentsError> {
    if !change.is_move() || write(db, change, now).await? {
        return Ok(());
    }
    Err(PaymentsError::Restless(change.payment.id.to_string()))
}

/// Writes a move with everything that goes with it; `false` when the payment moved meanwhile, and nothing was written.
async fn write(
    db: &mut PgConnection,
    change: &Change,
    now: Timestamp,
) -> Result<bool, PaymentsError> {
    let payment = &change.payment;
    if !store::save_payment(db, change, messages::news_of(change, now)?, now).await? {
        return Ok(false);
    }
    // What is given back comes before what is taken back: it is there to be taken.
    if change.moved != Lying::default() {
        store::move_points(db, payment, change.moved, now).await?;
    }
    if change.earned < 0 {
        store::take_points_back(db, payment, -change.earned, now).await?;
    }
    if change.drops_refunds {
        store::drop_open_refunds(db, payment.id, now).await?;
    }
    if let Some(refund) = &change.refund {
        store::insert_refund(db, payment.id, refund, now).await?;
    }
    Ok(true)
}
