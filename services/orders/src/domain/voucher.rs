//! Vouchers: what a code takes off, and of which orders.

use std::{fmt, str::FromStr};

use holdfast_kernel::{Currency, Id, Money, PoolKey, Timestamp, id};

use crate::error::OrdersError;

/// What customers type in: 3 to 32 of `A-Z 0-9 . _ -`. Lower-case letters count as capitals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Code(String);

/// A text that is no code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no code, wanted 3 to 32 of A-Z 0-9 . _ -")]
pub(crate) struct InvalidCode(String);

/// A code and what it is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Voucher {
    pub(crate) code: Code,
    pub(crate) terms: Terms,
    pub(crate) created_by: Id<id::User>,
    pub(crate) created_at: Timestamp,
    /// Rises by one with every change.
    pub(crate) version: i64,
}

/// What it takes off, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) off: Off,
    /// Of the orders it is for; `None`: any. All amounts are in it.
    pub(crate) currency: Option<Currency>,
    /// What the lines must come to before it.
    pub(crate) least_subtotal: Option<Money>,
    pub(crate) window: Window,
}

/// Of the sum of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Off {
    /// 1 to 100.
    Percent(i64),
    /// From 1 minor unit, and at most the sum.
    Amount(Money),
}

/// From the first moment on, and before the second; `None` where it is open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) from: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
}

/// How often a voucher can be used, and was; its pool as the ledger tells it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Uses {
    pub(crate) total: i64,
    pub(crate) used: i64,
    pub(crate) held: i64,
    /// The pool's capacity version; 0 when there is no pool.
    pub(crate) version: i64,
}

/// Which state of a voucher somebody looked at: that of its row, and that of its uses. The two change apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edition {
    pub(crate) terms: i64,
    pub(crate) uses: i64,
}

/// The most uses that are made.
pub(crate) const USES_MAX_UNITS: i64 = 1_000_000_000;
const CODE_MIN_CHARS: usize = 3;
const CODE_MAX_CHARS: usize = 32;
const CODE_SHOWN_CHARS: usize = 40;
const PERCENT_MAX: i64 = 100;
/// Where the version of the uses ends in an edition's number. Staff do not change a voucher four billion times.
const USES_BITS: u32 = 32;

impl Code {
    /// The text itself.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The pool that holds its uses.
    pub(crate) fn pool(&self) -> PoolKey {
        let key = format!("voucher:{}", self.0);
        key.parse().expect("what a code is made of fits a key")
    }
}

impl FromStr for Code {
    type Err = InvalidCode;

    fn from_str(text: &str) -> Result<Self, InvalidCode> {
        let fits = (CODE_MIN_CHARS..=CODE_MAX_CHARS).contains(&text.len())
            && (text.bytes())
                .all(|letter| letter.is_ascii_alphanumeric() || b"._-".contains(&letter));
        if fits {
            Ok(Self(text.to_ascii_uppercase()))
        } else {
            Err(InvalidCode(text.chars().take(CODE_SHOWN_CHARS).collect()))
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Terms {
    /// Fails on what is out of bounds, on amounts in several currencies and on a window that ends before it begins.
    pub(crate) fn new(
        off: Off,
        currency: Option<Currency>,
        least_subtotal: Option<Money>,
        window: Window,
    ) -> Result<Self, OrdersError> {
        let refused = |name: &str, text: String| Err(OrdersError::field(name, text));
        let amount_off = match off {
            Off::Percent(percent) if !(1..=PERCENT_MAX).contains(&percent) => {
                return refused(
                    "percent_off",
                    format!("{percent}, wanted 1 to {PERCENT_MAX}"),
                );
            }
            Off::Percent(_) => None,
            Off::Amount(amount) => Some(amount),
        };
        let mut currency = currency;
        for (name, amount) in [
            ("amount_off", amount_off),
            ("least_subtotal", least_subtotal),
        ] {
            let Some(amount) = amount else { continue };
            if amount.amount < 1 {
                return refused(name, format!("{}, wanted 1 or more", amount.amount));
            }
            let wanted = *currency.get_or_insert(amount.currency);
            if amount.currency != wanted {
                let got = amount.currency;
                return refused(name, format!("got an amount in {got}, wanted {wanted}"));
            }
        }
        window.check()?;
        Ok(Self {
            off,
            currency,
            least_subtotal,
            window,
        })
    }
}

impl Window {
    fn check(self) -> Result<(), OrdersError> {
        for (name, moment) in [("valid_from", self.from), ("valid_until", self.until)] {
            if moment.is_some_and(|moment| moment < Timestamp::UNIX_EPOCH) {
                return Err(OrdersError::field(name, "wanted a moment from 1970 on"));
            }
        }
        match (self.from, self.until) {
            (Some(from), Some(until)) if until <= from => Err(OrdersError::field(
                "valid_until",
                format!("{until}, wanted a moment after {from}, from which it is valid"),
            )),
            _ => Ok(()),
        }
    }
}

impl Voucher {
    /// The same, valid until then. Unchanged when it was before.
    pub(crate) fn valid_until(mut self, until: Timestamp) -> Result<Self, OrdersError> {
        if self.terms.window.until == Some(until) {
            return Ok(self);
        }
        self.terms.window.until = Some(until);
        self.terms.window.check()?;
        self.version += 1;
        Ok(self)
    }

    /// Which state this is, together with that of its uses.
    pub(crate) fn edition(&self, uses: Uses) -> Edition {
        Edition {
            terms: self.version,
            uses: uses.version,
        }
    }
}

impl Edition {
    /// One number for both.
    pub(crate) fn number(self) -> i64 {
        self.terms << USES_BITS | self.uses
    }

    /// Reads what [`number`](Self::number) wrote.
    pub(crate) fn from_number(number: i64) -> Self {
        Self {
            terms: number >> USES_BITS,
            uses: number & ((1 << USES_BITS) - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(amount: i64, currency: &str) -> Money {
        Money::new(amount, currency.parse().expect("a currency"))
    }

    #[test]
    fn a_code_is_taken_in_its_alphabet_and_length_and_capitals_are_made_of_small_letters() {
        for (text, code) in [
            ("SUMMER10", "SUMMER10"),
            ("a.b_c-9", "A.B_C-9"),
            ("abc", "ABC"),
        ] {
            assert_eq!(text.parse::<Code>().expect(text).as_str(), code);
        }
        for bad in [
            "",
            "AB",
            "A B C",
            "ABC:D",
            "\u{e9}t\u{e9}s",
            "A\nBC",
            &"X".repeat(33),
        ] {
            assert!(bad.parse::<Code>().is_err(), "{bad:?}");
        }
        let code: Code = "X".repeat(32).parse().expect("as long as may be");
        assert_eq!(code.pool().as_str(), format!("voucher:{code}"));
    }

    #[test]
    fn amounts_name_the_currency_and_must_agree_on_it() {
        let open = Window::default();
        let jpy = money(1, "JPY").currency;
        let named = Terms::new(Off::Amount(money(500, "JPY")), None, None, open);
        assert_eq!(named.expect("good").currency, Some(jpy));
        let any = Terms::new(Off::Percent(10), None, None, open).expect("good");
        assert_eq!(any.currency, None);
        for (off, currency, least) in [
            (Off::Amount(money(500, "USD")), Some(jpy), None),
            (Off::Amount(money(500, "JPY")), None, Some(money(1, "USD"))),
            (Off::Amount(money(0, "JPY")), None, None),
            (Off::Percent(0), None, None),
            (Off::Percent(101), None, None),
            (Off::Percent(10), None, Some(money(0, "JPY"))),
        ] {
            let terms = Terms::new(off, currency, least, open);
            assert!(terms.is_err(), "{off:?} {currency:?} {least:?}");
        }
    }

    #[test]
    fn a_window_ends_after_it_begins_and_begins_in_this_calendar() {
        let at = |secs| Some(Timestamp::from_second(secs).expect("a moment"));
        for (from, until, fits) in [
            (None, None, true),
            (at(5), at(6), true),
            (at(6), None, true),
            (None, at(6), true),
            (at(6), at(6), false),
            (at(6), at(5), false),
            (at(-1), None, false),
            (None, at(-1), false),
        ] {
            let terms = Terms::new(Off::Percent(1), None, None, Window { from, until });
            assert_eq!(terms.is_ok(), fits, "{from:?} {until:?}");
        }
    }

    #[test]
    fn an_edition_reads_back_from_its_number() {
        for (terms, uses) in [(1, 0), (1, 1), (7, u32::MAX.into()), (i32::MAX.into(), 3)] {
            let edition = Edition { terms, uses };
            assert_eq!(Edition::from_number(edition.number()), edition);
        }
    }
}
