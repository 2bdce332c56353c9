//! Scheduled maintenance: the journal forgets confirmed events after their retention.
//!
//! The schedule only rings; the work is done by one task, so that no two runs overlap, and in steps small enough that no
//! commit of the relay waits for long. tokio-cron-scheduler 0.15.1 can stop ringing for ever once it falls behind (its issue
//! 113), so that the task also looks at the clock: a bell that is overdue is said and made good.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::clock::WallTime;
use crate::journal::{Closed, Journal};

/// When pruning begins: at minute 17 of every hour, UTC.
const PRUNE_SCHEDULE: &str = "0 17 * * * *";

/// A bell that has not rung for so long is overdue.
const OVERDUE: Duration = Duration::from_secs(2 * 60 * 60);

/// Events that one commit forgets, and the pause before the next.
const EVENTS_PER_STEP: u32 = 250;
const PAUSE: Duration = Duration::from_millis(20);

/// Starts maintenance. It ends, and lets go of the journal, when `stop` is cancelled.
///
/// # Errors
///
/// When the schedule cannot be made.
pub async fn spawn(
    journal: Journal,
    retention: Duration,
    stop: CancellationToken,
) -> Result<JoinHandle<()>, JobSchedulerError> {
    let (bell, rings) = mpsc::channel(1);
    let schedule = schedule(PRUNE_SCHEDULE, bell).await?;
    Ok(tokio::spawn(async move {
        let work = maintain(&journal, retention, rings, OVERDUE);
        // What is being committed is committed; the rest waits for the next start.
        stop.run_until_cancelled(work).await;
        drop(schedule);
    }))
}

/// A schedule that does nothing but ring. It holds no part of the relay, because it cannot be waited for at its end.
async fn schedule(expression: &str, bell: mpsc::Sender<()>) -> Result<JobScheduler, JobSchedulerError> {
    let scheduler = JobScheduler::new().await?;
    scheduler
        .add(Job::new(expression, move |_, _| {
            // A full channel means that the last ring has not been answered yet.
            let _ = bell.try_send(());
        })?)
        .await?;
    scheduler.start().await?;
    Ok(scheduler)
}

async fn maintain(journal: &Journal, retention: Duration, mut rings: mpsc::Receiver<()>, overdue: Duration) {
    loop {
        match tokio::time::timeout(overdue, rings.recv()).await {
            Ok(Some(())) => {}
            Ok(None) => {
                // The schedule is gone; the clock alone is left.
                tokio::time::sleep(overdue).await;
            }
            Err(_) => warn!(
                overdue_s = overdue.as_secs(),
                "the maintenance schedule has stopped ringing; pruning all the same"
            ),
        }
        if prune(journal, WallTime::now() - retention).await.is_err() {
            return;
        }
    }
}

async fn prune(journal: &Journal, before: WallTime) -> Result<u64, Closed> {
    let mut pruned = 0;
    loop {
        let step = journal.prune(before, EVENTS_PER_STEP).await?;
        pruned += step;
        if step < u64::from(EVENTS_PER_STEP) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    if pruned > 0 {
        info!(events = pruned, received_before = %before, "confirmed events pruned from the journal");
    }
    Ok(pruned)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::clock::Moment;
    use crate::event::{Event, SubAppId};
    use crate::journal::{Answer, Options};
    use crate::lease::Lease;

    const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

    /// A journal with events that are as old as they say, of which those before `confirmed` are confirmed.
    async fn journal(folder: &tempfile::TempDir, events: usize, confirmed: usize, age_days: i64) -> Journal {
        let options = Options { path: folder.path().join("journal.db") };
        let (journal, writer) = Journal::open(&options).unwrap();
        drop(writer);
        let at = WallTime(WallTime::now().0 - age_days * DAY_MS);
        let now = Moment::now();
        let answer = Answer {
            sub_app: SubAppId(0),
            request_id: "r".into(),
            lease: Lease { sent_at: now, cutoff: now + Duration::from_secs(27) },
            received_at: now,
            pulled_at: at,
            lease_until: at,
            events: (0..events)
                .map(|n| {
                    let json = format!(r#"{{"EventHandle":"h{n}","N":{n}}}"#);
                    Arc::new(Event::parse(SubAppId(0), Bytes::from(json)).unwrap())
                })
                .collect(),
            publish_now: true,
        };
        let recorded = journal.record(answer).await.unwrap();
        let done = &recorded[..confirmed];
        journal.published(done.iter().map(|r| (r.event, at)).collect()).await.unwrap();
        journal.confirmed(done.iter().map(|r| r.delivery).collect(), at).await.unwrap();
        journal
    }

    #[tokio::test]
    async fn confirmed_events_go_after_their_retention_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let journal = journal(&folder, 600, 590, 31).await;
        let before = WallTime::now() - Duration::from_secs(30 * 24 * 60 * 60);
        assert_eq!(prune(&journal, before - Duration::from_secs(2 * 24 * 60 * 60)).await, Ok(0));
        assert_eq!(prune(&journal, before).await, Ok(590));
        let summary = journal.summary().await.unwrap();
        assert_eq!((summary.received, summary.confirmed), (10, 0));
    }

    #[tokio::test]
    async fn the_schedule_rings_and_a_ring_prunes() {
        let folder = tempfile::tempdir().unwrap();
        let journal = journal(&folder, 5, 5, 31).await;
        let (bell, rings) = mpsc::channel(1);
        let _schedule = schedule("* * * * * *", bell).await.unwrap();
        let retention = Duration::from_secs(30 * 24 * 60 * 60);
        let pruned = async {
            while journal.summary().await.unwrap().confirmed > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = maintain(&journal, retention, rings, OVERDUE) => panic!("maintenance ended"),
            done = tokio::time::timeout(Duration::from_secs(20), pruned) => done.expect("a ring prunes"),
        }
    }

    #[tokio::test]
    async fn a_schedule_that_fell_silent_is_made_good() {
        let folder = tempfile::tempdir().unwrap();
        let journal = journal(&folder, 5, 5, 31).await;
        let (_silent, rings) = mpsc::channel(1);
        let pruned = async {
            while journal.summary().await.unwrap().confirmed > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let retention = Duration::from_secs(30 * 24 * 60 * 60);
        tokio::select! {
            () = maintain(&journal, retention, rings, Duration::from_millis(50)) => panic!("maintenance ended"),
            done = tokio::time::timeout(Duration::from_secs(20), pruned) => done.expect("it prunes without a ring"),
        }
    }
}
