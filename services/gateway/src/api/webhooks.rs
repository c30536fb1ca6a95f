//! Subscriptions of those outside, what was sent to them, and the feed of messages to fetch.

use axum::{
    Extension,
    extract::{Path, State},
};
use holdfast_kernel::Timestamp;
use holdfast_platform::{identity::Caller, wire};
use holdfast_proto::webhooks::v1 as pb;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Answer, promised,
    shape::{Page, Slice, moment, optional_moment, paged, paged_by, word},
};
use crate::{
    Gateway, decode::Query, error::GatewayError, idempotency::Keyed, problems::Problem,
    reply::Reply,
};

pub(super) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(list_webhooks, subscribe))
        .routes(routes!(one_webhook, unsubscribe))
        .routes(routes!(enable))
        .routes(routes!(rotate))
        .routes(routes!(replay))
        .routes(routes!(list_deliveries))
        .routes(routes!(fetch_messages))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewWebhook {
    /// `https` or `http`, at port 443 or 80 of a public address.
    #[schema(example = "https://receiver.example/hooks", format = "uri")]
    url: String,
    /// Types by name, all of a sort (`order.*`), or all (`*`); `stock.updated` only by its name. 1 to 50.
    #[schema(example = json!(["order.needs_attention"]), min_items = 1, max_items = 50)]
    types: Vec<String>,
    /// For people, up to 200 characters.
    #[serde(default)]
    #[schema(example = "the warehouse", max_length = 200)]
    description: String,
}

#[derive(Serialize, ToSchema)]
struct Webhook {
    #[schema(example = "whk_01jd3q8m5ze2vtx0c9k4h7n6wb")]
    id: String,
    url: String,
    types: Vec<String>,
    description: String,
    /// `active` or `disabled`.
    #[schema(example = "active")]
    status: String,
    /// `gone` when the receiver answered 410, `failing` when nothing came through for days.
    disabled_reason: Option<String>,
    /// Since when nothing has come through.
    failing_since: Option<String>,
    created_at: String,
    /// Told when it is made, and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")]
    secret: Option<String>,
}

/// No wish but the key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// One message by its id, or those of what happened from a moment on and before another; at most 1,000.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Again {
    message_id: Option<String>,
    /// RFC 3339.
    #[schema(example = "2026-12-01T00:00:00Z", format = DateTime)]
    from: Option<String>,
    /// RFC 3339.
    #[schema(example = "2026-12-02T00:00:00Z", format = DateTime)]
    to: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Scheduled {
    /// How many messages are sent again.
    scheduled: i64,
}

/// One try to send one message. What the receiver said beyond its status is not kept.
#[derive(Serialize, ToSchema)]
struct DeliveryAttempt {
    message_id: String,
    #[schema(example = "order.created")]
    r#type: String,
    /// The how-manieth of this message, from 1.
    attempt: i64,
    attempted_at: String,
    /// What the receiver answered.
    status_code: Option<i32>,
    /// Why it did not: `timeout`, `dns`, `address_refused`, `connect`, `tls`, `broken`, `interrupted`,
    /// `unsigned`.
    error: Option<String>,
    duration_ms: i64,
    /// How it stands with the message: `waiting`, `delivered` or `dead`.
    #[schema(example = "delivered")]
    state: String,
    /// When it is tried next.
    next_attempt_at: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Place {
    /// `next_cursor` of the answer before; left out: from the oldest that is kept.
    after: Option<String>,
    /// As in a webhook, divided by commas; left out: all that are kept.
    types: Option<String>,
    /// 1 to 100; 20 when left out.
    limit: Option<i32>,
}

/// Messages, in an order that never changes.
#[derive(Serialize, ToSchema)]
struct Feed {
    /// CloudEvents.
    data: Vec<Value>,
    /// Always there: whoever asks again from here gets what is new.
    next_cursor: String,
    /// Whether something follows already.
    has_more: bool,
}

/// Lists webhooks, newest first.
#[utoipa::path(get, path = "/v1/webhooks", tag = "webhooks", params(Slice), responses((status = 200, body = Page<Webhook>)))]
async fn list_webhooks(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Query(slice): Query<Slice>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::ListSubscriptionsRequest {
        page: Some(slice.request()?),
    });
    let answer = gateway
        .peers
        .webhooks
        .clone()
        .list_subscriptions(request)
        .await
        .map_err(|refused| paged(&refused))?
        .into_inner();
    let found = answer.subscriptions.into_iter();
    let found = found.map(|one| webhook(Some(one), String::new()));
    let found = found.collect::<Result<_, _>>()?;
    Ok(Reply::ok(&Page::<Webhook>::new(found, answer.page)))
}

/// Has messages sent to a URL, signed with the secret that is told here once.
#[utoipa::path(post, path = "/v1/webhooks", tag = "webhooks", request_body = NewWebhook,
    params(("idempotency-key" = String, Header)), responses((status = 201, body = Webhook)))]
async fn subscribe(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Keyed { body, once }: Keyed<NewWebhook>,
) -> Answer {
    let request = caller.request(pb::CreateSubscriptionRequest {
        request_id: once.request_id.to_string(),
        fingerprint: once.fingerprint(),
        url: body.url,
        types: body.types,
        description: body.description,
    });
    let mut webhooks = gateway.peers.webhooks.clone();
    let effect = async move {
        let answer = webhooks.create_subscription(request).await?.into_inner();
        let made = webhook(answer.subscription, answer.secret)?;
        let location = format!("/v1/webhooks/{}", made.id);
        Ok(Reply::created(&made, &location))
    };
    gateway.replies.once(once, effect).await
}

/// Shows a webhook, without its secret.
#[utoipa::path(get, path = "/v1/webhooks/{id}", tag = "webhooks", params(("id" = String, Path)),
    responses((status = 200, body = Webhook)))]
async fn one_webhook(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(subscription_id): Path<String>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::GetSubscriptionRequest { subscription_id });
    let mut webhooks = gateway.peers.webhooks.clone();
    let answer = webhooks.get_subscription(request).await?.into_inner();
    Ok(Reply::ok(&webhook(answer.subscription, String::new())?))
}

/// Ends a webhook; nothing more is sent.
#[utoipa::path(delete, path = "/v1/webhooks/{id}", tag = "webhooks", params(("id" = String, Path)),
    responses((status = 204)))]
async fn unsubscribe(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(subscription_id): Path<String>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::DeleteSubscriptionRequest { subscription_id });
    let mut webhooks = gateway.peers.webhooks.clone();
    webhooks.delete_subscription(request).await?;
    Ok(Reply::nothing())
}

/// Lets a disabled webhook begin again, with what has been waiting since.
#[utoipa::path(post, path = "/v1/webhooks/{id}/enable", tag = "webhooks", params(("id" = String, Path)),
    responses((status = 200, body = Webhook)))]
async fn enable(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(subscription_id): Path<String>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::EnableSubscriptionRequest { subscription_id });
    let mut webhooks = gateway.peers.webhooks.clone();
    let answer = webhooks.enable_subscription(request).await?.into_inner();
    Ok(Reply::ok(&webhook(answer.subscription, String::new())?))
}

/// Makes a new secret, told here once; the one before signs beside it for a day.
#[utoipa::path(post, path = "/v1/webhooks/{id}/rotate", tag = "webhooks",
    params(("id" = String, Path), ("idempotency-key" = String, Header)), responses((status = 200, body = Webhook)))]
async fn rotate(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(subscription_id): Path<String>,
    Keyed {
        body: Nothing {},
        once,
    }: Keyed<Nothing>,
) -> Answer {
    let request = caller.request(pb::RotateSecretRequest {
        request_id: once.request_id.to_string(),
        fingerprint: once.fingerprint(),
        subscription_id,
    });
    let mut webhooks = gateway.peers.webhooks.clone();
    let effect = async move {
        let answer = webhooks.rotate_secret(request).await?.into_inner();
        Ok(Reply::ok(&webhook(answer.subscription, answer.secret)?))
    };
    gateway.replies.once(once, effect).await
}

/// Has messages sent again, under the ids they had.
#[utoipa::path(post, path = "/v1/webhooks/{id}/replay", tag = "webhooks", request_body = Again,
    params(("id" = String, Path), ("idempotency-key" = String, Header)), responses((status = 200, body = Scheduled)))]
async fn replay(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(subscription_id): Path<String>,
    Keyed { body, once }: Keyed<Again>,
) -> Answer {
    let request = caller.request(pb::ReplayRequest {
        request_id: once.request_id.to_string(),
        fingerprint: once.fingerprint(),
        subscription_id,
        what: Some(body.read()?),
    });
    let mut webhooks = gateway.peers.webhooks.clone();
    let effect = async move {
        let pb::ReplayResponse { scheduled } = webhooks.replay(request).await?.into_inner();
        Ok(Reply::ok(&Scheduled { scheduled }))
    };
    gateway.replies.once(once, effect).await
}

/// Lists every try to send to a webhook, newest first.
#[utoipa::path(get, path = "/v1/webhooks/{id}/deliveries", tag = "webhooks", params(("id" = String, Path), Slice),
    responses((status = 200, body = Page<DeliveryAttempt>)))]
async fn list_deliveries(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(subscription_id): Path<String>,
    Query(slice): Query<Slice>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::ListAttemptsRequest {
        subscription_id,
        page: Some(slice.request()?),
    });
    let answer = gateway
        .peers
        .webhooks
        .clone()
        .list_attempts(request)
        .await
        .map_err(|refused| paged(&refused))?
        .into_inner();
    let attempts = answer.attempts.into_iter().map(attempt);
    let attempts = attempts.collect::<Result<_, _>>()?;
    Ok(Reply::ok(&Page::<DeliveryAttempt>::new(
        attempts,
        answer.page,
    )))
}

/// Gives the messages after a place: for those who would rather fetch than be sent to.
#[utoipa::path(get, path = "/v1/messages", tag = "webhooks", params(Place), responses((status = 200, body = Feed)))]
async fn fetch_messages(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Query(place): Query<Place>,
) -> Result<Reply, Problem> {
    let types = place.types.as_deref().unwrap_or_default();
    let request = caller.request(pb::ListMessagesRequest {
        page: Some(Slice::new(place.limit, place.after).request()?),
        types: (types.split(',').filter(|one| !one.is_empty()))
            .map(ToOwned::to_owned)
            .collect(),
    });
    let mut webhooks = gateway.peers.webhooks.clone();
    let answer = webhooks.list_messages(request).await;
    let answer = answer
        .map_err(|refused| paged_by("after", &refused))?
        .into_inner();
    let data = answer.envelopes.iter();
    let data =
        data.map(|envelope| promised(serde_json::from_str(envelope).ok(), "webhooks", "a message"));
    Ok(Reply::ok(&Feed {
        data: data.collect::<Result<_, _>>()?,
        next_cursor: promised(answer.page, "webhooks", "a place")?.next_token,
        has_more: answer.has_more,
    }))
}

impl Again {
    fn read(self) -> Result<pb::replay_request::What, GatewayError> {
        let moment = |field: &str, text: String| match text.parse::<Timestamp>() {
            Ok(moment) => Ok(Some(wire::timestamp(moment))),
            Err(_) => Err(GatewayError::Field {
                field: field.to_owned(),
                text: "wanted a moment such as 2026-12-01T09:30:00Z".to_owned(),
            }),
        };
        match (self.message_id, self.from, self.to) {
            (Some(id), None, None) => Ok(pb::replay_request::What::MessageId(id)),
            (None, Some(from), Some(to)) => Ok(pb::replay_request::What::Span(pb::Span {
                from: moment("from", from)?,
                to: moment("to", to)?,
            })),
            _ => Err(GatewayError::Field {
                field: "message_id".to_owned(),
                text: "wanted either message_id, or from and to".to_owned(),
            }),
        }
    }
}

fn webhook(found: Option<pb::Subscription>, secret: String) -> Result<Webhook, Problem> {
    let found = promised(found, "webhooks", "the subscription")?;
    let told = |text: String| (!text.is_empty()).then_some(text);
    Ok(Webhook {
        status: word(found.status().as_str_name(), "SUBSCRIPTION_STATUS_"),
        failing_since: optional_moment(found.failing_since.as_ref()),
        created_at: moment(found.created_at.as_ref(), "webhooks")?,
        id: found.id,
        url: found.url,
        types: found.types,
        description: found.description,
        disabled_reason: told(found.disabled_reason),
        secret: told(secret),
    })
}

fn attempt(attempt: pb::Attempt) -> Result<DeliveryAttempt, Problem> {
    Ok(DeliveryAttempt {
        state: word(attempt.state().as_str_name(), "DELIVERY_STATE_"),
        attempted_at: moment(attempt.at.as_ref(), "webhooks")?,
        next_attempt_at: optional_moment(attempt.next_attempt_at.as_ref()),
        message_id: attempt.message_id,
        r#type: attempt.r#type,
        attempt: attempt.number,
        status_code: (attempt.status_code != 0).then_some(attempt.status_code),
        error: (!attempt.error.is_empty()).then_some(attempt.error),
        duration_ms: attempt.duration_millis,
    })
}
