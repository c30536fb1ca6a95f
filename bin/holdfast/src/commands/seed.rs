//! Fills a running server with a shop to look at.

use std::process::ExitCode;

use holdfast_platform::settings::Settings;

use super::{import, token};
use crate::{client::Client, products::ProductFile};

const SHOP: &[u8] = include_bytes!("../../seed/shop.csv");

#[expect(clippy::print_stdout, reason = "what was done is the command's answer")]
pub(crate) async fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    let admin = token::admin_client(settings).await?;
    let count = seed(&admin).await?;
    println!("{count} products are for sale");
    Ok(ExitCode::SUCCESS)
}

/// Puts the shop up, or completes it; says how many products it has.
pub(crate) async fn seed(admin: &Client) -> anyhow::Result<usize> {
    let shop = ProductFile::read(SHOP)?;
    import::import(&shop, admin).await?;
    Ok(shop.len())
}
