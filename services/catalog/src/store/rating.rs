//! Every statement on what reviews of a product come to.

use std::collections::HashMap;

use holdfast_kernel::{Id, id};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{domain::Stars, error::CatalogError};

/// Takes over what the reviews of a product come to, where that is newer than what is known; says whether it
/// was.
pub(crate) async fn note_rating(
    db: &mut PgConnection,
    product: Id<id::Product>,
    stars: &Stars,
    version: i64,
) -> Result<bool, sqlx::Error> {
    let written = sqlx::query(
        "UPDATE product SET histogram = $2, rating = $3, rating_version = $4
         WHERE id = $1 AND rating_version < $4",
    )
    .bind(product.uuid())
    .bind(stars.histogram.as_slice())
    .bind(stars.mean_thousandths())
    .bind(version)
    .execute(db)
    .await?;
    Ok(written.rows_affected() > 0)
}

/// How many reviews give 1, 2, 3, 4 and 5 stars to each of those products that have any.
pub(crate) async fn histograms(
    db: &mut PgConnection,
    products: &[Uuid],
) -> Result<HashMap<Uuid, Vec<i64>>, CatalogError> {
    let rows: Vec<(Uuid, Vec<i64>)> = sqlx::query_as(
        "SELECT id, histogram FROM product WHERE id = ANY ($1) AND rating_version > 0",
    )
    .bind(products)
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().collect())
}
