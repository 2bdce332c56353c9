//! The arithmetic of the window.
//!
//! The cloud accepts a handle for 30 s after its delivery ("ConfirmEvents", document 266/33434). The relay
//! cannot see that moment, so its lease starts before the pull request is sent, which is never later.

use std::time::Duration;

use crate::clock::{Moment, WallTime};

/// How long handles can be confirmed, and the part of that which is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The cloud's window, from the delivery on.
    pub length: Duration,
    /// The unused end of it.
    pub margin: Duration,
}

impl Window {
    /// The lease of a delivery whose pull request was sent at `sent_at`.
    pub fn lease(&self, sent_at: Moment) -> Lease {
        Lease { sent_at, cutoff: sent_at + self.length.saturating_sub(self.margin) }
    }
}

/// When a handle was requested, and the moment from which it must not be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Just before the pull request was sent.
    pub sent_at: Moment,
    /// No confirm leaves at or after this moment.
    pub cutoff: Moment,
}

impl Lease {
    /// Whether the handle must be let go.
    pub fn lapsed(&self, now: Moment) -> bool {
        now >= self.cutoff
    }

    /// The rest of the lease.
    pub fn remaining(&self, now: Moment) -> Duration {
        self.cutoff.since(now)
    }
}

/// A lease in the journal, perhaps of an earlier boot or of another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptLease {
    /// On the boot clock of its boot.
    pub lease: Lease,
    /// Its cutoff on the wall clock of its host.
    pub until: WallTime,
    /// Whether that boot is this one, so the boot clock decides.
    pub this_boot: bool,
}

/// The clocks at the judgement of a kept lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// When this process opened the journal, on the boot clock.
    pub opened: Moment,
    /// The boot clock.
    pub now: Moment,
    /// The wall clock. It may be wrong.
    pub wall: WallTime,
}

/// The judgement of a kept lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It can still be confirmed.
    Live,
    /// It cannot.
    Lapsed,
    /// Only the wall clock says that it has not lapsed.
    Doubtful,
}

impl KeptLease {
    /// Judges the lease by the boot clock where possible, and else by the wall clock within its bounds.
    pub fn standing(&self, clocks: &Clocks) -> Standing {
        let Clocks { opened, now, wall } = *clocks;
        // A future moment belongs to another clock, whatever the boot's name: a machine was set back.
        if self.this_boot && self.lease.sent_at <= now {
            return if self.lease.lapsed(now) { Standing::Lapsed } else { Standing::Live };
        }
        let length = self.lease.cutoff.since(self.lease.sent_at);
        // Another process requested it. One process at a time has the journal, so it began before this
        // process.
        if now.since(opened) >= length {
            return Standing::Lapsed;
        }
        // A lease that ends later than now plus its length would begin in the future: the wall clock is
        // wrong.
        if self.until <= wall || self.until > wall + length {
            return Standing::Lapsed;
        }
        Standing::Doubtful
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window { length: Duration::from_secs(30), margin: Duration::from_secs(3) };

    #[test]
    fn a_lease_lapses_at_its_cutoff_and_not_before() {
        let lease = WINDOW.lease(Moment(1_000));
        assert_eq!(lease.cutoff, Moment(28_000));
        assert!(!lease.lapsed(Moment(27_999)));
        assert!(lease.lapsed(Moment(28_000)));
        assert_eq!(lease.remaining(Moment(27_000)), Duration::from_secs(1));
        assert_eq!(lease.remaining(Moment(40_000)), Duration::ZERO);
    }

    #[test]
    fn a_margin_longer_than_the_window_leaves_nothing() {
        let window = Window { length: Duration::from_secs(1), margin: Duration::from_secs(3) };
        assert!(window.lease(Moment(5)).lapsed(Moment(5)));
    }

    /// A lease of 27 s that ends at 100 s on the wall clock.
    fn of_another_boot() -> KeptLease {
        let lease = WINDOW.lease(Moment(500_000));
        KeptLease { lease, until: WallTime(100_000), this_boot: false }
    }

    #[track_caller]
    fn stands(lease: KeptLease, opened: u64, now: u64, wall: i64, expected: Standing) {
        let clocks = Clocks { opened: Moment(opened), now: Moment(now), wall: WallTime(wall) };
        assert_eq!(lease.standing(&clocks), expected, "{clocks:?}");
    }

    #[test]
    fn a_lease_of_this_boot_is_judged_by_the_boot_clock_alone() {
        let lease = KeptLease { this_boot: true, ..of_another_boot() };
        for wall in [0, 99_999, 100_000, 900_000] {
            stands(lease, 526_000, 526_999, wall, Standing::Live);
            stands(lease, 526_000, 527_000, wall, Standing::Lapsed);
        }
    }

    #[test]
    fn a_lease_of_another_boot_is_judged_by_the_wall_clock_within_its_bounds() {
        let lease = of_another_boot();
        stands(lease, 7_000, 8_000, 99_999, Standing::Doubtful);
        stands(lease, 7_000, 8_000, 100_000, Standing::Lapsed);
        // The earliest moment at which it can have been asked for, and one before.
        stands(lease, 7_000, 8_000, 73_000, Standing::Doubtful);
        stands(lease, 7_000, 8_000, 72_999, Standing::Lapsed);
        // A clock that is behind by a day.
        stands(lease, 7_000, 8_000, 100_000 - 86_400_000, Standing::Lapsed);
    }

    #[test]
    fn no_lease_of_another_boot_outlives_the_first_window_of_a_process() {
        let lease = of_another_boot();
        stands(lease, 7_000, 33_999, 99_999, Standing::Doubtful);
        stands(lease, 7_000, 34_000, 99_999, Standing::Lapsed);
    }

    #[test]
    fn a_lease_of_this_boot_that_begins_in_the_future_is_one_of_another_boot() {
        let lease = KeptLease { this_boot: true, ..of_another_boot() };
        stands(lease, 7_000, 8_000, 99_999, Standing::Doubtful);
        stands(lease, 7_000, 8_000, 100_000, Standing::Lapsed);
        stands(lease, 7_000, 34_000, 99_999, Standing::Lapsed);
    }
}
