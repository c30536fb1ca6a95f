//! Lists and replays messages that were set aside, in the server that runs on this machine.
//!
//! A replay takes effect where the message would have: in the running service, with its peers and its workers. So the
//! command asks the server, at its internal door, and proves by the installation's secret that it may.

use std::process::ExitCode;

use holdfast_platform::settings::Settings;
use serde_json::json;

use crate::{
    internal::InternalDoor,
    parked::{LIST_PATH, REPLAY_PATH},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
    /// Internal address of the server, where it is not the one of the data folder
    #[arg(long, global = true, value_name = "URL")]
    internal: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Shows what is parked and why, oldest first, a line each
    List {
        /// Only this consumer's
        #[arg(long)]
        consumer: Option<String>,
    },
    /// Lets the parked messages of a key take effect, in order
    Replay {
        /// Who parked them, as `list` shows it
        consumer: String,
        /// Topic
        topic: String,
        /// Key: the id of what the messages are about
        key: String,
    },
}

#[expect(clippy::print_stdout, reason = "the messages are the command's answer")]
pub(crate) async fn run(settings: &Settings, args: Args) -> anyhow::Result<ExitCode> {
    let door = InternalDoor::find(settings, args.internal)?;
    match args.what {
        What::List { consumer } => {
            let only: Vec<(&str, &str)> = (consumer.iter())
                .map(|consumer| ("consumer", consumer.as_str()))
                .collect();
            let parked = door.get(LIST_PATH, &only).await?;
            for message in parked.as_array().into_iter().flatten() {
                println!("{message}");
            }
            Ok(ExitCode::SUCCESS)
        }
        What::Replay {
            consumer,
            topic,
            key,
        } => {
            let body = json!({"consumer": consumer, "topic": topic, "key": key});
            let done = door.post(REPLAY_PATH, &body).await?;
            println!("{done}");
            let finished = done["stopped"].is_null();
            Ok(if finished {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
    }
}
