//! Every statement: on products and variants here, on categories, on finding products and on stock in files of their own.

mod category;
mod rating;
mod search;
mod stock;

use std::collections::{BTreeMap, HashSet};

use holdfast_kernel::{Currency, Id, Money, RequestId, Sku, Timestamp, id};
use jiff_sqlx::ToSqlx;
use serde::Serialize;
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

/// The fingerprints of the requests that made those of the products that are there.
pub(crate) async fn find_fingerprints(
    db: &mut PgConnection,
    products: &[Id<id::Product>],
) -> Result<Vec<Vec<u8>>, CatalogError> {
    Ok(
        sqlx::query_scalar("SELECT fingerprint FROM product WHERE id = ANY ($1)")
            .bind(uuids(products))
            .fetch_all(db)
            .await?,
    )
}

/// Those of the slugs that are taken. Nobody else takes any of them until the transaction ends.
///
/// They are given in order, so that two who want the same ones never wait for each other in a circle.
pub(crate) async fn lock_slugs(
    db: &mut PgConnection,
    slugs: &[&str],
) -> Result<HashSet<String>, CatalogError> {
    sqlx::query(
        "SELECT pg_advisory_xact_lock(hashtextextended(slug, 0)) FROM unnest($1::text[]) AS slug",
    )
    .bind(slugs)
    .execute(&mut *db)
    .await?;
    let taken: Vec<String> = sqlx::query_scalar("SELECT slug FROM product WHERE slug = ANY ($1)")
        .bind(slugs)
        .fetch_all(db)
        .await?;
    Ok(taken.into_iter().collect())
}

/// Those of the skus that a product other than these has or once had.
pub(crate) async fn find_taken_skus(
    db: &mut PgConnection,
    skus: &[&str],
    products: &[Id<id::Product>],
) -> Result<Vec<Sku>, CatalogError> {
    let taken: Vec<String> = sqlx::query_scalar(
        "SELECT sku FROM variant WHERE sku = ANY ($1) AND product_id <> ALL ($2) ORDER BY sku",
    )
    .bind(skus)
    .bind(uuids(products))
    .fetch_all(db)
    .await?;
    taken.iter().map(|sku| read_sku(sku)).collect()
}

/// Writes new products with their variants, all made by the request of this fingerprint.
pub(crate) async fn insert_products(
    db: &mut PgConnection,
    findable: &[Findable<'_>],
    fingerprint: &[u8],
) -> Result<(), CatalogError> {
    sqlx::query(
        "INSERT INTO product (id, fingerprint, slug, name, description, kind, category, currency, images, status,
                              created_at, version, document, sort_name, option_names, option_values,
                              price_currencies, price_lows, indexed, found_version)
         SELECT id, $2, slug, name, description, 'good', category, currency, images, status,
                created_at, version, document::tsvector, sort_name, option_names, option_values,
                price_currencies, price_lows, true, version
         FROM jsonb_to_recordset($1)
              AS given (id uuid, slug text, name text, description text, category text, currency text, images text[],
                        status text, created_at timestamptz, version bigint, document text, sort_name text,
                        option_names text[], option_values text[], price_currencies text[], price_lows bigint[])",
    )
    .bind(Json(findable.iter().map(Written::of).collect::<Vec<_>>()))
    .bind(fingerprint)
    .execute(&mut *db)
    .await?;
    let products: Vec<&Product> = findable.iter().map(|found| found.product).collect();
    write_variants(db, &products).await?;
    insert_prices(db, &products).await?;
    save_findable(db, findable).await
}

/// Writes the variants a product has, their prices too; others it had stay until [`retire_variants`].
pub(crate) async fn save_variants(
    db: &mut PgConnection,
    product: &Product,
) -> Result<(), CatalogError> {
    write_variants(db, &[product]).await?;
    sqlx::query(
        "DELETE FROM variant_price
         WHERE sku IN (SELECT sku FROM variant WHERE product_id = $1)",
    )
    .bind(product.id.uuid())
    .execute(&mut *db)
    .await?;
    insert_prices(db, &[product]).await
}

async fn write_variants(db: &mut PgConnection, products: &[&Product]) -> Result<(), CatalogError> {
    let variants = || {
        products.iter().flat_map(|product| {
            let variants = (0_i64..).zip(&product.draft.variants);
            variants.map(move |(position, variant)| (product.id, position, variant))
        })
    };
    let skus: Vec<&str> = variants()
        .map(|(.., variant)| variant.sku.as_str())
        .collect();
    let written = sqlx::query(
        "INSERT INTO variant (sku, product_id, position, name, options, price)
         SELECT sku, product_id, position, name, options, price
         FROM unnest($1::text[], $2::uuid[], $3::bigint[], $4::text[], $5::jsonb[], $6::bigint[])
              AS given (sku, product_id, position, name, options, price)
         ON CONFLICT (sku) DO UPDATE
         SET position = excluded.position, name = excluded.name, options = excluded.options,
             price = excluded.price, deleted_at = NULL
         WHERE variant.product_id = excluded.product_id",
    )
    .bind(&skus)
    .bind(
        variants()
            .map(|(product, ..)| product.uuid())
            .collect::<Vec<_>>(),
    )
    .bind(
        variants()
            .map(|(_, position, _)| position)
            .collect::<Vec<_>>(),
    )
    .bind(
        variants()
            .map(|(.., variant)| variant.name.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(
        variants()
            .map(|(.., variant)| Json(&variant.options))
            .collect::<Vec<_>>(),
    )
    .bind(
        variants()
            .map(|(.., variant)| variant.price.amount)
            .collect::<Vec<_>>(),
    )
    .execute(&mut *db)
    .await?
    .rows_affected();
    if written != skus.len() as u64 {
        let products: Vec<_> = products.iter().map(|product| product.id).collect();
        let taken = find_taken_skus(db, &skus, &products).await?;
        return Err(CatalogError::SkuTaken(taken));
    }
    Ok(())
}

/// Writes the prices of products' variants in other currencies than their own.
async fn insert_prices(db: &mut PgConnection, products: &[&Product]) -> Result<(), CatalogError> {
    let variants = (products.iter()).flat_map(|product| &product.draft.variants);
    let (mut skus, mut currencies, mut amounts) = (Vec::new(), Vec::new(), Vec::new());
    for variant in variants {
        for (currency, amount) in &variant.other_prices {
            skus.push(variant.sku.as_str());
            currencies.push(currency.code());
            amounts.push(*amount);
        }
    }
    if skus.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO variant_price (sku, currency, price)
         SELECT sku, currency, price FROM unnest($1::text[], $2::text[], $3::bigint[])
              AS given (sku, currency, price)",
    )
    .bind(skus)
    .bind(currencies)
    .bind(amounts)
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

/// Takes back those of the products that never came to be for sale.
pub(crate) async fn delete_drafts(
    db: &mut PgConnection,
    products: &[Id<id::Product>],
) -> Result<(), CatalogError> {
    sqlx::query("DELETE FROM product WHERE id = ANY ($1) AND status = 'draft'")
        .bind(uuids(products))
        .execute(db)
        .await?;
    Ok(())
}

/// Writes changed products, without their variants.
pub(crate) async fn save_products(
    db: &mut PgConnection,
    findable: &[Findable<'_>],
) -> Result<(), CatalogError> {
    sqlx::query(
        "UPDATE product
         SET name = given.name, description = given.description, category = given.category, images = given.images,
             status = given.status, version = given.version, document = given.document::tsvector,
             sort_name = given.sort_name, option_names = given.option_names, option_values = given.option_values,
             price_currencies = given.price_currencies, price_lows = given.price_lows,
             indexed = true, found_version = given.version
         FROM jsonb_to_recordset($1)
              AS given (id uuid, name text, description text, category text, images text[], status text, version bigint,
                        document text, sort_name text, option_names text[], option_values text[],
                        price_currencies text[], price_lows bigint[])
         WHERE product.id = given.id",
    )
    .bind(Json(findable.iter().map(Written::of).collect::<Vec<_>>()))
    .execute(&mut *db)
    .await?;
    save_findable(db, findable).await
}

/// Writes whether products that are otherwise as they were are on sale.
pub(crate) async fn save_statuses(
    db: &mut PgConnection,
    products: &[Product],
) -> Result<(), CatalogError> {
    sqlx::query(
        "UPDATE product
         SET status = given.status, version = given.version,
             found_version = CASE WHEN found_version = product.version THEN given.version ELSE found_version END
         FROM unnest($1::uuid[], $2::text[], $3::bigint[]) AS given (id, status, version)
         WHERE product.id = given.id",
    )
    .bind(products.iter().map(|product| product.id.uuid()).collect::<Vec<_>>())
    .bind(products.iter().map(|product| product.status.as_str()).collect::<Vec<_>>())
    .bind(products.iter().map(|product| product.version).collect::<Vec<_>>())
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

/// Those of the products that are there, which nobody else changes until the transaction ends.
pub(crate) async fn lock_products(
    db: &mut PgConnection,
    products: &[Id<id::Product>],
) -> Result<Vec<Product>, CatalogError> {
    // In order, so that two who lock the same ones never wait for each other in a circle.
    let rows: Vec<ProductRow> = sqlx::query_as(
        "SELECT id, slug, name, description, category, currency, images, status, created_at, version
         FROM product WHERE id = ANY ($1) AND deleted_at IS NULL ORDER BY id FOR UPDATE",
    )
    .bind(uuids(products))
    .fetch_all(&mut *db)
    .await?;
    with_variants(db, rows).await
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

fn uuids(products: &[Id<id::Product>]) -> Vec<Uuid> {
    products.iter().map(|id| id.uuid()).collect()
}

/// A product's row as it is written, with what the product is found and counted by.
#[derive(Serialize)]
struct Written<'a> {
    id: Uuid,
    slug: &'a str,
    name: &'a str,
    description: &'a str,
    category: Option<&'a str>,
    currency: &'a str,
    images: &'a [String],
    status: &'a str,
    created_at: String,
    version: i64,
    document: &'a str,
    sort_name: &'a str,
    option_names: Vec<&'a str>,
    option_values: Vec<&'a str>,
    price_currencies: Vec<&'a str>,
    price_lows: Vec<i64>,
}

impl<'a> Written<'a> {
    fn of(found: &'a Findable<'_>) -> Self {
        let product = found.product;
        let draft = &product.draft;
        Self {
            id: product.id.uuid(),
            slug: &product.slug,
            name: &draft.name,
            description: &draft.description,
            category: draft.category.as_deref(),
            currency: draft.currency.code(),
            images: &draft.images,
            status: product.status.as_str(),
            created_at: product.created_at.to_string(),
            version: product.version,
            document: &found.vector,
            sort_name: &found.sort_name,
            option_names: found.options.iter().map(|(name, _)| *name).collect(),
            option_values: found.options.iter().map(|(_, value)| *value).collect(),
            price_currencies: found.lows.keys().map(Currency::code).collect(),
            price_lows: found.lows.values().copied().collect(),
        }
    }
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
