-- The key under which lies what we hold of a person; it lies itself under the wrapping key of its version. Who is erased has
-- none.
CREATE TABLE subject_key (
    subject uuid PRIMARY KEY,
    version integer NOT NULL CHECK (version >= 1),
    wrapped bytea NOT NULL
);

CREATE INDEX subject_key_by_version ON subject_key (version);

-- The e-mail lies in the clear or sealed, not both. In the clear it lies only where processes of the version before read it;
-- see auth.plain_personal_data.
ALTER TABLE account
    ALTER COLUMN email DROP NOT NULL,
    ADD COLUMN sealed_email bytea,
    -- An HMAC that stands for the e-mail where it is compared.
    ADD COLUMN email_index bytea CONSTRAINT account_email_index_is_unique UNIQUE CHECK (length(email_index) = 32);

-- What is still to be sealed.
CREATE INDEX account_in_the_clear ON account (id) WHERE email IS NOT NULL;
