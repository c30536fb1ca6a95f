//! How this service refuses.

use holdfast_kernel::page::PAGE_MAX_ENTRIES;
use holdfast_platform::{
    envelope::Unopened,
    fault::{Fault, FaultCode},
};
use tonic::Status;

use crate::domain::ADDRESSES_MAX;

/// Everything that can go wrong here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsersError {
    #[error("user_id: {got:?} is not a user's id")]
    UserIdRefused { got: String },
    #[error("name: {chars} characters, wanted 1 to 100 without control characters")]
    NameRefused { chars: usize },
    #[error("locale: got {got:?}, wanted a language that we write: en or ja")]
    LocaleRefused { got: String },
    #[error("user_ids: got {got}, wanted {PAGE_MAX_ENTRIES} or less")]
    TooManyUsers { got: usize },
    #[error("{field}: {chars} characters, wanted {least} to {most} without control characters")]
    PartRefused {
        field: &'static str,
        chars: usize,
        least: usize,
        most: usize,
    },
    #[error("country: got {got:?}, wanted a code of ISO 3166-1 such as \"JP\"")]
    CountryRefused { got: String },
    #[error("phone: wanted digits, spaces and + - ( ) .")]
    PhoneRefused,
    #[error("{field}: got {got}, wanted -{most} to {most}")]
    LocationRefused {
        field: &'static str,
        got: f64,
        most: f64,
    },
    #[error("{field}: is missing")]
    Missing { field: &'static str },
    #[error("request_id: wanted a UUID")]
    RequestIdRefused,
    #[error("{ADDRESSES_MAX} addresses are kept at most; remove one")]
    TooManyAddresses,
    #[error("no such address")]
    UnknownAddress,
    #[error("the address is at version {actual}, not {expected}; read it again")]
    AddressChanged { expected: i64, actual: i64 },
    #[error("this request id was used for another address")]
    RequestMismatch,
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
            UsersError::LocaleRefused { .. } => Fault::invalid("locale", text),
            UsersError::PartRefused { field, .. }
            | UsersError::LocationRefused { field, .. }
            | UsersError::Missing { field } => Fault::invalid(field, text),
            UsersError::CountryRefused { .. } => Fault::invalid("country", text),
            UsersError::PhoneRefused => Fault::invalid("phone", text),
            UsersError::RequestIdRefused => Fault::invalid("request_id", text),
            UsersError::TooManyAddresses => {
                Fault::new(FaultCode::Conflict, "TOO_MANY_ADDRESSES", text)
                    .with("limit", ADDRESSES_MAX)
            }
            UsersError::UnknownAddress => Fault::new(FaultCode::NotFound, "UNKNOWN_ADDRESS", text),
            UsersError::AddressChanged { actual, .. } => {
                Fault::new(FaultCode::Conflict, "ADDRESS_CHANGED", text).with("version", actual)
            }
            UsersError::RequestMismatch => {
                Fault::new(FaultCode::Conflict, "REQUEST_MISMATCH", text)
            }
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
