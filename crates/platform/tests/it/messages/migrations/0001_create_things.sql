-- A service that changes things and remembers what it was told of things.
CREATE TABLE thing (key text PRIMARY KEY, version int8 NOT NULL);
CREATE TABLE raw_change (id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key text NOT NULL, version int8 NOT NULL);
-- No uniqueness: an effect that happens twice is seen twice.
CREATE TABLE effect (
    id      int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic   text NOT NULL,
    key     text NOT NULL,
    version int8 NOT NULL
);
