//! Every statement: on products and variants here, on categories, on finding products and on stock in files of their own.

mod category;
mod rating;
mod search;
mod stock;

use std::collections::BTreeMap;

use holdfast_kernel::{Currency, Id, Money, RequestId, Sku, Timestamp, id};
use jiff_sqlx::ToSqlx;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

pub(crate) use {category::*, rating::*, search::*, stock::*};

use crate::{
    domain::{Draft, Product, Status, Variant},
    error::CatalogError,
};

/// A variant as a purchase needs it.
pub(crate) struct Quote {
    pub(crate) sku: Sku,
    pub(crate) name: String,
    pub(crate) price: Money,
}

/// The fingerprint of the request that made this product, if it was made.
pub(crate) async fn find_fingerprint(
    db: &mut PgConnection,
    product: Id<id::Product>,
) -> Result<Option<Vec<u8>>, CatalogError> {
    Ok(
        sqlx::query_scalar("SELECT fingerprint FROM product WHERE id = $1")
            .bind(product.uuid())
            .fetch_optional(db)
            .await?,
    )
}

/// Whether the slug is taken. Nobody else takes it until the transaction ends.
pub(crate) async fn lock_slug(db: &mut PgConnection, slug: &str) -> Result<bool, CatalogError> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(slug)
        .execute(&mut *db)
        .await?;
    Ok(
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM product WHERE slug = $1)")
            .bind(slug)
            .fetch_one(db)
            .await?,
    )
}

/// Those of the skus that a product other than this one has or once had.
pub(crate) async fn find_taken_skus(
    db: &mut PgConnection,
    skus: &[&str],
    product: Id<id::Product>,
) -> Result<Vec<Sku>, CatalogError> {
    let taken: Vec<String> = sqlx::query_scalar(
        "SELECT sku FROM variant WHERE sku = ANY ($1) AND product_id <> $2 ORDER BY sku",
    )
    .bind(skus)
    .bind(product.uuid())
    .fetch_all(db)
    .await?;
    taken.iter().map(|sku| read_sku(sku)).collect()
}

/// Writes a new product with its variants.
pub(crate) async fn insert_product(
    db: &mut PgConnection,
    product: &Product,
    findable: &Findable,
    fingerprint: &[u8],
) -> Result<(), CatalogError> {
    let draft = &product.draft;
    sqlx::query(
        "INSERT INTO product (id, fingerprint, slug, name, description, kind, category, currency, images, status,
                              created_at, version, document, sort_name, indexed)
         VALUES ($1, $2, $3, $4, $5, 'good', $6, $7, $8, $9, $10, $11, $12::tsvector, $13, true)",
    )
    .bind(product.id.uuid())
    .bind(fingerprint)
    .bind(&product.slug)
    .bind(&draft.name)
    .bind(&draft.description)
    .bind(&draft.category)
    .bind(draft.currency.code())
    .bind(&draft.images)
    .bind(product.status.as_str())
    .bind(product.created_at.to_sqlx())
    .bind(product.version)
    .bind(&findable.vector)
    .bind(&findable.sort_name)
    .execute(&mut *db)
    .await?;
    write_variants(db, product).await?;
    insert_prices(db, product).await?;
    save_findable(db, product, findable).await
}

/// Writes the variants a product has, their prices too; others it had stay until [`retire_variants`].
pub(crate) async fn save_variants(
    db: &mut PgConnection,
    product: &Product,
) -> Result<(), CatalogError> {
    write_variants(db, product).await?;
    sqlx::query(
        "DELETE FROM variant_price
         WHERE sku IN (SELECT sku FROM variant WHERE product_id = $1)",
    )
    .bind(product.id.uuid())
    .execute(&mut *db)
    .await?;
    insert_prices(db, product).await
}

async fn write_variants(db: &mut PgConnection, product: &Product) -> Result<(), CatalogError> {
    let variants = &product.draft.variants;
    let column = |read: fn(&Variant) -> &str| -> Vec<&str> { variants.iter().map(read).collect() };
    let options: Vec<Json<&BTreeMap<String, String>>> = variants
        .iter()
        .map(|variant| Json(&variant.options))
        .collect();
    let prices: Vec<i64> = variants
        .iter()
        .map(|variant| variant.price.amount)
        .collect();
    let skus = column(|variant| variant.sku.as_str());
    let written = sqlx::query(
        "INSERT INTO variant (sku, product_id, position, name, options, price)
         SELECT sku, $1, position - 1, name, options, price
         FROM unnest($2::text[], $3::text[], $4::jsonb[], $5::bigint[])
              WITH ORDINALITY AS given (sku, name, options, price, position)
         ON CONFLICT (sku) DO UPDATE
         SET position = excluded.position, name = excluded.name, options = excluded.options,
             price = excluded.price, deleted_at = NULL
         WHERE variant.product_id = excluded.product_id",
    )
    .bind(product.id.uuid())
    .bind(&skus)
    .bind(column(|variant| &variant.name))
    .bind(options)
    .bind(prices)
    .execute(&mut *db)
    .await?
    .rows_affected();
    if written != skus.len() as u64 {
        return Err(CatalogError::SkuTaken(
            find_taken_skus(db, &skus, product.id).await?,
        ));
    }
    Ok(())
}

/// Writes the prices of a product's variants in other currencies than its own.
async fn insert_prices(db: &mut PgConnection, product: &Product) -> Result<(), CatalogError> {
    let others = || {
        let variants = product.draft.variants.iter();
        variants.flat_map(|variant| {
            let prices = variant.other_prices.iter();
            prices.map(move |(currency, amount)| (variant.sku.as_str(), currency.code(), *amount))
        })
    };
    if others().next().is_none() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO variant_price (sku, currency, price)
         SELECT sku, currency, price FROM unnest($1::text[], $2::text[], $3::bigint[])
              AS given (sku, currency, price)",
    )
    .bind(others().map(|(sku, ..)| sku).collect::<Vec<_>>())
    .bind(
        others()
            .map(|(_, currency, _)| currency)
            .collect::<Vec<_>>(),
    )
    .bind(others().map(|(.., amount)| amount).collect::<Vec<_>>())
    .execute(db)
    .await?;
    Ok(())
}

/// Takes variants that are not among these off a product.
pub(crate) async fn retire_variants(
    db: &mut PgConnection,
    product: &Product,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let kept = product.draft.variants.iter();
    sqlx::query(
        "UPDATE variant SET deleted_at = $3
         WHERE product_id = $1 AND sku <> ALL ($2) AND deleted_at IS NULL",
    )
    .bind(product.id.uuid())
    .bind(kept.map(|variant| variant.sku.as_str()).collect::<Vec<_>>())
    .bind(now.to_sqlx())
    .execute(db)
    .await?;
    Ok(())
}

/// Notes which request added a variant.
pub(crate) async fn note_addition(
    db: &mut PgConnection,
    sku: &Sku,
    request: RequestId,
    fingerprint: &[u8],
) -> Result<(), CatalogError> {
    sqlx::query("UPDATE variant SET request_id = $2, fingerprint = $3 WHERE sku = $1")
        .bind(sku.as_str())
        .bind(request.uuid())
        .bind(fingerprint)
        .execute(db)
        .await?;
    Ok(())
}

/// The fingerprint of the request that added a variant, if it added one.
pub(crate) async fn find_addition(
    db: &mut PgConnection,
    request: RequestId,
) -> Result<Option<Vec<u8>>, CatalogError> {
    Ok(
        sqlx::query_scalar("SELECT fingerprint FROM variant WHERE request_id = $1")
            .bind(request.uuid())
            .fetch_optional(db)
            .await?,
    )
}

/// Takes back a variant that never came to have its stock; false where it is not there.
pub(crate) async fn take_back_addition(
    db: &mut PgConnection,
    request: RequestId,
) -> Result<bool, CatalogError> {
    let deleted = sqlx::query("DELETE FROM variant WHERE request_id = $1")
        .bind(request.uuid())
        .execute(db)
        .await?;
    Ok(deleted.rows_affected() > 0)
}

/// Takes back a draft that never came to be for sale.
pub(crate) async fn delete_draft(
    db: &mut PgConnection,
    product: Id<id::Product>,
) -> Result<(), CatalogError> {
    sqlx::query("DELETE FROM product WHERE id = $1 AND status = 'draft'")
        .bind(product.uuid())
        .execute(db)
        .await?;
    Ok(())
}

/// Writes a changed product, without its variants.
pub(crate) async fn save_product(
    db: &mut PgConnection,
    product: &Product,
    findable: &Findable,
) -> Result<(), CatalogError> {
    let draft = &product.draft;
    sqlx::query(
        "UPDATE product
         SET name = $2, description = $3, category = $4, images = $5, status = $6, version = $7,
             document = $8::tsvector, sort_name = $9, indexed = true
         WHERE id = $1",
    )
    .bind(product.id.uuid())
    .bind(&draft.name)
    .bind(&draft.description)
    .bind(&draft.category)
    .bind(&draft.images)
    .bind(product.status.as_str())
    .bind(product.version)
    .bind(&findable.vector)
    .bind(&findable.sort_name)
    .execute(&mut *db)
    .await?;
    save_findable(db, product, findable).await
}

/// Writes whether a product that is otherwise as it was is on sale.
pub(crate) async fn save_status(
    db: &mut PgConnection,
    product: &Product,
) -> Result<(), CatalogError> {
    sqlx::query("UPDATE product SET status = $2, version = $3 WHERE id = $1")
        .bind(product.id.uuid())
        .bind(product.status.as_str())
        .bind(product.version)
        .execute(db)
        .await?;
    Ok(())
}

/// Takes a product off for good. Programs that know nothing of that see a draft.
pub(crate) async fn delete_product(
    db: &mut PgConnection,
    product: Id<id::Product>,
    version: i64,
    now: Timestamp,
) -> Result<(), CatalogError> {
    sqlx::query(
        "UPDATE product SET status = 'draft', category = NULL, version = $2, deleted_at = $3 WHERE id = $1",
    )
    .bind(product.uuid())
    .bind(version)
    .bind(now.to_sqlx())
    .execute(db)
    .await?;
    Ok(())
}

/// The product of this id.
pub(crate) async fn find_product(
    db: &mut PgConnection,
    product: Id<id::Product>,
) -> Result<Option<Product>, CatalogError> {
    let row: Option<ProductRow> = sqlx::query_as(
        "SELECT id, slug, name, description, category, currency, images, status, created_at, version
         FROM product WHERE id = $1 AND deleted_at IS NULL",
    )
    .bind(product.uuid())
    .fetch_optional(&mut *db)
    .await?;
    Ok(with_variants(db, row.into_iter().collect()).await?.pop())
}

/// The product of this id, which nobody else changes until the transaction ends.
pub(crate) async fn lock_product(
    db: &mut PgConnection,
    product: Id<id::Product>,
) -> Result<Option<Product>, CatalogError> {
    let row: Option<ProductRow> = sqlx::query_as(
        "SELECT id, slug, name, description, category, currency, images, status, created_at, version
         FROM product WHERE id = $1 AND deleted_at IS NULL FOR UPDATE",
    )
    .bind(product.uuid())
    .fetch_optional(&mut *db)
    .await?;
    Ok(with_variants(db, row.into_iter().collect()).await?.pop())
}

/// The product of this slug.
pub(crate) async fn find_product_by_slug(
    db: &mut PgConnection,
    slug: &str,
) -> Result<Option<Product>, CatalogError> {
    let row: Option<ProductRow> = sqlx::query_as(
        "SELECT id, slug, name, description, category, currency, images, status, created_at, version
         FROM product WHERE slug = $1 AND deleted_at IS NULL",
    )
    .bind(slug)
    .fetch_optional(&mut *db)
    .await?;
    Ok(with_variants(db, row.into_iter().collect()).await?.pop())
}

/// The products of these ids, in this order; those that are not there any more are left out.
pub(crate) async fn find_products(
    db: &mut PgConnection,
    products: &[Uuid],
) -> Result<Vec<Product>, CatalogError> {
    let rows: Vec<ProductRow> = sqlx::query_as(
        "SELECT p.id, slug, name, description, category, currency, images, status, created_at, version
         FROM unnest($1::uuid[]) WITH ORDINALITY AS wanted (id, place) JOIN product p ON p.id = wanted.id
         WHERE deleted_at IS NULL
         ORDER BY wanted.place",
    )
    .bind(products)
    .fetch_all(&mut *db)
    .await?;
    with_variants(db, rows).await
}

/// Name and price of those skus that are published, by sku: in a currency, or each in its product's own.
pub(crate) async fn quote_variants(
    db: &mut PgConnection,
    skus: &[String],
    currency: Option<Currency>,
) -> Result<Vec<Quote>, CatalogError> {
    let rows: Vec<(String, String, String, i64, String)> = sqlx::query_as(
        "SELECT v.sku, p.name, v.name, coalesce(vp.price, v.price), coalesce(vp.currency, p.currency)
         FROM variant v
         JOIN product p ON p.id = v.product_id
         LEFT JOIN variant_price vp ON vp.sku = v.sku AND vp.currency = $2
         WHERE v.sku = ANY ($1) AND v.deleted_at IS NULL AND p.status = 'published'
           AND ($2::text IS NULL OR p.currency = $2 OR vp.currency IS NOT NULL)
         ORDER BY v.sku",
    )
    .bind(skus)
    .bind(currency.as_ref().map(Currency::code))
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|(sku, product, variant, price, currency)| {
            Ok(Quote {
                sku: read_sku(&sku)?,
                name: Product::line_name(&product, &variant),
                price: Money::new(price, read_currency(&sku, &currency)?),
            })
        })
        .collect()
}

async fn with_variants(
    db: &mut PgConnection,
    rows: Vec<ProductRow>,
) -> Result<Vec<Product>, CatalogError> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let variants: Vec<VariantRow> = sqlx::query_as(
        "SELECT product_id, sku, name, options, price
         FROM variant WHERE product_id = ANY ($1) AND deleted_at IS NULL ORDER BY product_id, position, sku",
    )
    .bind(&ids)
    .fetch_all(&mut *db)
    .await?;
    let prices: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT variant_price.sku, variant_price.currency, variant_price.price
         FROM variant_price JOIN variant USING (sku)
         WHERE product_id = ANY ($1) AND deleted_at IS NULL",
    )
    .bind(&ids)
    .fetch_all(db)
    .await?;
    let mut other_prices: BTreeMap<String, BTreeMap<Currency, i64>> = BTreeMap::new();
    for (sku, currency, price) in prices {
        let currency = read_currency(&sku, &currency)?;
        other_prices.entry(sku).or_default().insert(currency, price);
    }
    let mut by_product: BTreeMap<Uuid, Vec<VariantRow>> = BTreeMap::new();
    for variant in variants {
        by_product
            .entry(variant.product_id)
            .or_default()
            .push(variant);
    }
    rows.into_iter()
        .map(|row| {
            let variants = by_product.remove(&row.id).unwrap_or_default();
            row.read(variants, &mut other_prices)
        })
        .collect()
}

#[derive(sqlx::FromRow)]
struct ProductRow {
    id: Uuid,
    slug: String,
    name: String,
    description: String,
    category: Option<String>,
    currency: String,
    images: Vec<String>,
    status: String,
    created_at: jiff_sqlx::Timestamp,
    version: i64,
}

#[derive(sqlx::FromRow)]
struct VariantRow {
    product_id: Uuid,
    sku: String,
    name: String,
    options: Json<BTreeMap<String, String>>,
    price: i64,
}

impl ProductRow {
    fn read(
        self,
        variants: Vec<VariantRow>,
        other_prices: &mut BTreeMap<String, BTreeMap<Currency, i64>>,
    ) -> Result<Product, CatalogError> {
        let id = Id::new(self.id);
        let currency = read_currency(&self.slug, &self.currency)?;
        let status = Status::parse(&self.status)
            .map_err(|_| CatalogError::Unreadable(format!("product.status of {id}")))?;
        let variants = variants
            .into_iter()
            .map(|row| {
                Ok(Variant {
                    other_prices: other_prices.remove(&row.sku).unwrap_or_default(),
                    sku: read_sku(&row.sku)?,
                    name: row.name,
                    options: row.options.0,
                    price: Money::new(row.price, currency),
                })
            })
            .collect::<Result<_, CatalogError>>()?;
        Ok(Product {
            id,
            slug: self.slug,
            draft: Draft {
                name: self.name,
                description: self.description,
                category: self.category,
                currency,
                images: self.images,
                variants,
            },
            status,
            created_at: Timestamp::from(self.created_at),
            version: self.version,
        })
    }
}

fn read_sku(text: &str) -> Result<Sku, CatalogError> {
    text.parse()
        .map_err(|refused| CatalogError::Unreadable(format!("variant.sku: {refused}")))
}

fn read_currency(row: &str, text: &str) -> Result<Currency, CatalogError> {
    text.parse()
        .map_err(|refused| CatalogError::Unreadable(format!("currency of {row}: {refused}")))
}
