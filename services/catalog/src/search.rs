//! How products are found: by words, misspelt ones too, by filters, in an order, with counts of what they have.
//!
//! All words have to be in a product, each as it was written or as the beginning of one. Only when nothing has them all,
//! words that no product knows are taken for misspelt: the nearest known words stand in for them. What has the words in
//! its name comes before what has them in a sku or an option, then in a category, then in the description.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    slice,
    time::Duration,
};

use holdfast_kernel::{Timestamp, page::InvalidPage, time};
use holdfast_platform::{database, service::Context};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    domain::{
        Product,
        words::{Document, Query, Weight, folded_name},
    },
    error::CatalogError,
    messages,
    store::{self, Counted, Filter, Findable, Hit, Shelf, Terms},
};

/// Products of a result that are counted, the newest.
pub(crate) const COUNTED_MAX_PRODUCTS: usize = 10_000;
/// Prices between which products are counted, in minor units.
pub(crate) const PRICE_STEPS: [i64; 16] = [
    0,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    100_000_000,
];
/// Known words that are looked at to tell what a misspelt one meant.
const NEAR_MAX_WORDS: i64 = 64;
/// How often products are looked for that are not found by what they are now.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What is looked for, and which slice of it.
pub(crate) struct Wish {
    pub(crate) query: Option<Query>,
    pub(crate) sort: Sort,
    pub(crate) filter: Filter,
    /// Whether what the result has is counted, on its first slice.
    pub(crate) facets: bool,
    pub(crate) place: Option<Place>,
    pub(crate) size: usize,
}

/// In which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    /// Best first; without words newest first.
    Relevance,
    Newest,
    /// Cheapest first.
    Price,
    /// Dearest first.
    PriceDown,
    Name,
    /// Best rated first.
    Rating,
}

/// Where a slice ends: the order, and the last product's place in it.
pub(crate) type Place = (String, i64, String, Uuid);

/// A slice of what was found.
pub(crate) struct Found {
    pub(crate) products: Vec<Product>,
    pub(crate) next: Option<Place>,
    pub(crate) facets: Option<Facets>,
}

/// What the products found have, and how many have it.
pub(crate) struct Facets {
    pub(crate) counts: Vec<Counted>,
    /// Products looked at.
    pub(crate) counted: usize,
    /// Whether those are all.
    pub(crate) complete: bool,
}

impl Sort {
    pub(crate) const ALL: [Self; 6] = [
        Self::Relevance,
        Self::Newest,
        Self::Price,
        Self::PriceDown,
        Self::Name,
        Self::Rating,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Relevance => "relevance",
            Self::Newest => "newest",
            Self::Price => "price",
            Self::PriceDown => "-price",
            Self::Name => "name",
            Self::Rating => "rating",
        }
    }
}

/// Finds products.
pub(crate) async fn find(db: &mut PgConnection, wish: &Wish) -> Result<Found, CatalogError> {
    // One more tells whether there are more.
    let limit = wish.size + 1;
    let (meant, mut hits) = match &wish.query {
        Some(query) => {
            let (meant, hits) = find_by_words(db, query, wish, limit).await?;
            (Some(meant), hits)
        }
        None => (None, browse(db, wish, limit).await?),
    };
    let facets = if wish.facets && wish.place.is_none() {
        Some(count(db, meant.as_ref(), wish).await?)
    } else {
        None
    };
    let more = hits.len() > wish.size;
    hits.truncate(wish.size);
    let next = hits.last().filter(|_| more).map(|last| {
        let sort = wish.order().as_str().to_owned();
        (sort, last.rank, last.name.clone(), last.id)
    });
    let ids: Vec<Uuid> = hits.iter().map(|hit| hit.id).collect();
    Ok(Found {
        products: store::find_products(db, &ids).await?,
        next,
        facets,
    })
}

/// Products with what they are found by, as they are now.
pub(crate) async fn findable<'a>(
    db: &mut PgConnection,
    products: &'a [Product],
) -> Result<Vec<Findable<'a>>, CatalogError> {
    let categories: BTreeSet<&str> = (products.iter())
        .filter_map(|product| product.draft.category.as_deref())
        .collect();
    let names_of = if categories.is_empty() {
        HashMap::new()
    } else {
        store::category_names(db, &categories.into_iter().collect::<Vec<_>>()).await?
    };
    let findable = products.iter().map(|product| {
        let category = product.draft.category.as_ref();
        let told = category.and_then(|category| names_of.get(category));
        found_by(product, told.map(Vec::as_slice).unwrap_or_default())
    });
    Ok(findable.collect())
}

/// `categories` are the names of those it is in, from its own to the root.
fn found_by<'a>(product: &'a Product, categories: &[String]) -> Findable<'a> {
    let draft = &product.draft;
    let mut document = Document::default();
    document.add(&draft.name, Weight::Name);
    for variant in &draft.variants {
        document.add(variant.sku.as_str(), Weight::SkuOrOption);
        if variant.name != draft.name {
            document.add(&variant.name, Weight::SkuOrOption);
        }
    }
    let options = draft.options();
    for (_, value) in &options {
        document.add(value, Weight::SkuOrOption);
    }
    for category in categories {
        document.add(category, Weight::Category);
    }
    document.add(&draft.description, Weight::Description);
    Findable {
        product,
        vector: document.to_vector(),
        sort_name: folded_name(&draft.name),
        words: document
            .whole_words()
            .into_iter()
            .map(ToOwned::to_owned)
            .collect(),
        options,
        lows: draft.lowest_prices(),
    }
}

/// Keeps products found by what they are, where those who changed them did not: after an update of the program that
/// finds by other things, and when a category has another name. Until shutdown.
pub(crate) async fn keep_findable(context: Context) {
    loop {
        match refind_one(&context).await {
            Ok(true) if !context.shutdown.is_cancelled() => continue,
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "products could not be made findable"),
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = context.shutdown.cancelled() => return,
        }
    }
}

/// Whether there was one. One a transaction: words are locked in order within each.
async fn refind_one(context: &Context) -> Result<bool, CatalogError> {
    let mut tx = database::begin(&context.database).await?;
    let Some(id) = store::lock_unfindable(&mut tx).await? else {
        return Ok(false);
    };
    if let Some(product) = store::find_product(&mut tx, id).await? {
        let findable = findable(&mut tx, slice::from_ref(&product)).await?;
        store::save_products(&mut tx, &findable).await?;
        let now = time::to_micros(context.clock.now());
        messages::announce_listing(&mut tx, Some(id), now).await?;
    }
    database::commit(tx).await?;
    Ok(true)
}

/// What has the words, or else what has those that were meant; and which those are.
async fn find_by_words(
    db: &mut PgConnection,
    query: &Query,
    wish: &Wish,
    limit: usize,
) -> Result<(Query, Vec<Hit>), CatalogError> {
    let hits = search(db, query, wish, limit).await?;
    if !hits.is_empty() {
        return Ok((query.clone(), hits));
    }
    let unknown = store::unknown_words(db, &query.doubtful()).await?;
    let mut near = BTreeMap::new();
    for word in unknown {
        let words = store::words_near(db, &word, NEAR_MAX_WORDS).await?;
        near.insert(word, words);
    }
    let meant = query.clone().meaning(&near);
    let hits = if meant == *query {
        hits
    } else {
        search(db, &meant, wish, limit).await?
    };
    Ok((meant, hits))
}

async fn count(
    db: &mut PgConnection,
    query: Option<&Query>,
    wish: &Wish,
) -> Result<Facets, CatalogError> {
    let all = query.map(Query::to_match);
    let most = COUNTED_MAX_PRODUCTS;
    let (counts, found) =
        store::count_facets(db, all.as_deref(), &wish.filter, &PRICE_STEPS, most).await?;
    Ok(Facets {
        counts,
        counted: found.min(most),
        complete: found <= most,
    })
}

async fn search(
    db: &mut PgConnection,
    query: &Query,
    wish: &Wish,
    limit: usize,
) -> Result<Vec<Hit>, CatalogError> {
    let terms = Terms {
        all: query.to_match(),
        exact: query.to_exact(),
        name: query.text.clone(),
    };
    let (sort, place) = (wish.order().as_str(), wish.behind()?);
    store::search_products(db, &terms, sort, &wish.filter, place.as_ref(), limit as i64).await
}

async fn browse(
    db: &mut PgConnection,
    wish: &Wish,
    limit: usize,
) -> Result<Vec<Hit>, CatalogError> {
    let (filter, place, limit) = (&wish.filter, wish.behind()?, limit as i64);
    let shelf = match wish.order() {
        // Without words nothing is more relevant than the newest.
        Sort::Relevance | Sort::Newest => None,
        Sort::Price => Some(Shelf::Cheapest),
        Sort::PriceDown => Some(Shelf::Dearest),
        Sort::Name => Some(Shelf::ByName),
        Sort::Rating => Some(Shelf::BestRated),
    };
    if let Some(shelf) = shelf {
        return store::browse_products(db, shelf, filter, place.as_ref(), limit).await;
    }
    let place = match place {
        Some(hit) => {
            let at = Timestamp::from_microsecond(hit.rank.saturating_neg());
            Some((at.map_err(|_| InvalidPage::Token)?, hit.id))
        }
        None => None,
    };
    store::newest_products(db, filter, place, limit).await
}

impl Wish {
    fn order(&self) -> Sort {
        match self.sort {
            Sort::Relevance if self.query.is_none() => Sort::Newest,
            sort => sort,
        }
    }

    /// The place behind which the slice begins; one in another order is none here.
    fn behind(&self) -> Result<Option<Hit>, CatalogError> {
        let Some((sort, rank, name, id)) = self.place.clone() else {
            return Ok(None);
        };
        if sort != self.order().as_str() {
            return Err(InvalidPage::Token.into());
        }
        Ok(Some(Hit { rank, name, id }))
    }
}
