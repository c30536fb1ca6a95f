//! A profile and the ways it may change.

mod address;

pub(crate) use self::address::{ADDRESSES_MAX, Address, Location, PostalAddress};

use holdfast_kernel::{Id, Timestamp, id};

use crate::error::UsersError;

/// What a person told us of themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) user: Id<id::User>,
    pub(crate) email: String,
    pub(crate) name: PersonName,
    pub(crate) created_at: Timestamp,
    /// Rises by one with every change.
    pub(crate) version: i64,
}

/// What a person wants to be called: 1 to 100 characters, no control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PersonName(String);

const NAME_MAX_CHARS: usize = 100;

impl Profile {
    /// The profile of a new account.
    pub(crate) fn new(user: Id<id::User>, email: String, name: PersonName, now: Timestamp) -> Self {
        Self {
            user,
            email,
            name,
            created_at: now,
            version: 1,
        }
    }

    /// The profile under another name; the name it has already changes nothing.
    ///
    /// `expected` is the version the caller looked at, if they said so.
    pub(crate) fn rename(
        self,
        name: PersonName,
        expected: Option<i64>,
    ) -> Result<Self, UsersError> {
        if let Some(expected) = expected
            && expected != self.version
        {
            return Err(UsersError::ProfileChanged {
                expected,
                actual: self.version,
            });
        }
        if name == self.name {
            return Ok(self);
        }
        Ok(Self {
            name,
            version: self.version + 1,
            ..self
        })
    }
}

impl PersonName {
    /// Reads a name; white space around it is not part of it.
    pub(crate) fn parse(text: &str) -> Result<Self, UsersError> {
        let text = text.trim();
        let chars = text.chars().count();
        if chars == 0 || chars > NAME_MAX_CHARS || text.chars().any(char::is_control) {
            return Err(UsersError::NameRefused { chars });
        }
        Ok(Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_trimmed_and_within_their_bounds() {
        assert_eq!(PersonName::parse(" Ada ").expect("a name").as_str(), "Ada");
        let longest = "é".repeat(NAME_MAX_CHARS);
        assert!(PersonName::parse(&longest).is_ok());
        for refused in ["", "   ", "a\nb", &format!("{longest}é")] {
            assert!(PersonName::parse(refused).is_err(), "{refused:?}");
        }
    }
}
