CREATE TABLE jar (label text PRIMARY KEY, cookies integer NOT NULL CHECK (cookies >= 0));
CREATE TABLE jar_event (at timestamptz NOT NULL, label text NOT NULL);
REVOKE UPDATE, DELETE, TRUNCATE ON jar_event FROM kitchen_app;
