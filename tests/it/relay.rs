//! The relay from end to end: the emulated cloud, the real journal, a real RabbitMQ, and a consumer that is not the relay.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tencent_vod_emulator::events::{EVENT_TYPES, sample};
use tencent_vod_emulator::{Action, ConfirmVerdict, Fault, FaultKind, IdleShape, Redelivery};
use tencent_vod_event::{Event, SubAppId};
use tokio::time::timeout;
use vodrelay::clock::Now as _;
use vodrelay::config::ConfirmAfter;
use vodrelay::journal::Journal;
use vodrelay::output::amqp::Topology;
use vodrelay_core::clock::{Moment, WallTime};
use vodrelay_core::outcome::OutputState;
use vodrelay_core::write::{PullId, Pulled, Write, Written};
use vodrelay_testkit::broker::{Broker, LIMIT, Received, shared};
use vodrelay_testkit::world::{WINDOW, World, carried, drained, put, settled};

/// A sample of some type, different for every number.
fn event(number: u64) -> String {
    let event_type = EVENT_TYPES[usize::try_from(number).unwrap() % EVENT_TYPES.len()];
    sample(event_type, number).unwrap()
}

fn message_ids(messages: &[Received]) -> BTreeSet<String> {
    messages.iter().map(Received::message_id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_events_of_every_type_through_everything_that_the_cloud_can_do() {
    let broker = shared().await;
    let apps = [1_500_000_001, 1_500_000_002, 1_500_000_003];
    let world = World::new(&broker.url(), &apps).await;
    // One sub-application gets its redeliveries under the same handle.
    world.emulator.change_settings(|settings| settings.queue.redelivery = Redelivery::NewHandle);
    let faults = world.emulator.faults();
    // At first every confirm is lost on its way, so that leases lapse and events come again.
    faults.add(Fault::always(FaultKind::Reset).on(Action::ConfirmEvents));
    for number in 0..1_000 {
        world.emulator.put(apps[usize::try_from(number).unwrap() % 3], event(number));
    }
    let running = world.start().await;
    world.until("events come again", |state| state.counts(apps[0]).redeliveries > 50).await;
    faults.clear();
    // Then answers are lost after the call took effect, some pulls come under one handle, and equal events happen.
    faults.add(Fault::always(FaultKind::AnswerLost).on(Action::ConfirmEvents).with_probability(0.1));
    faults.add(Fault::always(FaultKind::Reset).on(Action::ConfirmEvents).with_probability(0.1));
    faults.add(Fault::always(FaultKind::AnswerLost).on(Action::PullEvents).with_probability(0.01));
    faults.add(Fault::always(FaultKind::OneHandle).with_probability(0.05));
    for number in 1_000..5_000 {
        world.emulator.put(apps[usize::try_from(number).unwrap() % 3], event(number - number % 100 / 98));
    }
    world.until_confirmed().await;
    // What happened before can happen again: an equal event, long after the first was confirmed.
    faults.clear();
    world.emulator.put(apps[0], event(0));
    world.until_confirmed().await;
    world.until_journal_agrees().await;

    let snapshot = drained(running).await;
    let ledger = world.emulator.ledger(None);
    let messages = broker.drain(&world.queue, 5_001).await;
    assert_eq!(messages.len(), 5_001);
    assert_eq!(carried(&ledger, &messages), put(&ledger));
    assert_eq!(snapshot.publishes["acked"], 5_001);
    assert!(snapshot.redelivered > 100, "{}", snapshot.redelivered);
    assert_eq!(ledger.with_verdict(ConfirmVerdict::Late).count(), 0, "no confirm after its window");
    assert_eq!(ledger.calls_with_a_handle_twice(), []);
    assert_eq!(ledger.unconfirmed().count(), 0);

    // The journal's views agree with both ends.
    assert!(world.journalled_ids() == message_ids(&messages), "the same ids at both ends");
    let deliveries: usize = ledger.events.iter().map(|event| event.deliveries.len()).sum();
    let lost_with_their_answers =
        i64::try_from(deliveries).unwrap() - world.figure("SELECT count(*) FROM handle_log");
    assert!((0..500).contains(&lost_with_their_answers), "{lost_with_their_answers}");
    assert_eq!(
        world.figure("SELECT count(*) FROM event_log WHERE attempts <> 1"),
        0,
        "each was published once"
    );
    assert_eq!(world.figure("SELECT count(*) FROM handle_log WHERE outcome = 'open'"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redeliveries_under_the_same_handle_and_one_handle_on_different_events() {
    let broker = shared().await;
    let world = World::new(&broker.url(), &[7]).await;
    world.emulator.change_settings(|settings| settings.queue.redelivery = Redelivery::SameHandle);
    world.emulator.faults().add(Fault::always(FaultKind::OneHandle));
    world.emulator.faults().add(Fault::always(FaultKind::Reset).on(Action::ConfirmEvents));
    for number in 0..40 {
        world.emulator.put(7, event(number));
    }
    let running = world.start().await;
    world.until("events come again", |state| state.counts(7).redeliveries >= 40).await;
    world.emulator.faults().clear();
    world.until_confirmed().await;
    let snapshot = drained(running).await;
    let ledger = world.emulator.ledger(None);
    let messages = broker.drain(&world.queue, 40).await;
    assert_eq!(carried(&ledger, &messages), put(&ledger));
    assert_eq!(snapshot.publishes["acked"], 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_events_are_carried_byte_for_byte() {
    let broker = shared().await;
    let world = World::new(&broker.url(), &[0]).await;
    let big = format!(r#"{{"EventType":"Big","Text":"{}"}}"#, "x".repeat(1_000_000));
    let odd = [
        r#"{"EventType":"NobodyKnowsThis","Some":{"thing":[1,2.50,1e3,null]},"\u0041":"\u4f60"}"#,
        r#"{"FileUploadEvent":{"FileId":5285485487985271490}}"#,
        r#"{ "EventType" : null , "A":{"b":18446744073709551616}  }"#,
        r#"{"EventType":"With.Dots and # wild * cards","X":{"FileId":"1"}}"#,
        big.as_str(),
    ];
    for json in odd {
        world.emulator.put(0, json);
    }
    let running = world.start().await;
    world.until_confirmed().await;
    // An event without a handle is carried too; nobody can confirm it.
    world.emulator.faults().add(Fault::once(FaultKind::NoHandle));
    world.emulator.put(0, r#"{"EventType":"NoHandle"}"#);
    let messages = broker.drain(&world.queue, 6).await;
    drained(running).await;
    let ledger = world.emulator.ledger(None);
    assert_eq!(carried(&ledger, &messages), put(&ledger));
    let keys: BTreeSet<&str> = messages.iter().map(|message| message.routing_key.as_str()).collect();
    let expected = [
        "vod.0.Big",
        "vod.0.NoHandle",
        "vod.0.NobodyKnowsThis",
        "vod.0.With_Dots_and___wild___cards",
        "vod.0.unknown",
    ];
    assert_eq!(keys, expected.into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shape_of_idle_is_nothing_and_an_event_still_gets_through() {
    let broker = shared().await;
    for shape in [IdleShape::Error, IdleShape::Null, IdleShape::Empty, IdleShape::Absent] {
        let world = World::new(&broker.url(), &[0]).await;
        world.emulator.change_settings(|settings| settings.idle = shape);
        let running = world.start().await;
        world.until("idle answers", |state| state.stats().idle >= 3).await;
        world.emulator.put(0, event(1));
        world.until_confirmed().await;
        let snapshot = drained(running).await;
        assert_eq!(snapshot.deliveries, 1, "{shape:?}");
        assert_eq!(broker.drain(&world.queue, 1).await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_queue_that_answers_at_once_is_not_hammered() {
    let broker = shared().await;
    let mut world = World::new(&broker.url(), &[0]).await;
    world.config.relay.idle_backoff_min = Duration::from_millis(200);
    world.config.relay.idle_backoff_max = Duration::from_secs(5);
    world.emulator.faults().add(Fault::always(FaultKind::Idle { shape: IdleShape::Error }));
    let running = world.start().await;
    world.until("polls", |state| state.stats().idle >= 4).await;
    let begun = std::time::Instant::now();
    world.until("more polls", |state| state.stats().idle >= 8).await;
    // Four waits of at least the shortest one.
    assert!(begun.elapsed() >= Duration::from_millis(750), "{:?}", begun.elapsed());
    drained(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_handle_among_good_ones_delays_no_other() {
    let broker = shared().await;
    let world = World::new(&broker.url(), &[0]).await;
    world.emulator.faults().add(Fault::once(FaultKind::BadHandle { handle: None }));
    for number in 0..16 {
        world.emulator.put(0, event(number));
    }
    let running = world.start().await;
    world.until("fifteen are confirmed", |state| state.counts(0).confirmed == 15).await;
    let ledger = world.emulator.ledger(None);
    let first_lapse = ledger.events.iter().map(|event| event.deliveries[0].until).min().unwrap();
    let confirmed = ledger.events.iter().filter_map(|event| event.confirmed_at);
    assert_eq!(confirmed.filter(|at| *at < first_lapse).count(), 15);
    world.until_confirmed().await;
    let snapshot = drained(running).await;
    assert_eq!((snapshot.publishes["acked"], snapshot.let_go), (16, 1));
    assert_eq!(broker.drain(&world.queue, 16).await.len(), 16);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unroutable_events_are_parked_among_routable_ones_that_go_through() {
    let broker = shared().await;
    let mut world = World::new(&broker.url(), &[0]).await;
    world.config.amqp.queue = String::new();
    world.config.relay.publish_attempts = 2;
    // Only uploads have somewhere to go.
    let (connection, channel) = broker.channel().await;
    declare(&channel, &world.queue, "vod.0.NewFileUpload", &world.config.amqp.exchange).await;
    for number in 0..20 {
        let event_type = if number % 2 == 0 { "NewFileUpload" } else { "FileDeleted" };
        world.emulator.put(0, sample(event_type, number).unwrap());
    }
    let running = world.start().await;
    world.until_confirmed().await;
    let snapshot = drained(running).await;
    assert_eq!((snapshot.publishes["acked"], snapshot.publishes["returned"], snapshot.parked), (10, 20, 10));
    assert_eq!(broker.drain(&world.queue, 10).await.len(), 10);
    assert_eq!(
        world.figure("SELECT count(*) FROM event_log WHERE state = 'parked' AND confirmed_at IS NOT NULL"),
        10
    );
    assert_eq!(
        world.figure(
            "SELECT count(*) FROM event_log WHERE state = 'parked' AND message LIKE 'unroutable: %' AND error_code = 'VR-406'"
        ),
        10
    );
    drop((connection, channel));
}

async fn declare(channel: &lapin::Channel, queue: &str, key: &str, exchange: &str) {
    use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let nothing = lapin::types::FieldTable::default;
    let kind = lapin::ExchangeKind::Topic;
    channel.exchange_declare(exchange.into(), kind, durable, nothing()).await.unwrap();
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), durable, nothing()).await.unwrap();
    let bind = QueueBindOptions::default();
    channel.queue_bind(queue.into(), exchange.into(), key.into(), bind, nothing()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_nacks_and_everything_goes_through_once_there_is_room() {
    use lapin::types::{AMQPValue, FieldTable};
    let broker = shared().await;
    let mut world = World::new(&broker.url(), &[0]).await;
    world.config.amqp.queue = String::new();
    let (connection, channel) = broker.channel().await;
    let durable = lapin::options::ExchangeDeclareOptions { durable: true, ..Default::default() };
    let exchange = world.config.amqp.exchange.as_str();
    channel
        .exchange_declare(exchange.into(), lapin::ExchangeKind::Topic, durable, FieldTable::default())
        .await
        .unwrap();
    let mut limits = FieldTable::default();
    limits.insert("x-max-length".into(), AMQPValue::LongInt(5));
    limits.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let durable = lapin::options::QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(world.queue.as_str().into(), durable, limits).await.unwrap();
    let bind = lapin::options::QueueBindOptions::default();
    channel
        .queue_bind(world.queue.as_str().into(), exchange.into(), "vod.#".into(), bind, FieldTable::default())
        .await
        .unwrap();
    for number in 0..12 {
        world.emulator.put(0, event(number));
    }
    let running = world.start().await;
    let watch = running.watch();
    let nacked = async {
        while watch.snapshot().publishes.get("nacked").is_none_or(|n| *n < 12) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, nacked).await.expect("the full queue nacks");
    let mut messages = Vec::new();
    while messages.len() < 12 {
        messages.extend(broker.drain(&world.queue, 1).await);
    }
    world.until_confirmed().await;
    let snapshot = drained(running).await;
    let ledger = world.emulator.ledger(None);
    assert_eq!(carried(&ledger, &messages), put(&ledger));
    assert_eq!((snapshot.publishes["acked"], snapshot.parked), (12, 0));
    drop((connection, channel));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_exchange_stops_pulling_until_somebody_makes_it() {
    let broker = shared().await;
    let mut world = World::new(&broker.url(), &[0]).await;
    world.config.amqp.topology = Topology::Verify;
    world.emulator.put(0, event(1));
    let running = world.start().await;
    let mut status = running.watch().status();
    let seen = async {
        while !status.contains("does not exist") {
            tokio::time::sleep(Duration::from_millis(20)).await;
            status = running.watch().status();
        }
    };
    timeout(LIMIT, seen).await.expect("the missing exchange is told");
    assert_eq!(world.emulator.stats().calls(Action::PullEvents), 0, "nothing is pulled meanwhile");
    let (connection, channel) = broker.channel().await;
    declare(&channel, &world.queue, "vod.#", &world.config.amqp.exchange).await;
    world.until_confirmed().await;
    drained(running).await;
    assert_eq!(broker.drain(&world.queue, 1).await.len(), 1);
    drop((connection, channel));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_and_restarted_in_the_middle_loses_nothing() {
    let broker = Broker::start().await;
    let world = World::new(&broker.url(), &[0]).await;
    let running = settled(&broker, &world).await;
    for number in 0..400 {
        world.emulator.put(0, event(number));
    }
    world.until("half of it went through", |state| state.counts(0).confirmed >= 100).await;
    broker.kill().await;
    for number in 400..500 {
        world.emulator.put(0, event(number));
    }
    let down = async {
        while !running.watch().status().contains("output down") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, down).await.expect("the dead broker is told");
    broker.start_again().await;
    world.until_confirmed().await;
    drained(running).await;
    let ledger = world.emulator.ledger(None);
    let messages = broker.drain(&world.queue, 500).await;
    let ids = message_ids(&messages);
    assert_eq!(ids.len(), 500, "each event under its own id");
    assert!(world.journalled_ids() == ids, "the same ids at both ends");
    // Every repeat is named.
    let repeated = messages.len() - ids.len();
    let named = usize::try_from(world.figure("SELECT count(*) FROM event WHERE uncertain")).unwrap();
    assert!(repeated <= named, "{repeated} repeats, {named} named");
    assert_eq!(ledger.with_verdict(ConfirmVerdict::Late).count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_broker_is_noticed_and_nothing_is_lost() {
    let broker = Broker::start().await;
    let world = World::new(&broker.url(), &[0]).await;
    let running = settled(&broker, &world).await;
    for number in 0..50 {
        world.emulator.put(0, event(number));
    }
    world.until_confirmed().await;
    broker.freeze();
    for number in 50..100 {
        world.emulator.put(0, event(number));
    }
    let watch = running.watch();
    let unknown = async {
        while watch.snapshot().publishes.get("unknown").is_none_or(|n| *n == 0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, unknown).await.expect("publishes without an answer become unknown");
    broker.thaw();
    world.until_confirmed().await;
    drained(running).await;
    let messages = broker.drain(&world.queue, 100).await;
    assert_eq!(message_ids(&messages).len(), 100);
    let repeated = messages.len() - 100;
    let named = usize::try_from(world.figure("SELECT count(*) FROM event WHERE uncertain")).unwrap();
    assert!(repeated <= named, "{repeated} repeats, {named} named");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_broker_stops_pulling_and_nothing_is_published_twice() {
    let broker = Broker::start().await;
    let world = World::new(&broker.url(), &[0]).await;
    let running = settled(&broker, &world).await;
    world.emulator.put(0, event(0));
    world.until_confirmed().await;
    broker.raise_memory_alarm().await;
    for number in 1..40 {
        world.emulator.put(0, event(number));
    }
    let blocked = async {
        while !running.watch().status().contains("output blocked") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, blocked).await.expect("the alarm is told");
    // Polls that were under way end; after that there are no more.
    let calm = world.emulator.wait_until(|state| state.stats().pulls_now == 0, LIMIT).await;
    calm.unwrap();
    let pulls = world.emulator.stats().calls(Action::PullEvents);
    // Longer than every wait between polls, and than the window: events come visible again, and nobody pulls them.
    let visible = |state: &tencent_vod_emulator::State| state.counts(0).hidden == 0;
    world.until_within(2 * WINDOW, "the events are visible again", visible).await;
    assert_eq!(world.emulator.stats().calls(Action::PullEvents), pulls);
    broker.clear_memory_alarm().await;
    world.until_confirmed().await;
    let snapshot = drained(running).await;
    assert_eq!(snapshot.publishes.get("unknown"), None);
    let messages = broker.drain(&world.queue, 40).await;
    assert_eq!((messages.len(), message_ids(&messages).len()), (40, 40));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_confirm_after_journal_the_broker_may_be_away() {
    let broker = Broker::start().await;
    let mut world = World::new(&broker.url(), &[0]).await;
    world.config.relay.confirm_after = ConfirmAfter::Journal;
    world.config.relay.max_in_flight = 64;
    let running = settled(&broker, &world).await;
    broker.kill().await;
    for number in 0..300 {
        world.emulator.put(0, event(number));
    }
    world.until_confirmed().await;
    assert_eq!(world.figure("SELECT count(*) FROM event_log WHERE state = 'received'"), 300);
    broker.start_again().await;
    let messages = broker.drain(&world.queue, 300).await;
    drained(running).await;
    let ledger = world.emulator.ledger(None);
    assert_eq!(message_ids(&messages).len(), 300);
    assert_eq!(put(&ledger).len(), 300);
    world.until_journal_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_waits_for_the_poll_under_way_and_finishes_what_it_brings() {
    let broker = shared().await;
    let world = World::new(&broker.url(), &[0]).await;
    world.emulator.change_settings(|settings| settings.hold_ms = 5_000);
    let running = world.start().await;
    world.until("a poll is held", |state| state.stats().pulls_now == 1).await;
    running.drain().cancel();
    world.emulator.put(0, event(1));
    let snapshot = timeout(LIMIT, running.wait()).await.unwrap().unwrap();
    assert_eq!((snapshot.deliveries, snapshot.confirmed), (1, 1));
    assert_eq!(world.emulator.stats().events().unconfirmed(), 0);
    assert_eq!(broker.drain(&world.queue, 1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_starts_again_publishes_what_its_predecessor_journalled() {
    let broker = Broker::start().await;
    let mut world = World::new(&broker.url(), &[0]).await;
    world.config.relay.confirm_after = ConfirmAfter::Journal;
    let running = settled(&broker, &world).await;
    broker.kill().await;
    for number in 0..20 {
        world.emulator.put(0, event(number));
    }
    world.until_confirmed().await;
    drained(running).await;
    assert_eq!(world.figure("SELECT count(*) FROM event_log WHERE state = 'received'"), 20);
    broker.start_again().await;
    let running = world.start().await;
    let messages = broker.drain(&world.queue, 20).await;
    drained(running).await;
    assert_eq!((messages.len(), message_ids(&messages).len()), (20, 20));
    let ledger = world.emulator.ledger(None);
    assert_eq!(carried(&ledger, &messages), put(&ledger));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_that_throttles_fails_and_talks_rubbish_is_waited_for() {
    let broker = shared().await;
    let world = World::new(&broker.url(), &[0]).await;
    let faults = world.emulator.faults();
    for fault in [
        FaultKind::Throttle,
        FaultKind::Html { status: 502 },
        FaultKind::Rubbish,
        FaultKind::Truncated,
        FaultKind::Error { code: "InternalError".to_owned() },
        FaultKind::Error { code: "AuthFailure.SignatureFailure".to_owned() },
        FaultKind::Delay { ms: 100 },
    ] {
        faults.add(Fault::always(fault).with_probability(0.1));
    }
    for number in 0..100 {
        world.emulator.put(0, event(number));
    }
    let running = world.start().await;
    world.until_confirmed().await;
    drained(running).await;
    let ledger = world.emulator.ledger(None);
    let messages = broker.drain(&world.queue, 100).await;
    assert_eq!(carried(&ledger, &messages), put(&ledger));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_clock_is_corrected() {
    let broker = shared().await;
    let world = World::new(&broker.url(), &[0]).await;
    world.emulator.faults().add(Fault::always(FaultKind::ClockSkew { ms: 600_000 }));
    world.emulator.put(0, event(1));
    let running = world.start().await;
    world.until_confirmed().await;
    drained(running).await;
    assert_eq!(broker.drain(&world.queue, 1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sub_application_with_trouble_delays_no_other() {
    let broker = shared().await;
    let world = World::new(&broker.url(), &[1, 2]).await;
    world.emulator.change_settings(|settings| settings.sub_app_ids = vec![2]);
    for number in 0..100 {
        world.emulator.put(2, event(number));
    }
    let running = world.start().await;
    world.until("the other's events are confirmed", |state| state.counts(2).confirmed == 100).await;
    assert!(!matches!(*running.watch().output_state().borrow(), OutputState::Down(_)));
    drained(running).await;
    assert_eq!(broker.drain(&world.queue, 100).await.len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_in_the_journal_is_published_whatever_is_configured_now() {
    let broker = shared().await;
    let world = World::new(&broker.url(), &[8]).await;
    // An earlier run polled another sub-application, and had no time to publish this one and to confirm that one.
    {
        let options = vodrelay::journal::Options { path: world.journal_path() };
        let (journal, writer) = Journal::open(&options).unwrap();
        let sent_at = Moment::now();
        let lease = world_window().lease(sent_at);
        let five_days_ago = WallTime::now() - Duration::from_secs(5 * 86_400);
        let events = (0..2).map(|n| Arc::new(Event::parse(SubAppId(7), event(n).into()).unwrap()));
        let pulled = Pulled {
            pull: PullId(1),
            sub_app: SubAppId(7),
            request_id: "r-1".into(),
            lease,
            received_at: sent_at,
            pulled_at: five_days_ago,
            events: events.collect(),
            publish_now: false,
        };
        let written = journal.ask(Write::Record(Arc::new(pulled))).await.unwrap();
        let Written::Recorded(_, recorded) = written else { unreachable!() };
        journal.ask_at(Write::Published([recorded[0].event].into()), five_days_ago).await.unwrap();
        drop(journal);
        writer.join().unwrap();
    }
    let running = world.start().await;
    let messages = broker.drain(&world.queue, 1).await;
    assert_eq!(messages.len(), 1, "the one that was not published");
    world.emulator.put(8, event(9));
    world.until_confirmed().await;
    let settled = async {
        while world.figure("SELECT count(*) FROM event_log WHERE state = 'confirmed'") < 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, settled).await.expect("the published one is settled by the calendar");
    assert_eq!(world.figure("SELECT count(*) FROM event_log WHERE state = 'received'"), 0);
    drained(running).await;
}

fn world_window() -> vodrelay_core::lease::Window {
    vodrelay_core::lease::Window { length: WINDOW, margin: Duration::from_secs(1) }
}
