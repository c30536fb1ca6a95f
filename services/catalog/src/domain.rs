//! Products, their variants, and what they may look like.

pub(crate) mod category;

use std::collections::{BTreeMap, HashSet};

use holdfast_kernel::{Currency, Id, Money, Sku, Timestamp, id};

use crate::error::{CatalogError, Field};

/// An entry of the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Product {
    pub(crate) id: Id<id::Product>,
    pub(crate) slug: String,
    pub(crate) draft: Draft,
    pub(crate) status: Status,
    pub(crate) created_at: Timestamp,
    /// Rises by one with every change.
    pub(crate) version: i64,
}

/// What a seller says of a product; checked as a whole by [`Draft::check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Draft {
    pub(crate) name: String,
    pub(crate) description: String,
    /// A category's slug.
    pub(crate) category: Option<String>,
    pub(crate) currency: Currency,
    /// URLs.
    pub(crate) images: Vec<String>,
    pub(crate) variants: Vec<Variant>,
}

/// One form of a product that can be bought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variant {
    pub(crate) sku: Sku,
    pub(crate) name: String,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) price: Money,
}

/// Whether everybody sees the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// Only staff.
    Draft,
    /// Everybody.
    Published,
}

const NAME_MAX_CHARS: usize = 200;
const DESCRIPTION_MAX_CHARS: usize = 20_000;
const SLUG_MAX_CHARS: usize = 80;
const IMAGES_MAX_ENTRIES: usize = 20;
const IMAGE_MAX_CHARS: usize = 2_000;
const VARIANTS_MAX_ENTRIES: usize = 100;
const OPTIONS_MAX_ENTRIES: usize = 10;
const OPTION_MAX_CHARS: usize = 64;
/// Highest price of one unit, in minor units: a thousand lines of a million such units still fit 64 bits.
const PRICE_MAX_MINOR: i64 = 1_000_000_000;

impl Product {
    /// The product under another status; the one it has changes nothing.
    ///
    /// `expected` is the version the caller looked at, if they said so.
    pub(crate) fn put(self, status: Status, expected: Option<i64>) -> Result<Self, CatalogError> {
        if let Some(expected) = expected
            && expected != self.version
        {
            return Err(CatalogError::ProductChanged {
                expected,
                actual: self.version,
            });
        }
        if status == self.status {
            return Ok(self);
        }
        Ok(Self {
            status,
            version: self.version + 1,
            ..self
        })
    }

    /// Product and variant as an order line shows them.
    pub(crate) fn line_name(product: &str, variant: &str) -> String {
        if variant.is_empty() || variant == product {
            product.to_owned()
        } else {
            format!("{product}, {variant}")
        }
    }
}

impl Draft {
    /// Tells the first thing about the draft that cannot be taken.
    pub(crate) fn check(&self) -> Result<(), CatalogError> {
        within("name", &self.name, 1, NAME_MAX_CHARS)?;
        within("description", &self.description, 0, DESCRIPTION_MAX_CHARS)?;
        if let Some(category) = &self.category {
            category::check_slug("category", category)?;
        }
        counted("images", self.images.len(), 0, IMAGES_MAX_ENTRIES)?;
        for (at, image) in self.images.iter().enumerate() {
            let field = format!("images[{at}]");
            within(&field, image, 1, IMAGE_MAX_CHARS)?;
            if !image.starts_with("https://") && !image.starts_with("http://") {
                return Err(refused(
                    field,
                    "not a URL that begins with https:// or http://",
                ));
            }
        }
        counted("variants", self.variants.len(), 1, VARIANTS_MAX_ENTRIES)?;
        let mut seen = HashSet::new();
        for (at, variant) in self.variants.iter().enumerate() {
            let field = format!("variants[{at}]");
            variant.check(&field, self.currency)?;
            if !seen.insert(&variant.sku) {
                return Err(refused(
                    format!("{field}.sku"),
                    format!("{} stands twice in this product", variant.sku),
                ));
            }
        }
        Ok(())
    }

    /// The part of a URL that names the product: lower-case letters and digits of its name, joined by hyphens.
    pub(crate) fn slug(&self) -> String {
        let slug = slug(&self.name);
        if slug.is_empty() {
            "product".to_owned()
        } else {
            slug
        }
    }
}

impl Variant {
    fn check(&self, field: &str, currency: Currency) -> Result<(), CatalogError> {
        within(&format!("{field}.name"), &self.name, 0, NAME_MAX_CHARS)?;
        counted(
            &format!("{field}.options"),
            self.options.len(),
            0,
            OPTIONS_MAX_ENTRIES,
        )?;
        for (name, value) in &self.options {
            within(&format!("{field}.options"), name, 1, OPTION_MAX_CHARS)?;
            within(
                &format!("{field}.options.{name}"),
                value,
                1,
                OPTION_MAX_CHARS,
            )?;
        }
        if self.price.currency != currency {
            return Err(CatalogError::CurrencyMixed {
                sku: self.sku.clone(),
                got: self.price.currency,
                wanted: currency,
            });
        }
        if !(0..=PRICE_MAX_MINOR).contains(&self.price.amount) {
            return Err(refused(
                format!("{field}.price.amount"),
                format!("{} is not within 0 to {PRICE_MAX_MINOR}", self.price.amount),
            ));
        }
        Ok(())
    }
}

impl Status {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Published => "published",
        }
    }

    /// Reads the word.
    pub(crate) fn parse(word: &str) -> Result<Self, CatalogError> {
        match word {
            "draft" => Ok(Self::Draft),
            "published" => Ok(Self::Published),
            _ => Err(refused(
                "status",
                format!("{word:?} is neither draft nor published"),
            )),
        }
    }
}

fn slug(text: &str) -> String {
    let mut slug = String::new();
    for letter in text.chars().take(SLUG_MAX_CHARS) {
        if letter.is_ascii_alphanumeric() {
            slug.push(letter.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.trim_end_matches('-').to_owned()
}

fn within(field: &str, text: &str, least: usize, most: usize) -> Result<(), CatalogError> {
    let chars = text.chars().count();
    if chars < least || chars > most {
        return Err(refused(
            field,
            format!("{chars} characters, wanted {least} to {most}"),
        ));
    }
    if text
        .chars()
        .any(|letter| letter.is_control() && letter != '\n')
    {
        return Err(refused(field, "control characters are not taken"));
    }
    Ok(())
}

fn counted(field: &str, count: usize, least: usize, most: usize) -> Result<(), CatalogError> {
    if (least..=most).contains(&count) {
        return Ok(());
    }
    Err(refused(
        field,
        format!("{count} entries, wanted {least} to {most}"),
    ))
}

fn refused(field: impl Into<String>, text: impl Into<String>) -> CatalogError {
    CatalogError::Refused(Field {
        name: field.into(),
        text: text.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> Draft {
        let gbp: Currency = "GBP".parse().expect("a currency");
        Draft {
            name: "White Hanging Heart".to_owned(),
            description: String::new(),
            category: None,
            currency: gbp,
            images: Vec::new(),
            variants: vec![Variant {
                sku: "85123A".parse().expect("a sku"),
                name: String::new(),
                options: BTreeMap::new(),
                price: Money::new(255, gbp),
            }],
        }
    }

    #[test]
    fn slugs_keep_letters_and_digits_and_join_the_rest() {
        for (text, want) in [
            ("White Hanging Heart", "white-hanging-heart"),
            ("  POPPY'S  Playhouse! ", "poppy-s-playhouse"),
            ("ハート", ""),
        ] {
            assert_eq!(slug(text), want);
        }
    }

    #[test]
    fn each_thing_that_cannot_be_taken_is_named_by_its_field() {
        type Spoil = fn(&mut Draft);
        let table: [(&str, Spoil); 6] = [
            ("name", |draft| draft.name.clear()),
            ("category", |draft| {
                draft.category = Some("No Slug".to_owned());
            }),
            ("images[0]", |draft| draft.images.push("ftp://x".to_owned())),
            ("variants", |draft| draft.variants.clear()),
            ("variants[1].sku", |draft| {
                draft.variants.push(draft.variants[0].clone());
            }),
            ("variants[0].price.amount", |draft| {
                draft.variants[0].price.amount = -1;
            }),
        ];
        assert!(draft().check().is_ok());
        for (field, spoil) in table {
            let mut spoilt = draft();
            spoil(&mut spoilt);
            match spoilt.check() {
                Err(CatalogError::Refused(refused)) => assert_eq!(refused.name, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    }
}
