-- The code that an order used, and what it took off each line.
ALTER TABLE orders ADD COLUMN voucher text;
ALTER TABLE order_item
    ADD COLUMN discount bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT item_discount_is_no_more_than_its_price CHECK (discount BETWEEN 0 AND unit_price * quantity);
