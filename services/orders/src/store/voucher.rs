//! Statements on vouchers.

use holdfast_kernel::{Currency, Id, Money, RequestId};
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    domain::voucher::{Code, Off, Terms, Voucher, Window},
    error::OrdersError,
};

/// What a voucher is read from.
macro_rules! vouchers {
    () => {
        "SELECT code, fingerprint, percent_off, amount_off, currency, least_subtotal, valid_from, valid_until, created_by, \
                created_at, version \
         FROM voucher"
    };
}

/// The request that makes a voucher, and its fingerprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Maker {
    pub(crate) request: RequestId,
    pub(crate) fingerprint: Vec<u8>,
}

/// Writes a new voucher; `false`, and nothing is written, when its code or its request has one.
pub(crate) async fn insert_voucher(
    db: &mut PgConnection,
    voucher: &Voucher,
    maker: &Maker,
) -> Result<bool, OrdersError> {
    let Terms {
        off,
        currency,
        least_subtotal,
        window,
    } = &voucher.terms;
    let (percent, amount) = match off {
        Off::Percent(percent) => (Some(*percent), None),
        Off::Amount(amount) => (None, Some(amount.amount)),
    };
    let done = sqlx::query(
        "INSERT INTO voucher (code, request_id, fingerprint, percent_off, amount_off, currency, least_subtotal,
                              valid_from, valid_until, created_by, created_at, version)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
         ON CONFLICT DO NOTHING",
    )
    .bind(voucher.code.as_str())
    .bind(maker.request.uuid())
    .bind(&maker.fingerprint)
    .bind(percent)
    .bind(amount)
    .bind(currency.as_ref().map(Currency::code))
    .bind(least_subtotal.map(|least| least.amount))
    .bind(window.from.map(ToSqlx::to_sqlx))
    .bind(window.until.map(ToSqlx::to_sqlx))
    .bind(voucher.created_by.uuid())
    .bind(voucher.created_at.to_sqlx())
    .bind(voucher.version)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The voucher that this request made, with its fingerprint, if it made one.
pub(crate) async fn find_made_voucher(
    db: &mut PgConnection,
    request: RequestId,
) -> Result<Option<(Voucher, Vec<u8>)>, OrdersError> {
    let row: Option<VoucherRow> = sqlx::query_as(concat!(vouchers!(), " WHERE request_id = $1"))
        .bind(request.uuid())
        .fetch_optional(db)
        .await?;
    row.map(|row| {
        let fingerprint = row.fingerprint.clone();
        Ok((row.read()?, fingerprint))
    })
    .transpose()
}

/// The voucher of that code.
pub(crate) async fn find_voucher(
    db: &mut PgConnection,
    code: &Code,
) -> Result<Option<Voucher>, OrdersError> {
    let row: Option<VoucherRow> = sqlx::query_as(concat!(vouchers!(), " WHERE code = $1"))
        .bind(code.as_str())
        .fetch_optional(db)
        .await?;
    row.map(VoucherRow::read).transpose()
}

/// Vouchers with codes behind that one, by code.
pub(crate) async fn list_vouchers(
    db: &mut PgConnection,
    after: &str,
    limit: i64,
) -> Result<Vec<Voucher>, OrdersError> {
    let rows: Vec<VoucherRow> = sqlx::query_as(concat!(
        vouchers!(),
        " WHERE code > $1 ORDER BY code LIMIT $2"
    ))
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(VoucherRow::read).collect()
}

/// Writes what may change of a voucher if it still is at the version before; `false`, and nothing is written, when not.
pub(crate) async fn save_voucher(
    db: &mut PgConnection,
    voucher: &Voucher,
    version_before: i64,
) -> Result<bool, OrdersError> {
    let done = sqlx::query(
        "UPDATE voucher SET valid_until = $3, version = $4 WHERE code = $1 AND version = $2",
    )
    .bind(voucher.code.as_str())
    .bind(version_before)
    .bind(voucher.terms.window.until.map(ToSqlx::to_sqlx))
    .bind(voucher.version)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes out a voucher that this request made, and whose uses the ledger refused; `false` when there is none.
pub(crate) async fn delete_refused_voucher(
    db: &mut PgConnection,
    request: RequestId,
) -> Result<bool, OrdersError> {
    let done = sqlx::query("DELETE FROM voucher WHERE request_id = $1 AND version = 1")
        .bind(request.uuid())
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

#[derive(sqlx::FromRow)]
struct VoucherRow {
    code: String,
    fingerprint: Vec<u8>,
    percent_off: Option<i64>,
    amount_off: Option<i64>,
    currency: Option<String>,
    least_subtotal: Option<i64>,
    valid_from: Option<jiff_sqlx::Timestamp>,
    valid_until: Option<jiff_sqlx::Timestamp>,
    created_by: Uuid,
    created_at: jiff_sqlx::Timestamp,
    version: i64,
}

impl VoucherRow {
    fn read(self) -> Result<Voucher, OrdersError> {
        let broken =
            |column: &str| OrdersError::Unreadable(format!("voucher.{column} of {}", self.code));
        let currency: Option<Currency> = match &self.currency {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| broken("currency"))?),
        };
        let money = |amount: i64| Some(Money::new(amount, currency?));
        let off = match (self.percent_off, self.amount_off) {
            (Some(percent), None) => Off::Percent(percent),
            (None, Some(amount)) => Off::Amount(money(amount).ok_or_else(|| broken("amount_off"))?),
            _ => return Err(broken("percent_off")),
        };
        Ok(Voucher {
            code: self.code.parse().map_err(|_| broken("code"))?,
            terms: Terms {
                off,
                currency,
                least_subtotal: self.least_subtotal.and_then(money),
                window: Window {
                    from: self.valid_from.map(Into::into),
                    until: self.valid_until.map(Into::into),
                },
            },
            created_by: Id::new(self.created_by),
            created_at: self.created_at.into(),
            version: self.version,
        })
    }
}
