//! Points: what a customer earns by paying, and loses by being paid back, in a double-entry book.
//!
//! A payment has earned one point for each whole [`POINT_PRICE_UNITS`] of the money that is kept; whatever moves the money
//! moves the points in the same transaction, so the book never lags behind. `docs/PRICING.md` has the rules.

use holdfast_kernel::{Currency, Id, Timestamp, id};

use crate::domain::Taken;

/// Minor units of money that earn one point.
pub(crate) const POINT_PRICE_UNITS: i64 = 100;

/// What somebody has, in points of one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Balance {
    pub(crate) currency: Currency,
    pub(crate) points: i64,
}

/// A line of somebody's account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) payment: Id<id::Payment>,
    pub(crate) payment_version: i64,
    /// `earned` or `taken_back`.
    pub(crate) kind: String,
    pub(crate) purchase: String,
    pub(crate) currency: Currency,
    /// What was gained; negative when points were taken back.
    pub(crate) points: i64,
    pub(crate) created_at: Timestamp,
}

/// Points to be taken back, of which some may have been spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TakenBack {
    /// Those that are still there.
    pub(crate) from_person: i64,
    /// Those that are not.
    pub(crate) written_off: i64,
}

/// Points that a payment has earned of which so much was taken. Money that is promised back is not kept.
pub(crate) fn earned(taken: Taken) -> i64 {
    taken.left().max(0) / POINT_PRICE_UNITS
}

impl TakenBack {
    /// Takes `points` from somebody who has `balance`, which never falls below 0.
    pub(crate) fn of(points: i64, balance: i64) -> Self {
        let from_person = points.min(balance);
        Self {
            from_person,
            written_off: points - from_person,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of `docs/PRICING.md` under "Points", as far as money is concerned.
    #[test]
    fn points_are_earned_by_money_that_is_kept_and_taken_back_with_it() {
        let of = |captured, refunded| {
            earned(Taken {
                captured,
                refunded,
                refunding: 0,
            })
        };
        for (paid, points, money_back, taken) in
            [(1_050, 10, 525, 5), (700, 7, 350, 4), (0, 0, 0, 0)]
        {
            assert_eq!(of(paid, 0), points, "{paid}");
            assert_eq!(
                points - of(paid, money_back),
                taken,
                "{money_back} of {paid}"
            );
        }
        let promised = Taken {
            captured: 1_050,
            refunded: 500,
            refunding: 500,
        };
        assert_eq!(earned(promised), 0, "what is promised back is not kept");
    }

    #[test]
    fn what_was_spent_meanwhile_is_written_off_and_no_balance_falls_below_nothing() {
        for (points, balance, from_person, written_off) in
            [(5, 10, 5, 0), (5, 5, 5, 0), (5, 3, 3, 2), (5, 0, 0, 5)]
        {
            let taken = TakenBack::of(points, balance);
            let want = TakenBack {
                from_person,
                written_off,
            };
            assert_eq!(taken, want, "{points} of {balance}");
        }
    }
}
