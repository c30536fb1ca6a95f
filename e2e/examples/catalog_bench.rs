//! Measures a big catalog through the public door of the real binary on its embedded PostgreSQL: how fast products are
//! imported, how fast some of them are found, how fast one page is shown again and again, and how fast people log in, with
//! what each costs all processes in CPU time.
//!
//! `catalog_bench` starts a server of its own, writes a product file, has the binary import it, then asks in closed loops, a
//! kind of question after the other. Searches are those of staff, who read past what is kept in memory. Where there is an
//! nginx it serves the page's bytes from a file, for comparison.

use std::{
    fmt::Write as _,
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use holdfast_e2e::{Door, Operator, Role, cpu, server::Server, wait};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;

/// Everything between these lines is replaced; what stands around them is written by hand.
const BEGIN: &str = "<!-- measured: catalog -->\n";
const END: &str = "<!-- end of the measured: catalog -->";

/// Where distributions keep what survives a restart, that is: on a disk.
const PLACE: &str = "/var/tmp";
const NAME: &str = "holdfast";

const COLOURS: [&str; 12] = [
    "red", "blue", "green", "white", "black", "indigo", "amber", "ivory", "olive", "coral", "grey",
    "pink",
];
const MATERIALS: [&str; 16] = [
    "cotton", "linen", "merino", "oak", "walnut", "steel", "brass", "ceramic", "glass", "leather",
    "bamboo", "silk", "wool", "copper", "paper", "stone",
];
const THINGS: [&str; 24] = [
    "shirt", "jacket", "sweater", "mug", "teapot", "lamp", "chair", "table", "notebook", "pen",
    "soap", "towel", "blanket", "basket", "vase", "clock", "mirror", "shelf", "kettle", "bottle",
    "wallet", "scarf", "hat", "candle",
];

/// A kind of query: its name, and the query string of the so-manieth of it among so many products.
type Kind = (&'static str, fn(usize, usize) -> String);

const KINDS: [Kind; 7] = [
    ("one product by its sku", |at, products| {
        format!("q=BENCH-{}", at * 7_919 % products)
    }),
    ("three words", |at, _| {
        format!(
            "q={}+{}+{}",
            COLOURS[at % COLOURS.len()],
            MATERIALS[at / 3 % MATERIALS.len()],
            THINGS[at / 7 % THINGS.len()]
        )
    }),
    ("a word and the beginning of another", |at, _| {
        format!(
            "q={}+{}",
            MATERIALS[at % MATERIALS.len()],
            &THINGS[at % THINGS.len()][..2]
        )
    }),
    ("a misspelt word and another", |at, _| {
        let word = THINGS[at % THINGS.len()];
        let (head, tail) = word.split_at(word.len() - 2);
        let swapped: String = tail.chars().rev().collect();
        format!("q={}+{head}{swapped}", MATERIALS[at % MATERIALS.len()])
    }),
    ("a word that a twelfth has, with its facets", |at, _| {
        format!("q={}&facets=true", COLOURS[at % COLOURS.len()])
    }),
    ("a category, newest first", |at, _| {
        format!("category={}", THINGS[at % THINGS.len()])
    }),
    ("a category, by price", |at, _| {
        format!("category={}&sort=price", THINGS[at % THINGS.len()])
    }),
];

/// The page that is shown again and again.
const PAGE: &str = "/v1/products?facets=false";
/// Times it is shown, of each search that is made.
const PAGES_OF_A_SEARCH: usize = 20;
/// Times somebody logs in, of each search that is made: passwords are slow on purpose.
const SEARCHES_OF_A_LOGIN: usize = 10;
/// How long nginx may take to serve.
const NGINX_MAX: Duration = Duration::from_secs(10);

/// Measures a big catalog through the public door.
#[derive(Parser)]
struct Args {
    /// A few products and searches: that it runs, not how fast
    #[arg(long)]
    smoke: bool,
    /// Document that takes up the figures in their place; a smoke run writes nothing
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// What the document shall say of when and what: a date, a commit
    #[arg(long, value_name = "TEXT", default_value = "")]
    noted: String,
    /// Products that are imported
    #[arg(long, default_value_t = 100_000)]
    products: usize,
    /// Searches of each kind
    #[arg(long, default_value_t = 1_000)]
    searches: usize,
    /// Buyers who search, each in a closed loop
    #[arg(long, default_value_t = 4)]
    callers: usize,
}

/// What it came to.
struct Measured {
    /// Elapsed, and CPU.
    import: (Duration, Duration),
    searches: Vec<Series>,
    /// One page, as it is read and as it is kept; and as nginx serves the same bytes, where there is one.
    pages: Vec<Series>,
    page_bytes: usize,
    logins: Series,
}

/// An installation on a folder of its own.
struct Installation {
    folder: TempDir,
    operator: Operator,
    server: Server,
}

/// What a series of one kind came to.
struct Series {
    name: String,
    count: usize,
    elapsed: Duration,
    /// Rising.
    latencies: Vec<Duration>,
    /// Of the server and everything below it, PostgreSQL too.
    cpu: Duration,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // Whoever was first chose the same.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let (products, searches, callers) = if args.smoke {
        (100, 8, 2)
    } else {
        (args.products, args.searches, args.callers)
    };
    let mut installation = Installation::start().await?;
    let measured = measure(&installation, products, searches, callers).await;
    let status = installation.server.terminate().await?;
    ensure!(status.success(), "the server ended with {status}");
    let measured = measured?;
    if args.smoke {
        say("everything was imported and found; the figures mean nothing");
        return Ok(());
    }
    let page = page(products, &measured, callers, &args.noted);
    say(&page);
    match args.write {
        Some(document) => write(&document, &page),
        None => Ok(()),
    }
}

/// Imports, searches, looks at a page, logs in.
async fn measure(
    installation: &Installation,
    products: usize,
    searches: usize,
    callers: usize,
) -> anyhow::Result<Measured> {
    let file = installation.folder.path().join("products.csv");
    fs::write(&file, shop(products)?)?;
    let server = installation.server.pid();
    let (before, started) = (cpu::of_tree(server)?, Instant::now());
    let file = file.display().to_string();
    let operator = installation.operator.clone();
    let imported =
        tokio::task::spawn_blocking(move || operator.done(&["import", "products", &file]));
    imported.await??;
    let import = (
        started.elapsed(),
        cpu::of_tree(server)?.saturating_sub(before),
    );
    let url = installation.server.ready.url.as_deref();
    let public = Door::new(url.context("the server has a public door")?);
    let staff = installation.operator.mint(Role::Staff, 1)?;
    let staff = public.with_token(staff.first().context("a token")?);
    let (few, crowd) = (products < 10_000, Crowd { callers, server });
    let mut found = Vec::new();
    for (name, query) in KINDS {
        let ask = move |door: Door, at: usize| async move {
            let query = query(at, products);
            let facets = if query.contains("facets") {
                ""
            } else {
                "&facets=false"
            };
            let found = door.read(&format!("/v1/products?{query}{facets}")).await?;
            ensure!(few || found["data"][0].is_object(), "{query} finds nothing");
            Ok(())
        };
        // Once to warm up.
        crowd.asks(name, &staff, searches / 4, ask).await?;
        found.push(crowd.asks(name, &staff, searches, ask).await?);
    }
    let page = public.get(PAGE).await?;
    ensure!(page.status == 200, "{page:?}");
    let times = searches * PAGES_OF_A_SEARCH;
    let mut pages = Vec::new();
    for (name, door) in [
        ("read from the tables", &staff),
        ("kept in memory", &public),
    ] {
        crowd.asks(name, door, times / 4, look(PAGE)).await?;
        pages.push(crowd.asks(name, door, times, look(PAGE)).await?);
    }
    if let Some(nginx) = Nginx::start(installation.folder.path(), &page.bytes).await? {
        let name = "the same bytes, a file of nginx";
        let crowd = Crowd {
            callers,
            server: nginx.process.id(),
        };
        crowd.asks(name, &nginx.door, times / 4, look("/")).await?;
        pages.push(crowd.asks(name, &nginx.door, times, look("/")).await?);
    } else {
        say("no nginx here (package nginx-light): nothing to compare the kept page with");
    }
    let account = json!({"email": "bench@holdfast.example", "password": "a long way to Tipperary", "name": "B"});
    public
        .post_without_key("/v1/users/register", &account)
        .await?
        .is(201)?;
    let log_in = |door: Door, _| async move {
        let login =
            json!({"email": "bench@holdfast.example", "password": "a long way to Tipperary"});
        let answer = door.post_without_key("/v1/users/login", &login).await?;
        answer.is(200).map(drop)
    };
    let logins = (searches / SEARCHES_OF_A_LOGIN).max(1);
    Ok(Measured {
        import,
        searches: found,
        pages,
        page_bytes: page.bytes.len(),
        logins: crowd.asks("log in", &public, logins, log_in).await?,
    })
}

/// Looks at what has to be there, without reading it.
fn look(
    path: &'static str,
) -> impl Fn(Door, usize) -> futures::future::BoxFuture<'static, anyhow::Result<()>> + Copy {
    move |door, _| {
        Box::pin(async move {
            let answer = door.get(path).await?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(())
        })
    }
}

/// Callers in closed loops, and whom they ask.
#[derive(Clone, Copy)]
struct Crowd {
    callers: usize,
    server: u32,
}

impl Crowd {
    /// So many questions of one kind.
    async fn asks<F>(
        self,
        name: &str,
        door: &Door,
        count: usize,
        ask: impl Fn(Door, usize) -> F + Copy + Send + Sync + 'static,
    ) -> anyhow::Result<Series>
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (before, started) = (cpu::of_tree(self.server)?, Instant::now());
        let next = Arc::new(AtomicUsize::new(0));
        let mut asking = JoinSet::new();
        for _ in 0..self.callers {
            let (door, next) = (door.reconnected(), next.clone());
            asking.spawn(async move {
                let mut latencies = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return anyhow::Ok(latencies);
                    }
                    let asked = Instant::now();
                    ask(door.clone(), number).await?;
                    latencies.push(asked.elapsed());
                }
            });
        }
        let mut latencies = Vec::with_capacity(count);
        while let Some(asked) = asking.join_next().await {
            latencies.append(&mut asked??);
        }
        latencies.sort_unstable();
        Ok(Series {
            name: name.to_owned(),
            count,
            elapsed: started.elapsed(),
            latencies,
            cpu: cpu::of_tree(self.server)?.saturating_sub(before),
        })
    }
}

/// An nginx that serves one file; it ends with this.
struct Nginx {
    process: Child,
    door: Door,
}

impl Nginx {
    /// None where there is no nginx.
    async fn start(folder: &Path, bytes: &[u8]) -> anyhow::Result<Option<Self>> {
        let folder = folder.join("nginx");
        fs::create_dir_all(folder.join("site"))?;
        fs::write(folder.join("site/page.json"), bytes)?;
        // It cannot be asked for any free port.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let place = folder.display();
        let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let mut temporary = String::new();
        for kind in kinds {
            writeln!(temporary, "    {kind}_temp_path {place}/{kind};")?;
        }
        let settings = format!(
            "worker_processes auto;\ndaemon off;\npid {place}/pid;\nevents {{}}\nhttp {{\n    access_log off;\n{temporary}    \
             server {{\n        listen {address};\n        default_type application/json;\n        root {place}/site;\n        \
             location / {{ try_files /page.json =404; }}\n    }}\n}}\n"
        );
        let file = folder.join("nginx.conf");
        fs::write(&file, settings)?;
        let started = Command::new("nginx")
            .arg("-p")
            .arg(&folder)
            .arg("-e")
            .arg(folder.join("errors"))
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = match started {
            Ok(process) => process,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => bail!("start nginx: {error}"),
        };
        let nginx = Self {
            process,
            door: Door::new(&format!("http://{address}")),
        };
        wait::until("nginx serves", NGINX_MAX, async || {
            let answer = nginx.door.get("/").await;
            Ok(answer.ok().filter(|answer| answer.bytes == bytes).map(drop))
        })
        .await?;
        Ok(Some(nginx))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Asked to, it ends its workers too; killed, it would leave them.
        let asked = Command::new("kill")
            .arg(self.process.id().to_string())
            .status();
        asked.and_then(|_| self.process.wait()).ok();
    }
}

/// A product file: every thing in every material and colour, over and over.
fn shop(products: usize) -> anyhow::Result<String> {
    let mut text =
        String::from("sku,product,name,description,category,options,price,currency,stock,image\n");
    for at in 0..products {
        let colour = COLOURS[at % COLOURS.len()];
        let material = MATERIALS[at / COLOURS.len() % MATERIALS.len()];
        let thing = THINGS[at / (COLOURS.len() * MATERIALS.len()) % THINGS.len()];
        writeln!(
            text,
            "BENCH-{at},{colour} {material} {thing} {at},,\"A {thing} of {material}, made by hand and sent in a box.\",\
             {thing},color={colour},{},JPY,5,",
            100 + at * 37 % 20_000
        )?;
    }
    Ok(text)
}

impl Installation {
    async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("holdfast-bench-")
            .tempdir_in(PLACE)
            .with_context(|| format!("make a folder in {PLACE}"))?;
        // PostgreSQL does not run as root; its account has to get through.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let unlimited = "HOLDFAST_GATEWAY__RATE_LIMIT__ENABLED".to_owned();
        let operator =
            Operator::of(&folder.path().join("data"))?.with(&[(unlimited, "false".to_owned())]);
        let mut command = operator.command();
        command.args(["serve", "--listen", "127.0.0.1:0"]);
        command.args(["--internal-listen", "127.0.0.1:0"]);
        let server = Server::start(NAME, folder.path(), command).await?;
        Ok(Self {
            folder,
            operator,
            server,
        })
    }
}

fn page(products: usize, measured: &Measured, callers: usize, noted: &str) -> String {
    let noted = if noted.is_empty() {
        String::new()
    } else {
        format!("; {noted}")
    };
    let (elapsed, cpu) = measured.import;
    let mut page = format!(
        "- {products} products of one variant each, imported by `holdfast import products`: {:.0} rows/s, {:.2} ms of CPU \
         a row of all the server's processes and PostgreSQL{noted}\n\
         - everything by {callers} callers at once; searches are answered 20 products, and past what is kept in memory\n\n",
        products as f64 / elapsed.as_secs_f64(),
        cpu.as_secs_f64() * 1e3 / products.max(1) as f64,
    );
    table(&mut page, "query", &measured.searches);
    let title = format!("one page of 20 products, {} bytes", measured.page_bytes);
    table(&mut page, &title, &measured.pages);
    table(&mut page, "people", std::slice::from_ref(&measured.logins));
    page
}

fn table(page: &mut String, title: &str, series: &[Series]) {
    writeln!(
        page,
        "\n| {title} | a second | p50 | p99 | CPU of one, all processes and PostgreSQL |\n|---|---|---|---|---|"
    )
    .expect("memory");
    for kind in series {
        let at = |share: f64| {
            let place = (kind.latencies.len() as f64 * share) as usize;
            let found = kind.latencies.get(place).copied().unwrap_or_default();
            found.as_secs_f64() * 1e3
        };
        writeln!(
            page,
            "| {} | {:.0} | {:.2} ms | {:.2} ms | {:.3} ms |",
            kind.name,
            kind.count as f64 / kind.elapsed.as_secs_f64(),
            at(0.50),
            at(0.99),
            kind.cpu.as_secs_f64() * 1e3 / kind.count.max(1) as f64,
        )
        .expect("memory");
    }
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
