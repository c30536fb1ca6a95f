//! Every statement on categories.

use std::collections::BTreeMap;

use holdfast_kernel::{Id, RequestId, Timestamp, id};
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{domain::category::Category, error::CatalogError};

/// The request that makes a category, and its SHA-256.
pub(crate) struct Maker<'a> {
    pub(crate) request: RequestId,
    pub(crate) fingerprint: &'a [u8],
}

/// Keeps the shape of the tree from being changed by anybody else until the transaction ends.
pub(crate) async fn lock_tree(db: &mut PgConnection) -> Result<(), CatalogError> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('the tree of categories', 0))")
        .execute(db)
        .await?;
    Ok(())
}

/// All categories.
pub(crate) async fn list_categories(db: &mut PgConnection) -> Result<Vec<Category>, CatalogError> {
    let rows: Vec<CategoryRow> = sqlx::query_as(
        "SELECT slug, coalesce(name, slug) AS name, parent, version FROM category ORDER BY slug",
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(CategoryRow::read).collect())
}

/// Slug and fingerprint of the category that this request made, if it made one.
pub(crate) async fn find_made_category(
    db: &mut PgConnection,
    request: RequestId,
) -> Result<Option<(String, Vec<u8>)>, CatalogError> {
    Ok(
        sqlx::query_as("SELECT slug, fingerprint FROM category WHERE request_id = $1")
            .bind(request.uuid())
            .fetch_optional(db)
            .await?,
    )
}

/// Those of the slugs that no category has.
pub(crate) async fn missing_categories(
    db: &mut PgConnection,
    slugs: &[&str],
) -> Result<Vec<String>, CatalogError> {
    Ok(sqlx::query_scalar(
        "SELECT given FROM unnest($1::text[]) AS given
         WHERE NOT EXISTS (SELECT 1 FROM category WHERE slug = given)",
    )
    .bind(slugs)
    .fetch_all(db)
    .await?)
}

/// Writes a new category; one that a product names has no maker of its own.
pub(crate) async fn insert_category(
    db: &mut PgConnection,
    category: &Category,
    maker: Option<Maker<'_>>,
    now: Timestamp,
) -> Result<(), CatalogError> {
    sqlx::query(
        "INSERT INTO category (slug, name, parent, version, request_id, fingerprint, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&category.slug)
    .bind(&category.name)
    .bind(&category.parent)
    .bind(category.version)
    .bind(maker.as_ref().map(|maker| maker.request.uuid()))
    .bind(maker.map(|maker| maker.fingerprint))
    .bind(now.to_sqlx())
    .execute(db)
    .await?;
    Ok(())
}

/// Writes what a change makes of the category of this slug; what names it follows.
pub(crate) async fn save_category(
    db: &mut PgConnection,
    slug: &str,
    category: &Category,
) -> Result<(), CatalogError> {
    sqlx::query(
        "UPDATE category SET slug = $2, name = $3, parent = $4, version = $5 WHERE slug = $1",
    )
    .bind(slug)
    .bind(&category.slug)
    .bind(&category.name)
    .bind(&category.parent)
    .bind(category.version)
    .execute(db)
    .await?;
    Ok(())
}

/// Takes a category out that nothing names; false where a product came to name it at the same moment.
pub(crate) async fn delete_category(
    db: &mut PgConnection,
    slug: &str,
) -> Result<bool, CatalogError> {
    let deleted = sqlx::query("DELETE FROM category WHERE slug = $1")
        .bind(slug)
        .execute(db)
        .await;
    match deleted {
        Ok(_) => Ok(true),
        Err(sqlx::Error::Database(error)) if error.is_foreign_key_violation() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// How many published products are in each category itself.
pub(crate) async fn count_products(
    db: &mut PgConnection,
) -> Result<BTreeMap<String, i64>, CatalogError> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT category, count(*) FROM product
         WHERE status = 'published' AND category IS NOT NULL
         GROUP BY category",
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().collect())
}

/// Some of the products in a category itself, drafts too.
pub(crate) async fn products_in_category(
    db: &mut PgConnection,
    slug: &str,
    limit: i64,
) -> Result<Vec<Id<id::Product>>, CatalogError> {
    let ids: Vec<Uuid> =
        sqlx::query_scalar("SELECT id FROM product WHERE category = $1 ORDER BY id LIMIT $2")
            .bind(slug)
            .bind(limit)
            .fetch_all(db)
            .await?;
    Ok(ids.into_iter().map(Id::new).collect())
}

/// Slugs of a category and of all below it; none when there is no such category.
pub(crate) async fn category_and_below(
    db: &mut PgConnection,
    slug: &str,
) -> Result<Vec<String>, CatalogError> {
    Ok(sqlx::query_scalar(
        "WITH RECURSIVE branch AS (
             SELECT slug FROM category WHERE slug = $1
             UNION
             SELECT category.slug FROM category JOIN branch ON category.parent = branch.slug
         )
         SELECT slug FROM branch",
    )
    .bind(slug)
    .fetch_all(db)
    .await?)
}

#[derive(sqlx::FromRow)]
struct CategoryRow {
    slug: String,
    name: String,
    parent: Option<String>,
    version: i64,
}

impl CategoryRow {
    fn read(self) -> Category {
        Category {
            slug: self.slug,
            name: self.name,
            parent: self.parent,
            version: self.version,
        }
    }
}
