//! What buyers are shown, kept in memory: lists and products, without how many there are of them.
//!
//! What is available changes with every sale, so it is read for each answer from where the ledger's word is kept, by one
//! statement. Staff read past all this, and so does everything that writes.

use std::{sync::Arc, time::Duration};

use holdfast_kernel::{Clock, Id, id};
use holdfast_platform::{
    cache::{Cache, Limits},
    database,
    hearing::{Hearing, Listener},
    message::Message,
};
use holdfast_proto::catalog::v1 as pb;
use prost::Message as _;
use sqlx::PgPool;

use crate::{
    domain::{Product, Status},
    error::CatalogError,
    messages::HEARD,
    store,
};

const LIST_TTL_SECS: u64 = 5 * 60;
const PRODUCT_TTL_SECS: u64 = 30 * 60;
const ABSENT_TTL_SECS: u64 = 10;
const LISTS_MAX_BYTES: u64 = 32 << 20;
const PRODUCTS_MAX_BYTES: u64 = 32 << 20;
const SLUGS_MAX_BYTES: u64 = 4 << 20;
const ABSENT_MAX_ENTRIES: u64 = 10_000;
/// Of a variant besides its texts, about.
const VARIANT_BYTES: usize = 256;

/// What is kept in memory. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shown {
    /// By all that was asked for, each product without what is available.
    pub(crate) lists: Cache<Arc<pb::ListProductsResponse>>,
    /// By id, drafts too; who may see those is asked on every read.
    products: Cache<Arc<Detail>>,
    /// Of products on sale, by slug.
    slugs: Cache<Id<id::Product>>,
}

/// A product with how many of its reviews give 1 to 5 stars; none where it has no reviews.
pub(crate) struct Detail {
    pub(crate) product: Product,
    pub(crate) histogram: Vec<i64>,
}

impl Shown {
    pub(crate) fn new(clock: &Arc<dyn Clock>) -> Self {
        let limits = |ttl_secs, weight_max_bytes| Limits {
            ttl: Duration::from_secs(ttl_secs),
            absent_ttl: Duration::from_secs(ABSENT_TTL_SECS),
            weight_max_bytes,
            absent_max_entries: ABSENT_MAX_ENTRIES,
        };
        Self {
            lists: Cache::new(
                "catalog.lists",
                limits(LIST_TTL_SECS, LISTS_MAX_BYTES),
                clock.clone(),
                |list| list.encoded_len(),
            ),
            products: Cache::new(
                "catalog.products",
                limits(PRODUCT_TTL_SECS, PRODUCTS_MAX_BYTES),
                clock.clone(),
                |detail| weight(&detail.product),
            ),
            slugs: Cache::new(
                "catalog.slugs",
                limits(PRODUCT_TTL_SECS, SLUGS_MAX_BYTES),
                clock.clone(),
                |_| size_of::<Id<id::Product>>(),
            ),
        }
    }

    /// Every process of this service hears which products changed, and how lists did.
    pub(crate) fn hearing(&self) -> Hearing {
        Hearing::new("catalog", HEARD, Arc::new(self.clone()))
    }

    /// The product of this id or, if it is on sale, of this slug.
    pub(crate) async fn product(
        &self,
        name: &str,
        database: &PgPool,
    ) -> Result<Option<Arc<Detail>>, CatalogError> {
        let id = match name.parse::<Id<id::Product>>() {
            Ok(id) => Some(id),
            Err(_) => self.id_of(name, database).await?,
        };
        let Some(id) = id else {
            return Ok(None);
        };
        let found = self.products.get_or_fill(id.to_string(), || {
            let database = database.clone();
            async move { Ok(read_product(id, &database).await?) }
        });
        Ok(found.await?)
    }

    /// Forgets, when the guard goes, what a write to these products may have changed: whatever came of it, and before
    /// anybody is answered. A write to the tree of categories names none, and changes only lists.
    pub(crate) fn forgetting<'a>(
        &self,
        products: impl IntoIterator<Item = &'a str>,
    ) -> Forgetting<'_> {
        // What is no id names no product, as the write will find out.
        let ids = (products.into_iter()).filter_map(|product| product.parse().ok());
        Forgetting {
            shown: self,
            products: ids.collect(),
        }
    }

    async fn id_of(
        &self,
        slug: &str,
        database: &PgPool,
    ) -> Result<Option<Id<id::Product>>, CatalogError> {
        let found = self.slugs.get_or_fill(slug, || {
            let (slug, database) = (slug.to_owned(), database.clone());
            async move { Ok(read_slug(&slug, &database).await?) }
        });
        Ok(found.await?)
    }

    /// A product may have come to its slug, or gone from it, and into lists or out of them.
    fn forget(&self, product: &str) {
        self.products.forget(product);
        self.slugs.forget_all();
        self.lists.forget_all();
    }
}

impl Listener for Shown {
    fn heard(&self, message: &Message) {
        self.forget(&message.key);
    }

    fn set_hearing(&self, hears: bool) {
        self.lists.set_hearing(hears);
        self.products.set_hearing(hears);
        self.slugs.set_hearing(hears);
    }
}

/// Forgets when it is dropped.
#[must_use]
pub(crate) struct Forgetting<'a> {
    shown: &'a Shown,
    products: Vec<Id<id::Product>>,
}

impl Drop for Forgetting<'_> {
    fn drop(&mut self) {
        for product in &self.products {
            self.shown.forget(&product.to_string());
        }
        self.shown.lists.forget_all();
    }
}

async fn read_product(
    id: Id<id::Product>,
    database: &PgPool,
) -> Result<Option<Arc<Detail>>, CatalogError> {
    let mut db = database::acquire(database).await?;
    let Some(product) = store::find_product(&mut db, id).await? else {
        return Ok(None);
    };
    let mut histograms = store::histograms(&mut db, &[id.uuid()]).await?;
    let histogram = histograms.remove(&id.uuid()).unwrap_or_default();
    Ok(Some(Arc::new(Detail { product, histogram })))
}

/// Drafts are left out: the slug of one that comes to nothing is free again.
async fn read_slug(slug: &str, database: &PgPool) -> Result<Option<Id<id::Product>>, CatalogError> {
    let mut db = database::acquire(database).await?;
    let found = store::find_product_by_slug(&mut db, slug).await?;
    Ok(found
        .filter(|product| product.status == Status::Published)
        .map(|product| product.id))
}

fn weight(product: &Product) -> usize {
    let draft = &product.draft;
    let texts = draft.name.len() + draft.description.len() + product.slug.len();
    let images: usize = draft.images.iter().map(String::len).sum();
    texts + images + draft.variants.len() * VARIANT_BYTES
}
