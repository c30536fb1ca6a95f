//! Proves from the books alone that nothing was sold twice and no money lost its purchase.
//!
//! Each service audits its own books; what only two books together can tell is told here: money and orders, our word
//! and the provider's. What is still under way is judged when it ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
    time::Instant,
};

use anyhow::Context as _;
use holdfast_orders::{OrderFact, Status};
use holdfast_payments::{PaymentFact, PointFact, sandbox::BookFact};
use holdfast_platform::{cluster::Secrets, database, settings::Settings};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::{
    assemble::SANDBOX,
    databases::{Databases, Opening},
    home::Home,
    process,
};

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was looked at, and what was found.
#[derive(Debug, Default, Serialize)]
struct Report {
    pools: u64,
    movements: u64,
    holds: u64,
    orders: usize,
    payments: usize,
    /// Orders and payments under way, judged when they end.
    open: usize,
    seconds: f64,
    findings: Vec<Finding>,
}

/// Something that must not be.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// Which book, or which two.
    book: &'static str,
    /// The thing it is about.
    about: String,
    /// What is, and what should be.
    text: String,
}

/// Exit code when the audit could not be carried out.
const COULD_NOT_RUN: u8 = 2;
/// The schemas whose books are read.
const BOOKS: [&str; 4] = ["inventory", "orders", "payments", SANDBOX.name];
const SLICE_ORDERS: u16 = 1_000;
/// The kind of the pools that hold the uses of vouchers.
const VOUCHERS: &str = "voucher";
/// Looks at the books of a server that goes on selling, before a finding is believed.
const LOOKS_MAX: u32 = 3;

/// Ends with 0 when the books are clean, 1 with findings, 2 when it could not run; server up or down.
pub(crate) async fn run(settings: &Settings, args: &Args) -> anyhow::Result<ExitCode> {
    match audit(settings).await {
        Ok(report) => {
            tell(&report, args)?;
            let clean = report.findings.is_empty();
            Ok(if clean {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Err(error) => {
            tracing::error!("the audit could not run: {error:#}");
            Ok(ExitCode::from(COULD_NOT_RUN))
        }
    }
}

async fn audit(settings: &Settings) -> anyhow::Result<Report> {
    let home = Home::find(&settings.section("process")?)?;
    let secrets = process::secrets(settings, &home)?;
    let databases = Databases::open(settings, &home, &BOOKS, Opening::Beside).await?;
    let report = look(&databases, &secrets).await;
    databases.stop().await;
    report
}

/// Reads the books until nothing is found or the same was found each time.
///
/// No snapshot spans all books, so what moves while they are read looks wrong once; what is wrong stays so.
async fn look(databases: &Databases, secrets: &Secrets) -> anyhow::Result<Report> {
    let mut report = read_books(databases, secrets).await?;
    for _ in 1..LOOKS_MAX {
        if report.findings.is_empty() {
            break;
        }
        let mut again = read_books(databases, secrets).await?;
        again
            .findings
            .retain(|finding| report.findings.contains(finding));
        report = again;
    }
    Ok(report)
}

async fn read_books(databases: &Databases, secrets: &Secrets) -> anyhow::Result<Report> {
    let began = Instant::now();
    let mut report = Report::default();
    audit_ledger(databases, secrets, &mut report).await?;

    // Orders before payments: what a saga moves on meanwhile is then seen as open or as done, never as lost.
    let orders = orders(databases).await?;
    let pool = databases.connect("payments").await?;
    let mut db = database::acquire(&pool).await?;
    let payments = holdfast_payments::audit(&mut db).await?;
    let points = holdfast_payments::audit_points(&mut db).await?;
    drop(db);
    let pool = databases.connect(SANDBOX.name).await?;
    let book = holdfast_payments::sandbox::audit(&mut *database::acquire(&pool).await?).await?;

    report.orders = orders.len();
    report.payments = payments.len();
    report.open = orders.iter().filter(|order| order.is_open).count();
    compare(&orders, &payments, &mut report.findings);
    add_up(&payments, &points, &mut report.findings);
    let open: BTreeSet<String> = orders
        .iter()
        .filter(|order| order.is_open)
        .map(|order| order.order.to_string())
        .collect();
    compare_with_provider(&payments, &open, &book, &mut report.findings);
    let pool = databases.connect("inventory").await?;
    let mut db = database::acquire(&pool).await?;
    let uses = holdfast_inventory::sold_of_kind(&mut db, VOUCHERS).await?;
    compare_uses(&orders, &uses, &mut report.findings);
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}

async fn audit_ledger(
    databases: &Databases,
    secrets: &Secrets,
    report: &mut Report,
) -> anyhow::Result<()> {
    let pool = databases.connect("inventory").await?;
    let mut db = database::acquire(&pool).await?;
    let key = secrets.key(holdfast_inventory::SEAL_PURPOSE);
    let progress = ProgressBar::new_spinner();
    let ledger = holdfast_inventory::audit(&mut db, &key, |audit| {
        progress.set_message(format!(
            "{} pools, {} movements",
            audit.pools, audit.movements
        ));
        progress.tick();
    })
    .await
    .context("the ledger's books")?;
    progress.finish_and_clear();
    report.pools = ledger.pools;
    report.movements = ledger.movements;
    report.holds = ledger.holds;
    let findings = ledger.findings.into_iter().map(|finding| Finding {
        book: "ledger",
        about: finding.about,
        text: finding.text,
    });
    report.findings.extend(findings);
    Ok(())
}

async fn orders(databases: &Databases) -> anyhow::Result<Vec<OrderFact>> {
    let pool = databases.connect("orders").await?;
    let mut db = database::acquire(&pool).await?;
    let mut orders: Vec<OrderFact> = Vec::new();
    loop {
        let after = orders.last().map(|order| order.order);
        let slice = holdfast_orders::audit(&mut db, after, SLICE_ORDERS).await?;
        if slice.is_empty() {
            return Ok(orders);
        }
        orders.extend(slice);
    }
}

/// Holds orders and payments against each other.
fn compare(orders: &[OrderFact], payments: &[PaymentFact], findings: &mut Vec<Finding>) {
    let mut of_purchase: BTreeMap<&str, Vec<&PaymentFact>> = BTreeMap::new();
    for payment in payments {
        of_purchase
            .entry(&payment.purchase)
            .or_default()
            .push(payment);
    }
    for order in orders {
        let id = order.order.to_string();
        let paid = of_purchase.remove(id.as_str()).unwrap_or_default();
        let mut find = |text: String| {
            findings.push(Finding {
                book: "orders and payments",
                about: id.clone(),
                text,
            });
        };
        for text in &order.illegal_history {
            find(format!("illegal history: {text}"));
        }
        if paid.len() > 1 {
            find(format!("{} payments, wanted at most one", paid.len()));
        }
        if order.is_open {
            continue;
        }
        let captured: i64 = paid.iter().map(|payment| payment.captured).sum();
        let back: i64 = paid
            .iter()
            .map(|payment| payment.refunded + payment.refunding)
            .sum();
        let (total, refunded) = (order.total.amount, order.refunded.amount);
        if is_sold(order.status) {
            if captured != total {
                find(format!(
                    "{} with {captured} captured, wanted {total}",
                    order.status
                ));
            }
            let paid_in_points: i64 = paid.iter().map(|payment| payment.points).sum();
            let points_back: i64 = paid.iter().map(|payment| payment.points_back).sum();
            if (paid_in_points, points_back) != (order.points, order.points_refunded) {
                find(format!(
                    "{} points used and {} back by the order, {paid_in_points} and {points_back} by its payment",
                    order.points, order.points_refunded
                ));
            }
            if back != refunded {
                find(format!(
                    "{refunded} refunded by the order, {back} by its payment"
                ));
            }
        } else {
            if captured != back {
                find(format!(
                    "{} with {} of the customer's money",
                    order.status,
                    captured - back
                ));
            }
            // Until the provider has said what came of it, a payment keeps its points aside.
            let decided = paid.iter().filter(|payment| !is_asked(&payment.status));
            let points_out: i64 = decided.map(|payment| payment.points_out).sum();
            if points_out != 0 {
                find(format!(
                    "{} with {points_out} of the customer's points",
                    order.status
                ));
            }
        }
    }
    for (purchase, payments) in of_purchase {
        for payment in payments
            .iter()
            .filter(|payment| payment.captured > payment.refunded + payment.refunding)
        {
            findings.push(Finding {
                book: "orders and payments",
                about: payment.payment.to_string(),
                text: format!(
                    "captured {} for {purchase}, which does not exist",
                    payment.captured
                ),
            });
        }
    }
}

/// Holds the uses of vouchers that the ledger sold against the orders that spent one: those that were confirmed, whatever
/// became of them. An order under way may have taken its use already.
fn compare_uses(orders: &[OrderFact], pools: &[(String, i64)], findings: &mut Vec<Finding>) {
    let mut of_voucher: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for order in orders {
        if let Some(voucher) = &order.voucher {
            let (spent, open) = of_voucher.entry(voucher).or_default();
            *spent += i64::from(order.was_confirmed);
            *open += i64::from(order.is_open && !order.was_confirmed);
        }
    }
    let mut find = |voucher: &str, sold: i64, (spent, open): (i64, i64)| {
        if !(spent..=spent + open).contains(&sold) {
            findings.push(Finding {
                book: "orders and ledger",
                about: voucher.to_owned(),
                text: format!(
                    "{sold} uses sold, {spent} orders spent one and {open} are under way"
                ),
            });
        }
    };
    for (voucher, sold) in pools {
        let counted = of_voucher.remove(voucher.as_str());
        find(voucher.as_str(), *sold, counted.unwrap_or_default());
    }
    for (voucher, counted) in of_voucher {
        find(voucher, 0, counted);
    }
}

/// Holds the points against the money that earned them, and the accounts against their entries.
fn add_up(payments: &[PaymentFact], accounts: &[PointFact], findings: &mut Vec<Finding>) {
    let mut find = |about: String, text: String| {
        findings.push(Finding {
            book: "points",
            about,
            text,
        });
    };
    for payment in payments {
        let about = payment.payment.to_string();
        if payment.points_sum != 0 {
            find(
                about.clone(),
                format!("its entries sum up to {}, wanted 0", payment.points_sum),
            );
        }
        let (out, used) = (payment.points_out, payment.points - payment.points_back);
        if out != used {
            find(
                about.clone(),
                format!("{out} points set aside or spent for it, wanted {used}"),
            );
        }
        let (issued, due) = (payment.points_issued, payment.points_due());
        if issued != due {
            find(
                about,
                format!("{issued} points issued for it, wanted {due}"),
            );
        }
    }
    for account in accounts {
        let (balance, entries) = (account.balance, account.entries);
        if balance != entries {
            find(
                account.user.to_string(),
                format!(
                    "has {balance} points of {}, its entries come to {entries}",
                    account.currency
                ),
            );
        }
    }
}

/// Whether the customer got what the order says, and we keep the money that was not refunded.
fn is_sold(status: Status) -> bool {
    match status {
        Status::Confirmed
        | Status::Shipped
        | Status::Delivered
        | Status::PartiallyRefunded
        | Status::Refunded => true,
        Status::Pending
        | Status::AwaitingPayment
        | Status::Paid
        | Status::Cancelled
        | Status::PaymentFailed
        | Status::Expired
        | Status::NeedsAttention => false,
    }
}

/// Holds our word against the provider's, but for purchases that are under way.
fn compare_with_provider(
    payments: &[PaymentFact],
    open: &BTreeSet<String>,
    book: &[BookFact],
    findings: &mut Vec<Finding>,
) {
    let mut book: BTreeMap<_, _> = book.iter().map(|fact| (fact.payment, fact)).collect();
    let mut find = |about: String, text: String| {
        findings.push(Finding {
            book: "payments and provider",
            about,
            text,
        });
    };
    for payment in payments {
        let theirs = book.remove(&payment.payment);
        let (charges, captured, refunded) = theirs.map_or((0, 0, 0), |fact| {
            (fact.captures, fact.captured, fact.refunded)
        });
        let about = payment.payment.to_string();
        if charges > 1 {
            find(about.clone(), format!("charged {charges} times"));
        }
        // Asked and not answered yet: the provider may be ahead of us.
        if is_asked(&payment.status) || open.contains(&payment.purchase) {
            continue;
        }
        if (captured, refunded) != (payment.captured, payment.refunded) {
            find(
                about,
                format!(
                    "{} captured and {} refunded, the provider says {captured} and {refunded}",
                    payment.captured, payment.refunded
                ),
            );
        }
    }
    for (payment, fact) in book
        .into_iter()
        .filter(|(_, fact)| fact.captured > fact.refunded)
    {
        find(
            payment.to_string(),
            format!(
                "the provider has {} that no payment owns",
                fact.captured - fact.refunded
            ),
        );
    }
}

/// Whether a payment of this status waits for what the provider says.
fn is_asked(status: &str) -> bool {
    matches!(
        status,
        "processing" | "requires_action" | "capturing" | "voiding" | "refund_pending"
    )
}

#[expect(clippy::print_stdout, reason = "the report is the command's answer")]
fn tell(report: &Report, args: &Args) -> anyhow::Result<()> {
    if args.json {
        println!("{}", serde_json::to_string(report)?);
        return Ok(());
    }
    println!(
        "{} pools, {} movements, {} holds, {} orders ({} under way), {} payments read in {:.1} s",
        report.pools,
        report.movements,
        report.holds,
        report.orders,
        report.open,
        report.payments,
        report.seconds
    );
    for finding in &report.findings {
        println!("{}: {}: {}", finding.book, finding.about, finding.text);
    }
    if report.findings.is_empty() {
        println!("clean: nothing sold twice, no money without its purchase");
    }
    Ok(())
}
