//! Waiting for what another process does: on a condition, with a bound, never for a time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// How often a condition is looked at.
const LOOK_AGAIN_MILLIS: u64 = 20;

/// Looks until `condition` gives something, at most for `limit`; `what` says what was waited for.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        if let Some(found) = condition().await.with_context(|| what.to_owned())? {
            return Ok(found);
        }
        if started.elapsed() > limit {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(LOOK_AGAIN_MILLIS)).await;
    }
}
