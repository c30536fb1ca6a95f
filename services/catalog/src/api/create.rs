//! Reading wishes to sell something new.

use std::collections::HashMap;

use holdfast_kernel::{Id, RequestId, Sku, id};
use holdfast_proto::catalog::v1 as pb;

use super::{check_batch, parse_money, parse_prices, refused};
use crate::{
    domain::{self, Draft, Variant},
    error::{CatalogError, Field},
    listing::{Addition, Entry, Listing},
};

/// Variants of all products of one batch: pools that the ledger makes at once.
const BATCH_MAX_VARIANTS: usize = 1_000;
const STOCK_MAX_UNITS: i64 = 1_000_000_000;

pub(super) fn parse_listing(
    request: pb::CreateProductRequest,
    actor: Id<id::User>,
) -> Result<Listing, CatalogError> {
    let id = parse_request_id(&request.request_id)?;
    let product = pb::NewProduct {
        name: request.name,
        description: request.description,
        kind: request.kind,
        category: request.category,
        currency: request.currency,
        images: request.images,
        variants: request.variants,
        status: request.status,
    };
    Ok(Listing {
        request: id,
        fingerprint: request.fingerprint.to_vec(),
        entries: vec![parse_entry(id.makes(), product)?],
        actor,
    })
}

/// What is refused is named by the place of its product.
pub(super) fn parse_batch(
    request: pb::CreateProductsRequest,
    actor: Id<id::User>,
) -> Result<Listing, CatalogError> {
    let id = parse_request_id(&request.request_id)?;
    check_batch(request.products.len())?;
    let mut entries = Vec::with_capacity(request.products.len());
    let mut product_of: HashMap<Sku, usize> = HashMap::new();
    for (at, product) in request.products.into_iter().enumerate() {
        let place = format!("products[{at}].");
        let made = RequestId::derive(&[&id.to_string(), &at.to_string()]).makes();
        let entry = parse_entry(made, product).map_err(|error| placed(&place, error))?;
        for (of, variant) in entry.draft.variants.iter().enumerate() {
            if let Some(first) = product_of.insert(variant.sku.clone(), at) {
                return Err(refused(
                    format!("{place}variants[{of}].sku"),
                    format!("{} stands in products[{first}] already", variant.sku),
                ));
            }
        }
        entries.push(entry);
    }
    let variants = product_of.len();
    if variants > BATCH_MAX_VARIANTS {
        let text = format!("{variants} variants together, wanted at most {BATCH_MAX_VARIANTS}");
        return Err(refused("products", text));
    }
    Ok(Listing {
        request: id,
        fingerprint: request.fingerprint.to_vec(),
        entries,
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

fn parse_entry(id: Id<id::Product>, product: pb::NewProduct) -> Result<Entry, CatalogError> {
    if !matches!(product.kind.as_str(), "" | "good") {
        return Err(refused(
            "kind",
            format!("{:?} is not sold yet; good is", product.kind),
        ));
    }
    let currency = product
        .currency
        .parse()
        .map_err(|error| refused("currency", format!("{error}")))?;
    let mut variants = Vec::with_capacity(product.variants.len());
    let mut stock = Vec::new();
    for (at, variant) in product.variants.into_iter().enumerate() {
        let (variant, units) = parse_variant(&format!("variants[{at}]."), variant)?;
        if let Some(units) = units {
            stock.push((variant.sku.pool().to_string(), units));
        }
        variants.push(variant);
    }
    let draft = Draft {
        name: product.name,
        description: product.description,
        category: Some(product.category).filter(|slug| !slug.is_empty()),
        currency,
        images: product.images,
        variants,
    };
    draft.check()?;
    Ok(Entry {
        id,
        draft,
        stock,
        status: match product.status.as_str() {
            "" => domain::Status::Published,
            word => domain::Status::parse(word)?,
        },
    })
}

/// A refusal of something that stands at `place`.
fn placed(place: &str, error: CatalogError) -> CatalogError {
    match error {
        CatalogError::Refused(Field { name, text }) => refused(format!("{place}{name}"), text),
        error => error,
    }
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
