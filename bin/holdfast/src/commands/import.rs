//! Writes products, or the seats of an event, from a file into the server that runs on this machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use holdfast_platform::settings::Settings;
use indicatif::{ProgressBar, ProgressStyle};

use super::token;
use crate::{
    client::Client,
    products::ProductFile,
    seats::{SeatFile, Venue},
};

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
    /// section,row,seat and, where they are known, x,y,tier; of an event that is a draft
    Seats {
        /// Id of the event
        event: String,
        /// CSV file, or JSON as the API shows a layout
        file: PathBuf,
    },
}

pub(crate) async fn run(settings: &Settings, args: Args) -> anyhow::Result<ExitCode> {
    match args.what {
        What::Products { file } => import_products(settings, &file).await?,
        What::Seats { event, file } => import_seats(settings, &event, &file).await?,
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "what was done is the command's answer")]
async fn import_products(settings: &Settings, file: &Path) -> anyhow::Result<()> {
    let content = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let products = ProductFile::read(&content).with_context(|| file.display().to_string())?;
    let admin = token::admin_client(settings).await?;
    import(&products, &admin).await?;
    println!(
        "{}: {} products are for sale",
        file.display(),
        products.len()
    );
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what was done is the command's answer")]
async fn import_seats(settings: &Settings, event: &str, file: &Path) -> anyhow::Result<()> {
    let content = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let staff = token::admin_client(settings).await?;
    let venue = Venue::of(&staff.get(&format!("/v1/events/{event}")).await?)?;
    let is_json = file.extension().is_some_and(|ending| ending == "json");
    let seats = if is_json {
        SeatFile::read_json(&content, &venue)
    } else {
        SeatFile::read_csv(&content, &venue)
    };
    let seats = seats.with_context(|| file.display().to_string())?;
    let sections = seats.import(&staff, &venue).await?;
    println!(
        "{}: {event} has {} seats in {sections} sections of the file",
        file.display(),
        seats.seats()
    );
    Ok(())
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
