//! Every point at which a process can die between two steps of a purchase, in every outcome that comes by it: it dies
//! there, comes back, and the purchase ends as it would have.
//!
//! What an outcome comes by is not guessed. It is lived through twice while all points note that they are passed; what was
//! passed both times lies on its way. Then it is lived through once for each of those points, which is deadly until
//! somebody died. What was not answered is asked again under the same key, as a client does.

mod stage;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Mutex,
    time::Instant,
};

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use holdfast_e2e::Topology;
use serde_json::{Value, json};

use self::stage::{Death, Stage, TIMEOUT_SECS, UNITS_PER_POINT, code_of, points, service_of};
use crate::{
    points::balance,
    shop::{PRICE, Stock, basket},
};

/// Installations that work through the outcomes side by side: most of a life is waiting for processes to start.
const INSTALLATIONS: usize = 3;
/// Payments come by their points with every command, and the second time may be the capture; later ones are looks that
/// come as they come.
const PASSINGS_MAX: usize = 2;

/// What a purchase that uses points uses of them.
const POINTS: i64 = 100;

/// How a purchase may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Succeeds,
    SucceedsAtSecondTry,
    Declined,
    CaptureFails,
    /// The provider does not say whether it took the money, and then that it did.
    TimesOut,
    /// Money comes after the hold was over, and nobody has bought the unit.
    LateAndFree,
    /// Money comes after the hold was over, and somebody else has bought the unit.
    LateAndSold,
    CancelledWhileWaiting,
    CancelledWhenPaid,
    Refunded,
}

impl Outcome {
    /// Those that take longest first.
    const ALL: [Self; 10] = [
        Self::LateAndSold,
        Self::LateAndFree,
        Self::TimesOut,
        Self::CaptureFails,
        Self::SucceedsAtSecondTry,
        Self::Succeeds,
        Self::Declined,
        Self::CancelledWhenPaid,
        Self::Refunded,
        Self::CancelledWhileWaiting,
    ];

    /// What of it is paid in points. Some are paid in money alone, which is another way through payments.
    fn points(self) -> i64 {
        match self {
            Self::Succeeds | Self::TimesOut | Self::LateAndFree => 0,
            Self::SucceedsAtSecondTry
            | Self::Declined
            | Self::CaptureFails
            | Self::LateAndSold
            | Self::CancelledWhileWaiting
            | Self::CancelledWhenPaid
            | Self::Refunded => POINTS,
        }
    }

    /// What goes wrong besides.
    fn stumbles_at(self) -> Option<&'static str> {
        match self {
            Self::SucceedsAtSecondTry => Some("orders.authorize.before=error@once"),
            _ => None,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_outcome_ends_right_wherever_the_process_dies() -> anyhow::Result<()> {
    let outcomes = Mutex::new(VecDeque::from(Outcome::ALL));
    let next = || outcomes.lock().expect("held briefly").pop_front();
    let died_at = walk(Topology::AllInOne, INSTALLATIONS, next).await?;
    let died_at: BTreeSet<&str> = died_at.into_values().flatten().collect();
    let never: Vec<&str> = points().filter(|point| !died_at.contains(point)).collect();
    assert!(never.is_empty(), "no outcome comes by {never:?}");
    Ok(())
}

/// A sample: the process that dies is one of many, and the others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purchase_ends_right_wherever_one_process_of_many_dies() -> anyhow::Result<()> {
    let outcomes = Mutex::new(VecDeque::from([Outcome::TimesOut]));
    let next = || outcomes.lock().expect("held briefly").pop_front();
    let died_at = walk(Topology::EachAlone, 1, next).await?;
    assert!(!died_at[&Outcome::TimesOut].is_empty());
    Ok(())
}

/// Has somebody die at every point of every outcome; says where.
async fn walk(
    topology: Topology,
    installations: usize,
    next: impl Fn() -> Option<Outcome>,
) -> anyhow::Result<BTreeMap<Outcome, BTreeSet<&'static str>>> {
    let walks = (0..installations).map(async |_| {
        let mut walked = BTreeMap::new();
        let mut stage = Stage::open(topology).await?;
        while let Some(outcome) = next() {
            let done = walk_through(&mut stage, outcome).await;
            if done.is_err() {
                stage.shop.sandbox.show_logs();
            }
            walked.insert(outcome, done.with_context(|| format!("{outcome:?}"))?);
        }
        anyhow::Ok(walked)
    });
    Ok(try_join_all(walks).await?.into_iter().flatten().collect())
}

async fn walk_through(
    stage: &mut Stage,
    outcome: Outcome,
) -> anyhow::Result<BTreeSet<&'static str>> {
    let started = Instant::now();
    let mut died_at = BTreeSet::new();
    let mut deaths = 0;
    for death in way_of(stage, outcome).await? {
        stage.dies(death, outcome.stumbles_at());
        let ended = live(stage, outcome).await;
        ended.with_context(|| format!("to die at {death:?}"))?;
        if stage.has_died()? {
            died_at.insert(death.point);
            deaths += 1;
        } else {
            ensure!(death.is_by_chance(), "nobody came by {death:?}");
        }
    }
    stage.shop.sandbox.audit_is_clean()?;
    report(stage, outcome, deaths, started);
    Ok(died_at)
}

/// The points on an outcome's way.
async fn way_of(stage: &mut Stage, outcome: Outcome) -> anyhow::Result<Vec<Death>> {
    let mut passed = Vec::with_capacity(2);
    for _ in 0..2 {
        stage.notes(outcome.stumbles_at());
        live(stage, outcome).await.context("nobody dies")?;
        passed.push(stage.noted()?);
    }
    let surely = |point: &'static str| {
        let counts = passed.iter().map(|counts| counts.get(point).copied());
        counts.min().flatten().unwrap_or_default()
    };
    let mut way = Vec::new();
    for point in points() {
        let most = match service_of(point) {
            "payments" => PASSINGS_MAX,
            _ => 1,
        };
        way.extend((1..=surely(point).min(most)).map(|passing| Death { point, passing }));
    }
    Ok(way)
}

/// One purchase from its beginning to its end. Dies where the stage says, from [`Stage::arm`] on.
async fn live(stage: &mut Stage, outcome: Outcome) -> anyhow::Result<()> {
    let sku = stage.sells_one().await?;
    let points = outcome.points();
    let had = balance(&stage.buyer).await?;
    let left = match outcome {
        Outcome::Succeeds | Outcome::SucceedsAtSecondTry => {
            let order = buy(stage, &sku, points, "sandbox_ok").await?;
            stage.order_ends(&order, "confirmed").await?;
            captured(stage, &order, points).await?;
            0
        }
        Outcome::Declined => {
            let order = buy(stage, &sku, points, "sandbox_declined").await?;
            stage.order_ends(&order, "payment_failed").await?;
            stage.payment_ends(&order, "failed").await?;
            1
        }
        Outcome::CaptureFails => {
            let order = buy(stage, &sku, points, "sandbox_capture_fails").await?;
            stage.order_ends(&order, "payment_failed").await?;
            stage.payment_ends(&order, "failed").await?;
            1
        }
        Outcome::TimesOut => {
            let order = buy(stage, &sku, points, "sandbox_timeout").await?;
            stage.pass(TIMEOUT_SECS, TIMEOUT_SECS)?;
            stage.order_ends(&order, "confirmed").await?;
            captured(stage, &order, points).await?;
            0
        }
        Outcome::LateAndFree => {
            let order = buy(stage, &sku, points, "sandbox_late_ok").await?;
            stage.hold_ends()?;
            stage.order_ends(&order, "expired").await?;
            stage.late_money_comes()?;
            stage.order_ends(&order, "confirmed").await?;
            captured(stage, &order, points).await?;
            0
        }
        Outcome::LateAndSold => {
            let order = buy(stage, &sku, points, "sandbox_late_ok").await?;
            stage.hold_ends()?;
            stage.order_ends(&order, "expired").await?;
            let rival = stage.rival.clone();
            let rivals = stage
                .buys(&rival, &basket(&[(&sku, 1)], "sandbox_ok"))
                .await?;
            stage.ends(&rival, &rivals, "confirmed").await?;
            stage.late_money_comes()?;
            stage.payment_ends(&order, "voided").await?;
            stage.order_ends(&order, "expired").await?;
            0
        }
        Outcome::CancelledWhileWaiting => {
            let wish = using(&sku, points, "sandbox_3ds");
            let order = stage.bought(&wish, "awaiting_payment").await?;
            stage.arm()?;
            stage.cancels(&order).await?;
            stage.order_ends(&order, "cancelled").await?;
            stage.payment_ends(&order, "voided").await?;
            1
        }
        Outcome::CancelledWhenPaid => {
            let wish = using(&sku, points, "sandbox_ok");
            let order = stage.bought(&wish, "confirmed").await?;
            stage.arm()?;
            stage.cancels(&order).await?;
            given_back(stage, &order, points).await?;
            1
        }
        Outcome::Refunded => {
            let wish = using(&sku, points, "sandbox_ok");
            let order = stage.bought(&wish, "confirmed").await?;
            stage.arm()?;
            let staff = stage.shop.staff.clone();
            let path = format!("/v1/orders/{order}/refunds");
            let wish = json!({"reason": "broken"});
            stage.insists(&staff, &path, &wish).await?.is(201)?;
            given_back(stage, &order, points).await?;
            1
        }
    };
    stage.stock_ends(&sku, Stock::of(1, 1 - left)).await?;
    stage.use_ends(&sku, is_spent(outcome).into()).await?;
    stage.rests().await?;
    // Given back, or spent once and earned once.
    let gained = if is_kept(outcome) {
        (PRICE - points) / UNITS_PER_POINT - points
    } else {
        0
    };
    let has = balance(&stage.buyer).await?;
    ensure!(
        has == had + gained,
        "{has} points, wanted {had} and {gained}"
    );
    Ok(())
}

/// Whether the customer has the unit in the end, and we the money.
fn is_kept(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Succeeds
        | Outcome::SucceedsAtSecondTry
        | Outcome::TimesOut
        | Outcome::LateAndFree => true,
        Outcome::Declined
        | Outcome::CaptureFails
        | Outcome::LateAndSold
        | Outcome::CancelledWhileWaiting
        | Outcome::CancelledWhenPaid
        | Outcome::Refunded => false,
    }
}

/// Whether the use of the voucher is gone: a refund does not bring it back.
fn is_spent(outcome: Outcome) -> bool {
    is_kept(outcome) || matches!(outcome, Outcome::CancelledWhenPaid | Outcome::Refunded)
}

/// Buys under the eyes of death.
async fn buy(stage: &mut Stage, sku: &str, points: i64, card: &str) -> anyhow::Result<String> {
    stage.arm()?;
    let buyer = stage.buyer.clone();
    stage.buys(&buyer, &using(sku, points, card)).await
}

/// The body of a purchase of one unit, under the code that was made with it.
fn using(sku: &str, points: i64, card: &str) -> Value {
    let mut body = basket(&[(sku, 1)], card);
    body["points"] = json!(points);
    body["voucher"] = json!(code_of(sku));
    body
}

async fn captured(stage: &mut Stage, order: &str, points: i64) -> anyhow::Result<()> {
    let payment = stage.payment_ends(order, "captured").await?;
    ensure!(payment["captured"]["amount"] == PRICE - points, "{payment}");
    ensure!(payment["refunded"]["amount"] == 0, "{payment}");
    Ok(())
}

async fn given_back(stage: &mut Stage, order: &str, points: i64) -> anyhow::Result<()> {
    let ended = stage.order_ends(order, "refunded").await?;
    ensure!(ended["refunded"]["amount"] == PRICE - points, "{ended}");
    ensure!(ended["points_refunded"] == points, "{ended}");
    let payment = stage.payment_ends(order, "refunded").await?;
    ensure!(payment["refunded"]["amount"] == PRICE - points, "{payment}");
    Ok(())
}

#[expect(
    clippy::print_stdout,
    reason = "who asks for it wants to see the figure"
)]
fn report(stage: &Stage, outcome: Outcome, deaths: usize, started: Instant) {
    println!(
        "{:?} {outcome:?}: {deaths} deaths in {:.0} s",
        stage.shop.sandbox.topology(),
        started.elapsed().as_secs_f64()
    );
}
