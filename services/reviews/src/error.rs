//! How this service refuses.

use holdfast_kernel::{Id, id, page::InvalidPage};
use holdfast_platform::fault::{Fault, FaultCode};
use tonic::Status;

/// Everything that can go wrong here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReviewsError {
    #[error("wanted a UUID")]
    RequestIdRefused,
    #[error("got {got}, wanted 1 to 5")]
    RatingRefused { got: i32 },
    #[error(
        "{chars} characters, wanted {least} to {most}, not blanks alone, and no control characters"
    )]
    TextRefused {
        field: &'static str,
        chars: usize,
        least: usize,
        most: usize,
    },
    #[error("{got:?} is neither publish nor remove")]
    DecisionRefused { got: String },
    #[error("page: {0}")]
    Page(#[from] InvalidPage),
    #[error("no such product")]
    UnknownProduct,
    #[error("no such review")]
    UnknownReview,
    #[error("this product was not delivered to this account; what was, can be reviewed")]
    NotABuyer,
    #[error("this account has reviewed this product; change that review")]
    AlreadyReviewed { review: Id<id::Review> },
    #[error("the review is at version {actual}, not {expected}; read it again")]
    ReviewChanged { expected: i64, actual: i64 },
    #[error("the review was removed by staff; it can be changed and not taken back")]
    ReviewRemoved,
    #[error("this idempotency key wrote another review")]
    KeyReused,
    #[error("a row in the database cannot be read: {0}")]
    Unreadable(String),
    #[error(transparent)]
    Platform(#[from] Fault),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl From<ReviewsError> for Fault {
    fn from(error: ReviewsError) -> Self {
        let text = error.to_string();
        match error {
            ReviewsError::RequestIdRefused => Fault::invalid("request_id", text),
            ReviewsError::RatingRefused { .. } => Fault::invalid("rating", text),
            ReviewsError::TextRefused { field, .. } => Fault::invalid(field, text),
            ReviewsError::DecisionRefused { .. } => Fault::invalid("decision", text),
            ReviewsError::Page(_) => Fault::invalid("page", text),
            ReviewsError::UnknownProduct => {
                Fault::new(FaultCode::NotFound, "UNKNOWN_PRODUCT", text)
            }
            ReviewsError::UnknownReview => Fault::new(FaultCode::NotFound, "UNKNOWN_REVIEW", text),
            ReviewsError::NotABuyer => Fault::new(FaultCode::Forbidden, "NOT_A_BUYER", text),
            ReviewsError::AlreadyReviewed { review } => {
                Fault::new(FaultCode::Conflict, "ALREADY_REVIEWED", text).with("review_id", review)
            }
            ReviewsError::ReviewChanged { actual, .. } => {
                Fault::new(FaultCode::Conflict, "REVIEW_CHANGED", text).with("version", actual)
            }
            ReviewsError::ReviewRemoved => Fault::new(FaultCode::Conflict, "REVIEW_REMOVED", text),
            ReviewsError::KeyReused => {
                Fault::new(FaultCode::Invalid, "IDEMPOTENCY_KEY_REUSED", text)
            }
            ReviewsError::Unreadable(_) => Fault::internal(error),
            ReviewsError::Platform(fault) => fault,
            ReviewsError::Database(error) => Fault::from(error),
        }
    }
}

impl From<ReviewsError> for Status {
    fn from(error: ReviewsError) -> Self {
        Fault::from(error).into()
    }
}
