-- Where people have things sent to. What an address says lies sealed under the key of its owner.
CREATE TABLE address (
    -- Derived from the request that added it.
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES profile (user_id),
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL,
    version bigint NOT NULL CHECK (version >= 1)
);

CREATE INDEX address_of_user ON address (user_id, created_at, id);
