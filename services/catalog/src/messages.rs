//! What this service tells others.

use holdfast_kernel::{Id, Timestamp, id};
use holdfast_platform::{
    message::Topic,
    outbox::{self, Announcement},
};
use serde::Serialize;
use sqlx::PgConnection;

use crate::{domain::Product, error::CatalogError};

const TOPIC: Topic = Topic::ordinary("holdfast.products");

#[derive(Serialize)]
struct ProductUpdated<'a> {
    product_id: &'a str,
    status: &'a str,
}

#[derive(Serialize)]
struct ProductDeleted<'a> {
    product_id: &'a str,
}

/// Announces that a product is new or has changed.
pub(crate) async fn announce_updated(
    db: &mut PgConnection,
    product: &Product,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let product_id = product.id.to_string();
    let data = ProductUpdated {
        product_id: &product_id,
        status: product.status.as_str(),
    };
    let message = Announcement::new(
        TOPIC,
        "product.updated",
        &product_id,
        product.version,
        now,
        &data,
    );
    Ok(outbox::announce(db, message).await?)
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
