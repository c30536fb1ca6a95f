-- In a transaction of its own: while the columns are filled, products are read and sold. A product that somebody changes
-- meanwhile gets the version that was read here, and so is looked at anew.
UPDATE product
SET option_names = coalesce(option.names, '{}'), option_values = coalesce(option.values, '{}'),
    price_currencies = coalesce(price.currencies, '{}'), price_lows = coalesce(price.lows, '{}'),
    found_version = one.version
FROM product AS one
LEFT JOIN (
    SELECT product_id, array_agg(name ORDER BY name, value) AS names, array_agg(value ORDER BY name, value) AS values
    FROM (SELECT DISTINCT v.product_id, o.key AS name, o.value
          FROM variant v CROSS JOIN LATERAL jsonb_each_text(v.options) AS o
          WHERE v.deleted_at IS NULL) AS had
    GROUP BY product_id
) AS option ON option.product_id = one.id
LEFT JOIN (
    SELECT product_id, array_agg(currency ORDER BY currency) AS currencies, array_agg(low ORDER BY currency) AS lows
    FROM product_price
    GROUP BY product_id
) AS price ON price.product_id = one.id
WHERE one.id = product.id;

CREATE INDEX product_to_find_anew ON product (id)
    WHERE (NOT indexed OR found_version <> version) AND deleted_at IS NULL;
