-- How far delivery is: beside the status, which tells only the last that happened and may name a refund.
ALTER TABLE orders
    ADD COLUMN carrier text NOT NULL DEFAULT '',
    ADD COLUMN tracking text NOT NULL DEFAULT '',
    ADD COLUMN shipped_at timestamptz,
    ADD COLUMN delivered_at timestamptz,
    ADD CONSTRAINT order_is_delivered_after_it_was_shipped CHECK (delivered_at IS NULL OR shipped_at IS NOT NULL);

-- Who said that an order was shipped or delivered. Written once a request, so that the same request again does nothing.
CREATE TABLE handover (
    -- The UUID of the request.
    id uuid PRIMARY KEY,
    order_id uuid NOT NULL REFERENCES orders (id),
    fingerprint bytea NOT NULL,
    requested_by uuid NOT NULL,
    created_at timestamptz NOT NULL
);
REVOKE UPDATE, DELETE, TRUNCATE ON handover FROM orders_app;
