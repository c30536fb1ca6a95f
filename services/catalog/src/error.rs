//! How this service refuses.

use holdfast_kernel::{Currency, Id, Sku, id, page::InvalidPage};
use holdfast_platform::fault::{Fault, FaultCode};
use serde_json::Value;
use tonic::Status;

/// A field of a request and what is wrong with it.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// Everything that can go wrong here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CatalogError {
    #[error("{}: {}", .0.name, .0.text)]
    Refused(Field),
    #[error("page: {0}")]
    Page(#[from] InvalidPage),
    #[error("sku {sku} is priced in {got}, its product in {wanted}")]
    CurrencyMixed {
        sku: Sku,
        got: Currency,
        wanted: Currency,
    },
    #[error("{} of the skus are taken", .0.len())]
    SkuTaken(Vec<Sku>),
    #[error("no such product")]
    UnknownProduct,
    #[error("{} of the products are not there", .0.len())]
    UnknownProducts(Vec<Id<id::Product>>),
    #[error("the product has no such variant")]
    UnknownVariant,
    #[error("a product keeps its last variant; delete the product")]
    LastVariant,
    #[error("the product is at version {actual}, not {expected}; read it again")]
    ProductChanged { expected: i64, actual: i64 },
    #[error("this idempotency key made something else")]
    KeyReused,
    #[error("no such category")]
    UnknownCategory,
    #[error("category {0} is there already")]
    CategoryExists(String),
    #[error("the category is at version {actual}, not {expected}; read it again")]
    CategoryChanged { expected: i64, actual: i64 },
    #[error("category {category} cannot hang below {parent}, which hangs below it")]
    CategoryCycle { category: String, parent: String },
    #[error("{0}")]
    CategoryTreeFull(String),
    /// Some of what hangs on it.
    #[error("the category has {} categories below it and products in it, {} of them named here", .children.len(), .products.len())]
    CategoryInUse {
        children: Vec<String>,
        products: Vec<Id<id::Product>>,
    },
    #[error("a row in the database cannot be read: {0}")]
    Unreadable(String),
    #[error(transparent)]
    Peer(#[from] Box<Fault>),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl From<CatalogError> for Fault {
    fn from(error: CatalogError) -> Self {
        let text = error.to_string();
        match error {
            CatalogError::Refused(field) => Fault::invalid(field.name, field.text),
            CatalogError::Page(_) => Fault::invalid("page", text),
            CatalogError::CurrencyMixed { sku, .. } => {
                Fault::new(FaultCode::Invalid, "CURRENCY_MIXED", text).with("sku", sku)
            }
            CatalogError::SkuTaken(skus) => {
                let fault = Fault::new(FaultCode::Conflict, "SKU_TAKEN", text);
                skus.into_iter().fold(fault, |fault, sku| {
                    fault.item([("sku", Value::from(sku.as_str()))])
                })
            }
            CatalogError::UnknownProduct => {
                Fault::new(FaultCode::NotFound, "UNKNOWN_PRODUCT", text)
            }
            CatalogError::UnknownProducts(products) => {
                let fault = Fault::new(FaultCode::NotFound, "UNKNOWN_PRODUCT", text);
                products.into_iter().fold(fault, |fault, product| {
                    fault.item([("product", Value::from(product.to_string()))])
                })
            }
            CatalogError::UnknownVariant => {
                Fault::new(FaultCode::NotFound, "UNKNOWN_VARIANT", text)
            }
            CatalogError::LastVariant => Fault::new(FaultCode::Conflict, "LAST_VARIANT", text),
            CatalogError::ProductChanged { actual, .. } => {
                Fault::new(FaultCode::Conflict, "PRODUCT_CHANGED", text).with("version", actual)
            }
            CatalogError::KeyReused => {
                Fault::new(FaultCode::Invalid, "IDEMPOTENCY_KEY_REUSED", text)
            }
            CatalogError::UnknownCategory => {
                Fault::new(FaultCode::NotFound, "UNKNOWN_CATEGORY", text)
            }
            CatalogError::CategoryExists(_) => {
                Fault::new(FaultCode::Conflict, "CATEGORY_EXISTS", text)
            }
            CatalogError::CategoryChanged { actual, .. } => {
                Fault::new(FaultCode::Conflict, "CATEGORY_CHANGED", text).with("version", actual)
            }
            CatalogError::CategoryCycle { .. } => {
                Fault::new(FaultCode::Conflict, "CATEGORY_CYCLE", text)
            }
            CatalogError::CategoryTreeFull(_) => {
                Fault::new(FaultCode::Conflict, "CATEGORY_TREE_FULL", text)
            }
            CatalogError::CategoryInUse { children, products } => {
                let fault = Fault::new(FaultCode::Conflict, "CATEGORY_IN_USE", text);
                let fault = children.into_iter().fold(fault, |fault, child| {
                    fault.item([("category", Value::from(child))])
                });
                products.into_iter().fold(fault, |fault, product| {
                    fault.item([("product", Value::from(product.to_string()))])
                })
            }
            CatalogError::Unreadable(_) => Fault::internal(error),
            CatalogError::Peer(fault) => *fault,
            CatalogError::Database(error) => Fault::from(error),
        }
    }
}

impl From<Fault> for CatalogError {
    fn from(fault: Fault) -> Self {
        Self::Peer(Box::new(fault))
    }
}

impl From<CatalogError> for Status {
    fn from(error: CatalogError) -> Self {
        Fault::from(error).into()
    }
}
