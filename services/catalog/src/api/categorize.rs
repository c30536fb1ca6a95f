//! Reading and shaping the tree of categories.

use holdfast_kernel::{Id, RequestId, Timestamp, id, time};
use holdfast_platform::database;
use holdfast_proto::catalog::v1 as pb;

use super::{Api, refused};
use crate::{
    changing,
    domain::category::{Category, Recategorizing, Tree},
    error::CatalogError,
    messages::{self, Action},
    store,
};

/// Products that a refusal to delete their category names.
const SHOWN_MAX_PRODUCTS: i64 = 20;

impl Api {
    pub(super) async fn categories(&self) -> Result<Vec<pb::Category>, CatalogError> {
        let mut db = database::acquire(&self.context.database).await?;
        let tree = Tree::new(store::list_categories(&mut db).await?);
        let counts = store::count_products(&mut db).await?;
        Ok(tree.counted(&counts).into_iter().map(encode).collect())
    }

    pub(super) async fn category(&self, slug: &str) -> Result<pb::Category, CatalogError> {
        let categories = self.categories().await?;
        let mut found = categories.into_iter().filter(|found| found.slug == slug);
        found.next().ok_or(CatalogError::UnknownCategory)
    }

    /// Makes a category; by the same request it is made once.
    pub(super) async fn make_category(
        &self,
        request: pb::CreateCategoryRequest,
        by: Id<id::User>,
        now: Timestamp,
    ) -> Result<pb::Category, CatalogError> {
        let maker = store::Maker {
            request: request
                .request_id
                .parse::<RequestId>()
                .map_err(|_| refused("request_id", "not a UUID"))?,
            fingerprint: &request.fingerprint,
        };
        let name = Some(request.name).filter(|name| !name.is_empty());
        let category = Category {
            name: name.unwrap_or_else(|| request.slug.clone()),
            slug: request.slug,
            parent: Some(request.parent).filter(|parent| !parent.is_empty()),
            version: 1,
        };
        category.check()?;
        let mut tx = database::begin(&self.context.database).await?;
        store::lock_tree(&mut tx).await?;
        if let Some((slug, fingerprint)) = store::find_made_category(&mut tx, maker.request).await?
        {
            if fingerprint != maker.fingerprint {
                return Err(CatalogError::KeyReused);
            }
            drop(tx);
            return self.category(&slug).await;
        }
        let tree = Tree::new(store::list_categories(&mut tx).await?);
        if tree.get(&category.slug).is_some() {
            return Err(CatalogError::CategoryExists(category.slug));
        }
        tree.has_room()?;
        tree.may_hang(&category.slug, category.parent.as_deref())?;
        store::insert_category(&mut tx, &category, Some(maker), now).await?;
        messages::announce_listing(&mut tx, None, now).await?;
        let done = Action::CategoryCreated {
            category: category.slug.clone(),
        };
        messages::record(&mut tx, by, [done], now).await?;
        changing::commit(tx, &self.context).await?;
        self.category(&category.slug).await
    }

    /// Renames, moves, gives another slug.
    pub(super) async fn change_category(
        &self,
        request: pb::UpdateCategoryRequest,
        by: Id<id::User>,
    ) -> Result<pb::Category, CatalogError> {
        let change = Recategorizing {
            name: request.name,
            parent: request
                .parent
                .map(|parent| Some(parent).filter(|parent| !parent.is_empty())),
            slug: request.new_slug,
        };
        let mut tx = database::begin(&self.context.database).await?;
        store::lock_tree(&mut tx).await?;
        let tree = Tree::new(store::list_categories(&mut tx).await?);
        let before = tree
            .get(&request.slug)
            .ok_or(CatalogError::UnknownCategory)?;
        let category = before.change(change, request.expected_version)?;
        if category.version != before.version {
            if category.slug != before.slug && tree.get(&category.slug).is_some() {
                return Err(CatalogError::CategoryExists(category.slug));
            }
            if category.parent != before.parent {
                tree.may_hang(&before.slug, category.parent.as_deref())?;
            }
            store::save_category(&mut tx, &before.slug, &category).await?;
            let branch = store::category_and_below(&mut tx, &category.slug).await?;
            store::refind_branch(&mut tx, &branch).await?;
            let now = time::to_micros(self.context.clock.now());
            messages::announce_listing(&mut tx, None, now).await?;
            let done = Action::CategoryChanged {
                category: category.slug.clone(),
            };
            messages::record(&mut tx, by, [done], now).await?;
        }
        changing::commit(tx, &self.context).await?;
        self.category(&category.slug).await
    }

    /// Takes out a category that nothing hangs on.
    pub(super) async fn remove_category(
        &self,
        request: pb::DeleteCategoryRequest,
        by: Id<id::User>,
    ) -> Result<(), CatalogError> {
        let mut tx = database::begin(&self.context.database).await?;
        store::lock_tree(&mut tx).await?;
        let tree = Tree::new(store::list_categories(&mut tx).await?);
        let category = tree
            .get(&request.slug)
            .ok_or(CatalogError::UnknownCategory)?;
        category.is_at(request.expected_version)?;
        let children: Vec<String> = tree
            .children(&category.slug)
            .map(ToOwned::to_owned)
            .collect();
        let products =
            store::products_in_category(&mut tx, &category.slug, SHOWN_MAX_PRODUCTS).await?;
        if !children.is_empty() || !products.is_empty() {
            return Err(CatalogError::CategoryInUse { children, products });
        }
        if !store::delete_category(&mut tx, &category.slug).await? {
            return Err(CatalogError::CategoryInUse { children, products });
        }
        let now = time::to_micros(self.context.clock.now());
        let done = Action::CategoryDeleted {
            category: request.slug,
        };
        messages::record(&mut tx, by, [done], now).await?;
        changing::commit(tx, &self.context).await
    }
}

fn encode((category, products): (&Category, i64)) -> pb::Category {
    pb::Category {
        slug: category.slug.clone(),
        name: category.name.clone(),
        parent: category.parent.clone().unwrap_or_default(),
        products,
        version: category.version,
    }
}
