//! What this service tells others.

use holdfast_kernel::Timestamp;
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
