-- How many points there were, of an order whose payment was refused because they were too few.
ALTER TABLE orders ADD COLUMN points_found bigint CHECK (points_found >= 0);
