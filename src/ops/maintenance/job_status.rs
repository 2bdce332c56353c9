//! The known facts of each job: for `status`, for the metrics.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{counter, gauge};
use serde::{Serialize, Serializer};
use vodrelay_core::clock::WallTime;

use super::Job;
use crate::clock::Now as _;
use crate::cron::Cron;

/// All jobs, shared with observers.
#[derive(Clone, Debug)]
pub struct Jobs(Arc<Mutex<Vec<Entry>>>);

/// A job with its schedule, if it has one.
type Entry = (Option<Cron>, JobState);

/// The state of a job at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JobState {
    /// The job.
    pub job: Job,
    /// Its schedule, as cron with seconds, in UTC. Empty: never.
    pub expression: String,
    /// When its last run began, since the start of the process. A run in progress began after it ended.
    pub last_started: Option<WallTime>,
    /// When its last whole run ended.
    pub last_ended: Option<WallTime>,
    /// How that ended.
    pub last_result: Option<RunResult>,
    /// The time of its next run.
    pub next: Option<WallTime>,
}

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunResult {
    /// Well.
    Ok,
    /// With this problem.
    Failed(String),
}

impl RunResult {
    /// Its name in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed(_) => "failed",
        }
    }
}

impl fmt::Display for RunResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str(self.name()),
            Self::Failed(problem) => write!(f, "{}: {problem}", self.name()),
        }
    }
}

impl Serialize for RunResult {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Jobs {
    /// No run has ended yet.
    pub(super) fn new(jobs: &[(Job, Option<Cron>)]) -> Self {
        let state = |(job, cron): &(Job, Option<Cron>)| {
            let state = JobState {
                job: *job,
                expression: cron.as_ref().map(ToString::to_string).unwrap_or_default(),
                last_started: None,
                last_ended: None,
                last_result: None,
                next: None,
            };
            (cron.clone(), state)
        };
        Self(Arc::new(Mutex::new(jobs.iter().map(state).collect())))
    }

    /// Every job, including those without a schedule.
    pub fn snapshot(&self) -> Vec<JobState> {
        let now = WallTime::now();
        let next = |cron: &Option<Cron>| cron.as_ref().and_then(|cron| cron.next_after(now));
        self.lock().iter().map(|(cron, state)| JobState { next: next(cron), ..state.clone() }).collect()
    }

    pub(super) fn started(&self, job: Job) {
        self.update(job, |state| state.last_started = Some(WallTime::now()));
    }

    pub(super) fn ended(&self, job: Job, result: RunResult) {
        let now = WallTime::now();
        counter!("vodrelay_maintenance_runs_total", "task" => job.name(), "result" => result.name())
            .increment(1);
        gauge!("vodrelay_maintenance_last_run_timestamp_seconds", "task" => job.name()).set(seconds(now));
        if result == RunResult::Ok {
            gauge!("vodrelay_maintenance_last_success_timestamp_seconds", "task" => job.name())
                .set(seconds(now));
        }
        self.update(job, |state| {
            state.last_ended = Some(now);
            state.last_result = Some(result);
        });
    }

    fn update(&self, job: Job, change: impl FnOnce(&mut JobState)) {
        if let Some((_, state)) = self.lock().iter_mut().find(|(_, state)| state.job == job) {
            change(state);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Option<Cron>, JobState)>> {
        // A partly written value is still true for its part.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seconds(time: WallTime) -> f64 {
    time.0 as f64 / 1_000.0
}
