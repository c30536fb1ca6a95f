-- Who may log in.
CREATE TABLE account (
    id uuid PRIMARY KEY,
    -- Normalised; see Email in domain.rs.
    email text NOT NULL CONSTRAINT account_email_is_unique UNIQUE,
    -- A PHC string. NULL: nobody logs in by password.
    password_hash text,
    role text NOT NULL CHECK (role IN ('user', 'staff', 'admin')),
    created_at timestamptz NOT NULL,
    -- Names the registration that may complete this account; a later one takes its place.
    attempt uuid NOT NULL,
    -- NULL: its profile may not have been written yet, and it exists for nobody.
    registered_at timestamptz
);

-- One login and the family of refresh tokens that came of it. Its tokens are computed, not stored.
CREATE TABLE session (
    id uuid PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES account (id),
    state text NOT NULL CHECK (state IN ('open', 'logged_out', 'revoked')),
    -- The refresh token that is alive: the first, the second, ...
    turn bigint NOT NULL CHECK (turn >= 1),
    turned_at timestamptz NOT NULL,
    opened_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);

CREATE INDEX session_of_account ON session (account_id, expires_at);

-- What access tokens are signed with.
CREATE TABLE signing_key (
    -- The thumbprint of the public half (RFC 7638); `kid` in tokens.
    id text PRIMARY KEY,
    public_key bytea NOT NULL CHECK (length(public_key) = 32),
    -- Encrypted under a key derived from the cluster secret. A retired key has none: it signs no more.
    sealed_private_key bytea,
    state text NOT NULL CHECK (state IN ('next', 'active', 'retired')),
    created_at timestamptz NOT NULL,
    CHECK ((state = 'retired') = (sealed_private_key IS NULL))
);

-- One key signs and one is about to.
CREATE UNIQUE INDEX signing_key_in_use ON signing_key (state) WHERE state <> 'retired';
