//! How this service refuses.

use std::time::Duration;

use holdfast_kernel::page::InvalidPage;
use holdfast_platform::{
    envelope::Unopened,
    failpoint::Injected,
    fault::{Fault, FaultCode},
    identity::InvalidRole,
};
use tonic::Status;

use crate::password::{PASSWORD_MAX_BYTES, RETRY_AFTER_SECS};

/// Everything that can go wrong here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthError {
    #[error("{why}, wanted an address such as ada@example.com")]
    EmailRefused { why: &'static str },
    #[error("{bytes} bytes, wanted {PASSWORD_MAX_BYTES} or less")]
    PasswordTooLong { bytes: usize },
    #[error("password: {why}")]
    WeakPassword { why: String },
    #[error("an account with this e-mail exists")]
    EmailTaken,
    #[error("e-mail or password is wrong")]
    InvalidCredentials,
    #[error("the refresh token is not valid, log in")]
    RefreshInvalid,
    #[error("the refresh token was used before; its session is ended, log in")]
    RefreshReused,
    #[error("no such user")]
    UnknownUser,
    #[error("user_id: {got:?} is not a user's id")]
    UserIdRefused { got: String },
    #[error(transparent)]
    RoleRefused(#[from] InvalidRole),
    #[error("this is your own account; let another admin do that")]
    OwnAccount,
    #[error("this is the account of the machine's owner; nobody changes it")]
    OwnersAccount,
    #[error(transparent)]
    Page(#[from] InvalidPage),
    #[error("no such session")]
    UnknownSession,
    #[error("session_id: {got:?} is not a session's id")]
    SessionIdRefused { got: String },
    #[error("current: is not the password of this account")]
    WrongPassword,
    #[error("too many wrong passwords, wait {} s", .wait.as_secs().max(1))]
    Guessing { wait: Duration },
    #[error("too many logins at once, ask again")]
    Busy,
    #[error("users did not take the profile: {0}")]
    Profile(Fault),
    #[error("{0} accounts, wanted fewer")]
    TooManyAccounts(u32),
    #[error("a row in the database cannot be read: {0}")]
    Unreadable(String),
    #[error("a password could not be hashed: {0}")]
    Hash(String),
    #[error("an access token could not be signed: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
    #[error(transparent)]
    Unopened(#[from] Unopened),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Injected(#[from] Injected),
    #[error(transparent)]
    Platform(#[from] Fault),
}

impl From<AuthError> for Fault {
    fn from(error: AuthError) -> Self {
        let text = error.to_string();
        match error {
            AuthError::EmailRefused { .. } => Fault::invalid("email", text),
            AuthError::PasswordTooLong { .. } => Fault::invalid("password", text),
            AuthError::WeakPassword { why } => {
                Fault::new(FaultCode::Invalid, "WEAK_PASSWORD", text)
                    .item([("field", "password".into()), ("message", why.into())])
            }
            AuthError::EmailTaken => Fault::new(FaultCode::Conflict, "EMAIL_TAKEN", text),
            AuthError::InvalidCredentials => {
                Fault::new(FaultCode::Unauthenticated, "INVALID_CREDENTIALS", text)
            }
            AuthError::RefreshInvalid => {
                Fault::new(FaultCode::Unauthenticated, "REFRESH_INVALID", text)
            }
            AuthError::RefreshReused => {
                Fault::new(FaultCode::Unauthenticated, "REFRESH_REUSED", text)
            }
            AuthError::UnknownUser => Fault::new(FaultCode::NotFound, "UNKNOWN_USER", text),
            AuthError::UserIdRefused { .. } => Fault::invalid("user_id", text),
            AuthError::RoleRefused(_) => Fault::invalid("role", text),
            AuthError::OwnAccount => Fault::new(FaultCode::Conflict, "OWN_ACCOUNT", text),
            AuthError::OwnersAccount => Fault::new(FaultCode::Conflict, "OWNERS_ACCOUNT", text),
            AuthError::Page(_) => Fault::invalid("page", text),
            AuthError::UnknownSession => Fault::new(FaultCode::NotFound, "UNKNOWN_SESSION", text),
            AuthError::SessionIdRefused { .. } => Fault::invalid("session_id", text),
            AuthError::WrongPassword => Fault::new(FaultCode::Invalid, "WRONG_PASSWORD", text)
                .item([("field", "current".into())]),
            AuthError::Guessing { wait } => {
                Fault::new(FaultCode::Exhausted, "TOO_MANY_REQUESTS", text).retry_after(wait)
            }
            AuthError::Busy => Fault::new(FaultCode::Exhausted, "BUSY", text)
                .retry_after(Duration::from_secs(RETRY_AFTER_SECS)),
            AuthError::Profile(fault) => match fault.code() {
                // What the caller sent, or time: theirs to know.
                FaultCode::Invalid | FaultCode::Unavailable | FaultCode::Exhausted => fault,
                FaultCode::NotFound
                | FaultCode::Conflict
                | FaultCode::Unauthenticated
                | FaultCode::Forbidden
                | FaultCode::Internal => Fault::internal(fault),
            },
            AuthError::TooManyAccounts(_) => Fault::invalid("count", text),
            AuthError::Unreadable(_)
            | AuthError::Hash(_)
            | AuthError::Sign(_)
            | AuthError::Unopened(_) => Fault::internal(error),
            AuthError::Database(error) => Fault::from(error),
            AuthError::Injected(_) => Fault::unavailable(error),
            AuthError::Platform(fault) => fault,
        }
    }
}

impl From<AuthError> for Status {
    fn from(error: AuthError) -> Self {
        Fault::from(error).into()
    }
}
