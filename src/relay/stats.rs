//! Figures of this run, for observers. Lasting figures are in the journal.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use vodrelay_core::clock::Moment;
use vodrelay_core::machine::Load;
use vodrelay_core::outcome::{Problem, PublishOutcome};
use vodrelay_core::stages::Stages;

/// Figures that the relay writes and others read.
#[derive(Debug)]
pub struct RelayStats {
    figures: Mutex<Measured>,
}

#[derive(Debug)]
struct Measured {
    snapshot: Snapshot,
    pull_to_confirm_ms: Histogram<u64>,
}

/// The figures at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Deliveries that pulls brought.
    pub deliveries: u64,
    /// Deliveries of events that the journal already had.
    pub redelivered: u64,
    /// Publishes by their outcome. Acked ones count after the journal's commit.
    pub publishes: BTreeMap<&'static str, u64>,
    /// Handles that the cloud accepted, counted after the commit.
    pub confirmed: u64,
    /// Handles that were let go after a rejected or unanswered confirm.
    pub let_go: u64,
    /// Events that were given up.
    pub parked: u64,
    /// The smallest rest of the cloud's window at a confirm's answer.
    pub smallest_lease_left: Option<Duration>,
    /// The median time from the pull's answer to the confirm's.
    pub pull_to_confirm_p50: Option<Duration>,
    /// The same, 99th percentile.
    pub pull_to_confirm_p99: Option<Duration>,
    /// The state of the stages.
    pub stages: Stages,
    /// The time of the last commit of a step of an event: new, published, or confirmed.
    pub moved_at: Option<Moment>,
    /// What is in flight.
    pub load: Load,
}

impl Snapshot {
    /// Deliveries of events that the journal did not have.
    pub fn received(&self) -> u64 {
        self.deliveries.saturating_sub(self.redelivered)
    }

    /// Publishes that were acked.
    pub fn published(&self) -> u64 {
        self.publishes.get(PublishOutcome::Acked.name()).copied().unwrap_or(0)
    }

    /// The problem that lasts now although the output and the journal are up. Only one, so a line stays a
    /// line.
    pub fn problem(&self) -> Option<&Problem> {
        let Stages { pull, publish, confirm, .. } = &self.stages;
        [publish, pull, confirm]
            .into_iter()
            .find_map(|stage| stage.problem.as_ref())
            .map(|(problem, _)| problem)
    }
}

impl Default for RelayStats {
    fn default() -> Self {
        Self::new()
    }
}

impl RelayStats {
    /// All zero.
    pub fn new() -> Self {
        // An hour is far beyond the window; longer times count as an hour.
        let pull_to_confirm_ms =
            Histogram::new_with_max(3_600_000, 3).expect("the bounds are constants that fit");
        Self { figures: Mutex::new(Measured { snapshot: Snapshot::default(), pull_to_confirm_ms }) }
    }

    /// The figures now.
    pub fn snapshot(&self) -> Snapshot {
        let figures = self.lock();
        let at = |quantile| {
            let filled = !figures.pull_to_confirm_ms.is_empty();
            filled.then(|| Duration::from_millis(figures.pull_to_confirm_ms.value_at_quantile(quantile)))
        };
        Snapshot { pull_to_confirm_p50: at(0.5), pull_to_confirm_p99: at(0.99), ..figures.snapshot.clone() }
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.lock().snapshot);
    }

    /// The journal has committed this many publishes.
    pub(super) fn published(&self, now: Moment, events: usize) {
        let snapshot = &mut self.lock().snapshot;
        *snapshot.publishes.entry(PublishOutcome::Acked.name()).or_default() += events as u64;
        snapshot.moved_at = Some(now);
    }

    /// A publish ended otherwise.
    pub(super) fn failed(&self, outcome: &PublishOutcome) {
        *self.lock().snapshot.publishes.entry(outcome.name()).or_default() += 1;
    }

    pub(super) fn confirmed(&self, pull_to_confirm: Duration, lease_left: Duration) {
        let mut figures = self.lock();
        figures.snapshot.confirmed += 1;
        let least = figures.snapshot.smallest_lease_left.map_or(lease_left, |least| least.min(lease_left));
        figures.snapshot.smallest_lease_left = Some(least);
        let ms = u64::try_from(pull_to_confirm.as_millis()).unwrap_or(u64::MAX);
        figures.pull_to_confirm_ms.saturating_record(ms);
    }

    fn lock(&self) -> MutexGuard<'_, Measured> {
        // A partly written figure is still a figure.
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_add_up() {
        let stats = RelayStats::new();
        assert_eq!(stats.snapshot().pull_to_confirm_p50, None);
        stats.published(Moment(1), 2);
        stats.failed(&PublishOutcome::Nacked);
        for ms in 1..=100 {
            stats.confirmed(Duration::from_millis(ms), Duration::from_millis(30_000 - ms));
        }
        let snapshot = stats.snapshot();
        assert_eq!(snapshot.publishes, BTreeMap::from([("acked", 2), ("nacked", 1)]));
        assert_eq!(snapshot.smallest_lease_left, Some(Duration::from_millis(29_900)));
        assert_eq!(snapshot.pull_to_confirm_p50, Some(Duration::from_millis(50)));
        assert_eq!(snapshot.confirmed, 100);
    }
}
