-- Requests that wait until what they want comes free. A request that leaves the line stays as a row: who stood where, and
-- for what, is the proof that nobody was overtaken. Its id is then that of a hold: granted, given up, or expired in line.
CREATE TABLE stand (
    id           uuid PRIMARY KEY,
    -- Whoever has a lower one is served before.
    place        int8 NOT NULL UNIQUE,
    standing     boolean NOT NULL,
    stood_at     timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    -- How long the hold is held that it becomes.
    ttl_micros   int8 NOT NULL,
    account      text NOT NULL,
    actor        text NOT NULL,
    reference    text NOT NULL,
    -- Line i: units[i] units of pool pools[i], wanted in any case (groups[i] = 0), or as part of alternative
    -- alternatives[i], from 0, of group groups[i], from 1.
    groups       int2[] NOT NULL,
    alternatives int2[] NOT NULL,
    pools        int4[] NOT NULL,
    units        int8[] NOT NULL
);
-- The line itself, which a takeover reads.
CREATE INDEX stand_in_line ON stand (place) WHERE standing;
REVOKE UPDATE, DELETE, TRUNCATE ON stand FROM inventory_app;
GRANT UPDATE (standing) ON stand TO inventory_app;

-- Holds that requests in line were granted.
ALTER TABLE change ADD granted uuid[] NOT NULL DEFAULT '{}';
