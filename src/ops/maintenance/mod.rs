//! Scheduled maintenance: each job in a file of its own.
//!
//! One task owns all jobs, so no two runs overlap. `schedule` only reports due times. Each job works in steps
//! so small that no commit of the relay waits long. Nothing runs at the start.

mod backlog;
mod backup;
mod job_status;
mod prune;
mod schedule;
mod summary;
mod vacuum;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};
use tencent_vod::Client;
use tencent_vod_event::SubAppId;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_cron_scheduler::JobSchedulerError;
use tokio_util::sync::CancellationToken;

use crate::cron::Cron;
use crate::journal::{Closed, Journal};
use backlog::BacklogJob;
pub use backlog::Waiting;
use backup::Backups;
pub use job_status::{JobState, Jobs, RunResult};
use schedule::Bells;
use summary::DailySummary;
pub use summary::Figures;

/// The jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Job {
    /// Confirmed events leave the journal after their retention.
    Prune,
    /// The journal's free pages go back to the file system.
    Vacuum,
    /// A copy of the journal is made.
    Backup,
    /// The figures are logged.
    Summary,
    /// The cloud is asked for the number of waiting events.
    Backlog,
}

impl Job {
    /// Its name in the configuration, the log and the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prune => "prune",
            Self::Vacuum => "vacuum",
            Self::Backup => "backup",
            Self::Summary => "summary",
            Self::Backlog => "backlog",
        }
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Job {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

/// The schedule of each job, in UTC; a job without one does not run. Section `[maintenance]` of the
/// configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Deletes confirmed events after their retention.
    pub prune: Option<Cron>,
    /// Gives the journal's free pages back to the file system.
    pub vacuum: Option<Cron>,
    /// Makes a copy of the journal.
    pub backup: Option<Cron>,
    /// Logs the figures.
    pub summary: Option<Cron>,
    /// Asks the cloud for the number of waiting events.
    pub backlog: Option<Cron>,
    /// The number of copies that are kept; zero makes none.
    pub backups_kept: usize,
    /// Their folder, if it is not `backups` beside the journal. It is created when missing.
    pub backup_dir: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        let cron = |text| Some(Cron::parse(text).expect("a constant expression is right"));
        Self {
            prune: cron("0 17 * * * *"),
            vacuum: cron("0 47 3 * * *"),
            backup: cron("0 30 3 * * *"),
            summary: cron("0 0 0 * * *"),
            backlog: cron("0 * * * * *"),
            backups_kept: 2,
            backup_dir: None,
        }
    }
}

impl Options {
    /// Every job with its schedule.
    fn times(&self) -> Vec<(Job, Option<Cron>)> {
        let backup = self.backup.clone().filter(|_| self.backups_kept > 0);
        vec![
            (Job::Prune, self.prune.clone()),
            (Job::Vacuum, self.vacuum.clone()),
            (Job::Backup, backup),
            (Job::Summary, self.summary.clone()),
            (Job::Backlog, self.backlog.clone()),
        ]
    }
}

/// The parts of the relay that maintenance works on.
pub struct MaintenanceParts {
    /// How long confirmed events are kept.
    pub retention: Duration,
    /// The durable record.
    pub journal: Journal,
    /// The cloud's API.
    pub client: Client,
    /// The sub-applications whose backlog is asked for, at this moment.
    pub sub_apps: watch::Receiver<Vec<SubAppId>>,
    /// The receiver of the cloud's backlog.
    pub waiting: Waiting,
    /// The relay's work since its start.
    pub figures: Box<dyn Fn() -> Figures + Send>,
}

impl fmt::Debug for MaintenanceParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MaintenanceParts").field("journal", &self.journal).finish_non_exhaustive()
    }
}

/// Why a run did not do its work.
#[derive(Debug)]
enum JobFailure {
    /// The journal's writer has ended, so all jobs end.
    Closed,
    /// Another failure, which was logged.
    Failed(String),
}

impl From<Closed> for JobFailure {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

/// Starts maintenance. It ends, and drops the journal, when `stop` is cancelled.
///
/// # Errors
///
/// When the schedule cannot be made.
pub async fn spawn(
    options: Options,
    parts: MaintenanceParts,
    stop: CancellationToken,
) -> Result<(JoinHandle<()>, Jobs), JobSchedulerError> {
    let times = options.times();
    let jobs = Jobs::new(&times);
    let bells = times.into_iter().filter_map(|(job, cron)| Some((job, cron?))).collect();
    let bells = Bells::hang(bells).await?;
    let work = MaintenanceWork::new(options, parts, stop.clone());
    let shared = jobs.clone();
    let task = tokio::spawn(async move {
        // Commits in progress finish. The rest waits for the next start.
        stop.run_until_cancelled(maintain(bells, work, shared)).await;
    });
    Ok((task, jobs))
}

async fn maintain(mut bells: Bells, mut work: MaintenanceWork, jobs: Jobs) {
    loop {
        let job = bells.next().await;
        jobs.started(job);
        let result = match work.run(job).await {
            Ok(()) => RunResult::Ok,
            Err(JobFailure::Failed(problem)) => RunResult::Failed(problem),
            Err(JobFailure::Closed) => return,
        };
        jobs.ended(job, result);
    }
}

/// All jobs, with what they keep between runs.
struct MaintenanceWork {
    journal: Journal,
    retention: Duration,
    backups: Backups,
    sub_apps: watch::Receiver<Vec<SubAppId>>,
    figures: Box<dyn Fn() -> Figures + Send>,
    summary: DailySummary,
    backlog: BacklogJob,
}

impl MaintenanceWork {
    fn new(options: Options, parts: MaintenanceParts, stop: CancellationToken) -> Self {
        let MaintenanceParts { retention, journal, client, sub_apps, waiting, figures } = parts;
        let backup_dir = options.backup_dir.unwrap_or_else(|| journal.path().with_file_name("backups"));
        Self {
            backups: Backups::new(journal.path(), backup_dir, options.backups_kept, stop),
            summary: DailySummary::new(figures()),
            backlog: BacklogJob::new(client, sub_apps.clone(), waiting),
            sub_apps,
            retention,
            journal,
            figures,
        }
    }

    async fn run(&mut self, job: Job) -> Result<(), JobFailure> {
        match job {
            Job::Prune => prune::run(&self.journal, self.retention).await.map(drop)?,
            Job::Vacuum => vacuum::run(&self.journal).await.map(drop)?,
            Job::Backup => self.backups.run(&self.journal).await.map(drop)?,
            Job::Summary => {
                let polled = self.sub_apps.borrow().as_slice().into();
                self.summary.run(&self.journal, polled, (self.figures)()).await.map(drop)?;
            }
            Job::Backlog => self.backlog.run().await?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
