-- A concert, a match. Whoever changes anything of it locks this row first.
CREATE TABLE event (
    id uuid PRIMARY KEY,
    -- SHA-256 of the request that made it: tells a repeated request from another one under the same id.
    fingerprint bytea NOT NULL,
    name text NOT NULL,
    venue text NOT NULL,
    starts_at timestamptz NOT NULL,
    -- IANA name.
    timezone text NOT NULL,
    currency text NOT NULL,
    -- NULL: as many tickets as there are.
    per_buyer_limit integer CHECK (per_buyer_limit > 0),
    -- NULL: as soon as it is published.
    opens_at timestamptz,
    -- NULL: when it starts.
    closes_at timestamptz,
    -- Of the waiting room, where there is one.
    lobby_opens_at timestamptz,
    admissions_per_minute integer CHECK (admissions_per_minute > 0),
    -- When its sale closes or its last tier ends: so that lists by what an event is now need not look at tiers.
    sells_until timestamptz NOT NULL,
    status text NOT NULL CHECK (status IN ('draft', 'published', 'cancelled')),
    -- Why it was cancelled.
    reason text CHECK ((reason IS NOT NULL) = (status = 'cancelled')),
    -- NULL: the public has never seen it.
    published_at timestamptz CHECK (published_at IS NOT NULL OR status <> 'published'),
    created_at timestamptz NOT NULL,
    version bigint NOT NULL,
    layout_version bigint NOT NULL,
    -- How many messages have told of it: drafts change silently, and messages are numbered without gaps.
    announced bigint NOT NULL,
    CHECK ((lobby_opens_at IS NULL) = (admissions_per_minute IS NULL))
);

-- Lists run by when events start.
CREATE INDEX event_by_start ON event (starts_at, id);

-- A part of the venue. Its seats are one value, for they are read and written as a whole: 50,000 rows an event would cost
-- more to find than to send.
CREATE TABLE section (
    event_id uuid NOT NULL REFERENCES event (id),
    -- From 0, in the order they were given in.
    position integer NOT NULL,
    id text NOT NULL,
    name text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('seated', 'general')),
    shape text CHECK (shape IN ('curved', 'straight')),
    -- People it holds.
    capacity integer NOT NULL,
    -- Rows of seats as `store/rows.rs` writes them.
    rows bytea,
    PRIMARY KEY (event_id, id),
    UNIQUE (event_id, position),
    CHECK ((kind = 'seated') = (rows IS NOT NULL)),
    CHECK ((kind = 'seated') = (shape IS NOT NULL))
);

CREATE TABLE tier (
    event_id uuid NOT NULL,
    -- From 0, in the order they were given in.
    position integer NOT NULL,
    id text NOT NULL,
    name text NOT NULL,
    section text NOT NULL,
    -- Minor units of the event's currency.
    price bigint NOT NULL CHECK (price >= 0),
    -- NULL: sold as long as the event is.
    ends_at timestamptz,
    PRIMARY KEY (event_id, id),
    FOREIGN KEY (event_id, section) REFERENCES section (event_id, id)
);
