-- What a person told us of themselves. The e-mail is a copy for display and mail; auth owns the one that logs in.
CREATE TABLE profile (
    user_id uuid PRIMARY KEY,
    email text NOT NULL,
    name text NOT NULL,
    created_at timestamptz NOT NULL,
    version bigint NOT NULL
);
