//! Ways to pay, and what is never one of them: a card's number.

use holdfast_kernel::{Id, Timestamp, id};

/// The kinds of payment there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodKind {
    /// By a provider's token, never by number.
    Card,
    /// In cash at a convenience store.
    Konbini,
}

/// A way to pay: for a card the provider's token, for a konbini the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method {
    /// Which kind.
    pub kind: MethodKind,
    /// What the provider knows it by.
    pub token: String,
}

/// A method that somebody keeps for later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SavedMethod {
    pub(crate) id: Id<id::PaymentMethod>,
    pub(crate) user: Id<id::User>,
    pub(crate) method: Method,
    pub(crate) created_at: Timestamp,
}

impl MethodKind {
    /// The word that the API and the database use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Card => "card",
            Self::Konbini => "konbini",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Card, Self::Konbini]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// Whether a text holds what may be a card number: 13 to 19 digits, perhaps grouped, with a right check digit.
///
/// We never take one, in any field: who has no card numbers cannot lose them.
pub(crate) fn holds_card_number(text: &str) -> bool {
    let mut digits: Vec<u8> = Vec::new();
    let mut grouped = text.bytes().chain([b'.']);
    grouped.any(|byte| match byte {
        b'0'..=b'9' => {
            digits.push(byte - b'0');
            false
        }
        b' ' | b'-' => false,
        _ => {
            let found = runs_hold_card_number(&digits);
            digits.clear();
            found
        }
    })
}

const CARD_NUMBER_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

fn runs_hold_card_number(digits: &[u8]) -> bool {
    CARD_NUMBER_DIGITS.contains(&digits.len()) && luhn(digits)
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &digit)| match u32::from(digit) {
            digit if place % 2 == 0 => digit,
            digit if digit > 4 => 2 * digit - 9,
            digit => 2 * digit,
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn card_numbers_are_found_however_they_are_grouped() {
        for text in [
            "4242424242424242",
            "4242 4242 4242 4242",
            "card 4242-4242-4242-4242.",
            "378282246310005",
        ] {
            assert!(holds_card_number(text), "{text}");
        }
        for text in [
            "",
            "sandbox_ok",
            "4242424242424241",
            "424242424242",
            "00000000000000000000",
            "pay_01jd0000000000000000000000",
        ] {
            assert!(!holds_card_number(text), "{text}");
        }
    }
}
