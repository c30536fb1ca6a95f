-- What a code takes off an order. How often it can still be used is the ledger's to say: pool `voucher:<code>`.
CREATE TABLE voucher (
    code text COLLATE "C" PRIMARY KEY CHECK (code ~ '^[A-Z0-9._-]{3,32}$'),
    -- The UUID of the request that made it; the ledger knows the first uses under the same.
    request_id uuid NOT NULL UNIQUE,
    fingerprint bytea NOT NULL,
    percent_off bigint CHECK (percent_off BETWEEN 1 AND 100),
    -- Minor units of its currency, as all amounts here.
    amount_off bigint CHECK (amount_off > 0),
    -- Of the orders it is for; null: any.
    currency text,
    least_subtotal bigint CHECK (least_subtotal > 0),
    valid_from timestamptz,
    valid_until timestamptz,
    created_by uuid NOT NULL,
    created_at timestamptz NOT NULL,
    -- Rises by one with every change of this row.
    version bigint NOT NULL,
    CONSTRAINT voucher_takes_one_thing_off CHECK (num_nonnulls(percent_off, amount_off) = 1),
    CONSTRAINT voucher_amounts_have_a_currency CHECK (currency IS NOT NULL OR amount_off IS NULL AND least_subtotal IS NULL),
    CONSTRAINT voucher_ends_after_it_begins CHECK (valid_from < valid_until)
);
