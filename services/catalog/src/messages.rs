//! What this service tells others, and what it listens to.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use holdfast_kernel::{Clock, Id, Timestamp, id, time};
use holdfast_platform::{
    audit_log::Line,
    consumer::{Consumer, Handler, Handling, Interest},
    message::{Message, Topic},
    outbox::{self, Announcement, Wake},
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use crate::{
    domain::{Product, Stars},
    error::CatalogError,
    stock,
    store::{self, Level},
};

const TOPIC: Topic = Topic::ordinary("holdfast.products");
/// What lists show without a product having changed. A topic of its own, for of it only the last word counts.
const LISTINGS: Topic = Topic::state("holdfast.listings");
/// What makes wrong what is kept in memory.
pub(crate) const HEARD: &[Topic] = &[TOPIC, LISTINGS];
/// The key under which all is told that concerns no single product.
const EVERY_LIST: &str = "lists";
/// Declared as inventory declares it.
const STOCK: Topic = Topic::state("holdfast.stock");
/// How long news of stock is gathered while more keeps coming: so old may be what is shown of a pool that sells.
const STOCK_PACE: Duration = Duration::from_millis(250);
/// Declared as reviews declares it.
const REVIEWS: Topic = Topic::ordinary("holdfast.reviews");

#[derive(Serialize)]
struct ProductUpdated<'a> {
    product_id: &'a str,
    status: &'a str,
    /// Of its variants, for those who know things by their skus.
    skus: Vec<&'a str>,
}

#[derive(Serialize)]
struct ProductDeleted<'a> {
    product_id: &'a str,
}

/// Announces that products are new or have changed.
pub(crate) async fn announce_updated(
    db: &mut PgConnection,
    products: &[Product],
    now: Timestamp,
) -> Result<(), CatalogError> {
    let news = products.iter().map(|product| updated(product, now));
    Ok(outbox::announce_all(db, news.collect()).await?)
}

fn updated(product: &Product, now: Timestamp) -> Announcement {
    let product_id = product.id.to_string();
    let data = ProductUpdated {
        product_id: &product_id,
        status: product.status.as_str(),
        skus: (product.draft.variants.iter())
            .map(|variant| variant.sku.as_str())
            .collect(),
    };
    Announcement::new(
        TOPIC,
        "product.updated",
        &product_id,
        product.version,
        now,
        &data,
    )
}

/// Announces that a product is gone for good, by a last version of its own.
pub(crate) async fn announce_deleted(
    db: &mut PgConnection,
    product: Id<id::Product>,
    version: i64,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let product_id = product.to_string();
    let data = ProductDeleted {
        product_id: &product_id,
    };
    let message = Announcement::new(TOPIC, "product.deleted", &product_id, version, now, &data);
    Ok(outbox::announce(db, message).await?)
}

/// What admins do to the catalog, as the audit log has it. Names and prices stand in the products.
#[derive(Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub(crate) enum Action {
    ProductCreated {
        product_id: Id<id::Product>,
    },
    /// Also: put on sale, or taken off.
    ProductChanged {
        product_id: Id<id::Product>,
        status: &'static str,
    },
    ProductDeleted {
        product_id: Id<id::Product>,
    },
    VariantAdded {
        product_id: Id<id::Product>,
        sku: String,
    },
    VariantChanged {
        product_id: Id<id::Product>,
        sku: String,
    },
    VariantRemoved {
        product_id: Id<id::Product>,
        sku: String,
    },
    CategoryCreated {
        category: String,
    },
    CategoryChanged {
        category: String,
    },
    CategoryDeleted {
        category: String,
    },
}

/// Writes lines for the audit log: what `by` did, of which nothing is anybody's.
pub(crate) async fn record(
    db: &mut PgConnection,
    by: Id<id::User>,
    actions: impl IntoIterator<Item = Action>,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let line = |action| Line {
        service: "catalog",
        actor: Some(by),
        subject: None,
        action,
    };
    let lines = actions.into_iter().map(line);
    let lines = lines.map(|line| line.recorded(now)).collect();
    Ok(outbox::announce_all(db, lines).await?)
}

#[derive(Serialize)]
struct ListingChanged {}

/// Tells the processes of this service that a product is shown otherwise than before, or with none all lists, though no
/// product has changed.
pub(crate) async fn announce_listing(
    db: &mut PgConnection,
    product: Option<Id<id::Product>>,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let key = product.map_or_else(|| EVERY_LIST.to_owned(), |product| product.to_string());
    // Rises, and is a version: those begin at one.
    let version = now.as_microsecond().max(1);
    let news = Announcement::new(
        LISTINGS,
        "listing.changed",
        &key,
        version,
        now,
        &ListingChanged {},
    );
    outbox::announce(db, news).await
}

#[derive(Deserialize)]
struct StockUpdated {
    available: i64,
}

/// Listens to how the ledger's pools stand.
pub(crate) fn stock_listener() -> Consumer {
    const INTERESTS: &[Interest] = &[Interest {
        topic: STOCK,
        kinds: &["stock.updated"],
    }];
    Consumer::new("catalog.stock", INTERESTS, StockListener)
        .at_once()
        .paced(STOCK_PACE)
}

struct StockListener;

#[tonic::async_trait]
impl Handler for StockListener {
    async fn handle(&self, db: &mut PgConnection, message: &Message) -> Result<(), Handling> {
        self.handle_all(db, std::slice::from_ref(message)).await
    }

    /// Of each sku the last word counts. Also what no product has is kept: the product may come later.
    async fn handle_all(
        &self,
        db: &mut PgConnection,
        messages: &[Message],
    ) -> Result<(), Handling> {
        let mut newest: BTreeMap<&str, Level> = BTreeMap::new();
        for message in messages {
            let Some(sku) = stock::sku_of(&message.key) else {
                continue;
            };
            let level = Level {
                sku: sku.to_owned(),
                available: message.decode::<StockUpdated>()?.available,
                version: message.version,
            };
            newest.insert(sku, level);
        }
        let levels: Vec<Level> = newest.into_values().collect();
        Ok(store::note_stock(db, &levels).await?)
    }
}

#[derive(Deserialize)]
struct ReviewChanged {
    /// How many published reviews of the product give 1, 2, 3, 4 and 5.
    histogram: [i64; 5],
}

/// Listens to what the reviews of products come to.
pub(crate) fn review_listener(clock: Arc<dyn Clock>, wake: Wake) -> Consumer {
    const INTERESTS: &[Interest] = &[Interest {
        topic: REVIEWS,
        kinds: &["review.published", "review.removed"],
    }];
    Consumer::new("catalog.reviews", INTERESTS, ReviewListener { clock }).waking(wake)
}

struct ReviewListener {
    clock: Arc<dyn Clock>,
}

#[tonic::async_trait]
impl Handler for ReviewListener {
    /// Each message tells the whole of it, so the last word counts. A product that is gone needs none.
    async fn handle(&self, db: &mut PgConnection, message: &Message) -> Result<(), Handling> {
        let product: Id<id::Product> = message.key.parse().map_err(Handling::permanent)?;
        let ReviewChanged { histogram } = message.decode()?;
        let stars = Stars { histogram };
        if store::note_rating(db, product, &stars, message.version).await? {
            let now = time::to_micros(self.clock.now());
            announce_listing(db, Some(product), now).await?;
        }
        Ok(())
    }
}
