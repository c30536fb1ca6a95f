//! Products, their variants, and what they may look like.

pub(crate) mod category;
pub(crate) mod words;

use std::collections::{BTreeMap, BTreeSet, HashMap};

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
    /// In the product's currency.
    pub(crate) price: Money,
    /// In other currencies, in minor units.
    pub(crate) other_prices: BTreeMap<Currency, i64>,
}

/// What shall become of a product; what is none stays.
#[expect(
    clippy::option_option,
    reason = "no category at all and one that is left out are two wishes"
)]
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    /// Some of none takes it out of its category.
    pub(crate) category: Option<Option<String>>,
    pub(crate) images: Option<Vec<String>>,
    /// Of every variant, in the currency it names.
    pub(crate) price: Option<Money>,
    pub(crate) status: Option<Status>,
}

/// What shall become of a variant; what is none stays.
#[derive(Debug, Default)]
pub(crate) struct VariantChange {
    pub(crate) name: Option<String>,
    pub(crate) options: Option<BTreeMap<String, String>>,
    pub(crate) price: Option<Money>,
    /// All of them.
    pub(crate) other_prices: Option<BTreeMap<Currency, i64>>,
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
/// Currencies of a variant besides its product's.
const OTHER_PRICES_MAX_ENTRIES: usize = 40;
/// Highest price of one unit, in minor units: a thousand lines of a million such units still fit 64 bits.
const PRICE_MAX_MINOR: i64 = 1_000_000_000;

/// What the reviews of a product come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stars {
    /// How many give 1, 2, 3, 4 and 5.
    pub(crate) histogram: [i64; 5],
}

impl Stars {
    /// The mean in thousandths of a star, rounded down; 0 without reviews.
    pub(crate) fn mean_thousandths(&self) -> i32 {
        let count: i64 = self.histogram.iter().sum();
        let stars: i64 = (1..)
            .zip(self.histogram)
            .map(|(stars, of)| stars * of)
            .sum();
        (1_000 * stars).checked_div(count).unwrap_or_default() as i32
    }
}

impl Product {
    /// Changed in this way; in nothing changed, it is as it was, version and all.
    ///
    /// `expected` is the version the caller looked at, if they said so.
    pub(crate) fn change(
        self,
        change: Change,
        expected: Option<i64>,
    ) -> Result<Self, CatalogError> {
        self.is_at(expected)?;
        let mut draft = self.draft.clone();
        if let Some(name) = change.name {
            draft.name = name;
            draft.check_name()?;
        }
        if let Some(description) = change.description {
            draft.description = description;
            draft.check_description()?;
        }
        if let Some(category) = change.category {
            draft.category = category;
            draft.check_category()?;
        }
        if let Some(images) = change.images {
            draft.images = images;
            draft.check_images()?;
        }
        if let Some(price) = change.price {
            check_amount("price", price.amount)?;
            for variant in &mut draft.variants {
                variant.set_price(price);
            }
        }
        let status = change.status.unwrap_or(self.status);
        Ok(self.become_with(draft, status))
    }

    /// On sale.
    pub(crate) fn publish(self) -> Self {
        let draft = self.draft.clone();
        self.become_with(draft, Status::Published)
    }

    /// With one more variant, behind the others.
    pub(crate) fn add(self, variant: Variant) -> Result<Self, CatalogError> {
        let mut draft = self.draft.clone();
        draft.variants.push(variant);
        draft.check_variants().map_err(without_place)?;
        let status = self.status;
        Ok(self.become_with(draft, status))
    }

    /// With one of its variants changed; in nothing changed, it is as it was.
    pub(crate) fn change_variant(
        self,
        sku: &str,
        change: VariantChange,
        expected: Option<i64>,
    ) -> Result<Self, CatalogError> {
        self.is_at(expected)?;
        let mut draft = self.draft.clone();
        let variants = &mut draft.variants;
        let variant = variants
            .iter_mut()
            .find(|variant| variant.sku.as_str() == sku)
            .ok_or(CatalogError::UnknownVariant)?;
        if let Some(name) = change.name {
            variant.name = name;
        }
        if let Some(options) = change.options {
            variant.options = options;
        }
        if let Some(price) = change.price {
            variant.price = price;
        }
        if let Some(prices) = change.other_prices {
            variant.other_prices = prices;
        }
        draft.check_variants().map_err(without_place)?;
        let status = self.status;
        Ok(self.become_with(draft, status))
    }

    /// Without one of its variants; the last one stays.
    pub(crate) fn remove(self, sku: &str, expected: Option<i64>) -> Result<Self, CatalogError> {
        self.is_at(expected)?;
        let mut draft = self.draft.clone();
        draft.variants.retain(|variant| variant.sku.as_str() != sku);
        if draft.variants.len() == self.draft.variants.len() {
            return Err(CatalogError::UnknownVariant);
        }
        if draft.variants.is_empty() {
            return Err(CatalogError::LastVariant);
        }
        let status = self.status;
        Ok(self.become_with(draft, status))
    }

    /// Whether it has a variant of this sku.
    pub(crate) fn has(&self, sku: &Sku) -> bool {
        self.draft
            .variants
            .iter()
            .any(|variant| variant.sku == *sku)
    }

    /// Whether it still is as the caller looked at it.
    pub(crate) fn is_at(&self, expected: Option<i64>) -> Result<(), CatalogError> {
        match expected {
            Some(expected) if expected != self.version => Err(CatalogError::ProductChanged {
                expected,
                actual: self.version,
            }),
            _ => Ok(()),
        }
    }

    /// As it is sold in a currency: at its prices there, without what has none; none where nothing has.
    pub(crate) fn sold_in(mut self, currency: Currency) -> Option<Self> {
        let draft = &mut self.draft;
        draft.currency = currency;
        draft.variants.retain_mut(|variant| {
            let price = variant.price_in(currency);
            if let Some(price) = price {
                variant.price = price;
                variant.other_prices.clear();
            }
            price.is_some()
        });
        (!draft.variants.is_empty()).then_some(self)
    }

    fn become_with(self, draft: Draft, status: Status) -> Self {
        if draft == self.draft && status == self.status {
            return self;
        }
        Self {
            draft,
            status,
            version: self.version + 1,
            ..self
        }
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
        self.check_name()?;
        self.check_description()?;
        self.check_category()?;
        self.check_images()?;
        self.check_variants()
    }

    fn check_name(&self) -> Result<(), CatalogError> {
        within("name", &self.name, 1, NAME_MAX_CHARS)
    }

    fn check_description(&self) -> Result<(), CatalogError> {
        within("description", &self.description, 0, DESCRIPTION_MAX_CHARS)
    }

    fn check_category(&self) -> Result<(), CatalogError> {
        match &self.category {
            Some(category) => category::check_slug("category", category),
            None => Ok(()),
        }
    }

    /// Images are named, never fetched: whoever looks at the product does that.
    fn check_images(&self) -> Result<(), CatalogError> {
        counted("images", self.images.len(), 0, IMAGES_MAX_ENTRIES)?;
        for (at, image) in self.images.iter().enumerate() {
            let field = format!("images[{at}]");
            within(&field, image, 1, IMAGE_MAX_CHARS)?;
            let host = image.strip_prefix("https://").unwrap_or_default();
            let has_host = host.starts_with(|first: char| first.is_alphanumeric() || first == '[');
            if !has_host || image.contains(char::is_whitespace) {
                return Err(refused(field, "not a URL that begins with https://"));
            }
        }
        Ok(())
    }

    fn check_variants(&self) -> Result<(), CatalogError> {
        counted("variants", self.variants.len(), 1, VARIANTS_MAX_ENTRIES)?;
        let mut seen = HashMap::new();
        let names = |variant: &Variant| variant.options.keys().cloned().collect::<Vec<_>>();
        for (at, variant) in self.variants.iter().enumerate() {
            let field = format!("variants[{at}]");
            variant.check(&field, self.currency)?;
            if seen.insert(&variant.sku, at).is_some() {
                return Err(refused(
                    format!("{field}.sku"),
                    format!("{} stands twice in this product", variant.sku),
                ));
            }
            let (first, these) = (names(&self.variants[0]), names(variant));
            if first != these {
                return Err(refused(
                    format!("{field}.options"),
                    format!("names {these:?}, wanted those of the first variant, {first:?}"),
                ));
            }
        }
        Ok(())
    }

    /// Options of all variants: each name with the values there are, in order.
    pub(crate) fn options(&self) -> BTreeSet<(&str, &str)> {
        self.variants
            .iter()
            .flat_map(|variant| &variant.options)
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }

    /// The lowest price in each currency that a variant has one in.
    pub(crate) fn lowest_prices(&self) -> BTreeMap<Currency, i64> {
        let mut lowest = BTreeMap::new();
        for variant in &self.variants {
            let own = (variant.price.currency, variant.price.amount);
            let others = variant.other_prices.iter();
            for (currency, amount) in others
                .map(|(currency, amount)| (*currency, *amount))
                .chain([own])
            {
                let low = lowest.entry(currency).or_insert(amount);
                *low = amount.min(*low);
            }
        }
        lowest
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
    /// What it costs in a currency, if it is sold there.
    pub(crate) fn price_in(&self, currency: Currency) -> Option<Money> {
        if self.price.currency == currency {
            return Some(self.price);
        }
        let amount = self.other_prices.get(&currency)?;
        Some(Money::new(*amount, currency))
    }

    fn set_price(&mut self, price: Money) {
        if self.price.currency == price.currency {
            self.price = price;
        } else {
            self.other_prices.insert(price.currency, price.amount);
        }
    }

    fn check(&self, field: &str, currency: Currency) -> Result<(), CatalogError> {
        within(&format!("{field}.name"), &self.name, 0, NAME_MAX_CHARS)?;
        check_option_list(&format!("{field}.options"), &self.options)?;
        if self.price.currency != currency {
            return Err(CatalogError::CurrencyMixed {
                sku: self.sku.clone(),
                got: self.price.currency,
                wanted: currency,
            });
        }
        check_amount(&format!("{field}.price"), self.price.amount)?;
        let field = format!("{field}.prices");
        counted(&field, self.other_prices.len(), 0, OTHER_PRICES_MAX_ENTRIES)?;
        for (other, amount) in &self.other_prices {
            if *other == currency {
                let text =
                    format!("{other} is the product's own currency, its price stands in price");
                return Err(refused(field, text));
            }
            check_amount(&format!("{field}.{other}"), *amount)?;
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

/// Options that are looked for, if any variant could have them.
pub(crate) fn check_options(
    field: &str,
    options: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, CatalogError> {
    check_option_list(field, &options)?;
    Ok(options)
}

fn check_option_list(field: &str, options: &BTreeMap<String, String>) -> Result<(), CatalogError> {
    counted(field, options.len(), 0, OPTIONS_MAX_ENTRIES)?;
    for (name, value) in options {
        within(field, name, 1, OPTION_MAX_CHARS)?;
        within(&format!("{field}.{name}"), value, 1, OPTION_MAX_CHARS)?;
    }
    Ok(())
}

/// Names a field of one variant as who sent that variant alone knows it: `name` of `variants[3].name`.
fn without_place(error: CatalogError) -> CatalogError {
    match error {
        CatalogError::Refused(Field { name, text }) => CatalogError::Refused(Field {
            name: name
                .split_once("].")
                .map_or(name.as_str(), |(_, inner)| inner)
                .to_owned(),
            text,
        }),
        error => error,
    }
}

fn check_amount(field: &str, amount: i64) -> Result<(), CatalogError> {
    if (0..=PRICE_MAX_MINOR).contains(&amount) {
        return Ok(());
    }
    Err(refused(
        format!("{field}.amount"),
        format!("{amount} is not within 0 to {PRICE_MAX_MINOR}"),
    ))
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
                other_prices: BTreeMap::new(),
            }],
        }
    }

    fn euro() -> Currency {
        "EUR".parse().expect("a currency")
    }

    #[test]
    fn the_mean_of_stars_is_exact_to_the_thousandth_and_none_is_nothing() {
        for (histogram, wanted) in [
            ([0; 5], 0),
            ([0, 0, 0, 0, 7], 5_000),
            ([1, 0, 0, 0, 2], 3_666),
            ([i64::from(i32::MAX), 0, 0, 0, 0], 1_000),
        ] {
            assert_eq!(Stars { histogram }.mean_thousandths(), wanted);
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
        let table: [(&str, Spoil); 9] = [
            ("name", |draft| draft.name.clear()),
            ("category", |draft| {
                draft.category = Some("No Slug".to_owned());
            }),
            ("images[0]", |draft| {
                draft.images.push("http://x".to_owned());
            }),
            ("images[0]", |draft| {
                draft.images.push("https://".to_owned());
            }),
            ("variants[0].prices", |draft| {
                let own = draft.currency;
                draft.variants[0].other_prices.insert(own, 1);
            }),
            ("variants[0].prices.EUR.amount", |draft| {
                draft.variants[0].other_prices.insert(euro(), -1);
            }),
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

    #[test]
    fn variants_of_one_product_have_options_of_the_same_names() {
        let mut draft = draft();
        let mut other = draft.variants[0].clone();
        other.sku = "85123B".parse().expect("a sku");
        draft.variants.push(other);
        for variant in &mut draft.variants {
            let size = ("size".to_owned(), "M".to_owned());
            variant.options = BTreeMap::from([size]);
        }
        assert!(draft.check().is_ok());
        let colour = ("colour".to_owned(), "red".to_owned());
        draft.variants[1].options = BTreeMap::from([colour]);
        match draft.check() {
            Err(CatalogError::Refused(refused)) => assert_eq!(refused.name, "variants[1].options"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn in_another_currency_only_what_has_a_price_there_is_sold() {
        let mut draft = draft();
        let mut other = draft.variants[0].clone();
        other.sku = "85123B".parse().expect("a sku");
        other.other_prices.insert(euro(), 300);
        draft.variants.push(other);
        assert_eq!(draft.lowest_prices().values().copied().sum::<i64>(), 555);
        let product = Product {
            id: Id::generate(),
            slug: draft.slug(),
            draft,
            status: Status::Published,
            created_at: Timestamp::UNIX_EPOCH,
            version: 1,
        };
        let sold = product.clone().sold_in(euro()).expect("one variant is");
        assert_eq!(sold.draft.variants.len(), 1);
        assert_eq!(sold.draft.variants[0].price, Money::new(300, euro()));
        let yen = "JPY".parse().expect("a currency");
        assert_eq!(product.sold_in(yen), None);
    }

    #[test]
    fn a_change_that_changes_nothing_keeps_the_version_and_any_other_raises_it_by_one() {
        let draft = draft();
        let product = Product {
            id: Id::generate(),
            slug: draft.slug(),
            draft,
            status: Status::Published,
            created_at: Timestamp::UNIX_EPOCH,
            version: 4,
        };
        let name = Some(product.draft.name.clone());
        let same = Change {
            name,
            ..Change::default()
        };
        let same = product.clone().change(same, Some(4)).expect("taken");
        assert_eq!(same, product);
        let price = Some(Money::new(300, euro()));
        let dearer = Change {
            price,
            ..Change::default()
        };
        let changed = product.clone().change(dearer, None).expect("taken");
        assert_eq!(changed.version, 5);
        assert_eq!(changed.draft.variants[0].price_in(euro()), price);
        assert!(matches!(
            product.remove("85123A", None),
            Err(CatalogError::LastVariant)
        ));
    }
}
