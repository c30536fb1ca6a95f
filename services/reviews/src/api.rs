//! The door: decode, authorise, act, encode.

use holdfast_kernel::{
    Id, RequestId, id,
    page::{self, PageToken},
    time,
};
use holdfast_platform::{
    database,
    identity::{Access, AccessTable, Caller, Role},
    service::Context,
    wire,
};
use holdfast_proto::{
    page::v1 as page_pb,
    reviews::v1::{self as pb, reviews_service_server::ReviewsService},
};
use tonic::{Request, Response, Status};

use crate::{
    domain::{self, Decision, Opinion, Rating, Review, Rewording},
    error::ReviewsError,
    store::{self, Wanted},
    writing::{self, NewReview},
};

/// Who may call what.
pub const ACCESS: AccessTable = &[
    ("ListReviews", Access::Anyone),
    ("GetReview", Access::Anyone),
    ("WriteReview", Access::User),
    ("ChangeReview", Access::User),
    ("WithdrawReview", Access::User),
    ("ModerateReview", Access::Staff),
];

pub(crate) struct Api {
    context: Context,
}

impl Api {
    pub(crate) fn new(context: Context) -> Self {
        Self { context }
    }
}

#[tonic::async_trait]
impl ReviewsService for Api {
    /// Reviews of a product that the caller may see, newest first.
    async fn list_reviews(
        &self,
        request: Request<pb::ListReviewsRequest>,
    ) -> Result<Response<pb::ListReviewsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let wanted = Wanted {
            product: parse_product(&request.product_id)?,
            rating: match request.rating {
                0 => None,
                stars => Some(Rating::parse(stars)?),
            },
            removed: caller.has(Role::Staff),
        };
        let asked = request.page.unwrap_or_default();
        let size = page::page_size(asked.size).map_err(ReviewsError::from)?;
        let place = page::read_token(&asked.token).map_err(ReviewsError::from)?;

        let mut db = database::acquire(&self.context.database).await?;
        store::find_product(&mut db, wanted.product)
            .await?
            .filter(|product| product.exists_for(caller.has(Role::Staff)))
            .ok_or(ReviewsError::UnknownProduct)?;
        let mut reviews = store::list_reviews(&mut db, &wanted, place, size + 1).await?;
        drop(db);
        let more = reviews.len() as i64 > size;
        reviews.truncate(size as usize);
        let next_token = reviews
            .last()
            .filter(|_| more)
            .map(|last| PageToken::after(&(last.created_at.as_microsecond(), last.id.uuid())))
            .unwrap_or_default()
            .into_text();
        let reviews = reviews.into_iter().map(|review| encode(review, &caller));
        Ok(Response::new(pb::ListReviewsResponse {
            reviews: reviews.collect(),
            page: Some(page_pb::PageInfo { next_token }),
        }))
    }

    /// A review; one that was removed exists for its author and staff only.
    async fn get_review(
        &self,
        request: Request<pb::GetReviewRequest>,
    ) -> Result<Response<pb::GetReviewResponse>, Status> {
        let caller = Caller::of(&request)?;
        let id = parse_review(&request.into_inner().review_id)?;
        let mut db = database::acquire(&self.context.database).await?;
        let review = store::find_review(&mut db, id)
            .await?
            .filter(|review| match review.status {
                domain::Status::Published => true,
                domain::Status::Removed { .. } => caller.may_see(review.author),
                domain::Status::Withdrawn => false,
            })
            .ok_or(ReviewsError::UnknownReview)?;
        Ok(Response::new(pb::GetReviewResponse {
            review: Some(encode(review, &caller)),
        }))
    }

    /// Reviews a product that was delivered to the caller.
    async fn write_review(
        &self,
        request: Request<pb::WriteReviewRequest>,
    ) -> Result<Response<pb::WriteReviewResponse>, Status> {
        let caller = Caller::of(&request)?;
        let wish = parse_new(request.into_inner(), &caller)?;
        let now = time::to_micros(self.context.clock.now());
        let mut tx = database::begin(&self.context.database).await?;
        let review = writing::write(&mut tx, wish, now).await?;
        database::commit(tx).await?;
        self.context.wake.wake();
        Ok(Response::new(pb::WriteReviewResponse {
            review: Some(encode(review, &caller)),
        }))
    }

    /// Changes the caller's own review.
    async fn change_review(
        &self,
        request: Request<pb::ChangeReviewRequest>,
    ) -> Result<Response<pb::ChangeReviewResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let (id, author) = (parse_review(&request.review_id)?, caller.user()?);
        let wanted = Rewording {
            rating: request.rating.map(Rating::parse).transpose()?,
            title: request.title,
            text: request.text,
        };
        let expected = version(request.expected_version);
        let now = time::to_micros(self.context.clock.now());
        let mut tx = database::begin(&self.context.database).await?;
        let review = writing::reword(&mut tx, id, author, expected, wanted, now).await?;
        database::commit(tx).await?;
        self.context.wake.wake();
        Ok(Response::new(pb::ChangeReviewResponse {
            review: Some(encode(review, &caller)),
        }))
    }

    /// Takes the caller's own review back.
    async fn withdraw_review(
        &self,
        request: Request<pb::WithdrawReviewRequest>,
    ) -> Result<Response<pb::WithdrawReviewResponse>, Status> {
        let author = Caller::of(&request)?.user()?;
        let request = request.into_inner();
        let id = parse_review(&request.review_id)?;
        let expected = version(request.expected_version);
        let now = time::to_micros(self.context.clock.now());
        let mut tx = database::begin(&self.context.database).await?;
        writing::withdraw(&mut tx, id, author, expected, now).await?;
        database::commit(tx).await?;
        self.context.wake.wake();
        Ok(Response::new(pb::WithdrawReviewResponse {}))
    }

    /// Removes a review from sight, or publishes it again.
    async fn moderate_review(
        &self,
        request: Request<pb::ModerateReviewRequest>,
    ) -> Result<Response<pb::ModerateReviewResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let (id, moderator) = (parse_review(&request.review_id)?, caller.user()?);
        let decision = Decision::parse(&request.decision)?;
        domain::check_reason(&request.reason)?;
        let now = time::to_micros(self.context.clock.now());
        let mut tx = database::begin(&self.context.database).await?;
        let review =
            writing::moderate(&mut tx, id, moderator, decision, &request.reason, now).await?;
        database::commit(tx).await?;
        self.context.wake.wake();
        Ok(Response::new(pb::ModerateReviewResponse {
            review: Some(encode(review, &caller)),
        }))
    }
}

fn parse_new(request: pb::WriteReviewRequest, caller: &Caller) -> Result<NewReview, Status> {
    let id: RequestId = request
        .request_id
        .parse()
        .map_err(|_| ReviewsError::RequestIdRefused)?;
    let opinion = Opinion {
        rating: Rating::parse(request.rating)?,
        title: request.title,
        text: request.text,
    };
    opinion.check()?;
    Ok(NewReview {
        id: id.makes(),
        fingerprint: request.fingerprint.to_vec(),
        product: parse_product(&request.product_id)?,
        author: caller.user()?,
        opinion,
        is_staff: caller.has(Role::Staff),
    })
}

fn parse_product(text: &str) -> Result<Id<id::Product>, ReviewsError> {
    text.parse().map_err(|_| ReviewsError::UnknownProduct)
}

fn parse_review(text: &str) -> Result<Id<id::Review>, ReviewsError> {
    text.parse().map_err(|_| ReviewsError::UnknownReview)
}

fn version(expected: i64) -> Option<i64> {
    (expected != 0).then_some(expected)
}

/// A review as this caller sees it: who wrote it is told to the author and to staff.
fn encode(review: Review, caller: &Caller) -> pb::Review {
    let author = caller.may_see(review.author).then_some(review.author);
    let (status, reason) = match review.status {
        domain::Status::Published => ("published", String::new()),
        domain::Status::Removed { reason } => ("removed", reason),
        domain::Status::Withdrawn => ("withdrawn", String::new()),
    };
    pb::Review {
        id: review.id.to_string(),
        product_id: review.product.to_string(),
        user_id: author.map(|author| author.to_string()).unwrap_or_default(),
        rating: review.opinion.rating.stars().into(),
        title: review.opinion.title,
        text: review.opinion.text,
        status: status.to_owned(),
        reason,
        created_at: Some(wire::timestamp(review.created_at)),
        written_at: Some(wire::timestamp(review.written_at)),
        version: review.version,
    }
}
