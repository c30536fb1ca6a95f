//! Slices of lists: how many, and from where on.

use std::fmt::Write;

use serde::{Serialize, de::DeserializeOwned};

/// Entries of a page when nobody says how many.
pub const PAGE_DEFAULT_ENTRIES: i32 = 20;
/// Entries a page holds at most.
pub const PAGE_MAX_ENTRIES: i32 = 100;
const TOKEN_MAX_CHARS: usize = 512;

/// An opaque bookmark: the sort key of the last entry seen, so that a list that grows is neither repeated nor skipped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PageToken(String);

/// Why a page cannot be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPage {
    /// The size is out of bounds.
    #[error("page size {0} is not within 1 to {PAGE_MAX_ENTRIES}")]
    Size(i32),
    /// The token is none that this list gave.
    #[error("the page token is none that this list gave")]
    Token,
}

impl PageToken {
    /// The bookmark behind an entry with this sort key.
    pub fn after<T: Serialize>(key: &T) -> Self {
        let json = serde_json::to_vec(key).expect("sort keys are plain values");
        let mut text = String::with_capacity(2 * json.len());
        for byte in json {
            write!(text, "{byte:02x}").expect("text takes text");
        }
        Self(text)
    }

    /// The text that travels.
    pub fn into_text(self) -> String {
        self.0
    }
}

/// The sort key inside a token; `None` for the empty token of the first page.
pub fn read_token<T: DeserializeOwned>(text: &str) -> Result<Option<T>, InvalidPage> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > TOKEN_MAX_CHARS || !text.len().is_multiple_of(2) || !text.is_ascii() {
        return Err(InvalidPage::Token);
    }
    let json: Vec<u8> = (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16))
        .collect::<Result<_, _>>()
        .map_err(|_| InvalidPage::Token)?;
    serde_json::from_slice(&json)
        .map(Some)
        .map_err(|_| InvalidPage::Token)
}

/// The number of entries to give for what was asked; 0 asks for the default.
pub fn page_size(asked: i32) -> Result<i64, InvalidPage> {
    match asked {
        0 => Ok(i64::from(PAGE_DEFAULT_ENTRIES)),
        1..=PAGE_MAX_ENTRIES => Ok(i64::from(asked)),
        _ => Err(InvalidPage::Size(asked)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_gives_its_sort_key_back_and_foreign_text_is_refused() {
        let key = ("2026-11-21T10:00:00Z".to_owned(), 7_u8);
        let token = PageToken::after(&key).into_text();
        assert_eq!(read_token(&token), Ok(Some(key)));
        assert_eq!(read_token::<(String, u8)>(""), Ok(None));
        for foreign in ["x", "zz", "7b7d", "é", &"a".repeat(2000)] {
            assert_eq!(
                read_token::<(String, u8)>(foreign),
                Err(InvalidPage::Token),
                "{foreign}"
            );
        }
    }

    #[test]
    fn page_sizes_out_of_bounds_are_refused_not_clipped() {
        assert_eq!(page_size(0), Ok(20));
        assert_eq!(page_size(100), Ok(100));
        assert_eq!(page_size(101), Err(InvalidPage::Size(101)));
        assert_eq!(page_size(-1), Err(InvalidPage::Size(-1)));
    }
}
