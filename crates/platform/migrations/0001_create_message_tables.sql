-- What every service needs to tell and to listen: in its own schema, beside its own tables.

-- News on its way to the bus. A row is there from the commit that made the news until the bus has it.
--
-- Rows are inserted after the aggregate's row is locked, so of one key a higher id commits later; ids of different keys
-- may commit in any order. That holds as long as the identity hands out ids one by one: leave its cache at 1.
CREATE TABLE outbox (
    id          int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id  uuid NOT NULL,
    topic       text NOT NULL,
    key         text NOT NULL,
    envelope    text NOT NULL,
    inserted_at timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
-- Rows live for milliseconds: compressing them is work thrown away.
ALTER TABLE outbox ALTER envelope SET STORAGE EXTERNAL;

-- How far a consumer has come. Moved by compare-and-set in the transaction of the effects.
CREATE TABLE consumer_position (
    consumer        text    NOT NULL,
    topic           text    NOT NULL,
    partition       int4    NOT NULL,
    next_offset     int8    NOT NULL,
    -- True while a key without a row in consumer_key was surely never seen, so that its first version must be 1.
    knows_every_key boolean NOT NULL,
    PRIMARY KEY (consumer, topic, partition)
) WITH (fillfactor = 50);

-- The last version that took effect, by key.
CREATE TABLE consumer_key (
    consumer    text NOT NULL,
    topic       text NOT NULL,
    key         text NOT NULL,
    version     int8 NOT NULL,
    partition   int4 NOT NULL,
    last_offset int8 NOT NULL,
    PRIMARY KEY (consumer, topic, key)
) WITH (fillfactor = 80);

-- Messages set aside. A key with a row here is blocked, but for the message that fills a gap.
CREATE TABLE parked_message (
    id         int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer   text NOT NULL,
    topic      text NOT NULL,
    key        text NOT NULL,
    partition  int4 NOT NULL,
    log_offset int8 NOT NULL,
    -- Unknown when the envelope cannot be read.
    version    int8,
    envelope   text NOT NULL,
    cause      text NOT NULL CHECK (cause IN ('fault', 'gap', 'behind')),
    reason     text NOT NULL,
    parked_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (consumer, topic, partition, log_offset)
);
CREATE INDEX parked_message_by_key ON parked_message (consumer, topic, key, version NULLS FIRST, log_offset);
