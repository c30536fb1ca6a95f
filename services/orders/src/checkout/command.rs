//! What is asked of the ledger and of payments, and what is made of their answers.

use std::{future::Future, pin::Pin, time::Duration};

use holdfast_kernel::{PoolKey, RequestId, time};
use holdfast_platform::{failpoint, fault::Fault, wire};
use holdfast_proto::{
    inventory::v1 as ledger,
    money::v1 as money_pb,
    payments::v1::{self as payments, PaymentStatus},
    saga::v1::Command,
};
use tonic::{Request, Response, Status as GrpcStatus};
use uuid::Uuid;

use super::{Next, Run, Stop};
use crate::{
    domain::{Order, Payment, Status},
    error::{OrdersError, Short},
    points::{self, Around},
    saga::{Method, Phase, hold_of},
};

/// How long a command to payments may take: the provider stands behind it.
pub(super) const PAYMENT_COMMAND_SECS: u64 = 5;
/// How long a command to the ledger may take.
pub(super) const LEDGER_COMMAND_SECS: u64 = 2;
/// How long the provider may take before the order says that it is waited for. Less than a call waits for its answer.
const AWAITED_AFTER_MILLIS: u64 = 1_500;

/// What the ledger says of a hold that was to be extended.
pub(super) enum Extended {
    Lives,
    Committed,
    Over,
}

impl Run {
    pub(super) async fn ask_reserve(&self) -> Result<ledger::Hold, Fault> {
        let request = ledger::ReserveRequest {
            request_id: self.hold().to_string(),
            account: self.order.user.to_string(),
            actor: self.order.user.to_string(),
            lines: lines(self.order.claims()),
            ttl: Some(wire::duration(Duration::from_secs(
                self.desk.settings.hold_secs,
            ))),
            command: Some(self.command("reserve")),
            // Told here, the order's news that comes later finds nothing left to bind.
            reference: self.order.id.to_string(),
            ..ledger::ReserveRequest::default()
        };
        let mut inventory = self.desk.peers.inventory.clone();
        let call = inventory.reserve(self.own(request, LEDGER_COMMAND_SECS));
        let answer = around(points::RESERVE, call)
            .await
            .map_err(Fault::unavailable)??;
        (answer.hold).ok_or_else(|| Fault::internal("the ledger reserved without a hold"))
    }

    pub(super) async fn ask_validate(&self) -> Result<(), Fault> {
        if self.is_free() {
            return Ok(());
        }
        let request = payments::ValidateMethodRequest {
            user_id: self.order.user.to_string(),
            method: self.saga.method.as_ref().map(Method::encode),
            amount: Some(self.to_pay()),
            points: self.order.points,
        };
        let mut till = self.desk.peers.payments.clone();
        let call = till.validate_method(self.own(request, LEDGER_COMMAND_SECS));
        around(points::VALIDATE, call)
            .await
            .map_err(Fault::unavailable)?
            .map(drop)
    }

    pub(super) async fn ask_authorize(&mut self) -> Result<Result<payments::Payment, Fault>, Stop> {
        let request = payments::AuthorizeRequest {
            command: Some(self.command("authorize")),
            user_id: self.order.user.to_string(),
            amount: Some(self.to_pay()),
            points: self.order.points,
            method: self.saga.method.as_ref().map(Method::encode),
            // Where the customer must act the hold is extended to that moment; the payment never outlives it.
            expires_at: Some(wire::timestamp(self.order.hold_expires_at + self.grace())),
        };
        let mut till = self.desk.peers.payments.clone();
        let request = self.own(request, PAYMENT_COMMAND_SECS);
        let call = around(
            points::AUTHORIZE,
            async move { till.authorize(request).await },
        );
        match self.patiently(Box::pin(call)).await? {
            Ok(answer) => Ok(Ok(self.given(answer.payment)?)),
            Err(fault) => Ok(Err(fault)),
        }
    }

    pub(super) async fn ask_payment(&self) -> Result<payments::Payment, Fault> {
        let request = payments::GetPaymentRequest {
            payment_id: self.payment_id(),
        };
        let mut till = self.desk.peers.payments.clone();
        let call = till.get_payment(self.own(request, PAYMENT_COMMAND_SECS));
        let answer = call.await.map_err(|status| Fault::from_status(&status))?;
        (answer.into_inner().payment)
            .ok_or_else(|| Fault::internal("payments answered without a payment"))
    }

    pub(super) async fn ask_release(&self) -> Result<(), OrdersError> {
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
    pub(super) async fn ask_extend(
        &mut self,
        step: &'static str,
        ttl: Duration,
    ) -> Result<Extended, Stop> {
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
    pub(super) async fn patiently<T>(
        &mut self,
        mut call: Pin<Box<impl Future<Output = Result<T, failpoint::Injected>>>>,
    ) -> Result<T, Stop> {
        let patience = Duration::from_millis(AWAITED_AFTER_MILLIS);
        if let Ok(answer) = tokio::time::timeout(patience, &mut call).await {
            return Ok(answer?);
        }
        self.publish_waiting("the provider takes long").await?;
        Ok(call.await?)
    }

    /// A command of this saga; the hold's number keeps the steps of a second attempt apart from those of the first.
    pub(super) fn command(&self, step: &str) -> Command {
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

    pub(super) fn derived(&self, what: &str) -> String {
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

    pub(super) fn payment_status(&self) -> PaymentStatus {
        (self.payment.as_ref()).map_or(PaymentStatus::Unspecified, payments::Payment::status)
    }

    /// What the payment earned in points; nothing where there was nothing to pay.
    pub(super) fn points_earned(&self) -> i64 {
        let payment = self.payment.as_ref();
        payment.map_or(0, |payment| payment.points_earned)
    }

    pub(crate) fn note_payment(&mut self, payment: payments::Payment) {
        self.payment = Some(payment);
    }

    pub(super) fn note_hold(&mut self, hold: &ledger::Hold) {
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

    /// How long the hold is to last from the moment that payment has begun and is waited for.
    pub(super) fn time_to_pay(&self) -> Duration {
        Duration::from_secs(self.desk.settings.hold_secs) + self.grace()
    }

    fn grace(&self) -> Duration {
        Duration::from_secs(self.desk.settings.hold_grace_secs)
    }

    /// The customer does not want it any more.
    pub(super) fn cancelled(&self) -> Next {
        let reason = self
            .saga
            .cancel
            .as_ref()
            .map_or("", |cancel| cancel.reason.as_str());
        let reason = if reason.is_empty() {
            "cancelled"
        } else {
            reason
        };
        Next::Back(Status::Cancelled, reason.to_owned())
    }

    pub(super) fn payment_failed(&self) -> Next {
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

    /// The ledger's refusal in the words of a shop.
    pub(super) fn refused_units(&self, fault: Fault) -> OrdersError {
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
        // A use can still be had where goods cannot: the goods are told first.
        let used_up = (self.order.voucher.as_ref())
            .filter(|code| shorts.is_empty() && available(code.pool().as_str()).is_some());
        match used_up {
            Some(code) => OrdersError::VoucherUsedUp(code.clone()),
            None => OrdersError::OutOfStock(shorts),
        }
    }

    /// Money for an order that had been given up.
    pub(super) fn is_late(&self) -> bool {
        self.saga.phase == Phase::Forward && self.saga.ending.is_some()
    }

    /// Whether it costs nothing, neither money nor points.
    pub(super) fn is_free(&self) -> bool {
        self.order.total.amount == 0 && self.order.points == 0
    }

    fn to_pay(&self) -> money_pb::Money {
        money_pb::Money {
            amount: self.order.total.amount,
            currency: self.order.total.currency.to_string(),
        }
    }

    pub(crate) fn given<T>(&self, answer: Option<T>) -> Result<T, Stop> {
        answer.ok_or_else(|| self.nonsense("an answer without its content"))
    }

    pub(super) fn nonsense(&self, what: &str) -> Stop {
        let status = self.payment_status().as_str_name();
        Stop::Failed(OrdersError::Nonsense(format!("{what} ({status})")))
    }
}

/// As the ledger is told of them.
pub(super) fn lines(claims: Vec<(PoolKey, i64)>) -> Vec<ledger::Line> {
    (claims.into_iter())
        .map(|(pool, quantity)| ledger::Line {
            pool: pool.to_string(),
            quantity,
        })
        .collect()
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

/// Payments refuses for good what it was asked, or fails for now.
pub(super) fn payment_refused(fault: Fault) -> Result<Next, Stop> {
    match fault.reason() {
        "PAYMENT_METHOD_INVALID" | "INSUFFICIENT_POINTS" | "STEP_UNDONE" | "INVALID_TRANSITION" => {
            Ok(Next::Back(
                Status::PaymentFailed,
                fault.reason().to_ascii_lowercase(),
            ))
        }
        _ => Err(stop(fault)),
    }
}

/// How many points there are, where payments refuse because they are too few.
pub(super) fn points_found(fault: &Fault) -> Option<i64> {
    let is_short = fault.reason() == "INSUFFICIENT_POINTS";
    let found = fault.figure("available").filter(|_| is_short)?;
    found.parse().ok()
}

/// The ledger has the units no more, or fails for now.
pub(super) fn units_gone(fault: Fault) -> Result<Next, Stop> {
    match fault.reason() {
        "INSUFFICIENT_UNITS" | "HOLD_ENDED" | "UNKNOWN_HOLD" | "UNKNOWN_POOL" => Ok(Next::Back(
            Status::Expired,
            "the units were sold to somebody else".to_owned(),
        )),
        _ => Err(stop(fault)),
    }
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
