//! Amounts in minor units. Every sum is checked: money overflows into an error, never into another amount.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// An ISO 4217 currency, three upper-case letters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

/// An amount of one currency in its minor unit: 1250 JPY is 1,250 yen, 1250 GBP is 12.50 pounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Money {
    /// Minor units; may be negative only where a difference is meant.
    pub amount: i64,
    /// What the amount counts.
    pub currency: Currency,
}

/// Why two amounts make no third one, or a text no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Amounts of two currencies met.
    #[error("amounts in {0} and {1} cannot be combined")]
    CurrencyMixed(Currency, Currency),
    /// The result does not fit 64 bits.
    #[error("the amount is too large")]
    TooLarge,
    /// A text is no currency.
    #[error("{0:?} is not an ISO 4217 currency such as JPY")]
    NotACurrency(String),
    /// A text is no amount in major units.
    #[error("{got:?} is not an amount of {currency} such as {example}")]
    NotAnAmount {
        /// What was given.
        got: String,
        /// What it was read as.
        currency: Currency,
        /// One that would be taken.
        example: &'static str,
    },
}

/// Currencies without a minor unit, and with one of a thousandth; all others have hundredths (ISO 4217, 2024).
const NO_DECIMALS: [&str; 16] = [
    "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND",
    "VUV", "XAF", "XOF",
];
const THREE_DECIMALS: [&str; 7] = ["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"];

impl Currency {
    /// The three letters.
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).expect("made of ASCII letters only")
    }

    /// Digits behind the point when written in major units.
    pub fn decimals(self) -> u32 {
        if NO_DECIMALS.contains(&self.code()) {
            0
        } else if THREE_DECIMALS.contains(&self.code()) {
            3
        } else {
            2
        }
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        match text.as_bytes() {
            [a, b, c] if [a, b, c].iter().all(|letter| letter.is_ascii_uppercase()) => {
                Ok(Self([*a, *b, *c]))
            }
            _ => Err(MoneyError::NotACurrency(text.chars().take(8).collect())),
        }
    }
}

impl TryFrom<String> for Currency {
    type Error = MoneyError;

    fn try_from(text: String) -> Result<Self, MoneyError> {
        text.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.code().to_owned()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Money {
    /// So many minor units of a currency.
    pub const fn new(amount: i64, currency: Currency) -> Self {
        Self { amount, currency }
    }

    /// Nothing, in this currency.
    pub const fn zero(currency: Currency) -> Self {
        Self::new(0, currency)
    }

    /// The sum.
    pub fn plus(self, other: Self) -> Result<Self, MoneyError> {
        self.combine(other, i64::checked_add)
    }

    /// The difference; may be negative.
    pub fn minus(self, other: Self) -> Result<Self, MoneyError> {
        self.combine(other, i64::checked_sub)
    }

    /// The price of so many.
    pub fn times(self, quantity: i64) -> Result<Self, MoneyError> {
        let amount = self
            .amount
            .checked_mul(quantity)
            .ok_or(MoneyError::TooLarge)?;
        Ok(Self::new(amount, self.currency))
    }

    /// Reads an amount in major units, such as `12.50` of GBP or `1250` of JPY, exactly or not at all.
    pub fn parse_major(text: &str, currency: Currency) -> Result<Self, MoneyError> {
        let decimals = currency.decimals() as usize;
        let refused = || MoneyError::NotAnAmount {
            got: text.chars().take(32).collect(),
            currency,
            example: ["1250", "", "12.50", "1.250"][decimals],
        };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|digit| digit.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > decimals {
            return Err(refused());
        }
        let minor = format!("{whole}{fraction:0<decimals$}");
        let amount = minor.parse().map_err(|_| refused())?;
        Ok(Self::new(amount, currency))
    }

    fn combine(
        self,
        other: Self,
        operation: fn(i64, i64) -> Option<i64>,
    ) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::CurrencyMixed(self.currency, other.currency));
        }
        let amount = operation(self.amount, other.amount).ok_or(MoneyError::TooLarge)?;
        Ok(Self::new(amount, self.currency))
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = self.currency.decimals();
        let unit = 10_u64.pow(decimals);
        let (whole, fraction) = (
            self.amount.unsigned_abs() / unit,
            self.amount.unsigned_abs() % unit,
        );
        let sign = if self.amount < 0 { "-" } else { "" };
        if decimals == 0 {
            write!(f, "{sign}{whole} {}", self.currency)
        } else {
            let width = decimals as usize;
            write!(f, "{sign}{whole}.{fraction:0width$} {}", self.currency)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn currency(code: &str) -> Currency {
        code.parse().expect("a currency")
    }

    #[test]
    fn amounts_in_major_units_are_read_exactly_or_not_at_all() {
        let table = [
            ("12.50", "GBP", Some(1250)),
            ("12.5", "GBP", Some(1250)),
            ("12", "GBP", Some(1200)),
            ("0.01", "GBP", Some(1)),
            ("1250", "JPY", Some(1250)),
            ("1.250", "KWD", Some(1250)),
            ("12.505", "GBP", None),
            ("12.5", "JPY", None),
            ("-1", "GBP", None),
            (".5", "GBP", None),
            ("1e3", "GBP", None),
            ("99999999999999999999", "GBP", None),
            ("", "GBP", None),
        ];
        for (text, code, want) in table {
            let got = Money::parse_major(text, currency(code)).ok();
            assert_eq!(got.map(|money| money.amount), want, "{text} {code}");
        }
    }

    #[test]
    fn amounts_are_shown_in_major_units() {
        assert_eq!(Money::new(1250, currency("GBP")).to_string(), "12.50 GBP");
        assert_eq!(Money::new(-5, currency("GBP")).to_string(), "-0.05 GBP");
        assert_eq!(Money::new(1250, currency("JPY")).to_string(), "1250 JPY");
    }

    #[test]
    fn sums_that_do_not_fit_or_mix_currencies_are_errors() {
        let most = Money::new(i64::MAX, currency("JPY"));
        let one = Money::new(1, currency("JPY"));
        assert_eq!(most.plus(one), Err(MoneyError::TooLarge));
        assert_eq!(most.times(2), Err(MoneyError::TooLarge));
        assert!(matches!(
            one.plus(Money::new(1, currency("GBP"))),
            Err(MoneyError::CurrencyMixed(..))
        ));
    }
}
