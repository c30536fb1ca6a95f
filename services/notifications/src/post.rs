//! Hands letters over: into a folder, or to a mail server.

mod folder;
mod smtp;

pub(crate) use self::{folder::Folder, smtp::Smtp};

use crate::letter::Letter;

/// Takes letters. The same letter may be handed over twice, and is then one that comes twice, or none.
#[tonic::async_trait]
pub(crate) trait Post: Send + Sync + 'static {
    /// Hands one over; when it returns the letter is somebody else's to deliver.
    async fn deliver(&self, letter: &Letter) -> Result<(), Undelivered>;
}

/// Why a letter was not taken. The notes are for people and hold no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Undelivered {
    /// There is no such address.
    #[error("{0}: no such address")]
    NoSuchAddress(String),
    /// This letter will not be taken however often it is tried.
    #[error("{0}: refused for good")]
    Refused(String),
    /// It may be taken later.
    #[error("{0}")]
    Later(String),
}
