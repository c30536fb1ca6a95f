//! Ways to pay, and payments.

use axum::{
    Extension,
    extract::{Path, State},
};
use holdfast_platform::identity::Caller;
use holdfast_proto::payments::v1 as pb;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, OneOfBuilder, Ref, RefOr, Schema, schema::Type},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Answer, promised,
    shape::{Money, Page, Slice, moment, optional_moment, paged, word},
};
use crate::{
    Gateway,
    decode::{Json, Query},
    error::GatewayError,
    idempotency::Keyed,
    problems::Problem,
    reply::Reply,
};

/// Longest name that a provider knows a card or a store by; longer than any id of a saved method.
pub(super) const TOKEN_MAX_CHARS: usize = 255;

pub(super) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(list_methods, save_method))
        .routes(routes!(one_payment))
        .routes(routes!(list_points))
        .routes(routes!(complete_sandbox_challenge))
        .routes(routes!(pay_sandbox_slip))
}

/// A card by its provider's token, or a konbini by its store.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewMethod {
    /// `card` or `konbini`.
    #[schema(example = "card", pattern = "^(card|konbini)$")]
    r#type: String,
    /// Of a card.
    #[schema(example = "sandbox_ok", min_length = 1, max_length = 255)]
    token: Option<String>,
    /// Of a konbini.
    #[schema(min_length = 1, max_length = 255)]
    store: Option<String>,
}

/// A saved method by its id, or one for this purchase only.
pub(super) enum MethodChoice {
    /// `pm_…`
    Saved(String),
    /// Kept nowhere.
    Inline(NewMethod),
}

/// What a provider needs of a method.
pub(super) struct Method {
    pub(super) r#type: String,
    /// For a konbini the store.
    pub(super) token: String,
}

#[derive(Serialize, ToSchema)]
struct PaymentMethod {
    #[schema(example = "pm_01jd3q8m5ze2vtx0c9k4h7n6wb")]
    id: String,
    r#type: String,
    /// What may be shown of it.
    label: String,
    created_at: String,
}

#[derive(Serialize, ToSchema)]
struct Payment {
    #[schema(example = "pay_01jd3q8m5ze2vtx0c9k4h7n6wb")]
    id: String,
    /// The order or booking it is for.
    purchase_id: String,
    user_id: String,
    #[schema(example = "captured")]
    status: String,
    amount: Money,
    captured: Option<Money>,
    refunded: Option<Money>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_action: Option<NextAction>,
    /// Why it failed, such as `card_declined`.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    created_at: String,
}

/// What somebody has in points, and a slice of how they came and went.
#[derive(Serialize, ToSchema)]
struct Points {
    /// By currency: a point is worth one minor unit of it.
    balances: Vec<PointBalance>,
    /// Newest first.
    data: Vec<PointEntry>,
    /// Asks for what follows; null when nothing does.
    next_cursor: Option<String>,
    has_more: bool,
}

#[derive(Serialize, ToSchema)]
struct PointBalance {
    #[schema(example = "JPY")]
    currency: String,
    #[schema(example = 12)]
    points: i64,
}

#[derive(Serialize, ToSchema)]
struct PointEntry {
    /// `earned`, `taken_back` when money went back, `used`, or `given_back`.
    #[schema(example = "earned")]
    r#type: String,
    payment_id: String,
    /// The order or booking that was paid.
    purchase_id: String,
    #[schema(example = "JPY")]
    currency: String,
    /// Negative when points were used or taken back.
    #[schema(example = 12)]
    points: i64,
    created_at: String,
}

/// What the customer must do.
#[derive(Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
enum NextAction {
    Redirect {
        url: String,
    },
    KonbiniSlip {
        confirmation_number: String,
        store: String,
        expires_at: Option<String>,
    },
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChallengeResult {
    result: Outcome,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Ok,
    Failed,
}

/// Lists one's saved methods, newest first.
#[utoipa::path(get, path = "/v1/payment-methods", tag = "payments", params(Slice), responses((status = 200, body = Page<PaymentMethod>)))]
async fn list_methods(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Query(slice): Query<Slice>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::ListPaymentMethodsRequest {
        page: Some(slice.request()?),
    });
    let answer = gateway
        .peers
        .payments
        .clone()
        .list_payment_methods(request)
        .await
        .map_err(|refused| paged(&refused))?
        .into_inner();
    let methods = answer.methods.into_iter().map(|found| method(Some(found)));
    let methods = methods.collect::<Result<_, _>>()?;
    Ok(Reply::ok(&Page::<PaymentMethod>::new(methods, answer.page)))
}

/// Shows one's points: what one has, and how they came and went.
#[utoipa::path(get, path = "/v1/points", tag = "payments", params(Slice), responses((status = 200, body = Points)))]
async fn list_points(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Query(slice): Query<Slice>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::ListPointsRequest {
        page: Some(slice.request()?),
    });
    let answer = gateway
        .peers
        .payments
        .clone()
        .list_points(request)
        .await
        .map_err(|refused| paged(&refused))?
        .into_inner();
    let entries = answer.entries.into_iter().map(point_entry);
    let page = Page::new(entries.collect::<Result<_, _>>()?, answer.page);
    Ok(Reply::ok(&Points {
        balances: answer.balances.into_iter().map(Into::into).collect(),
        data: page.data,
        next_cursor: page.next_cursor,
        has_more: page.has_more,
    }))
}

/// Saves a way to pay.
#[utoipa::path(post, path = "/v1/payment-methods", tag = "payments", request_body = NewMethod,
    params(("idempotency-key" = String, Header)), responses((status = 201, body = PaymentMethod)))]
async fn save_method(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Keyed { body, once }: Keyed<NewMethod>,
) -> Answer {
    let Method { r#type, token } = body.read("")?;
    let request = caller.request(pb::SavePaymentMethodRequest {
        request_id: once.request_id.to_string(),
        fingerprint: once.fingerprint(),
        method: Some(pb::InlineMethod { r#type, token }),
    });
    let mut payments = gateway.peers.payments.clone();
    let effect = async move {
        let answer = payments.save_payment_method(request).await?.into_inner();
        Ok(Reply::created(
            &method(answer.method)?,
            "/v1/payment-methods",
        ))
    };
    gateway.replies.once(once, effect).await
}

/// Shows a payment.
#[utoipa::path(get, path = "/v1/payments/{id}", tag = "payments", params(("id" = String, Path)), responses((status = 200, body = Payment)))]
async fn one_payment(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(payment_id): Path<String>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::GetPaymentRequest { payment_id });
    let answer = gateway
        .peers
        .payments
        .clone()
        .get_payment(request)
        .await?
        .into_inner();
    payment(answer.payment)
}

/// Ends a sandbox 3-D Secure challenge, as the customer's bank would.
#[utoipa::path(post, path = "/v1/payments/{id}/sandbox/complete", tag = "payments", request_body = ChallengeResult,
    params(("id" = String, Path)), responses((status = 200, body = Payment)))]
async fn complete_sandbox_challenge(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(payment_id): Path<String>,
    Json(asked): Json<ChallengeResult>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::CompleteSandboxChallengeRequest {
        payment_id,
        succeeded: asked.result == Outcome::Ok,
    });
    let answer = gateway
        .peers
        .payments
        .clone()
        .complete_sandbox_challenge(request)
        .await?
        .into_inner();
    payment(answer.payment)
}

/// Pays a sandbox konbini slip, as the customer would at the till.
#[utoipa::path(post, path = "/v1/payments/{id}/sandbox/pay", tag = "payments", params(("id" = String, Path)),
    responses((status = 200, body = Payment)))]
async fn pay_sandbox_slip(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(payment_id): Path<String>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::PaySandboxSlipRequest { payment_id });
    let answer = gateway
        .peers
        .payments
        .clone()
        .pay_sandbox_slip(request)
        .await?
        .into_inner();
    payment(answer.payment)
}

impl NewMethod {
    /// What the provider needs; `place` is where in the body this stands, for the refusal.
    pub(super) fn read(self, place: &str) -> Result<Method, GatewayError> {
        let refused = |field: &str, text: &str| GatewayError::Field {
            field: format!("{place}{field}"),
            text: text.to_owned(),
        };
        let (wanted, other) = match self.r#type.as_str() {
            "card" => (("token", self.token), ("store", self.store)),
            "konbini" => (("store", self.store), ("token", self.token)),
            _ => return Err(refused("type", "wanted card or konbini")),
        };
        if other.1.is_some() {
            return Err(refused(other.0, &format!("a {} has none", self.r#type)));
        }
        let token = wanted.1.ok_or_else(|| refused(wanted.0, "is missing"))?;
        let chars = token.chars().count();
        if chars > TOKEN_MAX_CHARS {
            let text = format!("got {chars} characters, wanted at most {TOKEN_MAX_CHARS}");
            return Err(refused(wanted.0, &text));
        }
        Ok(Method {
            r#type: self.r#type,
            token,
        })
    }
}

impl<'de> Deserialize<'de> for MethodChoice {
    /// By hand, because an untagged enum says of a wrong member only that nothing matched.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = MethodChoice;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a payment method's id or an object with type and token")
            }

            fn visit_str<E: de::Error>(self, id: &str) -> Result<MethodChoice, E> {
                Ok(MethodChoice::Saved(id.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<MethodChoice, A::Error> {
                NewMethod::deserialize(MapAccessDeserializer::new(map)).map(MethodChoice::Inline)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl PartialSchema for MethodChoice {
    fn schema() -> RefOr<Schema> {
        OneOfBuilder::new()
            .item(
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .min_length(Some(1))
                    .max_length(Some(TOKEN_MAX_CHARS)),
            )
            .item(Ref::from_schema_name(NewMethod::name()))
            .into()
    }
}

impl ToSchema for MethodChoice {}

impl From<pb::PointBalance> for PointBalance {
    fn from(balance: pb::PointBalance) -> Self {
        Self {
            currency: balance.currency,
            points: balance.points,
        }
    }
}

fn point_entry(entry: pb::PointEntry) -> Result<PointEntry, Problem> {
    Ok(PointEntry {
        created_at: moment(entry.created_at.as_ref(), "payments")?,
        r#type: entry.r#type,
        payment_id: entry.payment_id,
        purchase_id: entry.purchase_id,
        currency: entry.currency,
        points: entry.points,
    })
}

fn method(method: Option<pb::PaymentMethod>) -> Result<PaymentMethod, Problem> {
    let method = promised(method, "payments", "the method")?;
    Ok(PaymentMethod {
        created_at: moment(method.created_at.as_ref(), "payments")?,
        id: method.id,
        r#type: method.r#type,
        label: method.label,
    })
}

fn payment(payment: Option<pb::Payment>) -> Result<Reply, Problem> {
    let payment = promised(payment, "payments", "the payment")?;
    let shown = Payment {
        status: word(payment.status().as_str_name(), "PAYMENT_STATUS_"),
        amount: promised(payment.amount, "payments", "the amount")?.into(),
        captured: payment.captured.map(Into::into),
        refunded: payment.refunded.map(Into::into),
        next_action: payment.next_action.map(next_action).transpose()?,
        failure: (!payment.failure.is_empty()).then_some(payment.failure),
        created_at: moment(payment.created_at.as_ref(), "payments")?,
        id: payment.id,
        purchase_id: payment.purchase_id,
        user_id: payment.user_id,
    };
    Ok(Reply::ok(&shown).tagged(payment.version))
}

fn next_action(action: pb::NextAction) -> Result<NextAction, Problem> {
    let action = match action.r#type.as_str() {
        "redirect" => Some(NextAction::Redirect { url: action.url }),
        "konbini_slip" => Some(NextAction::KonbiniSlip {
            confirmation_number: action.confirmation_number,
            store: action.store,
            expires_at: optional_moment(action.expires_at.as_ref()),
        }),
        _ => None,
    };
    promised(action, "payments", "a next action that is known")
}
