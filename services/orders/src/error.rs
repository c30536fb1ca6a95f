//! How this service refuses.

use holdfast_kernel::{Id, Money, Sku, id, money::MoneyError, page::InvalidPage};
use holdfast_platform::{
    failpoint::Injected,
    fault::{Fault, FaultCode},
};
use serde_json::Value;
use tonic::Status as GrpcStatus;

use crate::domain::{
    Status,
    voucher::{Code, Edition, NotValid},
};

/// A SKU of which there is less than was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Short {
    pub(crate) sku: Sku,
    pub(crate) requested: i64,
    pub(crate) available: i64,
}

/// Fewer points than an order was to be paid with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PointsShort {
    pub(crate) asked: i64,
    pub(crate) available: i64,
}

/// Everything that can go wrong here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrdersError {
    #[error("{name}: {text}")]
    Field { name: String, text: String },
    #[error("page: {0}")]
    Page(#[from] InvalidPage),
    #[error("{} of the skus are not for sale", .0.len())]
    UnknownSku(Vec<Sku>),
    #[error("{} of the skus asked for are short", .0.len())]
    OutOfStock(Vec<Short>),
    #[error("the items are priced in several currencies: {0}")]
    CurrencyMixed(MoneyError),
    #[error("the order's total is too large")]
    TooExpensive,
    #[error("no such user")]
    UnknownUser,
    #[error("no such order")]
    UnknownOrder,
    #[error("the payment of {order} was declined")]
    PaymentDeclined {
        order: Id<id::Order>,
        /// Of what there was too little, if it was points.
        short: Option<PointsShort>,
    },
    #[error("an order that is {from} cannot become {to}")]
    InvalidTransition { from: Status, to: Status },
    #[error(
        "an order that is {from} cannot be resumed, only one that is {}",
        Status::NeedsAttention
    )]
    NotStuck { from: Status },
    #[error("this idempotency key was used for another request")]
    KeyReused,
    #[error("the order has no item {0}")]
    UnknownItem(Sku),
    #[error("{requested} of {sku} cannot come back, {left} are left")]
    ReturnExceedsBought { sku: Sku, requested: i64, left: i64 },
    #[error("{requested} cannot be given back, {left} is left")]
    RefundExceedsCaptured { requested: Money, left: Money },
    #[error("{0} is no voucher")]
    VoucherUnknown(Code),
    #[error("voucher {0} is not valid: {1}")]
    VoucherNotValid(Code, NotValid),
    #[error("voucher {0} is used up")]
    VoucherUsedUp(Code),
    #[error("there is no such voucher")]
    UnknownVoucher,
    #[error("there is a voucher {0} already")]
    VoucherExists(Code),
    #[error("the voucher has changed since it was read")]
    VoucherChanged { stands: Edition },
    #[error("a row in the database cannot be read: {0}")]
    Unreadable(String),
    #[error("a peer answered what it must not: {0}")]
    Nonsense(String),
    #[error("a turn panicked: {0}")]
    Panicked(String),
    #[error(transparent)]
    Peer(Box<Fault>),
    #[error(transparent)]
    Injected(#[from] Injected),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl OrdersError {
    /// A field of the request that cannot be taken.
    pub(crate) fn field(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self::Field {
            name: name.into(),
            text: text.into(),
        }
    }
}

impl From<GrpcStatus> for OrdersError {
    fn from(status: GrpcStatus) -> Self {
        Fault::from_status(&status).into()
    }
}

impl From<Fault> for OrdersError {
    fn from(fault: Fault) -> Self {
        Self::Peer(Box::new(fault))
    }
}

impl From<MoneyError> for OrdersError {
    fn from(error: MoneyError) -> Self {
        match error {
            MoneyError::CurrencyMixed(..) => Self::CurrencyMixed(error),
            MoneyError::TooLarge => Self::TooExpensive,
            MoneyError::NotACurrency(_) | MoneyError::NotAnAmount { .. } => {
                Self::field("amount", error.to_string())
            }
        }
    }
}

impl From<OrdersError> for Fault {
    fn from(error: OrdersError) -> Self {
        use FaultCode::{Conflict, Invalid, NotFound};
        let text = error.to_string();
        match error {
            OrdersError::Field { name, text } => Fault::invalid(name, text),
            OrdersError::Page(_) => Fault::invalid("page", text),
            OrdersError::UnknownSku(skus) => {
                let fault = Fault::new(Invalid, "UNKNOWN_SKU", text);
                skus.into_iter().fold(fault, |fault, sku| {
                    fault.item([("sku", Value::from(sku.as_str()))])
                })
            }
            OrdersError::OutOfStock(shorts) => {
                let fault = Fault::new(Conflict, "OUT_OF_STOCK", text);
                shorts.into_iter().fold(fault, |fault, short| {
                    fault.item([
                        ("sku", Value::from(short.sku.as_str())),
                        ("requested", Value::from(short.requested)),
                        ("available", Value::from(short.available)),
                    ])
                })
            }
            OrdersError::CurrencyMixed(_) => Fault::new(Invalid, "CURRENCY_MIXED", text),
            OrdersError::TooExpensive => Fault::invalid("items", text),
            OrdersError::UnknownUser => Fault::new(NotFound, "UNKNOWN_USER", text),
            OrdersError::UnknownOrder => Fault::new(NotFound, "UNKNOWN_ORDER", text),
            OrdersError::PaymentDeclined { order, short } => {
                let fault = Fault::new(Conflict, "PAYMENT_DECLINED", text).with("order_id", order);
                match short {
                    None => fault,
                    Some(PointsShort { asked, available }) => fault.item([
                        ("field", Value::from("points")),
                        ("code", Value::from("insufficient_points")),
                        (
                            "message",
                            Value::from("there are not so many points any more"),
                        ),
                        ("asked", Value::from(asked)),
                        ("available", Value::from(available)),
                    ]),
                }
            }
            OrdersError::InvalidTransition { from, to } => {
                Fault::new(Conflict, "INVALID_TRANSITION", text)
                    .with("from", from)
                    .with("to", to)
            }
            OrdersError::NotStuck { from } => Fault::new(Conflict, "INVALID_TRANSITION", text)
                .with("from", from)
                .with("to", "resumed"),
            OrdersError::KeyReused => Fault::new(Invalid, "IDEMPOTENCY_KEY_REUSED", text),
            OrdersError::UnknownItem(sku) => {
                Fault::new(Invalid, "UNKNOWN_ITEM", text).item([("sku", Value::from(sku.as_str()))])
            }
            OrdersError::ReturnExceedsBought {
                sku,
                requested,
                left,
            } => Fault::new(Conflict, "REFUND_EXCEEDS_CAPTURED", text).item([
                ("sku", Value::from(sku.as_str())),
                ("requested", Value::from(requested)),
                ("left", Value::from(left)),
            ]),
            OrdersError::RefundExceedsCaptured { requested, left } => {
                Fault::new(Conflict, "REFUND_EXCEEDS_CAPTURED", text)
                    .with("requested", requested.amount)
                    .with("left", left.amount)
                    .with("currency", left.currency)
            }
            OrdersError::VoucherUnknown(_) => {
                Fault::new(Invalid, "VOUCHER_UNKNOWN", text.clone()).item(voucher_item(text))
            }
            OrdersError::VoucherNotValid(_, why) => {
                let figures = figures_of(why).into_iter();
                Fault::new(Invalid, "VOUCHER_NOT_VALID", text)
                    .item(voucher_item(why.to_string()).into_iter().chain(figures))
            }
            OrdersError::VoucherUsedUp(_) => {
                Fault::new(Conflict, "VOUCHER_USED_UP", text.clone()).item(voucher_item(text))
            }
            OrdersError::UnknownVoucher => Fault::new(NotFound, "UNKNOWN_VOUCHER", text),
            OrdersError::VoucherExists(_) => Fault::new(Conflict, "VOUCHER_EXISTS", text).item([
                ("field", Value::from("code")),
                ("message", Value::from("taken")),
            ]),
            OrdersError::VoucherChanged { stands } => {
                Fault::new(Conflict, "VOUCHER_CHANGED", text).with("version", stands.number())
            }
            OrdersError::Unreadable(_) | OrdersError::Nonsense(_) | OrdersError::Panicked(_) => {
                Fault::internal(error)
            }
            OrdersError::Peer(fault) => *fault,
            OrdersError::Injected(_) => Fault::unavailable(error),
            OrdersError::Database(error) => Fault::from(error),
        }
    }
}

fn voucher_item(message: String) -> [(&'static str, Value); 2] {
    [
        ("field", Value::from("voucher")),
        ("message", Value::from(message)),
    ]
}

fn figures_of(why: NotValid) -> Vec<(&'static str, Value)> {
    match why {
        NotValid::NotYet { from, .. } => vec![("valid_from", Value::from(from.to_string()))],
        NotValid::Over { until, .. } => vec![("valid_until", Value::from(until.to_string()))],
        NotValid::Currency { got, wanted } => vec![
            ("got", Value::from(got.code())),
            ("wanted", Value::from(wanted.code())),
        ],
        NotValid::TooLittle { got, wanted } => vec![
            ("got", Value::from(got.amount)),
            ("wanted", Value::from(wanted.amount)),
            ("currency", Value::from(wanted.currency.code())),
        ],
    }
}

impl From<OrdersError> for GrpcStatus {
    fn from(error: OrdersError) -> Self {
        Fault::from(error).into()
    }
}
