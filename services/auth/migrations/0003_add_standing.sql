ALTER TABLE account
    -- Nobody logs in to an account that is not.
    ADD COLUMN is_active boolean NOT NULL DEFAULT true,
    -- The version of its last news on the bus; 1 is its registration.
    ADD COLUMN news bigint NOT NULL DEFAULT 1;

-- Lists go from the newest account on.
CREATE INDEX account_by_age ON account (created_at, id) WHERE registered_at IS NOT NULL;
