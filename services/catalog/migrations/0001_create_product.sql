-- Categories come to be when a product first names them.
CREATE TABLE category (
    slug text PRIMARY KEY,
    created_at timestamptz NOT NULL
);

CREATE TABLE product (
    id uuid PRIMARY KEY,
    -- SHA-256 of the request that made it: tells a repeated request from another one under the same id.
    fingerprint bytea NOT NULL,
    slug text NOT NULL CONSTRAINT product_slug_is_unique UNIQUE,
    name text NOT NULL,
    description text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('good')),
    category text REFERENCES category (slug),
    currency text NOT NULL,
    images text[] NOT NULL,
    status text NOT NULL CHECK (status IN ('draft', 'published')),
    created_at timestamptz NOT NULL,
    version bigint NOT NULL
);

-- Lists run newest first, with or without a category.
CREATE INDEX product_by_time ON product (created_at DESC, id DESC) WHERE status = 'published';
CREATE INDEX product_by_category ON product (category, created_at DESC, id DESC) WHERE status = 'published';

CREATE TABLE variant (
    sku text CONSTRAINT variant_sku_is_unique PRIMARY KEY,
    product_id uuid NOT NULL REFERENCES product (id) ON DELETE CASCADE,
    -- Order within the product, from 0.
    position integer NOT NULL,
    name text NOT NULL,
    options jsonb NOT NULL,
    -- Minor units of the product's currency.
    price bigint NOT NULL CHECK (price >= 0),
    UNIQUE (product_id, position)
);
