//! How long something takes, as a histogram that one side fills and others read.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

/// A histogram of durations, in microseconds, good to a hundredth of each value.
#[derive(Debug)]
pub struct Times(Mutex<Histogram<u64>>);

/// What a histogram says at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantiles {
    /// How many durations were recorded.
    pub count: u64,
    /// The median, in microseconds.
    pub p50_us: u64,
    /// The 99th percentile, in microseconds.
    pub p99_us: u64,
    /// The longest, in microseconds.
    pub max_us: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self::new()
    }
}

impl Times {
    /// Nothing recorded.
    pub fn new() -> Self {
        // Whatever takes longer than an hour counts as an hour. Two digits keep the histogram at some ten kilobytes.
        Self(Mutex::new(
            Histogram::new_with_max(3_600_000_000, 2).expect("the bounds are constants that fit"),
        ))
    }

    /// Records that something took so long.
    pub fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.lock().saturating_record(micros);
    }

    /// What has been recorded so far.
    pub fn quantiles(&self) -> Quantiles {
        let times = self.lock();
        if times.is_empty() {
            return Quantiles::default();
        }
        Quantiles {
            count: times.len(),
            p50_us: times.value_at_quantile(0.5),
            p99_us: times.value_at_quantile(0.99),
            max_us: times.max(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Histogram<u64>> {
        // A figure half written is still a figure.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let times = Times::new();
        assert_eq!(times.quantiles(), Quantiles::default());
        for micros in 1..=100 {
            times.record(Duration::from_micros(micros));
        }
        times.record(Duration::from_secs(10_000));
        let Quantiles { count, p50_us, p99_us, max_us } = times.quantiles();
        assert_eq!((count, p50_us, p99_us), (101, 51, 100));
        assert!((3_600_000_000..3_700_000_000).contains(&max_us), "{max_us}");
    }
}
