//! How this service refuses.

use holdfast_kernel::page::InvalidPage;
use holdfast_platform::{
    envelope::Unopened,
    fault::{Fault, FaultCode},
};
use serde_json::Value;
use tonic::Status;

use crate::{guard::Inside, url};

/// Everything that can go wrong here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebhooksError {
    #[error("{wanted}, got {got:?}")]
    FieldRefused {
        field: &'static str,
        got: String,
        wanted: &'static str,
    },
    #[error("{0}")]
    UrlRefused(#[from] url::Refused),
    #[error("{0}")]
    Inside(#[from] Inside),
    #[error("types: no message has the type {}, wanted types such as order.created or order.*", shown(.0))]
    UnknownTypes(Vec<(usize, String)>),
    #[error("no such webhook")]
    UnknownWebhook,
    #[error("no message of that id is kept that this webhook asks for")]
    UnknownMessage,
    #[error("there are {limit} webhooks, which is all there may be")]
    TooManyWebhooks { limit: u32 },
    #[error("the webhook is disabled, enable it first")]
    Disabled,
    #[error("more than {limit} messages, wanted a shorter span")]
    TooManyMessages { limit: i64 },
    #[error("messages after this place are not kept any more; begin again without `after`")]
    NotKept,
    #[error("this id was used for another request")]
    KeyReused,
    #[error("page: {0}")]
    Page(#[from] InvalidPage),
    #[error(transparent)]
    Unopened(#[from] Unopened),
    #[error("a row in the database cannot be read: {0}")]
    Unreadable(String),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("{0}")]
    Fault(#[from] Fault),
}

/// Longest part of a refused value that an error repeats, in characters.
const SHOWN_CHARS: usize = 64;

impl WebhooksError {
    /// A field that cannot be taken; what was got is repeated in short.
    pub(crate) fn field(field: &'static str, got: &str, wanted: &'static str) -> Self {
        Self::FieldRefused {
            field,
            got: got.chars().take(SHOWN_CHARS).collect(),
            wanted,
        }
    }
}

impl From<WebhooksError> for Fault {
    fn from(error: WebhooksError) -> Self {
        let text = error.to_string();
        match error {
            WebhooksError::FieldRefused { field, .. } => Fault::invalid(field, text),
            WebhooksError::UrlRefused(_) | WebhooksError::Inside(_) => Fault::invalid("url", text),
            WebhooksError::UnknownTypes(types) => types.into_iter().fold(
                Fault::new(FaultCode::Invalid, "UNKNOWN_MESSAGE_TYPE", text),
                |fault, (place, unknown)| {
                    let shown: String = unknown.chars().take(SHOWN_CHARS).collect();
                    fault.item([
                        ("field", Value::from(format!("types[{place}]"))),
                        ("type", Value::from(shown)),
                    ])
                },
            ),
            WebhooksError::UnknownWebhook => {
                Fault::new(FaultCode::NotFound, "UNKNOWN_WEBHOOK", text)
            }
            WebhooksError::UnknownMessage => {
                Fault::new(FaultCode::NotFound, "UNKNOWN_MESSAGE", text)
            }
            WebhooksError::TooManyWebhooks { limit } => {
                Fault::new(FaultCode::Conflict, "TOO_MANY_WEBHOOKS", text).with("limit", limit)
            }
            WebhooksError::Disabled => Fault::new(FaultCode::Conflict, "WEBHOOK_DISABLED", text),
            WebhooksError::TooManyMessages { limit } => {
                Fault::new(FaultCode::Invalid, "TOO_MANY_MESSAGES", text).with("limit", limit)
            }
            WebhooksError::NotKept => Fault::new(FaultCode::NotFound, "MESSAGES_NOT_KEPT", text),
            WebhooksError::KeyReused => Fault::new(FaultCode::Conflict, "REQUEST_MISMATCH", text),
            WebhooksError::Page(_) => Fault::invalid("page", text),
            WebhooksError::Unopened(_) | WebhooksError::Unreadable(_) => Fault::internal(error),
            WebhooksError::Database(error) => Fault::from(error),
            WebhooksError::Fault(fault) => fault,
        }
    }
}

impl From<WebhooksError> for Status {
    fn from(error: WebhooksError) -> Self {
        Fault::from(error).into()
    }
}

fn shown(types: &[(usize, String)]) -> String {
    let cut =
        |(_, unknown): &(usize, String)| unknown.chars().take(SHOWN_CHARS).collect::<String>();
    types.iter().map(cut).collect::<Vec<_>>().join(", ")
}
