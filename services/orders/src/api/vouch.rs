//! Vouchers, for staff: what a wish for one must be, and how one is told.

use holdfast_kernel::{Currency, Id, Money, Timestamp, id, time::to_micros};
use holdfast_platform::wire;
use holdfast_proto::{
    money::v1 as money_pb,
    orders::v1::{self as pb, create_voucher_request as new, voucher as told},
};

use crate::{
    api::{encode_money, parse_fingerprint, parse_request_id},
    domain::voucher::{Code, Edition, Off, Terms, USES_MAX_UNITS, Voucher, Window},
    error::OrdersError,
    store::Maker,
    vouchers::{NewVoucher, Standing, VoucherChange},
};

const FIRST_VERSION: i64 = 1;

pub(super) fn parse_new(
    request: pb::CreateVoucherRequest,
    by: Id<id::User>,
    now: Timestamp,
) -> Result<NewVoucher, OrdersError> {
    let off = match request.off {
        Some(new::Off::PercentOff(percent)) => Off::Percent(percent.into()),
        Some(new::Off::AmountOff(amount)) => Off::Amount(parse_money("amount_off", &amount)?),
        None => {
            let text = "missing, wanted it or an amount_off";
            return Err(OrdersError::field("percent_off", text));
        }
    };
    let currency = match request.currency.as_str() {
        "" => None,
        text => Some(parse_currency("currency", text)?),
    };
    let least_subtotal = match &request.least_subtotal {
        Some(amount) => Some(parse_money("least_subtotal", amount)?),
        None => None,
    };
    let window = Window {
        from: moment(request.valid_from),
        until: moment(request.valid_until),
    };
    Ok(NewVoucher {
        maker: Maker {
            request: parse_request_id(&request.request_id)?,
            fingerprint: parse_fingerprint(&request.fingerprint)?,
        },
        voucher: Voucher {
            code: (request.code.parse())
                .map_err(|error| OrdersError::field("code", format!("{error}")))?,
            terms: Terms::new(off, currency, least_subtotal, window)?,
            created_by: by,
            created_at: now,
            version: FIRST_VERSION,
        },
        uses: parse_uses(request.uses, 1)?,
    })
}

pub(super) fn parse_change(
    request: &pb::ChangeVoucherRequest,
    by: Id<id::User>,
    now: Timestamp,
) -> Result<VoucherChange, OrdersError> {
    Ok(VoucherChange {
        code: parse_named(&request.code)?,
        expected: Edition::from_number(request.expected_version),
        valid_until: moment(request.valid_until),
        uses: match request.uses {
            Some(uses) => Some(parse_uses(uses, 0)?),
            None => None,
        },
        by,
        at: now,
    })
}

/// The code of a voucher that shall be there; what is no code is nobody's.
pub(super) fn parse_named(text: &str) -> Result<Code, OrdersError> {
    text.parse().map_err(|_| OrdersError::UnknownVoucher)
}

pub(super) fn encode((voucher, uses): Standing) -> pb::Voucher {
    let edition = voucher.edition(uses);
    let Voucher {
        code,
        terms,
        created_at,
        ..
    } = voucher;
    pb::Voucher {
        code: code.to_string(),
        off: Some(match terms.off {
            // Bounded by 100 when it was made.
            Off::Percent(percent) => told::Off::PercentOff(percent as i32),
            Off::Amount(amount) => told::Off::AmountOff(encode_money(amount)),
        }),
        currency: (terms.currency).map_or_else(String::new, |currency| currency.to_string()),
        least_subtotal: terms.least_subtotal.map(encode_money),
        valid_from: terms.window.from.map(wire::timestamp),
        valid_until: terms.window.until.map(wire::timestamp),
        uses: uses.total,
        used: uses.used,
        held: uses.held,
        created_at: Some(wire::timestamp(created_at)),
        version: edition.number(),
    }
}

fn parse_uses(uses: i64, least: i64) -> Result<i64, OrdersError> {
    if (least..=USES_MAX_UNITS).contains(&uses) {
        return Ok(uses);
    }
    Err(OrdersError::field(
        "uses",
        format!("{uses}, wanted {least} to {USES_MAX_UNITS}"),
    ))
}

fn parse_money(field: &str, money: &money_pb::Money) -> Result<Money, OrdersError> {
    let currency = parse_currency(&format!("{field}.currency"), &money.currency)?;
    Ok(Money::new(money.amount, currency))
}

fn parse_currency(field: &str, text: &str) -> Result<Currency, OrdersError> {
    (text.parse()).map_err(|error| OrdersError::field(field, format!("{error}")))
}

/// As the database keeps it.
fn moment(timestamp: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    wire::moment(timestamp.as_ref()).map(to_micros)
}
