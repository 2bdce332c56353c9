//! Facts about the host: the time since its boot ([`BootTime`]), the wall clock ([`wall_clock_ms`]), free
//! files ([`descriptors`]), and the content of a named file ([`regular_file`]).

pub mod descriptors;
pub mod regular_file;

use std::ops::Add;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point on `CLOCK_BOOTTIME`, in milliseconds since the boot. This clock cannot be set, and it runs on in a
/// suspend, as a deadline elsewhere does, such as a lease in the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootTime {
    /// Milliseconds since the boot.
    pub ms: u64,
}

impl BootTime {
    /// The clock's time now.
    pub fn now() -> Self {
        let ts = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(ts.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(ts.tv_nsec).unwrap_or(0);
        Self { ms: seconds * 1_000 + nanos / 1_000_000 }
    }

    /// The time from `earlier` to this point; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.ms.saturating_sub(earlier.ms))
    }
}

impl Add<Duration> for BootTime {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self { ms: self.ms.saturating_add(u64::try_from(rhs.as_millis()).unwrap_or(u64::MAX)) }
    }
}

/// Milliseconds since the Unix epoch by the wall clock, which can be set; 0 before the epoch.
pub fn wall_clock_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_runs_backwards() {
        let earlier = BootTime::now();
        assert!(BootTime::now() >= earlier);
        assert_eq!(earlier.since(earlier + Duration::from_secs(1)), Duration::ZERO);
    }
}
