//! The door: decode, authorise, act, encode.

use std::{sync::Arc, time::Duration};

use holdfast_kernel::{Id, RequestId, Timestamp, id, page, time::to_micros};
use holdfast_platform::{
    database,
    identity::{Access, AccessTable},
    wire,
};
use holdfast_proto::{
    page::v1::PageInfo,
    webhooks::v1::{self as pb, webhooks_service_server::WebhooksService},
};
use sqlx::PgConnection;
use tonic::{Request, Response, Status as RpcStatus};

use crate::{
    domain::{self, Status, Subscription},
    error::WebhooksError,
    messages,
    signature::{SECRET_BYTES, Secret},
    store::{self, Made, SealedSecret},
    url,
    worker::Desk,
};

/// Who may call what.
pub const ACCESS: AccessTable = &[
    ("CreateSubscription", Access::Admin),
    ("ListSubscriptions", Access::Admin),
    ("GetSubscription", Access::Admin),
    ("DeleteSubscription", Access::Admin),
    ("EnableSubscription", Access::Admin),
    ("RotateSecret", Access::Admin),
    ("Replay", Access::Admin),
    ("ListAttempts", Access::Admin),
    ("ListMessages", Access::Admin),
];

const TYPES_MAX_ENTRIES: usize = 50;
const DESCRIPTION_MAX_CHARS: usize = 200;
const FINGERPRINT_MAX_BYTES: usize = 64;
/// Secrets that were rotated out and still sign, of one subscription.
const OLD_SECRETS_MAX_ENTRIES: i64 = 4;
/// Messages that one replay sends again.
const REPLAY_MAX_MESSAGES: i64 = 1_000;

pub(crate) struct Api {
    desk: Arc<Desk>,
}

/// Who asks, so that asking again meets the first asking.
struct Asked {
    request: RequestId,
    fingerprint: Vec<u8>,
}

impl Api {
    pub(crate) fn new(desk: Arc<Desk>) -> Self {
        Self { desk }
    }

    fn now(&self) -> Timestamp {
        to_micros(self.desk.context.clock.now())
    }

    /// Makes a secret for a subscription and keeps it.
    async fn make_secret(
        &self,
        db: &mut PgConnection,
        asked: Asked,
        subscription: Id<id::Webhook>,
        now: Timestamp,
    ) -> Result<Secret, WebhooksError> {
        let secret = Secret::new(rand::random::<[u8; SECRET_BYTES]>());
        let request_id = asked.request.uuid();
        let kept = SealedSecret {
            request_id,
            subscription_id: subscription.uuid(),
            fingerprint: asked.fingerprint,
            at_rest: Some(self.desk.vault.seal(request_id, &secret)),
        };
        store::insert_secret(db, &kept, now).await?;
        Ok(secret)
    }

    /// The secret that an earlier asking made, as it is told; empty when it has been forgotten.
    fn tell(&self, kept: &SealedSecret) -> Result<String, WebhooksError> {
        match &kept.at_rest {
            Some(at_rest) => Ok(self.desk.vault.open(kept.request_id, at_rest)?.to_text()),
            None => Ok(String::new()),
        }
    }

    async fn create(
        &self,
        asked: Asked,
        request: pb::CreateSubscriptionRequest,
    ) -> Result<pb::CreateSubscriptionResponse, WebhooksError> {
        let endpoint = url::parse(&request.url)?;
        self.desk.guard.check(&endpoint)?;
        parse_types(&request.types)?;
        let description = parse_description(request.description)?;
        let (id, now) = (asked.request.makes(), self.now());

        let mut tx = database::begin(&self.desk.context.database).await?;
        store::lock_register(&mut tx).await?;
        if let Some(made) = store::find_subscription(&mut tx, id).await? {
            if made.fingerprint != asked.fingerprint {
                return Err(WebhooksError::KeyReused);
            }
            let subscription = there(made)?;
            let kept = store::find_secret(&mut tx, id.uuid()).await?;
            let secret = kept.map_or(Ok(String::new()), |kept| self.tell(&kept))?;
            return Ok(pb::CreateSubscriptionResponse {
                subscription: Some(subscription.into()),
                secret,
            });
        }
        let limit = self.desk.settings.max_subscriptions;
        if store::count_subscriptions(&mut tx).await? >= i64::from(limit) {
            return Err(WebhooksError::TooManyWebhooks { limit });
        }
        let made = Made {
            subscription: Subscription {
                id,
                url: endpoint.as_str().to_owned(),
                types: request.types,
                description,
                status: Status::Active,
                failing_since: None,
                created_at: now,
            },
            fingerprint: asked.fingerprint.clone(),
        };
        store::insert_subscription(&mut tx, &made).await?;
        let secret = self.make_secret(&mut tx, asked, id, now).await?;
        database::commit(tx).await?;
        Ok(pb::CreateSubscriptionResponse {
            subscription: Some(made.subscription.into()),
            secret: secret.to_text(),
        })
    }

    async fn rotate(
        &self,
        asked: Asked,
        id: Id<id::Webhook>,
    ) -> Result<pb::RotateSecretResponse, WebhooksError> {
        let now = self.now();
        let overlap = Duration::from_hours(self.desk.settings.old_secret_hours);
        let until = now.checked_add(overlap).unwrap_or(Timestamp::MAX);
        let mut tx = database::begin(&self.desk.context.database).await?;
        let subscription = there(locked(&mut tx, id).await?)?;
        let kept = store::find_secret(&mut tx, asked.request.uuid()).await?;
        let secret = match kept {
            Some(kept)
                if kept.fingerprint != asked.fingerprint || kept.subscription_id != id.uuid() =>
            {
                return Err(WebhooksError::KeyReused);
            }
            Some(kept) => self.tell(&kept)?,
            None => {
                let old = OLD_SECRETS_MAX_ENTRIES;
                store::end_secrets(&mut tx, id, until, old, now).await?;
                let made = self.make_secret(&mut tx, asked, id, now).await?;
                database::commit(tx).await?;
                made.to_text()
            }
        };
        Ok(pb::RotateSecretResponse {
            subscription: Some(subscription.into()),
            secret,
        })
    }

    async fn schedule_again(
        &self,
        asked: Asked,
        id: Id<id::Webhook>,
        what: pb::replay_request::What,
    ) -> Result<i64, WebhooksError> {
        let now = self.now();
        let mut tx = database::begin(&self.desk.context.database).await?;
        let subscription = there(locked(&mut tx, id).await?)?;
        let request = asked.request.uuid();
        if let Some((fingerprint, of, scheduled)) = store::find_replay(&mut tx, request).await? {
            if fingerprint != asked.fingerprint || of != id.uuid() {
                return Err(WebhooksError::KeyReused);
            }
            return Ok(scheduled);
        }
        if subscription.status != Status::Active {
            return Err(WebhooksError::Disabled);
        }
        let kinds =
            domain::granted(&subscription.types, &messages::known_types()).unwrap_or_default();
        let found = match what {
            pb::replay_request::What::MessageId(text) => {
                let message = text.parse().map_err(|_| WebhooksError::UnknownMessage)?;
                let found = store::find_messages(&mut tx, message, &kinds).await?;
                if found.is_empty() {
                    return Err(WebhooksError::UnknownMessage);
                }
                found
            }
            pb::replay_request::What::Span(span) => {
                let (from, to) = parse_span(&span)?;
                let limit = REPLAY_MAX_MESSAGES;
                // One more than may be tells whether there are too many.
                let found =
                    store::find_messages_within(&mut tx, from, to, &kinds, limit + 1).await?;
                if found.len() as i64 > limit {
                    return Err(WebhooksError::TooManyMessages { limit });
                }
                found
            }
        };
        store::schedule_again(&mut tx, id, &found, now).await?;
        let scheduled = found.len() as i64;
        store::insert_replay(&mut tx, request, id, &asked.fingerprint, scheduled, now).await?;
        database::commit(tx).await?;
        self.desk.bell.ring();
        Ok(scheduled)
    }
}

#[tonic::async_trait]
impl WebhooksService for Api {
    /// Subscribes a URL to messages; the same request again is the same subscription and the same secret.
    async fn create_subscription(
        &self,
        request: Request<pb::CreateSubscriptionRequest>,
    ) -> Result<Response<pb::CreateSubscriptionResponse>, RpcStatus> {
        let request = request.into_inner();
        let asked = parse_asked(&request.request_id, &request.fingerprint)?;
        Ok(Response::new(self.create(asked, request).await?))
    }

    /// Lists subscriptions, newest first, without their secrets.
    async fn list_subscriptions(
        &self,
        request: Request<pb::ListSubscriptionsRequest>,
    ) -> Result<Response<pb::ListSubscriptionsResponse>, RpcStatus> {
        let asked = request.into_inner().page.unwrap_or_default();
        let size = page::page_size(asked.size).map_err(WebhooksError::from)?;
        let after = page::read_token(&asked.token).map_err(WebhooksError::from)?;
        let mut db = database::acquire(&self.desk.context.database).await?;
        // One more than asked for tells whether anything follows.
        let mut found = store::list_subscriptions(&mut db, after, size + 1).await?;
        let more = found.len() > size as usize;
        found.truncate(size as usize);
        let next_token = match found.last() {
            Some(last) if more => {
                page::PageToken::after(&(last.created_at, last.id.uuid())).into_text()
            }
            _ => String::new(),
        };
        Ok(Response::new(pb::ListSubscriptionsResponse {
            subscriptions: found.into_iter().map(Into::into).collect(),
            page: Some(PageInfo { next_token }),
        }))
    }

    /// Shows a subscription without its secrets.
    async fn get_subscription(
        &self,
        request: Request<pb::GetSubscriptionRequest>,
    ) -> Result<Response<pb::GetSubscriptionResponse>, RpcStatus> {
        let id = parse_id(&request.into_inner().subscription_id)?;
        let mut db = database::acquire(&self.desk.context.database).await?;
        let subscription = found(&mut db, id).await?;
        Ok(Response::new(pb::GetSubscriptionResponse {
            subscription: Some(subscription.into()),
        }))
    }

    /// Ends a subscription: its secrets are forgotten, and what waited for it is sent no more.
    async fn delete_subscription(
        &self,
        request: Request<pb::DeleteSubscriptionRequest>,
    ) -> Result<Response<pb::DeleteSubscriptionResponse>, RpcStatus> {
        let id = parse_id(&request.into_inner().subscription_id)?;
        let mut tx = database::begin(&self.desk.context.database).await?;
        let mut subscription = there(locked(&mut tx, id).await?)?;
        subscription.status = Status::Deleted;
        store::save_subscription(&mut tx, &subscription)
            .await
            .map_err(WebhooksError::from)?;
        store::forget_secrets(&mut tx, id)
            .await
            .map_err(WebhooksError::from)?;
        database::commit(tx).await?;
        Ok(Response::new(pb::DeleteSubscriptionResponse {}))
    }

    /// Lets a disabled subscription begin again, with what has been waiting since.
    async fn enable_subscription(
        &self,
        request: Request<pb::EnableSubscriptionRequest>,
    ) -> Result<Response<pb::EnableSubscriptionResponse>, RpcStatus> {
        let id = parse_id(&request.into_inner().subscription_id)?;
        let mut tx = database::begin(&self.desk.context.database).await?;
        let mut subscription = there(locked(&mut tx, id).await?)?;
        if subscription.status != Status::Active {
            subscription.status = Status::Active;
            subscription.failing_since = None;
            store::save_subscription(&mut tx, &subscription)
                .await
                .map_err(WebhooksError::from)?;
            database::commit(tx).await?;
            self.desk.bell.ring();
        }
        Ok(Response::new(pb::EnableSubscriptionResponse {
            subscription: Some(subscription.into()),
        }))
    }

    /// Makes a new secret; the ones before sign beside it for a while.
    async fn rotate_secret(
        &self,
        request: Request<pb::RotateSecretRequest>,
    ) -> Result<Response<pb::RotateSecretResponse>, RpcStatus> {
        let request = request.into_inner();
        let asked = parse_asked(&request.request_id, &request.fingerprint)?;
        let id = parse_id(&request.subscription_id)?;
        Ok(Response::new(self.rotate(asked, id).await?))
    }

    /// Has messages sent again that this subscription asks for, under the ids they had.
    async fn replay(
        &self,
        request: Request<pb::ReplayRequest>,
    ) -> Result<Response<pb::ReplayResponse>, RpcStatus> {
        let request = request.into_inner();
        let asked = parse_asked(&request.request_id, &request.fingerprint)?;
        let id = parse_id(&request.subscription_id)?;
        let what = request.what.ok_or_else(|| {
            WebhooksError::field("message_id", "", "wanted a message's id, or from and to")
        })?;
        let scheduled = self.schedule_again(asked, id, what).await?;
        Ok(Response::new(pb::ReplayResponse { scheduled }))
    }

    /// Lists every try to send to a subscription, newest first.
    async fn list_attempts(
        &self,
        request: Request<pb::ListAttemptsRequest>,
    ) -> Result<Response<pb::ListAttemptsResponse>, RpcStatus> {
        let request = request.into_inner();
        let id = parse_id(&request.subscription_id)?;
        let asked = request.page.unwrap_or_default();
        let size = page::page_size(asked.size).map_err(WebhooksError::from)?;
        let before: Option<i64> = page::read_token(&asked.token).map_err(WebhooksError::from)?;
        let mut db = database::acquire(&self.desk.context.database).await?;
        found(&mut db, id).await?;
        let mut attempts = store::list_attempts(&mut db, id, before, size + 1)
            .await
            .map_err(WebhooksError::from)?;
        let more = attempts.len() > size as usize;
        attempts.truncate(size as usize);
        let next_token = match attempts.last() {
            Some(last) if more => page::PageToken::after(&last.id).into_text(),
            _ => String::new(),
        };
        Ok(Response::new(pb::ListAttemptsResponse {
            attempts: attempts.into_iter().map(Into::into).collect(),
            page: Some(PageInfo { next_token }),
        }))
    }

    /// Gives the messages after a place, in an order that never changes.
    async fn list_messages(
        &self,
        request: Request<pb::ListMessagesRequest>,
    ) -> Result<Response<pb::ListMessagesResponse>, RpcStatus> {
        let request = request.into_inner();
        let asked = request.page.unwrap_or_default();
        let size = page::page_size(asked.size).map_err(WebhooksError::from)?;
        let after: Option<i64> = page::read_token(&asked.token).map_err(WebhooksError::from)?;
        let kinds = match request.types.as_slice() {
            [] => messages::known_types(),
            types => parse_types(types)?,
        };
        let mut db = database::acquire(&self.desk.context.database).await?;
        let page = fetch(&mut db, after, &kinds, size).await?;
        Ok(Response::new(page))
    }
}

/// A slice of the feed.
async fn fetch(
    db: &mut PgConnection,
    after: Option<i64>,
    kinds: &[&str],
    size: i64,
) -> Result<pb::ListMessagesResponse, WebhooksError> {
    let mut fed = store::list_messages(db, after.unwrap_or(0), kinds, size + 1).await?;
    // Looked at afterwards: what was pruned while we read is noticed.
    let pruned_to = store::pruned_to(db).await?;
    if after.is_some_and(|after| after < pruned_to) {
        return Err(WebhooksError::NotKept);
    }
    let has_more = fed.len() > size as usize;
    fed.truncate(size as usize);
    let next = fed
        .last()
        .map_or_else(|| after.unwrap_or(pruned_to), |last| last.feed_offset);
    Ok(pb::ListMessagesResponse {
        envelopes: fed.into_iter().map(|fed| fed.envelope).collect(),
        page: Some(PageInfo {
            next_token: page::PageToken::after(&next).into_text(),
        }),
        has_more,
    })
}

async fn found(db: &mut PgConnection, id: Id<id::Webhook>) -> Result<Subscription, WebhooksError> {
    let made = store::find_subscription(db, id).await?;
    there(made.ok_or(WebhooksError::UnknownWebhook)?)
}

async fn locked(db: &mut PgConnection, id: Id<id::Webhook>) -> Result<Made, WebhooksError> {
    let made = store::lock_subscription(db, id).await?;
    made.ok_or(WebhooksError::UnknownWebhook)
}

/// A deleted subscription does not exist.
fn there(made: Made) -> Result<Subscription, WebhooksError> {
    match made.subscription.status {
        Status::Deleted => Err(WebhooksError::UnknownWebhook),
        Status::Active | Status::Disabled(_) => Ok(made.subscription),
    }
}

fn parse_id(text: &str) -> Result<Id<id::Webhook>, WebhooksError> {
    text.parse().map_err(|_| WebhooksError::UnknownWebhook)
}

fn parse_asked(request_id: &str, fingerprint: &[u8]) -> Result<Asked, WebhooksError> {
    let request = request_id
        .parse()
        .map_err(|_| WebhooksError::field("request_id", request_id, "wanted a UUID"))?;
    if fingerprint.is_empty() || fingerprint.len() > FINGERPRINT_MAX_BYTES {
        let got = format!("{} bytes", fingerprint.len());
        return Err(WebhooksError::field(
            "fingerprint",
            &got,
            "wanted 1 to 64 bytes",
        ));
    }
    Ok(Asked {
        request,
        fingerprint: fingerprint.to_vec(),
    })
}

/// The types that these wishes ask for.
fn parse_types(wishes: &[String]) -> Result<Vec<&'static str>, WebhooksError> {
    if !(1..=TYPES_MAX_ENTRIES).contains(&wishes.len()) {
        let got = format!("{} types", wishes.len());
        return Err(WebhooksError::field("types", &got, "wanted 1 to 50"));
    }
    domain::granted(wishes, &messages::known_types()).map_err(WebhooksError::UnknownTypes)
}

fn parse_description(text: String) -> Result<String, WebhooksError> {
    let chars = text.chars().count();
    if chars > DESCRIPTION_MAX_CHARS || text.chars().any(char::is_control) {
        let wanted = "wanted 0 to 200 characters, none of them a control character";
        return Err(WebhooksError::field("description", &text, wanted));
    }
    Ok(text)
}

fn parse_span(span: &pb::Span) -> Result<(Timestamp, Timestamp), WebhooksError> {
    let moment = |field, moment: Option<&_>| {
        wire::moment(moment)
            .map(to_micros)
            .ok_or_else(|| WebhooksError::field(field, "", "wanted a moment"))
    };
    let from = moment("from", span.from.as_ref())?;
    let to = moment("to", span.to.as_ref())?;
    if from >= to {
        return Err(WebhooksError::field(
            "to",
            &to.to_string(),
            "wanted a moment after from",
        ));
    }
    Ok((from, to))
}

impl From<Subscription> for pb::Subscription {
    fn from(subscription: Subscription) -> Self {
        let status = match subscription.status {
            Status::Active => pb::SubscriptionStatus::Active,
            Status::Disabled(_) => pb::SubscriptionStatus::Disabled,
            Status::Deleted => pb::SubscriptionStatus::Unspecified,
        };
        Self {
            id: subscription.id.to_string(),
            url: subscription.url,
            types: subscription.types,
            description: subscription.description,
            status: status.into(),
            disabled_reason: subscription.status.reason().unwrap_or_default().to_owned(),
            failing_since: subscription.failing_since.map(wire::timestamp),
            created_at: Some(wire::timestamp(subscription.created_at)),
        }
    }
}

impl From<store::Attempt> for pb::Attempt {
    fn from(attempt: store::Attempt) -> Self {
        let state = match attempt.state.as_str() {
            "waiting" => pb::DeliveryState::Waiting,
            "delivered" => pb::DeliveryState::Delivered,
            "dead" => pb::DeliveryState::Dead,
            _ => pb::DeliveryState::Unspecified,
        };
        let due_at = Timestamp::from(attempt.due_at);
        Self {
            message_id: attempt.message_id.to_string(),
            r#type: attempt.kind,
            number: attempt.number,
            at: Some(wire::timestamp(Timestamp::from(attempt.at))),
            status_code: attempt.status.unwrap_or_default(),
            error: attempt.failure.unwrap_or_default(),
            duration_millis: attempt.millis.unwrap_or_default(),
            state: state.into(),
            next_attempt_at: (state == pb::DeliveryState::Waiting).then(|| wire::timestamp(due_at)),
        }
    }
}
