-- What is deleted is off sale for good; its rows stay, so that no sku ever means another thing.
ALTER TABLE product
    ADD COLUMN deleted_at timestamptz;

ALTER TABLE variant
    ADD COLUMN deleted_at timestamptz,
    -- The request that added it to a product that was there, and its SHA-256.
    ADD COLUMN request_id uuid CONSTRAINT variant_request_is_unique UNIQUE,
    ADD COLUMN fingerprint bytea,
    -- Places are given anew when one is added or goes.
    DROP CONSTRAINT variant_product_id_position_key;

CREATE INDEX variant_by_product ON variant (product_id, position);

-- Price lists: what a variant costs in currencies other than its product's.
CREATE TABLE variant_price (
    sku text NOT NULL REFERENCES variant (sku) ON DELETE CASCADE,
    currency text NOT NULL,
    -- Minor units.
    price bigint NOT NULL CHECK (price >= 0),
    PRIMARY KEY (sku, currency)
);
