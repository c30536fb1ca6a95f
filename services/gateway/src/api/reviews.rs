//! What buyers say of what they bought.

use axum::{
    Extension,
    extract::{Path, State},
};
use holdfast_kernel::{Id, id};
use holdfast_platform::{fault::Fault, identity::Caller};
use holdfast_proto::{catalog::v1 as catalog, reviews::v1 as pb};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Answer, promised,
    shape::{Page, Slice, moment, paged, told},
};
use crate::{
    Gateway,
    decode::{Json, Query},
    idempotency::Keyed,
    precondition::ExpectedIfAny,
    problems::Problem,
    reply::Reply,
};

pub(super) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(list_reviews, write_review))
        .routes(routes!(one_review, change_review, withdraw_review))
        .routes(routes!(moderate_review))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewReview {
    /// Stars.
    #[schema(example = 4, minimum = 1, maximum = 5)]
    rating: i32,
    #[serde(default)]
    #[schema(max_length = 120)]
    title: String,
    #[schema(max_length = 5000)]
    text: String,
}

/// What is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReviewChange {
    #[schema(minimum = 1, maximum = 5)]
    rating: Option<i32>,
    #[schema(max_length = 120)]
    title: Option<String>,
    #[schema(max_length = 5000)]
    text: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Moderation {
    /// `publish` or `remove`.
    #[schema(example = "remove", pattern = "^(publish|remove)$")]
    decision: String,
    /// For its author and the audit log.
    #[schema(max_length = 500)]
    reason: String,
}

#[derive(Serialize, ToSchema)]
struct Review {
    #[schema(example = "rev_01jd3q8m5ze2vtx0c9k4h7n6wb")]
    id: String,
    product_id: String,
    /// Who wrote it; told to them and to staff.
    user_id: Option<String>,
    /// Stars, 1 to 5.
    rating: i32,
    title: String,
    text: String,
    /// `published` or `removed`.
    status: String,
    /// Why it was removed.
    reason: Option<String>,
    created_at: String,
    /// When its author last changed it.
    written_at: String,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// 1 to 5: only those that give so many stars.
    #[param(minimum = 1, maximum = 5)]
    rating: Option<i32>,
    /// 1 to 100; 20 when left out.
    limit: Option<i32>,
    /// `next_cursor` of the slice before.
    cursor: Option<String>,
}

/// Lists the reviews of a product, newest first; staff see removed ones too.
#[utoipa::path(get, path = "/v1/products/{id}/reviews", tag = "reviews", params(("id" = String, Path), Wanted),
    responses((status = 200, body = Page<Review>)))]
async fn list_reviews(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::ListReviewsRequest {
        product_id: id.clone(),
        // 0 stars are none that can be asked for; to the service they mean all.
        rating: wanted
            .rating
            .map_or(0, |stars| if stars == 0 { -1 } else { stars }),
        page: Some(Slice::new(wanted.limit, wanted.cursor).request()?),
    });
    let answer = match gateway.peers.reviews.clone().list_reviews(request).await {
        Ok(answer) => answer.into_inner(),
        Err(refused) => {
            if !(is_unknown(&refused) && is_listed(&gateway, &caller, id).await?) {
                return Err(paged(&refused));
            }
            pb::ListReviewsResponse::default()
        }
    };
    let reviews = answer
        .reviews
        .into_iter()
        .map(review)
        .collect::<Result<_, _>>()?;
    Ok(Reply::ok(&Page::<Review>::new(reviews, answer.page)))
}

fn is_unknown(refused: &tonic::Status) -> bool {
    Fault::from_status(refused).reason() == "UNKNOWN_PRODUCT"
}

/// Whether there is a product of that id for this caller. Reviews hears of one a moment after it was made; the catalog knows
/// it from the start.
async fn is_listed(gateway: &Gateway, caller: &Caller, id: String) -> Result<bool, Problem> {
    // By its slug a product has no reviews here, though it has one in the catalog.
    if id.parse::<Id<id::Product>>().is_err() {
        return Ok(false);
    }
    let request = caller.request(catalog::GetProductRequest {
        id,
        ..catalog::GetProductRequest::default()
    });
    match gateway.peers.catalog.clone().get_product(request).await {
        Ok(_) => Ok(true),
        Err(refused) if is_unknown(&refused) => Ok(false),
        Err(refused) => Err(refused.into()),
    }
}

/// Reviews a product that was delivered to the caller; once.
#[utoipa::path(post, path = "/v1/products/{id}/reviews", tag = "reviews", request_body = NewReview,
    params(("id" = String, Path), ("idempotency-key" = String, Header)), responses((status = 201, body = Review)))]
async fn write_review(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Keyed { body, once }: Keyed<NewReview>,
) -> Answer {
    let request = caller.request(pb::WriteReviewRequest {
        request_id: once.request_id.to_string(),
        fingerprint: once.fingerprint(),
        product_id: id,
        rating: body.rating,
        title: body.title,
        text: body.text,
    });
    let mut reviews = gateway.peers.reviews.clone();
    let effect = async move {
        let answer = reviews.write_review(request).await?.into_inner();
        let made = promised(answer.review, "reviews", "the review")?;
        let (version, location) = (made.version, format!("/v1/reviews/{}", made.id));
        Ok(Reply::created(&review(made)?, &location).tagged(version))
    };
    gateway.replies.once(once, effect).await
}

/// Shows one review; a removed one to its author and staff.
#[utoipa::path(get, path = "/v1/reviews/{id}", tag = "reviews", params(("id" = String, Path)),
    responses((status = 200, body = Review)))]
async fn one_review(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::GetReviewRequest { review_id: id });
    let answer = gateway.peers.reviews.clone().get_review(request).await?;
    shown(answer.into_inner().review)
}

/// Changes one's own review; with `If-Match` only if it is still as it was read.
#[utoipa::path(patch, path = "/v1/reviews/{id}", tag = "reviews", request_body = ReviewChange,
    params(("id" = String, Path), ("if-match" = Option<String>, Header, description = "the ETag it was read with")),
    responses((status = 200, body = Review)))]
async fn change_review(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    ExpectedIfAny(expected): ExpectedIfAny,
    Json(change): Json<ReviewChange>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::ChangeReviewRequest {
        review_id: id,
        expected_version: expected,
        rating: change.rating,
        title: change.title,
        text: change.text,
    });
    let answer = gateway.peers.reviews.clone().change_review(request).await?;
    shown(answer.into_inner().review)
}

/// Takes one's own review back; with `If-Match` only if it is still as it was read.
#[utoipa::path(delete, path = "/v1/reviews/{id}", tag = "reviews",
    params(("id" = String, Path), ("if-match" = Option<String>, Header, description = "the ETag it was read with")),
    responses((status = 204)))]
async fn withdraw_review(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    ExpectedIfAny(expected): ExpectedIfAny,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::WithdrawReviewRequest {
        review_id: id,
        expected_version: expected,
    });
    gateway
        .peers
        .reviews
        .clone()
        .withdraw_review(request)
        .await?;
    Ok(Reply::nothing())
}

/// Removes a review from sight, or publishes it again; as it is already changes nothing.
#[utoipa::path(post, path = "/v1/reviews/{id}/moderate", tag = "reviews", request_body = Moderation,
    params(("id" = String, Path)), responses((status = 200, body = Review)))]
async fn moderate_review(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Json(moderation): Json<Moderation>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::ModerateReviewRequest {
        review_id: id,
        decision: moderation.decision,
        reason: moderation.reason,
    });
    let answer = gateway
        .peers
        .reviews
        .clone()
        .moderate_review(request)
        .await?;
    shown(answer.into_inner().review)
}

fn shown(found: Option<pb::Review>) -> Result<Reply, Problem> {
    let found = promised(found, "reviews", "the review")?;
    let version = found.version;
    Ok(Reply::ok(&review(found)?).tagged(version))
}

fn review(review: pb::Review) -> Result<Review, Problem> {
    Ok(Review {
        created_at: moment(review.created_at.as_ref(), "reviews")?,
        written_at: moment(review.written_at.as_ref(), "reviews")?,
        id: review.id,
        product_id: review.product_id,
        user_id: told(review.user_id),
        rating: review.rating,
        title: review.title,
        text: review.text,
        status: review.status,
        reason: told(review.reason),
    })
}
