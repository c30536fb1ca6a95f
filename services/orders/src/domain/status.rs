//! Where an order stands, and every move from there.

use std::fmt;

/// Where an order stands, as customers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "MOVES says what each is for")]
pub enum Status {
    Pending,
    AwaitingPayment,
    Paid,
    Confirmed,
    Shipped,
    Delivered,
    Cancelled,
    PaymentFailed,
    Expired,
    PartiallyRefunded,
    Refunded,
    NeedsAttention,
}

/// Every move there is: from, what happened, to. The machine makes no other, and the README's diagram is drawn from it.
///
/// Below the first blank line stand the moves of the truth that came late: money arrived for an order that was given up.
pub const MOVES: &[(Status, &str, Status)] = {
    use Status::{
        AwaitingPayment, Cancelled, Confirmed, Delivered, Expired, NeedsAttention, Paid,
        PartiallyRefunded, PaymentFailed, Pending, Refunded, Shipped,
    };
    &[
        (
            Pending,
            "customer or provider is waited for",
            AwaitingPayment,
        ),
        (Pending, "captured", Paid),
        (Pending, "payment refused", PaymentFailed),
        (Pending, "hold over", Expired),
        (Pending, "cancel", Cancelled),
        (AwaitingPayment, "captured", Paid),
        (AwaitingPayment, "payment refused", PaymentFailed),
        (AwaitingPayment, "hold over", Expired),
        (AwaitingPayment, "cancel", Cancelled),
        (Paid, "all done", Confirmed),
        (Paid, "units gone, money back", Refunded),
        (Confirmed, "ship", Shipped),
        (Shipped, "deliver", Delivered),
        (Confirmed, "cancel", Cancelled),
        (PartiallyRefunded, "cancel", Cancelled),
        (Cancelled, "some money back", Cancelled),
        (Cancelled, "all money back", Refunded),
        (Confirmed, "some money back", PartiallyRefunded),
        (Shipped, "some money back", PartiallyRefunded),
        (Delivered, "some money back", PartiallyRefunded),
        (PartiallyRefunded, "some money back", PartiallyRefunded),
        (PartiallyRefunded, "ship", Shipped),
        (PartiallyRefunded, "deliver", Delivered),
        (Confirmed, "all money back", Refunded),
        (Shipped, "all money back", Refunded),
        (Delivered, "all money back", Refunded),
        (PartiallyRefunded, "all money back", Refunded),
        (Expired, "paid late, units free", Confirmed),
        (Expired, "paid late, units gone, money back", Refunded),
        (PaymentFailed, "paid late, units free", Confirmed),
        (PaymentFailed, "paid late, units gone, money back", Refunded),
        (Pending, STUCK, NeedsAttention),
        (AwaitingPayment, STUCK, NeedsAttention),
        (Confirmed, STUCK, NeedsAttention),
        (Shipped, STUCK, NeedsAttention),
        (Delivered, STUCK, NeedsAttention),
        (PartiallyRefunded, STUCK, NeedsAttention),
        (Cancelled, STUCK, NeedsAttention),
        (Expired, STUCK, NeedsAttention),
        (PaymentFailed, STUCK, NeedsAttention),
        (NeedsAttention, "set going by people", NeedsAttention),
        (NeedsAttention, RESUMED, AwaitingPayment),
        (NeedsAttention, RESUMED, Paid),
        (NeedsAttention, RESUMED, Confirmed),
        (NeedsAttention, RESUMED, PaymentFailed),
        (NeedsAttention, RESUMED, Expired),
        (NeedsAttention, RESUMED, Cancelled),
        (NeedsAttention, RESUMED, PartiallyRefunded),
        (NeedsAttention, RESUMED, Refunded),
    ]
};

const STUCK: &str = "a step failed too often";

const RESUMED: &str = "resumed";

impl Status {
    /// Every status.
    pub const ALL: [Self; 12] = [
        Self::Pending,
        Self::AwaitingPayment,
        Self::Paid,
        Self::Confirmed,
        Self::Shipped,
        Self::Delivered,
        Self::Cancelled,
        Self::PaymentFailed,
        Self::Expired,
        Self::PartiallyRefunded,
        Self::Refunded,
        Self::NeedsAttention,
    ];

    /// The word that the API and the database use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::AwaitingPayment => "awaiting_payment",
            Self::Paid => "paid",
            Self::Confirmed => "confirmed",
            Self::Shipped => "shipped",
            Self::Delivered => "delivered",
            Self::Cancelled => "cancelled",
            Self::PaymentFailed => "payment_failed",
            Self::Expired => "expired",
            Self::PartiallyRefunded => "partially_refunded",
            Self::Refunded => "refunded",
            Self::NeedsAttention => "needs_attention",
        }
    }

    /// Reads what [`as_str`](Self::as_str) wrote.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether [`MOVES`] leads from here to there.
    pub fn may_become(self, to: Self) -> bool {
        MOVES
            .iter()
            .any(|(from, _, then)| *from == self && *then == to)
    }

    /// Whether the customer's money may be ours in this status.
    pub(crate) const fn is_paid(self) -> bool {
        matches!(
            self,
            Self::Paid
                | Self::Confirmed
                | Self::Shipped
                | Self::Delivered
                | Self::PartiallyRefunded
        )
    }

    /// Whether the purchase was given up. Only the truth that comes late moves it from here.
    pub(crate) const fn is_given_up(self) -> bool {
        matches!(self, Self::Cancelled | Self::PaymentFailed | Self::Expired)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_shows_the_machine_as_it_is() {
        let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
        holdfast_testkit::assert_states_drawn(readme, &Status::Pending, MOVES);
    }

    #[test]
    fn an_order_that_was_given_up_is_left_only_by_the_late_truth_or_by_getting_stuck() {
        for from in Status::ALL
            .into_iter()
            .filter(|status| status.is_given_up())
        {
            let leads: Vec<Status> = Status::ALL
                .into_iter()
                .filter(|to| *to != from && from.may_become(*to))
                .collect();
            let want: &[Status] = match from {
                Status::Cancelled => &[Status::Refunded, Status::NeedsAttention],
                _ => &[Status::Confirmed, Status::Refunded, Status::NeedsAttention],
            };
            assert_eq!(leads, want, "{from}");
        }
        assert!(
            !Status::ALL
                .into_iter()
                .any(|to| Status::Refunded.may_become(to))
        );
    }

    #[test]
    fn every_word_for_a_status_reads_back() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(status));
        }
        assert_eq!(Status::parse("lost"), None);
    }
}
