//! How long a write may wait to share a commit.
//!
//! A commit has a fixed cost, so writes are gathered, as PostgreSQL's `commit_delay` does. A write that an
//! event waits for is never delayed. Records of past facts, and full answers of the cloud, are delayed for a
//! moment.

use std::time::Duration;

use vodrelay_core::write::{EVENTS_PER_PULL, Urgency};

/// The longest delay of a write: four full answers arrive within it at the documented quota. It delays
/// confirms, and events that have waited longer in the cloud.
const DELAY_MAX: Duration = Duration::from_millis(40);
/// The delay for each event that may be in flight. With few of them, throughput is limited by latency, so the
/// delay shrinks.
const DELAY_PER_EVENT_US: u64 = 40;
/// The delay while a confirm waits for fewer rows than a full answer brings: the journal has time then.
const DELAY_FOR_FEW: Duration = Duration::from_millis(5);
/// With this many rows a commit is cheap for each of them, and is no longer delayed.
const ROWS_MAX: usize = 768;

/// The delay of the writes that are gathered.
#[derive(Debug)]
pub(super) struct CommitDelay {
    longest: Duration,
    rows: usize,
    confirm_waits: bool,
    is_urgent: bool,
}

impl CommitDelay {
    /// Nothing is gathered.
    pub(super) fn new(max_in_flight: usize) -> Self {
        Self { longest: longest(max_in_flight), rows: 0, confirm_waits: false, is_urgent: false }
    }

    /// Sets another limit of the events in flight.
    pub(super) fn configure(&mut self, max_in_flight: usize) {
        self.longest = longest(max_in_flight);
    }

    /// Adds a write to those that are gathered.
    pub(super) fn add(&mut self, urgency: Urgency) {
        match urgency {
            Urgency::Urgent => self.is_urgent = true,
            Urgency::Deferrable { rows, confirm_waits } => {
                self.rows += rows;
                self.confirm_waits |= confirm_waits;
            }
        }
    }

    /// The time from the first of them to their commit.
    pub(super) fn get(&self) -> Duration {
        if self.is_urgent || self.rows >= ROWS_MAX {
            Duration::ZERO
        } else if self.confirm_waits && self.rows < EVENTS_PER_PULL {
            self.longest.min(DELAY_FOR_FEW)
        } else {
            self.longest
        }
    }

    /// The gathered writes were sent.
    pub(super) fn reset(&mut self) {
        *self = Self { longest: self.longest, rows: 0, confirm_waits: false, is_urgent: false };
    }
}

fn longest(max_in_flight: usize) -> Duration {
    Duration::from_micros((max_in_flight as u64).saturating_mul(DELAY_PER_EVENT_US)).min(DELAY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_waits_as_long_as_the_table_says() {
        let acks = |rows| Urgency::Deferrable { rows, confirm_waits: true };
        let others = |rows| Urgency::Deferrable { rows, confirm_waits: false };
        let full = EVENTS_PER_PULL;
        for (gathered, delay) in [
            (vec![acks(1)], DELAY_FOR_FEW),
            (vec![acks(full - 1)], DELAY_FOR_FEW),
            (vec![acks(full)], DELAY_MAX),
            (vec![acks(full / 2), acks(full / 2)], DELAY_MAX),
            (vec![others(1)], DELAY_MAX),
            (vec![others(1), acks(1)], DELAY_FOR_FEW),
            (vec![others(full)], DELAY_MAX),
            (vec![Urgency::Urgent], Duration::ZERO),
            (vec![others(full), acks(1), Urgency::Urgent], Duration::ZERO),
            (vec![others(ROWS_MAX - 1)], DELAY_MAX),
            (vec![others(ROWS_MAX - 1), acks(1)], Duration::ZERO),
        ] {
            let mut policy = CommitDelay::new(1_024);
            gathered.iter().for_each(|urgency| policy.add(*urgency));
            assert_eq!(policy.get(), delay, "{gathered:?}");
            policy.reset();
            policy.add(others(1));
            assert_eq!(policy.get(), DELAY_MAX, "after {gathered:?}");
        }
    }

    #[test]
    fn the_fewer_events_may_be_in_flight_the_shorter_the_delay() {
        let of = |max_in_flight| {
            let mut policy = CommitDelay::new(usize::MAX);
            policy.configure(max_in_flight);
            policy.get()
        };
        assert_eq!([of(usize::MAX), of(1_024)], [DELAY_MAX; 2], "the second by default");
        assert_eq!(of(128), Duration::from_micros(5_120));
    }
}
