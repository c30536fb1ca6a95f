//! Callers of the ledger's ways: those who only reserve, those who also commit and release, those who sell a pool out.

use std::sync::Arc;

use anyhow::ensure;
use holdfast_kernel::RequestId;
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    drive::{Caller, Run, Span, drive},
    ground::{Field, Ground},
    load::{Load, Want},
    row_locks::End,
    till::{Till, Way},
};

/// More than any run can take.
const PLENTY: i64 = 1_000_000_000;
/// Units of the pool that is sold out.
const FEW: i64 = 1_000;
/// Requests for them, over all callers.
const RUSH_REQUESTS: usize = 2_000;
const RUSH_CALLERS: usize = 256;
const COMMITTED_SHARE: f64 = 0.80;
const RELEASED_SHARE: f64 = 0.15;

/// What callers do with a hold they got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    /// Keep it.
    Reserve,
    /// Commit 80 % of them, release 15 %.
    Mixed,
}

struct Buyer {
    till: Arc<Till>,
    wants: Arc<Vec<Want>>,
    next: usize,
    habit: Habit,
    random: StdRng,
    /// A hold to be ended by the next call.
    held: Option<(RequestId, End)>,
    /// Holds left live.
    live: i64,
}

impl Caller for Buyer {
    async fn ask(&mut self) -> anyhow::Result<()> {
        if let Some((request, end)) = self.held.take() {
            self.till.end(request, end).await?;
            self.live -= 1;
            return Ok(());
        }
        let request = RequestId::generate();
        let want = &self.wants[self.next % self.wants.len()];
        self.next += 1;
        ensure!(
            self.till.reserve(request, want).await?,
            "sold out where there is plenty"
        );
        self.live += 1;
        if self.habit == Habit::Mixed {
            let chance = self.random.random_range(0.0..1.0);
            self.held = if chance < COMMITTED_SHARE {
                Some((request, End::Commit))
            } else if chance < COMMITTED_SHARE + RELEASED_SHARE {
                Some((request, End::Release))
            } else {
                None
            };
        }
        Ok(())
    }
}

/// One run of a way, on a database of its own.
pub(crate) async fn run(
    ground: &mut Ground,
    way: Way,
    load: Load,
    habit: Habit,
    callers: usize,
    span: Span,
) -> anyhow::Result<Run> {
    let field = stocked(ground, load).await?;
    run_on(&field, ground.postmaster, way, load, habit, callers, span).await
}

/// A database that nobody can sell out.
pub(crate) async fn stocked(ground: &mut Ground, load: Load) -> anyhow::Result<Field> {
    ground.field(load.pools(), PLENTY).await
}

/// One run of a way, with its books compared after it.
pub(crate) async fn run_on(
    field: &Field,
    postmaster: u32,
    way: Way,
    load: Load,
    habit: Habit,
    callers: usize,
    span: Span,
) -> anyhow::Result<Run> {
    let till = Arc::new(way.open(field, load.pools()).await?);
    let wants = Arc::new(load.wants());
    let buyers = (0..callers).map(|caller| Buyer {
        till: till.clone(),
        // Callers start far from each other.
        next: caller * wants.len() / callers,
        wants: wants.clone(),
        habit,
        random: StdRng::seed_from_u64(caller as u64),
        held: None,
        live: 0,
    });
    let (run, buyers) = drive(buyers.collect(), span, postmaster).await?;
    let live: i64 = buyers.iter().map(|buyer| buyer.live).sum();
    drop(buyers);
    close(till).await?;
    let books = field.audit().await?;
    ensure!(
        books.oversold == 0 && books.drifted == 0 && books.live == live,
        "{} wrote {books:?}, its callers hold {live}",
        way.name()
    );
    Ok(run)
}

/// Sells a pool out to a crowd that wants twice as much: exactly as many get one as there are.
pub(crate) async fn sell_out(ground: &mut Ground, way: Way) -> anyhow::Result<()> {
    let field = ground.field(1, FEW).await?;
    let till = Arc::new(way.open(&field, 1).await?);
    let want = Arc::new(Load::Hot.wants());
    let mut crowd = tokio::task::JoinSet::new();
    for caller in 0..RUSH_CALLERS {
        let (till, want) = (till.clone(), want.clone());
        crowd.spawn(async move {
            let mut got = 0_i64;
            for _ in (caller..RUSH_REQUESTS).step_by(RUSH_CALLERS) {
                got += i64::from(till.reserve(RequestId::generate(), &want[0]).await?);
            }
            anyhow::Ok(got)
        });
    }
    let mut got = 0;
    while let Some(ended) = crowd.join_next().await {
        got += ended??;
    }
    close(till).await?;
    let books = field.audit().await?;
    ensure!(
        got == FEW && books.live == FEW && books.oversold == 0 && books.drifted == 0,
        "{}: {got} of {FEW} units were given out, {books:?}",
        way.name()
    );
    Ok(())
}

async fn close(till: Arc<Till>) -> anyhow::Result<()> {
    match Arc::into_inner(till) {
        Some(till) => till.close().await,
        None => anyhow::bail!("a caller is still at work"),
    }
}
