//! Prints the settings as they stand, or what each of them means.

use std::process::ExitCode;

use holdfast_platform::settings::Settings;
use serde_json::Value;

use crate::assemble::DEFAULTS;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print every key with its meaning, unit and default instead
    #[arg(long)]
    defaults: bool,
}

#[expect(clippy::print_stdout, reason = "the settings are the command's answer")]
pub(crate) fn run(settings: &Settings, args: &Args) -> anyhow::Result<ExitCode> {
    if args.defaults {
        for part in DEFAULTS {
            println!("{part}");
        }
    } else {
        let mut all = settings.all()?;
        hide_secrets(&mut all);
        println!("{}", serde_json::to_string_pretty(&all)?);
    }
    Ok(ExitCode::SUCCESS)
}

/// Blots out what must not be seen over somebody's shoulder: secrets, and URLs, which may carry a password.
fn hide_secrets(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                let secret = ["secret", "password", "database_url", "smtp_url"]
                    .iter()
                    .any(|word| key.contains(word));
                match member {
                    Value::String(text) if secret && !text.is_empty() => "(set)".clone_into(text),
                    _ => hide_secrets(member),
                }
            }
        }
        Value::Array(entries) => entries.iter_mut().for_each(hide_secrets),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_and_urls_with_passwords_are_not_shown() {
        let mut all = json!({"identity": {"cluster_secret": "5ec4", "issuer": "holdfast"},
                             "orders": {"database_url": "postgres://u:p@h/d", "owner_database_url": ""}});
        hide_secrets(&mut all);
        assert_eq!(
            all,
            json!({"identity": {"cluster_secret": "(set)", "issuer": "holdfast"},
                   "orders": {"database_url": "(set)", "owner_database_url": ""}})
        );
    }
}
