//! What this service tells others, and what it listens to. Ids and figures only: who needs a text asks for it.

use std::{sync::Arc, time::Duration};

use holdfast_kernel::{Clock, Id, Timestamp, id, time};
use holdfast_platform::{
    audit_log::Line,
    consumer::{Consumer, Handler, Handling, Interest},
    message::{Message, Topic},
    outbox::{self, Announcement, Wake},
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use crate::{
    domain::{Decision, Listed, Product, RATINGS, Review},
    error::ReviewsError,
    store, writing,
};

/// By product: each message carries what all its published reviews come to, so whoever heard the last one knows it exactly.
const REVIEWS: Topic = Topic::ordinary("holdfast.reviews");

/// How long news of deliveries and of products is gathered while more keeps coming; nobody waits for it.
const PACE: Duration = Duration::from_millis(250);

/// What was delivered to whom.
const DELIVERIES: &[Interest] = &[Interest {
    topic: Topic::ordinary("holdfast.orders"),
    kinds: &["order.delivered"],
}];
/// Which products there are, and their skus.
const PRODUCTS: &[Interest] = &[Interest {
    topic: Topic::ordinary("holdfast.products"),
    kinds: &["product.updated", "product.deleted"],
}];
/// Who is to be forgotten.
const PERSONS: &[Interest] = &[Interest {
    topic: Topic::ordinary("holdfast.users"),
    kinds: &["user.erased"],
}];

#[derive(Serialize)]
struct ReviewChanged {
    product_id: String,
    review_id: String,
    /// What that review gives, or gave.
    rating: u8,
    /// How many published reviews of the product give 1, 2, 3, 4 and 5.
    histogram: [i64; RATINGS],
}

/// What moderators do, as the audit log has it.
#[derive(Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
enum Action {
    ReviewPublished { review_id: Id<id::Review> },
    ReviewRemoved { review_id: Id<id::Review> },
}

#[derive(Deserialize)]
struct OrderDelivered {
    user_id: Id<id::User>,
    /// Missing in what was announced before orders named them.
    #[serde(default)]
    skus: Vec<String>,
}

#[derive(Deserialize)]
struct ProductUpdated {
    status: String,
    /// Missing in what was announced before catalog named them.
    #[serde(default)]
    skus: Vec<String>,
}

/// Announces what the published reviews of a product come to, now that this one has changed.
pub(crate) async fn announce(
    db: &mut PgConnection,
    product: &Product,
    review: &Review,
    now: Timestamp,
) -> Result<(), ReviewsError> {
    let kind = match review.counted() {
        Some(_) => "review.published",
        None => "review.removed",
    };
    let data = ReviewChanged {
        product_id: product.id.to_string(),
        review_id: review.id.to_string(),
        rating: review.opinion.rating.stars(),
        histogram: product.counts,
    };
    let message = Announcement::new(REVIEWS, kind, product.id, product.version, now, &data);
    Ok(outbox::announce(db, message).await?)
}

/// Writes a line for the audit log.
pub(crate) async fn record(
    db: &mut PgConnection,
    review: &Review,
    moderator: Id<id::User>,
    decision: Decision,
    now: Timestamp,
) -> Result<(), ReviewsError> {
    let review_id = review.id;
    let line = Line {
        service: "reviews",
        actor: Some(moderator),
        subject: Some(review.author),
        action: match decision {
            Decision::Publish => Action::ReviewPublished { review_id },
            Decision::Remove => Action::ReviewRemoved { review_id },
        },
    };
    Ok(outbox::announce(db, line.recorded(now)).await?)
}

/// What says who may review what, and who is to be forgotten.
pub(crate) fn consumers(clock: Arc<dyn Clock>, wake: Wake) -> Vec<Consumer> {
    vec![
        Consumer::new("reviews.deliveries", DELIVERIES, Deliveries).paced(PACE),
        Consumer::new("reviews.products", PRODUCTS, Products).paced(PACE),
        Consumer::new("reviews.persons", PERSONS, Eraser { clock }).waking(wake),
    ]
}

struct Deliveries;

#[tonic::async_trait]
impl Handler for Deliveries {
    async fn handle(&self, db: &mut PgConnection, message: &Message) -> Result<(), Handling> {
        let delivered: OrderDelivered = message.decode()?;
        Ok(store::note_delivery(db, delivered.user_id, &delivered.skus).await?)
    }
}

struct Products;

#[tonic::async_trait]
impl Handler for Products {
    async fn handle(&self, db: &mut PgConnection, message: &Message) -> Result<(), Handling> {
        let product: Id<id::Product> = message.key.parse().map_err(Handling::permanent)?;
        if message.kind == "product.deleted" {
            return Ok(store::note_product(db, product, Listed::Deleted, &[]).await?);
        }
        let told: ProductUpdated = message.decode()?;
        let listed = Listed::parse(&told.status).ok_or_else(|| {
            Handling::permanent(format!("status {:?} of a product is unknown", told.status))
        })?;
        Ok(store::note_product(db, product, listed, &told.skus).await?)
    }
}

struct Eraser {
    clock: Arc<dyn Clock>,
}

#[tonic::async_trait]
impl Handler for Eraser {
    async fn handle(&self, db: &mut PgConnection, message: &Message) -> Result<(), Handling> {
        let user: Id<id::User> = message.key.parse().map_err(Handling::permanent)?;
        let now = time::to_micros(self.clock.now());
        Ok(writing::forget(db, user, now).await?)
    }
}

impl From<ReviewsError> for Handling {
    /// What passes is waited for; a row that cannot be read is looked at by somebody.
    fn from(error: ReviewsError) -> Self {
        match error {
            ReviewsError::Database(error) => error.into(),
            other => Self::permanent(other),
        }
    }
}
