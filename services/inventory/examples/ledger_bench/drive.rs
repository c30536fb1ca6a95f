//! Callers in a closed loop: each asks, waits for the answer, and asks again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::cpu::Cpu;

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const OVER: u8 = 2;

/// How long a run is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    /// Before anything counts.
    pub(crate) warm: Duration,
    /// While it counts.
    pub(crate) measured: Duration,
}

/// What one run came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) ops_per_sec: f64,
    pub(crate) p50_micros: u32,
    pub(crate) p99_micros: u32,
    pub(crate) client_micros_per_op: f64,
    pub(crate) postgres_micros_per_op: f64,
    /// Cores that others used meanwhile.
    pub(crate) others_cores: f64,
}

/// One caller's own way through the run.
pub(crate) trait Caller: Send + 'static {
    /// Asks once and waits for the answer.
    fn ask(&mut self) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Drives callers until the time is over, and returns what they came to with the callers themselves.
pub(crate) async fn drive<C: Caller>(
    callers: Vec<C>,
    span: Span,
    postmaster: u32,
) -> anyhow::Result<(Run, Vec<C>)> {
    let phase = Arc::new(AtomicU8::new(WARMING));
    let mut tasks = JoinSet::new();
    for mut caller in callers {
        let phase = phase.clone();
        tasks.spawn(async move {
            let mut micros = Vec::new();
            while phase.load(Ordering::Relaxed) != OVER {
                let asked = Instant::now();
                caller.ask().await?;
                if phase.load(Ordering::Relaxed) == MEASURING {
                    micros.push(u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX));
                }
            }
            anyhow::Ok((caller, micros))
        });
    }
    tokio::time::sleep(span.warm).await;
    let before = Cpu::now(postmaster)?;
    let started = Instant::now();
    phase.store(MEASURING, Ordering::Relaxed);
    tokio::time::sleep(span.measured).await;
    phase.store(OVER, Ordering::Relaxed);
    let elapsed = started.elapsed();
    let used = Cpu::now(postmaster)?.since(before);

    let (mut callers, mut micros) = (Vec::new(), Vec::new());
    while let Some(ended) = tasks.join_next().await {
        let (caller, own) = ended??;
        callers.push(caller);
        micros.extend(own);
    }
    Ok((Run::of(micros, elapsed, used), callers))
}

impl Run {
    /// From the latency of every operation that ended within `elapsed`.
    fn of(mut micros: Vec<u32>, elapsed: Duration, used: Cpu) -> Self {
        micros.sort_unstable();
        let at = |share: f64| {
            let place = (micros.len() as f64 * share) as usize;
            micros.get(place).copied().unwrap_or_default()
        };
        let per_op = |time: Duration| time.as_secs_f64() * 1e6 / micros.len().max(1) as f64;
        Self {
            ops_per_sec: micros.len() as f64 / elapsed.as_secs_f64(),
            p50_micros: at(0.50),
            p99_micros: at(0.99),
            client_micros_per_op: per_op(used.client),
            postgres_micros_per_op: per_op(used.postgres),
            others_cores: used.others().as_secs_f64() / elapsed.as_secs_f64(),
        }
    }

    /// The run whose figures are each the median of these runs'.
    pub(crate) fn median(runs: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| {
            let mut figures: Vec<f64> = runs.iter().map(figure).collect();
            figures.sort_unstable_by(f64::total_cmp);
            let middle = figures.len() / 2;
            figures.get(middle).copied().unwrap_or_default()
        };
        Self {
            ops_per_sec: of(|run| run.ops_per_sec),
            p50_micros: of(|run| f64::from(run.p50_micros)) as u32,
            p99_micros: of(|run| f64::from(run.p99_micros)) as u32,
            client_micros_per_op: of(|run| run.client_micros_per_op),
            postgres_micros_per_op: of(|run| run.postgres_micros_per_op),
            others_cores: of(|run| run.others_cores),
        }
    }

    /// Client and PostgreSQL together.
    pub(crate) fn micros_per_op(&self) -> f64 {
        self.client_micros_per_op + self.postgres_micros_per_op
    }
}
