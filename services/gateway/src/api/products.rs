//! What is for sale.

use axum::{
    Extension,
    extract::{Path, State},
};
use holdfast_platform::identity::Caller;
use holdfast_proto::catalog::v1 as pb;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Answer, if_match, promised,
    shape::{Money, Options, Page, Slice, moment, paged},
};
use crate::{
    Gateway,
    decode::{Json, Query},
    idempotency::Keyed,
    problems::Problem,
    reply::Reply,
};

pub(super) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(list_products, create_product))
        .routes(routes!(one_product, change_product))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewProduct {
    #[schema(example = "T-shirt")]
    name: String,
    #[serde(default)]
    description: String,
    /// `good`.
    #[serde(default = "good")]
    kind: String,
    /// A slug; made when it is new.
    #[serde(default)]
    category: String,
    /// ISO 4217; that of all its prices.
    #[schema(example = "JPY")]
    currency: String,
    #[serde(default)]
    images: Vec<String>,
    variants: Vec<NewVariant>,
    /// `draft` or `published`.
    #[serde(default = "published")]
    status: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewVariant {
    /// 1 to 64 of A-Z 0-9 . _ - @
    #[schema(example = "TSHIRT-M")]
    sku: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    options: Options,
    price: Money,
    /// First capacity; left out: none is kept yet.
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

/// Nobody can review yet.
const UNRATED: Rating = Rating {
    average: None,
    count: 0,
    histogram: [0; 5],
};

#[derive(Serialize, ToSchema)]
struct Variant {
    sku: String,
    name: String,
    options: Options,
    price: Money,
    available: i64,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// A category's slug.
    category: Option<String>,
    /// 1 to 100; 20 when left out.
    limit: Option<i32>,
    /// `next_cursor` of the slice before.
    cursor: Option<String>,
}

/// Lists published products, newest first; staff see drafts too.
#[utoipa::path(get, path = "/v1/products", tag = "catalog", params(Wanted), responses((status = 200, body = Page<Product>)))]
async fn list_products(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Query(wanted): Query<Wanted>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::ListProductsRequest {
        category: wanted.category.unwrap_or_default(),
        page: Some(Slice::new(wanted.limit, wanted.cursor).request()?),
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
    Ok(Reply::ok(&Page::<Product>::new(products, answer.page)))
}

/// Shows one product, by id or slug.
#[utoipa::path(get, path = "/v1/products/{id}", tag = "catalog", params(("id" = String, Path, description = "id or slug")),
    responses((status = 200, body = Product)))]
async fn one_product(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::GetProductRequest { id });
    let answer = gateway
        .peers
        .catalog
        .clone()
        .get_product(request)
        .await?
        .into_inner();
    let found = promised(answer.product, "catalog", "the product")?;
    let version = found.version;
    Ok(Reply::ok(&product(found)?).tagged(version))
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
struct ProductChange {
    /// `draft` or `published`.
    status: String,
}

/// Puts a product on sale or takes it off; with `If-Match` only if it is still as it was read.
#[utoipa::path(patch, path = "/v1/products/{id}", tag = "catalog", request_body = ProductChange,
    params(("id" = String, Path), ("if-match" = Option<String>, Header, description = "the ETag it was read with")),
    responses((status = 200, body = Product)))]
async fn change_product(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(change): Json<ProductChange>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::UpdateProductRequest {
        product_id: id,
        expected_version: if_match(&headers)?.unwrap_or_default(),
        status: change.status,
    });
    let answer = gateway
        .peers
        .catalog
        .clone()
        .update_product(request)
        .await?
        .into_inner();
    let changed = promised(answer.product, "catalog", "the product")?;
    let version = changed.version;
    Ok(Reply::ok(&product(changed)?).tagged(version))
}

impl From<NewVariant> for pb::NewVariant {
    fn from(variant: NewVariant) -> Self {
        Self {
            sku: variant.sku,
            name: variant.name,
            options: variant.options.into_iter().collect(),
            price: Some(variant.price.into()),
            stock: variant.stock,
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
        rating: UNRATED,
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
        available: variant.available,
    })
}
