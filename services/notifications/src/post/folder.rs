//! A folder of letters, each a file that mail programs open; it stands in for a mail server on one machine.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::{Post, Undelivered};
use crate::letter::Letter;

/// Only the owner of the server reads other people's mail.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Writes letters into a folder, by names that sort as what they tell of happened. The same letter is the same file.
///
/// Files are not flushed: a power cut may take the last ones with it.
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes the folder when it is missing, and takes it away from everybody else.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(FOLDER_MODE))?;
        Ok(Self {
            path: path.to_owned(),
        })
    }
}

#[tonic::async_trait]
impl Post for Folder {
    async fn deliver(&self, letter: &Letter) -> Result<(), Undelivered> {
        let moment = letter.happened_at.strftime("%Y%m%dT%H%M%S.%6fZ");
        let file = self.path.join(format!("{moment}-{}.eml", letter.id));
        let bytes = letter.bytes.clone();
        let written = tokio::task::spawn_blocking(move || write(&file, &bytes)).await;
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Undelivered::Later(format!("mail folder: {error}"))),
            Err(panicked) => Err(Undelivered::Later(format!("mail folder: {panicked}"))),
        }
    }
}

/// Whoever looks into the folder sees whole letters only.
fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = file.with_extension("new");
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(&fresh)?
        .write_all(bytes)?;
    fs::rename(&fresh, file)
}
