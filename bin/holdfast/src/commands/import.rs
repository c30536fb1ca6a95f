//! Writes products from a file into the server that runs on this machine.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use holdfast_platform::settings::Settings;
use indicatif::{ProgressBar, ProgressStyle};

use super::token;
use crate::{client::Client, products::ProductFile};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// sku,product,name,description,category,options,price,currency,stock,image
    Products {
        /// CSV file
        file: PathBuf,
    },
}

#[expect(clippy::print_stdout, reason = "what was done is the command's answer")]
pub(crate) async fn run(settings: &Settings, args: Args) -> anyhow::Result<ExitCode> {
    let What::Products { file } = args.what;
    let content = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
    let products = ProductFile::read(&content).with_context(|| file.display().to_string())?;
    let admin = token::admin_client(settings).await?;
    import(&products, &admin).await?;
    println!(
        "{}: {} products are for sale",
        file.display(),
        products.len()
    );
    Ok(ExitCode::SUCCESS)
}

/// Imports under a progress bar.
pub(crate) async fn import(products: &ProductFile, admin: &Client) -> anyhow::Result<()> {
    let style = ProgressStyle::with_template("{msg} {bar:32} {pos}/{len} {eta}")
        .expect("the template is written above");
    let bar = ProgressBar::new(2 * products.len() as u64)
        .with_style(style)
        .with_message("products");
    let done = products.import(admin, &bar).await;
    bar.finish_and_clear();
    Ok(done?)
}
