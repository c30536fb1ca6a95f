-- What catalog told of a product, and what its published reviews come to. Whoever changes a review of it locks this row
-- first, so that the counts are never behind.
CREATE TABLE product (
    id uuid PRIMARY KEY,
    status text NOT NULL CHECK (status IN ('draft', 'published', 'deleted')),
    -- How many published reviews give 1, 2, 3, 4 and 5.
    counts bigint[] NOT NULL DEFAULT '{0,0,0,0,0}' CHECK (cardinality(counts) = 5 AND 0 <= ALL (counts)),
    -- Rises by one whenever what is published changes; each version is announced.
    version bigint NOT NULL DEFAULT 0
);

-- A sku belongs to one product for good.
CREATE TABLE product_sku (
    sku text PRIMARY KEY,
    product_id uuid NOT NULL REFERENCES product (id)
);

-- What was delivered to whom. The news of it may come before that of the product, so skus are all it names.
CREATE TABLE delivered (
    user_id uuid NOT NULL,
    sku text NOT NULL,
    PRIMARY KEY (user_id, sku)
);

CREATE TABLE review (
    id uuid PRIMARY KEY,
    -- SHA-256 of the request that wrote it: tells a repeated request from another one under the same id.
    fingerprint bytea NOT NULL,
    product_id uuid NOT NULL REFERENCES product (id),
    user_id uuid NOT NULL,
    rating smallint NOT NULL CHECK (rating BETWEEN 1 AND 5),
    title text NOT NULL,
    text text NOT NULL,
    -- A withdrawn one is empty; its row remembers that its request was carried out.
    status text NOT NULL CHECK (status IN ('published', 'removed', 'withdrawn')),
    -- Why it was removed.
    reason text CHECK ((reason IS NOT NULL) = (status = 'removed')),
    created_at timestamptz NOT NULL,
    written_at timestamptz NOT NULL,
    version bigint NOT NULL
);

-- Everybody reviews a product once.
CREATE UNIQUE INDEX review_is_the_only_one ON review (product_id, user_id) WHERE status <> 'withdrawn';
-- Lists run newest first.
CREATE INDEX review_by_time ON review (product_id, created_at DESC, id DESC) WHERE status <> 'withdrawn';
-- What a person wrote, when they are to be forgotten.
CREATE INDEX review_by_user ON review (user_id) WHERE status <> 'withdrawn';

-- Who decided what of a review, and why: append-only.
CREATE TABLE moderation (
    review_id uuid NOT NULL REFERENCES review (id),
    -- The version of the review that the decision made.
    version bigint NOT NULL,
    decision text NOT NULL CHECK (decision IN ('publish', 'remove')),
    reason text NOT NULL,
    moderator uuid NOT NULL,
    decided_at timestamptz NOT NULL,
    PRIMARY KEY (review_id, version)
);
REVOKE UPDATE, DELETE, TRUNCATE ON moderation FROM reviews_app;
