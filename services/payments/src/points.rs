//! Points: what a customer earns by paying, and loses by being paid back, in a double-entry book.
//!
//! A payment has earned one point for each whole so many units of the money that is kept, and a point pays one unit;
//! whatever moves the money moves the points in the same transaction, so the book never lags behind. `docs/PRICING.md` has
//! the rules.

use holdfast_kernel::{Currency, Id, Timestamp, id};

use crate::domain::Taken;

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
    /// `earned`, `taken_back`, `used` or `given_back`.
    pub(crate) kind: String,
    pub(crate) purchase: String,
    pub(crate) currency: Currency,
    /// What was gained; negative when points were used or taken back.
    pub(crate) points: i64,
    pub(crate) created_at: Timestamp,
}

/// What became of somebody's account, as it is told to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) user: Id<id::User>,
    pub(crate) currency: Currency,
    /// Rises by one with every change of the account.
    pub(crate) version: i64,
    pub(crate) balance: i64,
    /// What was gained; negative when points were used or taken back.
    pub(crate) delta: i64,
    /// As an entry's kind.
    pub(crate) reason: String,
    pub(crate) payment: Id<id::Payment>,
    pub(crate) purchase: String,
    pub(crate) changed_at: Timestamp,
}

/// Points that a purchase uses, of which some may be back with their owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Used {
    pub(crate) all: i64,
    pub(crate) back: i64,
}

/// Where those are that a purchase uses, or what a move changes about that; what no account here has, its owner has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Lying {
    /// Set aside while the payment is under way.
    pub(crate) held: i64,
    /// Paid with.
    pub(crate) spent: i64,
}

/// Points to be taken back, of which some may have been spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TakenBack {
    /// Those that are still there.
    pub(crate) from_person: i64,
    /// Those that are not.
    pub(crate) written_off: i64,
}

/// Points that a payment has earned of which so much was taken, one for each whole `units_per_point` (1 or more) that are
/// kept. Money that is promised back is not kept.
pub(crate) fn earned(taken: Taken, units_per_point: i64) -> i64 {
    taken.left().max(0) / units_per_point
}

impl Used {
    /// Those that their owner has not back.
    pub(crate) fn out(self) -> i64 {
        self.all - self.back
    }

    /// With so many more given back; `None` when so many are not out.
    pub(crate) fn giving_back(self, points: i64) -> Option<Self> {
        (points <= self.out()).then_some(Self {
            back: self.back + points,
            ..self
        })
    }

    /// With all given back.
    pub(crate) fn given_back(self) -> Self {
        Self {
            back: self.all,
            ..self
        }
    }
}

impl Lying {
    /// What has to move so that points that lie as `before` lie like this.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            held: self.held - before.held,
            spent: self.spent - before.spent,
        }
    }

    /// What the owner gains where this moves.
    pub(crate) fn to_owner(self) -> i64 {
        -(self.held + self.spent)
    }
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
            let taken = Taken {
                captured,
                refunded,
                refunding: 0,
            };
            earned(taken, 100)
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
        assert_eq!(
            earned(promised, 100),
            0,
            "what is promised back is not kept"
        );
        assert_eq!(earned(promised, 25), 2, "at another rate");
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
