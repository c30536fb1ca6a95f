//! What stands in one cell of a product file.
//!
//! Spreadsheets take a cell that begins with `=`, `+`, `-` or `@` for a formula, and a product's name may be anybody's. Such
//! a cell is written with an apostrophe before it, which spreadsheets show as plain text, and is read without it again.
//!
//! Lists of pairs are written `size=M;color=Red`; a backslash before `;`, `=` or a backslash makes it part of the text.

use std::collections::BTreeMap;

const GUARD: char = '\'';

/// The text as a cell of a file that people open with whatever they have.
pub(crate) fn guarded(text: String) -> String {
    if could_be_formula(&text) {
        format!("{GUARD}{text}")
    } else {
        text
    }
}

/// The text that [`guarded`] made a cell of; cells written by hand are taken as they are.
pub(crate) fn restored(cell: String) -> String {
    match cell.strip_prefix(GUARD) {
        Some(text) if could_be_formula(text) => text.to_owned(),
        _ => cell,
    }
}

/// Apostrophes before it do not count, so that what needs none gets none, and what has some keeps them.
fn could_be_formula(text: &str) -> bool {
    let bare = text.trim_start_matches(GUARD);
    bare.starts_with(['=', '+', '-', '@', '\t', '\r'])
}

/// Pairs as one text.
pub(crate) fn joined<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let pair = |(name, value)| format!("{}={}", escaped(name), escaped(value));
    let pairs: Vec<String> = pairs.into_iter().map(pair).collect();
    pairs.join(";")
}

/// The pairs of a text, by name. Fails with the part that is no pair, or whose name stands twice.
pub(crate) fn split(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut pairs = BTreeMap::new();
    let (mut name, mut word) = (None, String::new());
    let mut letters = text.chars();
    loop {
        let letter = letters.next();
        match letter {
            Some('\\') => word.extend(letters.next()),
            Some('=') if name.is_none() => name = Some(std::mem::take(&mut word)),
            Some(';') | None => {
                let value = std::mem::take(&mut word);
                match name.take() {
                    Some(name) if !name.is_empty() && !value.is_empty() => {
                        if pairs.insert(name.clone(), value).is_some() {
                            return Err(name);
                        }
                    }
                    None if value.is_empty() => {}
                    name => return Err(format!("{}{value}", name.unwrap_or_default())),
                }
                if letter.is_none() {
                    return Ok(pairs);
                }
            }
            Some(letter) => word.push(letter),
        }
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if matches!(letter, ';' | '=' | '\\') {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula_and_every_text_comes_back() {
        for (text, cell) in [
            ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
            ("+1", "'+1"),
            ("-A", "'-A"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("'=1", "''=1"),
            ("'twas", "'twas"),
            ("'", "'"),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(guarded(text.to_owned()), cell);
            assert_eq!(restored(cell.to_owned()), text);
        }
        assert_eq!(restored("=1+1".to_owned()), "=1+1");
    }

    #[test]
    fn pairs_come_back_whatever_is_in_them() {
        let pairs = BTreeMap::from([
            ("size".to_owned(), "M;L".to_owned()),
            ("a=b".to_owned(), "c\\d".to_owned()),
        ]);
        let text = joined(
            pairs
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        assert_eq!(split(&text), Ok(pairs));
        assert_eq!(split(""), Ok(BTreeMap::new()));
        assert_eq!(split("size=M;").expect("one pair").len(), 1);
        for odd in ["size", "size=", "=M", "size=M;size=L"] {
            assert!(split(odd).is_err(), "{odd}");
        }
    }
}
