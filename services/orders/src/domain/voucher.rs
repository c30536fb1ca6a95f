//! Vouchers: what a code takes off, and of which orders.

use std::{fmt, str::FromStr};

use holdfast_kernel::{Currency, Id, Money, PoolKey, Timestamp, id};

use super::{Item, sharing::shared_out, total_of};
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

/// Why a voucher is of no use to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotValid {
    #[error("it is {now}, wanted {from} or later")]
    NotYet { from: Timestamp, now: Timestamp },
    #[error("it is {now}, wanted before {until}")]
    Over { until: Timestamp, now: Timestamp },
    #[error("got an order in {got}, wanted {wanted}")]
    Currency { got: Currency, wanted: Currency },
    #[error("got a subtotal of {got}, wanted {wanted} or more")]
    TooLittle { got: Money, wanted: Money },
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

impl Off {
    /// What it comes to: a percentage rounded half up, once; an amount in the sum's currency, at most the sum.
    fn of(self, sum: Money) -> i64 {
        match self {
            Self::Percent(percent) => {
                let off = (i128::from(sum.amount) * i128::from(percent) + 50) / 100;
                i64::try_from(off).expect("up to a hundred per cent of a sum is no more than it")
            }
            Self::Amount(amount) => amount.amount.min(sum.amount),
        }
    }
}

impl Voucher {
    /// Takes off what it is good for, shared over the lines. Fails when it is of no use to such an order now.
    pub(crate) fn take_off(
        &self,
        mut items: Vec<Item>,
        now: Timestamp,
    ) -> Result<Vec<Item>, OrdersError> {
        let sum = total_of(&items)?;
        self.suits(sum, now)
            .map_err(|why| OrdersError::VoucherNotValid(self.code.clone(), why))?;
        let mut lines = Vec::with_capacity(items.len());
        for item in &items {
            lines.push(item.total()?.amount);
        }
        let shares = shared_out(self.terms.off.of(sum), &lines);
        for (item, share) in items.iter_mut().zip(shares) {
            item.discount = Money::new(share, sum.currency);
        }
        Ok(items)
    }

    fn suits(&self, sum: Money, now: Timestamp) -> Result<(), NotValid> {
        let Terms {
            currency,
            least_subtotal,
            window,
            ..
        } = self.terms;
        if let Some(from) = window.from.filter(|from| now < *from) {
            return Err(NotValid::NotYet { from, now });
        }
        if let Some(until) = window.until.filter(|until| now >= *until) {
            return Err(NotValid::Over { until, now });
        }
        if let Some(wanted) = currency.filter(|wanted| *wanted != sum.currency) {
            let got = sum.currency;
            return Err(NotValid::Currency { got, wanted });
        }
        if let Some(wanted) = least_subtotal.filter(|least| sum.amount < least.amount) {
            return Err(NotValid::TooLittle { got: sum, wanted });
        }
        Ok(())
    }

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

    fn voucher(off: Off) -> Voucher {
        let terms = Terms::new(off, None, None, Window::default());
        Voucher {
            code: "SUMMER10".parse().expect("a code"),
            terms: terms.expect("good terms"),
            created_by: Id::generate(),
            created_at: Timestamp::UNIX_EPOCH,
            version: 1,
        }
    }

    fn lines(prices: &[i64], currency: &str) -> Vec<Item> {
        let item = |(place, price): (usize, &i64)| Item {
            sku: format!("THING-{place}").parse().expect("a sku"),
            name: String::new(),
            quantity: 1,
            unit_price: money(*price, currency),
            discount: money(0, currency),
            refunded_quantity: 0,
        };
        prices.iter().enumerate().map(item).collect()
    }

    /// The table of `docs/PRICING.md` under "Vouchers", and its edges.
    #[test]
    fn what_is_taken_off_is_rounded_once_and_shared_over_the_lines() {
        let amount = |amount| Off::Amount(money(amount, "JPY"));
        for (prices, off, discount, after) in [
            (
                &[333, 333, 333][..],
                Off::Percent(10),
                100,
                &[299, 300, 300][..],
            ),
            (&[5], Off::Percent(10), 1, &[4]),
            (&[300, 100], amount(500), 400, &[0, 0]),
            (&[4], Off::Percent(10), 0, &[4]),
            (&[999, 1], Off::Percent(100), 1_000, &[0, 0]),
            (&[300, 100], amount(1), 1, &[299, 100]),
            (&[0, 0], amount(500), 0, &[0, 0]),
            (&[i64::MAX], Off::Percent(100), i64::MAX, &[0]),
        ] {
            let now = Timestamp::UNIX_EPOCH;
            let items = voucher(off)
                .take_off(lines(prices, "JPY"), now)
                .expect("valid");
            let taken: i64 = items.iter().map(|item| item.discount.amount).sum();
            let left: Vec<i64> = (items.iter())
                .map(|item| item.total().expect("a sum").amount)
                .collect();
            assert_eq!(
                (taken, left.as_slice()),
                (discount, after),
                "{prices:?} {off:?}"
            );
        }
    }

    #[test]
    fn a_voucher_suits_only_orders_of_its_time_its_currency_and_its_least_subtotal() {
        let at = |secs| Timestamp::from_second(secs).expect("a moment");
        let window = Window {
            from: Some(at(10)),
            until: Some(at(20)),
        };
        let terms = Terms::new(Off::Percent(10), None, Some(money(1_000, "JPY")), window);
        let voucher = Voucher {
            terms: terms.expect("good terms"),
            ..voucher(Off::Percent(10))
        };
        for (price, currency, now, why) in [
            (1_000, "JPY", 10, None),
            (1_000, "JPY", 19, None),
            (
                1_000,
                "JPY",
                9,
                Some("it is 1970-01-01T00:00:09Z, wanted 1970-01-01T00:00:10Z or later"),
            ),
            (
                1_000,
                "JPY",
                20,
                Some("it is 1970-01-01T00:00:20Z, wanted before 1970-01-01T00:00:20Z"),
            ),
            (1_000, "USD", 15, Some("got an order in USD, wanted JPY")),
            (
                999,
                "JPY",
                15,
                Some("got a subtotal of 999 JPY, wanted 1000 JPY or more"),
            ),
        ] {
            let refused = voucher.take_off(lines(&[price], currency), at(now)).err();
            let said = refused.map(|error| error.to_string());
            let wanted = why.map(|why| format!("voucher SUMMER10 is not valid: {why}"));
            assert_eq!(said, wanted);
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
