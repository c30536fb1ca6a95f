-- What the ledger has available of each sku, as it last told. What it has not told of has no row.
CREATE TABLE stock (
    sku text COLLATE "C" PRIMARY KEY,
    available bigint NOT NULL,
    -- The pool's version that was told of; 0: the ledger knows no such pool yet.
    version bigint NOT NULL
);
