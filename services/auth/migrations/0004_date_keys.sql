-- When a key began to sign, and when it ceased to. A key that a process of the version before made active has none; it was
-- made and began at once.
ALTER TABLE signing_key
    ADD COLUMN activated_at timestamptz,
    ADD COLUMN retired_at timestamptz;
