//! What is for sale.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use axum::{
    Extension,
    extract::{Path, State},
};
use holdfast_platform::identity::Caller;
use holdfast_proto::catalog::v1 as pb;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Answer, promised,
    shape::{Money, Options, Page, Slice, moment, paged},
};
use crate::{
    Gateway,
    decode::{Json, Query},
    error::GatewayError,
    idempotency::Keyed,
    precondition::Expected,
    problems::Problem,
    reply::Reply,
};

/// How long the making or publishing of a hundred products may take.
const BATCH_DEADLINE: Duration = Duration::from_secs(10);

pub(super) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(list_products, create_product))
        .routes(routes!(create_products))
        .routes(routes!(publish_products))
        .routes(routes!(one_product, change_product, delete_product))
        .routes(routes!(add_variant))
        .routes(routes!(change_variant, delete_variant))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewProduct {
    #[schema(example = "T-shirt", min_length = 1, max_length = 200)]
    name: String,
    #[serde(default)]
    #[schema(max_length = 20000)]
    description: String,
    /// `good`.
    #[serde(default = "good")]
    #[schema(pattern = "^good$")]
    kind: String,
    /// A slug; made when it is new.
    #[serde(default)]
    #[schema(pattern = "^([a-z0-9]+(-[a-z0-9]+)*)?$", max_length = 80)]
    category: String,
    /// ISO 4217; that of all its prices.
    #[schema(example = "JPY", pattern = "^[A-Z]{3}$")]
    currency: String,
    /// URLs that begin with https://; they are shown, never fetched.
    #[serde(default)]
    #[schema(max_items = 20)]
    images: Vec<String>,
    /// 1 to 100, all with options of the same names.
    #[schema(min_items = 1, max_items = 100)]
    variants: Vec<NewVariant>,
    /// `draft` or `published`.
    #[serde(default = "published")]
    #[schema(pattern = "^(draft|published)$")]
    status: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewVariant {
    /// 1 to 64 of A-Z 0-9 . _ - @
    #[schema(example = "TSHIRT-M", pattern = "^[A-Z0-9._@-]{1,64}$")]
    sku: String,
    #[serde(default)]
    #[schema(max_length = 200)]
    name: String,
    #[serde(default)]
    options: Options,
    /// In the product's currency.
    price: Money,
    /// In other currencies, one each.
    #[serde(default)]
    #[schema(max_items = 40)]
    prices: Vec<Money>,
    /// First capacity; left out: none is kept yet.
    #[schema(minimum = 0, maximum = 1_000_000_000)]
    stock: Option<i64>,
}

fn good() -> String {
    "good".to_owned()
}

fn published() -> String {
    "published".to_owned()
}

#[derive(Serialize, ToSchema)]
struct Product {
    #[schema(example = "prd_01jd3q8m5ze2vtx0c9k4h7n6wb")]
    id: String,
    slug: String,
    name: String,
    description: String,
    kind: String,
    category: Option<String>,
    currency: String,
    /// Of its cheapest variant.
    price: Option<Money>,
    images: Vec<String>,
    rating: Rating,
    variants: Vec<Variant>,
    status: String,
    created_at: String,
}

/// What buyers thought of it.
#[derive(Serialize, ToSchema)]
struct Rating {
    /// Of 1 to 5; null without reviews.
    average: Option<f64>,
    count: i64,
    /// How many gave 1, 2, 3, 4 and 5.
    histogram: [i64; 5],
}

impl Rating {
    /// What so many of 1, 2, 3, 4 and 5 stars come to.
    fn of(histogram: &[i64]) -> Self {
        let histogram = <[i64; 5]>::try_from(histogram).unwrap_or_default();
        let count: i64 = histogram.iter().sum();
        let stars: i64 = (1..).zip(histogram).map(|(stars, of)| stars * of).sum();
        Self {
            average: (count > 0).then(|| stars as f64 / count as f64),
            count,
            histogram,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct Variant {
    sku: String,
    name: String,
    options: Options,
    /// In the product's currency, or in the one that was asked for.
    price: Money,
    /// In other currencies; none where one was asked for.
    prices: Vec<Money>,
    available: i64,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Words it has to have, all of them, as they are or as beginnings; misspelt ones are guessed.
    #[param(max_length = 200)]
    q: Option<String>,
    /// Some of `good`, `stay`, `tour`, parted by commas.
    kind: Option<String>,
    /// `relevance` (when there is a `q`), `newest` (when there is none), `price`, `-price`, `name` or `rating`.
    #[param(pattern = "^(relevance|newest|-?price|name|rating)?$")]
    sort: Option<String>,
    /// What one variant has to have: `size=M;color=Red`.
    options: Option<String>,
    /// Minor units of the currency asked for, or of the product's own; of its cheapest variant.
    price_min: Option<i64>,
    price_max: Option<i64>,
    /// `false` leaves the facets out, which take counting.
    facets: Option<bool>,
    /// A category's slug; those below it count.
    category: Option<String>,
    /// ISO 4217: only what is sold in it, at its prices there.
    #[param(pattern = "^([A-Z]{3})?$")]
    currency: Option<String>,
    /// 1 to 100; 20 when left out.
    limit: Option<i32>,
    /// `next_cursor` of the slice before.
    cursor: Option<String>,
}

/// A slice of the products found.
#[derive(Serialize, ToSchema)]
struct ProductPage {
    #[serde(flatten)]
    page: Page<Product>,
    /// What the whole result has; on its first slice.
    facets: Option<Facets>,
}

/// What the products found have, and how many have it; of each the 100 that most have.
#[derive(Serialize, ToSchema)]
struct Facets {
    /// By slug.
    categories: Vec<FacetValue>,
    /// By name of the option.
    options: BTreeMap<String, Vec<FacetValue>>,
    /// By lowest price: in the currency asked for, or each product in its own.
    prices: Vec<PriceRange>,
    /// In which they have a price.
    currencies: Vec<FacetValue>,
    /// Products counted: all that were found, or the newest 10,000 of them.
    counted: i64,
    /// Whether those are all. Where they are not, the counts are of the newest 10,000.
    complete: bool,
}

#[derive(Serialize, ToSchema)]
struct FacetValue {
    #[schema(example = "clothing")]
    value: String,
    count: i64,
}

/// From an amount on, below another; null: without end. Minor units.
#[derive(Serialize, ToSchema)]
struct PriceRange {
    #[schema(example = "JPY")]
    currency: String,
    from: i64,
    below: Option<i64>,
    count: i64,
}

/// Finds published products by words and filters; staff find drafts too.
#[utoipa::path(get, path = "/v1/products", tag = "catalog", params(Wanted), responses((status = 200, body = ProductPage)))]
async fn list_products(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Query(wanted): Query<Wanted>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::ListProductsRequest {
        category: wanted.category.unwrap_or_default(),
        page: Some(Slice::new(wanted.limit, wanted.cursor).request()?),
        currency: wanted.currency.unwrap_or_default(),
        query: wanted.q.unwrap_or_default(),
        sort: wanted.sort.unwrap_or_default(),
        options: read_options(&wanted.options.unwrap_or_default())?,
        price_min: wanted.price_min,
        price_max: wanted.price_max,
        kinds: listed(&wanted.kind.unwrap_or_default()),
        facets: wanted.facets.unwrap_or(true),
    });
    let answer = gateway
        .peers
        .catalog
        .clone()
        .list_products(request)
        .await
        .map_err(|refused| paged(&refused))?
        .into_inner();
    let products = answer
        .products
        .into_iter()
        .map(product)
        .collect::<Result<_, _>>()?;
    Ok(Reply::ok(&ProductPage {
        page: Page::new(products, answer.page),
        facets: answer.facets.map(Into::into),
    }))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Shown {
    /// ISO 4217: at its prices there; a product without any is not found.
    #[param(pattern = "^([A-Z]{3})?$")]
    currency: Option<String>,
}

/// Shows one product, by id or slug.
#[utoipa::path(get, path = "/v1/products/{id}", tag = "catalog",
    params(("id" = String, Path, description = "id or slug"), Shown),
    responses((status = 200, body = Product)))]
async fn one_product(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(shown): Query<Shown>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::GetProductRequest {
        id,
        currency: shown.currency.unwrap_or_default(),
    });
    let answer = gateway
        .peers
        .catalog
        .clone()
        .get_product(request)
        .await?
        .into_inner();
    tagged(answer.product)
}

/// Makes a product with its variants and their first stock.
#[utoipa::path(post, path = "/v1/products", tag = "catalog", request_body = NewProduct,
    params(("idempotency-key" = String, Header)), responses((status = 201, body = Product)))]
async fn create_product(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Keyed { body, once }: Keyed<NewProduct>,
) -> Answer {
    let request = caller.request(pb::CreateProductRequest {
        request_id: once.request_id.to_string(),
        fingerprint: once.fingerprint(),
        name: body.name,
        description: body.description,
        kind: body.kind,
        category: body.category,
        currency: body.currency,
        images: body.images,
        variants: body.variants.into_iter().map(Into::into).collect(),
        status: body.status,
    });
    let mut catalog = gateway.peers.catalog.clone();
    let effect = async move {
        let answer = catalog.create_product(request).await?.into_inner();
        let made = promised(answer.product, "catalog", "the product")?;
        let (version, location) = (made.version, format!("/v1/products/{}", made.id));
        Ok(Reply::created(&product(made)?, &location).tagged(version))
    };
    gateway.replies.once(once, effect).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewProducts {
    /// 1 to 100, with at most 1,000 variants together.
    #[schema(min_items = 1, max_items = 100)]
    products: Vec<NewProduct>,
}

/// What was made.
#[derive(Serialize, ToSchema)]
struct MadeProducts {
    /// In the order in which they were sent.
    products: Vec<MadeProduct>,
}

#[derive(Serialize, ToSchema)]
struct MadeProduct {
    #[schema(example = "prd_01jd3q8m5ze2vtx0c9k4h7n6wb")]
    id: String,
    slug: String,
}

/// Makes several products with their variants and their first stock, all of them or none.
///
/// What is refused is named by its place, such as `products[3].variants[0].sku`.
#[utoipa::path(post, path = "/v1/product-batches", tag = "catalog", request_body = NewProducts,
    params(("idempotency-key" = String, Header)), responses((status = 201, body = MadeProducts)))]
async fn create_products(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Keyed { body, once }: Keyed<NewProducts>,
) -> Answer {
    let mut request = caller.request(pb::CreateProductsRequest {
        request_id: once.request_id.to_string(),
        fingerprint: once.fingerprint(),
        products: body.products.into_iter().map(Into::into).collect(),
    });
    request.set_timeout(BATCH_DEADLINE);
    let mut catalog = gateway.peers.catalog.clone();
    let effect = async move {
        let answer = catalog.create_products(request).await?.into_inner();
        let made = answer.products.into_iter();
        let made = made.map(|pb::MadeProduct { id, slug }| MadeProduct { id, slug });
        let made = MadeProducts {
            products: made.collect(),
        };
        Ok(Reply::created(&made, "/v1/products"))
    };
    gateway.replies.once(once, effect).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Publication {
    /// Ids, 1 to 100.
    #[schema(min_items = 1, max_items = 100, example = json!(["prd_01jd3q8m5ze2vtx0c9k4h7n6wb"]))]
    products: Vec<String>,
}

/// Puts several products on sale as they stand, all of them or none; those that are on sale stay as they are.
#[utoipa::path(post, path = "/v1/product-publications", tag = "catalog", request_body = Publication,
    responses((status = 204)))]
async fn publish_products(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Json(publication): Json<Publication>,
) -> Result<Reply, Problem> {
    let mut request = caller.request(pb::PublishProductsRequest {
        product_ids: publication.products,
    });
    request.set_timeout(BATCH_DEADLINE);
    let mut catalog = gateway.peers.catalog.clone();
    catalog.publish_products(request).await?;
    Ok(Reply::nothing())
}

/// What shall be otherwise; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ProductChange {
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    #[schema(max_length = 20000)]
    description: Option<String>,
    /// A slug; made when it is new. Empty: none.
    #[schema(pattern = "^([a-z0-9]+(-[a-z0-9]+)*)?$", max_length = 80)]
    category: Option<String>,
    /// All of them: URLs that begin with https://.
    #[schema(max_items = 20)]
    images: Option<Vec<String>>,
    /// Of every variant, in the currency it names.
    price: Option<Money>,
    /// `draft` or `published`.
    #[schema(pattern = "^(draft|published)$")]
    status: Option<String>,
}

/// What shall be otherwise; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct VariantChange {
    #[schema(max_length = 200)]
    name: Option<String>,
    /// All of them, of the same names as the other variants'.
    options: Option<Options>,
    /// In the product's currency.
    price: Option<Money>,
    /// In other currencies: all of them.
    #[schema(max_items = 40)]
    prices: Option<Vec<Money>>,
}

/// Changes a product that is still as it was read.
#[utoipa::path(patch, path = "/v1/products/{id}", tag = "catalog", request_body = ProductChange,
    params(("id" = String, Path), ("if-match" = String, Header, description = "the ETag it was read with")),
    responses((status = 200, body = Product)))]
async fn change_product(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Expected(expected): Expected,
    Json(change): Json<ProductChange>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::UpdateProductRequest {
        product_id: id,
        expected_version: expected,
        status: change.status.unwrap_or_default(),
        name: change.name,
        description: change.description,
        category: change.category,
        images: change.images.map(|urls| pb::Images { urls }),
        price: change.price.map(Into::into),
    });
    let mut catalog = gateway.peers.catalog.clone();
    let answer = catalog.update_product(request).await?.into_inner();
    tagged(answer.product)
}

/// Deletes a product that is still as it was read. What was ordered of it stays, and its SKUs stay taken.
#[utoipa::path(delete, path = "/v1/products/{id}", tag = "catalog",
    params(("id" = String, Path), ("if-match" = String, Header, description = "the ETag it was read with")),
    responses((status = 204)))]
async fn delete_product(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Expected(expected): Expected,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::DeleteProductRequest {
        product_id: id,
        expected_version: expected,
    });
    gateway
        .peers
        .catalog
        .clone()
        .delete_product(request)
        .await?;
    Ok(Reply::nothing())
}

/// Adds a variant, with its first stock.
#[utoipa::path(post, path = "/v1/products/{id}/variants", tag = "catalog", request_body = NewVariant,
    params(("id" = String, Path), ("idempotency-key" = String, Header)), responses((status = 201, body = Product)))]
async fn add_variant(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Keyed { body, once }: Keyed<NewVariant>,
) -> Answer {
    let request = caller.request(pb::AddVariantRequest {
        request_id: once.request_id.to_string(),
        fingerprint: once.fingerprint(),
        product_id: id,
        variant: Some(body.into()),
    });
    let mut catalog = gateway.peers.catalog.clone();
    let effect = async move {
        let answer = catalog.add_variant(request).await?.into_inner();
        let changed = promised(answer.product, "catalog", "the product")?;
        let (version, location) = (changed.version, format!("/v1/products/{}", changed.id));
        Ok(Reply::created(&product(changed)?, &location).tagged(version))
    };
    gateway.replies.once(once, effect).await
}

/// Changes one variant of a product that is still as it was read.
#[utoipa::path(patch, path = "/v1/products/{id}/variants/{sku}", tag = "catalog", request_body = VariantChange,
    params(("id" = String, Path), ("sku" = String, Path),
        ("if-match" = String, Header, description = "the product's ETag")),
    responses((status = 200, body = Product)))]
async fn change_variant(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path((id, sku)): Path<(String, String)>,
    Expected(expected): Expected,
    Json(change): Json<VariantChange>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::UpdateVariantRequest {
        product_id: id,
        sku,
        expected_version: expected,
        name: change.name,
        options: change.options.map(|options| pb::Options {
            values: options.into_iter().collect(),
        }),
        price: change.price.map(Into::into),
        other_prices: change.prices.map(|prices| pb::Prices {
            prices: prices.into_iter().map(Into::into).collect(),
        }),
    });
    let mut catalog = gateway.peers.catalog.clone();
    let answer = catalog.update_variant(request).await?.into_inner();
    tagged(answer.product)
}

/// Deletes one variant of a product that is still as it was read; the last one stays.
#[utoipa::path(delete, path = "/v1/products/{id}/variants/{sku}", tag = "catalog",
    params(("id" = String, Path), ("sku" = String, Path),
        ("if-match" = String, Header, description = "the product's ETag")),
    responses((status = 204)))]
async fn delete_variant(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path((id, sku)): Path<(String, String)>,
    Expected(expected): Expected,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::DeleteVariantRequest {
        product_id: id,
        sku,
        expected_version: expected,
    });
    gateway
        .peers
        .catalog
        .clone()
        .delete_variant(request)
        .await?;
    Ok(Reply::nothing())
}

fn tagged(changed: Option<pb::Product>) -> Result<Reply, Problem> {
    let changed = promised(changed, "catalog", "the product")?;
    let version = changed.version;
    Ok(Reply::ok(&product(changed)?).tagged(version))
}

impl From<NewProduct> for pb::NewProduct {
    fn from(product: NewProduct) -> Self {
        Self {
            name: product.name,
            description: product.description,
            kind: product.kind,
            category: product.category,
            currency: product.currency,
            images: product.images,
            variants: product.variants.into_iter().map(Into::into).collect(),
            status: product.status,
        }
    }
}

impl From<NewVariant> for pb::NewVariant {
    fn from(variant: NewVariant) -> Self {
        Self {
            sku: variant.sku,
            name: variant.name,
            options: variant.options.into_iter().collect(),
            price: Some(variant.price.into()),
            other_prices: variant.prices.into_iter().map(Into::into).collect(),
            stock: variant.stock,
        }
    }
}

/// Entries of a list that are parted by commas.
fn listed(text: &str) -> Vec<String> {
    let entries = text.split(',').map(str::trim);
    let entries = entries.filter(|entry| !entry.is_empty());
    entries.map(ToOwned::to_owned).collect()
}

/// `size=M;color=Red`, as product files write it.
fn read_options(text: &str) -> Result<HashMap<String, String>, GatewayError> {
    text.split(';')
        .filter(|option| !option.is_empty())
        .map(|option| {
            let (name, value) = option.split_once('=').ok_or_else(|| GatewayError::Field {
                field: "options".to_owned(),
                text: format!("got {option:?}, wanted such as size=M;color=Red"),
            })?;
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

impl From<pb::Facets> for Facets {
    fn from(facets: pb::Facets) -> Self {
        let values = |values: Vec<pb::FacetValue>| -> Vec<FacetValue> {
            let value = |pb::FacetValue { value, count }| FacetValue { value, count };
            values.into_iter().map(value).collect()
        };
        Self {
            categories: values(facets.categories),
            options: (facets.options.into_iter())
                .map(|option| (option.name, values(option.values)))
                .collect(),
            prices: (facets.prices.into_iter())
                .map(|range| PriceRange {
                    currency: range.currency,
                    from: range.from,
                    below: range.below,
                    count: range.count,
                })
                .collect(),
            currencies: values(facets.currencies),
            counted: facets.counted,
            complete: facets.complete,
        }
    }
}

fn product(product: pb::Product) -> Result<Product, Problem> {
    let variants: Vec<Variant> = product
        .variants
        .into_iter()
        .map(variant)
        .collect::<Result<_, _>>()?;
    let cheapest = variants.iter().map(|variant| &variant.price);
    Ok(Product {
        price: cheapest.min_by_key(|price| price.amount).cloned(),
        created_at: moment(product.created_at.as_ref(), "catalog")?,
        id: product.id,
        slug: product.slug,
        name: product.name,
        description: product.description,
        kind: product.kind,
        category: (!product.category.is_empty()).then_some(product.category),
        currency: product.currency,
        images: product.images,
        rating: Rating::of(&product.histogram),
        variants,
        status: product.status,
    })
}

fn variant(variant: pb::Variant) -> Result<Variant, Problem> {
    Ok(Variant {
        price: promised(variant.price, "catalog", "a price")?.into(),
        sku: variant.sku,
        name: variant.name,
        options: variant.options.into_iter().collect(),
        prices: variant.other_prices.into_iter().map(Into::into).collect(),
        available: variant.available,
    })
}
