-- What staff look for among everybody's orders, newest first: those of a status, and those of a SKU.
CREATE INDEX orders_by_status ON orders (status, created_at DESC, id DESC);

-- The order's moment again, so that one index finds a SKU's orders in their order. The default is for a process of the
-- version before, which writes none.
ALTER TABLE order_item ADD COLUMN ordered_at timestamptz NOT NULL DEFAULT now();
UPDATE order_item SET ordered_at = orders.created_at FROM orders WHERE orders.id = order_id;
CREATE INDEX items_of_sku ON order_item (sku, ordered_at DESC, order_id DESC);
