//! The tree that products hang in.

use std::collections::BTreeMap;

use axum::{
    Extension,
    extract::{Path, State},
};
use holdfast_platform::identity::Caller;
use holdfast_proto::catalog::v1 as pb;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Answer, promised, shape::Page};
use crate::{
    Gateway, decode::Json, idempotency::Keyed, precondition::Expected, problems::Problem,
    reply::Reply,
};

pub(super) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(list_categories, create_category))
        .routes(routes!(one_category, change_category, delete_category))
}

/// A branch of the tree.
#[derive(Serialize, ToSchema)]
struct Category {
    #[schema(example = "clothing")]
    slug: String,
    #[schema(example = "Clothing")]
    name: String,
    /// The slug of the one it hangs below; null for a root.
    parent: Option<String>,
    /// Products for sale in it and in those below it.
    products: i64,
}

/// A category and all below it.
#[derive(Serialize, ToSchema)]
struct Branch {
    #[serde(flatten)]
    category: Category,
    /// Those directly below, by name.
    #[schema(no_recursion)]
    children: Vec<Branch>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewCategory {
    /// Lower-case letters, digits and single hyphens.
    #[schema(
        example = "shirts",
        pattern = "^[a-z0-9]+(-[a-z0-9]+)*$",
        max_length = 80
    )]
    slug: String,
    /// As people read it; the slug when left out.
    #[serde(default)]
    #[schema(example = "Shirts", max_length = 200)]
    name: String,
    /// The slug of the one it shall hang below; left out or null: a root.
    #[schema(
        example = "clothing",
        pattern = "^[a-z0-9]+(-[a-z0-9]+)*$",
        max_length = 80
    )]
    parent: Option<String>,
}

/// What shall be otherwise; what is left out stays.
#[expect(
    clippy::option_option,
    reason = "no parent at all and one that is left out are two wishes"
)]
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CategoryChange {
    /// Its products follow.
    #[schema(pattern = "^[a-z0-9]+(-[a-z0-9]+)*$", max_length = 80)]
    slug: Option<String>,
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// Null makes it a root.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, pattern = "^[a-z0-9]+(-[a-z0-9]+)*$", max_length = 80)]
    parent: Option<Option<String>>,
}

/// Shows the tree of categories, siblings by name.
#[utoipa::path(get, path = "/v1/categories", tag = "catalog", responses((status = 200, body = Page<Branch>)))]
async fn list_categories(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
) -> Result<Reply, Problem> {
    let answer = gateway
        .peers
        .catalog
        .clone()
        .list_categories(caller.request(pb::ListCategoriesRequest {}))
        .await?
        .into_inner();
    Ok(Reply::ok(&Page::new(branches(answer.categories), None)))
}

/// Shows one category.
#[utoipa::path(get, path = "/v1/categories/{slug}", tag = "catalog", params(("slug" = String, Path)),
    responses((status = 200, body = Category)))]
async fn one_category(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(slug): Path<String>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::GetCategoryRequest { slug });
    let mut catalog = gateway.peers.catalog.clone();
    let answer = catalog.get_category(request).await?.into_inner();
    Ok(tagged(promised(
        answer.category,
        "catalog",
        "the category",
    )?))
}

/// Makes a category.
#[utoipa::path(post, path = "/v1/categories", tag = "catalog", request_body = NewCategory,
    params(("idempotency-key" = String, Header)), responses((status = 201, body = Category)))]
async fn create_category(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Keyed { body, once }: Keyed<NewCategory>,
) -> Answer {
    let request = caller.request(pb::CreateCategoryRequest {
        request_id: once.request_id.to_string(),
        fingerprint: once.fingerprint(),
        slug: body.slug,
        name: body.name,
        parent: body.parent.unwrap_or_default(),
    });
    let mut catalog = gateway.peers.catalog.clone();
    let effect = async move {
        let answer = catalog.create_category(request).await?.into_inner();
        let made = promised(answer.category, "catalog", "the category")?;
        let (version, location) = (made.version, format!("/v1/categories/{}", made.slug));
        Ok(Reply::created(&Category::from(made), &location).tagged(version))
    };
    gateway.replies.once(once, effect).await
}

/// Renames a category, moves it with all below it, or gives it another slug, if it is still as it was read.
#[utoipa::path(patch, path = "/v1/categories/{slug}", tag = "catalog", request_body = CategoryChange,
    params(("slug" = String, Path), ("if-match" = String, Header, description = "the ETag it was read with")),
    responses((status = 200, body = Category)))]
async fn change_category(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(slug): Path<String>,
    Expected(expected): Expected,
    Json(change): Json<CategoryChange>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::UpdateCategoryRequest {
        slug,
        expected_version: expected,
        name: change.name,
        parent: change.parent.map(Option::unwrap_or_default),
        new_slug: change.slug,
    });
    let mut catalog = gateway.peers.catalog.clone();
    let answer = catalog.update_category(request).await?.into_inner();
    Ok(tagged(promised(
        answer.category,
        "catalog",
        "the category",
    )?))
}

/// Deletes a category that has neither products nor categories, if it is still as it was read.
#[utoipa::path(delete, path = "/v1/categories/{slug}", tag = "catalog",
    params(("slug" = String, Path), ("if-match" = String, Header, description = "the ETag it was read with")),
    responses((status = 204)))]
async fn delete_category(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(slug): Path<String>,
    Expected(expected): Expected,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::DeleteCategoryRequest {
        slug,
        expected_version: expected,
    });
    gateway
        .peers
        .catalog
        .clone()
        .delete_category(request)
        .await?;
    Ok(Reply::nothing())
}

/// Tells null from nothing at all.
#[expect(
    clippy::option_option,
    reason = "no parent at all and one that is left out are two wishes"
)]
fn given<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(reader).map(Some)
}

fn tagged(category: pb::Category) -> Reply {
    let version = category.version;
    Reply::ok(&Category::from(category)).tagged(version)
}

/// Of a list in which parents come before their children, the roots with all below them.
fn branches(categories: Vec<pb::Category>) -> Vec<Branch> {
    let mut below: BTreeMap<Option<String>, Vec<Branch>> = BTreeMap::new();
    // From the end on, each finds its children complete.
    for category in categories.into_iter().rev() {
        let category = Category::from(category);
        let mut children = below
            .remove(&Some(category.slug.clone()))
            .unwrap_or_default();
        children.reverse();
        let siblings = below.entry(category.parent.clone()).or_default();
        siblings.push(Branch { category, children });
    }
    let mut roots = below.remove(&None).unwrap_or_default();
    roots.reverse();
    roots
}

impl From<pb::Category> for Category {
    fn from(category: pb::Category) -> Self {
        Self {
            slug: category.slug,
            name: category.name,
            parent: (!category.parent.is_empty()).then_some(category.parent),
            products: category.products,
        }
    }
}
