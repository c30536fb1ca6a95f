//! The words: for each kind of news and language a title and paragraphs, and the mail around them.
//!
//! A template's first line is the title, the rest are paragraphs. Mail carries them twice, plain and as HTML; the HTML is
//! made of the finished paragraphs, all of them escaped, so nothing that a text shows can be read as markup. Values are
//! data, never templates, and lose their control characters, so nothing can end a line of a header.

use std::num::NonZeroI64;

use holdfast_kernel::{Language, Money};
use minijinja::{Environment, UndefinedBehavior, context};

use crate::domain::{Facts, Kind, greeting};

/// News in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text {
    /// One line.
    pub(crate) title: String,
    /// Paragraphs, an empty line between them.
    pub(crate) body: String,
}

/// A mail in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) subject: String,
    pub(crate) text: String,
    pub(crate) html: String,
}

/// Every template, each known to render.
pub(crate) struct Texts {
    environment: Environment<'static>,
    shop: String,
}

/// Longest value that a text shows, in characters.
const VALUE_MAX_CHARS: usize = 120;
const HTML: &str = "layout.html";

macro_rules! templates {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../templates/", $name)))),+]
    };
}

const TEMPLATES: &[(&str, &str)] = templates!(
    "layout.html",
    "en/letter.txt",
    "en/user.registered.txt",
    "en/order.awaiting_payment.txt",
    "en/order.confirmed.txt",
    "en/order.payment_failed.txt",
    "en/order.expired.txt",
    "en/order.cancelled.txt",
    "en/order.shipped.txt",
    "en/order.delivered.txt",
    "en/order.partially_refunded.txt",
    "en/order.refunded.txt",
    "ja/letter.txt",
    "ja/user.registered.txt",
    "ja/order.awaiting_payment.txt",
    "ja/order.confirmed.txt",
    "ja/order.payment_failed.txt",
    "ja/order.expired.txt",
    "ja/order.cancelled.txt",
    "ja/order.shipped.txt",
    "ja/order.delivered.txt",
    "ja/order.partially_refunded.txt",
    "ja/order.refunded.txt",
);

impl Texts {
    /// Reads all templates and renders each once.
    ///
    /// Fails when one of them cannot be read, is missing or names a value that its kind of news does not have.
    pub(crate) fn load(shop: &str) -> Result<Self, minijinja::Error> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        for (name, source) in TEMPLATES {
            environment.add_template(name, source)?;
        }
        let texts = Self {
            environment,
            shop: plain(shop),
        };
        for language in Language::ALL {
            for kind in Kind::ALL {
                let text = texts.tell(language, kind, &sample(kind))?;
                texts.letter(language, text, "Ada")?;
            }
        }
        Ok(texts)
    }

    /// The news in words.
    pub(crate) fn tell(
        &self,
        language: Language,
        kind: Kind,
        facts: &Facts,
    ) -> Result<Text, minijinja::Error> {
        let amount = |amount: Option<Money>| amount.map(|amount| written(amount, language));
        let values = context! {
            shop => self.shop,
            ..order_values(facts, amount(facts.total), amount(facts.refunded))
        };
        let name = format!("{}/{}.txt", language.tag(), kind.as_str());
        let rendered = self.environment.get_template(&name)?.render(values)?;
        let (title, body) = rendered.split_once("\n\n").unwrap_or((&rendered, ""));
        Ok(Text {
            title: plain(title),
            body: body.trim_end().to_owned(),
        })
    }

    /// The news as a mail to somebody of this name.
    pub(crate) fn letter(
        &self,
        language: Language,
        text: Text,
        name: &str,
    ) -> Result<Page, minijinja::Error> {
        let name = plain(name);
        let letter = format!("{}/letter.txt", language.tag());
        let mut written = self.environment.get_template(&letter)?.render(context! {
            name => greeting(&name),
            text => text.body,
            shop => self.shop,
        })?;
        let paragraphs: Vec<&str> = written.trim_end().split("\n\n").collect();
        let html = self.environment.get_template(HTML)?.render(context! {
            language => language.tag(),
            subject => text.title,
            paragraphs,
        })?;
        written.truncate(written.trim_end().len());
        written.push('\n');
        Ok(Page {
            subject: text.title,
            text: written,
            html,
        })
    }
}

/// The values that a kind of news has; those it has not are left out, so that a template that names one fails. News of an
/// order has points, though there may be none.
fn order_values(
    facts: &Facts,
    total: Option<String>,
    refunded: Option<String>,
) -> minijinja::Value {
    let order = facts.order.map(|order| order.to_string());
    let has_points = order.is_some();
    let points = |points: Option<NonZeroI64>| {
        let points = points.map(|points| grouped(points.get()));
        has_points.then(|| minijinja::Value::from(points))
    };
    [
        ("order", order.map(Into::into)),
        ("total", total.map(Into::into)),
        ("refunded", refunded.map(Into::into)),
        ("points_used", points(facts.points_used)),
        ("points_earned", points(facts.points_earned)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

/// As people of that language write an amount.
fn written(amount: Money, language: Language) -> String {
    match (language, amount.currency.code()) {
        (Language::Japanese, "JPY") => format!("{}円", grouped(amount.amount)),
        (Language::English, "JPY") => format!("¥{}", grouped(amount.amount)),
        _ => amount.to_string(),
    }
}

fn grouped(amount: i64) -> String {
    let digits = amount.unsigned_abs().to_string();
    let mut text = String::from(if amount < 0 { "-" } else { "" });
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// One line without control characters, and none that turn the direction of writing.
fn plain(value: &str) -> String {
    let is_line = |letter: char| {
        !letter.is_control()
            && !matches!(letter, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let kept = value
        .chars()
        .map(|letter| if is_line(letter) { letter } else { ' ' });
    kept.take(VALUE_MAX_CHARS)
        .collect::<String>()
        .trim()
        .to_owned()
}

/// News of that kind with everything it can show.
fn sample(kind: Kind) -> Facts {
    let yen = |amount| Money::new(amount, "JPY".parse().expect("a currency"));
    if kind == Kind::Registered {
        return Facts::default();
    }
    Facts {
        order: Some(holdfast_kernel::Id::new(uuid::Uuid::nil())),
        total: Some(yen(12_500)),
        refunded: Some(yen(2_500)),
        points_used: NonZeroI64::new(1_300),
        points_earned: NonZeroI64::new(125),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn texts() -> Texts {
        Texts::load("Holdfast").expect("every template renders")
    }

    fn page(language: Language, kind: Kind, name: &str) -> Page {
        let texts = texts();
        let text = texts.tell(language, kind, &sample(kind)).expect("a text");
        texts.letter(language, text, name).expect("a letter")
    }

    /// The kept files show what people read; `HOLDFAST_DRAW=1` writes them again for a reviewer to compare.
    #[test]
    fn every_mail_in_every_language_reads_as_in_its_kept_file() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let mut kept = 0;
        for language in Language::ALL {
            for kind in Kind::ALL {
                let Page {
                    subject,
                    text,
                    html,
                } = page(language, kind, "Ada & <b>花子");
                let current = format!("Subject: {subject}\n\n{text}\n--- HTML\n{html}\n");
                let file = folder.join(format!("{}.{}.txt", kind.as_str(), language.tag()));
                if std::env::var_os("HOLDFAST_DRAW").is_some() {
                    fs::write(&file, &current).expect("written");
                }
                let wanted = fs::read_to_string(&file).unwrap_or_default();
                assert_eq!(current, wanted, "{}", file.display());
                kept += 1;
            }
        }
        let files = fs::read_dir(folder).expect("the folder").count();
        assert_eq!(files, kept, "a kept file that no text has");
    }

    #[test]
    fn values_are_shown_and_neither_read_as_templates_nor_as_markup_nor_as_header_lines() {
        let hostile = "{{7*7}} <script>alert(1)</script>\r\nBcc: all\u{2028}x";
        let page = page(Language::English, Kind::Confirmed, hostile);
        assert!(!page.text.contains("49") && !page.html.contains("49"));
        assert!(!page.html.contains("<script>"), "{}", page.html);
        assert!(!page.subject.contains(['\r', '\n']));
        // A name that looks like a link is not even repeated, so take one that is.
        let shown = super::plain("{{7*7}}\r\nBcc<b>");
        assert_eq!(shown, "{{7*7}}  Bcc<b>");
        let page = self::page(Language::English, Kind::Confirmed, "{{7*7}}\r\nBcc<b>");
        assert!(
            page.text.starts_with("Hello {{7*7}}  Bcc<b>,\n"),
            "{}",
            page.text
        );
        assert!(page.html.contains("{{7*7}}  Bcc&lt;b&gt;"), "{}", page.html);
        let shop = Texts::load("A\r\nBcc: all").expect("a shop");
        let text = shop
            .tell(Language::English, Kind::Registered, &Facts::default())
            .expect("a text");
        assert_eq!(text.title, "Welcome to A  Bcc: all");
    }

    #[test]
    fn a_text_that_shows_what_its_news_does_not_have_is_refused() {
        let refused = texts().tell(Language::English, Kind::Confirmed, &Facts::default());
        assert!(refused.is_err(), "{refused:?}");
    }

    #[test]
    fn a_confirmation_speaks_of_points_only_where_there_are_any() {
        for (used, earned, wanted) in [
            (0, 0, &[][..]),
            (300, 0, &["Points used: 300."][..]),
            (0, 1_250, &["Points earned: 1,250."][..]),
            (1, 2, &["Points used: 1.", "Points earned: 2."][..]),
        ] {
            let facts = Facts {
                points_used: NonZeroI64::new(used),
                points_earned: NonZeroI64::new(earned),
                ..sample(Kind::Confirmed)
            };
            let text = texts().tell(Language::English, Kind::Confirmed, &facts);
            let text = text.expect("a text").body;
            let paragraphs: Vec<&str> = text.split("\n\n").skip(1).collect();
            assert_eq!(paragraphs, wanted, "{text}");
        }
    }

    #[test]
    fn amounts_are_written_as_readers_expect() {
        let money = |amount, currency: &str| Money::new(amount, currency.parse().expect("one"));
        let table = [
            (money(1_250_000, "JPY"), Language::Japanese, "1,250,000円"),
            (money(999, "JPY"), Language::English, "¥999"),
            (money(1_000, "JPY"), Language::English, "¥1,000"),
            (money(1_250, "GBP"), Language::English, "12.50 GBP"),
        ];
        for (amount, language, wanted) in table {
            assert_eq!(written(amount, language), wanted);
        }
    }
}
