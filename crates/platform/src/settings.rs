//! Settings start a process: defaults in the binary, then a file, then the environment, then flags.
//!
//! Each service keeps its defaults in a `settings.toml` of its own, where every key stands with its meaning and unit;
//! that file is the documentation, and the keys in it are all there are.

use std::path::{Path, PathBuf};

use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use serde::{Serialize, de::DeserializeOwned};

/// What every environment variable of a setting begins with: `HOLDFAST_<SECTION>__<KEY>`.
pub const ENVIRONMENT_PREFIX: &str = "HOLDFAST_";
const LEVEL_SEPARATOR: &str = "__";

/// All settings of a process, merged and not yet given out.
#[derive(Debug, Clone)]
pub struct Settings(Figment);

/// A setting that is unknown, of the wrong kind, or missing.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file that was named is not there.
    #[error("settings file {} does not exist", .0.display())]
    NoFile(PathBuf),
    /// A section no service has.
    #[error("settings have no section {unknown:?}; the sections are {known}")]
    UnknownSection {
        /// What was found.
        unknown: String,
        /// What there is.
        known: String,
    },
    /// A key or value that cannot be taken; the text names key and source.
    #[error("settings: {0}")]
    Value(#[from] Box<figment::Error>),
}

impl Settings {
    /// Merges `defaults` (the `settings.toml` of every part), the file, and the environment.
    pub fn load(defaults: &[&str], file: Option<&Path>) -> Result<Self, SettingsError> {
        let mut merged = defaults
            .iter()
            .fold(Figment::new(), |all, text| all.merge(Toml::string(text)));
        let known = sections(&merged)?;
        if let Some(path) = file {
            if !path.exists() {
                return Err(SettingsError::NoFile(path.to_owned()));
            }
            merged = merged.merge(Toml::file_exact(path));
        }
        merged = merged.merge(
            Env::prefixed(ENVIRONMENT_PREFIX)
                .filter(|key| key.as_str().contains(LEVEL_SEPARATOR))
                .split(LEVEL_SEPARATOR),
        );
        for section in sections(&merged)? {
            if !known.contains(&section) {
                return Err(SettingsError::UnknownSection {
                    unknown: section,
                    known: known.join(", "),
                });
            }
        }
        Ok(Self(merged))
    }

    /// Sets one value over all others, as a flag does; `key` is dotted, such as `gateway.listen`.
    #[must_use]
    pub fn with(self, key: &str, value: impl Serialize) -> Self {
        Self(self.0.merge(Serialized::default(key, value)))
    }

    /// One section as its owner's type, which refuses keys it does not know.
    pub fn section<T: DeserializeOwned>(&self, name: &str) -> Result<T, SettingsError> {
        Ok(self.0.extract_inner(name).map_err(Box::new)?)
    }

    /// Everything as it stands, for showing; secrets are the caller's to hide.
    pub fn all(&self) -> Result<serde_json::Value, SettingsError> {
        Ok(self.0.extract().map_err(Box::new)?)
    }
}

fn sections(figment: &Figment) -> Result<Vec<String>, SettingsError> {
    let all: serde_json::Map<String, serde_json::Value> = figment.extract().map_err(Box::new)?;
    Ok(all.into_iter().map(|(section, _)| section).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const DEFAULTS: &str = "[orders]\nhold_secs = 600\n[gateway.rate_limit]\nenabled = true\n";

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Orders {
        hold_secs: u64,
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("holdfast.toml");
        fs::write(&file, "[orders]\nhold_secs = 60\n").expect("written");
        let settings = Settings::load(&[DEFAULTS], Some(&file)).expect("settings");
        assert_eq!(
            settings
                .section::<Orders>("orders")
                .expect("orders")
                .hold_secs,
            60
        );
        let settings = settings.with("orders.hold_secs", 5);
        assert_eq!(
            settings
                .section::<Orders>("orders")
                .expect("orders")
                .hold_secs,
            5
        );
    }

    #[test]
    fn unknown_sections_and_keys_are_refused_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("holdfast.toml");
        fs::write(&file, "[ordres]\nhold_secs = 60\n").expect("written");
        let refused = Settings::load(&[DEFAULTS], Some(&file)).expect_err("a misspelt section");
        assert!(refused.to_string().contains("ordres"), "{refused}");

        fs::write(&file, "[orders]\nhold_sec = 60\n").expect("written");
        let settings = Settings::load(&[DEFAULTS], Some(&file)).expect("settings");
        let refused = settings
            .section::<Orders>("orders")
            .err()
            .expect("a misspelt key");
        assert!(refused.to_string().contains("hold_sec"), "{refused}");
    }
}
