//! What is available of each variant, as the ledger last told: shown, never sold by.
//!
//! The ledger announces how its pools stand, and what it says is kept here, so that showing a product asks nobody. Who
//! puts something in stock keeps the ledger's answer at once and so reads what they wrote; announcements that are older
//! change nothing. Only what was in the ledger before anybody listened here is asked for.

use std::{collections::HashMap, time::Duration};

use holdfast_platform::{database, fault::Fault, service::Context};
use holdfast_proto::inventory::v1 as ledger;

use crate::{
    Peers,
    error::CatalogError,
    store::{self, Level},
};

/// Pools asked for in one call.
const ASKED_MAX_POOLS: i64 = 500;
/// After a ledger that does not answer.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// What keys of pools of goods begin with.
const POOL_PREFIX: &str = "sku:";

/// Keeps what the ledger answered about the pools of some of these skus, which were just changed, and asks it about the
/// others, as far as it has not told of them.
pub(crate) async fn take_over(
    skus: &[&str],
    pools: &[ledger::Pool],
    peers: &Peers,
    context: &Context,
) -> Result<(), CatalogError> {
    let levels: Vec<Level> = pools.iter().filter_map(level).collect();
    let is_told = |sku: &str| levels.iter().any(|level| level.sku == sku);
    let others: Vec<&str> = (skus.iter().copied()).filter(|sku| !is_told(sku)).collect();
    if !levels.is_empty() {
        let mut db = database::acquire(&context.database).await?;
        store::note_stock(&mut db, &levels).await?;
    }
    if others.is_empty() {
        return Ok(());
    }
    ask_for_missing(&others, peers, context).await
}

async fn ask_for_missing(
    skus: &[&str],
    peers: &Peers,
    context: &Context,
) -> Result<(), CatalogError> {
    let mut db = database::acquire(&context.database).await?;
    let known = store::available(&mut db, skus).await?;
    drop(db);
    let missing = skus.iter().filter(|sku| !known.contains_key(**sku));
    let missing: Vec<String> = missing.map(|sku| (*sku).to_owned()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    ask(missing, peers, context).await
}

/// Asks about everything for sale that the ledger has not told of, until there is nothing left to ask about, then waits
/// for shutdown.
pub(crate) async fn ask_for_all_missing(peers: Peers, context: Context) {
    loop {
        match ask_for_some(&peers, &context).await {
            Ok(true) => continue,
            // Those who come from now on ask for themselves.
            Ok(false) => return context.shutdown.cancelled().await,
            Err(error) => tracing::warn!(%error, "the ledger could not be asked what is available"),
        }
        tokio::select! {
            () = tokio::time::sleep(ASK_AGAIN) => {}
            () = context.shutdown.cancelled() => return,
        }
    }
}

async fn ask_for_some(peers: &Peers, context: &Context) -> Result<bool, CatalogError> {
    let mut db = database::acquire(&context.database).await?;
    let missing = store::skus_without_stock(&mut db, ASKED_MAX_POOLS).await?;
    drop(db);
    if missing.is_empty() || context.shutdown.is_cancelled() {
        return Ok(false);
    }
    ask(missing, peers, context).await?;
    Ok(true)
}

async fn ask(skus: Vec<String>, peers: &Peers, context: &Context) -> Result<(), CatalogError> {
    let keys = skus.iter().map(|sku| format!("{POOL_PREFIX}{sku}"));
    let request = ledger::GetPoolsRequest {
        keys: keys.collect(),
        at: None,
    };
    let answer = peers
        .inventory
        .clone()
        .get_pools(context.identity.request(request))
        .await
        .map_err(|status| Fault::from_status(&status))?;
    // Of what it does not know there is nothing, until it says otherwise.
    let mut levels: HashMap<String, Level> = (skus.into_iter())
        .map(|sku| {
            let none = Level {
                sku: sku.clone(),
                available: 0,
                version: 0,
            };
            (sku, none)
        })
        .collect();
    for level in answer.into_inner().pools.iter().filter_map(level) {
        levels.insert(level.sku.clone(), level);
    }
    let levels: Vec<Level> = levels.into_values().collect();
    let mut db = database::acquire(&context.database).await?;
    Ok(store::note_stock(&mut db, &levels).await?)
}

/// None for what is no pool of goods.
fn level(pool: &ledger::Pool) -> Option<Level> {
    Some(Level {
        sku: sku_of(&pool.key)?.to_owned(),
        available: pool.available,
        version: pool.version,
    })
}

/// The sku whose units a pool holds; none for seats, nights and all else.
pub(crate) fn sku_of(pool: &str) -> Option<&str> {
    pool.strip_prefix(POOL_PREFIX)
}
