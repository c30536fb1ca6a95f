-- Of an erased person the id and the version of the last news stay.
ALTER TABLE profile ADD COLUMN erased_at timestamptz;
