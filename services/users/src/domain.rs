//! A profile and the ways it may change.

mod address;

pub(crate) use self::address::{ADDRESSES_MAX, Address, Location, PostalAddress};

use holdfast_kernel::{Id, Language, Timestamp, id};

use crate::error::UsersError;

/// What a person told us of themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) user: Id<id::User>,
    pub(crate) email: String,
    pub(crate) name: PersonName,
    /// What they are written to in; none where they named none.
    pub(crate) locale: Option<Language>,
    pub(crate) created_at: Timestamp,
    /// Rises by one with every change.
    pub(crate) version: i64,
}

/// What is to be otherwise; what is not said stays.
#[derive(Debug, Default)]
pub(crate) struct ProfileChange {
    pub(crate) name: Option<PersonName>,
    pub(crate) locale: Option<Language>,
}

/// What a person wants to be called: 1 to 100 characters, no control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PersonName(String);

const NAME_MAX_CHARS: usize = 100;
/// Longest part of a refused text that an error repeats, in characters.
const SHOWN_CHARS: usize = 64;

impl Profile {
    /// The profile of a new account.
    pub(crate) fn new(
        user: Id<id::User>,
        email: String,
        name: PersonName,
        locale: Option<Language>,
        now: Timestamp,
    ) -> Self {
        Self {
            user,
            email,
            name,
            locale,
            created_at: now,
            version: 1,
        }
    }

    /// The profile as it is to be; as it is already changes nothing.
    ///
    /// `expected` is the version the caller looked at, if they said so.
    pub(crate) fn change(
        self,
        wanted: ProfileChange,
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
        let name = wanted.name.unwrap_or_else(|| self.name.clone());
        let locale = wanted.locale.or(self.locale);
        if name == self.name && locale == self.locale {
            return Ok(self);
        }
        Ok(Self {
            name,
            locale,
            version: self.version + 1,
            ..self
        })
    }
}

/// Reads the language that somebody wants to be written to in: a tag such as `ja` or `en-GB`.
pub(crate) fn parse_locale(tag: &str) -> Result<Language, UsersError> {
    Language::parse(tag).ok_or_else(|| UsersError::LocaleRefused {
        got: tag.chars().take(SHOWN_CHARS).collect(),
    })
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
