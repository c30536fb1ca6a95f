//! Reading what is looked for, and telling what was found.

use std::{collections::BTreeMap, sync::Arc};

use holdfast_kernel::{
    Currency,
    page::{self, PageToken},
};
use holdfast_platform::database;
use holdfast_proto::{catalog::v1 as pb, page::v1 as page_pb};
use sqlx::PgPool;

use super::{Api, encode, parse_currency, refused};
use crate::{
    domain::{self, Product, words::Query},
    error::CatalogError,
    search::{self, Facets, PRICE_STEPS, Sort, Wish},
    store::{self, Filter},
};

const QUERY_MAX_CHARS: usize = 200;
/// Values of one facet that are told, those of most products.
const FACET_MAX_VALUES: usize = 100;
/// What there is to sell, as far as words go.
const KINDS: [&str; 3] = ["good", "stay", "tour"];

impl Api {
    pub(super) async fn list(
        &self,
        request: pb::ListProductsRequest,
        drafts: bool,
    ) -> Result<pb::ListProductsResponse, CatalogError> {
        let asked_for = asked_for(&request);
        let asked = request.page.unwrap_or_default();
        let currency = parse_currency("currency", &request.currency)?;
        let filter = Filter {
            categories: None,
            currency,
            options: domain::check_options("options", request.options.into_iter().collect())?,
            price_min: request.price_min,
            price_max: request.price_max,
            drafts,
        };
        let wish = Wish {
            query: parse_query(&request.query)?,
            sort: parse_sort(&request.sort)?,
            filter,
            facets: request.facets,
            place: page::read_token(&asked.token)?,
            size: page::page_size(asked.size)? as usize,
        };
        if !sells(&request.kinds)? {
            return Ok(pb::ListProductsResponse::default());
        }
        let database = self.context.database.clone();
        let mut list = if drafts {
            read_list(wish, request.category, database).await?
        } else {
            let found = self.shown.lists.get_or_fill(&asked_for, || async move {
                let list = read_list(wish, request.category, database).await?;
                Ok(Some(Arc::new(list)))
            });
            found
                .await?
                .map_or_else(Default::default, |list| (*list).clone())
        };
        self.stock(&mut list.products).await?;
        Ok(list)
    }
}

/// What is found, without how much of it is available.
async fn read_list(
    mut wish: Wish,
    category: String,
    database: PgPool,
) -> Result<pb::ListProductsResponse, CatalogError> {
    let mut db = database::acquire(&database).await?;
    if !category.is_empty() {
        let branch = store::category_and_below(&mut db, &category).await?;
        wish.filter.categories = Some(branch);
    }
    let found = search::find(&mut db, &wish).await?;
    let next = found.next.map(|place| PageToken::after(&place));
    let products = found.products.into_iter();
    let products = products.filter_map(|product| shown_in(product, wish.filter.currency));
    Ok(pb::ListProductsResponse {
        products: encode(&mut db, products.collect()).await?,
        page: Some(page_pb::PageInfo {
            next_token: next.unwrap_or_default().into_text(),
        }),
        facets: found.facets.map(encode_facets),
    })
}

/// All that decides what a list of what is on sale shows, as one text. Kinds do not: only goods are sold.
fn asked_for(request: &pb::ListProductsRequest) -> String {
    let pb::ListProductsRequest {
        category,
        page,
        currency,
        query,
        sort,
        options,
        price_min,
        price_max,
        kinds: _,
        facets,
    } = request;
    let options: BTreeMap<&String, &String> = options.iter().collect();
    let page = page.as_ref().map(|page| (page.size, &page.token));
    let words = (category, currency, query, sort, options);
    format!("{:?}", (words, price_min, price_max, facets, page))
}

fn shown_in(product: Product, currency: Option<Currency>) -> Option<Product> {
    match currency {
        Some(currency) => product.sold_in(currency),
        None => Some(product),
    }
}

/// None where nothing is looked for. Text without any word in it finds what no text finds.
fn parse_query(text: &str) -> Result<Option<Query>, CatalogError> {
    let chars = text.chars().count();
    if chars > QUERY_MAX_CHARS {
        let text = format!("{chars} characters, wanted at most {QUERY_MAX_CHARS}");
        return Err(refused("q", text));
    }
    Ok(Query::read(text))
}

fn parse_sort(word: &str) -> Result<Sort, CatalogError> {
    if word.is_empty() {
        return Ok(Sort::Relevance);
    }
    let found = Sort::ALL.into_iter().find(|sort| sort.as_str() == word);
    found.ok_or_else(|| {
        let known: Vec<&str> = Sort::ALL.into_iter().map(Sort::as_str).collect();
        let text = format!("got {word:?}, wanted one of {}", known.join(", "));
        refused("sort", text)
    })
}

/// Whether anything of these kinds is sold; all kinds where none is named.
fn sells(kinds: &[String]) -> Result<bool, CatalogError> {
    if let Some(unknown) = kinds.iter().find(|kind| !KINDS.contains(&kind.as_str())) {
        let text = format!("got {unknown:?}, wanted some of {}", KINDS.join(", "));
        return Err(refused("kind", text));
    }
    Ok(kinds.is_empty() || kinds.iter().any(|kind| kind == "good"))
}

fn encode_facets(facets: Facets) -> pb::Facets {
    let mut encoded = pb::Facets {
        counted: facets.counted as i64,
        complete: facets.complete,
        ..pb::Facets::default()
    };
    let mut options: BTreeMap<String, Vec<pb::FacetValue>> = BTreeMap::new();
    for counted in facets.counts {
        let value = |value| pb::FacetValue {
            value,
            count: counted.count,
        };
        match counted.facet.as_str() {
            "category" => encoded.categories.push(value(counted.name)),
            "currency" => encoded.currencies.push(value(counted.name)),
            "option" => options
                .entry(counted.name)
                .or_default()
                .push(value(counted.value)),
            _ => encoded.prices.push(pb::PriceRange {
                currency: counted.name,
                from: step(counted.step - 1).unwrap_or_default(),
                below: step(counted.step),
                count: counted.count,
            }),
        }
    }
    encoded.categories.truncate(FACET_MAX_VALUES);
    encoded.currencies.truncate(FACET_MAX_VALUES);
    encoded
        .prices
        .sort_by_key(|range| (range.currency.clone(), range.from));
    encoded.options = options
        .into_iter()
        .take(FACET_MAX_VALUES)
        .map(|(name, mut values)| {
            values.truncate(FACET_MAX_VALUES);
            pb::OptionFacet { name, values }
        })
        .collect();
    encoded
}

fn step(at: i32) -> Option<i64> {
    PRICE_STEPS.get(usize::try_from(at).ok()?).copied()
}
