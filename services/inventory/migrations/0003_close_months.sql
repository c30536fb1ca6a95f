-- Months of movements can be let go once they are closed: every pool's balance at the month's end stands under a seal.
--
-- The heads in `checkpoint` prove where a chain was, not what it came to; so no month is dropped behind them.

-- A pool as all its movements before `until`, the beginning of a month, left it. Sealed with the cluster's secret by who
-- had proved the book that led there.
CREATE TABLE closing (
    pool     int4 NOT NULL,
    until    timestamptz NOT NULL,
    -- Of the newest movement before `until`, and its hash.
    version  int8 NOT NULL,
    head     bytea NOT NULL CHECK (octet_length(head) = 32),
    capacity int8 NOT NULL,
    held     int8 NOT NULL,
    sold     int8 NOT NULL,
    overbook int8 NOT NULL,
    at       timestamptz NOT NULL,
    seal     bytea NOT NULL,
    PRIMARY KEY (pool, until)
);
REVOKE UPDATE, DELETE, TRUNCATE ON closing FROM inventory_app;

-- Since when movements are kept; null: since ever.
CREATE TABLE movement_floor (
    id         int4 PRIMARY KEY CHECK (id = 1),
    kept_since timestamptz
);
INSERT INTO movement_floor (id) VALUES (1);
REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON movement_floor FROM inventory_app;

-- The months of movements there are.
CREATE VIEW movement_month AS
SELECT name, since, (since AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC' AS until
FROM (
    SELECT c.relname::text AS name,
           make_timestamptz(substr(c.relname, 10, 4)::int4, substr(c.relname, 15, 2)::int4, 1, 0, 0, 0, 'UTC') AS since
    FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'inventory.movement'::regclass
) AS month;
REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON movement_month FROM inventory_app;

-- Drops the months that end no later than `cut`, the beginning of a month, and answers with their names.
--
-- Refuses, and drops nothing, when a pool's newest movement there is not closed by then, and when a hold that was born
-- there may still live. Holds are not touched: what was bought can be given back however long ago it was.
--
-- Dropping waits for who reads movements, and the writer would wait behind it: so not for long.
CREATE FUNCTION drop_movement_months(cut timestamptz) RETURNS text[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = inventory, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    months   text[];
    month    text;
    unclosed int4;
BEGIN
    -- The same lock as for making them.
    PERFORM pg_advisory_xact_lock(x'6d6f76656d656e74'::int8);
    months := ARRAY(SELECT m.name FROM movement_month AS m WHERE m.until <= cut ORDER BY m.since);
    IF cut <> date_trunc('month', cut, 'UTC') THEN
        RAISE EXCEPTION 'cut: got %, wanted the beginning of a month', cut USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF cut > (SELECT live_since FROM birth_floor WHERE birth_floor.id = 1) THEN
        RAISE EXCEPTION 'cannot drop movements before %: holds born before may live', cut
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    FOREACH month IN ARRAY months LOOP
        -- From pool to pool along the index, for a month may hold very many movements.
        EXECUTE format(
            'WITH RECURSIVE moved AS (
                 (SELECT pool FROM %1$I ORDER BY pool LIMIT 1)
                 UNION ALL
                 SELECT (SELECT m.pool FROM %1$I AS m WHERE m.pool > moved.pool ORDER BY m.pool LIMIT 1)
                 FROM moved WHERE moved.pool IS NOT NULL
             )
             SELECT pool FROM moved
             WHERE pool IS NOT NULL
               AND NOT EXISTS (SELECT FROM closing
                               WHERE closing.pool = moved.pool AND closing.until = $1
                                 AND closing.version >= (SELECT max(m.version) FROM %1$I AS m WHERE m.pool = moved.pool))
             LIMIT 1', month) INTO unclosed USING cut;
        IF unclosed IS NOT NULL THEN
            RAISE EXCEPTION 'cannot drop %: pool % is not closed until %', month, unclosed, cut
                USING ERRCODE = 'object_not_in_prerequisite_state';
        END IF;
    END LOOP;
    FOREACH month IN ARRAY months LOOP
        EXECUTE format('DROP TABLE %I', month);
    END LOOP;
    IF cardinality(months) > 0 THEN
        UPDATE movement_floor SET kept_since = cut WHERE movement_floor.id = 1;
    END IF;
    RETURN months;
END
$$;
REVOKE ALL ON FUNCTION drop_movement_months FROM PUBLIC;
GRANT EXECUTE ON FUNCTION drop_movement_months TO inventory_app;
