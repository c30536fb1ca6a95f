//! Closes months of movements, and lets them go.
//!
//! A month is dropped only when all that it proved was proved once more and what it came to stands under a seal: each
//! pool's book is audited from where it begins to where the pool stands, and its balance at the end of the month is
//! sealed as its closing. From then on the book begins there.
//!
//! Holds stay, so what was bought can be given back however long ago; and no month is dropped in which a hold that may
//! still live was born.

use holdfast_kernel::Timestamp;
use jiff::{Span, tz::TimeZone};
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use crate::{
    audit,
    seal::seal_closing,
    store::{self, Closing},
};

/// Pools looked at in one statement.
const SLICE_POOLS: i64 = 1_000;

/// Drops the movements of all whole months but the last `months` before the one of `now`; the names of what was dropped.
///
/// Fails, and drops nothing, when a book that would lose movements is not sound.
pub async fn drop_months(
    db: &mut PgConnection,
    seal_key: &[u8; 32],
    now: Timestamp,
    months: u32,
) -> Result<Vec<String>, sqlx::Error> {
    // A hold that may be live was born in a month that stays.
    let live_since = store::live_since(db).await?;
    let cut = month_of(now, months).min(month_of(live_since, 0));
    if !store::has_months_before(db, cut).await? {
        return Ok(Vec::new());
    }
    let mut after = 0;
    while let Some((last, pools)) = store::unclosed_pools(db, after, SLICE_POOLS, cut).await? {
        after = last;
        for (pool, version) in pools {
            if !close(db, seal_key, pool, version, cut).await? {
                tracing::error!(pool, "no month is dropped: the pool's book is not sound");
                return Ok(Vec::new());
            }
        }
    }
    store::drop_movement_months(db, cut).await
}

/// Seals what a pool's book has come to at `version`, its last before `until`; false when the book is not sound.
async fn close(
    db: &mut PgConnection,
    seal_key: &[u8; 32],
    pool: i32,
    version: i64,
    until: Timestamp,
) -> Result<bool, sqlx::Error> {
    let Some(proved) = audit::prove_book(db, seal_key, pool, version).await? else {
        return Ok(false);
    };
    let at = store::database_now(db).await?;
    let mut closing = Closing {
        pool,
        until: until.to_sqlx(),
        version,
        head: proved.head.to_vec(),
        capacity: proved.balance.capacity,
        held: proved.balance.held,
        sold: proved.balance.sold,
        overbook: proved.balance.overbook,
        at: at.to_sqlx(),
        seal: Vec::new(),
    };
    closing.seal = seal_closing(seal_key, &proved.key, &closing).to_vec();
    store::insert_closing(db, &closing).await?;
    Ok(true)
}

/// The beginning of the month that lies so many before the one of `moment`, UTC.
fn month_of(moment: Timestamp, back: u32) -> Timestamp {
    let month = moment.to_zoned(TimeZone::UTC).date().first_of_month();
    let month = Span::new()
        .try_months(i64::from(back))
        .and_then(|back| month.checked_sub(back));
    month
        .and_then(|first| first.to_zoned(TimeZone::UTC))
        .map_or(Timestamp::MIN, |zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(text: &str) -> Timestamp {
        text.parse().expect("a moment")
    }

    #[test]
    fn months_are_whole_and_those_of_utc() {
        let now = moment("2027-02-28T23:59:59.999999Z");
        assert_eq!(month_of(now, 0), moment("2027-02-01T00:00:00Z"));
        assert_eq!(month_of(now, 1), moment("2027-01-01T00:00:00Z"));
        assert_eq!(month_of(now, 14), moment("2025-12-01T00:00:00Z"));
        assert_eq!(
            month_of(moment("2027-03-01T00:00:00Z"), 0),
            moment("2027-03-01T00:00:00Z")
        );
        assert_eq!(month_of(now, u32::MAX), Timestamp::MIN);
    }
}
