-- What everybody has, per currency. The database itself keeps it from falling below nothing, whoever writes.
CREATE TABLE point_account (
    user_id uuid NOT NULL,
    currency text NOT NULL,
    balance bigint NOT NULL,
    PRIMARY KEY (user_id, currency),
    CONSTRAINT points_of_a_person_are_never_negative CHECK (balance >= 0)
) WITH (fillfactor = 85);

-- The book: every move of points is several entries whose sum is 0, for what one account loses another gains. Nobody
-- rewrites it.
CREATE TABLE point_entry (
    payment_id uuid NOT NULL REFERENCES payment,
    -- The version of the payment that moved the points.
    payment_version bigint NOT NULL,
    -- Why they moved. earned: money was captured. taken_back: it is promised back, or back.
    kind text NOT NULL CHECK (kind IN ('earned', 'taken_back')),
    -- person: the user's own. issued: what all points come from. written_off: those to be taken back that were spent.
    account text NOT NULL CHECK (account IN ('person', 'issued', 'written_off')),
    user_id uuid NOT NULL,
    currency text NOT NULL,
    -- What the account gained.
    amount bigint NOT NULL CHECK (amount <> 0),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (payment_id, payment_version, kind, account)
);
CREATE INDEX point_entry_of_user ON point_entry (user_id, created_at DESC, payment_id DESC, payment_version DESC)
    WHERE account = 'person';
REVOKE UPDATE, DELETE, TRUNCATE ON point_entry FROM payments_app;

-- Money that was kept before there were points has earned its points too: the book is then the same for all payments.
INSERT INTO point_entry (payment_id, payment_version, kind, account, user_id, currency, amount, created_at)
SELECT payment_id, version, 'earned', account, user_id, currency, sign * ((captured - refunded - refunding) / 100), created_at
FROM payment, (VALUES ('person', 1), ('issued', -1)) AS side (account, sign)
WHERE captured - refunded - refunding >= 100;
INSERT INTO point_account (user_id, currency, balance)
SELECT user_id, currency, sum(amount) FROM point_entry WHERE account = 'person' GROUP BY user_id, currency;
