//! Reads the two clocks of the host.

use vodrelay_core::clock::{Moment, WallTime};
use vodrelay_host::BootTime;

/// Points on a clock of the host.
pub trait Now {
    /// Now, on this clock.
    fn now() -> Self;
}

impl Now for Moment {
    /// On `CLOCK_BOOTTIME`.
    fn now() -> Self {
        Self(BootTime::now().ms)
    }
}

impl Now for WallTime {
    fn now() -> Self {
        Self(vodrelay_host::wall_clock_ms())
    }
}

/// The identity of this boot of the host: moments are comparable only within one.
pub fn boot_id() -> String {
    match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(id) => id.trim().to_owned(),
        // Without an identity every start counts as a new boot, and its leases as those of another boot. In a
        // container the process always has the same number, and a clock without a battery always begins at
        // the same time.
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
