//! A shop's saga, a customer, the sandbox, and a line to it that breaks off when told to.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use holdfast_kernel::{Clock, Id, Money, Timestamp, id};
use holdfast_payments::{
    Announcer, Reconciler,
    provider::{Ask, Charge, Method, MethodCheck, Provider, RefundTruth, Unknown},
    sandbox::{BookFact, Sandbox},
};
use holdfast_platform::{
    fault::Fault,
    identity::{PeerIdentity, Role},
    message::Message,
    outbox,
    relay::Fold as _,
    transport::{self, Door, Transport},
    wire,
};
use holdfast_proto::{
    money::v1::Money as PbMoney,
    payments::v1::{self as pb, payments_service_client::PaymentsServiceClient},
    saga::v1::Command,
};
use holdfast_testkit::{Asker, FakeClock, Realm, TestDatabase};
use jiff::SignedDuration;
use jiff_sqlx::ToSqlx;
use tokio::sync::Notify;
use tonic::Status;

pub(crate) const HOLD_SECS: i64 = 600;
const UNITS_PER_POINT: i64 = 100;

pub(crate) struct World {
    pub(crate) db: TestDatabase,
    pub(crate) book: TestDatabase,
    pub(crate) clock: FakeClock,
    pub(crate) line: Line,
    pub(crate) sandbox: Sandbox,
    pub(crate) reconciler: Reconciler,
    pub(crate) customer: Asker,
    realm: Realm,
    orders: PeerIdentity,
    transport: Transport,
}

/// What happens to a call on its way to the provider or back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// The provider never hears of it.
    OnTheWay,
    /// The provider does it, and its answer is lost.
    OnTheWayBack,
    /// The provider does it, and we die before we hear of it.
    Crash,
    /// The provider does it, and its answer is on its way until it is let through.
    Held,
}

/// The line to the sandbox: breaks off as told, and counts the calls.
#[derive(Clone)]
pub(crate) struct Line {
    sandbox: Sandbox,
    breaks: Arc<Mutex<VecDeque<(&'static str, Break)>>>,
    calls: Arc<Mutex<Vec<&'static str>>>,
    held: Arc<Notify>,
    let_through: Arc<Notify>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let db = TestDatabase::create("payments", &holdfast_payments::MIGRATOR).await;
        let book = TestDatabase::create("sandbox", &holdfast_payments::SANDBOX_MIGRATOR).await;
        let clock = FakeClock::new("2026-12-01T09:00:00Z".parse().expect("a moment"));
        let realm = Realm::new(clock.clone());
        let sandbox = Sandbox::new(book.app(), Arc::new(clock.clone()));
        let line = Line {
            sandbox: sandbox.clone(),
            breaks: Arc::default(),
            calls: Arc::default(),
            held: Arc::default(),
            let_through: Arc::default(),
        };
        let (routes, reconciler) = holdfast_payments::assemble(
            Arc::new(line.clone()),
            Some(sandbox.clone()),
            UNITS_PER_POINT,
            realm.context("payments", db.app()),
        );
        let transport = transport::local(Door::new("payments", routes));
        Self {
            customer: realm.somebody(Role::User),
            orders: realm.peer("orders"),
            db,
            book,
            clock,
            line,
            sandbox,
            reconciler,
            realm,
            transport,
        }
    }

    /// The same after a restart with another setting.
    pub(crate) fn restarted_at(self, units_per_point: i64) -> Self {
        let (routes, reconciler) = holdfast_payments::assemble(
            Arc::new(self.line.clone()),
            Some(self.sandbox.clone()),
            units_per_point,
            self.realm.context("payments", self.db.app()),
        );
        Self {
            transport: transport::local(Door::new("payments", routes)),
            reconciler,
            ..self
        }
    }

    /// What others are told of accounts of points since they were last told.
    pub(crate) async fn told_of_points(&self) -> Vec<Message> {
        let mut tx = self.db.app().begin().await.expect("a transaction");
        let already = outbox::pending(&mut tx, 1_000)
            .await
            .expect("the outbox")
            .len();
        let news = Announcer.fold(&mut tx).await.expect("folded");
        outbox::announce_all(&mut tx, news).await.expect("written");
        let pending = outbox::pending(&mut tx, 1_000).await.expect("the outbox");
        tx.commit().await.expect("committed");
        pending.into_iter().skip(already).collect()
    }

    /// With a purchase whose payment was asked for with that token, and what was answered.
    pub(crate) async fn where_authorized(token: &str) -> (Self, String, pb::Payment) {
        let world = Self::new().await;
        let purchase = new_purchase();
        let payment = world.authorize(&purchase, token).await;
        (world, purchase, payment.expect("an answer"))
    }

    pub(crate) fn client(&self) -> PaymentsServiceClient<Transport> {
        PaymentsServiceClient::new(self.transport.clone())
    }

    pub(crate) fn somebody(&self, role: Role) -> Asker {
        self.realm.somebody(role)
    }

    pub(crate) fn peer(&self, name: &'static str) -> PeerIdentity {
        self.realm.peer(name)
    }

    pub(crate) fn pass(&self, secs: i64) {
        self.clock.advance(SignedDuration::from_secs(secs));
    }

    /// Lets the time pass second by second, with the reconciler awake.
    pub(crate) async fn live(&self, secs: i64) {
        for _ in 0..secs {
            self.pass(1);
            self.reconciler.look_once().await;
        }
    }

    pub(crate) async fn authorize(
        &self,
        purchase: &str,
        token: &str,
    ) -> Result<pb::Payment, Status> {
        self.authorize_as(purchase, card(token), 1250, 1).await
    }

    pub(crate) async fn authorize_as(
        &self,
        purchase: &str,
        method: pb::Method,
        amount: i64,
        epoch: i64,
    ) -> Result<pb::Payment, Status> {
        let hold_ends = self
            .clock
            .now()
            .checked_add(SignedDuration::from_secs(HOLD_SECS))
            .expect("within history");
        let request = self.orders.request(pb::AuthorizeRequest {
            command: Some(command(purchase, "authorize", epoch)),
            user_id: self.customer.user.to_string(),
            amount: Some(yen(amount)),
            method: Some(method),
            expires_at: Some(wire::timestamp(hold_ends)),
            points: 0,
        });
        let answer = self.client().authorize(request).await?.into_inner();
        Ok(answer.payment.expect("set"))
    }

    /// Of so much money and so many points.
    pub(crate) async fn authorize_using(
        &self,
        purchase: &str,
        token: &str,
        amount: i64,
        points: i64,
    ) -> Result<pb::Payment, Status> {
        let hold_ends = self.clock.now() + SignedDuration::from_secs(HOLD_SECS);
        let request = self.orders.request(pb::AuthorizeRequest {
            command: Some(command(purchase, "authorize", 1)),
            user_id: self.customer.user.to_string(),
            amount: Some(yen(amount)),
            method: Some(card(token)),
            expires_at: Some(wire::timestamp(hold_ends)),
            points,
        });
        let answer = self.client().authorize(request).await?.into_inner();
        Ok(answer.payment.expect("set"))
    }

    /// Gives back of both.
    pub(crate) async fn refund_of(
        &self,
        purchase: &str,
        refund: Id<id::Refund>,
        amount: i64,
        points: i64,
    ) -> Result<pb::Payment, Status> {
        let request = self.orders.request(pb::RefundRequest {
            command: Some(command(purchase, "refund", 1)),
            payment_id: String::new(),
            refund_id: refund.uuid().to_string(),
            amount: Some(yen(amount)),
            reason: "did not fit".to_owned(),
            points,
        });
        let answer = self.client().refund(request).await?.into_inner();
        Ok(answer.payment.expect("set"))
    }

    pub(crate) async fn capture(&self, purchase: &str) -> Result<pb::Payment, Status> {
        self.capture_in(purchase, 1).await
    }

    pub(crate) async fn capture_in(
        &self,
        purchase: &str,
        epoch: i64,
    ) -> Result<pb::Payment, Status> {
        let request = self.orders.request(pb::CaptureRequest {
            command: Some(command(purchase, "capture", epoch)),
            payment_id: String::new(),
        });
        let answer = self.client().capture(request).await?.into_inner();
        Ok(answer.payment.expect("set"))
    }

    pub(crate) async fn void(&self, purchase: &str) -> Result<Option<pb::Payment>, Status> {
        self.void_in(purchase, 1).await
    }

    pub(crate) async fn void_in(
        &self,
        purchase: &str,
        epoch: i64,
    ) -> Result<Option<pb::Payment>, Status> {
        let request = self.orders.request(pb::VoidRequest {
            command: Some(command(purchase, "void", epoch)),
            payment_id: String::new(),
        });
        Ok(self.client().void(request).await?.into_inner().payment)
    }

    pub(crate) async fn refund(
        &self,
        purchase: &str,
        refund: Id<id::Refund>,
        amount: i64,
    ) -> Result<pb::Payment, Status> {
        self.refund_in(purchase, refund, amount, 1).await
    }

    pub(crate) async fn refund_in(
        &self,
        purchase: &str,
        refund: Id<id::Refund>,
        amount: i64,
        epoch: i64,
    ) -> Result<pb::Payment, Status> {
        let request = self.orders.request(pb::RefundRequest {
            command: Some(command(purchase, "refund", epoch)),
            payment_id: String::new(),
            refund_id: refund.uuid().to_string(),
            amount: Some(yen(amount)),
            reason: "did not fit".to_owned(),
            points: 0,
        });
        let answer = self.client().refund(request).await?.into_inner();
        Ok(answer.payment.expect("set"))
    }

    /// A payment of 1250 yen that was captured.
    pub(crate) async fn captured(&self) -> String {
        let purchase = new_purchase();
        self.authorize(&purchase, "sandbox_ok")
            .await
            .expect("authorized");
        self.capture(&purchase).await.expect("captured");
        purchase
    }

    pub(crate) async fn payment(&self, payment: &str) -> pb::Payment {
        let request = self.orders.request(pb::GetPaymentRequest {
            payment_id: payment.to_owned(),
        });
        let answer = self.client().get_payment(request).await.expect("a payment");
        answer.into_inner().payment.expect("set")
    }

    pub(crate) async fn complete_challenge(
        &self,
        payment: &str,
        succeeded: bool,
    ) -> Result<pb::Payment, Status> {
        let request = self.customer.ask(pb::CompleteSandboxChallengeRequest {
            payment_id: payment.to_owned(),
            succeeded,
        });
        let answer = self.client().complete_sandbox_challenge(request).await?;
        Ok(answer.into_inner().payment.expect("set"))
    }

    pub(crate) async fn pay_slip(&self, payment: &str) -> Result<pb::Payment, Status> {
        let request = self.customer.ask(pb::PaySandboxSlipRequest {
            payment_id: payment.to_owned(),
        });
        let answer = self.client().pay_sandbox_slip(request).await?;
        Ok(answer.into_inner().payment.expect("set"))
    }

    /// The provider changes its mind behind our back, and sends `notices` of it.
    pub(crate) async fn provider_decides(&self, payment: &str, status: &str, notices: i32) {
        let id: Id<id::Payment> = payment.parse().expect("a payment");
        let book = self.book.app();
        sqlx::query(
            "UPDATE charge SET status = $2, captured = CASE WHEN $2 = 'captured' THEN amount ELSE 0 END
             WHERE payment_id = $1",
        )
        .bind(id.uuid())
        .bind(status)
        .execute(&book)
        .await
        .expect("the book takes it");
        sqlx::query(
            "INSERT INTO entry (payment_id, kind, amount, at)
             SELECT payment_id, 'capture', amount, $2 FROM charge WHERE payment_id = $1 AND status = 'captured'",
        )
        .bind(id.uuid())
        .bind(self.clock.now().to_sqlx())
        .execute(&book)
        .await
        .expect("the book takes it");
        sqlx::query(
            "INSERT INTO notice (payment_id, due_at) SELECT $1, $2 FROM generate_series(1, $3)",
        )
        .bind(id.uuid())
        .bind(self.clock.now().to_sqlx())
        .bind(notices)
        .execute(&book)
        .await
        .expect("the book takes it");
    }

    /// What was announced, oldest first: kind and version.
    pub(crate) async fn announced(&self) -> Vec<String> {
        let mut db = self.db.app().acquire().await.expect("a connection");
        let pending = outbox::pending(&mut db, 100).await.expect("the outbox");
        pending
            .iter()
            .map(|message| {
                let kind = message.kind.trim_start_matches("payment.");
                format!("{kind} v{}", message.version)
            })
            .collect()
    }

    /// The provider's book: captures, money taken, money given back, a line each payment.
    pub(crate) async fn books(&self) -> Vec<(i64, i64, i64)> {
        let mut db = self.book.app().acquire().await.expect("a connection");
        let facts = holdfast_payments::sandbox::audit(&mut db)
            .await
            .expect("the book");
        facts
            .iter()
            .map(
                |&BookFact {
                     captures,
                     captured,
                     refunded,
                     ..
                 }| (captures, captured, refunded),
            )
            .collect()
    }
}

/// A purchase that nobody has paid for yet.
pub(crate) fn new_purchase() -> String {
    Id::<id::Order>::generate().to_string()
}

pub(crate) fn reason(status: &Status) -> String {
    Fault::from_status(status).reason().to_owned()
}

pub(crate) fn card(token: &str) -> pb::Method {
    inline("card", token)
}

pub(crate) fn konbini(store: &str) -> pb::Method {
    inline("konbini", store)
}

pub(crate) fn inline(kind: &str, token: &str) -> pb::Method {
    pb::Method {
        method: Some(pb::method::Method::Inline(pb::InlineMethod {
            r#type: kind.to_owned(),
            token: token.to_owned(),
        })),
    }
}

pub(crate) fn yen(amount: i64) -> PbMoney {
    PbMoney {
        amount,
        currency: "JPY".to_owned(),
    }
}

pub(crate) fn command(purchase: &str, step: &str, epoch: i64) -> Command {
    Command {
        saga_id: purchase.to_owned(),
        step: step.to_owned(),
        epoch,
    }
}

impl Line {
    /// The next call of that name breaks off.
    pub(crate) fn breaks(&self, call: &'static str, how: Break) {
        self.breaks
            .lock()
            .expect("held briefly")
            .push_back((call, how));
    }

    /// Waits until an answer is held.
    pub(crate) async fn holds(&self) {
        self.held.notified().await;
    }

    /// Lets a held answer through.
    pub(crate) fn let_through(&self) {
        self.let_through.notify_one();
    }

    /// How often the provider was asked this.
    pub(crate) fn count(&self, call: &str) -> usize {
        let calls = self.calls.lock().expect("held briefly");
        calls.iter().filter(|made| **made == call).count()
    }

    async fn over<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<T, Unknown>>,
    ) -> Result<T, Unknown> {
        self.calls.lock().expect("held briefly").push(call);
        let broken = {
            let mut breaks = self.breaks.lock().expect("held briefly");
            match breaks.front() {
                Some((named, how)) if *named == call => {
                    let how = *how;
                    breaks.pop_front();
                    Some(how)
                }
                _ => None,
            }
        };
        match broken {
            None => answer.await,
            Some(Break::OnTheWay) => Err(Unknown::because("the line broke")),
            Some(Break::OnTheWayBack) => {
                answer.await?;
                Err(Unknown::because("the line broke"))
            }
            Some(Break::Crash) => {
                answer.await?;
                panic!("killed, as told");
            }
            Some(Break::Held) => {
                let answer = answer.await;
                self.held.notify_one();
                self.let_through.notified().await;
                answer
            }
        }
    }
}

#[tonic::async_trait]
impl Provider for Line {
    fn name(&self) -> &'static str {
        self.sandbox.name()
    }

    async fn validate(&self, method: &Method) -> Result<MethodCheck, Unknown> {
        self.over("validate", self.sandbox.validate(method)).await
    }

    async fn authorize(&self, ask: &Ask) -> Result<Charge, Unknown> {
        self.over("authorize", self.sandbox.authorize(ask)).await
    }

    async fn capture(&self, ask: &Ask) -> Result<Charge, Unknown> {
        self.over("capture", self.sandbox.capture(ask)).await
    }

    async fn void(&self, ask: &Ask) -> Result<Charge, Unknown> {
        self.over("void", self.sandbox.void(ask)).await
    }

    async fn refund(
        &self,
        ask: &Ask,
        refund: Id<id::Refund>,
        amount: Money,
    ) -> Result<RefundTruth, Unknown> {
        let answer = self.sandbox.refund(ask, refund, amount);
        self.over("refund", answer).await
    }

    async fn look(&self, payment: Id<id::Payment>) -> Result<Option<Charge>, Unknown> {
        self.over("look", self.sandbox.look(payment)).await
    }

    async fn made_between(
        &self,
        from: Timestamp,
        until: Timestamp,
        after: Option<(Timestamp, Id<id::Payment>)>,
        limit: i64,
    ) -> Result<Vec<Charge>, Unknown> {
        let answer = self.sandbox.made_between(from, until, after, limit);
        self.over("made_between", answer).await
    }
}
