//! What changes a review. Each change is made under the lock of its product, counted there and announced, in one transaction.

use holdfast_kernel::{Id, Timestamp, id};
use sqlx::PgConnection;

use crate::{
    domain::{Decision, Opinion, Product, Review, Rewording},
    error::ReviewsError,
    messages, store,
};

/// A wish to review a product.
pub(crate) struct NewReview {
    pub(crate) id: Id<id::Review>,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) product: Id<id::Product>,
    pub(crate) author: Id<id::User>,
    pub(crate) opinion: Opinion,
    /// Whether drafts exist for the author.
    pub(crate) is_staff: bool,
}

/// Writes a review; the same wish again is the same review, as it now stands.
pub(crate) async fn write(
    db: &mut PgConnection,
    wish: NewReview,
    now: Timestamp,
) -> Result<Review, ReviewsError> {
    let product = store::lock_product(db, wish.product).await?;
    if let Some((earlier, fingerprint)) = store::find_review_by_request(db, wish.id).await? {
        return if fingerprint == wish.fingerprint {
            Ok(earlier)
        } else {
            Err(ReviewsError::KeyReused)
        };
    }
    let mut product = product
        .filter(|product| product.exists_for(wish.is_staff))
        .ok_or(ReviewsError::UnknownProduct)?;
    if !store::was_delivered(db, product.id, wish.author).await? {
        return Err(ReviewsError::NotABuyer);
    }
    if let Some(review) = store::find_review_of(db, product.id, wish.author).await? {
        return Err(ReviewsError::AlreadyReviewed { review });
    }
    let review = Review::new(wish.id, product.id, wish.author, wish.opinion, now);
    store::insert_review(db, &review, &wish.fingerprint).await?;
    if product.recount(None, review.counted()) {
        store::save_counts(db, &product).await?;
        messages::announce(db, &product, &review, now).await?;
    }
    Ok(review)
}

/// Changes what somebody's own review says.
pub(crate) async fn reword(
    db: &mut PgConnection,
    review: Id<id::Review>,
    author: Id<id::User>,
    expected: Option<i64>,
    wanted: Rewording,
    now: Timestamp,
) -> Result<Review, ReviewsError> {
    let (product, before) = lock_own(db, review, author).await?;
    let after = before.clone().at_version(expected)?.reword(wanted, now)?;
    save(db, product, &before, &after, now).await?;
    Ok(after)
}

/// Takes somebody's own review back.
pub(crate) async fn withdraw(
    db: &mut PgConnection,
    review: Id<id::Review>,
    author: Id<id::User>,
    expected: Option<i64>,
    now: Timestamp,
) -> Result<(), ReviewsError> {
    let (product, before) = lock_own(db, review, author).await?;
    let after = before.clone().at_version(expected)?.withdraw()?;
    save(db, product, &before, &after, now).await
}

/// Does with a review as a moderator decides, and writes down who did.
pub(crate) async fn moderate(
    db: &mut PgConnection,
    review: Id<id::Review>,
    moderator: Id<id::User>,
    decision: Decision,
    reason: &str,
    now: Timestamp,
) -> Result<Review, ReviewsError> {
    let (product, before) = lock(db, review).await?;
    let after = before.clone().moderate(decision, reason)?;
    if after.version != before.version {
        store::note_decision(db, &after, moderator, decision, reason, now).await?;
        messages::record(db, &after, moderator, decision, now).await?;
    }
    save(db, product, &before, &after, now).await?;
    Ok(after)
}

/// Empties whatever somebody wrote, and forgets what they bought.
pub(crate) async fn forget(
    db: &mut PgConnection,
    user: Id<id::User>,
    now: Timestamp,
) -> Result<(), ReviewsError> {
    store::forget_deliveries(db, user).await?;
    // By product, so that two who forget do not wait for each other in a circle.
    for review in store::reviews_by(db, user).await? {
        let (product, before) = lock(db, review).await?;
        let after = before.clone().forget();
        save(db, product, &before, &after, now).await?;
    }
    Ok(())
}

async fn lock_own(
    db: &mut PgConnection,
    review: Id<id::Review>,
    author: Id<id::User>,
) -> Result<(Product, Review), ReviewsError> {
    let (product, review) = lock(db, review).await?;
    if review.author != author || review.is_withdrawn() {
        return Err(ReviewsError::UnknownReview);
    }
    Ok((product, review))
}

/// A review and its product, which nobody else changes until the transaction ends.
async fn lock(
    db: &mut PgConnection,
    review: Id<id::Review>,
) -> Result<(Product, Review), ReviewsError> {
    let product = store::lock_product_of(db, review).await?;
    let product = product.ok_or(ReviewsError::UnknownReview)?;
    let review = store::find_review(db, review).await?;
    Ok((product, review.ok_or(ReviewsError::UnknownReview)?))
}

async fn save(
    db: &mut PgConnection,
    mut product: Product,
    before: &Review,
    after: &Review,
    now: Timestamp,
) -> Result<(), ReviewsError> {
    if after.version == before.version {
        return Ok(());
    }
    store::save_review(db, after).await?;
    if product.recount(before.counted(), after.counted()) {
        store::save_counts(db, &product).await?;
        messages::announce(db, &product, after, now).await?;
    }
    Ok(())
}
