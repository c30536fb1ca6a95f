//! Payments that keep their promises, in memory, whose provider does what the test says, and whose line breaks off.

use std::{collections::HashMap, sync::Mutex};

use holdfast_kernel::RequestId;
use holdfast_kernel::{Id, id};
use holdfast_platform::fault::{Fault, FaultCode};
use holdfast_proto::{
    money::v1::Money,
    payments::v1::{self as pb, PaymentStatus, payments_service_server::PaymentsService},
    saga::v1::Command,
};
use tonic::{Request, Response, Status};

use crate::line::Line;

#[derive(Default)]
pub(crate) struct Till {
    pub(crate) line: Line,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    /// What the customer has in points.
    points: i64,
    payments: HashMap<String, Paid>,
    epochs: HashMap<String, i64>,
    buried: Vec<String>,
}

struct Paid {
    payment: pb::Payment,
    token: String,
    captures: usize,
    refunds: HashMap<String, i64>,
    /// Voided while the outcome was unknown: what comes is given back.
    voided: bool,
}

impl Till {
    /// The provider tells what became of the order's payment. What had been voided is undone again, as payments do.
    pub(crate) fn provider_says(&self, order: &str, status: PaymentStatus) {
        let mut book = self.book.lock().expect("held briefly");
        let paid = book.payments.get_mut(order).expect("a payment");
        match status {
            PaymentStatus::Captured if paid.voided => {
                paid.captures += 1;
                paid.give_back(paid.payment.amount.as_ref().map_or(0, |money| money.amount));
            }
            PaymentStatus::Authorized if paid.voided => paid.set(PaymentStatus::Voided),
            PaymentStatus::Captured => paid.capture(),
            status => paid.set(status),
        }
        paid.payment.next_action = None;
    }

    /// Captures, money taken and money given back for the order.
    pub(crate) fn money(&self, order: &str) -> (usize, i64, i64) {
        let book = self.book.lock().expect("held briefly");
        book.payments.get(order).map_or((0, 0, 0), |paid| {
            let amount = |money: &Option<Money>| money.as_ref().map_or(0, |money| money.amount);
            let payment = &paid.payment;
            (
                paid.captures,
                amount(&payment.captured),
                amount(&payment.refunded),
            )
        })
    }

    /// Gives the customer points to spend.
    pub(crate) fn gives_points(&self, points: i64) {
        self.book.lock().expect("held briefly").points += points;
    }

    /// What the customer has in points.
    pub(crate) fn points(&self) -> i64 {
        self.book.lock().expect("held briefly").points
    }

    /// Points that the order used and that went back.
    pub(crate) fn points_of(&self, order: &str) -> (i64, i64) {
        let book = self.book.lock().expect("held briefly");
        (book.payments.get(order)).map_or((0, 0), |paid| {
            (paid.payment.points, paid.payment.points_back)
        })
    }

    pub(crate) fn status(&self, order: &str) -> PaymentStatus {
        let book = self.book.lock().expect("held briefly");
        let paid = book.payments.get(order);
        paid.map_or(PaymentStatus::Unspecified, |paid| paid.payment.status())
    }

    pub(crate) fn payments(&self) -> usize {
        self.book.lock().expect("held briefly").payments.len()
    }
}

impl Book {
    fn fence(&mut self, command: Option<Command>) -> Result<String, Status> {
        let command = command.expect("every command names its saga");
        assert!(
            !command.step.is_empty() && command.epoch >= 1,
            "{command:?}"
        );
        let seen = self.epochs.entry(command.saga_id.clone()).or_default();
        if command.epoch < *seen {
            return Err(Fault::new(FaultCode::Conflict, "STALE_EPOCH", "too late").into());
        }
        *seen = command.epoch;
        Ok(command.saga_id)
    }
}

impl Paid {
    fn set(&mut self, status: PaymentStatus) {
        self.payment.set_status(status);
        self.payment.version += 1;
    }

    fn capture(&mut self) {
        self.captures += 1;
        self.payment.captured = self.payment.amount.clone();
        self.payment.points_earned = self.payment.amount.as_ref().expect("set").amount / 100;
        self.set(PaymentStatus::Captured);
    }

    fn give_back(&mut self, amount: i64) {
        let all = self.payment.amount.as_ref().expect("set").amount;
        self.payment.captured = self.payment.amount.clone();
        let refunded = self.payment.refunded.as_mut().expect("set");
        refunded.amount += amount;
        assert!(refunded.amount <= all, "more given back than taken");
        let left = all - refunded.amount + self.payment.points - self.payment.points_back;
        self.set(if left == 0 {
            PaymentStatus::Refunded
        } else {
            PaymentStatus::PartiallyRefunded
        });
    }
}

impl Book {
    /// Gives points of an order back to the customer.
    fn give_points_back(&mut self, order: &str, points: i64) {
        let payment = &mut self.payments.get_mut(order).expect("a payment").payment;
        payment.points_back += points;
        assert!(
            payment.points_back <= payment.points,
            "more points back than used"
        );
        self.points += points;
    }

    /// Gives all points back of an order that ended unpaid.
    fn give_points_back_if_over(&mut self, order: &str) {
        let payment = &self.payments[order].payment;
        if matches!(
            payment.status(),
            PaymentStatus::Failed | PaymentStatus::Voided | PaymentStatus::Expired
        ) {
            self.give_points_back(order, payment.points - payment.points_back);
        }
    }
}

fn unknown() -> Status {
    Fault::new(FaultCode::NotFound, "UNKNOWN_PAYMENT", "no such payment").into()
}

fn refused(reason: &'static str) -> Status {
    Fault::new(FaultCode::Conflict, reason, "payments refuse").into()
}

fn points_short(asked: i64, available: i64) -> Status {
    Fault::new(
        FaultCode::Conflict,
        "INSUFFICIENT_POINTS",
        "payments refuse",
    )
    .with("asked", asked)
    .with("available", available)
    .into()
}

fn token(method: Option<pb::Method>) -> String {
    match method.expect("a method").method.expect("a method") {
        pb::method::Method::Inline(inline) => inline.token,
        pb::method::Method::Id(id) => id,
    }
}

#[tonic::async_trait]
impl PaymentsService for Till {
    async fn validate_method(
        &self,
        request: Request<pb::ValidateMethodRequest>,
    ) -> Result<Response<pb::ValidateMethodResponse>, Status> {
        let ask = request.into_inner();
        self.line
            .over("validate", || match token(ask.method).as_str() {
                _ if ask.points > self.points() => Err(points_short(ask.points, self.points())),
                "unknown" => Err(Fault::new(
                    FaultCode::Invalid,
                    "PAYMENT_METHOD_INVALID",
                    "no such method",
                )
                .into()),
                _ => Ok(pb::ValidateMethodResponse {
                    can_authorize: true,
                }),
            })
            .await
    }

    async fn authorize(
        &self,
        request: Request<pb::AuthorizeRequest>,
    ) -> Result<Response<pb::AuthorizeResponse>, Status> {
        let ask = request.into_inner();
        self.line
            .over("authorize", || {
                let mut book = self.book.lock().expect("held briefly");
                let order = book.fence(ask.command)?;
                if book.buried.contains(&order) {
                    return Err(refused("STEP_UNDONE"));
                }
                if !book.payments.contains_key(&order) {
                    let token = token(ask.method);
                    if ask.points > book.points || token == "points_gone" {
                        return Err(points_short(ask.points, ask.points - 1));
                    }
                    book.points -= ask.points;
                    let mut payment = pb::Payment {
                        id: RequestId::derive(&["payment", &order])
                            .makes::<id::Payment>()
                            .to_string(),
                        purchase_id: order.clone(),
                        user_id: ask.user_id,
                        captured: ask.amount.clone().map(|money| Money { amount: 0, ..money }),
                        refunded: ask.amount.clone().map(|money| Money { amount: 0, ..money }),
                        amount: ask.amount,
                        points: ask.points,
                        version: 1,
                        ..pb::Payment::default()
                    };
                    let mut captures = 0;
                    match token.as_str() {
                        "declined" => {
                            payment.set_status(PaymentStatus::Failed);
                            "card_declined".clone_into(&mut payment.failure);
                        }
                        "challenge" => {
                            payment.set_status(PaymentStatus::RequiresAction);
                            payment.next_action = Some(pb::NextAction {
                                r#type: "redirect".to_owned(),
                                url: "https://bank.example/prove".to_owned(),
                                ..pb::NextAction::default()
                            });
                        }
                        "timeout" => payment.set_status(PaymentStatus::Processing),
                        "at_once" => {
                            payment.set_status(PaymentStatus::Captured);
                            payment.captured.clone_from(&payment.amount);
                            captures = 1;
                        }
                        _ => payment.set_status(PaymentStatus::Authorized),
                    }
                    let paid = Paid {
                        payment,
                        token,
                        captures,
                        refunds: HashMap::new(),
                        voided: false,
                    };
                    book.payments.insert(order.clone(), paid);
                    book.give_points_back_if_over(&order);
                }
                Ok(pb::AuthorizeResponse {
                    payment: Some(book.payments[&order].payment.clone()),
                })
            })
            .await
    }

    async fn capture(
        &self,
        request: Request<pb::CaptureRequest>,
    ) -> Result<Response<pb::CaptureResponse>, Status> {
        let ask = request.into_inner();
        self.line
            .over("capture", || {
                let mut book = self.book.lock().expect("held briefly");
                let order = book.fence(ask.command)?;
                let paid = book.payments.get_mut(&order).ok_or_else(unknown)?;
                if paid.payment.status() == PaymentStatus::Authorized {
                    match paid.token.as_str() {
                        "capture_fails" => paid.set(PaymentStatus::Failed),
                        "capture_unknown" => paid.set(PaymentStatus::Processing),
                        _ => paid.capture(),
                    }
                }
                book.give_points_back_if_over(&order);
                Ok(pb::CaptureResponse {
                    payment: Some(book.payments[&order].payment.clone()),
                })
            })
            .await
    }

    async fn void(
        &self,
        request: Request<pb::VoidRequest>,
    ) -> Result<Response<pb::VoidResponse>, Status> {
        let ask = request.into_inner();
        self.line
            .over("void", || {
                let mut book = self.book.lock().expect("held briefly");
                let order = book.fence(ask.command)?;
                let Some(paid) = book.payments.get_mut(&order) else {
                    book.buried.push(order);
                    return Ok(pb::VoidResponse { payment: None });
                };
                match paid.payment.status() {
                    PaymentStatus::RequiresAction | PaymentStatus::Authorized => {
                        paid.voided = true;
                        paid.set(PaymentStatus::Voided);
                    }
                    PaymentStatus::Processing => paid.voided = true,
                    PaymentStatus::Captured | PaymentStatus::PartiallyRefunded => {
                        let points = paid.payment.points - paid.payment.points_back;
                        book.give_points_back(&order, points);
                        let paid = book.payments.get_mut(&order).ok_or_else(unknown)?;
                        let all = paid.payment.amount.as_ref().expect("set").amount;
                        let left = all - paid.payment.refunded.as_ref().expect("set").amount;
                        paid.give_back(left);
                    }
                    _ => {}
                }
                book.give_points_back_if_over(&order);
                Ok(pb::VoidResponse {
                    payment: Some(book.payments[&order].payment.clone()),
                })
            })
            .await
    }

    async fn refund(
        &self,
        request: Request<pb::RefundRequest>,
    ) -> Result<Response<pb::RefundResponse>, Status> {
        let ask = request.into_inner();
        self.line
            .over("refund", || {
                let mut book = self.book.lock().expect("held briefly");
                let order = book.fence(ask.command)?;
                let paid = book.payments.get_mut(&order).ok_or_else(unknown)?;
                let amount = ask.amount.expect("an amount").amount;
                if !paid.refunds.contains_key(&ask.refund_id) {
                    let all = paid.payment.captured.as_ref().expect("set").amount;
                    if paid.payment.refunded.as_ref().expect("set").amount + amount > all {
                        return Err(refused("REFUND_EXCEEDS_CAPTURED"));
                    }
                    paid.refunds.insert(ask.refund_id, amount);
                    let is_refused = paid.token == "refund_refused";
                    book.give_points_back(&order, ask.points);
                    if !is_refused {
                        let paid = book.payments.get_mut(&order).ok_or_else(unknown)?;
                        paid.give_back(amount);
                    }
                }
                Ok(pb::RefundResponse {
                    payment: Some(book.payments[&order].payment.clone()),
                })
            })
            .await
    }

    async fn get_payment(
        &self,
        request: Request<pb::GetPaymentRequest>,
    ) -> Result<Response<pb::GetPaymentResponse>, Status> {
        let id: Id<id::Payment> = request
            .into_inner()
            .payment_id
            .parse()
            .map_err(|_| unknown())?;
        self.line
            .over("get", || {
                let book = self.book.lock().expect("held briefly");
                let paid = (book.payments.values())
                    .find(|paid| paid.payment.id == id.to_string())
                    .ok_or_else(unknown)?;
                Ok(pb::GetPaymentResponse {
                    payment: Some(paid.payment.clone()),
                })
            })
            .await
    }

    async fn save_payment_method(
        &self,
        _: Request<pb::SavePaymentMethodRequest>,
    ) -> Result<Response<pb::SavePaymentMethodResponse>, Status> {
        Err(Status::unimplemented("not for orders"))
    }

    async fn list_payment_methods(
        &self,
        _: Request<pb::ListPaymentMethodsRequest>,
    ) -> Result<Response<pb::ListPaymentMethodsResponse>, Status> {
        Err(Status::unimplemented("not for orders"))
    }

    async fn list_points(
        &self,
        _: Request<pb::ListPointsRequest>,
    ) -> Result<Response<pb::ListPointsResponse>, Status> {
        Err(Status::unimplemented("not for orders"))
    }

    async fn complete_sandbox_challenge(
        &self,
        _: Request<pb::CompleteSandboxChallengeRequest>,
    ) -> Result<Response<pb::CompleteSandboxChallengeResponse>, Status> {
        Err(Status::unimplemented("not for orders"))
    }

    async fn pay_sandbox_slip(
        &self,
        _: Request<pb::PaySandboxSlipRequest>,
    ) -> Result<Response<pb::PaySandboxSlipResponse>, Status> {
        Err(Status::unimplemented("not for orders"))
    }
}
