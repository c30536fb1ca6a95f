//! Fills a running server with a shop to look at.

use std::process::ExitCode;

use holdfast_platform::settings::Settings;

use super::{import, token};
use crate::{
    client::{Client, ClientError},
    products::{ImportError, ProductFile},
};

const SHOP: &[u8] = include_bytes!("../../seed/shop.csv");

#[expect(clippy::print_stdout, reason = "what was done is the command's answer")]
pub(crate) async fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    let admin = token::admin_client(settings).await?;
    let count = seed(&admin).await?;
    println!("{count} products are for sale");
    Ok(ExitCode::SUCCESS)
}

/// Puts the shop up, or completes it; says how many products it has. A shop that was put up by other requests, as earlier
/// versions of the program did, stays as it is.
pub(crate) async fn seed(admin: &Client) -> anyhow::Result<usize> {
    let shop = ProductFile::read(SHOP)?;
    match import::import(&shop, admin).await {
        Err(refused) if is_there(&refused) => {}
        put_up => put_up?,
    }
    Ok(shop.len())
}

fn is_there(refused: &anyhow::Error) -> bool {
    let refused = refused.downcast_ref::<ImportError>();
    matches!(refused, Some(ImportError::Batch { source: ClientError::Refused(problem), .. }) if problem.code == "sku_taken")
}
