//! Writes products of the server that runs on this machine into a file.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use holdfast_platform::settings::Settings;
use indicatif::{ProgressBar, ProgressStyle};

use super::token;
use crate::{
    client::Client,
    products::{Exported, export},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// What is for sale, in the form that `import products` reads; cells that a spreadsheet would take for formulas have
    /// an apostrophe before them
    Products {
        /// CSV file; left out: standard output
        file: Option<PathBuf>,
    },
}

#[expect(
    clippy::print_stderr,
    reason = "the answer may be standard output, news goes beside it"
)]
pub(crate) async fn run(settings: &Settings, args: Args) -> anyhow::Result<ExitCode> {
    let What::Products { file } = args.what;
    let admin = token::admin_client(settings).await?;
    let exported = match &file {
        Some(file) => into_file(&admin, file).await?,
        None => into(&admin, &mut io::stdout().lock()).await?,
    };
    eprintln!("{} products were written", exported.products);
    for name in &exported.shared_names {
        eprintln!(
            "{name:?} is the name of several products: read back, their rows are one product"
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Under another name until it is whole: what was cut off is not taken for a shop.
async fn into_file(admin: &Client, file: &Path) -> anyhow::Result<Exported> {
    let mut partial = file.as_os_str().to_owned();
    partial.push(".partial");
    let out = File::create(&partial).with_context(|| format!("write {}", file.display()))?;
    let mut out = BufWriter::new(out);
    let exported = into(admin, &mut out).await?;
    out.into_inner()?.sync_all()?;
    fs::rename(&partial, file).with_context(|| format!("write {}", file.display()))?;
    Ok(exported)
}

/// Exports under a progress bar.
async fn into(admin: &Client, out: &mut impl Write) -> anyhow::Result<Exported> {
    let style = ProgressStyle::with_template("{msg} {spinner} {pos} {per_sec}")
        .expect("the template is written above");
    let bar = ProgressBar::new_spinner()
        .with_style(style)
        .with_message("products");
    let done = export(admin, out, &bar).await;
    bar.finish_and_clear();
    Ok(done?)
}
