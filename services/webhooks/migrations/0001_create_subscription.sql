-- Who outside is told of what.
CREATE TABLE subscription (
    id              uuid PRIMARY KEY,
    -- Of the request that made it: a key is spent for good, so a row stays when its subscription is deleted.
    fingerprint     bytea NOT NULL,
    url             text NOT NULL,
    types           text[] NOT NULL,
    description     text NOT NULL,
    status          text NOT NULL CHECK (status IN ('active', 'disabled', 'deleted')),
    disabled_reason text CHECK (disabled_reason IN ('gone', 'failing')),
    -- Since when nothing has come through; null while the last try did.
    failing_since   timestamptz,
    created_at      timestamptz NOT NULL,
    CHECK ((status = 'disabled') = (disabled_reason IS NOT NULL))
);
CREATE INDEX subscription_by_time ON subscription (created_at DESC, id DESC) WHERE status <> 'deleted';

-- What deliveries are signed with, sealed under a key of its own that lies wrapped. A row stays when its secret is
-- forgotten.
CREATE TABLE secret (
    -- The request that made it: the subscription's own, or a rotation.
    request_id      uuid PRIMARY KEY,
    subscription_id uuid NOT NULL REFERENCES subscription,
    fingerprint     bytea NOT NULL,
    -- Which wrapping key it lies under.
    key_version     int4,
    wrapped_key     bytea,
    sealed          bytea,
    made_at         timestamptz NOT NULL,
    -- Null: until it is rotated out.
    signs_until     timestamptz,
    CHECK (num_nulls(key_version, wrapped_key, sealed) IN (0, 3))
);
CREATE INDEX secret_by_subscription ON secret (subscription_id) WHERE sealed IS NOT NULL;

-- The feed: every public message, in the order in which it came in here.
CREATE TABLE message (
    feed_offset int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id          uuid NOT NULL UNIQUE,
    kind        text NOT NULL,
    at          timestamptz NOT NULL,
    -- When it came in here; what it is kept by.
    taken_at    timestamptz NOT NULL,
    envelope    text NOT NULL
);
CREATE INDEX message_by_kind ON message (kind, feed_offset);
CREATE INDEX message_by_time ON message (at);

-- One row. Who adds to the feed holds its lock until the end of the transaction, so that offsets appear in order and a
-- reader who has seen one has missed none below.
CREATE TABLE feed (
    one       boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- The highest offset that is not kept any more.
    pruned_to int8 NOT NULL DEFAULT 0
);
INSERT INTO feed DEFAULT VALUES;

-- A message on its way to a subscription.
CREATE TABLE delivery (
    subscription_id uuid NOT NULL REFERENCES subscription,
    message_id      uuid NOT NULL REFERENCES message (id) ON DELETE CASCADE,
    feed_offset     int8 NOT NULL,
    state           text NOT NULL CHECK (state IN ('waiting', 'delivered', 'dead')),
    due_at          timestamptz NOT NULL,
    -- Somebody is at it until then.
    leased_until    timestamptz NOT NULL DEFAULT '-infinity',
    -- How many tries were begun; the outcome of an older one than the last is not taken.
    epoch           int8 NOT NULL DEFAULT 0,
    -- Failed tries since the schedule began.
    failures        int4 NOT NULL DEFAULT 0,
    -- How often it was asked for again; a try that was begun before does not end what was asked for since.
    replays         int4 NOT NULL DEFAULT 0,
    PRIMARY KEY (subscription_id, message_id)
) WITH (fillfactor = 80);
CREATE INDEX delivery_due ON delivery (subscription_id, due_at, feed_offset) WHERE state = 'waiting';
CREATE INDEX delivery_by_message ON delivery (message_id);

-- Every try. Written when it begins, so that one whose worker died shows.
CREATE TABLE attempt (
    id              int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subscription_id uuid NOT NULL,
    message_id      uuid NOT NULL,
    number          int8 NOT NULL,
    at              timestamptz NOT NULL,
    status          int4,
    failure         text,
    millis          int8,
    UNIQUE (subscription_id, message_id, number),
    FOREIGN KEY (subscription_id, message_id) REFERENCES delivery ON DELETE CASCADE
) WITH (fillfactor = 80);
CREATE INDEX attempt_by_subscription ON attempt (subscription_id, id DESC);

-- What was asked to be sent again.
CREATE TABLE replay (
    request_id      uuid PRIMARY KEY,
    subscription_id uuid NOT NULL REFERENCES subscription,
    fingerprint     bytea NOT NULL,
    scheduled       int8 NOT NULL,
    made_at         timestamptz NOT NULL
);
