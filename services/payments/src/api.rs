//! The door: decode, authorise, act, encode.

use holdfast_kernel::{Currency, Id, Money, RequestId, id, page};
use holdfast_platform::{
    database,
    identity::{Access, AccessTable, Caller},
    wire,
};
use holdfast_proto::{
    money::v1::Money as PbMoney,
    page::v1::PageInfo,
    payments::v1::{self as pb, payments_service_server::PaymentsService},
    saga::v1::Command as PbCommand,
};
use tonic::{Request, Response, Status as RpcStatus};

use crate::{
    domain::{
        self, Bill, Method, MethodKind, NextAction, Payment, Purchase, Refund, SavedMethod, State,
        Status,
    },
    error::PaymentsError,
    points::{Balance, Entry},
    provider::MethodCheck,
    sandbox::{Acted, Sandbox},
    store,
    till::{Command, Till},
};

/// The sagas that pay.
const SAGAS: Access = Access::Peers(&["orders", "bookings"]);

/// Who may call what.
pub const ACCESS: AccessTable = &[
    ("ValidateMethod", SAGAS),
    ("Authorize", SAGAS),
    ("Capture", SAGAS),
    ("Void", SAGAS),
    ("Refund", SAGAS),
    ("GetPayment", Access::UserOr(&["orders", "bookings"])),
    ("SavePaymentMethod", Access::User),
    ("ListPaymentMethods", Access::User),
    ("ListPoints", Access::User),
    ("CompleteSandboxChallenge", Access::User),
    ("PaySandboxSlip", Access::User),
];

const TOKEN_MAX_CHARS: usize = 255;
const REASON_MAX_CHARS: usize = 500;
const FINGERPRINT_MAX_BYTES: usize = 64;

pub(crate) struct Api {
    till: Till,
    sandbox: Option<Sandbox>,
}

/// Whether a payment is of money, so that its method is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Charges {
    Money,
    Nothing,
}

impl Api {
    pub(crate) fn new(till: Till, sandbox: Option<Sandbox>) -> Self {
        Self { till, sandbox }
    }

    /// The method meant, if this user may charge it and the provider would take it.
    async fn resolve(
        &self,
        user: Id<id::User>,
        method: Option<pb::Method>,
        charges: Charges,
    ) -> Result<(Method, MethodCheck), PaymentsError> {
        let method = match method.and_then(|method| method.method) {
            Some(pb::method::Method::Inline(inline)) => parse_method(&inline)?,
            Some(pb::method::Method::Id(text)) => {
                let id = text.parse().map_err(|_| PaymentsError::MethodInvalid)?;
                let mut db = database::acquire(&self.till.database).await?;
                match store::find_method(&mut db, id).await? {
                    Some((saved, _)) if saved.user == user => saved.method,
                    _ => return Err(PaymentsError::MethodInvalid),
                }
            }
            None => return Err(PaymentsError::MethodInvalid),
        };
        if charges == Charges::Nothing {
            return Ok((method, MethodCheck::CanAuthorize));
        }
        match self.till.provider.validate(&method).await? {
            MethodCheck::Invalid => Err(PaymentsError::MethodInvalid),
            check => Ok((method, check)),
        }
    }

    /// Refuses more points than there are now; they may be gone when they are asked for.
    async fn look_for_points(
        &self,
        user: Id<id::User>,
        currency: Currency,
        asked: i64,
    ) -> Result<(), PaymentsError> {
        let mut db = database::acquire(&self.till.database).await?;
        let available = store::find_balance(&mut db, user, currency).await?;
        if asked > available {
            return Err(PaymentsError::PointsShort { asked, available });
        }
        Ok(())
    }

    async fn visible_payment(
        &self,
        caller: &Caller,
        payment: &str,
    ) -> Result<Payment, PaymentsError> {
        let id = payment.parse().map_err(|_| PaymentsError::UnknownPayment)?;
        let mut db = database::acquire(&self.till.database).await?;
        store::find_payment(&mut db, id)
            .await?
            .filter(|payment| caller.may_see(payment.user))
            .ok_or(PaymentsError::UnknownPayment)
    }

    /// What became of something the customer did at the sandbox.
    async fn after(
        &self,
        payment: Payment,
        acted: Acted,
        what: &'static str,
    ) -> Result<Payment, PaymentsError> {
        if acted == Acted::NotAsked {
            let from = payment.status();
            return Err(domain::Illegal::Move { from, what }.into());
        }
        self.till.heed(payment.id).await?;
        let mut db = database::acquire(&self.till.database).await?;
        store::find_payment(&mut db, payment.id)
            .await?
            .ok_or(PaymentsError::UnknownPayment)
    }
}

#[tonic::async_trait]
impl PaymentsService for Api {
    /// Tells whether a method could be charged, and whether money is reserved before it is taken.
    async fn validate_method(
        &self,
        request: Request<pb::ValidateMethodRequest>,
    ) -> Result<Response<pb::ValidateMethodResponse>, RpcStatus> {
        let request = request.into_inner();
        let user = parse_user(&request.user_id)?;
        let charges = match &request.amount {
            Some(amount) if amount.amount == 0 => Charges::Nothing,
            _ => Charges::Money,
        };
        let (_, check) = self.resolve(user, request.method, charges).await?;
        let asked = parse_points(request.points)?;
        if asked > 0 {
            let currency = parse_amount(request.amount)?.currency;
            self.look_for_points(user, currency, asked).await?;
        }
        Ok(Response::new(pb::ValidateMethodResponse {
            can_authorize: check == MethodCheck::CanAuthorize,
        }))
    }

    /// Makes the purchase's payment and has it authorized; again is the same payment, as far as it got.
    async fn authorize(
        &self,
        request: Request<pb::AuthorizeRequest>,
    ) -> Result<Response<pb::AuthorizeResponse>, RpcStatus> {
        let request = request.into_inner();
        let command = parse_command(request.command, "")?;
        let user = parse_user(&request.user_id)?;
        let amount = parse_amount(request.amount)?;
        let points = parse_points(request.points)?;
        let charges = match (amount.amount, points) {
            (0, 0) => return Err(PaymentsError::field("amount", "0", "wanted 1 or more").into()),
            (0, _) => Charges::Nothing,
            _ => Charges::Money,
        };
        let expires_at = wire::moment(request.expires_at.as_ref())
            .map(holdfast_kernel::time::to_micros)
            .ok_or_else(|| PaymentsError::field("expires_at", "", "a moment is wanted"))?;
        let (method, _) = self.resolve(user, request.method, charges).await?;
        let bill = Bill {
            purchase: command.purchase.clone(),
            user,
            method,
            amount,
            points,
            expires_at,
        };
        let payment = self.till.authorize(&command, bill).await?;
        Ok(Response::new(pb::AuthorizeResponse {
            payment: Some(payment.into()),
        }))
    }

    /// Takes the authorized money; again is the same capture, whatever came of it.
    async fn capture(
        &self,
        request: Request<pb::CaptureRequest>,
    ) -> Result<Response<pb::CaptureResponse>, RpcStatus> {
        let request = request.into_inner();
        let command = parse_command(request.command, &request.payment_id)?;
        let payment = self.till.capture(&command).await?;
        Ok(Response::new(pb::CaptureResponse {
            payment: Some(payment.into()),
        }))
    }

    /// Undoes the payment; what cannot be undone at once is promised, and the answer says `PROCESSING`.
    async fn void(
        &self,
        request: Request<pb::VoidRequest>,
    ) -> Result<Response<pb::VoidResponse>, RpcStatus> {
        let request = request.into_inner();
        let command = parse_command(request.command, &request.payment_id)?;
        let payment = self.till.void(&command).await?;
        Ok(Response::new(pb::VoidResponse {
            payment: payment.map(Into::into),
        }))
    }

    /// Gives captured money back; a refund id again is the same refund.
    async fn refund(
        &self,
        request: Request<pb::RefundRequest>,
    ) -> Result<Response<pb::RefundResponse>, RpcStatus> {
        let request = request.into_inner();
        let command = parse_command(request.command, &request.payment_id)?;
        let amount = parse_amount(request.amount)?;
        let refund = Refund {
            id: parse_request_id("refund_id", &request.refund_id)?.makes(),
            amount: amount.amount,
            points: parse_points(request.points)?,
            reason: parse_reason(request.reason)?,
        };
        let payment = self.till.refund(&command, refund, amount).await?;
        Ok(Response::new(pb::RefundResponse {
            payment: Some(payment.into()),
        }))
    }

    /// One's own payment, or anybody's for staff and the sagas; another's does not exist for a user.
    async fn get_payment(
        &self,
        request: Request<pb::GetPaymentRequest>,
    ) -> Result<Response<pb::GetPaymentResponse>, RpcStatus> {
        let caller = Caller::of(&request)?;
        let payment = self
            .visible_payment(&caller, &request.into_inner().payment_id)
            .await?;
        Ok(Response::new(pb::GetPaymentResponse {
            payment: Some(payment.into()),
        }))
    }

    /// Keeps a method of the caller's. The same request again is the same method.
    async fn save_payment_method(
        &self,
        request: Request<pb::SavePaymentMethodRequest>,
    ) -> Result<Response<pb::SavePaymentMethodResponse>, RpcStatus> {
        let user = Caller::of(&request)?.user()?;
        let request = request.into_inner();
        let request_id = parse_request_id("request_id", &request.request_id)?;
        let fingerprint = parse_fingerprint(&request.fingerprint)?;
        let method = request
            .method
            .map(|inline| parse_method(&inline))
            .transpose()?
            .ok_or(PaymentsError::MethodInvalid)?;
        let saved = SavedMethod {
            id: request_id.makes(),
            user,
            method,
            created_at: self.till.now(),
        };
        let mut db = database::acquire(&self.till.database)
            .await
            .map_err(PaymentsError::from)?;
        if let Some((first, spent)) = store::find_method(&mut db, saved.id).await? {
            return answer_saved(first, &spent, &saved, fingerprint);
        }
        let check = self
            .till
            .provider
            .validate(&saved.method)
            .await
            .map_err(PaymentsError::from)?;
        if check == MethodCheck::Invalid {
            return Err(PaymentsError::MethodInvalid.into());
        }
        store::insert_method(&mut db, &saved, fingerprint).await?;
        let (first, spent) = store::find_method(&mut db, saved.id)
            .await?
            .ok_or(PaymentsError::MethodInvalid)?;
        answer_saved(first, &spent, &saved, fingerprint)
    }

    /// The caller's methods, newest first.
    async fn list_payment_methods(
        &self,
        request: Request<pb::ListPaymentMethodsRequest>,
    ) -> Result<Response<pb::ListPaymentMethodsResponse>, RpcStatus> {
        let user = Caller::of(&request)?.user()?;
        let asked = request.into_inner().page.unwrap_or_default();
        let size = page::page_size(asked.size).map_err(PaymentsError::from)?;
        let after = page::read_token(&asked.token).map_err(PaymentsError::from)?;
        let mut db = database::acquire(&self.till.database)
            .await
            .map_err(PaymentsError::from)?;
        // One more than asked for tells whether anything follows.
        let mut methods = store::list_methods(&mut db, user, after, size + 1).await?;
        let more = methods.len() > size as usize;
        methods.truncate(size as usize);
        let next_token = match methods.last() {
            Some(last) if more => {
                page::PageToken::after(&(last.created_at, last.id.uuid())).into_text()
            }
            _ => String::new(),
        };
        Ok(Response::new(pb::ListPaymentMethodsResponse {
            methods: methods.into_iter().map(Into::into).collect(),
            page: Some(PageInfo { next_token }),
        }))
    }

    /// What the caller has in points, and how they came and went, newest first.
    async fn list_points(
        &self,
        request: Request<pb::ListPointsRequest>,
    ) -> Result<Response<pb::ListPointsResponse>, RpcStatus> {
        let user = Caller::of(&request)?.user()?;
        let asked = request.into_inner().page.unwrap_or_default();
        let size = page::page_size(asked.size).map_err(PaymentsError::from)?;
        let after = page::read_token(&asked.token).map_err(PaymentsError::from)?;
        let mut db = database::acquire(&self.till.database)
            .await
            .map_err(PaymentsError::from)?;
        let balances = store::list_balances(&mut db, user).await?;
        // One more than asked for tells whether anything follows.
        let mut entries = store::list_point_entries(&mut db, user, after, size + 1).await?;
        let more = entries.len() > size as usize;
        entries.truncate(size as usize);
        let next_token = match entries.last() {
            Some(last) if more => page::PageToken::after(&(
                last.created_at,
                last.payment.uuid(),
                last.payment_version,
                &last.kind,
            ))
            .into_text(),
            _ => String::new(),
        };
        Ok(Response::new(pb::ListPointsResponse {
            balances: balances.into_iter().map(Into::into).collect(),
            entries: entries.into_iter().map(Into::into).collect(),
            page: Some(PageInfo { next_token }),
        }))
    }

    /// Ends a sandbox 3-D Secure challenge; again with the same result changes nothing.
    async fn complete_sandbox_challenge(
        &self,
        request: Request<pb::CompleteSandboxChallengeRequest>,
    ) -> Result<Response<pb::CompleteSandboxChallengeResponse>, RpcStatus> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let payment = self.visible_payment(&caller, &request.payment_id).await?;
        let sandbox = self.sandbox.as_ref().ok_or(PaymentsError::UnknownPayment)?;
        let acted = sandbox
            .complete_challenge(payment.id, request.succeeded)
            .await
            .map_err(PaymentsError::from)?;
        let payment = self.after(payment, acted, "complete a challenge").await?;
        Ok(Response::new(pb::CompleteSandboxChallengeResponse {
            payment: Some(payment.into()),
        }))
    }

    /// Pays a sandbox slip; paying twice is paying once.
    async fn pay_sandbox_slip(
        &self,
        request: Request<pb::PaySandboxSlipRequest>,
    ) -> Result<Response<pb::PaySandboxSlipResponse>, RpcStatus> {
        let caller = Caller::of(&request)?;
        let payment = self
            .visible_payment(&caller, &request.into_inner().payment_id)
            .await?;
        let sandbox = self.sandbox.as_ref().ok_or(PaymentsError::UnknownPayment)?;
        let acted = sandbox
            .pay_slip(payment.id)
            .await
            .map_err(PaymentsError::from)?;
        let payment = self.after(payment, acted, "pay a slip").await?;
        Ok(Response::new(pb::PaySandboxSlipResponse {
            payment: Some(payment.into()),
        }))
    }
}

/// The command, whose payment is the saga's; a payment named beside it has to be that one.
fn parse_command(command: Option<PbCommand>, payment: &str) -> Result<Command, PaymentsError> {
    let command = command.unwrap_or_default();
    let purchase = Purchase::parse(&command.saga_id).ok_or_else(|| {
        PaymentsError::field("command.saga_id", &command.saga_id, "wanted ord_… or bkg_…")
    })?;
    if command.epoch < 1 {
        let got = command.epoch.to_string();
        return Err(PaymentsError::field(
            "command.epoch",
            &got,
            "wanted 1 or more",
        ));
    }
    if command.step.is_empty() {
        return Err(PaymentsError::field(
            "command.step",
            "",
            "wanted the step's name",
        ));
    }
    if !payment.is_empty() && payment != domain::payment_of(&purchase).to_string() {
        return Err(PaymentsError::UnknownPayment);
    }
    Ok(Command {
        purchase,
        epoch: command.epoch,
    })
}

fn parse_method(inline: &pb::InlineMethod) -> Result<Method, PaymentsError> {
    for (field, text) in [
        ("payment_method.type", &inline.r#type),
        ("payment_method.token", &inline.token),
    ] {
        if domain::holds_card_number(text) {
            return Err(PaymentsError::CardNumber { field });
        }
    }
    let kind = MethodKind::parse(&inline.r#type).ok_or(PaymentsError::MethodInvalid)?;
    let length = inline.token.chars().count();
    if length == 0 || length > TOKEN_MAX_CHARS {
        return Err(PaymentsError::MethodInvalid);
    }
    Ok(Method {
        kind,
        token: inline.token.clone(),
    })
}

fn parse_amount(amount: Option<PbMoney>) -> Result<Money, PaymentsError> {
    let amount = amount.unwrap_or_default();
    let currency: Currency = amount.currency.parse().map_err(|_| {
        PaymentsError::field(
            "amount.currency",
            &amount.currency,
            "wanted an ISO 4217 code",
        )
    })?;
    if amount.amount < 0 {
        let got = amount.amount.to_string();
        return Err(PaymentsError::field(
            "amount.amount",
            &got,
            "wanted 0 or more",
        ));
    }
    Ok(Money::new(amount.amount, currency))
}

fn parse_user(text: &str) -> Result<Id<id::User>, PaymentsError> {
    text.parse()
        .map_err(|_| PaymentsError::field("user_id", text, "wanted usr_…"))
}

fn parse_points(points: i64) -> Result<i64, PaymentsError> {
    if points < 0 {
        let got = points.to_string();
        return Err(PaymentsError::field("points", &got, "wanted 0 or more"));
    }
    Ok(points)
}

fn parse_request_id(field: &'static str, text: &str) -> Result<RequestId, PaymentsError> {
    text.parse()
        .map_err(|_| PaymentsError::field(field, text, "wanted a UUID"))
}

fn parse_reason(text: String) -> Result<String, PaymentsError> {
    if domain::holds_card_number(&text) {
        return Err(PaymentsError::CardNumber { field: "reason" });
    }
    if text.chars().count() > REASON_MAX_CHARS {
        return Err(PaymentsError::field(
            "reason",
            &text,
            "wanted at most 500 characters",
        ));
    }
    Ok(text)
}

fn parse_fingerprint(bytes: &[u8]) -> Result<&[u8], PaymentsError> {
    if bytes.len() > FINGERPRINT_MAX_BYTES {
        let got = format!("{} bytes", bytes.len());
        return Err(PaymentsError::field(
            "fingerprint",
            &got,
            "wanted at most 64 bytes",
        ));
    }
    Ok(bytes)
}

fn answer_saved(
    first: SavedMethod,
    spent: &[u8],
    wanted: &SavedMethod,
    fingerprint: &[u8],
) -> Result<Response<pb::SavePaymentMethodResponse>, RpcStatus> {
    let same = first.user == wanted.user && spent == fingerprint && first.method == wanted.method;
    if !same {
        return Err(PaymentsError::KeyReused.into());
    }
    Ok(Response::new(pb::SavePaymentMethodResponse {
        method: Some(first.into()),
    }))
}

fn money(amount: i64, currency: Currency) -> PbMoney {
    PbMoney {
        amount,
        currency: currency.code().to_owned(),
    }
}

impl From<Payment> for pb::Payment {
    fn from(payment: Payment) -> Self {
        let (taken, currency) = (payment.taken(), payment.amount.currency);
        let (status, earned) = (pb::PaymentStatus::from(payment.status()), payment.earned());
        let (next_action, failure) = match payment.state {
            State::RequiresAction(action) => (Some(action.into()), String::new()),
            State::Failed(failure) => (None, failure.reason),
            _ => (None, String::new()),
        };
        Self {
            id: payment.id.to_string(),
            purchase_id: payment.purchase.as_str().to_owned(),
            user_id: payment.user.to_string(),
            status: status.into(),
            amount: Some(money(payment.amount.amount, currency)),
            captured: Some(money(taken.captured, currency)),
            refunded: Some(money(taken.refunded, currency)),
            next_action,
            failure,
            created_at: Some(wire::timestamp(payment.created_at)),
            version: payment.version,
            points: payment.points.all,
            points_back: payment.points.back,
            points_earned: earned,
        }
    }
}

impl From<Status> for pb::PaymentStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Processing | Status::Capturing | Status::Voiding => Self::Processing,
            Status::RequiresAction => Self::RequiresAction,
            Status::Authorized => Self::Authorized,
            Status::Captured => Self::Captured,
            Status::RefundPending => Self::RefundPending,
            Status::PartiallyRefunded => Self::PartiallyRefunded,
            Status::Refunded => Self::Refunded,
            Status::Failed => Self::Failed,
            Status::Voided => Self::Voided,
            Status::Expired => Self::Expired,
        }
    }
}

impl From<NextAction> for pb::NextAction {
    fn from(action: NextAction) -> Self {
        match action {
            NextAction::Redirect { url } => Self {
                r#type: "redirect".to_owned(),
                url,
                ..Self::default()
            },
            NextAction::Slip {
                confirmation_number,
                store,
                expires_at,
            } => Self {
                r#type: "konbini_slip".to_owned(),
                confirmation_number,
                store,
                expires_at: Some(wire::timestamp(expires_at)),
                ..Self::default()
            },
        }
    }
}

impl From<Balance> for pb::PointBalance {
    fn from(balance: Balance) -> Self {
        Self {
            currency: balance.currency.to_string(),
            points: balance.points,
        }
    }
}

impl From<Entry> for pb::PointEntry {
    fn from(entry: Entry) -> Self {
        Self {
            r#type: entry.kind,
            payment_id: entry.payment.to_string(),
            purchase_id: entry.purchase,
            currency: entry.currency.to_string(),
            points: entry.points,
            created_at: Some(wire::timestamp(entry.created_at)),
        }
    }
}

impl From<SavedMethod> for pb::PaymentMethod {
    fn from(saved: SavedMethod) -> Self {
        Self {
            id: saved.id.to_string(),
            user_id: saved.user.to_string(),
            r#type: saved.method.kind.as_str().to_owned(),
            label: saved.method.token,
            created_at: Some(wire::timestamp(saved.created_at)),
        }
    }
}
