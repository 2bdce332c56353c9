//! Reads the two clocks of the host.

use std::time::{SystemTime, UNIX_EPOCH};

use vodrelay_core::clock::{Moment, WallTime};

/// Points on a clock of the host.
pub trait Now {
    /// Now, on this clock.
    fn now() -> Self;
}

impl Now for Moment {
    /// On `CLOCK_BOOTTIME`.
    fn now() -> Self {
        let ts = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(ts.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(ts.tv_nsec).unwrap_or(0);
        Self(seconds * 1_000 + nanos / 1_000_000)
    }
}

impl Now for WallTime {
    fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
}

/// The identity of this boot of the host: moments are comparable only within one.
pub fn boot_id() -> String {
    match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(id) => id.trim().to_owned(),
        // Without an identity every start counts as a new boot, and its leases as those of another one. In a container the
        // process has always the same number, and a clock without a battery has always the same time.
        Err(_) => format!("unknown-{}-{}-{:016x}", std::process::id(), WallTime::now().0, fastrand::u64(..)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_never_run_backwards() {
        let earlier = Moment::now();
        assert!(Moment::now() >= earlier);
    }
}
