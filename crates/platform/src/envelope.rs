//! Personal data at rest: sealed under a key of the person's own, which can be thrown away.
//!
//! ```text
//! installation's secret ─▶ wrapping key, by version ─▶ key of one subject ─▶ each sealed text
//!                                            (stored wrapped)         (stored in its column)
//! ```
//!
//! Whoever has a dump of the database and not the secret reads nothing. When a subject's key is deleted, what was sealed
//! under it is noise, wherever copies of it lie. Wrapping keys have versions: under a new one the subjects' keys are
//! [wrapped anew](Envelope::rewrap), and the texts stay as they are. A sealed text opens only in the place, and for the
//! subject, that it was sealed for, so rows cannot be swapped.
//!
//! What has to be found again is found by its [`BlindIndex`].

pub mod subject_keys;

use std::fmt;

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use uuid::Uuid;

use crate::cluster::Secrets;

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
/// Where a subject's key is sealed, as texts are sealed in their columns.
const KEY_PLACE: &str = "subject key";

/// Wraps and opens the keys of subjects.
#[derive(Clone)]
pub struct Envelope {
    secrets: Secrets,
    purpose: &'static str,
    version: u32,
}

/// A subject's key as the database holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// Which wrapping key it lies under.
    pub version: u32,
    /// The key, sealed.
    pub bytes: Vec<u8>,
}

/// Seals and opens what belongs to one subject.
pub struct SubjectKey {
    seal: Seal,
}

/// Finds equal texts without telling them: an HMAC under a key of the installation's secret.
#[derive(Clone)]
pub struct BlindIndex([u8; 32]);

/// Something sealed does not open: under another secret, in another place, for another subject, or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{place} of {subject} does not open; it was sealed under another secret or in another place"
)]
pub struct Unopened {
    /// Table and column.
    pub place: String,
    /// Whose it is.
    pub subject: Uuid,
}

impl Envelope {
    /// Wraps keys for `purpose` (`"users personal data"`) under the wrapping key of this version, and opens those of
    /// versions before it too.
    pub fn new(secrets: &Secrets, purpose: &'static str, version: u32) -> Self {
        Self {
            secrets: secrets.clone(),
            purpose,
            version,
        }
    }

    /// The version under which keys are wrapped now.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// A new key for a subject that has none.
    pub fn make_key(&self, subject: Uuid) -> (SubjectKey, WrappedKey) {
        let key: [u8; KEY_BYTES] = rand::random();
        let bytes = self.wrapping(self.version, subject).seal(KEY_PLACE, &key);
        let wrapped = WrappedKey {
            version: self.version,
            bytes,
        };
        (SubjectKey::new(key, subject), wrapped)
    }

    /// The key of a subject.
    pub fn open_key(&self, subject: Uuid, wrapped: &WrappedKey) -> Result<SubjectKey, Unopened> {
        let key = self.unwrap(subject, wrapped)?;
        Ok(SubjectKey::new(key, subject))
    }

    /// The same key under the wrapping key of now.
    pub fn rewrap(&self, subject: Uuid, wrapped: &WrappedKey) -> Result<WrappedKey, Unopened> {
        let key = self.unwrap(subject, wrapped)?;
        let bytes = self.wrapping(self.version, subject).seal(KEY_PLACE, &key);
        Ok(WrappedKey {
            version: self.version,
            bytes,
        })
    }

    fn unwrap(&self, subject: Uuid, wrapped: &WrappedKey) -> Result<[u8; KEY_BYTES], Unopened> {
        let wrapping = self.wrapping(wrapped.version, subject);
        let key = wrapping.open(KEY_PLACE, &wrapped.bytes)?;
        key.try_into().map_err(|_| wrapping.unopened(KEY_PLACE))
    }

    fn wrapping(&self, version: u32, subject: Uuid) -> Seal {
        let key = self.secrets.key(&format!("{} {version}", self.purpose));
        Seal::new(key, subject)
    }
}

impl SubjectKey {
    /// Seals a text for the place, table and column, in which it will lie.
    pub fn seal(&self, place: &str, text: &str) -> Vec<u8> {
        self.seal.seal(place, text.as_bytes())
    }

    /// The text that was sealed for this place.
    pub fn open(&self, place: &str, sealed: &[u8]) -> Result<String, Unopened> {
        let bytes = self.seal.open(place, sealed)?;
        String::from_utf8(bytes).map_err(|_| self.seal.unopened(place))
    }

    fn new(key: [u8; KEY_BYTES], subject: Uuid) -> Self {
        Self {
            seal: Seal::new(key, subject),
        }
    }
}

impl fmt::Debug for SubjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SubjectKey(..)")
    }
}

impl BlindIndex {
    /// An index for `purpose`; texts of another one are not found by it.
    pub fn new(secrets: &Secrets, purpose: &str) -> Self {
        Self(secrets.key(purpose))
    }

    /// What stands for this text.
    pub fn of(&self, text: &str) -> [u8; 32] {
        let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(&self.0)
            .expect("HMAC takes keys of any length");
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

/// A cipher for one subject. Nonces are random: at 24 bytes they do not meet.
struct Seal {
    cipher: XChaCha20Poly1305,
    subject: Uuid,
}

impl Seal {
    fn new(key: [u8; KEY_BYTES], subject: Uuid) -> Self {
        Self {
            cipher: XChaCha20Poly1305::new(&key.into()),
            subject,
        }
    }

    fn seal(&self, place: &str, text: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let payload = Payload {
            msg: text,
            aad: &self.bound_to(place),
        };
        let sealed = self
            .cipher
            .encrypt(XNonce::from_slice(&nonce), payload)
            .expect("texts of this size can be sealed");
        [nonce.as_slice(), &sealed].concat()
    }

    fn open(&self, place: &str, sealed: &[u8]) -> Result<Vec<u8>, Unopened> {
        let unopened = || self.unopened(place);
        let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES).ok_or_else(unopened)?;
        let payload = Payload {
            msg: sealed,
            aad: &self.bound_to(place),
        };
        self.cipher
            .decrypt(XNonce::from_slice(nonce), payload)
            .map_err(|_| unopened())
    }

    fn bound_to(&self, place: &str) -> Vec<u8> {
        [self.subject.as_bytes(), place.as_bytes()].concat()
    }

    fn unopened(&self, place: &str) -> Unopened {
        Unopened {
            place: place.to_owned(),
            subject: self.subject,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: Uuid = Uuid::from_u128(1);
    const EVE: Uuid = Uuid::from_u128(2);

    fn envelope(secret: char, version: u32) -> Envelope {
        let secret = secret.to_string().repeat(64);
        let secrets = Secrets::parse(&secret).expect("64 hexadecimal digits");
        Envelope::new(&secrets, "test", version)
    }

    #[test]
    fn a_text_opens_for_its_subject_in_its_place_and_nowhere_else() {
        let envelope = envelope('a', 1);
        let (key, wrapped) = envelope.make_key(ADA);
        let sealed = key.seal("profile.name", "Ada Lovelace");
        assert!(!sealed.windows(3).any(|part| part == b"Ada"));
        let opened = envelope.open_key(ADA, &wrapped).expect("her key");
        let text = opened.open("profile.name", &sealed);
        assert_eq!(text.as_deref(), Ok("Ada Lovelace"));

        assert!(opened.open("profile.email", &sealed).is_err());
        let (of_eve, _) = envelope.make_key(EVE);
        assert!(of_eve.open("profile.name", &sealed).is_err());
        let mut changed = sealed.clone();
        *changed.last_mut().expect("not empty") ^= 1;
        assert!(opened.open("profile.name", &changed).is_err());
        assert!(opened.open("profile.name", &sealed[..5]).is_err());
        assert_ne!(
            key.seal("profile.name", "Ada Lovelace"),
            sealed,
            "nor is it told by its like"
        );
    }

    #[test]
    fn a_wrapped_key_opens_for_its_subject_and_under_its_secret() {
        let (_, wrapped) = envelope('a', 1).make_key(ADA);
        assert!(envelope('a', 1).open_key(EVE, &wrapped).is_err());
        let refused = envelope('b', 1)
            .open_key(ADA, &wrapped)
            .expect_err("not its secret");
        assert!(refused.to_string().contains("secret"), "{refused}");
    }

    #[test]
    fn a_key_wrapped_anew_opens_what_was_sealed_before_and_the_old_version_is_not_needed() {
        let (key, old) = envelope('a', 1).make_key(ADA);
        let sealed = key.seal("profile.name", "Ada");
        let today = envelope('a', 2);
        let new = today.rewrap(ADA, &old).expect("wrapped");
        assert_eq!((old.version, new.version), (1, 2));
        for wrapped in [&old, &new] {
            let key = today.open_key(ADA, wrapped).expect("her key");
            assert_eq!(key.open("profile.name", &sealed).as_deref(), Ok("Ada"));
        }
        let swapped = WrappedKey { version: 1, ..new };
        assert!(today.open_key(ADA, &swapped).is_err());
    }

    #[test]
    fn an_index_tells_equal_texts_and_nothing_of_others() {
        let secrets = Secrets::parse(&"a".repeat(64)).expect("64 hexadecimal digits");
        let (one, other) = (
            BlindIndex::new(&secrets, "one"),
            BlindIndex::new(&secrets, "other"),
        );
        assert_eq!(one.of("ada@example.com"), one.of("ada@example.com"));
        assert_ne!(one.of("ada@example.com"), one.of("adb@example.com"));
        assert_ne!(one.of("ada@example.com"), other.of("ada@example.com"));
    }
}
