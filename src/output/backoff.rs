//! How long to wait before trying again.

use std::time::Duration;

/// Waits that grow from attempt to attempt, with full jitter: many relays that lost one broker do not come back as one.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    ceiling: Duration,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, ceiling: min }
    }

    /// The next wait: anything from zero to a ceiling that doubles every time.
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.ceiling.mul_f64(fastrand::f64());
        self.ceiling = (self.ceiling * 2).min(self.max);
        wait
    }

    /// Begins again at the shortest ceiling.
    pub(super) fn reset(&mut self) {
        self.ceiling = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_below_a_ceiling_that_doubles_up_to_the_maximum() {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        for ceiling_ms in [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            assert_eq!(backoff.ceiling, Duration::from_millis(ceiling_ms));
            assert!(backoff.next() <= Duration::from_millis(ceiling_ms));
        }
        backoff.reset();
        assert_eq!(backoff.ceiling, Duration::from_millis(200));
    }
}
