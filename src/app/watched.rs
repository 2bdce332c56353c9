//! The visible state of a running relay.

use std::sync::Arc;
use std::time::Duration;

use tencent_vod::Client;
use tokio::sync::watch;
use vodrelay_core::clock::Moment;
use vodrelay_core::error_code::ErrorCode;
use vodrelay_core::outcome::{JournalState, OutputState};

use super::journal_figures::JournalFigures;
use crate::clock::Now as _;
use crate::heartbeat::Heartbeat;
use crate::latency::{Latency, Quantiles};
use crate::ops::maintenance::{self, JobState, Jobs};
use crate::relay::{RelayStats, Snapshot};

/// An event with such a recent step means that the relay works, although nothing is in flight now.
const LATELY: Duration = Duration::from_secs(10);

/// The visible state of a running relay.
#[derive(Clone, Debug)]
pub struct Watch {
    pub(super) stats: Arc<RelayStats>,
    // The states only: a sender to the journal would keep its writer alive for an observer.
    pub(super) journal: watch::Receiver<JournalState>,
    pub(super) output: watch::Receiver<OutputState>,
    pub(super) broker: watch::Receiver<Option<Arc<str>>>,
    pub(super) waiting: maintenance::Waiting,
    pub(super) commit_times: Arc<Latency>,
    pub(super) publish_times: Arc<Latency>,
    pub(super) client: Client,
    pub(super) heartbeats: Arc<[Heartbeat]>,
    pub(super) figures: watch::Receiver<Option<JournalFigures>>,
    pub(super) jobs: Jobs,
}

impl Watch {
    /// The figures of this run.
    pub fn snapshot(&self) -> Snapshot {
        self.stats.snapshot()
    }

    /// The duration of the journal's transactions.
    pub fn commit_times(&self) -> Quantiles {
        self.commit_times.quantiles()
    }

    /// The duration of the broker's publishes.
    pub fn publish_times(&self) -> Quantiles {
        self.publish_times.quantiles()
    }

    /// For each job of maintenance the last run, its result, and the next run.
    pub fn maintenance(&self) -> Vec<JobState> {
        self.jobs.snapshot()
    }

    /// Whether the output takes events.
    pub fn output_state(&self) -> watch::Receiver<OutputState> {
        self.output.clone()
    }

    /// The relay's state in some words: the problem, or the work.
    pub(super) fn state(&self, snapshot: &Snapshot) -> String {
        match (&*self.journal.borrow(), &*self.output.borrow()) {
            (JournalState::Down(problem), _) => format!("journal down: {problem}"),
            (_, OutputState::Down(problem)) => format!("output down: {problem}"),
            (_, OutputState::Blocked(problem)) => format!("output blocked: {problem}"),
            _ if snapshot.load.unroutable_since.is_some() => format!(
                "nothing is routable; {} events in flight; check the bindings of the exchange [{}]",
                snapshot.load.events,
                ErrorCode::PublishReturned
            ),
            _ => match (snapshot.problem(), snapshot.load.events) {
                (Some(problem), events) => format!("problem; {events} events in flight; {problem}"),
                (None, 0) if snapshot.moved_at.is_some_and(|at| Moment::now().since(at) < LATELY) => {
                    "relaying".to_owned()
                }
                (None, 0) => "idle".to_owned(),
                (None, events) => format!("relaying; {events} events in flight"),
            },
        }
    }

    /// The relay's state in one line.
    pub fn status(&self) -> String {
        let snapshot = self.snapshot();
        let published = snapshot.published();
        let Snapshot { deliveries, confirmed, parked, .. } = snapshot;
        let state = self.state(&snapshot);
        format!(
            "{state}; {deliveries} deliveries, {published} published, {confirmed} confirmed, {parked} parked"
        )
    }
}
