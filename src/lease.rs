//! The arithmetic of the window.
//!
//! The cloud accepts a handle for 30 s after it handed it out ("ConfirmEvents", document 266/33434). The relay cannot see
//! that moment, so its lease starts before the pull request is sent: never later than the cloud's own.

use std::time::Duration;

use crate::clock::Moment;

/// How long handles can be confirmed, and how much of that is never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// What the cloud grants, from the delivery on.
    pub length: Duration,
    /// What the relay keeps clear of at the end.
    pub margin: Duration,
}

impl Window {
    /// The lease of a delivery whose pull request was sent at `sent_at`.
    pub fn lease(&self, sent_at: Moment) -> Lease {
        Lease { sent_at, cutoff: sent_at + self.length.saturating_sub(self.margin) }
    }
}

/// When a handle was asked for, and from when on it must not be confirmed.
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

    /// What is left of the lease.
    pub fn remaining(&self, now: Moment) -> Duration {
        self.cutoff.since(now)
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
}
