//! Heartbeats: a loop reports each round, and when it rests.
//!
//! A timer that feeds a watchdog proves only that the timer runs. Here each loop reports itself, and the
//! watchdog is fed only while no working loop has been silent for too long. A resting loop with nothing to do
//! is healthy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vodrelay_core::clock::Moment;

use crate::clock::Now as _;

/// One loop's heartbeat. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    name: &'static str,
    /// Milliseconds of the boot clock, plus one; zero at rest.
    progressed: Arc<AtomicU64>,
}

impl Heartbeat {
    /// A loop that rests.
    pub fn new(name: &'static str) -> Self {
        Self { name, progressed: Arc::default() }
    }

    /// Which loop it is.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The loop works, and has just made a step.
    pub fn progress(&self) {
        self.progressed.store(Moment::now().0 + 1, Ordering::Relaxed);
    }

    /// The loop has nothing to do.
    pub fn rest(&self) {
        self.progressed.store(0, Ordering::Relaxed);
    }

    /// The milliseconds since the last step of a working loop.
    pub fn silent_ms(&self, now: Moment) -> Option<u64> {
        match self.progressed.load(Ordering::Relaxed) {
            0 => None,
            progressed => Some((now.0 + 1).saturating_sub(progressed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_silent_since_its_last_progress_and_never_at_rest() {
        let heartbeat = Heartbeat::new("loop");
        assert_eq!(heartbeat.silent_ms(Moment(0)), None);
        let before = Moment::now();
        heartbeat.progress();
        assert!(heartbeat.silent_ms(Moment(Moment::now().0 + 5_000)).unwrap() >= 5_000);
        assert_eq!(heartbeat.silent_ms(before), Some(0));
        heartbeat.rest();
        assert_eq!(heartbeat.silent_ms(Moment::now()), None);
    }
}
