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
    Peers, changing,
    domain::{
        Change, Draft, Product, Status, Variant,
        category::{Category, Tree},
    },
    error::CatalogError,
    messages::{self, Action},
    search, stock, store,
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
    /// Who wishes it.
    pub(crate) actor: Id<id::User>,
}

/// A wish to sell a product in one more form.
pub(crate) struct Addition {
    pub(crate) request: RequestId,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) product: Id<id::Product>,
    pub(crate) variant: Variant,
    /// First capacity of its pool, if that is to be made.
    pub(crate) stock: Option<i64>,
    /// Who wishes it.
    pub(crate) actor: Id<id::User>,
}

/// Carries the listing out and gives the product as it then stands.
pub(crate) async fn list(
    listing: Listing,
    peers: &Peers,
    context: &Context,
    now: Timestamp,
) -> Result<Product, CatalogError> {
    let id: Id<id::Product> = listing.request.makes();
    let written = write_draft(id, &listing, context, now).await?;
    let skus: Vec<&str> = (listing.draft.variants.iter())
        .map(|variant| variant.sku.as_str())
        .collect();
    let stocked = put_in_stock(
        listing.request,
        &listing.stock,
        listing.actor,
        peers,
        context,
    );
    match stocked.await {
        Ok(pools) => stock::take_over(&skus, &pools, peers, context).await?,
        Err(refusal) => {
            if !refusal.is_transient() {
                let mut db = context.database.acquire().await?;
                store::delete_draft(&mut db, id).await?;
            }
            return Err(refusal.into());
        }
    }
    match (listing.status, written) {
        (Status::Published, _) => {
            let publish = Change {
                status: Some(Status::Published),
                ..Change::default()
            };
            changing::change(id, publish, None, listing.actor, context, now).await
        }
        (Status::Draft, Some(product)) => Ok(product),
        // Made before; it may have changed since.
        (Status::Draft, None) => {
            let mut db = context.database.acquire().await?;
            store::find_product(&mut db, id)
                .await?
                .ok_or(CatalogError::UnknownProduct)
        }
    }
}

/// Adds a variant to a product that is there, then its first stock, and gives the product as it then stands.
///
/// Until the stock is in the ledger nothing of it is available, so nobody can buy what nobody has.
pub(crate) async fn add_variant(
    addition: Addition,
    peers: &Peers,
    context: &Context,
    now: Timestamp,
) -> Result<Product, CatalogError> {
    write_variant(&addition, context, now).await?;
    let pool = addition.variant.sku.pool().to_string();
    let stock: Vec<_> = addition
        .stock
        .map(|units| (pool, units))
        .into_iter()
        .collect();
    let stocked = put_in_stock(addition.request, &stock, addition.actor, peers, context).await;
    match stocked {
        Ok(pools) => {
            let sku = addition.variant.sku.as_str();
            stock::take_over(&[sku], &pools, peers, context).await?;
        }
        Err(refusal) => {
            if !refusal.is_transient() {
                take_back(&addition, context, now).await?;
            }
            return Err(refusal.into());
        }
    }
    let mut db = database::acquire(&context.database).await?;
    store::find_product(&mut db, addition.product)
        .await?
        .ok_or(CatalogError::UnknownProduct)
}

async fn write_variant(
    addition: &Addition,
    context: &Context,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let mut tx = database::begin(&context.database).await?;
    let before = changing::lock(&mut tx, addition.product).await?;
    if let Some(fingerprint) = store::find_addition(&mut tx, addition.request).await? {
        return if fingerprint == addition.fingerprint {
            Ok(())
        } else {
            Err(CatalogError::KeyReused)
        };
    }
    let sku = &addition.variant.sku;
    let taken = store::find_taken_skus(&mut tx, &[sku.as_str()], addition.product).await?;
    if !taken.is_empty() || before.has(sku) {
        return Err(CatalogError::SkuTaken(vec![sku.clone()]));
    }
    let product = before.add(addition.variant.clone())?;
    changing::save_variants(&mut tx, &product, now).await?;
    changing::save(&mut tx, &product, now).await?;
    store::note_addition(&mut tx, sku, addition.request, &addition.fingerprint).await?;
    let done = Action::VariantAdded {
        product_id: addition.product,
        sku: sku.to_string(),
    };
    messages::record(&mut tx, addition.actor, [done], now).await?;
    changing::commit(tx, context).await
}

/// Takes a variant whose stock the ledger refused out again.
async fn take_back(
    addition: &Addition,
    context: &Context,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let mut tx = database::begin(&context.database).await?;
    let product = changing::lock(&mut tx, addition.product).await?;
    let sku = addition.variant.sku.as_str();
    if product.has(&addition.variant.sku) {
        let product = product.remove(sku, None)?;
        changing::save_variants(&mut tx, &product, now).await?;
        changing::save(&mut tx, &product, now).await?;
        store::take_back_addition(&mut tx, addition.request).await?;
        let done = Action::VariantRemoved {
            product_id: addition.product,
            sku: sku.to_owned(),
        };
        messages::record(&mut tx, addition.actor, [done], now).await?;
    }
    changing::commit(tx, context).await
}

/// The draft as it was written; none where the same request wrote it before.
async fn write_draft(
    id: Id<id::Product>,
    listing: &Listing,
    context: &Context,
    now: Timestamp,
) -> Result<Option<Product>, CatalogError> {
    let mut tx = database::begin(&context.database).await?;
    if let Some(fingerprint) = store::find_fingerprint(&mut tx, id).await? {
        return if fingerprint == listing.fingerprint {
            Ok(None)
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
    let taken = store::find_taken_skus(&mut tx, &skus, id).await?;
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
    let findable = search::findable(&mut tx, &product).await?;
    store::insert_product(&mut tx, &product, &findable, &listing.fingerprint).await?;
    messages::announce_updated(&mut tx, &product, now).await?;
    let done = Action::ProductCreated { product_id: id };
    messages::record(&mut tx, listing.actor, [done], now).await?;
    changing::commit(tx, context).await?;
    Ok(Some(product))
}

/// Makes a root of that slug unless there is a category of it.
pub(crate) async fn ensure_category(
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

/// Makes pools with their first capacity, once by the same request; tells how they stand.
async fn put_in_stock(
    request: RequestId,
    stock: &[(String, i64)],
    actor: Id<id::User>,
    peers: &Peers,
    context: &Context,
) -> Result<Vec<ledger::Pool>, Fault> {
    if stock.is_empty() {
        return Ok(Vec::new());
    }
    let changes = stock
        .iter()
        .map(|(pool, capacity)| ledger::CapacityChange {
            pool: pool.clone(),
            delta: *capacity,
            expected_capacity_version: 0,
        })
        .collect();
    let request = ledger::AdjustRequest {
        request_id: request.to_string(),
        actor: actor.to_string(),
        reason: "first stock".to_owned(),
        changes,
    };
    peers
        .inventory
        .clone()
        .adjust(context.identity.request(request))
        .await
        .map(|answer| answer.into_inner().pools)
        .map_err(|status| Fault::from_status(&status))
}
