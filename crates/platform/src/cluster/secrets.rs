//! The secret of an installation, from which every key that never leaves it is made.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use hmac::{Hmac, KeyInit, Mac};
use rand::TryRngCore;
use rustix::process::geteuid;
use sha2::Sha256;

use super::{ClusterError, folder::refused};

const SECRET_BYTES: usize = 32;
const FILE: &str = "secret";

/// The secret that all services of an installation share.
#[derive(Clone)]
pub struct Secrets([u8; SECRET_BYTES]);

impl Secrets {
    /// Reads the secret of `data_dir`, which has to exist, or makes one that nobody has seen.
    ///
    /// Refuses a file that other users can read or that is cut short: what is signed with it would prove nothing.
    pub fn load_or_create(data_dir: &Path) -> Result<Self, ClusterError> {
        let file = data_dir.join(FILE);
        match Self::load(&file) {
            Err(ClusterError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                create(data_dir, &file)?;
                // Whoever was first made it.
                Self::load(&file)
            }
            loaded => loaded,
        }
    }

    /// Reads a secret that was handed in as 64 hexadecimal digits, as processes that share no folder are.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes().as_chunks::<2>();
        let (pairs, []) = digits else { return None };
        let bytes: Vec<u8> = pairs
            .iter()
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect::<Option<_>>()?;
        bytes.try_into().ok().map(Self)
    }

    /// A key for one purpose; knowing it gives away neither the secret nor any other key.
    pub fn key(&self, purpose: &str) -> [u8; 32] {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(purpose.as_bytes());
        mac.finalize().into_bytes().into()
    }

    fn load(file: &Path) -> Result<Self, ClusterError> {
        let found = fs::symlink_metadata(file).map_err(refused("look at", file))?;
        let fault = |text| ClusterError::Secret {
            file: file.to_owned(),
            text,
        };
        if !found.is_file() {
            return Err(fault("is not a plain file"));
        }
        if found.uid() != geteuid().as_raw() && !geteuid().is_root() {
            return Err(fault("belongs to another user"));
        }
        if found.mode() & 0o077 != 0 {
            return Err(fault("can be read by other users; wanted is mode 0600"));
        }
        let bytes = fs::read(file).map_err(refused("read", file))?;
        let secret = bytes
            .try_into()
            .map_err(|_| fault("is not 32 bytes long; restore it from a backup"))?;
        Ok(Self(secret))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(..)")
    }
}

/// Writes a secret under another name first: it is there whole or not at all, and never replaces one.
fn create(data_dir: &Path, file: &Path) -> Result<(), ClusterError> {
    let mut secret = [0; SECRET_BYTES];
    rand::rngs::OsRng
        .try_fill_bytes(&mut secret)
        .map_err(|error| refused("draw", file)(std::io::Error::other(error)))?;
    let draft = data_dir.join(format!("{FILE}.{}", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut out| {
            out.write_all(&secret)?;
            out.sync_all()
        })
        .and_then(|()| match fs::hard_link(&draft, file) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        })
        .and_then(|()| File::open(data_dir)?.sync_all());
    fs::remove_file(&draft).ok();
    written.map_err(refused("write", file))
}
