-- What we have seen of each purchase's saga: a command of a lower epoch comes from a worker that was replaced.
CREATE TABLE saga (
    purchase_id text PRIMARY KEY,
    epoch bigint NOT NULL,
    -- Its payment was voided before it was begun, so it must not begin any more.
    undone_at timestamptz
);

-- One payment for one purchase. Its id is derived from the purchase's.
CREATE TABLE payment (
    payment_id uuid PRIMARY KEY,
    purchase_id text NOT NULL UNIQUE REFERENCES saga,
    user_id uuid NOT NULL,
    method_type text NOT NULL,
    -- The provider's name for the way to pay; never a card number.
    method_token text NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0),
    currency text NOT NULL,
    expires_at timestamptz NOT NULL,
    status text NOT NULL,
    action_type text,
    action_url text,
    slip_number text,
    slip_store text,
    slip_expires_at timestamptz,
    failed_step text,
    failure text,
    captured bigint NOT NULL DEFAULT 0,
    refunded bigint NOT NULL DEFAULT 0,
    -- Promised back and not given back yet.
    refunding bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    version bigint NOT NULL,
    -- Messages told of it.
    told bigint NOT NULL,
    checks int NOT NULL,
    next_check_at timestamptz,
    CONSTRAINT payment_captured_within_amount CHECK (captured IN (0, amount)),
    CONSTRAINT payment_refunds_within_captured CHECK (
        refunded >= 0 AND refunding >= 0
        -- While the capture is unknown refunds may wait for it.
        AND refunded + refunding <= CASE WHEN status IN ('capturing', 'voiding') THEN amount ELSE captured END)
) WITH (fillfactor = 70);
-- Most payments need no looking after, so the index holds next to nothing.
CREATE INDEX payment_to_look_after ON payment (next_check_at) WHERE next_check_at IS NOT NULL;

CREATE TABLE refund (
    refund_id uuid PRIMARY KEY,
    payment_id uuid NOT NULL REFERENCES payment,
    amount bigint NOT NULL CHECK (amount > 0),
    reason text NOT NULL,
    -- open, done, refused
    status text NOT NULL,
    failure text,
    created_at timestamptz NOT NULL,
    settled_at timestamptz
);
CREATE INDEX refund_of_payment ON refund (payment_id);

CREATE TABLE payment_method (
    payment_method_id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    method_type text NOT NULL,
    method_token text NOT NULL,
    fingerprint bytea NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX payment_method_of_user ON payment_method (user_id, created_at DESC, payment_method_id DESC);

-- How far the provider's list of payments was compared with ours.
CREATE TABLE sweep (
    provider text PRIMARY KEY,
    swept_until timestamptz NOT NULL
);
