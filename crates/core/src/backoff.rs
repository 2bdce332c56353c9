//! Growing waits with jitter.

use std::time::Duration;

/// Waits drawn between `min` and a ceiling that doubles up to `max`. The draw covers the whole span (full
/// jitter), and `min` prevents a hot loop.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    doublings: u32,
}

impl Backoff {
    /// A back-off without any wait yet.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max: max.max(min), doublings: 0 }
    }

    /// The next wait. The one after it may be twice as long.
    pub fn next(&mut self, rng: &mut fastrand::Rng) -> Duration {
        let wait = wait_after(self.doublings, self.min, self.max, rng);
        self.doublings = self.doublings.saturating_add(1);
        wait
    }

    /// The shortest wait.
    pub fn shortest(&self) -> Duration {
        self.min
    }

    /// Starts again from the shortest wait.
    pub fn reset(&mut self) {
        self.doublings = 0;
    }
}

/// The wait after `failures` earlier ones.
pub fn wait_after(failures: u32, min: Duration, max: Duration, rng: &mut fastrand::Rng) -> Duration {
    let ceiling = min.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)).min(max).max(min);
    let span = u64::try_from((ceiling - min).as_millis()).unwrap_or(u64::MAX);
    min + Duration::from_millis(rng.u64(0..=span))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_min_to_max_are_spread_and_start_again() {
        let (min, max) = (Duration::from_millis(200), Duration::from_secs(5));
        let mut rng = fastrand::Rng::with_seed(1);
        let mut backoff = Backoff::new(min, max);
        assert_eq!(backoff.next(&mut rng), min);
        assert!(backoff.next(&mut rng) <= 2 * min);
        let late: Vec<_> = (0..100).map(|_| backoff.next(&mut rng)).collect();
        assert!(late.iter().all(|wait| (min..=max).contains(wait)));
        assert!(late.iter().any(|wait| *wait > max / 2) && late[10..].iter().any(|wait| *wait < max / 4));
        backoff.reset();
        assert_eq!(backoff.next(&mut rng), min);
    }

    #[test]
    fn no_number_of_failures_overflows() {
        let mut rng = fastrand::Rng::with_seed(1);
        for failures in [0, 31, 32, 63, 64, u32::MAX] {
            assert!(
                wait_after(failures, Duration::from_secs(1), Duration::from_secs(9), &mut rng).as_secs() <= 9
            );
        }
    }
}
