//! Reading wishes to sell something new.

use holdfast_kernel::{Id, RequestId, Sku, id};
use holdfast_proto::catalog::v1 as pb;

use super::{parse_money, parse_prices, refused};
use crate::{
    domain::{self, Draft, Variant},
    error::CatalogError,
    listing::{Addition, Listing},
};

const STOCK_MAX_UNITS: i64 = 1_000_000_000;

pub(super) fn parse_listing(
    request: pb::CreateProductRequest,
    actor: Id<id::User>,
) -> Result<Listing, CatalogError> {
    let id = parse_request_id(&request.request_id)?;
    if !matches!(request.kind.as_str(), "" | "good") {
        return Err(refused(
            "kind",
            format!("{:?} is not sold yet; good is", request.kind),
        ));
    }
    let currency = request
        .currency
        .parse()
        .map_err(|error| refused("currency", format!("{error}")))?;
    let mut variants = Vec::with_capacity(request.variants.len());
    let mut stock = Vec::new();
    for (at, variant) in request.variants.into_iter().enumerate() {
        let (variant, units) = parse_variant(&format!("variants[{at}]."), variant)?;
        if let Some(units) = units {
            stock.push((variant.sku.pool().to_string(), units));
        }
        variants.push(variant);
    }
    let draft = Draft {
        name: request.name,
        description: request.description,
        category: Some(request.category).filter(|slug| !slug.is_empty()),
        currency,
        images: request.images,
        variants,
    };
    draft.check()?;
    Ok(Listing {
        request: id,
        fingerprint: request.fingerprint.to_vec(),
        draft,
        stock,
        status: match request.status.as_str() {
            "" => domain::Status::Published,
            word => domain::Status::parse(word)?,
        },
        actor,
    })
}

pub(super) fn parse_addition(
    request: pb::AddVariantRequest,
    actor: Id<id::User>,
) -> Result<Addition, CatalogError> {
    let given = request
        .variant
        .ok_or_else(|| refused("variant", "missing"))?;
    let (variant, stock) = parse_variant("", given)?;
    Ok(Addition {
        request: parse_request_id(&request.request_id)?,
        fingerprint: request.fingerprint.to_vec(),
        product: request
            .product_id
            .parse()
            .map_err(|_| CatalogError::UnknownProduct)?,
        variant,
        stock,
        actor,
    })
}

/// A variant and its first stock; `place` stands before the names of its fields.
fn parse_variant(
    place: &str,
    variant: pb::NewVariant,
) -> Result<(Variant, Option<i64>), CatalogError> {
    let sku: Sku = variant
        .sku
        .parse()
        .map_err(|error| refused(format!("{place}sku"), format!("{error}")))?;
    if let Some(units) = variant.stock
        && !(0..=STOCK_MAX_UNITS).contains(&units)
    {
        return Err(refused(
            format!("{place}stock"),
            format!("{units} is not within 0 to {STOCK_MAX_UNITS}"),
        ));
    }
    let parsed = Variant {
        sku,
        name: variant.name,
        options: variant.options.into_iter().collect(),
        price: parse_money(&format!("{place}price"), variant.price)?,
        other_prices: parse_prices(&format!("{place}prices"), variant.other_prices)?,
    };
    Ok((parsed, variant.stock))
}

fn parse_request_id(text: &str) -> Result<RequestId, CatalogError> {
    text.parse()
        .map_err(|_| refused("request_id", "not a UUID"))
}
