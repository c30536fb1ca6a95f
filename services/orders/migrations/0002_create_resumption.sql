-- Who set a stuck order going again. Written once a request, so that the same request again does nothing.
CREATE TABLE resumption (
    -- The UUID of the request.
    id uuid PRIMARY KEY,
    order_id uuid NOT NULL REFERENCES orders (id),
    fingerprint bytea NOT NULL,
    requested_by uuid NOT NULL,
    created_at timestamptz NOT NULL
);
REVOKE UPDATE, DELETE, TRUNCATE ON resumption FROM orders_app;
