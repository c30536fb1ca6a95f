//! How this service refuses.

use holdfast_kernel::page::InvalidPage;
use holdfast_platform::{
    failpoint::Injected,
    fault::{Fault, FaultCode},
};
use tonic::Status;

/// Everything that can go wrong here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotificationsError {
    #[error("no such notification")]
    UnknownNotification,
    #[error("{0}")]
    Page(#[from] InvalidPage),
    #[error("a row in the database cannot be read: {0}")]
    Unreadable(String),
    #[error("a text cannot be written: {0}")]
    Text(#[from] minijinja::Error),
    #[error(transparent)]
    Peer(Box<Fault>),
    #[error(transparent)]
    Injected(#[from] Injected),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl From<Fault> for NotificationsError {
    fn from(fault: Fault) -> Self {
        Self::Peer(Box::new(fault))
    }
}

impl From<NotificationsError> for Fault {
    fn from(error: NotificationsError) -> Self {
        let text = error.to_string();
        match error {
            NotificationsError::UnknownNotification => {
                Fault::new(FaultCode::NotFound, "UNKNOWN_NOTIFICATION", text)
            }
            NotificationsError::Page(_) => Fault::invalid("page", text),
            NotificationsError::Unreadable(_) | NotificationsError::Text(_) => {
                Fault::internal(error)
            }
            NotificationsError::Peer(fault) => *fault,
            NotificationsError::Injected(_) => Fault::unavailable(error),
            NotificationsError::Database(error) => Fault::from(error),
        }
    }
}

impl From<NotificationsError> for Status {
    fn from(error: NotificationsError) -> Self {
        Fault::from(error).into()
    }
}
