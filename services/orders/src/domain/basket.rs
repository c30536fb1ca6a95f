//! What is to be bought.

use std::collections::BTreeMap;

use holdfast_kernel::Sku;

use crate::error::OrdersError;

/// Lines of one order.
pub(crate) const LINES_MAX_ENTRIES: usize = 1_000;

/// Units of one SKU in one order.
pub(crate) const QUANTITY_MAX_UNITS: i64 = 1_000_000;

/// What is to be bought: each SKU once, in the order first named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Basket(Vec<(Sku, i64)>);

impl Basket {
    /// Sums the lines of each SKU. Fails on no line, too many, or quantities out of bounds.
    pub(crate) fn new(lines: Vec<(Sku, i64)>) -> Result<Self, OrdersError> {
        let count = lines.len();
        if count == 0 || count > LINES_MAX_ENTRIES {
            return Err(OrdersError::field(
                "items",
                format!("{count} entries, wanted 1 to {LINES_MAX_ENTRIES}"),
            ));
        }
        let mut places: BTreeMap<Sku, usize> = BTreeMap::new();
        let mut summed: Vec<(Sku, i64)> = Vec::with_capacity(count);
        for (at, (sku, quantity)) in lines.into_iter().enumerate() {
            let out_of_bounds = |got: i64| {
                OrdersError::field(
                    format!("items[{at}].quantity"),
                    format!("{got}, wanted 1 to {QUANTITY_MAX_UNITS} of one sku"),
                )
            };
            if !(1..=QUANTITY_MAX_UNITS).contains(&quantity) {
                return Err(out_of_bounds(quantity));
            }
            if let Some(&place) = places.get(&sku) {
                summed[place].1 += quantity;
                if summed[place].1 > QUANTITY_MAX_UNITS {
                    return Err(out_of_bounds(summed[place].1));
                }
            } else {
                places.insert(sku.clone(), summed.len());
                summed.push((sku, quantity));
            }
        }
        Ok(Self(summed))
    }

    /// Each SKU once, with its units.
    pub(crate) fn lines(&self) -> &[(Sku, i64)] {
        &self.0
    }
}
