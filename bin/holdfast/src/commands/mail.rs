//! Lists mail that was given up, and lets it be tried again, in the server that runs on this machine.

use std::process::ExitCode;

use holdfast_kernel::{Id, id};
use holdfast_platform::settings::Settings;
use serde_json::json;

use crate::{
    dead_mail::{LIST_PATH, REVIVE_PATH},
    internal::InternalDoor,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
    /// Internal address of the server that runs notifications, where it is not the one of the data folder
    #[arg(long, global = true, value_name = "URL")]
    internal: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Shows what was given up and what it met last, oldest first, a line each
    Dead,
    /// Lets what was given up be tried again, all of it or one
    Revive {
        /// Only that of this notification, as `dead` shows it
        notification: Option<Id<id::Notification>>,
    },
}

#[expect(clippy::print_stdout, reason = "the mail is the command's answer")]
pub(crate) async fn run(settings: &Settings, args: Args) -> anyhow::Result<ExitCode> {
    let door = InternalDoor::find(settings, args.internal)?;
    match args.what {
        What::Dead => {
            let dead = door.get(LIST_PATH, &[]).await?;
            for mail in dead.as_array().into_iter().flatten() {
                println!("{mail}");
            }
        }
        What::Revive { notification } => {
            let body = json!({"notification": notification});
            println!("{}", door.post(REVIVE_PATH, &body).await?);
        }
    }
    Ok(ExitCode::SUCCESS)
}
