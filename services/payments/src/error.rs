//! How this service refuses.

use holdfast_kernel::page::InvalidPage;
use holdfast_platform::{
    failpoint::Injected,
    fault::{Fault, FaultCode},
};
use tonic::Status;

use crate::domain::{self, Illegal};

/// Everything that can go wrong here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PaymentsError {
    #[error("{wanted}, got {got:?}")]
    FieldRefused {
        field: &'static str,
        got: String,
        wanted: &'static str,
    },
    #[error("holds what looks like a card number, which is never taken; give the provider's token")]
    CardNumber { field: &'static str },
    #[error("the payment method is none that can be charged")]
    MethodInvalid,
    #[error("no such payment")]
    UnknownPayment,
    #[error("{0}")]
    Illegal(#[from] Illegal),
    #[error("points: {asked}, available are {available}")]
    PointsShort { asked: i64, available: i64 },
    #[error("epoch {got} of {saga} was replaced by {seen}")]
    StaleEpoch { saga: String, got: i64, seen: i64 },
    #[error("the payment of {saga} was voided before it was begun")]
    StepUndone { saga: String },
    #[error("this id was used for another request")]
    KeyReused,
    #[error("page: {0}")]
    Page(#[from] InvalidPage),
    #[error("{0}")]
    Provider(#[from] crate::provider::Unknown),
    #[error("the provider's book says {said} of a payment of {ours}")]
    AmountDiffers { said: String, ours: String },
    #[error("payment {0} kept changing while the provider was asked about it")]
    Restless(String),
    #[error("a row in the database cannot be read: {0}")]
    Unreadable(String),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("{0}")]
    Fault(#[from] Fault),
    #[error(transparent)]
    Injected(#[from] Injected),
}

impl PaymentsError {
    /// A field that cannot be taken; what was got is repeated in short, unless it may be a card number.
    pub(crate) fn field(field: &'static str, got: &str, wanted: &'static str) -> Self {
        if domain::holds_card_number(got) {
            return Self::CardNumber { field };
        }
        Self::FieldRefused {
            field,
            got: got.chars().take(SHOWN_CHARS).collect(),
            wanted,
        }
    }
}

/// Longest part of a refused text that an error repeats, in characters.
const SHOWN_CHARS: usize = 64;

impl From<PaymentsError> for Fault {
    fn from(error: PaymentsError) -> Self {
        let text = error.to_string();
        let conflict = |reason| Fault::new(FaultCode::Conflict, reason, text.clone());
        match error {
            PaymentsError::FieldRefused { field, .. } | PaymentsError::CardNumber { field } => {
                Fault::invalid(field, text)
            }
            PaymentsError::MethodInvalid => {
                Fault::new(FaultCode::Invalid, "PAYMENT_METHOD_INVALID", text)
            }
            PaymentsError::UnknownPayment => {
                Fault::new(FaultCode::NotFound, "UNKNOWN_PAYMENT", text)
            }
            PaymentsError::Illegal(illegal) => match illegal {
                Illegal::Move { from, what } => conflict("INVALID_TRANSITION")
                    .with("from", from.public())
                    .with("what", what),
                Illegal::RefundExceedsCaptured {
                    asked,
                    captured,
                    refunded,
                } => conflict("REFUND_EXCEEDS_CAPTURED")
                    .with("asked", asked)
                    .with("captured", captured)
                    .with("refunded", refunded),
                Illegal::RefundExceedsPoints { asked, left } => conflict("REFUND_EXCEEDS_CAPTURED")
                    .with("asked", asked)
                    .with("left", left),
                Illegal::RefundAmount(_) | Illegal::Money(_) => Fault::invalid("amount", text),
                Illegal::Contradiction { .. } => Fault::internal(text),
            },
            PaymentsError::PointsShort { asked, available } => conflict("INSUFFICIENT_POINTS")
                .with("asked", asked)
                .with("available", available),
            PaymentsError::StaleEpoch { seen, .. } => conflict("STALE_EPOCH").with("epoch", seen),
            PaymentsError::StepUndone { .. } => conflict("STEP_UNDONE"),
            PaymentsError::KeyReused => conflict("IDEMPOTENCY_KEY_REUSED"),
            PaymentsError::Page(_) => Fault::invalid("page", text),
            PaymentsError::Provider(error) => Fault::unavailable(error),
            PaymentsError::Restless(_) => Fault::unavailable(text),
            PaymentsError::AmountDiffers { .. } | PaymentsError::Unreadable(_) => {
                Fault::internal(text)
            }
            PaymentsError::Database(error) => Fault::from(error),
            PaymentsError::Fault(fault) => fault,
            PaymentsError::Injected(injected) => Fault::unavailable(injected),
        }
    }
}

impl From<PaymentsError> for Status {
    fn from(error: PaymentsError) -> Self {
        Fault::from(error).into()
    }
}
