//! Every statement that finds products, and those that keep what they are found by.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use holdfast_kernel::{Currency, Id, Timestamp, id};
use jiff_sqlx::ToSqlx;
use sqlx::{PgConnection, Postgres, postgres::PgArguments, query::QueryAs, types::Json};
use uuid::Uuid;

use crate::{domain::Product, error::CatalogError};

/// A product with what it is found and counted by.
pub(crate) struct Findable<'a> {
    pub(crate) product: &'a Product,
    /// As PostgreSQL writes a `tsvector`.
    pub(crate) vector: String,
    pub(crate) sort_name: String,
    /// Whole words, in order.
    pub(crate) words: Vec<String>,
    /// Names and values.
    pub(crate) options: BTreeSet<(&'a str, &'a str)>,
    /// The lowest price in each currency.
    pub(crate) lows: BTreeMap<Currency, i64>,
}

/// What products have to be to be found.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    /// Slugs; none: all.
    pub(crate) categories: Option<Vec<String>>,
    pub(crate) currency: Option<Currency>,
    /// What one variant has, all of it.
    pub(crate) options: BTreeMap<String, String>,
    /// Minor units of the currency asked for, or of the product's own.
    pub(crate) price_min: Option<i64>,
    pub(crate) price_max: Option<i64>,
    /// Whether drafts are found too.
    pub(crate) drafts: bool,
}

/// The words looked for, as PostgreSQL writes them.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// A `tsquery`: what a product has to have.
    pub(crate) all: String,
    /// A `tsquery`: what counts for more.
    pub(crate) exact: String,
    /// The whole text, folded; a name that is this comes first.
    pub(crate) name: String,
}

/// An order in which products stand that nobody looks for by words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shelf {
    ByName,
    BestRated,
    Cheapest,
    Dearest,
}

/// A product's place in a list: the list goes up by rank, name and id.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Hit {
    pub(crate) rank: i64,
    pub(crate) name: String,
    pub(crate) id: Uuid,
}

/// How many of some products have something.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Counted {
    /// `category`, `option`, `currency` or `price`; `found`: all of them.
    pub(crate) facet: String,
    /// The category's slug, the option's name, or the currency.
    pub(crate) name: String,
    /// The option's value.
    pub(crate) value: String,
    /// The place of the price among the steps.
    pub(crate) step: i32,
    pub(crate) count: i64,
}

/// Those that have the words. Ranks are millionths, the best the lowest.
const SEARCH: &str = "
    WITH hit AS (
        SELECT p.id,
               CASE $1
                   WHEN 'relevance' THEN -(1000000 * (
                       ts_rank('{0.05, 0.2, 0.5, 1.0}', p.document, $3::tsquery)
                       + 0.3 * ts_rank('{0.05, 0.2, 0.5, 1.0}', p.document, $2::tsquery)
                       + CASE WHEN p.sort_name = $4 THEN 1.0
                              WHEN starts_with(p.sort_name, $4) THEN 0.1
                              ELSE 0 END))::bigint
                   WHEN 'newest' THEN -(1000000 * extract(epoch FROM p.created_at))::bigint
                   WHEN 'price' THEN coalesce(pp.low, 0)
                   WHEN '-price' THEN -coalesce(pp.low, 0)
                   WHEN 'rating' THEN -p.rating
                   ELSE 0
               END::bigint AS rank,
               left(coalesce(p.sort_name, ''), 32) COLLATE \"C\" AS name
        FROM product p
        LEFT JOIN product_price pp ON pp.product_id = p.id AND pp.currency = coalesce($5::text, p.currency)
        WHERE p.document @@ $2::tsquery
          AND (p.status = 'published' OR $6) AND p.deleted_at IS NULL
          AND ($5::text IS NULL OR pp.currency IS NOT NULL)
          AND ($7::text[] IS NULL OR p.category = ANY ($7))
          AND ($8::bigint IS NULL OR pp.low >= $8)
          AND ($9::bigint IS NULL OR pp.low <= $9)
          AND ($10::jsonb = '{}' OR EXISTS (
              SELECT 1 FROM variant v
              WHERE v.product_id = p.id AND v.deleted_at IS NULL AND v.options @> $10))
    )
    SELECT rank, name, id FROM hit
    WHERE $11::bigint IS NULL OR (rank, name, id) > ($11, $12::text, $13::uuid)
    ORDER BY rank, name, id
    LIMIT $14";

/// Newest first. The rank is the moment, negative.
const NEWEST: &str = "
    SELECT -(1000000 * extract(epoch FROM p.created_at))::bigint AS rank, '' AS name, p.id
    FROM product p
    LEFT JOIN product_price pp ON pp.product_id = p.id AND pp.currency = coalesce($1::text, p.currency)
    WHERE (p.status = 'published' OR $2) AND p.deleted_at IS NULL
      AND ($1::text IS NULL OR pp.currency IS NOT NULL)
      AND ($3::text[] IS NULL OR p.category = ANY ($3))
      AND ($4::bigint IS NULL OR pp.low >= $4)
      AND ($5::bigint IS NULL OR pp.low <= $5)
      AND ($6::jsonb = '{}' OR EXISTS (
          SELECT 1 FROM variant v
          WHERE v.product_id = p.id AND v.deleted_at IS NULL AND v.options @> $6))
      AND ($7::timestamptz IS NULL OR (p.created_at, p.id) < ($7, $8::uuid))
    ORDER BY p.created_at DESC, p.id DESC
    LIMIT $9";

/// By name.
const BY_NAME: &str = "
    SELECT 0::bigint AS rank, left(coalesce(p.sort_name, ''), 32) COLLATE \"C\" AS name, p.id
    FROM product p
    LEFT JOIN product_price pp ON pp.product_id = p.id AND pp.currency = coalesce($1::text, p.currency)
    WHERE (p.status = 'published' OR $2) AND p.deleted_at IS NULL
      AND ($1::text IS NULL OR pp.currency IS NOT NULL)
      AND ($3::text[] IS NULL OR p.category = ANY ($3))
      AND ($4::bigint IS NULL OR pp.low >= $4)
      AND ($5::bigint IS NULL OR pp.low <= $5)
      AND ($6::jsonb = '{}' OR EXISTS (
          SELECT 1 FROM variant v
          WHERE v.product_id = p.id AND v.deleted_at IS NULL AND v.options @> $6))
      AND ($7::bigint IS NULL OR (left(coalesce(p.sort_name, ''), 32) COLLATE \"C\", p.id) > ($8::text, $9::uuid))
    ORDER BY left(coalesce(p.sort_name, ''), 32) COLLATE \"C\", p.id
    LIMIT $10";

/// Best rated first, then by name.
const BEST_RATED: &str = "
    SELECT (-p.rating)::bigint AS rank, left(coalesce(p.sort_name, ''), 32) COLLATE \"C\" AS name, p.id
    FROM product p
    LEFT JOIN product_price pp ON pp.product_id = p.id AND pp.currency = coalesce($1::text, p.currency)
    WHERE (p.status = 'published' OR $2) AND p.deleted_at IS NULL
      AND ($1::text IS NULL OR pp.currency IS NOT NULL)
      AND ($3::text[] IS NULL OR p.category = ANY ($3))
      AND ($4::bigint IS NULL OR pp.low >= $4)
      AND ($5::bigint IS NULL OR pp.low <= $5)
      AND ($6::jsonb = '{}' OR EXISTS (
          SELECT 1 FROM variant v
          WHERE v.product_id = p.id AND v.deleted_at IS NULL AND v.options @> $6))
      AND ($7::bigint IS NULL
           OR ((-p.rating)::bigint, left(coalesce(p.sort_name, ''), 32) COLLATE \"C\", p.id) > ($7, $8::text, $9::uuid))
    ORDER BY (-p.rating)::bigint, left(coalesce(p.sort_name, ''), 32) COLLATE \"C\", p.id
    LIMIT $10";

/// Cheapest first, then by name. Every product that can be found has a price in its own currency.
const CHEAPEST: &str = "
    SELECT pp.low AS rank, left(coalesce(p.sort_name, ''), 32) COLLATE \"C\" AS name, p.id
    FROM product_price pp
    JOIN product p ON p.id = pp.product_id
                  AND (pp.currency = $1::text OR $1::text IS NULL AND pp.currency = p.currency)
    WHERE (p.status = 'published' OR $2) AND p.deleted_at IS NULL
      AND ($3::text[] IS NULL OR p.category = ANY ($3))
      AND ($4::bigint IS NULL OR pp.low >= $4)
      AND ($5::bigint IS NULL OR pp.low <= $5)
      AND ($6::jsonb = '{}' OR EXISTS (
          SELECT 1 FROM variant v
          WHERE v.product_id = p.id AND v.deleted_at IS NULL AND v.options @> $6))
      AND ($7::bigint IS NULL
           OR (pp.low >= $7 AND (pp.low, left(coalesce(p.sort_name, ''), 32) COLLATE \"C\", p.id) > ($7, $8::text, $9::uuid)))
    ORDER BY pp.low, left(coalesce(p.sort_name, ''), 32) COLLATE \"C\", p.id
    LIMIT $10";

/// Dearest first, then by name. The rank is the price, negative.
const DEAREST: &str = "
    SELECT -pp.low AS rank, left(coalesce(p.sort_name, ''), 32) COLLATE \"C\" AS name, p.id
    FROM product_price pp
    JOIN product p ON p.id = pp.product_id
                  AND (pp.currency = $1::text OR $1::text IS NULL AND pp.currency = p.currency)
    WHERE (p.status = 'published' OR $2) AND p.deleted_at IS NULL
      AND ($3::text[] IS NULL OR p.category = ANY ($3))
      AND ($4::bigint IS NULL OR pp.low >= $4)
      AND ($5::bigint IS NULL OR pp.low <= $5)
      AND ($6::jsonb = '{}' OR EXISTS (
          SELECT 1 FROM variant v
          WHERE v.product_id = p.id AND v.deleted_at IS NULL AND v.options @> $6))
      AND ($7::bigint IS NULL
           OR (pp.low <= -$7::bigint AND (-pp.low, left(coalesce(p.sort_name, ''), 32) COLLATE \"C\", p.id) > ($7, $8::text, $9::uuid)))
    ORDER BY pp.low DESC, left(coalesce(p.sort_name, ''), 32) COLLATE \"C\", p.id
    LIMIT $10";

/// What the newest of the products that have the words have, and how many of them have it.
const COUNT_FOUND: &str = "
    WITH found AS MATERIALIZED (
        SELECT p.category, p.currency, p.option_names, p.option_values, p.price_currencies, p.price_lows
        FROM product p
        LEFT JOIN product_price pp ON pp.product_id = p.id AND pp.currency = coalesce($2::text, p.currency)
        WHERE p.document @@ $1::tsquery
          AND (p.status = 'published' OR $3) AND p.deleted_at IS NULL
          AND ($2::text IS NULL OR pp.currency IS NOT NULL)
          AND ($4::text[] IS NULL OR p.category = ANY ($4))
          AND ($5::bigint IS NULL OR pp.low >= $5)
          AND ($6::bigint IS NULL OR pp.low <= $6)
          AND ($7::jsonb = '{}' OR EXISTS (
              SELECT 1 FROM variant v
              WHERE v.product_id = p.id AND v.deleted_at IS NULL AND v.options @> $7))
        ORDER BY p.created_at DESC, p.id DESC
        LIMIT $9 + 1
    ), hit AS (
        SELECT category, currency, option_names, option_values, price_currencies, price_lows
        FROM found LIMIT $9
    ), had AS (
        SELECT unnest(option_names) AS name, unnest(option_values) AS value FROM hit
    ), priced AS (
        SELECT currency AS own, unnest(price_currencies) AS currency, unnest(price_lows) AS low FROM hit
    )
    SELECT 'found' AS facet, '' AS name, '' AS value, 0 AS step, count(*) AS count FROM found
    UNION ALL
    SELECT 'category', category, '', 0, count(*) FROM hit WHERE category IS NOT NULL GROUP BY category
    UNION ALL
    SELECT 'option', name, value, 0, count(*) FROM had GROUP BY name, value
    UNION ALL
    SELECT 'currency', currency, '', 0, count(*) FROM priced GROUP BY currency
    UNION ALL
    SELECT 'price', currency, '', width_bucket(low, $8::bigint[]), count(*)
    FROM priced WHERE currency = coalesce($2, own)
    GROUP BY currency, 4
    ORDER BY facet, count DESC, name, value";

/// The same of products whatever they are called.
const COUNT_ALL: &str = "
    WITH found AS MATERIALIZED (
        SELECT p.category, p.currency, p.option_names, p.option_values, p.price_currencies, p.price_lows
        FROM product p
        LEFT JOIN product_price pp ON pp.product_id = p.id AND pp.currency = coalesce($1::text, p.currency)
        WHERE (p.status = 'published' OR $2) AND p.deleted_at IS NULL
          AND ($1::text IS NULL OR pp.currency IS NOT NULL)
          AND ($3::text[] IS NULL OR p.category = ANY ($3))
          AND ($4::bigint IS NULL OR pp.low >= $4)
          AND ($5::bigint IS NULL OR pp.low <= $5)
          AND ($6::jsonb = '{}' OR EXISTS (
              SELECT 1 FROM variant v
              WHERE v.product_id = p.id AND v.deleted_at IS NULL AND v.options @> $6))
        ORDER BY p.created_at DESC, p.id DESC
        LIMIT $8 + 1
    ), hit AS (
        SELECT category, currency, option_names, option_values, price_currencies, price_lows
        FROM found LIMIT $8
    ), had AS (
        SELECT unnest(option_names) AS name, unnest(option_values) AS value FROM hit
    ), priced AS (
        SELECT currency AS own, unnest(price_currencies) AS currency, unnest(price_lows) AS low FROM hit
    )
    SELECT 'found' AS facet, '' AS name, '' AS value, 0 AS step, count(*) AS count FROM found
    UNION ALL
    SELECT 'category', category, '', 0, count(*) FROM hit WHERE category IS NOT NULL GROUP BY category
    UNION ALL
    SELECT 'option', name, value, 0, count(*) FROM had GROUP BY name, value
    UNION ALL
    SELECT 'currency', currency, '', 0, count(*) FROM priced GROUP BY currency
    UNION ALL
    SELECT 'price', currency, '', width_bucket(low, $7::bigint[]), count(*)
    FROM priced WHERE currency = coalesce($1, own)
    GROUP BY currency, 4
    ORDER BY facet, count DESC, name, value";

/// Products that have the words, from behind `place` on, by `sort`.
pub(crate) async fn search_products(
    db: &mut PgConnection,
    terms: &Terms,
    sort: &str,
    filter: &Filter,
    place: Option<&Hit>,
    limit: i64,
) -> Result<Vec<Hit>, CatalogError> {
    let asked = sqlx::query_as(SEARCH)
        .bind(sort)
        .bind(&terms.all)
        .bind(&terms.exact)
        .bind(&terms.name);
    Ok(narrowed(asked, filter)
        .bind(place.map(|hit| hit.rank))
        .bind(place.map(|hit| hit.name.as_str()))
        .bind(place.map(|hit| hit.id))
        .bind(limit)
        .fetch_all(db)
        .await?)
}

/// Products newest first, from behind `place` on.
pub(crate) async fn newest_products(
    db: &mut PgConnection,
    filter: &Filter,
    place: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> Result<Vec<Hit>, CatalogError> {
    Ok(narrowed(sqlx::query_as(NEWEST), filter)
        .bind(place.map(|(at, _)| at.to_sqlx()))
        .bind(place.map(|(_, id)| id))
        .bind(limit)
        .fetch_all(db)
        .await?)
}

/// Products in an order of their own, from behind `place` on.
pub(crate) async fn browse_products(
    db: &mut PgConnection,
    shelf: Shelf,
    filter: &Filter,
    place: Option<&Hit>,
    limit: i64,
) -> Result<Vec<Hit>, CatalogError> {
    let asked = match shelf {
        Shelf::ByName => sqlx::query_as(BY_NAME),
        Shelf::BestRated => sqlx::query_as(BEST_RATED),
        Shelf::Cheapest => sqlx::query_as(CHEAPEST),
        Shelf::Dearest => sqlx::query_as(DEAREST),
    };
    Ok(narrowed(asked, filter)
        .bind(place.map(|hit| hit.rank))
        .bind(place.map(|hit| hit.name.as_str()))
        .bind(place.map(|hit| hit.id))
        .bind(limit)
        .fetch_all(db)
        .await?)
}

/// With the next six values bound: what every search narrows by, in the order in which all of them have it.
fn narrowed<'q, T>(asked: Asked<'q, T>, filter: &'q Filter) -> Asked<'q, T> {
    asked
        .bind(filter.currency.as_ref().map(Currency::code))
        .bind(filter.drafts)
        .bind(filter.categories.as_deref())
        .bind(filter.price_min)
        .bind(filter.price_max)
        .bind(Json(&filter.options))
}

type Asked<'q, T> = QueryAs<'q, Postgres, T, PgArguments>;

/// How many of the products found are in which category, have which option, are sold in which currency and at which price:
/// in the currency, or each in its own, by the steps between prices. Of the newest `most` of them; and how many there are,
/// where not more than that.
pub(crate) async fn count_facets(
    db: &mut PgConnection,
    words: Option<&str>,
    filter: &Filter,
    steps: &[i64],
    most: usize,
) -> Result<(Vec<Counted>, usize), CatalogError> {
    let asked = match words {
        Some(words) => sqlx::query_as(COUNT_FOUND).bind(words),
        None => sqlx::query_as(COUNT_ALL),
    };
    let mut counts: Vec<Counted> = narrowed(asked, filter)
        .bind(steps)
        .bind(most as i64)
        .fetch_all(db)
        .await?;
    let found = counts.iter().position(|counted| counted.facet == "found");
    let found = found.map_or(0, |at| counts.remove(at).count);
    Ok((counts, found as usize))
}

/// Those of the words that no product has, not even as the beginning of one.
pub(crate) async fn unknown_words(
    db: &mut PgConnection,
    words: &[String],
) -> Result<Vec<String>, CatalogError> {
    Ok(sqlx::query_scalar(
        "SELECT given FROM unnest($1::text[]) AS given
         WHERE NOT EXISTS (
             SELECT 1 FROM word
             WHERE word >= given COLLATE \"C\" AND word < (given || chr(1114111)) COLLATE \"C\")",
    )
    .bind(words)
    .fetch_all(db)
    .await?)
}

/// The words that look most like this one.
pub(crate) async fn words_near(
    db: &mut PgConnection,
    word: &str,
    limit: i64,
) -> Result<Vec<String>, CatalogError> {
    Ok(
        sqlx::query_scalar("SELECT word FROM word ORDER BY word <-> $1 LIMIT $2")
            .bind(word)
            .bind(limit)
            .fetch_all(db)
            .await?,
    )
}

/// Writes the prices and words that products are found by; the rest stands in their rows.
pub(crate) async fn save_findable(
    db: &mut PgConnection,
    findable: &[Findable<'_>],
) -> Result<(), CatalogError> {
    let lows = || {
        findable.iter().flat_map(|found| {
            let lows = found.lows.iter();
            lows.map(|(currency, low)| (found.product.id.uuid(), currency.code(), *low))
        })
    };
    let words: BTreeSet<&str> = (findable.iter().flat_map(|found| &found.words))
        .map(String::as_str)
        .collect();
    // Words in order, so that two who write the same ones never wait for each other in a circle.
    sqlx::query(
        "WITH given AS (
             SELECT product_id, currency, low FROM unnest($2::uuid[], $3::text[], $4::bigint[]) AS given (product_id, currency, low)
         ), gone AS (
             DELETE FROM product_price old
             WHERE product_id = ANY ($1)
               AND NOT EXISTS (SELECT 1 FROM given WHERE given.product_id = old.product_id AND given.currency = old.currency)
         ), priced AS (
             INSERT INTO product_price (product_id, currency, low)
             SELECT product_id, currency, low FROM given
             ON CONFLICT (product_id, currency) DO UPDATE SET low = excluded.low
         )
         INSERT INTO word (word)
         SELECT told FROM unnest($5::text[]) AS told
         WHERE NOT EXISTS (SELECT 1 FROM word WHERE word = told COLLATE \"C\")
         ORDER BY told COLLATE \"C\"
         ON CONFLICT DO NOTHING",
    )
    .bind(findable.iter().map(|found| found.product.id.uuid()).collect::<Vec<_>>())
    .bind(lows().map(|(product, ..)| product).collect::<Vec<_>>())
    .bind(lows().map(|(_, currency, _)| currency).collect::<Vec<_>>())
    .bind(lows().map(|(.., low)| low).collect::<Vec<_>>())
    .bind(words.into_iter().collect::<Vec<_>>())
    .execute(db)
    .await?;
    Ok(())
}

/// Some product that is not found by what it is now, and that nobody else is at.
pub(crate) async fn lock_unfindable(
    db: &mut PgConnection,
) -> Result<Option<Id<id::Product>>, CatalogError> {
    let id: Option<Uuid> = sqlx::query_scalar(
        "SELECT id FROM product WHERE (NOT indexed OR found_version <> version) AND deleted_at IS NULL
         ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED",
    )
    .fetch_optional(db)
    .await?;
    Ok(id.map(Id::new))
}

/// Has the products of a branch of the tree found anew, for it has other names.
pub(crate) async fn refind_branch(
    db: &mut PgConnection,
    categories: &[String],
) -> Result<(), CatalogError> {
    sqlx::query("UPDATE product SET indexed = false WHERE category = ANY ($1)")
        .bind(categories)
        .execute(db)
        .await?;
    Ok(())
}

/// Names of each of these categories and of those it hangs below, by slug.
pub(crate) async fn category_names(
    db: &mut PgConnection,
    slugs: &[&str],
) -> Result<HashMap<String, Vec<String>>, CatalogError> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "WITH RECURSIVE above AS (
             SELECT slug AS leaf, slug, name, parent FROM category WHERE slug = ANY ($1)
             UNION
             SELECT above.leaf, c.slug, c.name, c.parent FROM category c JOIN above ON c.slug = above.parent
         )
         SELECT leaf, coalesce(name, slug) FROM above",
    )
    .bind(slugs)
    .fetch_all(db)
    .await?;
    let mut names: HashMap<String, Vec<String>> = HashMap::new();
    for (leaf, name) in rows {
        names.entry(leaf).or_default().push(name);
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use holdfast_testkit::TestDatabase;
    use sqlx::{AssertSqlSafe, Executor};

    use super::*;
    use crate::domain::words::Query;

    const SHOP: &str = "
        INSERT INTO product (id, fingerprint, slug, name, description, kind, currency, images, status, created_at,
                             version, document, sort_name, indexed)
        SELECT gen_random_uuid(), '', 'p-' || n, 'Thing ' || n, '', 'good', 'JPY', '{}', 'published',
               '2026-01-01'::timestamptz + n * interval '1 s', 1,
               to_tsvector('simple', 'thing w' || n % 500 || ' x' || n), 'thing ' || n, true
        FROM generate_series(1, 10000) AS n;
        INSERT INTO product_price (product_id, currency, low)
        SELECT id, 'JPY', 100 + hashtext(slug) % 50 FROM product;
        UPDATE product SET option_names = '{size}', option_values = ARRAY['S' || hashtext(slug) % 3],
                           price_currencies = '{EUR,JPY}', price_lows = ARRAY[1, 100 + hashtext(slug) % 50];
        UPDATE product SET rating = 1000 + 500 * (hashtext(slug) % 3) WHERE hashtext(slug) % 5 = 0;
        INSERT INTO word (word) SELECT DISTINCT 'w' || n || 'ord' FROM generate_series(1, 10000) AS n;
        ANALYZE product; ANALYZE product_price; ANALYZE word;";

    async fn plan(db: &TestDatabase, sql: &str, bind: &[Option<&str>]) -> String {
        let mut text = sql.to_owned();
        for (at, value) in bind.iter().enumerate().rev() {
            let literal = value.map_or("NULL".to_owned(), |value| format!("'{value}'"));
            text = text.replace(&format!("${}", at + 1), &literal);
        }
        let explained = sqlx::query_scalar(AssertSqlSafe(format!("EXPLAIN {text}")));
        let lines: Vec<String> = explained.fetch_all(&db.app()).await.expect("a plan");
        lines.join("\n")
    }

    #[tokio::test]
    async fn among_ten_thousand_products_nothing_is_scanned_to_find_some() {
        let db = TestDatabase::create("catalog", &crate::MIGRATOR).await;
        db.owner().execute(SHOP).await.expect("a shop");
        let query = Query::read("things w77 x77").expect("words");
        let (all, exact) = (
            query.to_match().replace('\'', "''"),
            query.to_exact().replace('\'', "''"),
        );
        let mut bind = vec![
            Some("relevance"),
            Some(&all),
            Some(&exact),
            Some("things w77 x77"),
        ];
        bind.extend([
            None,
            Some("f"),
            None,
            None,
            None,
            Some("{}"),
            None,
            None,
            None,
            Some("21"),
        ]);
        let found = plan(&db, SEARCH, &bind).await;
        assert!(found.contains("product_by_words"), "{found}");
        assert!(!found.contains("Seq Scan"), "{found}");

        let bind = [
            None,
            Some("f"),
            None,
            None,
            None,
            Some("{}"),
            None,
            None,
            Some("21"),
        ];
        let newest = plan(&db, NEWEST, &bind).await;
        assert!(newest.contains("product_by_time"), "{newest}");
        assert!(!newest.contains("Seq Scan"), "{newest}");

        let filter = [None, Some("f"), None, None, None, Some("{}")];
        let steps = [Some("{0,120}"), Some("10000")];
        let words = [Some(all.as_str())];
        let bind: Vec<_> = words.into_iter().chain(filter).chain(steps).collect();
        let counted = plan(&db, COUNT_FOUND, &bind).await;
        assert!(counted.contains("product_by_words"), "{counted}");
        assert!(!counted.contains("Seq Scan"), "{counted}");
        assert!(!counted.contains("variant"), "{counted}");

        // From the beginning, and from a place in the middle on.
        let nowhere = [None, None, None];
        let id = Some("00000000-0000-7000-8000-000000000000");
        let at = |rank| [Some(rank), Some("thing 5"), id];
        for (sql, index, currency, place, begins) in [
            (BY_NAME, "product_by_name", None, nowhere, ""),
            (BY_NAME, "product_by_name", None, at("0"), "ROW("),
            (BEST_RATED, "product_by_rating", None, nowhere, ""),
            (BEST_RATED, "product_by_rating", None, at("-1500"), "ROW("),
            (CHEAPEST, "product_price_by_low", None, nowhere, ""),
            (CHEAPEST, "product_price_by_low", None, at("120"), "low >="),
            (
                CHEAPEST,
                "product_price_by_currency",
                Some("JPY"),
                at("120"),
                "low >=",
            ),
            (DEAREST, "product_price_by_low", None, nowhere, ""),
            (DEAREST, "product_price_by_low", None, at("-120"), "low <="),
            (
                DEAREST,
                "product_price_by_currency",
                Some("JPY"),
                nowhere,
                "",
            ),
        ] {
            let narrow = [currency, Some("f"), None, None, None, Some("{}")];
            let bind = narrow.into_iter().chain(place).chain([Some("21")]);
            let shelf = plan(&db, sql, &bind.collect::<Vec<_>>()).await;
            assert!(shelf.contains(index), "{index} {place:?}:\n{shelf}");
            assert!(!shelf.contains("Seq Scan"), "{index} {place:?}:\n{shelf}");
            let mut conditions = shelf.lines().filter(|line| line.contains("Index Cond: "));
            let has_place = conditions.any(|line| line.contains(begins));
            assert!(
                begins.is_empty() || has_place,
                "{index} {place:?}:\n{shelf}"
            );
        }

        let near = "SELECT word FROM word ORDER BY word <-> $1 LIMIT $2";
        let near = plan(&db, near, &[Some("w77orb"), Some("64")]).await;
        assert!(near.contains("word_by_trigrams"), "{near}");
    }

    #[tokio::test]
    async fn counts_are_of_all_that_is_found_or_of_the_newest() {
        let db = TestDatabase::create("catalog", &crate::MIGRATOR).await;
        db.owner().execute(SHOP).await.expect("a shop");
        let mut db = db.app().acquire().await.expect("a connection");
        let filter = Filter {
            categories: None,
            currency: None,
            options: BTreeMap::new(),
            price_min: None,
            price_max: None,
            drafts: false,
        };
        // Of what the words find, and of everything; within the bound, and beyond it.
        for (words, most, told, counted) in [
            (None, 10_000, 10_000, 10_000),
            (None, 9_999, 10_000, 9_999),
            (Some("'thing'"), 10_000, 10_000, 10_000),
            (Some("'thing'"), 400, 401, 400),
            (Some("'w77'"), 400, 20, 20),
            (Some("'nothing'"), 400, 0, 0),
        ] {
            let counting = count_facets(&mut db, words, &filter, &[0, 120], most);
            let (counts, found) = counting.await.expect("counts");
            assert_eq!(found, told, "{words:?} of {most}");
            for facet in ["option", "price"] {
                let of_it = counts.iter().filter(|count| count.facet == facet);
                let sum: i64 = of_it.map(|count| count.count).sum();
                assert_eq!(sum, counted, "{facet} of {words:?}");
            }
            let in_euros = counts.iter().find(|count| count.name == "EUR");
            assert_eq!(in_euros.map_or(0, |count| count.count), counted);
        }
    }
}
