//! Durations as a histogram that one side fills and others read.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

/// A histogram of durations in microseconds, exact to a hundredth of each value.
///
/// Recorded durations also go to the metric, if a recorder exists.
pub struct Latency {
    histogram: Mutex<Histogram<u64>>,
    metric: metrics::Histogram,
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Latency").field(&self.quantiles()).finish()
    }
}

/// The values of a histogram at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantiles {
    /// The number of recorded durations.
    pub count: u64,
    /// The median, in microseconds.
    pub p50_us: u64,
    /// The 99th percentile, in microseconds.
    pub p99_us: u64,
    /// The longest, in microseconds.
    pub max_us: u64,
}

impl Latency {
    /// An empty histogram. What it records also goes to this metric.
    pub fn of(metric: &'static str) -> Self {
        // Durations above an hour count as an hour. Two digits keep the histogram at some ten kilobytes.
        let histogram = Histogram::new_with_max(3_600_000_000, 2).expect("the bounds are constants that fit");
        Self { histogram: Mutex::new(histogram), metric: metrics::histogram!(metric) }
    }

    /// Records a duration.
    pub fn record(&self, took: &[Duration]) {
        let mut times = self.lock();
        for took in took {
            times.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
            self.metric.record(*took);
        }
    }

    /// How many durations were recorded.
    pub fn count(&self) -> u64 {
        self.lock().len()
    }

    /// The recorded values so far.
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
        // A partly written figure is still a figure.
        self.histogram.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A duration for people, in its two largest units: `1 min 32 s`.
pub fn spoken(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (whole, unit, part, small) = match seconds {
        0..60 => return format!("{seconds} s"),
        60..3_600 => (seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => (seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        _ => (seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    };
    format!("{whole} {unit} {part} {small}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_said_in_its_two_largest_units() {
        for (seconds, text) in
            [(0, "0 s"), (59, "59 s"), (92, "1 min 32 s"), (3_725, "1 h 2 min"), (180_000, "2 d 2 h")]
        {
            assert_eq!(spoken(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let times = Latency::of("a_metric");
        assert_eq!(times.quantiles(), Quantiles::default());
        for micros in 1..=100 {
            times.record(&[Duration::from_micros(micros)]);
        }
        times.record(&[Duration::from_secs(10_000)]);
        let Quantiles { count, p50_us, p99_us, max_us } = times.quantiles();
        assert_eq!((count, p50_us, p99_us), (101, 51, 100));
        assert!((3_600_000_000..3_700_000_000).contains(&max_us), "{max_us}");
    }
}
