//! Secrets at rest: sealed as personal data is, each under a key of its own, which lies wrapped beside it.

use holdfast_platform::envelope::{Envelope, Unopened, WrappedKey};
use uuid::Uuid;

use crate::signature::Secret;

/// What the wrapping keys are derived for from the installation's secret.
pub(crate) const PURPOSE: &str = "webhook secrets";
/// Table and column in which they lie.
const PLACE: &str = "secret.sealed";

/// Seals and opens secrets. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Vault(Envelope);

/// A secret as it lies in its row.
#[derive(Debug, Clone)]
pub(crate) struct AtRest {
    pub(crate) key: WrappedKey,
    pub(crate) sealed: Vec<u8>,
}

impl Vault {
    pub(crate) fn new(envelope: Envelope) -> Self {
        Self(envelope)
    }

    /// The version of the key that secrets' keys are wrapped under now.
    pub(crate) fn version(&self) -> u32 {
        self.0.version()
    }

    /// Seals the secret that this request made.
    pub(crate) fn seal(&self, request: Uuid, secret: &Secret) -> AtRest {
        let (subject, key) = self.0.make_key(request);
        let sealed = subject.seal(PLACE, &secret.to_text());
        AtRest { key, sealed }
    }

    /// The secret that was sealed for this request.
    pub(crate) fn open(&self, request: Uuid, at_rest: &AtRest) -> Result<Secret, Unopened> {
        let subject = self.0.open_key(request, &at_rest.key)?;
        let text = subject.open(PLACE, &at_rest.sealed)?;
        Secret::parse(&text).ok_or_else(|| Unopened {
            place: PLACE.to_owned(),
            subject: request,
        })
    }

    /// The same key, wrapped under the key of now.
    pub(crate) fn rewrap(&self, request: Uuid, key: &WrappedKey) -> Result<WrappedKey, Unopened> {
        self.0.rewrap(request, key)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_platform::cluster::Secrets;

    use super::*;
    use crate::signature::SECRET_BYTES;

    fn vault(version: u32) -> Vault {
        let secrets = Secrets::parse(&"a".repeat(64)).expect("64 hexadecimal digits");
        Vault::new(Envelope::new(&secrets, PURPOSE, version))
    }

    #[test]
    fn a_sealed_secret_opens_for_its_own_request_and_still_when_its_key_was_wrapped_anew() {
        let (request, secret) = (Uuid::from_u128(1), Secret::new([9; SECRET_BYTES]));
        let mut at_rest = vault(1).seal(request, &secret);
        assert_eq!(vault(1).open(request, &at_rest), Ok(secret.clone()));
        assert!(vault(1).open(Uuid::from_u128(2), &at_rest).is_err());
        at_rest.key = vault(2).rewrap(request, &at_rest.key).expect("wrapped");
        assert_eq!((at_rest.key.version, vault(2).version()), (2, 2));
        assert_eq!(vault(2).open(request, &at_rest), Ok(secret));
    }
}
