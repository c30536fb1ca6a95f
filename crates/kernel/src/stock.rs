//! Names of what can run out.

use std::{borrow::Borrow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What a seller calls one variant: 1–64 of `A–Z 0–9 . _ - @`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sku(String);

/// The key of a pool: a kind, a colon, and what the kind needs, such as `sku:TSHIRT-M`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolKey(String);

/// A text that is no SKU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a SKU: 1 to 64 of A-Z 0-9 . _ - @")]
pub struct InvalidSku(String);

/// A text that is no pool key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a pool key: a kind in lower case, a colon, and 1 to 180 of A-Z a-z 0-9 . _ - @ : +"
)]
pub struct InvalidPoolKey(String);

const SKU_MAX_CHARS: usize = 64;
const POOL_KIND_MAX_CHARS: usize = 16;
const POOL_NAME_MAX_CHARS: usize = 180;
const SHOWN_CHARS: usize = 80;

impl Sku {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The pool that holds this SKU's units.
    pub fn pool(&self) -> PoolKey {
        PoolKey(format!("sku:{}", self.0))
    }
}

impl FromStr for Sku {
    type Err = InvalidSku;

    fn from_str(text: &str) -> Result<Self, InvalidSku> {
        let fits = !text.is_empty()
            && text.len() <= SKU_MAX_CHARS
            && text.bytes().all(|letter| {
                letter.is_ascii_uppercase() || letter.is_ascii_digit() || b"._-@".contains(&letter)
            });
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidSku(text.chars().take(SHOWN_CHARS).collect()))
        }
    }
}

impl TryFrom<String> for Sku {
    type Error = InvalidSku;

    fn try_from(text: String) -> Result<Self, InvalidSku> {
        text.parse()
    }
}

impl From<Sku> for String {
    fn from(sku: Sku) -> Self {
        sku.0
    }
}

impl fmt::Display for Sku {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PoolKey {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the first colon: `sku`, `seat`, `night`, ….
    pub fn kind(&self) -> &str {
        self.0.split_once(':').map_or("", |(kind, _)| kind)
    }

    /// The SKU of a `sku:` pool.
    pub fn sku(&self) -> Option<Sku> {
        self.0.strip_prefix("sku:")?.parse().ok()
    }
}

impl FromStr for PoolKey {
    type Err = InvalidPoolKey;

    fn from_str(text: &str) -> Result<Self, InvalidPoolKey> {
        let fits = text.split_once(':').is_some_and(|(kind, name)| {
            (1..=POOL_KIND_MAX_CHARS).contains(&kind.len())
                && kind.bytes().all(|letter| letter.is_ascii_lowercase())
                && (1..=POOL_NAME_MAX_CHARS).contains(&name.len())
                && name
                    .bytes()
                    .all(|letter| letter.is_ascii_alphanumeric() || b"._-@:+".contains(&letter))
        });
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidPoolKey(text.chars().take(SHOWN_CHARS).collect()))
        }
    }
}

impl Borrow<str> for PoolKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skus_are_taken_exactly_in_their_alphabet_and_length() {
        for good in ["TSHIRT-M", "85123A", "A", "85123A@2.55", &"X".repeat(64)] {
            assert!(good.parse::<Sku>().is_ok(), "{good}");
        }
        for bad in ["", "tshirt", "A B", "É", "A\n", &"X".repeat(65)] {
            assert!(bad.parse::<Sku>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_sku_and_its_pool_know_each_other() {
        let sku: Sku = "TSHIRT-M".parse().expect("a sku");
        assert_eq!(sku.pool().as_str(), "sku:TSHIRT-M");
        assert_eq!(sku.pool().sku(), Some(sku));
    }

    #[test]
    fn pool_keys_need_a_kind_and_a_name() {
        for good in [
            "sku:A",
            "seat:evt_1:S-A-12",
            "night:ROOM:2026-12-01",
            "slot:z:2026-12-01T10:00+09:00",
        ] {
            assert!(good.parse::<PoolKey>().is_ok(), "{good}");
        }
        for bad in ["", "A", "sku:", ":A", "SKU:A", "sku:a b", "sku:\u{e9}"] {
            assert!(bad.parse::<PoolKey>().is_err(), "{bad}");
        }
    }
}
