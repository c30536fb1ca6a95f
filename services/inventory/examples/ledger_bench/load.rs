//! What callers want: which pools, how many lines.

use holdfast_inventory::domain::{Basket, Line};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Baskets made beforehand, which callers take in turn.
const BASKETS: usize = 1 << 14;
const LINES_MAX: usize = 5;
const ZIPF_EXPONENT: f64 = 0.99;
/// Every run wants the same.
const SEED: u64 = 7;

/// How wishes are spread over pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// Everybody wants one unit of the one pool.
    Hot,
    /// 1 to 5 of 1,000 pools, each as likely.
    Uniform,
    /// 1 to 5 of 10,000 pools, some far more wanted than others.
    Zipf,
}

/// A basket, in the words of the ledger and in those of tables.
#[derive(Debug, Clone)]
pub(crate) struct Want {
    pub(crate) basket: Basket,
    /// Ids of pools, rising.
    pub(crate) pools: Vec<i32>,
    pub(crate) units: Vec<i64>,
}

impl Load {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Uniform => "uniform",
            Self::Zipf => "Zipf",
        }
    }

    pub(crate) fn pools(self) -> i32 {
        match self {
            Self::Hot => 1,
            Self::Uniform => 1_000,
            Self::Zipf => 10_000,
        }
    }

    pub(crate) fn wants(self) -> Vec<Want> {
        let mut random = StdRng::seed_from_u64(SEED);
        let weights = self.cumulated();
        let whole = weights.last().copied().unwrap_or_default();
        let mut want = || {
            let lines = match self {
                Self::Hot => 1,
                Self::Uniform | Self::Zipf => random.random_range(1..=LINES_MAX),
            };
            let mut pools = Vec::with_capacity(lines);
            while pools.len() < lines {
                let at = random.random_range(0.0..whole);
                let pool = weights.partition_point(|weight| *weight <= at) as i32 + 1;
                if !pools.contains(&pool) {
                    pools.push(pool);
                }
            }
            Want::of(pools)
        };
        (0..BASKETS).map(|_| want()).collect()
    }

    /// For each pool the weight of it and all before it.
    fn cumulated(self) -> Vec<f64> {
        let mut sum = 0.0;
        (1..=self.pools())
            .map(|rank| {
                sum += match self {
                    Self::Hot | Self::Uniform => 1.0,
                    Self::Zipf => f64::from(rank).powf(-ZIPF_EXPONENT),
                };
                sum
            })
            .collect()
    }
}

impl Want {
    /// One unit of each.
    fn of(mut pools: Vec<i32>) -> Self {
        pools.sort_unstable();
        let lines = pools.iter().map(|pool| Line {
            pool: key(*pool).parse().expect("a pool key"),
            units: 1,
        });
        Self {
            basket: Basket::new(lines.collect()).expect("few lines, each pool once"),
            units: vec![1; pools.len()],
            pools,
        }
    }
}

/// The key of the pool with this id.
pub(crate) fn key(pool: i32) -> String {
    format!("sku:BENCH-{pool:05}")
}
