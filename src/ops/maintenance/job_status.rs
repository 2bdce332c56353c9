//! What is known of each job: for `status`, for the metrics.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{counter, gauge};
use serde::{Serialize, Serializer};
use vodrelay_core::clock::WallTime;

use super::Job;
use crate::clock::Now as _;
use crate::cron::Cron;

/// All jobs, shared with whoever looks on.
#[derive(Clone, Debug)]
pub struct Jobs(Arc<Mutex<Vec<Entry>>>);

/// A job with its schedule, if it has one.
type Entry = (Option<Cron>, JobState);

/// One job at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JobState {
    /// The job.
    pub job: Job,
    /// When it is done, as cron with seconds, in UTC. Empty: never.
    pub expression: String,
    /// When its last run began, since the start of the process. A run that is under way ended before it began.
    pub last_started: Option<WallTime>,
    /// When its last whole run ended.
    pub last_ended: Option<WallTime>,
    /// How that ended.
    pub last_result: Option<RunResult>,
    /// When it is done next.
    pub next: Option<WallTime>,
}

/// How a run ended.
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
    /// None has run yet.
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

    /// Every job, those that are never done included.
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
        // What is half written is still true of its part.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seconds(time: WallTime) -> f64 {
    time.0 as f64 / 1_000.0
}
