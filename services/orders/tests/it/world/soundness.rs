//! What must hold whatever happened.

use std::collections::HashMap;

use holdfast_orders::Status as Stands;

use super::World;

impl World {
    pub(crate) async fn open_sagas(&self) -> i64 {
        sqlx::query_scalar(
            "SELECT count(*) FROM saga WHERE phase <> 'done' OR open_refunds > 0 OR due_at IS NOT NULL",
        )
        .fetch_one(&self.db.app())
        .await
        .expect("counted")
    }

    /// What must hold whatever happened, once nothing is under way: units and money agree with the orders.
    pub(crate) async fn is_sound(&self) {
        let mut db = self.db.app().acquire().await.expect("a connection");
        let facts = holdfast_orders::audit(&mut db, None, 1_000)
            .await
            .expect("an audit");
        let mut sold = HashMap::from([("TSHIRT".to_owned(), 0), ("MUG".to_owned(), 0)]);
        let mut spent: HashMap<&str, i64> = HashMap::new();
        for fact in &facts {
            if let Some(voucher) = &fact.voucher {
                *spent.entry(voucher).or_default() += i64::from(fact.was_confirmed);
            }
            assert!(fact.illegal_history.is_empty(), "{fact:?}");
            let (times, captured, refunded) = self.till.money(&fact.order.to_string());
            assert!(times <= 1, "captured twice: {fact:?}");
            assert_eq!(refunded, fact.refunded.amount, "money given back: {fact:?}");
            let (used, back) = self.till.points_of(&fact.order.to_string());
            let kept = fact.points - fact.points_refunded;
            let is_kept = !matches!(
                fact.status,
                Stands::Cancelled | Stands::PaymentFailed | Stands::Expired
            );
            assert_eq!(
                used - back,
                if is_kept { kept } else { 0 },
                "points used: {fact:?}"
            );
            let owns = matches!(
                fact.status,
                Stands::Confirmed | Stands::Shipped | Stands::Delivered | Stands::PartiallyRefunded
            );
            let owned = if owns || fact.status == Stands::Refunded {
                fact.total.amount
            } else {
                0
            };
            assert_eq!(captured, owned, "money taken: {fact:?}");
            for (sku, bought, returned) in &fact.items {
                if owns {
                    *sold.entry(sku.clone()).or_default() += bought - returned;
                }
            }
        }
        for (voucher, spent) in spent {
            let pool = self.ledger.pool_of(voucher).expect("a pool");
            assert_eq!((pool.held, pool.sold), (0, spent), "{voucher}: {facts:#?}");
        }
        for (sku, sold) in sold {
            let pool = self.ledger.pool(&sku);
            assert_eq!(
                (pool.held, pool.sold),
                (0, sold),
                "units of {sku}: {facts:#?}"
            );
        }
    }
}
