//! How this service refuses.

use holdfast_kernel::page::PAGE_MAX_ENTRIES;
use holdfast_platform::{
    envelope::Unopened,
    fault::{Fault, FaultCode},
};
use tonic::Status;

/// Everything that can go wrong here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsersError {
    #[error("user_id: {got:?} is not a user's id")]
    UserIdRefused { got: String },
    #[error("name: {chars} characters, wanted 1 to 100 without control characters")]
    NameRefused { chars: usize },
    #[error("user_ids: got {got}, wanted {PAGE_MAX_ENTRIES} or less")]
    TooManyUsers { got: usize },
    #[error("no such user")]
    UnknownUser,
    #[error("the profile is at version {actual}, not {expected}; read it again")]
    ProfileChanged { expected: i64, actual: i64 },
    #[error("a profile in the database cannot be read: {0}")]
    Unreadable(String),
    #[error(transparent)]
    Unopened(#[from] Unopened),
    #[error(transparent)]
    Platform(#[from] Fault),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl From<UsersError> for Fault {
    fn from(error: UsersError) -> Self {
        let text = error.to_string();
        match error {
            UsersError::UserIdRefused { .. } => Fault::invalid("user_id", text),
            UsersError::TooManyUsers { .. } => Fault::invalid("user_ids", text),
            UsersError::NameRefused { .. } => Fault::invalid("name", text),
            UsersError::UnknownUser => Fault::new(FaultCode::NotFound, "UNKNOWN_USER", text),
            UsersError::ProfileChanged { actual, .. } => {
                Fault::new(FaultCode::Conflict, "PROFILE_CHANGED", text).with("version", actual)
            }
            UsersError::Unreadable(_) | UsersError::Unopened(_) => Fault::internal(error),
            UsersError::Platform(fault) => fault,
            UsersError::Database(error) => Fault::from(error),
        }
    }
}

impl From<UsersError> for Status {
    fn from(error: UsersError) -> Self {
        Fault::from(error).into()
    }
}
