//! How this service refuses.

use holdfast_kernel::{Currency, page::InvalidPage};
use holdfast_platform::fault::{Fault, FaultCode};
use serde_json::Value;
use tonic::Status;

/// A field of a request, or of an event, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// Everything that can go wrong here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EventsError {
    #[error("{}: {}", .0.name, .0.text)]
    Refused(Field),
    #[error("page: {0}")]
    Page(#[from] InvalidPage),
    #[error("tier {tier} is priced in {got}, its event in {wanted}")]
    CurrencyMixed {
        tier: String,
        got: Currency,
        wanted: Currency,
    },
    #[error("no such event")]
    UnknownEvent,
    #[error("the event is at version {actual}, not {expected}; read it again")]
    EventChanged { expected: i64, actual: i64 },
    #[error("the layout is at version {actual}, not {expected}; read it again")]
    LayoutChanged { expected: i64, actual: i64 },
    #[error(
        "{field}: the event was published, and what it sells and in which money stays as it was then"
    )]
    EventPublished { field: &'static str },
    #[error("the event was cancelled, and stays as it was then")]
    EventCancelled,
    #[error("the event lacks {} things to be published", .0.len())]
    EventIncomplete(Vec<Field>),
    #[error("this idempotency key made another event")]
    KeyReused,
    #[error("a row in the database cannot be read: {0}")]
    Unreadable(String),
    #[error(transparent)]
    Platform(#[from] Fault),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl From<EventsError> for Fault {
    fn from(error: EventsError) -> Self {
        let text = error.to_string();
        match error {
            EventsError::Refused(field) => Fault::invalid(field.name, field.text),
            EventsError::Page(_) => Fault::invalid("page", text),
            EventsError::CurrencyMixed { tier, .. } => {
                Fault::new(FaultCode::Invalid, "CURRENCY_MIXED", text).with("tier", tier)
            }
            EventsError::UnknownEvent => Fault::new(FaultCode::NotFound, "UNKNOWN_EVENT", text),
            EventsError::EventChanged { actual, .. } => {
                Fault::new(FaultCode::Conflict, "EVENT_CHANGED", text).with("version", actual)
            }
            EventsError::LayoutChanged { actual, .. } => {
                Fault::new(FaultCode::Conflict, "LAYOUT_CHANGED", text).with("version", actual)
            }
            EventsError::EventPublished { field } => {
                let fault = Fault::new(FaultCode::Conflict, "EVENT_PUBLISHED", text);
                fault.item([("field", Value::from(field))])
            }
            EventsError::EventCancelled => Fault::new(FaultCode::Conflict, "EVENT_CANCELLED", text),
            EventsError::EventIncomplete(lacking) => {
                let fault = Fault::new(FaultCode::Conflict, "EVENT_INCOMPLETE", text);
                lacking.into_iter().fold(fault, |fault, field| {
                    fault.item([
                        ("field", Value::from(field.name)),
                        ("message", Value::from(field.text)),
                    ])
                })
            }
            EventsError::KeyReused => {
                Fault::new(FaultCode::Invalid, "IDEMPOTENCY_KEY_REUSED", text)
            }
            EventsError::Unreadable(_) => Fault::internal(error),
            EventsError::Platform(fault) => fault,
            EventsError::Database(error) => Fault::from(error),
        }
    }
}

impl From<EventsError> for Status {
    fn from(error: EventsError) -> Self {
        Fault::from(error).into()
    }
}
