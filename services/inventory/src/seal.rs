//! Checkpoints: the heads of chains under a seal that only the installation's secret can make.
//!
//! A chain shows that nothing in its middle was changed, but whoever cuts off its tail and sets the pool back leaves a
//! shorter chain that is just as sound. A sealed head further on gives him away.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use holdfast_kernel::Timestamp;
use holdfast_platform::service::Context;
use sha2::Sha256;

use crate::{
    closing::drop_months,
    ledger::Reading,
    store::{self, Checkpoint, Closing},
};

/// What the key is derived for from the installation's secret.
pub const SEAL_PURPOSE: &str = "ledger checkpoint";
/// How often heads are sealed.
const SEAL_INTERVAL_SECS: u64 = 60 * 60;
/// Pools sealed in one transaction.
const SEAL_MAX_POOLS: i64 = 1_000;

/// The seal of a pool's head.
pub(crate) fn seal(
    key: &[u8; 32],
    pool: &str,
    version: i64,
    head: &[u8],
    at: Timestamp,
) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(&(pool.len() as u64).to_be_bytes());
    mac.update(pool.as_bytes());
    mac.update(&version.to_be_bytes());
    mac.update(head);
    mac.update(&at.as_microsecond().to_be_bytes());
    mac.finalize().into_bytes().into()
}

/// The seal of a pool's closing. Never equal to one of a head: that begins with a short length, this with a word.
pub(crate) fn seal_closing(key: &[u8; 32], pool: &str, closing: &Closing) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(b"closing ");
    mac.update(&(pool.len() as u64).to_be_bytes());
    mac.update(pool.as_bytes());
    mac.update(
        &Timestamp::from(closing.until)
            .as_microsecond()
            .to_be_bytes(),
    );
    mac.update(&closing.head);
    for number in [
        closing.version,
        closing.capacity,
        closing.held,
        closing.sold,
        closing.overbook,
    ] {
        mac.update(&number.to_be_bytes());
    }
    mac.update(&Timestamp::from(closing.at).as_microsecond().to_be_bytes());
    mac.finalize().into_bytes().into()
}

/// How long movements are kept, and by which clock.
pub(crate) struct Keeping {
    /// Whole months beside the running one; 0: for ever.
    pub(crate) months: u32,
    pub(crate) reading: Reading,
}

/// Seals what has moved, and lets go of months that are kept no longer, once an hour until shutdown. Several processes
/// doing so do no harm.
pub(crate) async fn keep_sealing(context: Context, keeping: Keeping) {
    let key = context.secrets.key(SEAL_PURPOSE);
    let mut hour = tokio::time::interval(Duration::from_secs(SEAL_INTERVAL_SECS));
    loop {
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            _ = hour.tick() => {}
        }
        let sealed = async {
            let mut db = context.database.acquire().await?;
            seal_heads(&mut db, &key).await
        };
        match sealed.await {
            Ok(pools) => tracing::debug!(pools, "sealed the heads of pools that moved"),
            Err(error) => tracing::warn!(%error, "cannot seal the heads of pools"),
        }
        if keeping.months == 0 {
            continue;
        }
        let dropped = async {
            let mut db = context.database.acquire().await?;
            let now = (keeping.reading)(store::database_now(&mut db).await?);
            drop_months(&mut db, &key, now, keeping.months).await
        };
        match dropped.await {
            Ok(months) if months.is_empty() => {}
            Ok(months) => {
                tracing::info!(?months, "dropped months of movements behind their closings");
            }
            Err(error) => tracing::warn!(%error, "cannot drop months of movements"),
        }
    }
}

/// Seals the head of every pool that has moved since it was sealed last; how many those were.
pub async fn seal_heads(db: &mut sqlx::PgConnection, key: &[u8; 32]) -> Result<usize, sqlx::Error> {
    let mut sealed = 0;
    let mut after = 0;
    loop {
        let mut heads = store::unsealed_heads(db, after, SEAL_MAX_POOLS).await?;
        let Some(last) = heads.last() else {
            store::raise_birth_floor(db).await?;
            return Ok(sealed);
        };
        after = last.pool;
        sealed += heads.len();
        for Checkpoint {
            key: pool,
            version,
            head,
            at,
            seal: made,
            ..
        } in &mut heads
        {
            *made = seal(key, pool, *version, head, Timestamp::from(*at)).to_vec();
        }
        store::insert_checkpoints(db, &heads).await?;
    }
}
