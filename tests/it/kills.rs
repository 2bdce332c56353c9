//! The real program, killed by SIGKILL at every point of an event's way, and started again: nothing is lost, every repeat
//! carries its first message id and is named, and no confirm comes after its lease.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tencent_vod_emulator::{Action, ConfirmVerdict, Fault, FaultKind};
use vodrelay_testkit::broker::{LIMIT, Received, shared};
use vodrelay_testkit::kills::audit::{Evidence, audit, figure};
use vodrelay_testkit::kills::campaign::{POINTS, Plan, Source, finish, run};
use vodrelay_testkit::kills::process::{Host, Relay};
use vodrelay_testkit::world::World;

const PROGRAM: &str = env!("CARGO_BIN_EXE_vodrelay");

fn host(world: &World) -> Host {
    Host::new(Path::new(PROGRAM), world, "relay", &[])
}

/// Waits for the end at a crash point, while events keep coming if `feed` says so.
async fn crashed(world: &World, life: &mut Relay, point: &str, mut feed: Option<&mut Source>) {
    let began = Instant::now();
    while !life.has_crashed() {
        assert!(began.elapsed() < 2 * LIMIT, "{point} was not reached");
        if let Some(source) = &mut feed {
            source.put(world, 1_500_000_002, 1);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_named_point_nothing_is_lost_and_every_repeat_is_named() {
    let broker = shared().await;
    let world = World::new(&broker.url(), &[1_500_000_001, 1_500_000_002]).await;
    let hosts = [host(&world)];
    let mut source = Source::new();
    let mut kills = 0;
    for nth in [1, 2, 5] {
        for name in POINTS {
            // These come once in every life.
            let once = name.ends_with("start") || name.ends_with("load");
            let point = format!("{name}:{}", if once { 1 } else { nth });
            source.put(&world, 1_500_000_001, 4);
            let mut life = hosts[0].start(Some(&point));
            crashed(&world, &mut life, &point, Some(&mut source)).await;
            kills += 1;
        }
    }
    finish(&world, &hosts).await;
    let found = audit(broker, &world, &hosts).await;
    println!("{kills} kills, one at every point for each of three passes: {found:?}");
    // An ack that was not committed is always a repeat: three kills were before its commit.
    assert!(found.duplicates >= 3, "{found:?}");
}

#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_around_the_commit_that_settles_a_lost_confirm() {
    let broker = shared().await;
    let world = World::new(&broker.url(), &[0]).await;
    let hosts = [host(&world)];
    let mut source = Source::new();
    let lost = Fault::always(FaultKind::AnswerLost).on(Action::ConfirmEvents);
    world.emulator.faults().add(lost);
    source.put(&world, 0, 20);
    let life = hosts[0].start(None);
    world.until_confirmed().await;
    life.kill();
    let open = "SELECT count(*) FROM event_log WHERE state = 'published'";
    assert!(figure(hosts[0].journal(), open) > 0, "no confirm's answer was seen");
    for point in ["committing settle:1", "committed settle:1"] {
        let mut life = hosts[0].start(Some(point));
        crashed(&world, &mut life, point, None).await;
    }
    assert_eq!(figure(hosts[0].journal(), open), 0, "the commit was whole");
    finish(&world, &hosts).await;
    assert_eq!(audit(broker, &world, &hosts).await.events, 20);
}

/// The calls of one action are held by the cloud, before or after they take effect, and the relay dies meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_the_cloud_holds_a_call() {
    let broker = shared().await;
    let world = World::new(&broker.url(), &[0]).await;
    let hosts = [host(&world)];
    let mut source = Source::new();
    let ms = 60_000;
    for _ in 0..3 {
        // The events are hidden, and nobody was told.
        world.emulator.faults().add(Fault::always(FaultKind::SlowAnswer { ms }).on(Action::PullEvents));
        source.put(&world, 0, 5);
        let before = world.emulator.stats().events();
        let life = hosts[0].start(None);
        world.until("a pull took events", |state| state.counts(0).deliveries > before.deliveries).await;
        assert!(life.kill());
        world.emulator.faults().clear();

        // The confirm has left, and did nothing.
        world.emulator.faults().add(Fault::always(FaultKind::Delay { ms }).on(Action::ConfirmEvents));
        source.put(&world, 0, 5);
        let calls = world.emulator.stats().calls(Action::ConfirmEvents);
        let life = hosts[0].start(None);
        world.until("a confirm arrives", |state| state.calls(Action::ConfirmEvents) > calls).await;
        assert!(life.kill());
        world.emulator.faults().clear();

        // The confirm took effect, and its answer is held.
        world.emulator.faults().add(Fault::always(FaultKind::SlowAnswer { ms }).on(Action::ConfirmEvents));
        source.put(&world, 0, 5);
        let before = world.emulator.stats().events();
        let life = hosts[0].start(None);
        world.until("a confirm took effect", |state| state.counts(0).confirmed > before.confirmed).await;
        assert!(life.kill());
        world.emulator.faults().clear();
    }
    finish(&world, &hosts).await;
    assert_eq!(audit(broker, &world, &hosts).await.events, 45);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_of_a_drain_and_ended_by_a_second_sigterm() {
    let broker = shared().await;
    let world = World::new(&broker.url(), &[0]).await;
    // The drain must still wait for the confirm when the signal comes, however busy the machine is.
    world.emulator.change_settings(|settings| settings.queue.window_ms = 10_000);
    let longer = [("VODRELAY_VOD__WINDOW", "10s")];
    let hosts = [Host::new(Path::new(PROGRAM), &world, "relay", &longer)];
    let mut source = Source::new();
    for round in 0..6 {
        let log = world.folder().join("relay.log");
        let drains = || std::fs::read_to_string(&log).unwrap_or_default().matches("drain begins").count();
        let before = (world.emulator.stats().events().confirmed, drains());
        // A confirm that is answered after a while is waited for by the drain.
        let held = Fault::always(FaultKind::SlowAnswer { ms: 60_000 }).on(Action::ConfirmEvents);
        world.emulator.faults().add(held);
        source.put(&world, 0, 20);
        let mut life = hosts[0].start(None);
        world.until("a confirm took effect", |state| state.counts(0).confirmed > before.0).await;
        life.signal(Signal::SIGTERM);
        let began = Instant::now();
        while drains() == before.1 {
            assert!(began.elapsed() < LIMIT, "no drain begins");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if round % 2 == 0 {
            assert!(life.kill(), "the drain waits for the confirm");
        } else {
            life.signal(Signal::SIGTERM);
            assert_eq!(life.ended().await.code(), Some(1), "a second signal ends it at once");
        }
        world.emulator.faults().clear();
    }
    finish(&world, &hosts).await;
    assert_eq!(audit(broker, &world, &hosts).await.events, 120);
}

/// The comparison itself: what would be wrong is seen, each by its own finding.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_comparison_sees_what_is_wrong() {
    let broker = shared().await;
    let world = World::new(&broker.url(), &[0]).await;
    let hosts = [host(&world)];
    Source::new().put(&world, 0, 5);
    finish(&world, &hosts).await;
    let mut evidence = Evidence::gather(broker, &world, &hosts).await;
    assert_eq!(evidence.findings(), [""; 0]);
    assert_eq!(evidence.messages.len(), 5);
    let first = evidence.messages[0].clone();
    let mut sees = |what: &str, tamper: &dyn Fn(&mut Evidence), mend: &dyn Fn(&mut Evidence)| {
        tamper(&mut evidence);
        let found = evidence.findings();
        assert!(found.iter().any(|finding| finding.starts_with(what)), "{what}: {found:#?}");
        mend(&mut evidence);
        assert_eq!(evidence.findings(), [""; 0], "{what}");
    };
    let id = first.message_id();
    let (mut altered, mut renamed) = (first.clone(), first.clone());
    altered.body.push(b' ');
    renamed.properties = renamed.properties.with_message_id(format!("{id}-2").into());
    let replace = |with: &Received| {
        let with = with.clone();
        move |evidence: &mut Evidence| evidence.messages[0] = with.clone()
    };
    let put_back = replace(&first);
    sees("no delivery had this body", &replace(&altered), &put_back);
    sees("lost", &replace(&altered), &put_back);
    sees("a repeat under another id", &replace(&renamed), &put_back);
    sees("only at one end", &replace(&renamed), &put_back);
    let add = |evidence: &mut Evidence| evidence.messages.push(first.clone());
    let take = |evidence: &mut Evidence| drop(evidence.messages.pop());
    sees("2 copies of 1 attempts on record", &add, &take);
    sees("a repeat that is not named", &add, &take);
    let state = |name: &'static str| {
        let id = id.clone();
        move |evidence: &mut Evidence| evidence.journals[0].events.get_mut(&id).unwrap().0 = name.to_owned()
    };
    sees(&format!("{id} is still published"), &state("published"), &state("confirmed"));
    let later = |ms: i64| {
        move |evidence: &mut Evidence| {
            let confirm = &mut evidence.ledger.confirms[0];
            confirm.at = confirm.at.checked_add_signed(ms).unwrap();
        }
    };
    sees("after the cutoff by", &later(4_000), &later(-4_000));
    let verdict = |verdict| move |evidence: &mut Evidence| evidence.ledger.confirms[0].verdict = verdict;
    sees("ConfirmRecord", &verdict(ConfirmVerdict::Late), &verdict(ConfirmVerdict::Confirmed));
    let requests = evidence.journals[0].requests.clone();
    evidence.journals[0].requests.clear();
    assert!(evidence.findings().iter().any(|finding| finding.starts_with("published from an answer")));
    evidence.journals[0].requests = requests;
    evidence.journals[0].leases.clear();
    assert!(evidence.findings().iter().all(|finding| finding.starts_with("confirmed, and its delivery")));
    assert!(!evidence.findings().is_empty());
}

fn plan(seed: u64, kills: u32) -> Plan {
    Plan::by_chance(Path::new(PROGRAM), seed, kills, cfg!(debug_assertions))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_kills_at_random_with_three_sub_applications() {
    let sub_apps = vec![1_500_000_001, 1_500_000_002, 1_500_000_003];
    let plan =
        Plan { relays: 1, sub_apps, confirm_after: "publish", same_handle: false, ..plan(20_261_120, 60) };
    println!("{}", run(shared().await, &plan).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_at_random_confirming_after_the_journal() {
    let plan =
        Plan { relays: 1, sub_apps: vec![7], confirm_after: "journal", same_handle: true, ..plan(7, 50) };
    println!("{}", run(shared().await, &plan).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_relays_on_one_queue_killed_in_turn() {
    let sub_apps = vec![1_500_000_001, 1_500_000_002];
    let plan = Plan { relays: 2, sub_apps, confirm_after: "publish", same_handle: false, ..plan(2, 30) };
    println!("{}", run(shared().await, &plan).await);
}
