//! Every statement on what the ledger has available.

use std::collections::HashMap;

use sqlx::PgConnection;

use crate::error::CatalogError;

/// What the ledger has available of a sku, at a version of its pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) sku: String,
    pub(crate) available: i64,
    pub(crate) version: i64,
}

/// Takes these levels over, each sku at most once, where they are newer than what is known.
pub(crate) async fn note_stock(db: &mut PgConnection, levels: &[Level]) -> Result<(), sqlx::Error> {
    let column = |read: fn(&Level) -> i64| -> Vec<i64> { levels.iter().map(read).collect() };
    // In order, so that two who note the same skus never wait for each other in a circle.
    sqlx::query(
        "INSERT INTO stock (sku, available, version)
         SELECT sku, available, version
         FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS told (sku, available, version)
         ORDER BY sku COLLATE \"C\"
         ON CONFLICT (sku) DO UPDATE SET available = excluded.available, version = excluded.version
         WHERE stock.version < excluded.version",
    )
    .bind((levels.iter().map(|level| level.sku.as_str())).collect::<Vec<_>>())
    .bind(column(|level| level.available))
    .bind(column(|level| level.version))
    .execute(db)
    .await?;
    Ok(())
}

/// What is available of those skus that the ledger has told of.
pub(crate) async fn available(
    db: &mut PgConnection,
    skus: &[&str],
) -> Result<HashMap<String, i64>, CatalogError> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("SELECT sku, available FROM stock WHERE sku = ANY ($1)")
            .bind(skus)
            .fetch_all(db)
            .await?;
    Ok(rows.into_iter().collect())
}

/// Skus for sale that the ledger has not told of.
pub(crate) async fn skus_without_stock(
    db: &mut PgConnection,
    limit: i64,
) -> Result<Vec<String>, CatalogError> {
    Ok(sqlx::query_scalar(
        "SELECT sku FROM variant
         WHERE deleted_at IS NULL AND NOT EXISTS (SELECT 1 FROM stock WHERE stock.sku = variant.sku)
         ORDER BY sku LIMIT $1",
    )
    .bind(limit)
    .fetch_all(db)
    .await?)
}
