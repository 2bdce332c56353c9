//! Maintenance beside a relay at work.

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use tencent_vod_emulator::Action;
use tencent_vod_event::SubAppId;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use vodrelay::clock::Now as _;
use vodrelay::cron::Cron;
use vodrelay::journal::query::JournalReader;
use vodrelay::journal::{self, Journal};
use vodrelay::ops::maintenance::{self, Figures, Job, JobState, RunResult};
use vodrelay_testkit::broker::LIMIT;
use vodrelay_testkit::world::{World, drained};

fn job(jobs: &[JobState], job: Job) -> &JobState {
    jobs.iter().find(|state| state.job == job).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_is_done_beside_a_relay_at_work() {
    let broker = vodrelay_testkit::broker::shared().await;
    let mut world = World::new(&broker.url(), &[8, 7]).await;
    for job in ["PRUNE", "VACUUM", "BACKUP", "SUMMARY", "BACKLOG"] {
        world.set(&format!("MAINTENANCE__{job}"), "* * * * * *");
    }
    let running = world.start().await;
    world.emulator.put_many(8, (0..200).map(|n| format!(r#"{{"EventType":"Numbered","Number":{n}}}"#)));
    world.until_confirmed().await;
    let watch = running.watch();
    let before = vodrelay_core::clock::WallTime::now();
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
    let events: u64 =
        JournalReader::open(newest).unwrap().count_by_state().unwrap().iter().map(|(_, n)| n).sum();
    assert_eq!(events, 200);
}

/// One thread, so that what is counted goes to this test's own recorder.
#[tokio::test]
async fn the_clouds_backlog_is_a_gauge_for_each_sub_application_that_there_is_now() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let world = World::new("amqp://127.0.0.1:1", &[8, 7]).await;
    world.emulator.put_many(8, (0..5).map(|n| format!(r#"{{"EventType":"Numbered","Number":{n}}}"#)));
    let places = world.places();
    let mut options = tencent_vod::Options::new(world.config.vod.endpoint.clone(), places.source);
    options.credentials = places;
    let (journal, writer) = Journal::open(&journal::Options { path: world.journal_path() }).unwrap();
    let (sub_apps, now) = watch::channel(world.config.vod.sub_apps());
    let parts = maintenance::MaintenanceParts {
        retention: world.config.journal.retention,
        journal,
        client: tencent_vod::Client::new(options).unwrap(),
        sub_apps: now,
        waiting: maintenance::Waiting::default(),
        figures: Box::new(Figures::default),
    };
    let options = maintenance::Options {
        prune: None,
        vacuum: None,
        backup: None,
        summary: None,
        backlog: Some(Cron::parse("* * * * * *").unwrap()),
        backups_kept: 0,
        backup_dir: None,
    };
    let stop = CancellationToken::new();
    let (task, _) = maintenance::spawn(options, parts, stop.clone()).await.unwrap();
    let shows = async |lines: &[&str]| {
        let shown = async {
            while !lines.iter().all(|line| metrics.render().lines().any(|shown| shown.starts_with(line))) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = timeout(LIMIT, shown).await.is_ok();
        assert!(in_time, "{lines:?}:\n{}", metrics.render());
    };
    let (eight, seven) =
        (r#"vodrelay_backlog_events{sub_app="8"}"#, r#"vodrelay_backlog_events{sub_app="7"}"#);
    shows(&[&format!("{eight} 5"), &format!("{seven} 0")]).await;
    // A reload takes one away.
    sub_apps.send_replace(vec![SubAppId(8)]);
    shows(&[&format!("{eight} 5"), &format!("{seven} NaN")]).await;
    assert!(metrics.render().contains(r#"vodrelay_maintenance_runs_total{task="backlog",result="ok"}"#));
    assert!(
        metrics.render().contains(r#"vodrelay_maintenance_last_success_timestamp_seconds{task="backlog"}"#)
    );
    // The cloud is gone: what is not known is no number.
    drop(world);
    let failed = r#"vodrelay_maintenance_runs_total{task="backlog",result="failed"} "#;
    shows(&[&format!("{eight} NaN"), failed]).await;
    stop.cancel();
    task.await.unwrap();
    tokio::task::spawn_blocking(|| writer.join()).await.unwrap().unwrap();
}
