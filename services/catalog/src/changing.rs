//! How a product that is there changes: each change locks it, decides, writes and announces in one transaction.

use std::{collections::HashMap, slice};

use holdfast_kernel::{Id, Timestamp, id};
use holdfast_platform::{database, service::Context};
use sqlx::{PgConnection, Postgres, Transaction};

use crate::{
    domain::{Change, Product, VariantChange},
    error::CatalogError,
    listing::ensure_category,
    messages::{self, Action},
    search, store,
};

/// Changes the product itself.
///
/// `expected` is the version the caller looked at, if they said so, and `by` who they are, here and below.
pub(crate) async fn change(
    id: Id<id::Product>,
    change: Change,
    expected: Option<i64>,
    by: Id<id::User>,
    context: &Context,
    now: Timestamp,
) -> Result<Product, CatalogError> {
    let mut tx = database::begin(&context.database).await?;
    let before = lock(&mut tx, id).await?;
    let (version, draft) = (before.version, before.draft.clone());
    let product = before.change(change, expected)?;
    if let Some(named) = &product.draft.category
        && draft.category.as_ref() != Some(named)
    {
        ensure_category(&mut tx, named, now).await?;
    }
    if product.draft != draft {
        if product.draft.variants != draft.variants {
            save_variants(&mut tx, &product, now).await?;
        }
        save(&mut tx, &product, now).await?;
    } else if product.version != version {
        // What it is found by is what it was: who publishes a shop does not write its words again.
        let changed = slice::from_ref(&product);
        store::save_statuses(&mut tx, changed).await?;
        messages::announce_updated(&mut tx, changed, now).await?;
    }
    if product.version != version {
        let done = Action::ProductChanged {
            product_id: id,
            status: product.status.as_str(),
        };
        messages::record(&mut tx, by, [done], now).await?;
    }
    commit(tx, context).await?;
    Ok(product)
}

/// Puts products on sale as they stand, all of them or none; those that are on sale stay as they are.
///
/// They are given in the order of the ids, each of which is there once.
pub(crate) async fn publish(
    ids: &[Id<id::Product>],
    by: Id<id::User>,
    context: &Context,
    now: Timestamp,
) -> Result<Vec<Product>, CatalogError> {
    let mut tx = database::begin(&context.database).await?;
    let standing = store::lock_products(&mut tx, ids).await?;
    let mut standing: HashMap<_, _> = (standing.into_iter())
        .map(|product| (product.id.uuid(), product))
        .collect();
    let unknown = ids.iter().filter(|id| !standing.contains_key(&id.uuid()));
    let unknown: Vec<_> = unknown.copied().collect();
    if !unknown.is_empty() {
        return Err(CatalogError::UnknownProducts(unknown));
    }
    let (mut published, mut changed) = (Vec::with_capacity(ids.len()), Vec::new());
    for before in ids.iter().filter_map(|id| standing.remove(&id.uuid())) {
        let version = before.version;
        let product = before.publish();
        if product.version != version {
            changed.push(product.clone());
        }
        published.push(product);
    }
    store::save_statuses(&mut tx, &changed).await?;
    messages::announce_updated(&mut tx, &changed, now).await?;
    let done = changed.iter().map(|product| Action::ProductChanged {
        product_id: product.id,
        status: product.status.as_str(),
    });
    messages::record(&mut tx, by, done, now).await?;
    commit(tx, context).await?;
    Ok(published)
}

/// Changes one variant.
pub(crate) async fn change_variant(
    id: Id<id::Product>,
    sku: &str,
    change: VariantChange,
    expected: Option<i64>,
    by: Id<id::User>,
    context: &Context,
    now: Timestamp,
) -> Result<Product, CatalogError> {
    let mut tx = database::begin(&context.database).await?;
    let before = lock(&mut tx, id).await?;
    let version = before.version;
    let product = before.change_variant(sku, change, expected)?;
    if product.version != version {
        save_variants(&mut tx, &product, now).await?;
        save(&mut tx, &product, now).await?;
        let done = Action::VariantChanged {
            product_id: id,
            sku: sku.to_owned(),
        };
        messages::record(&mut tx, by, [done], now).await?;
    }
    commit(tx, context).await?;
    Ok(product)
}

/// Takes one variant off for good. Its stock is the ledger's and stays there.
pub(crate) async fn remove_variant(
    id: Id<id::Product>,
    sku: &str,
    expected: Option<i64>,
    by: Id<id::User>,
    context: &Context,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let mut tx = database::begin(&context.database).await?;
    let product = lock(&mut tx, id).await?.remove(sku, expected)?;
    save_variants(&mut tx, &product, now).await?;
    save(&mut tx, &product, now).await?;
    let done = Action::VariantRemoved {
        product_id: id,
        sku: sku.to_owned(),
    };
    messages::record(&mut tx, by, [done], now).await?;
    commit(tx, context).await
}

/// Takes the product off for good.
pub(crate) async fn delete(
    id: Id<id::Product>,
    expected: Option<i64>,
    by: Id<id::User>,
    context: &Context,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let mut tx = database::begin(&context.database).await?;
    let product = lock(&mut tx, id).await?;
    product.is_at(expected)?;
    let version = product.version + 1;
    store::delete_product(&mut tx, id, version, now).await?;
    messages::announce_deleted(&mut tx, id, version, now).await?;
    let done = Action::ProductDeleted { product_id: id };
    messages::record(&mut tx, by, [done], now).await?;
    commit(tx, context).await
}

/// Makes true what a transaction did and announced, and has the news of it go out.
pub(crate) async fn commit(
    tx: Transaction<'_, Postgres>,
    context: &Context,
) -> Result<(), CatalogError> {
    database::commit(tx).await?;
    context.wake.wake();
    Ok(())
}

/// The product, which nobody else changes until the transaction ends.
pub(crate) async fn lock(
    db: &mut PgConnection,
    id: Id<id::Product>,
) -> Result<Product, CatalogError> {
    let found = store::lock_products(db, &[id]).await?.pop();
    found.ok_or(CatalogError::UnknownProduct)
}

/// Writes what became of a locked product's variants.
pub(crate) async fn save_variants(
    db: &mut PgConnection,
    product: &Product,
    now: Timestamp,
) -> Result<(), CatalogError> {
    store::save_variants(db, product).await?;
    store::retire_variants(db, product, now).await
}

/// Writes and announces what became of a locked product, its variants left out.
pub(crate) async fn save(
    db: &mut PgConnection,
    product: &Product,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let product = slice::from_ref(product);
    let findable = search::findable(db, product).await?;
    store::save_products(db, &findable).await?;
    messages::announce_updated(db, product, now).await
}
