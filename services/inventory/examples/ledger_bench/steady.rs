//! A long run as a shop has it: everything is written, folded into messages, and carried to the log all the while.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use holdfast_inventory::Settings;
use holdfast_kernel::Timestamp;
use holdfast_platform::{
    database, embedded_log::EmbeddedLog, outbox::Wake, relay::Relay, wakeup::Wakeups,
};
use holdfast_testkit::{FakeClock, Realm};
use tokio_util::sync::CancellationToken;

use crate::{
    buying::{self, Habit},
    drive::{Run, Span},
    ground::{Field, Ground},
    load::Load,
    till::Way,
};

const RELAY_CONNECTIONS: u32 = 4;

/// One long run at so many callers, and messages that were carried meanwhile.
pub(crate) async fn run(
    ground: &mut Ground,
    callers: usize,
    span: Span,
) -> anyhow::Result<(Run, i64)> {
    let field = buying::stocked(ground, Load::Zipf).await?;
    let ending = CancellationToken::new();
    let relay = tokio::spawn(relay(&field).await?.run(ending.clone()));
    let run = buying::run_on(
        &field,
        ground.postmaster,
        Way::GroupCommit,
        Load::Zipf,
        Habit::Reserve,
        callers,
        span,
    )
    .await;
    ending.cancel();
    relay.await.context("the relay panicked")?;
    let carried = field.carried().await?;
    ensure!(carried > 0, "the relay carried nothing");
    Ok((run?, carried))
}

/// The inventory's relay with its fold, as the binary puts them together.
async fn relay(field: &Field) -> anyhow::Result<Relay> {
    let pool = database::connect(&field.url("inventory_app"), RELAY_CONNECTIONS).await?;
    let settings = Settings {
        database_url: field.url("inventory_app"),
        owner_database_url: String::new(),
        reached_at: String::new(),
        max_connections: RELAY_CONNECTIONS,
        lease_secs: Duration::from_secs(4).as_secs(),
        account_max_holds: u32::MAX,
        live_max_holds: usize::MAX,
        keep_movement_months: 0,
    };
    // Only the fold is taken of this service: its door and its writer never run.
    let context =
        Realm::new(FakeClock::new(Timestamp::UNIX_EPOCH)).context("inventory", pool.clone());
    let service = holdfast_inventory::build(&settings, Arc::new(|time| time), context)?;
    let log = database::connect(&field.url("bus_app"), RELAY_CONNECTIONS).await?;
    let bus = Arc::new(EmbeddedLog::new(log, Wakeups::default()));
    let fold = service.fold.context("the ledger folds")?;
    Ok(Relay::new("inventory", pool, bus, Wake::default()).folding(fold))
}
