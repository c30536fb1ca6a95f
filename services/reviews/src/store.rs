//! Every statement on products, deliveries, reviews and their moderation.

use holdfast_kernel::{Id, Timestamp, id};
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    domain::{Decision, Listed, Opinion, Product, RATINGS, Rating, Review, Status},
    error::ReviewsError,
};

/// Where a list goes on: behind the review made then, of that id.
pub(crate) type ListPlace = (i64, Uuid);

/// Which reviews of a product are asked for.
pub(crate) struct Wanted {
    pub(crate) product: Id<id::Product>,
    pub(crate) rating: Option<Rating>,
    /// Removed ones as well.
    pub(crate) removed: bool,
}

/// Takes over what catalog told of a product. A sku that has a product keeps it.
pub(crate) async fn note_product(
    db: &mut PgConnection,
    product: Id<id::Product>,
    listed: Listed,
    skus: &[String],
) -> Result<(), ReviewsError> {
    sqlx::query(
        "INSERT INTO product (id, status) VALUES ($1, $2)
         ON CONFLICT (id) DO UPDATE SET status = excluded.status",
    )
    .bind(product.uuid())
    .bind(listed.as_str())
    .execute(&mut *db)
    .await?;
    sqlx::query(
        "INSERT INTO product_sku (sku, product_id) SELECT sku, $1 FROM unnest($2::text[]) AS told (sku)
         ON CONFLICT (sku) DO NOTHING",
    )
    .bind(product.uuid())
    .bind(skus)
    .execute(db)
    .await?;
    Ok(())
}

/// Remembers what was delivered to somebody; twice is once.
pub(crate) async fn note_delivery(
    db: &mut PgConnection,
    user: Id<id::User>,
    skus: &[String],
) -> Result<(), ReviewsError> {
    sqlx::query(
        "INSERT INTO delivered (user_id, sku) SELECT $1, sku FROM unnest($2::text[]) AS told (sku)
         ON CONFLICT (user_id, sku) DO NOTHING",
    )
    .bind(user.uuid())
    .bind(skus)
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets what was delivered to somebody.
pub(crate) async fn forget_deliveries(
    db: &mut PgConnection,
    user: Id<id::User>,
) -> Result<(), ReviewsError> {
    sqlx::query("DELETE FROM delivered WHERE user_id = $1")
        .bind(user.uuid())
        .execute(db)
        .await?;
    Ok(())
}

/// Whether anything of the product was delivered to somebody.
pub(crate) async fn was_delivered(
    db: &mut PgConnection,
    product: Id<id::Product>,
    user: Id<id::User>,
) -> Result<bool, ReviewsError> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM delivered JOIN product_sku USING (sku)
                        WHERE delivered.user_id = $1 AND product_sku.product_id = $2)",
    )
    .bind(user.uuid())
    .bind(product.uuid())
    .fetch_one(db)
    .await?)
}

/// The product of this id.
pub(crate) async fn find_product(
    db: &mut PgConnection,
    product: Id<id::Product>,
) -> Result<Option<Product>, ReviewsError> {
    let row: Option<ProductRow> =
        sqlx::query_as("SELECT id, status, counts, version FROM product WHERE id = $1")
            .bind(product.uuid())
            .fetch_optional(db)
            .await?;
    row.map(ProductRow::read).transpose()
}

/// The product of this id, of which nobody else changes a review until the transaction ends.
pub(crate) async fn lock_product(
    db: &mut PgConnection,
    product: Id<id::Product>,
) -> Result<Option<Product>, ReviewsError> {
    let row: Option<ProductRow> =
        sqlx::query_as("SELECT id, status, counts, version FROM product WHERE id = $1 FOR UPDATE")
            .bind(product.uuid())
            .fetch_optional(db)
            .await?;
    row.map(ProductRow::read).transpose()
}

/// The product that this review is of; nobody else changes a review of it until the transaction ends.
pub(crate) async fn lock_product_of(
    db: &mut PgConnection,
    review: Id<id::Review>,
) -> Result<Option<Product>, ReviewsError> {
    let row: Option<ProductRow> = sqlx::query_as(
        "SELECT id, status, counts, version FROM product
         WHERE id = (SELECT product_id FROM review WHERE id = $1) FOR UPDATE",
    )
    .bind(review.uuid())
    .fetch_optional(db)
    .await?;
    row.map(ProductRow::read).transpose()
}

/// Writes what the published reviews of a product come to.
pub(crate) async fn save_counts(
    db: &mut PgConnection,
    product: &Product,
) -> Result<(), ReviewsError> {
    sqlx::query("UPDATE product SET counts = $2, version = $3 WHERE id = $1")
        .bind(product.id.uuid())
        .bind(product.counts.as_slice())
        .bind(product.version)
        .execute(db)
        .await?;
    Ok(())
}

/// The review of this id.
pub(crate) async fn find_review(
    db: &mut PgConnection,
    review: Id<id::Review>,
) -> Result<Option<Review>, ReviewsError> {
    Ok(find_review_by_request(db, review)
        .await?
        .map(|(review, _)| review))
}

/// The review of this id, with the fingerprint of the request that wrote it.
pub(crate) async fn find_review_by_request(
    db: &mut PgConnection,
    review: Id<id::Review>,
) -> Result<Option<(Review, Vec<u8>)>, ReviewsError> {
    let row: Option<ReviewRow> = sqlx::query_as(
        "SELECT id, fingerprint, product_id, user_id, rating, title, text, status, reason, created_at, written_at,
                version
         FROM review WHERE id = $1",
    )
    .bind(review.uuid())
    .fetch_optional(db)
    .await?;
    row.map(|mut row| {
        let fingerprint = std::mem::take(&mut row.fingerprint);
        Ok((row.read()?, fingerprint))
    })
    .transpose()
}

/// The review that somebody has of a product, if they have one.
pub(crate) async fn find_review_of(
    db: &mut PgConnection,
    product: Id<id::Product>,
    user: Id<id::User>,
) -> Result<Option<Id<id::Review>>, ReviewsError> {
    let id: Option<Uuid> = sqlx::query_scalar(
        "SELECT id FROM review WHERE product_id = $1 AND user_id = $2 AND status <> 'withdrawn'",
    )
    .bind(product.uuid())
    .bind(user.uuid())
    .fetch_optional(db)
    .await?;
    Ok(id.map(Id::new))
}

/// Whatever somebody wrote and did not withdraw, by product.
pub(crate) async fn reviews_by(
    db: &mut PgConnection,
    user: Id<id::User>,
) -> Result<Vec<Id<id::Review>>, ReviewsError> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM review WHERE user_id = $1 AND status <> 'withdrawn' ORDER BY product_id",
    )
    .bind(user.uuid())
    .fetch_all(db)
    .await?;
    Ok(ids.into_iter().map(Id::new).collect())
}

/// Reviews of a product, newest first, from behind `place` on.
pub(crate) async fn list_reviews(
    db: &mut PgConnection,
    wanted: &Wanted,
    place: Option<ListPlace>,
    limit: i64,
) -> Result<Vec<Review>, ReviewsError> {
    let (at, id) = place.unzip();
    let at = at
        .map(Timestamp::from_microsecond)
        .transpose()
        .map_err(|_| ReviewsError::Page(holdfast_kernel::page::InvalidPage::Token))?;
    let rows: Vec<ReviewRow> = sqlx::query_as(
        "SELECT id, fingerprint, product_id, user_id, rating, title, text, status, reason, created_at, written_at,
                version
         FROM review
         WHERE product_id = $1 AND status <> 'withdrawn'
           AND (status = 'published' OR $2)
           AND ($3::smallint IS NULL OR rating = $3)
           AND ($4::timestamptz IS NULL OR (created_at, id) < ($4, $5))
         ORDER BY created_at DESC, id DESC
         LIMIT $6",
    )
    .bind(wanted.product.uuid())
    .bind(wanted.removed)
    .bind(wanted.rating.map(|rating| i16::from(rating.stars())))
    .bind(at.map(ToSqlx::to_sqlx))
    .bind(id)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(ReviewRow::read).collect()
}

/// Writes a new review.
pub(crate) async fn insert_review(
    db: &mut PgConnection,
    review: &Review,
    fingerprint: &[u8],
) -> Result<(), ReviewsError> {
    let (status, reason) = written(&review.status);
    sqlx::query(
        "INSERT INTO review (id, fingerprint, product_id, user_id, rating, title, text, status, reason, created_at,
                             written_at, version)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(review.id.uuid())
    .bind(fingerprint)
    .bind(review.product.uuid())
    .bind(review.author.uuid())
    .bind(i16::from(review.opinion.rating.stars()))
    .bind(&review.opinion.title)
    .bind(&review.opinion.text)
    .bind(status)
    .bind(reason)
    .bind(review.created_at.to_sqlx())
    .bind(review.written_at.to_sqlx())
    .bind(review.version)
    .execute(db)
    .await?;
    Ok(())
}

/// Writes a changed review.
pub(crate) async fn save_review(
    db: &mut PgConnection,
    review: &Review,
) -> Result<(), ReviewsError> {
    let (status, reason) = written(&review.status);
    sqlx::query(
        "UPDATE review
         SET rating = $2, title = $3, text = $4, status = $5, reason = $6, written_at = $7, version = $8
         WHERE id = $1",
    )
    .bind(review.id.uuid())
    .bind(i16::from(review.opinion.rating.stars()))
    .bind(&review.opinion.title)
    .bind(&review.opinion.text)
    .bind(status)
    .bind(reason)
    .bind(review.written_at.to_sqlx())
    .bind(review.version)
    .execute(db)
    .await?;
    Ok(())
}

/// Writes down who decided what of a review, as it now stands.
pub(crate) async fn note_decision(
    db: &mut PgConnection,
    review: &Review,
    moderator: Id<id::User>,
    decision: Decision,
    reason: &str,
    now: Timestamp,
) -> Result<(), ReviewsError> {
    sqlx::query(
        "INSERT INTO moderation (review_id, version, decision, reason, moderator, decided_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(review.id.uuid())
    .bind(review.version)
    .bind(decision.as_str())
    .bind(reason)
    .bind(moderator.uuid())
    .bind(now.to_sqlx())
    .execute(db)
    .await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct ProductRow {
    id: Uuid,
    status: String,
    counts: Vec<i64>,
    version: i64,
}

#[derive(sqlx::FromRow)]
struct ReviewRow {
    id: Uuid,
    fingerprint: Vec<u8>,
    product_id: Uuid,
    user_id: Uuid,
    rating: i16,
    title: String,
    text: String,
    status: String,
    reason: Option<String>,
    created_at: jiff_sqlx::Timestamp,
    written_at: jiff_sqlx::Timestamp,
    version: i64,
}

impl ProductRow {
    fn read(self) -> Result<Product, ReviewsError> {
        let id = Id::new(self.id);
        let unreadable =
            |column: &str| ReviewsError::Unreadable(format!("product.{column} of {id}"));
        let counts = <[i64; RATINGS]>::try_from(self.counts).map_err(|_| unreadable("counts"))?;
        Ok(Product {
            id,
            listed: Listed::parse(&self.status).ok_or_else(|| unreadable("status"))?,
            counts,
            version: self.version,
        })
    }
}

impl ReviewRow {
    fn read(self) -> Result<Review, ReviewsError> {
        let id = Id::new(self.id);
        let unreadable =
            |column: &str| ReviewsError::Unreadable(format!("review.{column} of {id}"));
        let status = match (self.status.as_str(), self.reason) {
            ("published", None) => Status::Published,
            ("removed", Some(reason)) => Status::Removed { reason },
            ("withdrawn", None) => Status::Withdrawn,
            _ => return Err(unreadable("status")),
        };
        Ok(Review {
            id,
            product: Id::new(self.product_id),
            author: Id::new(self.user_id),
            opinion: Opinion {
                rating: Rating::parse(self.rating.into()).map_err(|_| unreadable("rating"))?,
                title: self.title,
                text: self.text,
            },
            status,
            created_at: Timestamp::from(self.created_at),
            written_at: Timestamp::from(self.written_at),
            version: self.version,
        })
    }
}

/// A status and its reason as the columns hold them.
fn written(status: &Status) -> (&'static str, Option<&str>) {
    match status {
        Status::Published => ("published", None),
        Status::Removed { reason } => ("removed", Some(reason)),
        Status::Withdrawn => ("withdrawn", None),
    }
}
