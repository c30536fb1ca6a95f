-- What people were told. A row has the id of the message it comes of, so a message that comes again makes none.
CREATE TABLE notification (
    id uuid PRIMARY KEY,
    -- In which order they were told.
    seq bigint GENERATED ALWAYS AS IDENTITY,
    user_id uuid NOT NULL,
    -- The message's type: order.confirmed.
    kind text NOT NULL,
    -- Ids and amounts that the texts show; nothing personal.
    facts jsonb NOT NULL,
    happened_at timestamptz NOT NULL,
    told_at timestamptz NOT NULL,
    read_at timestamptz
);
CREATE INDEX notification_by_user ON notification (user_id, seq);

-- The mail of each: whether it is still to go, and what became of it. To whom is the user's id; addresses are not kept.
CREATE TABLE mail (
    notification_id uuid PRIMARY KEY REFERENCES notification,
    seq bigint NOT NULL,
    user_id uuid NOT NULL,
    state text NOT NULL CHECK (state IN
        ('waiting', 'sent', 'too_old', 'too_many', 'no_address', 'suppressed', 'refused', 'dead')),
    told_at timestamptz NOT NULL,
    -- When it is to be tried; null once it is over.
    due_at timestamptz,
    leased_until timestamptz NOT NULL DEFAULT '-infinity',
    -- Rises with every worker that takes it; what an earlier one finds out is not written.
    epoch bigint NOT NULL DEFAULT 0,
    tries int NOT NULL DEFAULT 0,
    -- What the last try met, for people; never an address.
    note text NOT NULL DEFAULT '',
    settled_at timestamptz,
    CHECK ((state = 'waiting') = (due_at IS NOT NULL))
) WITH (fillfactor = 80);
CREATE INDEX mail_due ON mail (due_at, seq) WHERE due_at IS NOT NULL;
CREATE INDEX mail_by_user ON mail (user_id, told_at);
CREATE INDEX mail_dead ON mail (told_at) WHERE state = 'dead';

-- Addresses that a mail server said do not exist, each as an HMAC that only we can compare.
CREATE TABLE suppressed_address (
    blinded bytea PRIMARY KEY,
    since timestamptz NOT NULL,
    note text NOT NULL
);
