//! A broker that is away while events come, and how fast and in which order they reach it when it is back.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use rusqlite::Connection;
use tokio::time::sleep;
use vodrelay_testkit::broker::{Broker, Received};

use crate::report::{Figure, Goal, median};
use crate::world::bare::{self, Shape};
use crate::world::cloud::{Behaviour, Cloud};
use crate::world::events::ONE_KB;
use crate::world::relay::{NO_LIMIT, Relay, Setup};
use crate::world::run::work_off;
use crate::world::{Bench, STEP_LIMIT, queue, until};

const SUB_APPS: u64 = 4;

pub(crate) async fn run(bench: &Bench) -> Vec<Figure> {
    let broker = bench.broker().await;
    let events: u64 = bench.pick(200_000, 5_000);
    let sample = bench.pick(20_000, 1_000);
    let rounds = bench.pick(3, 1);

    broker.kill().await;
    let cloud = Cloud::start(bench, Behaviour::UNLIMITED).await;
    let share = events / SUB_APPS;
    for sub_app in 1..=SUB_APPS {
        cloud.put(sub_app, ONE_KB.events(sub_app * share, share)).await;
    }
    let mut setup = Setup::new(bench, &cloud, broker, NO_LIMIT);
    setup.set("RELAY__CONFIRM_AFTER", "journal");
    setup.set("VOD__SUB_APP_IDS", "1,2,3,4");
    let began = Instant::now();
    let mut relay = Relay::start(bench, &setup);
    cloud.confirmed(events, STEP_LIMIT).await;
    let stored = events as f64 / began.elapsed().as_secs_f64();
    bench.say(&format!("{events} events are in the journal, at {stored:.0} events/s"));

    broker.start_again().await;
    let drained = arrivals(broker, &setup.queue, events, &mut relay).await;
    relay.drained().await;
    drop(cloud);
    bench.say(&format!("they are in the queue, at {drained:.0} events/s"));
    let mut order = Order::of_the_journal(&bench.folder().join(format!("{}.db", setup.queue)));
    let mut messages = Vec::new();
    queue::each(broker, &setup.queue, events, |message| {
        order.take(&message);
        if messages.len() < sample {
            messages.push(message);
        }
    })
    .await;
    assert_eq!(queue::delete(broker, &setup.queue).await, 0, "everything was published once");

    let (mut bare, mut own) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        bare.push(bare::publish(broker, &messages, Shape::relay()).await.events_per_second);
        own.push(ceiling(bench, broker, sample as u64).await);
    }
    let (bare, own) = (median(&bare), median(&own));
    vec![
        Figure::new("journalled and confirmed without a broker", stored, "events/s"),
        Figure::new("published when it is back", drained, "events/s"),
        Figure::new("bare, batches of 16", bare, "events/s"),
        Figure::new("the relay's own ceiling", own, "events/s"),
        Figure::new("published / bare", drained / bare, "").goal(Goal::AtLeast(0.6)),
        Figure::new("published / the relay's own ceiling", drained / own, ""),
        Figure::new("events out of order", order.inversions as f64, "").goal(Goal::AtMost(0.0)),
    ]
}

/// How fast events come into a queue that does not exist yet, from the first ones to the last.
async fn arrivals(broker: &Broker, name: &str, events: u64, relay: &mut Relay) -> f64 {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    // A question after a queue that is not there closes its channel.
    let (connection, _) = broker.channel().await;
    let channel = until("the relay's queue", STEP_LIMIT, async || {
        let channel = connection.create_channel().await.expect("a channel can be opened");
        let there = channel.queue_declare(name.into(), passive, FieldTable::default()).await;
        there.is_ok().then_some(channel)
    })
    .await;
    let mut first: Option<(Instant, u64)> = None;
    let mut moved = Instant::now();
    let mut last = 0;
    loop {
        let queue = channel.queue_declare(name.into(), passive, FieldTable::default()).await;
        let count = u64::from(queue.expect("the queue stays").message_count());
        let now = Instant::now();
        if count > last {
            (last, moved) = (count, now);
        }
        match first {
            None if count > 0 => first = Some((now, count)),
            Some((began, before)) if count == events => {
                return (count - before) as f64 / (now - began).as_secs_f64();
            }
            _ => {}
        }
        assert!(count <= events, "everything is published once");
        assert!(moved.elapsed() < STEP_LIMIT, "{last} of {events} events are in the queue, and no more come");
        relay.assert_alive();
        sleep(Duration::from_millis(10)).await;
    }
}

/// What the order of the messages shows. Polls overlap, so that the relay received the events in an order of its own: that of
/// their numbers in its journal.
struct Order {
    received: HashMap<String, u64>,
    newest: HashMap<String, u64>,
    /// Events that came after a later one of the same sub-application.
    inversions: u64,
}

impl Order {
    fn of_the_journal(path: &Path) -> Self {
        let journal = Connection::open(path).expect("the journal is where it was");
        let mut rows = journal
            .prepare("SELECT message_id FROM event_log ORDER BY id")
            .expect("the view is one of the stable ones");
        let ids = rows.query_map([], |row| row.get(0)).expect("the view can be read");
        let received =
            ids.zip(0..).map(|(id, place)| (id.expect("an event has a message id"), place)).collect();
        Self { received, newest: HashMap::new(), inversions: 0 }
    }

    fn take(&mut self, message: &Received) {
        let sub_app = match message.header("x-vod-sub-app-id") {
            Some(AMQPValue::LongLongInt(id)) => id.to_string(),
            other => panic!("the sub-application is in a header: {other:?}"),
        };
        let number = self.received[&message.message_id()];
        let newest = self.newest.entry(sub_app).or_insert(number);
        if number < *newest {
            self.inversions += 1;
        }
        *newest = number.max(*newest);
    }
}

/// What the relay itself does on this machine while the broker is there, as the scenario `ceiling` has it.
async fn ceiling(bench: &Bench, broker: &Broker, events: u64) -> f64 {
    let cloud = Cloud::start(bench, Behaviour::UNLIMITED).await;
    cloud.put(0, ONE_KB.events(0, events)).await;
    let setup = Setup::new(bench, &cloud, broker, NO_LIMIT);
    let run = work_off(bench, &cloud, broker, &setup, events).await;
    assert_eq!(u64::from(queue::delete(broker, &setup.queue).await), events, "everything was published once");
    run.events_per_second()
}
