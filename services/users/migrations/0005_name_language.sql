-- The language a person is written to in; null where they named none. Who is erased has none.
ALTER TABLE profile ADD COLUMN locale text CHECK (locale IN ('en', 'ja'));
