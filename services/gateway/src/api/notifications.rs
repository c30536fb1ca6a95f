//! What somebody was told.

use axum::{
    Extension,
    extract::{Path, State},
};
use holdfast_platform::identity::Caller;
use holdfast_proto::notifications::v1 as pb;
use http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    languages, promised,
    shape::{Page, Slice, moment, optional_moment, paged, told},
};
use crate::{Gateway, decode::Query, problems::Problem, reply::Reply};

pub(super) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(list_notifications))
        .routes(routes!(read_notification))
}

/// Something that a person was told.
#[derive(Serialize, ToSchema)]
struct Notification {
    #[schema(example = "ntf_01jd3q8m5ze2vtx0c9k4h7n6wb")]
    id: String,
    /// What it tells of.
    #[schema(example = "order.confirmed")]
    r#type: String,
    #[schema(example = "Order ord_01jd3q8m5ze2vtx0c9k4h7n6wb is confirmed")]
    title: String,
    /// Paragraphs, an empty line between them.
    text: String,
    /// Null when it tells of no order.
    order_id: Option<String>,
    created_at: String,
    /// Null until it is read.
    read_at: Option<String>,
}

/// Lists what one was told, newest first, in the language of one's profile; else in that of `Accept-Language`.
#[utoipa::path(get, path = "/v1/notifications", tag = "notifications",
    params(Slice, ("accept-language" = Option<String>, Header)), responses((status = 200, body = Page<Notification>)))]
async fn list_notifications(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Query(slice): Query<Slice>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::ListNotificationsRequest {
        languages: languages(&headers),
        page: Some(slice.request()?),
    });
    let answer = gateway
        .peers
        .notifications
        .clone()
        .list_notifications(request)
        .await
        .map_err(|refused| paged(&refused))?
        .into_inner();
    let found = answer.notifications.into_iter().map(notification);
    let found = found.collect::<Result<_, _>>()?;
    Ok(Reply::ok(&Page::<Notification>::new(found, answer.page)))
}

/// Marks what one was told as read; doing it again changes nothing.
#[utoipa::path(post, path = "/v1/notifications/{id}/read", tag = "notifications",
    params(("id" = String, Path), ("accept-language" = Option<String>, Header)), responses((status = 200, body = Notification)))]
async fn read_notification(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Path(notification_id): Path<String>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::ReadNotificationRequest {
        notification_id,
        languages: languages(&headers),
    });
    let answer = gateway
        .peers
        .notifications
        .clone()
        .read_notification(request)
        .await?
        .into_inner();
    let read = promised(answer.notification, "notifications", "the notification")?;
    Ok(Reply::ok(&notification(read)?))
}

fn notification(shown: pb::Notification) -> Result<Notification, Problem> {
    Ok(Notification {
        created_at: moment(shown.created_at.as_ref(), "notifications")?,
        read_at: optional_moment(shown.read_at.as_ref()),
        id: shown.id,
        r#type: shown.r#type,
        title: shown.title,
        text: shown.text,
        order_id: told(shown.order_id),
    })
}
