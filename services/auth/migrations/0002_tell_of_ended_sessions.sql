-- What the client called itself at login, cut to 200 characters; so that people tell their sessions apart.
ALTER TABLE session ADD COLUMN user_agent text NOT NULL DEFAULT '' CHECK (length(user_agent) <= 200);

-- Sessions that ended while access tokens of theirs may live. Every process is told of them; each is forgotten once those
-- tokens are dead by themselves.
CREATE TABLE revocation (
    -- In the order of commits, without gaps: whoever has seen one has seen all before it.
    number bigint PRIMARY KEY,
    session_id uuid NOT NULL,
    -- No access token of the session lives any longer.
    dead_at timestamptz NOT NULL
);

CREATE INDEX revocation_over ON revocation (dead_at);

-- The last number given. Its lock is held until the numbered rows are committed; a sequence's numbers would appear in any
-- order, and whoever reads behind a cursor would miss some.
CREATE TABLE revocation_counter (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    last bigint NOT NULL
);

INSERT INTO revocation_counter (last) VALUES (0);
