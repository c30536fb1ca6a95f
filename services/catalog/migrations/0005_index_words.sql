-- Trigrams tell what a misspelt word meant. Whoever prepared the database has made the extension; else its owner may.
CREATE EXTENSION IF NOT EXISTS pg_trgm;

ALTER TABLE product
    -- Its words by where they stand: A name, B skus and options, C categories, D description.
    ADD COLUMN document tsvector,
    -- The name as names are compared: folded.
    ADD COLUMN sort_name text COLLATE "C",
    -- Thousandths of a star; 0 without reviews.
    ADD COLUMN rating integer NOT NULL DEFAULT 0,
    -- Whether the columns and tables here say what the product is now.
    ADD COLUMN indexed boolean NOT NULL DEFAULT false;

-- Searches are many and changes few: nothing is left for searches to tidy up.
CREATE INDEX product_by_words ON product USING gin (document) WITH (fastupdate = off);
CREATE INDEX product_to_index ON product (id) WHERE NOT indexed AND deleted_at IS NULL;

-- The lowest price of a product's variants in each currency that one of them has a price in.
CREATE TABLE product_price (
    product_id uuid NOT NULL REFERENCES product (id) ON DELETE CASCADE,
    currency text NOT NULL,
    -- Minor units.
    low bigint NOT NULL,
    PRIMARY KEY (product_id, currency)
);

-- Every whole word that some product has or once had.
CREATE TABLE word (
    word text COLLATE "C" PRIMARY KEY
);
CREATE INDEX word_by_trigrams ON word USING gist (word gist_trgm_ops (siglen = 32));
