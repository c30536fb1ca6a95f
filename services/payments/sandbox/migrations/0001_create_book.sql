-- The sandbox provider's book: what a bank would know. Nothing of ours may look into it but through its door.
CREATE TABLE charge (
    payment_id uuid PRIMARY KEY,
    method_type text NOT NULL,
    method_token text NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0),
    currency text NOT NULL,
    expires_at timestamptz NOT NULL,
    -- requires_action, authorized, captured, failed, voided
    status text NOT NULL,
    failure text,
    captured bigint NOT NULL DEFAULT 0,
    refunded bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    -- Until then whoever asks is told that it is under way.
    known_at timestamptz NOT NULL,
    CONSTRAINT charge_captured_once CHECK (captured IN (0, amount)),
    CONSTRAINT charge_refunds_within_captured CHECK (refunded BETWEEN 0 AND captured)
);
CREATE INDEX charge_by_time ON charge (created_at, payment_id);

CREATE TABLE charge_refund (
    refund_id uuid PRIMARY KEY,
    payment_id uuid NOT NULL REFERENCES charge,
    amount bigint NOT NULL CHECK (amount > 0),
    created_at timestamptz NOT NULL,
    known_at timestamptz NOT NULL
);

-- Every movement of money, only ever added to.
CREATE TABLE entry (
    entry_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    payment_id uuid NOT NULL REFERENCES charge,
    -- authorize, capture, refund, void
    kind text NOT NULL,
    amount bigint NOT NULL,
    at timestamptz NOT NULL
);
CREATE INDEX entry_of_charge ON entry (payment_id);

-- What the sandbox wants to tell, as a provider's webhook would; gone once it was taken.
CREATE TABLE notice (
    notice_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    payment_id uuid NOT NULL,
    due_at timestamptz NOT NULL
);
CREATE INDEX notice_by_time ON notice (due_at);

REVOKE UPDATE, DELETE, TRUNCATE ON entry FROM sandbox_app;
