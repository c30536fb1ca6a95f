//! Measures a big catalog through the public door of the real binary on its embedded PostgreSQL: how fast products are
//! imported, and how fast buyers find some of them, with what each costs all processes in CPU time.
//!
//! `catalog_bench` starts a server of its own, writes a product file, has the binary import it, then searches in closed
//! loops, a kind of query after the other.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Parser;
use holdfast_e2e::{Door, Operator, cpu, server::Server};
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

/// An installation on a folder of its own.
struct Installation {
    folder: TempDir,
    operator: Operator,
    server: Server,
}

/// What a series of one kind came to.
struct Series {
    name: &'static str,
    searches: usize,
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
    let (import, series) = measured?;
    if args.smoke {
        say("everything was imported and found; the figures mean nothing");
        return Ok(());
    }
    let page = page(products, &import, &series, callers, &args.noted);
    say(&page);
    match args.write {
        Some(document) => write(&document, &page),
        None => Ok(()),
    }
}

/// Imports, then searches; elapsed time and CPU of the import, and each kind's series.
async fn measure(
    installation: &Installation,
    products: usize,
    searches: usize,
    callers: usize,
) -> anyhow::Result<((Duration, Duration), Vec<Series>)> {
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
    let door = Door::new(url.context("the server has a public door")?);
    let mut series = Vec::new();
    for kind in KINDS {
        // Once to warm up.
        search(&door, kind, products, searches / 4, callers, server).await?;
        series.push(search(&door, kind, products, searches, callers, server).await?);
    }
    Ok((import, series))
}

/// So many searches of one kind, each of which has to find something.
async fn search(
    door: &Door,
    (name, query): Kind,
    products: usize,
    searches: usize,
    callers: usize,
    server: u32,
) -> anyhow::Result<Series> {
    let (before, started) = (cpu::of_tree(server)?, Instant::now());
    let next = Arc::new(AtomicUsize::new(0));
    let mut searching = JoinSet::new();
    for _ in 0..callers {
        let (door, next) = (door.reconnected(), next.clone());
        searching.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= searches {
                    return anyhow::Ok(latencies);
                }
                let query = query(number, products);
                let facets = if query.contains("facets") {
                    ""
                } else {
                    "&facets=false"
                };
                let asked = Instant::now();
                let found = door.read(&format!("/v1/products?{query}{facets}")).await?;
                latencies.push(asked.elapsed());
                let few = products < 10_000;
                ensure!(few || found["data"][0].is_object(), "{query} finds nothing");
            }
        });
    }
    let mut latencies = Vec::with_capacity(searches);
    while let Some(searched) = searching.join_next().await {
        latencies.append(&mut searched??);
    }
    latencies.sort_unstable();
    Ok(Series {
        name,
        searches,
        elapsed: started.elapsed(),
        latencies,
        cpu: cpu::of_tree(server)?.saturating_sub(before),
    })
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

fn page(
    products: usize,
    (elapsed, cpu): &(Duration, Duration),
    series: &[Series],
    callers: usize,
    noted: &str,
) -> String {
    let noted = if noted.is_empty() {
        String::new()
    } else {
        format!("; {noted}")
    };
    let mut page = format!(
        "- {products} products of one variant each, imported by `holdfast import products`: {:.0} rows/s, {:.2} ms of CPU \
         a row of all the server's processes and PostgreSQL{noted}\n\
         - searches by {callers} buyers at once, each answered 20 products, nothing cached\n\n\
         | query | searches/s | p50 | p99 | CPU of one, all processes and PostgreSQL |\n|---|---|---|---|---|\n",
        products as f64 / elapsed.as_secs_f64(),
        cpu.as_secs_f64() * 1e3 / products.max(1) as f64,
    );
    for kind in series {
        let at = |share: f64| {
            let place = (kind.latencies.len() as f64 * share) as usize;
            let found = kind.latencies.get(place).copied().unwrap_or_default();
            found.as_secs_f64() * 1e3
        };
        writeln!(
            page,
            "| {} | {:.0} | {:.1} ms | {:.1} ms | {:.2} ms |",
            kind.name,
            kind.searches as f64 / kind.elapsed.as_secs_f64(),
            at(0.50),
            at(0.99),
            kind.cpu.as_secs_f64() * 1e3 / kind.searches.max(1) as f64,
        )
        .expect("memory");
    }
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
