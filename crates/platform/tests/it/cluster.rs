//! The embedded PostgreSQL through everything that befalls it.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use holdfast_platform::{
    cluster::{Cluster, ClusterError, ClusterSettings, Health, Role, Secrets, check_folder},
    database,
    postmaster::{Account, command},
};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use sqlx::{Connection, PgConnection, PgPool, error::DatabaseError};
use tempfile::TempDir;
use tokio::time::timeout;

/// Generous: machines that run tests are busy. Nothing waits this long when all is well.
const BOUND_SECS: u64 = 60;
/// Names the folder to the process that is to be killed.
const OWNED_FOLDER: &str = "HOLDFAST_TEST_OWNED_FOLDER";

#[tokio::test]
async fn a_cluster_is_made_once_and_found_again_with_its_rows() {
    let folder = Folder::new();
    let cluster = folder.start().await;
    let notes = Notes::create(&cluster).await;
    notes.write("kept").await.expect("written");
    let checksums: String = scalar(&cluster, "SHOW data_checksums").await;
    assert_eq!(checksums, "on");
    for durable in ["fsync", "synchronous_commit", "full_page_writes"] {
        let setting: String = scalar(&cluster, &format!("SHOW {durable}")).await;
        assert_eq!(setting, "on", "{durable}");
    }
    notes.close().await;
    cluster.stop().await;
    assert!(!folder.note().exists(), "a stopped server leaves no note");

    let cluster = folder.start().await;
    assert_eq!(Notes::open(&cluster).await.read().await, ["kept"]);
    cluster.stop().await;
}

#[tokio::test]
async fn a_service_sees_neither_rows_nor_shape_of_another_and_rewrites_no_log() {
    let folder = Folder::new();
    let cluster = folder.start().await;
    let notes = Notes::create(&cluster).await;
    notes.write("of orders").await.expect("written");
    let stranger = PgConnection::connect(&cluster.url("payments", Role::App));
    let owner = PgConnection::connect(&cluster.url("payments", Role::Owner));
    let (mut stranger, mut owner) = (stranger.await.expect("up"), owner.await.expect("up"));
    for refused in [
        "SELECT text FROM orders.note",
        "INSERT INTO orders.note VALUES ('of payments')",
        "CREATE TABLE orders.mine ()",
        "CREATE SCHEMA mine",
        "SET ROLE orders_app",
        "ALTER ROLE payments_app SUPERUSER",
    ] {
        refused_for_lack_of_rights(&mut stranger, refused).await;
        refused_for_lack_of_rights(&mut owner, refused).await;
    }
    let mut app = notes.pool.acquire().await.expect("up");
    for refused in [
        "CREATE TABLE mine ()",
        "CREATE TEMPORARY TABLE mine ()",
        "ALTER TABLE note ADD COLUMN mine text",
        "DROP TABLE note",
        "UPDATE note SET text = 'never said'",
        "DELETE FROM note",
        "TRUNCATE note",
        "SELECT FROM payments.note",
    ] {
        refused_for_lack_of_rights(&mut app, refused).await;
    }
    drop(app);
    assert_eq!(notes.read().await, ["of orders"]);
    notes.close().await;
    cluster.stop().await;
}

#[tokio::test]
async fn services_query_again_after_the_postmaster_was_killed_with_a_backend_at_work() {
    let folder = Folder::new();
    let cluster = folder.start().await;
    let notes = Notes::create(&cluster).await;
    notes.write("before").await.expect("written");
    // A backend that computes does not notice that its postmaster is gone, and keeps a new one from starting.
    let busy = PgConnection::connect(&cluster.admin_url());
    let mut busy = busy.await.expect("up");
    let busy = tokio::spawn(async move {
        sqlx::query("DO $$ BEGIN LOOP END LOOP; END $$")
            .execute(&mut busy)
            .await
    });
    until("the backend is at work", async || {
        let at_work =
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO %' AND state = 'active'";
        scalar::<i64>(&cluster, at_work).await == 1
    })
    .await;
    let killed = folder.postmaster().expect("up");

    kill(killed, Signal::KILL);

    assert!(busy.await.expect("did not panic").is_err());
    until("another server is seen to be up", async || {
        let successor = folder.postmaster().is_some_and(|pid| pid != killed);
        successor && cluster.health() == Health::Up
    })
    .await;
    // Not earlier: backends of the killed one answer until they notice.
    until("the service writes again", async || {
        notes.write("after").await.is_ok()
    })
    .await;
    let rows = notes.read().await;
    assert_eq!(rows.first().map(String::as_str), Some("before"), "{rows:?}");
    notes.close().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_server_whose_owner_was_killed_is_stopped_and_its_rows_are_there() {
    let folder = Folder::new();
    let mut owner = folder.start_in_another_process();
    let orphan = folder.postmaster().expect("up");
    let refused = Cluster::start(&folder.path, &settings()).await;
    let refused = refused.expect_err("the owner lives").to_string();
    assert!(refused.contains(&owner.id().to_string()), "{refused}");

    owner.kill().expect("it waits for this");
    owner.wait().expect("it is our child");

    assert!(is_alive(orphan), "a server outlives the kill of its owner");
    let cluster = folder.start().await;
    assert!(!is_alive(orphan));
    assert_eq!(
        Notes::open(&cluster).await.read().await,
        ["by another process"]
    );
    cluster.stop().await;
}

#[tokio::test]
#[ignore = "is run and killed by a_server_whose_owner_was_killed_is_stopped_and_its_rows_are_there"]
async fn owns_a_cluster_until_killed() {
    let folder = std::env::var_os(OWNED_FOLDER).expect("the test names it");
    let cluster = Cluster::start(Path::new(&folder), &settings())
        .await
        .expect("starts");
    let notes = Notes::create(&cluster).await;
    notes.write("by another process").await.expect("written");
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).ok();
}

#[tokio::test]
async fn a_note_whose_pid_is_somebody_elses_by_now_harms_neither_them_nor_the_start() {
    let folder = Folder::new();
    folder.start().await.stop().await;
    // As after the power went: the note is there, the machine has given the number to another.
    let account = Account::for_server().expect("it runs");
    let mut other = command("sleep", account.as_ref())
        .arg("1000")
        .spawn()
        .expect("part of every system");
    let note = format!("{}\n{}\n", other.id(), folder.data().display());
    fs::write(folder.note(), note).expect("written");

    folder.start().await.stop().await;

    assert_eq!(other.try_wait().expect("our child"), None, "it lives");
    other.kill().expect("our child");
    other.wait().expect("our child");
}

#[tokio::test]
async fn files_that_a_killed_first_start_left_half_made_are_made_anew() {
    let folder = Folder::new();
    let unfinished = folder.path.join("postgres.new");
    fs::create_dir(&unfinished).expect("made");
    fs::write(unfinished.join("PG_VERSION"), "15").expect("written");
    let cluster = folder.start().await;
    let _: i32 = scalar(&cluster, "SELECT 1").await;
    cluster.stop().await;
    assert!(!unfinished.exists());
}

#[tokio::test]
async fn a_second_instance_is_refused_and_told_who_has_the_folder() {
    let folder = Folder::new();
    let cluster = folder.start().await;
    let refused = Cluster::start(&folder.path, &settings())
        .await
        .expect_err("one owner at a time");
    assert!(
        matches!(&refused, ClusterError::InUse { pid, .. } if *pid == Some(std::process::id())),
        "{refused}"
    );
    let _: i32 = scalar(&cluster, "SELECT 1").await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_tool_uses_the_running_server_or_else_runs_one_for_itself() {
    let folder = Folder::new();
    let empty = Cluster::attach(&folder.path, &settings()).await;
    assert!(
        matches!(empty, Err(ClusterError::Empty { .. })),
        "{empty:?}"
    );

    let cluster = folder.start().await;
    let notes = Notes::create(&cluster).await;
    notes.write("seen by tools").await.expect("written");
    let tool = Cluster::attach(&folder.path, &settings())
        .await
        .expect("attaches");
    assert_eq!(Notes::open(&tool).await.read().await, ["seen by tools"]);
    tool.stop().await;
    notes
        .write("served on")
        .await
        .expect("the server is not the tool's to stop");
    notes.close().await;
    cluster.stop().await;

    let tool = Cluster::attach(&folder.path, &settings())
        .await
        .expect("starts one");
    let rows = Notes::open(&tool).await.read().await;
    assert_eq!(rows, ["seen by tools", "served on"]);
    tool.stop().await;
    assert_eq!(folder.postmaster(), None);
}

#[tokio::test]
async fn a_dropped_cluster_lets_go_of_its_folder() {
    let folder = Folder::new();
    drop(folder.start().await);
    until("the server has ended", async || {
        folder.postmaster().is_none()
    })
    .await;
    until("the folder is free", async || {
        match Cluster::start(&folder.path, &settings()).await {
            Ok(cluster) => {
                cluster.stop().await;
                true
            }
            Err(ClusterError::InUse { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    })
    .await;
}

#[tokio::test]
async fn a_folder_of_another_major_version_is_refused_naming_both() {
    let folder = Folder::new();
    fs::create_dir(folder.data()).expect("made");
    for foreign in ["9.6", "14", "99"] {
        fs::write(folder.data().join("PG_VERSION"), format!("{foreign}\n")).expect("written");
        let refused = Cluster::start(&folder.path, &settings())
            .await
            .expect_err("a version that is not installed");
        let ClusterError::ForeignVersion { its, installed, .. } = &refused else {
            panic!("{refused}");
        };
        assert_eq!(its, foreign);
        assert!(refused.to_string().contains(&installed.to_string()));
    }
}

#[tokio::test]
async fn a_folder_that_the_servers_account_cannot_enter_is_refused_naming_the_closed_parent() {
    let folder = Folder::new();
    let closed = folder.path.join("closed");
    fs::create_dir(&closed).expect("made");
    // For root the server's account is another one; everybody else is the server's account.
    set_mode(&closed, if geteuid().is_root() { 0o700 } else { 0o000 });
    let inside = closed.join("deep/.holdfast");
    for refused in [
        Cluster::start(&inside, &settings()).await.map(drop),
        check_folder(&inside),
    ] {
        let refused = refused.expect_err("the way is closed");
        assert!(matches!(refused, ClusterError::Closed(_)), "{refused}");
        let text = refused.to_string();
        assert!(
            text.contains(&format!("enter {};", closed.display())),
            "{text}"
        );
    }
    set_mode(&closed, 0o755);
    assert!(!inside.exists(), "a refusal makes nothing");
    check_folder(&inside).expect("the way is open");
}

#[tokio::test]
async fn files_of_another_user_are_refused() {
    let folder = Folder::new();
    let cluster = folder.start().await;
    cluster.stop().await;
    if !geteuid().is_root() {
        return; // only root can give files away
    }
    std::os::unix::fs::chown(folder.data(), Some(4242), None).expect("root may");
    let refused = Cluster::start(&folder.path, &settings())
        .await
        .expect_err("not the server's files");
    assert!(
        matches!(refused, ClusterError::ForeignOwner { owner: 4242, .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn a_long_path_is_served_through_a_short_socket_that_no_other_user_can_pose_as() {
    let mut folder = Folder::new();
    folder.path = folder.path.join("long".repeat(40));
    let cluster = folder.start().await;
    let _: i32 = scalar(&cluster, "SELECT 1").await;
    let url = cluster.admin_url();
    let socket_dir = Path::new(url.split_once("host=").expect("a socket").1).to_owned();
    assert!(!socket_dir.starts_with(&folder.path));
    let found = fs::metadata(&socket_dir).expect("there");
    assert_eq!(found.mode() & 0o777, 0o700);
    assert_eq!(
        found.uid(),
        fs::metadata(folder.data()).expect("there").uid()
    );
    cluster.stop().await;

    set_mode(&socket_dir, 0o777);
    let refused = Cluster::start(&folder.path, &settings()).await.map(drop);
    assert!(
        matches!(refused, Err(ClusterError::SocketFolder { .. })),
        "open to others: {refused:?}"
    );
    fs::remove_dir(&socket_dir).expect("empty");
    symlink(&folder.path, &socket_dir).expect("linked");
    let refused = Cluster::start(&folder.path, &settings()).await.map(drop);
    assert!(
        matches!(refused, Err(ClusterError::SocketFolder { .. })),
        "a link: {refused:?}"
    );
    fs::remove_file(&socket_dir).expect("a link");

    let cluster = folder.start().await;
    cluster.stop().await;
    fs::remove_dir(&socket_dir).expect("empty");
}

#[tokio::test]
async fn a_server_that_cannot_start_is_an_error_with_the_reason_and_no_wait() {
    let folder = Folder::new();
    folder.start().await.stop().await;
    fs::remove_file(folder.data().join("global/pg_control")).expect("there");
    let refused = timeout(
        Duration::from_secs(BOUND_SECS),
        Cluster::start(&folder.path, &settings()),
    )
    .await
    .expect("no hang")
    .expect_err("nothing to start from");
    assert!(refused.to_string().contains("pg_control"), "{refused}");
    assert_eq!(folder.postmaster(), None);
}

#[tokio::test]
async fn when_the_disk_takes_no_more_nothing_is_acknowledged_that_is_not_kept_and_service_resumes()
{
    const ATTEMPTS_MAX: u32 = 10_000;
    let folder = Folder::new();
    let cluster = folder.start().await;
    let mut notes = Notes::create(&cluster).await;
    let mut acknowledged = Vec::new();
    notes.write("before").await.expect("there is room");
    acknowledged.push("before".to_owned());
    notes.close().await;
    // Every file longer than this fails to grow for the processes that the postmaster starts from now on.
    let postmaster = folder.postmaster().expect("up");
    // Asked for under the server's account, as not every root may limit the processes of others.
    let account = Account::for_server().expect("it runs");
    let limited = command("prlimit", account.as_ref())
        .args(["--fsize=262144:", "--pid", &postmaster.to_string()])
        .status();
    assert!(limited.expect("is part of util-linux").success());
    notes = Notes::open(&cluster).await;

    let mut failed = false;
    for attempt in 0..ATTEMPTS_MAX {
        let text = format!("{attempt} {}", "x".repeat(7_000));
        let written = timeout(Duration::from_secs(BOUND_SECS), notes.write(&text)).await;
        if written.expect("no write hangs").is_err() {
            failed = true;
            break;
        }
        acknowledged.push(text);
    }
    assert!(failed, "the limit was never met");

    until("the service writes again", async || {
        notes.write("after").await.is_ok()
    })
    .await;
    let rows = notes.read().await;
    for text in &acknowledged {
        assert!(rows.contains(text), "acknowledged and lost: {text:.20}");
    }
    notes.close().await;
    cluster.stop().await;
}

#[test]
fn a_secret_is_made_once_for_its_owner_alone() {
    let folder = Folder::new();
    let secrets = Secrets::load_or_create(&folder.path).expect("made");
    let again = Secrets::load_or_create(&folder.path).expect("read");
    assert_eq!(secrets.key("peers"), again.key("peers"));
    assert_ne!(secrets.key("peers"), secrets.key("replies"));
    let other = Secrets::load_or_create(&Folder::new().path).expect("made");
    assert_ne!(secrets.key("peers"), other.key("peers"));

    let file = folder.path.join("secret");
    assert_eq!(fs::metadata(&file).expect("there").mode() & 0o777, 0o600);
    assert_eq!(fs::read(&file).expect("ours").len(), 32);
    assert_eq!(fs::read_dir(&folder.path).expect("there").count(), 1);
    set_mode(&file, 0o640);
    let refused = Secrets::load_or_create(&folder.path).expect_err("open to others");
    assert!(refused.to_string().contains("0600"), "{refused}");
    set_mode(&file, 0o600);
    fs::write(&file, b"short").expect("ours");
    let refused = Secrets::load_or_create(&folder.path).expect_err("cut short");
    assert!(refused.to_string().contains("32 bytes"), "{refused}");
}

/// A data folder that does not exist yet, in a place that every account can enter.
struct Folder {
    path: PathBuf,
    _home: TempDir,
}

impl Folder {
    fn new() -> Self {
        let home = tempfile::Builder::new()
            .prefix("hf-")
            .tempdir_in("/tmp")
            .expect("/tmp can be written to");
        set_mode(home.path(), 0o755);
        Self {
            path: home.path().to_owned(),
            _home: home,
        }
    }

    async fn start(&self) -> Cluster {
        Cluster::start(&self.path, &settings())
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    fn start_in_another_process(&self) -> Child {
        let mut owner = Command::new(std::env::current_exe().expect("a test is a program"))
            .args(["--ignored", "--exact", "--nocapture"])
            .arg("cluster::owns_a_cluster_until_killed")
            .env(OWNED_FOLDER, &self.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs already");
        BufReader::new(owner.stdout.take().expect("asked for"))
            .lines()
            .map_while(Result::ok)
            .find(|line| line.contains("ready"))
            .expect("it starts");
        owner
    }

    fn data(&self) -> PathBuf {
        self.path.join("postgres")
    }

    fn note(&self) -> PathBuf {
        self.data().join("postmaster.pid")
    }

    /// The running server.
    fn postmaster(&self) -> Option<i32> {
        let note = fs::read_to_string(self.note()).ok()?;
        let pid = note.lines().next()?.parse().ok()?;
        is_alive(pid).then_some(pid)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A failed test may leave its server; the folder is about to go.
        if let Some(postmaster) = self.postmaster() {
            kill(postmaster, Signal::QUIT);
        }
    }
}

/// An append-only table of the service `orders`, beside a service `payments`.
struct Notes {
    pool: PgPool,
}

impl Notes {
    async fn create(cluster: &Cluster) -> Self {
        cluster
            .prepare(&["orders", "payments"])
            .await
            .expect("prepared");
        let mut owner = PgConnection::connect(&cluster.url("orders", Role::Owner))
            .await
            .expect("up");
        for statement in [
            "CREATE TABLE note (text text NOT NULL)",
            "REVOKE UPDATE, DELETE, TRUNCATE ON note FROM orders_app",
        ] {
            sqlx::query(statement)
                .execute(&mut owner)
                .await
                .expect("the owner may");
        }
        Self::open(cluster).await
    }

    async fn open(cluster: &Cluster) -> Self {
        let pool = database::connect(&cluster.url("orders", Role::App), 4)
            .await
            .expect("up");
        Self { pool }
    }

    async fn write(&self, text: &str) -> Result<(), sqlx::Error> {
        sqlx::query("INSERT INTO note (text) VALUES ($1)")
            .bind(text)
            .execute(&self.pool)
            .await
            .map(drop)
    }

    async fn read(&self) -> Vec<String> {
        sqlx::query_scalar("SELECT text FROM note")
            .fetch_all(&self.pool)
            .await
            .expect("the serving role may read")
    }

    async fn close(self) {
        self.pool.close().await;
    }
}

fn settings() -> ClusterSettings {
    ClusterSettings {
        shared_buffers_mb: 16,
        max_connections: 20,
        ..ClusterSettings::default()
    }
}

async fn scalar<T>(cluster: &Cluster, query: &str) -> T
where
    T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    let mut admin = PgConnection::connect(&cluster.admin_url())
        .await
        .expect("up");
    sqlx::query_scalar(sqlx::AssertSqlSafe(query.to_owned()))
        .fetch_one(&mut admin)
        .await
        .expect("the superuser may")
}

async fn refused_for_lack_of_rights(connection: &mut PgConnection, statement: &'static str) {
    let error = sqlx::query(statement)
        .execute(connection)
        .await
        .expect_err(statement);
    let code = error.as_database_error().and_then(DatabaseError::code);
    assert_eq!(code.as_deref(), Some("42501"), "{statement}: {error}");
}

/// Waits for a condition of other processes, which tell nobody when they begin or end: it is looked at again, within a bound.
async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(
            started.elapsed() < Duration::from_secs(BOUND_SECS),
            "waited in vain until {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
}

/// Whether the process runs; one that ended and was not collected yet does not.
fn is_alive(pid: i32) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok()
}

fn kill(process: i32, signal: Signal) {
    kill_process(pid(process), signal).expect("it is ours");
}

fn pid(process: i32) -> Pid {
    Pid::from_raw(process).expect("no process has number 0")
}
