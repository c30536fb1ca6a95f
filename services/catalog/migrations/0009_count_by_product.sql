-- What results of searches are counted by lies in the product's own row: a count reads the rows that were found and nothing
-- else.
ALTER TABLE product
    -- Options of its variants, each name and value once, in two columns side by side.
    ADD COLUMN option_names text[] NOT NULL DEFAULT '{}',
    ADD COLUMN option_values text[] NOT NULL DEFAULT '{}',
    -- What product_price says, side by side too.
    ADD COLUMN price_currencies text[] NOT NULL DEFAULT '{}',
    ADD COLUMN price_lows bigint[] NOT NULL DEFAULT '{}',
    -- The version that all it is found and counted by tells of. Programs that know nothing of this leave it behind, and
    -- the product is looked at anew.
    ADD COLUMN found_version bigint NOT NULL DEFAULT 0;
