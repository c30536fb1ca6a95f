//! Where a server lives on this machine: its data folder, its secret, and the address it answers at.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use holdfast_platform::cluster::{self, ClusterSettings, Secrets};
use holdfast_platform::settings::Settings;
use serde::{Deserialize, Serialize};

use crate::process::ProcessSettings;

const ADDRESS_FILE: &str = "server.json";

/// The data folder.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    folder: PathBuf,
}

/// What a running server tells the commands beside it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Address {
    /// Of its public door.
    pub(crate) url: String,
    /// Of its internal door.
    pub(crate) internal: String,
    /// Its process.
    pub(crate) pid: u32,
}

/// The section `[cluster]`; see `settings.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EmbeddedSettings {
    programs: String,
    shared_buffers_mb: u32,
    max_connections: u32,
}

impl Home {
    /// The folder that the settings name, or the default one; says so when that had to move.
    pub(crate) fn find(process: &ProcessSettings) -> anyhow::Result<Self> {
        let given = Some(&process.data_dir).filter(|folder| !folder.as_os_str().is_empty());
        let placement = cluster::place(given.map(PathBuf::as_path))?;
        if let Some(moved) = placement.moved {
            tracing::warn!("{moved}");
        }
        Ok(Self {
            folder: placement.folder,
        })
    }

    /// The folder itself.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The secret kept in the folder.
    pub(crate) fn secrets(&self) -> anyhow::Result<Secrets> {
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("make data folder {}", self.folder.display()))?;
        Ok(Secrets::load_or_create(&self.folder)?)
    }

    /// Tells the commands beside this server where it answers.
    pub(crate) fn write_address(&self, url: &str, internal: &str) -> anyhow::Result<()> {
        let address = Address {
            url: url.to_owned(),
            internal: internal.to_owned(),
            pid: std::process::id(),
        };
        // Nobody else has made it where no cluster is embedded.
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("make data folder {}", self.folder.display()))?;
        let file = self.folder.join(ADDRESS_FILE);
        let fresh = file.with_extension("new");
        fs::write(&fresh, serde_json::to_vec(&address)?)
            .and_then(|()| fs::rename(&fresh, &file))
            .with_context(|| format!("write {}", file.display()))
    }

    /// Forgets the address when the server ends.
    pub(crate) fn forget_address(&self) {
        // A file left behind misleads nobody: whoever reads it finds nobody answering there.
        fs::remove_file(self.folder.join(ADDRESS_FILE)).ok();
    }

    /// Where the server of this folder answers.
    pub(crate) fn address(&self) -> anyhow::Result<Address> {
        let file = self.folder.join(ADDRESS_FILE);
        match fs::read(&file) {
            Ok(text) => {
                serde_json::from_slice(&text).with_context(|| format!("read {}", file.display()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
                "no server runs on {}; start one with `holdfast serve`, or name its folder with --data-dir",
                self.folder.display()
            ),
            Err(error) => Err(error).with_context(|| format!("read {}", file.display())),
        }
    }
}

/// How the embedded cluster is to be run.
pub(crate) fn cluster_settings(settings: &Settings) -> anyhow::Result<ClusterSettings> {
    let section: EmbeddedSettings = settings.section("cluster")?;
    Ok(ClusterSettings {
        programs: Some(section.programs)
            .filter(|folder| !folder.is_empty())
            .map(PathBuf::from),
        shared_buffers_mb: section.shared_buffers_mb,
        max_connections: section.max_connections,
    })
}
