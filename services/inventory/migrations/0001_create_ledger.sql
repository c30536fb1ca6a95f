-- The ledger. One statement writes to these tables (src/ledger/statement.sql); nothing else changes a balance.

-- Anything that can run out. The key is what the world says; rows and memory use the id, which is shorter.
CREATE TABLE pool (
    id               int4 PRIMARY KEY,
    key              text COLLATE "C" NOT NULL UNIQUE,
    capacity         int8 NOT NULL,
    held             int8 NOT NULL DEFAULT 0,
    sold             int8 NOT NULL DEFAULT 0,
    blocked          int8 NOT NULL DEFAULT 0,
    overbook         int8 NOT NULL DEFAULT 0,
    -- At or below this many free units `stock.low` is announced; null: never.
    low_at           int8,
    -- Announced, and not risen far enough since to announce it again.
    low              boolean NOT NULL DEFAULT false,
    -- Rises by one with each movement, so it numbers the pool's book without gaps.
    version          int8 NOT NULL DEFAULT 0,
    -- Rises only when capacity or policy change: what an ETag compares.
    capacity_version int8 NOT NULL DEFAULT 0,
    -- The hash of the newest movement; 32 zero bytes before the first.
    chain_head       bytea NOT NULL CHECK (octet_length(chain_head) = 32),
    -- Whoever writes, and whatever he believes: the last unit is sold once.
    CONSTRAINT no_oversell CHECK (
        capacity >= 0 AND held >= 0 AND sold >= 0 AND blocked >= 0 AND overbook >= 0
        AND held + sold + blocked <= capacity + overbook
    )
) WITH (fillfactor = 50);

-- An all-or-nothing claim on units of one or many pools. Its id is the request id of the Reserve that made it.
--
-- No index may name state or expires_at: it would end heap-only updates.
CREATE TABLE hold (
    id         uuid PRIMARY KEY,
    -- 1 live, 2 committed, 3 released, 4 expired
    state      int2 NOT NULL,
    version    int4 NOT NULL,
    expires_at timestamptz NOT NULL,
    born_at    timestamptz NOT NULL,
    -- The highest epoch that commanded it: commands of older ones are refused. 0 when no saga did.
    epoch      int8 NOT NULL,
    -- Whose live holds are counted; empty when nobody's.
    account    text NOT NULL,
    -- What the hold is for, such as an order's id; empty until bound.
    reference  text NOT NULL,
    -- Line i: units[i] units of pool pools[i], of which returned[i] were given back (empty when none were).
    pools      int4[] NOT NULL,
    units      int8[] NOT NULL,
    returned   int8[] NOT NULL
) WITH (fillfactor = 50);
-- A takeover looks for live holds only behind the birth of the oldest; a block-range index costs the writer nothing.
CREATE INDEX hold_by_birth ON hold USING brin (born_at) WITH (autosummarize = on);

-- The book of every pool: one entry a line, never folded, never changed. Each carries the hash of the one before.
CREATE TABLE movement (
    pool           int4 NOT NULL,
    version        int8 NOT NULL,
    -- 1 reserve, 2 commit, 3 release, 4 expire, 5 retake, 6 return, 7 adjust, 8 policy
    kind           int2 NOT NULL,
    units          int8 NOT NULL,
    held_after     int8 NOT NULL,
    sold_after     int8 NOT NULL,
    capacity_after int8 NOT NULL,
    at             timestamptz NOT NULL,
    -- When it took effect, when that was not `at`: an expiry's is the end of its hold.
    effective_at   timestamptz,
    hold           uuid,
    actor          text NOT NULL,
    reason         text NOT NULL,
    hash           bytea NOT NULL
) PARTITION BY RANGE (at);
REVOKE UPDATE, DELETE, TRUNCATE ON movement FROM inventory_app;

-- Wishes that make nothing with an id of their own (returns, adjustments, policies), so that asking again is found.
CREATE TABLE request (
    id          uuid PRIMARY KEY,
    fingerprint bytea NOT NULL,
    at          timestamptz NOT NULL
);
REVOKE UPDATE, DELETE, TRUNCATE ON request FROM inventory_app;

-- What each batch changed, until it was folded into messages. Found by presence: reading deletes.
CREATE TABLE change (
    id      int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL,
    pools   int4[] NOT NULL,
    low     int4[] NOT NULL,
    expired uuid[] NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
-- Rows live for milliseconds: compressing them is work thrown away.
ALTER TABLE change ALTER pools SET STORAGE EXTERNAL, ALTER low SET STORAGE EXTERNAL, ALTER expired SET STORAGE EXTERNAL;

-- Who may write, and how far he is. Every batch moves it from seq - 1 to seq in its own statement: no batch commits
-- unless the one before did, and none of an earlier epoch ever again.
CREATE TABLE fence (
    id           int4 PRIMARY KEY CHECK (id = 1),
    epoch        int8 NOT NULL,
    seq          int8 NOT NULL,
    -- The ledger's time of the last batch: no later writer goes back behind it.
    at           timestamptz NOT NULL,
    -- The process that writes, and the connection it writes on: when that is gone, so is its lease.
    holder       uuid,
    backend_pid  int4,
    backend_born timestamptz,
    renewed_at   timestamptz NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
INSERT INTO fence (id, epoch, seq, at, renewed_at) VALUES (1, 0, 0, 'epoch', '-infinity');

-- Heads of chains under a seal that only the cluster's secret can make: a tail that was cut off is missed.
CREATE TABLE checkpoint (
    pool    int4 NOT NULL,
    version int8 NOT NULL,
    head    bytea NOT NULL,
    at      timestamptz NOT NULL,
    seal    bytea NOT NULL,
    PRIMARY KEY (pool, version)
);
REVOKE UPDATE, DELETE, TRUNCATE ON checkpoint FROM inventory_app;

-- No hold born before this is live. Moved on with each checkpoint.
CREATE TABLE birth_floor (
    id         int4 PRIMARY KEY CHECK (id = 1),
    live_since timestamptz NOT NULL
);
INSERT INTO birth_floor (id, live_since) VALUES (1, 'epoch');

-- Makes the movement partitions of the month of `now` and of the two after it; returns the end of the last.
-- The run-time role calls it ahead of time; it may not make tables itself.
CREATE FUNCTION make_movement_partitions(now timestamptz) RETURNS timestamptz
LANGUAGE plpgsql SECURITY DEFINER SET search_path = inventory, pg_temp AS $$
DECLARE
    month timestamptz := date_trunc('month', now, 'UTC');
    next  timestamptz;
    name  text;
BEGIN
    -- Two processes that start together would both find it missing. Any number, as long as it is always the same.
    PERFORM pg_advisory_xact_lock(x'6d6f76656d656e74'::int8);
    FOR ahead IN 0..2 LOOP
        next := (month AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC';
        name := 'movement_' || to_char(month AT TIME ZONE 'UTC', 'YYYY_MM');
        IF to_regclass(name) IS NULL THEN
            EXECUTE format('CREATE TABLE %I PARTITION OF movement FOR VALUES FROM (%L) TO (%L)', name, month, next);
            -- On the partition, not on the parent, where it would have to name `at`.
            EXECUTE format('CREATE UNIQUE INDEX %I ON %I (pool, version)', name || '_by_pool', name);
            EXECUTE format('REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON %I FROM inventory_app', name);
        END IF;
        month := next;
    END LOOP;
    RETURN month;
END
$$;
REVOKE ALL ON FUNCTION make_movement_partitions FROM PUBLIC;
GRANT EXECUTE ON FUNCTION make_movement_partitions TO inventory_app;
