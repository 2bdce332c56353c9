//! The task that owns the jobs.

use std::collections::BTreeMap;

use super::*;

/// No call to it ever succeeds.
fn no_cloud() -> tencent_vod::Client {
    let endpoint = "http://127.0.0.1:1".parse().unwrap();
    let mut options = tencent_vod::Options::new(endpoint, tencent_vod::CredentialSource::Env);
    options.credentials.environment = tencent_vod::Environment::fixed::<&str, &str>([]);
    tencent_vod::Client::new(options).unwrap()
}

fn parts(journal: &Journal) -> MaintenanceParts {
    let (_, sub_apps) = watch::channel(vec![SubAppId(0)]);
    MaintenanceParts {
        retention: RETENTION,
        journal: journal.clone(),
        client: no_cloud(),
        sub_apps,
        waiting: Waiting::default(),
        figures: Box::new(Figures::default),
    }
}

/// No job at all.
fn idle() -> Options {
    Options {
        prune: None,
        vacuum: None,
        backup: None,
        summary: None,
        backlog: None,
        backups_kept: 2,
        backup_dir: None,
    }
}

fn every_second() -> Option<Cron> {
    Some(Cron::parse("* * * * * *").unwrap())
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let held = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(BOUND, held).await.expect(what);
}

#[tokio::test]
async fn a_ring_prunes_and_the_run_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&folder);
    record(&journal, 0..5, 5, 31 * DAY).await;
    let stop = CancellationToken::new();
    let options = Options { prune: every_second(), ..idle() };
    let (task, jobs) = spawn(options, parts(&journal), stop.clone()).await.unwrap();
    let before = jobs.snapshot();
    assert_eq!(before.len(), 5, "jobs that are off are shown, too");
    assert_eq!((before[0].job, before[0].expression.as_str()), (Job::Prune, "* * * * * *"));
    assert!(before[0].next.is_some());
    assert_eq!((before[1].expression.as_str(), before[1].next), ("", None));
    until("a ring prunes", async || journal.summary(None).await.unwrap().confirmed == 0).await;
    until("the run has ended", async || jobs.snapshot()[0].last_result.is_some()).await;
    let after = &jobs.snapshot()[0];
    assert_eq!(after.last_result, Some(RunResult::Ok));
    assert!(after.last_started.is_some() && after.last_ended >= after.last_started, "{after:?}");
    let json = serde_json::to_value(after).unwrap();
    assert_eq!((&json["job"], &json["last_result"]), (&"prune".into(), &"ok".into()));
    assert!(json["next"].as_str().unwrap().ends_with("000Z"), "{json}");
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_jobs_are_done_at_once_however_often_they_ring() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&folder);
    record(&journal, 0..600, 600, 31 * DAY).await;
    let stop = CancellationToken::new();
    let options = Options {
        prune: every_second(),
        vacuum: every_second(),
        backup: every_second(),
        summary: every_second(),
        backlog: every_second(),
        ..idle()
    };
    let (task, jobs) = spawn(options, parts(&journal), stop.clone()).await.unwrap();
    let mut runs: BTreeMap<&str, Vec<WallTime>> = BTreeMap::new();
    until("each ran three times", async || {
        let snapshot = jobs.snapshot();
        let at_work = snapshot.iter().filter(|job| job.last_ended < job.last_started).count();
        assert!(at_work <= 1, "{snapshot:?}");
        for (job, started) in snapshot.iter().filter_map(|job| Some((job.job.name(), job.last_started?))) {
            let runs = runs.entry(job).or_default();
            if runs.last() != Some(&started) {
                runs.push(started);
            }
        }
        runs.len() == 5 && runs.values().all(|runs| runs.len() >= 3)
    })
    .await;
    stop.cancel();
    task.await.unwrap();
    let results: Vec<(Job, bool)> =
        jobs.snapshot().into_iter().map(|job| (job.job, job.last_result == Some(RunResult::Ok))).collect();
    let expected = [
        (Job::Prune, true),
        (Job::Vacuum, true),
        (Job::Backup, true),
        (Job::Summary, true),
        // There is no cloud.
        (Job::Backlog, false),
    ];
    assert_eq!(results, expected);
}

#[tokio::test]
async fn no_backups_are_made_when_none_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&folder);
    let stop = CancellationToken::new();
    let options = Options { backup: every_second(), summary: every_second(), backups_kept: 0, ..idle() };
    let (task, jobs) = spawn(options, parts(&journal), stop.clone()).await.unwrap();
    until("a later job ran", async || jobs.snapshot()[3].last_result.is_some()).await;
    let backup = &jobs.snapshot()[2];
    assert_eq!((backup.expression.as_str(), backup.next, backup.last_started), ("", None, None));
    assert!(!folder.path().join("backups").exists());
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn it_ends_and_lets_go_of_the_journal_when_it_is_stopped_in_the_middle_of_a_backup() {
    let folder = tempfile::tempdir().unwrap();
    let options = journal::Options { path: folder.path().join("journal.db") };
    let (journal, writer) = Journal::open(&options).unwrap();
    for thousand in 0..5 {
        record(&journal, thousand * 1_000..thousand * 1_000 + 1_000, 0, DAY).await;
    }
    let stop = CancellationToken::new();
    let options = Options { backup: every_second(), ..idle() };
    let (task, jobs) = spawn(options, parts(&journal), stop.clone()).await.unwrap();
    until("a backup has begun", async || jobs.snapshot()[2].last_started.is_some()).await;
    stop.cancel();
    drop(journal);
    tokio::time::timeout(BOUND, task).await.unwrap().unwrap();
    let joined = tokio::task::spawn_blocking(|| writer.join());
    tokio::time::timeout(BOUND, joined).await.unwrap().unwrap().unwrap();
}
