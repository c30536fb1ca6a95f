//! The door: decode, authorise, act, encode. What takes more than a screen has a file named for its verb.

mod categorize;
mod change;
mod create;
mod list;

use std::{collections::BTreeMap, sync::Arc};

use holdfast_kernel::{Currency, Id, Money, id, time};
use holdfast_platform::{
    database,
    identity::{Access, AccessTable, Caller, Role},
    service::Context,
    wire,
};
use holdfast_proto::{
    catalog::v1::{self as pb, catalog_service_server::CatalogService},
    money::v1 as money_pb,
};
use sqlx::PgConnection;
use tonic::{Request, Response, Status};

use crate::{
    Peers,
    domain::{self, Product},
    error::{CatalogError, Field},
    listing::{self, Listing},
    shown::{Detail, Shown},
    store,
};

/// Who may call what.
pub const ACCESS: AccessTable = &[
    ("AddVariant", Access::Admin),
    ("CreateCategory", Access::Admin),
    ("CreateProduct", Access::Admin),
    ("CreateProducts", Access::Admin),
    ("DeleteCategory", Access::Admin),
    ("DeleteProduct", Access::Admin),
    ("DeleteVariant", Access::Admin),
    ("GetCategory", Access::Anyone),
    ("GetProduct", Access::Anyone),
    ("ListCategories", Access::Anyone),
    ("ListProducts", Access::Anyone),
    ("PublishProducts", Access::Admin),
    ("QuoteVariants", Access::UserOr(&["orders", "bookings"])),
    ("UpdateCategory", Access::Admin),
    ("UpdateProduct", Access::Admin),
    ("UpdateVariant", Access::Admin),
];

const QUOTE_MAX_SKUS: usize = 1_000;
/// Products of one batch.
const BATCH_MAX_PRODUCTS: usize = 100;

pub(crate) struct Api {
    peers: Peers,
    context: Context,
    shown: Shown,
}

impl Api {
    pub(crate) fn new(peers: Peers, context: Context, shown: Shown) -> Self {
        Self {
            peers,
            context,
            shown,
        }
    }

    /// Carries a listing out, after which nobody is shown what was before.
    async fn list_all(&self, listing: Listing) -> Result<Vec<Product>, CatalogError> {
        let made: Vec<String> = (listing.entries.iter())
            .map(|entry| entry.id.to_string())
            .collect();
        let _forgetting = self.shown.forgetting(made.iter().map(String::as_str));
        let now = time::to_micros(self.context.clock.now());
        listing::list(listing, &self.peers, &self.context, now).await
    }

    /// Says of each variant what the ledger last told is available.
    async fn stock(&self, products: &mut [pb::Product]) -> Result<(), CatalogError> {
        let variants = products.iter().flat_map(|product| &product.variants);
        let skus: Vec<&str> = variants.map(|variant| variant.sku.as_str()).collect();
        let mut db = database::acquire(&self.context.database).await?;
        let available = store::available(&mut db, &skus).await?;
        drop(db);
        let variants = (products.iter_mut()).flat_map(|product| &mut product.variants);
        for variant in variants {
            let known = available.get(&variant.sku).copied();
            variant.available = known.unwrap_or_default();
        }
        Ok(())
    }

    /// A product as it was just written, with what the ledger and reviews last told.
    async fn encode_one(&self, product: Product) -> Result<pb::Product, CatalogError> {
        let mut db = database::acquire(&self.context.database).await?;
        let encoded = encode(&mut db, vec![product]).await?;
        drop(db);
        self.stocked(encoded).await
    }

    async fn stocked(&self, mut products: Vec<pb::Product>) -> Result<pb::Product, CatalogError> {
        self.stock(&mut products).await?;
        Ok(products.pop().expect("one product in, one product out"))
    }

    /// A product by id or slug as staff see it: past what is kept in memory.
    async fn written(&self, name: &str) -> Result<Option<Detail>, CatalogError> {
        let mut db = database::acquire(&self.context.database).await?;
        let product = match name.parse::<Id<id::Product>>() {
            Ok(id) => store::find_product(&mut db, id).await?,
            Err(_) => store::find_product_by_slug(&mut db, name).await?,
        };
        let Some(product) = product else {
            return Ok(None);
        };
        let id = product.id.uuid();
        let mut histograms = store::histograms(&mut db, &[id]).await?;
        let histogram = histograms.remove(&id).unwrap_or_default();
        Ok(Some(Detail { product, histogram }))
    }
}

#[tonic::async_trait]
impl CatalogService for Api {
    /// Makes a product with its variants and, where given, their first stock in the ledger.
    async fn create_product(
        &self,
        request: Request<pb::CreateProductRequest>,
    ) -> Result<Response<pb::CreateProductResponse>, Status> {
        let actor = Caller::of(&request)?.user()?;
        let listing = create::parse_listing(request.into_inner(), actor)?;
        let product = self.list_all(listing).await?.pop();
        let product = product.expect("one product in, one product out");
        Ok(Response::new(pb::CreateProductResponse {
            product: Some(self.encode_one(product).await?),
        }))
    }

    /// Makes several products, all of them or none.
    async fn create_products(
        &self,
        request: Request<pb::CreateProductsRequest>,
    ) -> Result<Response<pb::CreateProductsResponse>, Status> {
        let actor = Caller::of(&request)?.user()?;
        let listing = create::parse_batch(request.into_inner(), actor)?;
        let products = self.list_all(listing).await?.into_iter();
        let products = products.map(|product| pb::MadeProduct {
            id: product.id.to_string(),
            slug: product.slug,
        });
        Ok(Response::new(pb::CreateProductsResponse {
            products: products.collect(),
        }))
    }

    /// Puts products on sale as they stand.
    async fn publish_products(
        &self,
        request: Request<pb::PublishProductsRequest>,
    ) -> Result<Response<pb::PublishProductsResponse>, Status> {
        let by = Caller::of(&request)?.user()?;
        let request = request.into_inner();
        let _forgetting = (self.shown).forgetting(request.product_ids.iter().map(String::as_str));
        self.publish(&request.product_ids, by).await?;
        Ok(Response::new(pb::PublishProductsResponse {}))
    }

    /// A product by id or slug; drafts exist for staff only.
    async fn get_product(
        &self,
        request: Request<pb::GetProductRequest>,
    ) -> Result<Response<pb::GetProductResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let (name, currency) = (request.id, parse_currency("currency", &request.currency)?);
        let detail = if caller.has(Role::Staff) {
            self.written(&name).await?.map(Arc::new)
        } else {
            let found = self.shown.product(&name, &self.context.database).await?;
            found.filter(|found| found.product.status == domain::Status::Published)
        };
        let detail = detail.ok_or(CatalogError::UnknownProduct)?;
        let product = detail.product.clone();
        let product = match currency {
            Some(currency) => product.sold_in(currency),
            None => Some(product),
        };
        let product = product.ok_or(CatalogError::UnknownProduct)?;
        let encoded = encode_product(product, detail.histogram.clone());
        Ok(Response::new(pb::GetProductResponse {
            product: Some(self.stocked(vec![encoded]).await?),
        }))
    }

    /// Published products, for staff drafts too: those that are looked for, in the order that is asked for.
    async fn list_products(
        &self,
        request: Request<pb::ListProductsRequest>,
    ) -> Result<Response<pb::ListProductsResponse>, Status> {
        let drafts = Caller::of(&request)?.has(Role::Staff);
        Ok(Response::new(
            self.list(request.into_inner(), drafts).await?,
        ))
    }

    /// Name and price of each sku that is for sale.
    async fn quote_variants(
        &self,
        request: Request<pb::QuoteVariantsRequest>,
    ) -> Result<Response<pb::QuoteVariantsResponse>, Status> {
        let request = request.into_inner();
        let (skus, currency) = (request.skus, parse_currency("currency", &request.currency)?);
        bounded("skus", skus.len(), QUOTE_MAX_SKUS)?;
        let mut db = database::acquire(&self.context.database).await?;
        let quotes = store::quote_variants(&mut db, &skus, currency).await?;
        let quotes = quotes
            .into_iter()
            .map(|quote| pb::Quote {
                sku: quote.sku.to_string(),
                name: quote.name,
                price: Some(encode_money(quote.price)),
            })
            .collect();
        Ok(Response::new(pb::QuoteVariantsResponse { quotes }))
    }

    /// Changes a product.
    async fn update_product(
        &self,
        request: Request<pb::UpdateProductRequest>,
    ) -> Result<Response<pb::UpdateProductResponse>, Status> {
        let by = Caller::of(&request)?.user()?;
        let request = request.into_inner();
        let _forgetting = self.shown.forgetting([request.product_id.as_str()]);
        let product = self.change(request, by).await?;
        Ok(Response::new(pb::UpdateProductResponse {
            product: Some(self.encode_one(product).await?),
        }))
    }

    /// Takes a product off for good.
    async fn delete_product(
        &self,
        request: Request<pb::DeleteProductRequest>,
    ) -> Result<Response<pb::DeleteProductResponse>, Status> {
        let by = Caller::of(&request)?.user()?;
        let request = request.into_inner();
        let _forgetting = self.shown.forgetting([request.product_id.as_str()]);
        self.delete(&request, by).await?;
        Ok(Response::new(pb::DeleteProductResponse {}))
    }

    /// Sells a product in one more form.
    async fn add_variant(
        &self,
        request: Request<pb::AddVariantRequest>,
    ) -> Result<Response<pb::AddVariantResponse>, Status> {
        let actor = Caller::of(&request)?.user()?;
        let addition = create::parse_addition(request.into_inner(), actor)?;
        let _forgetting = self
            .shown
            .forgetting([addition.product.to_string().as_str()]);
        let now = time::to_micros(self.context.clock.now());
        let product = listing::add_variant(addition, &self.peers, &self.context, now).await?;
        Ok(Response::new(pb::AddVariantResponse {
            product: Some(self.encode_one(product).await?),
        }))
    }

    /// Changes one variant.
    async fn update_variant(
        &self,
        request: Request<pb::UpdateVariantRequest>,
    ) -> Result<Response<pb::UpdateVariantResponse>, Status> {
        let by = Caller::of(&request)?.user()?;
        let request = request.into_inner();
        let _forgetting = self.shown.forgetting([request.product_id.as_str()]);
        let product = self.change_variant(request, by).await?;
        Ok(Response::new(pb::UpdateVariantResponse {
            product: Some(self.encode_one(product).await?),
        }))
    }

    /// Takes one variant off for good.
    async fn delete_variant(
        &self,
        request: Request<pb::DeleteVariantRequest>,
    ) -> Result<Response<pb::DeleteVariantResponse>, Status> {
        let by = Caller::of(&request)?.user()?;
        let request = request.into_inner();
        let _forgetting = self.shown.forgetting([request.product_id.as_str()]);
        self.remove_variant(&request, by).await?;
        Ok(Response::new(pb::DeleteVariantResponse {}))
    }

    /// The whole tree with how many products are in each branch.
    async fn list_categories(
        &self,
        _: Request<pb::ListCategoriesRequest>,
    ) -> Result<Response<pb::ListCategoriesResponse>, Status> {
        let categories = self.categories().await?;
        Ok(Response::new(pb::ListCategoriesResponse { categories }))
    }

    /// One category.
    async fn get_category(
        &self,
        request: Request<pb::GetCategoryRequest>,
    ) -> Result<Response<pb::GetCategoryResponse>, Status> {
        let category = Some(self.category(&request.into_inner().slug).await?);
        Ok(Response::new(pb::GetCategoryResponse { category }))
    }

    /// Hangs a new category into the tree.
    async fn create_category(
        &self,
        request: Request<pb::CreateCategoryRequest>,
    ) -> Result<Response<pb::CreateCategoryResponse>, Status> {
        let by = Caller::of(&request)?.user()?;
        let now = time::to_micros(self.context.clock.now());
        let _forgetting = self.shown.forgetting([]);
        let category = Some(self.make_category(request.into_inner(), by, now).await?);
        Ok(Response::new(pb::CreateCategoryResponse { category }))
    }

    /// Renames, moves or gives another slug.
    async fn update_category(
        &self,
        request: Request<pb::UpdateCategoryRequest>,
    ) -> Result<Response<pb::UpdateCategoryResponse>, Status> {
        let by = Caller::of(&request)?.user()?;
        let _forgetting = self.shown.forgetting([]);
        let category = Some(self.change_category(request.into_inner(), by).await?);
        Ok(Response::new(pb::UpdateCategoryResponse { category }))
    }

    /// Takes an empty category out of the tree.
    async fn delete_category(
        &self,
        request: Request<pb::DeleteCategoryRequest>,
    ) -> Result<Response<pb::DeleteCategoryResponse>, Status> {
        let by = Caller::of(&request)?.user()?;
        let _forgetting = self.shown.forgetting([]);
        self.remove_category(request.into_inner(), by).await?;
        Ok(Response::new(pb::DeleteCategoryResponse {}))
    }
}

fn parse_money(field: &str, money: Option<money_pb::Money>) -> Result<Money, CatalogError> {
    let money = money.ok_or_else(|| refused(field, "missing"))?;
    let currency = money
        .currency
        .parse()
        .map_err(|error| refused(format!("{field}.currency"), format!("{error}")))?;
    Ok(Money::new(money.amount, currency))
}

fn parse_prices(
    field: &str,
    prices: Vec<money_pb::Money>,
) -> Result<BTreeMap<Currency, i64>, CatalogError> {
    let mut by_currency = BTreeMap::new();
    for (at, price) in prices.into_iter().enumerate() {
        let price = parse_money(&format!("{field}[{at}]"), Some(price))?;
        if by_currency.insert(price.currency, price.amount).is_some() {
            return Err(refused(field, format!("{} stands twice", price.currency)));
        }
    }
    Ok(by_currency)
}

/// A currency that need not be given.
fn parse_currency(field: &str, text: &str) -> Result<Option<Currency>, CatalogError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|error| refused(field, format!("{error}")))
}

fn bounded(field: &str, count: usize, most: usize) -> Result<(), CatalogError> {
    if count <= most {
        return Ok(());
    }
    Err(refused(
        field,
        format!("{count} entries, wanted at most {most}"),
    ))
}

/// Whether so many products can be taken at once.
fn check_batch(count: usize) -> Result<(), CatalogError> {
    if (1..=BATCH_MAX_PRODUCTS).contains(&count) {
        return Ok(());
    }
    let text = format!("{count} entries, wanted 1 to {BATCH_MAX_PRODUCTS}");
    Err(refused("products", text))
}

fn refused(name: impl Into<String>, text: impl Into<String>) -> CatalogError {
    CatalogError::Refused(Field {
        name: name.into(),
        text: text.into(),
    })
}

/// Products with what reviews last told of each; what is available of them is not said here.
async fn encode(
    db: &mut PgConnection,
    products: Vec<Product>,
) -> Result<Vec<pb::Product>, CatalogError> {
    let ids: Vec<_> = products.iter().map(|product| product.id.uuid()).collect();
    let mut histograms = store::histograms(db, &ids).await?;
    let encoded = products.into_iter().map(|product| {
        let histogram = histograms.remove(&product.id.uuid()).unwrap_or_default();
        encode_product(product, histogram)
    });
    Ok(encoded.collect())
}

fn encode_product(product: Product, histogram: Vec<i64>) -> pb::Product {
    let draft = product.draft;
    let variants = draft
        .variants
        .into_iter()
        .map(|variant| pb::Variant {
            available: 0,
            sku: variant.sku.to_string(),
            name: variant.name,
            options: variant.options.into_iter().collect(),
            price: Some(encode_money(variant.price)),
            other_prices: variant
                .other_prices
                .into_iter()
                .map(|(currency, amount)| encode_money(Money::new(amount, currency)))
                .collect(),
        })
        .collect();
    pb::Product {
        id: product.id.to_string(),
        slug: product.slug,
        name: draft.name,
        description: draft.description,
        kind: "good".to_owned(),
        category: draft.category.unwrap_or_default(),
        currency: draft.currency.to_string(),
        images: draft.images,
        variants,
        status: product.status.as_str().to_owned(),
        created_at: Some(wire::timestamp(product.created_at)),
        version: product.version,
        histogram,
    }
}

fn encode_money(money: Money) -> money_pb::Money {
    money_pb::Money {
        amount: money.amount,
        currency: money.currency.to_string(),
    }
}
