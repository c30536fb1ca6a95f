-- Of an erased person the id stays, for what others wrote down under it; nothing else does.
ALTER TABLE account ADD COLUMN erased_at timestamptz;
