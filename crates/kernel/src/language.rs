//! Languages that people are spoken to in.

use std::fmt;

/// A language that there are texts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// `en`.
    English,
    /// `ja`.
    Japanese,
}

/// Longest list of languages that is looked at, in entries.
const LANGUAGES_MAX: usize = 16;

impl Language {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::English, Self::Japanese];

    /// As BCP 47 writes it.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Japanese => "ja",
        }
    }

    /// The language of a tag such as `ja` or `en-GB`, if it is one of ours.
    pub fn parse(tag: &str) -> Option<Self> {
        let primary = tag.split('-').next().unwrap_or_default().trim();
        Self::ALL
            .into_iter()
            .find(|language| language.tag().eq_ignore_ascii_case(primary))
    }

    /// The one a reader of these languages, written as in `Accept-Language`, likes best among ours; none where they like
    /// none of them, or any as well (`*`).
    pub fn preferred(languages: &str) -> Option<Self> {
        let mut best: Option<(f32, Option<Self>)> = None;
        for entry in languages.split(',').take(LANGUAGES_MAX) {
            let mut parts = entry.split(';');
            let language = match parts.next().map(str::trim) {
                Some("*") => None,
                Some(tag) => match Self::parse(tag) {
                    Some(language) => Some(language),
                    None => continue,
                },
                None => continue,
            };
            let weight = parts
                .find_map(|part| part.trim().strip_prefix("q="))
                .map_or(Some(1.0), |weight| weight.parse::<f32>().ok());
            if let Some(weight) = weight
                && weight > 0.0
                && best.is_none_or(|(known, _)| weight > known)
            {
                best = Some((weight, language));
            }
        }
        best.and_then(|(_, language)| language)
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.tag())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_that_is_liked_best_among_ours_is_taken() {
        let (english, japanese) = (Some(Language::English), Some(Language::Japanese));
        let table = [
            ("", None),
            ("ja", japanese),
            ("ja-JP,en;q=0.8", japanese),
            ("en-GB,ja;q=0.9", english),
            ("en;q=0.2, ja;q=0.7", japanese),
            ("fr,ja;q=0.5", japanese),
            ("ja;q=0", None),
            ("ja;q=nonsense", None),
            ("fr", None),
            ("*;q=0.1,JA;q=0.5", japanese),
            ("*;q=0.9,ja;q=0.5", None),
        ];
        for (asked, wanted) in table {
            assert_eq!(Language::preferred(asked), wanted, "{asked:?}");
        }
    }
}
