//! Each resource once, from the client's bytes to the service's message and back.

mod accounts;
mod catalog;
mod inventory;
mod notifications;
mod orders;
mod payments;
mod reviews;
mod vouchers;

use holdfast_proto::money::v1::Money;

const AT: Option<prost_types::Timestamp> = Some(prost_types::Timestamp {
    seconds: 1_795_000_000,
    nanos: 0,
});

const AT_TEXT: &str = "2026-11-18T11:06:40Z";

fn yen(amount: i64) -> Money {
    Money {
        amount,
        currency: "JPY".to_owned(),
    }
}
