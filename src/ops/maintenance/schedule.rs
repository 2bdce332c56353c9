//! The schedule: when each job is due.
//!
//! The scheduler only reports due times. tokio-cron-scheduler 0.15.1 can stop for ever once it falls behind
//! (its issue 113). So every job is also watched by the clock: an overdue one is logged, run, and scheduled
//! again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_cron_scheduler::{JobScheduler, JobSchedulerError};
use tracing::{error, info, warn};
use vodrelay_core::clock::WallTime;
use vodrelay_core::error_code::ErrorCode;

use super::Job;
use crate::clock::Now as _;
use crate::cron::Cron;

/// The scheduler reads its clock twice a second. A job that is later than this at two checks, which are as
/// far apart, is overdue. Two checks, because the clock can be set and the host can sleep: the first check
/// may come just before the scheduler's.
const GRACE: Duration = Duration::from_secs(10);

/// How often the clock is read when no job is due: it can be set back.
const LOOK: Duration = Duration::from_secs(60);

/// The schedule of all jobs.
pub(super) struct Bells {
    bells: Vec<Bell>,
    rung: Arc<Rung>,
    /// `None` when it cannot be made again. Then only the clock counts.
    scheduler: Option<JobScheduler>,
    grace: Duration,
    /// The next check of the clock.
    look_at: Instant,
}

/// One job's bell.
#[derive(Clone)]
struct Bell {
    job: Job,
    cron: Cron,
    /// The next due time, if there is one.
    due: Option<WallTime>,
    /// Whether the last check found it late.
    is_late: bool,
    /// Whether it was reported as overdue and has not fired since.
    is_silent: bool,
}

/// The jobs that have fired and were not taken yet, each once.
#[derive(Default)]
struct Rung {
    jobs: Mutex<VecDeque<Job>>,
    news: Notify,
}

impl Rung {
    fn ring(&self, job: Job) {
        let mut jobs = self.jobs();
        if !jobs.contains(&job) {
            jobs.push_back(job);
        }
        drop(jobs);
        self.news.notify_one();
    }

    fn take(&self) -> Option<Job> {
        self.jobs().pop_front()
    }

    fn has(&self, job: Job) -> bool {
        self.jobs().contains(&job)
    }

    fn jobs(&self) -> MutexGuard<'_, VecDeque<Job>> {
        // A list of names is consistent at every moment.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bells {
    /// Schedules each of these jobs.
    pub(super) async fn hang(jobs: Vec<(Job, Cron)>) -> Result<Self, JobSchedulerError> {
        let now = WallTime::now();
        let bell = |(job, cron): (Job, Cron)| {
            let due = cron.next_after(now);
            Bell { job, cron, due, is_late: false, is_silent: false }
        };
        let bells: Vec<Bell> = jobs.into_iter().map(bell).collect();
        let rung = Arc::new(Rung::default());
        let scheduler = Some(scheduler(&bells, &rung).await?);
        let mut hung = Self { bells, rung, scheduler, grace: GRACE, look_at: Instant::now() };
        hung.look_again(now);
        Ok(hung)
    }

    /// Waits for the next job that is due.
    pub(super) async fn next(&mut self) -> Job {
        loop {
            // The check comes first: a job that fires all the time must not hide another one's silence.
            if Instant::now() >= self.look_at {
                let now = WallTime::now();
                let overdue = self.look(now);
                self.look_again(now);
                if let Some(job) = overdue {
                    self.hang_anew().await;
                    return job;
                }
            }
            if let Some(job) = self.rung.take() {
                self.answered(job);
                return job;
            }
            tokio::select! {
                () = self.rung.news.notified() => {}
                () = tokio::time::sleep_until(self.look_at) => {}
            }
        }
    }

    fn answered(&mut self, job: Job) {
        let now = WallTime::now();
        for bell in self.bells.iter_mut().filter(|bell| bell.job == job) {
            if bell.is_silent {
                info!(job = job.name(), "the maintenance schedule works again");
            }
            *bell = Bell { due: bell.cron.next_after(now), is_late: false, is_silent: false, ..bell.clone() };
        }
    }

    fn look_again(&mut self, now: WallTime) {
        let late = |due: WallTime| {
            let ms = (due + self.grace).0.saturating_sub(now.0);
            Duration::from_millis(u64::try_from(ms).unwrap_or(0))
        };
        let of = |bell: &Bell| if bell.is_late { Some(self.grace) } else { bell.due.map(late) };
        self.look_at = Instant::now() + self.bells.iter().filter_map(of).fold(LOOK, Duration::min);
    }

    /// Checks the clock. An overdue job is returned as if it had fired.
    fn look(&mut self, now: WallTime) -> Option<Job> {
        for bell in &mut self.bells {
            let Some(due) = bell.due else { continue };
            // The clock was set back, perhaps by hours. The scheduler waits for its old time; the jobs must
            // not.
            let due = bell.cron.next_after(now).map_or(due, |next| next.min(due));
            bell.due = Some(due);
            // A job that fired while another one ran is not late.
            if now < due + self.grace || self.rung.has(bell.job) {
                bell.is_late = false;
            } else if !std::mem::replace(&mut bell.is_late, true) {
                // Nothing is reported before the second check.
            } else {
                if !bell.is_silent {
                    warn!(
                        error_code = %ErrorCode::Maintenance,
                        job = bell.job.name(),
                        expression = %bell.cron,
                        %due,
                        "the maintenance schedule missed a job; the job runs now, and the schedule is made again"
                    );
                }
                let due = bell.cron.next_after(now);
                *bell = Bell { due, is_late: false, is_silent: true, ..bell.clone() };
                return Some(bell.job);
            }
        }
        None
    }

    async fn hang_anew(&mut self) {
        if let Some(mut old) = self.scheduler.take() {
            // It only sets a flag. A scheduler that misses it is no worse than before.
            let _ = old.shutdown().await;
        }
        match scheduler(&self.bells, &self.rung).await {
            Ok(new) => self.scheduler = Some(new),
            Err(error) => error!(
                error_code = %ErrorCode::Maintenance,
                %error,
                "the maintenance schedule cannot be made again; jobs run by the clock, some seconds late"
            ),
        }
    }
}

/// A scheduler that only reports due times. It holds no part of the relay, because its end cannot be awaited.
async fn scheduler(bells: &[Bell], rung: &Arc<Rung>) -> Result<JobScheduler, JobSchedulerError> {
    let scheduler = JobScheduler::new().await?;
    for bell in bells {
        let (job, rung) = (bell.job, Arc::clone(rung));
        let ring = tokio_cron_scheduler::Job::new(bell.cron.as_str(), move |_, _| rung.ring(job))?;
        scheduler.add(ring).await?;
    }
    scheduler.start().await?;
    Ok(scheduler)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(20);

    fn every_second(job: Job) -> (Job, Cron) {
        (job, Cron::parse("* * * * * *").unwrap())
    }

    fn hourly(job: Job) -> (Job, Cron) {
        (job, Cron::parse("0 17 * * * *").unwrap())
    }

    async fn next(bells: &mut Bells) -> Job {
        tokio::time::timeout(BOUND, bells.next()).await.expect("a bell")
    }

    /// A schedule whose scheduler has stopped for ever, as it does when it falls behind.
    async fn fallen_silent(jobs: Vec<(Job, Cron)>) -> Bells {
        let mut bells = Bells::hang(jobs).await.unwrap();
        let mut scheduler = bells.scheduler.take().unwrap();
        scheduler.shutdown().await.unwrap();
        bells.grace = Duration::from_millis(50);
        bells.look_again(WallTime::now());
        bells
    }

    #[tokio::test]
    async fn each_bell_rings_at_its_time() {
        let mut bells =
            Bells::hang(vec![every_second(Job::Prune), hourly(Job::Vacuum), every_second(Job::Backlog)])
                .await
                .unwrap();
        let mut rung = Vec::new();
        while !(rung.contains(&Job::Prune) && rung.contains(&Job::Backlog)) {
            rung.push(next(&mut bells).await);
        }
        assert!(!rung.contains(&Job::Vacuum), "{rung:?}");
    }

    #[tokio::test]
    async fn a_bell_that_fell_silent_is_made_good_said_once_and_rings_again() {
        let mut bells = fallen_silent(vec![every_second(Job::Prune)]).await;
        assert_eq!(next(&mut bells).await, Job::Prune);
        assert!(bells.bells[0].is_silent, "it was made good without a ring");
        assert!(bells.scheduler.is_some(), "hung anew");
        // From now on the clock would take too long.
        bells.grace = Duration::from_secs(3_600);
        bells.look_again(WallTime::now());
        while bells.bells[0].is_silent {
            assert_eq!(next(&mut bells).await, Job::Prune);
        }
    }

    #[tokio::test]
    async fn a_bell_that_rings_all_the_time_does_not_hide_the_silence_of_another() {
        let mut bells = fallen_silent(vec![every_second(Job::Prune)]).await;
        let rung = Arc::clone(&bells.rung);
        let noise = async {
            loop {
                rung.ring(Job::Backlog);
                tokio::task::yield_now().await;
            }
        };
        let made_good = async { while next(&mut bells).await != Job::Prune {} };
        tokio::select! {
            () = noise => {}
            made_good = tokio::time::timeout(BOUND, made_good) => made_good.expect("it is made good"),
        }
    }

    #[tokio::test]
    async fn the_first_look_at_a_late_bell_says_nothing_and_a_ring_clears_it() {
        let mut bells = Bells::hang(vec![hourly(Job::Prune)]).await.unwrap();
        let due = bells.bells[0].due.unwrap();
        assert_eq!(bells.look(due + GRACE - Duration::from_millis(1)), None);
        assert!(!bells.bells[0].is_late);
        // As after a sleep of the host, when the clock has advanced and the scheduler has not read it yet.
        assert_eq!(bells.look(due + GRACE), None);
        assert!(bells.bells[0].is_late);
        bells.rung.ring(Job::Prune);
        assert_eq!(bells.look(due + 2 * GRACE), None);
        assert!(!bells.bells[0].is_late, "it rang, and waits for another job to end");
    }

    #[tokio::test]
    async fn a_clock_that_was_set_back_does_not_put_a_bell_off() {
        let mut bells = Bells::hang(vec![hourly(Job::Prune)]).await.unwrap();
        let due = bells.bells[0].due.unwrap();
        let back = Duration::from_secs(3 * 3_600);
        assert_eq!(bells.look(due - back - Duration::from_secs(60)), None);
        assert_eq!(bells.bells[0].due, Some(due - back));
        assert_eq!(bells.look(due - back + GRACE), None);
        assert_eq!(bells.look(due - back + 2 * GRACE), Some(Job::Prune));
    }
}
