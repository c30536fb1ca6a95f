//! Lists and replays messages that were set aside, in the server that runs on this machine.
//!
//! A replay takes effect where the message would have: in the running service, with its peers and its workers. So the
//! command asks the server, at its internal door, and proves by the installation's secret that it may.

use std::{process::ExitCode, sync::Arc};

use anyhow::bail;
use holdfast_platform::{
    identity::{PEER_HEADER, PeerIdentity},
    settings::Settings,
};
use serde_json::{Value, json};

use crate::{
    assemble,
    home::Home,
    parked::{LIST_PATH, OPERATOR, REPLAY_PATH},
    process,
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
    let home = Home::find(&settings.section("process")?)?;
    let internal = match args.internal {
        Some(url) => url,
        None => home.address()?.internal,
    };
    let key = assemble::peer_key(&process::secrets(settings, &home)?);
    let operator = PeerIdentity::new(OPERATOR, key, Arc::new(process::clock(settings)?));
    let http = reqwest::Client::new();
    match args.what {
        What::List { consumer } => {
            let mut url = reqwest::Url::parse(&format!("{internal}{LIST_PATH}"))?;
            if let Some(consumer) = &consumer {
                url.query_pairs_mut().append_pair("consumer", consumer);
            }
            let parked = ask(http.get(url), &operator).await?;
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
            let request = http.post(format!("{internal}{REPLAY_PATH}")).json(&body);
            let done = ask(request, &operator).await?;
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

async fn ask(request: reqwest::RequestBuilder, operator: &PeerIdentity) -> anyhow::Result<Value> {
    let proof = operator.request(()).into_parts().0.into_headers();
    let response = request.headers(proof).send().await?;
    let status = response.status();
    let text = response.text().await?;
    if !status.is_success() {
        bail!("the server answered {status} to {PEER_HEADER}: {text}");
    }
    Ok(serde_json::from_str(&text)?)
}
