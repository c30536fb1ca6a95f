//! A folder of letters, each a file that mail programs open; it stands in for a mail server on one machine.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use super::{Post, Undelivered};
use crate::letter::Letter;

/// Only the owner of the server reads other people's mail.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Most letters that are left in the folder when it is tidied: it shows what was sent, and is no archive.
const LETTERS_MAX: usize = 10_000;
/// Letters that are written between two times that it is tidied.
const TIDIED_EVERY_LETTERS: usize = 500;
/// How a letter's file ends; other files in the folder are somebody else's.
const LETTER: &str = "eml";

/// Writes letters into a folder, by names that sort as what they tell of happened. The same letter is the same file.
///
/// Beyond [`LETTERS_MAX`] those go that tell of what happened first. Files are not flushed: a power cut may take the last
/// ones with it.
pub(crate) struct Folder {
    path: PathBuf,
    /// Letters since this process started.
    written: AtomicUsize,
    letters_max: usize,
    tidied_every: usize,
}

impl Folder {
    /// Makes the folder when it is missing, and takes it away from everybody else. Those above it are not its own: others
    /// may have to get through them.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if let Some(above) = path.parent() {
            fs::create_dir_all(above)?;
        }
        match DirBuilder::new().mode(FOLDER_MODE).create(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => made?,
        }
        fs::set_permissions(path, fs::Permissions::from_mode(FOLDER_MODE))?;
        Ok(Self {
            path: path.to_owned(),
            written: AtomicUsize::new(0),
            letters_max: LETTERS_MAX,
            tidied_every: TIDIED_EVERY_LETTERS,
        })
    }
}

#[tonic::async_trait]
impl Post for Folder {
    async fn deliver(&self, letter: &Letter) -> Result<(), Undelivered> {
        let moment = letter.happened_at.strftime("%Y%m%dT%H%M%S.%6fZ");
        let file = self.path.join(format!("{moment}-{}.{LETTER}", letter.id));
        let bytes = letter.bytes.clone();
        let earlier = self.written.fetch_add(1, Relaxed);
        let tidied = earlier.is_multiple_of(self.tidied_every);
        let tidied = tidied.then(|| (self.path.clone(), self.letters_max));
        let written = tokio::task::spawn_blocking(move || {
            write(&file, &bytes)?;
            // The letter is there, whatever becomes of others.
            if let Some((folder, most)) = tidied
                && let Err(error) = tidy(&folder, most)
            {
                tracing::warn!(folder = %folder.display(), %error, "the mail folder cannot be tidied");
            }
            io::Result::Ok(())
        });
        match written.await {
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

/// Removes letters until so many are left, those of the longest ago first.
fn tidy(folder: &Path, most: usize) -> io::Result<()> {
    let mut letters = Vec::new();
    for entry in fs::read_dir(folder)? {
        let file = entry?.path();
        if file.extension().is_some_and(|kind| kind == LETTER) {
            letters.push(file);
        }
    }
    letters.sort();
    let too_many = letters.len().saturating_sub(most);
    for letter in &letters[..too_many] {
        match fs::remove_file(letter) {
            // Another process tidies the same folder.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            done => done?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use holdfast_kernel::{Id, Timestamp};
    use lettre::address::Envelope;

    use super::*;

    fn letter_of_second(second: i64) -> Letter {
        let to = "hanako@holdfast.example".parse().expect("an address");
        Letter {
            id: Id::generate(),
            happened_at: Timestamp::from_second(second).expect("a moment"),
            envelope: Envelope::new(None, vec![to]).expect("an envelope"),
            bytes: second.to_string().into_bytes(),
        }
    }

    #[test]
    fn only_the_folder_itself_is_closed_to_others() {
        let place = tempfile::tempdir().expect("a folder");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        let (any, above) = (place.path().join("any"), place.path().join("data"));
        fs::create_dir(&any).expect("made");
        for _ in 0..2 {
            Folder::open(&above.join("mail")).expect("opened");
            assert_eq!(mode(&above), mode(&any));
            assert_eq!(mode(&above.join("mail")), FOLDER_MODE);
        }
    }

    #[tokio::test]
    async fn the_folder_keeps_the_latest_letters_and_what_is_no_letter() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = Folder {
            letters_max: 3,
            tidied_every: 2,
            ..Folder::open(place.path()).expect("opened")
        };
        fs::write(place.path().join("00-notes.txt"), "ours").expect("written");
        // The fourth of them tells of what happened first of all.
        for second in [11, 12, 13, 10, 14] {
            let delivered = folder.deliver(&letter_of_second(second)).await;
            delivered.expect("delivered");
        }
        let mut kept: Vec<String> = fs::read_dir(place.path())
            .expect("the folder")
            .map(|entry| fs::read_to_string(entry.expect("an entry").path()).expect("read"))
            .collect();
        kept.sort();
        assert_eq!(kept, ["12", "13", "14", "ours"]);
    }
}
