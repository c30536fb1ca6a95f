//! Comparing what the shop has in its books with what the file says, to the penny and the unit.

use std::collections::BTreeMap;

use anyhow::Context as _;
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use serde_json::Value;

use super::{
    live::{Lived, People},
    plan::{Order, Plan, Variant},
};
use crate::Door;

/// Calls in flight at the same time.
const CALLS_MAX: usize = 16;
const PAGE_MAX_ENTRIES: usize = 100;

/// Compares every order and every stock level; returns what differs, in words.
pub async fn check(
    plan: &Plan,
    lived: &Lived,
    people: &People,
    progress: &ProgressBar,
) -> anyhow::Result<Vec<String>> {
    let mut differences: Vec<String> = stream::iter(plan.orders.iter().zip(&lived.orders))
        .map(|(order, id)| async move {
            let found = people.buyers[order.account]
                .read(&format!("/v1/orders/{id}"))
                .await?;
            progress.inc(1);
            anyhow::Ok(compare_order(order, &found))
        })
        .buffered(CALLS_MAX)
        .try_collect::<Vec<_>>()
        .await?
        .concat();
    let pools = read_pools(&people.staff).await?;
    for variant in plan.variants() {
        let key = format!("sku:{}", variant.sku);
        match pools.get(&key) {
            Some(pool) => differences.extend(compare_pool(variant, pool)),
            None => differences.push(format!("{key}: not in stock at all")),
        }
        progress.inc(1);
    }
    Ok(differences)
}

fn compare_order(order: &Order, found: &Value) -> Vec<String> {
    let status = match order.refunded {
        0 => "confirmed",
        all if all == order.total.amount => "refunded",
        _ => "partially_refunded",
    };
    let mut bought = BTreeMap::<&str, i64>::new();
    for (sku, quantity) in &order.lines {
        *bought.entry(sku.as_str()).or_default() += quantity;
    }
    let items = found["items"].as_array().map_or(&[][..], Vec::as_slice);
    let told: BTreeMap<&str, i64> = items
        .iter()
        .filter_map(|item| Some((item["sku"].as_str()?, item["quantity"].as_i64()?)))
        .collect();
    let name = format!("invoice {}", order.invoice);
    let mut differences = differing(
        &name,
        &[
            ("status", status.into(), &found["status"]),
            (
                "total",
                order.total.amount.into(),
                &found["total"]["amount"],
            ),
            (
                "currency",
                order.total.currency.code().into(),
                &found["total"]["currency"],
            ),
            (
                "refunded",
                order.refunded.into(),
                &found["refunded"]["amount"],
            ),
        ],
    );
    if told != bought {
        differences.push(format!(
            "{name}: items are {told:?}, the file says {bought:?}"
        ));
    }
    differences
}

fn compare_pool(variant: &Variant, found: &Value) -> Vec<String> {
    differing(
        &format!("stock of {}", variant.sku),
        &[
            ("capacity", variant.sold.into(), &found["capacity"]),
            ("held", 0.into(), &found["held"]),
            (
                "sold",
                (variant.sold - variant.returned).into(),
                &found["sold"],
            ),
            ("available", variant.returned.into(), &found["available"]),
        ],
    )
}

fn differing(name: &str, figures: &[(&str, Value, &Value)]) -> Vec<String> {
    figures
        .iter()
        .filter(|(_, wanted, found)| wanted != *found)
        .map(|(what, wanted, found)| format!("{name}: {what} is {found}, the file says {wanted}"))
        .collect()
}

async fn read_pools(staff: &Door) -> anyhow::Result<BTreeMap<String, Value>> {
    let mut pools = BTreeMap::new();
    let mut next = format!("/v1/inventory?prefix=sku:&limit={PAGE_MAX_ENTRIES}");
    loop {
        let page = staff.read(&next).await?;
        for pool in page["data"].as_array().context("a page has data")? {
            let key = pool["key"].as_str().context("a pool has a key")?;
            pools.insert(key.to_owned(), pool.clone());
        }
        match page["next_cursor"].as_str() {
            Some(cursor) => {
                next =
                    format!("/v1/inventory?prefix=sku:&limit={PAGE_MAX_ENTRIES}&cursor={cursor}");
            }
            None => return Ok(pools),
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_kernel::{Currency, Money};
    use serde_json::json;

    use super::*;

    fn gbp(amount: i64) -> Money {
        let currency: Currency = "GBP".parse().expect("a currency");
        Money::new(amount, currency)
    }

    fn order(refunded: i64) -> Order {
        let sku = "85123A@2.55".parse().expect("a SKU");
        Order {
            invoice: "536365".to_owned(),
            account: 0,
            lines: vec![(sku, 4), ("85123A@2.55".parse().expect("a SKU"), 2)],
            total: gbp(1530),
            refunded,
        }
    }

    fn told(status: &str, total: i64, refunded: i64, quantity: i64) -> Value {
        json!({
            "status": status,
            "total": {"amount": total, "currency": "GBP"},
            "refunded": {"amount": refunded, "currency": "GBP"},
            "items": [{"sku": "85123A@2.55", "quantity": quantity}],
        })
    }

    #[test]
    fn an_order_that_says_what_the_file_says_does_not_differ() {
        assert!(compare_order(&order(0), &told("confirmed", 1530, 0, 6)).is_empty());
        assert!(compare_order(&order(255), &told("partially_refunded", 1530, 255, 6)).is_empty());
        assert!(compare_order(&order(1530), &told("refunded", 1530, 1530, 6)).is_empty());
    }

    #[test]
    fn a_penny_a_unit_or_a_status_off_is_told() {
        for wrong in [
            told("confirmed", 1531, 0, 6),
            told("confirmed", 1530, 1, 6),
            told("confirmed", 1530, 0, 5),
            told("paid", 1530, 0, 6),
            json!({}),
        ] {
            assert!(!compare_order(&order(0), &wrong).is_empty(), "{wrong}");
        }
    }

    #[test]
    fn stock_is_compared_in_every_figure() {
        let variant = Variant {
            sku: "85123A@2.55".parse().expect("a SKU"),
            price: gbp(255),
            sold: 10,
            returned: 3,
        };
        let right = json!({"capacity": 10, "held": 0, "sold": 7, "available": 3});
        assert!(compare_pool(&variant, &right).is_empty());
        for figure in ["capacity", "held", "sold", "available"] {
            let mut wrong = right.clone();
            wrong[figure] = 4.into();
            assert_eq!(compare_pool(&variant, &wrong).len(), 1, "{figure}");
        }
    }
}
