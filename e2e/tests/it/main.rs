//! What customers, operators and power cuts do to a whole installation, and what has to come out.
//!
//! Every scenario that does not say otherwise runs in both topologies; the books are audited after each.

/// Makes a test of each scenario in each topology, on the installation that all of them share.
macro_rules! in_every_topology {
    ($($scenario:ident),+ $(,)?) => {
        in_every_topology! { @in all_in_one, AllInOne, $($scenario),+ }
        in_every_topology! { @in each_alone, EachAlone, $($scenario),+ }
    };
    (@in $name:ident, $topology:ident, $($scenario:ident),+) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $scenario() -> anyhow::Result<()> {
                    crate::shop::in_shop(holdfast_e2e::Topology::$topology, super::$scenario).await
                }
            )+
        }
    };
}

mod accounts;
mod auditing;
mod buying;
mod caching;
mod catalog;
mod crowds;
mod demo;
mod ending;
mod events;
mod failpoints;
mod fuzzed;
mod goods;
mod keys;
mod late_money;
mod notifications;
mod people;
mod points;
mod refusals;
mod registering;
mod replaying;
mod reviewing;
mod shop;
mod standby;
mod storm;
mod undoing;
mod vouchers;
mod webhooks;
