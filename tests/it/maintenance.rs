//! Maintenance beside a relay at work.

use std::time::Duration;

use tokio::time::timeout;
use vodrelay::emulator::Action;
use vodrelay::event::SubAppId;
use vodrelay::journal::query::Reader;
use vodrelay::ops::maintenance::{Job, JobState, RunResult};

use crate::broker::LIMIT;
use crate::world::{World, drained};

fn job(jobs: &[JobState], job: Job) -> &JobState {
    jobs.iter().find(|state| state.job == job).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_is_done_beside_a_relay_at_work() {
    let broker = crate::broker::shared().await;
    let mut world = World::new(&broker.url(), &[0, 7]).await;
    for job in ["PRUNE", "VACUUM", "BACKUP", "SUMMARY", "BACKLOG"] {
        world.set(&format!("MAINTENANCE__{job}"), "* * * * * *");
    }
    let running = world.start().await;
    world.emulator.put_many(0, (0..200).map(|n| format!(r#"{{"EventType":"Numbered","Number":{n}}}"#)));
    world.until_confirmed().await;
    let watch = running.watch();
    let before = vodrelay::clock::WallTime::now();
    let done = async {
        let well = |job: &JobState| {
            job.last_result == Some(RunResult::Ok) && job.last_started.is_some_and(|at| at > before)
        };
        while !watch.maintenance().iter().all(well) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(2 * LIMIT, done).await.unwrap_or_else(|_| panic!("{:#?}", watch.maintenance()));
    assert!(job(&watch.maintenance(), Job::Backup).next.is_some());
    // For both sub-applications.
    assert!(world.emulator.stats().calls(Action::DescribeEventsState) >= 2);
    drained(running).await;
    let copies: Vec<_> = std::fs::read_dir(world.folder().join("backups"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "db"))
        .collect();
    assert!((1..=2).contains(&copies.len()), "{copies:?}");
    let newest = copies.iter().max().unwrap();
    let events: u64 = Reader::open(newest).unwrap().count_by_state().unwrap().iter().map(|(_, n)| n).sum();
    assert_eq!(events, 200);
    assert_eq!(world.config.vod.sub_apps(), [SubAppId(0), SubAppId(7)]);
}
