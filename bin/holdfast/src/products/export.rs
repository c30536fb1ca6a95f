//! Writes what is for sale as a product file, a page at a time.

use std::{
    collections::{BTreeMap, HashSet},
    io::{self, Write},
};

use holdfast_kernel::{Currency, Money};
use indicatif::ProgressBar;
use serde::Deserialize;
use serde_json::Value;

use super::{COLUMNS, cell};
use crate::client::{Client, ClientError};

/// The most that the public API gives at once.
const PAGE_ENTRIES: usize = 100;

/// What was written.
#[derive(Debug, Default)]
pub struct Exported {
    /// Products in the file.
    pub products: usize,
    /// Names that several of them have: read back, rows of one name are one product.
    pub shared_names: Vec<String>,
}

/// Why a product file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The server could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The server told something else than products.
    #[error("products: {0}")]
    Shape(#[from] serde_json::Error),
    /// The file could not be written.
    #[error("write: {0}")]
    Write(#[from] io::Error),
}

/// A product as the public API tells it.
#[derive(Deserialize)]
pub(super) struct Product {
    name: String,
    description: String,
    category: Option<String>,
    currency: Currency,
    images: Vec<String>,
    status: String,
    variants: Vec<Variant>,
}

#[derive(Deserialize)]
struct Variant {
    sku: String,
    name: String,
    options: BTreeMap<String, String>,
    price: Money,
    prices: Vec<Money>,
    available: i64,
}

/// Writes every product that is for sale, newest first. Ticks once a product.
///
/// Holds one page and the names in memory. What is available now is written as the stock; drafts are left out.
pub async fn export(
    admin: &Client,
    out: &mut impl Write,
    progress: &ProgressBar,
) -> Result<Exported, ExportError> {
    let mut file = csv::Writer::from_writer(out);
    file.write_record(COLUMNS).map_err(broken)?;
    let mut exported = Exported::default();
    let mut names = HashSet::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/products?sort=newest&facets=false&limit={PAGE_ENTRIES}{cursor}");
        let mut page = admin.get(&path).await?;
        let products: Vec<Product> = serde_json::from_value(page["data"].take())?;
        for product in products {
            if product.status != "published" {
                continue;
            }
            for row in rows(&product) {
                file.write_record(row).map_err(broken)?;
            }
            exported.products += 1;
            progress.inc(1);
            if !names.insert(product.name.clone()) {
                exported.shared_names.push(product.name);
            }
        }
        match &page["next_cursor"] {
            Value::String(next) => cursor = format!("&cursor={next}"),
            _ => break,
        }
    }
    file.flush()?;
    Ok(exported)
}

/// A row for each variant, in the order of the columns.
pub(super) fn rows(product: &Product) -> impl Iterator<Item = [String; COLUMNS.len()]> {
    product.variants.iter().map(|variant| {
        let options = variant.options.iter();
        let prices: Vec<(String, String)> = (variant.prices.iter())
            .map(|price| (price.currency.to_string(), major(*price)))
            .collect();
        let row = [
            variant.sku.clone(),
            product.name.clone(),
            variant.name.clone(),
            product.description.clone(),
            product.category.clone().unwrap_or_default(),
            cell::joined(options.map(|(name, value)| (name.as_str(), value.as_str()))),
            major(variant.price),
            product.currency.to_string(),
            variant.available.max(0).to_string(),
            // URLs have no spaces in them.
            product.images.join(" "),
            cell::joined(
                prices
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str())),
            ),
        ];
        row.map(cell::guarded)
    })
}

/// The amount in major units, without its currency.
fn major(price: Money) -> String {
    let text = price.to_string();
    let amount = text.split(' ').next().unwrap_or_default();
    amount.to_owned()
}

fn broken(error: csv::Error) -> io::Error {
    io::Error::other(error)
}
