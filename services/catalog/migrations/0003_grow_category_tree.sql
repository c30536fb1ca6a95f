-- Categories hang below one another. What a product names that is not there yet still comes to be, as a root.
ALTER TABLE category
    ADD COLUMN name text,
    ADD COLUMN parent text REFERENCES category (slug) ON UPDATE CASCADE,
    ADD COLUMN version bigint NOT NULL DEFAULT 1,
    -- The request that made it, and its SHA-256; none where a product did.
    ADD COLUMN request_id uuid CONSTRAINT category_request_is_unique UNIQUE,
    ADD COLUMN fingerprint bytea,
    ADD CONSTRAINT category_is_not_its_own_parent CHECK (parent <> slug);

-- What nobody named yet is called by its slug.
CREATE INDEX category_by_parent ON category (parent);

-- A category may change its slug, and its products go with it.
ALTER TABLE product
    DROP CONSTRAINT product_category_fkey,
    ADD CONSTRAINT product_category_fkey FOREIGN KEY (category) REFERENCES category (slug) ON UPDATE CASCADE;
