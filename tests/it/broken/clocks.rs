//! Clocks that step, by ten minutes each way: the cloud's, and the host's wall clock.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tencent_vod_emulator::{Fault, FaultKind};
use vodrelay_testkit::broker::shared;
use vodrelay_testkit::world::{World, drained};

use super::program::{Program, relay};
use super::{accounted, put_events};

const TEN_MINUTES_MS: i64 = 600_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_whose_clock_steps_each_way_is_followed() {
    let broker = shared().await;
    let world = World::new(&broker.url(), &[0]).await;
    let running = world.start().await;
    let mut first = 0;
    // Ahead, behind (twenty minutes at once), right again, behind, ahead.
    for ms in [TEN_MINUTES_MS, -TEN_MINUTES_MS, 0, -TEN_MINUTES_MS, TEN_MINUTES_MS, 0] {
        put_events(&world, first..first + 100);
        world.until("some went through", |state| state.counts(0).confirmed >= first + 20).await;
        world.emulator.faults().clear();
        world.emulator.faults().add(Fault::always(FaultKind::ClockSkew { ms }));
        first += 100;
    }
    world.until_confirmed().await;
    world.until_journal_agrees().await;
    let snapshot = drained(running).await;
    assert_eq!((snapshot.let_go, snapshot.redelivered), (0, 0), "no lease is lost over it: {snapshot:?}");
    assert_eq!(accounted(&world, &broker.drain(&world.queue, 600).await), 0, "each once");
}

/// The library that Debian's package `faketime` brings.
fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let found = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    found.expect("libfaketimeMT.so.1 is not in /usr/lib/*/faketime: apt-get install faketime")
}

/// Steps the wall clock of the program, and of nothing else.
fn step(file: &Path, seconds: i64) {
    let new = file.with_extension("new");
    std::fs::write(&new, format!("{seconds:+}\n")).unwrap();
    std::fs::rename(new, file).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_clock_that_steps_each_way_costs_no_lease_and_no_event() {
    let broker = shared().await;
    let world = World::new(&broker.url(), &[0]).await;
    let folder = tempfile::tempdir().unwrap();
    let offset = folder.path().join("offset");
    step(&offset, 0);
    let mut environment: BTreeMap<String, String> = world.environment();
    for (name, value) in [
        ("LD_PRELOAD", library().to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", offset.to_str().unwrap()),
        // The file is looked at with every reading of the clock.
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ] {
        environment.insert(name.to_owned(), value.to_owned());
    }
    let program = Program::start(relay(environment));
    let mut first = 0;
    for seconds in [600, -600, 0, -600, 600, 0] {
        put_events(&world, first..first + 100);
        world.until("some went through", |state| state.counts(0).confirmed >= first + 20).await;
        step(&offset, seconds);
        first += 100;
    }
    world.until_confirmed().await;
    world.until_journal_agrees().await;
    let log = program.drained().await;
    // The step reached the program: the cloud refused its time stamps, and it corrected them.
    assert!(log.contains("requests are now signed with the cloud's time"), "{log}");
    assert!(log.contains("the host's clock is right again"), "{log}");
    let mut progress = log.lines().filter(|line| line.contains("\"relayed\"")).peekable();
    assert!(progress.peek().is_some(), "{log}");
    assert!(progress.all(|line| line.contains("\"let_go\":0")), "{log}");
    let stepped = "SELECT max(received_at) - min(received_at) FROM event";
    assert!(world.figure(stepped) > 1_000_000, "the journal's times, for people, stepped too");
    assert_eq!(world.figure("SELECT sum(redeliveries) FROM event"), 0, "no lease is lost over it");
    assert_eq!(accounted(&world, &broker.drain(&world.queue, 600).await), 0, "each once");
}
