-- Points that went back; `points_used` are those that the order was paid with.
ALTER TABLE orders
    ADD COLUMN points_refunded bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT order_gives_back_no_more_points_than_it_used CHECK (points_refunded BETWEEN 0 AND points_used);
ALTER TABLE refund ADD COLUMN points bigint NOT NULL DEFAULT 0 CHECK (points >= 0);
