//! How this service refuses.

use holdfast_kernel::{PoolKey, Timestamp, page::InvalidPage};
use holdfast_platform::fault::{Fault, FaultCode};
use serde_json::Value;
use tonic::Status;

use crate::domain::{InvalidBasket, InvalidChanges, Refusal};

/// A field of a request and what is wrong with it.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// Everything that can go wrong here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InventoryError {
    #[error("{}: {}", .0.name, .0.text)]
    Invalid(Field),
    #[error("{0}")]
    Basket(#[from] InvalidBasket),
    #[error("{0}")]
    Changes(#[from] InvalidChanges),
    #[error("page: {0}")]
    Page(#[from] InvalidPage),
    #[error("pool {0} does not exist")]
    UnknownPool(PoolKey),
    #[error("movements before {0} are not kept any more")]
    NotKept(Timestamp),
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("a row in the database cannot be read: {0}")]
    Unreadable(String),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl From<InventoryError> for Fault {
    fn from(error: InventoryError) -> Self {
        let text = error.to_string();
        match error {
            InventoryError::Invalid(field) => Fault::invalid(field.name, field.text),
            InventoryError::Basket(InvalidBasket::Lines(count)) => {
                Fault::new(FaultCode::Invalid, "TOO_MANY_LINES", text).with("lines", count)
            }
            InventoryError::Basket(InvalidBasket::Units { .. } | InvalidBasket::Standing(_)) => {
                Fault::invalid("lines", text)
            }
            InventoryError::Basket(
                InvalidBasket::Groups(_)
                | InvalidBasket::StandingGroups(_)
                | InvalidBasket::Alternatives(_)
                | InvalidBasket::Named(_),
            ) => Fault::invalid("any_of", text),
            InventoryError::Basket(InvalidBasket::Makes(_) | InvalidBasket::Made { .. }) => {
                Fault::invalid("makes", text)
            }
            InventoryError::Changes(_) => Fault::invalid("changes", text),
            InventoryError::Page(_) => Fault::invalid("page", text),
            InventoryError::UnknownPool(pool) => unknown_pools(&[pool], text),
            InventoryError::NotKept(since) => {
                Fault::new(FaultCode::NotFound, "MOVEMENTS_NOT_KEPT", text)
                    .with("kept_since", since.to_string())
            }
            InventoryError::Refused(refusal) => refused(refusal, text),
            InventoryError::Unreadable(_) => Fault::internal(error),
            InventoryError::Database(error) => Fault::from(error),
        }
    }
}

impl From<InventoryError> for Status {
    fn from(error: InventoryError) -> Self {
        Fault::from(error).into()
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        InventoryError::from(refusal).into()
    }
}

fn refused(refusal: Refusal, text: String) -> Fault {
    let conflict = |reason| Fault::new(FaultCode::Conflict, reason, text.clone());
    match refusal {
        Refusal::InsufficientUnits(short) => {
            let fault = conflict("INSUFFICIENT_UNITS");
            short.into_iter().fold(fault, |fault, short| {
                let alternative = short
                    .of
                    .map(|of| [("any_of", of.group), ("alternative", of.place)]);
                let figures = [
                    ("pool", Value::from(short.pool.as_str())),
                    ("requested", Value::from(short.requested)),
                    ("available", Value::from(short.available)),
                ];
                let of = alternative.into_iter().flatten();
                fault.item(
                    figures
                        .into_iter()
                        .chain(of.map(|(name, number)| (name, Value::from(number)))),
                )
            })
        }
        Refusal::UnknownPools(pools) => unknown_pools(&pools, text),
        Refusal::UnknownHold(_) => Fault::new(FaultCode::NotFound, "UNKNOWN_HOLD", text),
        Refusal::HoldEnded { state, .. } => {
            conflict("HOLD_ENDED").with("state", format!("{state:?}").to_lowercase())
        }
        Refusal::HoldMismatch(_) => conflict("HOLD_MISMATCH"),
        Refusal::RequestMismatch(_) => conflict("REQUEST_MISMATCH"),
        Refusal::HoldCommitted(_) => conflict("HOLD_COMMITTED"),
        Refusal::HoldNotCommitted(_) => conflict("HOLD_NOT_COMMITTED"),
        Refusal::TooManyHolds { limit } => {
            Fault::new(FaultCode::Exhausted, "TOO_MANY_HOLDS", text).with("limit", limit)
        }
        Refusal::StaleEpoch { got, seen } => {
            conflict("STALE_EPOCH").with("got", got).with("seen", seen)
        }
        Refusal::ReturnExceedsSold {
            pool,
            requested,
            sold,
        } => conflict("RETURN_EXCEEDS_SOLD").item([
            ("pool", Value::from(pool.as_str())),
            ("requested", Value::from(requested)),
            ("sold", Value::from(sold)),
        ]),
        Refusal::CapacityChanged {
            pool,
            expected,
            actual,
        } => conflict("CAPACITY_CHANGED")
            .with("pool", pool)
            .with("expected", expected)
            .with("capacity_version", actual),
        Refusal::BelowCommitted {
            pool,
            capacity,
            overbook,
            held,
            sold,
            blocked,
        } => conflict("BELOW_COMMITTED")
            .with("pool", pool)
            .with("capacity", capacity)
            .with("overbook", overbook)
            .with("held", held)
            .with("sold", sold)
            .with("blocked", blocked),
        Refusal::CapacityOutOfBounds { .. } => Fault::invalid("changes", text),
        Refusal::PoolExists(pool) => conflict("POOL_EXISTS").with("pool", pool),
        Refusal::Full => Fault::new(FaultCode::Exhausted, "LEDGER_FULL", text),
        Refusal::Unavailable(_) => Fault::unavailable(text),
        Refusal::Defect => Fault::internal(refusal),
    }
}

fn unknown_pools(pools: &[PoolKey], text: String) -> Fault {
    let fault = Fault::new(FaultCode::NotFound, "UNKNOWN_POOL", text);
    pools.iter().fold(fault, |fault, pool| {
        fault.item([("pool", Value::from(pool.as_str()))])
    })
}
