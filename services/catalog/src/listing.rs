//! How a product comes to be for sale: written as a draft, given its first stock in the ledger, then published.
//!
//! The ledger and the catalog share no transaction. The draft comes first, so that a crash leaves a product nobody
//! sees and never stock nobody can find; the same request again goes on where the first one stopped, for every step
//! meets itself: the draft by the product's id, the stock by the request id.

use holdfast_kernel::{Id, RequestId, Timestamp, id};
use holdfast_platform::{database, fault::Fault, service::Context};
use holdfast_proto::inventory::v1 as ledger;
use sqlx::PgConnection;

use crate::{
    Peers,
    domain::{
        Draft, Product, Status,
        category::{Category, Tree},
    },
    error::CatalogError,
    messages, store,
};

/// A wish to sell something.
pub(crate) struct Listing {
    pub(crate) request: RequestId,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) draft: Draft,
    /// First capacity of each pool that is to be made.
    pub(crate) stock: Vec<(String, i64)>,
    /// What the product shall be in the end.
    pub(crate) status: Status,
    /// Who wishes it, for the ledger's book.
    pub(crate) actor: String,
}

/// Carries the listing out and gives the product as it then stands.
pub(crate) async fn list(
    listing: Listing,
    peers: &Peers,
    context: &Context,
    now: Timestamp,
) -> Result<Product, CatalogError> {
    let id: Id<id::Product> = listing.request.makes();
    write_draft(id, &listing, context, now).await?;
    if let Err(refusal) = stock(&listing, peers, context).await {
        if !refusal.is_transient() {
            let mut db = context.database.acquire().await?;
            store::delete_draft(&mut db, id).await?;
        }
        return Err(refusal.into());
    }
    match listing.status {
        Status::Published => put(id, Status::Published, None, context, now).await,
        Status::Draft => {
            let mut db = context.database.acquire().await?;
            store::find_product(&mut db, id)
                .await?
                .ok_or(CatalogError::UnknownProduct)
        }
    }
}

/// Puts a product on sale or takes it off.
pub(crate) async fn put(
    id: Id<id::Product>,
    status: Status,
    expected: Option<i64>,
    context: &Context,
    now: Timestamp,
) -> Result<Product, CatalogError> {
    let mut tx = database::begin(&context.database).await?;
    let before = store::lock_product(&mut tx, id)
        .await?
        .ok_or(CatalogError::UnknownProduct)?;
    let version_before = before.version;
    let product = before.put(status, expected)?;
    if product.version != version_before {
        store::save_status(&mut tx, &product).await?;
        messages::announce_updated(&mut tx, &product, now).await?;
    }
    database::commit(tx).await?;
    Ok(product)
}

async fn write_draft(
    id: Id<id::Product>,
    listing: &Listing,
    context: &Context,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let mut tx = database::begin(&context.database).await?;
    if let Some(fingerprint) = store::find_fingerprint(&mut tx, id).await? {
        return if fingerprint == listing.fingerprint {
            Ok(())
        } else {
            Err(CatalogError::KeyReused)
        };
    }
    let draft = &listing.draft;
    let skus: Vec<&str> = draft
        .variants
        .iter()
        .map(|variant| variant.sku.as_str())
        .collect();
    let taken = store::find_taken_skus(&mut tx, &skus).await?;
    if !taken.is_empty() {
        return Err(CatalogError::SkuTaken(taken));
    }
    if let Some(category) = &draft.category {
        ensure_category(&mut tx, category, now).await?;
    }
    let mut slug = draft.slug();
    if store::lock_slug(&mut tx, &slug).await? {
        let text = id.to_string();
        slug = format!("{slug}-{}", &text[text.len() - SLUG_SUFFIX_CHARS..]);
    }
    let product = Product {
        id,
        slug,
        draft: draft.clone(),
        status: Status::Draft,
        created_at: now,
        version: 1,
    };
    store::insert_product(&mut tx, &product, &listing.fingerprint).await?;
    messages::announce_updated(&mut tx, &product, now).await?;
    database::commit(tx).await?;
    Ok(())
}

/// Makes a root of that slug unless there is a category of it.
async fn ensure_category(
    db: &mut PgConnection,
    slug: &str,
    now: Timestamp,
) -> Result<(), CatalogError> {
    if store::category_exists(db, slug).await? {
        return Ok(());
    }
    store::lock_tree(db).await?;
    let tree = Tree::new(store::list_categories(db).await?);
    if tree.get(slug).is_some() {
        return Ok(());
    }
    tree.has_room()?;
    let category = Category {
        slug: slug.to_owned(),
        name: slug.to_owned(),
        parent: None,
        version: 1,
    };
    store::insert_category(db, &category, None, now).await
}

/// Letters of the id that tell products of the same name apart.
const SLUG_SUFFIX_CHARS: usize = 8;

async fn stock(listing: &Listing, peers: &Peers, context: &Context) -> Result<(), Fault> {
    if listing.stock.is_empty() {
        return Ok(());
    }
    let changes = listing
        .stock
        .iter()
        .map(|(pool, capacity)| ledger::CapacityChange {
            pool: pool.clone(),
            delta: *capacity,
            expected_capacity_version: 0,
        })
        .collect();
    let request = ledger::AdjustRequest {
        request_id: listing.request.to_string(),
        actor: listing.actor.clone(),
        reason: "first stock".to_owned(),
        changes,
    };
    peers
        .inventory
        .clone()
        .adjust(context.identity.request(request))
        .await
        .map(|_| ())
        .map_err(|status| Fault::from_status(&status))
}
