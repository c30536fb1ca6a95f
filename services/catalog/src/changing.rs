//! How a product that is there changes: each change locks it, decides, writes and announces in one transaction.

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
        store::save_status(&mut tx, &product).await?;
        messages::announce_updated(&mut tx, &product, now).await?;
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
    let found = store::lock_product(db, id).await?;
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
    let findable = search::findable(db, product).await?;
    store::save_product(db, product, &findable).await?;
    messages::announce_updated(db, product, now).await
}
