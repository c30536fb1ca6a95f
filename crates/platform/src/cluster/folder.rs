//! Where the embedded cluster lies, who may enter, and who has it now.

use std::{
    env, fmt, fs,
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, lchown},
    path::{Path, PathBuf},
};

use rustix::process::geteuid;
use sha2::{Digest, Sha256};

use super::{ClusterError, leftover};
use crate::postmaster::{self, Account};

const DEFAULT: &str = ".holdfast";
/// Where root keeps state when the own home is closed to the server's account.
const SYSTEM_STATE: &str = "/var/lib";
/// Where sockets go whose data folder has too long a path.
const SHORT_PLACE: &str = "/tmp";
/// Closed to others.
const OWN_MODE: u32 = 0o700;
/// Others may pass to what is theirs inside, and list nothing.
const SHARED_MODE: u32 = 0o711;

/// Which data folder to use, and whether that is another than the user would expect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The data folder; it may not exist yet.
    pub folder: PathBuf,
    /// Set when the default place could not be used; to be shown to the user.
    pub moved: Option<Moved>,
}

/// The notice that the data folder is not in its default place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    to: PathBuf,
    /// `None`: the default place could be used by now, but the database is where it was.
    closed: Option<Closed>,
}

/// A folder that the server's account cannot enter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "data folder {} cannot be used: PostgreSQL would run as {account}, who may not enter {}; open it with chmod o+x or name another folder",
    .folder.display(),
    .parent.display()
)]
pub struct Closed {
    folder: PathBuf,
    parent: PathBuf,
    account: String,
}

/// The places inside a data folder that exists.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) root: PathBuf,
    pub(super) data: PathBuf,
    pub(super) socket_dir: PathBuf,
    pub(super) log: PathBuf,
    pub(super) account: Option<Account>,
}

/// Held as long as this process owns the data folder; the operating system lets go when the process ends.
#[derive(Debug)]
pub(super) struct FolderLock(#[expect(dead_code, reason = "the open file is the lock")] File);

impl Layout {
    /// Makes the folder when it is missing.
    pub(super) fn create(data_dir: &Path) -> Result<Self, ClusterError> {
        let account = Account::for_server()?;
        check_for(data_dir, account.as_ref())?;
        DirBuilder::new()
            .recursive(true)
            .mode(if account.is_some() {
                SHARED_MODE
            } else {
                OWN_MODE
            })
            .create(data_dir)
            .map_err(refused("create", data_dir))?;
        // Once more: a folder made just now under a strict umask is closed again.
        check_for(data_dir, account.as_ref())?;
        Self::of(data_dir, account)
    }

    /// Takes a folder that holds a database.
    pub(super) fn find(data_dir: &Path) -> Result<Self, ClusterError> {
        if !holds_database(data_dir) {
            return Err(ClusterError::Empty {
                folder: data_dir.to_owned(),
            });
        }
        let account = Account::for_server()?;
        check_for(data_dir, account.as_ref())?;
        Self::of(data_dir, account)
    }

    /// The user id that the server runs under.
    pub(super) fn uid(&self) -> u32 {
        self.account
            .as_ref()
            .map_or_else(|| geteuid().as_raw(), |account| account.uid)
    }

    /// Makes `folder` the server's own and closed to others, or makes sure that it is.
    ///
    /// A link or a folder of somebody else is refused: whoever owns the folder could pose as the server.
    pub(super) fn make_private(&self, folder: &Path) -> Result<(), ClusterError> {
        match DirBuilder::new().mode(OWN_MODE).create(folder) {
            Ok(()) => self.give(folder)?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(refused("create", folder)(error)),
        }
        let found = fs::symlink_metadata(folder).map_err(refused("look at", folder))?;
        if !found.is_dir() || found.mode() & 0o077 != 0 {
            return Err(ClusterError::SocketFolder {
                folder: folder.to_owned(),
            });
        }
        self.owns(folder, &found)
    }

    /// Makes `path`, which we just created, the server's.
    pub(super) fn give(&self, path: &Path) -> Result<(), ClusterError> {
        match &self.account {
            Some(account) => lchown(path, Some(account.uid), Some(account.gid))
                .map_err(refused("hand over", path)),
            None => Ok(()),
        }
    }

    /// Makes sure that the server's files belong to the account it would run under.
    pub(super) fn check_owner(&self) -> Result<(), ClusterError> {
        let found = fs::symlink_metadata(&self.data).map_err(refused("look at", &self.data))?;
        self.owns(&self.data, &found)
    }

    /// Tells whether a server runs on the folder and takes connections.
    pub(super) fn is_served(&self) -> bool {
        postmaster::ready_pid(&self.data)
            .is_some_and(|pid| leftover::processes_in(&self.data).contains(&pid))
    }

    fn of(data_dir: &Path, account: Option<Account>) -> Result<Self, ClusterError> {
        // One folder, one name: the socket's place is found by it.
        let root = data_dir.canonicalize().map_err(refused("find", data_dir))?;
        Ok(Self {
            data: root.join("postgres"),
            socket_dir: socket_dir(&root),
            log: root.join("postgres.log"),
            root,
            account,
        })
    }

    fn owns(&self, folder: &Path, found: &fs::Metadata) -> Result<(), ClusterError> {
        if found.uid() == self.uid() {
            return Ok(());
        }
        Err(ClusterError::ForeignOwner {
            folder: folder.to_owned(),
            owner: found.uid(),
            wanted: self.uid(),
        })
    }
}

impl FolderLock {
    /// Takes the folder for this process, or tells who has it.
    pub(super) fn take(layout: &Layout) -> Result<Self, ClusterError> {
        let path = layout.root.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(refused("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).ok();
                return Err(ClusterError::InUse {
                    folder: layout.root.clone(),
                    pid: holder.trim().parse().ok(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(refused("lock", &path)(error)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(refused("write", &path))?;
        Ok(Self(file))
    }
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the data folder is {}, ", self.to.display())?;
        match &self.closed {
            Some(closed) => write!(
                f,
                "because PostgreSQL runs as {}, who may not enter {}",
                closed.account,
                closed.parent.display()
            ),
            None => write!(
                f,
                "where the database is since {DEFAULT} could not be entered; stop and move it to have it there"
            ),
        }
    }
}

pub(super) fn place(given: Option<&Path>) -> Result<Placement, ClusterError> {
    let account = Account::for_server()?;
    if let Some(folder) = given {
        check_for(folder, account.as_ref())?;
        return Ok(Placement {
            folder: folder.to_owned(),
            moved: None,
        });
    }
    let here = env::current_dir().map_err(refused("find", Path::new(".")))?;
    place_default(&here, &state_homes(), account.as_ref())
}

pub(super) fn check(data_dir: &Path) -> Result<(), ClusterError> {
    check_for(data_dir, Account::for_server()?.as_ref())
}

pub(super) fn refused<'a>(
    doing: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> ClusterError + 'a {
    move |source| ClusterError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

fn place_default(
    here: &Path,
    state_homes: &[PathBuf],
    account: Option<&Account>,
) -> Result<Placement, ClusterError> {
    let default = here.join(DEFAULT);
    let closed = match check_for(&default, account) {
        Ok(()) => None,
        Err(ClusterError::Closed(closed)) => Some(closed),
        Err(error) => return Err(error),
    };
    // Another checkout has another folder, and the same one finds its own again.
    let elsewhere = state_homes
        .iter()
        .map(|home| home.join("holdfast").join(short_name(here)))
        .find(|folder| check_for(folder, account).is_ok());
    let stay = closed.is_none() || holds_database(&default);
    match elsewhere {
        Some(folder) if !stay || (holds_database(&folder) && !holds_database(&default)) => {
            Ok(Placement {
                moved: Some(Moved {
                    to: folder.clone(),
                    closed,
                }),
                folder,
            })
        }
        // Moving away from data would look like losing it.
        _ => match closed {
            Some(closed) => Err(closed.into()),
            None => Ok(Placement {
                folder: default,
                moved: None,
            }),
        },
    }
}

fn state_homes() -> Vec<PathBuf> {
    let named = env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = env::home_dir().map(|home| home.join(".local/state"));
    let system = geteuid().is_root().then(|| PathBuf::from(SYSTEM_STATE));
    named
        .into_iter()
        .chain(home)
        .chain(system)
        .filter(|place| place.is_absolute())
        .collect()
}

fn check_for(data_dir: &Path, account: Option<&Account>) -> Result<(), ClusterError> {
    let path = std::path::absolute(data_dir).map_err(refused("find", data_dir))?;
    let existing: Vec<&Path> = {
        let mut upwards: Vec<&Path> = path.ancestors().collect();
        upwards.reverse();
        upwards
    };
    // Permissions can come from modes, lists and mounts; the operating system knows, asked as that account.
    let run = postmaster::command("/bin/sh", account)
        .args([
            "-c",
            r#"for folder; do cd "$folder" 2>/dev/null || { printf %s "$folder"; exit; }; done"#,
            "sh",
        ])
        .args(existing.iter().filter(|folder| {
            // What we can see to be missing will be made open enough; what we cannot see is judged by its parent.
            !matches!(fs::symlink_metadata(folder), Err(error) if error.kind() == ErrorKind::NotFound)
        }))
        .output()
        .map_err(refused("run", Path::new("/bin/sh")))?;
    if run.stdout.is_empty() {
        return Ok(());
    }
    Err(Closed {
        folder: path.clone(),
        parent: PathBuf::from(String::from_utf8_lossy(&run.stdout).into_owned()),
        account: account.map_or_else(|| "you".to_owned(), |account| account.name.clone()),
    }
    .into())
}

fn holds_database(data_dir: &Path) -> bool {
    data_dir.join("postgres/PG_VERSION").exists()
}

/// The folder of the socket, the same for every process that asks.
///
/// It lies in the data folder, where nobody else can put anything; only a path that the operating system finds too long
/// goes elsewhere.
fn socket_dir(root: &Path) -> PathBuf {
    let inside = root.join("socket");
    if postmaster::can_hold_socket(&inside) {
        return inside;
    }
    Path::new(SHORT_PLACE).join(format!("holdfast-{}", short_name(root)))
}

fn short_name(path: &Path) -> String {
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    digest[..8].iter().fold(String::new(), |mut text, byte| {
        use fmt::Write;
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_default_folder_lies_where_the_user_stands() {
        let world = World::new();
        let placement = world.place().expect("all is open");
        assert_eq!(placement.folder, world.here.join(".holdfast"));
        assert_eq!(placement.moved, None);
    }

    #[test]
    fn a_closed_checkout_moves_the_default_folder_to_the_state_directory_and_says_so() {
        let world = World::new();
        world.close();
        let placement = world.place().expect("the state directory is open");
        assert!(placement.folder.starts_with(&world.state_home));
        let notice = placement.moved.expect("a notice").to_string();
        for named in [&placement.folder, &world.here] {
            assert!(notice.contains(&named.display().to_string()), "{notice}");
        }
        assert_eq!(world.place().expect("again").folder, placement.folder);

        // Opening the checkout later must not look like losing what was sold meanwhile.
        world.open();
        let default = world.here.join(".holdfast");
        assert_eq!(world.place().expect("open").folder, default);
        put_database(&placement.folder);
        let placement_later = world.place().expect("open");
        assert_eq!(placement_later.folder, placement.folder);
        assert!(placement_later.moved.is_some());
        put_database(&default);
        assert_eq!(world.place().expect("open").folder, default);
        let other = place_default(
            &world.state_home,
            std::slice::from_ref(&world.state_home),
            world.account.as_ref(),
        );
        assert_ne!(other.expect("open").folder, placement.folder);
    }

    #[test]
    fn a_closed_checkout_with_a_database_in_it_is_refused_and_the_database_not_left_behind() {
        let world = World::new();
        put_database(&world.here.join(".holdfast"));
        world.close();
        if !geteuid().is_root() {
            return; // who cannot look inside cannot know that there is one
        }
        let refused = world.place().expect_err("closed");
        assert!(matches!(refused, ClusterError::Closed(_)), "{refused}");
    }

    #[test]
    fn a_socket_lies_in_its_data_folder_unless_the_path_is_long_or_strange() {
        let inside = |root: &str| socket_dir(Path::new(root)).starts_with(root);
        let longest = format!("/{}", "a".repeat(85));
        assert!(inside(&longest));
        assert!(!inside(&format!("{longest}a")));
        for strange in ["/a b", "/a,b", "/a\"b", "/a?b", "/ö"] {
            assert!(!inside(strange), "{strange}");
        }
        assert_ne!(socket_dir(Path::new("/a b")), socket_dir(Path::new("/a c")));
    }

    /// A checkout and a state directory.
    struct World {
        here: PathBuf,
        state_home: PathBuf,
        account: Option<Account>,
        _home: tempfile::TempDir,
    }

    impl World {
        fn new() -> Self {
            let home = tempfile::tempdir_in("/tmp").expect("/tmp can be written to");
            let (here, state_home) = (home.path().join("checkout"), home.path().join("state"));
            for folder in [home.path(), &here, &state_home] {
                fs::create_dir_all(folder).expect("made");
                set_mode(folder, 0o755);
            }
            Self {
                here,
                state_home,
                account: Account::for_server().expect("one is there"),
                _home: home,
            }
        }

        fn close(&self) {
            // For root the server's account is another one; everybody else is the server's account.
            set_mode(&self.here, if geteuid().is_root() { 0o700 } else { 0o000 });
        }

        fn open(&self) {
            set_mode(&self.here, 0o755);
        }

        fn place(&self) -> Result<Placement, ClusterError> {
            let homes = std::slice::from_ref(&self.state_home);
            place_default(&self.here, homes, self.account.as_ref())
        }
    }

    impl Drop for World {
        fn drop(&mut self) {
            self.open();
        }
    }

    fn put_database(data_dir: &Path) {
        let data = data_dir.join("postgres");
        fs::create_dir_all(&data).expect("made");
        fs::write(data.join("PG_VERSION"), "15").expect("written");
    }

    fn set_mode(folder: &Path, mode: u32) {
        fs::set_permissions(folder, fs::Permissions::from_mode(mode)).expect("ours");
    }
}
