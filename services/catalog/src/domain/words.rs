//! Words: how texts are taken apart for search, those of products and those of buyers alike.
//!
//! Everything is folded first: lower case, no accents, wide letters as plain ones, katakana as hiragana. Scripts that
//! write without spaces are cut into pairs of neighbouring letters, so that any part of a text is found; all other
//! scripts into words. Doing this here and not in the database makes it the same on every server, whatever its locale.

use std::{collections::BTreeMap, fmt::Write};

use unicode_normalization::UnicodeNormalization;

/// Longest word that is kept, in letters; what is longer is cut.
const WORD_MAX_CHARS: usize = 40;
/// Words of one text that are looked at.
const TEXT_MAX_WORDS: usize = 4_000;
/// Words of a buyer's that are looked for; the rest is left out.
pub(crate) const QUERY_MAX_WORDS: usize = 12;
/// Shortest word that may have been meant otherwise.
const MISSPELT_MIN_CHARS: usize = 3;
/// From this length on a word may be two slips away from what was meant.
const TWO_SLIPS_MIN_CHARS: usize = 6;
/// Words that one misspelt word stands for at most.
const MEANT_MAX_WORDS: usize = 8;
/// Shortest run of katakana that is a word of its own too.
const KATAKANA_MIN_CHARS: usize = 3;
/// Positions in a document end here (PostgreSQL).
const POSITION_MAX: usize = 16_383;
/// Between two texts of a document, so that no pair of letters spans them.
const TEXT_GAP: usize = 10;

/// Where in a product a word stands; the nearer the front, the more it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weight {
    Name,
    SkuOrOption,
    Category,
    Description,
}

/// The words of a product with where they stand, as they are kept for search.
#[derive(Debug, Default)]
pub(crate) struct Document {
    words: BTreeMap<String, Vec<(usize, Weight)>>,
    /// Whole words, from which it is guessed what a misspelt one meant.
    whole: Vec<String>,
    position: usize,
}

/// What a buyer looks for, all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    parts: Vec<Part>,
    /// The whole text, folded.
    pub(crate) text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Words that were written as one, such as `t-shirt`; mostly a single one.
    Words(Vec<String>),
    /// A run of letters of a script without spaces.
    Run(String),
    /// What a misspelt word may have meant.
    Meant(Vec<String>),
}

/// A folded text cut at its spaces.
enum Chunk {
    Words(Vec<String>),
    Run {
        letters: Vec<char>,
        katakana: Vec<String>,
    },
}

impl Document {
    /// Adds a text.
    pub(crate) fn add(&mut self, text: &str, weight: Weight) {
        let mut before: Option<String> = None;
        for chunk in chunks(text).into_iter().take(TEXT_MAX_WORDS) {
            match chunk {
                Chunk::Words(words) => {
                    let joined = words.concat();
                    if words.len() > 1 {
                        self.put(shortened(&joined), weight);
                    }
                    // `rainshell` finds "Rain Shell".
                    if let (Weight::Name, Some(before)) = (weight, before) {
                        self.put(shortened(&format!("{before}{joined}")), Weight::SkuOrOption);
                    }
                    for word in words {
                        let stem = stem(&word);
                        if stem != word {
                            self.put(stem, weight);
                        }
                        self.whole.push(word.clone());
                        self.put(word, weight);
                        self.position += 1;
                    }
                    before = Some(joined);
                }
                Chunk::Run { letters, katakana } => {
                    for pair in letters.windows(2) {
                        self.put(pair.iter().collect(), weight);
                        self.position += 1;
                    }
                    self.put(letters.last().into_iter().collect(), weight);
                    self.position += 1;
                    for word in katakana {
                        self.whole.push(word.clone());
                        self.put(word, weight);
                    }
                    before = None;
                }
            }
        }
        self.position += TEXT_GAP;
    }

    /// The document as PostgreSQL writes a `tsvector`.
    pub(crate) fn to_vector(&self) -> String {
        let mut text = String::new();
        for (word, places) in &self.words {
            // Words hold letters and digits only: nothing to escape.
            write!(text, "'{word}':").expect("text takes text");
            for (at, (position, weight)) in places.iter().enumerate() {
                let comma = if at > 0 { "," } else { "" };
                let letter = weight.letter();
                write!(text, "{comma}{position}{letter}").expect("text takes text");
            }
            text.push(' ');
        }
        text
    }

    /// Its whole words, each once, in order.
    pub(crate) fn whole_words(&self) -> Vec<&str> {
        let mut words: Vec<&str> = self.whole.iter().map(String::as_str).collect();
        words.sort_unstable();
        words.dedup();
        words
    }

    fn put(&mut self, word: String, weight: Weight) {
        /// Places of one word that are kept; more tell nothing.
        const PLACES_MAX_ENTRIES: usize = 20;
        let position = (self.position + 1).min(POSITION_MAX);
        let places = self.words.entry(word).or_default();
        if places.len() < PLACES_MAX_ENTRIES && !places.iter().any(|(known, _)| *known == position)
        {
            places.push((position, weight));
        }
    }
}

impl Query {
    /// Reads what a buyer wrote; none where no word is in it.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        for chunk in chunks(text).into_iter().take(QUERY_MAX_WORDS) {
            parts.push(match chunk {
                Chunk::Words(words) => Part::Words(words),
                Chunk::Run { letters, .. } => Part::Run(letters.into_iter().collect()),
            });
        }
        (!parts.is_empty()).then(|| Self {
            parts,
            text: folded_name(text),
        })
    }

    /// Words that may have been meant otherwise when nobody knows them, each once.
    pub(crate) fn doubtful(&self) -> Vec<String> {
        let mut words: Vec<String> = self
            .parts
            .iter()
            .filter_map(|part| match part {
                Part::Words(words) => Some(words.concat()),
                Part::Run(run) => Some(run.clone()),
                Part::Meant(_) => None,
            })
            .filter(|word| word.chars().count() >= MISSPELT_MIN_CHARS)
            .map(|word| shortened(&word))
            .collect();
        words.sort_unstable();
        words.dedup();
        words
    }

    /// With each misspelt word replaced by those it may have meant, of the words that are near it.
    pub(crate) fn meaning(mut self, near: &BTreeMap<String, Vec<String>>) -> Self {
        for part in &mut self.parts {
            let word = match part {
                Part::Words(words) => shortened(&words.concat()),
                Part::Run(run) => shortened(run),
                Part::Meant(_) => continue,
            };
            let meant = near.get(&word).map(|near| meant(&word, near));
            if let Some(meant) = meant.filter(|meant| !meant.is_empty()) {
                *part = Part::Meant(meant);
            }
        }
        self
    }

    /// What a product has to have, as PostgreSQL writes a `tsquery`: every word, as it is or as the beginning of one.
    pub(crate) fn to_match(&self) -> String {
        let parts: Vec<String> = self.parts.iter().map(Part::to_match).collect();
        parts.join(" & ")
    }

    /// What counts for more when a product has it: the words as they are.
    pub(crate) fn to_exact(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        for part in &self.parts {
            match part {
                Part::Words(written) => {
                    words.extend(written.iter().map(|word| stem(word)));
                    words.push(shortened(&written.concat()));
                }
                Part::Run(run) => words.extend(pairs(run)),
                Part::Meant(meant) => words.extend(meant.iter().cloned()),
            }
        }
        words.sort_unstable();
        words.dedup();
        let words: Vec<String> = words.into_iter().map(|word| format!("'{word}'")).collect();
        words.join(" | ")
    }
}

impl Part {
    fn to_match(&self) -> String {
        match self {
            Self::Words(words) => {
                let alone = |word: &String| {
                    let stem = stem(word);
                    if stem == *word {
                        format!("'{word}':*")
                    } else {
                        format!("('{word}':* | '{stem}')")
                    }
                };
                let each: Vec<String> = words.iter().map(alone).collect();
                if let [one] = each.as_slice() {
                    return one.clone();
                }
                let joined = shortened(&words.concat());
                format!("('{joined}':* | ({}))", each.join(" & "))
            }
            Self::Run(run) => {
                let pairs = pairs(run);
                if run.chars().count() == 1 {
                    return format!("'{run}':*");
                }
                let pairs: Vec<String> = pairs.iter().map(|pair| format!("'{pair}'")).collect();
                format!("({})", pairs.join(" <-> "))
            }
            Self::Meant(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
                format!("({})", words.join(" | "))
            }
        }
    }
}

impl Weight {
    const fn letter(self) -> char {
        match self {
            Self::Name => 'A',
            Self::SkuOrOption => 'B',
            Self::Category => 'C',
            Self::Description => 'D',
        }
    }
}

/// A name as names are compared and sorted: folded, words parted by single spaces.
pub(crate) fn folded_name(text: &str) -> String {
    let folded: String = fold(text).map(kana).collect();
    let words = folded.split(|letter: char| !letter.is_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// Lower case, no accents, wide letters as plain ones.
fn fold(text: &str) -> impl Iterator<Item = char> {
    let is_accent = |letter: &char| ('\u{300}'..='\u{36f}').contains(letter);
    let bare: String = text.nfkd().filter(|letter| !is_accent(letter)).collect();
    let composed: Vec<char> = bare.nfc().flat_map(char::to_lowercase).collect();
    composed.into_iter().flat_map(|letter| {
        let plain = match letter {
            'ß' => "ss",
            'æ' => "ae",
            'œ' => "oe",
            'ø' => "o",
            'ł' => "l",
            'đ' | 'ð' => "d",
            'þ' => "th",
            'ı' => "i",
            _ => "",
        };
        let itself = plain.is_empty().then_some(letter);
        plain.chars().chain(itself)
    })
}

fn chunks(text: &str) -> Vec<Chunk> {
    #[derive(PartialEq)]
    enum Kind {
        Letter,
        Unspaced,
        /// Parts words that belong together.
        Joint,
        /// Parts nothing: `poppy's`.
        Nothing,
        Gap,
    }
    let kind = |letter: char| match letter {
        '\'' | '’' | 'ʼ' | '`' => Kind::Nothing,
        '-' | '‐' | '‑' | '.' | '_' | '@' | '/' | '+' | '&' => Kind::Joint,
        _ if is_unspaced(letter) => Kind::Unspaced,
        _ if letter.is_alphanumeric() => Kind::Letter,
        _ => Kind::Gap,
    };
    let mut found = Vec::new();
    let (mut words, mut word, mut run) = (Vec::new(), String::new(), Vec::new());
    for letter in fold(text).chain([' ']) {
        let kind = kind(letter);
        if kind != Kind::Unspaced && !run.is_empty() {
            found.push(unspaced(&std::mem::take(&mut run)));
        }
        match kind {
            Kind::Letter => word.push(letter),
            Kind::Nothing => {}
            Kind::Joint | Kind::Gap | Kind::Unspaced => {
                if !word.is_empty() {
                    words.push(shortened(&std::mem::take(&mut word)));
                }
                if kind != Kind::Joint && !words.is_empty() {
                    found.push(Chunk::Words(std::mem::take(&mut words)));
                }
                if kind == Kind::Unspaced {
                    run.push(letter);
                }
            }
        }
    }
    found
}

fn unspaced(run: &[char]) -> Chunk {
    let is_katakana = |letter: &char| ('\u{30a1}'..='\u{30fc}').contains(letter);
    // The long sound at the end of a loan word is written or left out: コンピュータ(ー).
    let mut letters = Vec::with_capacity(run.len());
    let mut katakana = Vec::new();
    let mut word = String::new();
    for (at, letter) in run.iter().enumerate() {
        let next = run.get(at + 1);
        let ends_a_word = !next.is_some_and(is_katakana);
        let is_long_end =
            *letter == 'ー' && ends_a_word && word.chars().count() >= KATAKANA_MIN_CHARS;
        if !is_long_end {
            letters.push(kana(*letter));
            if is_katakana(letter) {
                word.push(kana(*letter));
            }
        }
        if ends_a_word {
            if word.chars().count() >= KATAKANA_MIN_CHARS {
                katakana.push(shortened(&word));
            }
            word.clear();
        }
    }
    Chunk::Run { letters, katakana }
}

/// Letters of scripts that put no spaces between words.
fn is_unspaced(letter: char) -> bool {
    matches!(letter,
        '\u{3005}'..='\u{3007}' | '\u{3041}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}' | '\u{e01}'..='\u{e5b}')
        && letter != '・'
}

/// Katakana as hiragana.
fn kana(letter: char) -> char {
    match letter {
        '\u{30a1}'..='\u{30f6}' => char::from_u32(letter as u32 - 0x60).unwrap_or(letter),
        _ => letter,
    }
}

fn pairs(run: &str) -> Vec<String> {
    let letters: Vec<char> = run.chars().collect();
    if letters.len() == 1 {
        return vec![run.to_owned()];
    }
    letters
        .windows(2)
        .map(|pair| pair.iter().collect())
        .collect()
}

fn shortened(word: &str) -> String {
    word.chars().take(WORD_MAX_CHARS).collect()
}

/// The word without an English plural's ending.
fn stem(word: &str) -> String {
    let ends = |endings: &[&str]| endings.iter().any(|ending| word.ends_with(ending));
    if word.len() > 4 && word.ends_with("ies") && !ends(&["eies", "aies"]) {
        return format!("{}y", &word[..word.len() - 3]);
    }
    if word.len() > 4 && ends(&["sses", "shes", "ches", "xes", "zes"]) {
        return word[..word.len() - 2].to_owned();
    }
    if word.len() > 3 && word.ends_with('s') && !ends(&["ss", "us", "is"]) {
        return word[..word.len() - 1].to_owned();
    }
    word.to_owned()
}

/// Of the words near a misspelt one, those that the fewest slips lead to, if few enough.
fn meant(word: &str, near: &[String]) -> Vec<String> {
    let length = word.chars().count();
    let most = if length < TWO_SLIPS_MIN_CHARS { 1 } else { 2 };
    let mut found: Vec<(usize, &String)> = near
        .iter()
        .map(|known| (strsim::osa_distance(word, known), known))
        .filter(|(slips, _)| *slips <= most)
        .collect();
    found.sort_unstable();
    let fewest = found.first().map(|(slips, _)| *slips);
    found
        .into_iter()
        .filter(|(slips, _)| Some(*slips) == fewest)
        .take(MEANT_MAX_WORDS)
        .map(|(_, known)| known.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(text: &str) -> String {
        let mut document = Document::default();
        document.add(text, Weight::Description);
        document.to_vector().trim_end().to_owned()
    }

    #[test]
    fn texts_are_taken_apart_into_folded_words() {
        for (text, want) in [
            ("Crème Brûlée", "'brulee':2D 'creme':1D"),
            ("ＴＥＡ　①", "'1':2D 'tea':1D"),
            ("POPPY'S", "'poppy':1D 'poppys':1D"),
            ("T-Shirt", "'shirt':2D 't':1D 'tshirt':1D"),
            ("Straße", "'strasse':1D"),
            ("電車", "'車':2D '電車':1D"),
            ("シャツ", "'しゃ':1D 'しゃつ':4D 'つ':3D 'ゃつ':2D"),
            ("!?", ""),
        ] {
            assert_eq!(vector(text), want, "{text}");
        }
    }

    #[test]
    fn a_query_asks_for_beginnings_of_words_and_for_runs_in_their_order() {
        for (text, want) in [
            ("shirt", "'shirt':*"),
            ("Shirts M", "('shirts':* | 'shirt') & 'm':*"),
            ("t-shirt", "('tshirt':* | ('t':* & 'shirt':*))"),
            ("電車庫", "('電車' <-> '車庫')"),
            ("車", "'車':*"),
            (
                "コンピューター",
                "('こん' <-> 'んぴ' <-> 'ぴゅ' <-> 'ゅー' <-> 'ーた')",
            ),
        ] {
            let query = Query::read(text).expect("there are words");
            assert_eq!(query.to_match(), want, "{text}");
        }
        assert_eq!(Query::read(" -- ' ! "), None);
    }

    #[test]
    fn nothing_a_buyer_writes_gets_out_of_its_quotes() {
        let odd = "a' | 'b \\ :* & !c <-> ('d') $1 %";
        let query = Query::read(odd).expect("there are words");
        assert_eq!(query.to_match(), "'a':* & 'b':* & 'c':* & 'd':* & '1':*");
        let long = "x".repeat(10_000);
        let query = Query::read(&long).expect("a word");
        assert_eq!(query.to_match().len(), WORD_MAX_CHARS + 4);
        let many = "word ".repeat(1_000);
        let query = Query::read(&many).expect("words");
        assert_eq!(query.parts.len(), QUERY_MAX_WORDS);
    }

    #[test]
    fn of_words_near_a_misspelt_one_the_nearest_are_meant() {
        let near = ["shirt", "skirt", "short"].map(ToOwned::to_owned);
        assert_eq!(meant("shrit", &near), ["shirt"]);
        assert_eq!(meant("shert", &near), ["shirt", "short"]);
        assert_eq!(
            meant("hsort", &near),
            ["short"],
            "neighbours swapped are one slip"
        );
        assert_eq!(meant("xyz", &near), [""; 0]);
    }

    #[test]
    fn plurals_lose_their_ending() {
        for (word, want) in [
            ("shirts", "shirt"),
            ("berries", "berry"),
            ("dresses", "dress"),
            ("boxes", "box"),
            ("glass", "glass"),
            ("tennis", "tennis"),
            ("bus", "bus"),
            ("cups", "cup"),
        ] {
            assert_eq!(stem(word), want);
        }
    }
}
