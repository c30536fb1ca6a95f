//! A product file: `sku,product,name,description,category,options,price,currency,stock,image,prices`, one variant a row.
//!
//! Prices are in major units; `image` may be several URLs, `prices` those in other currencies (`EUR=9.90;USD=10.50`) and
//! may be missing as a column. How cells are written is told in `cell`.
//!
//! The whole file is checked before anything is written, and every row that cannot be taken is named. Rows of the same
//! `product` are its variants. Then all products are written as drafts with their stock, a batch at a time, and published
//! at the end. A batch is written under a key made of the file's content and the batch's rows: killed halfway, the same
//! command completes it and repeats nothing.

mod cell;
mod export;

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use futures::{StreamExt, TryStreamExt, stream};
use holdfast_kernel::{Currency, Money, RequestId, Sku};
use indicatif::ProgressBar;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::client::{Client, ClientError};

pub use self::export::{ExportError, Exported, export};

/// Most faults of a file that are told at once.
const FAULTS_MAX_SHOWN: usize = 20;
/// Batches that are on their way to the server at once.
const IMPORT_MAX_IN_FLIGHT: usize = 2;
/// How much the server is sent at once, less than it takes; one product is sent however big it is. These are part of
/// what a batch is known by: with others, a file that was half imported before is another one.
const BATCH_MAX_PRODUCTS: usize = 100;
const BATCH_MAX_VARIANTS: usize = 1_000;
const BATCH_MAX_BYTES: usize = 512 * 1024;
const COLUMNS: [&str; 11] = [
    "sku",
    "product",
    "name",
    "description",
    "category",
    "options",
    "price",
    "currency",
    "stock",
    "image",
    OTHER_PRICES,
];
/// The column that files need not have.
const OTHER_PRICES: &str = "prices";

/// A product file that was read and found good.
#[derive(Debug)]
pub struct ProductFile {
    /// SHA-256 of the content, hexadecimal: what the requests' keys are made of.
    digest: String,
    products: Vec<Product>,
}

#[derive(Debug)]
struct Product {
    row: usize,
    name: String,
    description: String,
    category: String,
    currency: Currency,
    images: Vec<String>,
    /// Of all its variants.
    option_names: Vec<String>,
    variants: Vec<Value>,
}

/// Everything that is wrong with a product file.
#[derive(Debug, thiserror::Error)]
pub struct FileFaults(Vec<RowFault>);

/// What is wrong with one row; rows count from 2, for the first one holds the names.
#[derive(Debug)]
pub struct RowFault {
    row: usize,
    text: String,
}

/// Why an import stopped. What was written before is completed by the same command.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Products could not be written.
    #[error("{place}: {source}")]
    Batch {
        /// Where in the file, such as `rows 2 to 101`.
        place: String,
        /// What the server said.
        source: ClientError,
    },
    /// The server made something else than what it was asked for.
    #[error("{place}: the server made {made} products of {wanted}")]
    Shape {
        /// Where in the file.
        place: String,
        /// Products it told of.
        made: usize,
        /// Products it was sent.
        wanted: usize,
    },
}

#[derive(Deserialize)]
struct Row {
    sku: String,
    product: String,
    name: String,
    description: String,
    category: String,
    options: String,
    price: String,
    currency: String,
    stock: String,
    image: String,
    #[serde(default)]
    prices: String,
}

impl fmt::Display for FileFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rows cannot be taken, nothing was written",
            self.0.len()
        )?;
        for fault in self.0.iter().take(FAULTS_MAX_SHOWN) {
            write!(f, "\n  row {}: {}", fault.row, fault.text)?;
        }
        if self.0.len() > FAULTS_MAX_SHOWN {
            write!(f, "\n  and {} more", self.0.len() - FAULTS_MAX_SHOWN)?;
        }
        Ok(())
    }
}

impl ProductFile {
    /// Reads and checks a whole file.
    pub fn read(content: &[u8]) -> Result<Self, FileFaults> {
        let mut faults = Vec::new();
        let mut products: Vec<Product> = Vec::new();
        let mut by_name: BTreeMap<String, usize> = BTreeMap::new();
        let mut row_of_sku: BTreeMap<Sku, usize> = BTreeMap::new();
        let mut reader = csv::Reader::from_reader(content);
        if let Ok(header) = reader.headers()
            && !is_header(header)
        {
            let text = format!(
                "the first row is {:?}, wanted {}",
                header.iter().collect::<Vec<_>>().join(","),
                COLUMNS.join(",")
            );
            return Err(FileFaults(vec![RowFault { row: 1, text }]));
        }
        for (at, record) in reader.deserialize::<Row>().enumerate() {
            let row = at + 2;
            let mut refuse = |text: String| faults.push(RowFault { row, text });
            let record = match record {
                Ok(record) => record.restored(),
                Err(error) => {
                    refuse(error.to_string());
                    continue;
                }
            };
            let (sku, currency, variant) = match read_variant(&record) {
                Ok(variant) => variant,
                Err(text) => {
                    refuse(text);
                    continue;
                }
            };
            if let Some(first) = row_of_sku.insert(sku.clone(), row) {
                refuse(format!("sku {sku} stands in row {first} already"));
                continue;
            }
            let names = option_names(&variant);
            match by_name.get(&record.product) {
                Some(&place) if products[place].currency != currency => refuse(format!(
                    "currency is {currency}, that of {:?} in row {} is {}",
                    record.product, products[place].row, products[place].currency
                )),
                Some(&place) if products[place].option_names != names => refuse(format!(
                    "options are {names:?}, those of {:?} in row {} are {:?}",
                    record.product, products[place].row, products[place].option_names
                )),
                Some(&place) => products[place].variants.push(variant),
                None => {
                    by_name.insert(record.product.clone(), products.len());
                    products.push(Product {
                        row,
                        name: record.product,
                        description: record.description,
                        category: record.category,
                        currency,
                        images: record.image.split_whitespace().map(str::to_owned).collect(),
                        option_names: names,
                        variants: vec![variant],
                    });
                }
            }
        }
        if !faults.is_empty() {
            return Err(FileFaults(faults));
        }
        Ok(Self {
            digest: hexadecimal(&Sha256::digest(content)),
            products,
        })
    }

    /// Products in the file.
    pub fn len(&self) -> usize {
        self.products.len()
    }

    /// Whether the file holds no product at all.
    pub fn is_empty(&self) -> bool {
        self.products.is_empty()
    }

    /// Writes every product as a draft with its stock, then publishes them all. Ticks twice a product.
    pub async fn import(&self, admin: &Client, progress: &ProgressBar) -> Result<(), ImportError> {
        let batches = self.batches();
        let drafts = batches.iter().map(|batch| async move {
            let made = self.write(batch, admin).await?;
            progress.inc(batch.len() as u64);
            Ok::<_, ImportError>(made)
        });
        let drafts = stream::iter(drafts).buffered(IMPORT_MAX_IN_FLIGHT);
        let drafts: Vec<Vec<Value>> = drafts.try_collect().await?;
        let published = batches.iter().zip(&drafts).map(|(batch, ids)| async move {
            publish(batch, ids, admin).await?;
            progress.inc(batch.len() as u64);
            Ok::<_, ImportError>(())
        });
        let published = stream::iter(published).buffered(IMPORT_MAX_IN_FLIGHT);
        published.try_collect().await
    }

    /// The products in runs that the server takes at once: the same file makes the same ones.
    fn batches(&self) -> Vec<&[Product]> {
        let mut batches = Vec::new();
        let (mut begin, mut variants, mut bytes) = (0, 0, 0);
        for (at, product) in self.products.iter().enumerate() {
            let (more, longer) = (product.variants.len(), product.body().to_string().len());
            let is_full = at - begin == BATCH_MAX_PRODUCTS
                || variants + more > BATCH_MAX_VARIANTS
                || bytes + longer > BATCH_MAX_BYTES;
            if is_full && at > begin {
                batches.push(&self.products[begin..at]);
                (begin, variants, bytes) = (at, 0, 0);
            }
            variants += more;
            bytes += longer;
        }
        if begin < self.products.len() {
            batches.push(&self.products[begin..]);
        }
        batches
    }

    /// The ids of the drafts of a batch.
    async fn write(&self, batch: &[Product], admin: &Client) -> Result<Vec<Value>, ImportError> {
        let rows: Vec<String> = batch
            .iter()
            .map(|product| product.row.to_string())
            .collect();
        let mut parts = vec!["import products", self.digest.as_str()];
        parts.extend(rows.iter().map(String::as_str));
        let products: Vec<Value> = batch.iter().map(Product::body).collect();
        let wish = json!({ "products": products });
        let key = RequestId::derive(&parts);
        let made = admin.post("/v1/product-batches", &key, &wish).await;
        let made = made.map_err(|source| stopped(batch, source))?;
        let made: Vec<Value> = (made["products"].as_array().into_iter().flatten())
            .map(|product| product["id"].clone())
            .collect();
        if made.len() != batch.len() {
            return Err(ImportError::Shape {
                place: place(batch),
                made: made.len(),
                wanted: batch.len(),
            });
        }
        Ok(made)
    }
}

impl Product {
    /// The wish to make it, not on sale yet.
    fn body(&self) -> Value {
        json!({
            "name": self.name,
            "description": self.description,
            "category": self.category,
            "currency": self.currency,
            "images": self.images,
            "variants": self.variants,
            "status": "draft",
        })
    }
}

impl Row {
    /// As it was before its cells were guarded.
    fn restored(self) -> Self {
        Self {
            sku: cell::restored(self.sku),
            product: cell::restored(self.product),
            name: cell::restored(self.name),
            description: cell::restored(self.description),
            category: cell::restored(self.category),
            options: cell::restored(self.options),
            price: cell::restored(self.price),
            currency: cell::restored(self.currency),
            stock: cell::restored(self.stock),
            image: cell::restored(self.image),
            prices: cell::restored(self.prices),
        }
    }
}

fn is_header(header: &csv::StringRecord) -> bool {
    let without = &COLUMNS[..COLUMNS.len() - 1];
    header.iter().eq(COLUMNS) || header.iter().eq(without.iter().copied())
}

fn option_names(variant: &Value) -> Vec<String> {
    let options = variant["options"].as_object();
    options.map_or_else(Vec::new, |options| options.keys().cloned().collect())
}

/// Puts products on sale as this command left them, or as somebody has changed them since.
async fn publish(batch: &[Product], ids: &[Value], admin: &Client) -> Result<(), ImportError> {
    let wish = json!({ "products": ids });
    // Published twice is published once: the key is not looked at.
    let key = RequestId::generate();
    let published = admin.post("/v1/product-publications", &key, &wish).await;
    published.map(drop).map_err(|source| stopped(batch, source))
}

/// What stopped a batch, with the row of the product that the server named, if it named one.
fn stopped(batch: &[Product], source: ClientError) -> ImportError {
    let named = match &source {
        ClientError::Refused(problem) => problem.document["errors"][0]["field"].as_str(),
        ClientError::Transport { .. } => None,
    };
    let named = named.and_then(|field| {
        let (at, _) = field.strip_prefix("products[")?.split_once(']')?;
        batch.get(at.parse::<usize>().ok()?)
    });
    ImportError::Batch {
        place: place(named.map_or(batch, std::slice::from_ref)),
        source,
    }
}

fn place(batch: &[Product]) -> String {
    match batch {
        [first, .., last] => format!("rows {} to {}", first.row, last.row),
        [one] => format!("row {}", one.row),
        [] => "no rows".to_owned(),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("text takes text");
    }
    text
}

fn read_variant(row: &Row) -> Result<(Sku, Currency, Value), String> {
    if row.product.trim().is_empty() {
        return Err("product is empty".to_owned());
    }
    let sku: Sku = row.sku.parse().map_err(|error| format!("sku: {error}"))?;
    let currency: Currency = row
        .currency
        .parse()
        .map_err(|error| format!("currency: {error}"))?;
    let price =
        Money::parse_major(&row.price, currency).map_err(|error| format!("price: {error}"))?;
    let stock: u32 = row
        .stock
        .parse()
        .map_err(|_| format!("stock: {:?} is not a number from 0 on", row.stock))?;
    let options = cell::split(&row.options)
        .map_err(|part| format!("options: {part:?} is not of the form size=M, each name once"))?;
    let prices = read_prices(&row.prices)?;
    let variant = json!({
        "sku": sku,
        "name": row.name,
        "options": options,
        "price": price,
        "prices": prices,
        "stock": stock,
    });
    Ok((sku, currency, variant))
}

fn read_prices(text: &str) -> Result<Vec<Money>, String> {
    let pairs = cell::split(text).map_err(|part| {
        format!("prices: {part:?} is not of the form EUR=9.90, each currency once")
    })?;
    pairs
        .iter()
        .map(|(currency, amount)| {
            let currency = currency
                .parse()
                .map_err(|error| format!("prices: {error}"))?;
            Money::parse_major(amount, currency).map_err(|error| format!("prices: {error}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Problem;

    const HEADER: &str =
        "sku,product,name,description,category,options,price,currency,stock,image\n";

    #[test]
    fn rows_of_one_product_become_its_variants() {
        let text = format!(
            "{HEADER}A-S,Shirt,S,,clothing,size=S;color=Blue,12.50,GBP,3,\nA-M,Shirt,M,,clothing,size=M;color=Red,13,GBP,4,\n"
        );
        let file = ProductFile::read(text.as_bytes()).expect("a good file");
        assert_eq!(file.len(), 1);
        let variants = &file.products[0].variants;
        assert_eq!(variants[0]["price"]["amount"], 1250);
        assert_eq!(variants[1]["options"]["color"], "Red");
    }

    #[test]
    fn every_bad_row_is_named_and_none_hides_another() {
        let rows = [
            "a,Shirt,S,,c,,1,GBP,3,",
            "A,Shirt,S,,c,,1.234,GBP,3,",
            "B,Shirt,S,,c,,1,GBP,-3,",
            "C,Shirt,S,,c,size,1,GBP,3,",
            "D,Shirt,S,,c,,1,GBP,3,",
            "D,Shirt,S,,c,,1,GBP,3,",
            "E,Shirt,S,,c,,1,JPY,3,",
            "F,,S,,c,,1,GBP,3,",
            "G,Shirt,S,,c,size=S,1,GBP,3,",
        ];
        let text = format!("{HEADER}{}\n", rows.join("\n"));
        let faults = ProductFile::read(text.as_bytes()).expect_err("bad rows").0;
        let told: Vec<usize> = faults.iter().map(|fault| fault.row).collect();
        assert_eq!(told, [2, 3, 4, 5, 7, 8, 9, 10]);
    }

    #[test]
    fn what_is_exported_reads_back_as_it_was() {
        let product = json!({
            "name": "=HYPERLINK(\"http://evil\")",
            "description": "Two lines,\nwith \"quotes\"; and 湯のみ.",
            "category": "kitchen",
            "currency": "GBP",
            "images": ["https://img.example/1.jpg", "https://img.example/2.jpg"],
            "status": "published",
            "variants": [
                {"sku": "-A", "name": "@home", "options": {"size": "S;M", "a=b": "\\"}, "available": 3,
                 "price": {"amount": 1250, "currency": "GBP"},
                 "prices": [{"amount": 990, "currency": "EUR"}, {"amount": 1600, "currency": "JPY"}]},
                {"sku": "B", "name": "", "options": {"size": "L", "a=b": "+1"}, "available": -2,
                 "price": {"amount": 5, "currency": "GBP"}, "prices": []},
            ],
        });
        let known: export::Product = serde_json::from_value(product.clone()).expect("a product");
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(COLUMNS).expect("written");
        for row in export::rows(&known) {
            let is_formula = |cell: &String| cell.starts_with(['=', '+', '-', '@']);
            assert!(!row.iter().any(is_formula), "{row:?}");
            writer.write_record(row).expect("written");
        }
        let text = writer.into_inner().expect("written");
        let file = ProductFile::read(&text).expect("a good file");
        let body = file.products[0].body();
        for member in ["name", "description", "category", "currency", "images"] {
            assert_eq!(body[member], product[member], "{member}");
        }
        let stock = [3, 0];
        for (at, stock) in stock.into_iter().enumerate() {
            let mut wanted = product["variants"][at].clone();
            let members = wanted.as_object_mut().expect("an object");
            members.remove("available");
            members.insert("stock".to_owned(), stock.into());
            assert_eq!(body["variants"][at], wanted);
        }
    }

    #[test]
    fn batches_are_as_big_as_the_server_takes_and_leave_nothing_out() {
        let mut text = HEADER.to_owned();
        for product in 0..150 {
            for variant in 0..if product < 120 { 1 } else { 90 } {
                writeln!(text, "P{product}-{variant},P{product},,,c,,1,GBP,3,").expect("text");
            }
        }
        let long = "x".repeat(BATCH_MAX_BYTES);
        writeln!(
            text,
            "LONG,Long,,{long},c,,1,GBP,3,\nLAST,Last,,,c,,1,GBP,3,"
        )
        .expect("text");
        let file = ProductFile::read(text.as_bytes()).expect("a good file");
        let batches = file.batches();
        let sizes: Vec<usize> = batches.iter().map(|batch| batch.len()).collect();
        // A hundred; twenty of one variant and ten of ninety; eleven of ninety, and again; what is too long beside others.
        assert_eq!(sizes, [100, 30, 11, 9, 1, 1]);
        let sent = batches.iter().copied().flatten();
        assert!(
            sent.map(|product| product.row)
                .eq(file.products.iter().map(|product| product.row))
        );
    }

    #[test]
    fn what_the_server_refuses_is_told_by_its_row() {
        let text = format!(
            "{HEADER}A,Shirt,S,,c,,1,GBP,3,\nB,Shirt,M,,c,,1,GBP,3,\nC,Hat,,,c,,1,GBP,3,\n"
        );
        let file = ProductFile::read(text.as_bytes()).expect("a good file");
        for (field, place) in [
            ("products[1].name", "row 4: "),
            ("products[2].name", "rows 2 to 4: "),
            ("products", "rows 2 to 4: "),
        ] {
            let refused = Problem {
                status: 422,
                code: "invalid_argument".to_owned(),
                detail: "too long".to_owned(),
                document: json!({"errors": [{"field": field}]}),
            };
            let stopped = stopped(&file.products, Box::new(refused).into());
            let told = stopped.to_string();
            assert!(told.starts_with(place), "{field}: {told}");
        }
    }

    #[test]
    fn a_file_with_other_columns_is_refused_by_its_first_row() {
        let refused = ProductFile::read(b"sku,name\nA,Shirt\n").expect_err("other columns");
        assert!(refused.to_string().contains("row 1"), "{refused}");
    }
}
