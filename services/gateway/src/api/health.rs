//! Whether this door and the services behind it answer.

use axum::{
    extract::{Path, State},
    response::IntoResponse,
    routing::get,
};
use holdfast_platform::database;
use serde::Serialize;
use tonic::{Code, Status};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Answer, Peers};
use crate::{Gateway, error::GatewayError, problems::Problem, reply::Reply, store};
use holdfast_proto::{
    auth::v1::GetKeysRequest, catalog::v1::ListProductsRequest, events::v1::GetEventRequest,
    inventory::v1::GetPoolsRequest, notifications::v1::ListNotificationsRequest,
    orders::v1::GetOrderRequest, payments::v1::GetPaymentRequest, reviews::v1::GetReviewRequest,
    users::v1::GetProfileRequest, webhooks::v1::GetSubscriptionRequest,
};

pub(super) fn routes() -> OpenApiRouter<Gateway> {
    let routes = OpenApiRouter::new()
        .routes(routes!(alive))
        .routes(routes!(ready))
        .routes(routes!(service_alive));
    SHADOWED.iter().fold(routes, |routes, service| {
        let asked = async |gateway| service_alive(gateway, Path((*service).to_owned())).await;
        routes.route(&format!("/v1/{service}/healthz"), get(asked))
    })
}

/// Services with a resource of their own name, among whose ids `healthz` would be looked for.
const SHADOWED: [&str; 6] = [
    "events",
    "inventory",
    "orders",
    "payments",
    "reviews",
    "webhooks",
];

#[derive(Serialize, ToSchema)]
struct Health {
    #[schema(example = "ok")]
    status: &'static str,
}

const OK: Health = Health { status: "ok" };

/// Tells that the process lives; asks nothing of anybody.
#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, body = Health)))]
async fn alive() -> Reply {
    Reply::ok(&OK)
}

/// Tells whether this process can serve: it is not about to end, and its database answers.
#[utoipa::path(get, path = "/readyz", tag = "operations", responses((status = 200, body = Health)))]
async fn ready(State(gateway): State<Gateway>) -> Answer {
    if gateway.context.shutdown.is_cancelled() {
        return Err(Status::unavailable("about to end").into());
    }
    let mut db = database::acquire(&gateway.context.database).await?;
    store::ping(&mut db)
        .await
        .map_err(holdfast_platform::fault::Fault::from)?;
    Ok(Reply::ok(&OK).into_response())
}

/// Tells whether a service answers.
#[utoipa::path(get, path = "/v1/{service}/healthz", tag = "operations", params(("service" = String, Path, example = "orders")),
    responses((status = 200, body = Health)))]
async fn service_alive(State(gateway): State<Gateway>, Path(service): Path<String>) -> Answer {
    let asked = ask(&gateway.peers, &service).await.ok_or_else(|| {
        Problem::from(GatewayError::NoRoute {
            path: format!("/v1/{service}/healthz"),
        })
    })?;
    match asked {
        Err(status) if is_away(&status) => Err(status.into()),
        // A refusal is an answer too, and all that somebody without a token gets from some services.
        _ => Ok(Reply::ok(&OK).into_response()),
    }
}

fn is_away(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled
    )
}

/// Asks the service of that name, if there is one, something that costs little.
async fn ask(peers: &Peers, service: &str) -> Option<Result<(), Status>> {
    Some(match service {
        "gateway" => Ok(()),
        "auth" => peers
            .auth
            .clone()
            .get_keys(GetKeysRequest::default())
            .await
            .map(drop),
        "users" => peers
            .users
            .clone()
            .get_profile(GetProfileRequest::default())
            .await
            .map(drop),
        "catalog" => {
            let first = ListProductsRequest {
                page: Some(holdfast_proto::page::v1::PageRequest {
                    size: 1,
                    token: String::new(),
                }),
                ..Default::default()
            };
            peers.catalog.clone().list_products(first).await.map(drop)
        }
        "events" => peers
            .events
            .clone()
            .get_event(GetEventRequest::default())
            .await
            .map(drop),
        "inventory" => peers
            .inventory
            .clone()
            .get_pools(GetPoolsRequest::default())
            .await
            .map(drop),
        "notifications" => peers
            .notifications
            .clone()
            .list_notifications(ListNotificationsRequest::default())
            .await
            .map(drop),
        "orders" => peers
            .orders
            .clone()
            .get_order(GetOrderRequest::default())
            .await
            .map(drop),
        "payments" => peers
            .payments
            .clone()
            .get_payment(GetPaymentRequest::default())
            .await
            .map(drop),
        "reviews" => peers
            .reviews
            .clone()
            .get_review(GetReviewRequest::default())
            .await
            .map(drop),
        "webhooks" => peers
            .webhooks
            .clone()
            .get_subscription(GetSubscriptionRequest::default())
            .await
            .map(drop),
        _ => return None,
    })
}
