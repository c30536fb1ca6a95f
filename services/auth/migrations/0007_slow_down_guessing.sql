-- How often somebody guessed wrong: at an account, from a place, or at an account from a place it is known at. The key stands
-- for that and tells neither address.
CREATE TABLE guessing (
    key bytea PRIMARY KEY CHECK (length(key) = 32),
    failures integer NOT NULL CHECK (failures >= 1),
    failed_at timestamptz NOT NULL
);

CREATE INDEX guessing_over ON guessing (failed_at);

-- Places from which an account was logged in to.
CREATE TABLE familiar_place (
    account_id uuid NOT NULL REFERENCES account (id),
    place bytea NOT NULL CHECK (length(place) = 32),
    seen_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, place)
);
