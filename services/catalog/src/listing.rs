//! How products come to be for sale: written as drafts, given their first stock in the ledger, then published.
//!
//! The ledger and the catalog share no transaction. The drafts come first, so that a crash leaves products nobody
//! sees and never stock nobody can find; the same request again goes on where the first one stopped, for every step
//! meets itself: the drafts by their ids, the stock by the request id. A step takes all products of a request together,
//! so that a hundred of them cost hardly more statements than one.

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use holdfast_kernel::{Id, RequestId, Timestamp, id};
use holdfast_platform::{database, fault::Fault, service::Context};
use holdfast_proto::inventory::v1 as ledger;
use sqlx::PgConnection;

use crate::{
    Peers, changing,
    domain::{
        Draft, Product, Status, Variant,
        category::{Category, Tree},
    },
    error::CatalogError,
    messages::{self, Action},
    search, stock, store,
};

/// A wish to sell some things, all of them or none.
pub(crate) struct Listing {
    pub(crate) request: RequestId,
    pub(crate) fingerprint: Vec<u8>,
    /// No sku is in two of them.
    pub(crate) entries: Vec<Entry>,
    /// Who wishes it.
    pub(crate) actor: Id<id::User>,
}

/// One product of a listing.
pub(crate) struct Entry {
    /// Made of the request: the same one names the same product.
    pub(crate) id: Id<id::Product>,
    pub(crate) draft: Draft,
    /// First capacity of each pool that is to be made.
    pub(crate) stock: Vec<(String, i64)>,
    /// What the product shall be in the end.
    pub(crate) status: Status,
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

/// Carries the listing out and gives its products, in their order, as they then stand.
pub(crate) async fn list(
    listing: Listing,
    peers: &Peers,
    context: &Context,
    now: Timestamp,
) -> Result<Vec<Product>, CatalogError> {
    let ids: Vec<Id<id::Product>> = listing.entries.iter().map(|entry| entry.id).collect();
    let written = write_drafts(&listing, context, now).await?;
    let stock: Vec<(&str, i64)> = (listing.entries.iter())
        .flat_map(|entry| &entry.stock)
        .map(|(pool, units)| (pool.as_str(), *units))
        .collect();
    let stocked = put_in_stock(listing.request, &stock, listing.actor, peers, context).await;
    match stocked {
        Ok(pools) => stock::take_over(&listing.skus(), &pools, peers, context).await?,
        Err(refusal) => {
            if !refusal.is_transient() {
                let mut db = database::acquire(&context.database).await?;
                store::delete_drafts(&mut db, &ids).await?;
            }
            return Err(refusal.into());
        }
    }
    let to_publish = (listing.entries.iter()).filter(|entry| entry.status == Status::Published);
    let to_publish: Vec<Id<id::Product>> = to_publish.map(|entry| entry.id).collect();
    if !to_publish.is_empty() {
        let published = changing::publish(&to_publish, listing.actor, context, now).await?;
        if published.len() == ids.len() {
            return Ok(published);
        }
    } else if let Some(drafts) = written {
        return Ok(drafts);
    }
    // Some were made before, and may have changed since.
    let mut db = database::acquire(&context.database).await?;
    let uuids: Vec<_> = ids.iter().map(|id| id.uuid()).collect();
    let products = store::find_products(&mut db, &uuids).await?;
    if products.len() < ids.len() {
        let there: HashSet<_> = products.iter().map(|product| product.id.uuid()).collect();
        let gone = ids.into_iter().filter(|id| !there.contains(&id.uuid()));
        return Err(CatalogError::UnknownProducts(gone.collect()));
    }
    Ok(products)
}

impl Listing {
    fn skus(&self) -> Vec<&str> {
        let variants = self.entries.iter().flat_map(|entry| &entry.draft.variants);
        variants.map(|variant| variant.sku.as_str()).collect()
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
        .map(|units| (pool.as_str(), units))
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
    let taken = store::find_taken_skus(&mut tx, &[sku.as_str()], &[addition.product]).await?;
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

/// The drafts as they were written; none where the same request wrote them before.
async fn write_drafts(
    listing: &Listing,
    context: &Context,
    now: Timestamp,
) -> Result<Option<Vec<Product>>, CatalogError> {
    let ids: Vec<Id<id::Product>> = listing.entries.iter().map(|entry| entry.id).collect();
    let mut tx = database::begin(&context.database).await?;
    let made = store::find_fingerprints(&mut tx, &ids).await?;
    if !made.is_empty() {
        // One transaction wrote all of them.
        let is_same = made.iter().all(|known| *known == listing.fingerprint);
        return if is_same {
            Ok(None)
        } else {
            Err(CatalogError::KeyReused)
        };
    }
    let taken = store::find_taken_skus(&mut tx, &listing.skus(), &ids).await?;
    if !taken.is_empty() {
        return Err(CatalogError::SkuTaken(taken));
    }
    let named = (listing.entries.iter()).filter_map(|entry| entry.draft.category.as_deref());
    ensure_categories(&mut tx, named.collect(), now).await?;
    let slugs = free_slugs(&mut tx, &listing.entries).await?;
    // A microsecond apart, so that lists by time show them in the order in which they were sent.
    let moments = (now.as_microsecond()..).map(Timestamp::from_microsecond);
    let drafts: Vec<Product> = (listing.entries.iter().zip(slugs).zip(moments))
        .map(|((entry, slug), moment)| Product {
            id: entry.id,
            slug,
            draft: entry.draft.clone(),
            status: Status::Draft,
            created_at: moment.unwrap_or(now),
            version: 1,
        })
        .collect();
    let findable = search::findable(&mut tx, &drafts).await?;
    store::insert_products(&mut tx, &findable, &listing.fingerprint).await?;
    messages::announce_updated(&mut tx, &drafts, now).await?;
    let done = drafts.iter().map(|product| Action::ProductCreated {
        product_id: product.id,
    });
    messages::record(&mut tx, listing.actor, done, now).await?;
    changing::commit(tx, context).await?;
    Ok(Some(drafts))
}

/// A slug for each, which nobody else has or takes until the transaction ends.
async fn free_slugs(db: &mut PgConnection, entries: &[Entry]) -> Result<Vec<String>, CatalogError> {
    let wanted: Vec<String> = entries.iter().map(|entry| entry.draft.slug()).collect();
    let in_order: BTreeSet<&str> = wanted.iter().map(String::as_str).collect();
    let mut taken = store::lock_slugs(db, &in_order.into_iter().collect::<Vec<_>>()).await?;
    let slugs = (wanted.into_iter().zip(entries)).map(|(slug, entry)| {
        if taken.insert(slug.clone()) {
            return slug;
        }
        let text = entry.id.to_string();
        format!("{slug}-{}", &text[text.len() - SLUG_SUFFIX_CHARS..])
    });
    Ok(slugs.collect())
}

/// Makes a root of each of these slugs unless there is a category of it.
async fn ensure_categories(
    db: &mut PgConnection,
    slugs: BTreeSet<&str>,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let slugs: Vec<&str> = slugs.into_iter().collect();
    for slug in store::missing_categories(db, &slugs).await? {
        ensure_category(db, &slug, now).await?;
    }
    Ok(())
}

/// Makes a root of that slug unless there is a category of it.
pub(crate) async fn ensure_category(
    db: &mut PgConnection,
    slug: &str,
    now: Timestamp,
) -> Result<(), CatalogError> {
    if store::missing_categories(db, &[slug]).await?.is_empty() {
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

/// How long the ledger may take to make the pools of a hundred products.
const STOCK_DEADLINE: Duration = Duration::from_secs(5);
/// Letters of the id that tell products of the same name apart.
const SLUG_SUFFIX_CHARS: usize = 8;

/// Makes pools with their first capacity, once by the same request; tells how they stand.
async fn put_in_stock(
    request: RequestId,
    stock: &[(&str, i64)],
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
            pool: (*pool).to_owned(),
            delta: *capacity,
            expected_capacity_version: 0,
        })
        .collect();
    let mut request = context.identity.request(ledger::AdjustRequest {
        request_id: request.to_string(),
        actor: actor.to_string(),
        reason: "first stock".to_owned(),
        changes,
    });
    request.set_timeout(STOCK_DEADLINE);
    peers
        .inventory
        .clone()
        .adjust(request)
        .await
        .map(|answer| answer.into_inner().pools)
        .map_err(|status| Fault::from_status(&status))
}
