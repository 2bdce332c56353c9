//! The cloud is slow, throttles, breaks off, goes away, and talks rubbish.

use std::time::Instant;

use tencent_vod_emulator::{Action, Fault, FaultKind};
use vodrelay_testkit::broker::shared;
use vodrelay_testkit::world::{World, drained};

use super::gate::{Gate, Way};
use super::{accounted, put_events, told};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_come_after_the_lease_are_not_waited_for_and_nothing_is_published_twice() {
    let broker = shared().await;
    let world = World::new(&broker.url(), &[0]).await;
    let faults = world.emulator.faults();
    // Longer than the window, the lease and the time-out of a confirm.
    let slow = || FaultKind::SlowAnswer { ms: 6_000 };
    faults.add(Fault::always(slow()).on(Action::PullEvents).times(2));
    faults.add(Fault::always(slow()).on(Action::ConfirmEvents).times(2));
    put_events(&world, 0..60);
    let running = world.start().await;
    world.until_confirmed().await;
    world.until_journal_agrees().await;
    let snapshot = drained(running).await;
    assert!(snapshot.let_go >= 16, "a confirm without an answer ends with its lease: {snapshot:?}");
    assert!(snapshot.redelivered >= 16, "what a late pull brought comes again: {snapshot:?}");
    assert_eq!(accounted(&world, &broker.drain(&world.queue, 60).await), 0, "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_throttling_is_waited_out() {
    let broker = shared().await;
    let world = World::new(&broker.url(), &[0]).await;
    let faults = world.emulator.faults();
    faults.add(Fault::always(FaultKind::Throttle));
    put_events(&world, 0..100);
    let began = Instant::now();
    let running = world.start().await;
    told(
        &running,
        "problem; 0 events in flight; sub-application 0: PullEvents failed (RequestLimitExceeded)",
    )
    .await;
    world.until("some polls", |state| state.stats().calls(Action::PullEvents) >= 10).await;
    // While nothing is accepted, there is a tenth of a second between two calls at the least.
    assert!(began.elapsed().as_millis() >= 800, "{:?}", began.elapsed());
    // Then pulls get through, and confirms do not, for longer than the leases last.
    faults.clear();
    faults.add(Fault::always(FaultKind::Throttle).on(Action::ConfirmEvents));
    world.until("events come again", |state| state.counts(0).redeliveries >= 16).await;
    faults.clear();
    world.until_confirmed().await;
    told(&running, "idle").await;
    drained(running).await;
    assert_eq!(accounted(&world, &broker.drain(&world.queue, 100).await), 0, "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_break_off_in_the_middle_cost_a_redelivery_and_no_more() {
    let broker = shared().await;
    let world = World::new(&broker.url(), &[0]).await;
    let faults = world.emulator.faults();
    faults.add(Fault::always(FaultKind::Truncated).on(Action::PullEvents).times(3));
    faults.add(Fault::always(FaultKind::Truncated).on(Action::ConfirmEvents).with_probability(0.5));
    put_events(&world, 0..100);
    let running = world.start().await;
    told(&running, "connection_lost").await;
    world.until_confirmed().await;
    faults.clear();
    world.until_journal_agrees().await;
    drained(running).await;
    assert_eq!(accounted(&world, &broker.drain(&world.queue, 100).await), 0, "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_that_goes_away_in_the_middle_is_waited_for() {
    let broker = shared().await;
    let mut world = World::new(&broker.url(), &[0]).await;
    let mut gate = Gate::start(world.emulator.addr());
    world.set("VOD__ENDPOINT", &gate.http());
    let running = world.start().await;
    for round in 0..3 {
        put_events(&world, round * 100..(round + 1) * 100);
        let some = round * 100 + 20;
        world.until("some went through", |state| state.counts(0).confirmed >= some).await;
        gate.turn(Way::Gone).await;
        told(&running, "PullEvents failed (connect)").await;
        // Until every lease has lapsed.
        world.until("all events are visible again", |state| state.counts(0).hidden == 0).await;
        gate.turn(Way::Open).await;
        world.until_confirmed().await;
    }
    world.until_journal_agrees().await;
    drained(running).await;
    assert_eq!(accounted(&world, &broker.drain(&world.queue, 300).await), 0, "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish_pages_and_endless_bodies_are_told_apart_and_cost_bounded_memory() {
    /// What the client takes of one body at the most, and what can be under way in buffers and sockets.
    const TAKEN_AT_MOST: u64 = (64 + 16) << 20;
    let broker = shared().await;
    let mut world = World::new(&broker.url(), &[0]).await;
    let mut gate = Gate::start(world.emulator.addr());
    world.set("VOD__ENDPOINT", &gate.http());
    let faults = world.emulator.faults();
    put_events(&world, 0..50);
    faults.add(Fault::always(FaultKind::Html { status: 502 }));
    let running = world.start().await;
    told(&running, "PullEvents failed (http_502)").await;
    faults.clear();
    faults.add(Fault::always(FaultKind::Rubbish));
    told(&running, "PullEvents failed (not_json)").await;
    faults.clear();
    gate.turn(Way::Huge).await;
    told(&running, "PullEvents failed (too_large)").await;
    assert!(gate.own_answers() <= 3, "no hot loop");
    gate.turn(Way::Open).await;
    world.until_confirmed().await;
    told(&running, "idle").await;
    gate.turn(Way::Endless).await;
    put_events(&world, 50..100);
    told(&running, "PullEvents failed (too_large)").await;
    gate.turn(Way::Open).await;
    assert!((1 << 20..TAKEN_AT_MOST).contains(&gate.endless_bytes()), "{}", gate.endless_bytes());
    world.until_confirmed().await;
    drained(running).await;
    assert_eq!(accounted(&world, &broker.drain(&world.queue, 100).await), 0, "each once");
}
