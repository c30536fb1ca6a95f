-- What was answered under an idempotency key. The row stays for good, because a key is spent for good; the sealed bytes
-- go after their time. They can only be read by whoever still has the key.
CREATE TABLE reply (
    request_id uuid PRIMARY KEY,
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 32),
    sealed bytea,
    kept_until timestamptz NOT NULL
);
CREATE INDEX reply_to_prune ON reply (kept_until) WHERE sealed IS NOT NULL;

REVOKE DELETE ON reply FROM gateway_app;
