//! Changing what is there.

use holdfast_kernel::{Id, id, time};
use holdfast_proto::catalog::v1 as pb;

use super::{Api, check_batch, parse_money, parse_prices, refused};
use crate::{
    changing,
    domain::{Change, Product, Status, VariantChange},
    error::CatalogError,
};

impl Api {
    pub(super) async fn change(
        &self,
        request: pb::UpdateProductRequest,
        by: Id<id::User>,
    ) -> Result<Product, CatalogError> {
        let id = parse_id(&request.product_id)?;
        let word = request.status.as_str();
        let change = Change {
            name: request.name,
            description: request.description,
            category: request
                .category
                .map(|slug| Some(slug).filter(|slug| !slug.is_empty())),
            images: request.images.map(|images| images.urls),
            price: match request.price {
                Some(price) => Some(parse_money("price", Some(price))?),
                None => None,
            },
            status: match word {
                "" => None,
                word => Some(Status::parse(word)?),
            },
        };
        let now = time::to_micros(self.context.clock.now());
        let expected = expected(request.expected_version);
        changing::change(id, change, expected, by, &self.context, now).await
    }

    pub(super) async fn publish(
        &self,
        products: &[String],
        by: Id<id::User>,
    ) -> Result<(), CatalogError> {
        check_batch(products.len())?;
        let mut ids: Vec<Id<id::Product>> = Vec::with_capacity(products.len());
        for (at, product) in products.iter().enumerate() {
            let place = || format!("products[{at}]");
            let id = product
                .parse()
                .map_err(|error| refused(place(), format!("{error}")))?;
            if ids.contains(&id) {
                return Err(refused(place(), "stands in the batch already"));
            }
            ids.push(id);
        }
        let now = time::to_micros(self.context.clock.now());
        changing::publish(&ids, by, &self.context, now)
            .await
            .map(drop)
    }

    pub(super) async fn delete(
        &self,
        request: &pb::DeleteProductRequest,
        by: Id<id::User>,
    ) -> Result<(), CatalogError> {
        let id = parse_id(&request.product_id)?;
        let now = time::to_micros(self.context.clock.now());
        let expected = expected(request.expected_version);
        changing::delete(id, expected, by, &self.context, now).await
    }

    pub(super) async fn change_variant(
        &self,
        request: pb::UpdateVariantRequest,
        by: Id<id::User>,
    ) -> Result<Product, CatalogError> {
        let id = parse_id(&request.product_id)?;
        let change = VariantChange {
            name: request.name,
            options: request
                .options
                .map(|options| options.values.into_iter().collect()),
            price: match request.price {
                Some(price) => Some(parse_money("price", Some(price))?),
                None => None,
            },
            other_prices: match request.other_prices {
                Some(list) => Some(parse_prices("prices", list.prices)?),
                None => None,
            },
        };
        let now = time::to_micros(self.context.clock.now());
        let expected = expected(request.expected_version);
        changing::change_variant(id, &request.sku, change, expected, by, &self.context, now).await
    }

    pub(super) async fn remove_variant(
        &self,
        request: &pb::DeleteVariantRequest,
        by: Id<id::User>,
    ) -> Result<(), CatalogError> {
        let id = parse_id(&request.product_id)?;
        let now = time::to_micros(self.context.clock.now());
        let expected = expected(request.expected_version);
        changing::remove_variant(id, &request.sku, expected, by, &self.context, now).await
    }
}

fn parse_id(text: &str) -> Result<Id<id::Product>, CatalogError> {
    text.parse().map_err(|_| CatalogError::UnknownProduct)
}

/// None where the caller takes whatever stands.
fn expected(version: i64) -> Option<i64> {
    (version != 0).then_some(version)
}
