//! Measures whole checkouts through the public door of the real binary on its embedded PostgreSQL: how many, how fast,
//! what each costs all processes in CPU time, and how many statements.
//!
//! `checkout_bench` starts a server of its own, stocks a shop, buys, and audits. CPU is counted without any instrument in
//! the database; for the statements the server is started a second time, with `pg_stat_statements` where that is
//! installed.

use std::{
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use holdfast_e2e::{Door, Operator, Role, cpu, server::Server};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, Row};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// Everything between these lines is replaced; what stands around them is written by hand.
const BEGIN: &str = "<!-- measured: checkout -->\n";
const END: &str = "<!-- end of the measured: checkout -->";

/// Where distributions keep what survives a restart, that is: on a disk.
const PLACE: &str = "/var/tmp";
const NAME: &str = "holdfast";
/// SKUs of the shop.
const VARIANTS: usize = 100;
/// More than anybody buys.
const STOCK: i64 = 1_000_000;
/// SKUs of a basket, one unit each.
const LINES: usize = 2;
/// After the last answer: messages are carried and heard, which belongs to the checkouts too.
const AFTERMATH: Duration = Duration::from_secs(1);
/// How long after the last checkout a server is taken to be idle, and how long it is watched then.
const IDLE_SETTLING: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(20);
/// How much of a statement is printed.
const QUERY_SHOWN_CHARS: usize = 150;
/// CPU of a checkout, in milliseconds: what the project set itself.
const MUST_MILLIS: f64 = 2.0;
const AIM_MILLIS: f64 = 0.7;

/// Measures whole checkouts through the public door.
#[derive(Parser)]
struct Args {
    /// A few checkouts: that it runs, not how fast
    #[arg(long)]
    smoke: bool,
    /// Document that takes up the figures in their place; a smoke run writes nothing
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// What the document shall say of when and what: a date, a commit
    #[arg(long, value_name = "TEXT", default_value = "")]
    noted: String,
    /// Checkouts that are measured
    #[arg(long, default_value_t = 5_000)]
    checkouts: usize,
    /// Buyers, each in a closed loop
    #[arg(long, default_value_t = 32)]
    callers: usize,
    /// Prints the most frequent statements of a checkout as well, and those of a server that nobody asks anything
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    top: i64,
}

/// An installation on a folder of its own.
struct Installation {
    folder: TempDir,
    operator: Operator,
    server: Server,
}

/// People at a stocked shop.
struct Shop {
    buyers: Vec<Door>,
    skus: Arc<Vec<String>>,
}

/// What a series of checkouts came to.
struct Series {
    checkouts: usize,
    elapsed: Duration,
    /// Rising.
    latencies: Vec<Duration>,
    /// Of the server and everything below it, PostgreSQL too.
    server_cpu: Duration,
    client_cpu: Duration,
}

/// Statements of one role, per checkout.
struct Statements {
    role: String,
    work: f64,
    transactions: f64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // Whoever was first chose the same.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let (checkouts, callers) = if args.smoke {
        (20, 4)
    } else {
        (args.checkouts, args.callers)
    };
    let mut installation = Installation::start().await?;
    let measured = measure(&mut installation, checkouts, callers, args.top).await;
    installation.stop().await?;
    let (series, statements) = measured?;
    if args.smoke {
        say("every checkout was confirmed, the audit is clean; the figures mean nothing");
        return Ok(());
    }
    let page = page(&series, &statements, callers, &args.noted);
    say(&page);
    match args.write {
        Some(document) => write(&document, &page),
        None => Ok(()),
    }
}

async fn measure(
    installation: &mut Installation,
    checkouts: usize,
    callers: usize,
    top: i64,
) -> anyhow::Result<(Series, Vec<Statements>)> {
    let shop = installation.open(callers).await?;
    shop.buy(checkouts / 10, installation.server.pid()).await?;
    let series = shop.buy(checkouts, installation.server.pid()).await?;
    let statements = match installation.instrument().await? {
        Some(mut book) => {
            let shop = installation.open(callers).await?;
            shop.buy(checkouts / 10, installation.server.pid()).await?;
            sqlx::query("SELECT pg_stat_statements_reset()")
                .execute(&mut book)
                .await?;
            let counted = shop.buy(checkouts, installation.server.pid()).await?;
            let statements = statements(&mut book, counted.checkouts).await?;
            if top > 0 {
                say_most_frequent(&mut book, "checkout", checkouts as f64, top).await?;
                say_idle(&mut book, top).await?;
            }
            statements
        }
        None => Vec::new(),
    };
    let audit = installation.operator.audit()?;
    ensure!(audit.clean, "audit: {}", json!(audit.findings));
    Ok((series, statements))
}

impl Installation {
    async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("holdfast-bench-")
            .tempdir_in(PLACE)
            .with_context(|| format!("make a folder in {PLACE}"))?;
        // PostgreSQL does not run as root; its account has to get through.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let unlimited = ("HOLDFAST_GATEWAY__RATE_LIMIT__ENABLED", "false");
        let operator = Operator::of(&folder.path().join("data"))?
            .with(&[(unlimited.0.to_owned(), unlimited.1.to_owned())]);
        let server = serve(&operator, folder.path()).await?;
        Ok(Self {
            folder,
            operator,
            server,
        })
    }

    /// Stocks a shop and finds people for it.
    async fn open(&self, callers: usize) -> anyhow::Result<Shop> {
        let url = self.server.ready.url.as_deref();
        let door = Door::new(url.context("the server has a public door")?);
        let admin = self.operator.mint(Role::Admin, 1)?;
        let admin = door.with_token(admin.first().context("one was asked for")?);
        let series = holdfast_kernel::RequestId::generate().uuid().simple();
        let series = series.to_string().to_uppercase();
        let skus: Vec<String> = (0..VARIANTS)
            .map(|number| format!("BENCH-{series}-{number}"))
            .collect();
        let variants: Vec<Value> = skus
            .iter()
            .enumerate()
            .map(|(number, sku)| {
                json!({
                    "sku": sku,
                    "options": {"number": number.to_string()},
                    "price": {"amount": 1_250, "currency": "JPY"},
                    "stock": STOCK,
                })
            })
            .collect();
        let product = json!({"name": "A thing", "currency": "JPY", "variants": variants});
        admin.post("/v1/products", &product).await?.is(201)?;
        let tokens = self.operator.mint(Role::User, callers)?;
        Ok(Shop {
            buyers: tokens.iter().map(|token| door.with_token(token)).collect(),
            skus: Arc::new(skus),
        })
    }

    /// Starts the server again with a database that counts statements, if it has what it needs for that.
    async fn instrument(&mut self) -> anyhow::Result<Option<PgConnection>> {
        let mut book = self.book().await?;
        let available: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements')",
        )
        .fetch_one(&mut book)
        .await?;
        book.close().await?;
        if !available {
            return Ok(None);
        }
        self.server.terminate().await?;
        let settings = self.postgres_file("PG_VERSION")?;
        OpenOptions::new()
            .append(true)
            .open(settings.with_file_name("postgresql.auto.conf"))?
            .write_all(b"shared_preload_libraries = 'pg_stat_statements'\n")?;
        self.server = serve(&self.operator, self.folder.path()).await?;
        let mut book = self.book().await?;
        sqlx::query("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            .execute(&mut book)
            .await?;
        Ok(Some(book))
    }

    /// The whole database, as its superuser.
    async fn book(&self) -> anyhow::Result<PgConnection> {
        let text = fs::read_to_string(self.postgres_file("postmaster.pid")?)?;
        let lines: Vec<&str> = text.lines().collect();
        let [_, _, _, port, socket, ..] = lines.as_slice() else {
            bail!("postmaster.pid is {text:?}");
        };
        let url = format!("postgres://postgres@localhost:{port}/holdfast?host={socket}");
        Ok(PgConnection::connect(&url).await?)
    }

    /// A file of the embedded database's own folder.
    fn postgres_file(&self, name: &str) -> anyhow::Result<PathBuf> {
        let data = self.folder.path().join("data");
        for entry in fs::read_dir(&data)? {
            let file = entry?.path().join(name);
            if file.is_file() {
                return Ok(file);
            }
        }
        bail!("no {name} below {}", data.display())
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        let status = self.server.terminate().await?;
        ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }
}

async fn serve(operator: &Operator, folder: &Path) -> anyhow::Result<Server> {
    let mut command = operator.command();
    command.args(["serve", "--listen", "127.0.0.1:0"]);
    command.args(["--internal-listen", "127.0.0.1:0"]);
    Server::start(NAME, folder, command).await
}

impl Shop {
    /// So many checkouts, each of which has to be confirmed.
    async fn buy(&self, checkouts: usize, server: u32) -> anyhow::Result<Series> {
        let this = std::process::id();
        let before = (cpu::of_tree(server)?, cpu::of_tree(this)?);
        let started = Instant::now();
        let next = Arc::new(AtomicUsize::new(0));
        let mut buying = JoinSet::new();
        for buyer in &self.buyers {
            let (buyer, next, skus) = (buyer.clone(), next.clone(), self.skus.clone());
            buying.spawn(async move {
                let mut latencies = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= checkouts {
                        return anyhow::Ok(latencies);
                    }
                    let asked = Instant::now();
                    check_out(&buyer, &skus, number).await?;
                    latencies.push(asked.elapsed());
                }
            });
        }
        let mut latencies = Vec::with_capacity(checkouts);
        while let Some(bought) = buying.join_next().await {
            latencies.append(&mut bought??);
        }
        let elapsed = started.elapsed();
        tokio::time::sleep(AFTERMATH).await;
        latencies.sort_unstable();
        // The server is a child of this process and counted with it.
        let server_cpu = cpu::of_tree(server)?.saturating_sub(before.0);
        let both = cpu::of_tree(this)?.saturating_sub(before.1);
        Ok(Series {
            checkouts: latencies.len(),
            elapsed,
            latencies,
            server_cpu,
            client_cpu: both.saturating_sub(server_cpu),
        })
    }
}

async fn check_out(buyer: &Door, skus: &[String], number: usize) -> anyhow::Result<()> {
    let items: Vec<Value> = (0..LINES)
        .map(|line| json!({"sku": skus[(number + line * 7) % skus.len()], "quantity": 1}))
        .collect();
    let card = json!({"type": "card", "token": "sandbox_ok"});
    let body = json!({"items": items, "payment_method": card});
    let order = buyer.post("/v1/orders", &body).await?.is(201)?;
    ensure!(order["status"] == "confirmed", "got {order}");
    Ok(())
}

/// Statements since the last reset, by the role that sent them.
async fn statements(book: &mut PgConnection, checkouts: usize) -> anyhow::Result<Vec<Statements>> {
    let rows = sqlx::query(
        "SELECT rolname::text,
                (coalesce(sum(calls) FILTER (WHERE query !~* '^(begin|commit|rollback|start transaction)'), 0))::float8,
                (coalesce(sum(calls) FILTER (WHERE query ~* '^(begin|start transaction)'), 0))::float8
         FROM pg_stat_statements JOIN pg_roles ON pg_roles.oid = userid
         WHERE rolname LIKE '%\\_app' GROUP BY rolname ORDER BY 2 DESC",
    )
    .fetch_all(book)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Statements {
                role: row.try_get(0)?,
                work: row.try_get::<f64, _>(1)? / checkouts as f64,
                transactions: row.try_get::<f64, _>(2)? / checkouts as f64,
            })
        })
        .collect()
}

/// Counts what a server does that nobody asks anything.
async fn say_idle(book: &mut PgConnection, top: i64) -> anyhow::Result<()> {
    tokio::time::sleep(IDLE_SETTLING).await;
    sqlx::query("SELECT pg_stat_statements_reset()")
        .execute(&mut *book)
        .await?;
    tokio::time::sleep(IDLE).await;
    say_most_frequent(book, "idle second", IDLE.as_secs_f64(), top).await
}

/// Prints the statements that were sent most often since the last reset, all roles together on top.
async fn say_most_frequent(
    book: &mut PgConnection,
    unit: &str,
    units: f64,
    top: i64,
) -> anyhow::Result<()> {
    let rows = sqlx::query(
        "SELECT coalesce(rolname, 'all')::text, coalesce(regexp_replace(query, '\\s+', ' ', 'g'), '')::text,
                sum(calls)::float8, sum(total_exec_time)
         FROM pg_stat_statements JOIN pg_roles ON pg_roles.oid = userid
         WHERE rolname LIKE '%\\_app'
         GROUP BY GROUPING SETS ((), (rolname, query)) ORDER BY 3 DESC LIMIT $1",
    )
    .bind(top)
    .fetch_all(book)
    .await?;
    let mut text = format!("statements and milliseconds of execution, each {unit}\n");
    for row in rows {
        let (role, query): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let (calls, millis): (f64, f64) = (row.try_get(2)?, row.try_get(3)?);
        let begin: String = query.chars().take(QUERY_SHOWN_CHARS).collect();
        writeln!(
            text,
            "{:7.3} {:8.4} {role:18} {begin}",
            calls / units,
            millis / units
        )
        .expect("memory");
    }
    say(&text);
    Ok(())
}

fn page(series: &Series, statements: &[Statements], callers: usize, noted: &str) -> String {
    let millis = |time: Duration| time.as_secs_f64() * 1e3 / series.checkouts.max(1) as f64;
    let at = |share: f64| {
        let place = (series.latencies.len() as f64 * share) as usize;
        series.latencies.get(place).copied().unwrap_or_default()
    };
    let cpu = millis(series.server_cpu);
    let verdict = if cpu <= MUST_MILLIS {
        "met"
    } else {
        "**missed**"
    };
    let mut page = format!(
        "- {} checkouts of {LINES} lines by {callers} buyers, every one confirmed, audit clean{}\n\n\
         | figure | measured | must | aim | |\n|---|---|---|---|---|\n\
         | CPU of a checkout, all processes and PostgreSQL, the buyers' own left out | {cpu:.2} ms | ≤ {MUST_MILLIS} ms | {AIM_MILLIS} ms | {verdict} |\n\
         | checkouts/s | {:.0} | | | |\n\
         | p50 / p99 | {:.0} / {:.0} ms | | | |\n\
         | CPU of the buyers, a checkout | {:.2} ms | | | |\n",
        series.checkouts,
        if noted.is_empty() {
            String::new()
        } else {
            format!("; {noted}")
        },
        series.checkouts as f64 / series.elapsed.as_secs_f64(),
        at(0.50).as_secs_f64() * 1e3,
        at(0.99).as_secs_f64() * 1e3,
        millis(series.client_cpu),
    );
    if statements.is_empty() {
        page.push_str("\nStatements were not counted: pg_stat_statements is not installed.\n");
        return page;
    }
    page.push_str(
        "\nStatements a checkout, by the role that sends them; those of relays and consumers, which carry many at once, \
         are in it.\n\n| role | statements | explicit transactions |\n|---|---|---|\n",
    );
    let mut sums = (0.0, 0.0);
    for Statements {
        role,
        work,
        transactions,
    } in statements
    {
        sums = (sums.0 + work, sums.1 + transactions);
        writeln!(page, "| {role} | {work:.1} | {transactions:.1} |").expect("memory");
    }
    writeln!(page, "| **all** | **{:.1}** | **{:.1}** |", sums.0, sums.1).expect("memory");
    page
}

/// Puts the page into its place in the document, whatever stood there.
fn write(document: &Path, page: &str) -> anyhow::Result<()> {
    let text =
        fs::read_to_string(document).with_context(|| format!("read {}", document.display()))?;
    let places = text.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    let (before, after) =
        places.with_context(|| format!("{} has no place for this", document.display()))?;
    fs::write(document, format!("{before}{BEGIN}\n{page}\n{END}{after}"))?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a program for the command line")]
fn say(text: &str) {
    println!("{text}");
}
