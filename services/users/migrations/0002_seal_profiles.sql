-- The key under which everything lies that we hold of a person; it lies itself under the wrapping key of its version. Who is
-- erased has none.
CREATE TABLE subject_key (
    subject uuid PRIMARY KEY,
    version integer NOT NULL CHECK (version >= 1),
    wrapped bytea NOT NULL
);

CREATE INDEX subject_key_by_version ON subject_key (version);

-- A value lies in the clear or sealed, not both. In the clear it lies only where processes of the version before read it;
-- see users.plain_personal_data.
ALTER TABLE profile
    ALTER COLUMN email DROP NOT NULL,
    ALTER COLUMN name DROP NOT NULL,
    ADD COLUMN sealed_email bytea,
    ADD COLUMN sealed_name bytea;

-- What is still to be sealed.
CREATE INDEX profile_in_the_clear ON profile (user_id) WHERE name IS NOT NULL;
