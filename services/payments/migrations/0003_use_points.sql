-- Points that a purchase uses beside money, or instead of it.
ALTER TABLE payment
    ADD COLUMN points bigint NOT NULL DEFAULT 0 CHECK (points >= 0),
    -- Those of them that are back with their owner.
    ADD COLUMN points_back bigint NOT NULL DEFAULT 0,
    -- Minor units of kept money that earn one point: what it was when the payment began, whatever is set since.
    ADD COLUMN units_per_point bigint NOT NULL DEFAULT 100 CHECK (units_per_point > 0),
    DROP CONSTRAINT payment_amount_check,
    ADD CONSTRAINT payment_is_of_money_or_points CHECK (amount >= 0 AND (amount > 0 OR points > 0)),
    ADD CONSTRAINT payment_gives_back_no_more_points_than_it_used CHECK (points_back BETWEEN 0 AND points);

ALTER TABLE refund
    ADD COLUMN points bigint NOT NULL DEFAULT 0 CHECK (points >= 0),
    DROP CONSTRAINT refund_amount_check,
    ADD CONSTRAINT refund_is_of_money_or_points CHECK (amount >= 0 AND (amount > 0 OR points > 0));

-- held: set aside for payments under way. spent: what purchases were paid with.
-- used: set aside, or spent. given_back: back with their owner.
ALTER TABLE point_entry
    DROP CONSTRAINT point_entry_account_check,
    ADD CONSTRAINT point_entry_account_check
        CHECK (account IN ('person', 'issued', 'written_off', 'held', 'spent')),
    DROP CONSTRAINT point_entry_kind_check,
    ADD CONSTRAINT point_entry_kind_check CHECK (kind IN ('earned', 'taken_back', 'used', 'given_back'));

-- One refund may give points back and take points back: the kind tells the two entries apart.
CREATE INDEX point_entry_in_order ON point_entry
    (user_id, created_at DESC, payment_id DESC, payment_version DESC, kind DESC) WHERE account = 'person';
DROP INDEX point_entry_of_user;

-- Rises by one with every change that is told of.
ALTER TABLE point_account ADD COLUMN version bigint NOT NULL DEFAULT 0;

-- Changes of accounts that nobody was told of yet. The relay makes messages of them: only here it is known what the balance
-- became, in the statement that changes it.
CREATE TABLE point_news (
    point_news_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id uuid NOT NULL,
    currency text NOT NULL,
    version bigint NOT NULL,
    balance bigint NOT NULL,
    delta bigint NOT NULL,
    reason text NOT NULL,
    payment_id uuid NOT NULL,
    purchase_id text NOT NULL,
    changed_at timestamptz NOT NULL
);
