//! The tree of categories: what hangs where, and what may.

use std::collections::{BTreeMap, BTreeSet};

use super::{NAME_MAX_CHARS, refused, slug, within};
use crate::error::CatalogError;

/// A branch of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Category {
    pub(crate) slug: String,
    /// As people read it.
    pub(crate) name: String,
    /// The slug of the one it hangs below; none for a root.
    pub(crate) parent: Option<String>,
    /// Rises by one with every change.
    pub(crate) version: i64,
}

/// What shall become of a category; what is none stays.
#[expect(
    clippy::option_option,
    reason = "no parent at all and one that is left out are two wishes"
)]
#[derive(Debug, Default)]
pub(crate) struct Recategorizing {
    pub(crate) name: Option<String>,
    /// Some of none makes it a root.
    pub(crate) parent: Option<Option<String>>,
    pub(crate) slug: Option<String>,
}

/// All categories, none below itself.
pub(crate) struct Tree(BTreeMap<String, Category>);

/// Levels from a root to the deepest leaf.
const DEPTH_MAX_LEVELS: usize = 6;
/// Categories below one other.
const CHILDREN_MAX_ENTRIES: usize = 200;
/// Categories in all; the tree is read as a whole.
const CATEGORIES_MAX_ENTRIES: usize = 2_000;

/// Tells whether a text can be a category's slug.
pub(crate) fn check_slug(field: &str, text: &str) -> Result<(), CatalogError> {
    if !text.is_empty() && slug(text) == text {
        return Ok(());
    }
    let wanted = "lower-case letters, digits and single hyphens";
    Err(refused(field, format!("{text:?} is no slug: {wanted}")))
}

impl Category {
    /// Changed in this way; in nothing changed, it is as it was, version and all.
    ///
    /// `expected` is the version the caller looked at.
    pub(crate) fn change(
        &self,
        change: Recategorizing,
        expected: i64,
    ) -> Result<Self, CatalogError> {
        self.is_at(expected)?;
        let changed = Self {
            slug: change.slug.unwrap_or_else(|| self.slug.clone()),
            name: change.name.unwrap_or_else(|| self.name.clone()),
            parent: change.parent.unwrap_or_else(|| self.parent.clone()),
            version: self.version,
        };
        changed.check()?;
        if changed == *self {
            return Ok(changed);
        }
        Ok(Self {
            version: self.version + 1,
            ..changed
        })
    }

    /// Whether it still is as the caller looked at it.
    pub(crate) fn is_at(&self, expected: i64) -> Result<(), CatalogError> {
        if expected == self.version {
            return Ok(());
        }
        Err(CatalogError::CategoryChanged {
            expected,
            actual: self.version,
        })
    }

    /// Tells the first thing about it that cannot be taken.
    pub(crate) fn check(&self) -> Result<(), CatalogError> {
        check_slug("slug", &self.slug)?;
        within("name", &self.name, 1, NAME_MAX_CHARS)
    }
}

impl Tree {
    pub(crate) fn new(categories: Vec<Category>) -> Self {
        let by_slug = categories
            .into_iter()
            .map(|category| (category.slug.clone(), category));
        Self(by_slug.collect())
    }

    pub(crate) fn get(&self, slug: &str) -> Option<&Category> {
        self.0.get(slug)
    }

    /// Whether one more fits at all.
    pub(crate) fn has_room(&self) -> Result<(), CatalogError> {
        if self.0.len() < CATEGORIES_MAX_ENTRIES {
            return Ok(());
        }
        Err(CatalogError::CategoryTreeFull(format!(
            "there are {CATEGORIES_MAX_ENTRIES} categories already"
        )))
    }

    /// Whether `category`, new or with all that hangs on it, may hang where it says.
    pub(crate) fn may_hang(
        &self,
        category: &str,
        parent: Option<&str>,
    ) -> Result<(), CatalogError> {
        let Some(parent) = parent else {
            return Ok(());
        };
        if !self.0.contains_key(parent) {
            return Err(refused("parent", format!("there is no category {parent}")));
        }
        let above = self.path(parent);
        if above.contains(&category) {
            return Err(CatalogError::CategoryCycle {
                category: category.to_owned(),
                parent: parent.to_owned(),
            });
        }
        let siblings = self.children(parent).filter(|child| *child != category);
        if siblings.count() >= CHILDREN_MAX_ENTRIES {
            return Err(CatalogError::CategoryTreeFull(format!(
                "category {parent} has {CHILDREN_MAX_ENTRIES} below it already"
            )));
        }
        let levels = above.len() + self.height(category);
        if levels > DEPTH_MAX_LEVELS {
            return Err(CatalogError::CategoryTreeFull(format!(
                "below {parent} the tree would be {levels} levels deep, wanted at most {DEPTH_MAX_LEVELS}"
            )));
        }
        Ok(())
    }

    /// Slugs of those directly below.
    pub(crate) fn children(&self, parent: &str) -> impl Iterator<Item = &str> {
        self.0
            .values()
            .filter(move |category| category.parent.as_deref() == Some(parent))
            .map(|category| category.slug.as_str())
    }

    /// Slugs from this one up to its root.
    pub(crate) fn path<'a>(&'a self, slug: &'a str) -> Vec<&'a str> {
        let mut path = Vec::new();
        let mut at = Some(slug);
        while let Some(slug) = at.filter(|_| path.len() <= DEPTH_MAX_LEVELS) {
            path.push(slug);
            at = self.get(slug).and_then(|found| found.parent.as_deref());
        }
        path
    }

    /// Every category with the sum of `counts` in it and in those below it: parents first, siblings by name.
    pub(crate) fn counted(&self, counts: &BTreeMap<String, i64>) -> Vec<(&Category, i64)> {
        let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
        for (slug, count) in counts {
            for above in self.path(slug) {
                *sums.entry(above).or_default() += count;
            }
        }
        let mut below: BTreeMap<Option<&str>, BTreeSet<(&str, &str)>> = BTreeMap::new();
        for category in self.0.values() {
            let siblings = below.entry(category.parent.as_deref()).or_default();
            siblings.insert((&category.name, &category.slug));
        }
        let mut ordered = Vec::with_capacity(self.0.len());
        let mut waiting: Vec<&str> = Vec::new();
        let mut next = |waiting: &mut Vec<_>, parent| {
            let children = below.remove(&parent).unwrap_or_default();
            waiting.extend(children.into_iter().rev().map(|(_, slug)| slug));
        };
        next(&mut waiting, None);
        while let Some(slug) = waiting.pop() {
            if let Some(category) = self.get(slug) {
                let products = sums.get(slug).copied().unwrap_or_default();
                ordered.push((category, products));
            }
            next(&mut waiting, Some(slug));
        }
        ordered
    }

    /// Levels of what hangs on this one, itself included; 1 for a new one.
    fn height(&self, slug: &str) -> usize {
        let mut level = vec![slug];
        let mut levels = 0;
        while !level.is_empty() && levels <= DEPTH_MAX_LEVELS {
            levels += 1;
            level = level
                .into_iter()
                .flat_map(|slug| self.children(slug))
                .collect();
        }
        levels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(rows: &[(&str, Option<&str>)]) -> Tree {
        let category = |(slug, parent): &(&str, Option<&str>)| Category {
            slug: (*slug).to_owned(),
            name: (*slug).to_owned(),
            parent: parent.map(ToOwned::to_owned),
            version: 1,
        };
        Tree::new(rows.iter().map(category).collect())
    }

    #[test]
    fn nothing_hangs_below_itself_however_far_down() {
        let tree = tree(&[("a", None), ("b", Some("a")), ("c", Some("b"))]);
        for parent in ["a", "b", "c"] {
            assert!(
                matches!(
                    tree.may_hang("a", Some(parent)),
                    Err(CatalogError::CategoryCycle { .. })
                ),
                "{parent}"
            );
        }
        assert!(tree.may_hang("c", Some("a")).is_ok());
        assert!(tree.may_hang("b", None).is_ok());
    }

    #[test]
    fn a_branch_moves_only_where_its_deepest_leaf_fits() {
        let mut rows = vec![("1", None)];
        let names = ["1", "2", "3", "4", "5"];
        rows.extend(names.windows(2).map(|pair| (pair[1], Some(pair[0]))));
        rows.extend([("twig", None), ("leaf", Some("twig"))]);
        let tree = tree(&rows);
        assert!(tree.may_hang("new", Some("5")).is_ok());
        assert!(tree.may_hang("twig", Some("4")).is_ok());
        assert!(matches!(
            tree.may_hang("twig", Some("5")),
            Err(CatalogError::CategoryTreeFull(_))
        ));
    }

    #[test]
    fn one_more_than_fits_below_a_category_is_refused_and_moving_within_it_is_not() {
        let names: Vec<String> = (0..CHILDREN_MAX_ENTRIES)
            .map(|at| format!("c{at}"))
            .collect();
        let mut rows = vec![("top", None)];
        rows.extend(names.iter().map(|name| (name.as_str(), Some("top"))));
        let tree = tree(&rows);
        assert!(tree.may_hang("c7", Some("top")).is_ok());
        assert!(matches!(
            tree.may_hang("new", Some("top")),
            Err(CatalogError::CategoryTreeFull(_))
        ));
    }

    #[test]
    fn counts_of_products_rise_to_the_root_and_parents_come_before_their_children() {
        let tree = tree(&[("z", None), ("a", Some("z")), ("b", Some("a")), ("y", None)]);
        let counts = [("b", 2), ("z", 1)].map(|(slug, count)| (slug.to_owned(), count));
        let shown: Vec<(&str, i64)> = tree
            .counted(&counts.into())
            .into_iter()
            .map(|(category, products)| (category.slug.as_str(), products))
            .collect();
        assert_eq!(shown, [("y", 0), ("z", 3), ("a", 2), ("b", 2)]);
    }
}
