//! What a test measures, apart from all others.

use metrics::LocalRecorderGuard;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

/// Takes up what is measured on the thread of a test.
pub struct Meter(PrometheusRecorder);

impl Meter {
    /// A meter that has measured nothing.
    #[expect(
        clippy::new_without_default,
        reason = "a meter is made by name where it is used"
    )]
    pub fn new() -> Self {
        Self(PrometheusBuilder::new().build_recorder())
    }

    /// Measures on this thread until the guard goes; on a runtime of one thread, that is all a test does.
    pub fn measure(&self) -> LocalRecorderGuard<'_> {
        metrics::set_default_local_recorder(&self.0)
    }

    /// What a counter with these labels, as Prometheus writes them, has come to; 0 where it never counted.
    pub fn count(&self, name: &str, labels: &str) -> u64 {
        let wanted = format!("{name}{{{labels}}} ");
        let shown = self.0.handle().render();
        let value = shown.lines().find_map(|line| line.strip_prefix(&wanted));
        value.map_or(0, |value| value.parse().expect("a counter is a number"))
    }

    /// Reads of a cache that came to each of these: `hit`, `miss`, …
    pub fn reads<const N: usize>(&self, cache: &str, outcomes: [&str; N]) -> [u64; N] {
        outcomes.map(|outcome| {
            let labels = format!("cache=\"{cache}\",outcome=\"{outcome}\"");
            self.count("holdfast_cache_reads_total", &labels)
        })
    }
}
