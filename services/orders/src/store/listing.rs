//! Orders in lists, newest first.

use holdfast_kernel::{Id, Sku, Timestamp, id};
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use uuid::Uuid;

use super::order::{OrderRow, order_columns, with_items};
use crate::{
    domain::{Order, Status},
    error::OrdersError,
};

/// Which orders a list is of.
pub(crate) struct Wanted {
    /// `None`: everybody's.
    pub(crate) user: Option<Id<id::User>>,
    pub(crate) status: Option<Status>,
    /// Those with a line of it.
    pub(crate) sku: Option<Sku>,
    /// Those made at that moment or later.
    pub(crate) from: Timestamp,
    /// Those made before that moment.
    pub(crate) to: Timestamp,
}

/// Where a list goes on: behind the order made then (microseconds since 1970), of that id.
pub(crate) type ListPlace = (i64, Uuid);

/// Orders newest first, those wanted, behind `after`.
pub(crate) async fn list_orders(
    db: &mut PgConnection,
    wanted: &Wanted,
    after: Option<ListPlace>,
    limit: i64,
) -> Result<Vec<Order>, OrdersError> {
    // Both bound the list from above, so the lower of the two is the bound.
    let end = (wanted.to, Uuid::nil());
    let (before, before_id) = match after {
        Some((micros, id)) => {
            let made_at = Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX);
            end.min((made_at, id))
        }
        None => end,
    };
    let status = wanted.status.map(Status::as_str);
    let sku = wanted.sku.as_ref().map(Sku::as_str);
    let query = match (wanted.user, sku, status) {
        (Some(user), ..) => sqlx::query_as(ORDERS_OF_USER)
            .bind(user.uuid())
            .bind(status)
            .bind(sku),
        (None, Some(sku), _) => sqlx::query_as(ORDERS_OF_SKU).bind(sku).bind(status),
        (None, None, Some(status)) => sqlx::query_as(ORDERS_OF_STATUS).bind(status),
        (None, None, None) => sqlx::query_as(ORDERS_OF_ALL),
    };
    let rows: Vec<OrderRow> = query
        .bind(wanted.from.to_sqlx())
        .bind(before.to_sqlx())
        .bind(before_id)
        .bind(limit)
        .fetch_all(&mut *db)
        .await?;
    with_items(db, rows).await
}

// One statement a shape, so that each walks the one index that has its order.

const ORDERS_OF_USER: &str = concat!(
    "SELECT ",
    order_columns!(),
    " FROM orders
     WHERE user_id = $1 AND created_at >= $4 AND (created_at, id) < ($5, $6) AND ($2::text IS NULL OR status = $2)
       AND ($3::text IS NULL OR EXISTS (SELECT FROM order_item WHERE order_id = id AND sku = $3))
     ORDER BY created_at DESC, id DESC LIMIT $7"
);

const ORDERS_OF_SKU: &str = concat!(
    "SELECT ",
    order_columns!(),
    " FROM order_item JOIN orders ON id = order_id
     WHERE sku = $1 AND ordered_at >= $3 AND (ordered_at, order_id) < ($4, $5) AND ($2::text IS NULL OR status = $2)
     ORDER BY ordered_at DESC, order_id DESC LIMIT $6"
);

const ORDERS_OF_STATUS: &str = concat!(
    "SELECT ",
    order_columns!(),
    " FROM orders WHERE status = $1 AND created_at >= $2 AND (created_at, id) < ($3, $4)
     ORDER BY created_at DESC, id DESC LIMIT $5"
);

const ORDERS_OF_ALL: &str = concat!(
    "SELECT ",
    order_columns!(),
    " FROM orders WHERE created_at >= $1 AND (created_at, id) < ($2, $3)
     ORDER BY created_at DESC, id DESC LIMIT $4"
);

#[cfg(test)]
mod tests {
    use holdfast_testkit::TestDatabase;
    use sqlx::AssertSqlSafe;

    use super::*;

    const ORDERS_COUNT: i64 = 20_000;

    #[tokio::test]
    async fn a_list_walks_the_index_that_has_its_order_and_sorts_nothing() {
        let db = TestDatabase::create("orders", &crate::MIGRATOR).await;
        let owner = db.owner();
        for fill in [
            "INSERT INTO orders (id, user_id, source, status, currency, subtotal, total, hold_expires_at, fingerprint,
                                 created_at, updated_at, version)
             SELECT md5(n::text)::uuid, md5((n % 100)::text)::uuid, 'checkout',
                    CASE WHEN n % 1000 = 0 THEN 'needs_attention' ELSE 'confirmed' END,
                    'JPY', 1, 1, now(), '', to_timestamp(n), now(), 1
             FROM generate_series(1, $1) AS n",
            "INSERT INTO order_item (order_id, line, sku, name, quantity, unit_price, ordered_at)
             SELECT md5(n::text)::uuid, 1, 'SKU-' || n % 500, '', 1, 1, to_timestamp(n) FROM generate_series(1, $1) AS n",
        ] {
            let filled = sqlx::query(fill).bind(ORDERS_COUNT).execute(&owner).await;
            filled.expect("filled");
        }
        let analyzed = sqlx::query("ANALYZE orders, order_item")
            .execute(&owner)
            .await;
        analyzed.expect("analyzed");
        let mut app = db.app().acquire().await.expect("a connection");
        // As plans are once a statement was asked often.
        let generic = sqlx::query("SET plan_cache_mode = force_generic_plan")
            .execute(&mut *app)
            .await;
        generic.expect("everybody may");
        let bounds = "'1970-01-01', '2100-01-01', '00000000-0000-0000-0000-000000000000', 21";
        let user = "md5('7')::uuid";
        for (name, statement, bound, index) in [
            (
                "of_user",
                ORDERS_OF_USER,
                format!("{user}, NULL, NULL"),
                "orders_of_user",
            ),
            (
                "of_sku",
                ORDERS_OF_SKU,
                "'SKU-7', NULL".to_owned(),
                "items_of_sku",
            ),
            (
                "of_status",
                ORDERS_OF_STATUS,
                "'needs_attention'".to_owned(),
                "orders_by_status",
            ),
            ("of_all", ORDERS_OF_ALL, String::new(), "orders_by_time"),
        ] {
            let prepared = sqlx::query(AssertSqlSafe(format!("PREPARE {name} AS {statement}")))
                .persistent(false)
                .execute(&mut *app)
                .await;
            prepared.expect("it fits the schema");
            let bound = if bound.is_empty() {
                bound
            } else {
                format!("{bound}, ")
            };
            let explain = format!("EXPLAIN (COSTS off) EXECUTE {name} ({bound}{bounds})");
            let plan: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explain))
                .persistent(false)
                .fetch_all(&mut *app)
                .await
                .expect("a plan");
            let plan = plan.join("\n");
            assert!(plan.contains(&format!("using {index}")), "{name}:\n{plan}");
            assert!(
                !plan.contains("Sort") && !plan.contains("Seq Scan"),
                "{name}:\n{plan}"
            );
        }
    }
}
