-- Lists by name, rating and price go along an index and stop when they are full. Names are compared by their beginning, as
-- in the lists.
CREATE INDEX product_by_name ON product ((left(coalesce(sort_name, ''), 32) COLLATE "C"), id)
    WHERE deleted_at IS NULL;
CREATE INDEX product_by_rating ON product (((-rating)::bigint), (left(coalesce(sort_name, ''), 32) COLLATE "C"), id)
    WHERE deleted_at IS NULL;

-- In one currency, and each product in its own.
CREATE INDEX product_price_by_currency ON product_price (currency, low);
CREATE INDEX product_price_by_low ON product_price (low);
