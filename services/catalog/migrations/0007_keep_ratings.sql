-- What the reviews of a product come to, as reviews last told; `rating` is their mean.
ALTER TABLE product
    -- How many give 1, 2, 3, 4 and 5 stars; empty before the first.
    ADD COLUMN histogram bigint[] NOT NULL DEFAULT '{}',
    -- The version of that news.
    ADD COLUMN rating_version bigint NOT NULL DEFAULT 0;
