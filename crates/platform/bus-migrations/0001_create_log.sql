-- The embedded message log: what Kafka is elsewhere.

-- One row a partition of a topic. Its lock is the queue at the door: whoever holds it hands out offsets without holes.
CREATE TABLE topic (
    name        text NOT NULL,
    partition   int4 NOT NULL,
    log_start   int8 NOT NULL DEFAULT 0,
    next_offset int8 NOT NULL DEFAULT 0,
    PRIMARY KEY (name, partition),
    CHECK (0 <= log_start AND log_start <= next_offset)
) WITH (fillfactor = 50);

CREATE TABLE message (
    topic       text NOT NULL,
    partition   int4 NOT NULL,
    log_offset  int8 NOT NULL,
    service     text NOT NULL,
    outbox_id   int8 NOT NULL,
    message_id  uuid NOT NULL,
    key         text NOT NULL,
    envelope    text NOT NULL,
    -- Taken under the counter's lock, so it does not fall as offsets rise.
    appended_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (topic, partition, log_offset),
    -- What a relay appends a second time, not knowing that the first time came through, is there once.
    CONSTRAINT message_appended_once UNIQUE (service, outbox_id)
);
REVOKE UPDATE, DELETE, TRUNCATE ON message FROM bus_app;
REVOKE DELETE, TRUNCATE ON topic FROM bus_app;

-- Drops the oldest messages of a partition, at most max_rows of them, as far as they were appended longer ago than keep.
-- The only way to drop any, and never the last hour. Returns how many were dropped.
CREATE FUNCTION drop_behind(in_topic text, in_partition int4, keep interval, max_rows int4) RETURNS int8
LANGUAGE plpgsql SECURITY DEFINER SET search_path = bus, pg_temp AS $$
DECLARE
    start   int8;
    cut     int8;
    dropped int8;
BEGIN
    IF keep IS NULL OR keep < interval '1 hour' THEN
        RAISE EXCEPTION 'keep is %, wanted one hour or more', keep USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT log_start INTO start FROM topic WHERE name = in_topic AND partition = in_partition FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    -- The oldest of the next max_rows that is young enough to stay, or the end of those.
    SELECT coalesce(min(log_offset) FILTER (WHERE appended_at >= clock_timestamp() - keep), max(log_offset) + 1, start)
    INTO cut
    FROM (
        SELECT log_offset, appended_at FROM message
        WHERE topic = in_topic AND partition = in_partition AND log_offset >= start
        ORDER BY log_offset LIMIT max_rows
    ) AS oldest;
    DELETE FROM message WHERE topic = in_topic AND partition = in_partition AND log_offset < cut;
    GET DIAGNOSTICS dropped = ROW_COUNT;
    UPDATE topic SET log_start = cut WHERE name = in_topic AND partition = in_partition AND log_start <> cut;
    RETURN dropped;
END
$$;
REVOKE ALL ON FUNCTION drop_behind FROM PUBLIC;
GRANT EXECUTE ON FUNCTION drop_behind TO bus_app;
