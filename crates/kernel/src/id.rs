//! Prefixed ids: `ord_01jd…`, a UUID written so that its kind shows and its order survives sorting as text.

use std::{fmt, hash, marker::PhantomData, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// A kind of thing that has ids of its own.
pub trait Kind: 'static {
    /// Three lower-case letters (two for payment methods), written before the underscore.
    const PREFIX: &'static str;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $name {}
        impl Kind for $name {
            const PREFIX: &'static str = $prefix;
        }
    )+};
}

kinds! {
    /// A person or machine with an account.
    User = "usr",
    /// A login that can be ended on its own.
    Session = "ses",
    /// A place that a user has things sent to.
    Address = "adr",
    /// One line of the audit log.
    AuditEntry = "aud",
    /// The commercial record of a purchase.
    Order = "ord",
    /// One attempt to be paid.
    Payment = "pay",
    /// A way to pay that a user saved.
    PaymentMethod = "pm",
    /// One giving back of money.
    Refund = "rfd",
    /// An entry of the catalog.
    Product = "prd",
    /// What a buyer says of a product.
    Review = "rev",
    /// A claim in the ledger.
    Hold = "hld",
    /// A subscription of somebody outside to messages.
    Webhook = "whk",
    /// Something a person was told.
    Notification = "ntf",
    /// A concert, a match: what seats and places are sold of.
    Event = "evt",
}

/// The id of a `K`: 128 bits, shown as `<prefix>_<26 characters of Crockford's base 32, lower case>`.
pub struct Id<K> {
    uuid: Uuid,
    kind: PhantomData<fn() -> K>,
}

/// A text that is no id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{got:?} is not an id of the form {prefix}_ and 26 letters or digits")]
pub struct InvalidId {
    got: String,
    prefix: &'static str,
}

/// Longest part of a refused text that an error repeats, in characters.
const SHOWN_CHARS: usize = 64;
const ENCODED_CHARS: usize = 26;
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl<K> Id<K> {
    /// The id that wraps this UUID.
    pub const fn new(uuid: Uuid) -> Self {
        Self {
            uuid,
            kind: PhantomData,
        }
    }

    /// The UUID inside, as databases store it.
    pub const fn uuid(self) -> Uuid {
        self.uuid
    }
}

impl<K: Kind> Id<K> {
    /// An id never given before, sorting after those given earlier in another millisecond.
    pub fn generate() -> Self {
        Self::new(Uuid::now_v7())
    }
}

impl<K: Kind> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.uuid.as_u128();
        let mut text = [0_u8; ENCODED_CHARS];
        for (place, slot) in text.iter_mut().rev().enumerate() {
            *slot = ALPHABET[((bits >> (5 * place)) & 31) as usize];
        }
        write!(f, "{}_", K::PREFIX)?;
        f.write_str(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

impl<K: Kind> FromStr for Id<K> {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let refused = || InvalidId {
            got: text.chars().take(SHOWN_CHARS).collect(),
            prefix: K::PREFIX,
        };
        let encoded = text
            .strip_prefix(K::PREFIX)
            .and_then(|rest| rest.strip_prefix('_'))
            .filter(|encoded| encoded.len() == ENCODED_CHARS)
            .ok_or_else(refused)?;
        // 26 characters hold 130 bits; the first one may only use three of its five.
        if encoded.as_bytes()[0] > b'7' {
            return Err(refused());
        }
        let mut bits = 0_u128;
        for letter in encoded.bytes() {
            let value = ALPHABET
                .iter()
                .position(|&known| known == letter)
                .ok_or_else(refused)?;
            bits = (bits << 5) | value as u128;
        }
        Ok(Self::new(Uuid::from_u128(bits)))
    }
}

impl<K: Kind> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for Id<K> {}
impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.uuid == other.uuid
    }
}
impl<K> Eq for Id<K> {}
impl<K> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.uuid.cmp(&other.uuid)
    }
}
impl<K> hash::Hash for Id<K> {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.uuid.hash(state);
    }
}
impl<K: Kind> Serialize for Id<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de, K: Kind> Deserialize<'de> for Id<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// Names one wish to change something, so that asking again meets the first asking.
///
/// Where the wish makes something, the request id becomes the id of what is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(Uuid);

impl RequestId {
    /// The request id that wraps this UUID.
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// A request id for a wish that nobody will repeat.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// The same parts give the same id, always and everywhere; other parts another one.
    ///
    /// Each part is hashed with its length before it, so that no two lists of parts run together.
    pub fn derive(parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let digest = hash.finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// The UUID inside.
    pub const fn uuid(self) -> Uuid {
        self.0
    }

    /// The id of what this request makes.
    pub const fn makes<K>(self) -> Id<K> {
        Id::new(self.0)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RequestId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        for bits in [0, 1, u128::MAX, 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef] {
            let id = Id::<Order>::new(Uuid::from_u128(bits));
            assert_eq!(id.to_string().parse(), Ok(id));
        }
    }

    #[test]
    fn ids_sort_as_text_the_way_their_uuids_sort() {
        let mut texts: Vec<String> = [5_u128, 1, 1 << 100, u128::MAX, 77 << 64]
            .map(|bits| Id::<Order>::new(Uuid::from_u128(bits)).to_string())
            .to_vec();
        texts.sort();
        let bits: Vec<u128> = texts
            .iter()
            .map(|text| {
                text.parse::<Id<Order>>()
                    .expect("just written")
                    .uuid()
                    .as_u128()
            })
            .collect();
        assert!(bits.is_sorted(), "{bits:?}");
    }

    #[test]
    fn an_id_of_another_kind_or_shape_is_refused_and_the_error_names_what_is_wanted() {
        let payment = Id::<Payment>::generate().to_string();
        for text in [
            payment.as_str(),
            "",
            "ord_",
            "ord_8zzzzzzzzzzzzzzzzzzzzzzzzz",
            "ord_0000000000000000000000000u",
            "ord-00000000000000000000000000",
        ] {
            let refused = text.parse::<Id<Order>>().expect_err(text);
            assert!(refused.to_string().contains("ord_"), "{refused}");
        }
    }

    #[test]
    fn a_derived_request_id_depends_on_every_part_and_on_where_parts_end() {
        let id = RequestId::derive(&["issuer", "usr_1", "POST"]);
        assert_eq!(id, RequestId::derive(&["issuer", "usr_1", "POST"]));
        assert_ne!(id, RequestId::derive(&["issuer", "usr_1P", "OST"]));
        assert_ne!(id, RequestId::derive(&["issuer", "usr_1"]));
        assert_eq!(id.uuid().get_version_num(), 8);
    }
}
