//! Shapes that several resources share: money, moments, pages.

use std::collections::BTreeMap;

use holdfast_kernel::{Timestamp, page};
use holdfast_platform::{fault::Fault, wire};
use holdfast_proto::{money::v1 as money_pb, page::v1 as page_pb};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::promised;
use crate::{error::GatewayError, problems::Problem};

/// An amount in the minor unit of its currency: 1250 JPY is 1,250 yen, 1250 GBP is 12.50 pounds.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Money {
    #[schema(example = 1250)]
    pub(super) amount: i64,
    /// ISO 4217.
    #[schema(example = "JPY", pattern = "^[A-Z]{3}$")]
    pub(super) currency: String,
}

impl From<money_pb::Money> for Money {
    fn from(money: money_pb::Money) -> Self {
        Self {
            amount: money.amount,
            currency: money.currency,
        }
    }
}

impl From<Money> for money_pb::Money {
    fn from(money: Money) -> Self {
        Self {
            amount: money.amount,
            currency: money.currency,
        }
    }
}

/// Names and values of a variant's options, sorted by name.
pub(super) type Options = BTreeMap<String, String>;

/// Which slice of a list is asked for.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Slice {
    /// 1 to 100; 20 when left out.
    limit: Option<i32>,
    /// `next_cursor` of the slice before.
    cursor: Option<String>,
}

/// A slice of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page<T> {
    pub(super) data: Vec<T>,
    /// Asks for what follows; null when nothing does.
    pub(super) next_cursor: Option<String>,
    pub(super) has_more: bool,
}

impl Slice {
    pub(super) fn new(limit: Option<i32>, cursor: Option<String>) -> Self {
        Self { limit, cursor }
    }

    /// The slice as services are asked for it.
    pub(super) fn request(self) -> Result<page_pb::PageRequest, GatewayError> {
        let size = self.limit.unwrap_or(page::PAGE_DEFAULT_ENTRIES);
        if !(1..=page::PAGE_MAX_ENTRIES).contains(&size) {
            return Err(GatewayError::Field {
                field: "limit".to_owned(),
                text: format!("got {size}, wanted 1 to {}", page::PAGE_MAX_ENTRIES),
            });
        }
        Ok(page_pb::PageRequest {
            size,
            token: self.cursor.unwrap_or_default(),
        })
    }
}

impl<T> Page<T> {
    /// The entries a service gave, and what follows them.
    pub(super) fn new(data: Vec<T>, info: Option<page_pb::PageInfo>) -> Self {
        let next = info.map_or_else(String::new, |info| info.next_token);
        Self {
            data,
            has_more: !next.is_empty(),
            next_cursor: (!next.is_empty()).then_some(next),
        }
    }
}

/// RFC 3339 in UTC.
pub(super) fn moment(
    timestamp: Option<&prost_types::Timestamp>,
    peer: &'static str,
) -> Result<String, Problem> {
    promised(optional_moment(timestamp), peer, "a time stamp")
}

/// RFC 3339 in UTC, of what need not have come about.
pub(super) fn optional_moment(timestamp: Option<&prost_types::Timestamp>) -> Option<String> {
    wire::moment(timestamp).map(|moment| moment.to_string())
}

/// What a peer left empty because there is none.
pub(super) fn told(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// The moment that a client names, where it names one.
pub(super) fn instant(
    field: &str,
    text: Option<&str>,
) -> Result<Option<prost_types::Timestamp>, GatewayError> {
    let moment = text.map(str::parse).transpose();
    let moment: Option<Timestamp> = moment.map_err(|_| GatewayError::Field {
        field: field.to_owned(),
        text: "wanted a moment such as 2026-12-01T10:00:00Z".to_owned(),
    })?;
    Ok(moment.map(wire::timestamp))
}

/// `requires_action` of `PAYMENT_STATUS_REQUIRES_ACTION`.
pub(super) fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix)
        .unwrap_or(name)
        .to_ascii_lowercase()
}

/// A service's refusal of a page, in the words of this door: what is a page's token there is a cursor here.
pub(super) fn paged(refused: &tonic::Status) -> Problem {
    paged_by("cursor", refused)
}

/// The same where the place to go on from has this name.
pub(super) fn paged_by(field: &str, refused: &tonic::Status) -> Problem {
    let fault = Fault::from_status(refused);
    let is_page = |item: &serde_json::Value| item["field"] == "page";
    if fault.items().iter().any(is_page) {
        return GatewayError::Field {
            field: field.to_owned(),
            text: "wanted the next_cursor of the slice before".to_owned(),
        }
        .into();
    }
    fault.into()
}
