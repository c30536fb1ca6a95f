//! What codes take off orders, for those who run the shop.

use axum::{
    Extension,
    extract::{Path, State},
};
use holdfast_platform::identity::Caller;
use holdfast_proto::orders::v1::{self as pb, create_voucher_request as new, voucher as told};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Answer, promised,
    shape::{Money, Page, Slice, instant, moment, optional_moment, paged},
};
use crate::{
    Gateway,
    decode::{Json, Query},
    error::GatewayError,
    idempotency::Keyed,
    precondition::Expected,
    problems::Problem,
    reply::Reply,
};

pub(super) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(list_vouchers, create_voucher))
        .routes(routes!(one_voucher, change_voucher))
}

/// Takes either `percent_off` or `amount_off`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewVoucher {
    /// 3 to 32 of A–Z 0–9 . _ -; lower-case letters count as capitals.
    #[schema(example = "SUMMER10", pattern = "^[A-Za-z0-9._-]{3,32}$")]
    code: String,
    /// Of the sum of the lines.
    #[schema(example = 10, minimum = 1, maximum = 100)]
    percent_off: Option<i32>,
    /// At most the sum of the lines.
    amount_off: Option<Money>,
    /// Of the orders it is for; left out: any, or that of its amounts.
    #[schema(pattern = "^[A-Z]{3}$")]
    currency: Option<String>,
    /// What the lines must come to before it.
    least_subtotal: Option<Money>,
    /// Valid from that moment on.
    #[schema(format = DateTime)]
    valid_from: Option<String>,
    /// Valid before that moment.
    #[schema(format = DateTime)]
    valid_until: Option<String>,
    /// How many orders may use it.
    #[schema(example = 100, minimum = 1, maximum = 1_000_000_000)]
    uses: i64,
}

/// What is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct VoucherChange {
    /// Valid before that moment.
    #[schema(format = DateTime)]
    valid_until: Option<String>,
    /// How many orders may use it, those included that did.
    #[schema(minimum = 0, maximum = 1_000_000_000)]
    uses: Option<i64>,
}

#[derive(Serialize, ToSchema)]
struct Voucher {
    #[schema(example = "SUMMER10")]
    code: String,
    /// Null where it takes an amount off.
    #[schema(example = 10)]
    percent_off: Option<i32>,
    /// Null where it takes a percentage off.
    amount_off: Option<Money>,
    /// Of the orders it is for; null: any.
    currency: Option<String>,
    /// What the lines must come to before it; null: nothing.
    least_subtotal: Option<Money>,
    /// Null: since ever.
    valid_from: Option<String>,
    /// Null: for ever.
    valid_until: Option<String>,
    /// How many orders may use it.
    #[schema(example = 100)]
    uses: i64,
    /// Uses of orders that were confirmed; a refund gives none back.
    #[schema(example = 12)]
    used: i64,
    /// Uses of orders under way.
    held: i64,
    created_at: String,
}

/// Lists vouchers by code.
#[utoipa::path(get, path = "/v1/vouchers", tag = "orders", params(Slice), responses((status = 200, body = Page<Voucher>)))]
async fn list_vouchers(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Query(slice): Query<Slice>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::ListVouchersRequest {
        page: Some(slice.request()?),
    });
    let mut orders = gateway.peers.orders.clone();
    let answer = orders.list_vouchers(request).await;
    let answer = answer.map_err(|refused| paged(&refused))?.into_inner();
    let vouchers = answer.vouchers.into_iter().map(voucher);
    let vouchers = vouchers.collect::<Result<_, _>>()?;
    Ok(Reply::ok(&Page::<Voucher>::new(vouchers, answer.page)))
}

/// Makes a voucher; what it takes off stays as it is then.
#[utoipa::path(post, path = "/v1/vouchers", tag = "orders", request_body = NewVoucher,
    params(("idempotency-key" = String, Header)), responses((status = 201, body = Voucher)))]
async fn create_voucher(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Keyed { body, once }: Keyed<NewVoucher>,
) -> Answer {
    let off = match (body.percent_off, body.amount_off) {
        (Some(percent), None) => new::Off::PercentOff(percent),
        (None, Some(amount)) => new::Off::AmountOff(amount.into()),
        (None, None) => return Err(refused("percent_off", "is missing, and amount_off too")),
        (Some(_), Some(_)) => {
            let text = "got it beside percent_off, wanted one of both";
            return Err(refused("amount_off", text));
        }
    };
    let request = caller.request(pb::CreateVoucherRequest {
        request_id: once.request_id.to_string(),
        fingerprint: once.fingerprint(),
        code: body.code,
        off: Some(off),
        currency: body.currency.unwrap_or_default(),
        least_subtotal: body.least_subtotal.map(Into::into),
        valid_from: instant("valid_from", body.valid_from.as_deref())?,
        valid_until: instant("valid_until", body.valid_until.as_deref())?,
        uses: body.uses,
    });
    let mut orders = gateway.peers.orders.clone();
    let effect = async move {
        let answer = orders.create_voucher(request).await?.into_inner();
        let made = promised(answer.voucher, "orders", "the voucher")?;
        let (version, location) = (made.version, format!("/v1/vouchers/{}", made.code));
        Ok(Reply::created(&voucher(made)?, &location).tagged(version))
    };
    gateway.replies.once(once, effect).await
}

/// Shows a voucher; its ETag moves when staff change it, not when it is used.
#[utoipa::path(get, path = "/v1/vouchers/{code}", tag = "orders", params(("code" = String, Path)),
    responses((status = 200, body = Voucher)))]
async fn one_voucher(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(code): Path<String>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::GetVoucherRequest { code });
    let answer = gateway.peers.orders.clone().get_voucher(request).await?;
    shown(answer.into_inner().voucher)
}

/// Ends a voucher earlier or later, or changes how often it can be used, if it is still as it was read.
#[utoipa::path(patch, path = "/v1/vouchers/{code}", tag = "orders", request_body = VoucherChange,
    params(("code" = String, Path), ("if-match" = String, Header, description = "the voucher's ETag")),
    responses((status = 200, body = Voucher)))]
async fn change_voucher(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(code): Path<String>,
    Expected(expected): Expected,
    Json(change): Json<VoucherChange>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::ChangeVoucherRequest {
        code,
        expected_version: expected,
        valid_until: instant("valid_until", change.valid_until.as_deref())?,
        uses: change.uses,
    });
    let answer = gateway.peers.orders.clone().change_voucher(request).await?;
    shown(answer.into_inner().voucher)
}

fn refused(field: &str, text: &str) -> Problem {
    let (field, text) = (field.to_owned(), text.to_owned());
    GatewayError::Field { field, text }.into()
}

fn shown(found: Option<pb::Voucher>) -> Result<Reply, Problem> {
    let found = promised(found, "orders", "the voucher")?;
    let version = found.version;
    Ok(Reply::ok(&voucher(found)?).tagged(version))
}

fn voucher(found: pb::Voucher) -> Result<Voucher, Problem> {
    let (percent_off, amount_off) = match promised(found.off, "orders", "what it takes off")? {
        told::Off::PercentOff(percent) => (Some(percent), None),
        told::Off::AmountOff(amount) => (None, Some(amount.into())),
    };
    Ok(Voucher {
        code: found.code,
        percent_off,
        amount_off,
        currency: (!found.currency.is_empty()).then_some(found.currency),
        least_subtotal: found.least_subtotal.map(Into::into),
        valid_from: optional_moment(found.valid_from.as_ref()),
        valid_until: optional_moment(found.valid_until.as_ref()),
        uses: found.uses,
        used: found.used,
        held: found.held,
        created_at: moment(found.created_at.as_ref(), "orders")?,
    })
}
