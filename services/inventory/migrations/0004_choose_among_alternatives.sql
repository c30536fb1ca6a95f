-- Of each group of alternatives that the hold was made with, the place of the one that was taken: a byte a group, from 0.
-- Empty for a hold without a choice.
ALTER TABLE hold ADD taken bytea NOT NULL DEFAULT '';
