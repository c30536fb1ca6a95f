-- The commercial record. Prices are frozen when it is written; amounts are minor units of its currency.
CREATE TABLE orders (
    -- The UUID of the request that made it, and of its hold in the ledger.
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    source text NOT NULL CHECK (source IN ('checkout', 'booking')),
    status text NOT NULL CHECK (status IN (
        'pending', 'awaiting_payment', 'paid', 'confirmed', 'shipped', 'delivered', 'cancelled', 'payment_failed',
        'expired', 'partially_refunded', 'refunded', 'needs_attention')),
    currency text NOT NULL,
    subtotal bigint NOT NULL CHECK (subtotal >= 0),
    shipping bigint NOT NULL DEFAULT 0 CHECK (shipping >= 0),
    tax bigint NOT NULL DEFAULT 0 CHECK (tax >= 0),
    points_used bigint NOT NULL DEFAULT 0 CHECK (points_used >= 0),
    total bigint NOT NULL CHECK (total >= 0),
    refunded bigint NOT NULL DEFAULT 0,
    hold_expires_at timestamptz NOT NULL,
    payment_id uuid,
    payment_status text NOT NULL DEFAULT '',
    next_action text NOT NULL DEFAULT '',
    -- SHA-256 of the request's body: tells the same request from another one under the same id.
    fingerprint bytea NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    version bigint NOT NULL,
    CONSTRAINT order_adds_up CHECK (total = subtotal + shipping + tax - points_used),
    CONSTRAINT order_refunds_no_more_than_its_total CHECK (refunded BETWEEN 0 AND total)
) WITH (fillfactor = 85);

-- Ids are derived from request keys and do not sort by time, so lists carry both.
CREATE INDEX orders_of_user ON orders (user_id, created_at DESC, id DESC);
CREATE INDEX orders_by_time ON orders (created_at DESC, id DESC);

CREATE TABLE order_item (
    order_id uuid NOT NULL REFERENCES orders (id),
    -- Its place on the order, from 1.
    line integer NOT NULL,
    sku text NOT NULL,
    name text NOT NULL,
    quantity bigint NOT NULL CHECK (quantity > 0),
    unit_price bigint NOT NULL CHECK (unit_price >= 0),
    refunded_quantity bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (order_id, line),
    CONSTRAINT item_returns_no_more_than_was_bought CHECK (refunded_quantity BETWEEN 0 AND quantity)
);

-- The history. Nobody rewrites it.
CREATE TABLE order_event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id uuid NOT NULL REFERENCES orders (id),
    type text NOT NULL,
    description text NOT NULL,
    old_value text NOT NULL,
    new_value text NOT NULL,
    -- Who acted; null when the platform itself did.
    user_id uuid,
    created_at timestamptz NOT NULL
);
CREATE INDEX order_event_of_order ON order_event (order_id, id);
REVOKE UPDATE, DELETE, TRUNCATE ON order_event FROM orders_app;

-- How far the purchase is carried out, one row an order. The order tells the customer, this tells the worker.
CREATE TABLE saga (
    order_id uuid PRIMARY KEY REFERENCES orders (id),
    -- Rises with every take-over; commands of a lower one are refused everywhere.
    epoch bigint NOT NULL,
    -- forward: towards confirmed. undoing: back, towards `ending`. done: nothing to do until woken.
    phase text NOT NULL CHECK (phase IN ('forward', 'undoing', 'done')),
    -- The status the order gets when all is undone, and why.
    ending text,
    ending_reason text NOT NULL DEFAULT '',
    -- How it shall be paid; forgotten when the purchase is over.
    method jsonb,
    -- Which hold it stands on: 0 is the order's own, later ones were taken after that one had ended.
    hold_attempt integer NOT NULL DEFAULT 0,
    -- The hold was given time for the payment.
    hold_extended boolean NOT NULL DEFAULT false,
    -- The ledger said that the hold's time is over.
    hold_ended boolean NOT NULL DEFAULT false,
    cancel_request uuid,
    cancel_fingerprint bytea,
    cancelled_by uuid,
    cancel_reason text NOT NULL DEFAULT '',
    -- Refunds of this order that are not over.
    open_refunds integer NOT NULL DEFAULT 0 CHECK (open_refunds >= 0),
    -- Counts news for the saga, so that what arrives while a worker is busy is not slept over.
    wakes bigint NOT NULL DEFAULT 0,
    -- When a worker is to look; null: when woken.
    due_at timestamptz,
    -- Until then it belongs to the worker that took it.
    leased_until timestamptz NOT NULL,
    -- How often in a row the step failed, and at which step.
    failures integer NOT NULL DEFAULT 0,
    failed_step text NOT NULL DEFAULT ''
) WITH (fillfactor = 85);
CREATE INDEX saga_due ON saga (due_at) WHERE due_at IS NOT NULL;

-- Money on its way back, and units with it.
CREATE TABLE refund (
    -- The UUID of the request that made it; payments and the ledger know it under the same.
    id uuid PRIMARY KEY,
    order_id uuid NOT NULL REFERENCES orders (id),
    fingerprint bytea NOT NULL,
    amount bigint NOT NULL CHECK (amount >= 0),
    -- [{"line": 1, "quantity": 2}]: units that return to stock.
    units jsonb NOT NULL,
    reason text NOT NULL,
    requested_by uuid,
    -- dropped: nothing was captured in the end, so there is nothing to give back.
    state text NOT NULL CHECK (state IN ('open', 'done', 'dropped')),
    created_at timestamptz NOT NULL
);
CREATE INDEX refund_of_order ON refund (order_id, created_at, id);
