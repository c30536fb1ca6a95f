//! Running PostgreSQL on folders of our own: its programs, the account it runs under, making a data folder, starting it.
//!
//! The embedded cluster and the databases of tests stand on this; neither policy nor supervision is here.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Oldest PostgreSQL that serves.
pub const MAJOR_MIN: u32 = 15;
/// Longest path of a unix socket, in bytes; a limit of the operating system.
pub const SOCKET_PATH_MAX_BYTES: usize = 107;
/// Where Debian and Ubuntu keep each major version in a folder of its own.
const PACKAGED: &str = "/usr/lib/postgresql";
/// The number names the socket's file; no TCP port is ever opened.
const PORT: u16 = 5432;
/// Accounts that may run the server when we are root, the fitting one first.
const ACCOUNTS: [&str; 2] = ["postgres", "nobody"];

/// Where a server notes its pid, and whether it is ready.
pub(crate) const NOTE: &str = "postmaster.pid";

/// The superuser of a data folder made by [`Programs::initdb`].
pub const SUPERUSER: &str = "postgres";

/// A server's programs as installed on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    bin: PathBuf,
    major: u32,
}

/// The account a server runs under when it cannot be the caller's: PostgreSQL refuses to run as root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its user id.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
}

/// PostgreSQL could not be found or a program of it failed.
#[derive(Debug, thiserror::Error)]
pub enum PostmasterError {
    /// Nothing fit to run is installed.
    #[error(
        "no PostgreSQL {wanted} found in {searched}; install it (Debian, Ubuntu: apt-get install postgresql) or name the folder of its programs"
    )]
    NotInstalled {
        /// The versions that would do.
        wanted: String,
        /// The folders looked into.
        searched: String,
    },
    /// We are root and nobody else is there to run the server.
    #[error("PostgreSQL refuses to run as root, and this machine has no account named {}", ACCOUNTS.join(" or "))]
    NoAccount,
    /// A program could not be run at all.
    #[error("cannot run {program}: {source}")]
    Spawn {
        /// Its path.
        program: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A program ran and failed.
    #[error("{program} failed: {output}")]
    Failed {
        /// Its path.
        program: PathBuf,
        /// What it wrote, or how it ended.
        output: String,
    },
}

impl Programs {
    /// Finds the newest PostgreSQL of at least [`MAJOR_MIN`], or exactly `major`.
    ///
    /// Looks only into `bin` when that is given; else into the packaged places, then along `PATH`; of equals, the first.
    pub fn find(bin: Option<&Path>, major: Option<u32>) -> Result<Self, PostmasterError> {
        let places: Vec<PathBuf> = match bin {
            Some(bin) => vec![bin.to_owned()],
            None => packaged().into_iter().chain(along_path()).collect(),
        };
        places
            .iter()
            .filter_map(|bin| Self::at(bin))
            .filter(|found| major.map_or(found.major >= MAJOR_MIN, |major| found.major == major))
            // Of equals the last is taken, and that shall be the first of the places.
            .rev()
            .max_by_key(|found| found.major)
            .ok_or_else(|| PostmasterError::NotInstalled {
                wanted: major.map_or_else(
                    || format!("{MAJOR_MIN} or newer"),
                    |major| major.to_string(),
                ),
                searched: match bin {
                    Some(bin) => bin.display().to_string(),
                    None => format!("{PACKAGED}/*/bin and PATH"),
                },
            })
    }

    /// The major version.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The folder of the programs.
    pub fn folder(&self) -> &Path {
        &self.bin
    }

    /// The path of the server itself.
    pub fn postgres(&self) -> PathBuf {
        self.bin.join("postgres")
    }

    /// Makes a data folder at `data`, which must be missing or empty and belong to the account.
    ///
    /// Whoever can reach its socket is trusted, so the socket has to lie in a folder closed to others.
    pub fn initdb(
        &self,
        data: &Path,
        account: Option<&Account>,
        extra: &[&str],
    ) -> Result<(), PostmasterError> {
        let program = self.bin.join("initdb");
        let run = command(&program, account)
            .arg("-D")
            .arg(data)
            .args(["-U", SUPERUSER, "-A", "trust", "-E", "UTF8"])
            // Byte order sorts alike on every machine and survives upgrades of the C library.
            .args(["--locale=C.UTF-8", "--no-instructions"])
            .args(extra)
            .output()
            .map_err(|source| PostmasterError::Spawn {
                program: program.clone(),
                source,
            })?;
        if run.status.success() {
            return Ok(());
        }
        Err(PostmasterError::Failed {
            program,
            output: String::from_utf8_lossy(&run.stderr).trim().to_owned(),
        })
    }

    fn at(bin: &Path) -> Option<Self> {
        let run = Command::new(bin.join("postgres"))
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .ok()?;
        let version = String::from_utf8(run.stdout).ok()?;
        Some(Self {
            bin: bin.to_owned(),
            major: major_of(&version)?,
        })
        .filter(|found| found.bin.join("initdb").exists())
    }
}

impl Account {
    /// The account to run a server under: `None` is the caller's own.
    pub fn for_server() -> Result<Option<Self>, PostmasterError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let known = fs::read_to_string("/etc/passwd").unwrap_or_default();
        ACCOUNTS
            .iter()
            .find_map(|name| Self::among(&known, name))
            .map(Some)
            .ok_or(PostmasterError::NoAccount)
    }

    fn among(passwd: &str, name: &str) -> Option<Self> {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let found = fields.next()? == name;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            (found && uid != 0).then(|| Self {
                name: name.to_owned(),
                uid,
                gid,
            })
        })
    }
}

/// A program to be run under `account`, knowing nothing of the caller's environment and folder.
pub fn command(program: impl AsRef<OsStr>, account: Option<&Account>) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("LC_ALL", "C.UTF-8")
        // The account may not be able to read where we stand.
        .current_dir("/")
        .stdin(Stdio::null());
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
    command
}

/// The arguments that make `postgres` serve `data` through a socket in `socket_dir` and nothing else.
///
/// Settings given here win over those in the data folder's own files.
pub fn serving(data: &Path, socket_dir: &Path, settings: &[(&str, &str)]) -> Vec<OsString> {
    let place = socket_dir.display().to_string();
    let port = PORT.to_string();
    let ours = [
        ("listen_addresses", ""),
        ("unix_socket_directories", place.as_str()),
        ("unix_socket_permissions", "0700"),
        ("port", port.as_str()),
    ];
    let mut arguments = vec!["-D".into(), data.into()];
    for (name, value) in settings.iter().chain(&ours) {
        arguments.push("-c".into());
        arguments.push(format!("{name}={value}").into());
    }
    arguments
}

/// Tells whether a folder can hold the socket: its path is short, and needs no quoting anywhere.
pub fn can_hold_socket(folder: &Path) -> bool {
    let path = folder.join(format!(".s.PGSQL.{PORT}"));
    let path = path.as_os_str().as_bytes();
    path.len() <= SOCKET_PATH_MAX_BYTES
        && path
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(byte))
}

/// The process that notes itself in `data` as the server, running or not.
pub fn noted_pid(data: &Path) -> Option<u32> {
    note(data)?.lines().next()?.trim().parse().ok()
}

/// The process that serves `data` and takes connections, by its own note.
///
/// A killed server leaves its note behind: the pid has to be one that the caller knows to be alive.
pub fn ready_pid(data: &Path) -> Option<u32> {
    (note(data)?.lines().nth(7).map(str::trim) == Some("ready"))
        .then(|| noted_pid(data))
        .flatten()
}

fn note(data: &Path) -> Option<String> {
    fs::read_to_string(data.join(NOTE)).ok()
}

/// The address of `database` behind the socket in `socket_dir`, as `role`.
pub fn url(socket_dir: &Path, role: &str, database: &str) -> String {
    format!(
        "postgres://{role}@localhost:{PORT}/{database}?host={}",
        socket_dir.display()
    )
}

fn packaged() -> Vec<PathBuf> {
    let Ok(versions) = fs::read_dir(PACKAGED) else {
        return Vec::new();
    };
    versions
        .filter_map(Result::ok)
        .map(|version| version.path().join("bin"))
        .collect()
}

fn along_path() -> Vec<PathBuf> {
    std::env::var_os("PATH")
        .map(|path| {
            std::env::split_paths(&path)
                .filter(|bin| bin.join("postgres").exists())
                .collect()
        })
        .unwrap_or_default()
}

/// Reads the `15` of `postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)` and of `… 19devel`.
fn major_of(version: &str) -> Option<u32> {
    let number = version.strip_prefix("postgres (PostgreSQL) ")?;
    let end = number
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(number.len());
    number[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_postgres_says_of_itself() {
        for (version, major) in [
            (
                "postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n",
                Some(15),
            ),
            ("postgres (PostgreSQL) 19devel\n", Some(19)),
            ("postgres (PostgreSQL) 18\n", Some(18)),
            ("postgres (EnterpriseDB) 18\n", None),
            ("", None),
        ] {
            assert_eq!(major_of(version), major, "{version:?}");
        }
    }

    #[test]
    fn an_account_is_found_by_its_whole_name_and_never_is_root() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody2:x:7:7::/:\nnobody:x:65534:65533::/:\nodd:x:0:0::/:\n";
        let nobody = Account::among(passwd, "nobody").expect("is there");
        assert_eq!((nobody.uid, nobody.gid), (65534, 65533));
        assert_eq!(Account::among(passwd, "postgres"), None);
        assert_eq!(Account::among(passwd, "odd"), None);
    }
}
